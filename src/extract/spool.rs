//! Observations on their way to the lake, grouped by partition; what memory cannot hold goes to scratch.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Observation;

/// Observations by partition `P`, in memory up to a limit, then in a file of `scratch`.
#[derive(Debug)]
pub struct Spool<P> {
    entries: BTreeMap<P, Vec<Entry>>,
    in_memory: usize,
    bytes: u64,
    file: Option<File>,
    scratch: PathBuf,
}

#[derive(Debug)]
struct Entry {
    /// The observation; its summary is empty once it is on disk.
    observation: Observation,
    /// Where the summary stands in the file.
    on_disk: Option<(u64, usize)>,
}

/// Bytes of summaries that stay in memory.
const MEMORY: usize = 64 << 20;

impl<P: Ord + Copy> Spool<P> {
    /// An empty spool that may use the folder `scratch`.
    pub fn new(scratch: &Path) -> Self {
        let scratch = scratch.to_path_buf();
        Self {
            entries: BTreeMap::new(),
            in_memory: 0,
            bytes: 0,
            file: None,
            scratch,
        }
    }

    /// Adds an observation.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be written.
    pub fn push(&mut self, partition: P, observation: Observation) -> io::Result<()> {
        let size = observation.summary.len();
        self.in_memory += size;
        self.bytes += size as u64;
        self.entries.entry(partition).or_default().push(Entry {
            observation,
            on_disk: None,
        });
        if MEMORY < self.in_memory {
            self.spill()
        } else {
            Ok(())
        }
    }

    /// Bytes of summaries, in memory and on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.scratch)?),
        };
        let mut at = file.seek(SeekFrom::End(0))?;
        let mut out = io::BufWriter::new(file);
        for entry in self
            .entries
            .values_mut()
            .flatten()
            .filter(|entry| entry.on_disk.is_none())
        {
            let summary = std::mem::take(&mut entry.observation.summary);
            out.write_all(&summary)?;
            entry.on_disk = Some((at, summary.len()));
            at += summary.len() as u64;
        }
        out.flush()?;
        self.in_memory = 0;
        Ok(())
    }

    /// Takes the observations of the first partition, summaries back in memory; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<(P, Vec<Observation>)>> {
        let Some((partition, entries)) = self.entries.pop_first() else {
            return Ok(None);
        };
        let mut observations = Vec::with_capacity(entries.len());
        for Entry {
            mut observation,
            on_disk,
        } in entries
        {
            if let (Some((at, length)), Some(file)) = (on_disk, &mut self.file) {
                observation.summary = read_at(file, at, length)?;
            }
            observations.push(observation);
        }
        Ok(Some((partition, observations)))
    }

    /// The partitions that hold observations, in order.
    pub fn partitions(&self) -> impl Iterator<Item = P> + '_ {
        self.entries.keys().copied()
    }
}

fn read_at(file: &mut File, at: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(at))?;
    io::Read::read_exact(file, &mut bytes)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::super::Version;
    use super::*;
    use crate::ids::{PlanExecutionId, Scope};
    use crate::window::from_ms;

    fn observation(n: usize, size: usize) -> Observation {
        Observation {
            id: PlanExecutionId::new(n.to_string()),
            scope: Scope::new("o", "p"),
            start: from_ms(0),
            version: Version {
                observed: from_ms(0),
                content_hash: 0,
                is_terminal: true,
            },
            summary: vec![u8::try_from(n % 250).unwrap(); size].into(),
        }
    }

    #[test]
    fn what_went_to_disk_comes_back() {
        let scratch = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(scratch.path());
        let size = MEMORY / 5;
        for n in 0..12 {
            spool.push(n % 2, observation(n, size)).unwrap();
        }
        assert!(spool.in_memory <= MEMORY && spool.bytes() == 12 * size as u64);
        for parity in 0..2 {
            let (partition, rows) = spool.pop().unwrap().unwrap();
            let ids: Vec<_> = rows.iter().map(|row| row.id.to_string()).collect();
            let expected: Vec<_> = (0..6).map(|n| (2 * n + parity).to_string()).collect();
            assert_eq!((partition, ids), (parity, expected));
            for row in rows {
                let n: u8 = row.id.as_str().parse().unwrap();
                assert!(row.summary.len() == size && row.summary.iter().all(|byte| *byte == n));
            }
        }
        assert!(spool.pop().unwrap().is_none());
    }
}
