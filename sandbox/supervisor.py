"""The two processes that hold a sandbox; whichever of them dies, the kernel takes everything else along.

The outer one is started by `sandbox.lifecycle`. It listens on the host's loopback, enters new namespaces and
forks the inner one, PID 1 of the new PID namespace, which runs everything. With PID 1 the kernel ends every
process of its namespace, and with the last process it ends the namespaces; PID 1 itself dies with the outer
process. The outer one waits for that end and removes the state folder.
"""

import asyncio
import contextlib
import json
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from sandbox.components import Components
from sandbox.errors import SandboxError
from sandbox.network import bring_up, die_with_parent, isolate, listen
from sandbox.state import StateFolder

ACCEPTED = b"accepted\n"
"""What the starter writes once it has seen the sandbox ready; from then on the sandbox outlives it."""

_PREFERRED_PORTS = {"api": 16443, "proxy": 18080, "proxy-admin": 19080, "prometheus": 19090}
_ENVOY_PORTS = {"envoy": 18180, "envoy-admin": 19180}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Run the outer process. Standard input begins with a line of JSON: state folder, lock, toolchain.

    Standard output gets lines of JSON: `progress`, then `ready` or `failed`. Until ACCEPTED comes in, the end of
    standard input means that the starter has gone, and ends the sandbox.
    """
    if os.fork():
        os._exit(0)  # the sandbox is nobody's child, so that its end leaves no zombie with the starter
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until there is something that they can end
    line = _read_line(sys.stdin.fileno())
    if not line:
        return 0  # the starter was broken off before it had ordered anything
    order = json.loads(line)
    state = StateFolder(Path(order["state"]))
    os.set_inheritable(order["lock"], False)  # noqa: FBT003  it takes no keyword
    os.write(order["lock"], str(os.getpid()).encode())
    ports = _PREFERRED_PORTS | (_ENVOY_PORTS if "envoy_gateway" in order["toolchain"] else {})
    inner = 0
    try:
        listeners = {name: listen(port) for name, port in ports.items()}
        isolate()
        outer = os.pidfd_open(os.getpid())
        inner = os.fork()
        if inner == 0:
            _run_inner(outer, state, order["toolchain"], listeners)
        _wait(inner)
    except SandboxError as error:
        _tell(failed=str(error))
        return 1
    finally:
        if inner:
            os.kill(inner, signal.SIGKILL)
            os.waitpid(inner, 0)  # returns when every process of the namespace has ended
        state.clear()
    return 0


def _wait(inner: int) -> None:
    """Return when the inner process has ended, on a signal, or when the starter goes before it has accepted."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        os.kill(inner, signal.SIGKILL)

    for number in _SIGNALS:
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    ended = os.pidfd_open(inner)
    starter = sys.stdin.fileno()
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(starter, select.POLLIN)
    while True:
        ready = {file for file, _ in waiting.poll()}
        if ended in ready:
            return
        if os.read(starter, len(ACCEPTED)) != ACCEPTED:
            return
        waiting.unregister(starter)


def _run_inner(
    outer: int, state: StateFolder, toolchain: Mapping[str, str], listeners: Mapping[str, socket.socket]
) -> NoReturn:
    die_with_parent(signal.SIGKILL)
    if select.select([outer], [], [], 0)[0]:
        os._exit(1)  # it died before the kernel was told
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # which for PID 1 means none of them
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    try:
        bring_up()
        asyncio.run(_run_components(state, toolchain, listeners))
    except SandboxError as error:
        _tell(failed=str(error))
    except BaseException as error:  # noqa: BLE001  the last line of defence: whatever it is, the starter is told
        _tell(failed=f"The sandbox ended with an unexpected error: {error!r}")
    finally:
        os._exit(1)


async def _run_components(
    state: StateFolder, toolchain: Mapping[str, str], listeners: Mapping[str, socket.socket]
) -> None:
    components = Components(state, toolchain, listeners)
    await components.start(lambda step: _tell(progress=step))
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    urls = {f"{name.replace('-', '_')}_url": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    state.write_record(urls | {"api_url": f"https://127.0.0.1:{ports['api']}"})
    _tell(ready=True)
    await components.keep()


def _read_line(file: int) -> bytes:
    """Read one line and not a byte more, which a buffer would keep from `select`."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(file, 1)):
        line += byte
    return line


def _tell(**message: str | bool) -> None:
    with contextlib.suppress(BrokenPipeError):  # the starter has gone; _wait notices
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
