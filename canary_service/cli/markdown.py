"""A plan as a comment on a GitHub pull request. No I/O."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from canary_service.cli import words
from canary_service.cli.text import SIGNS
from canary_service.rollout.plan import Outcome, Plan

LIMIT: Final = 65_536
"""GitHub refuses longer comments. It counts characters; in bytes, which are at least as many, it is safe."""

_ROOM: Final = 200
_LONGEST_LINE: Final = 2_000
_ICONS: Final[dict[Outcome, str]] = {
    "unchanged": ":white_check_mark:",
    "changes": ":twisted_rightwards_arrows:",
    "invalid": ":x:",
    "refused": ":no_entry:",
    "violated": ":no_entry:",
    "failed": ":x:",
}


@dataclass(slots=True)
class _Block:
    """A part of the comment, of which lines may be left out, from the last one on."""

    begin: str
    lines: list[str]
    end: str = ""

    def text(self) -> str:
        return "\n".join([self.begin, *self.lines, self.end])


def marker(stack: str) -> str:
    """Return the hidden first line by which a workflow finds its own comment again."""
    return f"<!-- canary-plan:{stack} -->"


def render(plan: Plan) -> str:
    """Return the comment. It fits: what is too much is left out, objects first, and the last line says so."""
    head = f"{marker(plan.stack)}\n### {_ICONS[plan.outcome]} `{plan.stack}`: {_escaped(words.headline(plan))}\n"
    blocks = [block for block in _blocks(plan) if block.lines]
    size = len(head.encode()) + sum(len(block.text().encode()) + 1 for block in blocks)
    left_out = 0
    while size > LIMIT - _ROOM:
        size -= len(blocks[-1].lines.pop().encode()) + 1
        left_out += 1
        if not blocks[-1].lines:
            size -= len(blocks.pop().text().encode()) + 1
    parts = [head, *(block.text() for block in blocks)]
    if left_out:
        parts.append(
            f"_{left_out} more lines do not fit into a comment: `canary plan --stack {plan.stack}` shows all._"
        )
    return "\n".join(parts).rstrip() + "\n"


def _blocks(plan: Plan) -> Iterator[_Block]:
    """Yield the parts, the most important one first."""
    yield _fenced([*map(words.refusal, plan.refusals), *plan.errors])
    if plan.changed:
        heading, *rows = map(_row, words.table(plan))
        yield _Block(f"{heading}\n{re.sub('[^|]+', '---', heading)}", rows)
    yield _list("Policies", [f"{each.severity}: {_escaped(words.finding(each))}" for each in plan.policies])
    yield _list("Risks", [f"**{each.name}**: {_escaped(risk)}" for each in plan.changed for risk in each.risks])
    yield _list("Warnings", map(_escaped, plan.warnings))
    if plan.outcome != "unchanged":
        yield _list("Not known", map(_escaped, plan.notes))
    facts = [f"**{each.name}**: {_escaped(fact)}" for each in plan.changed for fact in words.facts(each)]
    yield _details("What runs where", facts)
    objects = [
        f"`{SIGNS[each.operation]} {each.kind} {each.name}` {_escaped(words.fields(each))}".rstrip()
        for each in plan.objects
    ]
    yield _details(f"Objects: {words.objects(plan)}", objects)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(title: str, entries: Iterable[str]) -> _Block:
    return _Block(f"**{title}**\n", [f"- {entry}" for entry in entries])


def _details(title: str, entries: Iterable[str]) -> _Block:
    return _Block(f"<details><summary>{title}</summary>\n", [f"- {entry}" for entry in entries], "\n</details>\n")


def _fenced(texts: Iterable[str]) -> _Block:
    lines = [_short(line) for text in texts for line in text.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return _Block(fence, lines, f"{fence}\n")


def _escaped(text: str) -> str:
    """Write what others said so that it reads as it stands: no markup, no HTML, and nobody is mentioned."""
    text = _short(" ".join(text.split()))
    text = re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"(?<!\w)@(?=\w)", "@\u200b", text)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"
