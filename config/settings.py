"""The stack configuration as frozen models; what is wrong with it is told all at once.

Each field's description says what is allowed and its first example is a value that works: error messages are made of
both. A field without an example is no scalar, so no single command sets it. No I/O: `config.loader` takes raw values.
"""

import math
import re
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from routing.registry import ROUTERS
from routing.router import Router
from routing.split import TOTAL_WEIGHT, Backend, CanaryBackend, Header, Match, PathType, Split, Track

DNS_LABEL: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1123 label, which names a namespace."""

# Service names are RFC 1035 labels of at most 63 characters, and `-canary` is appended to ours.
SERVICE_NAME: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
SERVICE_NAME_LENGTH: Final = 63 - len("-canary")
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
HOST: Final = rf"^(\*\.)?({_LABEL}\.)*[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?$"
"""DNS name, perhaps with a wildcard; its last label begins with a letter, as an IP address does not."""

OBJECT_NAME: Final = rf"^{_LABEL}(\.{_LABEL})*$"
"""RFC 1123 subdomain, which names most objects."""

QUALIFIED_NAME: Final = rf"^({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
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
ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
PROBE_PATH: Final = r"^/[\x21-\x7e]*$"
RESERVED_ANNOTATIONS: Final = ("nginx.ingress.kubernetes.io/canary", "kubernetes.io/ingress.class", "pulumi.com/")
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


def _absent_when_empty(value: object) -> object:
    """Pulumi.yaml can give an optional key no other default than an empty string."""
    return None if value == "" else value


def _not_null(value: object) -> object:
    """Refuse an empty `canary:`, which is more likely a slip than the wish to remove the canary."""
    if value is None:
        raise ValueError("empty")
    return value


def _path(value: str) -> str:
    if not PATH.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError("not a path")
    return value


def _known_router(value: str) -> str:
    if value not in ROUTERS:
        raise ValueError("not a router")
    return value


def _own_annotations(value: dict[str, str]) -> dict[str, str]:
    if any(key.startswith(RESERVED_ANNOTATIONS) for key in value):
        raise ValueError("reserved")
    return value


def _amount(quantity: str) -> float:
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
Text = Annotated[str, BeforeValidator(_text)]
Image = Annotated[str, StringConstraints(pattern=IMAGE)]
Weight = Annotated[WholeNumber, Field(ge=0, le=TOTAL_WEIGHT)]
Path = Annotated[str, AfterValidator(_path)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME)]
Quantity = Annotated[str, BeforeValidator(_text), StringConstraints(pattern=QUANTITY)]
ObjectName = Annotated[str, StringConstraints(pattern=OBJECT_NAME, max_length=253)]
QualifiedName = Annotated[str, StringConstraints(pattern=QUALIFIED_NAME, max_length=317)]
LabelValue = Annotated[str, BeforeValidator(_text), StringConstraints(pattern=LABEL_VALUE)]
Count = Annotated[WholeNumber, Field(ge=1, le=INT32)]
Seconds = Annotated[WholeNumber, Field(ge=1, le=INT32)]
ServiceName = Annotated[str, StringConstraints(pattern=SERVICE_NAME, max_length=SERVICE_NAME_LENGTH)]

WEIGHT_RULE: Final = f"a whole number of percent from 0 to {TOTAL_WEIGHT}"
IMAGE_RULE: Final = "an image reference such as registry.example/team/app:1.4.2"
ENV_RULE: Final = "a map from environment variable name to value"


class Model(BaseModel):
    """What all parts of the configuration share: camelCase keys, no unknown ones, no change after loading."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=False)


class CanaryHeader(Model):
    """A request header that sends its requests to the canary."""

    name: str = Field(description="the name of a request header", examples=["X-Canary"])
    value: Text = Field(description="the exact value of the header", examples=["true"])


class CanarySettings(Model):
    """The version on trial; env holds the differences from stable only."""

    image: Image = Field(description=IMAGE_RULE, examples=["registry.example/team/app:1.5.0"])
    replicas: Count | None = Field(None, description="a whole number of pods, at least 1", examples=["1"])
    weight: Weight | None = Field(None, description=WEIGHT_RULE, examples=["10"])
    header: CanaryHeader | None = Field(None, description="a header's name and value")
    env: dict[EnvName, Text] = Field({}, description=ENV_RULE)


class Probe(Model):
    """How the kubelet asks a pod. Without a path it only connects to the port. Times are seconds."""

    path: Annotated[str, StringConstraints(pattern=PROBE_PATH)] | None = Field(
        None, description="an HTTP path that starts with /", examples=["/healthz"]
    )
    initial_delay_seconds: Annotated[WholeNumber, Field(ge=0, le=INT32)] = Field(
        0, description="a whole number of seconds, at least 0", examples=["0"]
    )
    period_seconds: Seconds = Field(5, description="a whole number of seconds, at least 1", examples=["5"])
    timeout_seconds: Seconds = Field(2, description="a whole number of seconds, at least 1", examples=["2"])
    failure_threshold: Count = Field(3, description="a whole number of failures, at least 1", examples=["3"])


class Probes(Model):
    """Readiness decides whether a pod gets requests, liveness whether it is restarted."""

    readiness: Probe = Field(Probe(), description="a probe")
    liveness: Probe = Field(Probe(), description="a probe")


class Resources(Model):
    """Compute resources of one pod, as Kubernetes quantities.

    No CPU limit by default: throttling costs latency, and the request already keeps the share.
    """

    requests: dict[QualifiedName, Quantity] = Field(
        {"cpu": "100m", "memory": "128Mi"},
        description="a map from resource to quantity",
    )
    limits: dict[QualifiedName, Quantity] = Field({"memory": "256Mi"}, description="a map from resource to quantity")

    @model_validator(mode="after")
    def _requests_within_limits(self) -> Self:
        for name in self.requests.keys() & self.limits.keys():
            if _amount(self.requests[name]) > _amount(self.limits[name]):
                raise ValueError("a request above its limit")
        return self


class ObjectReference(Model):
    """Names a ConfigMap or Secret in the same namespace."""

    name: ObjectName = Field(description="the name of an object", examples=["app-settings"])


class EnvFrom(Model):
    """Takes all of a ConfigMap or Secret as environment variables."""

    config_map_ref: ObjectReference | None = Field(None, description="the name of a ConfigMap")
    secret_ref: ObjectReference | None = Field(None, description="the name of a Secret")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.config_map_ref is None) == (self.secret_ref is None):
            raise ValueError("not exactly one")
        return self


class ServiceSettings(Model):
    """One service: where its requests come in, what runs, and what is on trial."""

    path: Path = Field(description="a path that starts with /, of letters, digits, '.', '_', '-'", examples=["/api"])
    path_type: PathType = Field(
        "Prefix", description="one of Prefix, Exact, ImplementationSpecific", examples=["Prefix"]
    )
    port: Annotated[WholeNumber, Field(ge=1, le=65535)] = Field(
        description="a port from 1 to 65535, on which the container listens", examples=["8080"]
    )
    replicas: Count = Field(
        2,
        description="a whole number of pods, at least 1 (stable must be able to take everything back)",
        examples=["2"],
    )
    image: Image = Field(description=IMAGE_RULE, examples=["registry.example/team/app:1.4.2"])
    canary: Annotated[CanarySettings | None, BeforeValidator(_not_null)] = Field(
        None, description="the canary's settings; without a canary, the key is absent"
    )
    env: dict[EnvName, Text] = Field({}, description=ENV_RULE)
    env_from: tuple[EnvFrom, ...] = Field(
        (), description="a list, each entry with exactly one of configMapRef and secretRef"
    )
    probes: Probes = Field(Probes(), description="readiness and liveness probes")
    resources: Resources = Field(Resources(), description="requests and limits, no request above its limit")
    # Above the slowest router's sync (ingress-nginx: 4.3 s), so that no request is sent to a pod that has gone.
    drain_seconds: Annotated[WholeNumber, Field(ge=0, le=300)] = Field(
        10,
        description="a whole number of seconds from 0 to 300 for which a pod serves on when it is told to end",
        examples=["10"],
    )
    service_account_name: ObjectName | None = Field(
        None, description="the name of a service account, whose token is then mounted", examples=["app"]
    )
    image_pull_secrets: tuple[ObjectName, ...] = Field((), description="a list of Secret names")
    node_selector: dict[QualifiedName, LabelValue] = Field({}, description="a map from node label to value")
    annotations: Annotated[dict[QualifiedName, Text], AfterValidator(_own_annotations)] = Field(
        {},
        description="a map of annotations for the Ingress, except " + ", ".join(RESERVED_ANNOTATIONS),
    )
    pod_template_patch: Annotated[dict[str, Any], AfterValidator(_template_patch)] = Field(
        {},
        description="a map of metadata and spec that is merged into the pod template; it keeps the labels app and "
        "version, and containers have a name",
    )


class Settings(Model):
    """The configuration of a stack."""

    namespace: Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=63)] = Field(
        description="a namespace: lower-case letters, digits and '-', at most 63", examples=["macromind"]
    )
    create_namespace: Annotated[bool, BeforeValidator(_flag)] = Field(
        default=False, description="true or false", examples=["true"]
    )
    host: Annotated[str, StringConstraints(pattern=HOST, max_length=253)] = Field(
        description="a host name in lower case", examples=["macromind.local"]
    )
    router: Annotated[str, AfterValidator(_known_router)] = Field(
        "nginx", description="one of " + ", ".join(ROUTERS), examples=["nginx"]
    )
    ingress_class_name: ObjectName = Field("nginx", description="the name of an IngressClass", examples=["nginx"])
    tls_secret_name: Annotated[ObjectName | None, BeforeValidator(_absent_when_empty)] = Field(
        None, description="the name of a TLS Secret for the host", examples=["macromind-tls"]
    )
    canary_weight: Weight = Field(0, description=WEIGHT_RULE, examples=["20"])
    services: dict[ServiceName, ServiceSettings] = Field(
        min_length=1,
        description=f"a map from service name (a lower-case letter, then letters, digits and '-', at most "
        f"{SERVICE_NAME_LENGTH}) to its settings",
    )

    def image_of(self, name: str, track: Track) -> str:
        """Return the image that a track of this service runs; without a canary, stable's."""
        service = self.services[name]
        return service.canary.image if service.canary and track is Track.CANARY else service.image

    def canary_weight_of(self, name: str) -> tuple[int, str]:
        """Return the percent that the canary of this service gets, and the configuration key that says so."""
        canary = self.services[name].canary
        if canary is None or canary.weight is None:
            return self.canary_weight, "canaryWeight"
        return canary.weight, f"services.{name}.canary.weight"

    def canary_replicas_of(self, name: str) -> int:
        """Return the pods of the canary: as declared, else stable's number times its weight, at least 1."""
        service = self.services[name]
        if service.canary and service.canary.replicas is not None:
            return service.canary.replicas
        weight, _ = self.canary_weight_of(name)
        return max(1, math.ceil(service.replicas * weight / TOTAL_WEIGHT))

    def router_of_stack(self) -> Router:
        """Return the router that carries out the splits of this stack."""
        return ROUTERS[self.router]

    def split_of(self, name: str) -> Split:
        """Return how the requests of this service are shared."""
        service = self.services[name]
        canary = None
        if service.canary:
            weight, _ = self.canary_weight_of(name)
            header = service.canary.header
            canary = CanaryBackend(
                Backend(f"{name}-canary", service.port),
                weight,
                Header(header.name, header.value) if header else None,
            )
        return Split(
            name=name,
            namespace=self.namespace,
            match=Match(self.host, service.path, service.path_type),
            stable=Backend(name, service.port),
            canary=canary,
            ingress_class=self.ingress_class_name,
            tls_secret=self.tls_secret_name,
            annotations=service.annotations,
        )
