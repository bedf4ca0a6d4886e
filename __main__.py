"""The Pulumi program: loads the configuration, compares it with the cluster, makes a CanaryService for each service."""

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from canary_service.cluster.errors import ClusterError
from canary_service.components.canary_service import CanaryService, CanaryServiceArgs
from canary_service.components.kubernetes_object import KubernetesObject, annotated
from canary_service.components.monitoring import Monitoring
from canary_service.config.loader import ConfigError, load
from canary_service.rollout.guards import RefusedError
from canary_service.rollout.update import Update
from canary_service.workload.manifests import namespace


def main() -> None:
    """Declare the stack's objects."""
    project = pulumi.get_project()
    try:
        update = _update(project)
    except (ConfigError, ClusterError, RefusedError) as error:
        # RunError ends the program with its message alone, without a traceback.
        raise pulumi.RunError(str(error)) from None
    settings, before = update.settings, list[pulumi.Resource]()
    if settings.create_namespace:
        # Never deleted with the stack or its flag: others may have put things into it.
        made = annotated(namespace(settings.namespace))
        before.append(KubernetesObject(made, pulumi.ResourceOptions(retain_on_delete=True)))
    secret = is_config_secret(f"{project}:services")
    services = {}
    for name, change in update.changes.items():
        lowers = change.lowers_to is not None
        args = CanaryServiceArgs(
            settings, project, secret, update.cluster, update.live[name], raises=change.raises, lowers=lowers
        )
        services[name] = CanaryService(name, args, after=before)
    Monitoring.where_asked_for(settings, project, update.cluster, before)
    pulumi.export("host", settings.host)
    pulumi.export("namespace", settings.namespace)
    pulumi.export("router", settings.router)
    pulumi.export("services", {name: service.state for name, service in services.items()})


def _update(project: str) -> Update:
    values = _configuration(project)
    settings = load(values, [key for key in values if is_config_secret(f"{project}:{key}")])
    try:
        update = Update.compared(settings, _configuration("kubernetes"), f"{project}/{pulumi.get_stack()}")
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


def _configuration(of: str) -> dict[str, str]:
    return {key.removeprefix(f"{of}:"): value for key, value in CONFIG.get().items() if key.startswith(f"{of}:")}


main()
