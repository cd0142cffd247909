"""Columns of a lake as DuckDB and Spark read them.

Takes `{table: [column, ...]}` on standard input; gives for each engine and table the rows, the types
of these columns and of `start_date`, and the counts with and without partitions in the path.
"""

import json
import sys

from readers import duckdb_connection, spark_session


def in_duckdb(con, lake, table, columns):
    files = f"'{lake}/{table}/v1/**/*.parquet'"
    hive, plain = (f"read_parquet({files}, hive_partitioning = {on})" for on in ("true", "false"))
    types = {row[0]: row[1] for row in con.execute(f"DESCRIBE FROM {hive}").fetchall()}
    return {
        "rows": con.execute(f"SELECT {', '.join(columns)} FROM {hive}").fetchall(),
        "types": [types[column] for column in columns],
        "start_date": types.get("start_date"),
        "counts": [con.execute(f"SELECT count(*) FROM {of}").fetchone()[0] for of in (hive, plain)],
    }


def in_spark(spark, lake, table, columns):
    folder = f"{lake}/{table}/v1"
    frame = spark.read.parquet(folder)
    plain = spark.read.option("recursiveFileLookup", "true").parquet(folder)
    types = dict(frame.dtypes)
    assert "start_date" not in plain.columns
    return {
        "rows": [list(row) for row in frame.select(*columns).collect()],
        "types": [types[column] for column in columns],
        "start_date": types.get("start_date"),
        "counts": [frame.count(), plain.count()],
    }


if __name__ == "__main__":
    lake, scratch = sys.argv[1:]
    wanted = json.load(sys.stdin)
    con, spark = duckdb_connection(), spark_session(scratch)
    read = lambda of, engine: {table: of(engine, lake, table, columns) for table, columns in wanted.items()}
    json.dump({"duckdb": read(in_duckdb, con), "spark": read(in_spark, spark)}, sys.stdout)
