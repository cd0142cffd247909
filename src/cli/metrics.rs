//! `--metrics-file`: written at the end of a run, whatever its end.

use std::path::Path;

use jiff::Timestamp;

use super::Context;
use crate::error::{Error, chain};
use crate::metrics::{Ending, write};
use crate::report::Report;

/// A run whose figures are written when it ends.
pub(super) struct Measured<'a> {
    command: &'static str,
    file: Option<&'a Path>,
    clock: fn() -> Timestamp,
    began: Timestamp,
}

impl<'a> Measured<'a> {
    pub(super) fn begin(
        command: &'static str,
        file: Option<&'a Path>,
        context: &Context,
    ) -> Measured<'a> {
        Self {
            command,
            file,
            clock: context.clock,
            began: (context.clock)(),
        }
    }

    /// What a run needs before it has a report; where that cannot be had, the run has ended.
    pub(super) fn needs<T>(&self, had: Result<T, impl Into<Error>>) -> Result<T, Error> {
        match had {
            Ok(had) => Ok(had),
            Err(error) => {
                let ended = Err(error.into());
                self.write(None, &ended)?;
                ended
            }
        }
    }

    /// Writes the figures of a run that ended. Where that cannot be done, it is the failure of a
    /// run that has no other.
    pub(super) fn write<T>(
        &self,
        report: Option<&Report>,
        ended: &Result<T, Error>,
    ) -> Result<(), Error> {
        let Some(path) = self.file else {
            return Ok(());
        };
        let ending = Ending {
            command: self.command,
            began: self.began,
            ended: (self.clock)(),
            report,
            error: ended.as_ref().err(),
        };
        let path_shown = path.display().to_string();
        match write(path, &ending) {
            Ok(()) => Ok(()),
            Err(source) if ended.is_ok() => Err(Error::Output {
                path: path_shown,
                source,
            }),
            Err(error) => {
                tracing::warn!(file = path_shown, "write the metrics: {}", chain(&error));
                Ok(())
            }
        }
    }
}
