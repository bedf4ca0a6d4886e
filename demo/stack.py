"""A stack of the checkout's program with a configuration and a backend of its own, driven by the real CLI."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from canary_service.config.loader import load
from canary_service.config.settings import Settings
from sandbox.toolchain import process

CHECKOUT = Path(__file__).resolve().parents[1]

CONFIGURATION = Path(__file__).parent / "Pulumi.dev.yaml"
"""What stack dev is shipped with: the user's own Pulumi.dev.yaml is the user's to change."""

_SHOWN_LINES = 40

# What the engine and the uv toolchain read of the checkout.
_PROGRAM = (
    ".venv",
    "__main__.py",
    "canary_service",
    "pyproject.toml",
    "uv.lock",
)


class StackError(Exception):
    """The CLI failed; the message holds what it printed. A retry helps when the reason it names has gone."""


@dataclass(frozen=True)
class StackCopy:
    """A project folder that links to the checkout's program and holds copies of its configuration.

    The checkout itself stays as it is. `environment` is that of every command.
    """

    folder: Path
    name: str
    environment: Mapping[str, str]

    @staticmethod
    def create(folder: Path, name: str, environment: Mapping[str, str]) -> "StackCopy":
        """Make the folder and the stack, both new.

        Raises:
            StackError: the stack could not be made.
        """
        folder.mkdir(parents=True)
        for part in _PROGRAM:
            (folder / part).symlink_to(CHECKOUT / part)
        shutil.copyfile(CHECKOUT / "Pulumi.yaml", folder / "Pulumi.yaml")
        shutil.copyfile(CONFIGURATION, folder / f"Pulumi.{name}.yaml")
        return StackCopy.initialise(folder, name, environment)

    @staticmethod
    def initialise(folder: Path, name: str, environment: Mapping[str, str]) -> "StackCopy":
        """Make a stack, with a backend of its own, of the project that a folder holds.

        Raises:
            StackError: the stack could not be made.
        """
        backend = folder / "backend"
        backend.mkdir()
        stack = StackCopy(folder, name, dict(environment) | {"PULUMI_BACKEND_URL": f"file://{backend}"})
        stack.run("stack", "init", name)
        return stack

    def run(self, *arguments: str) -> str:
        """Run a command of the CLI and return what it printed; however this is left, the command ends.

        Raises:
            StackError: the command failed.
        """
        command = ["pulumi", "--non-interactive", "--color", "never", *arguments]
        done = process.run(
            command,
            folder=self.folder,
            environment={**self.environment, "PULUMI_STACK": self.name},
            tick=lambda: None,
        )
        if done.code:
            reason = _reason(f"{done.output}\n{done.errors}")
            raise StackError(f"`{' '.join(command)}` failed with exit code {done.code}:\n{reason}")
        return done.output

    def set(self, key: str, value: str) -> None:
        """Set a configuration value; a key with dots is a path."""
        self.run("config", "set", *(["--path"] if "." in key else []), key, value)

    def remove(self, key: str) -> None:
        """Remove a configuration value; a key with dots is a path."""
        self.run("config", "rm", *(["--path"] if "." in key else []), key)

    def up(self) -> float:
        """Run `pulumi up` and return how long it took, in seconds.

        Raises:
            StackError: the update failed.
        """
        started = time.monotonic()
        self.run("up", "--yes", "--skip-preview")
        return time.monotonic() - started

    def preview(self) -> dict[str, Any]:
        """Return what `pulumi preview --json` says.

        Raises:
            StackError: the preview failed.
        """
        digest: dict[str, Any] = json.loads(self.run("preview", "--json"))
        return digest

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs."""
        outputs: dict[str, Any] = json.loads(self.run("stack", "output", "--json"))
        return outputs

    def settings(self) -> Settings:
        """Return the configuration as the program sees it, without the defaults of Pulumi.yaml.

        Raises:
            config.loader.ConfigError: the configuration cannot be used.
        """
        text = (self.folder / f"Pulumi.{self.name}.yaml").read_text(encoding="utf-8")
        project = yaml.safe_load((self.folder / "Pulumi.yaml").read_text(encoding="utf-8"))["name"]
        own = f"{project}:"
        config = yaml.safe_load(text)["config"].items()
        values = {key.removeprefix(own): value for key, value in config if key.startswith(own)}
        return load({key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()})


def _reason(output: str) -> str:
    """Return the part of the CLI's output that says why it failed."""
    _, _, diagnostics = output.partition("\nDiagnostics:\n")
    if diagnostics:
        return diagnostics.partition("\nOutputs:\n")[0].partition("\nResources:\n")[0]
    return "\n".join(output.splitlines()[-_SHOWN_LINES:])
