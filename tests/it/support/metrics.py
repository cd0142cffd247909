"""Reads metrics files with Prometheus' own parser, and prints the families of each as JSON."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families


def families(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in found, f"{family.name} comes twice"
        found[family.name] = {
            "type": family.type,
            "help": family.documentation,
            "samples": [[sample.labels, sample.value] for sample in family.samples],
        }
    return found


print(json.dumps([families(path) for path in sys.argv[1:]]))
