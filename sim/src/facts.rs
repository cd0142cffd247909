//! The facts of an execution beside its stages: trigger, build, deployment, and when each becomes
//! visible.

use std::borrow::Cow;

use super::account::{Account, Execution, Origin, RowSize};
use super::detail::{Detail, Failure, Node, rolls_back};
use super::names;
use super::plan::{Shape, StageKind};
use super::rng::{Id, Rng, Stream};
use super::status::Status;

const HOUR_MS: i64 = 3_600_000;

/// The trigger of an execution.
pub(super) struct Trigger {
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) email: Option<&'static str>,
    /// The trigger's identifier; empty if a person started the execution.
    pub(super) id: &'static str,
}

/// Facts that change late, and the people involved.
pub(super) struct Facts {
    /// Missing in a few rows.
    pub(super) trigger: Option<Trigger>,
    /// Notes, and the time at which they are written.
    pub(super) notes: Option<(i64, &'static str)>,
    /// The time at which a tag is added.
    pub(super) tagged: Option<i64>,
    /// The time from which module information is complete.
    pub(super) late: i64,
    /// Name and e-mail of the person who aborts the execution.
    pub(super) aborted_by: (&'static str, &'static str),
    /// The content of `executionErrorInfo` after a failure.
    pub(super) error_info: ErrorInfo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorInfo {
    Message,
    Empty,
    Nothing,
}

/// The build of an execution.
pub(super) struct Build {
    pub(super) event: &'static str,
    pub(super) branch: &'static str,
    pub(super) pull_request: Option<i64>,
    /// The server reports `moduleInfo.ci.branch`; for pull requests this is the target branch.
    pub(super) reports_branch: bool,
    pub(super) commits: Vec<Commit>,
    pub(super) trigger_commits: Vec<Commit>,
}

impl Build {
    /// Returns the branch that a client finds: `moduleInfo.ci.branch`, else the source branch.
    pub(super) fn reported_branch(&self) -> &'static str {
        if self.reports_branch && self.pull_request.is_some() {
            "main"
        } else {
            self.branch
        }
    }
}

#[derive(Clone)]
pub(super) struct Commit {
    pub(super) sha: String,
    pub(super) message: &'static str,
    pub(super) author: &'static str,
    pub(super) email: Option<&'static str>,
    /// The time as the server sends it: seconds, milliseconds or an invalid value.
    pub(super) stamp: i64,
    /// The commit time in milliseconds since the epoch.
    pub(super) committed: Option<i64>,
}

impl Account {
    pub(super) fn facts(&self, execution: &Execution) -> Facts {
        let mut rng = self.rng(Stream::Facts, execution.id);
        let trigger = match execution.origin {
            Origin::Child { of } => self.facts(self.by_index(of)).trigger,
            Origin::Fresh => trigger(self.pipeline(execution).shape, &mut rng),
            _ => Some(by_hand(&mut rng)),
        };
        let end = execution.last_end;
        let notes = rng.chance(60).then(|| {
            let at = end + rng.long_tail(60_000, 30 * HOUR_MS);
            (at, rng.pick(names::MESSAGES))
        });
        Facts {
            trigger,
            notes,
            tagged: rng
                .chance(40)
                .then(|| end + rng.long_tail(60_000, 20 * HOUR_MS)),
            late: end + rng.long_tail(100, 10 * 60_000),
            aborted_by: if rng.chance(200) {
                ("systemUser", "")
            } else {
                rng.pick(names::PEOPLE)
            },
            error_info: rng.weighted(&[
                (80, ErrorInfo::Message),
                (10, ErrorInfo::Empty),
                (10, ErrorInfo::Nothing),
            ]),
        }
    }

    /// Returns the build of an execution, equal for all attempts; `None` without a codebase.
    pub(super) fn build(&self, execution: &Execution) -> Option<Build> {
        let shape = self.pipeline(execution).shape;
        if !matches!(shape, Shape::Ci | Shape::Mixed) || rolls_back(execution.origin) {
            return None;
        }
        let first = match execution.origin {
            Origin::Retry { root, .. } | Origin::Rerun { root, .. } => self.by_index(root),
            _ => execution,
        };
        let mut rng = self.rng(Stream::Commits, first.id);
        (!rng.chance(80)).then(|| build(first.start, self.spec.size, &mut rng))
    }

    /// Returns the build if it is visible at an instant.
    pub(super) fn build_at(
        &self,
        execution: &Execution,
        detail: &Detail<'_>,
        at: i64,
    ) -> Option<Build> {
        let first = detail
            .nodes
            .iter()
            .filter(|node| node.is_kind(StageKind::Ci))
            .filter_map(|node| node.start)
            .min()?;
        (first.max(execution.start) + 1_500 <= at)
            .then(|| self.build(execution))
            .flatten()
    }

    /// Returns the tags of an execution at an instant, in order. Keys may repeat.
    pub(super) fn tags_at(
        &self,
        execution: &Execution,
        facts: &Facts,
        at: i64,
    ) -> Vec<(&str, Option<Cow<'_, str>>)> {
        let own = &self.pipeline(execution).tags;
        let reverted = self.reverted_by(execution).map(Execution::id);
        let late = facts.tagged.filter(|tagged| *tagged <= at);
        own.iter()
            .map(|(key, value)| (*key, value.as_deref().map(Cow::from)))
            .chain(late.map(|_| ("reviewed", Some("yes – geprüft".into()))))
            .chain(reverted.map(|id| ("revert_execution_id", Some(id.into()))))
            .collect()
    }

    /// Returns the execution that a pipeline reverts: the one before of the same pipeline.
    pub(super) fn reverted_by(&self, execution: &Execution) -> Option<&Execution> {
        let may_revert = self.pipeline(execution).shape == Shape::Cd
            && execution.origin == Origin::Fresh
            && execution.id.0.is_multiple_of(12);
        let before = |other: &&Execution| {
            other.pipeline == execution.pipeline
                && other.origin == Origin::Fresh
                && other.last_end < execution.start
        };
        let executions = self.executions().iter().filter(|_| may_revert);
        executions
            .filter(before)
            .max_by_key(|other| (other.start, other.id))
    }

    /// Returns the failure that the execution reports at an instant.
    pub(super) fn failure(execution: &Execution, detail: &Detail<'_>, at: i64) -> Option<Failure> {
        let failed = matches!(
            execution.outcome,
            Status::Failed | Status::Errored | Status::Expired
        );
        (failed && execution.end <= at)
            .then(|| detail.failure_at(at))
            .flatten()
    }

    pub(super) fn rng(&self, stream: Stream, id: Id) -> Rng {
        Rng::new(self.spec.seed, stream, id)
    }
}

impl Failure {
    /// Returns the failure types. If the list is empty, a detailed message names one.
    pub(super) fn all_types(self) -> &'static [&'static str] {
        if self.types.is_empty() {
            &["VERIFICATION_FAILURE"]
        } else {
            self.types
        }
    }
}

/// The parts of a deployment that are resolved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resolved {
    Nothing,
    Service,
    Environment,
    Artifact,
}

/// Returns the parts that a deployment stage has resolved at an instant. Some stages fail before.
pub(super) fn resolved(node: &Node<'_>, at: i64) -> Resolved {
    let (Some(start), Some((end, _))) = (node.started(at), node.ends) else {
        return Resolved::Nothing;
    };
    let step = ((end - start) / 5).min(2_000);
    let failed = node.failure.is_some();
    let most = match node.key.0 % 7 {
        0 if failed => Resolved::Nothing,
        1 if failed => Resolved::Service,
        _ => Resolved::Artifact,
    };
    let now = match (at - start) / step.max(1) {
        0 => Resolved::Nothing,
        1 => Resolved::Service,
        2 => Resolved::Environment,
        _ => Resolved::Artifact,
    };
    most.min(now)
}

/// Returns the duration of the rollback within a stage that failed.
pub(super) fn rollback_ms(node: &Node<'_>, at: i64) -> Option<i64> {
    node.failure_at(at)?;
    let rolls_back = node.is_kind(StageKind::Deployment)
        && node.key.0.is_multiple_of(3)
        && resolved(node, at) >= Resolved::Environment;
    rolls_back.then(|| 1_000 + i64::try_from(node.key.0 % 60_000).unwrap_or_default())
}

/// Returns the deployment stages that have resolved at least `least` at an instant.
pub(super) fn deployed<'a>(
    detail: &'a Detail<'_>,
    at: i64,
    least: Resolved,
) -> impl Iterator<Item = &'a Node<'a>> {
    detail
        .nodes
        .iter()
        .filter(move |node| node.is_kind(StageKind::Deployment) && resolved(node, at) >= least)
}

/// Returns the artifact that a node deploys.
pub(super) fn artifact(service: &str, node: &Node<'_>) -> String {
    format!("registry.example.com/{service}:1.{}", node.key.0 % 900)
}

fn trigger(shape: Shape, rng: &mut Rng) -> Option<Trigger> {
    let builds = matches!(shape, Shape::Ci);
    let kind = rng.weighted(&[
        (if builds { 20 } else { 55 }, "MANUAL"),
        (if builds { 65 } else { 15 }, "WEBHOOK"),
        (10, "SCHEDULER_CRON"),
        (8, "ARTIFACT"),
        (4, "WEBHOOK_CUSTOM"),
        (2, "MANIFEST"),
        (1, ""),
    ]);
    match kind {
        "" => None,
        "MANUAL" => Some(by_hand(rng)),
        kind => {
            let trigger = rng.pick(names::TRIGGERS);
            Some(Trigger {
                kind,
                name: trigger,
                email: None,
                id: trigger,
            })
        }
    }
}

fn by_hand(rng: &mut Rng) -> Trigger {
    let (name, email) = rng.pick(names::PEOPLE);
    Trigger {
        kind: "MANUAL",
        name,
        email: Some(email),
        id: "",
    }
}

fn build(start: i64, size: RowSize, rng: &mut Rng) -> Build {
    let event = rng.weighted(&[(55, "branch"), (40, "pullRequest"), (5, "release")]);
    let most = match size {
        RowSize::Small => 3,
        RowSize::Realistic => 60,
    };
    let count = if event == "release" {
        0
    } else {
        rng.long_tail(1, most)
    };
    let commits: Vec<Commit> = (0..count).map(|_| commit(start, rng)).collect();
    let mut trigger_commits: Vec<Commit> = Vec::new();
    if rng.chance(400) {
        // Repeats a commit with an invalid time, and adds another commit.
        trigger_commits.extend(commits.first().map(|first| Commit {
            stamp: -62_135_596_800_000,
            committed: None,
            ..first.clone()
        }));
        trigger_commits.extend((event != "release").then(|| commit(start, rng)));
    }
    Build {
        event,
        branch: rng.pick(names::BRANCHES),
        pull_request: (event == "pullRequest").then(|| rng.between(1, 4_000)),
        reports_branch: event != "pullRequest" || rng.chance(700),
        commits,
        trigger_commits,
    }
}

fn commit(start: i64, rng: &mut Rng) -> Commit {
    let (author, email) = rng.pick(names::PEOPLE);
    let at = start - rng.long_tail(60_000, 20 * 24 * HOUR_MS);
    let (stamp, committed) = match rng.below(10) {
        0 => (-62_135_596_800_000, None),
        1 => (0, None),
        2..=5 => (at / 1_000, Some(at / 1_000 * 1_000)),
        _ => (at, Some(at)),
    };
    Commit {
        sha: rng.sha(),
        message: rng.pick(names::MESSAGES),
        author,
        email: (!rng.chance(60)).then_some(email),
        stamp,
        committed,
    }
}
