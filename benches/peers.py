#!/usr/bin/env python3
"""Compares harness-lake with general tools at the same work on the same data. See README.md.

peers.py replay     raw summaries to tables: DuckDB, Polars
peers.py sync       the API to Parquet: dlt
peers.py startup    `--version`, `status` of a small lake, the size of the binary
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path

import measure
from measure import MIB, Results, Sample, Sim, interpreter, plain, ratios, run, say, table

PACKAGES = ["duckdb", "polars", "dlt", "pyarrow"]

# The same account on every machine and every day.
NOW = "2026-11-24T15:00:00Z"

# The account that `sync` reads does not change for an hour, so all contenders read the same executions: eight days,
# 14 days that the simulator adds, and a week without new executions, in which almost all running ones end.
STILL = ["--days", "8", "--history-until", "2026-11-03T15:00:00Z"]

# A range that contains all executions.
FROM = "2026-10-26T00:00:00Z"
TO = "2026-11-24T14:55:00Z"

# The simulated server has no rate limit, unlike Harness.
FAST = {"HARNESS_LAKE_REQUESTS_PER_MINUTE": "1000000"}

OURS = "harness-lake"

# Rows of 12 kB on average: 96,000 of them are more than 1 GiB of JSON.
REPLAY_EXECUTIONS = {"full": 96_000, "quick": 3_000}
# Executions of eight days, about 10,000 and 1,000.
SYNC_EXECUTIONS = {"full": 3_650, "quick": 365}

FORMS = {
    "replay": [
        "duckdb json-all",
        "duckdb parquet-all",
        "duckdb json-two-scans",
        "duckdb json-once",
        "duckdb json-once-by-date",
        "duckdb parquet-two-scans",
        "duckdb parquet-once",
        "duckdb parquet-once-by-date",
        "polars json-streaming",
        "polars json-once",
        "polars parquet-streaming",
        "polars parquet-once",
    ],
    "sync": [
        "dlt one plain",
        "dlt one tuned",
        "dlt stages plain",
        "dlt stages tuned",
        "dlt all plain",
        "dlt all tuned",
        "dlt all-arrow plain",
        "dlt all-arrow tuned",
    ],
}

# Columns that a tool cannot write the same way: original JSON text, read times.
CANNOT = {"polars": ["module_info"], "dlt": ["first_observed_ts", "observed_ts"]}


def by_value(mapping: dict[str, str]) -> dict[str, list[str]]:
    """Returns the names that have each value."""
    names: dict[str, list[str]] = {}
    for name, value in mapping.items():
        names.setdefault(value, []).append(name)
    return names


def compared(checks: dict[str, dict]) -> str:
    """Returns Markdown that lists the equal columns and rows of each form."""
    equal = {
        form: ", ".join(f"{of['columns']} of {of['rows']:,} rows of `{name}`" for name, of in found.items())
        for form, found in checks.items()
    }
    return "\n".join(f"- {', '.join(forms)}: columns {what}" for what, forms in by_value(equal).items())


class Bench:
    """State shared by all parts."""

    def __init__(self, options: argparse.Namespace):
        self.binary = options.binary.resolve()
        self.setting = "quick" if options.quick else "full"
        self.repeat = options.repeat or (1 if options.quick else 3)
        self.work = options.work.resolve() / self.setting
        self.work.mkdir(parents=True, exist_ok=True)
        self.forms = options.forms or FORMS.get(options.part, [])
        self.results = Results(f"peers-{options.part}", self.work, measure.machine(self.binary, PACKAGES))

    def command(self, *arguments: object) -> list[str]:
        return [str(self.binary), *map(str, arguments)]

    def sim(self, executions: int, *more: str, rows: str = "realistic") -> Sim:
        return Sim(self.binary, "--executions", executions, "--rows", rows, "--now", NOW, *more)

    def replay(self) -> None:
        lake, lines = self.work / "lake", self.work / "lines"
        with measure.once(lake) as is_new:
            if is_new:
                say("make the lake")
                with self.sim(REPLAY_EXECUTIONS[self.setting]) as sim:
                    run(self.command("sync", "--lake", lake), env=sim.env | FAST)
        facts_at = self.work / "lines.json"
        with measure.once(lines) as is_new:
            if is_new:
                say("write its raw partitions as newline-delimited JSON")
                facts_at.write_text(json.dumps(measure.answer("export.py", lake, lines)))
        facts = json.loads(facts_at.read_text())
        say(f"{facts['rows']:,} executions, {facts['bytes'] / MIB:,.0f} MiB of JSON")

        outs = {form: self.work / "out" / form for form in self.forms}

        def contender(form: str):
            tool, how = form.split(" ")
            source = lake / "_raw/v1" if how.startswith("parquet") else lines
            command = interpreter(f"{tool}_replay.py", how, source, outs[form])

            def measured() -> Sample:
                shutil.rmtree(outs[form], ignore_errors=True)
                return run(command)

            return measured

        tables = ("executions", "stages", "deployments", "commits")

        def ours() -> Sample:
            # Start without tables, like the other contenders.
            for name in tables:
                shutil.rmtree(lake / name, ignore_errors=True)
            return run(self.command("replay", "--lake", lake))

        contenders = {OURS: ours} | {form: contender(form) for form in self.forms}
        costs = measure.interleave(contenders, self.repeat)
        checks = {form: self.same_rows(form, lake, out) for form, out in outs.items()}
        sizes = {form: measure.size(out) for form, out in outs.items()}
        written = {name: measure.size(lake / name) for name in tables}
        of_ours = {form: sum(written[name] for name in checks[form]) for form in outs}
        outputs = {OURS: 1.0} | {form: sizes[form] / of_ours[form] for form in outs}
        text = "\n\n".join(
            [
                f"## `replay` of {facts['rows']:,} executions, {facts['bytes'] / MIB:,.0f} MiB of "
                f"JSON, {facts['bytes'] / facts['rows'] / 1000:.1f} kB a row, the longest "
                f"{facts['longest'] / 1000:.0f} kB; median of {self.repeat}",
                f"Multiples of {OURS}, which writes every column of four tables "
                f"({sum(written.values()) / MIB:,.0f} MiB). Output is relative to the same tables of {OURS}. "
                "Equal in both directions (Polars without `module_info`):",
                compared(checks),
                ratios(costs, OURS, facts["rows"], outputs),
            ]
        )
        self.results.add(
            "replay", text, {"data": facts, "costs": plain(costs), "sizes": sizes | written, "same": checks}
        )

    def same_rows(self, form: str, lake: Path, out: Path) -> dict:
        found = measure.answer("compare.py", lake, out, *CANNOT.get(form.split()[0], []))
        for name, of in found.items():
            if of["only_ours"] or of["only_theirs"]:
                raise measure.Failed(f"{form} does not give the same `{name}`: {json.dumps(of)}")
        return found

    def sync(self) -> None:
        lake = self.work / "synced"
        outs = {form: self.work / "dlt" / form for form in self.forms}
        with self.sim(SYNC_EXECUTIONS[self.setting], *STILL) as sim:

            def contender(form: str):
                how = form.split()[1:]
                command = interpreter("dlt_sync.py", milliseconds(FROM), milliseconds(TO), *how, outs[form])

                def measured() -> Sample:
                    shutil.rmtree(outs[form], ignore_errors=True)
                    return run(command, env=sim.env | FAST, whole_tree=True)

                return measured

            def ours() -> Sample:
                shutil.rmtree(lake, ignore_errors=True)
                return run(self.command("sync", "--lake", lake, "--start-date", FROM), env=sim.env | FAST)

            contenders = {OURS: ours} | {form: contender(form) for form in self.forms}
            costs = measure.interleave(contenders, self.repeat)
        counts, checks = {}, {}
        for form, out in outs.items():
            counts[form] = found = measure.answer("count.py", lake, out)
            if found["only_ours"] or found["only_theirs"] or not found["ours"]:
                raise measure.Failed(f"{form} did not read the same executions: {found}")
            if form.split()[1].startswith("all"):
                checks[form] = self.same_rows(form, lake, out / "lake/harness")
        rows = next(iter(counts.values()))["ours"]
        sizes = {form: measure.size(out, "**/*.parquet") for form, out in {OURS: lake, **outs}.items()}
        text = "\n\n".join(
            [
                f"## `sync` of {rows:,} executions from one simulated server; median of {self.repeat}",
                f"Multiples of {OURS}, which writes raw partitions and all tables. dlt's forms `all` "
                "also write raw rows and four tables. The other forms write one table with nested values as JSON "
                "text, or executions in columns and a table of stages. All read the same executions, by ID. The "
                "forms `all` are equal in both directions:",
                compared(checks),
                ratios(costs, OURS, rows, {form: size / sizes[OURS] for form, size in sizes.items()}),
            ]
        )
        data = {"rows": rows, "costs": plain(costs), "sizes": sizes, "counted": counts, "same": checks}
        self.results.add("sync", text, data)

    def startup(self) -> None:
        lake = self.work / "small-lake"
        with measure.once(lake) as is_new:
            if is_new:
                with self.sim(500, rows="small") as sim:
                    run(self.command("sync", "--lake", lake), env=sim.env | FAST)
        times = 10 if self.setting == "quick" else 50
        asked = {
            "`--version`": self.command("--version"),
            "`status` of a small lake": self.command("status", "--lake", lake),
            "`true`, for comparison": ["/bin/true"],
        }
        samples: dict[str, list[float]] = {name: [] for name in asked}
        for _ in range(times):
            for name, command in asked.items():
                samples[name].append(spawn_ms(command))
        size = stripped(self.binary, self.work)
        rows = [
            [name, f"{statistics.median(of):.1f}", f"{min(of):.1f}", f"{max(of):.1f}"]
            for name, of in samples.items()
        ]
        text = "\n\n".join(
            [
                f"## Start-up: {times} runs each, in ms",
                table(["", "median", "minimum", "maximum"], rows),
                f"The stripped binary: {size / MIB:.1f} MiB.",
            ]
        )
        self.results.add("startup", text, {"ms": samples, "stripped_bytes": size})


def milliseconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1000)


def spawn_ms(command: list[str]) -> float:
    """Returns the milliseconds from the spawn to the end of a process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, nowhere, 1), (os.POSIX_SPAWN_DUP2, nowhere, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, {}, file_actions=actions)
    _, status, _ = os.wait4(pid, 0)
    took = time.perf_counter() - began
    os.close(nowhere)
    if status:
        raise measure.Failed(f"{' '.join(command)} ended with {status}")
    return took * 1000


def stripped(binary: Path, work: Path) -> int:
    """Returns the size of a binary without its symbols."""
    copy = work / "stripped"
    shutil.copy(binary, copy)
    subprocess.run(["strip", copy], check=True)
    size = copy.stat().st_size
    copy.unlink()
    return size


def main() -> None:
    parser = measure.options(__doc__.splitlines()[0])
    parser.add_argument("part", choices=["replay", "sync", "startup"])
    parser.add_argument("--forms", nargs="*", help="what `replay` or `sync` is compared with")
    options = parser.parse_args()
    getattr(Bench(options), options.part)()


if __name__ == "__main__":
    main()
