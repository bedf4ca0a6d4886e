"""What is wrong with the inputs of a component: checked as a stack's configuration is, told by the names of inputs."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic.fields import FieldInfo

from canary_service.components.arguments import CanaryServiceInputs, CanaryStackInputs
from canary_service.components.fields import CONNECTION, OF_PODS, OF_SERVICE, OF_STACK
from canary_service.components.inputs import Known
from canary_service.config.loader import ConfigError, Location, Problem, dotted, load, unknown_key
from canary_service.config.settings import Settings
from canary_service.workload.live import LiveService

_SERVICE: Final = re.compile(r'\bservices(\.[A-Za-z0-9_-]+|\["([^"\\]|\\.)*"\])\.?')
"""How the path of a service's keys begins in a stack's configuration."""


_STAND_INS: Final[Mapping[Location, str | int]] = {("image",): "x", ("canary", "image"): "x", ("canary", "weight"): 0}
"""What a cluster can be read without, by path in a service: values that do for that."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a component is given: for several services, or for one, which is called `one` unless they say otherwise."""

    given: Known
    one: str | None = None

    @property
    def unknown(self) -> list[Location]:
        """Where they are not known, unless any text would do there."""
        return [location for location in self.given.unknown if not _is_text_for_pods(location)]

    def settings(self) -> Settings | None:
        """Return the settings that they give; None when not all of them are known, and what is known is right.

        Raises:
            ConfigError: with every problem there is.
        """
        given = self.given
        if () in given.unknown:
            return None
        if () in given.secret or not isinstance(given.values, Mapping):
            found = "(secret)" if () in given.secret else f"(of type {type(given.values).__name__})"
            raise ConfigError(
                [Problem("all inputs", found, "a map of names to values, of which some may be secret", "")]
            )
        problems = [*self._misnamed(), *self._not_text(), *_misplaced_secrets(given.secret)]
        settings = None
        try:
            settings = self._loaded()
        except ConfigError as error:
            moot = [*map(dotted, self.unknown), *(each.key for each in problems)]
            named = map(self.named, error.problems)
            problems += [each for each in named if not any(_is_about(each.key, key) for key in moot)]
        if problems:
            raise ConfigError(problems)
        return None if self.unknown else settings

    def in_force(self, read: Callable[[Settings], Mapping[str, LiveService]]) -> "Inputs | None":
        """Return the inputs with images and weights that are in force in place of those that are not known.

        `read` tells what there is of the services. None where something else is not known, or no such image is there.

        Raises:
            ConfigError: with every problem there is.
        """
        stand_ins = {location: _STAND_INS.get(_of_service(location)) for location in self.unknown}
        if None in stand_ins.values():
            return None
        settings = self._with(stand_ins).settings()
        if settings is None:
            return None
        live = read(settings)
        found: dict[Location, Any] = {}
        for location in self.unknown:
            service = live.get(next(iter(settings.services)) if self.one else str(location[1]), LiveService())
            match _of_service(location):
                case ("image",):
                    found[location] = service.stable_image
                case ("canary", "image"):
                    found[location] = service.canary_image
                case _:
                    found[location] = service.weight
        return None if None in found.values() else self._with(found)

    def may_mend(self, problem: Problem) -> bool:
        """Tell whether what is not known, when it becomes known, may mend a problem of `in_force`.

        That another image of a canary is refused hangs on the canary's weight as well.
        """
        weights = [location for location in self.unknown if _of_service(location) == ("canary", "weight")]
        return problem.key in map(dotted, (*self.unknown, *((*location[:-1], "image") for location in weights)))

    def _with(self, values: Mapping[Location, Any]) -> "Inputs":
        """Return the inputs with these values, which were not known."""
        made: Any = self.given.values
        for location, value in values.items():
            made = _replaced(made, location, value)
        unknown = [location for location in self.given.unknown if location not in values]
        return replace(self, given=replace(self.given, values=made, unknown=unknown))

    def named(self, problem: Problem) -> Problem:
        """Return a problem of a configuration by the names of inputs: those of one service are in no map."""
        if self.one is None:
            return problem

        def named(text: str) -> str:
            return _SERVICE.sub("", text).replace("rollout.maxStep", "maxStep")

        return replace(problem, key=named(problem.key) or "serviceName", allowed=named(problem.allowed))

    def _loaded(self) -> Settings:
        values, secret = self.given.values, self.given.secret
        if self.one is None:
            return load({key: value for key, value in values.items() if key not in CONNECTION}, secret)
        name = values.get("serviceName")
        service = name if isinstance(name, str) and ("serviceName",) not in self.given.unknown else self.one
        own = {key: value for key, value in values.items() if key in OF_SERVICE}
        raw = {key: values[key] for key in OF_STACK if key in values} | {"services": {service: own}}
        if "maxStep" in values:
            raw["rollout"] = {"maxStep": values["maxStep"]}
        return load(raw, [("services", service, *each) if each[0] in OF_SERVICE else each for each in secret])

    @property
    def _known_names(self) -> list[str]:
        return sorted((CanaryStackInputs if self.one is None else CanaryServiceInputs).__annotations__)

    def _misnamed(self) -> Iterator[Problem]:
        known = {key: FieldInfo() for key in self._known_names}
        for key, value in self.given.values.items():
            if key not in known:
                yield unknown_key((key,), value, frozenset(self.given.secret), known)

    def _not_text(self) -> Iterator[Problem]:
        for key in ("serviceName", *CONNECTION):
            value = self.given.values.get(key)
            if key in self._known_names and not isinstance(value, str | None):
                yield Problem(key, f"(of type {type(value).__name__})", "text", "")


def _misplaced_secrets(secret: Sequence[Location]) -> Iterator[Problem]:
    may = ("kubeconfig", *OF_PODS)
    allowed = f"a value that is not secret: it gets into names, routes or messages. Only {', '.join(may)} may be secret"
    for location in secret:
        if (_in_service(location) or location)[0] not in may:
            yield Problem(dotted(location), "(secret)", allowed, "")


def _is_about(key: str, other: str) -> bool:
    """Tell whether of two paths one is the other or leads into it."""
    return key == other or key.startswith((f"{other}.", f"{other}[")) or other.startswith((f"{key}.", f"{key}["))


def _replaced(value: Any, location: Location, new: object) -> Any:  # noqa: ANN401 - a value of any type that inputs have
    if not location:
        return new
    key, *rest = location
    return {**value, key: _replaced(value[key], tuple(rest), new)}


def _of_service(location: Location) -> Location:
    return location[2:] if location[:1] == ("services",) else location


def _in_service(location: Location) -> Location:
    """Return the path of an input inside its service or its canary."""
    inside = _of_service(location)
    return inside[1:] if inside[:1] == ("canary",) else inside


def _is_text_for_pods(location: Location) -> bool:
    match _in_service(location):
        case ("env", _) | ("configMap" | "secret", "data", _):
            return True
    return False
