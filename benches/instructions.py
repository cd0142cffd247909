#!/usr/bin/env python3
"""Counts the instructions of the derive path by callgrind, and fails where it costs more than it did.

What each function of `instructions.rs` costs is told as a ratio to the parser alone, counted in the same
run, so that the machine does not matter. The gate counts what the tests have built (`dev`), where a
copy or a pass too many shows as well; `--profile release` counts what users run. `--update` writes what
is counted to `instructions.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
KNOWN = FOLDER / "instructions.json"

# What compilers and libraries may differ by.
MARGIN = 1.08


def build(profile):
    command = ["cargo", "build", "--locked", "--profile", profile, "--bench", "instructions"]
    told = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        cwd=FOLDER.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        # Functions are told apart by their names.
        env=os.environ | {"CARGO_PROFILE_RELEASE_STRIP": "false"},
    )
    artifacts = (json.loads(line) for line in told.stdout.splitlines())
    built = [it["executable"] for it in artifacts if it.get("target", {}).get("name") == "instructions"]
    return built[-1]


def count(binary):
    """Instructions of each counted function, with all that it calls."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/callgrind"
        run = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", binary]
        subprocess.run(run, check=True, capture_output=True)
        annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out]
        told = subprocess.run(annotate, check=True, capture_output=True, text=True).stdout
    counted = {}
    for line in told.splitlines():
        for name in ("parser", "tables", "parquet"):
            if f"counted_{name}" in line and "(" in line and name not in counted:
                counted[name] = int(line.split()[0].replace(",", ""))
    return counted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=["dev", "release"], default="dev")
    parser.add_argument("--update", action="store_true")
    asked = parser.parse_args()
    counted = count(build(asked.profile))
    ratios = {name: round(counted[name] / counted["parser"], 3) for name in ("tables", "parquet")}
    all_known = json.loads(KNOWN.read_text())
    if asked.update:
        all_known[asked.profile] = ratios
        KNOWN.write_text(json.dumps(all_known, indent=2) + "\n")
    known = all_known[asked.profile]
    worse = [name for name in ratios if known[name] * MARGIN < ratios[name]]
    for name, ratio in ratios.items():
        print(f"{name}: {counted[name]:,} instructions, {ratio} x the parser's (known: {known[name]})")
    if worse:
        sys.exit(f"more instructions than known: {', '.join(worse)}. If that is meant: --update")


if __name__ == "__main__":
    main()
