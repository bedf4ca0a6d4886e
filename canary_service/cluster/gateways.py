"""The Gateways that routes name (Gateway API), as far as the account may see them."""

from typing import Final

from lightkube.generic_resource import create_global_resource, create_namespaced_resource

from canary_service.cluster.api import KubernetesApi
from canary_service.cluster.errors import ForbiddenError
from canary_service.config.settings import Settings
from canary_service.routing.gateway import UNLISTED, Gateway
from canary_service.routing.router import Manifest
from canary_service.routing.split import Entry

_GATEWAY_API: Final = ("gateway.networking.k8s.io", "v1")
_GATEWAY: Final = create_namespaced_resource(*_GATEWAY_API, "Gateway", "gateways")
_GATEWAY_CLASS: Final = create_global_resource(*_GATEWAY_API, "GatewayClass", "gatewayclasses")


class Gateways:
    """The Gateways by which a configuration's services are reached. May be used by several threads at once."""

    def __init__(self, settings: Settings, api: KubernetesApi) -> None:
        self._settings = settings
        self._api = api

    def supported_features(self, gateway: Entry) -> frozenset[str]:
        """Return what the implementation behind a Gateway is known to support.

        Raises:
            ClusterError: the API server cannot be asked; ForbiddenError when the account may not ask.
        """
        found = self._gateway(gateway)
        if found is None:
            return frozenset()
        named: str = found["spec"]["gatewayClassName"]
        of_class = self._api.get(_GATEWAY_CLASS, named)
        if of_class is None:
            return frozenset()
        listed = (of_class.get("status") or {}).get("supportedFeatures")
        if listed is None:
            return UNLISTED.get(of_class["spec"]["controllerName"], frozenset())
        return frozenset(each["name"] for each in listed)

    def lacking(self, gateway: Entry) -> str:
        """Return, in words, that a Gateway or its listener is not there; empty when it is, or who asks may not see it.

        Other routers' entries are no objects of which that could be asked.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        if not isinstance(self._settings.router_of_stack(), Gateway):
            return ""
        try:
            found = self._gateway(gateway)
        except ForbiddenError:
            return ""
        named = f"Gateway {gateway.namespace or self._settings.namespace}/{gateway.name}"
        if found is None:
            return f"{named} is not there"
        listeners = [each["name"] for each in found["spec"].get("listeners") or ()]
        if gateway.listener and gateway.listener not in listeners:
            return f"{named} has no listener {gateway.listener}, but {', '.join(listeners) or 'none at all'}"
        return ""

    def _gateway(self, gateway: Entry) -> Manifest | None:
        return self._api.get(_GATEWAY, gateway.name, gateway.namespace)
