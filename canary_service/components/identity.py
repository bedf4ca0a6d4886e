"""As what the engine knows a component: renamed, its objects would be made anew, and those that serve deleted."""

from collections.abc import Hashable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import pulumi
from pulumi.resource import DependencyResource
from pulumi.runtime.resource import all_aliases, collapse_alias_to_urn

from canary_service.config.loader import Problem
from canary_service.config.settings import Settings
from canary_service.workload.labels import object_name
from canary_service.workload.live import SERVICE_COMPONENT

_STACK_TYPE: Final = "pulumi:pulumi:Stack$"
"""What the engine leaves out of URNs, and the SDK's mocks do not."""

_STACK_KIND: Final = "canary:index:CanaryStack"


@dataclass(frozen=True, slots=True)
class Identity:
    """A component by what its URN has of it: its type, after those of its parents and joined by `$`, and its name."""

    types: str
    name: str

    @staticmethod
    def of_urn(urn: str) -> "Identity":
        """Return that of a component with this URN: urn:pulumi:STACK::PROJECT::TYPES::NAME."""
        _, _, types, name = urn.split("::", 3)
        return Identity(types.removeprefix(_STACK_TYPE), name)

    def __str__(self) -> str:
        return f"{self.types}::{self.name}"

    def prefix(self, service: str) -> str:
        """Return what the names of the resources of a service begin with."""
        return "" if self.name == service and not self._is_stack else f"{self.name}-"

    def urn(self, service: str, type_: str, name: str) -> str:
        """Return the URN that an object of a service has in this component."""
        types = f"{self.types}${SERVICE_COMPONENT}" if self._is_stack else self.types
        return f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::{types}${type_}::{self.prefix(service)}{name}"

    @property
    def _is_stack(self) -> bool:
        return self.types.endswith(_STACK_KIND)


def identity_at_once(
    component: pulumi.ComponentResource, opts: pulumi.ResourceOptions | None
) -> tuple[Identity, ...] | None:
    """Return the identity where there are no parents and aliases to ask for theirs."""
    asks = opts and (opts.parent or opts.aliases)
    return None if asks else (Identity(component.pulumi_resource_type, component.pulumi_resource_name),)


async def identities(component: pulumi.ComponentResource, opts: pulumi.ResourceOptions | None) -> tuple[Identity, ...]:
    """Return the identity, then those that the component had, by its own aliases and those of its parents."""
    opts = opts or pulumi.ResourceOptions()
    name, type_ = component.pulumi_resource_name, component.pulumi_resource_type
    if isinstance(opts.parent, DependencyResource):  # a plugin knows no more of a parent than its URN
        aliases = [collapse_alias_to_urn(each, name, type_, opts.parent) for each in opts.aliases or ()]
    else:
        aliases = list(map(pulumi.Output.from_input, all_aliases(opts.aliases, name, type_, opts.parent)))
    found = [str(await urn.future()) for urn in (component.urn, *aliases)]
    return tuple(Identity.of_urn(urn) for urn in found if urn.startswith("urn:pulumi:"))


Claims: TypeAlias = dict[tuple[Hashable, ...], str]
"""What components of a program have for themselves, and which has it."""

_OF_PROGRAMS: Final[WeakKeyDictionary[Any, Claims]] = WeakKeyDictionary()
"""By the connection to the engine, which a program has one of in each of its runs."""

CLAIMS_OF_PLUGIN: Final[ContextVar[Claims | None]] = ContextVar("claims", default=None)
"""Those of a plugin's process, in which each component has a connection of its own."""


def claimed(component: Identity, settings: Settings, cluster: Hashable) -> Sequence[Problem]:
    """Note what a component has for itself, and return what another one of the program has already.

    `cluster` is what tells one cluster from another.
    """
    claims, problems = CLAIMS_OF_PLUGIN.get(), []
    if claims is None:
        claims = _OF_PROGRAMS.setdefault(pulumi.runtime.settings.get_monitor(), {})
    namespace = settings.namespace
    for name, service in settings.services.items():
        own = f"{component} ({name})"
        names = {name, *(object_name(name, track) for track in settings.tracks_of(name))}
        others = {claims.setdefault((cluster, namespace, each), own) for each in names} - {own}
        if others:
            allowed = (
                f"a service that nothing else in the program declares in namespace {namespace}: {min(others)} does"
            )
            problems.append(Problem(f"services.{name}", name, allowed, "declare it once"))
            continue
        split = settings.split_of(name)
        place = (split.match.host, split.match.path.rstrip("/"))
        entries = () if settings.in_mesh else split.entries or (None,)
        others = {claims.setdefault((cluster, settings.router, each, *place), own) for each in entries} - {own}
        if others:
            allowed = f"a path that no other service on this host has, whatever its pathType: {min(others)} has it"
            problems.append(
                Problem(f"services.{name}.path", service.path, allowed, "give each a path or host of its own")
            )
    return problems
