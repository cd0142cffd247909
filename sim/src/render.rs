//! Renders an execution as the server returns it at an instant: one summary as JSON text.

use jiff::Timestamp;

use super::Vintage;
use super::account::{Account, Execution, Origin, RowSize};
use super::detail::Detail;
use super::facts::{ErrorInfo, Facts, Trigger};
use super::json::Json;
use super::plan::Shape;
use super::rng::{Id, Rng, Stream};
use super::status::Status;
use super::{render_modules, render_stages};

/// An execution as of an instant, with everything needed to render it.
pub(super) struct Snapshot<'a> {
    pub(super) account: &'a Account,
    pub(super) execution: &'a Execution,
    pub(super) detail: Detail<'a>,
    pub(super) facts: Facts,
    pub(super) at: i64,
    pub(super) vintage: Vintage,
}

const MONTH_MS: i64 = 30 * 24 * 3_600_000;

impl Account {
    /// Renders the summary of an execution at an instant as JSON text.
    pub fn render(&self, execution: &Execution, at: Timestamp, vintage: Vintage) -> String {
        self.snapshot(execution, at.as_millisecond(), vintage)
            .render()
    }

    pub(super) fn snapshot<'a>(
        &'a self,
        execution: &'a Execution,
        at: i64,
        vintage: Vintage,
    ) -> Snapshot<'a> {
        Snapshot {
            account: self,
            execution,
            detail: self.detail(execution),
            facts: self.facts(execution),
            at,
            vintage,
        }
    }
}

impl Snapshot<'_> {
    pub(super) fn render(&self) -> String {
        Json::object(|json| {
            self.identity(json);
            self.start(json);
            self.outcome(json);
            render_modules::module_info(self, json);
            render_stages::layout_nodes(self, json);
            self.times(json);
            self.origin(json);
            self.pipeline(json);
        })
    }

    fn identity(&self, json: &mut Json) {
        let pipeline = self.account.pipeline(self.execution);
        json.str("pipelineIdentifier", &pipeline.id);
        if !self.execution.legacy {
            let scope = self.account.scope_at(pipeline.project, self.at);
            json.str("orgIdentifier", &scope.org);
            json.str("projectIdentifier", &scope.project);
            json.str("yamlVersion", pipeline.yaml_version());
        }
        json.str("planExecutionId", &self.execution.id.to_string());
        json.str("name", &pipeline.name);
        let status = self.detail.status_at(self.at);
        json.str("status", status.spelled(self.execution.legacy));
        let tags = self.account.tags_at(self.execution, &self.facts, self.at);
        json.maps("tags", tags, |json, (key, value)| {
            json.str("key", key);
            json.opt("value", value.as_deref());
        });
    }

    fn start(&self, json: &mut Json) {
        json.map("executionTriggerInfo", |json| {
            let Some(trigger) = &self.facts.trigger else {
                json.null("triggerType");
                json.null("triggeredBy");
                self.rerun_info(json);
                return;
            };
            json.str("triggerType", trigger.kind);
            json.map("triggeredBy", |json| triggered_by(json, trigger));
            self.rerun_info(json);
        });
        json.map("governanceMetadata", |json| self.governance(json));
    }

    fn rerun_info(&self, json: &mut Json) {
        let Origin::Rerun { of, root } = self.execution.origin else {
            json.bool("isRerun", false);
            return;
        };
        let kind = |index: u32| {
            let facts = self.account.facts(self.account.by_index(index));
            facts.trigger.map_or("NOOP", |trigger| trigger.kind)
        };
        let id = |index: u32| self.account.by_index(index).id();
        json.bool("isRerun", true);
        json.map("rerunInfo", |json| {
            json.str("rootExecutionId", &id(root));
            json.str("rootTriggerType", kind(root));
            json.str("prevExecutionId", &id(of));
            json.str("prevTriggerType", kind(of));
        });
    }

    fn governance(&self, json: &mut Json) {
        let scope = self.account.scope_of(self.execution, self.moment());
        let evaluated = self.execution.id.0.is_multiple_of(3);
        let detailed = evaluated && self.account.spec.size == RowSize::Realistic;
        let stamp = if evaluated { self.execution.start } else { 0 }.to_string();
        let if_evaluated = |text: &str| {
            if evaluated {
                text.to_owned()
            } else {
                String::new()
            }
        };
        json.str("id", if evaluated { "0" } else { "" });
        json.bool("deny", false);
        json.maps(
            "details",
            [(); 1].iter().take(usize::from(detailed)),
            |json, ()| {
                json.str("policySetId", "naming_rules");
                json.bool("deny", false);
                json.str("policySetName", "Naming \"rules\"");
                json.str("status", "pass");
                json.str("created", &stamp);
            },
        );
        json.str("message", "");
        json.str("timestamp", &stamp);
        json.str("status", if evaluated { "pass" } else { "" });
        json.str("accountId", &if_evaluated(self.account.id()));
        json.str("orgId", &if_evaluated(&scope.org));
        json.str("projectId", &if_evaluated(&scope.project));
        json.str("entity", "");
        json.str("type", if evaluated { "pipeline" } else { "" });
        json.str("action", if evaluated { "onrun" } else { "" });
        json.str("created", &stamp);
    }

    fn outcome(&self, json: &mut Json) {
        let execution = self.execution;
        if let Some(failure) = Account::failure(execution, &self.detail, self.at) {
            json.map("executionErrorInfo", |json| match self.facts.error_info {
                ErrorInfo::Message => json.str("message", failure.message),
                ErrorInfo::Empty => json.str("message", ""),
                ErrorInfo::Nothing => {}
            });
            if self.vintage == Vintage::Saas {
                json.map("failureInfo", |json| {
                    render_stages::failure(json, Some(failure));
                });
            }
        }
        if execution.outcome == Status::Aborted && execution.end <= self.at {
            let (name, email) = self.facts.aborted_by;
            json.map("abortedBy", |json| {
                json.str("email", email);
                json.str("userName", name);
                json.int("createdAt", execution.end - 40);
            });
        }
        let mut names = match self.account.pipeline(execution).shape {
            Shape::Ci => vec!["ci"],
            Shape::Cd => vec!["cd"],
            Shape::Mixed => vec!["ci", "cd", "pms", "cd"],
            Shape::Custom | Shape::Chain => vec!["pms"],
        };
        if self.at < execution.run {
            names.clear();
        }
        json.strings("modules", names.into_iter().map(Some));
    }

    fn times(&self, json: &mut Json) {
        let execution = self.execution;
        let end = self.detail.end_at(self.at);
        json.int("startTs", execution.start);
        json.int_if("endTs", end);
        json.int("createdAt", execution.created_ms());
        let recent = self.at < end.unwrap_or(self.at) + MONTH_MS;
        match self.vintage {
            Vintage::Saas => {
                json.int("pipelineTimeoutTs", execution.start + 37 * 24 * 3_600_000);
                json.bool("canReExecute", end.is_some() && recent);
                json.bool("showRetryHistory", false);
            }
            Vintage::Older => {
                let failed = self.detail.status_at(self.at).category() == "failure";
                json.bool("canRetry", failed && recent);
                json.bool("showRetryHistory", self.is_retry());
            }
        }
        json.int("runSequence", i64::from(execution.run_sequence));
        let counts = render_stages::counts(self);
        json.int("successfulStagesCount", counts[0]);
        json.int("failedStagesCount", counts[1]);
        json.int("runningStagesCount", counts[2]);
        json.int("totalStagesCount", counts[3]);
    }

    fn is_retry(&self) -> bool {
        matches!(self.execution.origin, Origin::Retry { .. })
    }

    fn origin(&self, json: &mut Json) {
        let execution = self.execution;
        match execution.origin {
            Origin::PostRollback { .. } => json.str("executionMode", "POST_EXECUTION_ROLLBACK"),
            Origin::PipelineRollback { .. } => json.str("executionMode", "PIPELINE_ROLLBACK"),
            _ if execution.legacy => {}
            _ => json.str("executionMode", "NORMAL"),
        }
        json.map("parentStageInfo", |json| self.parent(json));
        if self.vintage == Vintage::Older {
            return;
        }
        json.bool("isRetriedExecution", self.is_retry());
        if let Origin::Retry { of, root } = execution.origin {
            let parent = self.account.by_index(of);
            json.map("retryExecutionMetadata", |json| {
                json.str("rootExecutionId", &self.account.by_index(root).id());
                json.str("parentExecutionId", &parent.id());
                json.int("startTs", parent.start);
                json.int_if("endTs", self.account.detail(parent).end_at(self.at));
                json.int("runSequence", i64::from(parent.run_sequence));
                if let Some(by) = self.account.facts(parent).trigger {
                    json.map("executedBy", |json| triggered_by(json, &by));
                }
            });
        }
        let notes = self.facts.notes.filter(|(from, _)| *from <= self.at);
        json.bool("notesExistForPlanExecutionId", notes.is_some());
        if let Some((_, notes)) = notes {
            json.str("notes", notes);
        }
    }

    /// Writes the parent stage. Today's server sends keys in lower case; legacy rows have camel
    /// case.
    fn parent(&self, json: &mut Json) {
        let old = self.execution.legacy;
        let key = |lower: &'static str, camel: &'static str| if old { camel } else { lower };
        let parent = self.account.parent_of(self.execution);
        let of = parent.as_ref().map(|(parent, _)| *parent);
        let pipeline = of.map(|of| self.account.pipeline(of));
        let scope = of.map(|of| self.account.scope_of(of, self.moment()));
        let stage = parent.as_ref().map(|(_, stage)| stage.to_string());
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        json.bool(key("hasparentpipeline", "hasParentPipeline"), of.is_some());
        json.str(key("stagenodeid", "stageNodeId"), &text(stage.as_deref()));
        let id = of.map(Execution::id);
        json.str(key("executionid", "executionId"), &text(id.as_deref()));
        json.str("identifier", pipeline.map_or("", |pipeline| &pipeline.id));
        let project = scope.as_ref().map(|scope| scope.project.as_str());
        json.str(key("projectid", "projectId"), &text(project));
        let org = scope.as_ref().map(|scope| scope.org.as_str());
        json.str(key("orgid", "orgId"), &text(org));
        let run = of.map_or(0, |of| i64::from(of.run_sequence));
        json.int(key("runsequence", "runSequence"), run);
    }

    fn pipeline(&self, json: &mut Json) {
        let pipeline = self.account.pipeline(self.execution);
        if !self.execution.legacy {
            json.str(
                "storeType",
                if pipeline.remote { "REMOTE" } else { "INLINE" },
            );
            if pipeline.remote {
                json.map("gitDetails", |json| self.git_details(json));
                json.str("connectorRef", "account.github");
            }
        }
        json.bool("executionInputConfigured", false);
        json.bool("allowStageExecutions", pipeline.remote);
        json.bool("stagesExecution", false);
        json.bool("shouldUseSimplifiedKey", false);
    }

    fn git_details(&self, json: &mut Json) {
        let pipeline = self.account.pipeline(self.execution);
        let mut rng = self.rng();
        let file = format!(".harness/{}.yaml", pipeline.id);
        for absent in ["objectId", "rootFolder", "repoUrl", "isHarnessCodeRepo"] {
            json.null(absent);
        }
        json.str("branch", "main");
        json.str("repoIdentifier", pipeline.repo);
        json.str("filePath", &file);
        json.str("repoName", pipeline.repo);
        json.str("commitId", &rng.sha());
        let url = format!("https://git.example.com/{}/blob/main/{file}", pipeline.repo);
        json.str("fileUrl", &url);
    }

    /// Returns whether the plan exists. It is created shortly after the row.
    pub(super) fn planned(&self) -> bool {
        self.at >= self.execution.created_ms() + 300
    }

    fn moment(&self) -> Timestamp {
        crate::clock::from_ms(self.at)
    }

    /// Returns the random numbers for cosmetic fields, always the same for one execution.
    pub(super) fn rng(&self) -> Rng {
        self.account.rng(Stream::Finish, self.execution.id)
    }
}

fn triggered_by(json: &mut Json, trigger: &Trigger) {
    let by_hand = trigger.email.is_some();
    json.str("uuid", if by_hand { trigger.name } else { "systemUser" });
    json.str("identifier", trigger.name);
    json.map("extraInfo", |json| {
        if let Some(email) = trigger.email {
            json.str("email", email);
        } else {
            json.str("triggerRef", trigger.id);
            json.str("eventCorrelationId", "evt-1");
            json.str("gitUser", "octo-cat");
        }
    });
    json.str("triggerIdentifier", trigger.id);
}

impl Account {
    /// Returns the execution that started this one, and the key of the stage.
    pub(super) fn parent_of(&self, execution: &Execution) -> Option<(&Execution, Id)> {
        let (Origin::Child { of } | Origin::PipelineRollback { of }) = execution.origin else {
            return None;
        };
        let parent = self.by_index(of);
        let detail = self.detail(parent);
        let stage = detail
            .nodes
            .iter()
            .find(|node| node.child == execution.id)?;
        Some((parent, stage.key))
    }
}
