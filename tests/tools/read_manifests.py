"""Reads the manifests on standard input, holds each to the schema of a Kubernetes version, and prints them as JSON."""

import json
import sys

import kubernetes_validate
import yaml

# custom resources, whose schemas another script knows
CUSTOM = {"PodMonitor"}

manifests = list(yaml.safe_load_all(sys.stdin))
for manifest in manifests:
    if manifest["kind"] not in CUSTOM:
        kubernetes_validate.validate(manifest, sys.argv[1], strict=True)
print(json.dumps(manifests))
