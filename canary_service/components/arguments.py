"""The inputs of the components, as Pulumi reads them. Written by components/generate.py."""

from typing import Any, NotRequired, TypedDict

from pulumi import Input


class Gateway(TypedDict):
    """The Gateway that HTTPRoutes are attached to; it belongs to the platform, not to the stack."""

    name: NotRequired[Input[str]]
    """The name of a Gateway. Default: gateway."""

    namespace: NotRequired[Input[str]]
    """The namespace of the Gateway (default: the stack's)."""

    listener: NotRequired[Input[str]]
    """The name of one of its listeners (default: all)."""


class Traefik(TypedDict):
    """Where Traefik takes in requests."""

    entryPoints: NotRequired[Input[list[Input[str]]]]
    """A list of names of entry points (default: those that Traefik has as defaults)."""


class Istio(TypedDict):
    """The version of VirtualService, and the Gateways (networking.istio.io) by which requests come from outside."""

    apiVersion: NotRequired[Input[str]]
    """One of v1, v1beta1. Default: v1."""

    gateways: NotRequired[Input[list[Input[str]]]]
    """A list of NAME or NAMESPACE/NAME (default: none; the mesh calls the Service by its name)."""


class Gate(TypedDict):
    """When a canary is worse than stable; alerts and the driver's gates have these limits in common. Percent of
    requests and percent points, except where a field says otherwise.
    """

    errorRateDifference: NotRequired[Input[float]]
    """Percent points, above 0 and below 100, by which more of the canary's requests may fail than of stable's. Default:
    5.0.
    """

    latencyRatio: NotRequired[Input[float]]
    """A number from 1 to 100: how many times stable's 95th percentile the canary's may be. Default: 1.5."""

    latencyDifferenceMilliseconds: NotRequired[Input[int]]
    """A whole number of milliseconds by which the canary's 95th percentile may be above stable's, whatever the ratio.
    Default: 25.
    """

    weightDifference: NotRequired[Input[float]]
    """Percent points, above 0 and below 100, between the declared weight and the measured share. Default: 5.0."""

    minRequests: NotRequired[Input[int]]
    """A whole number of requests, at least 1, that a track has to have answered before it is judged. Default: 100."""


class Rollout(TypedDict):
    """How a release goes from 0 to promoted."""

    maxStep: NotRequired[Input[int]]
    """A whole number of percent points from 1 to 100 by which one update may raise a weight. Default: 50."""

    gates: NotRequired[Input[Gate]]
    """Limits for a canary beside stable."""


class Monitoring(TypedDict):
    """What is deployed to watch the services."""

    enabled: NotRequired[Input[bool]]
    """True or false. Default: true."""

    source: NotRequired[Input[str]]
    """One of application, nginx, traefik, istio, linkerd, envoy, consul. Default: application."""

    metricsPort: NotRequired[Input[str]]
    """The name of a container port, at most 15 characters. Default: http."""

    metricsPath: NotRequired[Input[str]]
    """An HTTP path that starts with /, without ? and #. Default: /metrics."""

    labels: NotRequired[Input[dict[str, Input[str]]]]
    """A map from label to value: letters, digits, '-', '_' and '.', at most 63; a label may have a prefix/, and is not
    app.kubernetes.io/instance.
    """

    dashboardLabels: NotRequired[Input[dict[str, Input[str]]]]
    """A map from label to value: letters, digits, '-', '_' and '.', at most 63; a label may have a prefix/, and is not
    app.kubernetes.io/instance.
    """

    dashboardTitle: NotRequired[Input[str]]
    """A title of 1 to 200 characters."""

    objective: NotRequired[Input[float]]
    """Percent of a service's requests that are to succeed, from 50 to below 100. Default: 99.9."""

    canaryMaxAgeHours: NotRequired[Input[int]]
    """A whole number of hours from 1 to 8760. Default: 24."""

    runbookUrl: NotRequired[Input[str]]
    """Where docs/runbook.md can be read, as a URL without # { }. Default: docs/runbook.md."""


class CanaryHeader(TypedDict):
    """A request header that sends its requests to the canary."""

    name: Input[str]
    """The name of a request header."""

    value: Input[str]
    """The exact value of the header."""


class Configuration(TypedDict):
    """Content of a ConfigMap or Secret."""

    data: Input[dict[str, Input[str]]]
    """A map, not empty, from key (letters, digits, '-', '_', '.', at most 253) to text."""


class Canary(TypedDict):
    """The version on trial; env, configMap and secret hold the differences from stable only."""

    image: Input[str]
    """An image reference such as registry.example/team/app:1.4.2."""

    replicas: NotRequired[Input[int]]
    """A whole number of pods, at least 1."""

    weight: NotRequired[Input[int]]
    """A whole number of percent from 0 to 100."""

    header: NotRequired[Input[CanaryHeader]]
    """A header's name and value."""

    cookie: NotRequired[Input[str]]
    """The name of a cookie, of letters, digits, '_' and '-'."""

    mirrorPercent: NotRequired[Input[int]]
    """A whole number of percent from 0 to 100. Default: 0."""

    replaces: NotRequired[Input[str]]
    """The image of the running canary that may be replaced while it has traffic."""

    env: NotRequired[Input[dict[str, Input[str]]]]
    """A map from environment variable name to value."""

    configMap: NotRequired[Input[Configuration]]
    """Data that differs from stable's."""

    secret: NotRequired[Input[Configuration]]
    """Data that differs from stable's."""


class ObjectReference(TypedDict):
    """Names a ConfigMap or Secret in the same namespace."""

    name: Input[str]
    """The name of an object."""


class EnvFrom(TypedDict):
    """Takes all of a ConfigMap or Secret as environment variables."""

    configMapRef: NotRequired[Input[ObjectReference]]
    """The name of a ConfigMap."""

    secretRef: NotRequired[Input[ObjectReference]]
    """The name of a Secret."""


class MountedConfiguration(TypedDict):
    """The same, and where pods find it: as files in a folder, or without one as environment variables."""

    data: Input[dict[str, Input[str]]]
    """A map, not empty, from key (letters, digits, '-', '_', '.', at most 253) to text."""

    mountPath: NotRequired[Input[str]]
    """An absolute path of letters, digits, '.', '_', '-'."""


class Autoscaling(TypedDict):
    """How many pods each track has when their number follows the load."""

    minReplicas: Input[int]
    """A whole number of pods, at least 1."""

    maxReplicas: Input[int]
    """A whole number of pods, at least minReplicas."""

    targetCpuPercent: NotRequired[Input[int]]
    """A whole number of percent of the CPU request, from 1 to 1000. Default: 80."""


class DisruptionBudget(TypedDict):
    """How many pods of a track may be evicted at a time. Only this form: a minimum could block every eviction."""

    maxUnavailable: Input[str]
    """A whole number of pods, at least 1, or a percent from 1% to 100%."""


class SessionAffinity(TypedDict):
    """A cookie of the router that keeps a client on its pod."""

    cookieName: Input[str]
    """The name of a cookie, of letters, digits, '_' and '-'."""

    maxAgeSeconds: NotRequired[Input[int]]
    """A whole number of seconds, 1 to 2147483647."""

    canaryBehavior: NotRequired[Input[str]]
    """One of sticky, legacy. Default: sticky."""


class Probe(TypedDict):
    """How the kubelet asks a pod. Without a path it only connects to the port. Times are seconds."""

    path: NotRequired[Input[str]]
    """An HTTP path that starts with /."""

    initialDelaySeconds: NotRequired[Input[int]]
    """A whole number of seconds, at least 0. Default: 0."""

    periodSeconds: NotRequired[Input[int]]
    """A whole number of seconds, 1 to 2147483647. Default: 5."""

    timeoutSeconds: NotRequired[Input[int]]
    """A whole number of seconds, 1 to 2147483647. Default: 2."""

    failureThreshold: NotRequired[Input[int]]
    """A whole number of failures, at least 1. Default: 3."""


class Probes(TypedDict):
    """Readiness decides whether a pod gets requests, liveness whether it is restarted."""

    readiness: NotRequired[Input[Probe]]
    """A probe."""

    liveness: NotRequired[Input[Probe]]
    """A probe."""


class Resources(TypedDict):
    """Compute resources of one pod, as Kubernetes quantities. No CPU limit by default: throttling costs latency, and
    the request already keeps the share.
    """

    requests: NotRequired[Input[dict[str, Input[str]]]]
    """A map from resource to quantity."""

    limits: NotRequired[Input[dict[str, Input[str]]]]
    """A map from resource to quantity."""


class Service(TypedDict):
    """One service: where its requests come in, what runs, and what is on trial."""

    path: Input[str]
    """A path that starts with /, of letters, digits, '.', '_', '-'."""

    pathType: NotRequired[Input[str]]
    """One of Prefix, Exact, ImplementationSpecific. Default: Prefix."""

    port: Input[int]
    """A port from 1 to 65535, on which the container listens."""

    servicePort: NotRequired[Input[int]]
    """A port from 1 to 65535, which the Service offers (default: port)."""

    portName: NotRequired[Input[str]]
    """A lower-case letter, then letters, digits and single '-', at most 15."""

    replicas: NotRequired[Input[int]]
    """A whole number of pods, at least 1 (stable must be able to take everything back). Default: 2."""

    stable: NotRequired[Input[str]]
    """Managed, or existing when something else owns stable's Deployment, Service and Ingress. Default: managed."""

    image: NotRequired[Input[str]]
    """An image reference such as registry.example/team/app:1.4.2."""

    canary: NotRequired[Input[Canary]]
    """The canary's settings; without a canary, the key is absent."""

    env: NotRequired[Input[dict[str, Input[str]]]]
    """A map from environment variable name to value."""

    envFrom: NotRequired[Input[list[Input[EnvFrom]]]]
    """A list, each entry with exactly one of configMapRef and secretRef."""

    configMap: NotRequired[Input[MountedConfiguration]]
    """Data and, for files, mountPath."""

    secret: NotRequired[Input[MountedConfiguration]]
    """Data and, for files, mountPath."""

    autoscaling: NotRequired[Input[Autoscaling]]
    """MinReplicas, maxReplicas (at least as many) and targetCpuPercent."""

    disruptionBudget: NotRequired[Input[DisruptionBudget]]
    """MaxUnavailable."""

    sessionAffinity: NotRequired[Input[SessionAffinity]]
    """CookieName, maxAgeSeconds and canaryBehavior."""

    minReadySeconds: NotRequired[Input[int]]
    """A whole number of seconds, 0 to 3600. Default: 3."""

    readyTimeoutSeconds: NotRequired[Input[int]]
    """A whole number of seconds, 1 to 2147483647. Default: 300."""

    probes: NotRequired[Input[Probes]]
    """Readiness and liveness probes."""

    resources: NotRequired[Input[Resources]]
    """Requests and limits, no request above its limit."""

    drainSeconds: NotRequired[Input[int]]
    """A whole number of seconds from 0 to 300 for which a pod serves on when it is told to end. Default: 10."""

    serviceAccountName: NotRequired[Input[str]]
    """The name of a service account, whose token is then mounted."""

    imagePullSecrets: NotRequired[Input[list[Input[str]]]]
    """A list of Secret names."""

    nodeSelector: NotRequired[Input[dict[str, Input[str]]]]
    """A map from node label to value."""

    annotations: NotRequired[Input[dict[str, Input[str]]]]
    """A map of annotations for the Ingress, except nginx.ingress.kubernetes.io/canary*,
    nginx.ingress.kubernetes.io/affinity, nginx.ingress.kubernetes.io/affinity-canary-behavior,
    nginx.ingress.kubernetes.io/session-cookie-name, nginx.ingress.kubernetes.io/session-cookie-max-age,
    nginx.ingress.kubernetes.io/session-cookie-path, kubernetes.io/ingress.class, pulumi.com/*, canary-service/*.
    """

    podTemplatePatch: NotRequired[Input[dict[str, Any]]]
    """A map of metadata and spec that is merged into the pod template; it keeps the labels app and version, and
    containers have a name.
    """


class CanaryServiceInputs(TypedDict):
    """What a CanaryService is made of."""

    namespace: Input[str]
    """A namespace: lower-case letters, digits and '-', at most 63."""

    host: Input[str]
    """A host name in lower case."""

    router: NotRequired[Input[str]]
    """One of nginx, gateway, traefik, istio, linkerd, consul. Default: nginx."""

    ingressClassName: NotRequired[Input[str]]
    """The name of an IngressClass. Default: nginx."""

    gateway: NotRequired[Input[Gateway]]
    """Name, namespace and listener."""

    traefik: NotRequired[Input[Traefik]]
    """EntryPoints."""

    istio: NotRequired[Input[Istio]]
    """ApiVersion and gateways."""

    tlsSecretName: NotRequired[Input[str]]
    """The name of a TLS Secret for the host."""

    path: Input[str]
    """A path that starts with /, of letters, digits, '.', '_', '-'."""

    pathType: NotRequired[Input[str]]
    """One of Prefix, Exact, ImplementationSpecific. Default: Prefix."""

    port: Input[int]
    """A port from 1 to 65535, on which the container listens."""

    servicePort: NotRequired[Input[int]]
    """A port from 1 to 65535, which the Service offers (default: port)."""

    portName: NotRequired[Input[str]]
    """A lower-case letter, then letters, digits and single '-', at most 15."""

    replicas: NotRequired[Input[int]]
    """A whole number of pods, at least 1 (stable must be able to take everything back). Default: 2."""

    stable: NotRequired[Input[str]]
    """Managed, or existing when something else owns stable's Deployment, Service and Ingress. Default: managed."""

    image: NotRequired[Input[str]]
    """An image reference such as registry.example/team/app:1.4.2."""

    canary: NotRequired[Input[Canary]]
    """The canary's settings; without a canary, the key is absent."""

    env: NotRequired[Input[dict[str, Input[str]]]]
    """A map from environment variable name to value."""

    envFrom: NotRequired[Input[list[Input[EnvFrom]]]]
    """A list, each entry with exactly one of configMapRef and secretRef."""

    configMap: NotRequired[Input[MountedConfiguration]]
    """Data and, for files, mountPath."""

    secret: NotRequired[Input[MountedConfiguration]]
    """Data and, for files, mountPath."""

    autoscaling: NotRequired[Input[Autoscaling]]
    """MinReplicas, maxReplicas (at least as many) and targetCpuPercent."""

    disruptionBudget: NotRequired[Input[DisruptionBudget]]
    """MaxUnavailable."""

    sessionAffinity: NotRequired[Input[SessionAffinity]]
    """CookieName, maxAgeSeconds and canaryBehavior."""

    minReadySeconds: NotRequired[Input[int]]
    """A whole number of seconds, 0 to 3600. Default: 3."""

    readyTimeoutSeconds: NotRequired[Input[int]]
    """A whole number of seconds, 1 to 2147483647. Default: 300."""

    probes: NotRequired[Input[Probes]]
    """Readiness and liveness probes."""

    resources: NotRequired[Input[Resources]]
    """Requests and limits, no request above its limit."""

    drainSeconds: NotRequired[Input[int]]
    """A whole number of seconds from 0 to 300 for which a pod serves on when it is told to end. Default: 10."""

    serviceAccountName: NotRequired[Input[str]]
    """The name of a service account, whose token is then mounted."""

    imagePullSecrets: NotRequired[Input[list[Input[str]]]]
    """A list of Secret names."""

    nodeSelector: NotRequired[Input[dict[str, Input[str]]]]
    """A map from node label to value."""

    annotations: NotRequired[Input[dict[str, Input[str]]]]
    """A map of annotations for the Ingress, except nginx.ingress.kubernetes.io/canary*,
    nginx.ingress.kubernetes.io/affinity, nginx.ingress.kubernetes.io/affinity-canary-behavior,
    nginx.ingress.kubernetes.io/session-cookie-name, nginx.ingress.kubernetes.io/session-cookie-max-age,
    nginx.ingress.kubernetes.io/session-cookie-path, kubernetes.io/ingress.class, pulumi.com/*, canary-service/*.
    """

    podTemplatePatch: NotRequired[Input[dict[str, Any]]]
    """A map of metadata and spec that is merged into the pod template; it keeps the labels app and version, and
    containers have a name.
    """

    serviceName: NotRequired[Input[str]]
    """What the service and its objects are called: a lower-case letter, then letters, digits and '-'. Default: the name
    of the resource.
    """

    maxStep: NotRequired[Input[int]]
    """A whole number of percent points from 1 to 100 by which one update may raise a weight. Default: 50."""

    kubeconfig: NotRequired[Input[str]]
    """A kubeconfig, as its content or as the path of a file. Default: that of the stack's configuration
    (kubernetes:kubeconfig), else of the environment.
    """

    context: NotRequired[Input[str]]
    """The context in the kubeconfig. Default: that of the stack's configuration (kubernetes:context), else the current
    one.
    """


class CanaryStackInputs(TypedDict):
    """What a CanaryStack is made of."""

    namespace: Input[str]
    """A namespace: lower-case letters, digits and '-', at most 63."""

    createNamespace: NotRequired[Input[bool]]
    """True or false. Default: false."""

    host: Input[str]
    """A host name in lower case."""

    router: NotRequired[Input[str]]
    """One of nginx, gateway, traefik, istio, linkerd, consul. Default: nginx."""

    ingressClassName: NotRequired[Input[str]]
    """The name of an IngressClass. Default: nginx."""

    gateway: NotRequired[Input[Gateway]]
    """Name, namespace and listener."""

    traefik: NotRequired[Input[Traefik]]
    """EntryPoints."""

    istio: NotRequired[Input[Istio]]
    """ApiVersion and gateways."""

    tlsSecretName: NotRequired[Input[str]]
    """The name of a TLS Secret for the host."""

    canaryWeight: NotRequired[Input[int]]
    """A whole number of percent from 0 to 100. Default: 0."""

    rollout: NotRequired[Input[Rollout]]
    """MaxStep, steps, gates and more."""

    monitoring: NotRequired[Input[Monitoring]]
    """What is deployed to watch the services."""

    services: Input[dict[str, Input[Service]]]
    """A map from service name (a lower-case letter, then letters, digits and '-', at most 56) to its settings."""

    kubeconfig: NotRequired[Input[str]]
    """A kubeconfig, as its content or as the path of a file. Default: that of the stack's configuration
    (kubernetes:kubeconfig), else of the environment.
    """

    context: NotRequired[Input[str]]
    """The context in the kubeconfig. Default: that of the stack's configuration (kubernetes:context), else the current
    one.
    """
