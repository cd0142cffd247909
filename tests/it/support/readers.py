"""Readers of a lake as users have them.

`watch duckdb` and `watch spark` read the executions again and again until standard input ends, a line
of JSON for each read; `tables` describes every table in Spark, and sums it up in both engines.
"""

import glob
import json
import os
import select
import sys

SHOWN = 3


def duckdb_connection(config=None):
    import duckdb

    con = duckdb.connect(config={"threads": 1, **(config or {})})
    con.execute("SET TimeZone = 'UTC'")
    return con


def duckdb_over_s3():
    """Another version of DuckDB: the newest whose extension for S3 is a package."""
    folder = os.path.join(sys.prefix, "readers")
    sys.path.insert(0, folder)
    con = duckdb_connection({"allow_unsigned_extensions": "true"})
    [extension] = glob.glob(f"{folder}/**/httpfs.duckdb_extension", recursive=True)
    con.execute(f"LOAD '{extension}'")
    endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
    for name, value in {
        "s3_endpoint": endpoint,
        "s3_region": os.environ["AWS_REGION"],
        "s3_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "s3_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "s3_url_style": "path",
        "s3_use_ssl": "false",
    }.items():
        con.execute(f"SET {name} = '{value}'")
    return con


def spark_session(scratch):
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession

    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "640m",
        "spark.local.dir": scratch,
        "spark.log.level": "OFF",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.warehouse.dir": f"{scratch}/warehouse",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    builder = SparkSession.builder.master("local[1]").appName("readers")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


# What a row says of itself: a page of one object read as another's would break it.
CONSISTENT = """start_date = CAST(start_ts AS DATE) AND first_observed_ts <= observed_ts
    AND (duration_ms IS NULL OR is_terminal AND
         duration_ms = {micros}(end_ts) DIV 1000 - {micros}(start_ts) DIV 1000)"""

READ = """SELECT plan_execution_id, count(*), min({micros}(observed_ts)), max({micros}(observed_ts)),
    sum(CASE WHEN {consistent} THEN 0 ELSE 1 END)
    FROM {source} GROUP BY plan_execution_id"""

TOTAL = "SELECT count(*), count(DISTINCT plan_execution_id) FROM {source}"


def duckdb_reader(lake, _scratch):
    con = duckdb_over_s3() if lake.startswith("s3://") else duckdb_connection()
    source = f"read_parquet('{lake}/executions/v1/**/*.parquet', hive_partitioning = true)"
    consistent = CONSISTENT.replace(" DIV ", " // ").format(micros="epoch_us")
    read = READ.format(micros="epoch_us", consistent=consistent, source=source)

    def once():
        # Of a count alone, DuckDB reads the footers and nothing else.
        counted = con.execute(f"SELECT count(*) FROM {source}").fetchone()[0]
        total = con.execute(TOTAL.format(source=source)).fetchone()
        return [[counted, None], total], con.execute(read).fetchall()

    return once


def spark_reader(lake, scratch):
    spark = spark_session(scratch)
    consistent = CONSISTENT.format(micros="unix_micros")
    read = READ.format(micros="unix_micros", consistent=consistent, source="{executions}")

    def once():
        # The files are listed once for each data frame.
        fresh = lambda: spark.read.parquet(f"{lake}/executions/v1")
        total = spark.sql(TOTAL.format(source="{executions}"), executions=fresh()).collect()
        return [tuple(total[0])], spark.sql(read, executions=fresh()).collect()

    return once


READERS = {"duckdb": duckdb_reader, "spark": spark_reader}


class Judge:
    """Compares each read with all previous reads and returns what is wrong."""

    def __init__(self):
        self.count = 0
        self.observed = {}

    def wrong(self, totals, rows):
        found = []
        totals = [*totals, (sum(row[1] for row in rows), len(rows))]
        for count, distinct in totals:
            if distinct is not None and count != distinct:
                found.append(f"{count} rows of {distinct} executions")
            if count < self.count:
                found.append(f"{count} rows, {self.count} before")
            self.count = max(count, self.count)
        observed = {row[0]: row[2] for row in rows}
        known = self.observed.items()
        for what, ids in {
            "twice": [row[0] for row in rows if row[1] != 1 or row[2] != row[3]],
            "inconsistent": [row[0] for row in rows if row[4] != 0],
            "lost": [of for of in self.observed if of not in observed],
            "gone back": [of for of, before in known if observed.get(of, before) < before],
        }.items():
            if ids:
                found.append(f"{len(ids)} are {what}, such as {ids[:SHOWN]}")
        self.observed |= observed
        return found


def is_over():
    """Whether standard input has ended; nothing is ever written to it."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def watch(engine, lake, scratch):
    once = READERS[engine](lake, scratch)
    judge = Judge()
    over = False
    while not over:
        # The last read begins after the end of all that is written.
        over = is_over()
        try:
            totals, rows = once()
        except Exception as error:
            line = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
        else:
            line = {"wrong": judge.wrong(totals, rows), "count": judge.count}
        print(json.dumps(line), flush=True)


def sums(columns, is_partitioned, spark):
    """Aggregates that come out the same in every engine that reads the same values."""
    if spark:
        micros, octets, items, entries = "unix_micros", "octet_length", "size", "size"
    else:
        micros, octets, items, entries = "epoch_us", "strlen", "len", "cardinality"
    yield "rows", "count(*)"
    if is_partitioned:
        yield "dates", "count(DISTINCT start_date)"
    for column, kind in columns:
        yield f"nulls of {column}", f"count(*) - count({column})"
        if kind == "utf8":
            yield f"octets of {column}", f"sum({octets}({column}))"
            yield f"least {column}", f"min({column})"
            yield f"greatest {column}", f"max({column})"
        elif kind == "timestamp":
            yield f"first {column}", f"min({micros}({column}))"
            yield f"last {column}", f"max({micros}({column}))"
        elif kind == "date":
            yield f"first {column}", f"CAST(min({column}) AS STRING)"
            yield f"last {column}", f"CAST(max({column}) AS STRING)"
        elif kind == "boolean":
            yield f"true {column}", f"count(CASE WHEN {column} THEN 1 END)"
        elif kind.startswith("list"):
            yield f"items of {column}", f"sum({items}({column}))"
        elif kind.startswith("map"):
            yield f"entries of {column}", f"sum({entries}({column}))"
        else:
            yield f"least {column}", f"min({column})"
            yield f"greatest {column}", f"max({column})"
        if column.endswith("_ms"):
            yield f"sum of {column}", f"sum({column})"


def tables(lake, scratch, schemas):
    spark, con = spark_session(scratch), duckdb_connection()
    found = {}
    for schema in schemas:
        table, is_partitioned = schema["table"], schema["partitioned"]
        columns = [(column["name"], column["type"]) for column in schema["columns"]]
        frame = spark.read.parquet(f"{lake}/{table}/v1")
        glob = f"read_parquet('{lake}/{table}/v1/**/*.parquet', hive_partitioning = true)"

        def summed(in_spark):
            wanted = dict(sums(columns, is_partitioned, in_spark))
            select = f"SELECT {', '.join(wanted.values())} FROM "
            if in_spark:
                row = spark.sql(select + "{frame}", frame=frame).collect()[0]
            else:
                row = con.execute(select + glob).fetchone()
            return dict(zip(wanted, row))

        found[table] = {"types": frame.dtypes, "spark": summed(True), "duckdb": summed(False)}
    return found


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(*sys.argv[2:])
    else:
        lake, scratch = sys.argv[2:]
        json.dump(tables(lake, scratch, json.load(sys.stdin)), sys.stdout)
