"""Runs promtool, which checks rules and plays them against series of samples."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.observability.rules import groups
from sandbox.toolchain.locate import locate

SUITES = Path(__file__).parent / "data/promtool"

_IMAGE = {"path": "/", "port": 80, "image": "shop/app:1"}
_CANARY = {"image": "shop/app:2"}
_HEADER = {"header": {"name": "X-Canary", "value": "true"}}
SERVICES: dict[str, dict[str, Any]] = {
    "cart": {"canary": _CANARY | {"weight": 20}},
    "login": {"canary": _CANARY | {"weight": 0} | _HEADER},
    "mail": {"canary": _CANARY | {"weight": 20}, "sessionAffinity": {"cookieName": "mail"}},
    "pay": {},
    "search": {"canary": _CANARY | {"weight": 0}},
}
"""The services of the suites. `pay` declares no canary, so that a suite can give it any weights."""


def settings(**changes: object) -> Settings:
    services = {name: _IMAGE | {"path": f"/{name}"} | service for name, service in SERVICES.items()}
    values = {"namespace": "shop", "host": "shop.example", "services": services} | changes
    return load({key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()})


def write_rules(folder: Path, of: Settings) -> Path:
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": groups(of, "shop-dev")}))
    return file


def found() -> str:
    """Return where promtool is; without it, skip. `make test` makes it before the unit tests."""
    installed = shutil.which("promtool")
    built = None if installed else locate().get("promtool")
    return installed or (
        str(built.path) if built else pytest.skip("promtool is not there: python -m sandbox.toolchain")
    )


def run(promtool: str | Path, *arguments: str | Path) -> str:
    """Return what promtool says, or fail with it."""
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def play(promtool: str | Path, suite: Path, folder: Path, of: Settings) -> str:
    """Play a suite against the rules of these settings."""
    write_rules(folder, of)
    return run(promtool, "test", "rules", shutil.copy(suite, folder))
