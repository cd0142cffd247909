"""Converts a page of summaries to rows of all four tables, with the columns of `duckdb_all.py`, and raw rows.

Times are milliseconds since the epoch. What tables share is read once for all of them.
"""

from collections.abc import Iterable
from functools import cache
from time import time

from orjson import dumps, loads
from shape import ALL_COLUMNS, CATEGORIES, RAW, SETS, TERMINAL

COLUMNS = ALL_COLUMNS | {"_raw": RAW}

BY_WORD = {word: name for name, words in CATEGORIES.items() for word in words}
OVER = frozenset(TERMINAL)
GROUPS = frozenset(["parallel", "matrix", "loop", "parallelism"])

# Keys of a parent execution, in both spellings.
PARENT = {
    "parent_pipeline_execution_id": ("executionid", "executionId"),
    "parent_stage_node_id": ("stagenodeid", "stageNodeId"),
    "parent_pipeline_id": ("identifier", "identifier"),
    "parent_org_id": ("orgid", "orgId"),
    "parent_project_id": ("projectid", "projectId"),
}
NO_PARENT = dict.fromkeys(PARENT)

# Columns that a deployment copies from its stage.
REPEATED = (
    "stage_node_id",
    "stage_id",
    "status",
    "status_category",
    "is_rollback",
    "ran_in_this_execution",
    "start_ts",
    "end_ts",
    "duration_ms",
)

ENVIRONMENT = ("identifier", "name", "type", "infrastructureIdentifier")


def kind_of(column: str) -> str:
    """Returns the type of a column."""
    if column in SETS:
        return "list"
    if column in ("tags", "matrix"):
        return "map"
    if column.endswith("_ts"):
        return "time"
    if column.startswith(("is_", "was_", "ran_")):
        return "flag"
    if column.endswith(("_ms", "_count", "_index", "_number", "_sequence")) or column == "iteration":
        return "integer"
    return "text"


@cache
def category(status: str | None) -> str:
    return BY_WORD.get((status or "").replace("_", "").lower(), "unknown")


def duration(of: str, start: int | None, end: int | None) -> int | None:
    is_known = of in OVER and start is not None and end is not None
    return end - start if is_known and start <= end else None


def json(value: dict | None) -> str | None:
    return None if value is None else dumps(value).decode()


def integer(value: int | str | None) -> int | None:
    return None if value is None else int(value)


def texts(values: Iterable[str | None] | None) -> list[str]:
    """Returns the distinct values without empty ones."""
    return list(dict.fromkeys(filter(None, values))) if values else []


def failure_types(info: dict) -> list[str]:
    kinds = info.get("failureTypeList")
    if responses := info.get("responseMessages"):
        more = (kind for response in responses for kind in response.get("failureTypes") or ())
        return texts([*(kinds or ()), *more])
    return texts(kinds)


def plain(value: object) -> str | None:
    """Returns the value of an axis: text, or JSON within text."""
    if not isinstance(value, str):
        return json(value)
    if value.startswith('"'):
        return loads(value)
    return None if value == "null" else value


def first_of_each(items: Iterable[dict], key: str) -> list[dict]:
    """Returns the first item of each key."""
    found: dict = {}
    for item in items:
        found.setdefault(item.get(key) or "", item)
    return list(found.values())


def stages_of(head: dict, started: int, nodes: dict) -> tuple[list[dict], list[dict]]:
    """Returns stages and their deployments."""
    parents: dict[str, str] = {}
    for key, node in nodes.items():
        if edges := node.get("edgeLayoutList"):
            for child in edges.get("currentNodeChildren") or ():
                if child != key:
                    parents.setdefault(child, key)
    stages, deployments = [], []
    for key, node in nodes.items():
        kind = node.get("nodeType") or ""
        word = kind.lower()
        status = node.get("status") or None
        of = category(status)
        is_group = word in GROUPS or (node.get("nodeGroup") or "").upper() == "STRATEGY"
        is_rollback = word == "pipelinerollback"
        if is_group or node.get("hidden") or (is_rollback and of == "queued"):
            continue
        start, end = node.get("startTs"), node.get("endTs")
        failure = node.get("failureInfoDTO") or {}
        strategy = node.get("strategyMetadata") or {}
        axes = (strategy.get("matrixmetadata") or {}).get("matrixvalues") or {}
        modules = node.get("moduleInfo")
        parent = parents.get(key)
        stage = {
            **head,
            "stage_node_id": key,
            "stage_id": node.get("nodeIdentifier") or None,
            "stage_name": node.get("name") or None,
            "stage_type": kind or None,
            "module": node.get("module") or None,
            "status": status,
            "status_category": of,
            "start_ts": start,
            "end_ts": end,
            "duration_ms": duration(of, start, end),
            "error_message": failure.get("message") or (node.get("failureInfo") or {}).get("message") or None,
            "failure_types": failure_types(failure),
            "parent_stage_node_id": parent,
            "strategy_type": strategy_of(nodes[parent]) if parent else None,
            "matrix": {name: plain(value) for name, value in axes.items()},
            "iteration": strategy.get("currentiteration"),
            "iteration_count": strategy.get("totaliterations"),
            "is_rollback": is_rollback or bool(node.get("isRollbackStageNode")),
            "ran_in_this_execution": start is None or started <= start,
            "module_info": json(modules),
        }
        stages.append(stage)
        if word == "deployment" and start is not None:
            modules = modules or {}
            deployments += deployments_of(head, stage, modules.get("cd") or modules.get("CD") or {})
    return stages, deployments


def strategy_of(parent: dict) -> str | None:
    """Returns the strategy type of a node."""
    kind = parent.get("nodeType")
    word = (kind or "").lower()
    is_strategy = word != "parallel" and (
        word in GROUPS or (parent.get("nodeGroup") or "").upper() == "STRATEGY"
    )
    return kind if is_strategy else None


def deployments_of(head: dict, stage: dict, cd: dict) -> list[dict]:
    service = cd.get("serviceInfo") or {}
    environments = (cd.get("gitopsExecutionSummary") or {}).get("environments") or ()
    given = [
        environment
        for environment in (cd.get("infraExecutionSummary"), *environments)
        if environment and any(environment.get(name) is not None for name in ENVIRONMENT)
    ]
    deployment = {
        **head,
        **{name: stage[name] for name in REPEATED},
        "service_id": service.get("identifier") or None,
        "service_name": service.get("displayName") or None,
        "artifact": artifact(service.get("artifacts") or {}),
        "deployment_type": service.get("deploymentType") or None,
    }
    return [
        {
            **deployment,
            "environment_id": environment.get("identifier") or None,
            "environment_name": environment.get("name") or None,
            "environment_type": environment.get("type") or None,
            "infrastructure_id": environment.get("infrastructureIdentifier") or None,
        }
        for environment in first_of_each(given, "identifier") or [{}]
    ]


def artifact(artifacts: dict) -> str | None:
    """Returns the name of the artifact, or the image name."""
    if name := artifacts.get("artifactDisplayName"):
        return name
    primary = artifacts.get("primary")
    if not isinstance(primary, dict):
        return primary or None
    image = ":".join(filter(None, (primary.get("imagePath"), primary.get("tag"))))
    return primary.get("displayName") or image or None


def commits_of(head: dict, build: dict, hooks: list[dict]) -> list[dict]:
    named = (
        commit
        for name in ("commits", "triggerCommits")
        for hook in hooks
        for commit in hook.get(name) or ()
        if commit.get("id")
    )
    return [
        {
            **head,
            **build,
            "commit_index": index,
            "commit_sha": commit["id"],
            "author_name": commit.get("ownerName") or None,
            "author_email": commit.get("ownerEmail") or None,
            "message": commit.get("message") or None,
            "committed_ts": committed(commit.get("timeStamp")),
            "link": commit.get("link") or None,
        }
        for index, commit in enumerate(first_of_each(named, "id"))
    ]


def committed(stamp: int | None) -> int | None:
    """Returns the time of a commit, given in seconds or milliseconds, if it is between 2000 and 2100."""
    if stamp is None:
        return None
    ms = stamp * 1000 if 0 <= stamp < 100_000_000_000 else stamp
    return ms if 946_684_800_000 <= ms < 4_133_980_800_000 else None


def ended(summary: dict) -> dict:
    """Returns status columns of an execution."""
    status = summary.get("status") or None
    of = category(status)
    start, end = summary["startTs"], summary.get("endTs")
    failure = summary.get("failureInfo") or {}
    error = failure.get("message") or (summary.get("executionErrorInfo") or {}).get("message")
    aborted = summary.get("abortedBy") or {}
    return {
        "status": status,
        "status_category": of,
        "is_terminal": of in OVER,
        "is_failure_ignored": (status or "").replace("_", "").lower() == "ignorefailed",
        "start_ts": start,
        "end_ts": end,
        "duration_ms": duration(of, start, end),
        "error_message": error or None,
        "failure_types": failure_types(failure),
        "aborted_by_name": aborted.get("userName") or None,
        "aborted_by_email": aborted.get("email") or None,
        "aborted_ts": aborted.get("createdAt"),
    }


def begun(summary: dict) -> dict:
    """Returns trigger and parent columns of an execution."""
    trigger = summary.get("executionTriggerInfo") or {}
    by = trigger.get("triggeredBy") or {}
    retry = summary.get("retryExecutionMetadata") or {}
    own = summary["planExecutionId"]
    root, previous = (
        None if other == own else other or None
        for other in (retry.get("rootExecutionId"), retry.get("parentExecutionId"))
    )
    parent = summary.get("parentStageInfo") or {}
    parents = NO_PARENT
    if parent.get("hasparentpipeline") or parent.get("hasParentPipeline"):
        parents = {
            column: parent.get(lower) or parent.get(camel) or None
            for column, (lower, camel) in PARENT.items()
        }
    return {
        "trigger_type": trigger.get("triggerType") or None,
        "trigger_id": by.get("triggerIdentifier") or None,
        "triggered_by_id": by.get("uuid") or None,
        "triggered_by_name": by.get("identifier") or None,
        "triggered_by_email": (by.get("extraInfo") or {}).get("email") or None,
        "is_retry": bool(summary.get("isRetriedExecution") or root or previous),
        "retry_root_execution_id": root,
        "retry_parent_execution_id": previous,
        "is_rerun": bool(trigger.get("isRerun")),
        "rerun_of_execution_id": (trigger.get("rerunInfo") or {}).get("prevExecutionId") or None,
        **parents,
    }


def totals(started: int, stages: list[dict]) -> dict:
    """Returns the columns of an execution about its stages."""
    ran = [stage for stage in stages if stage["start_ts"] is not None]
    first = min((stage["start_ts"] for stage in ran if stage["ran_in_this_execution"]), default=None)
    outcomes = [stage["status_category"] for stage in stages]
    return {
        "queued_ms": None if first is None else first - started,
        "was_rolled_back": any(stage["is_rollback"] for stage in ran),
        "stage_count": len(stages),
        "succeeded_stage_count": outcomes.count("success"),
        "failed_stage_count": outcomes.count("failure"),
        "running_stage_count": outcomes.count("running"),
    }


def rows_of(org: str, project: str, page: list[dict]) -> dict[str, list[dict]]:
    """Returns the rows of each table."""
    observed = int(time() * 1000)
    found = {name: [] for name in COLUMNS}
    for summary in page:
        started = summary["startTs"]
        scope = {
            "org_id": org,
            "project_id": project,
            "plan_execution_id": summary["planExecutionId"],
            "observed_ts": observed,
        }
        pipeline = summary.get("pipelineIdentifier") or None
        head = {**scope, "pipeline_id": pipeline, "execution_start_ts": started}
        stages, deployments = stages_of(head, started, summary.get("layoutNodeMap") or {})

        modules = summary.get("moduleInfo") or {}
        cd = modules.get("cd") or modules.get("CD") or {}
        ci = modules.get("ci") or {}
        info = ci.get("ciExecutionInfoDTO") or {}
        pull_request = info.get("pullRequest") or {}
        number = ci.get("prNumber")
        build = {
            "repo_name": ci.get("repoName") or None,
            "branch": ci.get("branch") or pull_request.get("sourceBranch") or None,
            "pr_number": integer(pull_request.get("id") if number is None else number),
        }
        commits = commits_of(head, build, [info.get("branch") or {}, pull_request])

        end = ended(summary)
        git = summary.get("gitDetails") or {}
        execution = {
            **scope,
            **build,
            **end,
            **begun(summary),
            **totals(started, stages),
            "pipeline_id": pipeline,
            "pipeline_name": summary.get("name") or None,
            "run_sequence": summary.get("runSequence"),
            "created_ts": summary.get("createdAt"),
            "timeout_ts": summary.get("pipelineTimeoutTs"),
            "execution_mode": summary.get("executionMode") or None,
            "modules": texts(summary.get("modules")),
            "tags": {tag["key"]: tag.get("value") for tag in summary.get("tags") or ()},
            "store_type": summary.get("storeType") or None,
            "yaml_repo_name": git.get("repoName") or None,
            "yaml_branch": git.get("branch") or None,
            "yaml_file_path": git.get("filePath") or None,
            "yaml_commit_sha": git.get("commitId") or None,
            "commit_sha": commits[0]["commit_sha"] if commits else None,
            "ci_event": info.get("event") or None,
            "services": texts(cd.get("serviceIdentifiers")),
            "environments": texts(cd.get("envIdentifiers")),
            "environment_types": texts(cd.get("environmentTypes")),
            "infrastructures": texts(cd.get("infrastructureIdentifiers")),
            "module_info": json(summary.get("moduleInfo")),
            "first_observed_ts": observed,
        }
        raw = {
            **scope,
            "start_ts": started,
            "is_terminal": end["is_terminal"],
            "first_observed_ts": observed,
            "summary": json(summary),
        }
        found["executions"].append(execution)
        found["stages"] += stages
        found["deployments"] += deployments
        found["commits"] += commits
        found["_raw"].append(raw)
    return found
