"""The routers there are, by the name that the `router` configuration key takes."""

from collections.abc import Mapping
from types import MappingProxyType

from canary_service.routing.consul import Consul
from canary_service.routing.gateway import Gateway
from canary_service.routing.istio import Istio
from canary_service.routing.linkerd import Linkerd
from canary_service.routing.nginx import Nginx
from canary_service.routing.router import Router
from canary_service.routing.traefik import Traefik

_ALL: tuple[Router, ...] = (
    Nginx(),
    Gateway(),
    Traefik(),
    Istio(),
    Linkerd(),
    Consul(),
)

ROUTERS: Mapping[str, Router] = MappingProxyType({router.name: router for router in _ALL})
