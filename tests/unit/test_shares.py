"""Shares are those that the shipped rules recorded, beside the weights of the same minutes."""

import pytest

from canary_service.observability.recorded import LEAST_WEIGHT, MOST_WEIGHT, SHARE
from canary_service.rollout import shares
from canary_service.rollout.prometheus import PrometheusError
from canary_service.rollout.shares import measured_shares
from canary_service.workload.facts import Share
from tests.unit.recorded_cluster import settings

URL = "http://me:s3cret@prometheus.example:9090"


def test_each_share_stands_beside_the_weights_of_the_same_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        f'{SHARE}{{namespace="shop",version="canary"}}': {"app": 12.5, "web": 3.0},
        f'{LEAST_WEIGHT}{{namespace="shop"}}': {"app": 5.0},
        f'{MOST_WEIGHT}{{namespace="shop"}}': {"app": 20.0},
    }
    monkeypatch.setattr(
        shares, "instant", lambda url, query, label: answers[query] if (url, label) == (URL, "app") else {}
    )

    found, why = measured_shares(settings(), URL)
    assert found == {"app": Share(12.5, 5.0, 20.0)}
    assert why.startswith("http://prometheus.example:9090 has none recorded")


def test_without_a_server_there_is_none_and_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured_shares(settings(), None) == ({}, "rollout.prometheusUrl is not set")

    def fails(*_: object) -> None:
        raise PrometheusError("it answered 503")

    monkeypatch.setattr(shares, "instant", fails)
    found, why = measured_shares(settings(), URL)
    assert (found, why) == ({}, "http://prometheus.example:9090 was asked, and it answered 503")
