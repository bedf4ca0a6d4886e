"""The cluster as it is while a program runs: read before, waited for and put right in between."""

from dataclasses import replace

from lightkube import Client
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.core_v1 import Pod, Service

from canary_service.cluster.api import KubernetesApi
from canary_service.cluster.declared import DeclaredObjects
from canary_service.cluster.errors import UnknownKindError
from canary_service.cluster.gateways import Gateways
from canary_service.cluster.routes import Routes
from canary_service.cluster.workloads import Workloads
from canary_service.config.settings import Settings
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.labels import object_name, selector
from canary_service.workload.live import ROLLED_BACK_ANNOTATION, LiveService, Objects, live_service
from canary_service.workload.readiness import rollout_completed


class LiveCluster:
    """The services of one configuration in a cluster, and the parts that each know one side of them.

    May be used by several threads at once.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        self.settings = settings
        self.api = KubernetesApi(client, settings.namespace)
        self.workloads = Workloads(settings, self.api)
        self.gateways = Gateways(settings, self.api)
        self.routes = Routes(settings, self.api, self.gateways)
        self.declared = DeclaredObjects(settings, self.api)

    def read(self, *, monitoring: bool = True) -> dict[str, LiveService]:
        """Return what there is of each service.

        Where the cluster does not know the declared router's kinds, the routes are those of the routers that serve.

        Args:
            monitoring: look at what watches the services too, which only an update has to compare.

        Raises:
            ClusterError: the API server cannot be asked; UnknownKindError when no other router serves either.
        """
        deployments, services = self.api.listed(Deployment), self.api.listed(Service)
        routes, unknown = list[Manifest](), None
        try:
            routes = self.routes.listed()
        except UnknownKindError as error:
            unknown = error
        self.declared.read((*deployments, *services, *routes), monitoring=monitoring)
        deployments_by_name = {found["metadata"]["name"]: found for found in deployments}
        services_by_name = {found["metadata"]["name"]: found for found in services}
        unfinished = any(
            not rollout_completed(found)
            for name in self.settings.services
            for track in Track
            if (found := deployments_by_name.get(object_name(name, track)))
        )
        sets = self.api.listed(ReplicaSet) if unfinished else []
        objects = Objects(deployments_by_name, services_by_name, routes, sets)
        live = {name: live_service(self.settings, name, objects) for name in self.settings.services}
        live = self.routes.in_force(live, routes, unknown)
        self.declared.expect(live, routes)
        return {name: replace(found, strands=self._strands(name, found)) for name, found in live.items()}

    def mark_rolled_back(self, name: str, image: str | None) -> None:
        """Note on the canary's Deployment that this image was rolled back; None removes the note.

        Raises:
            ClusterError: the API server refused.
        """
        change = {"metadata": {"annotations": {ROLLED_BACK_ANNOTATION: image}}}
        self.api.patch(Deployment, object_name(name, Track.CANARY), change)

    def _strands(self, name: str, live: LiveService) -> bool:
        """Tell whether the Service, which leads to ready pods now, would lead to none with its declared selector."""
        declared = selector(self.settings.app_label_of(name, Track.STABLE), Track.STABLE)
        if not live.selector or dict(live.selector) == declared or self.settings.services[name].stable == "existing":
            return False
        return any(map(_is_ready, self.api.listed(Pod, live.selector))) and not any(
            map(_is_ready, self.api.listed(Pod, declared))
        )


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")
