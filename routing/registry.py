"""The routers there are, by the name that the `router` configuration key takes."""

from collections.abc import Mapping
from types import MappingProxyType

from routing.consul import Consul
from routing.gateway import Gateway
from routing.istio import Istio
from routing.linkerd import Linkerd
from routing.nginx import Nginx
from routing.router import Router
from routing.traefik import Traefik

_ALL: tuple[Router, ...] = (
    Nginx(),
    Gateway(),
    Traefik(),
    Istio(),
    Linkerd(),
    Consul(),
)

ROUTERS: Mapping[str, Router] = MappingProxyType({router.name: router for router in _ALL})
