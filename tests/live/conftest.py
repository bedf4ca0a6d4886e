"""A sandbox of the live tests' own, and what they need to fill it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lightkube import Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace

from sandbox.lifecycle import Sandbox, start, stop
from sandbox.toolchain.ensure import Toolchain, ensure
from tests.live.scene import Scene

FIRST = (
    "test_life_of_a_canary.py",
    "test_run.py",
    "test_takeover.py",
    "test_other_routers.py",
    "test_conformance.py",
    "test_release_commands.py",
    "test_monitoring.py",
    "test_recovery.py",
    "test_verify.py",
    "test_waves.py",
)
"""These take minutes. Begun first, they leave no process with work while the others have none."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.live)
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@dataclass(frozen=True)
class Started:
    sandbox: Sandbox
    seconds: float
    steps: list[str]


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return ensure()


@pytest.fixture(scope="session")
def started(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    state = tmp_path_factory.mktemp("live") / "sandbox"
    steps: list[str] = []
    begin = time.monotonic()
    sandbox = start(state, toolchain, steps.append, outlive_starter=False)
    try:
        yield Started(sandbox, time.monotonic() - begin, steps)
    finally:
        stop(state)


@pytest.fixture(scope="session")
def sandbox(started: Started) -> Sandbox:
    return started.sandbox


@pytest.fixture(scope="module")
def envoy_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One more, with Envoy Gateway in it."""
    state = tmp_path_factory.mktemp("envoy") / "sandbox"
    steps: list[str] = []
    try:
        yield start(state, ensure(on_demand=True), steps.append, outlive_starter=False)
    finally:
        stop(state)


@pytest.fixture(scope="session")
def cluster(sandbox: Sandbox) -> Client:
    return Client(KubeConfig.from_file(sandbox.kubeconfig), trust_env=False)


@pytest.fixture
def namespace(cluster: Client) -> Iterator[str]:
    with new_namespace(cluster) as name:
        yield name


@pytest.fixture(scope="module")
def own_scene(sandbox: Sandbox, cluster: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A service for all tests of a module, of which nothing is deployed yet."""
    with new_namespace(cluster) as name:
        yield Scene.create(sandbox, cluster, name, tmp_path_factory.mktemp("scene"))


@contextmanager
def new_namespace(cluster: Client) -> Iterator[str]:
    """Make a namespace, and delete it when it is no longer needed."""
    made = cluster.create(Namespace(metadata=ObjectMeta(generateName="test-")))
    assert made.metadata is not None
    assert made.metadata.name is not None
    try:
        yield made.metadata.name
    finally:
        cluster.delete(Namespace, made.metadata.name)
