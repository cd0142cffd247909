#!/usr/bin/env python3
"""Counts the instructions of the derive path with callgrind and fails if they increase.

The cost of each function of `instructions.rs` is a ratio to the parser, counted in the same run, so it does
not depend on the machine. The gate counts the `dev` profile, which the tests have already built and which
shows an additional copy or pass, too. `--profile dist` counts what users run. `--update` writes the
ratios to `instructions.json`.
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

# Tolerance for other versions of the compiler and libraries.
MARGIN = 1.08


def build(profile):
    command = ["cargo", "build", "--locked", "--profile", profile, "--bench", "instructions"]
    output = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        cwd=FOLDER.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        # Callgrind needs function names.
        env=os.environ | {"CARGO_PROFILE_DIST_STRIP": "false"},
    )
    artifacts = (json.loads(line) for line in output.stdout.splitlines())
    built = [it["executable"] for it in artifacts if it.get("target", {}).get("name") == "instructions"]
    return built[-1]


def count(binary):
    """Returns the instructions of each counted function, including its callees."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/callgrind"
        run = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", binary]
        subprocess.run(run, check=True, capture_output=True)
        annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out]
        output = subprocess.run(annotate, check=True, capture_output=True, text=True).stdout
    counted = {}
    for line in output.splitlines():
        for name in ("parser", "tables", "parquet"):
            if f"counted_{name}" in line and "(" in line and name not in counted:
                counted[name] = int(line.split()[0].replace(",", ""))
    return counted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=["dev", "dist"], default="dev")
    parser.add_argument("--update", action="store_true")
    asked = parser.parse_args()
    counted = count(build(asked.profile))
    ratios = {name: round(counted[name] / counted["parser"], 3) for name in ("tables", "parquet")}
    all_known = json.loads(KNOWN.read_text())
    if asked.update:
        all_known[asked.profile] = ratios
        KNOWN.write_text(json.dumps(all_known, indent=2) + "\n")
    known = all_known[asked.profile]
    worse = [name for name in ratios if ratios[name] > known[name] * MARGIN]
    for name, ratio in ratios.items():
        print(f"{name}: {counted[name]:,} instructions, {ratio} x the parser's (known: {known[name]})")
    if worse:
        message = f"error: more instructions than known: {', '.join(worse)}"
        sys.exit(f"{message}\nhint: if this is intended, run with --update")


if __name__ == "__main__":
    main()
