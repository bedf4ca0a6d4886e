"""`canary` as somebody calls it, in the process of a test."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from canary_service.cli.main import main


@dataclass
class Result:
    code: int | str | None
    out: str
    err: str


@dataclass
class Commands:
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> Result:
        """Run `canary` with these arguments."""
        self.monkeypatch.setattr(sys, "argv", ["canary", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return Result(caught.value.code, *self.capsys.readouterr())


@dataclass
class Fake(Commands):
    """Commands with a script for the `pulumi` CLI, which finds its `folder` in the variable FAKE, and no cluster."""

    folder: Path

    def begin(self, script: str, project: str) -> None:
        """Put the script where the CLI is looked for, and make the folder `project` with this Pulumi.yaml."""
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "pulumi").write_text(script)
        (self.folder / "bin" / "pulumi").chmod(0o755)
        (self.folder / "project").mkdir()
        (self.folder / "project" / "Pulumi.yaml").write_text(project)
        self.monkeypatch.setenv("PATH", f"{self.folder / 'bin'}:/usr/bin:/bin")
        self.monkeypatch.setenv("FAKE", str(self.folder))
        self.monkeypatch.setenv("KUBECONFIG", str(self.folder / "none"))
        self.monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        self.monkeypatch.chdir(self.folder / "project")
