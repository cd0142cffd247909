"""Derives `executions` and `stages` with Polars from newline-delimited JSON or raw Parquet.

    polars_replay.py FORM SOURCE OUT

json-streaming       lazy, both tables at once, by the streaming engine
json-once            the JSON is read into a frame, from which both tables are written
parquet-streaming    the raw Parquet, its text decoded, by the streaming engine
parquet-once         the same into a frame

`module_info` is excluded: Polars rewrites nested JSON as text, and not always as valid JSON. Its fields
are read as a structure instead.
"""

import sys
from pathlib import Path

import polars as pl
from shape import (
    CATEGORIES,
    EXECUTIONS,
    FLAG,
    JSON,
    LINE,
    MODULE_INFO,
    NODE,
    ROW_GROUP_ROWS,
    STAGES,
    SUMMARY,
    TERMINAL,
    TEXT,
    INTEGER,
    ZSTD_LEVEL,
    ListOf,
    MapOf,
)


def type_of(shape) -> pl.DataType:
    """Returns the Polars type."""
    match shape:
        case ListOf():
            return pl.List(type_of(shape.item))
        case MapOf():
            return pl.Map(pl.String(), type_of(shape.value))
        case dict():
            return pl.Struct({name: type_of(of) for name, of in shape.items()})
        case _:
            return {TEXT: pl.String(), INTEGER: pl.Int64(), FLAG: pl.Boolean()}[shape]


def at(path: str) -> pl.Expr:
    """Returns a nested value by its dotted path."""
    head, *names = path.split(".")
    value = pl.col(head)
    for name in names:
        value = value.struct.field(name)
    return value


def text(path: str) -> pl.Expr:
    value = at(path)
    return pl.when(value != "").then(value)


def time(path: str) -> pl.Expr:
    return at(path).cast(pl.Datetime("ms", "UTC")).cast(pl.Datetime("us", "UTC"))


def distinct(value: pl.Expr) -> pl.Expr:
    kept = value.list.eval(pl.element().filter(pl.element() != "").unique(maintain_order=True))
    return kept.fill_null([])


def texts(*paths: str) -> pl.Expr:
    return distinct(pl.coalesce([at(path) for path in paths]))


def failure_types(info: str) -> pl.Expr:
    nothing = pl.lit([], dtype=pl.List(pl.String))
    responses = at(f"{info}.responseMessages").list.eval(pl.element().struct.field("failureTypes").explode())
    listed = at(f"{info}.failureTypeList")
    return distinct(pl.concat_list(listed.fill_null(nothing), responses.fill_null(nothing)))


def word(path: str) -> pl.Expr:
    return at(path).str.replace_all("_", "", literal=True).str.to_lowercase()


def category(path: str) -> pl.Expr:
    by_word = {word: name for name, words in CATEGORIES.items() for word in words}
    return word(path).replace_strict(by_word, default="unknown").fill_null("unknown")


def duration(start: str, end: str) -> pl.Expr:
    is_over = pl.col("status_category").is_in(TERMINAL) & (at(end) >= at(start))
    return pl.when(is_over).then(at(end) - at(start))


def another(path: str) -> pl.Expr:
    value = text(path)
    return pl.when(value != at("summary.planExecutionId")).then(value)


def parent(lower: str, camel: str) -> pl.Expr:
    has = pl.coalesce(
        at("summary.parentStageInfo.hasparentpipeline"), at("summary.parentStageInfo.hasParentPipeline")
    )
    either = pl.coalesce(text(f"summary.parentStageInfo.{lower}"), text(f"summary.parentStageInfo.{camel}"))
    return pl.when(has).then(either)


def tags() -> pl.Expr:
    """Returns a list of entries with the last entry of each key."""
    last = pl.element().struct.field("key").is_last_distinct()
    return at("summary.tags").list.eval(pl.element().filter(last)).fill_null([])


# Both spellings occur.
MODULES = MODULE_INFO | {"CD": MODULE_INFO["cd"]}
STAGE = {name: of for name, of in NODE.items() if of != JSON}
SHAPE = SUMMARY | {"moduleInfo": MODULES, "layoutNodeMap": MapOf(STAGE)}


def cd(name: str) -> pl.Expr:
    return texts(f"summary.moduleInfo.cd.{name}", f"summary.moduleInfo.CD.{name}")


def written(columns: list[str]) -> list[str]:
    return [name for name in columns if name != "module_info"]


def executions(rows: pl.LazyFrame) -> pl.LazyFrame:
    by = "summary.executionTriggerInfo.triggeredBy"
    retry = "summary.retryExecutionMetadata"
    ci = "summary.moduleInfo.ci"
    root, previous = another(f"{retry}.rootExecutionId"), another(f"{retry}.parentExecutionId")
    return (
        rows.with_columns(
            status_category=category("summary.status"),
        )
        .with_columns(
            pipeline_id=text("summary.pipelineIdentifier"),
            pipeline_name=text("summary.name"),
            plan_execution_id=at("summary.planExecutionId"),
            run_sequence=at("summary.runSequence"),
            status=text("summary.status"),
            is_terminal=pl.col("status_category").is_in(TERMINAL),
            is_failure_ignored=(word("summary.status") == "ignorefailed").fill_null(False),
            created_ts=time("summary.createdAt"),
            start_ts=time("summary.startTs"),
            end_ts=time("summary.endTs"),
            duration_ms=duration("summary.startTs", "summary.endTs"),
            timeout_ts=time("summary.pipelineTimeoutTs"),
            trigger_type=text("summary.executionTriggerInfo.triggerType"),
            trigger_id=text(f"{by}.triggerIdentifier"),
            triggered_by_id=text(f"{by}.uuid"),
            triggered_by_name=text(f"{by}.identifier"),
            triggered_by_email=text(f"{by}.extraInfo.email"),
            execution_mode=text("summary.executionMode"),
            is_retry=at("summary.isRetriedExecution").fill_null(False)
            | root.is_not_null()
            | previous.is_not_null(),
            retry_root_execution_id=root,
            retry_parent_execution_id=previous,
            is_rerun=at("summary.executionTriggerInfo.isRerun").fill_null(False),
            rerun_of_execution_id=text("summary.executionTriggerInfo.rerunInfo.prevExecutionId"),
            parent_pipeline_execution_id=parent("executionid", "executionId"),
            parent_stage_node_id=parent("stagenodeid", "stageNodeId"),
            modules=texts("summary.modules"),
            tags=tags(),
            store_type=text("summary.storeType"),
            yaml_repo_name=text("summary.gitDetails.repoName"),
            yaml_branch=text("summary.gitDetails.branch"),
            yaml_file_path=text("summary.gitDetails.filePath"),
            yaml_commit_sha=text("summary.gitDetails.commitId"),
            repo_name=text(f"{ci}.repoName"),
            branch=pl.coalesce(
                text(f"{ci}.branch"), text(f"{ci}.ciExecutionInfoDTO.pullRequest.sourceBranch")
            ),
            pr_number=pl.coalesce(at(f"{ci}.prNumber"), at(f"{ci}.ciExecutionInfoDTO.pullRequest.id")).cast(
                pl.Int64
            ),
            ci_event=text(f"{ci}.ciExecutionInfoDTO.event"),
            services=cd("serviceIdentifiers"),
            environments=cd("envIdentifiers"),
            environment_types=cd("environmentTypes"),
            infrastructures=cd("infrastructureIdentifiers"),
            error_message=pl.coalesce(
                text("summary.failureInfo.message"), text("summary.executionErrorInfo.message")
            ),
            failure_types=failure_types("summary.failureInfo"),
            aborted_by_name=text("summary.abortedBy.userName"),
            aborted_by_email=text("summary.abortedBy.email"),
            aborted_ts=time("summary.abortedBy.createdAt"),
        )
        .select(written(EXECUTIONS))
    )


def stages(rows: pl.LazyFrame) -> pl.LazyFrame:
    kind = at("node.nodeType").str.to_lowercase().fill_null("")
    start = at("node.startTs")
    is_strategy = at("node.nodeGroup").str.to_uppercase().fill_null("") == "STRATEGY"
    return (
        rows.select(
            "org_id",
            "project_id",
            "observed_ts",
            pipeline_id=text("summary.pipelineIdentifier"),
            plan_execution_id=at("summary.planExecutionId"),
            started=at("summary.startTs"),
            entry=at("summary.layoutNodeMap").map.entries(),
        )
        .explode("entry", empty_as_null=False, keep_nulls=False)
        .with_columns(stage_node_id=at("entry.key"), node=at("entry.value"))
        .with_columns(status_category=category("node.status"))
        .filter(
            ~at("node.hidden").fill_null(False)
            & ~kind.is_in(["parallel", "matrix", "loop", "parallelism"])
            & ~is_strategy
            & ~((kind == "pipelinerollback") & (pl.col("status_category") == "queued"))
        )
        .with_columns(
            execution_start_ts=time("started"),
            stage_id=text("node.nodeIdentifier"),
            stage_name=text("node.name"),
            stage_type=text("node.nodeType"),
            module=text("node.module"),
            status=text("node.status"),
            start_ts=time("node.startTs"),
            end_ts=time("node.endTs"),
            duration_ms=duration("node.startTs", "node.endTs"),
            error_message=pl.coalesce(text("node.failureInfoDTO.message"), text("node.failureInfo.message")),
            failure_types=failure_types("node.failureInfoDTO"),
            iteration=at("node.strategyMetadata.currentiteration"),
            iteration_count=at("node.strategyMetadata.totaliterations"),
            is_rollback=at("node.isRollbackStageNode").fill_null(False) | (kind == "pipelinerollback"),
            ran_in_this_execution=start.is_null() | (pl.col("started") <= start),
        )
        .select(written(STAGES))
    )


def lines(source: Path) -> pl.LazyFrame:
    schema = {name: type_of(of) for name, of in (LINE | {"summary": SHAPE}).items()}
    return pl.scan_ndjson(sorted(source.glob("*.ndjson")), schema=schema).with_columns(
        first_observed_ts=pl.col("first_observed_us").cast(pl.Datetime("us", "UTC")),
        observed_ts=pl.col("observed_us").cast(pl.Datetime("us", "UTC")),
    )


def raw(source: Path) -> pl.LazyFrame:
    columns = ["org_id", "project_id", "first_observed_ts", "observed_ts", "summary"]
    return (
        pl.scan_parquet(sorted(source.glob("*/*.parquet")), hive_partitioning=False)
        .select(columns)
        .with_columns(pl.col("summary").str.json_decode(type_of(SHAPE)))
    )


def main(form: str, source: Path, out: Path) -> None:
    kind, passes = form.split("-", 1)
    rows = {"json": lines, "parquet": raw}[kind](source)
    if passes == "once":
        rows = rows.collect().lazy()
    sinks = []
    for name, table in (("executions", executions), ("stages", stages)):
        (out / name).mkdir(parents=True, exist_ok=True)
        sinks.append(
            table(rows).sink_parquet(
                out / name / "all.parquet",
                compression="zstd",
                compression_level=ZSTD_LEVEL,
                row_group_size=ROW_GROUP_ROWS,
                maintain_order=False,
                lazy=True,
            )
        )
    pl.collect_all(sinks, engine="streaming")


main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
