"""Plays the Prometheus operator: what PodMonitors, ServiceMonitors and PrometheusRules say is what Prometheus does.

Unlike the one of most clusters, this Prometheus takes the objects of every namespace, whatever their labels.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any

from lightkube import AsyncClient, KubeConfig
from lightkube.generic_resource import GenericNamespacedResource, create_namespaced_resource
from lightkube.models.core_v1 import ObjectReference

from sandbox.network import CLUSTER_METRICS_PORT, NODE_ADDRESS
from sandbox.processes import Processes
from sandbox.prometheus import NotTakenOverError, Prometheus, write
from sandbox.scrape_jobs import left_out, scrape_jobs
from sandbox.state import StateFolder
from sandbox.watched import Watched
from sandbox.writer import Writer

_log = logging.getLogger(__name__)

_GROUP, _VERSION = "monitoring.coreos.com", "v1"
_RULE = "PrometheusRule"
_KINDS = [
    create_namespaced_resource(_GROUP, _VERSION, kind, f"{kind.lower()}s")
    for kind in ("PodMonitor", "ServiceMonitor", _RULE)
]
_DISCOVERY_URL = f"http://{NODE_ADDRESS}:{CLUSTER_METRICS_PORT}"
_SETTLE_SECONDS = 0.1
"""Objects that are written together are taken over together."""

_RETRY_SECONDS = 0.5


class PrometheusOperator:
    """Follows the API server and keeps Prometheus configured.

    An object that Prometheus would refuse is left out, and an Event says so, as with the operator; the others count.
    """

    def __init__(self, state: StateFolder, promtool: str, prometheus: Prometheus, processes: Processes) -> None:
        self._kubeconfig = state.kubeconfig
        self._folder = state.prometheus / "objects"
        self._promtool = promtool
        self._prometheus = prometheus
        self._processes = processes
        self._changed = asyncio.Event()
        self._watched = [Watched(kind, self._changed.set) for kind in _KINDS]
        self._problems: dict[Path, str] = {}
        """What is wrong with each version of an object that was looked at, by the file made of it."""
        self._in_force: set[Path] = set()

    async def run(self) -> None:
        """Work for good, through restarts of the API server and of Prometheus."""
        self._folder.mkdir()
        async with AsyncClient(KubeConfig.from_file(self._kubeconfig), trust_env=False) as client:
            writer = Writer(client, "prometheus-operator")
            await asyncio.gather(self._configure(writer), *(watched.follow(client) for watched in self._watched))

    async def _configure(self, writer: Writer) -> None:
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._changed.clear()
            try:
                if all(watched.listed for watched in self._watched):
                    await self._take_over(writer)
            except NotTakenOverError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001  nothing that somebody writes may end the sandbox
                _log.exception("Prometheus goes on with what it was told last")
            else:
                continue
            await asyncio.sleep(_RETRY_SECONDS)
            self._changed.set()

    async def _take_over(self, writer: Writer) -> None:
        """Have Prometheus do what the objects say now, those that it accepts."""
        objects = {self._file(found): found for watched in self._watched for found in watched.objects}
        for file in objects.keys() - self._problems.keys():
            self._problems[file] = await self._look_at(objects[file], file, writer)
        accepted = {file for file, problem in self._problems.items() if file in objects and not problem}
        if accepted != self._in_force:
            wanted = [objects[file] for file in sorted(accepted)]
            jobs = [job for found in wanted if found.kind != _RULE for job in scrape_jobs(found, _DISCOVERY_URL)]
            await self._prometheus.configure(jobs, [self._rule_file(found) for found in wanted if found.kind == _RULE])
            self._in_force = accepted
        for file in self._problems.keys() - objects.keys():
            del self._problems[file]
            file.unlink()
            self._output(file).unlink()

    async def _look_at(self, found: GenericNamespacedResource, file: Path, writer: Writer) -> str:
        """Write what an object asks for to a file; return why Prometheus would refuse it, or nothing."""
        is_rule = found.kind == _RULE
        write(file, _groups(found) if is_rule else {"scrape_configs": scrape_jobs(found, _DISCOVERY_URL)})
        check = ("rules",) if is_rule else ("config", "--syntax-only")
        process = self._processes.start([self._promtool, "check", *check, file], self._output(file), {})
        if code := await self._processes.ended(process):
            output = self._output(file).read_text(encoding="utf-8").replace(f"{file}: ", "")
            problem = output.rpartition("FAILED:")[2].strip() or f"promtool ended with {code}"
            self._warn(found, writer, "InvalidConfiguration", f"rejected due to invalid configuration: {problem}")
            return problem
        if not is_rule and (fields := left_out(found)):
            self._warn(found, writer, "FieldsLeftOut", f"the sandbox does not heed {', '.join(fields)}")
        return ""

    def _rule_file(self, rule: GenericNamespacedResource) -> Path:
        """Write the rules to a file that keeps its name: to Prometheus, alerts of another file are other alerts."""
        metadata = rule["metadata"]
        file = self._folder / f"{metadata['namespace']}-{metadata['uid']}.yaml"
        write(file, _groups(rule))
        return file

    def _file(self, found: GenericNamespacedResource) -> Path:
        """Return the file of this version of an object: another specification is another file."""
        metadata = found["metadata"]
        return self._folder / f"{metadata['namespace']}-{metadata['uid']}-{metadata['generation']}.yaml"

    @staticmethod
    def _output(file: Path) -> Path:
        """Return the file of what promtool has said about a file."""
        return file.with_suffix(".log")

    @staticmethod
    def _warn(found: GenericNamespacedResource, writer: Writer, reason: str, message: str) -> None:
        metadata = found["metadata"]
        _log.warning("%s %s/%s: %s", found.kind, metadata["namespace"], metadata["name"], message)
        regarding = ObjectReference(
            apiVersion=f"{_GROUP}/{_VERSION}",
            kind=found.kind,
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata["uid"],
        )
        writer.event(regarding, reason, message)


def _groups(rule: GenericNamespacedResource) -> dict[str, Any]:
    """Return the groups of rules, without what only Thanos knows."""
    return {
        "groups": [
            {key: value for key, value in group.items() if key != "partial_response_strategy"}
            for group in rule["spec"].get("groups") or ()
        ]
    }
