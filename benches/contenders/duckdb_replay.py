"""Derives `executions` and `stages` with DuckDB from newline-delimited JSON or raw Parquet.

    duckdb_replay.py FORM SOURCE OUT

json-two-scans       each table reads the JSON again, with the columns that it needs
json-once            the JSON is read into a temporary table, from which both tables are written
json-once-by-date    the same, date by date: one file per table and date, like harness-lake
parquet-two-scans    each table decodes the columns that it needs from the raw Parquet
parquet-once         the raw Parquet is decoded into a temporary table
parquet-once-by-date the same, date by date
json-all             all four tables (`duckdb_all.py`), from the JSON read twice
parquet-all          all four tables, from the raw Parquet read twice
"""

import json
import sys
from pathlib import Path

import duckdb
from shape import (
    CATEGORIES,
    FLAG,
    JSON,
    LINE,
    MODULE_INFO,
    ROW_GROUP_ROWS,
    SUMMARY,
    TERMINAL,
    TEXT,
    INTEGER,
    ZSTD_LEVEL,
    ListOf,
    MapOf,
)

# DuckDB's field names are case-insensitive, so a key with two spellings needs a map.
SHAPE = SUMMARY | {"parentStageInfo": MapOf(TEXT)}


def type_of(shape) -> str:
    """Returns the SQL type."""
    match shape:
        case ListOf():
            return f"{type_of(shape.item)}[]"
        case MapOf():
            return f"MAP(VARCHAR, {type_of(shape.value)})"
        case dict():
            fields = ", ".join(f'"{name}" {type_of(of)}' for name, of in shape.items())
            return f"STRUCT({fields})"
        case _:
            return {TEXT: "VARCHAR", INTEGER: "BIGINT", FLAG: "BOOLEAN", JSON: "JSON"}[shape]


def structure_of(shape):
    """Returns the structure for `json_transform`, which takes SQL types within a map."""
    match shape:
        case ListOf():
            return [structure_of(shape.item)]
        case dict():
            return {name: structure_of(of) for name, of in shape.items()}
        case _:
            return type_of(shape)


def transform(value: str, shape: dict) -> str:
    return f"json_transform({value}, '{json.dumps(structure_of(shape))}')"


def read_json(source: str, summary: dict) -> str:
    columns = {name: type_of(of) for name, of in (LINE | {"summary": summary}).items()}
    listed = ", ".join(f"{name}: '{of}'" for name, of in columns.items())
    return (
        "SELECT org_id, project_id, make_timestamptz(first_observed_us) AS first_observed_ts,"
        " make_timestamptz(observed_us) AS observed_ts, summary AS s"
        f" FROM read_json('{source}', format = 'newline_delimited', columns = {{{listed}}})"
    )


def read_parquet(source: str, summary: dict) -> str:
    return (
        "SELECT org_id, project_id, first_observed_ts, observed_ts,"
        f" {transform('summary', summary)} AS s FROM read_parquet('{source}')"
    )


def text(value: str) -> str:
    return f"nullif({value}, '')"


def time(value: str) -> str:
    return f"make_timestamptz({value} * 1000)"


def texts(value: str) -> str:
    return f"coalesce(list_filter(list_distinct({value}), lambda x: x <> ''), [])"


def failure_types(info: str) -> str:
    responses = f"flatten(list_transform({info}.responseMessages, lambda m: m.failureTypes))"
    return texts(f"list_concat({info}.failureTypeList, {responses})")


def last_of_each(tags: str) -> str:
    """Returns SQL for the last entry of each key, because a map rejects duplicates."""
    later = f"list_transform({tags}[place + 1:], lambda u: u.key)"
    return f"list_filter({tags}, lambda t, place: NOT list_contains({later}, t.key))"


def word(status: str) -> str:
    return f"lower(replace({status}, '_', ''))"


def category(status: str) -> str:
    cases = " ".join(
        f"WHEN w IN ({', '.join(map(repr, words))}) THEN '{name}'" for name, words in CATEGORIES.items()
    ).replace("w IN", f"{word(status)} IN")
    return f"CASE {cases} ELSE 'unknown' END"


def duration(category: str, start: str, end: str) -> str:
    terminal = f"{category} IN ({', '.join(map(repr, TERMINAL))})"
    return f"CASE WHEN {terminal} AND {end} >= {start} THEN {end} - {start} END"


def another(value: str) -> str:
    return f"nullif(nullif({value}, ''), s.planExecutionId)"


def parent(lower: str, camel: str) -> str:
    p = "s.parentStageInfo"
    has = f"coalesce({p}['hasparentpipeline'], {p}['hasParentPipeline']) = 'true'"
    return f"CASE WHEN {has} THEN {text(f'''coalesce({p}['{lower}'], {p}['{camel}'])''')} END"


def executions(rows: str, module_info: dict = MODULE_INFO, but: str = "s, info, cd, c") -> str:
    by = "s.executionTriggerInfo.triggeredBy"
    retry = "s.retryExecutionMetadata"
    git = "s.gitDetails"
    return f"""
SELECT * EXCLUDE ({but}),
  c IN ({", ".join(map(repr, TERMINAL))}) AS is_terminal,
  coalesce({word("s.status")} = 'ignorefailed', false) AS is_failure_ignored,
  c AS status_category,
  {text("s.pipelineIdentifier")} AS pipeline_id,
  {text("s.name")} AS pipeline_name,
  s.planExecutionId AS plan_execution_id,
  s.runSequence AS run_sequence,
  {text("s.status")} AS status,
  {time("s.createdAt")} AS created_ts,
  {time("s.startTs")} AS start_ts,
  {time("s.endTs")} AS end_ts,
  {duration("c", "s.startTs", "s.endTs")} AS duration_ms,
  {time("s.pipelineTimeoutTs")} AS timeout_ts,
  {text("s.executionTriggerInfo.triggerType")} AS trigger_type,
  {text(f"{by}.triggerIdentifier")} AS trigger_id,
  {text(f"{by}.uuid")} AS triggered_by_id,
  {text(f"{by}.identifier")} AS triggered_by_name,
  {text(f"{by}.extraInfo.email")} AS triggered_by_email,
  {text("s.executionMode")} AS execution_mode,
  coalesce(s.isRetriedExecution, false)
    OR {another(f"{retry}.rootExecutionId")} IS NOT NULL
    OR {another(f"{retry}.parentExecutionId")} IS NOT NULL AS is_retry,
  {another(f"{retry}.rootExecutionId")} AS retry_root_execution_id,
  {another(f"{retry}.parentExecutionId")} AS retry_parent_execution_id,
  coalesce(s.executionTriggerInfo.isRerun, false) AS is_rerun,
  {text("s.executionTriggerInfo.rerunInfo.prevExecutionId")} AS rerun_of_execution_id,
  {parent("executionid", "executionId")} AS parent_pipeline_execution_id,
  {parent("stagenodeid", "stageNodeId")} AS parent_stage_node_id,
  {texts("s.modules")} AS modules,
  coalesce(map_from_entries({last_of_each("s.tags")}), MAP {{}}) AS tags,
  {text("s.storeType")} AS store_type,
  {text(f"{git}.repoName")} AS yaml_repo_name,
  {text(f"{git}.branch")} AS yaml_branch,
  {text(f"{git}.filePath")} AS yaml_file_path,
  {text(f"{git}.commitId")} AS yaml_commit_sha,
  {text("info.ci.repoName")} AS repo_name,
  coalesce({text("info.ci.branch")},
           {text("info.ci.ciExecutionInfoDTO.pullRequest.sourceBranch")}) AS branch,
  coalesce(info.ci.prNumber, info.ci.ciExecutionInfoDTO.pullRequest.id)::BIGINT AS pr_number,
  {text("info.ci.ciExecutionInfoDTO.event")} AS ci_event,
  {texts("cd.serviceIdentifiers")} AS services,
  {texts("cd.envIdentifiers")} AS environments,
  {texts("cd.environmentTypes")} AS environment_types,
  {texts("cd.infrastructureIdentifiers")} AS infrastructures,
  coalesce({text("s.failureInfo.message")},
           {text("s.executionErrorInfo.message")}) AS error_message,
  {failure_types("s.failureInfo")} AS failure_types,
  {text("s.abortedBy.userName")} AS aborted_by_name,
  {text("s.abortedBy.email")} AS aborted_by_email,
  {time("s.abortedBy.createdAt")} AS aborted_ts,
  s.moduleInfo::VARCHAR AS module_info
FROM (SELECT *, coalesce(info.cd, {transform("s.moduleInfo->'CD'", MODULE_INFO["cd"])}) AS cd
  FROM (SELECT *, {category("s.status")} AS c, {transform("s.moduleInfo", module_info)} AS info
    FROM ({rows})))"""


def stages(rows: str, more: str = "", of_all: str = "") -> str:
    kind = "lower(coalesce(n.nodeType, ''))"
    return f"""
SELECT org_id, project_id, pipeline_id, plan_execution_id, {time("started")} AS execution_start_ts,
  id AS stage_node_id,
  {text("n.nodeIdentifier")} AS stage_id,
  {text("n.name")} AS stage_name,
  {text("n.nodeType")} AS stage_type,
  {text("n.module")} AS module,
  {text("n.status")} AS status,
  c AS status_category,
  {time("n.startTs")} AS start_ts,
  {time("n.endTs")} AS end_ts,
  {duration("c", "n.startTs", "n.endTs")} AS duration_ms,
  coalesce({text("n.failureInfoDTO.message")}, {text("n.failureInfo.message")}) AS error_message,
  {failure_types("n.failureInfoDTO")} AS failure_types,
  n.strategyMetadata.currentiteration AS iteration,
  n.strategyMetadata.totaliterations AS iteration_count,
  coalesce(n.isRollbackStageNode, false) OR {kind} = 'pipelinerollback' AS is_rollback,
  n.startTs IS NULL OR started <= n.startTs AS ran_in_this_execution,
  n.moduleInfo::VARCHAR AS module_info,
  observed_ts{more}
FROM (SELECT * EXCLUDE entry, entry.key AS id, entry.value AS n, {category("entry.value.status")} AS c
  FROM (SELECT org_id, project_id, observed_ts, {text("s.pipelineIdentifier")} AS pipeline_id,
      s.planExecutionId AS plan_execution_id, s.startTs AS started,
      {of_all}unnest(map_entries(s.layoutNodeMap)) AS entry FROM ({rows})))
WHERE NOT coalesce(n.hidden, false)
  AND {kind} NOT IN ('parallel', 'matrix', 'loop', 'parallelism')
  AND upper(coalesce(n.nodeGroup, '')) <> 'STRATEGY'
  AND NOT ({kind} = 'pipelinerollback' AND c = 'queued')"""


def copy(query: str, path: Path) -> str:
    return (
        f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd,"
        f" COMPRESSION_LEVEL {ZSTD_LEVEL}, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
    )


def pick(*names: str) -> dict:
    return {name: SHAPE[name] for name in names}


def main(form: str, source: Path, out: Path) -> None:
    for table in ("executions", "stages"):
        (out / table).mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect()
    connection.execute("SET preserve_insertion_order = false; SET TimeZone = 'UTC'")

    def write(name: str, e_rows: str, s_rows: str) -> None:
        connection.execute(copy(executions(e_rows), out / "executions" / f"{name}.parquet"))
        connection.execute(copy(stages(s_rows), out / "stages" / f"{name}.parquet"))

    kind, passes = form.split("-", 1)
    if passes == "all":
        # Imported here, because it uses the queries of this file.
        from duckdb_all import write_all

        write_all(connection, kind, source, out)
        return
    read, pattern = {
        "json": (read_json, "*.ndjson"),
        "parquet": (read_parquet, "*/*.parquet"),
    }[kind]
    if passes == "two-scans":
        every = str(source / pattern)
        of_stages = pick("pipelineIdentifier", "planExecutionId", "startTs", "layoutNodeMap")
        of_executions = {name: of for name, of in SHAPE.items() if name != "layoutNodeMap"}
        write("all", read(every, of_executions), read(every, of_stages))
        return
    parts = {"once": [source / pattern], "once-by-date": sorted(source.glob(pattern))}[passes]
    for number, part in enumerate(parts):
        rows = read(str(part), SHAPE)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE parsed AS {rows}")
        write(str(number), "FROM parsed", "FROM parsed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
