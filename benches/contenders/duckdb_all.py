"""Derives all four tables with DuckDB, with every column that SQL can express.

Stages and `moduleInfo` are read once, into temporary tables that feed two tables each. Excluded: columns that need a
walk of the stage graph (`stage_index`, `deployment_index`), `extra`, and `account_id`.
"""

from pathlib import Path

import duckdb
from duckdb_replay import (
    copy,
    executions,
    parent,
    read_json,
    read_parquet,
    stages,
    text,
    time,
    transform,
)
from shape import ALL_MODULE_INFO, ALL_SUMMARY, ARTIFACT, STAGE_CD, TEXT, MapOf

SHAPE = ALL_SUMMARY | {"parentStageInfo": MapOf(TEXT)}

# Valid commit times: the years 2000 to 2100.
SOUND = "BETWEEN 946684800000 AND 4133980799999"


def pick(*names: str) -> dict:
    return {name: SHAPE[name] for name in names}


# Parts of a summary that stages and executions need.
OF_STAGES = pick("pipelineIdentifier", "planExecutionId", "startTs", "layoutNodeMap")
OF_EXECUTIONS = {name: of for name, of in SHAPE.items() if name != "layoutNodeMap"}


def first_of_each(items: str, key: str) -> str:
    """Returns SQL for the first item of each key; `x` is the item in the key expression."""
    keys = f"list_transform({items}, lambda x: {key})"
    return f"list_filter({items}, lambda x, place: list_position({keys}, {key}) = place)"


def commits_of(info: str) -> str:
    hooks = f"{info}.ci.ciExecutionInfoDTO"
    lists = ", ".join(
        f"coalesce({hooks}.{hook}.{name}, [])"
        for name in ("commits", "triggerCommits")
        for hook in ("branch", "pullRequest")
    )
    return f"list_filter(flatten([{lists}]), lambda x: coalesce(x.id, '') <> '')"


def described(rows: str) -> str:
    """Returns SQL for executions with their commits, without the columns about stages."""
    rows = f"""SELECT *,
  {parent("identifier", "identifier")} AS parent_pipeline_id,
  {parent("orgid", "orgId")} AS parent_org_id,
  {parent("projectid", "projectId")} AS parent_project_id
FROM ({rows})"""
    return f"""SELECT * EXCLUDE info, {commits_of("info")} AS commits
FROM ({executions(rows, ALL_MODULE_INFO, "s, cd, c")})"""


def staged(rows: str) -> str:
    """Returns SQL for stages."""
    edges = (
        "flatten(list_transform(map_entries(s.layoutNodeMap), lambda e: list_transform("
        "e.value.edgeLayoutList.currentNodeChildren, lambda child: {'child': child, 'id': e.key,"
        " 'kind': e.value.nodeType, 'node_group': e.value.nodeGroup})))"
    )
    more = ", n.strategyMetadata.matrixmetadata.matrixvalues AS axes, edges"
    kind = "lower(coalesce(parent.kind, ''))"
    is_strategy = (
        f"({kind} IN ('matrix', 'loop', 'parallelism')"
        f" OR (upper(coalesce(parent.node_group, '')) = 'STRATEGY' AND {kind} <> 'parallel'))"
    )
    value = "CASE WHEN json_valid(e.value) THEN e.value::JSON->>'$' ELSE e.value END"
    plain = f"list_transform(map_entries(axes), lambda e: {{'key': e.key, 'value': {value}}})"
    return f"""SELECT * EXCLUDE (axes, edges, parent),
  parent.id AS parent_stage_node_id,
  CASE WHEN {is_strategy} THEN parent.kind END AS strategy_type,
  coalesce(map_from_entries({plain}), MAP {{}}) AS matrix
FROM (SELECT *, list_filter(edges, lambda e: e.child = stage_node_id AND e.id <> stage_node_id)[1] AS parent
  FROM ({stages(rows, more, f"{edges} AS edges, ")}))"""


ALL_EXECUTIONS = """
SELECT described.* EXCLUDE commits,
  commits[1].id AS commit_sha,
  epoch_ms(first_start_ts) - epoch_ms(start_ts) AS queued_ms,
  coalesce(was_rolled_back, false) AS was_rolled_back,
  coalesce(stage_count, 0) AS stage_count,
  coalesce(succeeded_stage_count, 0) AS succeeded_stage_count,
  coalesce(failed_stage_count, 0) AS failed_stage_count,
  coalesce(running_stage_count, 0) AS running_stage_count
FROM described LEFT JOIN (SELECT plan_execution_id,
    min(start_ts) FILTER (ran_in_this_execution) AS first_start_ts,
    bool_or(is_rollback AND start_ts IS NOT NULL) AS was_rolled_back,
    count(*) AS stage_count,
    count(*) FILTER (status_category = 'success') AS succeeded_stage_count,
    count(*) FILTER (status_category = 'failure') AS failed_stage_count,
    count(*) FILTER (status_category = 'running') AS running_stage_count
  FROM staged GROUP BY plan_execution_id) USING (plan_execution_id)"""


def deployments() -> str:
    service, artifacts = "cd.serviceInfo", "cd.serviceInfo.artifacts"
    primary = f"{artifacts}.primary"
    spelled = f"({primary}->>'$')"
    tagged = f"concat_ws(':', {text('image.imagePath')}, {text('image.tag')})"
    artifact = (
        f"coalesce({text(f'{artifacts}.artifactDisplayName')}, CASE json_type({primary})"
        f" WHEN 'OBJECT' THEN coalesce({text('image.displayName')}, {text(tagged)})"
        f" ELSE {text(spelled)} END)"
    )
    fields = ("identifier", "name", "type", "infrastructureIdentifier")
    is_given = " OR ".join(f"x.{name} IS NOT NULL" for name in fields)
    every = "list_concat([cd.infraExecutionSummary], coalesce(cd.gitopsExecutionSummary.environments, []))"
    distinct = first_of_each("given", "coalesce(x.identifier, '')")
    lower, upper = (transform(f"module_info::JSON->'{name}'", STAGE_CD) for name in ("cd", "CD"))
    return f"""
SELECT org_id, project_id, pipeline_id, plan_execution_id, execution_start_ts, stage_node_id, stage_id,
  {text(f"{service}.identifier")} AS service_id,
  {text(f"{service}.displayName")} AS service_name,
  {text("environment.identifier")} AS environment_id,
  {text("environment.name")} AS environment_name,
  {text("environment.type")} AS environment_type,
  {text("environment.infrastructureIdentifier")} AS infrastructure_id,
  {artifact} AS artifact,
  {text(f"{service}.deploymentType")} AS deployment_type,
  status, status_category, is_rollback, ran_in_this_execution, start_ts, end_ts, duration_ms, observed_ts
FROM (SELECT *, {transform(primary, ARTIFACT)} AS image,
    unnest(CASE WHEN len(given) = 0 THEN [NULL] ELSE {distinct} END) AS environment
  FROM (SELECT *, list_filter({every}, lambda x: {is_given}) AS given
    FROM (SELECT *, coalesce({lower}, {upper}) AS cd
      FROM staged WHERE lower(stage_type) = 'deployment' AND start_ts IS NOT NULL)))"""


def commits() -> str:
    stamp = "commit.timeStamp"
    ms = f"CASE WHEN {stamp} BETWEEN 0 AND 99999999999 THEN {stamp} * 1000 ELSE {stamp} END"
    return f"""
SELECT org_id, project_id, pipeline_id, plan_execution_id, start_ts AS execution_start_ts,
  place - 1 AS commit_index,
  commit.id AS commit_sha,
  {text("commit.ownerName")} AS author_name,
  {text("commit.ownerEmail")} AS author_email,
  {text("commit.message")} AS message,
  CASE WHEN {ms} {SOUND} THEN {time(f"({ms})")} END AS committed_ts,
  {text("commit.link")} AS link,
  repo_name, branch, pr_number, observed_ts
FROM (SELECT *, unnest(distinct_ones) AS commit, generate_subscripts(distinct_ones, 1) AS place
  FROM (SELECT *, {first_of_each("commits", "x.id")} AS distinct_ones FROM described))"""


def write_all(connection: duckdb.DuckDBPyConnection, kind: str, source: Path, out: Path) -> None:
    read, pattern = {"json": (read_json, "*.ndjson"), "parquet": (read_parquet, "*/*.parquet")}[kind]

    def rows(of: dict) -> str:
        return read(str(source / pattern), of)

    connection.execute(f"CREATE TEMP TABLE staged AS {staged(rows(OF_STAGES))}")
    connection.execute(f"CREATE TEMP TABLE described AS {described(rows(OF_EXECUTIONS))}")
    for table, query in (
        ("executions", ALL_EXECUTIONS),
        ("stages", "FROM staged"),
        ("deployments", deployments()),
        ("commits", commits()),
    ):
        (out / table).mkdir(parents=True, exist_ok=True)
        connection.execute(copy(query, out / table / "all.parquet"))
