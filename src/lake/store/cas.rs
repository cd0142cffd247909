//! Conditional put: compare-and-swap on an object, with a certain outcome.
//!
//! The response to a put can be lost after the put took effect, and `object_store` retries puts.
//! So "already exists" may mean our own object, and "conflict" may mean that nothing was written.
//! After **any** error the object is read back: bodies carry a unique write id, so equal bytes are
//! ours.

use std::time::Duration;

use bytes::Bytes;
use object_store::{PutMode, UpdateVersion};

use super::{Store, StoreError, Tag, local};

/// The condition of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The object does not exist: the put creates it.
    Absent,
    /// The object has this version: the put replaces it.
    Version(Tag),
}

/// The result of a put. A lost race is a result, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The body was written, in this version.
    Written(Tag),
    /// The condition did not hold: another run wrote first.
    Lost,
}

/// Attempts at a put that fails without changing the object.
const ATTEMPTS: u32 = 4;

impl Store {
    /// Writes `body` to `path` if `expected` holds.
    ///
    /// `body` must be unique among all bodies ever written there: it carries a write id.
    ///
    /// # Errors
    ///
    /// [`StoreError`] for permanent errors, and after `ATTEMPTS` transient ones. The put may have
    /// taken effect, or may still do so; the next read of the object shows it.
    pub async fn put(
        &self,
        path: &str,
        body: Bytes,
        expected: &Expected,
    ) -> Result<PutOutcome, StoreError> {
        let mut attempt = 1;
        loop {
            let error = match self.put_once(path, body.clone(), expected).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            // No attempt to read would be answered.
            if matches!(
                error,
                StoreError::Unavailable { .. } | StoreError::Interrupted { .. }
            ) {
                return Err(error);
            }
            match self.read_back(path, &body, expected).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) | Err(_) if attempt < ATTEMPTS && error.is_transient() => {}
                Ok(None) | Err(_) => return Err(error),
            }
            // Nothing changed, so the same put can be retried.
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            attempt += 1;
        }
    }

    /// Reads the outcome of a put from the object; `None` if the put did not take effect (yet).
    async fn read_back(
        &self,
        path: &str,
        body: &Bytes,
        expected: &Expected,
    ) -> Result<Option<PutOutcome>, StoreError> {
        let current = self.get(path).await?;
        Ok(match (current, expected) {
            (Some((bytes, tag)), _) if bytes == *body => Some(PutOutcome::Written(tag)),
            (Some((_, tag)), Expected::Version(expected)) if tag == *expected => None,
            (None, Expected::Absent) => None,
            (Some(_) | None, _) => Some(PutOutcome::Lost),
        })
    }

    async fn put_once(
        &self,
        path: &str,
        body: Bytes,
        expected: &Expected,
    ) -> Result<PutOutcome, StoreError> {
        if let Some(folder) = &self.folder {
            // The outcome of a local write is certain.
            let (expected, lock) = (expected.clone(), self.lock_handle.guard());
            return local::put(folder, path, body, Some(expected), lock).await;
        }
        let mode = match expected {
            Expected::Absent => PutMode::Create,
            Expected::Version(tag) => PutMode::Update(UpdateVersion {
                e_tag: Some(tag.e_tag.clone()),
                version: tag.version.clone(),
            }),
        };
        match self.put_object(path, body, mode).await {
            Ok(result) => {
                let tag = self.require_tag(path, result.e_tag, result.version)?;
                Ok(PutOutcome::Written(tag))
            }
            Err(source) => Err(self.failed("write", path, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    fn store() -> Store {
        Store::from_object_store(
            Arc::new(InMemory::new()),
            object_store::path::Path::from("lake"),
            "memory",
        )
    }

    #[tokio::test]
    async fn put_writes_only_if_the_condition_holds() {
        let store = store();
        let put = |body: &'static str, expected: Expected| {
            let store = store.clone();
            async move {
                store
                    .put("a/b", Bytes::from_static(body.as_bytes()), &expected)
                    .await
                    .unwrap()
            }
        };
        let PutOutcome::Written(first) = put("1", Expected::Absent).await else {
            panic!("the object did not exist")
        };
        assert_eq!(put("2", Expected::Absent).await, PutOutcome::Lost);
        let PutOutcome::Written(_) = put("3", Expected::Version(first.clone())).await else {
            panic!("the object had this version")
        };
        assert_eq!(put("4", Expected::Version(first)).await, PutOutcome::Lost);
        assert_eq!(store.get("a/b").await.unwrap().unwrap().0, "3");
    }

    #[tokio::test]
    async fn put_that_finds_its_own_body_succeeds() {
        let store = store();
        let body = Bytes::from_static(b"mine");
        store.overwrite("a/b", body.clone()).await.unwrap();
        let outcome = store.put("a/b", body, &Expected::Absent).await.unwrap();
        assert!(
            matches!(outcome, PutOutcome::Written(_)),
            "an earlier attempt at the same put created it"
        );
    }
}
