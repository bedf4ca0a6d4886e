"""Whatever a manifest holds, and however little of it is known, no rule fails and none says what is not certain."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from canary_policies.catalog import RULES
from canary_policies.objects import UNKNOWN, get, matches, objects_of, whole
from canary_policies.rule import StackRule
from tests.unit.policies.samples import CONFIG, Manifest, objects, valid, workload

STACK = valid()
TITLES = [f"{found['kind']} {found['metadata']['name']}" for found in STACK]
WRONG: tuple[Any, ...] = (None, "x", -1.5, True, [None, 1, "a", [], {}], {"a": [{}], "name": {}})

Path = tuple[str | int, ...]


def nodes(value: object, path: Path = ()) -> Iterator[Path]:
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inside:
        yield from nodes(below, (*path, key))


def with_value(manifest: Manifest, path: Path, value: object) -> Manifest:
    holder = result = deepcopy(manifest)
    for key in path[:-1]:
        holder = holder[key]  # type: ignore[index] # a path through lists too
    holder[path[-1]] = value  # type: ignore[index]
    return result


class Judge:
    """The rules that read one manifest of the valid stack, each beside the other objects that it reads."""

    def __init__(self, index: int) -> None:
        self._kind = STACK[index]["kind"]
        others = objects([*STACK[:index], *STACK[index + 1 :]])
        rules = [rule for rule in RULES if self._kind in rule.kinds]
        self._rules = [
            (
                rule,
                rule.configured(CONFIG.get(rule.name, {})),
                [found for found in others if found.kind in rule.kinds and isinstance(rule, StackRule)],
            )
            for rule in rules
        ]

    def messages(self, mutated: Manifest) -> list[str]:
        made = objects_of(f"kubernetes:a/v1:{self._kind}", "name", mutated)
        return [
            rule.message(finding)
            for rule, config, related in self._rules
            for finding in rule.findings([*made, *related], config)
        ]


# What an object is, the engine always knows.
IDENTITY = {("apiVersion",), ("kind",)}


@pytest.mark.parametrize("index", range(len(STACK)), ids=TITLES)
def test_of_what_is_not_known_nothing_is_said(index: int) -> None:
    judge, paths = Judge(index), [path for path in nodes(STACK[index]) if path not in IDENTITY]

    said = {path: judge.messages(with_value(STACK[index], path, UNKNOWN)) for path in paths}

    assert len(paths) > 3
    assert {path: what for path, what in said.items() if what} == {}


@pytest.mark.parametrize("index", range(len(STACK)), ids=TITLES)
def test_no_value_of_any_type_makes_a_rule_fail(index: int) -> None:
    judge = Judge(index)

    for path in nodes(STACK[index]):
        for value in WRONG:
            assert all(judge.messages(with_value(STACK[index], path, value)))


def test_a_list_stands_for_its_items() -> None:
    listed = {"apiVersion": "apps/v1", "kind": "DeploymentList", "items": [workload("Deployment", "web", "web"), None]}
    mixed = {"apiVersion": "v1", "kind": "List", "items": [workload("Job", "job", "job")]}

    assert [str(found) for found in objects_of("kubernetes:apps/v1:DeploymentList", "all", listed)] == [
        "Deployment shop/web"
    ]
    assert [str(found) for found in objects_of("kubernetes:core/v1:List", "all", mixed)] == ["Job shop/job"]


@pytest.mark.parametrize(
    ("token", "body"),
    [
        ("aws:s3/bucket:Bucket", {}),
        ("pulumi:providers:kubernetes", {}),
        ("kubernetes:apps/v1:DeploymentPatch", {"kind": "Deployment"}),
    ],
)
def test_what_is_no_whole_object_of_kubernetes_stands_for_none(token: str, body: Manifest) -> None:
    assert objects_of(token, "name", body) == []


def test_an_object_without_a_known_name_has_that_of_its_resource() -> None:
    (named,) = objects_of("kubernetes:core/v1:Service", "web", {"metadata": {"name": UNKNOWN, "namespace": UNKNOWN}})
    (default,) = objects_of("kubernetes:core/v1:Service", "web", {})

    assert str(named) == "Service web"
    assert str(default) == "Service default/web"


def test_a_kind_that_another_group_has_too_is_not_taken_for_it() -> None:
    (found,) = objects_of("kubernetes:serving.knative.dev/v1:Service", "web", {})

    assert found.kind == "Service.serving.knative.dev"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"a": {"b": 1}}, 1),
        ({"a": {"b": None}}, None),
        ({"a": {}}, None),
        ({"a": None}, None),
        ({"a": [1]}, None),
        ({"a": "b"}, None),
        ({}, None),
        (None, None),
        ({"a": {"b": UNKNOWN}}, UNKNOWN),
        ({"a": UNKNOWN}, UNKNOWN),
        (UNKNOWN, UNKNOWN),
    ],
)
def test_what_is_not_there_is_none_and_what_is_not_known_is_unknown(value: object, found: object) -> None:
    assert get(value, "a", "b") is found or get(value, "a", "b") == found


@pytest.mark.parametrize(
    ("selector", "labels", "found"),
    [
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": "1"}}, {}, False),
        ({}, {"a": "1"}, True),
        (None, {"a": "1"}, False),
        ("a=1", {"a": "1"}, None),
        (UNKNOWN, {"a": "1"}, None),
        ({"matchLabels": {"a": UNKNOWN}}, {"a": "1"}, None),
        ({"matchLabels": {"a": UNKNOWN, "b": "1"}}, {"a": "1", "b": "2"}, False),
        ({"matchLabels": {"a": "1"}}, {"a": UNKNOWN}, None),
        ({"matchLabels": {"a": "1"}}, UNKNOWN, None),
        ({"matchLabels": {"a": "1"}, "matchExpressions": UNKNOWN}, {"a": "2"}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": UNKNOWN}, {"a": "1"}, None),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", UNKNOWN]}]}, {"a": "2"}, None),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": "1"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Like"}]}, {"a": "1"}, None),
    ],
)
def test_a_selector_finds_what_kubernetes_says(selector: object, labels: object, found: bool | None) -> None:  # noqa: FBT001 - a parameter of the test
    assert matches(selector, labels) is found


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *[("20", 20), ("+5", 5), ("-1", -1), (20, 20), (20.0, 20)],
        *[(text, None) for text in ("20.0", " 20", "2_0", "٢", "", "+")],
        *[(other, None) for other in (True, None, [20], 20.5)],
    ],
)
def test_a_whole_number_is_what_go_takes_for_one(value: object, number: int | None) -> None:
    assert whole(value) == number
