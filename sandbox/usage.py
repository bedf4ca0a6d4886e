"""Processor time and memory of played containers, under cAdvisor's names, as a kubelet shows them.

What this process really uses is shared out among the containers that it plays, which have no processes of their own:
its processor time by the requests that each has answered, its memory evenly. Orders (sandbox.faults) come on top.
"""

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lightkube.models.core_v1 import ContainerStatus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sandbox.faults import Faults

_LABELS = ("namespace", "pod", "container", "image")


class Container(Protocol):
    """What is asked about a container."""

    status: ContainerStatus
    faults: Faults

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""

    @property
    def answered(self) -> int:
        """How many requests it has answered since it started."""


@dataclass(frozen=True)
class Played:
    """A container and where it is."""

    namespace: str
    pod: str
    container: Container


@dataclass
class _Account:
    """What a container has used since it started, and how many requests it has answered for it."""

    seconds: float = 0.0
    answered: int = 0


class Usage(Collector):
    """Accounts, at each look, for the containers that run at that time. `played` returns all."""

    def __init__(self, played: Callable[[], Iterable[Played]]) -> None:
        self._played = played
        self._accounts: dict[tuple[Container, int], _Account] = {}
        self._looked, self._seconds = time.monotonic(), time.process_time()

    def collect(self) -> Iterable[Metric]:
        """Return the series of each container, and each pod's sums with empty `container` and `image`, as cAdvisor."""
        running = [played for played in self._played() if played.container.running]
        self._book(running)
        share = _resident_bytes() / max(len(running), 1)
        seconds: dict[tuple[str, ...], float] = defaultdict(float)
        memory: dict[tuple[str, ...], float] = defaultdict(float)
        for played in running:
            container = played.container
            used = self._accounts[_key(container)].seconds, share + container.faults.memory_bytes
            for labels in ((container.status.name, container.status.image), ("", "")):
                for totals, value in zip((seconds, memory), used, strict=True):
                    totals[played.namespace, played.pod, *labels] += value
        cpu_family = CounterMetricFamily(
            "container_cpu_usage_seconds", "Processor time used, in seconds.", labels=(*_LABELS, "cpu")
        )
        memory_family = GaugeMetricFamily("container_memory_working_set_bytes", "Memory in use.", labels=_LABELS)
        for where, value in seconds.items():
            cpu_family.add_metric((*where, "total"), value)
        for where, value in memory.items():
            memory_family.add_metric(where, value)
        return cpu_family, memory_family

    def _book(self, running: Iterable[Played]) -> None:
        """Share out the time used since the last look; a container that has started anew begins at 0."""
        containers = {_key(played.container): played.container for played in running}
        self._accounts = {key: self._accounts.get(key, _Account()) for key in containers}
        looked, seconds = time.monotonic(), time.process_time()
        # One more each: probes and the kubelet's own work are to be someone's, too.
        weights = {key: 1 + containers[key].answered - account.answered for key, account in self._accounts.items()}
        for key, account in self._accounts.items():
            account.seconds += (seconds - self._seconds) * weights[key] / sum(weights.values())
            account.seconds += (looked - self._looked) * containers[key].faults.cpu_cores
            account.answered = containers[key].answered
        self._looked, self._seconds = looked, seconds


def _key(container: Container) -> tuple[Container, int]:
    return container, container.status.restartCount


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]  # proc(5)
    return int(pages) * resource.getpagesize()
