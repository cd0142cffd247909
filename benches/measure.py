"""Measures processes: time, CPU time, memory; repeated, interleaved, reported as ratios.

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

# Interval at which the memory of a process tree is sampled.
SAMPLING_SECONDS = 0.05

# Settings of the user that a child must not inherit.
OURS = ("HARNESS_", "AWS_", "RUST_LOG")


@dataclass
class Sample:
    """The cost of one process."""

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
    """A measured process failed."""


def run(
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    whole_tree: bool = False,
    expect: tuple[int, ...] = (0,),
    output: Path | None = None,
) -> Sample:
    """Runs a process to its end. CPU time includes all children that it waited for. The peak is that
    of the largest process, or with `whole_tree` the largest sum over concurrent processes."""
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
            log = errors.read().decode(errors="replace")
            raise Failed(f"{' '.join(command)} ended with {child.returncode}:\n{log}")
    peak = usage.ru_maxrss * 1024
    return Sample(wall, usage.ru_utime + usage.ru_stime, max(peak, watch.peak if watch else 0))


class TreeWatch:
    """Samples the memory of a process and its descendants; shared pages count once."""

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
    """Returns a process and its descendants."""
    found = [pid]
    for at in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{at}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def proportional(pid: int) -> int:
    """Returns the proportional set size of a process in bytes."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024
    return 0


def interleave(contenders: Mapping[str, Callable[[], Sample]], times: int) -> dict[str, Cost]:
    """Runs the contenders in turn, `times` times: A B C A B C, so that noise affects all."""
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
    """Prints progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def size(folder: Path, pattern: str = "**/*") -> int:
    """Returns the size of the files below a folder in bytes."""
    return sum(path.stat().st_size for path in folder.glob(pattern) if path.is_file())


def interpreter(script: str, *arguments: object) -> list[str]:
    """Returns the command that runs a script of `contenders/` with this Python."""
    return [sys.executable, str(HERE / "contenders" / script), *map(str, arguments)]


def answer(script: str, *arguments: object) -> dict:
    """Runs a script of `contenders/` without measuring it and returns its JSON output."""
    command = interpreter(script, *arguments)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout)


def machine(binary: Path, packages: list[str]) -> dict[str, str]:
    """Returns the hardware and versions that the figures depend on."""
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
    """The simulated account as a separate process, so its costs are excluded."""

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
    """Returns a parser with the flags of all benchmarks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--binary",
        type=Path,
        default=Path(os.environ.get("HARNESS_LAKE_BINARY", ROOT / "target/dist/harness-lake")),
        help="the harness-lake binary to measure; it also simulates the account",
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "target/bench", help="folder for data and results; data is created once"
    )
    parser.add_argument("--repeat", type=int, help="number of rounds")
    parser.add_argument("--quick", action="store_true", help="small data, to test the benchmark")
    return parser


def table(header: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(costs: Mapping[str, Cost], ours: str, units: int, outputs: Mapping[str, float]) -> str:
    """Returns each contender's costs as multiples of ours and in absolute terms. A multiple is the
    median over the rounds, because the load of a machine drifts. `outputs` are relative sizes."""
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
    """The results of a benchmark: printed at once, written as Markdown and JSON."""

    def __init__(self, name: str, work: Path, about: Mapping[str, str]):
        self._path = work / "results" / name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._about = about
        self._parts: list[str] = []
        self._data: dict[str, object] = {"machine": dict(about)}

    def add(self, key: str, text: str, data: object) -> None:
        """Adds a part and writes all results, so an interrupted benchmark loses nothing."""
        self._parts.append(text)
        self._data[key] = data
        lines = [f"{name}: {value}" for name, value in self._about.items()]
        document = "\n\n".join(["  \n".join(lines), *self._parts]) + "\n"
        self._path.with_suffix(".md").write_text(document)
        self._path.with_suffix(".json").write_text(json.dumps(self._data, indent=1) + "\n")
        print(text + "\n", flush=True)


def plain(costs: Mapping[str, Cost]) -> dict[str, dict]:
    """Returns costs as JSON values."""
    return {name: asdict(cost) for name, cost in costs.items()}


@contextlib.contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Yields whether a folder of data must be created. Marks it as complete when the block succeeds;
    removes an incomplete folder."""
    mark = folder / ".made"
    is_new = not mark.exists()
    if is_new:
        shutil.rmtree(folder, ignore_errors=True)
    yield is_new
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def digest(binary: Path) -> str:
    """Returns the SHA-256 of the binary, which identifies a build."""
    return hashlib.sha256(binary.read_bytes()).hexdigest()
