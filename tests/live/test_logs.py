"""`canary logs` on a real stack: what pods wrote, and by whom."""

import json
import queue
import subprocess
import threading
from collections.abc import Callable

import httpx2
import pytest

from tests.live import canary
from tests.live.application import eventually
from tests.live.scene import CANARY, CANARY_IMAGE, GOOD_CANARY, NAME, PATHS, STABLE_IMAGE, Scene

pytestmark = pytest.mark.live

SECRET = "correct-horse"  # noqa: S105 - not one of ours
STARTED = "{} started; ports: 8080"


@pytest.fixture(scope="module")
def scene(own_scene: Scene) -> Scene:
    """A service with a canary at weight 100."""
    own_scene.stack.set("rollout.maxStep", "100")
    own_scene.configure(100, canary=GOOD_CANARY | {"replicas": 1, "secret": {"data": {"TOKEN": SECRET}}})
    own_scene.up()
    own_scene.settle()
    return own_scene


def fail(scene: Scene, path: str) -> None:
    """Have a canary fail a request."""
    (pod,) = scene.pods("canary")
    scene.kubectl("annotate", "--overwrite", "pod", pod, "sandbox/error-rate=1")
    host = {"Host": f"{scene.namespace}.example"}
    with httpx2.Client(trust_env=False, base_url=scene.sandbox.proxy_url, headers=host) as http:
        eventually(lambda: http.get(PATHS[NAME] + path).status_code == 500)
    scene.kubectl("annotate", "pod", pod, "sandbox/error-rate-")


def test_each_line_has_its_service_track_and_pod(scene: Scene) -> None:
    printed = [json.loads(line) for line in canary.run(scene, "logs", "--json").splitlines()]
    assert {(line["service"], line["track"], line["text"]) for line in printed} == {
        (NAME, "stable", STARTED.format(STABLE_IMAGE)),
        (NAME, "canary", STARTED.format(CANARY_IMAGE)),
    }
    assert sorted(line["pod"] for line in printed) == sorted([*scene.pods("stable"), *scene.pods("canary")])
    (pod,) = scene.pods("canary")
    assert canary.run(scene, "logs", "--track", "canary") == (
        f"{NAME} canary {pod.rpartition('-')[2]}  {STARTED.format(CANARY_IMAGE)}\n"
    )


def test_only_so_much_is_shown_as_is_asked_for_and_no_secret(scene: Scene) -> None:
    fail(scene, f"/{SECRET}")
    last = canary.run(scene, "logs", "--track", "canary", "--tail", "1")
    assert last.endswith("  ERROR GET /api/[secret]: status 500, ordered by error-rate\n")
    assert len(canary.run(scene, "logs", "--track", "canary", "--since", "1h").splitlines()) > 1
    assert canary.run(scene, "logs", "--tail", "0") == ""
    canary.run(scene, "logs", "--since", "soon", exit_code=1)


def test_who_reads_only_the_beginning_ends_it_without_an_error(scene: Scene) -> None:
    with canary.running(scene, "logs", "--follow") as process:
        assert process.stdout
        assert process.stdout.readline()
        process.stdout.close()
        fail(scene, "/more")
        eventually(lambda: process.poll() is not None)
        assert process.returncode == 0


def following(process: subprocess.Popen[str]) -> Callable[[Callable[[str], bool]], str]:
    """Return a function that waits for the next line that is as it says, and returns it."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()

    def wait(good: Callable[[str], bool]) -> str:
        while not good(line := lines.get(timeout=30)):
            pass
        return line

    return wait


def test_following_shows_restarts_and_pods_that_come_later(scene: Scene) -> None:
    (first,) = scene.pods("canary")
    with canary.running(scene, "logs", "--track", "canary", "--follow") as process:
        wait = following(process)
        wait(lambda line: STARTED.format(CANARY_IMAGE) in line)
        fail(scene, "/one")
        wait(lambda line: "ERROR GET /api/one" in line)

        scene.kubectl("annotate", "--overwrite", "pod", first, "sandbox/crash=one")
        wait(lambda line: "crash ordered (one)" in line)
        again = wait(lambda line: STARTED.format(CANARY_IMAGE) in line)
        assert again.split()[2] == first.rpartition("-")[2]

        scene.kubectl("scale", "deployment", CANARY, "--replicas", "2")
        other = wait(lambda line: STARTED.format(CANARY_IMAGE) in line)
        assert other.split()[2] != first.rpartition("-")[2]
    assert process.returncode == 130


def test_a_container_that_has_not_started_is_no_error(scene: Scene) -> None:
    scene.kubectl("set", "image", f"deployment/{CANARY}", f"{NAME}=registry.example/app:missing")
    eventually(lambda: "ImagePullBackOff" in scene.kubectl("get", "pods"))
    assert STARTED.format(CANARY_IMAGE) in canary.run(scene, "logs", "--track", "canary")
