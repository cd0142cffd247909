"""What a summary looks like, told once for every contender: only what their columns need.

A contender that knows the shape in advance is at its fastest: nothing is inferred.
"""

TEXT, WHOLE, FLAG, JSON = "text", "whole", "flag", "json"


class ListOf:
    """A list."""

    def __init__(self, item):
        self.item = item


class MapOf:
    """An object whose names are data."""

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
    "startTs": WHOLE,
    "endTs": WHOLE,
    "failureInfo": FAILURE,
    "failureInfoDTO": FAILURE,
    "strategyMetadata": {"currentiteration": WHOLE, "totaliterations": WHOLE},
    "hidden": FLAG,
    "isRollbackStageNode": FLAG,
}

SUMMARY = {
    "pipelineIdentifier": TEXT,
    "planExecutionId": TEXT,
    "name": TEXT,
    "runSequence": WHOLE,
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
    "startTs": WHOLE,
    "endTs": WHOLE,
    "createdAt": WHOLE,
    "pipelineTimeoutTs": WHOLE,
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
    "abortedBy": {"email": TEXT, "userName": TEXT, "createdAt": WHOLE},
    "executionMode": TEXT,
    "isRetriedExecution": FLAG,
    "retryExecutionMetadata": {"rootExecutionId": TEXT, "parentExecutionId": TEXT},
}

# `moduleInfo` is kept as text, so what columns tell of it takes a second look into that text.
MODULE_INFO = {
    "ci": {
        "branch": TEXT,
        "repoName": TEXT,
        # Numbers, which come as text too.
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

# What more there is to know for every column that SQL can tell.
ALL_NODE = NODE | {
    "edgeLayoutList": {"currentNodeChildren": ListOf(TEXT)},
    "strategyMetadata": {
        "currentiteration": WHOLE,
        "totaliterations": WHOLE,
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
    "timeStamp": WHOLE,
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
    "first_observed_us": WHOLE,
    "observed_us": WHOLE,
    "summary": SUMMARY,
}

# Words of Harness, in lower case without underscores, by category.
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

# The level of harness-lake's own files, and their rows of a row group.
ZSTD_LEVEL = 1
ROW_GROUP_ROWS = 122_880

# Compared as sets: harness-lake keeps the order in which they came.
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

# What is written where all tables are: every column that SQL can tell.
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

# What a raw row is, but for the hash of its content.
RAW = [
    "plan_execution_id", "org_id", "project_id", "start_ts", "first_observed_ts", "observed_ts",
    "is_terminal", "summary",
]  # fmt: skip
