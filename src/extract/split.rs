//! Decides what follows a window that is incomplete: a second read, two halves, or a gap. Pure.

use crate::window::Window;

/// The shortest window that splitting makes, in milliseconds.
pub(super) const MIN_WINDOW_MS: i64 = 60_000;

/// Suspicious reads of one scope, after which its remaining windows become gaps without further
/// splitting: wrong totals must not cause unbounded requests.
const MAX_SUSPICIONS: u32 = 24;

/// The suspicious reads of one scope: totals that were not met, or that both halves of a window repeat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SuspicionBudget {
    used: u32,
}

impl SuspicionBudget {
    /// Returns whether no suspicious read is left.
    pub(super) fn is_spent(self) -> bool {
        self.used >= MAX_SUSPICIONS
    }

    /// Records a suspicious read.
    pub(super) fn spend(&mut self) {
        self.used += 1;
    }
}

/// A window that is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRead {
    /// The window.
    pub(super) window: Window,
    /// Whether a first read of it was incomplete.
    is_second: bool,
    /// Total of the window of which this is a half, if that had too many rows.
    parent_total: Option<u64>,
    /// Whether the older half of that window reported as many rows as the parent.
    sibling_repeats_total: bool,
    /// The older part of the window from which this one was cut, if it is not confirmed yet.
    pub(super) older: Option<Part>,
}

/// The older part of a window that was cut: complete if the newer part has all other rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The window.
    pub(super) window: Window,
    /// Rows received of it.
    pub(super) rows: u64,
    /// Total of both parts.
    pub(super) total: u64,
}

impl Part {
    /// Returns whether the part is complete, if the newer part has `newer` rows.
    pub(super) fn is_complete(self, newer: Option<u64>) -> bool {
        newer.is_some_and(|newer| newer.checked_add(self.rows) == Some(self.total))
    }
}

impl PendingRead {
    fn new(window: Window, parent_total: Option<u64>) -> Self {
        Self {
            window,
            is_second: false,
            parent_total,
            sibling_repeats_total: false,
            older: None,
        }
    }
}

/// The parts of one window that are still to be read.
#[derive(Debug)]
pub(super) struct PendingReads {
    /// The oldest is on top, so that coverage grows from the old end.
    stack: Vec<PendingRead>,
}

impl PendingReads {
    /// Begins with all of `window`.
    pub(super) fn new(window: Window) -> Self {
        Self {
            stack: vec![PendingRead::new(window, None)],
        }
    }

    /// Takes the oldest part.
    pub(super) fn pop(&mut self) -> Option<PendingRead> {
        self.stack.pop()
    }

    /// Adds a part again, as it was.
    pub(super) fn push(&mut self, read: PendingRead) {
        self.stack.push(read);
    }

    /// Adds the newer part of a window that was cut. `older` is not confirmed yet.
    pub(super) fn push_newer(&mut self, window: Window, older: Option<Part>) {
        self.stack.push(PendingRead {
            older,
            ..PendingRead::new(window, None)
        });
    }

    /// Adds the older part of a window that was cut, since the totals do not confirm that it is complete.
    pub(super) fn push_unconfirmed(&mut self, window: Window) {
        self.stack.push(PendingRead {
            is_second: true,
            ..PendingRead::new(window, None)
        });
    }

    /// Returns the windows of the parts that are left.
    pub(super) fn into_windows(self) -> impl Iterator<Item = Window> {
        self.stack.into_iter().map(|read| read.window)
    }

    /// Adds what follows a read that did not match the reported total: a second read, then both halves.
    /// Returns the window instead if it becomes a gap.
    pub(super) fn after_incomplete(
        &mut self,
        read: PendingRead,
        suspicions: &mut SuspicionBudget,
    ) -> Option<Window> {
        if suspicions.is_spent() {
            return Some(read.window);
        }
        if read.is_second {
            return self.split(read.window, None);
        }
        suspicions.spend();
        self.stack.push(PendingRead {
            is_second: true,
            ..read
        });
        None
    }

    /// Adds both halves of a window that has too many rows to page through. Returns the window instead
    /// if it becomes a gap.
    ///
    /// All rows may lie in one half, but not in each: only a total that both halves repeat is suspicious.
    pub(super) fn after_too_many(
        &mut self,
        read: PendingRead,
        total: Option<u64>,
        suspicions: &mut SuspicionBudget,
    ) -> Option<Window> {
        let repeats_total = read.parent_total.is_some() && total >= read.parent_total;
        let is_spent = suspicions.is_spent();
        if let Some(next) = self.stack.last_mut()
            && next.window.from() == read.window.to()
        {
            next.sibling_repeats_total |= repeats_total;
        }
        if repeats_total && read.sibling_repeats_total {
            suspicions.spend();
        }
        if repeats_total && is_spent {
            return Some(read.window);
        }
        self.split(read.window, total)
    }

    /// Adds both halves of a window that failed. Returns false if it cannot be split further.
    pub(super) fn halve(&mut self, window: Window) -> bool {
        self.split(window, None).is_none()
    }

    fn split(&mut self, window: Window, total: Option<u64>) -> Option<Window> {
        let Some((older, newer)) = window.bisect(MIN_WINDOW_MS) else {
            return Some(window);
        };
        let halves = [newer, older].map(|half| PendingRead::new(half, total));
        self.stack.extend(halves);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    fn window(from: i64, to: i64) -> Window {
        Window::new(from_ms(from * MIN_WINDOW_MS), from_ms(to * MIN_WINDOW_MS)).unwrap()
    }

    #[test]
    fn incomplete_window_is_read_twice_then_halved() {
        let mut suspicions = SuspicionBudget::default();
        let mut pending = PendingReads::new(window(0, 4));
        for _ in 0..2 {
            let read = pending.pop().unwrap();
            assert_eq!(read.window, window(0, 4));
            assert_eq!(pending.after_incomplete(read, &mut suspicions), None);
        }
        assert_eq!(pending.pop().unwrap().window, window(0, 2));
        assert_eq!(pending.pop().unwrap().window, window(2, 4));
        assert!(pending.pop().is_none());
    }

    #[test]
    fn shortest_window_becomes_a_gap_after_its_second_read() {
        let mut suspicions = SuspicionBudget::default();
        let mut pending = PendingReads::new(window(0, 1));
        let read = pending.pop().unwrap();
        assert_eq!(pending.after_incomplete(read, &mut suspicions), None);
        let read = pending.pop().unwrap();
        let gap = pending.after_incomplete(read, &mut suspicions);
        assert_eq!(gap, Some(window(0, 1)));
        assert!(pending.pop().is_none());
    }

    /// Reads a window until nothing is pending; returns the number of reads.
    fn reads(mut follow: impl FnMut(&mut PendingReads, PendingRead)) -> usize {
        let mut pending = PendingReads::new(window(0, 1 << 16));
        let mut reads = 0;
        while let Some(read) = pending.pop() {
            reads += 1;
            follow(&mut pending, read);
        }
        reads
    }

    #[test]
    fn totals_that_are_never_met_cost_a_bounded_number_of_reads() {
        let mut suspicions = SuspicionBudget::default();
        let reads = reads(|pending, read| {
            pending.after_incomplete(read, &mut suspicions);
        });
        assert!(reads <= 3 * MAX_SUSPICIONS as usize, "{reads}");
    }

    #[test]
    fn constant_total_costs_a_bounded_number_of_reads() {
        let mut suspicions = SuspicionBudget::default();
        let reads = reads(|pending, read| {
            pending.after_too_many(read, Some(20_000), &mut suspicions);
        });
        assert!(reads <= 5 * MAX_SUSPICIONS as usize, "{reads}");
    }

    #[test]
    fn rows_in_one_half_are_not_suspicious() {
        let mut suspicions = SuspicionBudget::default();
        let mut gaps = Vec::new();
        let reads = reads(|pending, read| {
            // All rows lie in the first minute.
            if read.window.from() == from_ms(0) {
                gaps.extend(pending.after_too_many(read, Some(20_000), &mut suspicions));
            }
        });
        assert_eq!((reads, gaps), (33, vec![window(0, 1)]));
        assert_eq!(suspicions.used, 0);
    }
}
