"""What an update would do to the traffic of each service, and what it must not do. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from canary_service.config.loader import Problem
from canary_service.config.settings import Settings
from canary_service.routing.nginx import Nginx
from canary_service.routing.router import Feature
from canary_service.routing.split import Entry, Track
from canary_service.routing.traefik import Traefik
from canary_service.workload import manifests
from canary_service.workload.labels import image_version, object_name, selector
from canary_service.workload.live import SERVICE_COMPONENT, LiveService, declared_as
from canary_service.workload.stickiness import kept_at_weight_0

TAKEOVER_GUIDE = "docs/takeover.md"

IDENTIFIER: Final = "clusterIdentifier"
"""The key of the Kubernetes provider's configuration that says which cluster it is, whatever its address."""

OF_THE_STACK: Final = "of-the-stack"
"""What it is where nobody has said otherwise: a stack has one cluster, so it need not be told from others."""


class RefusedError(Exception):
    """An update would lose requests or surprise users. A retry does not help; `problems` holds all there is to mend."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 change is" if len(problems) == 1 else f"{len(problems)} changes are"
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{count} refused; nothing was changed.\n{lines}")


@dataclass(frozen=True, slots=True)
class Transition:
    """What an update does to one service, compared with what the cluster has.

    `lowers_to` is the weight (percent) to which the canary falls before everything else: nothing has to be ready for
    it. It is None when the weight does not fall, or when stable has no ready pod and has to be waited for. `raises`
    says that the canary gets more requests or copies, or a route of its own: its pods have to be ready first.
    `replaces` says that another image takes the place of one that gets requests: the router has to follow first.
    `warnings` are what a reviewer should know.
    """

    lowers_to: int | None = None
    raises: bool = False
    replaces: bool = False
    warnings: tuple[str, ...] = ()


def missing_namespace(settings: Settings) -> Problem:
    """Return what is wrong with a namespace that is not there and that the stack does not make."""
    create = f"kubectl create namespace {settings.namespace}"
    return Problem("namespace", settings.namespace, "a namespace that is there", create)


def unidentified() -> Problem:
    """Return what is wrong with a cluster that the Kubernetes provider knows by its kubeconfig alone.

    Its `DiffConfig` says so: https://github.com/pulumi/pulumi-kubernetes/blob/master/provider/pkg/provider/provider.go
    """
    key = f"kubernetes:{IDENTIFIER}"
    return Problem(
        key,
        "(none)",
        "any name that stays, from an update before the next change of kubernetes:kubeconfig on: without it, another "
        "address or CA there is another cluster, so all objects are made anew under their names and then deleted",
        f"pulumi config set {key} {OF_THE_STACK}",
    )


def unknown_kind(settings: Settings, why: str, serving: Sequence[str]) -> Problem:
    """Return what is wrong with a router whose objects the cluster does not know; other routers may be `serving`."""
    known = next(iter(serving), Nginx.name)  # whose objects are of Kubernetes' own kinds
    allowed = f"a router whose objects the cluster knows. {why}"
    return Problem("router", settings.router, allowed, f"pulumi config set router {known}")


def unsupported(settings: Settings, name: str, feature: Feature, why: str) -> Problem:
    """Return what is wrong with a mirror or a session cookie that the Gateway of the route may not carry out."""
    service = settings.services[name]
    if feature is Feature.AFFINITY or service.canary is None:
        key, value = f"services.{name}.sessionAffinity", "(a map)"
    else:
        key, value = f"services.{name}.canary.mirrorPercent", str(service.canary.mirror_percent)
    return Problem(key, value, f"absent. {why}", f"pulumi config rm --path {key}")


def unattached(gateway: Entry, served_by: Sequence[Entry], why: str) -> Problem:
    """Return what is wrong with a Gateway that is to take requests over from others, and is not there."""
    serving = next(iter(served_by), gateway)
    keys = ("name", gateway.name, serving.name), ("namespace", gateway.namespace, serving.namespace)
    key, value, other = next(
        (each for each in keys if each[1] != each[2]), ("listener", gateway.listener, serving.listener)
    )
    change = f"pulumi config set --path gateway.{key} {other}" if other else f"pulumi config rm --path gateway.{key}"
    return Problem(
        f"gateway.{key}",
        value or "(none)",
        f"a Gateway that is there: {why}, and every request that {serving} takes now would get status 404",
        change,
    )


def transitions(
    settings: Settings, live: Mapping[str, LiveService], stack: str, components: Sequence[str] = ()
) -> dict[str, Transition]:
    """Return what this configuration does to each service.

    Args:
        settings: the configuration.
        live: what the cluster has of each of its services.
        stack: PROJECT/STACK, by which objects say where they belong.
        components: what declares the services, as TYPES::NAME of a URN, then by its aliases what did; none for a
            program that has its services from configuration.

    Raises:
        RefusedError: with every change that is refused.
    """
    problems = [*_jumps(settings, live)]
    for name in settings.services:
        if live[name].owner not in ("", stack):
            problems.append(_foreign(settings, name, live[name].owner))
        elif former := live[name].declared_as - {declared_as(each, name) for each in components or [""]}:
            problems.append(_renamed(name, min(former), stack, components))
        else:
            problems += _of_service(settings, name, live[name])
    if problems:
        raise RefusedError(problems)
    return {name: _transition(settings, name, live[name]) for name in settings.services}


def _transition(settings: Settings, name: str, live: LiveService) -> Transition:
    declared = settings.services[name]
    routed = live.split is not None and live.split.canary is not None
    warnings = list(_warnings(settings, name, live))
    takes_back = declared.stable == "existing" or (live.stable is not None and live.stable.ready > 0)
    if declared.canary is None:
        promoted = declared.image in live.canary_images
        lowers = ((routed and live.falls_from) or live.unreadable) and takes_back and not promoted
        return Transition(0 if lowers else None, warnings=tuple(warnings))
    weight, _ = settings.canary_weight_of(name)
    # Whatever the weight is that cannot be read: 0 is no rise for a canary that is there.
    to_0 = bool(live.unreadable) and live.canary is not None and weight == 0
    return Transition(
        lowers_to=weight if ((routed and weight < live.falls_from) or to_0) and takes_back else None,
        raises=not (routed or to_0) or (weight, settings.mirror_of(name)) > (live.rises_from, live.mirror),
        replaces=_replaces(settings, name, live),
        warnings=tuple(warnings),
    )


def _warnings(settings: Settings, name: str, live: LiveService) -> Iterator[str]:
    declared, router = settings.services[name], settings.router_of_stack()
    if live.unreadable:
        yield f"the route in the cluster cannot be read as a split, so {live.weight} % is assumed: {live.unreadable}"
    yield from moves(settings, name, live)
    yield from _https_alone(settings, name, live)
    if declared.drain_seconds < router.sync_seconds:
        yield (
            f"drainSeconds is {declared.drain_seconds}, but router {router.name} may send requests to a pod for "
            f"{router.sync_seconds:.1f} s after it was told to end: some will be lost"
        )
    if declared.canary and live.taken_along:
        yield f"the canary also gets its share of {', '.join(live.taken_along)}: they go to the same Service"
    if declared.canary is None:
        if live.split and live.split.canary and declared.image in live.canary_images:
            unproven = 100 - live.weight
            if unproven:
                yield f"promotion at {live.weight} %: {unproven} % of the requests have never met {declared.image}"
        return
    if declared.canary.image == declared.image:
        yield f"canary and stable run the same image: {declared.image}"
    if mirror := settings.mirror_of(name):
        yield f"copies of {mirror} % of the requests go to the canary: what they write is written twice"
    weight, _ = settings.canary_weight_of(name)
    if weight == 0 and (kept := kept_at_weight_0(settings, name)):
        yield f"weight 0 does not evict clients with {', '.join(kept)} (docs/reference.md, Who stays on which track)"


def _https_alone(settings: Settings, name: str, live: LiveService) -> Iterator[str]:
    """Yield what Traefik does with a certificate; for nginx it is one beside plain HTTP."""
    declared, found = settings.split_of(name), live.split
    if settings.router != Traefik.name or declared.tls_secret is None or found is None:
        return
    if live.former_routers or found.tls_secret is None:
        points = ", ".join(entry.name for entry in declared.entries) or "Traefik's defaults"
        yield (
            "with tlsSecretName, Traefik takes requests by HTTPS alone, those by plain HTTP get status 404: "
            f"traefik.entryPoints ({points}) has to have one for HTTPS"
        )


def moves(settings: Settings, name: str, live: LiveService) -> Iterator[str]:
    """Yield, in words, where the route of a service goes if it does not stay: requests to the old one will fail."""
    if live.split is None or settings.services[name].stable == "existing":
        return
    if live.former_routers:
        former = " and ".join(live.former_routers)
        yield (
            f"the route moves from router {former} to {settings.router}: both are there until the new one is in force, "
            "then requests that still come in by the old one will fail"
        )
        return
    declared, found = settings.split_of(name), live.split
    if declared.match != found.match:
        old, new = (f"{match.host}{match.path} ({match.path_type})" for match in (found.match, declared.match))
        yield f"the route moves from {old} to {new}: requests to the old one will fail"
    if declared.entries != found.entries:
        old, new = (" and ".join(map(str, split.entries)) or "the default" for split in (found, declared))
        yield f"the route moves from {old} to {new}: requests that come in by the old one will fail"


def _jumps(settings: Settings, live: Mapping[str, LiveService]) -> Iterator[Problem]:
    """Refuse to raise a weight by more than `rollout.maxStep`, once for each key that gives it."""
    limits: dict[str, tuple[int, str]] = {}
    for name, service in settings.services.items():
        if service.canary is None:
            continue
        weight, key = settings.canary_weight_of(name)
        limit = live[name].rises_from + settings.rollout.max_step
        if weight > limit and limit < limits.get(key, (weight, ""))[0]:
            limits[key] = limit, name
    for key, (limit, name) in limits.items():
        weight, _ = settings.canary_weight_of(name)
        path = "" if "." not in key else "--path "
        yield Problem(
            key,
            str(weight),
            f"at most {limit} now: {live[name].rises_from} % of {name} are in force, and rollout.maxStep lets a weight "
            f"rise by {settings.rollout.max_step} points in one update"
            + (f". The route cannot be read: {live[name].unreadable}" if live[name].unreadable else ""),
            f"pulumi config set {path}{key} {limit}",
        )


def _foreign(settings: Settings, name: str, owner: str) -> Problem:
    return Problem(
        f"services.{name}",
        name,
        f"a service that no other stack has in namespace {settings.namespace}: its objects belong to stack {owner}",
        f"pulumi config set namespace {settings.namespace}-{owner.rpartition('/')[2]}-2",
    )


def _renamed(name: str, former: str, stack: str, components: Sequence[str]) -> Problem:
    """Refuse what is another resource to the engine: it would delete the objects of the former one, which serve."""
    project, _, stack = stack.rpartition("/")
    component = former or f"{SERVICE_COMPONENT}::{name}"
    alias = f", or give it the alias urn:pulumi:{stack}::{project}::{component}" if components else ""
    return Problem(
        f"services.{name}",
        name,
        f"what is declared as it was, as {component}: as something else, what serves now would be deleted",
        f"keep type, name and parents of the component{alias}",
    )


def _of_service(settings: Settings, name: str, live: LiveService) -> Iterator[Problem]:
    declared = settings.services[name]
    if declared.stable == "existing":
        yield from _attachment(settings, name, live)
    else:
        yield from _takeover(settings, name, live)
        yield from _port(settings, name, live)
        yield from _shrinking(settings, name, live)
    canary = declared.canary
    if canary and _replaces(settings, name, live) and canary.replaces not in live.canary_images:
        weight, _ = settings.canary_weight_of(name)
        if weight == 0 or _restores(canary.image, live):
            return
        yield Problem(
            f"services.{name}.canary.image",
            canary.image,
            f"the image that runs, {' or '.join(live.canary_images)}, as long as it gets {live.weight} % of the "
            "requests: they would meet another version at once. Take it out of the traffic first "
            f"(weight 0, or `canary abort --service {name}`), or name the running one as replaced",
            f"pulumi config set --path services.{name}.canary.replaces {live.canary_images[0]}",
        )


def _replaces(settings: Settings, name: str, live: LiveService) -> bool:
    canary = settings.services[name].canary
    return bool(canary and live.canary_images and live.weight and canary.image not in live.canary_images)


def _restores(image: str, live: LiveService) -> bool:
    """Tell whether something else has set the running image, and this is the one that was declared before."""
    return live.canary is not None and live.canary.overridden_version == image_version(image)


def _shrinking(settings: Settings, name: str, live: LiveService) -> Iterator[Problem]:
    declared = settings.services[name]
    running = live.stable.declared_replicas if live.stable else None
    if declared.autoscaling or running is None or not live.weight or declared.replicas >= running:
        return
    yield Problem(
        f"services.{name}.replicas",
        str(declared.replicas),
        f"at least {running}, as long as the canary gets {live.weight} %: stable may have to take everything back",
        f"pulumi config set --path services.{name}.replicas {running}",
    )


def _port(settings: Settings, name: str, live: LiveService) -> Iterator[Problem]:
    """Refuse another port: router and Service learn of it one after the other, and in between no request arrives."""
    if live.port is None:
        return
    declared = settings.services[name]
    number, port_name, target = live.port.number, live.port.name, live.port.target
    moved = isinstance(target, int) and declared.port != target
    if settings.service_port_of(name) != number and (declared.service_port or not moved):
        key = f"services.{name}.servicePort" if declared.service_port else f"services.{name}.port"
        yield Problem(
            key,
            str(settings.service_port_of(name)),
            f"{number}, which the Service has: while it changes, the route leads nowhere. Give it to another service",
            f"pulumi config set --path services.{name}.servicePort {number}",
        )
    if moved:
        yield Problem(
            f"services.{name}.port",
            str(declared.port),
            f"{target}, to which the Service sends requests: the pods that run would get them at another port at once",
            f"pulumi config set --path services.{name}.port {target}",
        )
    if (declared.port_name or "") != port_name:
        key = f"services.{name}.portName"
        yield Problem(
            key,
            declared.port_name or "(none)",
            f"{port_name or 'none'}, which the Service's port has: while it changes, routers find no pods behind it",
            f"pulumi config set --path {key} {port_name}" if port_name else f"pulumi config rm --path {key}",
        )


def _takeover(settings: Settings, name: str, live: LiveService) -> Iterator[Problem]:
    """Refuse what would fail half-way on objects made by hand, with the Service already leading nowhere."""
    for track, deployment in ((Track.STABLE, live.stable), (Track.CANARY, live.canary)):
        wanted = selector(settings.app_label_of(name, track), track)
        if deployment and dict(deployment.selector) != wanted:
            yield Problem(
                f"services.{name}",
                name,
                f"a service whose Deployments can be made: the {track} one that is there selects "
                f"{_written(deployment.selector)} instead of {_written(wanted)}, and a selector cannot be changed",
                f"take it over without losing a request: {TAKEOVER_GUIDE}",
            )
    if live.strands:
        wanted = selector(settings.app_label_of(name, Track.STABLE), Track.STABLE)
        yield Problem(
            f"services.{name}",
            name,
            f"a service with ready pods: Service {name} leads to pods with {_written(live.selector or {})}, and none "
            f"of them has {_written(wanted)}",
            f"take it over without losing a request: {TAKEOVER_GUIDE}",
        )


def _attachment(settings: Settings, name: str, live: LiveService) -> Iterator[Problem]:
    if live.ours:
        yield Problem(
            f"services.{name}.stable",
            "existing",
            "managed: this stack made the objects that serve, and would delete them",
            f"pulumi config set --path services.{name}.stable managed",
        )
        return
    if settings.services[name].canary is None:
        return  # whatever has become of their route, a canary can go
    match = settings.split_of(name).match
    if live.split is None:
        missing = live.unreadable or "there is none"
        yield Problem(
            f"services.{name}.stable",
            "existing",
            f"managed, or a route of {match.host}{match.path} ({match.path_type}) to attach to: {missing}",
            f"pulumi config set --path services.{name}.stable managed",
        )
        return
    other = live.split.canary.backend.service if live.split.canary else object_name(name, Track.CANARY)
    if other != object_name(name, Track.CANARY):
        yield Problem(
            f"services.{name}.stable",
            "existing",
            f"a route without another canary: {match.host}{match.path} has one already, to Service {other}, and a "
            "router takes only one of two",
            f"remove the Ingress of Service {other}",
        )
    # With the labels that podTemplatePatch adds; `part-of`, which only the engine knows, is left empty.
    template = manifests.deployment(settings, name, Track.CANARY, "")["spec"]["template"]
    pods: dict[str, str] = template["metadata"]["labels"]
    if live.selector is not None and live.selector.items() <= pods.items():
        yield Problem(
            f"services.{name}.stable",
            "existing",
            f"managed: Service {live.split.stable.service} selects {_written(live.selector)}, which canary pods "
            "match too, so that they would get stable's requests at every weight",
            f"pulumi config set --path services.{name}.stable managed",
        )


def _written(selected: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selected.items())) or "everything"
