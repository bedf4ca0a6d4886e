"""A plan as plain text. No I/O."""

from collections.abc import Iterable, Iterator
from typing import Final

from canary_service.cli import words
from canary_service.rollout.plan import ObjectPlan, Plan

SIGNS: Final = {"create": "+", "update": "~", "replace": "±", "delete": "-", "release": "o", "restore": "!"}


def render(plan: Plan) -> str:
    """Return the answer first, then what a reviewer has to know, then details."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    yield f"{plan.stack}: {words.headline(plan)}"
    yield from _section("Problems", map(words.refusal, plan.refusals))
    yield from _section("Errors", plan.errors)
    if plan.changed:
        yield ""
        yield from _table(plan)
    yield from _section("Policies", [f"{each.severity}: {words.finding(each)}" for each in plan.policies])
    yield from _section("Risks", [f"{each.name}: {risk}" for each in plan.changed for risk in each.risks])
    yield from _section("Warnings", plan.warnings)
    if plan.outcome != "unchanged":
        yield from _section("Not known", plan.notes)
    for service in plan.changed:
        yield from _section(service.name, words.facts(service))
    if plan.objects:
        yield from _section(f"Objects: {words.objects(plan)}", map(_object, plan.objects))


def _object(found: ObjectPlan) -> str:
    text = f"{SIGNS[found.operation]} {found.kind} {found.name}"
    return f"{text}: {words.fields(found)}" if found.fields else text


def _table(plan: Plan) -> Iterator[str]:
    rows = words.table(plan)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(["", *(cell.ljust(width) for cell, width in zip(row, widths, strict=True))]).rstrip()


def _section(title: str, entries: Iterable[str]) -> Iterator[str]:
    texts = list(entries)
    if texts:
        yield from ("", title)
    for text in texts:
        first, *others = text.splitlines() or [""]
        yield f"  {first}"
        yield from (f"  {line}" for line in others)
