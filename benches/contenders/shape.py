"""The schema of a summary for all contenders, limited to what their columns need.

Contenders are fastest if they know the schema in advance and infer nothing.
"""

TEXT, INTEGER, FLAG, JSON = "text", "integer", "flag", "json"


class ListOf:
    """A list."""

    def __init__(self, item):
        self.item = item


class MapOf:
    """An object whose keys are data."""

    def __init__(self, value):
        self.value = value


FAILURE = {
    "message": TEXT,
    "failureTypeList": ListOf(TEXT),
    "responseMessages": ListOf({"failureTypes": ListOf(TEXT)}),
}

NODE = {
    "nodeType": TEXT,
    "nodeGroup": TEXT,
    "nodeIdentifier": TEXT,
    "name": TEXT,
    "status": TEXT,
    "module": TEXT,
    "moduleInfo": JSON,
    "startTs": INTEGER,
    "endTs": INTEGER,
    "failureInfo": FAILURE,
    "failureInfoDTO": FAILURE,
    "strategyMetadata": {"currentiteration": INTEGER, "totaliterations": INTEGER},
    "hidden": FLAG,
    "isRollbackStageNode": FLAG,
}

SUMMARY = {
    "pipelineIdentifier": TEXT,
    "planExecutionId": TEXT,
    "name": TEXT,
    "runSequence": INTEGER,
    "status": TEXT,
    "tags": ListOf({"key": TEXT, "value": TEXT}),
    "executionTriggerInfo": {
        "triggerType": TEXT,
        "triggeredBy": {
            "uuid": TEXT,
            "identifier": TEXT,
            "extraInfo": {"email": TEXT},
            "triggerIdentifier": TEXT,
        },
        "isRerun": FLAG,
        "rerunInfo": {"prevExecutionId": TEXT},
    },
    "executionErrorInfo": {"message": TEXT},
    "failureInfo": FAILURE,
    "moduleInfo": JSON,
    "layoutNodeMap": MapOf(NODE),
    "modules": ListOf(TEXT),
    "startTs": INTEGER,
    "endTs": INTEGER,
    "createdAt": INTEGER,
    "pipelineTimeoutTs": INTEGER,
    "gitDetails": {"repoName": TEXT, "branch": TEXT, "filePath": TEXT, "commitId": TEXT},
    "storeType": TEXT,
    # Both spellings occur.
    "parentStageInfo": {
        "hasparentpipeline": FLAG,
        "executionid": TEXT,
        "stagenodeid": TEXT,
        "hasParentPipeline": FLAG,
        "executionId": TEXT,
        "stageNodeId": TEXT,
    },
    "abortedBy": {"email": TEXT, "userName": TEXT, "createdAt": INTEGER},
    "executionMode": TEXT,
    "isRetriedExecution": FLAG,
    "retryExecutionMetadata": {"rootExecutionId": TEXT, "parentExecutionId": TEXT},
}

# `moduleInfo` is kept as text, so columns from it parse that text a second time.
MODULE_INFO = {
    "ci": {
        "branch": TEXT,
        "repoName": TEXT,
        # Numbers, sometimes sent as text.
        "prNumber": TEXT,
        "ciExecutionInfoDTO": {
            "event": TEXT,
            "pullRequest": {"id": TEXT, "sourceBranch": TEXT},
        },
    },
    "cd": {
        "serviceIdentifiers": ListOf(TEXT),
        "envIdentifiers": ListOf(TEXT),
        "environmentTypes": ListOf(TEXT),
        "infrastructureIdentifiers": ListOf(TEXT),
    },
}

# Additional fields for every column that SQL can express.
ALL_NODE = NODE | {
    "edgeLayoutList": {"currentNodeChildren": ListOf(TEXT)},
    "strategyMetadata": {
        "currentiteration": INTEGER,
        "totaliterations": INTEGER,
        "matrixmetadata": {"matrixvalues": MapOf(TEXT)},
    },
}

ALL_SUMMARY = SUMMARY | {"layoutNodeMap": MapOf(ALL_NODE)}

COMMIT = {
    "id": TEXT,
    "link": TEXT,
    "message": TEXT,
    "ownerName": TEXT,
    "ownerEmail": TEXT,
    "timeStamp": INTEGER,
}

HOOK = {
    "id": TEXT,
    "sourceBranch": TEXT,
    "commits": ListOf(COMMIT),
    "triggerCommits": ListOf(COMMIT),
}

ALL_MODULE_INFO = {
    "ci": MODULE_INFO["ci"] | {"ciExecutionInfoDTO": {"event": TEXT, "branch": HOOK, "pullRequest": HOOK}},
    "cd": MODULE_INFO["cd"],
}

ENVIRONMENT = {"identifier": TEXT, "name": TEXT, "type": TEXT, "infrastructureIdentifier": TEXT}

STAGE_CD = {
    "serviceInfo": {
        "identifier": TEXT,
        "displayName": TEXT,
        "deploymentType": TEXT,
        "artifacts": {"primary": JSON, "artifactDisplayName": TEXT},
    },
    "infraExecutionSummary": ENVIRONMENT,
    "gitopsExecutionSummary": {"environments": ListOf(ENVIRONMENT)},
}

ARTIFACT = {"displayName": TEXT, "imagePath": TEXT, "tag": TEXT}

# One line of the newline-delimited JSON: the columns of a raw partition that tables need.
LINE = {
    "org_id": TEXT,
    "project_id": TEXT,
    "first_observed_us": INTEGER,
    "observed_us": INTEGER,
    "summary": SUMMARY,
}

# Harness statuses in lower case without underscores, by category.
CATEGORIES = {
    "success": ["success", "ignorefailed"],
    "failure": ["failed", "errored"],
    "expired": ["expired"],
    "aborted": ["aborted", "abortedbyfreeze"],
    "rejected": ["approvalrejected"],
    "skipped": ["skipped", "suspended"],
    "running": [
        "running",
        "asyncwaiting",
        "taskwaiting",
        "timedwaiting",
        "waitsteprunning",
        "uploadwaiting",
        "pausing",
        "discontinuing",
    ],
    "waiting": [
        "approvalwaiting",
        "interventionwaiting",
        "inputwaiting",
        "resourcewaiting",
        "waiting",
        "paused",
    ],
    "queued": [
        "notstarted",
        "queued",
        "queuedlicenselimitreached",
        "queuedexecutionconcurrencyreached",
        "queuedglobalinfracapacityreached",
        "queuedplancreation",
    ],
}

TERMINAL = ["success", "failure", "expired", "aborted", "rejected", "skipped"]

# Compression level and rows per row group of harness-lake's files.
ZSTD_LEVEL = 1
ROW_GROUP_ROWS = 122_880

# Compared as sets: harness-lake keeps the received order.
SETS = {"modules", "services", "environments", "environment_types", "infrastructures", "failure_types"}

EXECUTIONS = [
    "org_id", "project_id", "pipeline_id", "pipeline_name", "plan_execution_id", "run_sequence",
    "status", "status_category", "is_terminal", "is_failure_ignored",
    "created_ts", "start_ts", "end_ts", "duration_ms", "timeout_ts",
    "trigger_type", "trigger_id", "triggered_by_id", "triggered_by_name", "triggered_by_email",
    "execution_mode", "is_retry", "retry_root_execution_id", "retry_parent_execution_id",
    "is_rerun", "rerun_of_execution_id", "parent_pipeline_execution_id", "parent_stage_node_id",
    "modules", "tags", "store_type", "yaml_repo_name", "yaml_branch", "yaml_file_path",
    "yaml_commit_sha", "repo_name", "branch", "pr_number", "ci_event",
    "services", "environments", "environment_types", "infrastructures",
    "error_message", "failure_types", "aborted_by_name", "aborted_by_email", "aborted_ts",
    "module_info", "first_observed_ts", "observed_ts",
]  # fmt: skip

STAGES = [
    "org_id", "project_id", "pipeline_id", "plan_execution_id", "execution_start_ts",
    "stage_node_id", "stage_id", "stage_name", "stage_type", "module",
    "status", "status_category", "start_ts", "end_ts", "duration_ms",
    "error_message", "failure_types", "iteration", "iteration_count",
    "is_rollback", "ran_in_this_execution", "module_info", "observed_ts",
]  # fmt: skip

# Columns of the forms `all`: every column that SQL can express.
ALL_COLUMNS = {
    "executions": [
        *EXECUTIONS, "queued_ms", "parent_pipeline_id", "parent_org_id", "parent_project_id",
        "was_rolled_back", "commit_sha",
        "stage_count", "succeeded_stage_count", "failed_stage_count", "running_stage_count",
    ],
    "stages": [*STAGES, "parent_stage_node_id", "strategy_type", "matrix"],
    "deployments": [
        "org_id", "project_id", "pipeline_id", "plan_execution_id", "execution_start_ts",
        "stage_node_id", "stage_id", "service_id", "service_name",
        "environment_id", "environment_name", "environment_type", "infrastructure_id",
        "artifact", "deployment_type", "status", "status_category", "is_rollback",
        "ran_in_this_execution", "start_ts", "end_ts", "duration_ms", "observed_ts",
    ],
    "commits": [
        "org_id", "project_id", "pipeline_id", "plan_execution_id", "execution_start_ts",
        "commit_index", "commit_sha", "author_name", "author_email", "message", "committed_ts", "link",
        "repo_name", "branch", "pr_number", "observed_ts",
    ],
}  # fmt: skip

# Columns of a raw row, without the content hash.
RAW = [
    "plan_execution_id", "org_id", "project_id", "start_ts", "first_observed_ts", "observed_ts",
    "is_terminal", "summary",
]  # fmt: skip
