"""What values of the configuration look like: patterns, the types that fields have, and rules in words for messages."""

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from canary_service.routing.registry import ROUTERS
from canary_service.routing.split import TOTAL_WEIGHT

DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1123 label, which names a namespace."""

# Service names are RFC 1035 labels of at most 63 characters, and `-canary` is appended to ours.
SERVICE_NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
SERVICE_NAME_LENGTH: Final = 63 - len("-canary")
LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
HOST: Final = rf"^(\*\.)?({LABEL}\.)*[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?$"
"""DNS name, perhaps with a wildcard; its last label begins with a letter, as an IP address does not."""

OBJECT_NAME: Final = rf"^{LABEL}(\.{LABEL})*$"
"""RFC 1123 subdomain, which names most objects."""

QUALIFIED_NAME: Final = rf"^({LABEL}(\.{LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
"""Key of a label, an annotation or a resource, with or without a prefix."""

LABEL_VALUE: Final = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
IMAGE: Final = (
    r"^[a-z0-9]+([._-]+[a-z0-9]+)*(\.[a-z0-9]+)*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$"
)
QUANTITY: Final = r"^[0-9]{1,15}(\.[0-9]{1,9})?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?$"
# ingress-nginx refuses other characters when `strict-validate-path-type` is on, which is its default; the API server
# refuses empty and relative segments.
PATH: Final = re.compile(r"/|(/[A-Za-z0-9._-]+)+/?")
PORT_NAME: Final = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
"""IANA service name (RFC 6335) that begins with a letter; it names a port."""

ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
PROBE_PATH: Final = r"^/[\x21-\x7e]*$"
HTTP_URL: Final = r"^https?://[!-~]+$"
METRICS_PATH: Final = r"^/[!\"$->@-~]*$"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
"""Tells which objects belong together; nothing else may set it."""
LABELS_RULE: Final = (
    "a map from label to value: letters, digits, '-', '_' and '.', at most 63; a label may have a prefix/, and is not "
    f"{INSTANCE_LABEL}"
)
# Narrower than RFC 6265: what is no cookie for ingress-nginx, it drops without a word.
COOKIE_NAME: Final = r"^[A-Za-z0-9_-]+$"
# Not "." nor what begins with "..": the API server refuses such keys of a ConfigMap or Secret, which become file names.
FILE_NAME: Final = r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*$"
RESERVED_ANNOTATIONS: Final = (
    "nginx.ingress.kubernetes.io/canary*",
    "nginx.ingress.kubernetes.io/affinity",
    "nginx.ingress.kubernetes.io/affinity-canary-behavior",
    "nginx.ingress.kubernetes.io/session-cookie-name",
    "nginx.ingress.kubernetes.io/session-cookie-max-age",
    "nginx.ingress.kubernetes.io/session-cookie-path",
    "kubernetes.io/ingress.class",
    "pulumi.com/*",
    "canary-service/*",
)
INT32: Final = 2**31 - 1
"""The API server holds counts and times as 32-bit numbers."""

_UNITS: Final = {"": 1.0, "m": 1e-3} | {
    unit + suffix: float(base**power)
    for suffix, base in (("", 1000), ("i", 1024))
    for power, unit in enumerate(("k" if not suffix else "K", "M", "G", "T", "P"), start=1)
}


def _whole_number(value: object) -> object:
    """Take what `pulumi config set` stores, a string of digits, for the number it is; nothing else is turned."""
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]*)", value, re.ASCII):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("not a whole number")


def _flag(value: object) -> object:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("not true or false")


def _text(value: object) -> object:
    """YAML and `pulumi config set` turn `8080` and `true` into a number and a boolean; Kubernetes wants strings."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def absent_when_empty(value: object) -> object:
    """Pulumi.yaml can give an optional key no other default than an empty string."""
    return None if value == "" else value


def not_null(value: object) -> object:
    """Refuse an empty `canary:`, which is more likely a slip than the wish to remove the canary."""
    if value is None:
        raise ValueError("empty")
    return value


def _path(value: str) -> str:
    if not PATH.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError("not a path")
    return value


def _mount_path(value: str) -> str:
    if value.endswith("/"):
        raise ValueError("not a folder of its own")
    return _path(value)


def _number(value: object) -> object:
    """Take what `pulumi config set` stores, digits with or without a decimal point, for the number it is."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value, re.ASCII):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError("not a number")


def _pods_or_percent(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"(100|[1-9][0-9]?)%", value, re.ASCII):
        return value
    number = _whole_number(value)
    if isinstance(number, int) and 1 <= number <= INT32:
        return number
    raise ValueError("neither a whole number of pods nor a percent")


def _known_router(value: str) -> str:
    if value not in ROUTERS:
        raise ValueError("not a router")
    return value


def _own_annotations(value: dict[str, str]) -> dict[str, str]:
    if any(fnmatchcase(key, pattern) for key in value for pattern in RESERVED_ANNOTATIONS):
        raise ValueError("reserved")
    return value


def _free_labels(value: dict[str, str]) -> dict[str, str]:
    if INSTANCE_LABEL in value:
        raise ValueError("reserved")
    return value


def amount(quantity: str) -> float:
    """Return what a Kubernetes quantity stands for; a processor is 1, a byte is 1.

    Raises:
        ValueError: it is none that `QUANTITY` describes.
    """
    digits = quantity.rstrip("".join(_UNITS))
    return float(digits) * _UNITS[quantity[len(digits) :]]


def _template_patch(value: dict[str, Any]) -> dict[str, Any]:
    """Let through what can be merged without taking away what the component stands on."""
    metadata, spec = value.get("metadata", {}), value.get("spec", {})
    labels = metadata.get("labels", {}) if isinstance(metadata, dict) else None
    containers = spec.get("containers", []) if isinstance(spec, dict) else None
    named = isinstance(containers, list) and all(
        isinstance(container, dict) and isinstance(container.get("name"), str) for container in containers
    )
    if value.keys() - {"metadata", "spec"} or not isinstance(labels, dict) or not named:
        raise ValueError("not a patch of a pod template")
    if labels.keys() & {"app", "version"}:
        raise ValueError("the selector's labels")
    return value


WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
Flag = Annotated[bool, BeforeValidator(_flag)]
PodsOrPercent = Annotated[int | str, BeforeValidator(_pods_or_percent)]
RouterName = Annotated[str, AfterValidator(_known_router)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(_text)]
Image = Annotated[str, StringConstraints(pattern=IMAGE)]
Weight = Annotated[WholeNumber, Field(ge=0, le=TOTAL_WEIGHT)]
Path = Annotated[str, AfterValidator(_path)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
CookieName = Annotated[str, StringConstraints(pattern=COOKIE_NAME)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME, max_length=253)]
MountPath = Annotated[str, AfterValidator(_mount_path)]
Quantity = Annotated[str, BeforeValidator(_text), StringConstraints(pattern=QUANTITY)]
ObjectName = Annotated[str, StringConstraints(pattern=OBJECT_NAME, max_length=253)]
QualifiedName = Annotated[str, StringConstraints(pattern=QUALIFIED_NAME, max_length=317)]
LabelValue = Annotated[str, BeforeValidator(_text), StringConstraints(pattern=LABEL_VALUE)]
OwnAnnotations = Annotated[dict[QualifiedName, Text], AfterValidator(_own_annotations)]
PodTemplatePatch = Annotated[dict[str, Any], AfterValidator(_template_patch)]
FreeLabels = Annotated[dict[QualifiedName, LabelValue], AfterValidator(_free_labels)]
Count = Annotated[WholeNumber, Field(ge=1, le=INT32)]
Seconds = Annotated[WholeNumber, Field(ge=1, le=INT32)]
ServiceName = Annotated[str, StringConstraints(pattern=SERVICE_NAME, max_length=SERVICE_NAME_LENGTH)]

WEIGHT_RULE: Final = f"a whole number of percent from 0 to {TOTAL_WEIGHT}"
IMAGE_RULE: Final = "an image reference such as registry.example/team/app:1.4.2"
ENV_RULE: Final = "a map from environment variable name to value"
COOKIE_RULE: Final = "the name of a cookie, of letters, digits, '_' and '-'"
SECONDS_RULE: Final = f"a whole number of seconds, 1 to {INT32}"
DATA_RULE: Final = "a map, not empty, from key (letters, digits, '-', '_', '.', at most 253) to text"
