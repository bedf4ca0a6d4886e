"""How much traffic a canary gets, in the objects of each router."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from canary_policies.objects import (
    UNKNOWN,
    Manifest,
    Object,
    Unknown,
    annotation,
    get,
    items,
    mapping,
    members,
    text,
    whole,
)
from canary_policies.rule import Config, ResourceRule, not_a_pattern

ANNOTATION_PREFIX: Final = "nginx.ingress.kubernetes.io/"
CANARY: Final = ANNOTATION_PREFIX + "canary"
WEIGHT: Final = ANNOTATION_PREFIX + "canary-weight"
WEIGHT_TOTAL: Final = ANNOTATION_PREFIX + "canary-weight-total"

_PERCENT: Final = 100
_MOST_OF_GATEWAY: Final = 1_000_000
_LEAST_OF_CONSUL: Final = 0.01

# Headers of nearly every request: that one is there selects nobody.
_EVERYBODYS: Final = frozenset(
    {
        ":authority",
        ":method",
        ":path",
        ":scheme",
        "accept",
        "accept-encoding",
        "accept-language",
        "connection",
        "host",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
    }
)
_LONGEST_PATTERN: Final = 1_000
_ARGUMENT: Final = r"`[^`]*`|\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_TRAEFIK_TOKEN: Final = re.compile(rf"&&|\|\||[!()]|(\w+)\(\s*((?:(?:{_ARGUMENT})[\s,]*)*)\)|\S")
_CHOOSING: Final = frozenset({"header", "headerregexp", "headers", "headersregexp", "query", "queryregexp"})


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a share of the requests goes. `name` is the Service, `target` what tells its versions apart."""

    name: str
    target: str
    weight: Any


@dataclass(frozen=True, slots=True)
class Split:
    """Backends that share the requests of one route. `selected` ones carry a header, a cookie or a query parameter."""

    title: str
    backends: tuple[Backend, ...]
    selected: bool = False


def splits(found: Object) -> list[Split]:
    """Return how an object of a router other than NGINX shares out requests; nothing for other objects."""
    read = _READERS.get(found.kind)
    return [split for split in read(found.body) if split.backends] if read else []


def _gateway(body: Manifest) -> Iterator[Split]:
    for number, rule in enumerate(items(body, "spec", "rules")):
        backends = tuple(
            Backend(text(ref, "name"), text(ref, "name"), _or(get(ref, "weight"), 1))
            for ref in members(rule, "backendRefs")
        )
        yield Split(f"rule {number}", backends, _all_chosen(members(rule, "matches"), ("headers", "queryParams")))


def _istio(body: Manifest) -> Iterator[Split]:
    for protocol in ("http", "tcp", "tls"):
        for number, rule in enumerate(items(body, "spec", protocol)):
            routes = members(rule, "route")
            # A lone destination gets everything, whatever its weight.
            absent = 0 if len(routes) > 1 else 1
            backends = tuple(
                Backend(
                    text(route, "destination", "host"),
                    text(route, "destination", "subset") or text(route, "destination", "host").partition(".")[0],
                    _or(get(route, "weight"), absent),
                )
                for route in routes
            )
            # Requests without a header (withoutHeaders) are nearly all.
            conditions = ("headers", "queryParams", "sourceLabels")
            yield Split(f"{protocol} route {number}", backends, _all_chosen(members(rule, "match"), conditions))


def _traefik(body: Manifest) -> Iterator[Split]:
    yield Split("weighted", _traefik_services(members(body, "spec", "weighted", "services")))


def _traefik_route(body: Manifest) -> Iterator[Split]:
    for number, route in enumerate(items(body, "spec", "routes")):
        selected = get(route, "match") is UNKNOWN or not _meets_plain_requests(text(route, "match"))
        yield Split(f"route {number}", _traefik_services(members(route, "services")), selected)


def _meets_plain_requests(match: str) -> bool:
    """Tell whether a Traefik rule lets a request pass that carries nothing a client has to send on purpose.

    What cannot be read counts as if it did.
    """
    tokens = list(_TRAEFIK_TOKEN.finditer(match[: 10 * _LONGEST_PATTERN]))[::-1]
    try:
        return _any_of(tokens)[0]
    except (IndexError, RecursionError):
        return True


# Each returns whether a request without chosen headers may meet the expression, and whether one may fail it.
def _any_of(tokens: list[re.Match[str]]) -> tuple[bool, bool]:
    meets, fails = _all_of(tokens)
    while tokens and tokens[-1][0] == "||":
        tokens.pop()
        other = _all_of(tokens)
        meets, fails = meets or other[0], fails and other[1]
    return meets, fails


def _all_of(tokens: list[re.Match[str]]) -> tuple[bool, bool]:
    meets, fails = _one_of(tokens)
    while tokens and tokens[-1][0] == "&&":
        tokens.pop()
        other = _one_of(tokens)
        meets, fails = meets and other[0], fails or other[1]
    return meets, fails


def _one_of(tokens: list[re.Match[str]]) -> tuple[bool, bool]:
    token = tokens.pop()
    if token[0] == "!":
        meets, fails = _one_of(tokens)
        return fails, meets
    if token[0] == "(":
        inside = _any_of(tokens)
        tokens.pop()
        return inside
    function = (token[1] or "").lower()
    if function not in _CHOOSING:
        return True, True
    arguments = [argument[1:-1] for argument in re.findall(_ARGUMENT, token[2])]
    regexp = arguments[1] if function.endswith("regexp") and len(arguments) > 1 else None
    everybody = function.startswith("header") and _is_everybodys(arguments[0] if arguments else "", regexp)
    return everybody, not everybody


def _traefik_services(services: list[Manifest | Unknown]) -> tuple[Backend, ...]:
    return tuple(
        Backend(text(service, "name"), text(service, "name"), _or(get(service, "weight"), 1)) for service in services
    )


def _consul(body: Manifest) -> Iterator[Split]:
    own = text(body, "metadata", "name")
    backends = tuple(
        Backend(
            text(split, "service") or own,
            text(split, "serviceSubset") or text(split, "service") or own,
            _or(get(split, "weight"), 0),
        )
        for split in members(body, "spec", "splits")
    )
    yield Split("splits", backends)


_READERS: Final[Mapping[str, Callable[[Manifest], Iterator[Split]]]] = {
    "GRPCRoute": _gateway,
    "HTTPRoute": _gateway,
    "IngressRoute": _traefik_route,
    "ServiceSplitter": _consul,
    "TraefikService": _traefik,
    "VirtualService": _istio,
}


def _or(value: Any, default: int) -> Any:  # noqa: ANN401 - whatever the manifest holds
    return default if value is None else value


def _all_chosen(matches: list[Manifest | Unknown], conditions: tuple[str, ...]) -> bool:
    """Tell whether only requests get here that carry something a client has to send on purpose, as far as is known."""
    return bool(matches) and all(any(_chosen(get(match, name)) for name in conditions) for match in matches)


def _chosen(condition: object) -> bool:
    """Tell whether a condition asks for something that not everybody sends."""
    if isinstance(condition, Mapping):
        # Istio: {name: {exact | prefix | regex: …}}; without any of the three, being there is enough.
        return any(
            not _is_everybodys(str(name), "" if value == {} else get(value, "regex"))
            for name, value in condition.items()
        )
    if condition is UNKNOWN:
        return True
    # Gateway API: a list of {name, value, type}.
    return any(
        entry is UNKNOWN
        or not _is_everybodys(
            text(entry, "name"), text(entry, "value") if get(entry, "type") == "RegularExpression" else None
        )
        for entry in members({"of": condition}, "of")
    )


def _is_everybodys(name: str, pattern: object) -> bool:
    """Tell whether nearly every request has this header with a value of this pattern."""
    if name.lower() not in _EVERYBODYS or not isinstance(pattern, str) or len(pattern) > _LONGEST_PATTERN:
        return False
    # One character: no pattern takes long on it, and none that means anything finds it.
    return not not_a_pattern(pattern) and re.search(pattern, "~") is not None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ingress(found: Object, _: Config) -> Iterator[str]:
    given = {name: annotation(found, name) for name in (WEIGHT, WEIGHT_TOTAL)}
    numbers = {name: None if value is UNKNOWN else whole(value) for name, value in given.items()}
    for name, value in given.items():
        if isinstance(value, str) and numbers[name] is None:
            used = "0" if name == WEIGHT else str(_PERCENT)
            yield f"{name} is {value!r}, not a whole number: the controller takes {used}"
    weight, total = numbers[WEIGHT], numbers[WEIGHT_TOTAL]
    if total is not None and total < _PERCENT:
        yield f"{WEIGHT_TOTAL} is {total}: the controller takes {_PERCENT} for less than that"
    if weight is not None and weight < 0:
        yield f"{WEIGHT} is {weight}, below 0"
    counted = None if given[WEIGHT_TOTAL] is UNKNOWN else max(total or _PERCENT, _PERCENT)
    if weight is not None and counted is not None and weight > counted:
        yield f"{WEIGHT} is {weight}, above the total of {counted}"


def _sums(found: Object, _: Config) -> Iterator[str]:
    for split in splits(found):
        weights = [backend.weight for backend in split.backends]
        for backend in split.backends:
            if backend.weight is not UNKNOWN and (wrong := _wrong(found.kind, backend.weight)):
                yield f"{split.title} gives {backend.target or 'a backend'} the weight {backend.weight!r}, {wrong}"
        known = [weight for weight in map(_number, weights) if weight is not None]
        if len(known) < len(weights):
            continue
        if found.kind == "ServiceSplitter":
            if sum(known) != _PERCENT:
                yield f"the weights of its splits add up to {sum(known)}, not to {_PERCENT}: Consul refuses that"
        elif not any(known):
            yield f"all weights of {split.title} are 0: every request there fails"


def _wrong(kind: str, value: object) -> str:
    number = _number(value)
    if kind == "ServiceSplitter":
        valid = number is not None and (number == 0 or _LEAST_OF_CONSUL <= number <= _PERCENT)
        return "" if valid else f"not 0 and not from {_LEAST_OF_CONSUL} to {_PERCENT}"
    if number is None or number < 0 or number % 1:
        return "not a whole number from 0"
    if kind in {"GRPCRoute", "HTTPRoute"} and number > _MOST_OF_GATEWAY:
        return f"above {_MOST_OF_GATEWAY}"
    return ""


def shares(found: Object, canary: str) -> Iterator[tuple[str, float]]:
    """Return title and percent of each share that is known to go to a canary.

    `canary` is the regular expression that names of Services and subsets match when they are a canary's.
    """
    if found.kind == "Ingress":
        weight, total = annotation(found, WEIGHT), annotation(found, WEIGHT_TOTAL)
        number = None if UNKNOWN in (weight, total) else whole(weight)
        if number is not None:
            yield WEIGHT, _PERCENT * number / max(whole(total) or _PERCENT, _PERCENT)
        if annotation(found, CANARY) not in {"true", UNKNOWN}:
            for name in _ingress_services(found):
                if re.fullmatch(canary, name):
                    yield f"its path to {name}", _PERCENT
    for split in splits(found):
        weights = [_number(backend.weight) for backend in split.backends]
        known = [max(weight, 0) for weight in weights if weight is not None]
        if split.selected or len(known) < len(weights) or not sum(known):
            continue
        of_canary = [
            weight
            for backend, weight in zip(split.backends, known, strict=True)
            if re.fullmatch(canary, backend.target)
        ]
        yield split.title, _PERCENT * sum(of_canary) / sum(known)


def _ingress_services(ingress: Object) -> Iterator[str]:
    yield text(ingress.body, "spec", "defaultBackend", "service", "name")
    for rule in items(ingress.body, "spec", "rules"):
        for path in items(rule, "http", "paths"):
            yield text(path, "backend", "service", "name")


def _hidden(found: Object, config: Config) -> Iterator[str]:
    """Find Services and subsets of canary pods that the rule would not take for a canary's."""
    label = config["trackLabel"]
    named = [(text(found.body, "metadata", "name"), mapping(found.body, "spec", "selector"))]
    if found.kind == "DestinationRule":
        named = [(text(each, "name"), mapping(each, "labels")) for each in items(found.body, "spec", "subsets")]
    for name, selector in named:
        if name and selector.get(label) == "canary" and not re.fullmatch(config["canary"], name):
            yield f"{name} selects canary pods, but its name is not {config['canary']}: its share would not be counted"


def override_refused(override: Mapping[str, Any], today: date) -> str | None:
    """Return why an override does not count, None when it does: who reviewed it, why, and until when it holds."""
    absent = [key for key in ("reason", "reviewedBy", "expires") if not text(override, key).strip()]
    if absent:
        return f"does not count without {', '.join(absent)}"
    try:
        expires = date.fromisoformat(override["expires"])
    except ValueError:
        return f"does not count: {override['expires']!r} is no date of the form YYYY-MM-DD"
    return f"does not count since {expires}" if expires < today else None


def _limit(found: Object, config: Config) -> Iterator[str]:
    limit, override = config["maxWeight"], config["override"]
    refused = override_refused(override, datetime.now(UTC).date()) if override else ""
    if refused is None:
        return
    if limit < _PERCENT:
        yield from _hidden(found, config)
    for title, percent in shares(found, config["canary"]):
        if percent > limit:
            yield (
                f"{title} gives the canary {percent:g} %, above the limit of {limit:g} %"
                + (f" (the override {refused})" if refused else "")
            )


RULES: Final = (
    ResourceRule(
        name="ingress-canary-weight",
        why="The controller replaces a weight or total that it cannot use, and says so only in its log",
        fix="set canary-weight to a whole number from 0 to the total, and a total only when it is above 100",
        kinds=frozenset({"Ingress"}),
        check=_ingress,
    ),
    ResourceRule(
        name="split-weights",
        why="Weights that do not add up fail requests, or are refused when the update is half done",
        fix="whole weights from 0, not all 0 (Consul: together 100, each 0 or from 0.01)",
        kinds=frozenset(_READERS),
        check=_sums,
    ),
    ResourceRule(
        name="max-weight",
        why="A stack limits how much traffic an unproven version may get",
        fix="lower the canary's weight, promote it, or have an override with reason, reviewedBy and expires reviewed",
        kinds=frozenset({"DestinationRule", "Ingress", "Service", *_READERS}),
        options={
            "maxWeight": {
                "type": "number",
                "minimum": 0,
                "maximum": 100,
                "default": 100,
                "description": "The most percent that a canary may get without being asked for by header or cookie",
            },
            "override": {
                "type": "object",
                "properties": {key: {"type": "string"} for key in ("reason", "reviewedBy", "expires")},
                "additionalProperties": False,
                "default": {},
                "description": "Lifts the limit to the end of the day `expires` (YYYY-MM-DD, UTC); needs all three",
            },
            "canary": {
                "type": "string",
                "format": "regex",
                "default": "(.*-)?canary(-.*)?",
                "description": "Regular expression for the names of canary Services and subsets",
            },
            "trackLabel": {
                "type": "string",
                "default": "version",
                "description": "Label of pods whose value is canary for a canary: who selects it needs such a name",
            },
        },
        check=_limit,
    ),
)
