"""Checks of what runs behind the routes: Services, Deployments, pods, and who else has a hand in them. No I/O."""

import re
from collections.abc import Iterator
from typing import Any, Final

from canary_service.rollout.diagnosis import (
    UP,
    Case,
    Evidence,
    Finding,
    annotations_of,
    condition,
    evidence,
    is_owned,
    labels_of,
    listed,
    moment,
    written,
)
from canary_service.routing.router import Manifest
from canary_service.routing.split import Track
from canary_service.workload.facts import containers_of, crashed
from canary_service.workload.labels import object_name
from canary_service.workload.live import OWNER_ANNOTATION, changed_by_others, lacks
from canary_service.workload.manifests import autoscaler, deployment, disruption_budget, service
from canary_service.workload.manifests import labels_of as declared_labels

SERVICE_OF_SLICE: Final = "kubernetes.io/service-name"
"""The label by which an EndpointSlice names its Service (discovery/v1)."""

# https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go
_PULL_ERRORS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
# kuberuntime's errors: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/kuberuntime/kuberuntime_container.go
_START_ERRORS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_OUT_OF_MEMORY: Final = "OOMKilled"
_AMOUNT: Final = re.compile(r"([0-9]+)([A-Za-z]*)")


def namespace(case: Case) -> Iterator[Finding]:
    """Check that there is the namespace."""
    name = case.settings.namespace
    if "Namespace" in case.facts.unread:
        # Who may list in it and finds something has it.
        if not any(found for kind, found in case.facts.objects.items() if kind != "IngressClass"):
            cause, fix = "whether the namespace is there cannot be told", "the right: get namespaces (docs/rbac.md)"
            yield Finding(cause, (evidence(f"Namespace {name}", "", case.facts.unread["Namespace"]),), fix, "unknown")
    elif not case.facts.of("Namespace"):
        cause, seen = f"there is no namespace {name}", evidence(f"Namespace {name}", "metadata.name", "missing")
        yield Finding(cause, (seen,), UP if case.settings.create_namespace else f"kubectl create namespace {name}")
    elif case.facts.of("Namespace")[0]["metadata"].get("deletionTimestamp"):
        seen = evidence(f"Namespace {name}", "metadata.deletionTimestamp", "set")
        yield Finding(f"namespace {name} is being deleted", (seen,), "wait until it has gone, and make it again")


def owner(case: Case) -> Iterator[Finding]:
    """Check that the objects are those of this stack."""
    foreign = {
        evidence(found, f"metadata.annotations[{OWNER_ANNOTATION}]", by): by
        for track in Track
        for kind in ("Service", "Deployment", *(each.kind for each in case.settings.router_of_stack().kinds))
        if (found := case.facts.named(kind, object_name(case.name, track))) and not case.takes_over(track)
        if (by := annotations_of(found).get(OWNER_ANNOTATION)) not in {None, case.stack}
    }
    if foreign:
        others = listed(str(by) for by in foreign.values())
        cause = f"objects of this service belong to stack {others}, and the two undo each other's updates"
        yield Finding(cause, tuple(foreign), f"pulumi config set namespace NAMESPACE && {UP}, with one of its own")


def drift(case: Case) -> Iterator[Finding]:
    """Check that nothing that is declared was changed, removed or deleted by somebody else."""
    settings, name, part_of = case.settings, case.name, case.stack.partition("/")[0]
    routes = [route.manifest for route in settings.router_of_stack().render(settings.split_of(name))]
    for track in settings.tracks_of(name):
        of_track = [found for found in routes if found["metadata"]["name"] == object_name(name, track)]
        for route in of_track:
            route["metadata"]["labels"] = declared_labels(settings, name, track, part_of)
        scaled = autoscaler(settings, name, track, part_of)
        budget = disruption_budget(settings, name, track, part_of)
        always = [service(settings, name, track, part_of), deployment(settings, name, track, part_of), *of_track]
        for declared in (*always, *filter(None, (scaled, budget))):
            kind = declared["kind"]
            found = case.facts.named(kind, declared["metadata"]["name"])
            if found is None and declared not in always and kind not in case.facts.unread:
                text = f"{kind} {declared['metadata']['name']}"
                yield Finding(f"{text} is not there", (evidence(text, "metadata.name", "missing"),), UP)
            if found is None or not lacks(found, declared, keep_replicas=scaled is not None):
                continue
            by = listed(changed_by_others(found))
            cause = f"{kind} {found['metadata']['name']} " + (
                f"was changed by {by}" if by else "lacks what is declared"
            )
            yield Finding(cause, (evidence(found, "metadata.managedFields", by or "not ours any more"),), UP)


def service_present(case: Case) -> Iterator[Finding]:
    """Check that each track has its Service."""
    for track in case.tracks:
        if not case.service(track):
            name = case.service_name(track)
            cause = f"Service {name} is not there: the router has nowhere to send the {track}'s requests"
            yield Finding(cause, (evidence(f"Service {name}", "metadata.name", "missing"),), UP)


def service_selector(case: Case) -> Iterator[Finding]:
    """Check that each Service selects the pods of its own track and no others."""
    for track in case.tracks:
        exposed = case.service(track)
        if not exposed:
            continue
        name, chosen = exposed["metadata"]["name"], exposed["spec"].get("selector") or {}
        for of in Track:
            pods = case.deployment(of)
            if not pods:
                continue
            labels = labels_of(pods["spec"]["template"])
            selects = chosen.items() <= labels.items() and bool(chosen)
            seen = (
                evidence(exposed, "spec.selector", written(chosen)),
                evidence(pods, "spec.template.metadata.labels", written(labels)),
            )
            if of is track and not selects:
                cause = f"Service {name} selects {written(chosen)}, which the {track} pods do not have"
                yield Finding(cause, seen, UP)
            if of is not track and selects:
                cause = f"Service {name} of {track} selects the {of} pods too: they get requests whatever the weight is"
                yield Finding(cause, seen, UP if not case.takes_over(track) else "docs/takeover.md")


def foreign_pods(case: Case) -> Iterator[Finding]:
    """Check that the Services lead to pods of their own Deployments only."""
    for track in case.tracks:
        exposed, made = case.service(track), case.replica_sets(track)
        chosen = (exposed["spec"].get("selector") or {}) if exposed else {}
        if not exposed or not chosen or not case.deployment(track):
            continue
        siblings = {found["metadata"]["uid"] for of in Track for found in case.replica_sets(of)}
        for pod in case.facts.of("Pod"):
            owners = pod["metadata"].get("ownerReferences") or ()
            if not chosen.items() <= labels_of(pod).items() or pod["metadata"].get("deletionTimestamp"):
                continue
            if any(is_owned(pod, found) for found in made) or siblings & {each["uid"] for each in owners}:
                continue  # those of the other track are told by the selectors
            by = listed(f"{each['kind']} {each['name']}" for each in owners) or "nobody"
            yield Finding(
                f"Service {exposed['metadata']['name']} leads to pod {pod['metadata']['name']}, which is not of its "
                f"Deployment but of {by}",
                (evidence(pod, "metadata.ownerReferences", by), evidence(pod, "metadata.labels", written(chosen))),
                f"{case.kubectl} label pod {pod['metadata']['name']} {next(iter(chosen))}-"
                if not owners
                else f"give the pods of {by} other labels than {written(chosen)}",
            )


def service_port(case: Case) -> Iterator[Finding]:
    """Check that the Services send requests to the port on which the pods listen."""
    for track in case.tracks:
        exposed, pods = case.service(track), case.deployment(track)
        if not exposed or not pods:
            continue
        containers = pods["spec"]["template"]["spec"]["containers"]
        opened = {p.get("name") or "": p["containerPort"] for c in containers for p in c.get("ports") or ()}
        for number, port in enumerate(exposed["spec"].get("ports") or ()):
            target = port.get("targetPort") or port["port"]
            known: set[object] = {case.declared.port, *opened.values(), *(name for name in opened if name)}
            if target not in known:
                has = listed(map(str, opened.values()))
                yield Finding(
                    f"Service {exposed['metadata']['name']} sends requests to port {target}, on which no pod listens",
                    (
                        evidence(exposed, f"spec.ports[{number}].targetPort", target),
                        evidence(pods, "spec.template.spec.containers.ports", has or "none"),
                    ),
                    UP,
                )


def deployment_present(case: Case) -> Iterator[Finding]:
    """Check that each track has its Deployment, which is neither paused nor scaled to 0."""
    for track in case.settings.tracks_of(case.name):
        name, found = object_name(case.name, track), case.deployment(track)
        if found is None:
            cause = f"Deployment {name} is not there: {track} has no pods"
            yield Finding(cause, (evidence(f"Deployment {name}", "metadata.name", "missing"),), UP)
        elif found["spec"].get("replicas") == 0:
            yield Finding(f"Deployment {name} is scaled to 0", (evidence(found, "spec.replicas", 0),), UP)
        elif found["spec"].get("paused"):
            cause = f"Deployment {name} is paused: changes of its pods do nothing"
            fix = f"{case.kubectl} rollout resume deployment {name}"
            yield Finding(cause, (evidence(found, "spec.paused", "true"),), fix)


def endpoints(case: Case) -> Iterator[Finding]:
    """Check that each Service has an endpoint that takes requests."""
    for track in case.tracks:
        exposed = case.service(track)
        if not exposed:
            continue
        name = exposed["metadata"]["name"]
        states = [
            (endpoint.get("conditions") or {}).get("ready") in {True, None} and bool(found.get("ports"))
            for found in case.facts.of("EndpointSlice")
            if labels_of(found).get(SERVICE_OF_SLICE) == name
            for endpoint in found.get("endpoints") or ()
        ]
        if not any(states):
            loses = "its share of the requests fails"
            if case.settings.router == "nginx":
                loses = (
                    "ingress-nginx answers 503 to all requests, also to the canary's"
                    if track is Track.STABLE
                    else "the canary's share goes to stable"
                )
            yield Finding(
                f"Service {name} has no pod that takes requests: {loses}",
                (evidence(exposed, "EndpointSlice endpoints", f"0 of {len(states)} ready"),),
                f"{case.kubectl} get pods --selector {written(case.selector(track))}",
            )


def admission(case: Case) -> Iterator[Finding]:
    """Check that nothing refuses new pods: neither a quota nor a policy, a webhook or a limit range."""
    for track in case.settings.tracks_of(case.name):
        pods = case.deployment(track)
        for found in [pods, *case.replica_sets(track)] if pods else ():
            refused = condition(found, "ReplicaFailure")
            if refused.get("status") != "True":
                continue
            message = refused.get("message", "")
            fix = f"{case.kubectl} describe replicasets --selector {written(case.selector(track))}"
            if "exceeded quota" in message:
                fix = f"{case.kubectl} describe quota, then raise it or lower the {track}'s replicas"
            elif "PodSecurity" in message:
                fix = f"kubectl get namespace {case.settings.namespace} --output yaml, and obey its Pod Security level"
            elif "webhook" in message:
                fix = "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
            seen = evidence(found, f"status.conditions[ReplicaFailure]: {refused.get('reason', '')}", message)
            yield Finding(f"new {track} pods are refused: {_line(message)}", (seen,), fix)
            break  # the Deployment repeats what its ReplicaSet says


def scheduling(case: Case) -> Iterator[Finding]:
    """Check that every pod has found a node."""
    for track, pod in _pods(case):
        scheduled = condition(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            message = scheduled.get("message", "")
            yield Finding(
                f"no node takes {track} pod {pod['metadata']['name']}: {_line(message)}",
                (evidence(pod, f"status.conditions[PodScheduled]: {scheduled.get('reason', '')}", message),),
                f"kubectl describe nodes, then lower services.{case.name}.resources.requests or add a node",
            )


def image_pull(case: Case) -> Iterator[Finding]:
    """Check that every image can be pulled."""
    for track, pod, name, waiting in _waiting(case):
        if waiting["reason"] in _PULL_ERRORS:
            image = next((c["image"] for c in pod["spec"]["containers"] if c["name"] == name), "?")
            key = "canary.image" if track is Track.CANARY else "image"
            yield Finding(
                f"image {image} of the {track} cannot be pulled",
                (_of_container(pod, name, f"waiting: {waiting['reason']}", waiting.get("message", "")),),
                f"{case.set(key, 'IMAGE')} with one that is there, or let imagePullSecrets name the registry's Secret",
            )


def container_start(case: Case) -> Iterator[Finding]:
    """Check that every container finds its ConfigMaps, Secrets and command."""
    for track, pod, name, waiting in _waiting(case):
        if waiting["reason"] in _START_ERRORS:
            message = waiting.get("message", "")
            yield Finding(
                f"container {name} of the {track} cannot start: {_line(message)}",
                (_of_container(pod, name, f"waiting: {waiting['reason']}", message),),
                f"{case.kubectl} describe pod {pod['metadata']['name']}",
            )


def crashes(case: Case) -> Iterator[Finding]:
    """Check that no container crashes again and again."""
    for track in case.settings.tracks_of(case.name):
        for pod, container in crashed(case.pods(track)):
            name, pod_name = container["name"], pod["metadata"]["name"]
            states = (container.get("lastState") or {}), (container.get("state") or {})
            last: dict[str, Any] = next((ended for state in states if (ended := state.get("terminated"))), {})
            reason, code = last.get("reason") or "Error", last.get("exitCode", "unknown")
            seen = [
                _of_container(pod, name, "restartCount", container.get("restartCount", 0)),
                _of_container(
                    pod, name, f"lastState.terminated: {reason}", _line(last.get("message") or f"exit {code}")
                ),
            ]
            log = case.facts.logs.get((pod_name, name))
            if log:
                text = "\n".join(log.lines) if not log.unread else f"not read: {_line(log.unread)}"
                seen.append(_of_container(pod, name, "log", text or "empty"))
            fix = case.away(track)
            if reason == _OUT_OF_MEMORY:
                limit = case.declared.resources.limits.get("memory", "")
                fix = case.set("resources.limits.memory", _doubled(limit)) if limit else fix
            yield Finding(
                f"container {name} of the {track} crashes: {reason}, exit code {code}, started again "
                f"{container.get('restartCount', 0)} times",
                tuple(seen),
                fix,
            )


def readiness(case: Case) -> Iterator[Finding]:
    """Check that every pod that runs passes its readiness probe, once it had the time for it."""
    probe = case.declared.probes.readiness
    allowed = probe.initial_delay_seconds + probe.period_seconds * probe.failure_threshold + probe.timeout_seconds
    for track, pod in _pods(case):
        failing = {c["name"] for c in containers_of(pod) if not c.get("ready")}
        running = [
            c
            for c in containers_of(pod)
            if c["name"] in failing
            and (begun := ((c.get("state") or {}).get("running") or {}).get("startedAt"))
            and case.facts.at - moment(begun) > allowed
        ]
        for container in running:
            told = _last_event(case, pod, "Unhealthy")
            message = told.get("message") or (
                "events may not be read" if "Event" in case.facts.unread else "no event tells why"
            )
            yield Finding(
                f"container {container['name']} of the {track} runs, and its readiness probe fails: {_line(message)}",
                (_of_container(pod, container["name"], "ready", "false"),)
                + ((evidence(pod, f"Event {told['reason']}", message),) if told else ()),
                case.away(track),
            )


def rollout(case: Case) -> Iterator[Finding]:
    """Check that no rollout of pods is stuck with those of an older revision."""
    for track in case.settings.tracks_of(case.name):
        found = case.deployment(track)
        progressing = condition(found, "Progressing") if found else {}
        if not found or progressing.get("status") != "False":
            continue
        seen = [evidence(found, f"status.conditions[Progressing]: {progressing['reason']}", progressing["message"])]
        sets = sorted(case.replica_sets(track), key=lambda each: moment(each["metadata"].get("creationTimestamp")))
        old = [each for each in sets[:-1] if each["spec"].get("replicas")]
        seen += [evidence(each, "spec.replicas", each["spec"]["replicas"]) for each in old]
        cause = f"the rollout of Deployment {found['metadata']['name']} has not come to an end in time"
        if old:
            cause += f", and pods of ReplicaSet {listed(each['metadata']['name'] for each in old)} still serve"
        yield Finding(cause, tuple(seen), f"mend its pods or set the former image, then {UP}")


def autoscaling(case: Case) -> Iterator[Finding]:
    """Check that the autoscalers have metrics and can scale."""
    if not case.declared.autoscaling:
        return
    for track in case.settings.tracks_of(case.name):
        found = case.facts.named("HorizontalPodAutoscaler", object_name(case.name, track))
        for kind in ("ScalingActive", "AbleToScale") if found else ():
            state = condition(found, kind) if found else {}
            if found and state.get("status") == "False":
                message = state.get("message", "")
                fix = f"{case.kubectl} describe horizontalpodautoscaler {found['metadata']['name']}"
                if "metrics" in message.lower():
                    fix = "kubectl get apiservice v1beta1.metrics.k8s.io, and install metrics-server if it is not there"
                yield Finding(
                    f"the {track} autoscaler cannot act: {_line(message)}",
                    (evidence(found, f"status.conditions[{kind}]: {state.get('reason', '')}", message),),
                    fix,
                )


def disruption(case: Case) -> Iterator[Finding]:
    """Check that pods can be evicted, one at a time at least, so that nodes can be drained."""
    for track in case.settings.tracks_of(case.name):
        pods = case.deployment(track)
        labels = labels_of(pods["spec"]["template"]).items() if pods else {}.items()
        over = [
            found
            for found in case.facts.of("PodDisruptionBudget")
            if labels
            and (chosen := (found["spec"].get("selector") or {}).get("matchLabels") or {}).items() <= labels
            and chosen
        ]
        if len(over) > 1:
            names = listed(found["metadata"]["name"] for found in over)
            yield Finding(
                f"{len(over)} disruption budgets select the {track} pods ({names}): the API server then evicts none",
                tuple(
                    evidence(found, "spec.selector", written(found["spec"]["selector"]["matchLabels"]))
                    for found in over
                ),
                f"{case.kubectl} delete poddisruptionbudget the ones that this stack did not make",
            )
        for found in over:
            status: dict[str, Any] = found.get("status") or {}
            expected = status.get("expectedPods", 0)
            # With pods that are not ready, others tell why; a budget that then allows nothing does its work.
            if expected and status.get("currentHealthy", 0) >= expected and not status.get("disruptionsAllowed", 0):
                name = found["metadata"]["name"]
                yield Finding(
                    f"PodDisruptionBudget {name} never lets a {track} pod be evicted: no node with one can be drained",
                    (evidence(found, "status.disruptionsAllowed", f"0 with {expected} of {expected} pods healthy"),),
                    f"{case.kubectl} delete poddisruptionbudget {name} && {UP}",
                )


def _pods(case: Case) -> Iterator[tuple[Track, Manifest]]:
    for track in case.settings.tracks_of(case.name):
        for pod in case.pods(track):
            yield track, pod


def _waiting(case: Case) -> Iterator[tuple[Track, Manifest, str, dict[str, str]]]:
    for track, pod in _pods(case):
        for container in containers_of(pod):
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason"):
                yield track, pod, container["name"], waiting


def _of_container(pod: Manifest, container: str, field: str, value: object) -> Evidence:
    return evidence(pod, f"status.containerStatuses[{container}].{field}", value)


def _last_event(case: Case, pod: Manifest, reason: str) -> Manifest:
    uid = pod["metadata"].get("uid")
    told = [e for e in case.facts.of("Event") if e.get("reason") == reason and e["involvedObject"].get("uid") == uid]
    return max(told, key=lambda e: moment(e.get("lastTimestamp") or e.get("eventTime")), default={})


def _line(text: str) -> str:
    """Return the first line of a message, without a period at its end."""
    return text.strip().partition("\n")[0].rstrip(".")


def _doubled(quantity: str) -> str:
    """Return twice a whole quantity, and others as they are."""
    found = _AMOUNT.fullmatch(quantity)
    return f"{2 * int(found[1])}{found[2]}" if found else quantity
