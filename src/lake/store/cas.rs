//! The one conditional put: compare-and-swap on an object, sure of its outcome.
//!
//! An answer to a put can be lost after the put landed, and `object_store` repeats a put by itself,
//! so "already exists" may be our own object and "conflict" may have left none. So after **any** error
//! the object is read back: bodies carry a unique write id, and equal bytes are ours.

use std::time::Duration;

use bytes::Bytes;
use object_store::{Error as ObjectError, PutMode, UpdateVersion};

use super::local::{Onto, Written};
use super::{Store, StoreError, Tag, local};

/// What must stand under the path when the put takes effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: the put creates.
    Absent,
    /// This version: the put replaces it.
    Version(Tag),
}

/// How a put ended. Losing is a result, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The body stands there, in this version.
    Written(Tag),
    /// Another run was faster; what it wrote stands there.
    Lost,
}

/// Times that a put is tried where the store answers with errors and nothing changed.
const ATTEMPTS: u32 = 4;

impl Store {
    /// Puts `body` under `path` if `expected` stands there, and says for sure which of both it was.
    ///
    /// `body` must be unique among all bodies ever put there: it carries a write id.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where the store fails for good, or again and again. The put may then have
    /// landed, or may land yet; whoever reads the object next will see.
    pub async fn put(
        &self,
        path: &str,
        body: Bytes,
        expected: &Expected,
    ) -> Result<PutOutcome, StoreError> {
        let mut attempt = 1;
        loop {
            let error = match self.put_once(path, body.clone(), expected).await {
                Ok(landing) => return Ok(landing),
                Err(error) => error,
            };
            match self.read_back(path, &body, expected).await {
                Ok(Some(landing)) => return Ok(landing),
                Ok(None) | Err(_) if attempt < ATTEMPTS && error.may_pass() => {}
                Ok(None) | Err(_) => return Err(error),
            }
            // Read-back says that nothing changed: the same put again, after a while.
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
            attempt += 1;
        }
    }

    /// `None` where what was expected still stands, so that the put did not take effect (yet).
    async fn read_back(
        &self,
        path: &str,
        body: &Bytes,
        expected: &Expected,
    ) -> Result<Option<PutOutcome>, StoreError> {
        let there = self.get(path).await?;
        Ok(match (there, expected) {
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
            let onto = match expected {
                Expected::Absent => Onto::Nothing,
                Expected::Version(tag) => Onto::Version(tag.clone()),
            };
            // On a disk the answer is certain.
            return Ok(
                match local::put(folder, path, body, onto, self.held.keep()).await? {
                    Written::Done(tag) => PutOutcome::Written(tag),
                    Written::Refused => PutOutcome::Lost,
                },
            );
        }
        let mode = match expected {
            Expected::Absent => PutMode::Create,
            Expected::Version(Tag(tag)) => PutMode::Update(UpdateVersion {
                e_tag: Some(tag.clone()),
                version: None,
            }),
        };
        match self.put_object(path, body, mode).await {
            Ok(result) => Ok(PutOutcome::Written(self.tagged(path, result.e_tag)?)),
            Err(source) => Err(self.failed("write", path, source)),
        }
    }
}

impl StoreError {
    /// Whether the same request may succeed when it is sent again.
    fn may_pass(&self) -> bool {
        match self {
            Self::Objects { source, .. } => !matches!(
                source,
                ObjectError::PermissionDenied { .. }
                    | ObjectError::Unauthenticated { .. }
                    | ObjectError::NotImplemented { .. }
                    | ObjectError::NotSupported { .. }
                    | ObjectError::InvalidPath { .. }
                    | ObjectError::UnknownConfigurationKey { .. }
            ),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    fn store() -> Store {
        Store::over(
            Arc::new(InMemory::new()),
            object_store::path::Path::from("lake"),
            "memory",
        )
    }

    #[tokio::test]
    async fn a_put_lands_on_what_it_expects_and_loses_otherwise() {
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
            panic!("created")
        };
        assert_eq!(put("2", Expected::Absent).await, PutOutcome::Lost);
        let PutOutcome::Written(_) = put("3", Expected::Version(first.clone())).await else {
            panic!("replaced")
        };
        assert_eq!(put("4", Expected::Version(first)).await, PutOutcome::Lost);
        assert_eq!(store.get("a/b").await.unwrap().unwrap().0, "3");
    }

    #[tokio::test]
    async fn a_put_that_finds_its_own_body_has_landed() {
        let store = store();
        let body = Bytes::from_static(b"mine");
        store.overwrite("a/b", body.clone()).await.unwrap();
        let landing = store.put("a/b", body, &Expected::Absent).await.unwrap();
        assert!(
            matches!(landing, PutOutcome::Written(_)),
            "an earlier try of the same put created it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_is_given_up() {
        let never = Duration::from_secs(1_000_000);
        let slow = ThrottleConfig {
            wait_put_per_call: never,
            wait_list_per_call: never,
            ..ThrottleConfig::default()
        };
        let objects = Arc::new(ThrottledStore::new(InMemory::new(), slow));
        let mut store = Store::over(objects, object_store::path::Path::from("lake"), "memory");
        store.is_impatient = true;
        let begun = tokio::time::Instant::now();
        let body = Bytes::from(vec![0; 10 << 20]);
        let refused = store.put("a/b", body, &Expected::Absent).await.unwrap_err();
        let said = crate::causes::chain(&refused);
        assert!(said.contains("no answer within 100 s"), "{said}");
        assert!(store.list("a").await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(600));
    }
}
