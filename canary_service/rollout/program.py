"""Runs a project's program for the engine, over and over, in processes that have loaded its modules already.

Run by the project's own Python as `python -P program.py FOLDER`. For each line `run` on standard input it forks a
process that serves one update, and writes the port on 127.0.0.1 where the engine finds it (`pulumi up --client`);
`end` ends that process, and the end of standard input everything.

Why processes (docs/adr/0012-engine-in-process.md): a program waits for pods in threads, which nothing can end but the
end of their process; and it starts from what it loaded, not from what an update before it left behind.
"""

import ast
import os
import runpy
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

import grpc  # type: ignore[import-untyped]  # it has no types
from pulumi.automation import _server
from pulumi.runtime.proto import language_pb2_grpc

_LOOK_SECONDS: Final = 1.0
_MESSAGE_BYTES: Final = 400 * 1024 * 1024
"""What the engine allows itself (pulumi.automation._stack): a whole configuration goes through one message."""


def main(folder: Path) -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the engine gets it too, and is the one to end
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    program = folder / "__main__.py"
    for name in _imported(program):
        with suppress(Exception):  # the program itself will tell
            import_module(name)
    child = 0
    try:
        for line in sys.stdin:
            _end(child)
            child = _forked(program) if line.strip() == "run" else 0
    finally:
        _end(child)


def _imported(program: Path) -> Iterator[str]:
    with suppress(OSError, SyntaxError, ValueError):
        for node in ast.parse(program.read_bytes()).body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module


def _forked(program: Path) -> int:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            _serve(program, parent)
        finally:
            os._exit(1)
    return child


def _serve(program: Path, parent: int) -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # what the program prints is not part of what the command prints
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limits = [(f"grpc.max_{way}_message_length", _MESSAGE_BYTES) for way in ("send", "receive")]
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=limits)

    def run() -> None:
        runpy.run_path(str(program), run_name="__main__")

    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(_server.LanguageServer(run), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    os.write(answers, f"{port}\n".encode())
    os.close(answers)
    while os.getppid() == parent:  # which ends this process, unless it is killed itself
        server.wait_for_termination(_LOOK_SECONDS)


def _end(child: int) -> None:
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
