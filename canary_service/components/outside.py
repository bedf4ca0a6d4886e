"""The components that other programs use: as classes in Python, in other languages as a package.

Their inputs are called as in the stack configuration (docs/reference.md), and checked as that is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import pulumi
from pulumi.output import UNKNOWN

from canary_service.cluster.errors import ClusterError
from canary_service.components import canary_service
from canary_service.components.arguments import CanaryServiceInputs, CanaryStackInputs
from canary_service.components.declaration import Place, configuration, declare, prepare, service_args
from canary_service.components.fields import CONNECTION, OF_PODS, OF_STACK
from canary_service.components.identity import Identity, identities, identity_at_once
from canary_service.components.inputs import Known, is_plain, known, plain
from canary_service.components.kubernetes_component import KubernetesComponent
from canary_service.components.kubernetes_object import provider_version
from canary_service.config.loader import ConfigError, Location, Problem, dotted, load
from canary_service.rollout.guards import RefusedError
from canary_service.rollout.update import Update

_SERVICE: Final = re.compile(r'services(\.[A-Za-z0-9_-]+|\["[^]]*"\])')
"""How the path of a service's keys begins in a stack's configuration."""


class InputError(pulumi.RunError):
    """Inputs cannot be used. A retry does not help; `problems` holds all there is to mend, by the names of inputs."""

    def __init__(self, component: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {each.key} = {each.value}\n    {_told(each)}" for each in problems)
        count = "1 input" if len(problems) == 1 else f"{len(problems)} inputs"
        super().__init__(f"{component}: {count} cannot be used; nothing of it was changed.{lines}")


def _told(problem: Problem) -> str:
    """Return what is allowed and how to mend it, unless that is a command for a stack's configuration."""
    command = problem.fix.startswith("pulumi config ") or not problem.fix
    return f"allowed: {problem.allowed}" + ("" if command else f"; fix: {problem.fix}")


class CanaryService(canary_service.CanaryService):
    """One service as stable and canary, and the route that shares its requests between them.

    The service is called as the resource is, unless `serviceName` says otherwise. An update waits for pods that are to
    get more requests, lowers a weight ahead of all else, and is refused where it would lose requests.
    """

    url: pulumi.Output[str]
    """Where the service is reached."""

    tracks: pulumi.Output[dict[str, Any]]
    """Of stable and canary: image, replicas and weight (percent of the requests)."""

    def __init__(self, name: str, args: CanaryServiceInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        KubernetesComponent.__init__(self, "CanaryService", name, opts=opts)
        made = _when_known(self, args, opts, partial(self._made, name, _dependencies(opts)))
        self.url, self.tracks = made["url"], made["tracks"]

    def _made(
        self, name: str, after: Sequence[pulumi.Resource], components: Sequence[Identity], given: Known
    ) -> dict[str, Any]:
        service = given.values.get("serviceName", name)
        own = {key: value for key, value in given.values.items() if key not in (*CONNECTION, "serviceName", "maxStep")}
        raw = {key: own.pop(key) for key in OF_STACK if key in own} | {"services": {service: own}}
        if "maxStep" in given.values:
            raw["rollout"] = {"maxStep": given.values["maxStep"]}

        def in_configuration(location: Location) -> Location:
            return ("services", service, *location) if location[0] in own else location

        update = _update(self, raw, given, in_configuration, after, components=components)
        self._kubernetes = _provider(self, name, given)
        secret = any(location[0] in own for location in given.secret)
        args = service_args(update, service, secret=secret, components=components)
        self._declare(service, args, [*after, *given.resources])
        tracks = {track: self.state[track] for track in ("stable", "canary") if track in self.state}
        return {"url": self.url, "tracks": tracks}


class CanaryStack(KubernetesComponent):
    """Several services of one namespace and host, and what watches them.

    All of them are compared with the cluster before anything is changed.
    """

    services: pulumi.Output[dict[str, Any]]
    """By name of service: its URL; for stable and canary image, replicas and weight (percent of the requests)."""

    def __init__(self, name: str, args: CanaryStackInputs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("CanaryStack", name, opts=opts)
        made = _when_known(self, args, opts, partial(self._made, name, _dependencies(opts)))
        self.services = made["services"]

    def _made(
        self, name: str, after: Sequence[pulumi.Resource], components: Sequence[Identity], given: Known
    ) -> dict[str, Any]:
        raw = {key: value for key, value in given.values.items() if key not in CONNECTION}
        update = _update(self, raw, given, lambda location: location, after, components=components)
        place = Place(self, components, _provider(self, name, given), [*after, *given.resources])
        secret = {str(location[1]) for location in given.secret if location[0] == "services"}
        made = declare(update, secret, place)
        self.register_outputs({})
        return {"services": made["services"]}


def _when_known(
    component: KubernetesComponent,
    args: Mapping[str, Any],
    opts: pulumi.ResourceOptions | None,
    make: Callable[[Sequence[Identity], Known], dict[str, Any]],
) -> pulumi.Output[dict[str, Any]]:
    """Make what a component consists of: at once, or when the outputs among its inputs and its parents are known."""
    # Not later than it must be: what depends on a component waits for those children that it has by then.
    identity = identity_at_once(component, opts)
    if identity and is_plain(args):
        return pulumi.Output.from_input(make(identity, plain(args)))

    async def made() -> Any:  # noqa: ANN401 - UNKNOWN stands for a value of any type
        given = await known(args)
        unknown = [location for location in given.unknown if not _is_text_for_pods(location)]
        if not unknown:
            return make(identity or await identities(component, opts), given)
        names = ", ".join(map(dotted, unknown))
        pulumi.log.warn(
            f"not known before the update: {names}. What the update does to this component is neither checked nor "
            "shown; what is there of it stays, although this preview deletes it",
            component,
        )
        component.register_outputs({})
        return UNKNOWN

    return pulumi.Output.from_input(made())


def _update(  # noqa: PLR0913 - a component, and what it is given
    component: KubernetesComponent,
    raw: Mapping[str, Any],
    given: Known,
    in_configuration: Callable[[Location], Location],
    after: Sequence[pulumi.Resource],
    *,
    components: Sequence[Identity],
) -> Update:
    label = f"{type(component).__name__} {component.pulumi_resource_name}"
    if component.get_provider("kubernetes:core/v1:Service"):
        raise pulumi.RunError(
            f"{label}: a Kubernetes provider of the program cannot be used: it does not tell which cluster it leads "
            "to, and an update is compared with what is in force there. Give the inputs kubeconfig or context instead"
        )
    secret = [in_configuration(location) for location in given.secret]
    follows = bool(after) or ("namespace",) in given.sources
    try:
        _check_secret(given.secret)
        provider = _connection(given) or configuration("kubernetes")
        return prepare(load(raw, secret), provider, components, namespace_follows=follows)
    except (ConfigError, RefusedError) as error:
        # A component with one service has no map of them.
        keys = (lambda key: key) if "services" in given.values else _of_one_service
        problems = [Problem(keys(each.key), each.value, each.allowed, each.fix) for each in error.problems]
        raise InputError(label, problems) from None
    except ClusterError as error:
        raise pulumi.RunError(f"{label}: {error}") from None


def _of_one_service(key: str) -> str:
    if key == "rollout.maxStep":
        return "maxStep"
    return _SERVICE.sub("", key).removeprefix(".") or "serviceName"


def _in_service(location: Location) -> Location:
    """Return the path of an input inside its service or its canary."""
    inside = location[2:] if location[0] == "services" else location
    return inside[1:] if inside[:1] == ("canary",) else inside


def _is_text_for_pods(location: Location) -> bool:
    """Tell whether any text would do at a place."""
    match _in_service(location):
        case ("env", _) | ("configMap" | "secret", "data", _):
            return True
    return False


def _check_secret(secret: Sequence[Location]) -> None:
    may = ("kubeconfig", *OF_PODS)
    allowed = f"a value that is not secret: it gets into names, routes or messages. Only {', '.join(may)} may be secret"
    misplaced = [location for location in secret if (_in_service(location) or location)[0] not in may]
    if misplaced:
        raise ConfigError([Problem(dotted(location), "(secret)", allowed, "") for location in misplaced])


def _connection(given: Known) -> dict[str, str]:
    return {key: given.values[key] for key in CONNECTION if given.values.get(key)}


def _provider(component: KubernetesComponent, name: str, given: Known) -> pulumi.ProviderResource | None:
    """Return a provider of the component's own where its inputs name a cluster."""
    connection: dict[str, Any] = dict(_connection(given))
    if not connection:
        return None
    if "kubeconfig" in connection:  # in which there may be a token
        connection["kubeconfig"] = pulumi.Output.secret(connection["kubeconfig"])
    options = pulumi.ResourceOptions(parent=component, version=provider_version())
    return pulumi.ProviderResource("kubernetes", f"{name}-kubernetes", connection, options)


def _dependencies(opts: pulumi.ResourceOptions | None) -> list[pulumi.Resource]:
    """Return what a component depends on, which does not hold for its children by itself.

    Raises:
        RunError: it is not known yet what that is.
    """
    given = opts.depends_on if opts else None
    resources = [given] if isinstance(given, pulumi.Resource) else given or []
    if isinstance(resources, Sequence) and all(isinstance(each, pulumi.Resource) for each in resources):
        return [each for each in resources if isinstance(each, pulumi.Resource)]
    raise pulumi.RunError("depends_on of a component of canary-service takes resources, not outputs")
