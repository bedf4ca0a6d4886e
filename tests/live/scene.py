"""One service of a stack of its own in a namespace of its own, and what somebody else sees of it."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import ApiError, Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Pod
from lightkube.resources.networking_v1 import Ingress

from canary_service.config.settings import ROUTERS_WITH_KEYS
from canary_service.routing.nginx import WEIGHT
from demo.measurement import Cluster, settle
from demo.stack import StackCopy, StackError
from sandbox.lifecycle import Sandbox
from sandbox.traffic import Traffic
from tests.live.application import eventually

NAME = "app"
CANARY = f"{NAME}-canary"
STABLE_IMAGE, CANARY_IMAGE = "registry.example/app:1.0", "registry.example/app:2.0"
GOOD_CANARY = {"image": CANARY_IMAGE}
PATHS = {NAME: "/api"}
RATE = 100.0
LEAST_RATE = 50.0


@dataclass(frozen=True)
class Refusal:
    """What a failed command said, and how long it took, in seconds."""

    message: str
    seconds: float


@dataclass(frozen=True)
class Scene:
    sandbox: Sandbox
    stack: StackCopy
    cluster: Client
    observed: Cluster
    namespace: str

    @staticmethod
    def create(sandbox: Sandbox, cluster: Client, namespace: str, folder: Path) -> "Scene":
        """Describe a service with stable and no canary; nothing is deployed yet."""
        stack = StackCopy.create(folder / "project", "dev", sandbox.environment)
        scene = Scene(sandbox, stack, cluster, Cluster.of(sandbox), namespace)
        service = {"path": PATHS[NAME], "port": 8080, "image": STABLE_IMAGE, "replicas": 2, "drainSeconds": 5}
        service["minReadySeconds"] = 1
        probe = {"path": "/healthz", "periodSeconds": 1}
        config: dict[str, object] = {"namespace": namespace, "host": f"{namespace}.example"}
        config |= {
            "services": {NAME: service | {"probes": {"readiness": probe, "liveness": {"failureThreshold": 100}}}}
        }
        scene._write({"config": {f"macromind:{key}": value for key, value in config.items()}})
        return scene

    def configure(self, weight: int | None = None, **service: Any) -> None:  # noqa: ANN401 - values of any key of a service
        """Change the weight (percent) and keys of the service; None removes a key."""
        content = self._read()
        config = content["config"]
        if weight is not None:
            config["macromind:canaryWeight"] = str(weight)
        settings = config["macromind:services"][NAME] | service
        config["macromind:services"][NAME] = {key: value for key, value in settings.items() if value is not None}
        self._write(content)

    def route_by(self, router: str, settings: Mapping[str, Any]) -> None:
        """Name another router, with its own settings in place of any others."""
        content = self._read()
        config = content["config"]
        for key in ROUTERS_WITH_KEYS:
            config.pop(f"macromind:{key}", None)
        config |= {"macromind:router": router} | {f"macromind:{key}": value for key, value in settings.items()}
        self._write(content)

    def mutate(self, file: str, old: str, new: str) -> None:
        """Let the stack run a copy of the program in which one piece of text is another."""
        part = self.stack.folder / Path(file).parts[0]
        if part.is_symlink():
            original = part.resolve()
            part.unlink()
            if original.is_dir():
                shutil.copytree(original, part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(original, part)
        path = self.stack.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file} does not have {old!r} once"
        path.write_text(text.replace(old, new))

    def up(self) -> None:
        self.stack.up()

    def deploy(self, weight: int = 20) -> None:
        """Deploy stable and a good canary with this weight (percent), and wait until the proxy routes by it."""
        self.configure(weight=weight, canary=GOOD_CANARY)
        self.up()
        self.settle()

    def refused(self, *command: str) -> Refusal:
        """Run a command that has to fail."""
        begin = time.monotonic()
        with pytest.raises(StackError) as caught:
            self.stack.run(*command)
        return Refusal(str(caught.value), time.monotonic() - begin)

    def up_refused(self) -> Refusal:
        return self.refused("up", "--yes", "--skip-preview")

    def settle(self) -> None:
        """Wait until API server and proxy have the declared weight."""
        settle(self.observed, self.stack.settings(), NAME)

    def weight(self) -> int | None:
        """Return the percent that the canary Ingress in the cluster says, None without one."""
        ingress = self.get(Ingress, CANARY)
        return int(ingress["metadata"]["annotations"][WEIGHT]) if ingress else None

    def get(self, kind: Any, name: str) -> dict[str, Any] | None:  # noqa: ANN401 - a class of lightkube
        try:
            found: dict[str, Any] = self.cluster.get(kind, name, namespace=self.namespace).to_dict()
        except ApiError as error:
            if error.status.code == 404:
                return None
            raise
        return found

    def deployment(self, name: str) -> dict[str, Any]:
        found = self.get(Deployment, name)
        assert found, f"Deployment {name} is not there"
        return found

    def pods(self, track: str) -> dict[str, str]:
        """Return the uid of each pod that was not told to end, by its name."""
        found = self.cluster.list(Pod, namespace=self.namespace, labels={"app": NAME, "version": track})
        metadata = [pod.to_dict()["metadata"] for pod in found]
        return {each["name"]: each["uid"] for each in metadata if "deletionTimestamp" not in each}

    def ready_pods(self, track: str) -> int:
        found = self.cluster.list(Pod, namespace=self.namespace, labels={"app": NAME, "version": track})
        conditions = [(pod.to_dict().get("status") or {}).get("conditions") or () for pod in found]
        return sum(any(c["type"] == "Ready" and c["status"] == "True" for c in each) for each in conditions)

    def kubectl(self, *arguments: str) -> str:
        return self._kubectl(*arguments).stdout

    def said(self, *arguments: str) -> str:
        """Return all that kubectl prints, such as that nothing was found."""
        done = self._kubectl(*arguments)
        return done.stdout + done.stderr

    def _kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which("kubectl", path=self.sandbox.environment["PATH"])
        assert program
        done = subprocess.run(
            [program, "--namespace", self.namespace, *arguments],
            env=dict(self.sandbox.environment),
            check=False,
            capture_output=True,
            text=True,
        )
        assert not done.returncode, f"{arguments}: {done.stderr}"
        return done

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """Send requests meanwhile; none of them may fail."""
        begin = time.monotonic()
        with Traffic(self.sandbox.proxy_url, f"{self.namespace}.example", PATHS, RATE) as traffic:
            eventually(lambda: traffic.total[NAME].requests)
            yield traffic
            seconds = time.monotonic() - begin
        assert [(failure.reason, failure.sent) for failure in traffic.failures] == []
        assert traffic.total[NAME].requests > LEAST_RATE * seconds

    def _read(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.stack.folder / "Pulumi.dev.yaml").read_text())
        return content

    def _write(self, content: dict[str, Any]) -> None:
        (self.stack.folder / "Pulumi.dev.yaml").write_text(yaml.safe_dump(content))
