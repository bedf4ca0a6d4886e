"""What was verified, as text for 80 columns. No I/O."""

from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap
from typing import Final

from canary_service.cli.status_text import WIDTH
from canary_service.rollout.verification import Kind, Outcome, Verification

_MARKS: Final[dict[Outcome, str]] = {"agrees": "ok", "disagrees": "!", "unknown": "?"}
_HEADLINES: Final[dict[Outcome, str]] = {
    "agrees": "requests go where they should",
    "disagrees": "requests do not go where they should",
    "unknown": "too little was counted to tell",
}
_KINDS: Final[dict[Kind, str]] = {
    "read-back": "declared",
    "weight": "by weight",
    "header": "header",
    "other-header-value": "other value",
}


def render(found: Verification) -> str:
    """Return the answer, then each check."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Verification) -> Iterator[str]:
    yield f"{found.stack}: {_HEADLINES[found.outcome]}"
    for name, checks in groupby(found.checks, key=lambda check: check.service):
        yield ""
        yield name
        for check in checks:
            yield from _wrapped(f"  {_MARKS[check.outcome]:<2} {_KINDS[check.kind]:<11}  ", check.text)
    yield ""
    yield from _wrapped("Counted by ", found.counted_by)
    for note in found.notes:
        yield from _wrapped("Note: ", note)


def _wrapped(begin: str, text: str) -> list[str]:
    indent = " " * len(begin)
    return wrap(
        text, WIDTH, initial_indent=begin, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
