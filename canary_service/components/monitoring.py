"""What watches the services of a stack."""

from collections.abc import Sequence

import pulumi

from canary_service.cluster.live_cluster import LiveCluster
from canary_service.components.kubernetes_component import KubernetesComponent
from canary_service.config.settings import Settings
from canary_service.observability.manifests import API_VERSION, dashboard, pod_monitor, prometheus_rule


class Monitoring(KubernetesComponent):
    """The PodMonitor, if the pods' own metrics are the source; the PrometheusRule; the dashboard's ConfigMap.

    They share a name. Made after the objects in `after`: `depends_on` of a component does not hold for its children.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        cluster: LiveCluster | None,
        opts: pulumi.ResourceOptions | None = None,
        after: Sequence[pulumi.Resource] = (),
    ) -> None:
        super().__init__("Monitoring", name, cluster, opts)
        makers = [prometheus_rule, dashboard]
        if settings.monitoring.source == "application":
            makers.append(pod_monitor)
        for make in makers:
            self._object(make(settings, name, pulumi.get_project()), after)
        self.register_outputs({"name": pulumi.Output.all(*self._waits).apply(lambda _: name)})

    @staticmethod
    def where_asked_for(
        settings: Settings,
        name: str,
        cluster: LiveCluster | None,
        opts: pulumi.ResourceOptions | None = None,
        after: Sequence[pulumi.Resource] = (),
    ) -> "Monitoring | None":
        """Declare it where it is enabled and the cluster knows its kinds; otherwise say why not.

        A preview without a cluster takes the kinds for granted: it would tell that all is deleted.
        """
        if not settings.monitoring.enabled:
            return None
        if cluster and not cluster.declared.knows_monitoring():
            pulumi.log.info(
                f"no monitoring is deployed: the cluster has no PodMonitor and PrometheusRule ({API_VERSION}). "
                "docs/monitoring.md has a plain scrape configuration; monitoring.enabled: false ends this line"
            )
            return None
        return Monitoring(settings, name, cluster, opts, after)
