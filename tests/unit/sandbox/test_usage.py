"""What containers are said to use."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from lightkube.models.core_v1 import ContainerStatus

from sandbox.faults import Faults
from sandbox.usage import Played, Usage

CPU, MEMORY = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"


class Container:
    answered = 0
    running = True

    def __init__(self, name: str) -> None:
        self.faults = Faults()
        self.status = ContainerStatus(name=name, image=f"{name}:1", imageID="", ready=True, restartCount=0)


@dataclass
class Process:
    """How long this process has worked and lived, as the test says."""

    worked: float = 100.0
    lived: float = 1000.0

    def goes_on(self, worked: float, lived: float) -> None:
        self.worked += worked
        self.lived += lived


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()
    monkeypatch.setattr(time, "process_time", lambda: process.worked)
    monkeypatch.setattr(time, "monotonic", lambda: process.lived)
    return process


def looker(*containers: Container) -> Callable[[], dict[tuple[str, str, str], float]]:
    """Look at containers that are all in pod `pod`: values by metric, container and image."""
    usage = Usage(lambda: [Played("shop", "pod", one) for one in containers])

    def look() -> dict[tuple[str, str, str], float]:
        samples = [sample for family in usage.collect() for sample in family.samples]
        assert {(sample.labels["namespace"], sample.labels["pod"]) for sample in samples} <= {("shop", "pod")}
        return {(s.name, s.labels["container"], s.labels["image"]): s.value for s in samples}

    return look


def test_processor_time_goes_to_who_answers(process: Process) -> None:
    busy, idle = Container("busy"), Container("idle")
    look = looker(busy, idle)
    look()
    busy.answered = 98  # and one each for being there
    process.goes_on(worked=1, lived=10)
    seen = look()
    assert seen[CPU, "busy", "busy:1"] == pytest.approx(0.99)
    assert seen[CPU, "idle", "idle:1"] == pytest.approx(0.01)
    assert seen[CPU, "", ""] == pytest.approx(1), "the pod's own series is the sum"


def test_orders_come_on_top(process: Process) -> None:
    container = Container("app")
    look = looker(container)
    own = look()[MEMORY, "app", "app:1"]
    container.faults = Faults(cpu_cores=0.5, memory_bytes=1e12)
    process.goes_on(worked=0, lived=10)
    seen = look()
    assert seen[CPU, "app", "app:1"] == pytest.approx(5)
    assert seen[MEMORY, "app", "app:1"] == pytest.approx(own + 1e12, rel=1e-3)


def test_memory_is_shared_out_evenly(process: Process) -> None:
    alone = looker(Container("a"))()[MEMORY, "a", "a:1"]
    both = looker(Container("a"), Container("b"))()
    assert both[MEMORY, "a", "a:1"] == both[MEMORY, "b", "b:1"] == pytest.approx(alone / 2, rel=0.1)
    assert process.worked == 100


def test_a_container_counts_from_each_start_and_only_while_it_runs(process: Process) -> None:
    container = Container("app")
    look = looker(container)
    process.goes_on(worked=3, lived=10)
    assert look()[CPU, "app", "app:1"] == pytest.approx(3)
    container.running = False
    process.goes_on(worked=3, lived=10)
    assert look() == {}
    container.running, container.status.restartCount = True, 1
    process.goes_on(worked=1, lived=10)
    assert look()[CPU, "app", "app:1"] == pytest.approx(1)
