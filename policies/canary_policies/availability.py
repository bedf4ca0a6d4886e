"""What keeps a service up while pods come and go."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from canary_policies.objects import (
    SERVING,
    UNKNOWN,
    Manifest,
    Object,
    both,
    containers,
    entries,
    get,
    items,
    matches,
    pod_spec,
    pod_template,
    same_namespace,
    whole,
)
from canary_policies.rule import Config, Finding, ResourceRule, Severity, StackRule

# Kubernetes' own default, seconds.
_GRACE: Final = 30
_PERCENT: Final = re.compile(r"([0-9]{1,9})%")
_SLEEP: Final = re.compile(r"\bsleep (\d+(?:\.\d+)?)\b")
_ALL: Final = 100


def _drain(found: Object, config: Config) -> Iterator[str]:
    least = config["routerSyncSeconds"]
    pod = pod_spec(found)
    grace = get(pod, "terminationGracePeriodSeconds")
    grace = _GRACE if grace is None else grace
    for container in containers(found):
        # What takes no requests has none to finish.
        if not container.main or not items(container.body, "ports"):
            continue
        seconds = _drain_seconds(container.body)
        if seconds is None:
            continue
        if seconds < least:
            yield f"{container.title} serves {seconds:g} s after it is told to end; routers take {least:g} s to notice"
        elif isinstance(grace, int | float) and grace <= seconds:
            yield f"{container.title} drains {seconds:g} s, but its pod is killed after {grace:g} s"


def _drain_seconds(container: Manifest) -> float | None:
    """Return how long a container serves on, in seconds; None when only its own program knows."""
    hook = get(container, "lifecycle", "preStop")
    if hook is None:
        return 0
    seconds = get(hook, "sleep", "seconds")
    if isinstance(seconds, int | float):
        return seconds
    command = entries(hook, "exec", "command")
    if all(isinstance(word, str) for word in command) and (slept := _SLEEP.search(" ".join(command))):
        return float(slept[1])
    return None if hook is UNKNOWN or get(hook, "exec") or get(hook, "httpGet") or get(hook, "sleep") else 0


def _blocks(found: Object, _: Config) -> Iterator[str]:
    most, least = (get(found.body, "spec", key) for key in ("maxUnavailable", "minAvailable"))
    if whole(most) == 0 or _percent(most) == 0:
        yield f"maxUnavailable is {most}: no pod may ever be evicted"
    if (_percent(least) or 0) >= _ALL:
        yield f"minAvailable is {least}: no pod may ever be evicted"


def _leaves_room(objects: Sequence[Object], _: Config) -> Iterator[Finding]:
    workloads = [found for found in objects if found.kind in SERVING - {"DaemonSet"}]
    scalers = [found for found in objects if found.kind == "HorizontalPodAutoscaler"]
    for budget in (found for found in objects if found.kind == "PodDisruptionBudget"):
        least = get(budget.body, "spec", "minAvailable")
        protected = [workload for workload in workloads if _protects(budget, workload)]
        counts = [_least_pods(workload, scalers) for workload in protected]
        pods = sum(count for count in counts if count is not None)
        if least is None or least is UNKNOWN or not pods or None in counts:
            continue
        percent = _percent(least)
        needed = whole(least) if percent is None else math.ceil(pods * percent / _ALL)
        # 100 % is wrong whatever it selects (pdb-allows-eviction).
        if needed is not None and needed >= pods and (percent or 0) < _ALL:
            names = " and ".join(sorted(found.name for found in protected))
            yield Finding(budget, f"minAvailable is {least} and {names} runs {pods}: no pod may ever be evicted")


def _protects(budget: Object, workload: Object) -> bool | None:
    labels = get(pod_template(workload), "metadata", "labels")
    return both(same_namespace(budget, workload), matches(get(budget.body, "spec", "selector"), labels))


def _least_pods(workload: Object, scalers: Sequence[Object]) -> int | None:
    """Return how few pods a workload may have; None when that is not known."""
    for scaler in scalers:
        target = get(scaler.body, "spec", "scaleTargetRef")
        scales = both(
            same_namespace(scaler, workload),
            _equal(get(target, "kind"), workload.kind),
            _equal(get(target, "name"), workload.name),
        )
        if scales is None:
            return None
        if scales:
            return _count(get(scaler.body, "spec", "minReplicas"))
    return _count(get(workload.body, "spec", "replicas"))


def _equal(one: object, other: object) -> bool | None:
    return None if UNKNOWN in (one, other) else one == other


def _count(value: Any) -> int | None:  # noqa: ANN401 - whatever the manifest holds
    return 1 if value is None else whole(value)


def _percent(value: object) -> int | None:
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) if found else None


def _scales(found: Object, config: Config) -> Iterator[str]:
    if get(found.body, "metadata", "labels", config["trackLabel"]) in ("canary", UNKNOWN):
        return
    least, wanted = _count(get(found.body, "spec", "minReplicas")), config["minReplicas"]
    if least is not None and least < wanted:
        yield f"minReplicas is {least}, fewer than {wanted}"


RULES: Final = (
    ResourceRule(
        name="drain-covers-router-sync",
        why="Routers send requests to a pod for some seconds after it is told to end",
        fix="set lifecycle.preStop.sleep.seconds above the router's sync, and terminationGracePeriodSeconds above that",
        kinds=SERVING,
        options={
            "routerSyncSeconds": {
                "type": "number",
                "minimum": 0,
                "default": 5,
                "description": "How long routers take to notice, in seconds (ingress-nginx: up to 4.3)",
            }
        },
        check=_drain,
    ),
    ResourceRule(
        name="pdb-allows-eviction",
        why="A budget that allows no eviction stops every drain of a node, and so upgrades of the cluster",
        fix="set maxUnavailable to 1 or more",
        kinds=frozenset({"PodDisruptionBudget"}),
        check=_blocks,
    ),
    StackRule(
        name="pdb-leaves-room",
        why="A budget that needs as many pods as there are stops every drain of a node",
        fix="set maxUnavailable: 1 instead of minAvailable, or run more pods",
        kinds=SERVING | {"HorizontalPodAutoscaler", "PodDisruptionBudget"},
        check=_leaves_room,
    ),
    ResourceRule(
        name="hpa-min-replicas",
        why="With one pod, a node's failure takes the service down",
        fix="set minReplicas to that number or more",
        kinds=frozenset({"HorizontalPodAutoscaler"}),
        severity=Severity.DISABLED,
        options={
            "minReplicas": {"type": "integer", "minimum": 1, "default": 2, "description": "The fewest pods"},
            "trackLabel": {
                "type": "string",
                "default": "version",
                "description": "Label whose value canary exempts: a small share needs one pod",
            },
        },
        check=_scales,
    ),
)
