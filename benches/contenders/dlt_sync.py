"""dlt reads every execution of an account into Parquet in a folder.

    dlt_sync.py FROM_MS TO_MS TABLES COLLECTOR FOLDER

TABLES: `one`, where what is nested stays JSON text, which is the least work that there is; or
`stages`, executions in columns and a table of stages, as people ask of them: objects in columns,
lists in tables of their own, `moduleInfo` as JSON text.

COLLECTOR: `gc`, or `no-gc`: Python's collector of cycles walks through all these rows again and
again, and there is nothing to collect.

Set for speed and memory: projects in parallel, small pages and buffers, no compression between
steps, nothing sent home. A second process to normalize cost more than it brought.
"""

import gc
import os
import sys
from pathlib import Path

FROM_MS, TO_MS, TABLES, COLLECTOR = sys.argv[1:5]
FOLDER = Path(sys.argv[5]).resolve()

if COLLECTOR == "no-gc":
    gc.disable()

os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "250",
    "EXTRACT__WORKERS": "4",
    # Without a level here the writer takes zstd's least.
    "NORMALIZE__DATA_WRITER__COMPRESSION": "zstd",
    "DESTINATION__FILESYSTEM__BUCKET_URL": (FOLDER / "lake").as_uri(),
}

import dlt  # noqa: E402
from dlt.sources.helpers.rest_client import RESTClient  # noqa: E402
from dlt.sources.helpers.rest_client.auth import APIKeyAuth  # noqa: E402
from dlt.sources.helpers.rest_client.paginators import PageNumberPaginator  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402

BASE = os.environ["HARNESS_BASE_URL"]
KEY = os.environ["HARNESS_API_KEY"]
ACCOUNT = KEY.split(".")[1]
PAGE = 100

# A page of a listing, at most.
ALL = 1000


def listed(path: str, name: str) -> list[str]:
    """The identifiers of a list that fits one page."""
    client = RESTClient(BASE, headers={"Harness-Account": ACCOUNT}, auth=APIKeyAuth("x-api-key", KEY))
    rows = client.get(path, params={"page": 0, "limit": ALL}).json()
    return [row[name]["identifier"] for row in rows]


def with_stages(row: dict) -> dict:
    """The nodes as a list: as an object each id would become a column."""
    nodes = row.get("layoutNodeMap") or {}
    row["layoutNodeMap"] = [{"stageNodeId": key, **node} for key, node in nodes.items()]
    return row


MODULE_INFO = {"moduleInfo": {"name": "moduleInfo", "data_type": "json"}}

# How rows become tables.
FORM = {
    "one": {"max_table_nesting": 0},
    "stages": {
        "max_table_nesting": 1,
        "processing_steps": [{"map": with_stages}],
        "columns": MODULE_INFO,
        "nested_hints": {"layoutNodeMap": {"columns": MODULE_INFO}},
    },
}[TABLES]


def executions(org: str, project: str) -> dict:
    return FORM | {
        "name": f"executions of {org}/{project}",
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
        },
    }


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
    pipeline = dlt.pipeline(
        "executions", destination="filesystem", dataset_name="harness", pipelines_dir=str(FOLDER / "state")
    )
    pipeline.run(source, loader_file_format="parquet")


if __name__ == "__main__":
    main()
