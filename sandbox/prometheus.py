"""Prometheus as the sandbox's monitoring: it scrapes proxy, nodes and pods inside the sandbox's network namespace."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from sandbox.network import CADVISOR_PATH, CLUSTER_METRICS_PORT, KUBELET_PORT, NODE_ADDRESS
from sandbox.polling import answered
from sandbox.processes import Processes
from sandbox.scrape_jobs import INTERVAL
from sandbox.state import StateFolder

# Its certificate names no address, which the API server does not mind either.
_KUBELET_TLS = {"scheme": "https", "tls_config": {"insecure_skip_verify": True}}


class NotTakenOverError(Exception):
    """Prometheus does not answer, or refuses a configuration and keeps the one before; the message says why."""


class Prometheus:
    """The Prometheus process.

    `proxies` are scraped besides the nodes: by the name of the job the admin port and the path of the metrics.
    """

    def __init__(
        self,
        state: StateFolder,
        prometheus: str,
        port: int,
        proxies: Mapping[str, tuple[int, str]],
        processes: Processes,
    ) -> None:
        self._folder = state.prometheus
        self._log = state.logs / "prometheus.log"
        self._prometheus = prometheus
        self._url = f"http://127.0.0.1:{port}"
        self._proxies = proxies
        self._processes = processes

    def start(self) -> int:
        """Start Prometheus with its last configuration, at first one without monitors; return its process id."""
        self._folder.mkdir(exist_ok=True)
        if not self._configuration.exists():
            self._write((), ())
        arguments = (
            f"--config.file={self._configuration}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--storage.tsdb.retention.time=1d",
            f"--web.listen-address={self._url.removeprefix('http://')}",
            "--web.enable-lifecycle",  # reloading by request, which unlike a signal is answered
        )
        return self._processes.start([self._prometheus, *arguments], self._log, {})

    async def wait_until_ready(self) -> None:
        """Return once Prometheus answers queries."""
        await answered(f"{self._url}/-/ready")

    async def configure(self, jobs: Sequence[Mapping[str, Any]], rules: Sequence[Path]) -> None:
        """Scrape these jobs besides the sandbox's own, and evaluate these rules; no others.

        Raises:
            NotTakenOverError: it may work later when Prometheus just does not answer.
        """
        self._write(jobs, rules)
        try:
            async with aiohttp.ClientSession() as session, session.post(f"{self._url}/-/reload") as answer:
                if not answer.ok:
                    raise NotTakenOverError((await answer.text()).strip())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotTakenOverError(f"Prometheus does not answer: {error}") from error

    @property
    def _configuration(self) -> Path:
        return self._folder / "prometheus.yml"

    def _write(self, jobs: Sequence[Mapping[str, Any]], rules: Sequence[Path]) -> None:
        own = [
            *(_static_job(name, f"127.0.0.1:{port}", path) for name, (port, path) in self._proxies.items()),
            _static_job("kubelet", f"{NODE_ADDRESS}:{KUBELET_PORT}", CADVISOR_PATH) | _KUBELET_TLS,
            _static_job("kube-state-metrics", f"{NODE_ADDRESS}:{CLUSTER_METRICS_PORT}"),
        ]
        configuration = {
            "global": {"evaluation_interval": INTERVAL},
            "rule_files": list(map(str, rules)),
            "scrape_configs": [*own, *jobs],
        }
        write(self._configuration, configuration)


def write(file: Path, configuration: Mapping[str, Any]) -> None:
    """Write YAML for Prometheus, all at once for whoever reads it."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(configuration, indent=2), encoding="utf-8")  # which is YAML, too
    unfinished.rename(file)


def _static_job(name: str, target: str, path: str = "/metrics") -> dict[str, Any]:
    labels = {"metrics_path": path}  # as the operator's kube-prometheus tells a kubelet's endpoints apart
    return {
        "job_name": name,
        "scrape_interval": INTERVAL,
        "metrics_path": path,
        "honor_labels": True,  # `namespace` and `pod` are whom the series are about
        "static_configs": [{"targets": [target], "labels": labels}],
    }
