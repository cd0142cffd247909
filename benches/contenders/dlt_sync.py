"""Reads every execution of an account with dlt into Parquet in a folder.

    dlt_sync.py FROM_MS TO_MS TABLES TUNING FOLDER

TABLES:

one        nested values stay JSON text: the least work possible
stages     executions in columns and a table of stages, a typical setup: objects in columns,
           lists in tables of their own, `moduleInfo` as JSON text
all        all four tables and the raw rows (`dlt_tables.py`); a transformer yields rows with
           type hints
all-arrow  the same rows as Arrow tables, which dlt writes without normalizing

TUNING:

plain      dlt's defaults, except: projects in parallel, small pages and buffers, no compression between
           steps, no telemetry. A second normalizing process costs more than it saves
tuned      also: each page processed completely before the next, responses parsed once, and no cyclic
           garbage collector, which scans these rows repeatedly and frees nothing
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

FROM_MS, TO_MS, TABLES, TUNING = sys.argv[1:5]
FOLDER = Path(sys.argv[5]).resolve()

# Rows per page and buffer. Larger values save nothing for rows and an eighth of the time for Arrow.
PAGE, BUFFER = (200, 2000) if TABLES == "all-arrow" else (100, 250)

if TUNING == "tuned":
    gc.disable()
    os.environ["EXTRACT__NEXT_ITEM_MODE"] = "fifo"

os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "DATA_WRITER__BUFFER_MAX_ITEMS": str(BUFFER),
    "EXTRACT__WORKERS": "4",
    # Without a level the writer uses zstd's lowest.
    "DATA_WRITER__COMPRESSION": "zstd",
    "DESTINATION__FILESYSTEM__BUCKET_URL": (FOLDER / "lake").as_uri(),
}

import dlt  # noqa: E402
import orjson  # noqa: E402
import pyarrow as pa  # noqa: E402
from dlt.sources.helpers.requests import Response  # noqa: E402
from dlt.sources.helpers.rest_client import RESTClient  # noqa: E402
from dlt.sources.helpers.rest_client.auth import APIKeyAuth  # noqa: E402
from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402
from dlt_tables import COLUMNS, kind_of, rows_of  # noqa: E402

BASE = os.environ["HARNESS_BASE_URL"]
KEY = os.environ["HARNESS_API_KEY"]
ACCOUNT = KEY.split(".")[1]

# Maximum page size of a listing.
ALL = 1000


def listed(path: str, name: str) -> list[str]:
    """Returns the identifiers of a list that fits on one page."""
    client = RESTClient(BASE, headers={"Harness-Account": ACCOUNT}, auth=APIKeyAuth("x-api-key", KEY))
    rows = client.get(path, params={"page": 0, "limit": ALL}).json()
    return [row[name]["identifier"] for row in rows]


def parse_once(response: Response) -> None:
    """Parses a response once; dlt parses it twice with simplejson, for the rows and the page count."""
    document = orjson.loads(response.content)
    response.json = lambda: document


def with_stages(row: dict) -> dict:
    """Converts the nodes to a list; in an object, each ID would become a column."""
    nodes = row.get("layoutNodeMap") or {}
    row["layoutNodeMap"] = [{"stageNodeId": key, **node} for key, node in nodes.items()]
    return row


MODULE_INFO = {"moduleInfo": {"name": "moduleInfo", "data_type": "json"}}

# Hints for the tables that dlt creates from rows.
FORM = {
    "one": {"max_table_nesting": 0},
    "stages": {
        "max_table_nesting": 1,
        "processing_steps": [{"map": with_stages}],
        "columns": MODULE_INFO,
        "nested_hints": {"layoutNodeMap": {"columns": MODULE_INFO}},
    },
}


def name_of(org: str, project: str) -> str:
    return f"executions of {org}/{project}"


def executions(org: str, project: str) -> dict:
    return FORM.get(TABLES, {}) | {
        "name": name_of(org, project),
        "table_name": "executions",
        "write_disposition": "append",
        "parallelized": True,
        "endpoint": {
            "path": "pipeline/api/pipelines/execution/summary",
            "method": "POST",
            "params": {
                "accountIdentifier": ACCOUNT,
                "orgIdentifier": org,
                "projectIdentifier": project,
                "size": PAGE,
                "sort": "startTs,ASC",
                "showAllExecutions": "true",
            },
            "json": {
                "filterType": "PipelineExecution",
                "timeRange": {"startTime": int(FROM_MS), "endTime": int(TO_MS) - 1},
                "executionModeFilter": "ALL",
            },
            "data_selector": "data.content",
            "paginator": PageNumberPaginator(base_page=0, total_path="data.totalPages"),
            "response_actions": [parse_once] if TUNING == "tuned" else [],
        },
    }


# Column types of dlt and Arrow.
HINTS = {
    "text": "text",
    "integer": "bigint",
    "flag": "bool",
    "time": "timestamp",
    "list": "json",
    "map": "json",
}
TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("ms", "UTC"),
    "list": pa.list_(pa.string()),
    "map": pa.map_(pa.string(), pa.string()),
}

TIMES = {
    table: [column for column in columns if kind_of(column) == "time"] for table, columns in COLUMNS.items()
}
SCHEMAS = {
    table: pa.schema([(column, TYPES[kind_of(column)]) for column in columns])
    for table, columns in COLUMNS.items()
}


def in_seconds(table: str, rows: list[dict]) -> list[dict]:
    """Converts rows for dlt, which expects seconds for the hint `timestamp`."""
    for column in TIMES[table]:
        for row in rows:
            if (ms := row[column]) is not None:
                row[column] = ms / 1000
    return rows


def in_arrow(table: str, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMAS[table])


def tables(pages: dlt.sources.DltResource, org: str, project: str) -> dlt.sources.DltResource:
    """Yields all tables of a project."""
    form = {"all": in_seconds, "all-arrow": in_arrow}[TABLES]

    def each(page: list[dict]) -> Iterator:
        for table, rows in rows_of(org, project, page).items():
            if rows:
                yield dlt.mark.with_table_name(form(table, rows), table)

    resource = dlt.transformer(each, data_from=pages, name=f"tables of {org}/{project}")
    if TABLES == "all":
        for table, columns in COLUMNS.items():
            hints = [{"name": column, "data_type": HINTS[kind_of(column)]} for column in columns]
            resource.apply_hints(
                table_name=table, columns=hints, file_format="parquet", create_table_variant=True
            )
    return resource


def main() -> None:
    scopes = [
        (org, project)
        for org in listed("/v1/orgs", "org")
        for project in listed(f"/v1/orgs/{org}/projects", "project")
    ]
    source = rest_api_source(
        {
            "client": {
                "base_url": BASE,
                "auth": {"type": "api_key", "name": "x-api-key", "api_key": KEY, "location": "header"},
            },
            "resources": [executions(*scope) for scope in scopes],
        }
    )
    if TABLES not in FORM:
        source = [tables(source.resources[name_of(*scope)], *scope) for scope in scopes]
    pipeline = dlt.pipeline(
        "executions", destination="filesystem", dataset_name="harness", pipelines_dir=str(FOLDER / "state")
    )
    pipeline.run(source, loader_file_format="parquet")


if __name__ == "__main__":
    main()
