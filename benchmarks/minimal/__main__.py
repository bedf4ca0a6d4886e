"""The least that a Pulumi program can do for the same objects: it registers them as they stand in a file."""

import json
from importlib.metadata import version
from pathlib import Path

import pulumi

WEIGHT = "nginx.ingress.kubernetes.io/canary-weight"

provider = version("pulumi-kubernetes")
weight = pulumi.Config().require("canaryWeight")
registered: dict[str, pulumi.Resource] = {}
for entry in json.loads(Path("objects.json").read_text(encoding="utf-8")):
    manifest = entry["manifest"]
    annotations = manifest["metadata"].get("annotations", {})
    if WEIGHT in annotations:
        annotations[WEIGHT] = weight
    registered[entry["key"]] = pulumi.CustomResource(
        entry["type"],
        manifest["metadata"]["name"],
        manifest,
        pulumi.ResourceOptions(version=provider, depends_on=[registered[key] for key in entry["after"]]),
    )
