"""The two programs that are compared, with the same objects."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from demo.stack import CHECKOUT, StackCopy

MINIMAL: Final = Path(__file__).parent / "minimal"
_ENGINE_KEYS: Final = ("__initialApiVersion", "__initialKind", "__fieldManager")


def product(folder: Path, services: int, environment: Mapping[str, str]) -> StackCopy:
    """Make a stack of this product's program with so many services."""
    stack = StackCopy.create(folder, "dev", environment)
    config = {
        "macromind:namespace": f"product-{services}",
        "macromind:createNamespace": "true",
        "macromind:host": f"product-{services}.local",
        "macromind:canaryWeight": "20",
        "macromind:services": {f"service-{number}": _service(number) for number in range(services)},
    }
    path = folder / "Pulumi.dev.yaml"
    salt = yaml.safe_load(path.read_text(encoding="utf-8"))["encryptionsalt"]
    path.write_text(yaml.safe_dump({"encryptionsalt": salt, "config": config}), encoding="utf-8")
    return stack


def minimal(folder: Path, services: int, environment: Mapping[str, str], like: StackCopy) -> StackCopy:
    """Make a stack that registers the objects of another stack, in places of its own."""
    folder.mkdir(parents=True)
    for part in ("__main__.py", "Pulumi.yaml"):
        shutil.copyfile(MINIMAL / part, folder / part)
    for part in (".venv", "pyproject.toml", "uv.lock"):
        (folder / part).symlink_to(CHECKOUT / part)
    objects = json.dumps(registered_objects(like)).replace(f"product-{services}", f"minimal-{services}")
    (folder / "objects.json").write_text(objects, encoding="utf-8")
    stack = StackCopy.initialise(folder, "dev", environment)
    stack.set("canaryWeight", "20")
    return stack


def registered_objects(stack: StackCopy) -> list[dict[str, Any]]:
    """Return type, manifest, key and keys of dependencies of every Kubernetes object in a stack's state."""
    resources = json.loads(stack.run("stack", "export"))["deployment"]["resources"]
    objects = [found for found in resources if found["type"].startswith("kubernetes:")]
    known = {found["urn"] for found in objects}
    return [
        {
            "key": found["urn"],
            "type": found["type"],
            "manifest": {key: value for key, value in found["inputs"].items() if key not in _ENGINE_KEYS},
            "after": [urn for urn in found.get("dependencies", ()) if urn in known],
        }
        for found in objects
    ]


def _service(number: int) -> dict[str, Any]:
    return {
        "path": f"/api/service-{number}",
        "port": 8080,
        "replicas": 1,
        "image": f"example/service-{number}:1.0.0",
        "canary": {
            "image": f"example/service-{number}:1.1.0",
            "replicas": 1,
            "header": {"name": "X-Canary", "value": "true"},
        },
    }
