"""A machine of its own for a test: empty PATH, home and caches, and whatever programs the test puts on it."""

import sys
from pathlib import Path
from typing import Self

import pytest

from sandbox.toolchain.catalog import CATALOG, LANGUAGE_HOST, PROVIDER, PULUMI

# Answers as the real command does. It takes orders from files in $GO: `settings` (of `go env`), `fails-<package>`
# (what to write to standard error before failing) and `hangs` (the package at which to write half a program, tell
# so in `hanging` and go on for ever, with a child). It notes its calls in `calls`.
_GO = """
echo "$*" >> "$GO/calls"
for package; do :; done
name=${package##*/}
if [ "$1" = list ] || [ "$1" = build ]; then
    if [ -e "$GO/fails-$name" ]; then /bin/cat "$GO/fails-$name" >&2; exit 1; fi
fi
case "$1" in
env) /bin/cat "$GO/settings" ;;
mod) echo "{\\"Dir\\": \\"$GO/dependency\\"}" ;;
build | test)
    while [ "$1" != -o ]; do shift; done
    echo '#!/bin/sh' > "$2"
    if [ -e "$GO/hangs" ] && [ "$(/bin/cat "$GO/hangs")" = "$name" ]; then
        /bin/sleep 600 &
        echo "$$ $!" > "$GO/started" && /bin/mv "$GO/started" "$GO/hanging"
        wait
    fi
    echo "echo built" >> "$2" ;;
esac
"""


class Machine:
    """Puts programs on the machine; `go` is there, recent, and succeeds until told otherwise."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.bin = root / "bin"
        self.go = root / "go"
        self.plugins = root / "pulumi" / "plugins"
        self.cache = root / "cache" / "canary-service" / "toolchain"
        dependency = self.go / "dependency"
        for module_file in (
            "python/cmd/pulumi-language-python-exec",
            "cmd/pulumi-resource-kubernetes/schema.json",
            "cmd/pulumi-resource-kubernetes/terraform-mapping.json",
            *(file.path for module in CATALOG for file in module.files),
        ):
            (dependency / module_file).parent.mkdir(parents=True, exist_ok=True)
            (dependency / module_file).touch(mode=0o444)
        self.settings("go1.26.8", "local")
        self.program(self.bin / "go", _GO)
        for name in ("envoy", "traefik", "uv"):
            self.program(root / "venv" / "bin" / name, "exit 1")
        monkeypatch.setattr(sys, "prefix", str(root / "venv"))
        self.environment = {
            "GO": str(self.go),
            "HOME": str(root),
            "PATH": str(self.bin),
            "PULUMI_HOME": str(root / "pulumi"),
            "XDG_CACHE_HOME": str(root / "cache"),
        }
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def program(self, path: Path, script: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def install(self, name: str, says: str) -> Path:
        return self.program(self.bin / name, f"echo '{says}'")

    def install_pulumi(self, version: str = f"v{PULUMI.pin.version}") -> Path:
        self.program(self.bin / LANGUAGE_HOST.name, "exit 1")
        self.program(self.bin / f"{LANGUAGE_HOST.name}-exec", "exit 1")
        return self.install(PULUMI.name, version)

    def install_provider(self, version: str = PROVIDER.pin.version) -> Path:
        return self.program(self.plugins / f"resource-kubernetes-v{version}" / PROVIDER.name, "exit 1").parent

    def settings(self, version: str, toolchain: str) -> Self:
        (self.go / "settings").write_text(f'{{"GOVERSION": "{version}", "GOTOOLCHAIN": "{toolchain}"}}')
        return self

    def fail(self, package: str, output: str) -> None:
        (self.go / f"fails-{package}").write_text(output)

    def hang(self, package: str) -> None:
        (self.go / "hangs").write_text(package)

    def go_on(self) -> None:
        for order in self.go.iterdir():
            if order.name.startswith(("fails-", "hang")):
                order.unlink()

    def built(self) -> list[str]:
        """Names of the packages for which `go build` was called since the last time."""
        calls = self.go / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return [line.rpartition("/")[2].rpartition(" ")[2] for line in lines if line.startswith("build ")]


def alive(process: int) -> bool:
    """Whether a process still does something: one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
