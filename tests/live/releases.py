"""Releases by `canary run` on a real stack under real traffic, and what goes wrong with what they depend on."""

import json
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import psutil
import yaml
from lightkube import Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Pod

from canary_service.rollout.events import EVENTS, AnyEvent, Finished, Sampled
from demo.measurement import wait_for
from demo.stack import CHECKOUT
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Traffic
from tests.live.application import eventually
from tests.live.scene import CANARY_IMAGE, NAME, PATHS, Scene

TIMING = {"steps": [20, 50, 100], "stepSeconds": 12, "sampleSeconds": 2, "holdSeconds": 60}
LONGEST_RUN_SECONDS = 300

_PodMonitor = create_namespaced_resource("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors")
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Mode = Literal["good", "away", "slow", "empty", "nan", "garbage"]


class Prometheus(ThreadingHTTPServer):
    """Stands before the real one and can be ordered to answer otherwise, or not at all."""

    daemon_threads = True
    mode: Mode = "good"

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.behind = url
        self.over = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:  # noqa: ANN401 - as inherited
        """A client that goes away is no news."""


class _Answer(BaseHTTPRequestHandler):
    server: Prometheus

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, content: bytes | None) -> None:
        mode = self.server.mode
        if mode == "away":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if mode == "slow":
            self.server.over.wait(8)  # longer than anybody waits for it
        body = b"<html>Bad gateway?</html>" if mode == "garbage" else self._behind(content)
        if mode in {"empty", "nan"}:
            body = _spoilt(json.loads(body), mode)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _behind(self, content: bytes | None) -> bytes:
        headers = {"Content-Type": self.headers["Content-Type"]} if content is not None else {}
        request = urllib.request.Request(self.server.behind + self.path, content, headers)  # noqa: S310 - the sandbox's
        try:
            with _direct.open(request, timeout=10) as response:
                body: bytes = response.read()
        except urllib.error.HTTPError as error:
            body = error.read()
        return body

    def log_message(self, *_: object) -> None: ...


def _spoilt(answer: Any, mode: Mode) -> bytes:  # noqa: ANN401 - JSON
    result = answer["data"]["result"]
    for each in result if mode == "nan" and isinstance(result, list) else ():
        if "value" in each:
            each["value"][1] = "NaN"
        for value in each.get("values") or ():
            value[1] = "NaN"
    if mode == "empty":
        answer["data"]["result"] = []
    return json.dumps(answer).encode()


class ApiServer:
    """Passes connections on to the real one, and takes none while it is stopped."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        (cluster,) = (each["cluster"] for each in config["clusters"])
        behind = urlsplit(cluster["server"])
        self._behind = (behind.hostname or "", behind.port or 443)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self._open: set[socket.socket] = set()
        self._over = False
        self.kubeconfig = folder / "kubeconfig"
        cluster["server"] = f"https://127.0.0.1:{self._address[1]}"
        self.kubeconfig.write_text(yaml.safe_dump(config))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        self._over = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in tuple(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def start(self) -> None:
        self._over = False
        self._listener = socket.create_server(self._address)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._behind)
                threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        self._open |= {near, far}
        with suppress(OSError), near, far:
            while not self._over:
                for ready in select.select([near, far], [], [])[0]:
                    content = ready.recv(65536)
                    if not content:
                        return
                    (far if ready is near else near).sendall(content)
        self._open -= {near, far}


@dataclass
class Run:
    """A `canary run` in a process of its own."""

    process: subprocess.Popen[str]
    log: Path
    events: list[AnyEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with suppress(ValueError):  # the last line of one that was killed
                self.events.append(EVENTS.validate_json(line))

    def saw(self, kind: str, seconds: float = LONGEST_RUN_SECONDS, **fields: object) -> AnyEvent:
        """Wait until it tells of an event with these fields."""

        def found() -> AnyEvent | None:
            matching = [
                e for e in self.events if e.event == kind and all(getattr(e, k) == v for k, v in fields.items())
            ]
            assert matching or self.process.poll() is None, f"ended without {kind} {fields}: {self.told}"
            return matching[0] if matching else None

        event = eventually(found, seconds)
        assert event
        return event

    def ended(self, seconds: float = LONGEST_RUN_SECONDS) -> Finished:
        """Wait until it ends by itself, and return its last event."""
        self.process.wait(seconds)
        self._reader.join()
        assert self.events, self.told
        last = self.events[-1]
        assert isinstance(last, Finished), self.told
        assert last.exit_code == self.process.returncode, self.told
        return last

    def exit_code(self, seconds: float = LONGEST_RUN_SECONDS) -> int:
        self.process.wait(seconds)
        self._reader.join()
        return self.process.returncode

    def kill(self, *, with_engine: bool) -> None:
        """Kill it by SIGKILL, with or without what it has started."""
        with suppress(psutil.NoSuchProcess):
            started = psutil.Process(self.process.pid).children(recursive=True) if with_engine else []
            self.process.kill()
            for each in started:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        self.process.wait()
        self._reader.join()

    @property
    def told(self) -> str:
        return self.log.read_text() + "\n".join(str(event)[:400] for event in self.events[-5:])

    @property
    def failing_gates(self) -> set[str]:
        return {
            gate.gate
            for event in self.events
            if isinstance(event, Sampled)
            for gate in event.verdict.gates
            if gate.outcome == "fail"
        }

    def samples_with(self, problem: str) -> list[Sampled]:
        """Return the samples of which one problem reads so."""
        return [
            event
            for event in self.events
            if isinstance(event, Sampled) and any(problem in text for text in event.sample.problems.values())
        ]


@dataclass(frozen=True)
class Stage:
    """Where a release takes place; `folder` is its own."""

    sandbox: Sandbox
    cluster: Client
    folder: Path


@dataclass
class Release:
    """A stack with one service in a namespace of its own, under traffic, and the canary that is to be released."""

    scene: Scene
    prometheus: Prometheus
    folder: Path
    traffic: Traffic
    environment: dict[str, str] = field(default_factory=dict)
    runs: int = 0

    @staticmethod
    @contextmanager
    def of(
        stage: "Stage",
        *,
        rate: float = 60,
        weight: int = 0,
        canary: Mapping[str, object] | None = None,
        rollout: Mapping[str, Any] | None = None,
    ) -> Iterator["Release"]:
        """Deploy stable, and the canary too when it has a weight (percent).

        Args:
            stage: where.
            rate: requests per second.
            weight: the canary's at the beginning.
            canary: settings of the canary besides its image.
            rollout: settings besides those of `TIMING`.
        """
        sandbox, cluster, folder = stage.sandbox, stage.cluster, stage.folder
        made = cluster.create(Namespace(metadata=ObjectMeta(generateName="run-")))
        assert made.metadata
        assert made.metadata.name
        namespace = made.metadata.name
        folder.mkdir()
        spec = {"selector": {}, "podMetricsEndpoints": [{"port": "http"}]}  # without an interval: every second
        cluster.create(_PodMonitor(metadata=ObjectMeta(name="all", namespace=namespace), spec=spec))
        scene = Scene.create(sandbox, cluster, namespace, folder)
        traffic = Traffic(sandbox.proxy_url, f"{namespace}.example", PATHS, rate, 4)
        with Prometheus(sandbox.prometheus_url) as prometheus, traffic:
            release = Release(scene, prometheus, folder, traffic)
            release.configure(rollout or {})
            declared = {"image": CANARY_IMAGE} | dict(canary or {})
            scene.configure(weight=weight, canary=declared if weight else None)
            scene.up()
            scene.configure(canary=declared)
            eventually(lambda: traffic.total[NAME].requests)
            if weight:
                scene.settle()
            try:
                yield release
            finally:
                cluster.delete(Namespace, namespace)

    def configure(self, rollout: Mapping[str, Any]) -> None:
        """Declare how it is released, besides `TIMING`."""
        gates = {"minRequests": 30} | rollout.get("gates", {})
        asked = {"prometheusUrl": self.prometheus.url}
        self._declare(rollout={**TIMING, **asked, **rollout, "gates": gates}, monitoring={"enabled": "false"})

    def _declare(self, **top: object) -> None:
        file = self.scene.stack.folder / "Pulumi.dev.yaml"
        content = yaml.safe_load(file.read_text())
        content["config"] |= {f"macromind:{key}": value for key, value in top.items()}
        file.write_text(yaml.safe_dump(content))

    def start(self, *options: str, folder: Path | None = None) -> Run:
        """Begin a run; `folder` is the project's, when it is another one."""
        self.runs += 1
        log = self.folder / f"run-{self.runs}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                [CHECKOUT / "canary_service" / "cli" / "canary", "run", "--stack", "dev", "--yes", "--json", *options],
                cwd=folder or self.scene.stack.folder,
                env=dict(self.scene.stack.environment) | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return Run(process, log)

    @contextmanager
    def running(self, *options: str, folder: Path | None = None) -> Iterator[Run]:
        """Run until this is left; a run that has not ended then is killed."""
        run = self.start(*options, folder=folder)
        try:
            yield run
        finally:
            run.kill(with_engine=True)

    def order(self, **orders: str) -> None:
        """Annotate the canary's pods: `error_rate="1"` is sandbox/error-rate."""
        annotations = {f"sandbox/{name.replace('_', '-')}": value for name, value in orders.items()}
        for pod in self.scene.pods("canary"):
            with suppress(Exception):  # a pod that has just gone
                self.scene.cluster.patch(
                    Pod, pod, {"metadata": {"annotations": annotations}}, namespace=self.scene.namespace
                )

    def declared_weight(self) -> int:
        return self.scene.stack.settings().split_of(NAME).weight

    def stable_image(self) -> str:
        container = self.scene.deployment(NAME)["spec"]["template"]["spec"]["containers"][0]
        image: str = container["image"]
        return image

    @property
    def failures(self) -> dict[str, int]:
        """How many of the requests since the beginning failed, by reason."""
        return dict(self.traffic.total[NAME].failures)

    def is_promoted(self) -> bool:
        return self.stable_image() == CANARY_IMAGE and self.scene.weight() is None

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Note every change of the weight in force meanwhile, beginning with the present one."""
        seen = [self.scene.weight() or 0]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.05):
                with suppress(Exception):  # the API server is busy
                    weight = self.scene.weight() or 0
                    if weight != seen[-1]:
                        seen.append(weight)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()


def interrupt(run: Run) -> None:
    os.kill(run.process.pid, signal.SIGINT)


def drawn(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - reproducible, not secret


def within(seconds: float, look: Callable[[], bool]) -> bool:
    """Tell whether something comes true in time."""
    return wait_for(look, bool, seconds)


def moment() -> float:
    return time.monotonic()
