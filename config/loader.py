"""From raw stack configuration to `Settings`, or to one message that lists every problem and its fix. No I/O."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from config.settings import Settings
from routing.registry import ROUTERS
from routing.router import Feature, Router

_SHOWN_CHARACTERS: Final = 80


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


def load(raw: Mapping[str, str], secret_keys: Iterable[str] = ()) -> Settings:
    """Return the settings that these raw values give.

    Args:
        raw: top-level keys without namespace, and their values as the engine hands them over: plain strings, or JSON
            for maps and lists.
        secret_keys: the keys of `raw` that are encrypted; their values do not get into messages.

    Raises:
        ConfigError: with every problem there is.
    """
    secret = frozenset(secret_keys)
    values = {key: _decoded(key, value) for key, value in raw.items()}
    problems: list[Problem] = []
    settings = None
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        refused = {found["loc"][:-1] for found in details if found["loc"][-1] == "[key]"}
        # What stands under a name that cannot stay needs no mending.
        problems += [
            _problem(found, secret)
            for found in details
            if found["loc"][-1] == "[key]" or not any(found["loc"][: len(name)] == name for name in refused)
        ]
    problems += _contradictions(values, secret)
    if settings is None or problems:
        raise ConfigError(problems)
    return settings


def _decoded(key: str, value: str) -> object:
    field = _fields(Settings).get(key)
    if field is None or _model_of(field.annotation) is None:
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


def _problem(details: Any, secret: frozenset[str]) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
    location: list[str | int] = list(details["loc"])
    is_key = location[-1] == "[key]" and details["type"] != "extra_forbidden"
    if is_key:
        location.pop()
    if details["type"] == "extra_forbidden":
        return _unknown_key(location, details["input"], secret)
    _, field, exact = _resolved(location)
    allowed = (field.description if field else None) or "a map"
    value = "(missing)" if details["type"] == "missing" else _shown(details["input"], location, secret)
    if field and field.examples and exact and not is_key:
        fix = _set(location, field.examples[0])
    elif len(location) == 1:  # `services`, which cannot be removed
        fix = _set([*location, "my-service", "image"], "registry.example/team/app:1.4.2")
    else:
        fix = _remove(location)
    return Problem(_dotted(location), value, allowed, fix)


def _unknown_key(location: list[str | int], value: object, secret: frozenset[str]) -> Problem:
    known = _fields(_resolved(location[:-1])[0])
    near = get_close_matches(str(location[-1]), known, n=1)
    allowed = f"no such key; known here: {', '.join(known)}"
    fix = _remove(location)
    if near:
        allowed = f"no such key; did you mean {near[0]}? Known here: {', '.join(known)}"
        example = known[near[0]].examples
        if example:
            scalar = isinstance(value, int | float) or (isinstance(value, str) and not value.startswith(("{", "[")))
            shown = value if scalar and location[0] not in secret else example[0]
            fix = f"{_set([*location[:-1], near[0]], shown)} && {fix}"
    return Problem(_dotted(location), _shown(value, location, secret), allowed, fix)


def _contradictions(values: Mapping[str, object], secret: frozenset[str]) -> Iterator[Problem]:
    """Yield what is wrong between keys that are each right by themselves.

    Works on raw values, so that a problem in one place does not hide those in others.
    """
    services = _map(values.get("services"))
    router = ROUTERS.get(str(values.get("router", Settings.model_fields["router"].default)))
    routed: dict[str, str] = {}
    for name, service in services.items():
        location: list[str | int] = ["services", name]
        path = _map(service).get("path")
        other = routed.setdefault(path.rstrip("/") or "/", name) if isinstance(path, str) else name
        if other != name:
            yield Problem(
                _dotted([*location, "path"]),
                _shown(path, location, secret),
                f"a path that no other service on this host has, whatever its pathType; {other} has it already",
                _set([*location, "path"], f"/{name}"),
            )
        canary = _map(_map(service).get("canary"))
        if canary and f"{name}-canary" in services:
            yield Problem(
                _dotted(["services", f"{name}-canary"]),
                "(a service)",
                f"another name: the canary of {name} is called {name}-canary",
                _remove(["services", f"{name}-canary"]),
            )
        if router and "header" in canary:
            yield from _header_problems(router, [*location, "canary", "header"], _map(canary["header"]), secret)


def _header_problems(
    router: Router, location: list[str | int], header: Mapping[str, object], secret: frozenset[str]
) -> Iterator[Problem]:
    if Feature.HEADER not in router.features:
        able = [name for name, other in ROUTERS.items() if Feature.HEADER in other.features]
        yield Problem(
            _dotted(location),
            _shown(header, location, secret),
            f"absent: router {router.name} cannot route by header; {', '.join(able)} can",
            _remove(location),
        )
        return
    syntax = router.header_syntax
    for part, pattern, example in (("name", syntax.name, "X-Canary"), ("value", syntax.value, "true")):
        value = header.get(part)
        value = str(value) if isinstance(value, float) else value
        if isinstance(value, str) and not pattern.fullmatch(value):
            allowed = f"{syntax.rule} (router {router.name} silently ignores others)"
            shown = _shown(value, location, secret)
            yield Problem(_dotted([*location, part]), shown, allowed, _set([*location, part], example))


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(value: object, location: Sequence[str | int], secret: frozenset[str]) -> str:
    if location[0] in secret:
        return "(secret)"
    plain = isinstance(value, str) and value.isascii() and re.fullmatch(r"\S+", value)
    text = str(value) if plain else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _dotted(location: Sequence[str | int]) -> str:
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
    return f"pulumi config set {option}{end_of_options}{shlex.quote(_dotted(location))} {shlex.quote(text)}"


def _remove(location: Sequence[str | int]) -> str:
    option = "" if len(location) == 1 else "--path "
    return f"pulumi config rm {option}{shlex.quote(_dotted(location))}"
