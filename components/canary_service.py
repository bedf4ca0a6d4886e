"""One service as stable and canary, and the route that shares its requests between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pulumi

from components.kubernetes_object import KubernetesObject
from config.settings import Settings
from routing.router import Manifest
from routing.split import TOTAL_WEIGHT, Track
from workload.labels import labels, object_name
from workload.manifests import deployment, service

# A Deployment is awaited until its pods are ready, if they get traffic. Waiting for the other kinds is not worth it
# (docs/adr/0003-await.md): for a Service the provider waits 10 s in which nothing happens, for an Ingress until the
# controller publishes an address, and then it takes for the outcome what its watch saw last, even the old object.
SKIP_AWAIT: Final = {"pulumi.com/skipAwait": "true"}


@dataclass(frozen=True, slots=True)
class CanaryServiceArgs:
    """What a CanaryService is made of.

    `settings` is the whole stack's configuration, in which the service stands under the component's name. `part_of`
    names the application for the `app.kubernetes.io/part-of` label. `secret` hides what runs in the pods (environment,
    commands) from previews and state, because the configuration that holds it is encrypted.
    """

    settings: Settings
    part_of: str
    secret: bool = False


class CanaryService(pulumi.ComponentResource):
    """Stable and canary Deployment and Service, and the objects of the router.

    Created in the order Service, Deployment, route: traffic is routed when the pods are ready. Pulumi deletes in the
    reverse order and after all updates: on the way down the route goes first, then the pods, which serve on while they
    drain, then the Service; and a promoted stable is ready before the canary goes. At weight 0 nothing waits for the
    canary's pods, so that a broken canary cannot hold up the way back.

    `state` holds, as a stack output, per track the image, the replicas and the weight (percent), the URL and the
    configuration key that the weight comes from.

    The objects are made after those in `after`: `depends_on` of a component does not hold for its children.
    """

    state: dict[str, Any]

    def __init__(
        self,
        name: str,
        args: CanaryServiceArgs,
        opts: pulumi.ResourceOptions | None = None,
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        super().__init__("canary:index:CanaryService", name, None, opts)
        self._args = args
        self._after = after
        declared = args.settings.services[name]
        tracks = [Track.STABLE, Track.CANARY] if declared.canary else [Track.STABLE]
        if declared.canary and declared.canary.image == declared.image:
            pulumi.log.warn(f"canary and stable run the same image: {declared.image}", self)
        pods = {object_name(name, track): self._workload(name, track) for track in tracks}
        self._route(name, pods)
        self.state = _state(args.settings, name)
        # Outputs that change at every shift would each cost one more write of the whole state (docs/adr/0007-fleet.md).
        self.register_outputs({"url": self.state["url"]})

    def _workload(self, name: str, track: Track) -> KubernetesObject:
        args = self._args
        exposed = service(args.settings, name, track, args.part_of)
        exposed["metadata"]["annotations"] = dict(SKIP_AWAIT)
        pods = deployment(args.settings, name, track, args.part_of)
        weight, _ = args.settings.canary_weight_of(name)
        if track is Track.CANARY and weight == 0:
            # Nothing may stand between the user and weight 0, least of all a canary that does not become ready.
            pods["metadata"]["annotations"] = dict(SKIP_AWAIT)
        if args.secret:
            pods["spec"]["template"]["spec"] = pulumi.Output.secret(pods["spec"]["template"]["spec"])
        return self._object(pods, [self._object(exposed, self._after)])

    def _route(self, name: str, pods: dict[str, KubernetesObject]) -> None:
        settings = self._args.settings
        previous: list[KubernetesObject] = []
        for route in settings.router_of_stack().render(settings.split_of(name)):
            manifest = route.manifest
            track = Track(manifest["metadata"]["labels"]["version"])
            image = settings.image_of(name, track)
            manifest["metadata"]["labels"] = labels(name, track, image, self._args.part_of)
            manifest["metadata"]["annotations"] |= SKIP_AWAIT
            previous.append(self._object(manifest, [*(pods[s] for s in sorted(route.services)), *previous]))

    def _object(self, manifest: Manifest, depends_on: Sequence[pulumi.Resource]) -> KubernetesObject:
        return KubernetesObject(manifest, pulumi.ResourceOptions(parent=self, depends_on=list(depends_on)))


def _state(settings: Settings, name: str) -> dict[str, Any]:
    declared, split = settings.services[name], settings.split_of(name)
    state: dict[str, Any] = {
        "url": f"{'https' if split.tls_secret else 'http'}://{split.match.host}{split.match.path}",
        "stable": {
            "image": declared.image,
            "replicas": declared.replicas,
            "weight": TOTAL_WEIGHT - split.weight,
        },
    }
    if declared.canary:
        _, source = settings.canary_weight_of(name)
        state["canary"] = {
            "image": declared.canary.image,
            "replicas": settings.canary_replicas_of(name),
            "weight": split.weight,
        }
        state["weightSource"] = source
    return state
