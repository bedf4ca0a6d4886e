"""What containers take from ConfigMaps and Secrets."""

import asyncio
from base64 import b64encode
from typing import Any, cast

import httpx2
import pytest
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import Container, Volume

from sandbox.configuration import Configuration, ConfigurationError


class Objects:
    """ConfigMaps and Secrets of the namespace `test`, by kind and name."""

    def __init__(self, **data: dict[str, str]) -> None:
        self._data = data

    async def get(self, kind: Any, name: str, namespace: str) -> object:  # noqa: ANN401 - a class of lightkube
        assert namespace == "test"
        if name not in self._data:
            status = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not there"}
            response = httpx2.Response(404, json=status, request=httpx2.Request("GET", "http://api"))
            raise ApiError(request=response.request, response=response)
        content = self._data[name]
        if kind.__name__ == "Secret":
            content = {key: b64encode(value.encode()).decode() for key, value in content.items()}
        return kind.from_dict({"data": content})


OBJECTS = Objects(first={"A": "1", "B": "1"}, second={"B": "2", "C": "2"})


def configuration() -> Configuration:
    return Configuration(cast("Any", OBJECTS), "test")


def variables(**settings: object) -> dict[str, str]:
    container = cast("Any", Container.from_dict({"name": "app", **settings}))
    return asyncio.run(configuration().variables(container))


def test_later_sources_go_over_earlier_ones_and_variables_over_both() -> None:
    sources = [{"configMapRef": {"name": "first"}}, {"secretRef": {"name": "second"}}]
    assert variables(envFrom=sources) == {"A": "1", "B": "2", "C": "2"}
    assert variables(envFrom=sources, env=[{"name": "C", "value": "3"}]) == {"A": "1", "B": "2", "C": "3"}
    assert variables(envFrom=[{"prefix": "OF_", "configMapRef": {"name": "first"}}]) == {"OF_A": "1", "OF_B": "1"}


@pytest.mark.parametrize("kind", ["configMapKeyRef", "secretKeyRef"])
def test_a_variable_takes_one_key(kind: str) -> None:
    assert variables(env=[{"name": "V", "valueFrom": {kind: {"name": "second", "key": "C"}}}]) == {"V": "2"}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"envFrom": [{"configMapRef": {"name": "none"}}]}, 'configmap "none" not found'),
        ({"envFrom": [{"secretRef": {"name": "none"}}]}, 'secret "none" not found'),
        (
            {"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "A"}}}]},
            'configmap "none" not found',
        ),
        (
            {"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "first", "key": "Z"}}}]},
            "couldn't find key Z in Secret test/first",
        ),
    ],
)
def test_what_is_missing_is_told(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        variables(**settings)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    "settings",
    [
        {"envFrom": [{"configMapRef": {"name": "none", "optional": True}}]},
        {"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "none", "key": "A", "optional": True}}}]},
        {"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "first", "key": "Z", "optional": True}}}]},
    ],
)
def test_what_is_optional_may_be_missing(settings: dict[str, object]) -> None:
    assert variables(**settings) == {}


@pytest.mark.parametrize(
    ("source", "reason"),
    [({"configMap": {"name": "none"}}, "configmap"), ({"secret": {"secretName": "none"}}, "secret")],
)
def test_volumes_need_what_they_are_made_of(source: dict[str, object], reason: str) -> None:
    def look_for(**source: object) -> None:
        volume = cast("Any", Volume.from_dict({"name": "files", **source}))
        asyncio.run(configuration().look_for([volume]))

    with pytest.raises(ConfigurationError, match=f'volume "files" : {reason} "none" not found'):
        look_for(**source)
    look_for(configMap={"name": "first"})
    look_for(configMap={"name": "none", "optional": True})
    look_for(emptyDir={})
