"""The environment in which pulumi, kubectl and the rest reach a sandbox."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sandbox.state import StateFolder
from sandbox.toolchain.ensure import Toolchain

_PROVIDER = "pulumi-resource-kubernetes"


def install_tools(folder: StateFolder, toolchain: Toolchain) -> None:
    """Link the tools into the state folder: commands for PATH, the provider as an installed Pulumi plugin.

    The provider stays off PATH, where Pulumi would warn about it.
    """
    folder.commands.mkdir()
    for command in (toolchain.pulumi, toolchain.pulumi_language_python, toolchain.kubectl, toolchain.uv):
        (folder.commands / command.name).symlink_to(command)
    version = toolchain.kubernetes_provider_version
    plugin = folder.pulumi_home / "plugins" / f"resource-kubernetes-v{version}"
    plugin.mkdir(parents=True)
    (plugin / _PROVIDER).symlink_to(toolchain.kubernetes_provider / _PROVIDER)
    folder.backend.mkdir()


def environment(folder: StateFolder, proxy_url: str) -> Mapping[str, str]:
    """Return this process's environment with everything set that leads to the sandbox."""
    interpreter = Path(sys.executable).parent
    path = os.pathsep.join([str(folder.commands), str(interpreter), os.environ.get("PATH", os.defpath)])
    return {
        **os.environ,
        "PATH": path,
        "VIRTUAL_ENV": sys.prefix,
        "KUBECONFIG": str(folder.kubeconfig),
        "PULUMI_HOME": str(folder.pulumi_home),
        "PULUMI_BACKEND_URL": f"file://{folder.backend}",
        "PULUMI_CONFIG_PASSPHRASE": "",  # the sandbox keeps no secrets worth one
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "SANDBOX_PROXY": proxy_url,
    }
