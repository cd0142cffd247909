//! The observations of one partition in sorted runs: in memory while they are few, else with their
//! summaries in scratch. A merge decides by what is in memory, and then reads each run once, in order.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use bytes::Bytes;

use super::Observation;

/// Observations of one partition.
#[derive(Debug, Default)]
pub struct Runs(Vec<Run>);

/// Where an observation stands among the runs of its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    run: usize,
    at: usize,
}

/// Observations in their order.
#[derive(Debug)]
struct Run {
    /// Without summaries where these are in `file`.
    observations: Vec<Observation>,
    /// The summaries, in the same order: one zstd frame of lengths and texts.
    file: Option<File>,
}

/// Summaries shrink tenfold at the fastest level.
const LEVEL: i32 = 1;

impl Runs {
    /// One run, in memory.
    pub fn of(mut observations: Vec<Observation>) -> Self {
        sort(&mut observations);
        Self(vec![Run {
            observations,
            file: None,
        }])
    }

    /// Adds a run whose summaries go to scratch.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be written.
    pub(super) fn spill(
        &mut self,
        mut observations: Vec<Observation>,
        scratch: &Path,
    ) -> io::Result<()> {
        sort(&mut observations);
        let mut frame = zstd::Encoder::new(BufWriter::new(tempfile::tempfile_in(scratch)?), LEVEL)?;
        for observation in &mut observations {
            let summary = std::mem::take(&mut observation.summary);
            let length = u32::try_from(summary.len()).map_err(io::Error::other)?;
            frame.write_all(&length.to_le_bytes())?;
            frame.write_all(&summary)?;
        }
        let file = frame.finish()?.into_inner()?;
        self.0.push(Run {
            observations,
            file: Some(file),
        });
        Ok(())
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|run| run.observations.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All observations; not of every one the summary.
    pub fn observations(&self) -> impl Iterator<Item = (Place, &Observation)> {
        self.0.iter().enumerate().flat_map(|(run, known)| {
            let place = move |(at, observation)| (Place { run, at }, observation);
            known.observations.iter().enumerate().map(place)
        })
    }

    /// The summaries, from the first on.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be read.
    pub fn summaries(&self) -> io::Result<Summaries<'_>> {
        let open = |run| Reader::open(run);
        Ok(Summaries(
            self.0.iter().map(open).collect::<Result<_, _>>()?,
        ))
    }
}

fn sort(observations: &mut [Observation]) {
    observations.sort_by(|a, b| a.order().cmp(&b.order()));
}

/// The summaries of runs, each read once.
pub struct Summaries<'a>(Vec<Reader<'a>>);

enum Reader<'a> {
    Memory(&'a [Observation]),
    File {
        frame: zstd::Decoder<'static, BufReader<&'a File>>,
        next: usize,
    },
}

impl Summaries<'_> {
    /// The summary at a place. Of one run, places are asked for in their order.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where scratch cannot be read, or a place behind the last one is asked for.
    pub fn at(&mut self, place: Place) -> io::Result<Bytes> {
        match &mut self.0[place.run] {
            Reader::Memory(observations) => Ok(observations[place.at].summary.clone()),
            // What stands there was passed: another summary must not take its place.
            Reader::File { next, .. } if place.at < *next => {
                Err(io::Error::other("summaries are asked for out of order"))
            }
            Reader::File { frame, next } => {
                while *next < place.at {
                    let length = length(frame)?;
                    io::copy(&mut frame.take(length), &mut io::sink())?;
                    *next += 1;
                }
                let mut summary =
                    vec![0; usize::try_from(length(frame)?).map_err(io::Error::other)?];
                frame.read_exact(&mut summary)?;
                *next += 1;
                Ok(summary.into())
            }
        }
    }
}

impl<'a> Reader<'a> {
    fn open(run: &'a Run) -> io::Result<Self> {
        match &run.file {
            None => Ok(Self::Memory(&run.observations)),
            Some(file) => {
                let mut from = file;
                from.rewind()?;
                let frame = zstd::Decoder::new(from)?;
                Ok(Self::File { frame, next: 0 })
            }
        }
    }
}

fn length(frame: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 4];
    frame.read_exact(&mut bytes)?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::Version;
    use crate::ids::{PlanExecutionId, Scope};
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
    fn runs_give_every_summary_in_order_and_again() {
        let scratch = tempfile::tempdir().unwrap();
        let mut runs = Runs::of([3, 1, 2].map(observation).into());
        runs.spill([9, 7, 4, 6].map(observation).into(), scratch.path())
            .unwrap();
        runs.spill([8, 5].map(observation).into(), scratch.path())
            .unwrap();
        assert_eq!(runs.len(), 9);
        // A merge that loses its race reads them again.
        for _ in 0..2 {
            let mut summaries = runs.summaries().unwrap();
            let mut seen = Vec::new();
            for (place, known) in runs.observations() {
                let n = known.version.content_hash;
                // Not every one is asked for.
                if n != 6 && n != 5 {
                    assert_eq!(summaries.at(place).unwrap(), format!("summary {n}"));
                    seen.push(n);
                }
            }
            assert_eq!(seen, [3, 1, 2, 9, 4, 7, 8]);
            let (last, _) = runs.observations().last().unwrap();
            assert!(summaries.at(last).is_err(), "it was read");
        }
    }
}
