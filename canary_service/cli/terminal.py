"""A person at the terminal, who may be asked while something goes on."""

import select
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Self

import click

from canary_service.rollout.attention import STOP


class Terminal:
    """Puts questions on standard error and takes answers from standard input, without waiting for them.

    When it is left, a question that nobody has answered is over.

    Args:
        paused: leaves the terminal alone meanwhile.
    """

    def __init__(self, paused: Callable[[], AbstractContextManager[None]]) -> None:
        self._paused = paused
        self._quiet = ExitStack()
        self._question = ""
        self._answers: Sequence[str] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave_line()
        self._quiet.close()

    @property
    def present(self) -> bool:
        """Whether somebody can read a question and answer it."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def ask(self, question: str, answers: Sequence[str]) -> None:
        """Put a question; each answer can be given by its first letter."""
        if not self._question:
            self._quiet.enter_context(self._paused())
        self._leave_line()
        self._answers = answers
        self._question = f"{question} {', '.join(f'[{each[0]}]{each[1:]}' for each in answers)}: "
        click.echo(self._question, err=True, nl=False)

    def answer(self) -> str | None:
        """Return the answer as soon as there is one; the end of the input is one, too: stop."""
        readable, _, _ = select.select([sys.stdin], [], [], 0)
        if not readable:
            return None
        line = sys.stdin.readline()
        given = line.strip().lower()
        chosen = next((each for each in self._answers if given and each.startswith(given)), None)
        if not line:  # nobody is there any more
            chosen = STOP
        if chosen is None:
            click.echo(self._question, err=True, nl=False)
        else:
            if not line:
                self._leave_line()
            self._question = ""
            self._quiet.close()
        return chosen

    def _leave_line(self) -> None:
        """Begin a new line after a question that has no answer: what comes next is not to be joined to it."""
        if self._question:
            click.echo(err=True)
        self._question = ""
