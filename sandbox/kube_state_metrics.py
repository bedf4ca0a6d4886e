"""Plays kube-state-metrics, of whose series those are here that the alerts of this project need."""

from collections.abc import Iterable

from lightkube.resources.apps_v1 import Deployment
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sandbox.watched import Watched

_LABELS = ("namespace", "deployment")


class KubeStateMetrics(Collector):
    """What the API server says of Deployments (kube-state-metrics, Deployment metrics)."""

    def __init__(self, deployments: Watched[Deployment]) -> None:
        self._deployments = deployments

    def collect(self) -> Iterable[Metric]:
        """Return the series of each Deployment."""
        wanted = GaugeMetricFamily("kube_deployment_spec_replicas", "Number of desired pods.", labels=_LABELS)
        ready = GaugeMetricFamily("kube_deployment_status_replicas_ready", "Number of ready pods.", labels=_LABELS)
        for deployment in self._deployments.objects:
            metadata, spec, status = deployment.metadata, deployment.spec, deployment.status
            assert metadata is not None and spec is not None  # noqa: PT018, S101  the API server sets both
            labels = metadata.namespace or "", metadata.name or ""
            wanted.add_metric(labels, 1 if spec.replicas is None else spec.replicas)
            ready.add_metric(labels, (status and status.readyReplicas) or 0)
        return wanted, ready
