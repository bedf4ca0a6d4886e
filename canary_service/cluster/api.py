"""The API server, as far as it is asked for one namespace: objects as plain mappings, and its refusals in words."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, TypeVar

import httpx2
from lightkube import ApiError, Client
from lightkube.core.exceptions import ConfigError, LoadResourceError
from lightkube.core.resource import NamespacedResource
from lightkube.core.resource_registry import resource_registry
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import Namespace
from lightkube.types import PatchType

from canary_service.cluster.errors import ClusterError, ForbiddenError
from canary_service.routing.router import Manifest, RouteKind
from canary_service.workload.live import FIELD_MANAGER

LOWERING_MANAGER: Final = FIELD_MANAGER + "-lowering"
"""Who lowers a weight ahead of the engine, as the API server's managedFields name it."""

_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404

_PATIENCE_SECONDS: Final = 10.0
"""How long an API server that asks for patience is asked again; client-go does so ten times, mostly after 1 s each."""

Found = TypeVar("Found")


class KubernetesApi:
    """What the API server has and takes of one namespace. May be used by several threads at once."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._asking = threading.Lock()

    def has_namespace(self) -> bool:
        """Tell whether the namespace is there; who may not ask takes it for granted.

        Raises:
            ClusterError: the API server cannot be asked.
        """

        def found() -> bool:
            try:
                self._client.get(Namespace, self._namespace)
            except ApiError as error:
                return error.status.code != _NOT_FOUND
            return True

        return self._asked(found)

    def namespace(self) -> Manifest | None:
        """Return the Namespace, None when there is none.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        return self.get(Namespace, self._namespace)

    def get(self, kind: Any, name: str, namespace: str | None = None) -> Manifest | None:  # noqa: ANN401 - a class of lightkube
        """Return an object, None when it is not there or the cluster does not know its kind.

        It is that of the namespace or of another one, or of the cluster if the kind has none.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        where = namespace or self._namespace_for(kind)
        return self._asked_for(lambda: _plain(self._client.get(kind, name, namespace=where)))

    def listed(self, kind: Any, labels: Mapping[str, str] | None = None) -> list[Manifest]:  # noqa: ANN401 - as above
        """Return all objects of a kind, with these labels, in the namespace, or in the cluster if the kind has none.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        where, chosen = self._namespace_for(kind), dict[str, Any](labels or {})
        return self._asked(lambda: [_plain(found) for found in self._client.list(kind, namespace=where, labels=chosen)])

    def listed_if_known(self, kind: RouteKind) -> list[Manifest] | None:
        """Return all objects of a router's kind in the namespace, None where the cluster does not know it.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        resource = _class_of(kind)

        def listed() -> list[Manifest] | None:
            try:
                return [_plain(found) for found in self._client.list(resource, namespace=self._namespace)]
            except httpx2.HTTPStatusError as error:  # of a path that is not there, which has no Status to answer with
                if error.response.status_code == _NOT_FOUND:
                    return None
                raise

        return self._asked(listed)

    def kinds(self, group: str, version: str) -> set[str]:
        """Return the kinds that are served of an API group's version.

        Raises:
            ClusterError: the API server cannot be asked.
        """

        def served() -> set[str]:
            # lightkube has no call for it. Everybody may ask (ClusterRole system:discovery), and unlike a list of
            # objects it does not answer "forbidden" where there is no such kind.
            answer = self._client._client._client.get(f"/apis/{group}/{version}")  # noqa: SLF001 - see above
            if answer.status_code == _NOT_FOUND:
                return set()
            answer.raise_for_status()
            return {resource["kind"] for resource in answer.json()["resources"]}

        return self._asked(served)

    @cached_property
    def groups(self) -> frozenset[str]:
        """The API groups that are served; asked once.

        Raises:
            ClusterError: the API server cannot be asked.
        """

        def served() -> frozenset[str]:
            # As above: everybody may ask, and lightkube has no call for it.
            answer = self._client._client._client.get("/apis")  # noqa: SLF001 - see above
            answer.raise_for_status()
            return frozenset(group["name"] for group in answer.json()["groups"])

        return self._asked(served)

    def log_of_ended(self, pod: str, container: str, lines: int) -> list[str]:
        """Return the last lines that a container wrote before it ended last.

        Raises:
            ClusterError: the API server cannot be asked, or its kubelet has none.
            ForbiddenError: the account may not ask.
        """
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}/log"
        wanted = {"container": container, "previous": "true", "tailLines": str(lines)}

        def asked() -> list[str]:
            # lightkube's own call has no `previous`.
            answer = self._client._client._client.get(path, params=wanted)  # noqa: SLF001 - see above
            if answer.is_error:
                raise ApiError(answer.request, answer)
            return list(answer.text.splitlines())

        return self._asked(asked)

    def patch(
        self,
        kind: Any,  # noqa: ANN401 - as above
        name: str,
        change: Manifest,
        patch_type: PatchType = PatchType.MERGE,
        manager: str | None = LOWERING_MANAGER,
    ) -> bool:
        """Change an object in the namespace, if it is there; return whether it is.

        Raises:
            ClusterError: the API server refused.
        """

        def patched() -> bool:
            self._client.patch(
                kind, name, change, namespace=self._namespace, patch_type=patch_type, field_manager=manager
            )
            return True

        return bool(self._asked_for(patched))

    def write(self, manifest: Manifest, part: Manifest | None = None, *, dry_run: bool = False) -> Manifest:
        """Apply an object as the engine would, and return it as it is then.

        Args:
            manifest: the object.
            part: what alone is merged into the object, which has to be there.
            dry_run: change nothing, but tell.

        Raises:
            ClusterError: the API server refused.
        """
        return self._asked(
            lambda: _plain(
                self._client.patch(
                    resource_of(manifest),
                    manifest["metadata"]["name"],
                    part or manifest,
                    namespace=self._namespace,
                    patch_type=PatchType.MERGE if part else PatchType.APPLY,
                    field_manager=FIELD_MANAGER,
                    force=not part,
                    dry_run=dry_run,
                )
            )
        )

    def _namespace_for(self, kind: Any) -> str | None:  # noqa: ANN401 - as above
        return self._namespace if issubclass(kind, NamespacedResource) else None

    def _asked_for(self, ask: Callable[[], Found]) -> Found | None:
        """Ask for an object that may not be there."""

        def found() -> Found | None:
            try:
                return ask()
            except ApiError as error:
                if error.status.code == _NOT_FOUND:
                    return None
                raise
            except httpx2.HTTPStatusError as error:  # of a kind that is not there, as above
                if error.response.status_code == _NOT_FOUND:
                    return None
                raise

        return self._asked(found)

    def _patiently(self, ask: Callable[[], Found]) -> Found:
        """Ask until the answer is not to come again later, as when its storage is initializing after a start."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                # One at a time: msgspec, which decodes the answers, ended the process when threads did so at once.
                with self._asking:
                    return ask()
            except httpx2.HTTPStatusError as error:
                later = error.response.headers.get("Retry-After", "")
                if not later.isdecimal() or time.monotonic() + int(later) > until:
                    raise
            time.sleep(int(later))

    def _asked(self, ask: Callable[[], Found]) -> Found:
        try:
            return self._patiently(ask)
        except ApiError as error:
            refused = ForbiddenError if error.status.code == _FORBIDDEN else ClusterError
            raise refused(f"the API server refused: {error.status.message or error}") from error
        except (httpx2.HTTPError, ConfigError, OSError, ValueError, KeyError) as error:
            # The last three also come from a credential plugin that is missing or prints something else than a token.
            server = self._client.config.cluster.server
            raise ClusterError(
                f"the API server {server} cannot be asked: {type(error).__name__}: {error}. It is that of the "
                "Kubernetes provider's kubeconfig and context, else of kubectl"
            ) from error


def resource_of(manifest: Manifest) -> Any:  # noqa: ANN401 - as above
    """Return lightkube's class of an object's kind, which is one of Kubernetes' own or was listed before."""
    return resource_registry.load(manifest["apiVersion"], manifest["kind"])


def _class_of(kind: RouteKind) -> Any:  # noqa: ANN401 - a class of lightkube
    try:
        return resource_registry.load(kind.api_version, kind.kind)
    except LoadResourceError:  # not one of Kubernetes' own
        group, _, version = kind.api_version.partition("/")
        return resource_registry.register(create_namespaced_resource(group, version, kind.kind, kind.plural))


def _plain(found: Any) -> Manifest:  # noqa: ANN401 - an instance of any class of lightkube
    api = type(found)._api_info.resource  # noqa: SLF001 - lists leave kind and apiVersion out of their items
    version = f"{api.group}/{api.version}" if api.group else api.version
    plain: Manifest = found.to_dict()
    return plain | {"apiVersion": version, "kind": api.kind}
