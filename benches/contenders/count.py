"""Compares the IDs of the executions that dlt and harness-lake read.

count.py LAKE DLT_FOLDER
"""

import json
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq


def main(lake: Path, out: Path) -> None:
    connection = duckdb.connect()
    ours = f"SELECT plan_execution_id AS id FROM read_parquet('{lake}/executions/v1/**/*.parquet')"
    files = sorted((out / "lake/harness/executions").glob("*.parquet"))
    listed = ", ".join(f"'{path}'" for path in files)
    theirs = f"SELECT plan_execution_id AS id FROM read_parquet([{listed}])"

    def count(query: str) -> int:
        return connection.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]

    compression = {pq.ParquetFile(path).metadata.row_group(0).column(0).compression for path in files}
    found = {
        "ours": count(ours),
        "theirs": count(theirs),
        "only_ours": count(f"{ours} EXCEPT ALL {theirs}"),
        "only_theirs": count(f"{theirs} EXCEPT ALL {ours}"),
        "compression": sorted(compression),
    }
    json.dump(found, sys.stdout)


main(Path(sys.argv[1]), Path(sys.argv[2]))
