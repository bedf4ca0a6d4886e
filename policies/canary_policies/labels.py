"""Which labels objects carry."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from canary_policies.objects import SERVING, UNKNOWN, Object, get, mapping, pod_template
from canary_policies.rule import Config, ResourceRule

_KINDS: Final = SERVING | {"Ingress", "Service"}


def _required(found: Object, config: Config) -> Iterator[str]:
    yield from _lacking("", get(found.body, "metadata"), config["labels"])
    if found.kind in SERVING:
        yield from _lacking("its pods' ", get(pod_template(found), "metadata"), config["labels"])


def _lacking(whose: str, metadata: Any, formats: Mapping[str, str]) -> Iterator[str]:  # noqa: ANN401 - as `get` returns it
    for label, pattern in mapping(formats).items():
        value = get(metadata, "labels", label)
        if value is UNKNOWN:
            continue
        if value is None:
            yield f"{whose}label {label} is missing"
        elif not isinstance(value, str) or not re.fullmatch(pattern, value):
            yield f"{whose}label {label} is {value!r}, which is not {pattern}"


RULES: Final = (
    ResourceRule(
        name="required-labels",
        why="Services, dashboards and people tell applications, and stable from canary, by labels",
        fix="set the label to a value of that form, on the object and on its pods",
        kinds=_KINDS,
        options={
            "labels": {
                "type": "object",
                "additionalProperties": {"type": "string", "format": "regex"},
                "default": {
                    "app": "[a-z0-9][a-z0-9-]*",
                    "version": "stable|canary",
                    "app.kubernetes.io/name": ".+",
                    "app.kubernetes.io/managed-by": ".+",
                },
                "description": "Regular expression that the whole value of each required label matches",
            }
        },
        check=_required,
    ),
)
