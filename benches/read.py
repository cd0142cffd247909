#!/usr/bin/env python3
"""Measures how fast analysts read a lake: ten questions, day lake and month lake, on disk and over HTTP. See README.md.

read.py years     three years of 300 executions a day
read.py busy      30 days of 33,000 executions a day
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import measure
from measure import MIB, Results, Sample, Sim, interpreter, run, say, table

FAST = {"HARNESS_LAKE_REQUESTS_PER_MINUTE": "1000000"}
END = datetime.fromisoformat("2026-11-24T15:00:00+00:00")
WAIT_MS = 20

# The server keeps six months, so a longer history is read in steps.
STEP = timedelta(weeks=21)

TABLES = ("executions", "stages", "deployments", "commits", "scopes", "projects", "orgs")


@dataclass
class Account:
    days: int
    per_day: int


ACCOUNTS = {"years": Account(3 * 365, 300), "busy": Account(30, 33_000)}
QUICK = {"years": Account(120, 30), "busy": Account(10, 300)}

# `{id}`, `{service}` and `{recent}` are taken from the lake.
QUESTIONS = {
    "open": "SELECT 1",
    "counts by status and week": """
        SELECT date_trunc('week', start_date) AS week, status_category, count(*) AS executions
        FROM executions GROUP BY 1, 2""",
    "one execution by id": """
        SELECT status, start_ts, duration_ms FROM executions WHERE plan_execution_id = '{id}'""",
    "failing stages": """
        SELECT pipeline_id, stage_id, sum(failures) AS failures FROM failed_stages
        GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 20""",
    "deployments of a service": """
        SELECT environment_id, status_category, count(*) AS deployments FROM deployments
        WHERE service_id = '{service}' GROUP BY 1, 2""",
    "change failure rate": """
        SELECT service_id, sum(failed_deployments) AS failed, sum(deployments) AS deployments
        FROM change_failure_rate GROUP BY 1""",
    "lead time": """
        SELECT service_id, count(*) AS days, sum(deployments) AS deployments FROM lead_time_for_changes GROUP BY 1""",
    "time to restore": """
        SELECT service_id, count(*) AS days FROM time_to_restore GROUP BY 1""",
    "flakiest pipelines": """
        SELECT pipeline_id, count(*) AS lines FROM flakiest_pipelines GROUP BY 1""",
    "queue time": """
        SELECT pipeline_id, count(*) AS days FROM queue_and_wait_time GROUP BY 1""",
    "freshness": """
        SELECT org_id, project_id, max(observed_ts) AS newest FROM executions
        WHERE start_date >= DATE '{recent}' GROUP BY 1, 2""",
}

# The optimum: each table as one object, in the order that suits the question best.
OPTIMA = {
    "optimum": "start_ts",
    "optimum one execution by id": "plan_execution_id",
    "optimum deployments of a service": "service_id",
}
CONTENDERS = ("day", "month", "optimum")


class Bench:
    """The lakes of one account, and the questions."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.binary = options.binary.resolve()
        self.account = (QUICK if options.quick else ACCOUNTS)[options.part]
        setting = options.work.resolve() / ("quick" if options.quick else "full")
        self.work = setting / "read" / options.part
        self.work.mkdir(parents=True, exist_ok=True)
        self.repeat = options.repeat or (1 if options.quick else 3)
        about = measure.machine(self.binary, ["duckdb", "pyspark"])
        self.results = Results(f"read-{options.part}", setting, about)

    def command(self, *arguments: object) -> list[str]:
        return [str(self.binary), *map(str, arguments)]

    def make_lakes(self) -> None:
        """Reads the account into a day lake, and converts it into the other contenders."""
        begin = END - timedelta(days=self.account.days)
        day = self.work / "day"
        with measure.once(day) as is_new:
            at = begin
            while is_new and at < END:
                at = min(at + STEP, END)
                say(f"read until {at:%F}")
                sim = ["--executions", self.account.days * self.account.per_day, "--days", self.account.days]
                sim += ["--projects", max(3, self.account.per_day // 300)]
                sim += ["--history-until", instant(END), "--now", instant(at)]
                with Sim(self.binary, *sim) as server:
                    sync = ["sync", "--lake", day, "--start-date", instant(begin), "--period", "day"]
                    run(self.command(*sync), env=server.env | FAST)
        with measure.once(self.work / "month") as is_new:
            if is_new:
                say("convert to months")
                run(self.command("replay", "--lake", day, "--into", self.work / "month", "--period", "month"))
        for name, order in OPTIMA.items():
            with measure.once(self.work / name) as is_new:
                if is_new:
                    say(f"write the {name}")
                    run(interpreter("optimum.py", day, self.work / name, order))

    def fill(self) -> dict[str, str]:
        """Returns the questions, with values of the lake."""
        asked = "SELECT plan_execution_id, (SELECT mode(service_id) FROM deployments) FROM executions OFFSET 50 LIMIT 1"
        ((execution, service),) = self.ask("day", asked)
        recent = f"{END - timedelta(days=7):%F}"
        return {
            name: sql.format(id=execution, service=service, recent=recent) for name, sql in QUESTIONS.items()
        }

    def ddl(self, contender: str, location: str | None = None, engine: str = "duckdb") -> str:
        """Returns the statements that open a contender, without comments on columns."""
        location = location or str(self.work / contender)
        # The statements depend on the period of the lake, which only a lake can tell.
        real = self.work / ("day" if contender.startswith("optimum") else contender)
        command = self.command("schema", "ddl", engine, "--lake", real)
        text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        if contender.startswith("optimum"):
            text = re.sub(r"(read_parquet\('[^']*)/\*\*/\*\.parquet'[^)]*\)", r"\1/all.parquet')", text)
        return "\n".join(line for line in text.replace(str(real), location).splitlines() if "COMMENT ON" not in line)

    def ask(self, contender: str, question: str, port: int | None = None, output: Path | None = None):
        """Asks a question in a process of its own. Returns its cost if `output` is set, else the rows."""
        location = f"s3://bucket/{contender}" if port else None
        (self.work / "open.sql").write_text(self.ddl(contender, location))
        (self.work / "question.sql").write_text(question)
        more = [port] if port else []
        command = interpreter("ask.py", self.work / "open.sql", self.work / "question.sql", *more)
        if output:
            return run(command, output=output)
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    def folder_for(self, contender: str, question: str) -> str:
        return f"optimum {question}" if contender == "optimum" and f"optimum {question}" in OPTIMA else contender

    def duckdb(self, questions: dict[str, str], port: int | None, counts) -> dict[str, dict[str, dict]]:
        """Asks all questions of all contenders; all must give the same rows."""
        found: dict[str, dict[str, dict]] = {}
        for question, sql in questions.items():
            rows: dict[str, list] = {}
            costs: dict[str, dict] = {}

            def contender(name: str):
                def measured() -> Sample:
                    out = self.work / "rows.json"
                    counts()
                    sample = self.ask(self.folder_for(name, question), sql, port, out)
                    costs[name] = counts()
                    rows[name] = sorted(json.loads(out.read_text()), key=str)
                    return sample

                return measured

            of = measure.interleave({name: contender(name) for name in CONTENDERS}, self.repeat)
            for name in CONTENDERS:
                if rows[name] != rows["day"]:
                    raise measure.Failed(f"{question}: {name} and day differ")
                found.setdefault(name, {})[question] = costs[name] | {
                    "wall_s": of[name].wall_s,
                    "cpu_s": of[name].cpu_s,
                }
        return found

    def read(self) -> None:
        self.make_lakes()
        questions = self.fill()
        account = f"{self.account.days:,} days of {self.account.per_day:,} executions"
        files = {name: len(list((self.work / name / "executions").rglob("*.parquet"))) for name in CONTENDERS}
        sizes = {
            name: sum(measure.size(self.work / name / of) for of in TABLES) / MIB for name in CONTENDERS
        }
        header = ["", "objects of `executions`", "MiB of all tables"]
        rows = [[name, f"{files[name]:,}", f"{sizes[name]:,.0f}"] for name in CONTENDERS]
        self.results.add("lakes", f"## {account}\n\n{table(header, rows)}", {"files": files, "mib": sizes})

        on_disk = self.duckdb(questions, None, dict)
        self.results.add("disk", "### DuckDB, on disk: CPU ms\n\n" + by_question(on_disk, cpu_ms), on_disk)

        with serve(self.work) as (port, counts):
            over_http = self.duckdb(questions, port, counts)
        parts = [
            f"### DuckDB over HTTP, {WAIT_MS} ms a request: {title}\n\n" + by_question(over_http, value)
            for title, value in [("seconds", seconds), ("requests", requests), ("MiB", mib)]
        ]
        self.results.add("http", "\n\n".join(parts), over_http)

        lakes = {name: self.ddl(name, engine="spark") for name in ("day", "month")}
        asked = {
            "lakes": {name: [part for part in ddl.split(";\n") if part.strip()] for name, ddl in lakes.items()},
            "questions": {name: sql for name, sql in questions.items() if name != "open"},
            "times": self.repeat,
        }
        command = interpreter("ask_spark.py", self.work / "warehouse")
        done = subprocess.run(command, input=json.dumps(asked), stdout=subprocess.PIPE, check=True, text=True)
        spark = {
            lake: {question: {"wall_s": statistics.median(of)} for question, of in by.items()}
            for lake, by in json.loads(done.stdout).items()
        }
        self.results.add("spark", "### Spark, on disk: seconds\n\n" + by_question(spark, seconds), spark)


def by_question(found: dict[str, dict[str, dict]], value: Callable[[dict], float]) -> str:
    """Returns a table: a row per question, a column per contender, and the ratios to the month lake."""
    questions = list(next(iter(found.values())))
    values = {name: {question: value(of[question]) for question in questions} for name, of in found.items()}
    for of in values.values():
        of["sum without opening"] = sum(of[question] - of.get("open", 0) for question in questions if question != "open")
        of["sum"] = sum(of[question] for question in questions)
    others = [name for name in values if name != "month"]
    rows = [
        [
            question,
            *(f"{of[question]:,.2f}".removesuffix(".00") for of in values.values()),
            *(f"{values[name][question] / (values['month'][question] or 1):.2f}" for name in others),
        ]
        for question in values["month"]
    ]
    return table(["", *values, *(f"{name} / month" for name in others)], rows)


def cpu_ms(of: dict) -> float:
    return round(of["cpu_s"] * 1000)


def seconds(of: dict) -> float:
    return round(of["wall_s"], 2)


def requests(of: dict) -> float:
    return of["LIST"] + of["HEAD"] + of["GET"]


def mib(of: dict) -> float:
    return round(of["bytes"] / MIB, 2)


@contextmanager
def serve(folder: Path) -> Iterator[tuple[int, Callable[[], dict]]]:
    """Serves a folder as the bucket `bucket`. Yields the port, and a function that returns and resets the counts."""
    server = subprocess.Popen(interpreter("store.py", folder, WAIT_MS), stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())

        def counts() -> dict:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/.counts", timeout=30) as answer:
                return json.load(answer)

        yield port, counts
    finally:
        server.terminate()
        server.wait()


def instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    parser = measure.options(__doc__.splitlines()[0])
    parser.add_argument("part", choices=list(ACCOUNTS))
    Bench(parser.parse_args()).read()


if __name__ == "__main__":
    main()
