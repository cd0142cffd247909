//! Projects without a new execution for a week: asked for new data once per `--idle-interval`. Pure.

use jiff::{SignedDuration, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use super::SyncRules;
use crate::checkpoint::{ScopeState, State};
use crate::ids::Scope;

/// Time without a new execution from which a project is idle.
const IDLE_AGE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Returns the idle scopes that this run does not ask for new data, with their watermarks.
pub fn idle_scopes<'a>(
    state: &State,
    scopes: &'a [Scope],
    rules: &SyncRules,
) -> Vec<(&'a Scope, Timestamp)> {
    let idle = |scope: &'a Scope| {
        let known = state.scopes.get(scope)?;
        let watermark = known.coverage.end()?;
        is_skipped(known, scope, rules).then_some((scope, watermark))
    };
    scopes.iter().filter_map(idle).collect()
}

/// Returns true if a scope is idle and was already asked in the current interval.
///
/// The intervals of each scope begin at another time, so that each run asks a similar number of idle scopes.
pub(super) fn is_skipped(known: &ScopeState, scope: &Scope, rules: &SyncRules) -> bool {
    let interval = rules.idle_interval.as_millis();
    let Some(watermark) = known.coverage.end().filter(|_| interval > 0) else {
        return false;
    };
    // A longer lookback reads the rows in it again.
    let age = rules.lookback.max(IDLE_AGE);
    let is_quiet = known
        .last_row_start
        .is_none_or(|start| rules.now.duration_since(start) > age);
    let phase = i128::from(xxh3_64(scope.to_string().as_bytes())) % interval;
    let interval_of =
        |at: Timestamp| (i128::from(at.as_millisecond()) - phase).div_euclid(interval);
    is_quiet && watermark <= rules.end() && interval_of(watermark) == interval_of(rules.end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Coverage, Window, from_ms};

    const HOUR: i64 = 3_600_000;

    /// Returns the rules of a run at an hour, with an interval of six hours.
    fn rules(hour: i64) -> SyncRules {
        SyncRules {
            now: from_ms(hour * HOUR),
            window_lag: SignedDuration::ZERO,
            lookback: SignedDuration::from_hours(24),
            idle_interval: SignedDuration::from_hours(6),
            start_date: from_ms(0),
            retained_from: from_ms(0),
            surely_retained_from: from_ms(0),
            largest_page: 1_000,
        }
    }

    /// Returns a scope that is covered up to an hour, with its newest row at another.
    fn known(covered_to: i64, last_row: Option<i64>) -> ScopeState {
        let covered = Window::new(from_ms(0), from_ms(covered_to * HOUR)).unwrap();
        ScopeState {
            coverage: Coverage::from_iter([covered]),
            last_row_start: last_row.map(|hour| from_ms(hour * HOUR)),
            ..ScopeState::default()
        }
    }

    #[test]
    fn each_idle_project_is_asked_once_per_interval() {
        let mut per_run = Vec::new();
        let mut asked_at = [1_000; 300];
        for hour in 1_001..1_025 {
            let mut asked = 0;
            for (n, last) in asked_at.iter_mut().enumerate() {
                let scope = Scope::new("org", format!("p{n}").as_str());
                if !is_skipped(&known(*last, None), &scope, &rules(hour)) {
                    assert!(*last == 1_000 || hour - *last == 6, "{hour} {last}");
                    (*last, asked) = (hour, asked + 1);
                }
            }
            per_run.push(asked);
        }
        assert_eq!(per_run.iter().sum::<i32>(), 4 * 300);
        assert!(
            per_run.iter().all(|asked| (25..=75).contains(asked)),
            "{per_run:?}"
        );
    }

    #[test]
    fn busy_new_and_failing_projects_are_asked_by_every_run() {
        let scope = Scope::new("org", "project");
        let hours = 1_000..1_006;
        let skipped = |known: &ScopeState, change: fn(&mut SyncRules)| {
            let runs = hours.clone().filter(|hour| {
                let mut rules = rules(*hour);
                change(&mut rules);
                is_skipped(known, &scope, &rules)
            });
            runs.count()
        };
        let unchanged = |_: &mut SyncRules| {};
        assert!(skipped(&known(999, Some(800)), unchanged) > 0);
        assert_eq!(
            skipped(&known(999, Some(900)), unchanged),
            0,
            "a row of this week"
        );
        assert_eq!(skipped(&ScopeState::default(), unchanged), 0, "never read");
        assert_eq!(
            skipped(&known(900, Some(800)), unchanged),
            0,
            "failed since"
        );
        assert_eq!(
            skipped(&known(2_000, None), unchanged),
            0,
            "a clock was ahead"
        );
        let long_lookback =
            |rules: &mut SyncRules| rules.lookback = SignedDuration::from_hours(37 * 24);
        assert_eq!(skipped(&known(999, Some(800)), long_lookback), 0);
        let no_interval = |rules: &mut SyncRules| rules.idle_interval = SignedDuration::ZERO;
        assert_eq!(skipped(&known(999, Some(800)), no_interval), 0);
    }
}
