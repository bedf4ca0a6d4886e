"""Starting processes and reaping every one that ends, for the process that is PID 1 of the sandbox."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

_LOG_TAIL_LINES = 15


class Processes:
    """The processes of the PID namespace: those started here and the orphans that the kernel hands to PID 1.

    To be made inside PID 1's running event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str],
        listening: Mapping[str, int] | None = None,
    ) -> int:
        """Start a command that appends its output to a log file, and return its process id.

        `listening` hands over sockets by name, as systemd does (sd_listen_fds(3)).
        """
        environment = dict(environment)
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        if listening:
            actions += [(os.POSIX_SPAWN_DUP2, fd, 3 + n) for n, fd in enumerate(listening.values())]
            environment |= {"LISTEN_FDS": str(len(listening)), "LISTEN_FDNAMES": ":".join(listening)}
            # LISTEN_PID must be the id of the process that takes the sockets, known only once it runs.
            command = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', *command]
        argv = [str(part) for part in command]
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions)
        self._exits[pid] = self._loop.create_future()
        return pid

    async def ended(self, pid: int) -> int:
        """Wait for a process to end; a negative exit code is the signal that ended it."""
        return await asyncio.shield(self._exits.setdefault(pid, self._loop.create_future()))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            exited = self._exits.setdefault(pid, self._loop.create_future())
            if not exited.done():
                exited.set_result(os.waitstatus_to_exitcode(status))


def log_tail(log: Path) -> str:
    """Return the last lines of a log file, indented, for an error message."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    except OSError as error:
        lines = [f"(no log: {error.strerror})"]
    return "\n".join(f"    {line}" for line in lines)
