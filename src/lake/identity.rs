//! `_state/lake.json`: what a lake is. Created once, before anything else; all runs agree with it.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{self, Partition, date_of};
use super::store::{Expected, PutOutcome, Store, Tag};
use super::{ATTEMPTS, LakeError, pause};
use crate::ids::{AccountId, PlanExecutionId};
use crate::pii::{PiiRequest, Policy, Treatment};

/// The version of the layout of a lake.
pub const FORMAT: u32 = 1;

/// The hash of summaries: see `source::content_hash`.
const CONTENT_HASH: &str = "canonical-xxh3-64";

/// The hash that assigns an execution to a bucket: XXH3-64 of its id, modulo the buckets.
const BUCKET_HASH: &str = "xxh3-64";

/// What a lake is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of the layout.
    pub format: u32,
    /// The account that the lake holds.
    pub account_id: AccountId,
    /// When the lake was born.
    pub created_at: Timestamp,
    /// Unique to the put.
    pub write_id: String,
    /// The name of the content hash.
    pub content_hash: String,
    /// The name of the bucket hash.
    pub bucket_hash: String,
    /// What is done with personal data.
    #[serde(default)]
    pub pii: Policy,
    /// How many buckets the dates have, oldest rule first; the last rule that has begun counts.
    pub buckets: Vec<BucketRule>,
}

/// From a date on, partitions have `count` buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRule {
    /// The first date; `None` for the rule that the lake was born with.
    pub from: Option<Date>,
    /// Buckets of a date.
    pub count: u32,
}

impl Identity {
    fn new(account: &AccountId, now: Timestamp, buckets: u32, pii: Policy) -> Self {
        Self {
            format: FORMAT,
            account_id: account.clone(),
            created_at: now,
            write_id: Ulid::generate().to_string(),
            content_hash: CONTENT_HASH.to_owned(),
            bucket_hash: BUCKET_HASH.to_owned(),
            pii,
            buckets: vec![BucketRule {
                from: None,
                count: buckets,
            }],
        }
    }

    /// The partition of an execution: its UTC date, and its bucket of that date.
    pub fn partition(&self, id: &PlanExecutionId, start: Timestamp) -> Partition {
        let date = date_of(start);
        let buckets = self.buckets_of(date);
        let bucket = xxh3_64(id.as_str().as_bytes()) % u64::from(buckets);
        Partition {
            date,
            bucket: u32::try_from(bucket).unwrap_or_default(),
            buckets,
        }
    }

    /// The buckets of a date.
    pub fn buckets_of(&self, date: Date) -> u32 {
        let begun = |rule: &&BucketRule| rule.from.is_none_or(|from| from <= date);
        self.buckets
            .iter()
            .rfind(begun)
            .map_or(1, |rule| rule.count.max(1))
    }

    /// Reads the identity of a lake: `None` where there is no lake.
    ///
    /// # Errors
    ///
    /// [`LakeError::Identity`] where it is damaged or of a newer version of this program.
    pub async fn read(store: &Store) -> Result<Option<(Self, Tag)>, LakeError> {
        let Some((bytes, tag)) = store.get(layout::LAKE).await? else {
            return Ok(None);
        };
        let unusable = |reason| LakeError::Identity {
            store: store.shown().to_owned(),
            reason,
        };
        let identity: Self =
            serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        for (what, found, known) in [
            ("format", identity.format.to_string(), FORMAT.to_string()),
            (
                "content_hash",
                identity.content_hash.clone(),
                CONTENT_HASH.to_owned(),
            ),
            (
                "bucket_hash",
                identity.bucket_hash.clone(),
                BUCKET_HASH.to_owned(),
            ),
        ] {
            if found != known {
                return Err(unusable(format!(
                    "its {what} is `{found}`, this version knows `{known}`"
                )));
            }
        }
        Ok(Some((identity, tag)))
    }

    /// Reads the identity of a lake, or gives birth to one. True where it was born just now.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`] where the lake holds another account, [`LakeError::Pii`] where it
    /// treats personal data in another way than is asked for.
    pub async fn agree(
        store: &Store,
        account: &AccountId,
        now: Timestamp,
        buckets: Option<u32>,
        pii: &PiiRequest,
    ) -> Result<(Self, bool), LakeError> {
        let mut born = false;
        for attempt in 0..ATTEMPTS {
            pause(attempt).await;
            let Some((identity, tag)) = Self::read(store).await? else {
                let identity = Self::new(account, now, buckets.unwrap_or(1), pii.policy());
                let put = store
                    .put(layout::LAKE, identity.encode(), &Expected::Absent)
                    .await?;
                born |= matches!(put, PutOutcome::Written(_));
                continue;
            };
            identity.is_of(store, account)?;
            identity.treatment(store, pii)?;
            let Some(changed) = buckets.and_then(|count| identity.with_buckets(count, now)) else {
                return Ok((identity, born));
            };
            let expected = Expected::Version(tag);
            store.put(layout::LAKE, changed.encode(), &expected).await?;
        }
        Err(LakeError::Contended {
            what: layout::LAKE.to_owned(),
        })
    }

    /// Reads the identity of a lake that is to take in rows of a lake of the identity `like`, or gives
    /// birth to it: of the same account and treatment of personal data, which is in the rows already.
    /// `buckets` is how many all of its dates shall have; by default they are as in `like`.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`], [`LakeError::OtherPii`].
    pub async fn adopt(
        store: &Store,
        like: &Self,
        now: Timestamp,
        buckets: Option<u32>,
    ) -> Result<Self, LakeError> {
        for attempt in 0..ATTEMPTS {
            pause(attempt).await;
            let Some((identity, _)) = Self::read(store).await? else {
                let born = Self::new(&like.account_id, now, 1, like.pii.clone());
                let rules = buckets.map(|count| vec![BucketRule { from: None, count }]);
                let born = Self {
                    buckets: rules.unwrap_or_else(|| like.buckets.clone()),
                    ..born
                };
                let put = store.put(layout::LAKE, born.encode(), &Expected::Absent);
                put.await?;
                continue;
            };
            identity.is_of(store, &like.account_id)?;
            if identity.pii != like.pii {
                return Err(LakeError::OtherPii {
                    store: store.shown().to_owned(),
                });
            }
            return Ok(identity);
        }
        Err(LakeError::Contended {
            what: layout::LAKE.to_owned(),
        })
    }

    /// Refuses to work on the lake in `store` for another account than the one that it holds.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`].
    pub fn is_of(&self, store: &Store, account: &AccountId) -> Result<(), LakeError> {
        if self.account_id == *account {
            return Ok(());
        }
        Err(LakeError::OtherAccount {
            store: store.shown().to_owned(),
            theirs: self.account_id.clone(),
            ours: account.clone(),
        })
    }

    /// What becomes of personal data on its way into the lake in `store`.
    ///
    /// # Errors
    ///
    /// [`LakeError::Pii`] where the lake does something else than is asked for.
    pub fn treatment(&self, store: &Store, wish: &PiiRequest) -> Result<Treatment, LakeError> {
        wish.agree(&self.pii).map_err(|source| LakeError::Pii {
            store: store.shown().to_owned(),
            source,
        })
    }

    /// The identity with another number of buckets from the day after tomorrow on, so that no
    /// running process can disagree about a date that it writes; `None` where nothing changes.
    fn with_buckets(&self, count: u32, now: Timestamp) -> Option<Self> {
        if self.buckets.last().is_some_and(|rule| rule.count == count) {
            return None;
        }
        let today = date_of(now);
        let from = today.tomorrow().and_then(Date::tomorrow).ok()?;
        let mut changed = Self {
            write_id: Ulid::generate().to_string(),
            ..self.clone()
        };
        changed
            .buckets
            .retain(|rule| rule.from.is_none_or(|begun| begun < from));
        changed.buckets.push(BucketRule {
            from: Some(from),
            count,
        });
        Some(changed)
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec_pretty(self)
            .expect("the identity has text keys only")
            .into()
    }
}

/// Refuses to make a lake where one has been, or within another.
///
/// # Errors
///
/// [`LakeError::Identity`], [`LakeError::Within`].
pub async fn refuse_birth(store: &Store) -> Result<(), LakeError> {
    refuse_within(store)?;
    for folder in [layout::CHECKPOINTS, layout::RAW] {
        // Another run may be giving birth: its identity comes first.
        if !store.list(folder).await?.is_empty() && Identity::read(store).await?.is_none() {
            return Err(LakeError::Identity {
                store: store.shown().to_owned(),
                reason: format!(
                    "it is not there, but objects in `{folder}` are; put it back from a backup, or choose another place"
                ),
            });
        }
    }
    Ok(())
}

/// Refuses to make a lake within another of the same disk, where a query of that one would meet its files.
fn refuse_within(store: &Store) -> Result<(), LakeError> {
    let Some(folder) = store.folder() else {
        return Ok(());
    };
    let there = folder
        .ancestors()
        .find_map(|above| above.canonicalize().ok());
    let is_lake = |above: &&std::path::Path| above.join(layout::LAKE).exists();
    match there
        .iter()
        .flat_map(|there| there.ancestors())
        .find(is_lake)
    {
        None => Ok(()),
        Some(outer) => Err(LakeError::Within {
            store: store.shown().to_owned(),
            outer: outer.display().to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::pii::{Key, Mode};

    const NOW: &str = "2026-11-24T10:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn store() -> Store {
        Store::over(Arc::new(InMemory::new()), "".into(), "memory")
    }

    #[test]
    fn the_bucket_of_an_execution_is_frozen() {
        let identity = Identity::new(&AccountId::new("a"), now(), 8, Policy::Keep);
        let buckets = ["-Xy_0", "abc", "qBOjSRxth5iimR4S6NGvHg"]
            .map(|id| identity.partition(&PlanExecutionId::new(id), now()).bucket);
        assert_eq!(
            buckets,
            [5, 0, 5],
            "an execution in another bucket would stand twice"
        );
    }

    #[tokio::test]
    async fn a_lake_holds_one_account() {
        let store = store();
        let (ours, theirs) = (AccountId::new("ours"), AccountId::new("theirs"));
        let (first, born) = Identity::agree(&store, &ours, now(), None, &PiiRequest::default())
            .await
            .unwrap();
        assert!(born);
        assert_eq!(
            Identity::agree(&store, &ours, now(), None, &PiiRequest::default())
                .await
                .unwrap(),
            (first, false)
        );
        let refused = Identity::agree(&store, &theirs, now(), None, &PiiRequest::default())
            .await
            .unwrap_err();
        assert!(
            matches!(refused, LakeError::OtherAccount { .. }),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_lake_treats_personal_data_in_one_way() {
        let store = store();
        let account = AccountId::new("a");
        let wish = |mode, key: Option<&str>| PiiRequest {
            mode,
            key: key.and_then(Key::new),
        };
        let hash = wish(Some(Mode::Hash), Some("a key that is long enough"));
        let (born, _) = Identity::agree(&store, &account, now(), None, &hash)
            .await
            .unwrap();
        for wrong in [
            wish(None, None),
            wish(Some(Mode::Keep), None),
            wish(Some(Mode::Drop), None),
            wish(None, Some("another key, long enough")),
        ] {
            let refused = Identity::agree(&store, &account, now(), Some(2), &wrong).await;
            assert!(matches!(refused, Err(LakeError::Pii { .. })), "{wrong:?}");
        }
        let again = wish(None, Some(" a key that is long enough\n"));
        let (same, _) = Identity::agree(&store, &account, now(), None, &again)
            .await
            .unwrap();
        assert_eq!(same, born);
    }

    #[tokio::test]
    async fn a_lake_that_tells_nothing_of_personal_data_keeps_it() {
        let identity = Identity::new(&AccountId::new("a"), now(), 1, Policy::Drop);
        let mut json = serde_json::to_value(&identity).unwrap();
        assert!(json.as_object_mut().unwrap().remove("pii").is_some());
        let read: Identity = serde_json::from_value(json).unwrap();
        assert_eq!(read.pii, Policy::Keep);
    }

    #[tokio::test]
    async fn new_buckets_hold_from_the_day_after_tomorrow_on() {
        let store = store();
        let account = AccountId::new("a");
        Identity::agree(&store, &account, now(), Some(2), &PiiRequest::default())
            .await
            .unwrap();
        let (identity, _) =
            Identity::agree(&store, &account, now(), Some(4), &PiiRequest::default())
                .await
                .unwrap();
        let buckets = ["2020-01-01", "2026-11-25", "2026-11-26", "2027-01-01"]
            .map(|date| identity.buckets_of(date.parse().unwrap()));
        assert_eq!(buckets, [2, 2, 4, 4]);
    }
}
