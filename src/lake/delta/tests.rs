use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::action::{Action, Add, Metadata, Protocol, Remove, Txn, decode_entry, encode_entry};
use super::commit::{RECORD, new_id};
use super::file::{parse, table_metadata};
use super::snapshot::PROTOCOL;
use super::*;
use crate::checkpoint::Delta;
use crate::ids::AccountId;
use crate::lake::OpenOptions;
use crate::lake::commit::tests::observation;
use crate::lake::finding::{Audit, FindingKind};
use crate::lake::layout::{DeltaLogFile, Period};
use crate::lake::spool::Spool;
use crate::lake::store::Store;
use crate::pii::PiiRequest;
use crate::window::from_ms;

/// 2025-11-24, in milliseconds.
const DAY: i64 = 1_763_942_400_000;

const DAY_MS: i64 = 86_400_000;

/// The first date, as an object of a lake by day.
const OBJECT: &str = "start_date=2025-11-24/part-0-of-1.parquet";

struct Fixture {
    objects: Arc<InMemory>,
    scratch: TempDir,
    period: Period,
}

impl Fixture {
    fn new() -> Self {
        Self::with_period(Period::Day)
    }

    fn with_period(period: Period) -> Self {
        Self {
            objects: Arc::default(),
            scratch: tempfile::tempdir().unwrap(),
            period,
        }
    }

    fn store(&self) -> Store {
        let objects = Arc::clone(&self.objects) as Arc<dyn ObjectStore>;
        Store::from_object_store(objects, "".into(), "memory")
    }

    /// Opens the lake as another process does.
    async fn open(&self) -> Lake {
        open(self.store(), self.scratch.path(), self.period, Some(true)).await
    }
}

async fn open(store: Store, scratch: &Path, period: Period, delta: Option<bool>) -> Lake {
    let options = OpenOptions {
        account: &AccountId::new("account"),
        base_url: crate::tables::DEFAULT_BASE_URL,
        now: from_ms(0),
        buckets: None,
        pii: &PiiRequest::default(),
        period: None,
        delta,
        new_period: period,
        scratch,
    };
    Lake::open(store, &options).await.unwrap()
}

/// Merges version `n` of an execution that starts on a day, and derives its tables.
async fn merge(lake: &Lake, day: i64, n: i64) {
    let mut spool = Spool::new(lake.scratch());
    let observation = observation(n, day, from_ms(DAY + day * DAY_MS));
    let partition = lake
        .identity()
        .partition(&observation.id, observation.start);
    spool.push(partition, observation).unwrap();
    let merged = lake.merge_spool("run", 0, &mut spool, || true).await;
    merged.unwrap().unwrap();
}

async fn commit(lake: &Lake, now: i64) {
    let committed = lake.commit("run", from_ms(now), &Delta::default()).await;
    committed.unwrap();
}

async fn findings(lake: &Lake) -> Vec<(FindingKind, String)> {
    let mut audit = Audit::default();
    lake.verify_delta(from_ms(0), &mut audit).await.unwrap();
    let findings = audit.findings.into_iter();
    findings.map(|found| (found.kind, found.problem)).collect()
}

async fn snapshot(lake: &Lake) -> Snapshot {
    Snapshot::newest(lake.store(), Table::Executions)
        .await
        .unwrap()
}

/// Returns the versions of a kind of file in the log of the executions.
async fn log_of(lake: &Lake, kind: DeltaLogFile) -> Vec<u64> {
    let log = lake
        .store()
        .list(&layout::delta_log(Table::Executions))
        .await
        .unwrap();
    let parsed = log
        .iter()
        .filter_map(|file| layout::parse_delta_log(Table::Executions, &file.path));
    let mut versions: Vec<u64> = parsed
        .filter(|(_, of)| *of == kind)
        .map(|(version, _)| version)
        .collect();
    versions.sort_unstable();
    versions
}

#[tokio::test]
async fn each_period_and_dimension_has_the_rows_of_its_table() {
    for period in [Period::Day, Period::Month] {
        let fixture = Fixture::with_period(period);
        let lake = fixture.open().await;
        for day in 0..3 {
            merge(&lake, day, 1).await;
        }
        commit(&lake, DAY).await;
        merge(&lake, 1, 2).await;
        commit(&lake, DAY).await;
        assert_eq!(findings(&lake).await, [], "{period}");
        let snapshot = snapshot(&lake).await;
        let objects = match period {
            Period::Day => 3,
            Period::Month => 1,
        };
        // 2025-11-24 to 26 are in one month.
        assert_eq!((snapshot.version, snapshot.live.len()), (Some(1), objects));
        assert_eq!(snapshot.number(RECORD), 2);
    }
}

#[tokio::test]
async fn older_copy_does_not_replace_a_newer_one() {
    let fixture = Fixture::new();
    let (slow, fast) = (fixture.open().await, fixture.open().await);
    merge(&slow, 0, 1).await;
    merge(&fast, 0, 2).await;
    commit(&fast, DAY).await;
    commit(&slow, DAY).await;
    assert_eq!(findings(&slow).await, []);
    let live: Vec<_> = snapshot(&slow).await.live.into_keys().collect();
    assert_eq!(parse(&live[0]), Some((OBJECT.to_owned(), 2)));
    assert_eq!(live.len(), 1);
}

#[tokio::test]
async fn equal_revisions_follow_the_table_object() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.open().await, fixture.open().await);
    merge(&first, 0, 1).await;
    commit(&first, DAY).await;
    // Another version of the program derives the same raw object: the same revision, another object.
    let path = format!("{}/{OBJECT}", layout::table_folder(Table::Executions));
    for lake in [&first, &second] {
        lake.store().delete(&path).await.unwrap();
        merge(lake, 0, 1).await;
    }
    commit(&second, DAY).await;
    commit(&first, DAY).await;
    assert_eq!(findings(&first).await, []);
}

#[tokio::test]
async fn concurrent_runs_commit_every_file_once() {
    let fixture = Fixture::new();
    let run = async |day: i64| {
        let lake = fixture.open().await;
        for n in 0..3 {
            merge(&lake, day % 3, n * 10 + day).await;
            commit(&lake, DAY).await;
        }
    };
    futures::future::join_all((0..6).map(run)).await;
    let lake = fixture.open().await;
    assert_eq!(findings(&lake).await, []);
    let entries = log_of(&lake, DeltaLogFile::Entry).await;
    assert!(
        entries.iter().copied().eq(0..entries.len() as u64),
        "{entries:?}"
    );
    let mut used = std::collections::BTreeSet::new();
    for version in entries {
        let path = layout::delta_entry(Table::Executions, version);
        let (entry, _) = lake.store().get(&path).await.unwrap().unwrap();
        for add in decode_entry(&entry)
            .unwrap()
            .into_iter()
            .filter_map(|action| action.add)
        {
            assert!(
                used.insert(add.path.clone()),
                "{} was added twice",
                add.path
            );
        }
    }
}

#[tokio::test]
async fn killed_replay_is_completed_by_a_run_on_other_dates() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    merge(&lake, 0, 1).await;
    commit(&lake, DAY).await;
    // The replay writes an object of the same revision, and is killed before it updates the Delta tables.
    let replay = fixture.open().await;
    replay.begin_replay("replay").await.unwrap();
    let path = format!("{}/{OBJECT}", layout::table_folder(Table::Executions));
    replay.store().delete(&path).await.unwrap();
    merge(&replay, 0, 1).await;
    let [(kind, _)] = &findings(&lake).await[..] else {
        panic!("the replay replaced one object");
    };
    assert_eq!(*kind, FindingKind::Stale);
    lake.delete_pending("run").await.unwrap();
    merge(&lake, 1, 1).await;
    commit(&lake, DAY).await;
    assert_eq!(findings(&lake).await, []);
}

#[tokio::test]
async fn delta_tables_that_are_turned_on_are_filled() {
    let fixture = Fixture::new();
    let scratch = fixture.scratch.path();
    let lake = open(fixture.store(), scratch, Period::Day, None).await;
    merge(&lake, 0, 1).await;
    commit(&lake, DAY).await;
    assert!(lake.store().list(layout::DELTA).await.unwrap().is_empty());
    let lake = fixture.open().await;
    merge(&lake, 1, 1).await;
    commit(&lake, DAY).await;
    assert_eq!(findings(&lake).await, []);
    assert_eq!(snapshot(&lake).await.live.len(), 2);
    // What is written while they are off is missing until they are turned on again.
    let off = open(fixture.store(), scratch, Period::Day, Some(false)).await;
    merge(&off, 0, 2).await;
    commit(&off, DAY).await;
    assert_eq!(snapshot(&off).await.version, Some(0));
    let lake = fixture.open().await;
    assert_eq!(findings(&lake).await.len(), Table::PARTITIONED.len() + 1);
    merge(&lake, 1, 2).await;
    commit(&lake, DAY).await;
    assert_eq!(findings(&lake).await, []);
}

#[tokio::test]
async fn replaced_versions_are_deleted_after_a_week() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    #[expect(
        clippy::disallowed_methods,
        reason = "the store in memory dates its objects by the local clock"
    )]
    let now = Timestamp::now().as_millisecond();
    for n in 0..8 {
        merge(&lake, 0, n).await;
        commit(&lake, now).await;
    }
    let files = async || {
        let files = lake.stored_files(Table::Executions).await.unwrap();
        files
            .into_keys()
            .filter_map(|path| parse(&path))
            .map(|(_, revision)| revision)
            .collect::<Vec<_>>()
    };
    assert_eq!(files().await, [1, 2, 3, 4, 5, 6, 7, 8], "all can be read");
    // The ninth commit is eight days later: of the versions before it, only the newest was current within the week.
    let later = now + 8 * DAY_MS;
    merge(&lake, 0, 9).await;
    commit(&lake, later).await;
    assert_eq!(files().await, [8, 9]);
    assert_eq!(log_of(&lake, DeltaLogFile::Entry).await, [7, 8]);
    assert_eq!(log_of(&lake, DeltaLogFile::Checkpoint).await, [7, 8]);
    assert_eq!(findings(&lake).await, []);
}

#[tokio::test]
async fn leftover_of_a_killed_run_is_reported_after_a_week() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    merge(&lake, 0, 1).await;
    commit(&lake, DAY).await;
    // A newer object and its copy replace those of a run that was killed.
    merge(&fixture.open().await, 0, 2).await;
    merge(&lake, 0, 3).await;
    commit(&lake, DAY).await;
    assert_eq!(findings(&lake).await, []);
    let mut audit = Audit::default();
    lake.verify_delta(from_ms(i64::MAX / 2), &mut audit)
        .await
        .unwrap();
    let leftovers: Vec<_> = audit.findings.iter().map(|found| &*found.repair).collect();
    assert_eq!(leftovers, ["delete the file"; 4], "{:?}", audit.findings);
    assert_eq!(audit.failures(), 0);
}

#[tokio::test]
async fn log_is_read_without_or_with_a_wrong_hint() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    for n in 0..3 {
        merge(&lake, 0, n).await;
        commit(&lake, DAY).await;
    }
    let expected = snapshot(&lake).await;
    let hint = layout::delta_last_checkpoint(Table::Executions);
    for body in [
        "",
        "{\"vers",
        "{\"version\":0,\"size\":1}",
        "{\"version\":99,\"size\":1}",
    ] {
        lake.store().overwrite(&hint, body.into()).await.unwrap();
        assert_eq!(snapshot(&lake).await, expected, "{body}");
    }
    lake.store().delete(&hint).await.unwrap();
    assert_eq!(snapshot(&lake).await, expected);
    for version in 0..3 {
        let path = layout::delta_checkpoint(Table::Executions, version);
        lake.store().delete(&path).await.unwrap();
        let read = snapshot(&lake).await;
        assert_eq!(
            read.live.keys().collect::<Vec<_>>(),
            expected.live.keys().collect::<Vec<_>>()
        );
    }
    let gap = layout::delta_entry(Table::Executions, 1);
    lake.store().delete(&gap).await.unwrap();
    let error = Snapshot::newest(lake.store(), Table::Executions)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("00000000000000000001.json is missing"),
        "{error}"
    );
    assert_eq!(findings(&lake).await[0].0, FindingKind::Damage);
}

#[tokio::test]
async fn files_of_other_programs_are_replaced() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    merge(&lake, 0, 1).await;
    merge(&lake, 1, 1).await;
    commit(&lake, DAY).await;
    // Another program compacts both files into one.
    let old = snapshot(&lake).await;
    let path = "start_date=2025-11-24/part-00001-c000.zstd.parquet".to_owned();
    let compacted = Add {
        path,
        ..old.live.values().next().unwrap().clone()
    };
    let removes = old.live.keys().map(|path| {
        Remove {
            path: path.clone(),
            ..Remove::default()
        }
        .into()
    });
    let actions: Vec<Action> = removes.chain([compacted.into()]).collect();
    let entry = layout::delta_entry(Table::Executions, 1);
    lake.store()
        .overwrite(&entry, encode_entry(&actions).into())
        .await
        .unwrap();
    merge(&lake, 2, 1).await;
    commit(&lake, DAY).await;
    let new = snapshot(&lake).await;
    assert_eq!(new.live.len(), 3);
    assert!(
        new.live.keys().all(|path| !old.live.contains_key(path)),
        "a name is used once"
    );
    assert_eq!(findings(&lake).await, []);
}

#[tokio::test]
async fn newer_protocol_is_refused_after_the_checkpoint_is_committed() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    merge(&lake, 0, 1).await;
    commit(&lake, DAY).await;
    let raised = Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
    };
    let entry = layout::delta_entry(Table::Executions, 1);
    lake.store()
        .overwrite(&entry, encode_entry(&[raised.into()]).into())
        .await
        .unwrap();
    merge(&lake, 0, 2).await;
    let error = lake
        .commit("run", from_ms(DAY), &Delta::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("raised its protocol to 3/7"),
        "{error}"
    );
    assert_eq!(Record::newest(lake.store()).await.unwrap().number, 2);
    assert_eq!(
        findings(&lake)
            .await
            .iter()
            .filter(|(kind, _)| *kind == FindingKind::Damage)
            .count(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn writer_that_slept_writes_again() {
    let fixture = Fixture::new();
    let lake = fixture.open().await;
    merge(&lake, 0, 1).await;
    commit(&lake, DAY).await;
    // Version 1 is written after two hours. Meanwhile others committed many versions, and cleaned up.
    let throttled = Arc::new(ThrottledStore::new(
        Arc::clone(&fixture.objects),
        ThrottleConfig::default(),
    ));
    let store = Store::from_object_store(
        Arc::clone(&throttled) as Arc<dyn ObjectStore>,
        "".into(),
        "memory",
    );
    let slow = open(store, fixture.scratch.path(), Period::Day, None).await;
    merge(&slow, 1, 1).await;
    throttled.config_mut(|config| config.wait_put_per_call = Duration::from_secs(7_200));
    let others = async {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        throttled.config_mut(|config| config.wait_put_per_call = Duration::ZERO);
        let snapshot = snapshot(&lake).await;
        lake.write_checkpoint(Table::Executions, 100, &snapshot, from_ms(DAY))
            .await
            .unwrap();
    };
    let (record, now) = (Record::newest(slow.store()).await.unwrap(), from_ms(DAY));
    let due = mutex::lock(&slow.touched).of(Table::Executions);
    let committed = slow.commit_table(Table::Executions, &due, record.number, now);
    let ((), committed) = tokio::join!(others, committed);
    committed.unwrap();
    let read = snapshot(&lake).await;
    assert_eq!((read.version, read.live.len()), (Some(101), 2));
}

#[test]
fn paths_of_copies_name_their_object_and_revision() {
    let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for (path, expected) in [
        (
            format!("start_date=2025-11-24/part-0-of-1-r5-{id}.parquet"),
            Some((OBJECT, 5)),
        ),
        (
            format!("start_date=2025-11-24/part-0-of-1-r5-{id}-2.parquet"),
            Some((OBJECT, 5)),
        ),
        (
            format!("part-0-of-1-r12-{id}.parquet"),
            Some(("part-0-of-1.parquet", 12)),
        ),
        (
            "start_date=2025-11-24/part-00001-c000.zstd.parquet".to_owned(),
            None,
        ),
        (OBJECT.to_owned(), None),
    ] {
        let expected = expected.map(|(object, revision)| (object.to_owned(), revision));
        assert_eq!(parse(&path), expected, "{path}");
    }
}

#[tokio::test]
async fn statistics_bound_the_starts() {
    let fixture = Fixture::with_period(Period::Month);
    let lake = fixture.open().await;
    merge(&lake, 0, 1).await;
    merge(&lake, 2, 1).await;
    commit(&lake, DAY).await;
    let snapshot = snapshot(&lake).await;
    let add = snapshot.live.values().next().unwrap();
    let stats: Value = serde_json::from_str(add.stats.as_ref().unwrap()).unwrap();
    let expected = json!({
        "numRecords": 2,
        "minValues": {"start_ts": "2025-11-24T00:00:00.000Z", "start_date": "2025-11-24"},
        "maxValues": {"start_ts": "2025-11-26T00:00:00.000Z", "start_date": "2025-11-26"},
        "nullCount": {"start_ts": 0, "start_date": 0},
    });
    assert_eq!(stats, expected);
    assert_eq!(
        add.partition_values["start_month"].as_deref(),
        Some("2025-11-01")
    );
}

#[test]
fn maximum_of_a_time_is_rounded_up() {
    let bounds = [false, true].map(|is_max| file::bound("start_ts", 1_763_942_400_000_001, is_max));
    assert_eq!(
        bounds,
        ["2025-11-24T00:00:00.000Z", "2025-11-24T00:00:00.001Z"]
    );
}

fn texts() -> impl Strategy<Value = super::action::TextMap> {
    proptest::collection::btree_map("[a-z]{1,3}", proptest::option::of("[ -~]{0,4}"), 0..3)
}

fn actions() -> impl Strategy<Value = Action> {
    let add = (
        "[a-z]{1,8}",
        texts(),
        any::<i64>(),
        any::<bool>(),
        proptest::option::of(".{0,9}"),
    );
    let add = add.prop_map(|(path, partition_values, size, data_change, stats)| {
        Add {
            path,
            partition_values,
            size,
            modification_time: size / 2,
            data_change,
            stats,
        }
        .into()
    });
    let remove = (
        "[a-z]{1,8}",
        proptest::option::of(any::<i64>()),
        proptest::option::of(texts()),
    );
    let remove = remove.prop_map(|(path, deletion_timestamp, partition_values)| {
        Remove {
            path,
            deletion_timestamp,
            partition_values,
            ..Remove::default()
        }
        .into()
    });
    let txn = (".{0,5}", any::<i64>()).prop_map(|(app_id, version)| {
        Txn {
            app_id,
            version,
            last_updated: None,
        }
        .into()
    });
    let metadata =
        (texts(), proptest::option::of(".{0,5}")).prop_map(|(configuration, description)| {
            let metadata = table_metadata(Table::Stages, Period::Month, new_id(), from_ms(DAY));
            Metadata {
                configuration,
                description,
                ..metadata
            }
            .into()
        });
    prop_oneof![add, remove, txn, metadata, Just(Action::from(PROTOCOL))]
}

proptest! {
    #[test]
    fn entries_and_checkpoints_keep_all_actions(actions in proptest::collection::vec(actions(), 0..9)) {
        prop_assert_eq!(&decode_entry(&encode_entry(&actions)).unwrap(), &actions);
        let checkpoint = checkpoint::encode("a checkpoint", &actions).unwrap();
        prop_assert_eq!(checkpoint::decode("a checkpoint", checkpoint).unwrap(), actions);
    }
}
