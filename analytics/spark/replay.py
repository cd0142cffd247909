#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["pyspark>=4"]
# ///
"""Derives the tables of a lake again on the executors of a Spark cluster: a range of dates each.

    spark-submit --files ./harness-lake analytics/spark/replay.py s3://bucket/harness --units 64

Spark hands out the work and nothing else: the program does it, reads raw partitions and puts tables. A unit
that is lost with its executor, or run twice, does no harm. Executors need the program (`--files`, `--binary`
or on their PATH) and the settings of the store: `--conf spark.executorEnv.AWS_REGION=…` and so on; give
secrets by a role or by files, since Spark shows its settings.
"""

import argparse
import json
import os
import subprocess
import sys
import time

# The program's exit codes: README, "Exit codes".
TO_BE_RETRIED = {8, 9, 10}
ATTEMPTS = 4


def program(name):
    """The program as it was shipped with the job, else as it is named."""
    from pyspark import SparkFiles

    shipped = os.path.join(SparkFiles.getRootDirectory(), os.path.basename(name))
    if not os.path.exists(shipped):
        return name
    os.chmod(shipped, 0o755)
    return shipped


def call(name, *arguments):
    done = subprocess.run([name, *arguments, "--output", "json"], capture_output=True, text=True)
    try:
        document = json.loads(done.stdout)
    except ValueError:
        document = {"error": {"message": (done.stderr.strip() or "it said nothing").splitlines()[-1]}}
    return done.returncode, document


def run_unit(name, lake, flags, unit, pause):
    """Runs one unit to its end; a conflict or a store that fails is tried again."""
    began = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        code, document = call(program(name), "replay", "--lake", lake, "--from", unit["from"], "--to", unit["to"], *flags)
        if code not in TO_BE_RETRIED or attempt == ATTEMPTS:
            break
        time.sleep(pause * 2**attempt)
    message = document.get("error", {}).get("message", "")
    return {
        **unit,
        "code": code,
        "attempts": attempt,
        "seconds": round(time.monotonic() - began, 1),
        "objects": len(document.get("files", [])),
        "message": message,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", help="a lake that all executors reach")
    parser.add_argument("--units", type=int, default=16, help="ranges of dates (default: %(default)s)")
    parser.add_argument("--from", dest="first", help="the first date")
    parser.add_argument("--to", dest="end", help="the first date after")
    parser.add_argument("--all", action="store_true", help="rebuild every table, not only stale ones")
    parser.add_argument("--binary", default="harness-lake", help="the program (default: %(default)s)")
    parser.add_argument("--master", help="for a run without spark-submit, such as local[4]")
    parser.add_argument("--pause", type=float, default=5, help="seconds before a unit is tried again, doubled each time")
    asked = parser.parse_args()

    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("harness-lake replay")
    if asked.master:
        builder = builder.master(asked.master)
    spark = builder.getOrCreate()
    dates = [*(("--from", asked.first) if asked.first else ()), *(("--to", asked.end) if asked.end else ())]
    code, planned = call(program(asked.binary), "plan", "replay", "--lake", asked.lake, "--units", str(asked.units), *dates)
    if code != 0:
        print(f"plan: {planned['error']['message']}", file=sys.stderr)
        return code
    units = planned["units"]
    flags = ["--all"] if asked.all else []
    work = spark.sparkContext.parallelize(units, max(len(units), 1))
    lake, name, pause = asked.lake, asked.binary, asked.pause
    done = work.map(lambda unit: run_unit(name, lake, flags, unit, pause)).collect()
    for unit in done:
        print("{from} to {to}: exit code {code} after {attempts} attempts, {objects} objects, {seconds} s {message}".format(**unit))
    spark.stop()
    return max((unit["code"] for unit in done), default=0)


if __name__ == "__main__":
    sys.exit(main())
