"""From settings to the objects of a stack: what a program does once it has the settings."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG

from canary_service.cluster.errors import ClusterError
from canary_service.components.canary_service import CanaryService, CanaryServiceArgs
from canary_service.components.kubernetes_object import KubernetesObject, annotated
from canary_service.components.monitoring import Monitoring
from canary_service.config.settings import Settings
from canary_service.rollout.update import Update
from canary_service.workload.manifests import namespace


def configuration(of: str) -> dict[str, str]:
    """Return the calling program's configuration under a namespace, such as the project's name or `kubernetes`."""
    return {key.removeprefix(f"{of}:"): value for key, value in CONFIG.get().items() if key.startswith(f"{of}:")}


def prepare(settings: Settings, provider: Mapping[str, str], *, namespace_follows: bool = False) -> Update:
    """Compare with the cluster, tell of what a reviewer should know, and lower ahead of all else what falls.

    A preview without a cluster goes on unchecked. `provider` is the Kubernetes provider's configuration;
    `namespace_follows` says that the program itself makes the namespace.

    Raises:
        ClusterError: the cluster cannot be asked, or refuses.
        RefusedError: the update would lose requests or surprise users.
    """
    owner = f"{pulumi.get_project()}/{pulumi.get_stack()}"
    try:
        update = Update.compared(settings, provider, owner, namespace_follows=namespace_follows)
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


def service_args(update: Update, name: str, *, secret: bool) -> CanaryServiceArgs:
    """Return what a service of an update is made of; `secret` hides what runs in its pods."""
    change = update.changes[name]
    return CanaryServiceArgs(
        update.settings,
        pulumi.get_project(),
        secret,
        update.cluster,
        update.live[name],
        raises=change.raises,
        lowers=change.lowers_to is not None,
    )


def declare(update: Update, secret: Collection[str] = ()) -> dict[str, Any]:
    """Declare all objects of a stack, and return its outputs; `secret` are services whose pods' content is hidden."""
    settings, before = update.settings, list[pulumi.Resource]()
    if settings.create_namespace:
        # Never deleted with the stack or its flag: others may have put things into it.
        made = annotated(namespace(settings.namespace))
        before.append(KubernetesObject(made, pulumi.ResourceOptions(retain_on_delete=True)))
    services = {
        name: CanaryService(name, service_args(update, name, secret=name in secret), after=before)
        for name in update.changes
    }
    Monitoring.where_asked_for(settings, pulumi.get_project(), update.cluster, before)
    return {
        "host": settings.host,
        "namespace": settings.namespace,
        "router": settings.router,
        "services": {name: service.state for name, service in services.items()},
    }
