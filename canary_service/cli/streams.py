"""Standard output and standard error that stop nothing when nobody reads them any more."""

import select
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import BufferedWriter, FileIO, TextIOWrapper, UnsupportedOperation
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer  # which is there for type checkers alone


class _Unfailing(FileIO):
    """Loses what cannot be written: a pipe whose reader has ended, a terminal that was closed, a disk that is full."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
        except OSError:
            return memoryview(data).nbytes
        return written


@contextmanager
def unfailing() -> Iterator[None]:
    """Let nothing that is written to standard output and standard error raise, nor end the process.

    For what has to go on although `| head` or `| tee` has ended: a canary gets requests meanwhile.
    """
    with ExitStack() as open_:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            if other := _unfailing(stream):
                open_.callback(other.flush)
                open_.enter_context(redirect(other))
        yield


def _unfailing(stream: TextIO) -> TextIO | None:
    """Return another stream to the same file; None where there is no file, as in tests."""
    if not isinstance(stream, TextIOWrapper):
        return None
    try:
        file = stream.fileno()
    except UnsupportedOperation:
        return None
    stream.flush()
    return TextIOWrapper(
        BufferedWriter(_Unfailing(file, "w", closefd=False)),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
