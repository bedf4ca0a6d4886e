"""From settings to the objects of a stack: what a program does once it has the settings."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from canary_service.cluster.connection import address
from canary_service.cluster.errors import ClusterError
from canary_service.components.canary_service import CanaryService, CanaryServiceArgs
from canary_service.components.identity import Identity, claimed
from canary_service.components.kubernetes_object import KubernetesObject, annotated
from canary_service.components.monitoring import Monitoring
from canary_service.config.loader import ConfigError, load
from canary_service.config.settings import Settings
from canary_service.observability.manifests import monitoring_name
from canary_service.rollout.guards import RefusedError
from canary_service.rollout.update import Update
from canary_service.workload.manifests import namespace


def declare_from_config() -> None:
    """Declare what the calling program's configuration says, and export its outputs: all that this project's does.

    Raises:
        RunError: it cannot be done; the message says what to mend.
    """
    project = pulumi.get_project()
    values = configuration(project)
    secret = [key for key in values if is_config_secret(f"{project}:{key}")]
    try:
        update = prepare(load(values, secret), configuration("kubernetes"))
    except (ConfigError, ClusterError, RefusedError) as error:
        # RunError ends the program with its message alone, without a traceback.
        raise pulumi.RunError(str(error)) from None
    for name, value in declare(update, update.settings.services if "services" in secret else ()).items():
        pulumi.export(name, value)


def configuration(of: str) -> dict[str, str]:
    """Return the calling program's configuration under a namespace, such as the project's name or `kubernetes`."""
    return {key.removeprefix(f"{of}:"): value for key, value in CONFIG.get().items() if key.startswith(f"{of}:")}


def prepare(
    settings: Settings,
    provider: Mapping[str, str],
    components: Sequence[Identity] = (),
    *,
    namespace_follows: bool = False,
) -> Update:
    """Compare with the cluster, tell of what a reviewer should know, and lower ahead of all else what falls.

    A preview without a cluster goes on unchecked. `provider` is the Kubernetes provider's configuration; `components`
    are what declares the services, then by its aliases what did; `namespace_follows` says that the program itself
    makes the namespace.

    Raises:
        ClusterError: the cluster cannot be asked, or refuses.
        RefusedError: the update would lose requests or surprise users.
    """
    if components and (problems := claimed(components[0], settings, _cluster(provider))):
        raise RefusedError(problems)
    owner = f"{pulumi.get_project()}/{pulumi.get_stack()}"
    try:
        declaring = [str(each) for each in components]
        update = Update.compared(settings, provider, owner, declaring, namespace_follows=namespace_follows)
    except ClusterError as error:
        if not pulumi.runtime.is_dry_run():
            raise
        pulumi.log.warn(f"{error}. What is in force is not known, so what the update may not do is not checked")
        update = Update.unchecked(settings)
    for name, change in update.changes.items():
        for warning in change.warnings:
            pulumi.log.warn(f"{name}: {warning}")
    if not pulumi.runtime.is_dry_run():
        for message in update.lower():
            pulumi.log.info(message)
    return update


def _cluster(provider: Mapping[str, str]) -> Hashable:
    """Return what tells the cluster from others: its address; where that is not known, how it is looked for."""
    try:
        return address(provider)
    except ClusterError:
        return frozenset(provider.items())


def service_args(update: Update, name: str, *, secret: bool, components: Sequence[Identity] = ()) -> CanaryServiceArgs:
    """Return what a service of an update is made of; `secret` hides what runs in its pods, `components` as above."""
    change = update.changes[name]
    return CanaryServiceArgs(
        update.settings,
        pulumi.get_project(),
        secret,
        update.cluster,
        update.live[name],
        raises=change.raises,
        lowers=change.lowers_to is not None and not change.raises,
        components=components,
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a program the resources of a stack stand: on their own, or inside a component.

    `identities` are what that is, then by its aliases what it was. The resources are made after those in `after`, and
    by the provider that the component has or `kubernetes` is.
    """

    component: pulumi.ComponentResource | None = None
    identities: Sequence[Identity] = ()
    kubernetes: pulumi.ProviderResource | None = None
    after: Sequence[pulumi.Resource] = ()

    @property
    def name(self) -> str:
        """The component's name, empty for none."""
        return self.identities[0].name if self.identities else ""

    @property
    def stack(self) -> str:
        """What tells the stack from others in the cluster."""
        return f"{pulumi.get_stack()}/{self.name}" if self.name else pulumi.get_stack()

    def options(self) -> pulumi.ResourceOptions:
        """Return what the resources have in common."""
        return pulumi.ResourceOptions(parent=self.component, providers=[self.kubernetes] if self.kubernetes else None)


ALONE: Final = Place()


def declare(update: Update, secret: Collection[str] = (), place: Place = ALONE) -> dict[str, Any]:
    """Declare all objects of a stack, and return its outputs; `secret` are services whose pods' content is hidden."""
    settings, before = update.settings, list(place.after)
    if settings.create_namespace:
        # Never deleted with the stack or its flag: others may have put things into it.
        made = annotated(namespace(settings.namespace))
        options = pulumi.ResourceOptions(
            parent=place.component, provider=place.kubernetes, depends_on=before, retain_on_delete=True
        )
        # Two components can have namespaces of one name, in two clusters.
        before.append(KubernetesObject(made, options, prefix=f"{place.name}-" if place.name else ""))
    services = {}
    for name in update.changes:
        args = service_args(update, name, secret=name in secret, components=place.identities)
        services[name] = CanaryService(name, args, place.options(), before)
    watching = monitoring_name(pulumi.get_project(), place.stack)
    Monitoring.where_asked_for(settings, watching, update.cluster, place.options(), before)
    return {
        "host": settings.host,
        "namespace": settings.namespace,
        "router": settings.router,
        "services": {name: service.state for name, service in services.items()},
    }
