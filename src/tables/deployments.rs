//! The `deployments` table: one row per service and environment of a stage that deployed and started.

use std::borrow::Cow;

use super::columns::{columns, set_head};
use super::dedup;
use super::json::object;
use super::origin::Origin;
use super::stages::StageFacts;
use super::summary::Head;
use crate::drift::Drift;
use crate::scan::Value;
use crate::schema::Table;

columns! {
    Deployments of Table::Deployments => {
        account_id: Text,
        org_id: Text,
        project_id: Text,
        pipeline_id: Text,
        plan_execution_id: Text,
        execution_start_ts: Time,
        deployment_index: Int,
        stage_node_id: Text,
        stage_id: Text,
        strategy_stage_id: Text,
        strategy_instance: Text,
        service_id: Text,
        service_key: Text,
        service_name: Text,
        environment_id: Text,
        environment_key: Text,
        environment_name: Text,
        environment_type: Text,
        infrastructure_id: Text,
        artifact: Text,
        deployment_type: Text,
        status: Text,
        status_category: Text,
        is_rollback: Flag,
        ran_in_this_execution: Flag,
        was_rolled_back: Flag,
        rollback_ms: Int,
        execution_mode: Text,
        attempted_ts: Time,
        retry_root_execution_id: Text,
        rerun_root_execution_id: Text,
        parent_pipeline_execution_id: Text,
        reverts_execution_id: Text,
        triggered_by_name: Text,
        start_ts: Time,
        end_ts: Time,
        deployed_date: Day,
        duration_ms: Int,
        observed_ts: Time,
    }
}

object! {
    StageModules of StageModuleField at "layoutNodeMap.*.moduleInfo." {
        Cd = "cd",
    } others Ignore
}

object! {
    StageCd of StageCdField at "layoutNodeMap.*.moduleInfo.cd." {
        Service = "serviceInfo",
        Infra = "infraExecutionSummary",
        Gitops = "gitopsExecutionSummary",
        RollbackDuration = "rollbackDuration",
    } others Ignore
}

object! {
    Service of ServiceField at "layoutNodeMap.*.moduleInfo.cd.serviceInfo." {
        Id = "identifier",
        Name = "displayName",
        DeploymentType = "deploymentType",
        Artifacts = "artifacts",
    } others Ignore
}

object! {
    Artifacts of ArtifactsField at "layoutNodeMap.*.moduleInfo.cd.serviceInfo.artifacts." {
        Primary = "primary",
        DisplayName = "artifactDisplayName",
    } others Ignore
}

object! {
    Artifact of ArtifactField at "layoutNodeMap.*.moduleInfo.cd.serviceInfo.artifacts.primary." {
        DisplayName = "displayName",
        ImagePath = "imagePath",
        Tag = "tag",
    } others Ignore
}

object! {
    Gitops of GitopsField at "layoutNodeMap.*.moduleInfo.cd.gitopsExecutionSummary." {
        Environments = "environments",
    } others Ignore
}

object! {
    EnvironmentFields of EnvironmentField at "layoutNodeMap.*.moduleInfo.cd.(environment)." {
        Id = "identifier",
        Name = "name",
        Type = "type",
        InfrastructureId = "infrastructureIdentifier",
    } others Ignore
}

#[derive(Default)]
struct Environment<'a> {
    id: Option<Cow<'a, str>>,
    name: Option<Cow<'a, str>>,
    kind: Option<Cow<'a, str>>,
    infrastructure_id: Option<Cow<'a, str>>,
}

impl Deployments {
    /// Adds the deployments of a started deployment stage: at least one row, even if its service and
    /// environment were never resolved.
    pub(super) fn push(
        &mut self,
        (head, origin): (&Head<'_>, &Origin<'_>),
        stage: &StageFacts<'_>,
        mut cd: StageCd<'_>,
        deployment_count: &mut usize,
        drift: &mut Drift,
    ) {
        let mut service: Service<'_> = cd.object(StageCdField::Service, drift);
        let service_id = service.text(ServiceField::Id, drift);
        let service_name = service.text(ServiceField::Name, drift);
        let deployment_type = service.text(ServiceField::DeploymentType, drift);
        let artifact = artifact(&mut service, drift);

        for environment in environments(&mut cd, drift) {
            set_head!(self, head);
            self.execution_start_ts.set_ms(head.row.start_ms);
            self.deployment_index.count(*deployment_count);
            *deployment_count += 1;
            self.stage_node_id.set(stage.node_id);
            self.stage_id.push(stage.stage_id.as_ref());
            self.strategy_stage_id
                .push(stage.strategy_stage_id.as_ref());
            self.strategy_instance.set(&stage.strategy_instance);
            self.service_key
                .push(service_id.as_deref().map(|id| key(head, id)));
            self.service_id.push(service_id.as_ref());
            self.service_name.push(service_name.as_ref());
            self.environment_key
                .push(environment.id.as_deref().map(|id| key(head, id)));
            self.environment_id.push(environment.id);
            self.environment_name.push(environment.name);
            self.environment_type.push(environment.kind);
            self.infrastructure_id.push(environment.infrastructure_id);
            self.artifact.push(artifact.as_ref());
            self.deployment_type.push(deployment_type.as_ref());
            self.status.push(stage.progress.status.as_ref());
            self.status_category.set(stage.progress.category.as_str());
            self.is_rollback
                .set(stage.is_rollback || origin.rolls_back());
            self.ran_in_this_execution.set(stage.ran_in_this_execution);
            self.was_rolled_back.set(stage.rollback_ms.is_some());
            self.rollback_ms.push(stage.rollback_ms);
            self.push_origin(head, origin);
            self.start_ts.push_ms(stage.progress.start_ms);
            self.end_ts.push_ms(stage.progress.end_ms);
            self.deployed_date.push_ms(stage.progress.end_ms);
            self.duration_ms.push(stage.progress.duration_ms());
        }
    }
}

impl Deployments {
    fn push_origin(&mut self, head: &Head<'_>, origin: &Origin<'_>) {
        let id = head.row.plan_execution_id;
        self.execution_mode.push(origin.execution_mode.as_ref());
        self.attempted_ts
            .set_ms(origin.created_ms.unwrap_or(head.row.start_ms));
        self.retry_root_execution_id
            .set(origin.retry.root.as_deref().unwrap_or(id));
        self.rerun_root_execution_id
            .push(origin.trigger.rerun_root.as_ref());
        self.parent_pipeline_execution_id
            .push(origin.parent.execution.as_ref());
        self.reverts_execution_id.push(origin.reverts());
        self.triggered_by_name.push(origin.trigger.by_name.as_ref());
    }
}

/// Returns `moduleInfo.cd` of a stage; empty if the stage has none.
pub(super) fn cd<'a>(module_info: Value<'a>, drift: &mut Drift) -> StageCd<'a> {
    let Some(mut modules) = StageModules::read(module_info, drift) else {
        drift.odd_value("layoutNodeMap.*.moduleInfo", module_info.json());
        return StageCd::empty();
    };
    modules.object(StageModuleField::Cd, drift)
}

/// Returns true if a stage of any type has a service or an infrastructure.
pub(super) fn has_target(cd: &StageCd<'_>) -> bool {
    // Counted when the row is added.
    let drift = &mut Drift::default();
    let service = cd.peek(StageCdField::Service);
    let service = service.and_then(|raw| Service::read(raw, drift));
    let infra = cd.peek(StageCdField::Infra);
    let infra = infra.and_then(|raw| EnvironmentFields::read(raw, drift));
    let gitops = cd.peek(StageCdField::Gitops);
    let gitops = gitops.and_then(|raw| Gitops::read(raw, drift));
    service.is_some_and(|mut service| service.text(ServiceField::Id, drift).is_some())
        || infra.is_some_and(|mut infra| {
            [EnvironmentField::Id, EnvironmentField::InfrastructureId]
                .into_iter()
                .any(|field| infra.text(field, drift).is_some())
        })
        || gitops.is_some_and(|mut gitops| {
            gitops
                .items(GitopsField::Environments, drift)
                .next()
                .is_some()
        })
}

/// Returns the identifier of a service or environment with its scope.
///
/// Those of the organization and the account begin with `org.` and `account.` already.
fn key<'a>(head: &Head<'_>, id: &'a str) -> Cow<'a, str> {
    if id.starts_with("account.") || id.starts_with("org.") {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("{}/{}/{id}", head.row.org_id, head.row.project_id))
}

/// Returns the environments of a stage, distinct by ID.
///
/// Without `GitOps` there is at most one. A stage without environments has one unresolved environment.
fn environments<'a>(cd: &mut StageCd<'a>, drift: &mut Drift) -> Vec<Environment<'a>> {
    let infra: EnvironmentFields<'a> = cd.object(StageCdField::Infra, drift);
    let mut gitops: Gitops<'a> = cd.object(StageCdField::Gitops, drift);
    let many = gitops.items(GitopsField::Environments, drift);
    let many: Vec<_> = many
        .filter_map(|raw| EnvironmentFields::read(raw, drift))
        .collect();
    let mut environments: Vec<_> = std::iter::once(infra)
        .chain(many)
        .filter(|fields| !fields.is_empty())
        .map(|fields| Environment::read(fields, drift))
        .collect();
    dedup::keep_first(&mut environments, |environment: &Environment<'_>| {
        environment.id.as_deref().unwrap_or_default()
    });
    if environments.is_empty() {
        environments.push(Environment::default());
    }
    environments
}

impl<'a> Environment<'a> {
    fn read(mut fields: EnvironmentFields<'a>, drift: &mut Drift) -> Self {
        Self {
            id: fields.text(EnvironmentField::Id, drift),
            name: fields.text(EnvironmentField::Name, drift),
            kind: fields.text(EnvironmentField::Type, drift),
            infrastructure_id: fields.text(EnvironmentField::InfrastructureId, drift),
        }
    }
}

/// Returns the display name of the artifact, or else its image and tag.
fn artifact<'a>(service: &mut Service<'a>, drift: &mut Drift) -> Option<Cow<'a, str>> {
    let mut artifacts: Artifacts<'a> = service.object(ServiceField::Artifacts, drift);
    let name = artifacts.text(ArtifactsField::DisplayName, drift);
    let primary = artifacts.take(ArtifactsField::Primary);
    name.or_else(|| {
        let raw = primary?;
        let Some(mut artifact) = Artifact::read(raw, drift) else {
            return raw.text().filter(|text| !text.is_empty());
        };
        let name = artifact.text(ArtifactField::DisplayName, drift);
        let image = artifact.text(ArtifactField::ImagePath, drift);
        let tag = artifact.text(ArtifactField::Tag, drift);
        name.or_else(|| match (image, tag) {
            (Some(image), Some(tag)) => Some(Cow::Owned(format!("{image}:{tag}"))),
            (image, tag) => image.or(tag),
        })
    })
}
