//! What can end a command, as users and schedulers see it: one code, one exit status, one hint each.

use std::fmt;
use std::process::ExitCode;

use serde::{Serialize, Serializer};

use crate::causes::chain;
use crate::config::ConfigError;
use crate::lake::LakeError;
use crate::lake::log::CheckpointError;
use crate::lake::parquet::FileError;
use crate::lake::store::{ProbeError, StoreError};
use crate::report::Failure;
use crate::source::{Cause, SourceError};

/// The end of a command that did not do all it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings make no sense.
    #[error("the settings")]
    Config(#[from] ConfigError),
    /// The source did not answer as needed.
    #[error("read from Harness")]
    Source(#[from] SourceError),
    /// Not one scope was read.
    #[error("not one of {scopes} projects could be read ({code}), such as {example}")]
    NoneRead {
        /// Scopes tried.
        scopes: usize,
        /// The one code for all.
        code: Code,
        /// One of them, and why it failed.
        example: String,
    },
    /// Nothing is visible to the key, or nothing that was asked for.
    #[error("{0}")]
    NoResources(String),
    /// Nothing that is visible passes the filters.
    #[error("none of {0} passes --org, --project and --exclude")]
    NothingPasses(String),
    /// The lake cannot be read or written.
    #[error("the lake")]
    Lake(#[from] LakeError),
    /// Some scopes failed, the rest is committed.
    #[error("{}; the rest is committed", what_failed(*failed, *total, *unlisted))]
    Partial {
        /// Scopes that failed.
        failed: usize,
        /// Scopes of the run.
        total: usize,
        /// Organizations whose projects could not be listed.
        unlisted: usize,
        /// The exit status that the user asked for.
        exit: u8,
    },
    /// An audit found what must not be.
    #[error("`{lake}` holds what is damaged or foreign: {findings} of the findings")]
    Unsound {
        /// Findings that are damage or foreign.
        findings: usize,
        /// The lake.
        lake: String,
    },
    /// Some scopes did not answer an audit.
    #[error("{failed} projects could not be compared with the source, or not whole")]
    NotCompared {
        /// Scopes that did not answer.
        failed: usize,
        /// `Partial` where others did.
        code: Code,
    },
    /// SIGTERM or SIGINT arrived.
    #[error("interrupted; what was whole is committed")]
    Interrupted,
    /// The deadline that the user set has passed.
    #[error("not done within --deadline {after:?}; what was whole is committed")]
    Deadline {
        /// What the user set.
        after: std::time::Duration,
    },
    /// A file that the user named cannot be written, or scratch.
    #[error("write `{path}`")]
    Output {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A run is done, but a file that tells of it cannot be written.
    #[error("the run is done, but `{path}` cannot be written")]
    Unwritten {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A port or another resource of this machine cannot be had.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// The codes of the contract. [`Code::name`] is their spelling in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// A failure that no other code names.
    Failure = 1,
    /// Wrong usage.
    Usage = 2,
    /// Some scopes failed.
    Partial = 3,
    /// The key is wrong, expired or of another account.
    InvalidCredentials = 4,
    /// The key may not read what was asked for.
    InvalidPermissions = 5,
    /// Nothing is visible to the key.
    NoResources = 6,
    /// The lake cannot be read or written, or belongs to another account.
    Lake = 7,
    /// Other runs kept changing the same objects.
    Conflict = 8,
    /// The API is unavailable, after retries.
    SourceUnavailable = 9,
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
        Self::SourceUnavailable,
        Self::Interrupted,
    ];

    /// The one code for scopes that failed for these reasons, and none was read; `None` where one was in part.
    /// That some may not be read is no reason for the others.
    pub fn of_all(codes: &[Self]) -> Option<Self> {
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
            false if codes.contains(&Self::SourceUnavailable) => Self::SourceUnavailable,
            false => Self::Failure,
        })
    }

    /// The code as JSON output and reports spell it.
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
            Self::SourceUnavailable => "source_unavailable",
            Self::Interrupted => "interrupted",
        }
    }

    /// What the operator does next.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Failure => "run again with RUST_LOG=harness_lake=debug and read the last lines",
            Self::Usage => "see `harness-lake COMMAND --help`",
            Self::Partial => {
                "read `failures` in the run report; the next run reads what is missing first"
            }
            Self::InvalidCredentials => {
                "make sure that HARNESS_API_KEY is a live key and belongs to the account of --account-id"
            }
            Self::InvalidPermissions => {
                "give the key's user or service account the right to view what is named above: organizations, projects, pipelines (core_organization_view, core_project_view, core_pipeline_view)"
            }
            Self::NoResources => {
                "give the key's user or service account the right to view organizations and projects (core_organization_view, core_project_view)"
            }
            Self::Lake => {
                "make sure that --lake can be read and written and belongs to this account; in S3, that the bucket exists and the AWS_* variables or the role give rights on it"
            }
            Self::Conflict => {
                "run again when the other runs have ended; nothing of theirs was lost"
            }
            Self::SourceUnavailable => "run again later; nothing was lost",
            Self::Interrupted => "run again; it goes on where this one stopped",
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

macro_rules! of_the_lake {
    ($($error:ty),+) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Lake(error.into())
            }
        })+
    };
}
of_the_lake!(StoreError, ProbeError, CheckpointError, FileError);

impl Error {
    /// The end of a command that read none of the scopes that failed like this; `None` where it read one in
    /// part, or there are none.
    pub fn none_read<'a>(failures: impl IntoIterator<Item = &'a Failure>) -> Option<Self> {
        let failures: Vec<_> = failures.into_iter().collect();
        let codes: Vec<_> = failures.iter().map(|failure| failure.code).collect();
        let code = Code::of_all(&codes)?;
        let typical = codes.iter().position(|each| *each == code);
        let example = failures[typical.unwrap_or_default()];
        Some(Self::NoneRead {
            scopes: codes.len(),
            code,
            example: format!("{}/{}: {}", example.org, example.project, example.message),
        })
    }

    /// The code of the contract that names this end.
    pub fn code(&self) -> Code {
        match self {
            Self::Config(_) => Code::Usage,
            Self::Source(source) => code_of_source(source),
            Self::NoneRead { code, .. } | Self::NotCompared { code, .. } => *code,
            Self::NoResources(_) | Self::NothingPasses(_) => Code::NoResources,
            Self::Lake(lake) if lake.is_conflict() => Code::Conflict,
            Self::Lake(lake) if !lake.is_scratch() => Code::Lake,
            Self::Unsound { .. } => Code::Lake,
            Self::Partial { .. } => Code::Partial,
            Self::Interrupted | Self::Deadline { .. } => Code::Interrupted,
            // Scratch.
            Self::Lake(_) | Self::Output { .. } | Self::Unwritten { .. } | Self::System { .. } => {
                Code::Failure
            }
        }
    }

    /// The exit status of the process.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::Partial { exit, .. } => ExitCode::from(*exit),
            other => ExitCode::from(other.code() as u8),
        }
    }

    /// What the operator does next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Lake(LakeError::OtherAccount { .. }) => {
                "a lake holds one account: choose another --lake, or the key of the account that this one holds"
            }
            Self::Lake(LakeError::Pii { .. }) => {
                "a lake keeps the setting and the key that it was born with: leave out --pii, or name the same; for another setting choose another --lake and `backfill` it"
            }
            Self::Lake(LakeError::OtherPii { .. }) => {
                "what is stored cannot be treated again: choose another --into, or fill that lake by `backfill`"
            }
            Self::Lake(LakeError::Nested { .. }) => {
                "name the lake itself, or a place outside of it"
            }
            Self::Lake(LakeError::Missing { .. }) => "`harness-lake sync` makes one",
            Self::Lake(LakeError::TooLarge { .. }) => {
                "`--buckets N` splits new dates into N objects; the dates that are there are split by `replay --into` another lake with `--buckets N`"
            }
            Self::Lake(_) if chain(self).contains("URL scheme is not allowed") => {
                "AWS_ALLOW_HTTP=true allows an endpoint without TLS"
            }
            Self::Lake(lake) if lake.is_scratch() => {
                "free space in that folder, or name another one with --scratch; what was committed stays"
            }
            Self::Lake(
                LakeError::File(FileError::Parquet { .. } | FileError::Foreign { .. })
                | LakeError::Checkpoint(CheckpointError::Damaged { .. }),
            ) => "`harness-lake verify` tells what is damaged, and which command repairs it",
            Self::Unwritten { .. } => {
                "name a file that can be written; the lake is as the report says"
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
                "make sure that --base-url is right: https://app.harness.io, or the address of a proxy with the path before `/v1`"
            }
            Self::System { .. } => "choose another --port, or 0 for one that is free",
            Self::NotCompared { .. } => {
                "read `source.not_compared` of `--output json`; the others are compared"
            }
            Self::NothingPasses(_) => {
                "correct --org, --project and --exclude: globs, --project over `org/project`, such as '*/web'; `harness-lake check` lists the projects"
            }
            Self::Unsound { .. } => "each finding names the command that repairs it",
            other => other.code().hint(),
        }
    }
}

fn what_failed(failed: usize, total: usize, unlisted: usize) -> String {
    let projects = format!("{failed} of {total} projects failed or were not read whole");
    let orgs = format!("the projects of {unlisted} organizations could not be listed");
    match (failed, unlisted) {
        (_, 0) => projects,
        (0, _) => orgs,
        _ => format!("{projects}, and {orgs}"),
    }
}

/// The code that an error of the source alone would end a run with.
pub fn code_of_source(error: &SourceError) -> Code {
    match error {
        SourceError::Unauthorized { .. } | SourceError::InvalidKey => Code::InvalidCredentials,
        SourceError::Forbidden { .. } => Code::InvalidPermissions,
        SourceError::Unavailable { .. }
        | SourceError::PageGone { .. }
        | SourceError::TooDeep { .. } => Code::SourceUnavailable,
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
    fn scopes_that_all_failed_have_one_code() {
        use Code::{Failure, InvalidPermissions as Forbidden, Partial, SourceUnavailable as Away};
        for (codes, one) in [
            (&[][..], None),
            (&[Forbidden, Forbidden], Some(Forbidden)),
            (&[Forbidden, Away, Away], Some(Away)),
            (&[Failure, Away], Some(Away)),
            (&[Failure, Forbidden], Some(Failure)),
            (&[Away, Partial], None),
        ] {
            assert_eq!(Code::of_all(codes), one, "{codes:?}");
        }
    }

    #[test]
    fn every_code_has_its_number_in_the_contract() {
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
                (9, "source_unavailable"),
                (10, "interrupted"),
            ]
        );
    }
}
