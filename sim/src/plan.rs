//! The static parts of an account: organizations, projects, pipelines and their stages.

use super::account::AccountSpec;
use super::names;
use super::rng::{Id, Rng, Stream};

pub(super) struct Org {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) created: i64,
    pub(super) updated: i64,
    pub(super) managed: bool,
}

pub(super) struct Project {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) org: usize,
    /// The time at which the project moves, and the organization it moves to.
    pub(super) moves: Option<(i64, usize)>,
    pub(super) created: i64,
    pub(super) updated: i64,
    /// The project has pipelines, but none of them ever runs.
    pub(super) quiet: bool,
}

impl Project {
    /// Returns the organization of the project at an instant.
    pub(super) fn org_at(&self, at: i64) -> usize {
        self.moves
            .filter(|(from, _)| *from <= at)
            .map_or(self.org, |(_, to)| to)
    }
}

pub(super) struct Pipeline {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) project: usize,
    pub(super) shape: Shape,
    pub(super) slots: Vec<Slot>,
    pub(super) repo: &'static str,
    pub(super) remote: bool,
    pub(super) tags: Vec<(&'static str, Option<String>)>,
    /// The pipeline that a stage of this one starts.
    pub(super) child: Option<usize>,
    pub(super) weight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Ci,
    Cd,
    Mixed,
    Custom,
    Chain,
}

/// One link of a pipeline's chain of stages.
pub(super) enum Slot {
    One(Stage),
    Parallel(Vec<Slot>),
    Strategy(Strategy, Stage),
}

impl Slot {
    fn is_untyped(&self) -> bool {
        match self {
            Self::One(stage) | Self::Strategy(_, stage) => stage.is_untyped(),
            Self::Parallel(slots) => slots.iter().any(Self::is_untyped),
        }
    }
}

pub(super) struct Stage {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: StageKind,
    pub(super) service: usize,
    pub(super) environment: usize,
    pub(super) gitops: bool,
    /// The probability, in thousandths, that a condition skips the stage.
    pub(super) skipped: u32,
    pub(super) hidden: bool,
}

impl Stage {
    /// Returns whether the stage has no type, as in pipelines of Harness 3.0.
    pub(super) fn is_untyped(&self) -> bool {
        self.kind == StageKind::Deployment && names::SERVICES[self.service].0 == "stock_sync"
    }

    /// Returns the type in a summary.
    pub(super) fn node_type(&self) -> &'static str {
        if self.is_untyped() {
            "stage"
        } else {
            self.kind.node_type()
        }
    }
}

impl Pipeline {
    /// Returns `yamlVersion`.
    pub(super) fn yaml_version(&self) -> &'static str {
        if self.slots.iter().any(Slot::is_untyped) {
            "1"
        } else {
            "0"
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StageKind {
    Ci,
    Deployment,
    Approval,
    Custom,
    Pipeline,
}

impl StageKind {
    pub(super) fn node_type(self) -> &'static str {
        match self {
            Self::Ci => "CI",
            Self::Deployment => "Deployment",
            Self::Approval => "Approval",
            Self::Custom => "Custom",
            Self::Pipeline => "Pipeline",
        }
    }

    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Deployment => "cd",
            Self::Approval | Self::Custom | Self::Pipeline => "pms",
        }
    }
}

pub(super) enum Strategy {
    /// Indexes of axes in [`names::AXES`].
    Matrix(Vec<usize>),
    Loop(i64),
    Parallelism(i64),
}

impl Strategy {
    pub(super) fn node_type(&self) -> &'static str {
        match self {
            Self::Matrix(_) => "MATRIX",
            Self::Loop(_) => "LOOP",
            Self::Parallelism(_) => "PARALLELISM",
        }
    }
}

/// The static parts of an account.
pub(super) struct Plan {
    pub(super) orgs: Vec<Org>,
    pub(super) projects: Vec<Project>,
    pub(super) pipelines: Vec<Pipeline>,
    /// The project that answers 403.
    pub(super) forbidden: Option<usize>,
}

const HOUR_MS: i64 = 3_600_000;

impl Plan {
    pub(super) fn of(spec: &AccountSpec) -> Self {
        let mut rng = Rng::new(spec.seed, Stream::Plan, Id(0));
        let now = spec.now.as_millisecond();
        let earliest = now - (i64::from(spec.days) + 400) * 24 * HOUR_MS;
        let orgs = orgs(spec.orgs.max(1), earliest, &mut rng);
        let mut projects = projects(spec, earliest, &mut rng);
        let count = projects.len();
        if count >= 3 {
            projects[spec.projects_per_org.max(2) - 1].quiet = true;
            if spec.orgs > 1 {
                projects[0].moves = Some((now + 6 * HOUR_MS, 1));
            }
        }
        let forbidden = (spec.forbidden_project && count >= 4).then(|| count - 1);
        let pipelines = (0..count)
            .flat_map(|project| pipelines(project, projects[project].quiet, spec, &mut rng))
            .collect();
        Self {
            orgs,
            projects,
            pipelines,
            forbidden,
        }
    }
}

/// Returns the requested number of organizations, and one more without projects.
fn orgs(count: usize, earliest: i64, rng: &mut Rng) -> Vec<Org> {
    let named = (0..count).map(|at| match at.checked_sub(1) {
        None => ("default".to_owned(), "Default".to_owned()),
        Some(at) => numbered(names::ORGS, at),
    });
    named
        .chain([("zz_empty".to_owned(), "Nothing here yet".to_owned())])
        .map(|(id, name)| {
            let created = earliest + rng.between(0, 90 * 24 * HOUR_MS);
            Org {
                managed: id == "default",
                id,
                name,
                created,
                updated: created + rng.between(0, 90 * 24 * HOUR_MS),
            }
        })
        .collect()
}

fn projects(spec: &AccountSpec, earliest: i64, rng: &mut Rng) -> Vec<Project> {
    let per_org = spec.projects_per_org.max(1);
    (0..spec.orgs.max(1) * per_org)
        .map(|at| {
            let (id, name) = numbered(names::PROJECTS, at);
            let created = earliest + 100 * 24 * HOUR_MS + rng.between(0, 90 * 24 * HOUR_MS);
            Project {
                id,
                name,
                org: at / per_org,
                moves: None,
                created,
                updated: created + rng.between(0, 90 * 24 * HOUR_MS),
                quiet: false,
            }
        })
        .collect()
}

/// Returns the name at an index of a list. Beyond the end, names repeat with a number.
fn numbered(names: &[(&str, &str)], at: usize) -> (String, String) {
    let (id, name) = names[at % names.len()];
    match at / names.len() {
        0 => (id.to_owned(), name.to_owned()),
        round => (format!("{id}_{round}"), format!("{name} {round}")),
    }
}

/// Returns the pipelines of one project: at least one of each shape.
fn pipelines(project: usize, quiet: bool, spec: &AccountSpec, rng: &mut Rng) -> Vec<Pipeline> {
    let shapes = [
        ("build", "Build & test", Shape::Ci),
        ("deploy", "Deploy", Shape::Cd),
        ("release_train", "Release train – Züge", Shape::Mixed),
        ("housekeeping", "Housekeeping \"nightly\"", Shape::Custom),
        ("promote$all", "Promote all", Shape::Chain),
        ("build_pr", "Build PR", Shape::Ci),
        ("hotfix", "Hotfix 🔥", Shape::Mixed),
    ];
    let count = 5 + project % 3;
    // Each project before this one has 5, 6 or 7 pipelines.
    let first: usize = (0..project).map(|before| 5 + before % 3).sum();
    shapes[..count]
        .iter()
        .map(|(id, name, shape)| Pipeline {
            id: format!("{id}_{project}"),
            name: (*name).to_owned(),
            project,
            shape: *shape,
            slots: super::slots::slots(*shape, spec.size, rng),
            repo: rng.pick(names::REPOS),
            remote: rng.chance(400),
            tags: tags(rng),
            child: (*shape == Shape::Chain).then_some(first + 1),
            weight: if quiet {
                0
            } else {
                match shape {
                    Shape::Ci => 50,
                    Shape::Cd => 20,
                    Shape::Mixed => 12,
                    Shape::Custom => 6,
                    Shape::Chain => 5,
                }
            },
        })
        .collect()
}

fn tags(rng: &mut Rng) -> Vec<(&'static str, Option<String>)> {
    let mut tags = Vec::new();
    if rng.chance(600) {
        tags.push(("team", Some(rng.pick(names::REPOS).to_owned())));
    }
    if rng.chance(300) {
        tags.push(("critical", None));
    }
    if rng.chance(300) {
        tags.push(("größe", Some("\"L\"".to_owned())));
    }
    if rng.chance(100) {
        // If a key is repeated, the last value counts.
        tags.push(("team", Some("platform".to_owned())));
    }
    tags
}
