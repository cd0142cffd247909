"""Reads lakes back with DuckDB: `query` runs statements, `compare` compares with the truth.

Each line of standard input is a request, [task, argument]; each is answered by one line.
"""

import json
import sys
import traceback
from collections import Counter

import duckdb

KEYS = {
    "executions": ["plan_execution_id"],
    "stages": ["plan_execution_id", "stage_node_id"],
    "deployments": ["plan_execution_id", "stage_node_id", "service_id", "environment_id"],
    "commits": ["plan_execution_id", "commit_sha"],
}
SHOWN = 5


def connection():
    con = duckdb.connect(config={"threads": 1})
    con.execute("SET TimeZone = 'UTC'")
    return con


def query(statements):
    with connection() as con:
        return [[list(row) for row in con.execute(statement).fetchall()] for statement in statements]


def readable(column, kind):
    """What turns a column into the truth's form: micros, sorted lists, maps as JSON."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f'epoch_us("{column}")'
    if kind == "DATE":
        return f'CAST("{column}" AS VARCHAR)'
    if kind == "VARCHAR[]":
        return f'list_sort("{column}")'
    if kind.startswith("MAP"):
        return f'to_json("{column}")::VARCHAR'
    return f'"{column}"'


def lake_rows(con, table, glob, wanted):
    source = f"read_parquet('{glob}', hive_partitioning = true)"
    kinds = {row[0]: row[1] for row in con.execute(f"DESCRIBE FROM {source}").fetchall()}
    missing = [column for column in wanted if column not in kinds]
    if missing:
        return None, f"{table} lacks the columns {missing}"
    start = "start_ts" if table == "executions" else "execution_start_ts"
    astray = con.execute(
        f"SELECT count(*) FROM {source} WHERE start_date <> {start}::DATE"
    ).fetchone()[0]
    if astray:
        return None, f"{table}: {astray} rows stand under another date than that of {start}"
    columns = ", ".join(readable(column, kinds[column]) for column in wanted)
    rows = []
    for row in con.execute(f"SELECT {columns} FROM {source}").fetchall():
        row = dict(zip(wanted, row))
        for column in wanted:
            if kinds[column].startswith("MAP"):
                row[column] = json.loads(row[column])
        rows.append(row)
    return rows, None


def normal(value):
    return sorted(value) if isinstance(value, list) else value


def compare_table(con, table, lake, truth, but):
    with open(f"{truth}/{table}.ndjson", encoding="utf-8") as lines:
        expected = [json.loads(line) for line in lines]
    wanted = list(dict.fromkeys(column for row in expected for column in row))
    if not wanted:
        return f"the truth of {table} is empty"
    rows, problem = lake_rows(con, table, f"{lake}/{table}/v1/**/*.parquet", wanted)
    if problem:
        return problem
    key_of = lambda row: tuple(row[column] for column in KEYS[table])
    twice = [key for key, count in Counter(map(key_of, rows)).items() if count > 1]
    if twice:
        return f"{table}: {len(twice)} keys come twice, such as {twice[:SHOWN]}"
    found, wanted_rows = {key_of(row): row for row in rows}, {key_of(row): row for row in expected}
    keep = lambda rows: {key for key in rows if table == "executions" or key[0] not in but}
    lost, extra = sorted(keep(wanted_rows) - keep(found), key=str), sorted(keep(found) - keep(wanted_rows), key=str)
    if lost or extra:
        return (
            f"{table}: {len(found)} rows, {len(wanted_rows)} expected; {len(lost)} lost, such as "
            f"{lost[:SHOWN]}; {len(extra)} too many, such as {extra[:SHOWN]}"
        )
    differences = [
        f"{table}.{column} of {key}: {found[key][column]!r}, expected {row[column]!r}"
        for key, row in wanted_rows.items()
        if key[0] not in but
        for column in row
        if normal(found[key][column]) != normal(row[column])
    ]
    if differences:
        return "\n".join([f"{len(differences)} values differ", *differences[:SHOWN]])
    return None


def compare(task):
    but = set(task["but"])
    with connection() as con:
        problems = (compare_table(con, table, task["lake"], task["truth"], but) for table in KEYS)
        return next((problem for problem in problems if problem), None)


def answer(request):
    task, argument = request
    try:
        return {"answer": {"query": query, "compare": compare}[task](argument)}
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line)), default=str), flush=True)
