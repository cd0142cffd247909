//! Sorted runs of the observations of one partition: in memory, or with their summaries in scratch. A
//! merge compares the keys in memory, then reads each run once, in order.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::ids::{PlanExecutionId, Scope};
use crate::observation::{Observation, Version};

/// Observations of one partition.
#[derive(Debug)]
pub struct SortedRuns(Vec<SortedRun>);

/// The position of an observation in the runs of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunPosition {
    run: usize,
    at: usize,
}

/// A sequence of observations in the order of raw partitions.
#[derive(Debug)]
struct SortedRun {
    /// Without summaries if the run is spilled.
    observations: Vec<Observation>,
    spilled: Option<SpilledRun>,
}

/// A sorted run in scratch: one zstd frame with the heads of all observations, followed by the lengths
/// and texts of their summaries.
#[derive(Debug)]
pub(crate) struct SpilledRun {
    section: Section,
    rows: usize,
    /// Bytes of heads.
    heads: usize,
}

/// A part of a file.
#[derive(Clone, Debug)]
struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

/// The zstd level: summaries shrink tenfold at the fastest level.
const LEVEL: i32 = 1;

/// The zstd window, as a power of two. Each frame that is open for reading takes twice that memory.
const WINDOW: u32 = 17;

/// Bytes per read of a frame.
const READ: usize = 32 << 10;

impl SortedRuns {
    /// Creates a single run in memory.
    pub fn of(mut observations: Vec<Observation>) -> Self {
        sort(&mut observations);
        Self(vec![SortedRun {
            observations,
            spilled: None,
        }])
    }

    /// Adds a spilled run.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if scratch cannot be read.
    pub(super) fn add(&mut self, run: SpilledRun) -> io::Result<()> {
        self.0.push(SortedRun {
            observations: run.heads()?,
            spilled: Some(run),
        });
        Ok(())
    }

    /// Returns all observations. Those of spilled runs have empty summaries: read them with
    /// [`SortedRuns::summaries`].
    pub fn observations(&self) -> impl Iterator<Item = (RunPosition, &Observation)> {
        self.0.iter().enumerate().flat_map(|(run, known)| {
            let position = move |(at, observation)| (RunPosition { run, at }, observation);
            known.observations.iter().enumerate().map(position)
        })
    }

    /// Returns a reader of the summaries, from the first one on.
    pub fn summaries(&self) -> Summaries<'_> {
        Summaries(self.0.iter().map(Reader::of).collect())
    }
}

fn sort(observations: &mut [Observation]) {
    observations.sort_by(|a, b| a.order().cmp(&b.order()));
}

impl SpilledRun {
    /// Appends observations to a file. Readers use positioned reads only.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the file cannot be written.
    pub(super) fn append(file: &Arc<File>, mut observations: Vec<Observation>) -> io::Result<Self> {
        sort(&mut observations);
        let mut heads = Vec::new();
        for observation in &observations {
            write_head(&mut heads, observation)?;
        }
        let mut to = &**file;
        let at = to.stream_position()?;
        let mut frame = zstd::Encoder::new(to, LEVEL)?;
        frame.window_log(WINDOW)?;
        frame.write_all(&heads)?;
        // Lets readers decode the heads without the summaries.
        frame.flush()?;
        for Observation { summary, .. } in &observations {
            frame.write_all(&length(summary)?)?;
            frame.write_all(summary)?;
        }
        let end = frame.finish()?.stream_position()?;
        let file = Arc::clone(file);
        Ok(Self {
            section: Section { file, at, end },
            rows: observations.len(),
            heads: heads.len(),
        })
    }

    /// Returns the position in the file after the run.
    pub(super) fn end(&self) -> u64 {
        self.section.end
    }

    /// Reads the observations without their summaries.
    fn heads(&self) -> io::Result<Vec<Observation>> {
        let heads = take(&mut self.frame()?, self.heads)?;
        let mut heads = heads.as_slice();
        (0..self.rows).map(|_| read_head(&mut heads)).collect()
    }

    /// Opens the frame at the first summary.
    fn summaries(&self) -> io::Result<Frame> {
        let mut frame = self.frame()?;
        skip(&mut frame, self.heads as u64)?;
        Ok(frame)
    }

    fn frame(&self) -> io::Result<Frame> {
        let section = self.section.clone();
        zstd::Decoder::with_buffer(BufReader::with_capacity(READ, section))
    }
}

impl Read for Section {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        let read = self.file.read_at(&mut into[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

type Frame = zstd::Decoder<'static, BufReader<Section>>;

/// A reader of the summaries of sorted runs. Reads each run once.
pub struct Summaries<'a>(Vec<Reader<'a>>);

enum Reader<'a> {
    Memory(&'a [Observation]),
    Scratch {
        run: &'a SpilledRun,
        /// Open from the first requested summary to the last one of the run.
        frame: Option<Frame>,
        next: usize,
    },
}

impl Summaries<'_> {
    /// Reads the summary at a position. Positions in the same run must increase.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if scratch cannot be read, or the position precedes the previous one.
    pub fn at(&mut self, position: RunPosition) -> io::Result<Bytes> {
        match &mut self.0[position.run] {
            Reader::Memory(observations) => Ok(observations[position.at].summary.clone()),
            // The reader is past this position and must not return another summary.
            Reader::Scratch { next, .. } if position.at < *next => {
                Err(io::Error::other("summaries requested out of order"))
            }
            Reader::Scratch { run, frame, next } => {
                let mut open = match frame.take() {
                    Some(open) => open,
                    None => run.summaries()?,
                };
                for _ in *next..position.at {
                    let skipped = read_length(&mut open)?;
                    skip(&mut open, skipped as u64)?;
                }
                let length = read_length(&mut open)?;
                let summary = take(&mut open, length)?;
                *next = position.at + 1;
                *frame = (*next < run.rows).then_some(open);
                Ok(summary.into())
            }
        }
    }
}

impl<'a> Reader<'a> {
    fn of(run: &'a SortedRun) -> Self {
        match &run.spilled {
            None => Self::Memory(&run.observations),
            Some(run) => Self::Scratch {
                run,
                frame: None,
                next: 0,
            },
        }
    }
}

/// Bytes of the numbers of a head: three times in ns, the hash, the flag, three lengths.
const NUMBERS: usize = 16 + 16 + 16 + 8 + 1 + 3 * 4;

/// Writes an observation without its summary.
fn write_head(out: &mut Vec<u8>, observation: &Observation) -> io::Result<()> {
    let Observation {
        id,
        scope,
        start,
        version,
        first_observed,
        summary: _,
    } = observation;
    out.reserve(NUMBERS);
    for time in [start, &version.observed, first_observed] {
        out.extend(time.as_nanosecond().to_le_bytes());
    }
    out.extend(version.content_hash.to_le_bytes());
    out.push(u8::from(version.is_terminal));
    let texts = [id.as_str(), scope.org.as_str(), scope.project.as_str()];
    for text in texts {
        out.extend(length(text.as_bytes())?);
    }
    out.extend(texts.into_iter().flat_map(str::bytes));
    Ok(())
}

fn read_head(from: &mut impl Read) -> io::Result<Observation> {
    let start = time(from)?;
    let observed = time(from)?;
    let first_observed = time(from)?;
    let content_hash = i64::from_le_bytes(bytes(from)?);
    let [is_terminal] = bytes(from)?;
    let mut lengths = [0; 3];
    for length in &mut lengths {
        *length = read_length(from)?;
    }
    let [id, org, project] = lengths;
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
        summary: Bytes::new(),
    })
}

fn length(text: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    Ok(length.to_le_bytes())
}

fn read_length(from: &mut impl Read) -> io::Result<usize> {
    Ok(u32::from_le_bytes(bytes(from)?) as usize)
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

fn skip(from: &mut impl Read, bytes: u64) -> io::Result<()> {
    io::copy(&mut from.take(bytes), &mut io::sink())?;
    Ok(())
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

    fn observation(n: i64) -> Observation {
        Observation {
            id: PlanExecutionId::new(format!("e{n}")),
            scope: Scope::new("o", format!("p{}", n % 3)),
            start: from_ms(n),
            version: Version {
                observed: from_ms(n),
                content_hash: n,
                is_terminal: true,
            },
            first_observed: from_ms(n),
            summary: format!("summary {n}").into(),
        }
    }

    #[test]
    fn summaries_can_be_read_in_order_and_repeatedly() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut runs = SortedRuns::of([3, 1, 2].map(observation).into());
        for some in [[9, 7, 4, 6].as_slice(), &[8, 5]] {
            let some = some.iter().copied().map(observation).collect();
            runs.add(SpilledRun::append(&file, some).unwrap()).unwrap();
        }
        assert_eq!(runs.observations().count(), 9);
        // A merge that loses its race reads them again.
        for _ in 0..2 {
            let mut summaries = runs.summaries();
            let mut seen = Vec::new();
            for (position, known) in runs.observations() {
                let n = known.version.content_hash;
                // Skips two of them.
                if n != 6 && n != 5 {
                    let mut observed = known.clone();
                    observed.summary = summaries.at(position).unwrap();
                    assert!(observed == observation(n), "{n}");
                    seen.push(n);
                }
            }
            assert_eq!(seen, [3, 1, 2, 9, 4, 7, 8]);
            let (last, _) = runs.observations().last().unwrap();
            assert!(summaries.at(last).is_err(), "it was already read");
        }
    }
}
