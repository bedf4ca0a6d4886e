"""What `canary doctor` found, as plain text. No I/O."""

from collections.abc import Iterator, Sequence
from typing import Final

from canary_service.rollout.diagnosis import Diagnosis, Examination, State

_TITLES: Final[dict[State, str]] = {"problem": "Problems", "advice": "Advice", "unknown": "Not known"}
_STACK: Final = "stack"


def headline(found: Examination) -> str:
    """Return the answer in one line."""
    problems, unknown, advice, fine = (len(found.having(state)) for state in ("problem", "unknown", "advice", "ok"))
    parts = [_count(problems, "problem") if problems else "no problem found"]
    parts += [f"{unknown} not known"] if unknown else []
    parts += [f"{advice} to consider"] if advice else []
    return f"{found.stack}: {', '.join(parts)}; {_count(fine, 'check')} ok"


def render(found: Examination, *, everything: bool) -> str:
    """Return problems first, each with where it is seen and its fix; what is ok only on demand."""
    return "\n".join(_lines(found, everything=everything)) + "\n"


def _lines(found: Examination, *, everything: bool) -> Iterator[str]:
    yield headline(found)
    for state, title in _TITLES.items():
        alike: dict[tuple[str, str, str], list[Diagnosis]] = {}
        for each in found.having(state):
            alike.setdefault((each.check, each.cause, each.fix), []).append(each)
        if alike:
            yield from ("", title)
        for diagnoses in alike.values():
            yield from _diagnosis(diagnoses)
    if everything:
        yield from ("", "Ok")
        fine: dict[str, list[str]] = {}
        for each in found.having("ok"):
            fine.setdefault(each.check, []).append(each.service or _STACK)
        yield from (f"  {check}: {', '.join(services)}" for check, services in fine.items())


def _diagnosis(alike: Sequence[Diagnosis]) -> Iterator[str]:
    first = alike[0]
    yield f"  {', '.join(each.service or _STACK for each in alike)}: {first.cause} ({first.check})"
    for seen in dict.fromkeys(seen for each in alike for seen in each.evidence):
        where = " ".join(filter(None, (seen.object, seen.field)))
        begin, *more = seen.value.splitlines() or [""]
        # One line as it is; several, as of a log, below.
        yield f"    seen: {where}: {begin}" if not more else f"    seen: {where}:"
        yield from (f"      {line}" for line in (begin, *more) if more)
    yield f"    fix:  {first.fix}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
