"""Takes secrets out of what leaves this program. No I/O."""

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from canary_service.rollout.engine_events import SECRET
from canary_service.rollout.model import Record

# The engine does not hide shorter ones either, nor these words: they would show up everywhere.
_SHORTEST_SECRET: Final = 3
_NO_SECRETS: Final = frozenset({"true", "false"})

# What a thing is called is no secret: who knows the name would see in its place which one it is.
_NAMES: Final = frozenset(
    {"stack", "run", "name", "check", "service", "services", "object", "kind", "pack", "rule", "key", "gate"}
)

AnyRecord = TypeVar("AnyRecord", bound=Record)


def without(record: AnyRecord, secrets: Iterable[str]) -> AnyRecord:
    """Return a record with none of these texts in it, however they got there."""
    hidden = sorted({text for text in secrets if len(text) >= _SHORTEST_SECRET} - _NO_SECRETS, key=len, reverse=True)
    if not hidden:
        return record
    cleared: AnyRecord = _cleared(record, re.compile("|".join(map(re.escape, hidden))))
    return cleared


def _cleared(part: Any, pattern: re.Pattern[str]) -> Any:  # noqa: ANN401 - a value of any type that a record has
    if isinstance(part, str):
        return pattern.sub(SECRET, part)
    if isinstance(part, tuple):
        return tuple(_cleared(each, pattern) for each in part)
    if isinstance(part, Record):
        # What is one of a few words of ours is no secret.
        fixed = {name for name, known in type(part).model_fields.items() if "Literal" in str(known.annotation)}
        values = {name: getattr(part, name) for name in type(part).model_fields if name not in fixed}
        cleared = {name: _cleared(value, pattern) for name, value in values.items() if not _named(name, value)}
        return part.model_copy(update=cleared)
    return part


def _named(field: str, value: object) -> bool:
    texts = value if isinstance(value, tuple) else (value,)
    return field in _NAMES and all(isinstance(each, str) for each in texts)
