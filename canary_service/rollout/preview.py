"""Runs `pulumi preview` and reads what the engine said."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from canary_service.rollout.engine import EngineError, run
from canary_service.rollout.engine_events import EventStream, read

__all__ = ["EngineError", "Preview", "decrypted", "preview", "selected_stack"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a preview said, and whether it failed."""

    stream: EventStream
    failed: bool


def preview(
    folder: Path,
    options: Sequence[str],
    tick: Callable[[int], object],
) -> Preview:
    """Run `pulumi preview` in a project's folder.

    Args:
        folder: where Pulumi.yaml is.
        options: further options, such as the stack.
        tick: called several times a second with the number of resources compared so far.

    Raises:
        EngineError: it ended before the program ran.
    """
    with tempfile.TemporaryDirectory(prefix="canary-plan-") as temporary:
        log = Path(temporary) / "events"
        log.touch()
        # The digest of `--json` leaves out what policies say; the event log, as the Automation API reads it, does not.
        command = ["preview", "--event-log", str(log), *options]
        ended = run(folder, command, lambda: tick(_compared(log)), PULUMI_DEBUG_COMMANDS="true")
        stream = read(log.read_text(encoding="utf-8").splitlines(keepends=True))
    if stream.config is None:
        message = ended.message or f"`pulumi preview` ended with exit code {ended.code}"
        raise EngineError(message, usage=ended.usage)
    return Preview(stream, failed=ended.code != 0)


def selected_stack(folder: Path) -> str:
    """Return the name of the stack that is selected in a project's folder.

    Raises:
        EngineError: there is none.
    """
    ended = run(folder, ["stack", "--show-name"])
    if ended.code:
        raise EngineError(ended.message, usage=ended.usage)
    return ended.output.strip()


def decrypted(folder: Path, options: Sequence[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Return the stack's configuration in plain text, each key with its namespace, and the keys that hold a secret.

    Raises:
        EngineError: it cannot be read.
    """
    ended = run(folder, ["config", "--json", "--show-secrets", *options])
    if ended.code:
        raise EngineError(ended.message, usage=ended.usage)
    entries = json.loads(ended.output)
    values = {key: entry.get("value", "") for key, entry in entries.items()}
    return values, frozenset(key for key, entry in entries.items() if entry.get("secret"))


def _compared(log: Path) -> int:
    return log.read_bytes().count(b'"resourcePreEvent"')
