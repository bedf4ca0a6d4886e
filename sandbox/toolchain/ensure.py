"""Gives the sandbox its programs: finds them or builds them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sandbox.toolchain import cache
from sandbox.toolchain.catalog import CATALOG, ENVOY, ON_DEMAND, PROVIDER
from sandbox.toolchain.locate import Found, locate


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where each program is, as an absolute path.

    `kubernetes_provider` is the folder that holds the provider's executable and nothing else of interest: to be
    known to an engine, that executable is linked into a real folder
    `$PULUMI_HOME/plugins/resource-kubernetes-v<kubernetes_provider_version>` (the engine does not list a plugin
    whose folder is itself a link). `crds` is a folder of
    CustomResourceDefinitions in YAML files. A sandbox runs `envoy_gateway` if it is there.
    """

    pulumi: Path
    pulumi_language_python: Path
    kubernetes_provider: Path
    kubernetes_provider_version: str
    kube_apiserver: Path
    kube_controller_manager: Path
    kube_scheduler: Path
    kwok: Path
    kwokctl: Path
    etcd: Path
    kubectl: Path
    prometheus: Path
    promtool: Path
    crds: Path
    envoy: Path
    envoy_version: str
    traefik: Path
    uv: Path
    envoy_gateway: Path | None = None


def _toolchain(found: Mapping[str, Found]) -> Toolchain:
    paths = {name.replace("-", "_"): program.path for name, program in found.items()}
    provider = paths.pop(PROVIDER.name.replace("-", "_"))
    return Toolchain(
        kubernetes_provider=provider.parent,
        kubernetes_provider_version=PROVIDER.pin.version,
        envoy_version=ENVOY.version,
        **paths,
    )


def ensure(stream: TextIO | None = None, *, on_demand: bool = False) -> Toolchain:
    """Return every program of the sandbox, built first if it is neither installed nor built before.

    Those that are built `on_demand` only are left out unless asked for.

    Silent when all is there; otherwise progress goes to `stream`, standard error unless given. Raises
    ToolchainError when something cannot be had. After an error or an interruption the next call resumes.
    """
    wanted = (*CATALOG, *ON_DEMAND) if on_demand else CATALOG
    found = locate()
    if cache.has_leftovers() or any(name not in found for module in wanted for name in module.products):
        from sandbox.toolchain import build  # noqa: PLC0415 - not needed once all is built: the usual start stays fast

        build.complete(stream or sys.stderr, wanted)
        found = locate()
    left_out = () if on_demand else {name for module in ON_DEMAND for name in module.products}
    return _toolchain({name: program for name, program in found.items() if name not in left_out})
