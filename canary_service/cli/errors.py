"""What ends a command, besides what click itself finds."""

from typing import IO, Any

import click


class RefusedError(click.UsageError):
    """It cannot be done as things are here, so that how the command is used, as usage errors begin, would not help."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        self.ctx = None  # which is what click takes the usage from
        super().show(file)
