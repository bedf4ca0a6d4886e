"""The components that other programs use: as classes in Python, in other languages as a package.

Their inputs are called as in the stack configuration (docs/reference.md), and checked as that is.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pulumi
from pulumi.output import UNKNOWN

from canary_service.cluster.connection import check
from canary_service.cluster.errors import ClusterError
from canary_service.components import canary_service
from canary_service.components.arguments import CanaryServiceInputs, CanaryStackInputs
from canary_service.components.declaration import Place, configuration, declare, prepare, service_args
from canary_service.components.fields import CONNECTION, OF_SERVICE
from canary_service.components.identity import Identity, identities, identity_at_once
from canary_service.components.input_checks import Inputs
from canary_service.components.inputs import Known, is_plain, known, plain
from canary_service.components.kubernetes_component import KubernetesComponent
from canary_service.components.kubernetes_object import provider_version
from canary_service.config.loader import ConfigError, Location, Problem, dotted
from canary_service.config.settings import Settings
from canary_service.rollout.guards import IDENTIFIER, OF_THE_STACK, RefusedError
from canary_service.rollout.update import Update, observed
from canary_service.workload.live import LiveService


class InputError(pulumi.RunError):
    """Inputs cannot be used. A retry does not help; `problems` holds all there is to mend, by the names of inputs."""

    def __init__(self, component: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {each.key} = {each.value}\n    {_told(each)}" for each in problems)
        count = "1 input" if len(problems) == 1 else f"{len(problems)} inputs"
        super().__init__(f"{component}: {count} cannot be used; nothing of it was changed.{lines}")


def _told(problem: Problem) -> str:
    """Return what is allowed and how to mend it, unless that is a command for a configuration where inputs stand."""
    of_inputs = not problem.key.startswith("kubernetes:")
    command = (of_inputs and problem.fix.startswith("pulumi config ")) or not problem.fix
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
        made = _when_known(self, args, opts, self._made, one=name)
        self.url, self.tracks = made["url"], made["tracks"]

    def _made(self, update: Update, place: Place, secrets: Sequence[Location]) -> dict[str, Any]:
        (service,) = update.settings.services
        self._kubernetes = place.kubernetes
        secret = any(location[0] in OF_SERVICE for location in secrets)
        args = service_args(update, service, secret=secret, components=place.identities)
        self._declare(service, args, place.after)
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
        made = _when_known(self, args, opts, self._made)
        self.services = made["services"]

    def _made(self, update: Update, place: Place, secrets: Sequence[Location]) -> dict[str, Any]:
        secret = {str(location[1]) for location in secrets if location[0] == "services"}
        made = declare(update, secret, place)
        self.register_outputs({})
        return {"services": made["services"]}


def _when_known(
    component: KubernetesComponent,
    args: Mapping[str, Any],
    opts: pulumi.ResourceOptions | None,
    make: Callable[[Update, Place, Sequence[Location]], dict[str, Any]],
    one: str | None = None,
) -> pulumi.Output[dict[str, Any]]:
    """Make what a component consists of: at once, or when the outputs among its inputs and its parents are known.

    `make` gets the update, where the resources stand, and where inputs are secret; `one` is the name of the only
    service, unless the inputs say otherwise.
    """
    compared = partial(_compared, component, make, _dependencies(component, opts))

    def made(components: Sequence[Identity], inputs: Inputs) -> Any:  # noqa: ANN401 - UNKNOWN stands for a value of any type
        try:
            settings = inputs.settings()
        except ConfigError as error:
            raise InputError(_label(component), error.problems) from None
        if settings:
            return compared(components, inputs, settings)
        names = f"not known before the update: {', '.join(map(dotted, inputs.unknown)) or 'all inputs'}"
        if in_force := _in_force(inputs):
            try:
                compared(components, *in_force)
            except InputError as error:
                if lasting := [each for each in error.problems if not inputs.may_mend(each)]:
                    raise InputError(_label(component), lasting) from None
            else:
                pulumi.log.warn(f"{names}. This preview takes what is in force for it", component)
                return UNKNOWN
        pulumi.log.warn(
            f"{names}. What the update does to this component is neither compared with the cluster nor shown; what is "
            "there of it stays, although this preview deletes it",
            component,
        )
        component.register_outputs({})
        return UNKNOWN

    async def made_later() -> Any:  # noqa: ANN401 - likewise
        inputs = Inputs(await known(args), one)
        return made(at_once or await identities(component, opts), inputs)

    # Not later than it must be: what depends on a component waits for those children that it has by then.
    at_once = identity_at_once(component, opts)
    if at_once and is_plain(args):
        return pulumi.Output.from_input(made(at_once, Inputs(plain(args), one)))
    return pulumi.Output.from_input(made_later())


def _compared(  # noqa: PLR0913, PLR0917 - the first three are the same for all inputs
    component: KubernetesComponent,
    make: Callable[[Update, Place, Sequence[Location]], dict[str, Any]],
    after: Sequence[pulumi.Resource],
    components: Sequence[Identity],
    inputs: Inputs,
    settings: Settings,
) -> dict[str, Any]:
    """Make what settings ask for, if the cluster allows it."""
    given = inputs.given
    update = _update(component, inputs, settings, components, after)
    place = Place(component, components, _provider(component, given), [*after, *given.resources])
    return make(update, place, given.secret)


def _update(
    component: KubernetesComponent,
    inputs: Inputs,
    settings: Settings,
    components: Sequence[Identity],
    after: Sequence[pulumi.Resource],
) -> Update:
    label, sources, connection = _label(component), inputs.given.sources, _connection(inputs.given)
    if component.get_provider("kubernetes:core/v1:Service"):
        raise pulumi.RunError(
            f"{label}: a Kubernetes provider of the program cannot be used: it does not tell which cluster it leads "
            "to, and an update is compared with what is in force there. Give the inputs kubeconfig or context instead"
        )
    follows = bool(after) or ("namespace",) in sources
    try:
        if connection and not any((key,) in sources for key in connection):
            check(connection)  # what leads nowhere in a preview does not lead anywhere in the update
        provider = connection or configuration("kubernetes")
        return prepare(settings, provider, components, namespace_follows=follows)
    except RefusedError as error:
        raise InputError(label, list(map(inputs.named, error.problems))) from None
    except ClusterError as error:
        by = f"{', '.join(key for key in CONNECTION if key in connection)}: " if connection else ""
        raise pulumi.RunError(f"{label}: {by}{error}") from None


def _in_force(inputs: Inputs) -> tuple[Inputs, Settings] | None:
    """Return inputs in which what is in force stands for what is not known, where that can be."""

    def read(settings: Settings) -> Mapping[str, LiveService]:
        provider = _connection(inputs.given) or configuration("kubernetes")
        return observed(settings, provider, namespace_follows=True).live

    try:
        found = inputs.in_force(read)
        settings = found.settings() if found else None
    except (ClusterError, ConfigError):
        return None
    return (found, settings) if found and settings else None


def _label(component: KubernetesComponent) -> str:
    return f"{type(component).__name__} {component.pulumi_resource_name}"


def _connection(given: Known) -> dict[str, str]:
    """Return the configuration of a provider of the component's own where its inputs name a cluster."""
    connection = {key: given.values[key] for key in CONNECTION if given.values.get(key)}
    if connection:
        # As the default provider has it: what goes from the one to the other stays where it is.
        connection[IDENTIFIER] = configuration("kubernetes").get(IDENTIFIER) or OF_THE_STACK
    return connection


def _provider(component: KubernetesComponent, given: Known) -> pulumi.ProviderResource | None:
    """Return a provider of the component's own where its inputs name a cluster."""
    connection: dict[str, Any] = dict(_connection(given))
    if not connection:
        return None
    if "kubeconfig" in connection:  # in which there may be a token
        connection["kubeconfig"] = pulumi.Output.secret(connection["kubeconfig"])
    options = pulumi.ResourceOptions(parent=component, version=provider_version())
    return pulumi.ProviderResource("kubernetes", f"{component.pulumi_resource_name}-kubernetes", connection, options)


def _dependencies(component: KubernetesComponent, opts: pulumi.ResourceOptions | None) -> list[pulumi.Resource]:
    """Return what a component depends on, which does not hold for its children by itself.

    Raises:
        RunError: it is not known yet what that is.
    """
    given = opts.depends_on if opts else None
    resources = [given] if isinstance(given, pulumi.Resource) else given or []
    if isinstance(resources, Sequence) and all(isinstance(each, pulumi.Resource) for each in resources):
        return [each for each in resources if isinstance(each, pulumi.Resource)]
    raise pulumi.RunError(f"{_label(component)}: depends_on takes resources, not outputs")
