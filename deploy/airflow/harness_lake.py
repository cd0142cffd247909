"""DAGs that run harness-lake: sync, lookback, rerun of an interval, mapped backfill and replay.

Build the wheel with `scripts/wheel` and install the file in the workers' image, for example with
`pip install ./harness_lake-0.1.0-*.whl`. PyPI has no package of this name. Set HARNESS_LAKE,
HARNESS_API_KEY_FILE and so on in the workers' environment. The DAGs need two pools:

    airflow pools set harness_lake_sync 1 "The scheduled sync of harness-lake"
    airflow pools set harness_lake 1 "Other runs of harness-lake, which take turns"

No DAG has a data interval. The lake stores which windows are missing, so skipped, late or cleared
runs lose nothing, and there is nothing to catch up.
"""

import json
import logging
import subprocess
import tempfile
from datetime import datetime, timedelta, timezone

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.trigger import CronTriggerTimetable

# A pool of its own, because a long backfill must not delay `sync`.
SYNC_POOL = "harness_lake_sync"
OTHER_POOL = "harness_lake"
# With one slot each, the pools together stay below the limit of a key: 400 a minute.
SYNC_RATE = "240"
OTHER_RATE = "120"

# See "Exit codes" in README.md.
PARTIAL = 3
PERMANENT = {2, 4, 5, 6, 7}

log = logging.getLogger(__name__)


def run(*arguments):
    """Runs harness-lake, copies its log to the task's log, and returns its JSON output."""
    command = ["harness-lake", *arguments, "--output", "json"]
    log.info("run %s", " ".join(command))
    with tempfile.TemporaryFile(mode="w+") as document_file:
        # A file, because a pipe that is not read would block the process.
        process = subprocess.Popen(
            command, stdout=document_file, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            for line in process.stderr:
                log.info(line.rstrip())
            code = process.wait()
        finally:
            # The task was cleared or timed out: let harness-lake commit complete windows first.
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)
        document_file.seek(0)
        document = document_file.read()
    if code == PARTIAL:
        log.warning("some projects failed, the rest is committed: %s", failures(document))
    elif code in PERMANENT:
        raise AirflowFailException(f"exit code {code}: {failures(document)}")
    elif code != 0:
        raise AirflowException(f"exit code {code}: {failures(document)}")
    return json.loads(document)


def failures(document):
    """Returns the failures that a report or an error document lists."""
    try:
        parsed = json.loads(document)
    except ValueError:
        return "see the log"
    return parsed.get("error") or parsed.get("failures")


def figures(report):
    """Returns the main figures as the task's result; the lake keeps the full report."""
    names = ("run_id", "outcome", "covered_to", "executions", "scopes", "open_executions", "gaps")
    return {key: report[key] for key in names}


def between():
    """Returns `--from` and `--to` from the run's parameters."""
    params = get_current_context()["params"]
    return ["--from", params["from"], "--to", params["to"]]


shared = {
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "tags": ["harness-lake"],
    "default_args": {
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        # A task that is ended here commits what it read, and its retry continues.
        "execution_timeout": timedelta(hours=12),
    },
}
interval = {
    "from": Param(type="string", description="The first instant: YYYY-MM-DD or RFC 3339"),
    "to": Param(type="string", description="The first instant after it"),
}
units = {"units": Param(4, type="integer", minimum=1, maximum=1000, description="Mapped tasks")}


@dag(schedule=CronTriggerTimetable("*/15 * * * *", timezone="UTC"), max_active_runs=1, **shared)
def harness_lake_sync():
    """Reads new executions, gaps and open executions."""

    @task(pool=SYNC_POOL, execution_timeout=timedelta(hours=1))
    def sync():
        return figures(run("sync", "--requests-per-minute", SYNC_RATE))

    sync()


@dag(schedule=CronTriggerTimetable("30 3 * * 0", timezone="UTC"), max_active_runs=1, **shared)
def harness_lake_lookback():
    """Reads the last 37 days again to find late edits of terminal executions."""

    @task(pool=OTHER_POOL)
    def lookback():
        return figures(run("sync", "--lookback", "37d", "--requests-per-minute", OTHER_RATE))

    lookback()


@dag(schedule=None, max_active_runs=1, params=interval, **shared)
def harness_lake_rerun():
    """Reads an interval again, including covered parts."""

    @task(pool=OTHER_POOL)
    def rerun():
        rate = ("--requests-per-minute", OTHER_RATE)
        return figures(run("backfill", "--refetch", *between(), *rate))

    rerun()


@dag(schedule=None, max_active_runs=1, params=interval | units, **shared)
def harness_lake_backfill():
    """Reads history, one mapped task per range, one at a time: tasks share the limit of the key."""

    @task(pool=OTHER_POOL)
    def plan():
        count = str(get_current_context()["params"]["units"])
        return run("plan", "backfill", *between(), "--units", count)["units"]

    @task(pool=OTHER_POOL, max_active_tis_per_dag=1)
    def backfill(unit):
        rate = ("--requests-per-minute", OTHER_RATE)
        ends = ("--from", unit["from"], "--to", unit["to"])
        return figures(run("backfill", *ends, *rate))

    backfill.expand(unit=plan())


@dag(schedule=None, max_active_runs=1, params=units, **shared)
def harness_lake_replay():
    """Rebuilds all tables from raw partitions. Needs no pool: it sends no request to Harness."""

    @task
    def plan():
        count = str(get_current_context()["params"]["units"])
        return run("plan", "replay", "--units", count)["units"]

    @task
    def replay(unit):
        report = run("replay", "--all", "--from", unit["from"], "--to", unit["to"])
        return len(report["files"])

    replay.expand(unit=plan())


harness_lake_sync()
harness_lake_lookback()
harness_lake_rerun()
harness_lake_backfill()
harness_lake_replay()
