"""What pods may do, need and tell.

Restricted fields: https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from collections.abc import Iterator
from typing import Any, Final

from canary_policies.objects import (
    SERVING,
    UNKNOWN,
    WORKLOADS,
    Object,
    containers,
    entries,
    get,
    items,
    pod_spec,
    text,
)
from canary_policies.rule import Config, ResourceRule

_SECCOMP: Final = ("RuntimeDefault", "Localhost")
_ADDABLE: Final = "NET_BIND_SERVICE"
_SE_LINUX_TYPES: Final = ("container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS: Final = ("postStart", "preStop")
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_VOLUMES: Final = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)


def _resources(found: Object, config: Config) -> Iterator[str]:
    for container in containers(found):
        # A pod's own resources, since Kubernetes 1.34, stand for all its containers.
        holders = (container.body, pod_spec(found))
        absent = [
            path
            for path in config["required"]
            if all(get(holder, "resources", *path.split(".", 1)) in (None, "") for holder in holders)
        ]
        if absent:
            yield f"{container.title} has no resources.{', '.join(absent)}"


def _probes(found: Object, config: Config) -> Iterator[str]:
    for container in containers(found):
        # UNKNOWN is no empty value.
        absent = [probe for probe in config["required"] if not get(container.body, probe)]
        if container.main and absent:
            yield f"{container.title} has no {' and no '.join(absent)}"


def _restricted(found: Object, _: Config) -> Iterator[str]:
    pod = pod_spec(found)
    for container in containers(found):
        own = get(container.body, "securityContext")
        if _effective(pod, own, "runAsNonRoot") not in (True, UNKNOWN):
            yield f"{container.title} may run as root: runAsNonRoot is not true"
        user = _effective(pod, own, "runAsUser")
        if user == 0 and user is not False:
            yield f"{container.title} runs as user 0"
        # Windows knows neither of the others.
        if get(pod, "os", "name") != "windows":
            yield from _linux(container.title, pod, own)
        yield from _confined(container.title, own)
        yield from _calls(container.title, container.body)
    yield from _confined("its pod", get(pod, "securityContext"))
    for sysctl in items(pod, "securityContext", "sysctls"):
        if (name := text(sysctl, "name")) and name.replace("/", ".") not in _SYSCTLS:
            yield f"its pod sets sysctl {name}"
    for volume in items(pod, "volumes"):
        for source in sorted(set(volume) - {"name"} - _VOLUMES):
            if volume[source] is not None:
                yield f"volume {text(volume, 'name')} is of type {source}"


def _confined(title: str, security: object) -> Iterator[str]:
    kind = get(security, "seLinuxOptions", "type")
    if kind and kind not in (*_SE_LINUX_TYPES, UNKNOWN):
        yield f"{title} has SELinux type {kind}"
    for name in ("user", "role"):
        if (given := get(security, "seLinuxOptions", name)) and given is not UNKNOWN:
            yield f"{title} has SELinux {name} {given}"
    profile = get(security, "appArmorProfile", "type")
    if profile and profile not in (*_SECCOMP, UNKNOWN):
        yield f"{title} has appArmorProfile {profile}"


def _calls(title: str, container: object) -> Iterator[str]:
    """Find probes and hooks that make the node call another host."""
    handlers = [(name, get(container, name)) for name in _PROBES]
    handlers += [(name, get(container, "lifecycle", name)) for name in _HOOKS]
    for name, handler in handlers:
        for way in ("httpGet", "tcpSocket"):
            if (host := get(handler, way, "host")) and host is not UNKNOWN:
                yield f"{title} makes its node call {host}: {name}.{way}.host"


def _linux(title: str, pod: object, own: object) -> Iterator[str]:
    if get(own, "allowPrivilegeEscalation") not in (False, UNKNOWN):
        yield f"{title} may gain privileges: allowPrivilegeEscalation is not false"
    kind = get(_effective(pod, own, "seccompProfile"), "type")
    if kind not in (*_SECCOMP, UNKNOWN):
        yield f"{title} may make any system call: seccompProfile is not {' or '.join(_SECCOMP)}"
    dropped = get(own, "capabilities", "drop")
    if dropped is not UNKNOWN and not any(name in ("ALL", UNKNOWN) for name in entries(own, "capabilities", "drop")):
        yield f"{title} keeps capabilities: it does not drop ALL"
    for capability in entries(own, "capabilities", "add"):
        if capability not in (_ADDABLE, UNKNOWN):
            yield f"{title} adds capability {capability}"
    mount = get(own, "procMount")
    if mount not in (None, "Default", UNKNOWN):
        yield f"{title} sees more of /proc: procMount is {mount}"


def _effective(pod: object, own: object, name: str) -> Any:  # noqa: ANN401 - whatever the manifest holds
    """Return a setting of a container, which goes over that of its pod."""
    value = get(own, name)
    return get(pod, "securityContext", name) if value is None else value


def _privilege(found: Object, _: Config) -> Iterator[str]:
    for container in containers(found):
        own = get(container.body, "securityContext")
        if get(own, "privileged") is True:
            yield f"{container.title} is privileged"
        if get(_effective(pod_spec(found), own, "windowsOptions"), "hostProcess") is True:
            yield f"{container.title} is a process of its node"


def _host(found: Object, _: Config) -> Iterator[str]:
    pod = pod_spec(found)
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if get(pod, name) is True:
            yield f"its pods have {name}"
    for container in containers(found):
        for port in items(container.body, "ports"):
            if (number := get(port, "hostPort")) and number is not UNKNOWN:
                yield f"{container.title} takes port {number} of its node"


RULES: Final = (
    ResourceRule(
        name="container-resources",
        why="Without requests the scheduler packs blindly, and without a limit one leak takes a node's memory",
        fix="set resources.requests and resources.limits",
        kinds=WORKLOADS,
        options={
            "required": {
                "type": "array",
                "items": {"type": "string", "pattern": r"^(requests|limits)\..+$"},
                "default": ["requests.cpu", "requests.memory", "limits.memory"],
                "description": "What each container sets",
            }
        },
        check=_resources,
    ),
    ResourceRule(
        name="container-probes",
        why="A pod without probes gets requests before it can answer, and keeps them when it no longer can",
        fix="set the probe",
        kinds=SERVING,
        options={
            "required": {
                "type": "array",
                "items": {"enum": ["readinessProbe", "livenessProbe", "startupProbe"]},
                "default": ["readinessProbe", "livenessProbe"],
                "description": "Probes of each container that is no init container",
            }
        },
        check=_probes,
    ),
    ResourceRule(
        name="restricted-pods",
        why="Pods outside the restricted Pod Security Standard can reach more than their own work needs",
        fix=(
            "runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities.drop: [ALL], "
            "seccompProfile.type: RuntimeDefault, and no volumes of the node"
        ),
        kinds=WORKLOADS,
        check=_restricted,
    ),
    ResourceRule(
        name="no-privilege",
        why="A privileged container has its node, and so every pod there",
        fix="remove securityContext.privileged and windowsOptions.hostProcess",
        kinds=WORKLOADS,
        check=_privilege,
    ),
    ResourceRule(
        name="no-host-namespaces",
        why="A pod in its node's network, process or IPC namespace sees and reaches what network policies keep apart",
        fix="remove hostNetwork, hostPID, hostIPC and hostPort; let a Service take the port",
        kinds=WORKLOADS,
        check=_host,
    ),
)
