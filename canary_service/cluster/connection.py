"""The API server that the Kubernetes provider would use, found by the same configuration in the same order."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import yaml
from lightkube import AsyncClient, Client, KubeConfig
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from canary_service.cluster.errors import ClusterError
from canary_service.workload.live import FIELD_MANAGER

_FILES_OF: Final = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
}


_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS: Final = {"http": 80, "https": 443}

Made = TypeVar("Made", Client, AsyncClient, str, None)


def connect(provider: Mapping[str, str]) -> Client:
    """Return a client of the API server that the provider would use.

    That is: the `kubeconfig` of the provider's configuration (a path or the content), else the files in KUBECONFIG,
    else ~/.kube/config, else the service account of the pod that this runs in; in it the `context` of the provider's
    configuration, else the current one (https://www.pulumi.com/registry/packages/kubernetes/api-docs/provider/).

    Args:
        provider: the stack's configuration in the namespace `kubernetes`, such as `kubeconfig` and `context`.

    Raises:
        ClusterError: no cluster is configured, or not so that it can be used.
    """
    return _connected(Client, provider)


def connect_async(provider: Mapping[str, str]) -> AsyncClient:
    """Return the same for an event loop.

    Raises:
        ClusterError: no cluster is configured, or not so that it can be used.
    """
    return _connected(AsyncClient, provider)


def check(provider: Mapping[str, str]) -> None:
    """See whether the provider's configuration leads to a cluster, without talking to it.

    Raises:
        ClusterError: no cluster is configured, or not so that it can be used.
    """
    _connected(lambda *_, **__: None, provider)


def address(provider: Mapping[str, str]) -> str:
    """Return the API server's address, the same for each way to write it, without talking to it.

    Raises:
        ClusterError: no cluster is configured, or not so that it can be used.
    """
    return _connected(lambda context, **_: _address(context.cluster.server), provider)


def _address(server: str) -> str:
    url = urlsplit(server)
    host = "localhost" if url.hostname in _LOOPBACK else url.hostname
    return f"{url.scheme}://{host}:{url.port or _PORTS.get(url.scheme)}{url.path.rstrip('/')}"


def _connected(kind: Callable[..., Made], provider: Mapping[str, str]) -> Made:
    try:
        context = _context(provider)
        # As with kubectl, no proxy of the environment stands between a program and its own machine.
        direct = urlsplit(context.cluster.server).hostname in _LOOPBACK
        return kind(context, field_manager=FIELD_MANAGER, trust_env=not direct)
    except yaml.YAMLError as error:
        # Its text quotes the content, in which there may be a token.
        raise ClusterError("no cluster to talk to: a kubeconfig is not YAML") from error
    except KeyError as error:
        raise ClusterError(f"no cluster to talk to: the kubeconfig has no {error}") from error
    except (AttributeError, ConfigError, OSError, TypeError, ValueError) as error:
        raise ClusterError(f"no cluster to talk to: {type(error).__name__}: {error}") from error


def _context(provider: Mapping[str, str]) -> SingleConfig:
    config = _config(provider.get("kubeconfig") or "")
    context = config.get(provider.get("context") or None)
    if context is None:
        raise ConfigError("the kubeconfig has no current context")
    if provider.get("cluster"):
        context = context._replace(cluster=config.clusters[provider["cluster"]])
    cluster, user = context.cluster, context.user or User()
    for file in (cluster.certificate_auth, user.client_cert, user.client_key):
        if file and not Path(file).is_file():
            raise ConfigError(f"there is no file {file}")  # which the error of the TLS library would not name
    return context._replace(user=user)


def _config(given: str) -> KubeConfig:
    if given and not _is_path(given):
        return KubeConfig.from_dict(_merged([_mapping(given, "the given kubeconfig, which is no file,")]))
    files = [given] if given else (os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG).split(os.pathsep)
    paths = [path for file in files if file and (path := Path(file).expanduser()).is_file()]
    if paths:
        return KubeConfig.from_dict(_merged([_absolute(path) for path in paths]))
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return KubeConfig.from_service_account()
    raise ConfigError(f"there is no kubeconfig at {os.pathsep.join(files)}")


def _is_path(given: str) -> bool:
    """Tell a path from a kubeconfig's content, which is too long for one or has more than one line."""
    try:
        return Path(given).expanduser().is_file()
    except OSError:
        return False


def _mapping(text: str, origin: str) -> dict[str, Any]:
    config = yaml.safe_load(text)
    if config is not None and not isinstance(config, dict):
        raise ConfigError(f"{origin} is not a kubeconfig")
    return config or {}


def _absolute(path: Path) -> dict[str, Any]:
    """Return a kubeconfig whose relative paths, which count from its folder, are absolute."""
    config = _mapping(path.read_text(encoding="utf-8"), str(path))
    for kind, keys in _FILES_OF.items():
        for entry in config.get(f"{kind}s") or ():
            settings = entry.get(kind) or {}
            settings |= {key: str(path.parent.absolute() / settings[key]) for key in keys if key in settings}
    return config


def _merged(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge as kubectl does: for each name and for the current context, the first file that has it wins."""
    merged: dict[str, Any] = {
        "current-context": next(filter(None, (config.get("current-context") for config in configs)), None)
    }
    for kind in ("clusters", "contexts", "users"):
        named: dict[str, Any] = {}
        for config in configs:
            for entry in config.get(kind) or ():
                named.setdefault(entry["name"], entry)
        merged[kind] = list(named.values())
    return merged
