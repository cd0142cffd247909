//! Renders `moduleInfo` of executions and stages, which grows while an execution runs.

use super::facts::{Build, Commit, Resolved, artifact, deployed, resolved, rollback_ms};
use super::json::Json;
use super::names;
use super::plan::{Stage, StageKind};
use super::render::Snapshot;

const CI: &str = "io.harness.ci.plan.creator.execution.";
const BEANS: &str = "io.harness.ci.pipeline.executions.beans.";
const CD: &str = "io.harness.cdng.pipeline.executions.beans.";

/// Renders `moduleInfo` of an execution; `{}` before its first stage.
pub(super) fn module_info(snapshot: &Snapshot<'_>, json: &mut Json) {
    let started = |kind: StageKind| {
        let mut nodes = snapshot.detail.nodes.iter();
        nodes.any(|node| node.is_kind(kind) && node.started(snapshot.at).is_some())
    };
    json.map("moduleInfo", |json| {
        if started(StageKind::Ci) {
            json.map("ci", |json| ci(snapshot, json));
        }
        if started(StageKind::Deployment) {
            let key = if snapshot.execution.legacy {
                "CD"
            } else {
                "cd"
            };
            json.map(key, |json| cd(snapshot, json));
        }
        if started(StageKind::Approval) {
            json.map("pms", |json| {
                json.bool("hasApprovalStage", true);
                json.strings("approvalStageNames", [Some("Approve – 承認")]);
            });
        }
    });
}

fn ci(snapshot: &Snapshot<'_>, json: &mut Json) {
    recast(json, CI, "CIPipelineModuleInfo");
    let repo = snapshot.account.pipeline(snapshot.execution).repo;
    if let Some(build) =
        snapshot
            .account
            .build_at(snapshot.execution, &snapshot.detail, snapshot.at)
    {
        if build.reports_branch {
            json.str(
                "branch",
                if build.pull_request.is_some() {
                    "main"
                } else {
                    build.branch
                },
            );
        }
        json.str(
            "buildType",
            match build.event {
                "pullRequest" => "PR",
                "release" => "tag",
                event => event,
            },
        );
        if let Some(number) = build.pull_request {
            json.str("prNumber", &number.to_string());
        }
        json.str("repoName", repo);
        json.map("ciExecutionInfoDTO", |json| {
            build_info(snapshot, &build, json);
        });
    }
    json.str("ciEditionType", "ENTERPRISE");
    json.str("ciLicenseType", "PAID");
    json.bool("isPrivateRepo", snapshot.execution.id.0.is_multiple_of(2));
    json.maps("scmDetailsList", [repo], |json, repo| {
        recast(json, BEANS, "CIScmDetails");
        json.str("scmUrl", &format!("https://git.example.com/acme/{repo}"));
        json.str("scmProvider", "Github");
        json.null("scmAuthType");
        json.str("scmHostType", "SaaS");
    });
    if snapshot.facts.late <= snapshot.at {
        json.maps("imageDetailsList", ["golang", "node"], |json, image| {
            recast(json, BEANS, "CIImageDetails");
            json.str("imageName", image);
            json.str("imageTag", "");
        });
        json.strings("tiBuildDetailsList", [None::<&str>]);
    }
}

fn build_info(snapshot: &Snapshot<'_>, build: &Build, json: &mut Json) {
    recast(json, BEANS, "CIWebhookInfoDTO");
    json.str("event", build.event);
    json.map("author", |json| {
        recast(json, BEANS, "CIBuildAuthor");
        json.str("id", "octo-cat");
        json.str(
            "name",
            build
                .commits
                .first()
                .map_or("octo-cat", |commit| commit.author),
        );
        json.str("email", "");
        json.str("avatar", "https://git.example.com/a/octo-cat.png");
    });
    let repo = snapshot.account.pipeline(snapshot.execution).repo;
    let link = format!("https://git.example.com/acme/{repo}");
    match (build.event, build.pull_request) {
        ("pullRequest", Some(number)) => json.map("pullRequest", |json| {
            recast(json, BEANS, "CIBuildPRHook");
            json.int("id", number);
            json.str("link", &format!("{link}/pull/{number}"));
            json.str(
                "title",
                build.commits.first().map_or("", |commit| commit.message),
            );
            json.null("body");
            json.null("sourceRepo");
            json.str("sourceBranch", build.branch);
            json.str("targetBranch", "main");
            json.str("state", if number % 2 == 0 { "open" } else { "closed" });
            commits(json, build, &link);
        }),
        ("release", _) => json.map("release", |json| {
            recast(json, BEANS, "CIBuildReleaseHook");
            json.str("tag", "v2026.4.1");
            json.str("link", &link);
            json.str("title", "2026.4.1 – \"Herbst\"");
            json.null("body");
        }),
        _ => json.map("branch", |json| {
            recast(json, BEANS, "CIBuildBranchHook");
            json.str("name", build.branch);
            json.str("link", &link);
            json.null("state");
            commits(json, build, &link);
        }),
    }
}

fn commits(json: &mut Json, build: &Build, link: &str) {
    for (key, commits) in [
        ("commits", &build.commits),
        ("triggerCommits", &build.trigger_commits),
    ] {
        json.maps(key, commits, |json, commit: &Commit| {
            recast(json, BEANS, "CIBuildCommit");
            json.str("id", &commit.sha);
            json.str("link", &format!("{link}/commit/{}", commit.sha));
            json.str("message", commit.message);
            json.str("ownerName", commit.author);
            json.str("ownerId", "");
            json.opt("ownerEmail", commit.email);
            json.int("timeStamp", commit.stamp);
        });
    }
}

fn cd(snapshot: &Snapshot<'_>, json: &mut Json) {
    recast(json, CD, "CDPipelineModuleInfo");
    let stages = |least: Resolved, column: fn(&Stage) -> &'static str| {
        let nodes = deployed(&snapshot.detail, snapshot.at, least);
        let mut texts: Vec<Option<&str>> = nodes
            .filter_map(|node| node.stage().map(|stage| Some(column(stage))))
            .collect();
        // These lists are sets: the server returns them in varying order.
        texts.sort_unstable();
        texts.dedup();
        let turn = usize::try_from(snapshot.at / 3_600_000).unwrap_or(0) % texts.len().max(1);
        texts.rotate_left(turn);
        texts
    };
    let has_null = snapshot.execution.id.0.is_multiple_of(5);
    let with_null = |mut texts: Vec<Option<&'static str>>| {
        if has_null {
            texts.push(None);
        }
        texts
    };
    let services = stages(Resolved::Service, |stage| names::SERVICES[stage.service].0);
    json.strings("serviceIdentifiers", with_null(services));
    let kinds = stages(Resolved::Service, |stage| names::SERVICES[stage.service].2);
    json.strings("serviceDefinitionTypes", kinds);
    let environments = stages(Resolved::Environment, |stage| {
        names::ENVIRONMENTS[stage.environment].0
    });
    json.strings("envIdentifiers", with_null(environments));
    let kinds = stages(Resolved::Environment, |stage| {
        names::ENVIRONMENTS[stage.environment].2
    });
    json.strings("environmentTypes", kinds);
    let ids = stages(Resolved::Environment, |stage| {
        names::ENVIRONMENTS[stage.environment].3
    });
    json.strings("infrastructureIdentifiers", with_null(ids));
    let texts = stages(Resolved::Environment, |stage| {
        names::ENVIRONMENTS[stage.environment].4
    });
    json.strings("infrastructureNames", with_null(texts));
    if snapshot.facts.late <= snapshot.at {
        let artifacts =
            deployed(&snapshot.detail, snapshot.at, Resolved::Artifact).filter_map(|node| {
                let stage = node.stage()?;
                Some(artifact(names::SERVICES[stage.service].0, node))
            });
        json.strings("artifactDisplayNames", artifacts.map(Some));
        json.strings("freezeIdentifiers", [None::<&str>; 0]);
    }
}

/// Renders `moduleInfo` of a stage.
pub(super) fn stage(snapshot: &Snapshot<'_>, index: usize, json: &mut Json) {
    let node = &snapshot.detail.nodes[index];
    let Some(stage) = node.stage() else {
        return json.map("pms", |_| {});
    };
    match stage.kind {
        StageKind::Ci => json.map("ci", |json| recast(json, CI, "CIStageModuleInfo")),
        StageKind::Deployment => json.map("cd", |json| {
            recast(json, CD, "CDStageModuleInfo");
            let resolved = resolved(node, snapshot.at);
            if Resolved::Service <= resolved {
                json.map("serviceInfo", |json| {
                    let name = (resolved >= Resolved::Artifact)
                        .then(|| artifact(names::SERVICES[stage.service].0, node));
                    service(stage, name.as_deref(), json);
                });
            }
            if Resolved::Environment <= resolved {
                environment(stage, json);
            }
            if node.end_at(snapshot.at).is_some() {
                json.int(
                    "rollbackDuration",
                    rollback_ms(node, snapshot.at).unwrap_or(0),
                );
            }
        }),
        StageKind::Approval | StageKind::Custom | StageKind::Pipeline => json.map("pms", |_| {}),
    }
}

fn service(stage: &Stage, artifact: Option<&str>, json: &mut Json) {
    let (id, name, kind) = names::SERVICES[stage.service];
    recast(json, CD, "ServiceExecutionSummary");
    json.str("identifier", id);
    json.str("displayName", name);
    json.str("deploymentType", kind);
    json.bool("gitOpsEnabled", stage.gitops);
    json.map("artifacts", |json| {
        recast(json, CD, "ServiceExecutionSummary$ArtifactsSummary");
        if let Some(artifact) = artifact {
            json.str("artifactDisplayName", artifact);
            json.map("primary", |json| {
                json.str("type", "DockerRegistry");
                json.str("imagePath", artifact.split(':').next().unwrap_or_default());
                json.str("tag", artifact.split(':').next_back().unwrap_or_default());
            });
        }
        json.strings("sidecars", [None::<&str>; 0]);
    });
}

fn environment(stage: &Stage, json: &mut Json) {
    let (id, name, kind, infrastructure, infrastructure_name) =
        names::ENVIRONMENTS[stage.environment];
    if stage.gitops {
        json.map("gitopsExecutionSummary", |json| {
            recast(json, CD, "GitOpsExecutionSummary");
            json.maps("environments", [()], |json, ()| {
                json.str("identifier", id);
                json.str("name", name);
                json.str("type", kind);
            });
            json.maps("clusters", [()], |json, ()| {
                json.str("envId", id);
                json.str("envName", name);
                json.str("clusterId", "in_cluster");
                json.null("clusterName");
            });
        });
        return;
    }
    json.map("infraExecutionSummary", |json| {
        recast(json, CD, "InfraExecutionSummary");
        json.str("identifier", id);
        json.str("name", name);
        json.str("type", kind);
        json.str("infrastructureIdentifier", infrastructure);
        json.str("infrastructureName", infrastructure_name);
    });
}

fn recast(json: &mut Json, package: &str, class: &str) {
    json.str("__recast", &format!("{package}{class}"));
}
