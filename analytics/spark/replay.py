#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = ["pyspark>=4"]
# ///
"""Rebuilds the tables of a lake on the executors of a Spark cluster. Each unit of work is a range of dates.

    spark-submit --files ./harness-lake analytics/spark/replay.py s3://bucket/harness --units 64

Spark only distributes the units. On each executor, harness-lake reads the raw partitions and writes the tables. A unit can
safely run twice or be lost with its executor. Executors need the harness-lake binary (`--files`, `--binary` or on their PATH)
and the settings of the object store, such as `--conf spark.executorEnv.AWS_REGION=eu-west-1`. Pass secrets by a role or in
files, because Spark shows its settings in its UI.
"""

import argparse
import json
import os
import subprocess
import sys
import time

# Exit codes of harness-lake that a retry can fix: README, "Exit codes".
RETRYABLE = {8, 9, 10}
MAX_ATTEMPTS = 4


def find_binary(name):
    """Returns the path of the binary shipped with the job, or else `name`."""
    from pyspark import SparkFiles

    shipped = os.path.join(SparkFiles.getRootDirectory(), os.path.basename(name))
    if not os.path.exists(shipped):
        return name
    os.chmod(shipped, 0o755)
    return shipped


def call(name, *arguments):
    process = subprocess.run([name, *arguments, "--output", "json"], capture_output=True, text=True)
    try:
        document = json.loads(process.stdout)
    except ValueError:
        document = {"error": {"message": (process.stderr.strip() or "no output").splitlines()[-1]}}
    return process.returncode, document


def run_unit(name, lake, flags, unit, retry_delay):
    """Runs one unit. Retries conflicts and failures of the object store."""
    started = time.monotonic()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        code, document = call(find_binary(name), "replay", "--lake", lake, "--from", unit["from"], "--to", unit["to"], *flags)
        if code not in RETRYABLE or attempt == MAX_ATTEMPTS:
            break
        time.sleep(retry_delay * 2**attempt)
    message = document.get("error", {}).get("message", "")
    return {
        **unit,
        "code": code,
        "attempts": attempt,
        "seconds": round(time.monotonic() - started, 1),
        "objects": len(document.get("files", [])),
        "message": message,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", metavar="LAKE", help="lake that all executors can access")
    parser.add_argument("--units", type=int, default=16, metavar="N", help="number of date ranges to distribute [default: %(default)s]")
    parser.add_argument("--from", dest="first", metavar="DATE", help="first date [default: first date of the lake]")
    parser.add_argument("--to", dest="end", metavar="DATE", help="date after the last date [default: end of the lake]")
    parser.add_argument("--all", action="store_true", help="rebuild every table, not only stale ones")
    parser.add_argument("--binary", default="harness-lake", metavar="FILE", help="harness-lake binary [default: %(default)s]")
    parser.add_argument("--master", metavar="URL", help="Spark master to use without spark-submit, such as local[4]")
    parser.add_argument("--retry-delay", metavar="SECONDS", type=float, default=5, help="base delay before a retry, doubled for each attempt [default: %(default)s]")
    args = parser.parse_args()

    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("harness-lake replay")
    if args.master:
        builder = builder.master(args.master)
    spark = builder.getOrCreate()
    dates = [*(("--from", args.first) if args.first else ()), *(("--to", args.end) if args.end else ())]
    code, planned = call(find_binary(args.binary), "plan", "replay", "--lake", args.lake, "--units", str(args.units), *dates)
    if code != 0:
        print(f"error: failed to plan the replay: {planned['error']['message']}", file=sys.stderr)
        return code
    units = planned["units"]
    flags = ["--all"] if args.all else []
    work = spark.sparkContext.parallelize(units, max(len(units), 1))
    lake, name, retry_delay = args.lake, args.binary, args.retry_delay
    results = work.map(lambda unit: run_unit(name, lake, flags, unit, retry_delay)).collect()
    for unit in results:
        print("{from} to {to}: exit code {code} after {attempts} attempts, {objects} objects, {seconds} s {message}".format(**unit))
    spark.stop()
    return max((unit["code"] for unit in results), default=0)


if __name__ == "__main__":
    sys.exit(main())
