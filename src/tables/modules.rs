//! The `moduleInfo` of an execution: the build (`ci`) and the deployments (`cd`).
//!
//! The column `module_info` contains the full text, so nothing has to be kept in `extra`.

use std::borrow::Cow;

use super::buffers::Buffers;
use super::convert;
use super::dedup;
use super::json::object;
use crate::drift::Drift;
use crate::scan::Value;

object! {
    ModuleInfo of ModuleField at "moduleInfo." {
        Cd = "cd",
        Ci = "ci",
    } others Ignore
}

object! {
    Cd of CdField at "moduleInfo.cd." {
        Environments = "envIdentifiers",
        EnvironmentTypes = "environmentTypes",
        Infrastructures = "infrastructureIdentifiers",
        Services = "serviceIdentifiers",
    } others Ignore
}

object! {
    Ci of CiField at "moduleInfo.ci." {
        Branch = "branch",
        Info = "ciExecutionInfoDTO",
        PrNumber = "prNumber",
        RepoName = "repoName",
    } others Ignore
}

object! {
    CiInfo of CiInfoField at "moduleInfo.ci.ciExecutionInfoDTO." {
        Event = "event",
        Branch = "branch",
        PullRequest = "pullRequest",
    } others Ignore
}

object! {
    Hook of HookField at "moduleInfo.ci.ciExecutionInfoDTO.*." {
        Id = "id",
        SourceBranch = "sourceBranch",
        Commits = "commits",
        TriggerCommits = "triggerCommits",
    } others Ignore
}

object! {
    CommitFields of CommitField at "moduleInfo.ci.ciExecutionInfoDTO.*.commits[]." {
        Id = "id",
        Link = "link",
        Message = "message",
        OwnerName = "ownerName",
        OwnerEmail = "ownerEmail",
        TimeStamp = "timeStamp",
    } others Ignore
}

/// The parts of `moduleInfo` that have columns.
#[derive(Default)]
pub(super) struct Modules<'a> {
    pub(super) build: Build<'a>,
    pub(super) services: Vec<Cow<'a, str>>,
    pub(super) environments: Vec<Cow<'a, str>>,
    pub(super) environment_types: Vec<Cow<'a, str>>,
    pub(super) infrastructures: Vec<Cow<'a, str>>,
}

/// The build of an execution.
#[derive(Default)]
pub(super) struct Build<'a> {
    pub(super) repo_name: Option<Cow<'a, str>>,
    pub(super) branch: Option<Cow<'a, str>>,
    pub(super) pr_number: Option<i64>,
    pub(super) event: Option<Cow<'a, str>>,
    /// Distinct by hash. The first one was built.
    pub(super) commits: Vec<Commit<'a>>,
}

/// The allocation for commits that is reused from execution to execution.
pub(super) type CommitBuffers = Buffers<Commit<'static>>;

/// A commit of an execution.
pub(super) struct Commit<'a> {
    pub(super) sha: Cow<'a, str>,
    pub(super) author_name: Option<Cow<'a, str>>,
    pub(super) author_email: Option<Cow<'a, str>>,
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) committed_ms: Option<i64>,
    pub(super) link: Option<Cow<'a, str>>,
}

impl<'a> Modules<'a> {
    /// Reads `moduleInfo`.
    pub(super) fn read(
        raw: Option<Value<'a>>,
        buffers: &mut CommitBuffers,
        drift: &mut Drift,
    ) -> Self {
        let Some(raw) = raw else {
            return Self::default();
        };
        let Some(mut modules) = ModuleInfo::read(raw, drift) else {
            drift.odd_value("moduleInfo", raw.json());
            return Self::default();
        };
        let mut cd: Cd<'a> = modules.object(ModuleField::Cd, drift);
        Self {
            build: Build::read(modules.object(ModuleField::Ci, drift), buffers, drift),
            services: cd.texts(CdField::Services, drift),
            environments: cd.texts(CdField::Environments, drift),
            environment_types: cd.texts(CdField::EnvironmentTypes, drift),
            infrastructures: cd.texts(CdField::Infrastructures, drift),
        }
    }
}

impl<'a> Build<'a> {
    fn read(mut ci: Ci<'a>, buffers: &mut CommitBuffers, drift: &mut Drift) -> Self {
        let mut info: CiInfo<'a> = ci.object(CiField::Info, drift);
        let mut pushed: Hook<'a> = info.object(CiInfoField::Branch, drift);
        let mut pull_request: Hook<'a> = info.object(CiInfoField::PullRequest, drift);
        let mut commits = buffers.take();
        for field in [HookField::Commits, HookField::TriggerCommits] {
            for hook in [&mut pushed, &mut pull_request] {
                for raw in hook.items(field, drift) {
                    if let Some(commit) = Commit::read(raw, drift) {
                        commits.push(commit);
                    }
                }
            }
        }
        dedup::keep_first(&mut commits, |commit: &Commit<'_>| &commit.sha);
        let branch = ci.text(CiField::Branch, drift);
        let pr_number = ci.integer(CiField::PrNumber, drift);
        Self {
            repo_name: ci.text(CiField::RepoName, drift),
            branch: branch.or_else(|| pull_request.text(HookField::SourceBranch, drift)),
            pr_number: pr_number.or_else(|| pull_request.integer(HookField::Id, drift)),
            event: info.text(CiInfoField::Event, drift),
            commits,
        }
    }
}

impl<'a> Commit<'a> {
    /// Reads a commit. A commit without a hash has no row and is only in `module_info`.
    fn read(raw: Value<'a>, drift: &mut Drift) -> Option<Self> {
        let mut commit = CommitFields::read(raw, drift)?;
        Some(Self {
            sha: commit.text(CommitField::Id, drift)?,
            author_name: commit.text(CommitField::OwnerName, drift),
            author_email: commit.text(CommitField::OwnerEmail, drift),
            message: commit.text(CommitField::Message, drift),
            committed_ms: commit.read_with(CommitField::TimeStamp, convert::commit_time_ms, drift),
            link: commit.text(CommitField::Link, drift),
        })
    }
}
