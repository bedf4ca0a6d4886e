"""What the Ingresses of a canary need, to be one.

How ingress-nginx reads them: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary,
and mergeAlternativeBackends in internal/ingress/controller/controller.go (v1.15.1).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from canary_policies.objects import (
    UNKNOWN,
    Object,
    annotation,
    both,
    get,
    mapping,
    members,
    same_namespace,
)
from canary_policies.rule import Config, Finding, ResourceRule, StackRule, not_a_pattern
from canary_policies.weights import ANNOTATION_PREFIX, CANARY

_OTHERS: Final = f"{CANARY}-"
_HEADER: Final = ANNOTATION_PREFIX + "canary-by-header"
_HEADER_VALUE: Final = ANNOTATION_PREFIX + "canary-by-header-value"
_HEADER_PATTERN: Final = ANNOTATION_PREFIX + "canary-by-header-pattern"
_COOKIE: Final = ANNOTATION_PREFIX + "canary-by-cookie"

# internal/ingress/annotations/parser/validators.go (v1.15.1), without the blanks that it overlooks and nothing matches.
_VALUE: Final = re.compile(r"[/\-._~a-zA-Z0-9:]+")
_PATTERN: Final = re.compile(r"[/\-._~a-zA-Z0-9:^$\[\](){}*+?|&=\\]+")
# nginx drops headers with other characters (ignore_invalid_headers), and those with underscores too.
_NAME: Final = re.compile(r"[A-Za-z0-9-]+")


def is_canary(ingress: Object) -> bool | None:
    """Tell whether an Ingress adds a canary to another; None when that is not known."""
    value = annotation(ingress, CANARY)
    return None if value is UNKNOWN else value == "true"


def _conditions(found: Object, _: Config) -> Iterator[str]:
    canary = annotation(found, CANARY)
    others = sorted(key for key in mapping(found.body, "metadata", "annotations") if str(key).startswith(_OTHERS))
    if canary is not UNKNOWN and canary != "true" and (others or canary not in {None, "false"}):
        says = f"{CANARY} is {canary!r}" if canary is not None else f"{CANARY} is missing"
        yield f"{says}, not 'true': it is an ordinary Ingress, whatever {others[0] if others else 'was meant'} says"
    header, value, pattern = (annotation(found, name) for name in (_HEADER, _HEADER_VALUE, _HEADER_PATTERN))
    for name, given in ((_HEADER_VALUE, value), (_HEADER_PATTERN, pattern)):
        if given is not None and not header:
            yield f"{name} has no effect without {_HEADER}"
    if isinstance(value, str) and isinstance(pattern, str):
        yield f"{_HEADER_PATTERN} has no effect beside {_HEADER_VALUE}"
    for name, accepted, characters in (
        (_HEADER, _NAME, "letters, digits and '-'"),
        (_HEADER_VALUE, _VALUE, "letters, digits and '/', '-', '.', '_', '~', ':'"),
        (_COOKIE, _VALUE, "letters, digits and '/', '-', '.', '_', '~', ':'"),
        (_HEADER_PATTERN, _PATTERN, "those of values and of regular expressions, without blanks"),
    ):
        given = annotation(found, name)
        if isinstance(given, str) and not accepted.fullmatch(given):
            yield f"{name} is {given!r}, but the controller takes one or more of {characters} only"
    if isinstance(pattern, str) and not_a_pattern(pattern):
        yield f"{_HEADER_PATTERN} is {pattern!r}, which is no regular expression: header, cookie and weight are ignored"


@dataclass(frozen=True, slots=True)
class _Path:
    """One path of an Ingress, and the Service and port behind it. Each part may be UNKNOWN."""

    ingress: Object
    host: Any
    path: Any
    path_type: Any
    service: Any
    port: Any

    def __str__(self) -> str:
        return f"{self.host or '*'}{self.path} ({self.path_type})"

    def mirrors(self, other: "_Path") -> bool | None:
        """Tell whether the controller would merge the two."""
        return both(
            same_namespace(self.ingress, other.ingress),
            *(_same(one, two) for one, two in zip(self.match(), other.match(), strict=True)),
        )

    def same_backend(self, other: "_Path") -> bool | None:
        """Tell whether both lead to the same port of the same Service: one upstream to the controller."""
        return both(
            same_namespace(self.ingress, other.ingress),
            _same(self.service, other.service),
            _same(self.port, other.port),
        )

    def match(self) -> tuple[Any, Any, Any, Any]:
        """Return what the controller compares, and the class that says which controller does."""
        # An Ingress that names no class has the cluster's default one.
        name = get(self.ingress.body, "spec", "ingressClassName") or annotation(
            self.ingress, "kubernetes.io/ingress.class"
        )
        return self.host, self.path, self.path_type, name or UNKNOWN


def _same(one: object, other: object) -> bool | None:
    return None if UNKNOWN in (one, other) else one == other


def _paths(ingress: Object) -> list[_Path]:
    found = []
    for rule in members(ingress.body, "spec", "rules"):
        for path in members(rule, "http", "paths"):
            service, port = get(path, "backend", "service"), get(path, "backend", "service", "port")
            number = get(port, "number")
            found.append(
                _Path(
                    ingress,
                    _or(get(rule, "host"), ""),
                    _or(get(path, "path"), "/") or "/",
                    _or(get(path, "pathType"), "ImplementationSpecific"),
                    get(service, "name"),
                    get(port, "name") if number is None else number,
                )
            )
    return found


def _or(value: Any, default: str) -> Any:  # noqa: ANN401 - whatever the manifest holds
    return default if value is None else value


def paths_by_role(objects: Sequence[Object]) -> tuple[list[_Path], list[_Path], list[_Path]]:
    """Return the paths of canary Ingresses, of ordinary ones, and of those that may be either."""
    roles: dict[bool | None, list[_Path]] = {True: [], False: [], None: []}
    for ingress in objects:
        roles[is_canary(ingress)] += _paths(ingress)
    return roles[True], roles[False], roles[None]


def _mirrors(objects: Sequence[Object], config: Config) -> Iterator[Finding]:
    canaries, ordinary, open_roles = paths_by_role(objects)
    for ingress in objects:
        if is_canary(ingress) and not _paths(ingress):
            yield Finding(ingress, "it is a canary, but has no host and path of a stable Ingress")
    for canary in canaries:
        verdicts = [canary.mirrors(path) for path in ordinary]
        stables = [path.ingress.name for path, verdict in zip(ordinary, verdicts, strict=True) if verdict]
        # What is not known may be the stable one.
        possible = None in verdicts or any(canary.mirrors(path) is not False for path in open_roles)
        elsewhere = f"{canary.host}{canary.path}" in config["stableElsewhere"]
        if len(stables) > 1:
            yield Finding(canary.ingress, f"{canary} is in more than one stable Ingress: {', '.join(sorted(stables))}")
        elif not stables and not possible and not elsewhere:
            yield Finding(canary.ingress, f"{canary} is in no stable Ingress: the controller drops the canary")


def _one_canary(objects: Sequence[Object], _: Config) -> Iterator[Finding]:
    canaries, ordinary, _open = paths_by_role(objects)
    pairs = [(canary, stable) for canary in canaries for stable in ordinary if canary.mirrors(stable)]
    for canary, stable in pairs:
        others = {
            other.ingress.name
            for other, beside in pairs
            if other.ingress.name < canary.ingress.name and stable.same_backend(beside)
        }
        if others:
            reason = f"Service {stable.service} has canary {min(others)} already: the controller uses one of them only"
            yield Finding(canary.ingress, reason)


def _dedicated(objects: Sequence[Object], _: Config) -> Iterator[Finding]:
    canaries, ordinary, _open = paths_by_role(objects)
    for canary in canaries:
        mine = [path for path in canaries if path.ingress is canary.ingress]
        stables = [path for path in ordinary if canary.mirrors(path)]
        for stable in stables:
            if canary.same_backend(stable):
                yield Finding(canary.ingress, f"it leads to {canary.service}, the stable Service: there is no canary")
                continue
            for other in ordinary:
                if stable.same_backend(other) and not any(path.mirrors(other) for path in mine):
                    reason = (
                        f"{other} leads to {stable.service}, whose canary {canary.ingress.name} gets its share there"
                    )
                    yield Finding(other.ingress, reason)
        for other in ordinary:
            if canary.same_backend(other) and other not in stables:
                reason = f"{other} leads to {canary.service}, the Service of canary {canary.ingress.name}"
                yield Finding(other.ingress, f"{reason}: one of the two gets no traffic")


_INGRESS: Final = frozenset({"Ingress"})

RULES: Final = (
    ResourceRule(
        name="ingress-canary-conditions",
        why="The controller drops an annotation that it cannot use, and says so only in its log",
        fix='set canary to "true", canary-by-header beside its value or pattern, and only characters that it takes',
        kinds=_INGRESS,
        check=_conditions,
    ),
    StackRule(
        name="canary-mirrors-stable",
        why="The controller adds a canary only to the same host, path and pathType, in the same namespace and class",
        fix="repeat host, path, pathType and ingressClassName of one stable Ingress",
        kinds=_INGRESS,
        options={
            "stableElsewhere": {
                "type": "array",
                "items": {"type": "string"},
                "default": [],
                "description": "Host and path (example.com/api) of stable Ingresses that another tool keeps",
            }
        },
        check=_mirrors,
    ),
    StackRule(
        name="one-canary-per-service",
        why="The controller uses one canary of a Service, the oldest, and ignores the weight and header of others",
        fix="remove one of the canaries",
        kinds=_INGRESS,
        check=_one_canary,
    ),
    StackRule(
        name="dedicated-services",
        why="The controller adds a canary to a Service, not to a path: every path of that Service gets its share",
        fix="give each path a Service of its own",
        kinds=_INGRESS,
        check=_dedicated,
    ),
)
