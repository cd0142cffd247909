//! `replay --into`: merges one lake into another.
//!
//! Raw rows are stored observations. They take the same path as observations from the source: later
//! ones win, unchanged content writes nothing, and the checkpoint is committed last. The next copy
//! resumes an interrupted one, and the target may be in use.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use super::Limits;
use super::committer::Committer;
use crate::checkpoint::{Delta, OpenUpdate, ScopeState, ScopeUpdate, State};
use crate::error::Error;
use crate::extract::{Event, Rows};
use crate::ids::Scope;
use crate::lake::log::Record;
use crate::lake::replay::{Dates, RawPartition};
use crate::lake::rows::{RawObject, each_batch};
use crate::lake::{Lake, LakeError};
use crate::progress::Progress;
use crate::window::{Coverage, Window};
use crate::worker;

/// Capacity of the channel of row batches.
const BATCHES: usize = 2;

/// Merges the raw partitions of some dates into the lake of `target`, derives its tables, and
/// commits the coverage of these dates.
///
/// # Errors
///
/// [`Error::Lake`]; [`Error::Interrupted`], where no coverage is committed and the next copy resumes.
pub(super) async fn copy(
    source: &Lake,
    dates: Dates,
    mut target: Committer<'_>,
    progress: &Progress,
    limits: &Limits,
) -> Result<(), Error> {
    // Checkpoint first: rows that a run commits meanwhile are in no coverage that is copied.
    let read = async {
        let source_record = Record::newest(source.store()).await?;
        let target_record = Record::newest(target.lake().store()).await?;
        let partitions = source.raw_partitions(dates).await?;
        Ok::<_, LakeError>((source_record, target_record, partitions))
    };
    let (source_record, target_record, partitions) = limits.run(read).await?;
    let mut newest_rows: BTreeMap<Scope, Timestamp> = BTreeMap::new();
    progress.start(partitions.len(), "raw partitions");
    for RawPartition { partition, .. } in partitions {
        progress.finish_part();
        let path = partition.raw();
        let Some((bytes, _)) = limits.run(source.store().get(&path)).await? else {
            continue;
        };
        let (sender, mut batches) = mpsc::channel(BATCHES);
        let reading = worker::spawn(move || {
            let raw = RawObject::new(&path, bytes)?;
            each_batch(&path, &raw, |batch| sender.blocking_send(batch).is_ok())
        });
        let mut next = async || Ok::<_, Error>(batches.recv().await);
        while let Some(batch) = limits.run(next()).await? {
            for row in &batch {
                let newest = newest_rows.entry(row.scope.clone()).or_insert(row.start);
                *newest = row.start.max(*newest);
            }
            let rows = Event::Rows(Rows::of(batch));
            target.add(rows, progress).await?;
        }
        reading.await?;
    }
    if let Some(window) = window_of(dates) {
        target.delta = coverage_delta(&source_record.state, window);
        add_skipped(&target_record.state, &mut target.delta);
        for (scope, start) in newest_rows {
            let update = target.delta.scope_updates.entry(scope).or_default();
            update.last_row_start = update.last_row_start.max(Some(start));
        }
    }
    target.flush(progress).await?;
    // Apart from the coverage, which includes it.
    target.delta.lookback = lookback_of(&source_record.state, dates);
    if !target.delta.lookback.is_empty() {
        target.flush(progress).await?;
    }
    Ok(())
}

/// Returns what is to be read again of some dates, for late edits.
fn lookback_of(state: &State, dates: Dates) -> BTreeMap<Scope, Coverage> {
    let window = window_of(dates);
    let due = |(scope, known): (&Scope, &ScopeState)| {
        let lookback = known.lookback.intersection(&Coverage::from_iter(window));
        (!lookback.is_empty()).then(|| (scope.clone(), lookback))
    };
    state.scopes.iter().filter_map(due).collect()
}

/// Returns the window of some dates; `None` for an empty range.
fn window_of(dates: Dates) -> Option<Window> {
    let midnight = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    let from = dates.from.and_then(midnight).unwrap_or(Timestamp::MIN);
    let to = dates.to.and_then(midnight).unwrap_or(Timestamp::MAX);
    Window::new(from, to).ok()
}

/// Returns the part of a checkpoint that is about executions in `window`.
fn coverage_delta(state: &State, window: Window) -> Delta {
    let cut = |coverage: &Coverage| -> Coverage {
        let parts = coverage.windows().iter();
        parts.filter_map(|part| part.intersect(window)).collect()
    };
    let mut delta = Delta::default();
    for (scope, known) in &state.scopes {
        for (copied, original) in [
            (&mut delta.covered, &known.coverage),
            (&mut delta.gaps, &known.gaps),
            (&mut delta.skipped, &known.skipped),
        ] {
            let part = cut(original);
            if !part.is_empty() {
                copied.insert(scope.clone(), part);
            }
        }
        let news = ScopeUpdate {
            last_read: known.last_read,
            window_rows: known.window_rows,
            last_row_start: known.last_row_start.filter(|at| window.contains(*at)),
            success: known.last_success,
            error: known.last_error.clone(),
            row_bytes: known.row_bytes,
            page_limit: known.page_limit,
            moved_row: None,
        };
        delta.scope_updates.insert(scope.clone(), news);
    }
    // Open executions with a start are in the raw partitions: the merge adds them.
    let undated = state.open.iter().filter(|(_, open)| open.start.is_none());
    delta.open_updates = undated
        .map(|(id, open)| (id.clone(), OpenUpdate::Open(Box::new(open.clone()))))
        .collect();
    delta.listing = state.listing.listed_at.map(|_| state.listing.clone());
    delta
}

/// Adds as skipped what lies between the watermarks of the target and the end of the copied
/// coverage, which becomes the new watermark.
fn add_skipped(target: &State, delta: &mut Delta) {
    for (scope, covered) in &delta.covered {
        let asked_until = target
            .scopes
            .get(scope)
            .and_then(ScopeState::requested_until);
        if let (Some(from), Some(to)) = (asked_until, covered.end())
            && let Ok(window) = Window::new(from, to)
        {
            let skipped = delta.skipped.entry(scope.clone());
            skipped.or_default().add(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{OpenExecution, ScopeState, UnknownFields};
    use crate::ids::{PlanExecutionId, Scope};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn dates(from: &str, to: &str) -> Dates {
        Dates {
            from: from.parse().ok(),
            to: to.parse().ok(),
        }
    }

    #[test]
    fn coverage_is_copied_only_inside_the_dates() {
        let window = |from, to| Window::new(at(from), at(to)).unwrap();
        let scope = Scope::new("org", "project");
        let known = ScopeState {
            coverage: [
                window("01T00:00", "10T12:00"),
                window("20T00:00", "24T11:00"),
            ]
            .into_iter()
            .collect(),
            gaps: [window("10T12:00", "20T00:00")].into_iter().collect(),
            last_row_start: Some(at("24T10:59")),
            lookback: [window("23T00:00", "24T11:00")].into_iter().collect(),
            ..ScopeState::default()
        };
        let open = |start| OpenExecution {
            scope: scope.clone(),
            start,
            observed: at("24T11:00"),
            revision: 0,
            missed: [].into(),
            summary: None,
            unknown: UnknownFields::new(),
        };
        let mut state = State {
            scopes: [(scope.clone(), known)].into(),
            ..State::default()
        };
        let undated = PlanExecutionId::new("undated");
        state.open.insert(undated.clone(), open(None));
        let dated = PlanExecutionId::new("dated");
        state.open.insert(dated.clone(), open(Some(at("24T10:00"))));
        let part = coverage_delta(
            &state,
            window_of(dates("2026-11-10", "2026-11-22")).unwrap(),
        );
        let covered = part.covered[&scope].windows();
        let expected = [
            window("10T00:00", "10T12:00"),
            window("20T00:00", "22T00:00"),
        ];
        assert_eq!(covered, expected);
        assert_eq!(
            part.gaps[&scope].windows(),
            [window("10T12:00", "20T00:00")]
        );
        assert_eq!(part.scope_updates[&scope].last_row_start, None);

        let mut copied = State::default();
        let all = dates("", "");
        copied.apply(&coverage_delta(&state, window_of(all).unwrap()));
        copied.apply(&Delta {
            lookback: lookback_of(&state, all),
            ..Delta::default()
        });
        // The merge adds it, from the raw partition.
        state.open.remove(&dated);
        assert_eq!(copied, state);
        assert!(window_of(dates("2026-11-22", "2026-11-22")).is_none());
    }

    #[test]
    fn window_before_copied_coverage_is_skipped() {
        let window = |from, to| Window::new(at(from), at(to)).unwrap();
        let scope = Scope::new("org", "project");
        let covered = |from, to| Coverage::from_iter([window(from, to)]);
        let mut target = State::default();
        let known = target.scopes.entry(scope.clone()).or_default();
        known.coverage = covered("01T00:00", "10T00:00");
        let mut delta = Delta::default();
        let later = covered("20T00:00", "24T00:00");
        delta.covered.insert(scope.clone(), later);
        add_skipped(&target, &mut delta);
        target.apply(&delta);
        let between = covered("10T00:00", "20T00:00");
        assert_eq!(target.scopes[&scope].skipped, between);

        // Without coverage, the skipped window starts where the last gap ends.
        let known = target.scopes.get_mut(&scope).unwrap();
        *known = ScopeState {
            gaps: covered("05T00:00", "10T00:00"),
            ..ScopeState::default()
        };
        add_skipped(&target, &mut delta);
        target.apply(&delta);
        assert_eq!(target.scopes[&scope].skipped, between);
    }
}
