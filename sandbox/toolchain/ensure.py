"""Gives the sandbox its programs: finds them or builds them."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sandbox.toolchain import cache
from sandbox.toolchain.catalog import CATALOG, PROVIDER
from sandbox.toolchain.locate import Found, locate


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where each program is, as an absolute path.

    `kubernetes_provider` is the folder that holds the provider's executable and nothing else of interest: to be
    known to an engine, that executable is linked into a real folder
    `$PULUMI_HOME/plugins/resource-kubernetes-v<kubernetes_provider_version>` (the engine does not list a plugin
    whose folder is itself a link). `crds` is a folder of CustomResourceDefinitions in YAML files.
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
    traefik: Path
    uv: Path


def _toolchain(found: Mapping[str, Found]) -> Toolchain:
    paths = {name.replace("-", "_"): program.path for name, program in found.items()}
    provider = paths.pop(PROVIDER.name.replace("-", "_"))
    return Toolchain(kubernetes_provider=provider.parent, kubernetes_provider_version=PROVIDER.pin.version, **paths)


def ensure(stream: TextIO | None = None) -> Toolchain:
    """Return every program of the sandbox, built first if it is neither installed nor built before.

    Silent when all is there; otherwise progress goes to `stream`, standard error unless given. Raises
    ToolchainError when something cannot be had. After an error or an interruption the next call resumes.
    """
    found = locate()
    if cache.has_leftovers() or any(name not in found for module in CATALOG for name in module.products):
        from sandbox.toolchain import build  # noqa: PLC0415 - not needed once all is built: the usual start stays fast

        build.complete(stream or sys.stderr)
        found = locate()
    return _toolchain(found)
