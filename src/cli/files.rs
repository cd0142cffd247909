//! The files that the user named for the end of a run: its metrics, whatever that end is, and its report, if it came
//! so far.

use std::path::Path;

use jiff::Timestamp;

use super::Context;
use crate::causes::chain;
use crate::config::ConfigError;
use crate::error::Error;
use crate::metrics::{self, Ending};
use crate::report::Report;

/// The files of a run.
pub(super) struct Files<'a> {
    command: &'static str,
    report: Option<&'a Path>,
    metrics: Option<&'a Path>,
    clock: fn() -> Timestamp,
    began: Timestamp,
}

impl<'a> Files<'a> {
    /// Begins a run.
    pub(super) fn begin(
        command: &'static str,
        report: Option<&'a Path>,
        metrics: Option<&'a Path>,
        context: &Context,
    ) -> Files<'a> {
        Self {
            command,
            report,
            metrics,
            clock: context.clock,
            began: (context.clock)(),
        }
    }

    /// Looks for the folders of the files: better told before the work than after.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Range`] where one is not there, or a file is one itself.
    pub(super) fn check(&self) -> Result<(), Error> {
        let named = [("--report", self.report), ("--metrics-file", self.metrics)];
        let folders = named.into_iter().try_for_each(|(flag, file)| {
            if let Some(folder) = file.filter(|file| file.is_dir()) {
                let what = format!("{flag}: `{}` is a folder", folder.display());
                return Err(ConfigError::Range(what));
            }
            let folder = file.and_then(Path::parent);
            match folder.filter(|it| !it.as_os_str().is_empty() && !it.is_dir()) {
                None => Ok(()),
                Some(folder) => Err(ConfigError::Range(format!(
                    "{flag}: there is no folder `{}`",
                    folder.display()
                ))),
            }
        });
        self.needs(folders)
    }

    /// What a run needs before it has a report; where that cannot be had, the run has ended.
    pub(super) fn needs<T>(&self, had: Result<T, impl Into<Error>>) -> Result<T, Error> {
        had.map_err(|error| {
            let error = error.into();
            self.write_metrics(None, Some(&error));
            error
        })
    }

    /// Writes what is to be told of a run that ended as `ended` says. Where that cannot be done, it is the failure
    /// of a run that has no other.
    pub(super) fn write(&self, report: &Report, ended: Result<(), Error>) -> Result<(), Error> {
        let unwritten = self.write_report(report);
        let unwritten = unwritten.or(self.write_metrics(Some(report), ended.as_ref().err()));
        match unwritten {
            Some(unwritten) => ended.and(Err(unwritten)),
            None => ended,
        }
    }

    fn write_report(&self, report: &Report) -> Option<Error> {
        let path = self.report?;
        let json = serde_json::to_vec_pretty(report).expect("a report has text keys only");
        unwritten(path, std::fs::write(path, json))
    }

    fn write_metrics(&self, report: Option<&Report>, error: Option<&Error>) -> Option<Error> {
        let path = self.metrics?;
        let ending = Ending {
            command: self.command,
            began: self.began,
            ended: (self.clock)(),
            report,
            error,
        };
        unwritten(path, metrics::write(path, &ending))
    }
}

fn unwritten(path: &Path, written: std::io::Result<()>) -> Option<Error> {
    let source = written.err()?;
    let path = path.display().to_string();
    tracing::warn!(file = path, "cannot be written: {}", chain(&source));
    Some(Error::Unwritten { path, source })
}
