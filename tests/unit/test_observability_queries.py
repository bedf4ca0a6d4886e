"""Every source's queries are valid, name the same things by the same labels, and select nobody else's series."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml

from canary_service.config.settings import SourceName
from canary_service.observability.queries import (
    SOURCES,
    MetricSource,
    Scope,
    request_rate,
    track_error_ratio,
    track_latency,
    track_rate,
    track_share,
)
from tests.unit import promtool

SCOPE = Scope("shop", ("cart", "pay"))
QUERIES: dict[str, Callable[[MetricSource], str]] = {
    "rate": lambda source: track_rate(source, SCOPE),
    "errors": lambda source: track_error_ratio(source, SCOPE),
    "latency": lambda source: track_latency(source, SCOPE, 0.95),
    "share": lambda source: track_share(source, SCOPE),
    "both tracks": lambda source: request_rate(source, SCOPE.namespace, SCOPE.services),
}


def test_each_source_of_the_table_can_be_configured_and_no_other() -> None:
    assert set(get_args(SourceName)) == set(SOURCES)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("query", QUERIES)
def test_each_query_is_balanced_and_leaves_no_placeholder(source: str, query: str) -> None:
    text = QUERIES[query](SOURCES[source])

    outside = re.sub(r'"[^"]*"', "", text)
    for pair in ("()", "{}", "[]"):
        assert outside.count(pair[0]) == outside.count(pair[1])
    assert "SERVICES" not in text
    assert "NAMESPACE" not in text


def test_promtool_takes_every_query_of_every_source(tmp_path: Path) -> None:
    rules = [
        {"record": "query", "expr": query(source), "labels": {"source": name, "query": what}}
        for name, source in SOURCES.items()
        for what, query in QUERIES.items()
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool.run(promtool.found(), "check", "rules", file)


def relabelled(source: str, **labels: str) -> dict[str, str]:
    """Do as label_replace does, whose patterns match the whole value."""
    for relabel in SOURCES[source].relabels:
        found = re.fullmatch(SCOPE.resolved(relabel.pattern), labels.get(relabel.source, ""))
        if found:
            labels[relabel.target] = found.expand(relabel.value.replace("$", "\\"))
    return {label: labels.get(label, "") for label in ("app", "version")}


def selects(source: str, **labels: str) -> bool:
    """Tell whether the selector of a source matches a series with these labels."""
    matchers = re.findall(r'(\w+)(=~|=)"([^"]*)"', SCOPE.resolved(SOURCES[source].selector))
    return all(
        re.fullmatch(value, labels.get(label, "")) if kind == "=~" else labels.get(label, "") == value
        for label, kind, value in matchers
    )


TRAEFIK = "shop-cart-cart-80{}@kubernetesingressnginx"
ISTIO = {"reporter": "destination", "destination_workload_namespace": "shop"}
LINKERD = {"direction": "inbound", "namespace": "shop"}
SERIES: list[tuple[str, dict[str, str], str]] = [
    ("nginx", {"namespace": "shop", "ingress": "cart", "canary": ""}, "stable"),
    ("nginx", {"namespace": "shop", "ingress": "cart", "canary": "shop-cart-canary-80"}, "canary"),
    ("traefik", {"service": TRAEFIK.format("")}, "stable"),
    ("traefik", {"service": TRAEFIK.format("-canary")}, "canary"),
    ("traefik", {"service": "shop-cart-80@kubernetescrd"}, "stable"),
    ("traefik", {"service": "shop-cart-canary-80@kubernetescrd"}, "canary"),
    ("traefik", {"service": "httproute-shop-cart-gw-web-0-svc-shop-cart-canary-80@kubernetesgateway"}, "canary"),
    ("istio", ISTIO | {"destination_workload": "cart"}, "stable"),
    ("istio", ISTIO | {"destination_workload": "cart-canary"}, "canary"),
    ("linkerd", LINKERD | {"deployment": "cart"}, "stable"),
    ("linkerd", LINKERD | {"deployment": "cart-canary"}, "canary"),
    ("envoy", {"envoy_cluster_name": "service/shop/cart/80/http"}, "stable"),
    ("envoy", {"envoy_cluster_name": "service/shop/cart-canary/80/http"}, "canary"),
    ("consul", {"consul_destination_service": "cart", "consul_destination_service_subset": "stable"}, "stable"),
    ("consul", {"consul_destination_service": "cart", "consul_destination_service_subset": "canary"}, "canary"),
]


@pytest.mark.parametrize(("source", "labels", "track"), SERIES)
def test_a_series_is_selected_and_named_by_service_and_track(source: str, labels: dict[str, str], track: str) -> None:
    assert selects(source, **labels)
    assert relabelled(source, **labels) == {"app": "cart", "version": track}


@pytest.mark.parametrize(("source", "labels", "track"), SERIES)
@pytest.mark.parametrize("changed", [("cart", "cart2"), ("cart", "a-cart"), ("shop", "workshop")])
def test_series_of_other_services_and_namespaces_are_not(
    source: str, labels: dict[str, str], track: str, changed: tuple[str, str]
) -> None:
    others = {label: value.replace(*changed) for label, value in labels.items()}
    if others != labels:
        assert not selects(source, **others), track


def test_milliseconds_become_seconds() -> None:
    assert track_latency(SOURCES["istio"], SCOPE, 0.5).startswith("0.001 * histogram_quantile(0.5, ")
