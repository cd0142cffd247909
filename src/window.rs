//! Half-open ranges of `start_ts`, and sets of them. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A half-open range `[from, to)` of `start_ts`, in UTC, of millisecond precision. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "(Timestamp, Timestamp)", into = "(Timestamp, Timestamp)")]
pub struct Window {
    from: Timestamp,
    to: Timestamp,
}

/// A window that does not end after its start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{from}, {to}) does not end after its start")]
pub struct EmptyWindow {
    from: Timestamp,
    to: Timestamp,
}

impl Window {
    /// Returns the window `[from, to)`, both truncated to milliseconds.
    ///
    /// # Errors
    ///
    /// [`EmptyWindow`] if `from >= to`.
    pub fn new(from: Timestamp, to: Timestamp) -> Result<Self, EmptyWindow> {
        let (from, to) = (truncate_to_ms(from), truncate_to_ms(to));
        if from < to {
            Ok(Self { from, to })
        } else {
            Err(EmptyWindow { from, to })
        }
    }

    /// Returns the first instant inside.
    pub fn from(self) -> Timestamp {
        self.from
    }

    /// Returns the first instant after.
    pub fn to(self) -> Timestamp {
        self.to
    }

    /// Returns whether `at` lies inside.
    pub fn contains(self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// Returns the length in milliseconds, at least 1.
    pub fn millis(self) -> i64 {
        self.to.as_millisecond() - self.from.as_millisecond()
    }

    /// Splits the window in halves, or returns `None` if they would be shorter than `min_ms`.
    pub fn bisect(self, min_ms: i64) -> Option<(Self, Self)> {
        let half = self.millis() / 2;
        if half < min_ms.max(1) {
            return None;
        }
        let middle = from_ms(self.from.as_millisecond() + half);
        Some((
            Self {
                from: self.from,
                to: middle,
            },
            Self {
                from: middle,
                to: self.to,
            },
        ))
    }

    /// Returns the part inside both.
    pub fn intersect(self, other: Self) -> Option<Self> {
        Self::new(self.from.max(other.from), self.to.min(other.to)).ok()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.from, self.to)
    }
}

impl TryFrom<(Timestamp, Timestamp)> for Window {
    type Error = EmptyWindow;

    fn try_from((from, to): (Timestamp, Timestamp)) -> Result<Self, EmptyWindow> {
        Self::new(from, to)
    }
}

impl From<Window> for (Timestamp, Timestamp) {
    fn from(window: Window) -> Self {
        (window.from, window.to)
    }
}

/// Returns whether a time in milliseconds since the epoch is plausible: from 2000 to 2100.
pub fn is_sound(ms: i64) -> bool {
    (946_684_800_000..4_133_980_800_000).contains(&ms)
}

/// Returns the instant `ms` milliseconds after the epoch, clamped to the range of a timestamp.
pub fn from_ms(ms: i64) -> Timestamp {
    let (least, most) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_millisecond(ms.clamp(least * 1_000, most * 1_000))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

fn truncate_to_ms(at: Timestamp) -> Timestamp {
    from_ms(at.as_millisecond())
}

/// A set of instants: sorted windows that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Window>", into = "Vec<Window>")]
pub struct Coverage(Vec<Window>);

impl Coverage {
    /// Returns the windows, oldest first.
    pub fn windows(&self) -> &[Window] {
        &self.0
    }

    /// Returns whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the oldest instant covered.
    pub fn start(&self) -> Option<Timestamp> {
        self.0.first().map(|window| window.from)
    }

    /// Returns the newest end: the watermark.
    pub fn end(&self) -> Option<Timestamp> {
        self.0.last().map(|window| window.to)
    }

    /// Adds a window.
    pub fn add(&mut self, window: Window) {
        let touching = |other: &&Window| other.from <= window.to && window.from <= other.to;
        let merged = self.0.iter().filter(touching).fold(window, |a, b| Window {
            from: a.from.min(b.from),
            to: a.to.max(b.to),
        });
        self.0
            .retain(|other| !(other.from <= window.to && window.from <= other.to));
        let at = self.0.partition_point(|other| other.from < merged.from);
        self.0.insert(at, merged);
    }

    /// Adds all windows of `other`.
    pub fn union(&mut self, other: &Self) {
        other.0.iter().for_each(|window| self.add(*window));
    }

    /// Returns the part of `self` that is not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for window in &self.0 {
            let mut from = window.from;
            for taken in other
                .0
                .iter()
                .filter(|taken| taken.intersect(*window).is_some())
            {
                rest.extend(Window::new(from, taken.from));
                from = from.max(taken.to);
            }
            rest.extend(Window::new(from, window.to));
        }
        Self(rest)
    }

    /// Returns the instants that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// Returns whether all of `window` is covered.
    pub fn covers(&self, window: Window) -> bool {
        self.0
            .iter()
            .any(|w| w.from <= window.from && window.to <= w.to)
    }
}

impl FromIterator<Window> for Coverage {
    fn from_iter<I: IntoIterator<Item = Window>>(windows: I) -> Self {
        let mut coverage = Self::default();
        windows.into_iter().for_each(|window| coverage.add(window));
        coverage
    }
}

impl From<Vec<Window>> for Coverage {
    fn from(windows: Vec<Window>) -> Self {
        windows.into_iter().collect()
    }
}

impl From<Coverage> for Vec<Window> {
    fn from(coverage: Coverage) -> Self {
        coverage.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(from: i64, to: i64) -> Window {
        Window::new(from_ms(from), from_ms(to)).unwrap()
    }

    fn any_coverage() -> impl Strategy<Value = Coverage> {
        let pair = (0_i64..60, 1_i64..20).prop_map(|(from, length)| window(from, from + length));
        prop::collection::vec(pair, 0..8).prop_map(Coverage::from_iter)
    }

    fn holds(coverage: &Coverage, ms: i64) -> bool {
        coverage.windows().iter().any(|w| w.contains(from_ms(ms)))
    }

    #[test]
    fn window_ends_after_it_starts() {
        assert!(Window::new(from_ms(5), from_ms(5)).is_err());
        assert!(
            serde_json::from_str::<Window>(r#"["2026-01-02T00:00:00Z","2026-01-01T00:00:00Z"]"#)
                .is_err()
        );
    }

    #[test]
    fn out_of_range_instants_are_clamped() {
        assert!(from_ms(i64::MIN).as_second() < -300_000_000_000);
        assert!(from_ms(i64::MAX).as_second() > 250_000_000_000);
        let all = Window::new(Timestamp::MIN, Timestamp::MAX).unwrap();
        assert!(all.contains(from_ms(1_763_971_200_000)));
    }

    #[test]
    fn halves_cover_the_window() {
        let (left, right) = window(0, 7).bisect(1).unwrap();
        assert_eq!(
            (left.from(), left.to(), right.to()),
            (from_ms(0), right.from(), from_ms(7))
        );
        assert_eq!(window(0, 7).bisect(4), None);
    }

    proptest! {
        #[test]
        fn union_and_minus_match_set_operations(a in any_coverage(), b in any_coverage()) {
            let mut both = a.clone();
            both.union(&b);
            let rest = a.minus(&b);
            for ms in -1..90 {
                prop_assert_eq!(holds(&both, ms), holds(&a, ms) || holds(&b, ms));
                prop_assert_eq!(holds(&rest, ms), holds(&a, ms) && !holds(&b, ms));
            }
        }

        #[test]
        fn union_is_commutative_associative_and_idempotent(a in any_coverage(), b in any_coverage(), c in any_coverage()) {
            let union = |x: &Coverage, y: &Coverage| { let mut z = x.clone(); z.union(y); z };
            prop_assert_eq!(union(&a, &b), union(&b, &a));
            prop_assert_eq!(union(&union(&a, &b), &c), union(&a, &union(&b, &c)));
            prop_assert_eq!(union(&a, &a), a.clone());
            let normal = |x: &Coverage| x.windows().windows(2).all(|p| p[0].to() < p[1].from());
            prop_assert!(normal(&union(&a, &b)) && normal(&a.minus(&b)));
        }
    }
}
