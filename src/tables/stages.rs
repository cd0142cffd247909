//! The `stages` table: one row per stage node of an execution.

use std::borrow::Cow;
use std::fmt;

use super::columns::{Entries, columns, set_head};
use super::convert;
use super::deployments::{self, Deployments, StageCd, StageCdField};
use super::graph::{NodeField, NodeFields, Stage};
use super::json::{Object, object};
use super::origin::Origin;
use super::summary::{self, Head};
use crate::drift::Drift;
use crate::scan::Value;
use crate::schema::Table;
use crate::status::{self, Category};

columns! {
    Stages of Table::Stages => {
        account_id: Text,
        org_id: Text,
        project_id: Text,
        pipeline_id: Text,
        plan_execution_id: Text,
        execution_start_ts: Time,
        stage_node_id: Text,
        stage_id: Text,
        strategy_stage_id: Text,
        stage_name: Text,
        stage_type: Text,
        module: Text,
        status: Text,
        status_category: Text,
        start_ts: Time,
        end_ts: Time,
        duration_ms: Int,
        rollback_ms: Int,
        error_message: Text,
        failure_types: TextList,
        parent_stage_node_id: Text,
        strategy_type: Text,
        matrix: TextMap,
        iteration: Int,
        iteration_count: Int,
        stage_index: Int,
        is_rollback: Flag,
        ran_in_this_execution: Flag,
        module_info: Text,
        extra: Text,
        observed_ts: Time,
    }
}

object! {
    Strategy of StrategyField at "layoutNodeMap.*.strategyMetadata." {
        Iteration = "currentiteration",
        Iterations = "totaliterations",
        Matrix = "matrixmetadata",
    } others CountUnknown ["formetadata", "identifierpostfix"]
}

object! {
    Matrix of MatrixField at "layoutNodeMap.*.strategyMetadata.matrixmetadata." {
        Values = "matrixvalues",
    } others CountUnknown ["matrixcombination", "subtype", "nodename", "matrixkeystoskipinname"]
}

/// The columns of `executions` that summarize its stages.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) stages: usize,
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) running: usize,
    /// Rows of `deployments`.
    pub(super) deployments: usize,
    pub(super) first_start_ms: Option<i64>,
    pub(super) was_rolled_back: bool,
}

/// The status and times of a stage or an execution.
pub(super) struct Progress<'a> {
    pub(super) status: Option<Cow<'a, str>>,
    pub(super) category: Category,
    pub(super) is_terminal: bool,
    pub(super) start_ms: Option<i64>,
    pub(super) end_ms: Option<i64>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        status: Option<Cow<'a, str>>,
        start_ms: Option<i64>,
        end_ms: Option<i64>,
        drift: &mut Drift,
    ) -> Self {
        let word = status.as_deref().unwrap_or_default();
        let category = status::categorize(word);
        if category == Category::Unknown {
            drift.unknown_status(word);
        }
        Self {
            category,
            is_terminal: category.is_terminal(end_ms.is_some()),
            status,
            start_ms,
            end_ms,
        }
    }

    /// Returns the time from start to end; `None` unless it is terminal and ended at or after its start.
    pub(super) fn duration_ms(&self) -> Option<i64> {
        let duration = self.end_ms?.checked_sub(self.start_ms?)?;
        (self.is_terminal && duration >= 0).then_some(duration)
    }
}

/// The columns of a stage that `deployments` repeats.
pub(super) struct StageFacts<'a> {
    pub(super) node_id: &'a str,
    pub(super) stage_id: Option<Cow<'a, str>>,
    pub(super) strategy_stage_id: Option<Cow<'a, str>>,
    pub(super) strategy_instance: String,
    /// Duration of the rollback within the stage.
    pub(super) rollback_ms: Option<i64>,
    pub(super) progress: Progress<'a>,
    pub(super) is_rollback: bool,
    pub(super) ran_in_this_execution: bool,
}

impl Stages {
    /// Adds a stage of an execution, and its deployments.
    pub(super) fn push(
        &mut self,
        (head, origin): (&Head<'_>, &Origin<'_>),
        stage: &Stage<'_>,
        mut fields: NodeFields<'_>,
        totals: &mut Totals,
        deployments: &mut Deployments,
        drift: &mut Drift,
    ) {
        let end_ms = fields.time(NodeField::EndTs, drift);
        let status = fields.text(NodeField::Status, drift);
        let progress = Progress::new(status, stage.start_ms, end_ms, drift);
        let is_rollback_node = fields.boolean(NodeField::IsRollback, drift) == Some(true);
        let kind = stage.kind.unwrap_or_default();
        if !kind.is_empty() && !is_known(kind) {
            drift.odd_value("layoutNodeMap.*.nodeType", kind);
        }
        let is_rollback = is_rollback_node || kind.eq_ignore_ascii_case("PipelineRollback");
        let ran_here = stage
            .start_ms
            .is_none_or(|start| start >= head.row.start_ms);
        let module_info = fields.take(NodeField::ModuleInfo);
        let mut cd = module_info.map_or_else(StageCd::empty, |raw| deployments::cd(raw, drift));
        let deploys = stage.start_ms.is_some()
            && (kind.eq_ignore_ascii_case("Deployment") || deployments::has_target(&cd));
        let rollback_ms = cd.integer(StageCdField::RollbackDuration, drift);
        let stage_id = fields.text(NodeField::NodeIdentifier, drift);
        let strategy_stage_id = stage.strategy_stage_id.clone();
        let mut facts = StageFacts {
            strategy_stage_id: strategy_stage_id.or_else(|| stage_id.clone()),
            stage_id,
            strategy_instance: String::new(),
            rollback_ms: rollback_ms.filter(|ms| *ms > 0),
            node_id: stage.id,
            progress,
            is_rollback,
            ran_in_this_execution: ran_here,
        };
        fields.boolean(NodeField::Hidden, drift);
        summary::drop_if_equal(&mut fields, NodeField::NodeUuid, facts.node_id, drift);
        let failure = summary::take_failure(
            &mut fields,
            NodeField::FailureInfoDto,
            NodeField::FailureInfo,
            drift,
        );
        totals.add(&facts);

        set_head!(self, head);
        self.execution_start_ts.set_ms(head.row.start_ms);
        self.stage_node_id.set(facts.node_id);
        self.stage_id.push(facts.stage_id.as_ref());
        self.strategy_stage_id
            .push(facts.strategy_stage_id.as_ref());
        self.stage_name.push(fields.text(NodeField::Name, drift));
        self.stage_type.push(stage.kind);
        self.module.push(fields.text(NodeField::Module, drift));
        self.status.push(facts.progress.status.as_ref());
        self.status_category.set(facts.progress.category.as_str());
        self.start_ts.push_ms(stage.start_ms);
        self.end_ts.push_ms(end_ms);
        self.duration_ms.push(facts.progress.duration_ms());
        self.rollback_ms.push(facts.rollback_ms);
        self.error_message.push(failure.message);
        self.failure_types.push(&failure.types);
        self.parent_stage_node_id.push(stage.parent_id);
        self.strategy_type.push(stage.strategy_type);
        let instance = self.push_strategy(&mut fields, drift);
        self.stage_index.count(totals.stages - 1);
        self.is_rollback.set(is_rollback);
        self.ran_in_this_execution.set(ran_here);
        self.module_info.push(module_info.map(Value::json));
        self.extra.write(|out| fields.write_rest(out));

        if deploys {
            facts.strategy_instance = instance.to_string();
            let n = &mut totals.deployments;
            deployments.push((head, origin), &facts, cd, n, drift);
        }
    }

    /// Adds the columns of the strategy. Returns the instance of it that the stage is.
    fn push_strategy<'a, const N: usize>(
        &mut self,
        fields: &mut Object<'a, NodeField, N>,
        drift: &mut Drift,
    ) -> Instance<'a> {
        let mut strategy: Strategy<'_> = fields.object(NodeField::StrategyMetadata, drift);
        let mut matrix: Matrix<'_> = strategy.object(StrategyField::Matrix, drift);
        let axes = matrix.read_with(MatrixField::Values, Value::members, drift);
        let plain = |(axis, raw)| (axis, convert::plain_within_text(raw));
        let mut axes: Entries<'_> = axes.into_iter().flatten().map(plain).collect();
        let path = "layoutNodeMap.*.strategyMetadata.matrixvalues";
        if summary::keep_last_entries(&mut axes, path, drift) {
            matrix.restore(MatrixField::Values);
        }
        let iteration = strategy.integer(StrategyField::Iteration, drift);
        self.matrix
            .push(axes.iter().map(|(axis, value)| (axis, value.as_ref())));
        self.iteration.push(iteration);
        self.iteration_count
            .push(strategy.integer(StrategyField::Iterations, drift));
        strategy.restore_object(StrategyField::Matrix, matrix);
        fields.restore_object(NodeField::StrategyMetadata, strategy);
        Instance { axes, iteration }
    }
}

/// An instance of a matrix or loop; neither has an axis nor an iteration outside strategies.
struct Instance<'a> {
    axes: Entries<'a>,
    iteration: Option<i64>,
}

impl fmt::Display for Instance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.axes.is_empty() {
            return self.iteration.iter().try_for_each(|n| write!(f, "{n}"));
        }
        let mut axes: Vec<_> = self.axes.iter().collect();
        axes.sort_unstable();
        for (at, (axis, value)) in axes.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{axis}={}", value.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// The stage types of Harness. Harness 3.0 has no fixed types, and calls all of them `stage`.
const KINDS: [&str; 12] = [
    "Approval",
    "CI",
    "Custom",
    "Deployment",
    "FeatureFlag",
    "IACM",
    "IDP",
    "Pipeline",
    "PipelineRollback",
    "Security",
    "SecurityTests",
    "stage",
];

fn is_known(kind: &str) -> bool {
    KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known))
}

impl Totals {
    fn add(&mut self, stage: &StageFacts<'_>) {
        self.stages += 1;
        match stage.progress.category {
            Category::Success => self.succeeded += 1,
            Category::Failure => self.failed += 1,
            Category::Running => self.running += 1,
            _ => {}
        }
        if let Some(start) = stage.progress.start_ms {
            self.was_rolled_back |= stage.is_rollback || stage.rollback_ms.is_some();
            if stage.ran_in_this_execution {
                let first = self.first_start_ms.unwrap_or(start);
                self.first_start_ms = Some(first.min(start));
            }
        }
    }
}
