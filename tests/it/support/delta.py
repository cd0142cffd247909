"""Reads Delta tables with other programs, and compares them with the tables of the lake.

Each line of standard input is a request, [task, arguments...]; each is answered by one line. The process keeps
what it has opened between requests.
"""

import glob
import json
import os
import sys
import traceback

FOLDER = os.path.join(sys.prefix, "readers")
sys.path.insert(0, FOLDER)

import deltalake
import duckdb
import polars

TABLES = ["executions", "stages", "deployments", "commits", "orgs", "projects", "scopes"]
S3 = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
S3 = S3 if "AWS_ENDPOINT_URL" in S3 else {}
OPTIONS = {**S3, "AWS_ALLOW_HTTP": "true"} if S3 else None


def connect():
    con = duckdb.connect(config={"threads": 1, "allow_unsigned_extensions": "true"})
    con.execute("SET TimeZone = 'UTC'")
    for extension in ["delta", "httpfs"]:
        [path] = glob.glob(f"{FOLDER}/**/{extension}.duckdb_extension", recursive=True)
        con.execute(f"LOAD '{path}'")
    if S3:
        endpoint = S3["AWS_ENDPOINT_URL"].removeprefix("http://")
        con.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{S3['AWS_ACCESS_KEY_ID']}', SECRET '{S3['AWS_SECRET_ACCESS_KEY']}', "
            f"REGION '{S3['AWS_REGION']}', ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
        )
    return con


CON = connect()
SAIL = None
PINNED = {}


def sail():
    """A session of Spark's API on Sail, which is not Spark."""
    global SAIL
    if SAIL is None:
        from pysail.spark import SparkConnectServer
        from pyspark.sql import SparkSession

        server = SparkConnectServer(ip="127.0.0.1", port=0)
        server.start(background=True)
        _, port = server.listening_address
        session = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").getOrCreate()
        session.conf.set("spark.sql.session.timeZone", "UTC")
        SAIL = server, session
    return SAIL[1]


def delta(lake, table):
    return f"{lake}/delta/{table}/v1"


def plain(lake, table):
    return f"read_parquet('{lake}/{table}/v1/**/*.parquet', hive_partitioning = true)"


def read(reader, path, version=None):
    """Returns all rows of a version as an Arrow table."""
    if reader == "duckdb":
        at = "" if version is None else f", version => {version}"
        return CON.execute(f"FROM delta_scan('{path}'{at})").to_arrow_table()
    if reader == "deltalake":
        return deltalake.DeltaTable(path, version=version, storage_options=OPTIONS).to_pyarrow_table()
    if reader == "polars":
        return polars.scan_delta(path, version=version, storage_options=OPTIONS).collect().to_arrow()
    frame = sail().read.format("delta")
    if version is not None:
        frame = frame.option("versionAsOf", version)
    return frame.load(path).toArrow()


def differences(expected, found):
    """Counts the rows that only one of two relations has."""
    kinds = {row[0]: row[1] for row in CON.execute(f"DESCRIBE FROM {expected}").fetchall()}
    names = {row[0]: row[1] for row in CON.execute("DESCRIBE FROM found").fetchall()}
    if list(kinds) != list(names):
        return f"other columns: {sorted(set(kinds) ^ set(names))}"

    def column(name):
        if kinds[name].startswith("MAP") and not names[name].startswith("MAP"):
            return f'map_from_entries("{name}") AS "{name}"'
        return f'"{name}"'

    columns = ", ".join(column(name) for name in kinds)
    [[only, other]] = CON.execute(
        f"""SELECT (SELECT count(*) FROM (FROM {expected} EXCEPT ALL SELECT {columns} FROM found)),
            (SELECT count(*) FROM (SELECT {columns} FROM found EXCEPT ALL FROM {expected}))"""
    ).fetchall()
    return None if only == other == 0 else f"{only} rows are missing, {other} are wrong"


def compare(lake, readers):
    """Compares every row of every table."""
    problems = {}
    for table in TABLES:
        for reader in readers:
            found = read(reader, delta(lake, table))
            difference = differences(plain(lake, table), found)
            if difference:
                problems[f"{table} by {reader}"] = difference
    return problems


def count(lake, readers, version):
    """Counts the executions of a version."""
    return [read(reader, delta(lake, "executions"), version).num_rows for reader in readers]


STATE = "SELECT count(*), sum(epoch_us(observed_ts) % 1000003)::BIGINT FROM "


def state(reader, path, version=None):
    """Describes a version so that two of them differ."""
    found = read(reader, path, version)
    return list(CON.execute(f"{STATE} found").fetchone())


def pin(lake):
    """Opens the newest version in each reader that can keep it."""
    path = delta(lake, "executions")
    CON.execute(f"ATTACH '{path}' AS pinned (TYPE delta, PIN_SNAPSHOT)")
    table = deltalake.DeltaTable(path, storage_options=OPTIONS)
    PINNED["duckdb"] = lambda: CON.execute("FROM pinned").to_arrow_table()
    PINNED["deltalake"] = table.to_pyarrow_table
    frame = polars.scan_delta(path, storage_options=OPTIONS)
    PINNED["polars"] = lambda: frame.collect().to_arrow()
    version = table.version()
    PINNED["sail"] = lambda: read("sail", path, version)
    return pinned()


def pinned():
    states = {}
    for reader, kept in PINNED.items():
        found = kept()
        states[reader] = list(CON.execute(f"{STATE} found").fetchone())
    return states


def lost(lake):
    """Deletes the data files of a table, and returns the readers that still count rows of the pinned version."""
    for file in glob.glob(f"{delta(lake, 'executions')}/start_*/*.parquet"):
        os.remove(file)
    counted = []
    for reader, kept in PINNED.items():
        try:
            counted.append([reader, kept().num_rows])
        except Exception:
            continue
    return counted


def history(lake, reader):
    """Returns the state of each version."""
    path = delta(lake, "executions")
    newest = deltalake.DeltaTable(path, storage_options=OPTIONS).version()
    return [state(reader, path, version) for version in range(newest + 1)]


def watch(lake, readers, reads):
    """Reads the newest version again and again."""
    path = delta(lake, "executions")
    return [state(readers[n % len(readers)], path) for n in range(reads)]


def take_over(lake):
    """Writes a checkpoint, compacts and vacuums with another writer."""
    table = deltalake.DeltaTable(delta(lake, "executions"), storage_options=OPTIONS)
    table.create_checkpoint()
    table.optimize.compact()
    table.vacuum(retention_hours=168, dry_run=False)
    return table.version()


def views(statements):
    """Runs statements and counts the rows of every table and view that they create."""
    CON.execute(statements)
    names = CON.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    return {name: CON.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for [name] in names}


def protocol(lake):
    found = deltalake.DeltaTable(delta(lake, "executions"), storage_options=OPTIONS).protocol()
    return [found.min_reader_version, found.min_writer_version]


TASKS = {task.__name__: task for task in [compare, count, history, lost, pin, pinned, protocol, take_over, views, watch]}


def answer(request):
    task, *arguments = request
    try:
        return {"answer": TASKS[task](*arguments)}
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
