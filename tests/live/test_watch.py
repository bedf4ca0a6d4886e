"""`canary watch` without a run says what cluster and Prometheus say, and follows both."""

import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lightkube import Client
from rich.text import Text

from canary_service.routing.nginx import WEIGHT
from demo.stack import CHECKOUT
from sandbox.lifecycle import Sandbox
from tests.live.application import eventually
from tests.live.scene import CANARY, NAME, Scene


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    found = Scene.create(sandbox, cluster, namespace, tmp_path)
    found.deploy(20)
    return found


def watch(scene: Scene, *options: str, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [CHECKOUT / "canary_service" / "cli" / "canary", "watch", "--stack", scene.stack.name, *options],
        cwd=scene.stack.folder,
        env={**scene.stack.environment, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        stdout=output,
        stderr=subprocess.STDOUT,
    )


@contextmanager
def watched(scene: Scene, *options: str) -> Iterator[list[str]]:
    """Watch through a pipe; yield the lines as they come, and end it as a user does."""
    lines: list[str] = []
    with watch(scene, *options, output=subprocess.PIPE) as process:
        assert process.stdout
        output = process.stdout
        thread = threading.Thread(target=lambda: lines.extend(line.decode() for line in output))
        thread.start()
        try:
            yield lines
        finally:
            process.send_signal(signal.SIGINT)
            thread.join()
        assert process.wait() == 0


def of_service(lines: list[str]) -> str:
    """Return what was said of the service last."""
    return next((line for line in reversed(lines) if line.startswith(f"  {NAME}:")), "")


def test_declared_read_back_and_measured_weight_are_told_and_followed(scene: Scene) -> None:
    with scene.traffic(), watched(scene, "--prometheus", scene.sandbox.prometheus_url) as lines:
        eventually(
            # Each pod has to have been scraped twice.
            lambda: re.search(r"20 % declared and read back, .* requests \((19|20|21)\.\d %\)", of_service(lines)),
            120,
        )
        assert re.search(r"errors 0 % \(stable 0 %\); p95|errors 0 % \(stable 0 %\), p95", of_service(lines))

        scene.kubectl("annotate", "--overwrite", "ingress", CANARY, f"{WEIGHT}=90")
        eventually(lambda: "20 % declared, 90 % read back" in of_service(lines))
        scene.configure(weight=50)
        eventually(lambda: "50 % declared, 90 % read back" in of_service(lines))
        scene.up()
        eventually(lambda: "50 % declared and read back" in of_service(lines))


def test_without_prometheus_weights_are_told_and_why_nothing_is_measured(scene: Scene) -> None:
    with watched(scene) as lines:
        eventually(lambda: any("rollout.prometheusUrl is not set" in line for line in lines))

    assert of_service(lines) == f"  {NAME}: 20 % declared and read back\n"


def test_on_a_terminal_there_is_a_table(scene: Scene) -> None:
    ours, theirs = pty.openpty()
    with watch(scene, "--once", output=theirs) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)

    assert process.returncode == 0
    lines = Text.from_ansi(shown.decode().replace("\r\n", "\n")).plain.splitlines()
    assert lines[0].startswith("macromind/dev  no run")
    assert lines[2].split()[:3] == [NAME, "██░░░░░░", "20"]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""
