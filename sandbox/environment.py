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
    for command in (
        toolchain.pulumi,
        toolchain.pulumi_language_python,
        toolchain.kubectl,
        toolchain.promtool,
        toolchain.uv,
    ):
        (folder.commands / command.name).symlink_to(command)
    version = toolchain.kubernetes_provider_version
    plugin = folder.pulumi_home / "plugins" / f"resource-kubernetes-v{version}"
    plugin.mkdir(parents=True)
    (plugin / _PROVIDER).symlink_to(toolchain.kubernetes_provider / _PROVIDER)
    folder.backend.mkdir()


def environment(folder: StateFolder, proxy_url: str, prometheus_url: str) -> Mapping[str, str]:
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
        "SANDBOX_PROMETHEUS": prometheus_url,
        **_direct(),
    }


def _direct() -> dict[str, str]:
    """Return both spellings of NO_PROXY with the loopback added, so that curl and others reach it directly.

    A program prefers either spelling, so that one that is not set takes over the other one's hosts.
    """
    spellings = "NO_PROXY", "no_proxy"
    hosts = {name: os.environ.get(name) for name in spellings}
    set_one = next(filter(None, hosts.values()), "")
    return {name: _with_loopback(hosts[name] or set_one) for name in spellings}


def _with_loopback(hosts: str) -> str:
    listed = [host.strip() for host in hosts.split(",") if host.strip()]
    if listed == ["*"]:
        return "*"  # which means every host only when it stands alone
    return ",".join([*listed, *(host for host in ("127.0.0.1", "localhost") if host not in listed)])
