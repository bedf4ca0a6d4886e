"""The stack configuration as frozen models; what is wrong with it is told all at once.

Each field's description says what is allowed and its first example is a value that works: error messages are made of
both. A field without an example is no scalar, so no single command sets it. No I/O: `config.loader` takes raw values.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Final, Literal, Self, TypeAlias, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticKnownError

from canary_service.config.values import (
    COOKIE_RULE,
    DATA_RULE,
    DNS_LABEL,
    ENV_RULE,
    HOST,
    HTTP_URL,
    IMAGE_RULE,
    INT32,
    LABEL,
    LABELS_RULE,
    METRICS_PATH,
    PORT_NAME,
    PROBE_PATH,
    RESERVED_ANNOTATIONS,
    SECONDS_RULE,
    SERVICE_NAME_LENGTH,
    WEIGHT_RULE,
    CookieName,
    Count,
    EnvName,
    FileName,
    Flag,
    FreeLabels,
    Image,
    LabelValue,
    MountPath,
    Number,
    ObjectName,
    OwnAnnotations,
    Path,
    PodsOrPercent,
    PodTemplatePatch,
    QualifiedName,
    Quantity,
    RouterName,
    Seconds,
    ServiceName,
    Text,
    Weight,
    WholeNumber,
    absent_when_empty,
    amount,
    not_null,
)
from canary_service.routing.istio import VERSIONS, Istio
from canary_service.routing.nginx import Nginx
from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import Feature, Router
from canary_service.routing.split import (
    TOTAL_WEIGHT,
    Backend,
    CanaryBackend,
    CanaryBehavior,
    Entry,
    Header,
    Match,
    PathType,
    SessionAffinity,
    Split,
    Track,
)

SourceName: TypeAlias = Literal["application", "nginx", "traefik", "istio", "linkerd", "envoy", "consul"]
"""Who counts requests; `observability.queries.SOURCES` has the metrics of each."""


class Model(BaseModel):
    """What all parts of the configuration share: camelCase keys, no unknown ones, no change after loading."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=False)


class CanaryHeader(Model):
    """A request header that sends its requests to the canary."""

    name: str = Field(description="the name of a request header", examples=["X-Canary"])
    value: Text = Field(description="the exact value of the header", examples=["true"])


class Configuration(Model):
    """Content of a ConfigMap or Secret."""

    data: dict[FileName, Text] = Field(min_length=1, description=DATA_RULE)


class MountedConfiguration(Configuration):
    """The same, and where pods find it: as files in a folder, or without one as environment variables."""

    mount_path: MountPath | None = Field(
        None, description="an absolute path of letters, digits, '.', '_', '-'", examples=["/etc/app"]
    )


class CanarySettings(Model):
    """The version on trial; env, configMap and secret hold the differences from stable only."""

    image: Image = Field(description=IMAGE_RULE, examples=["registry.example/team/app:1.5.0"])
    replicas: Count | None = Field(None, description="a whole number of pods, at least 1", examples=["1"])
    weight: Weight | None = Field(None, description=WEIGHT_RULE, examples=["10"])
    header: CanaryHeader | None = Field(None, description="a header's name and value")
    cookie: CookieName | None = Field(None, description=COOKIE_RULE, examples=["canary"])
    mirror_percent: Weight = Field(0, description=WEIGHT_RULE, examples=["10"])
    replaces: Image | None = Field(
        None,
        description="the image of the running canary that may be replaced while it has traffic",
        examples=["registry.example/team/app:1.4.9"],
    )
    env: dict[EnvName, Text] = Field({}, description=ENV_RULE)
    config_map: Configuration | None = Field(None, description="data that differs from stable's")
    secret: Configuration | None = Field(None, description="data that differs from stable's")


class Probe(Model):
    """How the kubelet asks a pod. Without a path it only connects to the port. Times are seconds."""

    path: Annotated[str, StringConstraints(pattern=PROBE_PATH)] | None = Field(
        None, description="an HTTP path that starts with /", examples=["/healthz"]
    )
    initial_delay_seconds: Annotated[WholeNumber, Field(ge=0, le=INT32)] = Field(
        0, description="a whole number of seconds, at least 0", examples=["0"]
    )
    period_seconds: Seconds = Field(5, description=SECONDS_RULE, examples=["5"])
    timeout_seconds: Seconds = Field(2, description=SECONDS_RULE, examples=["2"])
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
            if amount(self.requests[name]) > amount(self.limits[name]):
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


class Autoscaling(Model):
    """How many pods each track has when their number follows the load."""

    min_replicas: Count = Field(description="a whole number of pods, at least 1", examples=["2"])
    max_replicas: Count = Field(description="a whole number of pods, at least minReplicas", examples=["10"])
    target_cpu_percent: Annotated[WholeNumber, Field(ge=1, le=1000)] = Field(
        80, description="a whole number of percent of the CPU request, from 1 to 1000", examples=["80"]
    )

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError("maxReplicas below minReplicas")
        return self


class DisruptionBudget(Model):
    """How many pods of a track may be evicted at a time. Only this form: a minimum could block every eviction."""

    max_unavailable: PodsOrPercent = Field(
        description="a whole number of pods, at least 1, or a percent from 1% to 100%", examples=["25%"]
    )


class SessionAffinitySettings(Model):
    """A cookie of the router that keeps a client on its pod."""

    cookie_name: CookieName = Field(description=COOKIE_RULE, examples=["session-affinity"])
    max_age_seconds: Seconds | None = Field(None, description=SECONDS_RULE, examples=["3600"])
    canary_behavior: CanaryBehavior = Field("sticky", description="one of sticky, legacy", examples=["sticky"])


class ServiceSettings(Model):
    """One service: where its requests come in, what runs, and what is on trial."""

    path: Path = Field(description="a path that starts with /, of letters, digits, '.', '_', '-'", examples=["/api"])
    path_type: PathType = Field(
        "Prefix", description="one of Prefix, Exact, ImplementationSpecific", examples=["Prefix"]
    )
    port: Annotated[WholeNumber, Field(ge=1, le=65535)] = Field(
        description="a port from 1 to 65535, on which the container listens", examples=["8080"]
    )
    service_port: Annotated[WholeNumber, Field(ge=1, le=65535)] | None = Field(
        None, description="a port from 1 to 65535, which the Service offers (default: port)", examples=["80"]
    )
    port_name: Annotated[str, StringConstraints(pattern=PORT_NAME, max_length=15)] | None = Field(
        None,
        description="a lower-case letter, then letters, digits and single '-', at most 15",
        examples=["http"],
    )
    replicas: Count = Field(
        2,
        description="a whole number of pods, at least 1 (stable must be able to take everything back)",
        examples=["2"],
    )
    stable: Literal["managed", "existing"] = Field(
        "managed",
        description="managed, or existing when something else owns stable's Deployment, Service and Ingress",
        examples=["managed"],
    )
    image: Image | None = Field(
        None, validate_default=True, description=IMAGE_RULE, examples=["registry.example/team/app:1.4.2"]
    )
    canary: Annotated[CanarySettings | None, BeforeValidator(not_null)] = Field(
        None, description="the canary's settings; without a canary, the key is absent"
    )
    env: dict[EnvName, Text] = Field({}, description=ENV_RULE)
    env_from: tuple[EnvFrom, ...] = Field(
        (), description="a list, each entry with exactly one of configMapRef and secretRef"
    )
    config_map: MountedConfiguration | None = Field(None, description="data and, for files, mountPath")
    secret: MountedConfiguration | None = Field(None, description="data and, for files, mountPath")
    autoscaling: Autoscaling | None = Field(
        None, description="minReplicas, maxReplicas (at least as many) and targetCpuPercent"
    )
    disruption_budget: DisruptionBudget | None = Field(None, description="maxUnavailable")
    session_affinity: SessionAffinitySettings | None = Field(
        None, description="cookieName, maxAgeSeconds and canaryBehavior"
    )
    min_ready_seconds: Annotated[WholeNumber, Field(ge=0, le=3600)] = Field(
        3, description="a whole number of seconds, 0 to 3600", examples=["3"]
    )
    ready_timeout_seconds: Seconds = Field(300, description=SECONDS_RULE, examples=["300"])
    probes: Probes = Field(Probes(), description="readiness and liveness probes")
    resources: Resources = Field(Resources(), description="requests and limits, no request above its limit")
    # Not below the slowest router's sync (Istio: 10 s), so that no request is sent to a pod that has gone.
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
    annotations: OwnAnnotations = Field(
        {},
        description="a map of annotations for the Ingress, except " + ", ".join(RESERVED_ANNOTATIONS),
    )
    pod_template_patch: PodTemplatePatch = Field(
        {},
        description="a map of metadata and spec that is merged into the pod template; it keeps the labels app and "
        "version, and containers have a name",
    )

    @field_validator("image")
    @classmethod
    def _of_a_managed_stable(cls, image: str | None, info: ValidationInfo) -> str | None:
        if image is None and info.data.get("stable") == "managed":
            raise PydanticKnownError("missing")
        return image


class QueryGate(Model):
    """A query of the user's own, which gives one value; at every look that has to be within the bounds."""

    query: Annotated[Text, Field(min_length=1)] = Field(
        description="PromQL, in which $namespace and $service stand for those of the canary",
        examples=['sum(rate(logins_total{namespace="$namespace",app="$service",version="canary"}[1m]))'],
    )
    min: Number | None = Field(None, description="a number, at most max", examples=["1"])
    max: Number | None = Field(None, description="a number, at least min", examples=["10"])


class GateSettings(Model):
    """When a canary is worse than stable; alerts and the driver's gates have these limits in common.

    Percent of requests and percent points, except where a field says otherwise.
    """

    error_rate_difference: Annotated[Number, Field(gt=0, lt=100)] = Field(
        5.0,
        description="percent points, above 0 and below 100, by which more of the canary's requests may fail than of "
        "stable's",
        examples=["5"],
    )
    latency_ratio: Annotated[Number, Field(ge=1, le=100)] = Field(
        1.5,
        description="a number from 1 to 100: how many times stable's 95th percentile the canary's may be",
        examples=["1.5"],
    )
    latency_difference_milliseconds: Annotated[WholeNumber, Field(ge=0, le=INT32)] = Field(
        25,
        description="a whole number of milliseconds by which the canary's 95th percentile may be above stable's, "
        "whatever the ratio",
        examples=["25"],
    )
    weight_difference: Annotated[Number, Field(gt=0, lt=100)] = Field(
        5.0,
        description="percent points, above 0 and below 100, between the declared weight and the measured share",
        examples=["5"],
    )
    min_requests: Annotated[WholeNumber, Field(ge=1, le=INT32)] = Field(
        100,
        description="a whole number of requests, at least 1, that a track has to have answered before it is judged",
        examples=["100"],
    )
    max_restarts: Annotated[WholeNumber, Field(ge=0, le=INT32)] = Field(
        0, description="a whole number of restarts that the canary's containers may have during a step", examples=["0"]
    )
    max_cpu_percent: Annotated[Number, Field(gt=0, le=1000)] | None = Field(
        None, description="percent of its CPU limit that a pod of the canary may use", examples=["90"]
    )
    max_memory_percent: Annotated[Number, Field(gt=0, le=100)] | None = Field(
        90.0,
        description="percent of its memory limit, at most 100, that a pod of the canary may use; null for no such gate",
        examples=["90"],
    )
    confidence: Annotated[Number, Field(ge=50, lt=100)] = Field(
        95.0, description="percent, from 50 to below 100: how sure a verdict has to be", examples=["95"]
    )
    queries: dict[ObjectName, QueryGate] = Field({}, description="a map from name to query, min and max")
    webhook_url: Annotated[str, StringConstraints(pattern=HTTP_URL, max_length=2000)] | None = Field(
        None,
        description="an HTTP URL that answers 200 to pass, 202 to wait, 409 to reject",
        examples=["https://gate.example/canary"],
    )


class RolloutSettings(Model):
    """How a release goes from 0 to promoted."""

    max_step: Annotated[WholeNumber, Field(ge=1, le=TOTAL_WEIGHT)] = Field(
        50,
        description=f"a whole number of percent points from 1 to {TOTAL_WEIGHT} by which one update may raise a weight",
        examples=["50"],
    )
    steps: Annotated[tuple[Weight, ...], Field(min_length=1)] = Field(
        (5, 20, 50, 100),
        description=f"a list of weights from 1 to {TOTAL_WEIGHT}, each above the one before by at most maxStep",
    )
    step_seconds: Seconds = Field(900, description=SECONDS_RULE, examples=["900"])
    sample_seconds: Annotated[WholeNumber, Field(ge=1, le=3600)] = Field(
        60, description="a whole number of seconds, 1 to 3600, at most stepSeconds", examples=["60"]
    )
    hold_seconds: Annotated[WholeNumber, Field(ge=0, le=INT32)] = Field(
        3600, description="a whole number of seconds, 0 for no hold at all", examples=["3600"]
    )
    order: Literal["lockstep", "sequential"] = Field(
        "lockstep", description="one of lockstep, sequential", examples=["lockstep"]
    )
    approvals: tuple[Weight, ...] = Field(
        (), description="a list of weights of steps, after each of which a person has to approve"
    )
    prometheus_url: Annotated[str, StringConstraints(pattern=HTTP_URL, max_length=2000)] | None = Field(
        None, description="an HTTP URL", examples=["http://prometheus.monitoring:9090"]
    )
    webhook_url: Annotated[str, StringConstraints(pattern=HTTP_URL, max_length=2000)] | None = Field(
        None, description="an HTTP URL", examples=["https://hooks.example/canary"]
    )
    gates: GateSettings = Field(GateSettings(), description="limits for a canary beside stable")


class MonitoringSettings(Model):
    """What is deployed to watch the services."""

    enabled: Flag = Field(default=True, description="true or false", examples=["true"])
    source: SourceName = Field(
        "application", description="one of " + ", ".join(get_args(SourceName)), examples=["application"]
    )
    metrics_port: Annotated[str, StringConstraints(pattern=PORT_NAME, max_length=15)] = Field(
        "http", description="the name of a container port, at most 15 characters", examples=["http"]
    )
    metrics_path: Annotated[str, StringConstraints(pattern=METRICS_PATH)] = Field(
        "/metrics", description="an HTTP path that starts with /, without ? and #", examples=["/metrics"]
    )
    labels: FreeLabels = Field({}, description=LABELS_RULE)
    dashboard_labels: FreeLabels = Field({"grafana_dashboard": "1"}, description=LABELS_RULE)
    dashboard_title: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="a title of 1 to 200 characters", examples=["My services"]
    )
    objective: Annotated[Number, Field(ge=50, lt=100)] = Field(
        99.9,
        description="percent of a service's requests that are to succeed, from 50 to below 100",
        examples=["99.9"],
    )
    canary_max_age_hours: Annotated[WholeNumber, Field(ge=1, le=8760)] = Field(
        24, description="a whole number of hours from 1 to 8760", examples=["24"]
    )
    # Annotations of alerts are templates, in which braces have a meaning.
    runbook_url: Annotated[str, StringConstraints(pattern=r'^[!"$-z|~]+$', max_length=2000)] = Field(
        "docs/runbook.md",
        description="where docs/runbook.md can be read, as a URL without # { }",
        examples=["https://wiki.example/runbook"],
    )


class RouterSettings(Model, ABC):
    """The keys of one router. A field of `Settings` that is named as the router holds them."""

    @abstractmethod
    def entries(self) -> tuple[Entry, ...]:
        """Return where requests come in; nothing where the router's own default holds."""


class GatewaySettings(RouterSettings):
    """The Gateway that HTTPRoutes are attached to; it belongs to the platform, not to the stack."""

    name: ObjectName = Field("gateway", description="the name of a Gateway", examples=["gateway"])
    namespace: Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=63)] | None = Field(
        None, description="the namespace of the Gateway (default: the stack's)", examples=["gateways"]
    )
    listener: ObjectName | None = Field(
        None, description="the name of one of its listeners (default: all)", examples=["https"]
    )

    def entries(self) -> tuple[Entry, ...]:
        """Return the Gateway, or its listener."""
        return (Entry(self.name, self.namespace, self.listener),)


class TraefikSettings(RouterSettings):
    """Where Traefik takes in requests."""

    entry_points: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")], ...] = Field(
        (), description="a list of names of entry points (default: those that Traefik has as defaults)"
    )

    def entries(self) -> tuple[Entry, ...]:
        """Return the entry points."""
        return tuple(map(Entry, self.entry_points))


class IstioSettings(RouterSettings):
    """The version of VirtualService, and the Gateways (networking.istio.io) by which requests come from outside."""

    api_version: Literal["v1", "v1beta1"] = Field(
        "v1", description="one of " + ", ".join(VERSIONS), examples=[VERSIONS[0]]
    )
    gateways: tuple[Annotated[str, StringConstraints(pattern=rf"^({LABEL}/)?{LABEL}(\.{LABEL})*$")], ...] = Field(
        (), description="a list of NAME or NAMESPACE/NAME (default: none; the mesh calls the Service by its name)"
    )

    def entries(self) -> tuple[Entry, ...]:
        """Return the Gateways."""
        places = (gateway.rpartition("/") for gateway in self.gateways)
        return tuple(Entry(gateway, namespace or None) for namespace, _, gateway in places)


class Settings(Model):
    """The configuration of a stack."""

    namespace: Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=63)] = Field(
        description="a namespace: lower-case letters, digits and '-', at most 63", examples=["macromind"]
    )
    create_namespace: Flag = Field(default=False, description="true or false", examples=["true"])
    host: Annotated[str, StringConstraints(pattern=HOST, max_length=253)] = Field(
        description="a host name in lower case", examples=["macromind.local"]
    )
    router: RouterName = Field("nginx", description="one of " + ", ".join(ROUTERS), examples=["nginx"])
    ingress_class_name: ObjectName = Field("nginx", description="the name of an IngressClass", examples=["nginx"])
    gateway: GatewaySettings = Field(GatewaySettings(), description="name, namespace and listener")
    traefik: TraefikSettings = Field(TraefikSettings(), description="entryPoints")
    istio: IstioSettings = Field(IstioSettings(), description="apiVersion and gateways")
    tls_secret_name: Annotated[ObjectName | None, BeforeValidator(absent_when_empty)] = Field(
        None, description="the name of a TLS Secret for the host", examples=["macromind-tls"]
    )
    canary_weight: Weight = Field(0, description=WEIGHT_RULE, examples=["20"])
    rollout: RolloutSettings = Field(RolloutSettings(), description="maxStep, steps, gates and more")
    monitoring: MonitoringSettings = Field(MonitoringSettings(), description="what is deployed to watch the services")
    services: dict[ServiceName, ServiceSettings] = Field(
        min_length=1,
        description=f"a map from service name (a lower-case letter, then letters, digits and '-', at most "
        f"{SERVICE_NAME_LENGTH}) to its settings",
    )

    def tracks_of(self, name: str) -> tuple[Track, ...]:
        """Return the tracks of this service that are ours to make: an existing stable belongs to something else."""
        service = self.services[name]
        stable = (Track.STABLE,) if service.stable == "managed" else ()
        return (*stable, Track.CANARY) if service.canary else stable

    def app_label_of(self, name: str, track: Track) -> str:
        """Return the `app` label of a track's pods.

        A canary beside an existing stable has one of its own: that Service selects `app` alone and would take the
        canary's pods for stable ones.
        """
        apart = track is Track.CANARY and self.services[name].stable == "existing"
        return f"{name}-canary" if apart else name

    def image_of(self, name: str, track: Track) -> str | None:
        """Return the image that a track of this service runs; without a canary, stable's.

        None is an existing stable of which no image was declared.
        """
        service = self.services[name]
        return service.canary.image if service.canary and track is Track.CANARY else service.image

    def config_of(self, name: str, track: Track) -> dict[str, str]:
        """Return the content of a track's ConfigMap: stable's, and for the canary its differences merged by key."""
        service = self.services[name]
        return _merged_data(service.config_map, service.canary.config_map if service.canary else None, track)

    def secret_of(self, name: str, track: Track) -> dict[str, str]:
        """Return the content of a track's Secret, in plain text, by the same rule."""
        service = self.services[name]
        return _merged_data(service.secret, service.canary.secret if service.canary else None, track)

    def canary_weight_of(self, name: str) -> tuple[int, str]:
        """Return the percent that the canary of this service gets, and the configuration key that says so."""
        canary = self.services[name].canary
        if canary is None or canary.weight is None:
            return self.canary_weight, "canaryWeight"
        return canary.weight, f"services.{name}.canary.weight"

    def mirror_of(self, name: str) -> int:
        """Return the percent of the requests of which the canary of this service gets a copy: none above weight 0."""
        canary, (weight, _) = self.services[name].canary, self.canary_weight_of(name)
        return canary.mirror_percent if canary and not weight else 0

    def replicas_of(self, name: str, track: Track) -> int:
        """Return the pods of a track; with autoscaling, the fewest it may have.

        The canary's are as declared, else stable's number times its weight, or the part that is mirrored to it, rounded
        up, at least 1.
        """
        service = self.services[name]
        stable = service.autoscaling.min_replicas if service.autoscaling else service.replicas
        if track is Track.STABLE:
            return stable
        if service.canary and service.canary.replicas is not None:
            return service.canary.replicas
        weight, _ = self.canary_weight_of(name)
        return max(1, math.ceil(stable * (weight or self.mirror_of(name)) / TOTAL_WEIGHT))

    def canary_replicas_of(self, name: str) -> int:
        """Return the pods of the canary."""
        return self.replicas_of(name, Track.CANARY)

    def service_port_of(self, name: str) -> int:
        """Return the port that the Services of a service offer, and that its routes lead to."""
        service = self.services[name]
        return service.service_port or service.port

    def router_of_stack(self) -> Router:
        """Return the router that carries out the splits of this stack."""
        return Istio(self.istio.api_version) if self.router == Istio.name else ROUTERS[self.router]

    def _entries(self) -> tuple[Entry, ...]:
        if self.router == Nginx.name:
            return (Entry(self.ingress_class_name),)
        own = getattr(self, self.router) if self.router in ROUTERS_WITH_KEYS else None
        return own.entries() if own else ()

    @property
    def in_mesh(self) -> bool:
        """Whether requests come from clients of a mesh, which call a Service by its name."""
        return Feature.MESH in self.router_of_stack().features and not self._entries()

    def _match_of(self, name: str) -> Match:
        if self.in_mesh:
            return Match(name, "/")
        service = self.services[name]
        return Match(self.host, service.path, service.path_type)

    def split_of(self, name: str) -> Split:
        """Return how the requests of this service are shared."""
        service = self.services[name]
        canary = None
        if service.canary:
            weight, _ = self.canary_weight_of(name)
            header = service.canary.header
            canary = CanaryBackend(
                Backend(f"{name}-canary", self.service_port_of(name)),
                weight,
                Header(header.name, header.value) if header else None,
                service.canary.cookie,
                self.mirror_of(name),
            )
        affinity = service.session_affinity
        return Split(
            name=name,
            namespace=self.namespace,
            match=self._match_of(name),
            stable=Backend(name, self.service_port_of(name)),
            canary=canary,
            entries=self._entries(),
            tls_secret=self.tls_secret_name,
            annotations=service.annotations,
            affinity=SessionAffinity(affinity.cookie_name, affinity.max_age_seconds, affinity.canary_behavior)
            if affinity
            else None,
        )


def _merged_data(stable: Configuration | None, canary: Configuration | None, track: Track) -> dict[str, str]:
    differences = canary.data if canary and track is Track.CANARY else {}
    return (stable.data if stable else {}) | differences


ROUTERS_WITH_KEYS: Final = tuple(name for name in ROUTERS if name in Settings.model_fields)
"""Routers that have keys of their own, under their name."""
