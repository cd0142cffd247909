//! The identity of a lake, in `_state/lake.json`. Created before any other object of the lake; every run
//! checks its settings against it.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use xxhash_rust::xxh3::xxh3_64;

use super::features::{self, DELTA, FORMAT, PERIOD_MONTH, newer};
use super::layout::{self, Partition, Period, date_of};
use super::store::{Expected, PutOutcome, Store, Tag};
use super::{ATTEMPTS, LakeError, OpenOptions, back_off};
use crate::checkpoint::UnknownFields;
use crate::ids::{AccountId, PlanExecutionId};
use crate::pii::{PiiRequest, Policy, Redactor};
use crate::tables::{Account, DEFAULT_BASE_URL};

/// The hash of summaries: see `source::content_hash`.
const CONTENT_HASH: &str = "canonical-xxh3-64";

/// The hash that assigns an execution to a bucket: XXH3-64 of its id, modulo the buckets.
const BUCKET_HASH: &str = "xxh3-64";

/// The identity of a lake: the settings that never change, or change for future dates only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of the layout.
    pub format: u32,
    /// The features that a program must know.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// The account of the lake.
    pub account_id: AccountId,
    /// The base URL of the API when the lake was created, for links to the Harness UI.
    #[serde(default = "default_base_url")]
    pub base_url: String,
    /// The creation time of the lake.
    pub created_at: Timestamp,
    /// Unique to the put.
    pub write_id: String,
    /// The name of the content hash.
    pub content_hash: String,
    /// The name of the bucket hash.
    pub bucket_hash: String,
    /// The handling of personal data.
    #[serde(default)]
    pub pii: Policy,
    /// The period of the table objects.
    #[serde(default)]
    pub period: Period,
    /// The number of buckets by date, oldest rule first. The last rule that begins on or before a
    /// date applies.
    pub buckets: Vec<BucketRule>,
    /// The Delta tables; `None` if the lake never had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaSetting>,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// The Delta tables of a lake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaSetting {
    /// True if runs update them.
    pub on: bool,
    /// The number of the newest complete comparison that was requested. Runs compare all objects with a table whose
    /// last complete comparison has a lower number.
    pub comparison: u64,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

fn default_base_url() -> String {
    DEFAULT_BASE_URL.to_owned()
}

/// The number of buckets from a date on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRule {
    /// The first date; `None` for the rule that the lake was created with.
    pub from: Option<Date>,
    /// Buckets per date.
    pub count: u32,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl BucketRule {
    fn new(from: Option<Date>, count: u32) -> Self {
        Self {
            from,
            count,
            unknown: UnknownFields::new(),
        }
    }
}

impl Identity {
    fn new(
        (account, base_url): (&AccountId, &str),
        now: Timestamp,
        buckets: u32,
        pii: Policy,
        period: Period,
    ) -> Self {
        Self {
            format: FORMAT,
            features: match period {
                Period::Day => BTreeSet::new(),
                Period::Month => BTreeSet::from([PERIOD_MONTH.to_owned()]),
            },
            account_id: account.clone(),
            base_url: base_url.to_owned(),
            created_at: now,
            write_id: Ulid::generate().to_string(),
            content_hash: CONTENT_HASH.to_owned(),
            bucket_hash: BUCKET_HASH.to_owned(),
            pii,
            period,
            buckets: vec![BucketRule::new(None, buckets)],
            delta: None,
            unknown: UnknownFields::new(),
        }
    }

    /// Returns the account for the columns of the tables.
    pub(super) fn table_account(&self) -> Account {
        Account::new(&self.account_id, &self.base_url)
    }

    /// Returns true if runs update the Delta tables.
    pub fn has_delta(&self) -> bool {
        self.delta.as_ref().is_some_and(|delta| delta.on)
    }

    /// Returns the number of the newest complete comparison of the Delta tables that was requested.
    pub(super) fn delta_comparison(&self) -> u64 {
        self.delta.as_ref().map_or(0, |delta| delta.comparison)
    }

    /// Returns the identity of a lake with or without Delta tables. Tables that are turned on may be stale, so they are
    /// compared completely.
    fn with_delta(&self, on: bool) -> Self {
        let mut changed = Self {
            write_id: Ulid::generate().to_string(),
            ..self.clone()
        };
        let delta = changed.delta.get_or_insert_default();
        delta.on = on;
        if on {
            delta.comparison += 1;
            changed.features.insert(DELTA.to_owned());
        } else {
            changed.features.remove(DELTA);
        }
        changed
    }

    /// Turns the Delta tables of a lake on or off.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`], [`LakeError::Newer`], [`LakeError::Missing`].
    pub(super) async fn set_delta(store: &Store, on: bool) -> Result<Self, LakeError> {
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let Some((identity, tag)) = Self::read(store).await? else {
                return Err(LakeError::Missing {
                    store: store.location().to_owned(),
                });
            };
            if identity.has_delta() == on {
                return Ok(identity);
            }
            let changed = identity.with_delta(on);
            let expected = Expected::Version(tag);
            let put = store.put(layout::LAKE, changed.encode(), &expected).await?;
            if let PutOutcome::Written(_) = put {
                return Ok(changed);
            }
        }
        Err(LakeError::Contended {
            what: layout::LAKE.to_owned(),
        })
    }

    /// Returns the partition of an execution: the UTC date of its start, and a bucket by its id.
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

    /// Returns the number of buckets of a date.
    pub fn buckets_of(&self, date: Date) -> u32 {
        let applies = |rule: &&BucketRule| rule.from.is_none_or(|from| from <= date);
        self.buckets
            .iter()
            .rfind(applies)
            .map_or(1, |rule| rule.count.max(1))
    }

    /// Reads the identity of a lake; `None` if the lake does not exist.
    ///
    /// # Errors
    ///
    /// [`LakeError::Newer`] if a newer version of this program wrote it, [`LakeError::Identity`] if it is
    /// damaged.
    pub async fn read(store: &Store) -> Result<Option<(Self, Tag)>, LakeError> {
        let Some((bytes, tag)) = store.get(layout::LAKE).await? else {
            return Ok(None);
        };
        let unusable = |reason| LakeError::Identity {
            store: store.location().to_owned(),
            reason,
        };
        features::check(layout::LAKE, &bytes).map_err(|newer| newer.at(store))?;
        let identity: Self = serde_json::from_slice(&bytes)
            .map_err(|error| unusable(format!("is damaged: {error}")))?;
        for (key, found, known) in [
            ("content_hash", &*identity.content_hash, CONTENT_HASH),
            ("bucket_hash", &identity.bucket_hash, BUCKET_HASH),
        ] {
            if found != known {
                return Err(newer(layout::LAKE, key, found, known).at(store).into());
            }
        }
        Ok(Some((identity, tag)))
    }

    /// Reads the identity of a lake and checks it against `options`. Creates it if the lake does not
    /// exist, and returns true then.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`], [`LakeError::Pii`], [`LakeError::OtherPeriod`] for settings that
    /// differ from those of the lake.
    pub(super) async fn open_or_create(
        store: &Store,
        options: &OpenOptions<'_>,
    ) -> Result<(Self, bool), LakeError> {
        let OpenOptions {
            account,
            base_url,
            now,
            buckets,
            pii,
            period,
            new_period,
            ..
        } = *options;
        let mut is_new = false;
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let Some((identity, tag)) = Self::read(store).await? else {
                let identity = Self::new(
                    (account, base_url),
                    now,
                    buckets.unwrap_or(1),
                    pii.policy(),
                    new_period,
                );
                let put = store
                    .put(layout::LAKE, identity.encode(), &Expected::Absent)
                    .await?;
                is_new |= matches!(put, PutOutcome::Written(_));
                continue;
            };
            identity.check_account(store, account)?;
            identity.treatment(store, pii)?;
            identity.check_period(store, period)?;
            let Some(changed) = buckets.and_then(|count| identity.with_buckets(count, now)) else {
                return Ok((identity, is_new));
            };
            let expected = Expected::Version(tag);
            store.put(layout::LAKE, changed.encode(), &expected).await?;
        }
        Err(LakeError::Contended {
            what: layout::LAKE.to_owned(),
        })
    }

    /// Reads the identity of a lake that receives the rows of the lake `like`. Creates it if the lake
    /// does not exist.
    ///
    /// Both lakes must hold the same account and handle personal data alike: the rows were already
    /// treated. `buckets` and `period` apply to a new lake; by default they are as in `like`.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`], [`LakeError::OtherPii`], [`LakeError::OtherPeriod`].
    pub(super) async fn open_or_create_like(
        store: &Store,
        like: &Self,
        now: Timestamp,
        (buckets, period): (Option<u32>, Option<Period>),
    ) -> Result<Self, LakeError> {
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let Some((identity, _)) = Self::read(store).await? else {
                let period = period.unwrap_or(like.period);
                let identity = Self::new(
                    (&like.account_id, &like.base_url),
                    now,
                    1,
                    like.pii.clone(),
                    period,
                );
                let rules = buckets.map(|count| vec![BucketRule::new(None, count)]);
                let identity = Self {
                    buckets: rules.unwrap_or_else(|| like.rules_of(period)),
                    ..identity
                };
                let put = store.put(layout::LAKE, identity.encode(), &Expected::Absent);
                put.await?;
                continue;
            };
            identity.check_account(store, &like.account_id)?;
            if identity.pii != like.pii {
                return Err(LakeError::OtherPii {
                    store: store.location().to_owned(),
                });
            }
            identity.check_period(store, period)?;
            return Ok(identity);
        }
        Err(LakeError::Contended {
            what: layout::LAKE.to_owned(),
        })
    }

    /// Checks that the lake in `store` holds `account`.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`].
    pub fn check_account(&self, store: &Store, account: &AccountId) -> Result<(), LakeError> {
        if self.account_id == *account {
            return Ok(());
        }
        Err(LakeError::OtherAccount {
            store: store.location().to_owned(),
            theirs: self.account_id.clone(),
            ours: account.clone(),
        })
    }

    /// Checks that the lake in `store` has the requested period, if one is requested.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherPeriod`].
    fn check_period(&self, store: &Store, period: Option<Period>) -> Result<(), LakeError> {
        match period {
            Some(ours) if ours != self.period => Err(LakeError::OtherPeriod {
                store: store.location().to_owned(),
                theirs: self.period,
                ours,
            }),
            _ => Ok(()),
        }
    }

    /// Returns the bucket rules for a lake of another period: each begins with a period.
    fn rules_of(&self, period: Period) -> Vec<BucketRule> {
        let rule = |rule: &BucketRule| BucketRule {
            from: rule.from.map(|from| period.first_start(from)),
            ..rule.clone()
        };
        self.buckets.iter().map(rule).collect()
    }

    /// Returns the treatment of personal data before it is written to the lake in `store`.
    ///
    /// # Errors
    ///
    /// [`LakeError::Pii`] if the request differs from the setting of the lake.
    pub fn treatment(&self, store: &Store, request: &PiiRequest) -> Result<Redactor, LakeError> {
        request.agree(&self.pii).map_err(|source| LakeError::Pii {
            store: store.location().to_owned(),
            source,
        })
    }

    /// Returns the identity with another number of buckets for periods that begin on or after the day
    /// after tomorrow; `None` if nothing changes. The delay ensures that all running processes agree
    /// on the dates they write.
    fn with_buckets(&self, count: u32, now: Timestamp) -> Option<Self> {
        if self.buckets.last().is_some_and(|rule| rule.count == count) {
            return None;
        }
        let today = date_of(now);
        let from = today.tomorrow().and_then(Date::tomorrow).ok()?;
        let from = self.period.first_start(from);
        let mut changed = Self {
            write_id: Ulid::generate().to_string(),
            ..self.clone()
        };
        changed
            .buckets
            .retain(|rule| rule.from.is_none_or(|existing| existing < from));
        changed.buckets.push(BucketRule::new(Some(from), count));
        Some(changed)
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec_pretty(self)
            .expect("the identity has text keys only")
            .into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::pii::{Key, Mode};

    const NOW: &str = "2026-11-24T10:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn store() -> Store {
        Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory")
    }

    async fn open(
        store: &Store,
        account: &AccountId,
        buckets: Option<u32>,
        pii: &PiiRequest,
    ) -> Result<(Identity, bool), LakeError> {
        let options = OpenOptions {
            base_url: DEFAULT_BASE_URL,
            account,
            now: now(),
            buckets,
            pii,
            period: None,
            delta: None,
            new_period: Period::Day,
            scratch: Path::new(""),
        };
        Identity::open_or_create(store, &options).await
    }

    #[test]
    fn bucket_of_an_execution_never_changes() {
        let identity = Identity::new(
            (&AccountId::new("a"), DEFAULT_BASE_URL),
            now(),
            8,
            Policy::Keep,
            Period::Day,
        );
        let buckets = ["-Xy_0", "abc", "qBOjSRxth5iimR4S6NGvHg"]
            .map(|id| identity.partition(&PlanExecutionId::new(id), now()).bucket);
        assert_eq!(
            buckets,
            [5, 0, 5],
            "an execution in another bucket would be stored twice"
        );
    }

    #[tokio::test]
    async fn open_refuses_another_account() {
        let store = store();
        let (ours, theirs) = (AccountId::new("ours"), AccountId::new("theirs"));
        let pii = PiiRequest::default();
        let open = async |account| open(&store, account, None, &pii).await;
        let (first, is_new) = open(&ours).await.unwrap();
        assert!(is_new);
        assert_eq!(open(&ours).await.unwrap(), (first, false));
        let error = open(&theirs).await.unwrap_err();
        assert!(matches!(error, LakeError::OtherAccount { .. }), "{error}");
    }

    #[tokio::test]
    async fn open_refuses_another_pii_setting() {
        let store = store();
        let account = AccountId::new("a");
        let request = |mode, key: Option<&str>| PiiRequest {
            mode,
            key: key.and_then(Key::new),
        };
        let hash = request(Some(Mode::Hash), Some("a key that is long enough"));
        let (created, _) = open(&store, &account, None, &hash).await.unwrap();
        for wrong in [
            request(None, None),
            request(Some(Mode::Keep), None),
            request(Some(Mode::Drop), None),
            request(None, Some("another key, long enough")),
        ] {
            let result = open(&store, &account, Some(2), &wrong).await;
            assert!(matches!(result, Err(LakeError::Pii { .. })), "{wrong:?}");
        }
        let again = request(None, Some(" a key that is long enough\n"));
        let (same, _) = open(&store, &account, None, &again).await.unwrap();
        assert_eq!(same, created);
    }

    #[test]
    fn identity_without_pii_setting_keeps_personal_data() {
        let identity = Identity::new(
            (&AccountId::new("a"), DEFAULT_BASE_URL),
            now(),
            1,
            Policy::Drop,
            Period::Day,
        );
        let mut json = serde_json::to_value(&identity).unwrap();
        assert!(json.as_object_mut().unwrap().remove("pii").is_some());
        let read: Identity = serde_json::from_value(json).unwrap();
        assert_eq!(read.pii, Policy::Keep);
    }

    #[tokio::test]
    async fn new_buckets_apply_from_the_day_after_tomorrow() {
        let store = store();
        let account = AccountId::new("a");
        let pii = PiiRequest::default();
        open(&store, &account, Some(2), &pii).await.unwrap();
        let (identity, _) = open(&store, &account, Some(4), &pii).await.unwrap();
        let buckets = ["2020-01-01", "2026-11-25", "2026-11-26", "2027-01-01"]
            .map(|date| identity.buckets_of(date.parse().unwrap()));
        assert_eq!(buckets, [2, 2, 4, 4]);
    }
}
