"""Which of the user's settings reach the builds, asked of the real `go`."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.toolchain import cache, golang
from sandbox.toolchain.catalog import CATALOG

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")

_BUILD = {
    "GOAMD64": "v3",
    "GOARCH": "riscv64",
    "GOARM64": "v9.0",
    "GOEXPERIMENT": "nogreenteagc",
    "GOFIPS140": "latest",
    "GOOS": "windows",
}
_FETCHING = {"GOPROXY": "https://proxy.example", "GOPRIVATE": "private.example", "GOSUMDB": "off"}


def _seen_by_builds(folder: Path) -> dict[str, str]:
    (folder / "go.mod").write_text("module example\n\ngo 1.21.0\n")
    module = replace(CATALOG[0], folder=folder)
    cache.copy_sources(module)
    output = golang.run(["env", "-json", *_BUILD, *_FETCHING], module, "a step", lambda: None)
    settings: dict[str, str] = json.loads(output)
    return settings


@pytest.mark.parametrize("written", [True, False], ids=["go env -w", "environment"])
def test_settings_that_change_binaries_are_ignored_and_those_of_downloads_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (*_BUILD, *_FETCHING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOENV", "off")
    default = _seen_by_builds(own)
    assert not _BUILD.items() & default.items()
    if written:
        settings = tmp_path / "env"
        settings.write_text("".join(f"{name}={value}\n" for name, value in (_BUILD | _FETCHING).items()))
        monkeypatch.setenv("GOENV", os.fspath(settings))
    else:
        for name, value in (_BUILD | _FETCHING).items():
            monkeypatch.setenv(name, value)

    seen = _seen_by_builds(own)

    assert seen == default | _FETCHING
