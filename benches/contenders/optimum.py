"""Writes each table of a lake as one Parquet object, in an order of its own.

optimum.py LAKE FOLDER COLUMN

A table without COLUMN is written by `start_ts`, one without that in any order.
"""

import sys
from pathlib import Path

import duckdb

lake, folder, column = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for table in ("executions", "stages", "deployments", "commits", "scopes", "projects", "orgs"):
    rows = f"read_parquet('{lake}/{table}/v1/**/*.parquet', hive_partitioning = true)"
    columns = [row[0] for row in duckdb.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()]
    order = next((name for name in (column, "start_ts") if name in columns), None)
    out = folder / table / "v1" / "all.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    duckdb.execute(
        f"COPY (SELECT * FROM {rows} {f'ORDER BY {order}' if order else ''}) "
        f"TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    )
