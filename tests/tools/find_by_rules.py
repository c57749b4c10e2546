"""Finds what the rules in trufflehog.yaml and github.txt match in planted/, as the manuals of the two scanners say."""

import json
import math
import re
from collections import Counter

import yaml


def entropy(text):
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


(detector,) = yaml.safe_load(open("trufflehog.yaml"))["detectors"]
assert set(detector) == {"name", "keywords", "regex", "entropy"}, detector
fields = dict(line.split(":", 1) for line in open("github.txt").read().splitlines())
before, secret, after = (fields[name].strip() for name in ("Before secret", "Secret format", "After secret"))
github = f"(?:{before})({secret})(?={after})".replace(r"\z", r"\Z")

found = {"trufflehog": [], "github": []}
for name in ["leaks.txt", "look-alikes.txt"]:
    text = open("planted/" + name).read()
    assert any(keyword in text.lower() for keyword in detector["keywords"]), detector
    tokens = re.findall(detector["regex"]["token"], text, re.ASCII)
    found["trufflehog"] += [token for token in tokens if entropy(token) > detector["entropy"]]
    found["github"] += re.findall(github, text)
print(json.dumps(found))
