"""What a release waits for, beside the same by hand: a step with policies, and a cut-off."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Final

from benchmarks.measure import cost_of
from canary_service.cluster.connection import connect
from canary_service.cluster.live_cluster import LiveCluster
from canary_service.config.settings import Settings
from canary_service.rollout.release import weight_changes
from canary_service.rollout.stack import Stack
from canary_service.routing.nginx import WEIGHT
from canary_service.routing.split import Split, Track
from canary_service.workload.labels import object_name
from demo.stack import StackCopy

# Below 50 the canaries keep their one pod, so that no step waits for another.
_WEIGHTS: Final = count()
_LIVE_WEIGHT: Final = 30


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of one measurement at one size, in seconds, and their ratio."""

    services: int
    measurement: str
    product: float
    by_hand: float
    ratio: float


def releases(services: int, stack: StackCopy, packs: Sequence[str], repetitions: int) -> list[Comparison]:
    """Measure in turns on a stack that is deployed.

    A step: one weight for all canaries, set, updated with these policy packs and read back, beside `pulumi config set`
    and `pulumi up` with the same packs. A cut-off: weight 0 for all of them, read back, beside one `kubectl annotate`.
    """
    with _environment(stack), Stack(stack.folder, stack.name, packs) as opened:
        settings = opened.settings()
        cluster = LiveCluster(connect({}), settings)
        steps = [(_step(opened, settings, cluster), _step_by_hand(stack, packs)) for _ in range(repetitions)]
        cut_offs = [(_cut_off(settings, cluster, stack), _annotated(settings, stack)) for _ in range(repetitions)]
    return [_compared(services, "step with policies", steps), _compared(services, "cut-off", cut_offs)]


@contextmanager
def _environment(stack: StackCopy) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(stack.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _step(stack: Stack, settings: Settings, cluster: LiveCluster) -> float:
    weight = _next_weight()

    def step() -> None:
        stack.set(weight_changes(settings, settings.services, weight))
        stack.up(lambda _: None)
        for name, split in cluster.routes.splits().items():
            if not isinstance(split, Split) or split.weight != weight:
                raise ValueError(f"{name}: {weight} was set, but {split} read back")

    return _seconds(step)


def _step_by_hand(stack: StackCopy, packs: Sequence[str]) -> float:
    environment = {**stack.environment, "PULUMI_STACK": stack.name}
    pulumi = ["pulumi", "--non-interactive"]
    changed = cost_of([*pulumi, "config", "set", "canaryWeight", str(_next_weight())], stack.folder, environment)
    updated = cost_of([*pulumi, "up", "--yes", "--skip-preview", *packs], stack.folder, environment)
    return changed.seconds + updated.seconds


def _cut_off(settings: Settings, cluster: LiveCluster, stack: StackCopy) -> float:
    for name in settings.services:
        _annotate(settings, stack, name, _LIVE_WEIGHT)
    return _seconds(lambda: cluster.routes.lower(dict.fromkeys(settings.services, 0)))


def _annotated(settings: Settings, stack: StackCopy) -> float:
    name = next(iter(settings.services))
    _annotate(settings, stack, name, _LIVE_WEIGHT)
    return _seconds(lambda: _annotate(settings, stack, name, 0))


def _annotate(settings: Settings, stack: StackCopy, name: str, weight: int) -> None:
    kubectl = shutil.which("kubectl", path=stack.environment["PATH"]) or "kubectl"
    route = object_name(name, Track.CANARY)
    where = ("--namespace", settings.namespace, "ingress", route)
    command = [kubectl, "annotate", "--overwrite", *where, f"{WEIGHT}={weight}"]
    subprocess.run(command, env=dict(stack.environment), check=True, capture_output=True)


def _next_weight() -> int:
    return next(_WEIGHTS) % 30 + 20


def _seconds(act: Callable[[], object]) -> float:
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def _compared(services: int, measurement: str, pairs: Sequence[tuple[float, float]]) -> Comparison:
    product, by_hand = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    return Comparison(services, measurement, round(product, 3), round(by_hand, 3), round(product / by_hand, 3))
