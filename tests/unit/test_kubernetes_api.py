"""How the API server is asked."""

import time
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from lightkube import ApiError, Client
from lightkube.resources.core_v1 import Service

from canary_service.cluster.api import KubernetesApi
from canary_service.cluster.connection import connect
from canary_service.cluster.errors import ClusterError

INITIALIZING = "storage is (re)initializing"


def refusal(code: int, **headers: str) -> ApiError:
    request = httpx2.Request("GET", "https://api")
    status = {"kind": "Status", "code": code, "message": INITIALIZING}
    return ApiError(request, httpx2.Response(code, json=status, headers=headers, request=request))


class Clock:
    """Goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: made.seconds)
    return made


def api(*answers: ApiError | None) -> KubernetesApi:
    """Return one whose server gives these answers, the last for ever; None is a list without objects."""
    left = list(answers)

    def listed(*_: object, **__: object) -> list[Any]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer:
            raise answer
        return []

    return KubernetesApi(cast("Client", SimpleNamespace(list=listed)), "shop")


def test_an_api_server_that_asks_to_come_again_is_asked_again_when_it_says(clock: Clock) -> None:
    later = refusal(429, **{"Retry-After": "2"})
    assert api(later, later, None).listed(Service) == []
    assert clock.seconds == 4


def test_an_api_server_that_never_has_time_is_told_as_such(clock: Clock) -> None:
    with pytest.raises(ClusterError, match=r"the API server refused: storage is \(re\)initializing"):
        api(refusal(429, **{"Retry-After": "1"})).listed(Service)
    assert clock.seconds == 10


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {"Retry-After": "60"}])
def test_a_refusal_that_is_not_to_end_soon_is_told_at_once(clock: Clock, headers: dict[str, str]) -> None:
    with pytest.raises(ClusterError):
        api(refusal(503, **headers)).listed(Service)
    assert clock.seconds == 0


def test_where_the_address_of_a_server_that_cannot_be_asked_is_from_is_told_for_stacks_and_components_alike() -> None:
    kubeconfig = """
        clusters: [{name: one, cluster: {server: "https://127.0.0.1:1"}}]
        contexts: [{name: one, context: {cluster: one}}]
        current-context: one
    """

    with pytest.raises(ClusterError) as caught:
        KubernetesApi(connect({"kubeconfig": kubeconfig}), "shop").listed(Service)

    message = str(caught.value)
    assert message.startswith("the API server https://127.0.0.1:1 cannot be asked: ConnectError: ")
    assert message.endswith(". It is that of the Kubernetes provider's kubeconfig and context, else of kubectl")
