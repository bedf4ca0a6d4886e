"""The Pulumi program: what the stack's configuration declares."""

import pulumi
from pulumi.runtime.config import is_config_secret

from canary_service.cluster.errors import ClusterError
from canary_service.components.declaration import configuration, declare, prepare
from canary_service.config.loader import ConfigError, load
from canary_service.rollout.guards import RefusedError


def main() -> None:
    """Declare the stack's objects."""
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


main()
