//! The stages of a pipeline, by its shape.

use super::account::RowSize;
use super::names;
use super::plan::{Shape, Slot, Stage, StageKind, Strategy};
use super::rng::Rng;

/// Returns the slots of one pipeline.
pub(super) fn slots(shape: Shape, size: RowSize, rng: &mut Rng) -> Vec<Slot> {
    match shape {
        Shape::Ci => ci(size, rng),
        Shape::Cd => cd(size, rng),
        Shape::Mixed => mixed(size, rng),
        Shape::Custom => custom(rng),
        Shape::Chain => chain(rng),
    }
}

fn ci(size: RowSize, rng: &mut Rng) -> Vec<Slot> {
    let mut slots = vec![one(StageKind::Ci, "build", "Build", rng)];
    if rng.chance(500) {
        slots.push(Slot::Parallel(vec![
            one(StageKind::Ci, "unit", "Unit tests", rng),
            one(StageKind::Ci, "lint", "Lint \"strict\"", rng),
        ]));
    }
    if rng.chance(400) {
        let os = one_stage(StageKind::Ci, "compat", "Compatibility", rng);
        slots.push(Slot::Strategy(Strategy::Matrix(axes(size, rng)), os));
    }
    if rng.chance(400) {
        slots.push(one(StageKind::Ci, "publish", "Publish", rng));
    }
    slots
}

fn cd(size: RowSize, rng: &mut Rng) -> Vec<Slot> {
    let mut slots = vec![deploy("to_dev", "Deploy to dev", 0, rng)];
    if rng.chance(600) {
        slots.push(approval(rng));
    }
    match rng.below(3) {
        0 => {
            let stage = deploy_stage("to_regions", "Deploy to regions", 2, rng);
            let axes = if size == RowSize::Small {
                vec![2]
            } else {
                vec![2, 4]
            };
            slots.push(Slot::Strategy(Strategy::Matrix(axes), stage));
        }
        1 => slots.push(Slot::Parallel(vec![
            deploy("to_eu", "Deploy to EU", 2, rng),
            deploy("to_us", "Deploy to US", 3, rng),
        ])),
        _ => slots.push(deploy("to_prod", "Deploy to prod", 2, rng)),
    }
    slots
}

fn mixed(size: RowSize, rng: &mut Rng) -> Vec<Slot> {
    let mut slots = vec![one(StageKind::Ci, "build", "Build", rng)];
    let shards = Strategy::Parallelism(match size {
        RowSize::Small => 2,
        RowSize::Realistic => 4,
    });
    let mut side_by_side = vec![
        one(StageKind::Ci, "lint", "Lint", rng),
        Slot::Strategy(
            shards,
            one_stage(StageKind::Ci, "shards", "Test shards", rng),
        ),
    ];
    if size == RowSize::Realistic {
        let stage = one_stage(StageKind::Ci, "compat", "Compatibility", rng);
        side_by_side.push(Slot::Strategy(Strategy::Matrix(axes(size, rng)), stage));
    }
    slots.push(Slot::Parallel(side_by_side));
    slots.push(deploy("to_staging", "Deploy to staging", 1, rng));
    slots.push(approval(rng));
    slots.push(deploy("to_prod", "Deploy to prod", 2, rng));
    slots
}

fn custom(rng: &mut Rng) -> Vec<Slot> {
    let mut hidden = one_stage(StageKind::Custom, "internal", "Internal", rng);
    hidden.hidden = true;
    let times = Strategy::Loop(2 + rng.between(0, 1));
    vec![
        one(StageKind::Custom, "collect", "Collect", rng),
        Slot::One(hidden),
        Slot::Strategy(times, one_stage(StageKind::Custom, "sweep", "Sweep", rng)),
        one(StageKind::Custom, "report", "Rapport – résumé", rng),
    ]
}

fn chain(rng: &mut Rng) -> Vec<Slot> {
    let mut slots = vec![one(StageKind::Custom, "prepare", "Prepare", rng)];
    slots.push(one(
        StageKind::Pipeline,
        "run_deploy",
        "Run the deployment",
        rng,
    ));
    if rng.chance(500) {
        slots.push(one(StageKind::Custom, "announce", "Announce", rng));
    }
    slots
}

fn axes(size: RowSize, rng: &mut Rng) -> Vec<usize> {
    match (size, rng.below(4)) {
        (RowSize::Small, 0) | (RowSize::Realistic, 1) => vec![3],
        (RowSize::Small, _) => vec![1],
        (RowSize::Realistic, 0) => vec![0, 1, 4],
        (RowSize::Realistic, _) => vec![0, 1],
    }
}

fn one(kind: StageKind, id: &str, name: &str, rng: &mut Rng) -> Slot {
    Slot::One(one_stage(kind, id, name, rng))
}

fn one_stage(kind: StageKind, id: &str, name: &str, rng: &mut Rng) -> Stage {
    Stage {
        id: id.to_owned(),
        name: name.to_owned(),
        kind,
        service: 0,
        environment: 0,
        gitops: false,
        skipped: if kind == StageKind::Pipeline || id == "build" {
            0
        } else {
            rng.pick(&[0, 0, 40, 120])
        },
        hidden: false,
    }
}

fn approval(rng: &mut Rng) -> Slot {
    let mut stage = one_stage(StageKind::Approval, "approve", "Approve – 承認", rng);
    stage.skipped = 0;
    Slot::One(stage)
}

fn deploy(id: &str, name: &str, environment: usize, rng: &mut Rng) -> Slot {
    Slot::One(deploy_stage(id, name, environment, rng))
}

fn deploy_stage(id: &str, name: &str, environment: usize, rng: &mut Rng) -> Stage {
    Stage {
        service: rng.below(names::SERVICES.len()),
        environment,
        gitops: rng.chance(150),
        ..one_stage(StageKind::Deployment, id, name, rng)
    }
}
