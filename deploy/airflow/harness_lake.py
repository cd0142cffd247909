"""DAGs that run harness-lake: sync, lookback, rerun of an interval, mapped backfill and replay.

The program comes with `pip install harness-lake` in the worker's image, and takes its settings
from the worker's environment: HARNESS_LAKE, HARNESS_API_KEY_FILE and so on. They need a pool:

    airflow pools set harness_lake 2 "One Harness key: its budget of requests is shared"

No DAG has a data interval. `sync` knows from the lake what is missing, so a run that was skipped,
late or cleared leaves nothing out, and there is nothing to catch up.
"""

import json
import logging
import subprocess
import tempfile
from datetime import datetime, timedelta, timezone

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.trigger import CronTriggerTimetable

POOL = "harness_lake"
# Two runs at once, the slots of the pool, stay below what Harness allows a key: 400 a minute.
SYNC_RATE = "240"
OTHER_RATE = "120"

# The program's exit codes: README, "Exit codes".
PARTIAL = 3
NOT_TO_BE_RETRIED = {2, 4, 5, 6, 7}

log = logging.getLogger(__name__)


def run(*arguments):
    """Runs the program, its log in the task's, and gives the document that it prints."""
    command = ["harness-lake", *arguments, "--output", "json"]
    log.info("run %s", " ".join(command))
    with tempfile.TemporaryFile(mode="w+") as document_file:
        # A file, since a pipe that nobody reads yet would hold up the program.
        process = subprocess.Popen(
            command, stdout=document_file, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            for line in process.stderr:
                log.info(line.rstrip())
            code = process.wait()
        finally:
            # A task that is cleared or timed out: what is whole gets committed first.
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)
        document_file.seek(0)
        document = document_file.read()
    if code == PARTIAL:
        log.warning("some projects failed, the rest is committed: %s", failures(document))
    elif code in NOT_TO_BE_RETRIED:
        raise AirflowFailException(f"exit code {code}: {failures(document)}")
    elif code != 0:
        raise AirflowException(f"exit code {code}: {failures(document)}")
    return json.loads(document)


def failures(document):
    """What a report or the document of a failure says went wrong."""
    try:
        told = json.loads(document)
    except ValueError:
        return "see the log"
    return told.get("error") or told.get("failures")


def figures(report):
    """What is worth keeping as the task's result; the whole report is in the lake."""
    kept = ("run_id", "outcome", "covered_to", "executions", "scopes", "open_executions", "gaps")
    return {key: report[key] for key in kept}


def between():
    """`--from` and `--to` as the run's parameters give them."""
    params = get_current_context()["params"]
    return ["--from", params["from"], "--to", params["to"]]


shared = {
    "start_date": datetime(2026, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "tags": ["harness-lake"],
    "default_args": {"retries": 3, "retry_delay": timedelta(minutes=5)},
}
interval = {
    "from": Param(type="string", description="The first instant: YYYY-MM-DD or RFC 3339"),
    "to": Param(type="string", description="The first instant after it"),
}
units = {"units": Param(4, type="integer", minimum=1, maximum=1000, description="Mapped tasks")}


@dag(schedule=CronTriggerTimetable("*/15 * * * *", timezone="UTC"), max_active_runs=1, **shared)
def harness_lake_sync():
    """Everything new, gaps, and every open execution again."""

    @task(pool=POOL)
    def sync():
        return figures(run("sync", "--requests-per-minute", SYNC_RATE))

    sync()


@dag(schedule=CronTriggerTimetable("30 3 * * 0", timezone="UTC"), max_active_runs=1, **shared)
def harness_lake_lookback():
    """Late edits of executions that were over."""

    @task(pool=POOL)
    def lookback():
        return figures(run("sync", "--lookback", "37d", "--requests-per-minute", OTHER_RATE))

    lookback()


@dag(schedule=None, max_active_runs=1, params=interval, **shared)
def harness_lake_rerun():
    """An interval once more, what is covered included."""

    @task(pool=POOL)
    def rerun():
        rate = ("--requests-per-minute", OTHER_RATE)
        return figures(run("backfill", "--refetch", *between(), *rate))

    rerun()


@dag(schedule=None, max_active_runs=1, params=interval | units, **shared)
def harness_lake_backfill():
    """History, a mapped task a range of dates. One at a time: they share the key's budget."""

    @task(pool=POOL)
    def plan():
        count = str(get_current_context()["params"]["units"])
        return run("plan", "backfill", *between(), "--units", count)["units"]

    @task(pool=POOL, max_active_tis_per_dag=1)
    def backfill(unit):
        rate = ("--requests-per-minute", OTHER_RATE)
        ends = ("--from", unit["from"], "--to", unit["to"])
        return figures(run("backfill", *ends, *rate))

    backfill.expand(unit=plan())


@dag(schedule=None, max_active_runs=1, params=units, **shared)
def harness_lake_replay():
    """The tables again from what is stored. It asks Harness nothing, so it needs no pool."""

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
