"""Reads a page of metrics in the text format of Prometheus on standard input and prints it as JSON."""

import json
import math
import sys

from prometheus_client.parser import text_string_to_metric_families

families = [
    {
        "name": family.name,
        "help": family.documentation,
        "type": family.type,
        "samples": [
            # JSON has no infinity
            {"name": sample.name, "labels": sample.labels, "value": sample.value if math.isfinite(sample.value) else None}
            for sample in family.samples
        ],
    }
    for family in text_string_to_metric_families(sys.stdin.read())
]
json.dump(families, sys.stdout)
