//! The stages of a pipeline, by its shape.

use super::account::RowSize;
use super::dice::Dice;
use super::names;
use super::plan::{Kind, Shape, Slot, Stage, Strategy};

/// The chain of stages of one pipeline.
pub(super) fn slots(shape: Shape, size: RowSize, dice: &mut Dice) -> Vec<Slot> {
    match shape {
        Shape::Ci => ci(size, dice),
        Shape::Cd => cd(size, dice),
        Shape::Mixed => mixed(size, dice),
        Shape::Custom => custom(dice),
        Shape::Chain => chain(dice),
    }
}

fn ci(size: RowSize, dice: &mut Dice) -> Vec<Slot> {
    let mut slots = vec![one(Kind::Ci, "build", "Build", dice)];
    if dice.chance(500) {
        slots.push(Slot::Parallel(vec![
            one(Kind::Ci, "unit", "Unit tests", dice),
            one(Kind::Ci, "lint", "Lint \"strict\"", dice),
        ]));
    }
    if dice.chance(400) {
        let os = one_stage(Kind::Ci, "compat", "Compatibility", dice);
        slots.push(Slot::Strategy(Strategy::Matrix(axes(size, dice)), os));
    }
    if dice.chance(400) {
        slots.push(one(Kind::Ci, "publish", "Publish", dice));
    }
    slots
}

fn cd(size: RowSize, dice: &mut Dice) -> Vec<Slot> {
    let mut slots = vec![deploy("to_dev", "Deploy to dev", 0, dice)];
    if dice.chance(600) {
        slots.push(approval(dice));
    }
    match dice.below(3) {
        0 => {
            let stage = deploy_stage("to_regions", "Deploy to regions", 2, dice);
            let axes = if size == RowSize::Small {
                vec![2]
            } else {
                vec![2, 4]
            };
            slots.push(Slot::Strategy(Strategy::Matrix(axes), stage));
        }
        1 => slots.push(Slot::Parallel(vec![
            deploy("to_eu", "Deploy to EU", 2, dice),
            deploy("to_us", "Deploy to US", 3, dice),
        ])),
        _ => slots.push(deploy("to_prod", "Deploy to prod", 2, dice)),
    }
    slots
}

fn mixed(size: RowSize, dice: &mut Dice) -> Vec<Slot> {
    let mut slots = vec![one(Kind::Ci, "build", "Build", dice)];
    let shards = Strategy::Parallelism(match size {
        RowSize::Small => 2,
        RowSize::Realistic => 4,
    });
    let mut side_by_side = vec![
        one(Kind::Ci, "lint", "Lint", dice),
        Slot::Strategy(shards, one_stage(Kind::Ci, "shards", "Test shards", dice)),
    ];
    if size == RowSize::Realistic {
        let stage = one_stage(Kind::Ci, "compat", "Compatibility", dice);
        side_by_side.push(Slot::Strategy(Strategy::Matrix(axes(size, dice)), stage));
    }
    slots.push(Slot::Parallel(side_by_side));
    slots.push(deploy("to_staging", "Deploy to staging", 1, dice));
    slots.push(approval(dice));
    slots.push(deploy("to_prod", "Deploy to prod", 2, dice));
    slots
}

fn custom(dice: &mut Dice) -> Vec<Slot> {
    let mut hidden = one_stage(Kind::Custom, "internal", "Internal", dice);
    hidden.hidden = true;
    let times = Strategy::Loop(2 + dice.between(0, 1));
    vec![
        one(Kind::Custom, "collect", "Collect", dice),
        Slot::One(hidden),
        Slot::Strategy(times, one_stage(Kind::Custom, "sweep", "Sweep", dice)),
        one(Kind::Custom, "report", "Rapport – résumé", dice),
    ]
}

fn chain(dice: &mut Dice) -> Vec<Slot> {
    let mut slots = vec![one(Kind::Custom, "prepare", "Prepare", dice)];
    slots.push(one(
        Kind::Pipeline,
        "run_deploy",
        "Run the deployment",
        dice,
    ));
    if dice.chance(500) {
        slots.push(one(Kind::Custom, "announce", "Announce", dice));
    }
    slots
}

fn axes(size: RowSize, dice: &mut Dice) -> Vec<usize> {
    match (size, dice.below(4)) {
        (RowSize::Small, 0) | (RowSize::Realistic, 1) => vec![3],
        (RowSize::Small, _) => vec![1],
        (RowSize::Realistic, 0) => vec![0, 1, 4],
        (RowSize::Realistic, _) => vec![0, 1],
    }
}

fn one(kind: Kind, id: &str, name: &str, dice: &mut Dice) -> Slot {
    Slot::One(one_stage(kind, id, name, dice))
}

fn one_stage(kind: Kind, id: &str, name: &str, dice: &mut Dice) -> Stage {
    Stage {
        id: id.to_owned(),
        name: name.to_owned(),
        kind,
        service: 0,
        environment: 0,
        gitops: false,
        skipped: if kind == Kind::Pipeline || id == "build" {
            0
        } else {
            dice.pick(&[0, 0, 40, 120])
        },
        hidden: false,
    }
}

fn approval(dice: &mut Dice) -> Slot {
    let mut stage = one_stage(Kind::Approval, "approve", "Approve – 承認", dice);
    stage.skipped = 0;
    Slot::One(stage)
}

fn deploy(id: &str, name: &str, environment: usize, dice: &mut Dice) -> Slot {
    Slot::One(deploy_stage(id, name, environment, dice))
}

fn deploy_stage(id: &str, name: &str, environment: usize, dice: &mut Dice) -> Stage {
    Stage {
        service: dice.below(names::SERVICES.len()),
        environment,
        gitops: dice.chance(150),
        ..one_stage(Kind::Deployment, id, name, dice)
    }
}
