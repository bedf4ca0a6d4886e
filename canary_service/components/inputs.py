"""What a program gives to a component: plain values, or outputs of other resources that become known later."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Final

import pulumi
from pulumi.output import UNKNOWN, Unknown

from canary_service.config.loader import Location

NOT_KNOWN: Final = "(known after the update)"
"""Stands in a preview for what is not known."""


@dataclass(frozen=True, slots=True)
class Known:
    """Inputs as plain values, and where in them something is secret, is not known yet, or is another resource's."""

    values: Mapping[str, Any]
    secret: Sequence[Location] = ()
    unknown: Sequence[Location] = ()
    sources: Mapping[Location, Sequence[pulumi.Resource]] = field(default_factory=dict)

    @property
    def resources(self) -> list[pulumi.Resource]:
        """The resources that the inputs are of, each once."""
        return list(dict.fromkeys(each for resources in self.sources.values() for each in resources))


def is_plain(value: object) -> bool:
    """Tell whether nothing in a value has to be waited for."""
    if isinstance(value, Mapping):
        return all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return not (isinstance(value, pulumi.Output | Unknown) or isawaitable(value))


def plain(inputs: Mapping[str, Any]) -> Known:
    """Return inputs in which there is nothing to wait for."""
    return Known(_given(_whole(inputs)))


async def known(inputs: Mapping[str, Any]) -> Known:
    """Wait for what inputs are made of; a preview does not know all of it."""
    found = _Found()
    return Known(_given(await found.value(inputs, ())), found.secret, found.unknown, found.sources)


class _Found:
    def __init__(self) -> None:
        self.secret: list[Location] = []
        self.unknown: list[Location] = []
        self.sources: dict[Location, Sequence[pulumi.Resource]] = {}

    async def value(self, given: Any, location: Location) -> Any:  # noqa: ANN401 - a value of any type that inputs have
        if isinstance(given, pulumi.Output):
            return await self._of_output(given, location)
        if isinstance(given, Awaitable):
            return await self.value(await given, location)
        if isinstance(given, Mapping):
            return {key: await self.value(each, (*location, key)) for key, each in sorted(given.items())}
        if isinstance(given, list | tuple):
            return [await self.value(each, (*location, index)) for index, each in enumerate(given)]
        if isinstance(given, Unknown):
            self.unknown.append(location)
            return NOT_KNOWN
        return _whole(given)

    async def _of_output(self, given: pulumi.Output[Any], location: Location) -> Any:  # noqa: ANN401 - likewise
        if await given.is_secret():
            self.secret.append(location)
        if resources := await given.resources():
            self.sources[location] = sorted(resources, key=id)
        value = await given.future(with_unknowns=True)
        # What is not known at all has no value in which that is said; providers also give null for that in a preview.
        left_out = value is None and bool(resources) and pulumi.runtime.is_dry_run()
        is_unknown = left_out or (not await given.is_known() and is_plain(value))
        return await self.value(UNKNOWN if is_unknown else value, location)


def _given(inputs: Any) -> Any:  # noqa: ANN401 - of any type, which is told later
    """Return inputs without those of a component, a service or a canary that are None: no SDK hands them over."""
    if not isinstance(inputs, Mapping):
        return inputs
    found = {key: value for key, value in inputs.items() if value is not None}
    if "canary" in found:
        found["canary"] = _given(found["canary"])
    if isinstance(services := found.get("services"), Mapping):
        found["services"] = {name: _given(service) for name, service in services.items()}
    return found


def _whole(value: Any) -> Any:  # noqa: ANN401 - likewise
    """Return numbers as they were written, and maps by their keys.

    The engine hands over each number as a float, and maps in any order, which would be that of a pod's environment.
    """
    if isinstance(value, Mapping):
        return {key: _whole(each) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
