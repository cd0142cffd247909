"""Asks every view of a lake, in DuckDB and in Spark, and compares with what is expected.

Standard input holds a list of lakes: `name`, `duckdb` and `spark` (the statements that open the lake, or null), and `answers` by view.
"""

import json
import math
import sys
from datetime import date, datetime

from readers import duckdb_connection, spark_session

SHOWN = 3

# Not UTC, and with summer time: a day must be a UTC day all the same.
ELSEWHERE = "America/New_York"


def duckdb_engine():
    con = duckdb_connection()
    con.execute(f"SET TimeZone = '{ELSEWHERE}'")

    def ask(statement):
        answer = con.execute(statement)
        return [column[0] for column in answer.description], answer.fetchall()

    def open_lake(lake):
        con.execute(lake["duckdb"])

    return open_lake, ask


def spark_engine(scratch):
    spark = spark_session(scratch)
    spark.conf.set("spark.sql.session.timeZone", ELSEWHERE)

    def ask(statement):
        answer = spark.sql(statement)
        return answer.columns, [tuple(row) for row in answer.collect()]

    def open_lake(lake):
        spark.sql(f"CREATE DATABASE {lake['name']}")
        spark.sql(f"USE {lake['name']}")
        for statement in lake["spark"].split(";\n"):
            if statement.strip():
                spark.sql(statement)

    return open_lake, ask


def normal(value):
    if isinstance(value, datetime):
        return value.isoformat()
    return value.isoformat() if isinstance(value, date) else value


def alike(one, other):
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other and type(one) is type(other)


def key(row):
    """What rows are ordered by: all but what is a fraction."""
    return json.dumps([value for value in row if not isinstance(value, float)])


def difference(view, expected, columns, rows, keeps_a_table):
    if not expected:
        return f"{view}: nothing is expected"
    names = sorted(expected[0])
    if missing := set(names) - set(columns):
        return f"{view} lacks {sorted(missing)}"
    if not keeps_a_table and (more := set(columns) - set(names)):
        return f"{view} has {sorted(more)}, of which nothing is known"
    places = [columns.index(column) for column in names]
    found = sorted(([normal(row[place]) for place in places] for row in rows), key=key)
    wanted = sorted(([row[column] for column in names] for row in expected), key=key)
    pairs = list(zip(found, wanted))
    wrong = [pair for pair in pairs if not all(map(alike, *pair))]
    if len(found) == len(wanted) and not wrong:
        return None
    shown = "\n".join(f"  found    {one}\n  expected {other}" for one, other in wrong[:SHOWN])
    return f"{view}: {len(found)} rows, {len(wanted)} expected, {len(wrong)} differ\n  {names}\n{shown}"


def main(scratch):
    lakes = json.load(sys.stdin)
    problems = []
    for engine, (open_lake, ask) in {
        "duckdb": duckdb_engine(),
        "spark": spark_engine(scratch),
    }.items():
        for lake in lakes:
            if not lake[engine]:
                continue
            open_lake(lake)
            for view, expected in lake["answers"].items():
                columns, rows = ask(f"SELECT * FROM {view}")
                found = difference(view, expected, columns, rows, view in lake["keep_a_table"])
                if found:
                    problems.append(f"{engine}, {lake['name']}: {found}")
    json.dump(problems, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
