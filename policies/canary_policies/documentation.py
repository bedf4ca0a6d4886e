"""The page that lists every rule: run `python -m canary_policies.documentation > PAGE` in the pack's folder."""

import json
import sys
from collections.abc import Iterator

from canary_policies.catalog import RULES
from canary_policies.rule import ResourceRule, Rule

_TOP = """\
# Policies

Made from the rules by `cd policies && python -m canary_policies.documentation > ../docs/policies.md`. How to
switch the pack on, and how a limit is lifted: [policies/README.md](../policies/README.md).

A rule of scope *object* reads one object, and an update stops before it is made. One of scope *stack* compares
several: a preview fails, but an update has made them when it speaks, so preview first. *disabled* rules run when the
configuration of the pack says `mandatory` or `advisory`. What a preview does not know yet is not judged, and hides
nothing that it does know.
"""


def page() -> str:
    """Return the page, in Markdown."""
    return "\n".join([_TOP, *_table(), "", "## Each rule", "", *(line for rule in RULES for line in _section(rule))])


def _table() -> Iterator[str]:
    yield "| rule | scope | unless configured | why |"
    yield "|---|---|---|---|"
    for rule in RULES:
        yield f"| [{rule.name}](#{rule.name}) | {_scope(rule)} | {rule.severity} | {rule.why} |"


def _section(rule: Rule) -> Iterator[str]:
    yield f"### {rule.name}"
    yield f"{rule.why}."
    yield ""
    yield f"Reads {', '.join(sorted(rule.kinds))}. Fix: {rule.fix}."
    yield ""
    for option, schema in rule.options.items():
        yield f"- `{option}` ({schema['type']}, default `{json.dumps(schema['default'])}`): {schema['description']}"
    if rule.options:
        yield ""


def _scope(rule: Rule) -> str:
    return "object" if isinstance(rule, ResourceRule) else "stack"


if __name__ == "__main__":
    sys.stdout.write(page().rstrip() + "\n")
