"""The Pulumi program: loads the configuration, makes one CanaryService for each service, exports what was declared."""

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret

from components.canary_service import CanaryService, CanaryServiceArgs
from components.kubernetes_object import KubernetesObject
from config.loader import ConfigError, load
from config.settings import Settings
from workload.manifests import namespace


def main() -> None:
    """Declare the stack's objects."""
    project = pulumi.get_project()
    settings = _settings(f"{project}:")
    before: list[pulumi.Resource] = []
    if settings.create_namespace:
        # Never deleted with the stack or its flag: others may have put things into it.
        before.append(KubernetesObject(namespace(settings.namespace), pulumi.ResourceOptions(retain_on_delete=True)))
    args = CanaryServiceArgs(settings, part_of=project, secret=is_config_secret(f"{project}:services"))
    services = {name: CanaryService(name, args, after=before) for name in settings.services}
    pulumi.export("host", settings.host)
    pulumi.export("namespace", settings.namespace)
    pulumi.export("router", settings.router)
    pulumi.export("services", {name: service.state for name, service in services.items()})


def _settings(prefix: str) -> Settings:
    values = {key.removeprefix(prefix): value for key, value in CONFIG.get().items() if key.startswith(prefix)}
    try:
        return load(values, [key for key in values if is_config_secret(prefix + key)])
    except ConfigError as error:
        # RunError ends the program with its message alone, without a traceback.
        raise pulumi.RunError(str(error)) from None


main()
