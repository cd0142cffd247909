"""Builds a kustomization, validates what it gives against Kubernetes' own schemas, prints it as JSON."""

import json
import pathlib
import subprocess
import sys

import yaml

BIN = pathlib.Path(sys.executable).parent
VERSION = "1.37"


def main():
    command = [BIN / "kubectl", "kustomize", sys.argv[1]]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    validate = [BIN / "kubernetes-validate", "--strict", "--quiet", "-k", VERSION, "/dev/stdin"]
    validated = subprocess.run(validate, input=built, capture_output=True, text=True)
    if validated.returncode != 0:
        sys.exit(validated.stdout + validated.stderr)
    print(json.dumps(list(yaml.safe_load_all(built))))


main()
