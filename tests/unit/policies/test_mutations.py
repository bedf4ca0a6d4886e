"""Each mutation of a valid stack gives exactly the findings it should, and no others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from canary_policies.catalog import RULES
from canary_policies.objects import UNKNOWN
from tests.unit.policies import samples
from tests.unit.policies.samples import (
    CANARY,
    COOKIE,
    DIGEST,
    HEADER,
    PATTERN,
    POD_KINDS,
    REMOVED,
    SERVING_KINDS,
    TOTAL,
    VALUE,
    WEIGHT,
    changed,
    findings,
    manifest,
    valid,
)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Mutation:
    """A change of one manifest, and which rules it breaks: `rule`, or `rule: Kind name` when another object does."""

    name: str
    of: str
    changes: Sequence[tuple[Path, Any]]
    broken: Sequence[str] = ()

    @property
    def expected(self) -> list[str]:
        return sorted(rule if ": " in rule else f"{rule}: {self.of}" for rule in self.broken)


CONTAINER: Path = ("spec", "containers", 0)
SECURITY: Path = (*CONTAINER, "securityContext")
POD_SECURITY: Path = ("spec", "securityContext")
INIT = {"name": "migrate", "image": samples.IMAGE, "resources": samples.container()["resources"]}
PRIVILEGED = samples.container() | {"securityContext": samples.container()["securityContext"] | {"privileged": True}}
SAFE_INIT = INIT | {"securityContext": samples.container()["securityContext"]}


def env(name: str, value: object) -> tuple[Path, Any]:
    return (*CONTAINER, "env", "+"), {"name": name, "value": value}


def image(reference: object) -> tuple[Path, Any]:
    return (*CONTAINER, "image"), reference


# Paths begin at the pod's template; each is applied to every kind that has pods.
PODS: Sequence[tuple[str, Sequence[tuple[Path, Any]], Sequence[str]]] = (
    ("another tag", [image(f"registry.example/shop/web:2.0{DIGEST}")], ()),
    ("digest alone", [image(f"registry.example/shop/web{DIGEST}")], ()),
    ("tag latest with digest", [image(f"registry.example/shop/web:latest{DIGEST}")], ()),
    ("tag without digest", [image("registry.example/shop/web:2.0")], ["image-digest"]),
    ("tag latest", [image("registry.example/shop/web:latest")], ["image-pinned", "image-digest"]),
    ("no tag", [image("registry.example/shop/web")], ["image-pinned", "image-digest"]),
    (
        "registry with port, no tag",
        [image("registry.example:5000/web")],
        ["image-pinned", "image-digest", "image-registry"],
    ),
    ("image absent", [image(REMOVED)], ["image-pinned"]),
    ("image null", [image(None)], ["image-pinned"]),
    ("image empty", [image("")], ["image-pinned"]),
    ("image unknown", [image(UNKNOWN)], ()),
    ("image of wrong type", [image(["nginx"])], ["image-pinned"]),
    ("image of Docker Hub", [image(f"nginx:1.29{DIGEST}")], ["image-registry"]),
    ("image of another folder", [image(f"registry.example/other/web:1{DIGEST}")], ["image-registry"]),
    ("image of a folder that begins alike", [image(f"registry.example/shopping/web:1{DIGEST}")], ["image-registry"]),
    ("image of a registry that begins alike", [image(f"registry.example.org/shop/web:1{DIGEST}")], ["image-registry"]),
    ("digest empty", [image("registry.example/shop/web@")], ["image-pinned", "image-digest"]),
    ("digest without value", [image("registry.example/shop/web@sha256:")], ["image-pinned", "image-digest"]),
    ("digest of MD5", [image("registry.example/shop/web:1@md5:x")], ["image-pinned", "image-digest"]),
    (
        "volume of a moving image from elsewhere",
        [(("spec", "volumes"), [{"name": "a", "image": {"reference": "evil.example/x:latest"}}])],
        ["image-pinned", "image-digest", "image-registry"],
    ),
    ("volume of an image", [(("spec", "volumes"), [{"name": "a", "image": {"reference": samples.IMAGE}}])], ()),
    ("volume of an unknown image", [(("spec", "volumes"), [{"name": "a", "image": UNKNOWN}])], ()),
    ("SELinux type spc_t", [((*POD_SECURITY, "seLinuxOptions"), {"type": "spc_t"})], ["restricted-pods"]),
    ("SELinux type of the container", [((*SECURITY, "seLinuxOptions"), {"type": "spc_t"})], ["restricted-pods"]),
    ("SELinux user", [((*SECURITY, "seLinuxOptions"), {"user": "system_u"})], ["restricted-pods"]),
    ("SELinux role", [((*POD_SECURITY, "seLinuxOptions"), {"role": "system_r"})], ["restricted-pods"]),
    ("SELinux type container_t", [((*SECURITY, "seLinuxOptions"), {"type": "container_t", "level": "s0"})], ()),
    ("AppArmor Unconfined", [((*POD_SECURITY, "appArmorProfile"), {"type": "Unconfined"})], ["restricted-pods"]),
    (
        "AppArmor Unconfined in the container",
        [((*SECURITY, "appArmorProfile"), {"type": "Unconfined"})],
        ["restricted-pods"],
    ),
    ("AppArmor RuntimeDefault", [((*POD_SECURITY, "appArmorProfile"), {"type": "RuntimeDefault"})], ()),
    ("sysctl of the node", [((*POD_SECURITY, "sysctls"), [{"name": "kernel.msgmax"}])], ["restricted-pods"]),
    ("safe sysctl", [((*POD_SECURITY, "sysctls"), [{"name": "net.ipv4.tcp_syncookies"}])], ()),
    ("sysctl unknown", [((*POD_SECURITY, "sysctls"), UNKNOWN)], ()),
    (
        "probe of another host",
        [((*CONTAINER, "readinessProbe", "httpGet", "host"), "169.254.169.254")],
        ["restricted-pods"],
    ),
    (
        "hook that calls another host",
        [((*CONTAINER, "lifecycle", "postStart"), {"httpGet": {"host": "169.254.169.254"}})],
        ["restricted-pods"],
    ),
    ("no CPU request", [((*CONTAINER, "resources", "requests", "cpu"), REMOVED)], ["container-resources"]),
    ("no memory request", [((*CONTAINER, "resources", "requests", "memory"), None)], ["container-resources"]),
    ("no memory limit", [((*CONTAINER, "resources", "limits"), REMOVED)], ["container-resources"]),
    ("resources absent", [((*CONTAINER, "resources"), REMOVED)], ["container-resources"]),
    ("resources null", [((*CONTAINER, "resources"), None)], ["container-resources"]),
    ("resources a list", [((*CONTAINER, "resources"), ["100m"])], ["container-resources"]),
    ("resources unknown", [((*CONTAINER, "resources"), UNKNOWN)], ()),
    ("CPU request a number", [((*CONTAINER, "resources", "requests", "cpu"), 1)], ()),
    ("requests unknown, limits absent", [((*CONTAINER, "resources"), {"requests": UNKNOWN})], ["container-resources"]),
    (
        "resources of the pod instead",
        [((*CONTAINER, "resources"), REMOVED), (("spec", "resources"), samples.container()["resources"])],
        (),
    ),
    ("runAsNonRoot absent", [((*POD_SECURITY, "runAsNonRoot"), REMOVED)], ["restricted-pods"]),
    ("runAsNonRoot false", [((*POD_SECURITY, "runAsNonRoot"), False)], ["restricted-pods"]),
    ("runAsNonRoot false in the container", [((*SECURITY, "runAsNonRoot"), False)], ["restricted-pods"]),
    ("runAsNonRoot unknown", [((*POD_SECURITY, "runAsNonRoot"), UNKNOWN)], ()),
    ("user 0", [((*SECURITY, "runAsUser"), 0)], ["restricted-pods"]),
    ("user 0 for the pod", [((*POD_SECURITY, "runAsUser"), 0)], ["restricted-pods"]),
    ("user 1000", [((*POD_SECURITY, "runAsUser"), 1000)], ()),
    ("seccomp absent", [((*POD_SECURITY, "seccompProfile"), REMOVED)], ["restricted-pods"]),
    ("seccomp Unconfined", [((*POD_SECURITY, "seccompProfile", "type"), "Unconfined")], ["restricted-pods"]),
    ("seccomp Localhost", [((*SECURITY, "seccompProfile"), {"type": "Localhost", "localhostProfile": "a"})], ()),
    ("security of pod unknown", [(POD_SECURITY, UNKNOWN)], ()),
    (
        "security of pod unknown, of container absent",
        [(POD_SECURITY, UNKNOWN), (SECURITY, REMOVED)],
        ["restricted-pods"],
    ),
    ("security of container null", [(SECURITY, None)], ["restricted-pods"]),
    ("security of container unknown", [(SECURITY, UNKNOWN)], ()),
    ("escalation allowed", [((*SECURITY, "allowPrivilegeEscalation"), True)], ["restricted-pods"]),
    ("escalation not forbidden", [((*SECURITY, "allowPrivilegeEscalation"), REMOVED)], ["restricted-pods"]),
    ("capabilities kept", [((*SECURITY, "capabilities"), REMOVED)], ["restricted-pods"]),
    ("one capability dropped", [((*SECURITY, "capabilities", "drop"), ["NET_RAW"])], ["restricted-pods"]),
    ("capability dropped unknown", [((*SECURITY, "capabilities", "drop"), [UNKNOWN])], ()),
    ("capability SYS_ADMIN", [((*SECURITY, "capabilities", "add"), ["SYS_ADMIN"])], ["restricted-pods"]),
    ("capability NET_BIND_SERVICE", [((*SECURITY, "capabilities", "add"), ["NET_BIND_SERVICE"])], ()),
    ("unmasked /proc", [((*SECURITY, "procMount"), "Unmasked")], ["restricted-pods"]),
    ("volume of the node", [(("spec", "volumes"), [{"name": "a", "hostPath": {"path": "/"}}])], ["restricted-pods"]),
    ("volume over NFS", [(("spec", "volumes"), [{"name": "a", "nfs": {"server": "a"}}])], ["restricted-pods"]),
    ("volume of a Secret", [(("spec", "volumes"), [{"name": "a", "secret": {"secretName": "a"}}])], ()),
    (
        "Windows pod without Linux fields",
        [(("spec", "os"), {"name": "windows"}), (SECURITY, REMOVED), ((*POD_SECURITY, "seccompProfile"), REMOVED)],
        (),
    ),
    ("privileged", [((*SECURITY, "privileged"), True)], ["no-privilege"]),
    ("privileged unknown", [((*SECURITY, "privileged"), UNKNOWN)], ()),
    ("Windows host process", [((*SECURITY, "windowsOptions"), {"hostProcess": True})], ["no-privilege"]),
    (
        "Windows host process for the pod",
        [((*POD_SECURITY, "windowsOptions"), {"hostProcess": True})],
        ["no-privilege"],
    ),
    ("host network", [(("spec", "hostNetwork"), True)], ["no-host-namespaces"]),
    ("host PID", [(("spec", "hostPID"), True)], ["no-host-namespaces"]),
    ("host IPC", [(("spec", "hostIPC"), True)], ["no-host-namespaces"]),
    ("host network false", [(("spec", "hostNetwork"), False)], ()),
    ("host port", [((*CONTAINER, "ports", 0, "hostPort"), 8080)], ["no-host-namespaces"]),
    ("host port 0", [((*CONTAINER, "ports", 0, "hostPort"), 0)], ()),
    ("password in env", [env("DB_PASSWORD", "hunter22")], ["no-plain-secrets"]),
    (
        "password from a Secret",
        [((*CONTAINER, "env", "+"), {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {}}})],
        (),
    ),
    ("password unknown", [env("DB_PASSWORD", UNKNOWN)], ()),
    ("password null", [env("DB_PASSWORD", None)], ()),
    ("password that is a number", [env("DB_PASSWORD", 12345678)], ["no-plain-secrets"]),
    ("URL with password", [env("DATABASE_URL", "postgres://app:hunter22@db/app")], ["no-plain-secrets"]),
    ("random value", [env("SEED", "q8Zr2Lw9Xk4Tn7Bv1Yc6Hd3M")], ["no-plain-secrets"]),
    ("password among the arguments", [((*CONTAINER, "args"), ["-v", "--password=hunter22"])], ["no-plain-secrets"]),
    (
        "script that reads a password",
        [((*CONTAINER, "command"), ["sh", "-c", "PASSWORD=$(cat /run/p) TOKEN=`cat /run/t` exec web"])],
        (),
    ),
    ("arguments unknown", [((*CONTAINER, "args"), UNKNOWN)], ()),
    ("env unknown", [((*CONTAINER, "env"), UNKNOWN)], ()),
    ("env a map", [((*CONTAINER, "env"), {"DB_PASSWORD": "hunter22"})], ()),
    ("init container like the others", [(("spec", "initContainers"), [SAFE_INIT])], ()),
    ("init container unrestricted", [(("spec", "initContainers"), [INIT])], ["restricted-pods"]),
    (
        "init container of latest",
        [(("spec", "initContainers"), [SAFE_INIT | {"image": "registry.example/shop/a:latest"}])],
        ["image-pinned", "image-digest"],
    ),
    (
        "init container with a secret",
        [(("spec", "initContainers"), [SAFE_INIT | {"env": [{"name": "API_TOKEN", "value": "hunter22"}]}])],
        ["no-plain-secrets"],
    ),
    ("second container privileged, first unknown", [(("spec", "containers"), [UNKNOWN, PRIVILEGED])], ["no-privilege"]),
    ("containers unknown", [(("spec", "containers"), UNKNOWN)], ()),
    ("containers a text", [(("spec", "containers"), "web")], ()),
    ("spec unknown", [(("spec",), UNKNOWN)], ()),
)

SERVING: Sequence[tuple[str, Sequence[tuple[Path, Any]], Sequence[str]]] = (
    ("no readiness probe", [((*CONTAINER, "readinessProbe"), REMOVED)], ["container-probes"]),
    ("readiness probe null", [((*CONTAINER, "readinessProbe"), None)], ["container-probes"]),
    ("readiness probe empty", [((*CONTAINER, "readinessProbe"), {})], ["container-probes"]),
    ("readiness probe unknown", [((*CONTAINER, "readinessProbe"), UNKNOWN)], ()),
    ("no liveness probe", [((*CONTAINER, "livenessProbe"), REMOVED)], ["container-probes"]),
    ("no drain", [((*CONTAINER, "lifecycle"), REMOVED)], ["drain-covers-router-sync"]),
    ("drain of 2 s", [((*CONTAINER, "lifecycle", "preStop", "sleep", "seconds"), 2)], ["drain-covers-router-sync"]),
    ("drain unknown", [((*CONTAINER, "lifecycle"), UNKNOWN)], ()),
    (
        "drain by a command",
        [((*CONTAINER, "lifecycle", "preStop"), {"exec": {"command": ["sh", "-c", "sleep 15"]}})],
        (),
    ),
    (
        "short drain by a command",
        [((*CONTAINER, "lifecycle", "preStop"), {"exec": {"command": ["sleep", "1"]}})],
        ["drain-covers-router-sync"],
    ),
    ("drain by the program itself", [((*CONTAINER, "lifecycle", "preStop"), {"httpGet": {"path": "/quit"}})], ()),
    ("killed while draining", [(("spec", "terminationGracePeriodSeconds"), 10)], ["drain-covers-router-sync"]),
    (
        "drain above the default grace",
        [
            ((*CONTAINER, "lifecycle", "preStop", "sleep", "seconds"), 30),
            (("spec", "terminationGracePeriodSeconds"), REMOVED),
        ],
        ["drain-covers-router-sync"],
    ),
    ("grace unknown", [(("spec", "terminationGracePeriodSeconds"), UNKNOWN)], ()),
    ("no ports, no drain", [((*CONTAINER, "ports"), REMOVED), ((*CONTAINER, "lifecycle"), REMOVED)], ()),
    ("pods without name", [(("metadata", "labels", "app.kubernetes.io/name"), REMOVED)], ["required-labels"]),
    ("pods' manager unknown", [(("metadata", "labels", "app.kubernetes.io/managed-by"), UNKNOWN)], ()),
)


def of_pods() -> Iterator[Mutation]:
    for kind, path in POD_KINDS.items():
        table = (*PODS, *(SERVING if kind in SERVING_KINDS else ()))
        for name, changes, broken in table:
            title = "Deployment web" if kind == "Deployment" else f"{kind} {kind.lower()}"
            moved = [((*path, *inside), value) for inside, value in changes]
            yield Mutation(f"{kind}: {name}", title, moved, broken)


ANNOTATIONS: Path = ("metadata", "annotations")
LABELS: Path = ("metadata", "labels")
PATHS: Path = ("spec", "rules", 0, "http", "paths")
BACKEND: Path = (*PATHS, 0, "backend", "service")
STABLE, CANARY_INGRESS = "Ingress web", "Ingress web-canary"


def noted(name: str, value: object) -> tuple[Path, Any]:
    return (*ANNOTATIONS, name), value


def canary(name: str, *changes: tuple[Path, Any], broken: Sequence[str] = ()) -> Mutation:
    return Mutation(f"canary Ingress: {name}", CANARY_INGRESS, changes, broken)


def second_path(service: object, port: int) -> samples.Manifest:
    return {"path": "/v2", "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": port}}}}


LOST = "canary-mirrors-stable"

INGRESSES = (
    canary("weight 0", noted(WEIGHT, "0")),
    canary("weight 50", noted(WEIGHT, "50")),
    canary("weight 51", noted(WEIGHT, "51"), broken=["max-weight"]),
    canary("weight 100", noted(WEIGHT, "100"), broken=["max-weight"]),
    canary("weight 101", noted(WEIGHT, "101"), broken=["ingress-canary-weight", "max-weight"]),
    canary("weight a number", noted(WEIGHT, 101), broken=["ingress-canary-weight", "max-weight"]),
    canary("weight -1", noted(WEIGHT, "-1"), broken=["ingress-canary-weight"]),
    canary("weight 20%", noted(WEIGHT, "20%"), broken=["ingress-canary-weight"]),
    canary("weight with blank", noted(WEIGHT, " 20"), broken=["ingress-canary-weight"]),
    canary("weight 20.5", noted(WEIGHT, "20.5"), broken=["ingress-canary-weight"]),
    canary("weight empty", noted(WEIGHT, ""), broken=["ingress-canary-weight"]),
    canary("weight unknown", noted(WEIGHT, UNKNOWN)),
    canary("weight absent", noted(WEIGHT, REMOVED)),
    canary("total 1000", noted(WEIGHT, "500"), noted(TOTAL, "1000")),
    canary("share above the limit of total 1000", noted(WEIGHT, "501"), noted(TOTAL, "1000"), broken=["max-weight"]),
    canary("total 10", noted(WEIGHT, "5"), noted(TOTAL, "10"), broken=["ingress-canary-weight"]),
    canary("total 0", noted(TOTAL, "0"), broken=["ingress-canary-weight"]),
    canary("total in words", noted(TOTAL, "many"), broken=["ingress-canary-weight"]),
    canary("total unknown", noted(WEIGHT, "500"), noted(TOTAL, UNKNOWN)),
    canary(
        "weight negative, total unknown", noted(WEIGHT, "-5"), noted(TOTAL, UNKNOWN), broken=["ingress-canary-weight"]
    ),
    canary("header value missing its header", noted(HEADER, REMOVED), broken=["ingress-canary-conditions"]),
    canary("header without value", noted(VALUE, REMOVED)),
    canary("header null", noted(HEADER, None), broken=["ingress-canary-conditions"]),
    canary("header unknown", noted(HEADER, UNKNOWN)),
    canary("header with underscore", noted(HEADER, "X_Canary"), broken=["ingress-canary-conditions"]),
    canary("header value with blank", noted(VALUE, "a b"), broken=["ingress-canary-conditions"]),
    canary("header value with comma", noted(VALUE, "a,b"), broken=["ingress-canary-conditions"]),
    canary("header value with colon", noted(VALUE, "a:b/c.d_e~f")),
    canary("pattern beside value", noted(PATTERN, "^a"), broken=["ingress-canary-conditions"]),
    canary("pattern instead of value", noted(VALUE, REMOVED), noted(PATTERN, "^(a|b)$")),
    canary(
        "pattern without header",
        noted(VALUE, REMOVED),
        noted(HEADER, REMOVED),
        noted(PATTERN, "^a"),
        broken=["ingress-canary-conditions"],
    ),
    canary("pattern that is none", noted(VALUE, REMOVED), noted(PATTERN, "^(a"), broken=["ingress-canary-conditions"]),
    canary("pattern with blank", noted(VALUE, REMOVED), noted(PATTERN, "a b"), broken=["ingress-canary-conditions"]),
    canary("cookie", noted(COOKIE, "canary_user")),
    canary("cookie with semicolon", noted(COOKIE, "a;b"), broken=["ingress-canary-conditions"]),
    canary("canary missing", noted(CANARY, REMOVED), broken=["ingress-canary-conditions", "max-weight"]),
    canary("canary false", noted(CANARY, "false"), broken=["ingress-canary-conditions", "max-weight"]),
    canary("canary yes", noted(CANARY, "yes"), broken=["ingress-canary-conditions", "max-weight"]),
    canary(
        "canary 1, which Traefik takes for false",
        noted(CANARY, "1"),
        broken=["ingress-canary-conditions", "max-weight"],
    ),
    canary("canary a boolean", noted(CANARY, value=True)),
    canary("canary unknown", noted(CANARY, UNKNOWN)),
    canary("annotations unknown", (ANNOTATIONS, UNKNOWN)),
    canary("annotations a list", (ANNOTATIONS, [WEIGHT]), broken=["max-weight"]),
    canary("another host", (("spec", "rules", 0, "host"), "www.shop.example"), broken=[LOST]),
    canary("no host", (("spec", "rules", 0, "host"), REMOVED), broken=[LOST]),
    canary("host unknown", (("spec", "rules", 0, "host"), UNKNOWN)),
    canary("another path", ((*PATHS, 0, "path"), "/api/"), broken=[LOST]),
    canary(
        "another path, host unknown",
        (("spec", "rules", 0, "host"), UNKNOWN),
        ((*PATHS, 0, "path"), "/v2"),
        broken=[LOST],
    ),
    canary("another pathType", ((*PATHS, 0, "pathType"), "Exact"), broken=[LOST]),
    canary("pathType absent", ((*PATHS, 0, "pathType"), REMOVED), broken=[LOST]),
    canary("another class", (("spec", "ingressClassName"), "internal"), broken=[LOST]),
    canary("no class", (("spec", "ingressClassName"), REMOVED)),
    canary("another namespace", (("metadata", "namespace"), "other"), broken=[LOST]),
    canary("namespace unknown", (("metadata", "namespace"), UNKNOWN)),
    canary("no rules", (("spec", "rules"), REMOVED), broken=[LOST]),
    canary("a rule without paths", (("spec", "rules", 0, "http"), REMOVED), broken=[LOST]),
    canary("rules unknown", (("spec", "rules"), UNKNOWN)),
    canary("a path that stable has not", ((*PATHS, "+"), second_path("web-canary", 80)), broken=[LOST]),
    canary("backend is the stable Service", ((*BACKEND, "name"), "web"), broken=["dedicated-services"]),
    canary("backend unknown", ((*BACKEND, "name"), UNKNOWN)),
    canary("backend of wrong type", ((*BACKEND, "name"), ["web"])),
    Mutation(
        "stable Ingress: another host",
        STABLE,
        [(("spec", "rules", 0, "host"), "x.example")],
        [f"{LOST}: {CANARY_INGRESS}"],
    ),
    Mutation("stable Ingress: host unknown", STABLE, [(("spec", "rules", 0, "host"), UNKNOWN)]),
    Mutation("stable Ingress: weight without canary", STABLE, [noted(WEIGHT, "10")], ["ingress-canary-conditions"]),
    Mutation("stable Ingress: canary false", STABLE, [noted(CANARY, "false")]),
    Mutation("stable Ingress: is a canary too", STABLE, [noted(CANARY, "true")], [LOST, f"{LOST}: {CANARY_INGRESS}"]),
    Mutation("stable Ingress: label of another track", STABLE, [((*LABELS, "version"), "blue")], ["required-labels"]),
    Mutation(
        "stable Ingress: a second path to the stable Service",
        STABLE,
        [((*PATHS, "+"), second_path("web", 80))],
        ["dedicated-services"],
    ),
    Mutation("stable Ingress: a second path to another port", STABLE, [((*PATHS, "+"), second_path("web", 81))]),
    Mutation(
        "stable Ingress: a second path to the canary Service",
        STABLE,
        [((*PATHS, "+"), second_path("web-canary", 80))],
        ["dedicated-services", "max-weight"],
    ),
    Mutation(
        "stable Ingress: the canary's Service takes what no path does",
        STABLE,
        [(("spec", "defaultBackend"), {"service": {"name": "web-canary"}})],
        ["max-weight"],
    ),
    Mutation("stable Ingress: a second path, Service unknown", STABLE, [((*PATHS, "+"), second_path(UNKNOWN, 80))]),
)

RULE: Path = ("spec", "rules", 1, "backendRefs")
ROUTE: Path = ("spec", "http", 1, "route")
WEIGHTED: Path = ("spec", "weighted", "services")
SPLITS: Path = ("spec", "splits")


def of_routers() -> Iterator[Mutation]:
    for title, path in (
        ("HTTPRoute web", RULE),
        ("VirtualService web", ROUTE),
        ("TraefikService web", WEIGHTED),
    ):
        stable, other = (*path, 0, "weight"), (*path, 1, "weight")
        for name, changes, broken in (
            ("half and half", [(stable, 50), (other, 50)], ()),
            ("weights of thousands", [(stable, 990), (other, 10)], ()),
            ("canary 0", [(other, 0)], ()),
            ("canary 51 of 100", [(stable, 49), (other, 51)], ["max-weight"]),
            ("canary takes all", [(stable, 0), (other, 100)], ["max-weight"]),
            ("all 0", [(stable, 0), (other, 0)], ["split-weights"]),
            ("canary negative", [(other, -1)], ["split-weights"]),
            ("canary a fraction", [(other, 0.5)], ["split-weights"]),
            ("canary a text", [(other, "20")], ["split-weights"]),
            ("canary unknown", [(other, UNKNOWN)], ()),
            ("canary unknown, stable negative", [(other, UNKNOWN), (stable, -1)], ["split-weights"]),
            ("backends unknown", [(path, UNKNOWN)], ()),
            ("backends a map", [(path, {"web": 100})], ()),
            ("no backends", [(path, [])], ()),
        ):
            yield Mutation(f"{title}: {name}", title, changes, broken)
    yield Mutation(
        "HTTPRoute: weights absent are equal",
        "HTTPRoute web",
        [((*RULE, 0, "weight"), REMOVED), ((*RULE, 1, "weight"), None)],
    )
    yield Mutation(
        "HTTPRoute: weight above the most", "HTTPRoute web", [((*RULE, 0, "weight"), 1_000_001)], ["split-weights"]
    )
    yield Mutation(
        "HTTPRoute: everybody, not the header alone",
        "HTTPRoute web",
        [(("spec", "rules", 0, "matches"), [{"path": {"value": "/"}}])],
        ["max-weight"],
    )
    yield Mutation(
        "VirtualService: weights absent are 0",
        "VirtualService web",
        [((*ROUTE, 0, "weight"), REMOVED), ((*ROUTE, 1, "weight"), REMOVED)],
        ["split-weights"],
    )
    yield Mutation(
        "VirtualService: subsets",
        "VirtualService web",
        [
            ((*ROUTE, 0, "destination"), {"host": "a", "subset": "stable"}),
            ((*ROUTE, 1), {"destination": {"host": "a", "subset": "canary"}, "weight": 80}),
        ],
    )
    yield Mutation(
        "VirtualService: subset above the limit",
        "VirtualService web",
        [
            ((*ROUTE, 0), {"destination": {"host": "a", "subset": "stable"}, "weight": 20}),
            ((*ROUTE, 1), {"destination": {"host": "a", "subset": "canary"}, "weight": 80}),
        ],
        ["max-weight"],
    )
    yield Mutation(
        "VirtualService: everybody, not the header alone",
        "VirtualService web",
        [(("spec", "http", 0, "match"), REMOVED)],
        ["max-weight"],
    )
    yield Mutation(
        "TraefikService: weights absent are equal",
        "TraefikService web",
        [((*WEIGHTED, 0, "weight"), REMOVED), ((*WEIGHTED, 1, "weight"), REMOVED)],
    )
    yield Mutation(
        "IngressRoute: everybody, not the header alone",
        "IngressRoute web",
        [(("spec", "routes", 0, "match"), "Host(`a`)")],
        ["max-weight"],
    )
    every: Sequence[str] = ["max-weight"]
    chosen: Sequence[str] = ()
    match: Any
    for name, match, of_match in (
        ("a header absent", {"withoutHeaders": {"x-legacy": {}}}, every),
        ("everybody's header", {"headers": {"user-agent": {"regex": ".*"}}}, every),
        ("everybody's header is there", {"headers": {"user-agent": {}}}, every),
        ("one value of everybody's header", {"headers": {"user-agent": {"exact": "probe"}}}, chosen),
        ("a header is there", {"headers": {"x-canary": {}}}, chosen),
        ("headers unknown", {"headers": UNKNOWN}, chosen),
        ("a query parameter", {"queryParams": {"canary": {"exact": "1"}}}, chosen),
    ):
        only: list[tuple[Path, Any]] = [(("spec", "http", 0, "match"), [match])]
        yield Mutation(f"VirtualService: canary by {name}", "VirtualService web", only, of_match)
    for value, of_match in ((".*", every), ("^probe/", chosen), ("(", chosen), ("a{99999999999999}", chosen)):
        header = {"name": "User-Agent", "type": "RegularExpression", "value": value}
        only = [(("spec", "rules", 0, "matches"), [{"headers": [header]}])]
        yield Mutation(f"HTTPRoute: canary by User-Agent {value}", "HTTPRoute web", only, of_match)
    for match, of_match in (
        ("Host(`a`) && !Header(`X-Legacy`, `1`)", every),
        ("Host(`a`) || Header(`X-Canary`, `1`)", every),
        ("!(Host(`a`) && Header(`X-Canary`, `1`))", every),
        ("HeaderRegexp(`User-Agent`, `.*`)", every),
        ("(" * 2000, every),
        ("Host(`a`) && (Header(`X-Canary`, `1`) || Query(`canary`, `1`))", chosen),
        ("!!HeadersRegexp(`X-Canary`, `^(a|b)$`) && !Path(`/x`)", chosen),
        ("Host(`a`) && !(!Header(`X-Canary`, `1`))", chosen),
        (UNKNOWN, chosen),
    ):
        only = [(("spec", "routes", 0, "match"), match)]
        yield Mutation(f"IngressRoute: canary by {str(match)[:70]}", "IngressRoute web", only, of_match)
    for name, weights, broken in (
        ("half and half", (50, 50), ()),
        ("fractions", (99.5, 0.5), ()),
        ("canary above the limit", (49, 51), ["max-weight"]),
        ("sum 99", (80, 19), ["split-weights"]),
        ("sum 101", (81, 20), ["split-weights"]),
        ("sum 0", (0, 0), ["split-weights"]),
        ("above 100", (-20, 120), ["split-weights", "max-weight"]),
        ("below the least", (99.995, 0.005), ["split-weights"]),
        ("a text", (80, "20"), ["split-weights"]),
        ("unknown", (80, UNKNOWN), ()),
        ("absent is 0", (80, None), ["split-weights"]),
    ):
        given = [((*SPLITS, index, "weight"), weight) for index, weight in enumerate(weights)]
        yield Mutation(f"ServiceSplitter: {name}", "ServiceSplitter api", given, broken)


BOTH_TRACKS = "service-selects-one-track"
SELECTOR: Path = ("spec", "selector")
BUDGET, SCALER = "PodDisruptionBudget web", "HorizontalPodAutoscaler web"
OTHERS = (
    Mutation("stable Service selects both tracks", "Service web", [((*SELECTOR, "version"), REMOVED)], [BOTH_TRACKS]),
    Mutation("canary Service selects both tracks", "Service web-canary", [(SELECTOR, {"app": "web"})], [BOTH_TRACKS]),
    Mutation(
        "stable Service selects canary pods only",
        "Service web",
        [((*SELECTOR, "version"), "canary")],
        [BOTH_TRACKS, "max-weight"],
    ),
    Mutation(
        "canary Service selects stable pods only",
        "Service web-canary",
        [((*SELECTOR, "version"), "stable")],
        [BOTH_TRACKS],
    ),
    Mutation("stable Service selects nothing", "Service web", [(SELECTOR, REMOVED)]),
    Mutation("stable Service selects the unknown", "Service web", [((*SELECTOR, "version"), UNKNOWN)]),
    Mutation("stable Service's selector unknown", "Service web", [(SELECTOR, UNKNOWN)]),
    Mutation("stable Service's selector a text", "Service web", [(SELECTOR, "app=web")]),
    Mutation("Service without labels", "Service web", [(LABELS, REMOVED)], ["required-labels"]),
    Mutation("Service with labels unknown", "Service web", [(LABELS, UNKNOWN)]),
    Mutation("Service with labels null", "Service web", [(LABELS, None)], ["required-labels"]),
    Mutation("Service with a label that is a number", "Service web", [((*LABELS, "app"), 7)], ["required-labels"]),
    Mutation("Service with a label of wrong form", "Service web", [((*LABELS, "app"), "Web App")], ["required-labels"]),
    Mutation(
        "Service of another group",
        "Service web",
        [(("apiVersion",), "serving.knative.dev/v1"), ((*SELECTOR, "version"), REMOVED), (LABELS, REMOVED)],
    ),
    Mutation("Deployment without label", "Deployment web", [((*LABELS, "app"), REMOVED)], ["required-labels"]),
    Mutation("Deployment of an unknown track", "Deployment web", [((*LABELS, "version"), "blue")], ["required-labels"]),
    Mutation(
        "stable Deployment selects canary pods too",
        "Deployment web",
        [((*SELECTOR, "matchLabels", "version"), REMOVED)],
        ["disjoint-selectors"],
    ),
    Mutation(
        "canary Deployment selects stable pods too",
        "Deployment web-canary",
        [((*SELECTOR, "matchLabels"), {"app": "web"})],
        ["disjoint-selectors"],
    ),
    Mutation(
        "selector of expressions",
        "Deployment web",
        [
            (
                SELECTOR,
                {
                    "matchExpressions": [{"key": "version", "operator": "In", "values": ["stable", "canary"]}],
                    "matchLabels": {"app": "web"},
                },
            )
        ],
        ["disjoint-selectors"],
    ),
    Mutation(
        "selector of expressions that exclude",
        "Deployment web",
        [
            (
                SELECTOR,
                {
                    "matchExpressions": [{"key": "version", "operator": "NotIn", "values": ["canary"]}],
                    "matchLabels": {"app": "web"},
                },
            )
        ],
    ),
    Mutation(
        "selector of a ReplicationController finds the pods of another",
        "ReplicationController replicationcontroller",
        [(SELECTOR, {"app": "web", "version": "canary"})],
        ["disjoint-selectors"],
    ),
    Mutation("selector unknown", "Deployment web", [(SELECTOR, UNKNOWN)]),
    Mutation("selector in part unknown", "Deployment web", [((*SELECTOR, "matchLabels", "version"), UNKNOWN)]),
    Mutation("budget of 4 of 4", BUDGET, [(("spec", "minAvailable"), 4)], ["pdb-leaves-room"]),
    Mutation("budget of 76 %", BUDGET, [(("spec", "minAvailable"), "76%")], ["pdb-leaves-room"]),
    Mutation("budget of 75 %", BUDGET, [(("spec", "minAvailable"), "75%")]),
    Mutation("budget of 100 %", BUDGET, [(("spec", "minAvailable"), "100%")], ["pdb-allows-eviction"]),
    Mutation("budget of none unavailable", BUDGET, [(("spec",), {"maxUnavailable": 0})], ["pdb-allows-eviction"]),
    Mutation("budget of 0 % unavailable", BUDGET, [(("spec",), {"maxUnavailable": "0%"})], ["pdb-allows-eviction"]),
    Mutation("budget of one unavailable", BUDGET, [(("spec",), {"maxUnavailable": 1})]),
    Mutation("budget unknown", BUDGET, [(("spec", "minAvailable"), UNKNOWN)]),
    Mutation("budget null", BUDGET, [(("spec", "minAvailable"), None)]),
    Mutation(
        "budget of other pods",
        BUDGET,
        [(("spec", "minAvailable"), 9), (("spec", "selector", "matchLabels"), {"app": "no"})],
    ),
    Mutation("autoscaler below the budget", SCALER, [(("spec", "minReplicas"), 3)], [f"pdb-leaves-room: {BUDGET}"]),
    Mutation(
        "autoscaler of one pod",
        SCALER,
        [(("spec", "minReplicas"), 1)],
        ["hpa-min-replicas", f"pdb-leaves-room: {BUDGET}"],
    ),
    Mutation(
        "autoscaler without a least number",
        SCALER,
        [(("spec", "minReplicas"), REMOVED)],
        ["hpa-min-replicas", f"pdb-leaves-room: {BUDGET}"],
    ),
    Mutation("autoscaler unknown", SCALER, [(("spec", "minReplicas"), UNKNOWN)]),
    Mutation(
        "autoscaler of a canary",
        SCALER,
        [
            ((*LABELS, "version"), "canary"),
            (("spec", "minReplicas"), 1),
            (("spec", "scaleTargetRef", "name"), "web-canary"),
        ],
    ),
    Mutation("autoscaler of who knows what", SCALER, [(("spec", "scaleTargetRef", "name"), UNKNOWN)]),
    Mutation("ConfigMap with a token", "ConfigMap web", [(("data", "API_TOKEN"), "hunter22")], ["no-plain-secrets"]),
    Mutation(
        "ConfigMap with a key in a file",
        "ConfigMap web",
        [(("data", "app.yaml"), "key: |\n  -----BEGIN PRIVATE KEY-----\n")],
        ["no-plain-secrets"],
    ),
    Mutation("ConfigMap unknown", "ConfigMap web", [(("data",), UNKNOWN)]),
)

MUTATIONS = (*of_pods(), *INGRESSES, *of_routers(), *OTHERS)


def test_there_are_hundreds_and_each_has_a_name_of_its_own() -> None:
    assert len(MUTATIONS) >= 300
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


def test_every_rule_is_broken_by_a_mutation() -> None:
    added = {"one-canary-per-service"}  # takes one more object, see below

    broken = {rule.partition(":")[0] for mutation in MUTATIONS for rule in mutation.broken} | added

    assert broken == {rule.name for rule in RULES}


def test_the_valid_stack_breaks_no_rule() -> None:
    assert findings(valid()) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_breaks_exactly_its_rules(mutation: Mutation) -> None:
    mutated = changed(valid(), mutation.of, *mutation.changes)

    assert mutated != valid()
    assert findings(mutated) == mutation.expected


SECOND = samples.ingress("web-canary-2", "canary", "web-canary-2", {CANARY: "true", WEIGHT: "5"})
LEAKING = changed(
    [samples.ingress("admin", "stable", "web")], "Ingress admin", (("spec", "rules", 0, "host"), "admin.example")
)
ADDED = {
    "a second canary of a Service": ([SECOND], ["one-canary-per-service: Ingress web-canary-2"]),
    "a second stable Ingress of the same path": (
        [samples.ingress("web-2", "stable", "web-2")],
        [f"{LOST}: {CANARY_INGRESS}"],
    ),
    "another Ingress of the stable Service": (LEAKING, ["dedicated-services: Ingress admin"]),
    "a Service of both tracks, which Istio's subsets tell apart": (
        [
            changed([samples.service("all", "web", "stable")], "Service all", ((*SELECTOR, "version"), REMOVED))[0],
            manifest("DestinationRule", "all", spec={"host": "all.shop.svc.cluster.local", "subsets": [{"name": "a"}]}),
        ],
        [],
    ),
    "a Service of both tracks, which Consul's subsets tell apart": (
        [
            changed([samples.service("all", "web", "stable")], "Service all", ((*SELECTOR, "version"), REMOVED))[0],
            manifest("ServiceResolver", "all", spec={"subsets": {"canary": {"filter": "a"}}}),
        ],
        [],
    ),
    "a Service of canary pods that is not called so": (
        [samples.service("web-v2", "web", "canary")],
        ["max-weight: Service web-v2"],
    ),
    "a subset of canary pods that is not called so": (
        [
            manifest(
                "DestinationRule",
                "web",
                spec={"host": "web", "subsets": [{"name": "v2", "labels": {"version": "canary"}}]},
            )
        ],
        ["max-weight: DestinationRule web"],
    ),
    "everybody's route to a canary with a version in its name": (
        [manifest("HTTPRoute", "v2", spec={"rules": [{"backendRefs": [{"name": "web-canary-v2"}]}]})],
        ["max-weight: HTTPRoute v2"],
    ),
    "a DestinationRule without subsets": (
        [
            changed([samples.service("all", "web", "stable")], "Service all", ((*SELECTOR, "version"), REMOVED))[0],
            manifest("DestinationRule", "all", spec={"host": "all"}),
        ],
        [f"{BOTH_TRACKS}: Service all"],
    ),
}


def test_stable_pods_without_a_track_are_told_from_the_canarys() -> None:
    unlabelled = changed(
        valid(),
        "Deployment web",
        ((*SELECTOR, "matchLabels"), {"app": "web", "tier": "a"}),
        (("spec", "template", "metadata", "labels"), {"app": "web", "tier": "a"}),
    )
    mixed = changed(unlabelled, "Service web", (SELECTOR, {"app": "web"}))

    assert f"{BOTH_TRACKS}: Service web" not in findings(unlabelled)
    assert f"{BOTH_TRACKS}: Service web" in findings(mixed)


@pytest.mark.parametrize("name", ADDED)
def test_one_more_object_breaks_exactly_its_rules(name: str) -> None:
    more, expected = ADDED[name]

    assert findings([*valid(), *more]) == expected
