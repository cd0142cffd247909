#!/usr/bin/env python3
"""Measures how costs grow with the number of executions and the age of a lake. See README.md.

growth.py size      `sync` and `replay` of increasing numbers of executions
growth.py age       an hourly `sync` of a lake of one month to three years
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import measure
from measure import MIB, Results, Sample, Sim, run, say, table

FAST = {"HARNESS_LAKE_REQUESTS_PER_MINUTE": "1000000"}
NOW = "2026-11-24T15:00:00Z"

# A Wednesday morning. Every age is a number of weeks, so all are measured at the same hour.
CREATED = datetime.fromisoformat("2023-11-29T10:00:00+00:00")
AGES = {"a month": 4, "half a year": 26, "a year": 52, "two years": 104, "three years": 156}

# The server keeps six months, so the lake grows in shorter steps.
STEP_WEEKS = 21

# Days for which a lake keeps run reports; an hourly schedule writes 24 a day.
REPORTS_DAYS = 90

BUCKET = "bucket"


class Folder:
    """A lake in a folder."""

    def __init__(self, path: Path):
        self._path = path
        self.lake = str(path / "lake")
        self.env: dict[str, str] = {}

    def __enter__(self) -> Folder:
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    def put(self, name: str, content: bytes) -> None:
        path = Path(self.lake) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def requests(self) -> collections.Counter[str]:
        return collections.Counter()


class Moto:
    """A lake in an S3 server whose log lists every request."""

    _LINE = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP')

    def __init__(self, path: Path):
        self._log = path / "moto.log"
        self.lake = f"s3://{BUCKET}/lake"

    def __enter__(self) -> Moto:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self.env = {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
        }
        program = Path(sys.executable).with_name("moto_server")
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [program, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
            )
        for _ in range(300):
            try:
                self._send(f"/{BUCKET}", b"")
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise measure.Failed(f"moto does not serve on {self._url}: {self._log.read_text()[-2000:]}")
        self._seen = self._log.stat().st_size
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait()

    def _send(self, path: str, content: bytes) -> None:
        request = urllib.request.Request(self._url + path, content, method="PUT")
        urllib.request.urlopen(request, timeout=30).close()

    def put(self, name: str, content: bytes) -> None:
        self._send(f"/{BUCKET}/lake/{name}", content)

    def requests(self) -> collections.Counter[str]:
        """Returns the requests by kind since the last call."""
        with self._log.open() as log:
            log.seek(self._seen)
            text = log.read()
            self._seen = log.tell()
        kinds = collections.Counter()
        for method, path in self._LINE.findall(text):
            kinds["LIST" if method == "GET" and "list-type" in path else method] += 1
        return kinds


class Bench:
    """State shared by both parts."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.binary = options.binary.resolve()
        self.work = options.work.resolve() / ("quick" if options.quick else "full") / "growth"
        self.work.mkdir(parents=True, exist_ok=True)
        about = measure.machine(self.binary, ["moto"])
        self.results = Results(f"growth-{options.part}", self.work.parent, about)

    def command(self, *arguments: object) -> list[str]:
        return [str(self.binary), *map(str, arguments)]

    def remembered(self, name: str) -> dict:
        """Returns earlier results of this binary, unless `--again` is set."""
        path = self.work / name
        if self.options.again or not path.exists():
            return {}
        kept = json.loads(path.read_text())
        return kept["found"] if kept.get("binary") == measure.digest(self.binary) else {}

    def remember(self, name: str, found: dict) -> None:
        kept = {"binary": measure.digest(self.binary), "found": found}
        (self.work / name).write_text(json.dumps(kept, indent=1))

    def size(self) -> None:
        counts = self.options.executions or ([1_000, 3_000] if self.options.quick else [10_000, 100_000])
        found = self.remembered("size.json")
        for count in counts:
            key = f"{count:,} in {self.options.days} days"
            if key not in found:
                found[key] = self.measure_size(count)
                self.remember("size.json", found)
        ordered = sorted(found.values(), key=lambda of: (of["days"], of["rows"]))
        rows = [
            [
                f"{what} of {of['rows']:,} in {of['days']} days",
                f"{of[what]['wall_s'] / of['rows'] * 1e6:,.0f}",
                f"{of[what]['cpu_s'] / of['rows'] * 1e6:,.0f}",
                f"{of[what]['peak_bytes'] / MIB:,.0f}",
                f"{of['lake_bytes'] / of['rows']:,.0f}",
                f"{of['commits']}" if what == "sync" else "-",
            ]
            for what in ("sync", "replay")
            for of in ordered
        ]
        header = ["", "µs/row", "CPU µs/row", "peak MiB", "lake bytes/row", "commits"]
        self.results.add("size", "## More executions\n\n" + table(header, rows), found)

    def measure_size(self, count: int) -> dict:
        days = self.options.days
        say(f"{count:,} executions in {days} days")
        lake = self.work / "size-lake"
        shutil.rmtree(lake, ignore_errors=True)
        arguments = ["--executions", count, "--days", days, "--rows", "realistic", "--now", NOW]
        report = self.work / "report.json"
        start = instant(datetime.fromisoformat(NOW) - timedelta(days=days + 1))
        # Larger accounts have more projects.
        projects = max(3, count // 10_000)
        with Sim(self.binary, *arguments, "--projects", projects) as sim:
            sync = run(
                self.command("sync", "--lake", lake, "--report", report, "--start-date", start),
                env=sim.env | FAST,
            )
        summary = json.loads(report.read_text())
        commits = sum(1 for _ in (lake / "_state/checkpoints").iterdir())
        replay = run(self.command("replay", "--all", "--lake", lake))
        found = {
            "rows": summary["executions"]["inserted"],
            "days": days,
            "requests": summary["requests"]["total"],
            "commits": commits,
            "lake_bytes": measure.size(lake),
            "sync": vars(sync),
            "replay": vars(replay),
        }
        shutil.rmtree(lake)
        return found

    def age(self) -> None:
        stores = {"folder": Folder, "s3": Moto}
        found = self.remembered("age.json")
        for name in self.options.store:
            if name not in found:
                with stores[name](self.work / name) as store:
                    found[name] = self.measure_ages(store)
                self.remember("age.json", found)
        kinds = ["LIST", "HEAD", "GET", "PUT", "POST", "DELETE"]
        header = ["", "executions", "dates", "new", "s", "CPU s", "peak MiB", "API calls", *kinds]
        parts = [
            "## An hourly `sync` as the lake grows\n\n"
            f"{self.per_day} executions a day; medians of {self.hours} hourly runs."
        ]
        for name, ages in found.items():
            rows = [
                [
                    age,
                    f"{of['executions']:,}",
                    f"{of['dates']:,}",
                    f"{of['new']:.0f}",
                    f"{of['wall_s']:.2f}",
                    f"{of['cpu_s']:.3f}",
                    f"{of['peak_bytes'] / MIB:.0f}",
                    f"{of['api']:.0f}",
                    *(f"{of['store'].get(kind, 0):.0f}" if of["store"] else "-" for kind in kinds),
                ]
                for age, of in ages.items()
            ]
            parts.append(f"In {'a folder' if name == 'folder' else 'S3 (moto)'}:\n\n{table(header, rows)}")
        self.results.add("age", "\n\n".join(parts), found)

    @property
    def per_day(self) -> int:
        return self.options.per_day or (30 if self.options.quick else 300)

    @property
    def hours(self) -> int:
        return self.options.repeat or (2 if self.options.quick else 12)

    def measure_ages(self, store: Folder | Moto) -> dict:
        found: dict[str, dict] = {}
        ages = dict(list(AGES.items())[:2]) if self.options.quick else AGES
        weeks = reports = executions = 0
        for age, until in ages.items():
            while weeks < until:
                weeks = min(weeks + STEP_WEEKS, until)
                report, _ = self.sync_at(store, CREATED + timedelta(weeks=weeks), max(ages.values()))
                executions += report["executions"]["inserted"]
                say(f"week {weeks}: {executions:,} executions")
            # An hourly schedule would have written these reports.
            due = 24 * min(7 * weeks, REPORTS_DAYS)
            for number in range(reports, due):
                store.put(f"_runs/01ARZ3NDEKTSV4RRFFQ69{number:05}.json", json.dumps(report).encode())
            reports = due
            store.requests()
            hourly: list[dict] = []
            samples: list[Sample] = []
            asked: list[collections.Counter[str]] = []
            for hour in range(1, self.hours + 1):
                at = CREATED + timedelta(weeks=weeks, hours=hour)
                report, sample = self.sync_at(store, at, max(ages.values()))
                hourly.append(report)
                samples.append(sample)
                asked.append(store.requests())
                executions += report["executions"]["inserted"]
            found[age] = {
                "executions": executions,
                "dates": 7 * weeks,
                "new": statistics.median(of["executions"]["inserted"] for of in hourly),
                "api": statistics.median(of["requests"]["total"] for of in hourly),
                "wall_s": statistics.median(of.wall_s for of in samples),
                "cpu_s": statistics.median(of.cpu_s for of in samples),
                "peak_bytes": statistics.median(of.peak_bytes for of in samples),
                "store": {kind: statistics.median(of[kind] for of in asked) for kind in set().union(*asked)},
            }
            say(f"{age}: {found[age]}")
        return found

    def sync_at(self, store: Folder | Moto, at: datetime, weeks: int) -> tuple[dict, Sample]:
        """Runs `sync` at a simulated time, on an account whose history is always the same."""
        report = self.work / "report.json"
        arguments = ["--executions", self.per_day * 7 * weeks, "--days", 7 * weeks]
        arguments += ["--history-until", instant(CREATED + timedelta(weeks=weeks)), "--now", instant(at)]
        with Sim(self.binary, *arguments) as sim:
            sample = run(
                self.command(
                    "sync", "--lake", store.lake, "--report", report, "--start-date", instant(CREATED)
                ),
                env=sim.env | store.env | FAST | {"HARNESS_LAKE_DELTA": self.options.delta},
            )
        return json.loads(report.read_text()), sample


def instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    parser = measure.options(__doc__.splitlines()[0])
    parser.add_argument("part", choices=["size", "age"])
    parser.add_argument("--executions", nargs="*", type=int, help="sizes; those of before are kept")
    parser.add_argument("--days", type=int, default=30, help="days of history of a size, 180 at most")
    parser.add_argument("--per-day", type=int, help="executions a day")
    parser.add_argument("--store", nargs="*", default=["folder", "s3"], choices=["folder", "s3"])
    parser.add_argument("--delta", default="off", choices=["on", "off"], help="Delta tables of `age`; use another --work")
    parser.add_argument("--again", action="store_true", help="measure what was measured before, too")
    options = parser.parse_args()
    getattr(Bench(options), options.part)()


if __name__ == "__main__":
    main()
