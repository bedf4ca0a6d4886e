"""Kubernetes objects as plain data, of which a preview may not know everything yet.

Every access is safe: what is absent, null or of a wrong type is None or empty, what is not known is UNKNOWN or empty.
So a rule says only what is certain, and what is not known hides nothing that is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias


class Unknown(Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return "(not known yet)"


UNKNOWN: Final = Unknown.UNKNOWN
"""Stands for a value that is known only after the update."""

Manifest: TypeAlias = Mapping[str, Any]

_GROUPS: Final[Mapping[str, frozenset[str]]] = {
    kind: frozenset(groups)
    for groups, kinds in (
        (("",), "ConfigMap Pod ReplicationController Service"),
        (("apps",), "DaemonSet Deployment ReplicaSet StatefulSet"),
        (("autoscaling",), "HorizontalPodAutoscaler"),
        (("batch",), "CronJob Job"),
        (("consul.hashicorp.com",), "ServiceResolver ServiceSplitter"),
        # Linkerd's own group has the same fields.
        (("gateway.networking.k8s.io", "policy.linkerd.io"), "GRPCRoute HTTPRoute"),
        (("networking.istio.io",), "DestinationRule VirtualService"),
        (("networking.k8s.io",), "Ingress"),
        (("policy",), "PodDisruptionBudget"),
        (("traefik.io", "traefik.containo.us"), "IngressRoute TraefikService"),
    )
    for kind in kinds.split()
}

_POD_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}

WORKLOADS: Final = frozenset(_POD_TEMPLATES)
"""Kinds that have pods."""

SERVING: Final = frozenset({"DaemonSet", "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet"})
"""Kinds whose pods run for good and are found by a selector."""


@dataclass(frozen=True, slots=True)
class Object:
    """One Kubernetes object. `kind` names its group too, when that is not the one the rules know the kind by."""

    kind: str
    name: str
    namespace: str | Unknown
    body: Manifest = field(hash=False)
    urn: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.name if self.namespace is UNKNOWN else f'{self.namespace}/{self.name}'}"


def objects_of(type_token: str, resource_name: str, body: Manifest, urn: str = "") -> list[Object]:
    """Return the objects that a resource of the Kubernetes provider stands for; a list stands for its items.

    Other resources stand for none, and neither do patches (`DeploymentPatch`), which hold a part of an object only.
    """
    package, _, rest = type_token.partition(":")
    version, _, kind = rest.partition(":")
    if package != "kubernetes" or kind.endswith("Patch"):
        return []
    if kind.endswith("List"):
        of_items = "" if kind == "List" else f"{package}:{version}:{kind.removesuffix('List')}"
        return [
            found
            for item in items(body, "items")
            for found in objects_of(of_items or _token(item), resource_name, item, urn)
        ]
    api_version = text(body, "apiVersion") or version.removeprefix("core/")
    kind = text(body, "kind") or kind
    group = api_version.rpartition("/")[0]
    known = group in _GROUPS.get(kind, {group})
    name, namespace = get(body, "metadata", "name"), get(body, "metadata", "namespace")
    return [
        Object(
            kind if known else f"{kind}.{group}",
            name if isinstance(name, str) and name else resource_name,
            namespace if isinstance(namespace, str) else UNKNOWN if namespace is UNKNOWN else "default",
            body,
            urn,
        )
    ]


def _token(item: Manifest) -> str:
    return f"kubernetes:{text(item, 'apiVersion')}:{text(item, 'kind')}"


def get(value: object, *path: str) -> Any:  # noqa: ANN401 - whatever the manifest holds
    """Return what is at a path: None where there is nothing, UNKNOWN where that, or something above it, is unknown."""
    for key in path:
        if value is UNKNOWN:
            return UNKNOWN
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def text(value: object, *path: str) -> str:
    """Return the text at a path, or nothing."""
    found = get(value, *path)
    return found if isinstance(found, str) else ""


def items(value: object, *path: str) -> list[Manifest]:
    """Return the maps in the list at a path."""
    found = get(value, *path)
    return [item for item in found if isinstance(item, Mapping)] if _is_list(found) else []


def members(value: object, *path: str) -> list[Manifest | Unknown]:
    """Return the maps in the list at a path, and UNKNOWN for each entry that is not known, or for all of them."""
    if get(value, *path) is UNKNOWN:
        return [UNKNOWN]
    return [entry for entry in entries(value, *path) if entry is UNKNOWN or isinstance(entry, Mapping)]


def entries(value: object, *path: str) -> list[Any]:
    """Return what is in the list at a path, of whatever type."""
    found = get(value, *path)
    return list(found) if _is_list(found) else []


def mapping(value: object, *path: str) -> Manifest:
    """Return the map at a path."""
    found = get(value, *path)
    return found if isinstance(found, Mapping) else {}


_DIGITS: Final = 18


def whole(value: object) -> int | None:
    """Return a whole number; text, as annotations have it, counts by what it says."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        # As Go's Atoi: no blanks, no underscores, ASCII only, 64 bits.
        digits = value[1:] if value[:1] in {"+", "-"} else value
        return int(value) if len(digits) <= _DIGITS and digits.isascii() and digits.isdigit() else None
    return value if isinstance(value, int) else None


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def annotation(found: Object, name: str) -> str | Unknown | None:
    """Return an annotation; numbers and booleans, which YAML makes of unquoted ones, as the text they stand for."""
    value = get(found.body, "metadata", "annotations", name)
    if value is None or value is UNKNOWN or isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def pod_template(found: Object) -> Any:  # noqa: ANN401 - whatever the manifest holds
    """Return what holds the metadata and spec of an object's pods."""
    return get(found.body, *_POD_TEMPLATES.get(found.kind, ("none",)))


def pod_spec(found: Object) -> Any:  # noqa: ANN401 - whatever the manifest holds
    """Return the spec of an object's pods."""
    return get(pod_template(found), "spec")


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod, and how to name it. `main` ones run as long as the pod, beside its init containers."""

    body: Manifest
    title: str
    main: bool


def containers(found: Object) -> Iterator[Container]:
    """Return all containers of an object's pods."""
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for number, body in enumerate(items(pod_spec(found), group)):
            title = f"container {text(body, 'name') or f'{group}[{number}]'}"
            yield Container(body, title, group == "containers")


def matches(selector: object, labels: object) -> bool | None:
    """Tell whether a label selector finds these labels; None when it depends on what is not known.

    `selector` is what Kubernetes calls a LabelSelector. An empty one finds everything, none at all nothing.
    """
    if selector is None:
        return False
    wanted = get(selector, "matchLabels")
    known = isinstance(selector, Mapping) and (wanted is None or isinstance(wanted, Mapping))
    verdicts = [_equal(get(labels, key), value) for key, value in mapping(selector, "matchLabels").items()]
    verdicts += [_expressed(expression, labels) for expression in items(selector, "matchExpressions")]
    # What is not known could only narrow it.
    known &= get(selector, "matchExpressions") is not UNKNOWN
    return both(*verdicts, *([] if known else [None]))


def _expressed(expression: Manifest, labels: object) -> bool | None:
    value, operator = get(labels, text(expression, "key")), get(expression, "operator")
    if value is UNKNOWN:
        return None
    values = entries(expression, "values")
    match operator:
        case "In":
            return None if UNKNOWN in values and value not in values else value in values
        case "NotIn":
            return None if UNKNOWN in values and value not in values else value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return None


def both(*verdicts: bool | None) -> bool | None:
    """Return the logical and of verdicts, of which some may be open."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _equal(one: object, other: object) -> bool | None:
    return None if UNKNOWN in (one, other) else one == other


def same_namespace(one: Object, other: Object) -> bool | None:
    """Tell whether two objects are in the same namespace; None when that is not known."""
    return _equal(one.namespace, other.namespace)
