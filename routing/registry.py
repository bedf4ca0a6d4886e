"""The routers there are, by the name that the `router` configuration key takes."""

from collections.abc import Mapping
from types import MappingProxyType

from routing.nginx import Nginx
from routing.router import Router

ROUTERS: Mapping[str, Router] = MappingProxyType({router.name: router for router in (Nginx(),)})
