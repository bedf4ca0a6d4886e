"""`canary` as a user runs it on a scene's stack."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from demo.stack import CHECKOUT
from tests.live.scene import Scene


def _command(scene: Scene, *arguments: str) -> list[str]:
    command, *options = arguments
    return [str(CHECKOUT / "canary_service" / "cli" / "canary"), command, "--stack", scene.stack.name, *options]


def run(scene: Scene, *arguments: str, exit_code: int = 0, errors: bool = False) -> str:
    """Run a command that has to end with this exit code; return what it printed, or what it wrote as errors."""
    done = subprocess.run(
        _command(scene, *arguments),
        cwd=scene.stack.folder,
        env=dict(scene.stack.environment),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == exit_code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr if errors else done.stdout


@contextmanager
def running(scene: Scene, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command meanwhile; it is ended afterwards."""
    with subprocess.Popen(
        _command(scene, *arguments),
        cwd=scene.stack.folder,
        env=dict(scene.stack.environment),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
