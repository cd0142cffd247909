//! Observations on their way to the lake, grouped by partition; what memory cannot hold goes to
//! scratch, compressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::runs::{SortedRuns, Stored};
use crate::observation::Observation;

/// Observations by partition `P`, in memory up to a limit, then in a file of `scratch`.
#[derive(Debug)]
pub struct Spool<P> {
    partitions: BTreeMap<P, Spooled>,
    rows: usize,
    in_memory: usize,
    on_disk: u64,
    file: Option<Arc<File>>,
    scratch: PathBuf,
    /// Bytes of summaries that stay in memory.
    memory: usize,
}

/// The observations of one partition.
#[derive(Debug, Default)]
struct Spooled {
    in_memory: Vec<Observation>,
    on_disk: Vec<Stored>,
}

/// Bytes of summaries that a spool keeps in memory.
const MEMORY: usize = 12 << 20;

impl<P: Ord + Copy> Spool<P> {
    /// An empty spool that may use the folder `scratch`.
    pub fn new(scratch: &Path) -> Self {
        Self::holding(MEMORY, scratch)
    }

    /// An empty spool that keeps `memory` bytes of summaries in memory, the rest in `scratch`.
    pub fn holding(memory: usize, scratch: &Path) -> Self {
        let scratch = scratch.to_path_buf();
        Self {
            partitions: BTreeMap::new(),
            rows: 0,
            in_memory: 0,
            on_disk: 0,
            file: None,
            scratch,
            memory,
        }
    }

    /// Adds an observation.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be written.
    pub fn push(&mut self, partition: P, observation: Observation) -> io::Result<()> {
        self.rows += 1;
        self.in_memory += observation.summary.len();
        let spooled = self.partitions.entry(partition).or_default();
        spooled.in_memory.push(observation);
        if self.memory < self.in_memory {
            self.spill()
        } else {
            Ok(())
        }
    }

    /// Observations that were added since the spool was last empty.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of scratch that are in use.
    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(Arc::new(tempfile::tempfile_in(&self.scratch)?)),
        };
        for spooled in self.partitions.values_mut() {
            let observations = std::mem::take(&mut spooled.in_memory);
            if !observations.is_empty() {
                let stored = Stored::append(file, observations)?;
                self.on_disk = stored.end();
                spooled.on_disk.push(stored);
            }
        }
        self.in_memory = 0;
        Ok(())
    }

    /// Takes the first partition with all its observations; `None` at the end, with which scratch is
    /// free as soon as all that was taken is.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<(P, SortedRuns)>> {
        let Some((partition, spooled)) = self.partitions.pop_first() else {
            *self = Self::holding(self.memory, &self.scratch);
            return Ok(None);
        };
        let mut runs = SortedRuns::of(spooled.in_memory);
        for stored in spooled.on_disk {
            runs.add(stored)?;
        }
        Ok(Some((partition, runs)))
    }

    /// The partitions that hold observations, in order.
    pub fn partitions(&self) -> impl Iterator<Item = P> + '_ {
        self.partitions.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::ids::{PlanExecutionId, Scope};
    use crate::observation::Version;
    use crate::window::from_ms;

    fn observation(n: usize, size: usize) -> Observation {
        let n_ms = i64::try_from(n).unwrap();
        Observation {
            id: PlanExecutionId::new(n.to_string()),
            scope: Scope::new("o", format!("p{n}")),
            start: from_ms(n_ms),
            version: Version {
                observed: Timestamp::from_nanosecond(1_700_000_000_123_456_789 + i128::from(n_ms))
                    .unwrap(),
                content_hash: -n_ms,
                is_terminal: n.is_multiple_of(3),
            },
            first_observed: from_ms(1_600_000_000_000 + n_ms),
            summary: vec![u8::try_from(n % 250).unwrap(); size].into(),
        }
    }

    #[test]
    fn what_went_to_disk_comes_back() {
        let scratch = tempfile::tempdir().unwrap();
        let memory = 1 << 20;
        let mut spool = Spool::holding(memory, scratch.path());
        let size = memory / 5;
        // Twice: a spool that was emptied begins anew.
        for _ in 0..2 {
            assert!(spool.is_empty() && spool.rows() == 0 && spool.on_disk() == 0);
            for n in 0..50 {
                spool.push(n % 2, observation(n, size)).unwrap();
            }
            assert!(spool.in_memory <= memory && spool.rows() == 50);
            let on_disk = spool.on_disk();
            assert!(
                0 < on_disk && on_disk < size as u64,
                "compressed: {on_disk}"
            );
            for parity in 0..2 {
                let (partition, runs) = spool.pop().unwrap().unwrap();
                assert_eq!((partition, runs.observations().count()), (parity, 25));
                let mut summaries = runs.summaries();
                let mut seen: Vec<usize> = Vec::new();
                for (place, known) in runs.observations() {
                    let n = known.start.as_millisecond();
                    let mut whole = known.clone();
                    whole.summary = summaries.at(place).unwrap();
                    let n = usize::try_from(n).unwrap();
                    assert!(whole == observation(n, size), "row {n}");
                    seen.push(n);
                }
                seen.sort_unstable();
                assert!(seen.into_iter().eq((0..25).map(|at| 2 * at + parity)));
            }
            assert!(spool.pop().unwrap().is_none());
        }
    }
}
