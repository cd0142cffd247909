//! Observations on their way to the lake, grouped by partition; what memory cannot hold goes to
//! scratch, compressed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;

use super::runs::Runs;
use super::{Observation, Version};
use crate::ids::{PlanExecutionId, Scope};

/// Observations by partition `P`, in memory up to a limit, then in a file of `scratch`.
#[derive(Debug)]
pub struct Spool<P> {
    partitions: BTreeMap<P, Spooled>,
    rows: usize,
    in_memory: usize,
    on_disk: u64,
    file: Option<File>,
    scratch: PathBuf,
    /// Bytes of summaries that stay in memory: of all partitions, and twice as many of one that is taken.
    memory: usize,
}

/// The observations of one partition.
#[derive(Debug, Default)]
struct Spooled {
    in_memory: Vec<Observation>,
    on_disk: Vec<Chunk>,
}

/// Observations in the file: one zstd frame.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    at: u64,
    bytes: u64,
    rows: usize,
}

/// Bytes of summaries that a spool keeps in memory.
const MEMORY: usize = 12 << 20;

/// Summaries shrink tenfold at the fastest level.
const LEVEL: i32 = 1;

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
            none => none.insert(tempfile::tempfile_in(&self.scratch)?),
        };
        let mut at = file.seek(SeekFrom::Start(self.on_disk))?;
        for spooled in self.partitions.values_mut() {
            let observations = std::mem::take(&mut spooled.in_memory);
            if observations.is_empty() {
                continue;
            }
            let mut frame = zstd::Encoder::new(&mut *file, LEVEL)?;
            for observation in &observations {
                write(&mut frame, observation)?;
            }
            frame.finish()?;
            let end = file.stream_position()?;
            spooled.on_disk.push(Chunk {
                at,
                bytes: end - at,
                rows: observations.len(),
            });
            at = end;
        }
        self.on_disk = at;
        self.in_memory = 0;
        Ok(())
    }

    /// Takes the first partition with all its observations; `None` at the end, with which scratch is
    /// free. Those that are too many for memory are in scratch still, sorted.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be read or written.
    pub fn pop(&mut self) -> io::Result<Option<(P, Runs)>> {
        let Some((partition, spooled)) = self.partitions.pop_first() else {
            *self = Self::holding(self.memory, &self.scratch);
            return Ok(None);
        };
        let mut observations = spooled.in_memory;
        let size = |some: &[Observation]| some.iter().map(|one| one.summary.len()).sum::<usize>();
        let mut bytes = size(&observations);
        let mut runs = Runs::default();
        for chunk in spooled.on_disk {
            let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
            file.seek(SeekFrom::Start(chunk.at))?;
            let mut frame = BufReader::new(zstd::Decoder::new(file.take(chunk.bytes))?);
            observations.reserve(chunk.rows);
            for _ in 0..chunk.rows {
                let observation = read(&mut frame)?;
                bytes += observation.summary.len();
                observations.push(observation);
            }
            if 2 * self.memory <= bytes {
                runs.spill(std::mem::take(&mut observations), &self.scratch)?;
                bytes = 0;
            }
        }
        if runs.is_empty() {
            runs = Runs::of(observations);
        } else if !observations.is_empty() {
            runs.spill(observations, &self.scratch)?;
        }
        Ok(Some((partition, runs)))
    }

    /// The partitions that hold observations, in order.
    pub fn partitions(&self) -> impl Iterator<Item = P> + '_ {
        self.partitions.keys().copied()
    }
}

/// Bytes of a record's numbers: three times in ns, the hash, the flag, four lengths.
const HEAD: usize = 16 + 16 + 16 + 8 + 1 + 4 * 4;

fn write(out: &mut impl Write, observation: &Observation) -> io::Result<()> {
    let Observation {
        id,
        scope,
        start,
        version,
        first_observed,
        summary,
    } = observation;
    let texts = [
        id.as_str().as_bytes(),
        scope.org.as_str().as_bytes(),
        scope.project.as_str().as_bytes(),
        summary,
    ];
    let mut head = [0; HEAD];
    let mut at = Cursor::new(&mut head[..]);
    at.write_all(&start.as_nanosecond().to_le_bytes())?;
    at.write_all(&version.observed.as_nanosecond().to_le_bytes())?;
    at.write_all(&first_observed.as_nanosecond().to_le_bytes())?;
    at.write_all(&version.content_hash.to_le_bytes())?;
    at.write_all(&[u8::from(version.is_terminal)])?;
    for text in texts {
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        at.write_all(&length.to_le_bytes())?;
    }
    out.write_all(&head)?;
    texts.into_iter().try_for_each(|text| out.write_all(text))
}

fn read(from: &mut impl Read) -> io::Result<Observation> {
    let start = time(from)?;
    let observed = time(from)?;
    let first_observed = time(from)?;
    let content_hash = i64::from_le_bytes(bytes(from)?);
    let [is_terminal] = bytes(from)?;
    let mut lengths = [0; 4];
    for length in &mut lengths {
        *length = u32::from_le_bytes(bytes(from)?) as usize;
    }
    let [id, org, project, summary] = lengths;
    Ok(Observation {
        id: PlanExecutionId::new(text(from, id)?),
        scope: Scope::new(text(from, org)?, text(from, project)?),
        start,
        version: Version {
            observed,
            content_hash,
            is_terminal: is_terminal == 1,
        },
        first_observed,
        summary: Bytes::from(take(from, summary)?),
    })
}

fn time(from: &mut impl Read) -> io::Result<Timestamp> {
    Timestamp::from_nanosecond(i128::from_le_bytes(bytes(from)?)).map_err(io::Error::other)
}

fn text(from: &mut impl Read, length: usize) -> io::Result<String> {
    String::from_utf8(take(from, length)?).map_err(io::Error::other)
}

fn take(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut taken = vec![0; length];
    from.read_exact(&mut taken)?;
    Ok(taken)
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
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
                assert_eq!((partition, runs.len()), (parity, 25));
                let mut summaries = runs.summaries().unwrap();
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
