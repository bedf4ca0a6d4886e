"""The objects that a configuration declares: what others have done to them in the cluster, and putting them back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Final

from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import Deployment, ReplicaSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.core_v1 import Service
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.types import PatchType

from canary_service.cluster.api import LOWERING_MANAGER, KubernetesApi, resource_of
from canary_service.cluster.errors import ForbiddenError
from canary_service.config.settings import Settings
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.labels import object_name, selector
from canary_service.workload.live import LiveService, changed_by_others, key_of, lacks, routes_of
from canary_service.workload.manifests import configurations_used

# Of the Prometheus operator; lightkube knows Kubernetes' own kinds.
_OPERATOR: Final = ("monitoring.coreos.com", "v1")
_POD_MONITOR: Final = create_namespaced_resource(*_OPERATOR, "PodMonitor", "podmonitors")
_PROMETHEUS_RULE: Final = create_namespaced_resource(*_OPERATOR, "PrometheusRule", "prometheusrules")
_MONITORING_KINDS: Final = (_POD_MONITOR, _PROMETHEUS_RULE)


@dataclass(frozen=True, slots=True)
class Drift:
    """How an object differs, or may differ, from what was declared last: `text` says it after the object's name.

    An object that the engine is about to create is missing too, and one that it is about to update may lack what is
    declared for the first time. In a preview such an object has no `resource_version` or the present one, and an
    object that the engine leaves as it is has that of the engine's last write. Without the right to write, one that it
    is about to update has none either.
    """

    text: str
    resource_version: str | None

    def left_by_engine(self, previewed: Manifest) -> bool:
        """Tell by an object's metadata in a preview whether the engine leaves it as it is."""
        return previewed.get("resourceVersion") not in {None, self.resource_version}


class DeclaredObjects:
    """The declared objects of a configuration in the cluster. May be used by several threads at once.

    What is compared is what `read` and `expect` were told last.
    """

    def __init__(self, settings: Settings, api: KubernetesApi) -> None:
        self._settings = settings
        self._api = api
        self._router = settings.router_of_stack()
        self._objects: dict[tuple[str, str], Manifest] = {}
        self._kinds: frozenset[str] = frozenset()
        self._unmade: frozenset[str] = frozenset()
        self._mirroring: frozenset[tuple[str, str]] = frozenset()

    def read(self, found: Iterable[Manifest], *, monitoring: bool) -> None:
        """Take note of Deployments, Services and the declared router's objects, and list what else is declared.

        Args:
            found: all of these.
            monitoring: list what watches the services too.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        optional = [kind for kind in self._optional_kinds() if monitoring or kind not in _MONITORING_KINDS]
        others = [each for kind in optional for each in self._listed(kind)]
        self._objects = {key_of(each): each for each in (*found, *others)}
        self._kinds = frozenset({"Deployment", "Service", *(each.kind for each in self._router.kinds)}) | {
            kind.__name__ for kind in optional
        }

    def expect(self, live: Mapping[str, LiveService], routes: Sequence[Manifest]) -> None:
        """Take note of which objects are not there yet and so cannot be lost.

        Args:
            live: the services as they are.
            routes: all objects of the declared router's kinds.
        """
        self._unmade = frozenset(
            name for name, found in live.items() if found.former_routers and not routes_of(self._settings, name, routes)
        )
        begins = [name for name, found in live.items() if found.split and not found.mirror]
        self._mirroring = frozenset(chain(*map(self._only_for_mirror, begins)))

    def knows_monitoring(self) -> bool:
        """Tell whether there are the kinds of the Prometheus operator that the stack uses; asked once.

        Raises:
            ClusterError: the API server cannot be asked.
        """
        return self._knows_monitoring

    def changed_by_others(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return who has changed the objects of a service since this program last did, by kind and name.

        They are those that `read` found last, without those of a stable that something else owns.
        """
        own = {object_name(name, track) for track in self._settings.tracks_of(name)}
        return {
            f"{kind} {found}": tuple(sorted(others))
            for (kind, found), manifest in self._objects.items()
            if found in own and (others := changed_by_others(manifest) - {LOWERING_MANAGER})
        }

    def drift(self, manifest: Manifest, *, keep_replicas: bool = False) -> Drift | None:
        """Return what others may have done to a declared object since this program last wrote it, None for nothing."""
        key = key_of(manifest)
        found = self._objects.get(key)
        if found is None:
            return Drift("is missing", None) if key[0] in self._kinds else None
        if not lacks(found, manifest, keep_replicas=keep_replicas):
            return None
        changes = changed_by_others(found)
        text = "was lowered ahead of an update that did not end" if changes else "lacks what is declared"
        if others := ", ".join(sorted(changes - {LOWERING_MANAGER})):
            text = f"was changed by {others}"
        return Drift(text, found["metadata"]["resourceVersion"])

    def lost(self, manifest: Manifest) -> bool:
        """Tell whether a Service, Deployment or route is missing although another object of its track is there.

        So too for the objects that watch a stack's services.
        """
        kind, name = key_of(manifest)
        routed = {each.kind for each in self._router.kinds}
        track = manifest["metadata"]["labels"].get("app.kubernetes.io/instance")
        siblings = any(other == track for _, other in self._objects)
        moving = {object_name(service, each) for service in self._unmade for each in Track}
        if kind in routed and (name in moving or (kind, name) in self._mirroring):
            return False  # the engine is about to make it
        kept = {"Deployment", "Service", *routed, *(kind.__name__ for kind in _MONITORING_KINDS)}
        return kind in kept and (kind, name) not in self._objects and siblings

    def restore(self, manifest: Manifest, *, keep_replicas: bool = False, dry_run: bool = False) -> Manifest | None:
        """Apply an object as it is declared, as the engine would; return it when that changed anything.

        Args:
            manifest: the object.
            keep_replicas: leave the number of replicas as an autoscaler has set it.
            dry_run: change nothing, but tell.

        Raises:
            ClusterError: the API server refused.
        """
        kind = resource_of(manifest)
        before = self._api.get(kind, manifest["metadata"]["name"])
        if before and key_of(manifest) not in self._objects:
            return None  # the engine has just made it
        if keep_replicas and before:
            manifest = manifest | {"spec": manifest["spec"] | {"replicas": before["spec"].get("replicas", 1)}}
        after: Manifest | None = None
        try:
            if before and kind is Service and not _numbers(manifest) <= _numbers(before):
                # Applied, a port would stand beside the one with another number that is there, and both need names.
                ports = {"spec": {"ports": manifest["spec"]["ports"]}}
                after = self._api.write(manifest, ports, dry_run=dry_run)
            if not (dry_run and after):
                after = self._api.write(manifest, dry_run=dry_run)
        except ForbiddenError:
            if not dry_run:
                raise
            return before or manifest  # a dry run needs the right to write; that something is lost is known already
        return after if before is None or _declarations(before) != _declarations(after) else None

    def keep_while_used(
        self, name: str, track: Track, configurations: Sequence[Manifest], *, superseding: bool
    ) -> None:
        """Let ConfigMaps and Secrets of a track go with the last ReplicaSet that uses them.

        Those that are declared belong to the Deployment: restarts by hand make ReplicaSets that this program does not
        see, and take old ones away. Those that they supersede are left to the ReplicaSets that use them, of which
        Kubernetes keeps `revisionHistoryLimit`
        (https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents).

        Raises:
            ClusterError: the API server refused.
        """
        deployment = self._api.get(Deployment, object_name(name, track))
        if deployment is None:  # deleted by somebody meanwhile, which the wait for its pods tells
            return
        for manifest in configurations:
            if not self._own(*key_of(manifest), [_reference(deployment)]):
                # The garbage collector was about to remove it with its former owners.
                self.restore(manifest)
                self._own(*key_of(manifest), [_reference(deployment)])
        if not superseding:
            return
        declared = {key_of(manifest) for manifest in configurations}
        no_more = {"$patch": "delete", "uid": deployment["metadata"]["uid"]}
        for replica_set in self._api.listed(ReplicaSet, selector(self._settings.app_label_of(name, track), track)):
            for kind, former in configurations_used(replica_set, object_name(name, track)) - declared:
                self._own(kind, former, [no_more, _reference(replica_set)])

    def _own(self, kind: str, name: str, owners: Sequence[Manifest]) -> bool:
        """Change the owners of a ConfigMap or Secret, by their uid; return whether it is there."""
        patch = {"metadata": {"ownerReferences": list(owners)}}  # a strategic merge patch leaves the other owners
        resource = resource_of({"apiVersion": "v1", "kind": kind})
        return self._api.patch(resource, name, patch, PatchType.STRATEGIC, None)

    def _only_for_mirror(self, name: str) -> set[tuple[str, str]]:
        """Return the declared router's objects of a service that are there only as long as requests are mirrored."""
        split = self._settings.split_of(name)
        if split.canary is None:
            return set()
        plain = replace(split, canary=replace(split.canary, mirror=0))
        mirrored, others = ({key_of(each.manifest) for each in self._router.render(of)} for of in (split, plain))
        return mirrored - others

    @cached_property
    def _knows_monitoring(self) -> bool:
        return {kind.__name__ for kind in _MONITORING_KINDS} <= self._api.kinds(*_OPERATOR)

    def _optional_kinds(self) -> list[Any]:
        services = self._settings.services.values()
        watched = self._settings.monitoring.enabled and self._knows_monitoring
        return [
            kind
            for kind, asked_for in (
                (HorizontalPodAutoscaler, any(service.autoscaling for service in services)),
                (PodDisruptionBudget, any(service.disruption_budget for service in services)),
                (_PROMETHEUS_RULE, watched),
                (_POD_MONITOR, watched and self._settings.monitoring.source == "application"),
            )
            if asked_for
        ]

    def _listed(self, kind: Any) -> list[Manifest]:  # noqa: ANN401 - a class of lightkube
        """List objects that a stack can do without."""
        try:
            return self._api.listed(kind)
        except ForbiddenError as error:
            if kind not in _MONITORING_KINDS:
                raise
            raise ForbiddenError(
                f"{error}. rbac/ has this right; without it: pulumi config set --path monitoring.enabled false"
            ) from error


def _reference(owner: Manifest) -> Manifest:
    """Return the entry of an object in the `ownerReferences` of others."""
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _declarations(manifest: Manifest) -> tuple[object, ...]:
    """Return the parts of an object that somebody declares, without what the API server and controllers add."""
    metadata = manifest["metadata"]
    return manifest.get("spec"), metadata.get("labels"), metadata.get("annotations")


def _numbers(service: Manifest) -> set[int]:
    return {port["port"] for port in service["spec"].get("ports") or ()}
