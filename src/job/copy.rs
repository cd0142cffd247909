//! `replay --into`: what one lake holds, merged into another as if it were observed again.
//!
//! Raw rows are observations that were kept, so the protocol of a run takes them in as it takes those
//! of the source: later ones win, the same content writes nothing, and the checkpoint comes last. A
//! copy that died is taken up by the next, and the other lake may be in use.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use tokio::sync::mpsc;

use super::committer::Committer;
use super::{StopSignal, or_stop};
use crate::checkpoint::{Delta, OpenUpdate, ScopeNews, ScopeState, State};
use crate::error::Error;
use crate::extract::fanout::{Event, Rows};
use crate::lake::log::Record;
use crate::lake::replay::{Dates, RawPartition};
use crate::lake::rows::{RawObject, each_batch};
use crate::lake::{Lake, LakeError};
use crate::progress::Progress;
use crate::report::Report;
use crate::window::{Coverage, Window};

/// Batches of rows that wait to be spooled.
const BATCHES: usize = 2;

/// Merges the raw partitions of some dates into `into`, derives its tables, and claims there what the
/// checkpoint of `from` claims of these dates.
///
/// # Errors
///
/// [`Error::Lake`]; [`Error::Interrupted`], where nothing is claimed and the next copy goes on.
pub async fn copy(
    from: &Lake,
    into: &Lake,
    dates: Dates,
    now: Timestamp,
    progress: &Progress,
    stop: StopSignal,
    report: &mut Report,
) -> Result<(), Error> {
    // The checkpoint before the rows: what it claims is in them.
    let look = async {
        let [from_store, into_store] = [from, into].map(Lake::store);
        let record = Record::newest(from_store).await?;
        let there = Record::newest(into_store).await?;
        Ok::<_, LakeError>((record, there, from.raw_partitions(dates).await?))
    };
    let (record, there, partitions) = or_stop(&mut stop.clone(), look).await??;
    let mut committer = Committer::new(into, report, stop.clone(), now);
    for RawPartition { partition, .. } in partitions {
        let path = partition.raw();
        let object = or_stop(&mut stop.clone(), from.store().get(&path)).await?;
        let Some((bytes, _)) = object? else {
            continue;
        };
        let (batches, mut read) = mpsc::channel(BATCHES);
        let reading = tokio::task::spawn_blocking(move || {
            let raw = RawObject::new(&path, bytes)?;
            each_batch(&path, &raw, |batch| batches.blocking_send(batch).is_ok())
        });
        while let Some(batch) = or_stop(&mut stop.clone(), read.recv()).await? {
            committer
                .take(Event::Rows(Rows::of(batch)), progress)
                .await?;
        }
        let read = reading.await.map_err(LakeError::Worker)?;
        read?;
    }
    if let Some(span) = span(dates) {
        committer.delta = claims(&record.state, span);
        pass_over(&there.state, &mut committer.delta);
    }
    committer.flush().await?;
    Ok(())
}

/// The window of some dates; `None` where they are none.
fn span(dates: Dates) -> Option<Window> {
    let midnight = |date: Date| TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    let from = dates.from.and_then(midnight).unwrap_or(Timestamp::MIN);
    let to = dates.to.and_then(midnight).unwrap_or(Timestamp::MAX);
    Window::new(from, to).ok()
}

/// What a lake may claim that holds the rows of `span` of a lake in this state.
fn claims(state: &State, span: Window) -> Delta {
    let inside = |window: &Window| window.intersect(span);
    let cut = |coverage: &Coverage| -> Coverage {
        coverage.windows().iter().filter_map(inside).collect()
    };
    let mut delta = Delta::default();
    for (scope, known) in &state.scopes {
        for (claimed, own) in [
            (&mut delta.covered, &known.coverage),
            (&mut delta.gaps, &known.gaps),
            (&mut delta.skipped, &known.skipped),
        ] {
            let part = cut(own);
            if !part.is_empty() {
                claimed.insert(scope.clone(), part);
            }
        }
        let seen = ScopeNews {
            last_row_start: known.last_row_start.filter(|at| span.contains(*at)),
            success: known.last_success,
            error: known.last_error.clone(),
            row_bytes: known.row_bytes,
            page_limit: known.page_limit,
        };
        delta.seen.insert(scope.clone(), seen);
    }
    // The others are in the raw partitions, and are told open by the merge.
    let undated = state.open.iter().filter(|(_, open)| open.start.is_none());
    delta.open_updates = undated
        .map(|(id, open)| (id.clone(), OpenUpdate::Open(Box::new(open.clone()))))
        .collect();
    delta.listing = state.listing.listed_at.map(|_| state.listing.clone());
    delta
}

/// Takes note of what lies between the watermarks of a lake and where its claims are to go on: a later watermark
/// would hide it.
fn pass_over(there: &State, delta: &mut Delta) {
    for (scope, covered) in &delta.covered {
        let asked_until = there.scopes.get(scope).and_then(ScopeState::asked_until);
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
    use crate::checkpoint::{OpenExecution, ScopeState};
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
    fn nothing_is_claimed_outside_of_the_dates() {
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
            ..ScopeState::default()
        };
        let open = |start| OpenExecution {
            scope: scope.clone(),
            start,
            observed: at("24T11:00"),
            revision: 0,
            missed: [].into(),
            summary: None,
        };
        let mut state = State {
            scopes: [(scope.clone(), known)].into(),
            ..State::default()
        };
        let undated = PlanExecutionId::new("undated");
        state.open.insert(undated.clone(), open(None));
        let dated = PlanExecutionId::new("dated");
        state.open.insert(dated.clone(), open(Some(at("24T10:00"))));
        let part = claims(&state, span(dates("2026-11-10", "2026-11-22")).unwrap());
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
        assert_eq!(part.seen[&scope].last_row_start, None);

        let mut copied = State::default();
        copied.apply(&claims(&state, span(dates("", "")).unwrap()));
        // The merge tells of it, by the raw partition.
        state.open.remove(&dated);
        assert_eq!(copied, state);
        assert!(span(dates("2026-11-22", "2026-11-22")).is_none());
    }

    #[test]
    fn what_a_later_claim_passes_over_is_owed() {
        let window = |from, to| Window::new(at(from), at(to)).unwrap();
        let scope = Scope::new("org", "project");
        let covered = |from, to| Coverage::from_iter([window(from, to)]);
        let mut there = State::default();
        let known = there.scopes.entry(scope.clone()).or_default();
        known.coverage = covered("01T00:00", "10T00:00");
        let mut delta = Delta::default();
        let later = covered("20T00:00", "24T00:00");
        delta.covered.insert(scope.clone(), later);
        pass_over(&there, &mut delta);
        there.apply(&delta);
        let between = covered("10T00:00", "20T00:00");
        assert_eq!(there.scopes[&scope].skipped, between);

        // A lake that never read the scope whole is owed what it asked for, and what lies behind that.
        let known = there.scopes.get_mut(&scope).unwrap();
        *known = ScopeState {
            gaps: covered("05T00:00", "10T00:00"),
            ..ScopeState::default()
        };
        pass_over(&there, &mut delta);
        there.apply(&delta);
        assert_eq!(there.scopes[&scope].skipped, between);
    }
}
