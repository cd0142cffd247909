#!/usr/bin/env python3
"""harness-lake beside general tools, at the same work on the same data: see README.md here.

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

# One account, on every machine and every day.
NOW = "2026-11-24T15:00:00Z"

# A range that holds its whole history of 30 days, to the end that `sync` reads it to.
FROM = "2026-10-24T00:00:00Z"
TO = "2026-11-24T14:55:00Z"

# The simulated server has no limit; what it asks of a real one is another matter.
FAST = {"HARNESS_LAKE_REQUESTS_PER_MINUTE": "1000000"}

OURS = "harness-lake"

# Rows of 12 kB on average: 96,000 of them are more than 1 GiB of JSON.
REPLAY_EXECUTIONS = {"full": 96_000, "quick": 3_000}
SYNC_EXECUTIONS = {"full": 10_000, "quick": 1_000}

FORMS = [
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
]

# What a tool cannot write: JSON text as it came.
CANNOT = {"polars": ["module_info"]}


def by_value(mapping: dict[str, str]) -> dict[str, list[str]]:
    """The names that have each value."""
    names: dict[str, list[str]] = {}
    for name, value in mapping.items():
        names.setdefault(value, []).append(name)
    return names


class Bench:
    """What all parts share."""

    def __init__(self, options: argparse.Namespace):
        self.binary = options.binary.resolve()
        self.setting = "quick" if options.quick else "full"
        self.repeat = options.repeat or (1 if options.quick else 3)
        self.work = options.work.resolve() / self.setting
        self.work.mkdir(parents=True, exist_ok=True)
        self.forms = options.forms
        self.results = Results(f"peers-{options.part}", self.work, measure.machine(self.binary, PACKAGES))

    def command(self, *arguments: object) -> list[str]:
        return [str(self.binary), *map(str, arguments)]

    def sim(self, executions: int, rows: str = "realistic") -> Sim:
        return Sim(self.binary, "--executions", executions, "--rows", rows, "--now", NOW)

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
            # As the others begin: with nothing to compare what is written with.
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
        said = {
            form: ", ".join(f"{of['columns']} of {of['rows']:,} rows of `{name}`" for name, of in found.items())
            for form, found in checks.items()
        }
        compared = [f"- {', '.join(forms)}: columns {what}" for what, forms in by_value(said).items()]
        text = "\n\n".join(
            [
                f"## `replay` of {facts['rows']:,} executions, {facts['bytes'] / MIB:,.0f} MiB of "
                f"JSON, {facts['bytes'] / facts['rows'] / 1000:.1f} kB a row, the longest "
                f"{facts['longest'] / 1000:.0f} kB; median of {self.repeat}",
                f"Multiples of {OURS}, which writes every column of four tables "
                f"({sum(written.values()) / MIB:,.0f} MiB); output beside the same tables of its. "
                "Compared and found equal, both ways (Polars without `module_info`):",
                "\n".join(compared),
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
        outs = {OURS: self.work / "synced"}
        for form in ("one gc", "one no-gc", "stages gc", "stages no-gc"):
            outs[f"dlt {form}"] = self.work / "dlt" / form.replace(" ", "-")
        end = milliseconds(TO)
        with self.sim(SYNC_EXECUTIONS[self.setting]) as sim:
            commands = {
                name: interpreter("dlt_sync.py", milliseconds(FROM), end, *name.split()[1:], out)
                for name, out in outs.items()
                if name != OURS
            }
            commands[OURS] = self.command("sync", "--lake", outs[OURS], "--start-date", FROM)

            def contender(name: str):
                def measured() -> Sample:
                    shutil.rmtree(outs[name], ignore_errors=True)
                    return run(commands[name], env=sim.env | FAST, whole_tree=name != OURS)

                return measured

            costs = measure.interleave({name: contender(name) for name in outs}, self.repeat)
        checks = {}
        for name, out in outs.items():
            if name != OURS:
                checks[name] = found = measure.answer("count.py", outs[OURS], out, end)
                if found["only_ours"] or found["only_theirs"] or not found["ours"]:
                    raise measure.Failed(f"{name} did not read the same executions: {found}")
        rows = next(iter(checks.values()))["ours"]
        sizes = {name: measure.size(out, "**/*.parquet") for name, out in outs.items()}
        text = "\n\n".join(
            [
                f"## `sync` of {rows:,} executions from one simulated server; median of {self.repeat}",
                f"Multiples of {OURS}, which writes raw partitions and all tables. dlt writes one "
                "table with what is nested as JSON text, or executions in columns and a table of "
                "stages, with Python's collector or without. The same executions, by id.",
                ratios(costs, OURS, rows, {name: sizes[name] / sizes[OURS] for name in sizes}),
            ]
        )
        self.results.add("sync", text, {"rows": rows, "costs": plain(costs), "sizes": sizes, "same": checks})

    def startup(self) -> None:
        lake = self.work / "small-lake"
        with measure.once(lake) as is_new:
            if is_new:
                with self.sim(500, "small") as sim:
                    run(self.command("sync", "--lake", lake), env=sim.env | FAST)
        times = 10 if self.setting == "quick" else 50
        asked = {
            "`--version`": self.command("--version"),
            "`status` of a small lake": self.command("status", "--lake", lake),
            "`true`, to compare": ["/bin/true"],
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
                table(["", "median", "least", "most"], rows),
                f"The stripped binary: {size / MIB:.1f} MiB.",
            ]
        )
        self.results.add("startup", text, {"ms": samples, "stripped_bytes": size})


def milliseconds(instant: str) -> int:
    return int(datetime.fromisoformat(instant).timestamp() * 1000)


def spawn_ms(command: list[str]) -> float:
    """From the spawn to the end of a process."""
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
    """The size of a binary without its symbols."""
    copy = work / "stripped"
    shutil.copy(binary, copy)
    subprocess.run(["strip", copy], check=True)
    size = copy.stat().st_size
    copy.unlink()
    return size


def main() -> None:
    parser = measure.options(__doc__.splitlines()[0])
    parser.add_argument("part", choices=["replay", "sync", "startup"])
    parser.add_argument(
        "--forms",
        nargs="*",
        default=FORMS,
        help="what replay is compared with",
    )
    options = parser.parse_args()
    getattr(Bench(options), options.part)()


if __name__ == "__main__":
    main()
