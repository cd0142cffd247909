#!/usr/bin/env python3
"""Creates an overlay whose Job has one index per unit of a plan.

    harness-lake plan replay --units 16 | units.py deploy/kubernetes/my-replay
    kubectl kustomize deploy/kubernetes/my-replay

The overlay refers to `../replay`, so create it next to that folder. Add namespace and image as in
`example`, whose ConfigMap and ServiceAccount the Job uses. Each overlay names its own Job, because
Kubernetes refuses to change one that exists.
"""

import json
import pathlib
import sys
import time


def overlay(units, suffix):
    """Returns the text of kustomization.yaml. JSON strings are valid YAML strings."""
    literals = [f"unit-{at}={unit['from']} {unit['to']}" for at, unit in enumerate(units)]
    lines = [
        "apiVersion: kustomize.config.k8s.io/v1beta1",
        "kind: Kustomization",
        f"nameSuffix: -{suffix}",
        "resources:",
        "  - ../replay",
        "configMapGenerator:",
        "  - name: harness-lake-units",
        "    literals:",
        *(f"      - {json.dumps(literal)}" for literal in literals),
        "patches:",
        "  - target: { kind: Job, name: harness-lake-replay }",
        "    patch: |",
        "      - op: replace",
        "        path: /spec/completions",
        f"        value: {len(units)}",
    ]
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    plan = json.load(sys.stdin)
    if "error" in plan:
        sys.exit(f"the plan failed: {plan['error']['message']}")
    units = plan["units"]
    if not units:
        sys.exit("the plan has no units: use --units N and a lake with data")
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    suffix = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    (folder / "kustomization.yaml").write_text(overlay(units, suffix), encoding="utf-8")


if __name__ == "__main__":
    main()
