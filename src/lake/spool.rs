//! Buffer of observations that are not merged yet, grouped by partition. Spills compressed to the
//! scratch directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::Partition;
use super::runs::{SortedRuns, SpilledRun};
use crate::observation::Observation;

/// Observations by partition, in memory up to a limit, then in a temporary file.
#[derive(Debug)]
pub struct Spool {
    partitions: BTreeMap<Partition, Spooled>,
    rows: usize,
    in_memory: usize,
    on_disk: u64,
    file: Option<Arc<File>>,
    scratch: PathBuf,
    /// Maximum bytes of summaries in memory.
    memory: usize,
}

/// The observations of one partition.
#[derive(Debug, Default)]
struct Spooled {
    in_memory: Vec<Observation>,
    on_disk: Vec<SpilledRun>,
}

/// Default maximum bytes of summaries in memory.
const MEMORY: usize = 12 << 20;

impl Spool {
    /// Creates an empty spool that spills to the folder `scratch`.
    pub fn new(scratch: &Path) -> Self {
        Self::with_memory(MEMORY, scratch)
    }

    /// Creates an empty spool that spills once it holds more than `memory` bytes of summaries.
    pub(super) fn with_memory(memory: usize, scratch: &Path) -> Self {
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
    /// [`io::Error`] if scratch cannot be written.
    pub fn push(&mut self, partition: Partition, observation: Observation) -> io::Result<()> {
        self.rows += 1;
        self.in_memory += observation.summary.len();
        let spooled = self.partitions.entry(partition).or_default();
        spooled.in_memory.push(observation);
        if self.in_memory > self.memory {
            self.spill()
        } else {
            Ok(())
        }
    }

    /// Returns the number of observations added since the spool was last empty.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the bytes spilled to disk.
    pub fn on_disk(&self) -> u64 {
        self.on_disk
    }

    /// Returns true if the spool has no observations.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            unset => unset.insert(Arc::new(tempfile::tempfile_in(&self.scratch)?)),
        };
        for spooled in self.partitions.values_mut() {
            let observations = std::mem::take(&mut spooled.in_memory);
            if !observations.is_empty() {
                let run = SpilledRun::append(file, observations)?;
                self.on_disk = run.end();
                spooled.on_disk.push(run);
            }
        }
        self.in_memory = 0;
        Ok(())
    }

    /// Removes the first partition and returns its observations. Returns `None` if the spool is empty,
    /// and resets it: the temporary file is deleted with the last of the returned runs.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if scratch cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<(Partition, SortedRuns)>> {
        let Some((partition, spooled)) = self.partitions.pop_first() else {
            *self = Self::with_memory(self.memory, &self.scratch);
            return Ok(None);
        };
        let mut runs = SortedRuns::of(spooled.in_memory);
        for run in spooled.on_disk {
            runs.add(run)?;
        }
        Ok(Some((partition, runs)))
    }

    /// Returns the partitions with observations, in order.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + '_ {
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

    fn bucket(n: usize) -> Partition {
        Partition {
            date: "2026-11-24".parse().unwrap(),
            bucket: u32::try_from(n % 2).unwrap(),
            buckets: 2,
        }
    }

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
    fn spilled_observations_are_read_back() {
        let scratch = tempfile::tempdir().unwrap();
        let memory = 1 << 20;
        let mut spool = Spool::with_memory(memory, scratch.path());
        let size = memory / 5;
        // The second round shows that an emptied spool is reset.
        for _ in 0..2 {
            assert!(spool.is_empty() && spool.rows() == 0 && spool.on_disk() == 0);
            for n in 0..50 {
                spool.push(bucket(n), observation(n, size)).unwrap();
            }
            assert!(spool.in_memory <= memory && spool.rows() == 50);
            let on_disk = spool.on_disk();
            assert!(
                0 < on_disk && on_disk < size as u64,
                "{on_disk} bytes are not compressed"
            );
            for parity in 0..2 {
                let (partition, runs) = spool.pop().unwrap().unwrap();
                assert_eq!(partition, bucket(parity));
                assert_eq!(runs.observations().count(), 25);
                let mut summaries = runs.summaries();
                let mut seen: Vec<usize> = Vec::new();
                for (position, known) in runs.observations() {
                    let n = known.start.as_millisecond();
                    let mut observed = known.clone();
                    observed.summary = summaries.at(position).unwrap();
                    let n = usize::try_from(n).unwrap();
                    assert!(observed == observation(n, size), "row {n}");
                    seen.push(n);
                }
                seen.sort_unstable();
                assert!(seen.into_iter().eq((0..25).map(|at| 2 * at + parity)));
            }
            assert!(spool.pop().unwrap().is_none());
        }
    }
}
