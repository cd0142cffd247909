//! The errors of commands: each has a code, an exit status and a hint.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::config::ConfigError;
use crate::extract::discover::DiscoverError;
use crate::lake::LakeError;
use crate::lake::log::CheckpointError;
use crate::lake::parquet::FileError;
use crate::lake::store::{ProbeError, StoreError};
use crate::source::{Cause, SourceError};

/// The error that ends a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A request to the source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Every project failed.
    #[error("failed to read any of {scopes} projects from the API ({code}), for example {example}")]
    AllFailed {
        /// Projects tried.
        scopes: usize,
        /// The common code.
        code: Code,
        /// One of the projects and its error.
        example: String,
    },
    /// The key can view no organization or no project.
    #[error("{0}")]
    NoResources(String),
    /// No visible project matches the filters.
    #[error("none of {0} matches --org, --project and --exclude")]
    NothingPasses(String),
    /// The lake cannot be read or written.
    #[error(transparent)]
    Lake(LakeError),
    /// Some projects failed, the rest is committed.
    #[error("{}; the rest is committed", partial(*failed, *total, *unlisted))]
    Partial {
        /// Projects that failed.
        failed: usize,
        /// Projects of the run.
        total: usize,
        /// Organizations whose projects could not be listed.
        unlisted: usize,
        /// The exit status that the user set.
        exit: u8,
    },
    /// The source went down during the run: the rest was not read.
    #[error(
        "the API is unavailable: {unread} of {total} projects were not read; the rest is committed"
    )]
    Outage {
        /// Projects that were not read.
        unread: usize,
        /// Projects of the run.
        total: usize,
    },
    /// `verify` found damage or foreign files.
    #[error("found damaged or foreign files in `{lake}` ({findings} findings)")]
    Damaged {
        /// Findings of damage or of foreign files.
        findings: usize,
        /// The lake.
        lake: String,
    },
    /// `verify --source` could not compare some projects.
    #[error("failed to compare {failed} projects with the source")]
    NotCompared {
        /// Projects that were not compared completely.
        failed: usize,
        /// The common code of all projects, or `Partial`.
        code: Code,
    },
    /// SIGTERM or SIGINT arrived.
    #[error("interrupted by a signal; complete windows are committed")]
    Interrupted,
    /// The deadline of the user passed.
    #[error("stopped at --deadline {after:?}; complete windows are committed")]
    Deadline {
        /// The value of `--deadline`.
        after: std::time::Duration,
    },
    /// A file or standard output cannot be written.
    #[error("failed to write `{path}`")]
    Output {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The report or the metrics of a finished run cannot be written.
    #[error("the run finished, but failed to write `{path}`")]
    Unwritten {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The command panicked.
    #[error("internal error: {message}")]
    Bug {
        /// The message of the panic, with its source line.
        message: String,
    },
    /// A port or another resource of this machine is not available.
    #[error("{what}")]
    System {
        /// The action that failed.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl From<LakeError> for Error {
    fn from(error: LakeError) -> Self {
        match error.store_error() {
            Some(StoreError::Interrupted { .. }) => Self::Interrupted,
            _ => Self::Lake(error),
        }
    }
}

impl From<DiscoverError> for Error {
    fn from(error: DiscoverError) -> Self {
        match error {
            DiscoverError::Source(source) => Self::Source(source),
            DiscoverError::NoOrganizations | DiscoverError::NoProjects { .. } => {
                Self::NoResources(error.to_string())
            }
            DiscoverError::NoOrganizationMatches { organizations } => {
                Self::NothingPasses(format!("{organizations} organizations"))
            }
            DiscoverError::NoProjectMatches { projects } => {
                Self::NothingPasses(format!("{projects} projects"))
            }
        }
    }
}

/// The code of an error. Its number is the exit status, its name the spelling in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Any other failure.
    Failure = 1,
    /// Invalid usage.
    Usage = 2,
    /// Some projects failed.
    Partial = 3,
    /// The key is invalid, expired or of another account.
    InvalidCredentials = 4,
    /// The key lacks permissions.
    InvalidPermissions = 5,
    /// No organization or project is visible to the key.
    NoResources = 6,
    /// The lake cannot be used.
    Lake = 7,
    /// Other runs kept changing the same objects.
    Conflict = 8,
    /// The API or the store is unavailable after retries; the message says which.
    Unavailable = 9,
    /// A signal or the deadline ended the run.
    Interrupted = 10,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 10] = [
        Self::Failure,
        Self::Usage,
        Self::Partial,
        Self::InvalidCredentials,
        Self::InvalidPermissions,
        Self::NoResources,
        Self::Lake,
        Self::Conflict,
        Self::Unavailable,
        Self::Interrupted,
    ];

    /// Returns the common code of projects that all failed; `None` without any, or where one was
    /// read in part.
    ///
    /// Missing permissions on some projects do not explain other failures, so they come last.
    pub fn common(codes: &[Self]) -> Option<Self> {
        let others = codes
            .iter()
            .filter(|code| **code != Self::InvalidPermissions);
        let mut others = others.copied();
        let Some(first) = others.next() else {
            return codes.first().copied();
        };
        if codes.contains(&Self::Partial) {
            return None;
        }
        Some(match others.all(|code| code == first) {
            true => first,
            false if codes.contains(&Self::Unavailable) => Self::Unavailable,
            false => Self::Failure,
        })
    }

    /// Returns the name of the code in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Usage => "usage",
            Self::Partial => "partial",
            Self::InvalidCredentials => "invalid_credentials",
            Self::InvalidPermissions => "invalid_permissions",
            Self::NoResources => "no_resources",
            Self::Lake => "lake",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns the action to take next.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Failure => "run again with RUST_LOG=harness_lake=debug and read the last lines",
            Self::Usage => "see `harness-lake COMMAND --help`",
            Self::Partial => "see `failures` in the run report; the next run reads the gaps first",
            Self::InvalidCredentials => {
                "check that HARNESS_API_KEY is valid and belongs to the account of --account-id"
            }
            Self::InvalidPermissions => {
                "grant the user or service account of the key core_organization_view, core_project_view and core_pipeline_view"
            }
            Self::NoResources => {
                "grant the user or service account of the key core_organization_view and core_project_view"
            }
            Self::Lake => {
                "check that --lake can be read and written; in an object store, check its bucket or container, the credentials and their permissions"
            }
            Self::Conflict => {
                "run again when the other runs have finished; nothing of theirs was lost"
            }
            Self::Unavailable => "run again later; nothing was lost",
            Self::Interrupted => "run again to resume",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

macro_rules! from_lake_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::from(LakeError::from(error))
            }
        })+
    };
}
from_lake_errors!(StoreError, ProbeError, CheckpointError, FileError);

impl Error {
    /// Returns the code.
    pub fn code(&self) -> Code {
        match self {
            Self::Config(_) => Code::Usage,
            Self::Source(source) => code_of_source(source),
            Self::AllFailed { code, .. } | Self::NotCompared { code, .. } => *code,
            Self::NoResources(_) | Self::NothingPasses(_) => Code::NoResources,
            Self::Lake(lake) if lake.is_conflict() => Code::Conflict,
            Self::Lake(lake) if is_unavailable(lake) => Code::Unavailable,
            Self::Lake(lake) if !lake.is_scratch() => Code::Lake,
            Self::Damaged { .. } => Code::Lake,
            Self::Partial { .. } => Code::Partial,
            Self::Outage { .. } => Code::Unavailable,
            Self::Interrupted | Self::Deadline { .. } => Code::Interrupted,
            // The scratch directory, which is not the lake.
            Self::Lake(_)
            | Self::Output { .. }
            | Self::Unwritten { .. }
            | Self::Bug { .. }
            | Self::System { .. } => Code::Failure,
        }
    }

    /// Returns the exit status of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Partial { exit, .. } => *exit,
            other => other.code() as u8,
        }
    }

    /// Returns the action to take next.
    pub fn hint(&self) -> &'static str {
        if let Self::Lake(lake) = self
            && let Some(hint) = lake.store_error().and_then(StoreError::hint)
        {
            return hint;
        }
        match self {
            Self::Lake(lake) if lake.is_newer() => {
                "upgrade harness-lake, here and wherever else it uses this lake"
            }
            Self::Lake(LakeError::OtherAccount { .. }) => {
                "choose another --lake, or a key of the account of this lake"
            }
            Self::Lake(LakeError::Pii { .. }) => {
                "leave out --pii, or set the --pii and the key that the lake was created with; for another setting, `backfill` a new --lake"
            }
            Self::Lake(LakeError::OtherPii { .. }) => {
                "choose another --into, or fill that lake with `backfill`"
            }
            Self::Lake(LakeError::OtherPeriod { .. }) => {
                "leave out --period; for another period, run `replay --into` a new lake with --period"
            }
            Self::Lake(LakeError::Nested { .. }) => {
                "choose the lake itself, or a path outside of it"
            }
            Self::Lake(LakeError::Missing { .. }) => "create a lake with `harness-lake sync`",
            Self::Lake(LakeError::Delta { .. }) => {
                "delete the folder of the Delta table, then run `harness-lake replay`, which writes it again; the other tables are complete"
            }
            Self::Lake(LakeError::TooLarge { .. }) => {
                "split new dates with `--buckets N`; split existing dates with `replay --into` a new lake with `--buckets N`"
            }
            Self::Lake(lake) if lake.is_scratch() => {
                "free space in the scratch directory, or choose another one with --scratch; committed data is safe"
            }
            Self::Lake(
                LakeError::File(FileError::Parquet { .. } | FileError::Foreign { .. })
                | LakeError::Checkpoint(CheckpointError::Damaged { .. }),
            ) => "run `harness-lake verify`: it prints the command that repairs each file",
            Self::Output { .. } => "free space, or redirect the output to another file",
            Self::Unwritten { .. } => {
                "choose a file that can be written; what the run read is committed"
            }
            Self::Source(
                SourceError::Rejected {
                    status: 300..=399 | 404 | 405,
                    ..
                }
                | SourceError::Unavailable {
                    cause: Cause::NotJson { .. },
                    ..
                },
            ) => {
                "check --base-url: https://app.harness.io, or the URL of a proxy up to the path before `/v1`"
            }
            Self::Config(ConfigError::Lake(StoreError::Variable { .. })) => {
                "correct or unset this environment variable"
            }
            Self::Config(ConfigError::Lake(StoreError::MissingVariable { .. })) => {
                "set this environment variable"
            }
            Self::Bug { .. } => {
                "this is a bug: report it with this message and the output of `harness-lake --version`; committed data is safe"
            }
            Self::System { .. } => "choose another --port, or 0 for any free port",
            Self::NotCompared { .. } => {
                "see `source.not_compared` in `--output json`; the other projects were compared"
            }
            Self::NothingPasses(_) => {
                "list the projects with `harness-lake check`; --org, --project and --exclude are globs, such as --project '*/web'"
            }
            Self::Damaged { .. } => "run the repair command of each finding",
            other => other.code().hint(),
        }
    }
}

fn is_unavailable(error: &LakeError) -> bool {
    matches!(error.store_error(), Some(StoreError::Unavailable { .. }))
}

fn partial(failed: usize, total: usize, unlisted: usize) -> String {
    let projects = format!("{failed} of {total} projects failed or have gaps");
    let orgs = format!("the projects of {unlisted} organizations could not be listed");
    match (failed, unlisted) {
        (_, 0) => projects,
        (0, _) => orgs,
        _ => format!("{projects}, and {orgs}"),
    }
}

/// Returns the code of an error of the source.
pub fn code_of_source(error: &SourceError) -> Code {
    match error {
        SourceError::Unauthorized { .. }
        | SourceError::Rejected { status: 401, .. }
        | SourceError::InvalidKey => Code::InvalidCredentials,
        SourceError::Forbidden { .. } => Code::InvalidPermissions,
        SourceError::Unavailable { .. }
        | SourceError::Outage { .. }
        | SourceError::PageGone { .. }
        | SourceError::TooDeep { .. } => Code::Unavailable,
        SourceError::InvalidAccount | SourceError::InvalidBaseUrl => Code::Usage,
        SourceError::Rejected { .. } | SourceError::Undated { .. } | SourceError::Setup(_) => {
            Code::Failure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_projects_have_one_common_code() {
        use Code::{Failure, InvalidPermissions as Forbidden, Partial, Unavailable};
        for (codes, one) in [
            (&[][..], None),
            (&[Forbidden, Forbidden], Some(Forbidden)),
            (&[Forbidden, Unavailable, Unavailable], Some(Unavailable)),
            (&[Failure, Unavailable], Some(Unavailable)),
            (&[Failure, Forbidden], Some(Failure)),
            (&[Unavailable, Partial], None),
        ] {
            assert_eq!(Code::common(codes), one, "{codes:?}");
        }
    }

    #[test]
    fn codes_have_stable_numbers_and_names() {
        let numbers: Vec<(u8, &str)> = Code::ALL
            .iter()
            .map(|code| (*code as u8, code.name()))
            .collect();
        assert_eq!(
            numbers,
            [
                (1, "failure"),
                (2, "usage"),
                (3, "partial"),
                (4, "invalid_credentials"),
                (5, "invalid_permissions"),
                (6, "no_resources"),
                (7, "lake"),
                (8, "conflict"),
                (9, "unavailable"),
                (10, "interrupted"),
            ]
        );
    }
}
