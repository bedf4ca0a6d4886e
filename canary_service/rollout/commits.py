"""Commits what a run changes in the stack's file, each step by itself."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from canary_service.rollout.event_words import listed
from canary_service.rollout.events import AnyEvent, Finished, Promoted, RolledBack, StepStarted, WeightSet

_SECONDS: Final = 30.0
"""Meanwhile nobody watches the canary."""


class CommitError(Exception):
    """Git did not commit; the message is its own."""


class Commits:
    """A listener of a run that commits the stack's file alone: when a weight in it was read back, and last."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._rolled_back = ""
        self._weights: dict[str, str] = {}
        self._awaited: set[str] = set()

    def __call__(self, event: AnyEvent) -> None:
        """Commit when an event says that what was declared is in force.

        Raises:
            CommitError: git refuses.
        """
        match event:
            case StepStarted():
                self._weights, self._awaited = {}, set(event.services)
            case RolledBack():
                self._rolled_back = f"{listed(event.services)}: canary rolled back"
            case WeightSet(means="update"):
                self._weights[event.service] = f"{event.service}: canary at {event.read_back} %"
                self._awaited.discard(event.service)
                if not self._awaited:
                    self._commit("; ".join(self._weights.values()))
            case Promoted():
                self._commit(f"{listed(event.services)}: canary promoted")
            case Finished():
                self._commit(self._rolled_back or f"canary run: {event.outcome}", event.text)

    def _commit(self, *paragraphs: str) -> None:
        with self._alone():
            self._git("add", "--", self._file.name)
            if self._git("status", "--porcelain", "--", self._file.name):
                message = [part for text in paragraphs if text for part in ("--message", text)]
                self._git("commit", "--quiet", "--only", *message, "--", self._file.name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep out runs of other stacks in this repository meanwhile: git fails where two change its index."""
        place = os.open(self._git("rev-parse", "--absolute-git-dir").rstrip("\n"), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)

    def _git(self, *arguments: str) -> str:
        return _git(self._file, *arguments)


def require_committed(file: Path) -> None:
    """Make sure that the first commit of a run will hold what the run changes in the stack's file, and nothing else.

    Raises:
        CommitError: the file has other changes, or is not git's to keep.
    """
    if _git(file, "status", "--porcelain", "--ignored", "--untracked-files=all", "--", file.name):
        raise CommitError(
            f"{file.name} has changes that are not committed, and --commit would put them into the commit of a step: "
            "commit them before, or leave out --commit"
        )


def _git(file: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the user's own git, as pulumi
            cwd=file.parent,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            process_group=0,  # what is typed on the terminal is the run's to obey
        )
    except OSError as error:
        raise CommitError(f"git cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CommitError(f"{file.name} is not committed: git did not end within {_SECONDS:.0f} s") from error
    if done.returncode:
        reason = done.stderr.strip() or done.stdout.strip()
        raise CommitError(f"{file.name} is not committed: git {arguments[0]}: {reason}")
    return done.stdout
