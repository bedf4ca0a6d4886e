"""One service as stable and canary, and the route that shares its requests between them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pulumi

from canary_service.cluster.live_cluster import LiveCluster
from canary_service.components.identity import Identity
from canary_service.components.kubernetes_component import KubernetesComponent
from canary_service.components.kubernetes_object import KubernetesObject
from canary_service.config.settings import Settings
from canary_service.routing.router import Manifest
from canary_service.routing.split import TOTAL_WEIGHT, Track
from canary_service.workload.labels import object_name
from canary_service.workload.live import LiveService, declared_as
from canary_service.workload.manifests import (
    autoscaler,
    configurations,
    deployment,
    disruption_budget,
    labels_of,
    service,
)
from canary_service.workload.stickiness import kept_at_weight_0


@dataclass(frozen=True, slots=True)
class CanaryServiceArgs:
    """What a CanaryService is made of.

    `settings` is the whole stack's configuration, in which the service stands under the component's name. `part_of`
    names the application for the `app.kubernetes.io/part-of` label. `secret` hides what runs in the pods (environment,
    commands) from previews and state, because the configuration that holds it is encrypted. `cluster` is where to
    wait for pods; None in a preview that has no cluster. `live` is what it has of the service before the update;
    `raises` and `lowers` tell what the update does to the canary's weight (`rollout.guards`). `components` are what a
    program declares the service as, then what it did: none for its configuration.
    """

    settings: Settings
    part_of: str
    secret: bool = False
    cluster: LiveCluster | None = None
    live: LiveService = field(default_factory=LiveService)
    raises: bool = True
    lowers: bool = False
    components: Sequence[Identity] = ()

    def prefix_of(self, name: str) -> str:
        """Return what begins the names of the resources of a service: alone they could be those of others."""
        return self.components[0].prefix(name) if self.components else ""


class CanaryService(KubernetesComponent):
    """Stable and canary Deployment and Service, and the objects of the router.

    Created in the order Service, configuration, Deployment, route. A Deployment that was changed is waited for until
    all its pods take requests; before the canary gets more, it is waited for in any case. Pulumi deletes in the
    reverse order and after all that: a promoted stable takes requests before the canary's route goes, then its pods,
    which serve on while they drain, then its Service. Nothing waits for a canary whose weight falls. The objects of
    another router go when those of the declared one are in force.

    `state` holds, as a stack output, per track the image, the replicas and the weight (percent), the URL and the
    configuration key that the weight comes from.

    The objects are made after those in `after`: `depends_on` of a component does not hold for its children.
    """

    def __init__(
        self,
        name: str,
        args: CanaryServiceArgs,
        opts: pulumi.ResourceOptions | None = None,
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        super().__init__("CanaryService", args.prefix_of(name) + name, args.cluster, opts)
        self._declare(name, args, after)

    def _declare(self, name: str, args: CanaryServiceArgs, after: Sequence[pulumi.Resource]) -> None:
        """Declare the objects of a service of this name."""
        self._service = name
        self._args = args
        self._cluster = args.cluster
        self._prefix = args.prefix_of(name)
        self._declared_as = declared_as(str(args.components[0]), name) if args.components else ""
        self._formerly = [partial(each.urn, name) for each in args.components[1:]]
        self._settings = args.settings
        self._after = after
        tracks = {track: self._workload(track) for track in self._settings.tracks_of(name)}
        self._route(tracks)
        self.state = _state(self._settings, name)
        # Outputs that change at every shift would each cost one more write of the whole state (docs/adr/0007-fleet.md).
        # The engine deletes nothing before they are there, so that they come after all waits.
        url: str = self.state["url"]
        self.url = pulumi.Output.all(*self._waits).apply(lambda _: url)
        self.register_outputs({"url": self.url})

    def _workload(self, track: Track) -> tuple[list[pulumi.Resource], pulumi.Output[None]]:
        """Declare the objects of one track; return them, and when its pods take requests."""
        name, settings, part_of = self._service, self._settings, self._args.part_of
        exposed = self._object(service(settings, name, track, part_of), self._after)
        configured = configurations(settings, name, track, part_of)
        contents = [
            # They go with the last ReplicaSet that uses them (docs/adr/0010-configuration.md)
            self._object(manifest, self._after, retain_on_delete=True)
            for manifest in configured
        ]
        pods = deployment(settings, name, track, part_of)
        scaled = autoscaler(settings, name, track, part_of)
        made = self._object(
            pods,
            [exposed, *contents],
            # The number that the autoscaler sets is the API server's to keep.
            ignore_changes=["spec.replicas"] if scaled else [],
        )
        others = [
            self._object(manifest, [made])
            for manifest in (scaled, disruption_budget(settings, name, track, part_of))
            if manifest
        ]
        at_least = scaled["spec"]["minReplicas"] if scaled else 0
        wait = self._when_ready(track, made, others, configured, at_least)
        return [made, *others], wait

    def _when_ready(
        self,
        track: Track,
        made: KubernetesObject,
        others: Sequence[KubernetesObject],
        configured: Sequence[Manifest],
        at_least: int,
    ) -> pulumi.Output[None]:
        cluster, args = self._args.cluster, self._args
        before = args.live.stable if track is Track.STABLE else args.live.canary

        loop = asyncio.get_running_loop()

        def report(text: str) -> None:
            loop.call_soon_threadsafe(partial(pulumi.log.info, text, made, ephemeral=True))

        def wait(metadata: Manifest) -> None:
            if cluster is None or pulumi.runtime.is_dry_run():
                return
            as_before = before is not None and before.rolled_out and before.generation == metadata["generation"]
            changed = before is not None and not as_before
            if configured or changed:
                cluster.declared.keep_while_used(self._service, track, configured, superseding=changed)
            if track is Track.CANARY and args.lowers:
                return
            if not as_before or (track is Track.CANARY and args.raises):
                cluster.workloads.wait_until_ready(self._service, track, report, at_least)

        done = pulumi.Output.all(made.metadata, *(other.metadata for other in others))
        return self._in_thread(done, lambda metadata: wait(metadata[0]))

    def _route(self, tracks: dict[Track, tuple[list[pulumi.Resource], pulumi.Output[None]]]) -> None:
        settings, name = self._settings, self._service
        previous: list[KubernetesObject] = []
        track_of = {object_name(name, track): track for track in tracks}
        router = settings.router_of_stack()
        versions_of = {kind.kind: kind.other_versions for kind in router.kinds}
        for route in router.render(settings.split_of(name)):
            manifest = route.manifest
            track = Track(manifest["metadata"]["labels"]["version"])
            if track not in tracks:
                continue
            manifest["metadata"]["labels"] = labels_of(settings, name, track, self._args.part_of)
            used = [tracks[track_of[service]] for service in sorted(route.services) if service in track_of]
            # A weight that falls waits for stable only, which has lost all its pods if it was not lowered ahead.
            awaited = used if self._args.raises else [tracks[t] for t in tracks if t is Track.STABLE]
            waits = [wait for _, wait in awaited]
            pods = [resource for resources, _ in used for resource in resources]
            previous.append(
                self._object(manifest, [*pods, *previous], waits=waits, other_versions=versions_of[manifest["kind"]])
            )
        self._when_routed(previous)

    def _when_routed(self, routes: Sequence[KubernetesObject]) -> None:
        """Wait until the router takes objects that are new to it, or that it has not taken yet.

        A weight that falls waits for no router but one from which another is to take over.
        """
        cluster, live, declared = self._args.cluster, self._args.live, self._settings.split_of(self._service)
        as_before = live.split and (live.split.match, live.split.entries) == (declared.match, declared.entries)
        settled = self._args.lowers or (as_before and not live.pending)
        if cluster is None or not routes or pulumi.runtime.is_dry_run() or (settled and not live.former_routers):
            return
        loop = asyncio.get_running_loop()

        def wait(_: object) -> None:
            if pending := cluster.routes.wait_until_routed(self._service):
                text = f"{pending}. No request is routed by it: `canary doctor`"
                loop.call_soon_threadsafe(pulumi.log.warn, text, routes[-1])

        self._in_thread(pulumi.Output.all(*(route.metadata for route in routes)), wait)

    def _hidden(self, manifest: Manifest) -> Manifest:
        if manifest["kind"] == "Secret":
            return manifest | {"data": pulumi.Output.secret(manifest["data"])}
        if manifest["kind"] == "ConfigMap" and self._args.secret:
            return manifest | {"data": pulumi.Output.secret(manifest["data"])}
        if manifest["kind"] == "Deployment" and self._args.secret:
            template = manifest["spec"]["template"]
            # Annotations and labels hold no secret but what a patch brings in.
            patched = "metadata" in self._settings.services[self._service].pod_template_patch
            secret = pulumi.Output.secret
            hidden = secret(template) if patched else template | {"spec": secret(template["spec"])}
            return manifest | {"spec": manifest["spec"] | {"template": hidden}}
        return manifest


def _state(settings: Settings, name: str) -> dict[str, Any]:
    declared, split = settings.services[name], settings.split_of(name)
    state: dict[str, Any] = {
        "url": f"{'https' if split.tls_secret else 'http'}://{split.match.host}{split.match.path}",
        "stable": {"weight": TOTAL_WEIGHT - split.weight},
    }
    for track in settings.tracks_of(name):
        scaled = declared.autoscaling is not None
        state[track.value] = {
            "image": settings.image_of(name, track),
            "minReplicas" if scaled else "replicas": settings.replicas_of(name, track),
            "weight": split.weight if track is Track.CANARY else TOTAL_WEIGHT - split.weight,
        }
    if declared.canary:
        _, state["weightSource"] = settings.canary_weight_of(name)
        if split.mirror:
            state["canary"]["mirrorPercent"] = split.mirror
        if kept := kept_at_weight_0(settings, name):
            state["canary"]["alsoReachedBy"] = kept
    return state
