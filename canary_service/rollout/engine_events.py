"""The engine's event stream, read as far as people need it to judge a preview. No I/O."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from canary_service.routing.router import Manifest

SECRET: Final = "[secret]"  # noqa: S105 - what the engine writes in place of one
"""In the configuration that the engine reports, this stands in place of each encrypted value."""

COMPONENT: Final = "canary:index:CanaryService"
STACK: Final = "pulumi:pulumi:Stack"

# How a value that the engine hides is told from a map (sdk/go/common/resource/sig/sig.go).
_SIGNATURE_KEY: Final = "4dabf18193072939515e22adb298388d"

# The engine tells a replacement three times: as a whole, and its two halves.
_HALVES: Final = frozenset({"create-replacement", "delete-replaced"})

# The provider says this of every object, because its own waits are replaced (docs/adr/0003-await.md).
_NOTHING_SAID: Final = frozenset({"", "Skipping await logic", "Found {.metadata.uid}"})

_DOING: Final = {"create": "creating", "update": "updating", "replace": "replacing", "delete": "deleting"}


@dataclass(frozen=True, slots=True)
class Step:
    """What the engine would do to one resource.

    `old` and `new` are its inputs in the state and in the program, None where there is none; what is secret in them is
    `SECRET`. `outputs` are those in the state. `service` is the CanaryService that it belongs to. `fields` are the
    paths that change. `retained` says that it stays in the cluster when the engine lets go of it.
    """

    op: str
    urn: str
    type: str
    custom: bool
    service: str | None = None
    old: Manifest | None = None
    new: Manifest | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    retained: bool = False

    @property
    def kind(self) -> str:
        """The last part of the type: of a Kubernetes object, its kind."""
        return kind_and_name(self.urn)[0]

    @property
    def name(self) -> str:
        """The last part of the URN: of an object of ours, its own name."""
        return kind_and_name(self.urn)[1]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a policy says of a resource, or of the stack as a whole."""

    pack: str
    rule: str
    level: str
    urn: str
    message: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A message of the program, a provider or the engine: `info`, `warning` or `error`, and of which resource."""

    severity: str
    message: str
    urn: str = ""


@dataclass(frozen=True, slots=True)
class EventStream:
    """All that a preview said. `config` is None when it ended before the engine began."""

    config: Mapping[str, str] | None = None
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()


def read(lines: Iterable[str]) -> EventStream:
    """Return the content of an event log, one JSON object a line; a last line that was cut off is left out."""
    config: Mapping[str, str] | None = None
    steps: list[Step] = []
    findings: list[Finding] = []
    diagnostics: list[Diagnostic] = []
    for line in lines:
        if not line.endswith("\n"):
            continue
        event = json.loads(line)
        if prelude := event.get("preludeEvent"):
            config = prelude["config"]
        elif step := event.get("resourcePreEvent"):
            steps.append(_step(step["metadata"]))
        elif violation := event.get("policyEvent"):
            findings.append(_finding(violation))
        elif (said := event.get("diagnosticEvent")) and not said.get("ephemeral") and said["severity"] != "debug":
            severity = said["severity"].partition("#")[0]
            diagnostics.append(Diagnostic(severity, said["message"].strip(), said.get("urn") or ""))
    return EventStream(
        config,
        tuple(step for step in steps if step.op not in _HALVES),
        tuple(findings),
        tuple(dict.fromkeys(diagnostics)),
    )


def progress(line: str) -> Iterator[str]:
    """Yield what a line of an event log says to somebody who waits: what is changed, and how far pods are."""
    event = json.loads(line)
    if (step := event.get("resourcePreEvent")) and (doing := _DOING.get(step["metadata"]["op"])):
        kind, name = kind_and_name(step["metadata"]["urn"])
        yield f"{doing} {kind} {name}"
    elif (said := event.get("diagnosticEvent")) and said["severity"].startswith("info"):
        yield from {said["message"].strip()} - _NOTHING_SAID


def kind_and_name(urn: str) -> tuple[str, str]:
    """Return the last part of a URN's type and its name."""
    _, _, qualified_type, name = urn.split("::", 3)
    return qualified_type.rpartition("$")[2].rpartition(":")[2], name


def encrypted_values(blinded: Mapping[str, str], plain: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts that stand behind `SECRET` in a configuration as the engine reports it.

    Args:
        blinded: the configuration with `SECRET` in place of what is encrypted, as raw strings or JSON.
        plain: the same, decrypted.
    """
    for key, value in blinded.items():
        if SECRET in value:
            yield from _behind(_decoded(value), _decoded(plain.get(key, "")))


def _behind(blinded: object, plain: object) -> Iterator[str]:
    if blinded == SECRET:
        yield from _texts(plain)
    elif isinstance(blinded, dict) and isinstance(plain, dict):
        for key, value in blinded.items():
            yield from _behind(value, plain.get(key))
    elif isinstance(blinded, list) and isinstance(plain, list):
        for each, other in zip(blinded, plain, strict=False):
            yield from _behind(each, other)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)


def _decoded(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _step(metadata: Mapping[str, Any]) -> Step:
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    parent = (new or old).get("parent") or ""
    return Step(
        op=metadata["op"],
        urn=metadata["urn"],
        type=metadata["type"],
        custom=bool((new or old).get("custom")),
        service=kind_and_name(parent)[1] if parent.split("::")[-2:-1] == [COMPONENT] else None,
        old=_visible(old.get("inputs")) if old else None,
        new=_visible(new.get("inputs")) if new else None,
        outputs=_visible(old.get("outputs")) or {},
        fields=tuple(sorted(metadata.get("detailedDiff") or metadata.get("diffs") or ())),
        retained=bool(old.get("retainOnDelete")),
    )


def _finding(violation: Mapping[str, Any]) -> Finding:
    return Finding(
        pack=violation["policyPackName"],
        rule=violation["policyName"],
        level=violation["enforcementLevel"],
        urn=violation.get("resourceUrn") or "",
        message=violation["message"].strip(),
    )


def _visible(value: Any) -> Any:  # noqa: ANN401 - a value of any type that JSON has
    if isinstance(value, dict):
        return SECRET if _SIGNATURE_KEY in value else {key: _visible(each) for key, each in value.items()}
    return [_visible(each) for each in value] if isinstance(value, list) else value
