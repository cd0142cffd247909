#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["pyspark>=4", "pandas", "pyarrow"]
# ///
"""Rebuilds the tables of a lake on the executors of a Spark cluster. Each task replays one range of dates.

    spark-submit --files ./harness-lake --conf spark.task.cpus=4 --conf spark.executor.cores=4 \\
        --conf spark.executor.memoryOverhead=1g analytics/spark/replay.py s3://bucket/harness --units 64

Executors find harness-lake among the files of the job (`--files`, or `--binary` with Spark Connect), next to their Python
(`pip install` of the wheel), or on their PATH. They need the settings of the object store, such as
`--conf spark.executorEnv.AWS_REGION=eu-west-1`. Pass secrets by a role or in files, because Spark shows its settings in its UI.

A unit that fails fails its task, so that Spark retries it (`spark.task.maxFailures`). A unit can safely run twice or be lost
with its executor. docs/scaling.md names the memory and the cores of a unit.
"""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NAME = "harness-lake"
# `replay` ends at the next object after SIGTERM.
SECONDS_TO_END = 60
UNITS = "start string, end string"
RESULTS = "start string, end string, objects long, seconds double, attempt long, host string, run_id string"


def find_binary():
    """Returns the binary that was sent with the job, or else the one of the executor's Python or PATH."""
    from pyspark import SparkFiles

    sent = os.path.join(SparkFiles.getRootDirectory(), NAME)
    if os.path.exists(sent):
        os.chmod(sent, 0o755)
        return sent
    installed = os.path.join(os.path.dirname(sys.executable), NAME)
    found = installed if os.path.exists(installed) else shutil.which(NAME)
    if not found:
        raise FileNotFoundError(f"{NAME} is not on this executor: send it with --files or --binary, or install the wheel")
    return found


def call(*arguments):
    """Runs harness-lake and returns its JSON document. Its log goes to the log of the executor.

    Spark ends a task by killing its Python worker, so the kernel sends SIGTERM to harness-lake when the worker dies."""
    set_parent_death_signal = ctypes.CDLL(None).prctl
    command = [find_binary(), *arguments, "--output", "json"]
    with tempfile.TemporaryFile() as output:
        # A group of its own, so that signals to the worker's group do not kill it before it has stopped cleanly.
        process = subprocess.Popen(
            command, stdout=output, start_new_session=True, preexec_fn=lambda: set_parent_death_signal(1, signal.SIGTERM)
        )
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(SECONDS_TO_END)
                finally:
                    process.kill()
        output.seek(0)
        text = output.read().decode(errors="replace")
    if code == 0:
        return json.loads(text)
    try:
        error = json.loads(text)["error"]
        message = f"{error['message']}; {error['hint']}"
    except (ValueError, KeyError):
        message = "see the standard error of the executor"
    raise RuntimeError(f"{' '.join(arguments)} ended with exit code {code}: {message}")


def run_on_executors(spark, tasks, work, schema):
    """Calls `work` with the number of each of `tasks` tasks, and returns the rows that it returns."""

    def run_task(batches):
        import pyarrow

        for batch in batches:
            for number in batch.column("id").to_pylist():
                rows = work(number)
                if rows:
                    yield pyarrow.RecordBatch.from_pylist(rows)

    # `range` puts one row in each partition, without a shuffle.
    return spark.range(0, tasks, 1, tasks).mapInArrow(run_task, schema).collect()


def plan_units(lake, count, dates):
    """Returns ranges of complete periods with about the same number of raw bytes."""
    planned = call("plan", "replay", "--lake", lake, "--units", str(count), *dates)
    return [{"start": unit["from"], "end": unit["to"]} for unit in planned["units"]]


def replay_unit(lake, unit, flags):
    from pyspark import TaskContext

    started = time.monotonic()
    print(f"replay {unit['start']} to {unit['end']}", file=sys.stderr, flush=True)
    report = call("replay", "--lake", lake, "--from", unit["start"], "--to", unit["end"], *flags)
    return {
        **unit,
        "objects": len(report["files"]),
        "seconds": round(time.monotonic() - started, 1),
        "attempt": TaskContext.get().attemptNumber() + 1,
        "host": os.uname().nodename,
        "run_id": report["run_id"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", metavar="LAKE", help="lake that all executors can access")
    parser.add_argument("--units", type=int, default=16, metavar="N", help="maximum number of tasks [default: %(default)s]")
    parser.add_argument("--from", dest="first", metavar="DATE", help="first date [default: first date of the lake]")
    parser.add_argument("--to", dest="end", metavar="DATE", help="date after the last date [default: end of the lake]")
    parser.add_argument("--all", action="store_true", help="rebuild every table, not only stale ones")
    parser.add_argument("--binary", metavar="FILE", help=f"file named {NAME} to send to the executors, as spark-submit's --files does")
    session = parser.add_mutually_exclusive_group()
    session.add_argument("--master", metavar="URL", help="Spark master to use without spark-submit, such as spark://host:7077")
    session.add_argument("--remote", metavar="URL", help="Spark Connect server to use, such as sc://host:15002")
    args = parser.parse_args()

    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("harness-lake replay")
    if args.master:
        builder = builder.master(args.master)
    if args.remote:
        builder = builder.remote(args.remote)
    spark = builder.getOrCreate()
    if args.binary:
        spark.addArtifact(args.binary, file=True)

    lake, count = args.lake, args.units
    dates = [*(("--from", args.first) if args.first else ()), *(("--to", args.end) if args.end else ())]
    flags = ["--all"] if args.all else []
    units = [row.asDict() for row in run_on_executors(spark, 1, lambda _: plan_units(lake, count, dates), UNITS)]
    results = []
    if units:
        results = run_on_executors(spark, len(units), lambda number: [replay_unit(lake, units[number], flags)], RESULTS)
    for row in results:
        print("{start} to {end}: {objects} objects in {seconds} s on {host}, attempt {attempt}, run {run_id}".format(**row.asDict()))
    print(f"replayed {sum(row.objects for row in results)} objects in {len(results)} units")
    spark.stop()


if __name__ == "__main__":
    main()
