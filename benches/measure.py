"""Whole processes measured: time, processor, memory; repeated, interleaved, told as ratios.

Keep this module and its callers small in memory: Linux counts the memory of the process that starts
a child into the child's peak, so anything that needs a library runs in a child of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MIB = 1 << 20

# How often the memory of a tree of processes is looked at.
SAMPLING_SECONDS = 0.05

# What a child must not inherit: settings of whoever measures.
OURS = ("HARNESS_", "AWS_", "RUST_LOG")


@dataclass
class Sample:
    """What one process cost."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass
class Cost:
    """The medians of the samples of one contender."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, float | int | str] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: list[Sample]) -> Cost:
        def median(name: str) -> float:
            return statistics.median(getattr(sample, name) for sample in samples)

        return cls(median("wall_s"), median("cpu_s"), int(median("peak_bytes")), samples)


class Failed(Exception):
    """A measured process that did not end as it should."""


def run(
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    whole_tree: bool = False,
    expect: tuple[int, ...] = (0,),
    output: Path | None = None,
) -> Sample:
    """Runs a process to its end. Processor time is that of it and of all children that it waited
    for; so is the peak, unless `whole_tree` asks for the sum over processes that live at once."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    environment.update(env or {})
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        sink = stack.enter_context(output.open("wb")) if output else subprocess.DEVNULL
        began = time.perf_counter()
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=errors
        )
        watch = stack.enter_context(TreeWatch(child.pid)) if whole_tree else None
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in expect:
            errors.seek(0, os.SEEK_END)
            errors.seek(max(0, errors.tell() - 4000))
            told = errors.read().decode(errors="replace")
            raise Failed(f"{' '.join(command)} ended with {child.returncode}:\n{told}")
    peak = usage.ru_maxrss * 1024
    return Sample(wall, usage.ru_utime + usage.ru_stime, max(peak, watch.peak if watch else 0))


class TreeWatch:
    """Looks again and again at the memory of a process and all below it; shared pages count once."""

    def __init__(self, pid: int):
        self.peak = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> TreeWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(SAMPLING_SECONDS):
            self.peak = max(self.peak, sum(proportional(pid) for pid in tree(self._pid)))


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for at in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{at}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def proportional(pid: int) -> int:
    """The memory of a process in bytes, its share of what it shares."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return 0


def interleave(contenders: Mapping[str, Callable[[], Sample]], times: int) -> dict[str, Cost]:
    """Each contender in turn, all of them `times` times: A B C A B C, so that noise meets all."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(times):
        for name, contender in contenders.items():
            sample = contender()
            samples[name].append(sample)
            say(
                f"  {number + 1}/{times} {name}: {sample.wall_s:.2f} s, {sample.cpu_s:.2f} s CPU, "
                f"{sample.peak_bytes / MIB:.0f} MiB"
            )
    return {name: Cost.of(of) for name, of in samples.items()}


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def size(folder: Path, pattern: str = "**/*") -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def interpreter(script: str, *arguments: object) -> list[str]:
    """The command that runs a script of `contenders/` in this Python."""
    return [sys.executable, str(HERE / "contenders" / script), *map(str, arguments)]


def answer(script: str, *arguments: object) -> dict:
    """What a script of `contenders/` says in JSON on standard output; not measured."""
    command = interpreter(script, *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout)


def machine(binary: Path, packages: list[str]) -> dict[str, str]:
    """What the figures depend on."""
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    version = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return {
        "processor": cpu,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "system": f"Linux {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join(
            [
                version.stdout.strip(),
                f"Python {platform.python_version()}",
                *(f"{name} {importlib.metadata.version(name)}" for name in packages),
            ]
        ),
    }


class Sim:
    """The simulated account as a server of its own, so that its costs are in no figure."""

    def __init__(self, binary: Path, *arguments: object):
        self._command = [str(binary), "sim", "--port", "0", *map(str, arguments)]
        self.env: dict[str, str] = {}

    def __enter__(self) -> Sim:
        self._server = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        for line in self._server.stdout:
            if line.startswith("export "):
                name, value = line.removeprefix("export ").strip().split("=", 1)
                self.env[name] = value
            if "HARNESS_API_KEY" in self.env:
                return self
        raise Failed(f"{' '.join(self._command)} does not serve")

    def __exit__(self, *_: object) -> None:
        self._server.send_signal(signal.SIGTERM)
        self._server.wait()


def options(description: str) -> argparse.ArgumentParser:
    """The flags that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--binary",
        type=Path,
        default=Path(os.environ.get("HARNESS_LAKE_BINARY", ROOT / "target/release/harness-lake")),
        help="the harness-lake that is measured, and that simulates the account",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "target/bench", help="data, results; data is made once"
    )
    parser.add_argument("--repeat", type=int, help="how often each contender runs")
    parser.add_argument("--quick", action="store_true", help="a small run, to try the benchmark")
    return parser


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(costs: Mapping[str, Cost], ours: str, units: int, outputs: Mapping[str, float]) -> str:
    """Each contender's costs as multiples of ours, and in absolute terms. A multiple is the median
    over the rounds, each compared with ours of the same round: the load of a machine drifts.
    `outputs` are sizes, as multiples of ours too."""
    base = costs[ours]

    def times(name: str, cost: Cost) -> str:
        pairs = zip(cost.samples, base.samples, strict=True)
        return f"{statistics.median(getattr(one, name) / getattr(our, name) for one, our in pairs):.2f}"

    rows = [
        [
            name,
            times("wall_s", cost),
            times("cpu_s", cost),
            times("peak_bytes", cost),
            f"{outputs[name]:.2f}",
            f"{units / cost.wall_s:,.0f}",
            f"{cost.cpu_s / units * 1e6:,.0f}",
            f"{cost.peak_bytes / MIB:,.0f}",
        ]
        for name, cost in costs.items()
    ]
    header = ["", "time", "CPU", "memory", "output", "rows/s", "CPU µs/row", "peak MiB"]
    return table(header, rows)


class Results:
    """What a benchmark found: shown at once, kept as Markdown and JSON."""

    def __init__(self, name: str, work: Path, about: Mapping[str, str]):
        self._path = work / "results" / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._about = about
        self._parts: list[str] = []
        self._data: dict[str, object] = {"machine": dict(about)}

    def add(self, key: str, text: str, data: object) -> None:
        """Adds a part and writes all that there is, so that an end half-way loses nothing."""
        self._parts.append(text)
        self._data[key] = data
        lines = [f"{name}: {value}" for name, value in self._about.items()]
        document = "\n\n".join(["  \n".join(lines), *self._parts]) + "\n"
        self._path.with_suffix(".md").write_text(document)
        self._path.with_suffix(".json").write_text(json.dumps(self._data, indent=1) + "\n")
        print(text + "\n", flush=True)


def plain(costs: Mapping[str, Cost]) -> dict[str, dict]:
    """Costs as JSON has them."""
    return {name: asdict(cost) for name, cost in costs.items()}


@contextlib.contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether a folder of data is to be made; marked as made when the block ends well, and what is
    left of one that did not is removed."""
    mark = folder / ".made"
    is_new = not mark.exists()
    if is_new:
        shutil.rmtree(folder, ignore_errors=True)
    yield is_new
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def digest(binary: Path) -> str:
    """What tells one build from another."""
    return hashlib.sha256(binary.read_bytes()).hexdigest()
