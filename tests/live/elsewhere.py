"""Programs outside the checkout: a wheel, environments that have it, and the package's plugin in one of them."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.stack import CHECKOUT, StackCopy

EXAMPLES = CHECKOUT / "docs/examples/package"
COMPONENTS = CHECKOUT / "components"


@dataclass(frozen=True)
class Elsewhere:
    """A folder with the wheel, the plugin beside projects of programs, and the environment of all commands."""

    folder: Path
    wheel: Path
    environment: Mapping[str, str]

    @staticmethod
    def create(folder: Path, environment: Mapping[str, str]) -> "Elsewhere":
        """Build the wheel, and install it for the plugin."""
        _run(environment, "uv", "build", "--offline", "--wheel", "--out-dir", folder / "dist", CHECKOUT)
        (wheel,) = (folder / "dist").glob("*.whl")
        made = Elsewhere(folder, wheel, environment)
        shutil.copytree(COMPONENTS, folder / "components")
        # In the checkout the plugin takes the folder above it, which is here that of the wheel.
        (folder / "components" / "requirements.txt").write_text(f"{wheel}\n")
        made.install(folder / "components" / "venv")
        return made

    def install(self, virtualenv: Path) -> Path:
        """Make an environment of the wheel, and return where its packages are.

        What the wheel depends on is the checkout's, so that nothing has to be fetched.
        """
        _run(self.environment, sys.executable, "-m", "venv", "--without-pip", virtualenv)
        packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(virtualenv)}))
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        python = virtualenv / "bin" / "python"
        _run(self.environment, "uv", "pip", "install", "--offline", "--no-deps", "--python", python, self.wheel)
        return packages

    def project(self, name: str, source: Path) -> StackCopy:
        """Make a project of a program, with an environment and a stack of its own."""
        folder = self.folder / name
        shutil.copytree(source, folder)
        self.install(folder / "venv")
        return StackCopy.initialise(folder, "test", self.environment)


def _run(environment: Mapping[str, str], *command: str | Path) -> None:
    subprocess.run(command, env=dict(environment), check=True, capture_output=True, text=True)
