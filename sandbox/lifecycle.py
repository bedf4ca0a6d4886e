"""Starting, finding and ending sandboxes from Python."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import psutil

from sandbox.environment import environment, install_tools
from sandbox.errors import SandboxBusyError, SandboxError
from sandbox.state import StateFolder
from sandbox.supervisor import ACCEPTED
from sandbox.toolchain.ensure import Toolchain

_STOP_TIMEOUT_SECONDS = 30
_open_orders: list[IO[bytes]] = []
"""Kept open for as long as this process lives, for the sandboxes that end with it."""
_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that is up.

    `environment` is complete, for use as a subprocess's: this process's own one, in which pulumi, kubectl and uv
    are the sandbox's and reach it. `envoy_url` and `envoy_admin_url` are of use where the toolchain has Envoy Gateway.
    """

    state: Path
    kubeconfig: Path
    proxy_url: str
    proxy_admin_url: str
    prometheus_url: str
    environment: Mapping[str, str]
    envoy_url: str = ""
    envoy_admin_url: str = ""


def start(state: Path, toolchain: Toolchain, report: Callable[[str], None], *, outlive_starter: bool = True) -> Sandbox:
    """Start a sandbox in a state folder, or find the one that is up there.

    Each step is reported as it begins. Whatever ends this call early, an exception or the end of this process,
    ends what was started and removes it. Unless it is to `outlive_starter`, the end of this process does so later,
    too, however it ends.

    Raises:
        SandboxBusyError: another process is starting or ending the sandbox of this folder.
        SandboxError: it could not be started; the message says why.

    """
    folder = StateFolder(state.absolute())
    if any(character.isspace() for character in str(folder.root)):
        # kwokctl writes its paths into command lines and splits them there.
        raise SandboxError(
            f"The sandbox's folder {folder.root} has a space in its path; choose another with --state DIR."
        )
    lock = folder.claim()
    if lock is None:
        sandbox = running(state)
        if sandbox is None:
            raise SandboxBusyError(f"The sandbox in {state} is being started or ended; try again in some seconds.")
        return sandbox
    try:
        folder.logs.mkdir()
        install_tools(folder, toolchain)
        orders = _launch(folder, toolchain, lock, report)
        if outlive_starter:
            with orders:
                orders.write(ACCEPTED)
        else:
            _open_orders.append(orders)
        sandbox = _read(folder)
    except BaseException:
        os.close(lock)
        supervisor = folder.supervisor()
        if supervisor:
            _end(supervisor)
        folder.clear_when_free()
        raise
    os.close(lock)
    return sandbox


def stop(state: Path) -> bool:
    """End the sandbox of a state folder and remove the folder; return whether one was up.

    What a killed sandbox left in the folder is removed too.

    Raises:
        SandboxBusyError: the sandbox is just being started.
        SandboxError: it did not end, or the folder is not a sandbox's.

    """
    folder = StateFolder(state.absolute())
    supervisor = folder.holder()
    if supervisor == 0:
        raise SandboxBusyError(f"The sandbox in {state} is just being started; try again in some seconds.")
    if supervisor is not None:
        _end(supervisor)
    _end_plugins(folder)
    if folder.root.exists():
        lock = folder.claim()
        if lock is not None:
            folder.clear()
            os.close(lock)
    return supervisor is not None


def _end_plugins(folder: StateFolder) -> None:
    """End what an engine that was killed has left: its plugins notice that only after minutes."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"]
        if command and command[0].startswith(f"{folder.pulumi_home}{os.sep}"):
            with contextlib.suppress(psutil.Error):
                process.kill()


def running(state: Path) -> Sandbox | None:
    """Return the sandbox that is up in a state folder, if any."""
    folder = StateFolder(state.absolute())
    if folder.holder() is None:
        return None
    try:
        return _read(folder)
    except FileNotFoundError:
        return None  # starting, or ending


def _read(folder: StateFolder) -> Sandbox:
    addresses = json.loads(folder.record.read_text(encoding="utf-8"))
    proxy_url, prometheus_url = addresses["proxy_url"], addresses["prometheus_url"]
    return Sandbox(
        state=folder.root,
        kubeconfig=folder.kubeconfig,
        proxy_url=proxy_url,
        proxy_admin_url=addresses["proxy_admin_url"],
        prometheus_url=prometheus_url,
        environment=environment(folder, proxy_url, prometheus_url),
        envoy_url=addresses.get("envoy_url", ""),
        envoy_admin_url=addresses.get("envoy_admin_url", ""),
    )


def _launch(folder: StateFolder, toolchain: Toolchain, lock: int, report: Callable[[str], None]) -> IO[bytes]:
    """Start the supervisor and return, once everything is up, the pipe with whose end the sandbox ends."""
    order = {
        "state": str(folder.root),
        "lock": lock,
        "toolchain": {name: str(value) for name, value in asdict(toolchain).items() if value},
    }
    reading, writing = os.pipe()
    with contextlib.ExitStack() as unless_up, (folder.logs / "supervisor.log").open("w+", errors="replace") as log:
        orders = unless_up.enter_context(os.fdopen(writing, "wb", buffering=0))
        with (
            os.fdopen(reading, "rb") as received,
            subprocess.Popen(
                [sys.executable, "-m", "sandbox.supervisor"],
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(_CHECKOUT)},
                stdin=received,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches this process only, which then decides
                pass_fds=[lock],
            ) as process,
        ):
            orders.write(json.dumps(order).encode() + b"\n")
            failure = None
            for line in cast("IO[bytes]", process.stdout):  # ends with the supervisor, when nothing is left
                message = json.loads(line)
                if "ready" in message:
                    unless_up.pop_all()
                    return orders
                failure = message.get("failed", failure)
                if "progress" in message:
                    report(message["progress"])
        log.seek(0)
        raise SandboxError(failure or f"The sandbox was ended while it was starting. {log.read()}".rstrip())


def _end(supervisor: int) -> None:
    try:
        process = os.pidfd_open(supervisor)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _STOP_TIMEOUT_SECONDS)[0]:
            raise SandboxError(
                f"The sandbox did not end within {_STOP_TIMEOUT_SECONDS} seconds of SIGTERM to process {supervisor}."
            )
    finally:
        os.close(process)
