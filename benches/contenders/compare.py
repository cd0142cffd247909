"""Compares the rows of a contender and harness-lake with `EXCEPT ALL` in both directions.

compare.py LAKE OUT [COLUMN ...]    columns that the contender cannot write

Compares all four tables if they exist, otherwise `executions` and `stages`; raw rows if they exist.
"""

import json
import sys
from pathlib import Path

import duckdb
from shape import ALL_COLUMNS, EXECUTIONS, RAW, SETS, STAGES

# Columns that identify a row within an execution.
KEYS = {
    "executions": [],
    "stages": ["stage_node_id"],
    "deployments": ["stage_node_id", "service_id", "environment_id"],
    "commits": ["commit_sha"],
    "_raw": [],
}


def plain(column: str, kind: str) -> str:
    """Returns the SQL of a column in the form that is compared."""
    if column in SETS:
        # Contenders without lists in Parquet write JSON.
        items = column if kind.endswith("[]") else f"json_transform({column}, '[\"VARCHAR\"]')"
        return f"list_sort({items})"
    if column in ("tags", "matrix"):
        # Contenders without maps write a list of entries, or JSON.
        if kind == "VARCHAR":
            column = f"json_transform({column}, '\"MAP(VARCHAR, VARCHAR)\"')"
        entries = column if kind.endswith("[]") else f"map_entries({column})"
        return f"list_sort(list_transform({entries}, lambda e: {{'key': e.key, 'value': e.value}}))"
    if column.endswith("_ts"):
        # Microseconds since the epoch, regardless of time zones.
        return f"epoch_us({column})"
    return column


def main(lake: Path, out: Path, but: list[str]) -> None:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    found = {}
    tables = ALL_COLUMNS if (out / "commits").exists() else {"executions": EXECUTIONS, "stages": STAGES}
    if (out / "_raw").exists():
        tables = tables | {"_raw": RAW}
    for table, columns in tables.items():
        columns = [name for name in columns if name not in but]
        sides = {}
        for side, files in (("ours", lake / table / "v1"), ("theirs", out / table)):
            read = f"read_parquet('{files}/**/*.parquet', hive_partitioning = false)"
            kinds = {row[0]: row[1] for row in connection.execute(f"DESCRIBE FROM {read}").fetchall()}
            selected = ", ".join(f"{plain(name, kinds[name])} AS {name}" for name in columns)
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {side} AS SELECT {selected} FROM {read}")
            sides[side] = connection.execute(f"SELECT count(*) FROM {side}").fetchone()[0]
        key = ", ".join(["plan_execution_id", *KEYS[table]])
        lost = "SELECT count(*) FROM (FROM {} EXCEPT ALL FROM {})"
        differing = {}
        counts = [
            connection.execute(lost.format(*pair)).fetchone()[0]
            for pair in (("ours", "theirs"), ("theirs", "ours"))
        ]
        if any(counts):
            for name in columns:
                query = (
                    f"SELECT o.{name}, t.{name} FROM ours o JOIN theirs t USING ({key})"
                    f" WHERE o.{name} IS DISTINCT FROM t.{name}"
                )
                rows = connection.execute(query).fetchall()
                if rows:
                    differing[name] = [len(rows), *map(str, rows[0])]
        found[table] = {
            "rows": sides["ours"],
            "columns": len(columns),
            "rows_theirs": sides["theirs"],
            "only_ours": counts[0],
            "only_theirs": counts[1],
            "differing": differing,
        }
    json.dump(found, sys.stdout)


main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
