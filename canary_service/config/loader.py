"""From raw stack configuration to `Settings`, or to one message that lists every problem and its fix. No I/O."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Final, TypeAlias, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from canary_service.config.settings import (
    ROUTERS_WITH_KEYS,
    Model,
    Resources,
    RolloutSettings,
    Settings,
)
from canary_service.config.values import ENV_NAME, FILE_NAME
from canary_service.routing.nginx import Nginx
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Feature, Router
from canary_service.routing.split import TOTAL_WEIGHT

Loaded = TypeVar("Loaded", bound=Model)

Location: TypeAlias = tuple[str | int, ...]
"""A path into the configuration: a key without namespace, then those inside its value, and indices of lists."""

_SHOWN_CHARACTERS: Final = 80

# What is asked of a router, as it stands in messages: the router cannot …
_ABILITIES: Final = {
    Feature.HEADER: "route by header",
    Feature.COOKIE: "route by cookie",
    Feature.AFFINITY: "keep a client on its track",
    Feature.AFFINITY_OF_STABLE: "keep the clients of stable only",
    Feature.MIRROR: "copy requests to the canary",
    Feature.ATTACH: "attach a canary to objects of others",
    Feature.TLS: "take a certificate from the route: it belongs to what takes in the requests",
    Feature.IMPLEMENTATION_SPECIFIC: "match paths in a way of its own",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration.

    `key` is the path under the project's namespace, `fix` a command line that mends it.
    """

    key: str
    value: str
    allowed: str
    fix: str

    def __str__(self) -> str:
        return f"{self.key} = {self.value}\n    allowed: {self.allowed}\n    fix:     {self.fix}"


class ConfigError(Exception):
    """The configuration cannot be used. A retry does not help; `problems` holds all there is to mend."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{count} in the stack configuration; nothing was changed.\n{lines}")


def load(raw: Mapping[str, object], encrypted: Iterable[str | Location] = ()) -> Settings:
    """Return the settings that these raw values give.

    Args:
        raw: top-level keys without namespace, and their values: as they are, or as the engine hands over a stack's
            configuration, in strings of which those for maps and lists are JSON.
        encrypted: keys of `raw`, or paths into their values, that are encrypted and so do not get into messages.

    Raises:
        ConfigError: with every problem there is.
    """
    secret = frozenset((each,) if isinstance(each, str) else each for each in encrypted)
    return _validated(Settings, {key: _decoded(key, value) for key, value in raw.items()}, secret)


def load_rollout(rollout: object) -> RolloutSettings:
    """Return the settings of a rollout alone, from the value of that key in a stack's file.

    Raises:
        ConfigError: with every problem there is.
    """
    return _validated(_Rollout, {"rollout": rollout}, frozenset()).rollout


class _Rollout(Model):
    rollout: RolloutSettings


def _validated(model: type[Loaded], values: Mapping[str, object], secret: frozenset[Location]) -> Loaded:
    problems: list[Problem] = []
    loaded, refused = None, set[Location]()
    try:
        loaded = model.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        refused = {found["loc"][:-1] for found in details if found["loc"][-1] == "[key]"}
        problems += [
            _problem(found, secret)
            for found in details
            if found["loc"][-1] == "[key]" or not any(found["loc"][: len(name)] == name for name in refused)
        ]
    # What stands under a name that cannot stay needs no mending.
    moot = tuple(dotted(name) + end for name in refused for end in (".", "["))
    problems += [found for found in _contradictions(values, secret) if not found.key.startswith(moot)]
    if loaded is None or problems:
        raise ConfigError(problems)
    return loaded


def _decoded(key: str, value: object) -> object:
    field = _fields(Settings).get(key)
    if not isinstance(value, str) or field is None or _model_of(field.annotation) is None:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_of(annotation: object) -> type[BaseModel] | None:
    """Return the model inside a type, such as the one in `dict[str, Model]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)


def _is_container(annotation: object) -> bool:
    """Tell whether a type is a map or list, whose own keys or numbers stand in a path before those of its model."""
    return get_origin(annotation) in {dict, tuple} or any(map(_is_container, get_args(annotation)))


def _resolved(location: Sequence[str | int]) -> tuple[type[BaseModel], FieldInfo | None, bool]:
    """Return the model that a path leads into, the last field on it, and whether the path ends at that field."""
    model: type[BaseModel] = Settings
    field: FieldInfo | None = None
    exact, is_key_of_user = False, False
    for part in location:
        if is_key_of_user:
            is_key_of_user, exact = False, False
            continue
        found = _fields(model).get(str(part))
        if found is None:
            exact = False
            break
        field, exact = found, True
        is_key_of_user = _is_container(found.annotation)
        model = _model_of(found.annotation) or model
    return model, field, exact


def _problem(details: Any, secret: frozenset[Location]) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
    location: list[str | int] = list(details["loc"])
    is_key = location[-1] == "[key]" and details["type"] != "extra_forbidden"
    if is_key:
        location.pop()
    if details["type"] == "extra_forbidden":
        return unknown_key(location, details["input"], secret, _fields(_resolved(location[:-1])[0]))
    _, field, exact = _resolved(location)
    allowed = (field.description if field else None) or "a map"
    value = "(missing)" if details["type"] == "missing" else _shown(details["input"], location, secret)
    if field and field.examples and exact and not is_key:
        fix = _set(location, field.examples[0])
    elif len(location) == 1 and field and field.is_required():  # `services`, which cannot be removed
        fix = _set([*location, "my-service", "image"], "registry.example/team/app:1.4.2")
    elif details["type"] == "missing":  # a map
        fix = _set([*location, "KEY"], "VALUE")
    else:
        fix = _remove(location)
    return Problem(dotted(location), value, allowed, fix)


def unknown_key(
    location: Sequence[str | int], value: object, secret: frozenset[Location], known: Mapping[str, FieldInfo]
) -> Problem:
    """Return what is wrong with a key that is none of the known ones."""
    near = get_close_matches(str(location[-1]), known, n=1)
    scalar = isinstance(value, int | float) or (isinstance(value, str) and not value.startswith(("{", "[")))
    allowed = f"no such key; known here: {', '.join(known)}"
    fix = _remove(location)
    if near:
        allowed = f"no such key; did you mean {near[0]}? Known here: {', '.join(known)}"
        example = known[near[0]].examples
        if example:
            shown = value if scalar and not _is_secret(value, location, secret) else example[0]
            fix = f"{_set([*location[:-1], near[0]], shown)} && {fix}"
    # What is not a scalar may be a misspelt `secret`.
    shown = _shown(value, location, secret) if scalar else "(a map or list)"
    return Problem(dotted(location), shown, allowed, fix)


def _contradictions(values: Mapping[str, object], secret: frozenset[Location]) -> Iterator[Problem]:
    """Yield what is wrong between keys that are each right by themselves.

    Works on raw values, so that a problem in one place does not hide those in others.
    """
    services = _map(values.get("services"))
    rollout = _map(values.get("rollout"))
    yield from _step_problems(rollout, secret)
    yield from _query_problems(rollout, secret)
    yield from _limit_problems(rollout, services)
    router = ROUTERS.get(str(values.get("router", Settings.model_fields["router"].default)))
    routed: dict[str, str] = {}
    if router:
        yield from _unused_problems(router, values, secret)
    for name, value in services.items():
        location: list[str | int] = ["services", name]
        service = _map(value)
        path = service.get("path")
        other = routed.setdefault(path.rstrip("/") or "/", name) if isinstance(path, str) else name
        if other != name:
            yield Problem(
                dotted([*location, "path"]),
                _shown(path, [*location, "path"], secret),
                f"a path that no other service on this host has, whatever its pathType; {other} has it already",
                _set([*location, "path"], f"/{name}"),
            )
        if _map(service.get("canary")) and f"{name}-canary" in services:
            yield Problem(
                dotted(["services", f"{name}-canary"]),
                f"{name}-canary",
                f"another name: the canary of {name} is called {name}-canary",
                _remove(["services", f"{name}-canary"]),
            )
        yield from _autoscaling_problems(location, service, secret)
        yield from _configuration_problems(location, service, secret)
        yield from _existing_problems(location, service, secret)
        yield from _cookie_problems(location, service, secret)
        yield from _patch_problems(location, service, secret)
        if router:
            yield from _router_problems(router, location, service, secret)


def _unused_problems(router: Router, values: Mapping[str, object], secret: frozenset[Location]) -> Iterator[Problem]:
    """Yield what is set for another router."""
    for key in ROUTERS_WITH_KEYS:
        if key in values and key != router.name:
            allowed = f"absent: it is for router {key}, and the router is {router.name}"
            yield Problem(key, "(a map)", allowed, _remove([key]))
    default = Settings.model_fields["ingress_class_name"].default
    ingress_class = values.get("ingressClassName", default)
    if router.name != Nginx.name and ingress_class != default:  # which the project file sets
        allowed = f"absent: it is for router nginx, and the router is {router.name}"
        shown = _shown(ingress_class, ["ingressClassName"], secret)
        yield Problem("ingressClassName", shown, allowed, _remove(["ingressClassName"]))
    if values.get("tlsSecretName"):
        yield from _lacking(router, Feature.TLS, ["tlsSecretName"], values["tlsSecretName"], secret)


def _lacking(
    router: Router, feature: Feature, key: list[str | int], value: object, secret: frozenset[Location]
) -> Iterator[Problem]:
    if feature not in router.features:
        able = [name for name, other in ROUTERS.items() if feature in other.features]
        yield Problem(
            dotted(key),
            _shown(value, key, secret),
            f"absent: router {router.name} cannot {_ABILITIES[feature]}; {', '.join(able) or 'no router'} can",
            _remove(key),
        )


def _step_problems(rollout: Mapping[str, object], secret: frozenset[Location]) -> Iterator[Problem]:
    defaults = RolloutSettings()

    def problem(path: list[str | int], value: object, allowed: str, fix: int | None) -> Problem:
        key = ["rollout", *path]
        mended = _remove(key) if fix is None else _set(key, str(fix))
        return Problem(dotted(key), _shown(value, key, secret), allowed, mended)

    most = _valid("max_step", rollout.get("maxStep", defaults.max_step))
    steps = [_number_of(step) for step in _list(rollout.get("steps"))]
    for index, (before, after) in enumerate(pairwise([0, *steps])):
        if before is None or after is None or not 0 <= before <= TOTAL_WEIGHT:
            continue  # told already, if wrong
        than = f"rollout.steps[{index - 1}] = {before}" if index else "0"
        if after <= before:
            yield problem(["steps", index], after, f"a weight above {than}: steps rise", None)
        elif most is not None and after - before > most:
            allowed = f"a weight at most rollout.maxStep = {most} points above {than}"
            yield problem(["steps", index], after, allowed, before + most)
    every = _valid("sample_seconds", rollout.get("sampleSeconds", defaults.sample_seconds))
    seconds = _valid("step_seconds", rollout.get("stepSeconds", defaults.step_seconds))
    if every is not None and seconds is not None and every > seconds:
        allowed = f"at most rollout.stepSeconds = {seconds}: a step has to be looked at"
        yield problem(["sampleSeconds"], every, allowed, seconds)
    taken = steps if "steps" in rollout else list(defaults.steps)
    for index, approval in enumerate(_list(rollout.get("approvals"))):
        if _number_of(approval) is not None and _number_of(approval) not in taken:
            allowed = f"one of rollout.steps, {', '.join(map(str, taken))}"
            yield problem(["approvals", index], approval, allowed, None)


def _query_problems(rollout: Mapping[str, object], secret: frozenset[Location]) -> Iterator[Problem]:
    for name, value in _map(_map(rollout.get("gates")).get("queries")).items():
        query, key = _map(value), ["rollout", "gates", "queries", name]
        least, most = query.get("min"), query.get("max")
        if query and least is None and most is None:
            allowed = "a number, unless there is a min: without either, no value would be wrong"
            yield Problem(dotted([*key, "max"]), "(missing)", allowed, _set([*key, "max"], "10"))
        try:
            contrary = least is not None and most is not None and float(least) > float(most)
        except (TypeError, ValueError):
            continue  # told already
        if contrary:
            shown = _shown(least, [*key, "min"], secret)
            allowed = f"at most {dotted([*key, 'max'])}"
            yield Problem(dotted([*key, "min"]), shown, allowed, _remove([*key, "min"]))


def _limit_problems(rollout: Mapping[str, object], services: Mapping[str, object]) -> Iterator[Problem]:
    for resource, gate, example in (("cpu", "maxCpuPercent", "500m"), ("memory", "maxMemoryPercent", "256Mi")):
        if _map(rollout.get("gates")).get(gate) is None:
            continue
        for name, value in services.items():
            service, key = _map(value), ["services", name, "resources", "limits", resource]
            limits = _map(service.get("resources")).get("limits", Resources().limits)
            # A patch may set it.
            if not service.get("podTemplatePatch") and resource not in _map(limits):
                allowed = f"a quantity: rollout.gates.{gate} is percent of it"
                yield Problem(dotted(key), "(missing)", allowed, _set(key, example))


def _autoscaling_problems(
    location: list[str | int], service: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    if not isinstance(service.get("autoscaling"), dict):
        return  # absent, or told already
    for path, holder in ([], service), (["canary"], _map(service.get("canary"))):
        if holder.get("replicas") is not None:
            key = [*location, *path, "replicas"]
            allowed = "absent: with autoscaling, the autoscaler sets the number of pods"
            yield Problem(dotted(key), _shown(holder["replicas"], key, secret), allowed, _remove(key))
    resources = _map(service.get("resources"))
    requests = resources.get("requests")
    # Without a request of its own, the API server takes the limit for it.
    if isinstance(requests, dict) and "cpu" not in requests and "cpu" not in _map(resources.get("limits")):
        key = [*location, "resources", "requests", "cpu"]
        allowed = "a quantity: the autoscaler measures against the CPU request"
        yield Problem(dotted(key), "(missing)", allowed, _set(key, "100m"))


def _configuration_problems(
    location: list[str | int], service: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    canary = _map(service.get("canary"))
    for kind in ("configMap", "secret"):
        if _map(service.get(kind)).get("mountPath") is not None:
            continue
        for path, holder in (([kind], service), (["canary", kind], canary)):
            for name in _map(_map(holder.get(kind)).get("data")):
                key = [*location, *path, "data", name]
                if re.match(FILE_NAME, name) and not re.match(ENV_NAME, name):
                    allowed = f"the name of an environment variable, because services.NAME.{kind} has no mountPath"
                    yield Problem(dotted(key), _shown(name, key, secret), allowed, _remove(key))
    folder = _map(service.get("secret")).get("mountPath")
    if isinstance(folder, str) and folder == _map(service.get("configMap")).get("mountPath"):
        key = [*location, "secret", "mountPath"]
        allowed = "another folder than configMap.mountPath"
        shown = _shown(folder, [*location, "configMap", "mountPath"], secret)
        yield Problem(dotted(key), shown, allowed, _set(key, f"/etc/{location[1]}-secret"))


def _existing_problems(
    location: list[str | int], service: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    if service.get("stable") != "existing":
        return
    for name in ("annotations", "sessionAffinity"):
        if service.get(name):
            key = [*location, name]
            allowed = "absent: the Ingress of an existing stable is not ours to change"
            yield Problem(dotted(key), _shown(service[name], key, secret), allowed, _remove(key))


def _patch_problems(
    location: list[str | int], service: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    containers = _map(_map(service.get("podTemplatePatch")).get("spec")).get("containers")
    for index, container in enumerate(containers if isinstance(containers, list) else ()):
        if _map(container).get("name") == location[1] and "image" in _map(container):
            key = [*location, "podTemplatePatch", "spec", "containers", index, "image"]
            allowed = f"absent: {dotted([*location, 'image'])} says what runs in the container of the service's name"
            yield Problem(dotted(key), _shown(_map(container)["image"], key, secret), allowed, _remove(key))


def _cookie_problems(
    location: list[str | int], service: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    name = _map(service.get("canary")).get("cookie")
    other = _map(service.get("sessionAffinity")).get("cookieName")
    # ingress-nginx finds a cookie without regard to the case of its name.
    if isinstance(name, str) and isinstance(other, str) and name.lower() == other.lower():
        key = [*location, "canary", "cookie"]
        allowed = "another name than sessionAffinity.cookieName, which the router sets itself"
        yield Problem(dotted(key), _shown(name, key, secret), allowed, _set(key, f"{location[1]}-canary"))


def _router_problems(
    router: Router, location: list[str | int], service: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    canary = _map(service.get("canary"))
    affinity = service.get("sessionAffinity")
    legacy = "legacy" if _map(affinity).get("canaryBehavior") == "legacy" else None
    own_type = "ImplementationSpecific" if service.get("pathType") == "ImplementationSpecific" else None
    mirrored = _number_of(canary.get("mirrorPercent"))
    asked: list[tuple[Feature, list[str | int], object]] = [
        (Feature.HEADER, ["canary", "header"], canary.get("header")),
        (Feature.COOKIE, ["canary", "cookie"], canary.get("cookie")),
        (Feature.MIRROR, ["canary", "mirrorPercent"], canary.get("mirrorPercent") if mirrored else None),
        (Feature.AFFINITY, ["sessionAffinity"], affinity),
        (Feature.IMPLEMENTATION_SPECIFIC, ["pathType"], own_type),
        (Feature.ATTACH, ["stable"], "existing" if service.get("stable") == "existing" else None),
    ]
    if Feature.AFFINITY in router.features:
        asked.append((Feature.AFFINITY_OF_STABLE, ["sessionAffinity", "canaryBehavior"], legacy))
    for feature, path, value in asked:
        if value is not None:
            yield from _lacking(router, feature, [*location, *path], value, secret)
    if Feature.HEADER in router.features:
        yield from _header_problems(router, [*location, "canary", "header"], _map(canary.get("header")), secret)


def _header_problems(
    router: Router, location: list[str | int], header: Mapping[str, object], secret: frozenset[Location]
) -> Iterator[Problem]:
    syntax = router.header_syntax
    names = (str(header.get("name")).lower(), "X-Canary", "x-canary")
    name = next(name for name in names if syntax.name.fullmatch(name))
    for part, pattern, example in (("name", syntax.name, name), ("value", syntax.value, "true")):
        value = header.get(part)
        value = str(value) if isinstance(value, float) else value
        if isinstance(value, str) and not pattern.fullmatch(value):
            shown = _shown(value, [*location, part], secret)
            yield Problem(dotted([*location, part]), shown, syntax.rule, _set([*location, part], example))


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number_of(value: object) -> int | None:
    """Return the whole number that a raw value is; None if it is none, which is told elsewhere."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_secret(value: object, location: Sequence[str | int], secret: frozenset[Location]) -> bool:
    """Tell whether a value is encrypted, or a part of it."""
    path = tuple(location)
    is_inside = any(path[: len(each)] == each for each in secret)
    return is_inside or (isinstance(value, dict | list) and any(each[: len(path)] == path for each in secret))


def _valid(field: str, value: object) -> int | None:
    """Return the whole number that a raw value of `RolloutSettings` is; None if it is refused, which is told then."""
    try:
        return int(getattr(RolloutSettings.model_validate({RolloutSettings.model_fields[field].alias: value}), field))
    except ValidationError:
        return None


def _shown(value: object, location: Sequence[str | int], secret: frozenset[Location]) -> str:
    # What stands under `secret` is hidden too when the configuration is not encrypted.
    if _is_secret(value, location, secret) or "secret" in location[2:]:
        return "(secret)"
    if str(location[-1]).endswith("Url"):
        return "(a URL, which may hold a token)"
    plain = isinstance(value, str) and value.isascii() and re.fullmatch(r"\S+", value)
    text = str(value) if plain else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def dotted(location: Sequence[str | int]) -> str:
    """Write a path as `pulumi config set --path` reads it."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", part):
            text += f".{part}"
        else:
            text += f"[{json.dumps(part)}]"
    return text.removeprefix(".")


def _set(location: Sequence[str | int], value: object) -> str:
    option = "" if len(location) == 1 else "--path "
    text = value if isinstance(value, str) else json.dumps(value)
    end_of_options = "-- " if text.startswith("-") else ""
    return f"pulumi config set {option}{end_of_options}{shlex.quote(dotted(location))} {shlex.quote(text)}"


def _remove(location: Sequence[str | int]) -> str:
    option = "" if len(location) == 1 else "--path "
    return f"pulumi config rm {option}{shlex.quote(dotted(location))}"
