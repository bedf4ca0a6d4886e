"""Programs outside the checkout use the components: by the wheel, and by the package's plugin."""

import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from lightkube import Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Service
from lightkube.resources.networking_v1 import Ingress

from canary_service.rollout.guards import IDENTIFIER, OF_THE_STACK
from canary_service.routing.nginx import WEIGHT
from canary_service.workload.live import OWNER_ANNOTATION
from demo.stack import StackCopy, StackError
from sandbox.lifecycle import Sandbox
from tests.live.elsewhere import EXAMPLES, Elsewhere

pytestmark = pytest.mark.live

SECRET = "hunter2"  # noqa: S105 - none at all

REMOTE = '''
import pulumi


class CanaryService(pulumi.ComponentResource):
    """What a generated SDK has, without its types."""

    url: pulumi.Output[str] = pulumi.property("url")

    def __init__(self, name, inputs, opts=None):
        super().__init__("canary:index:CanaryService", name, inputs | {"url": None}, opts, remote=True)


config = pulumi.Config()
'''
"""How any program makes a component of the package."""


@pytest.fixture(scope="module")
def elsewhere(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    return Elsewhere.create(tmp_path_factory.mktemp("elsewhere"), sandbox.environment)


def weights(cluster: Client, namespace: str) -> dict[str, str]:
    """Return the weights in force by Ingress, read from the API server."""
    found: dict[str, str] = {}
    for ingress in cluster.list(Ingress, namespace=namespace):
        assert ingress.metadata
        assert ingress.metadata.name
        annotations = ingress.metadata.annotations or {}
        if weight := annotations.get(WEIGHT):
            found[ingress.metadata.name] = weight
        assert annotations[OWNER_ANNOTATION] == "shop/test"
    return found


def by_token(elsewhere: Elsewhere, name: str, program: str) -> StackCopy:
    """Make a project that reaches the package by its tokens alone."""
    source = elsewhere.folder / f"{name}-source"
    shutil.copytree(EXAMPLES / "sdk", source)
    (source / "__main__.py").write_text(REMOTE + program)
    with (source / "Pulumi.yaml").open("a") as project:
        project.write("packages: {canary: ../components}\n")
    return elsewhere.project(name, source)


def check_shift(stack: StackCopy, cluster: Client, namespace: str) -> None:
    """Deploy a program whose canary is at 20 %, and read 50 back once that is set; its secret is not in the state."""
    stack.run("config", "set", "--secret", "database", SECRET)
    stack.up()
    assert weights(cluster, namespace) == {"checkout-canary": "20"}
    stack.run("preview", "--expect-no-changes")
    assert SECRET not in stack.run("stack", "export")

    stack.set("weight", "50")
    stack.up()
    assert weights(cluster, namespace) == {"checkout-canary": "50"}
    assert stack.outputs()["tracks"]["canary"]["weight"] == 50


def test_a_program_that_imports_the_component_shifts_traffic(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    stack = elsewhere.project(f"import-{namespace}", EXAMPLES / "python")
    stack.set("namespace", namespace)
    check_shift(stack, cluster, namespace)

    stack.run("destroy", "--yes")
    assert weights(cluster, namespace) == {}


def test_a_program_adds_the_package_and_shifts_traffic_by_its_sdk(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    stack = elsewhere.project(f"sdk-{namespace}", EXAMPLES / "sdk")
    told = stack.run("package", "add", str(elsewhere.folder / "components"))
    assert "import pulumi_canary as canary" in told
    stack.set("namespace", namespace)
    stack.set("weight", "20")
    check_shift(stack, cluster, namespace)


ONE_BESIDE_ANOTHER = """
for name in ("checkout", "search"):
    CanaryService(
        name,
        {
            "namespace": config.require("namespace"),
            "host": "shop.example",
            "path": f"/{name}",
            "port": 8080,
            "image": "registry.example/app:1.0",
            "env": {"DATABASE": config.require_secret("database")},
            "podTemplatePatch": {"metadata": {"annotations": {"token": config.require_secret("database")}}},
            "canary": {
                "image": "registry.example/app:2.0",
                "weight": config.require_int(name),
                "secret": {"data": {"KEY": config.require_secret("database")}},
            },
        },
    )
"""


def test_services_of_the_package_are_made_at_once_and_one_that_is_refused_tells_why_without_its_secrets(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    stack = by_token(elsewhere, f"package-{namespace}", ONE_BESIDE_ANOTHER)
    stack.set("namespace", namespace)
    stack.set("checkout", "20")
    stack.set("search", "5")
    stack.run("config", "set", "--secret", "database", SECRET)

    stack.up()
    assert weights(cluster, namespace) == {"checkout-canary": "20", "search-canary": "5"}
    stack.run("preview", "--expect-no-changes")
    assert SECRET not in stack.run("stack", "export")

    stack.set("checkout", "50")
    stack.set("search", "99")
    with pytest.raises(StackError) as caught:
        stack.up()
    assert "CanaryService search: 1 input cannot be used; nothing of it was changed." in str(caught.value)
    assert "canary.weight = 99\n        allowed: at most 55 now" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert weights(cluster, namespace)["search-canary"] == "5"

    stack.set("search", "0")
    stack.up()
    assert weights(cluster, namespace) == {"checkout-canary": "50", "search-canary": "0"}


RENAMED = """
checkout = {
    "namespace": config.require("namespace"),
    "host": "shop.example",
    "path": "/checkout",
    "port": 8080,
    "image": "registry.example/app:1.0",
    "canary": {"image": "registry.example/app:2.0", "weight": 20},
    "serviceName": "checkout",
}
alias = config.get("alias")
CanaryService(config.require("resource"), checkout, pulumi.ResourceOptions(aliases=[alias] if alias else None))
if config.get_bool("again"):
    CanaryService("again", checkout | {"path": "/again"})
"""


def uids(cluster: Client, namespace: str) -> dict[tuple[str, str], str | None]:
    """Return what the objects that serve are, which a new one of the same name is not."""
    found: dict[tuple[str, str], str | None] = {}
    objects: list[Deployment | Service | Ingress] = [
        *cluster.list(Deployment, namespace=namespace),
        *cluster.list(Service, namespace=namespace),
        *cluster.list(Ingress, namespace=namespace),
    ]
    for each in objects:
        assert each.metadata
        assert each.metadata.name
        found[type(each).__name__, each.metadata.name] = each.metadata.uid
    return found


def refused(stack: StackCopy) -> str:
    """Return why a program is refused, alike in preview and update."""
    told = []
    for command in (("preview",), ("up", "--yes", "--skip-preview")):
        with pytest.raises(StackError) as caught:
            stack.run(*command)
        told.append(str(caught.value))
    assert all("nothing of it was changed" in each for each in told)
    return told[-1]


def test_a_renamed_component_of_the_package_is_refused_and_with_an_alias_its_objects_stay(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    stack = by_token(elsewhere, f"renamed-{namespace}", RENAMED)
    stack.set("namespace", namespace)
    stack.set("resource", "checkout")
    stack.up()
    served = uids(cluster, namespace)
    assert len(served) == 6

    stack.set("again", "true")
    assert "a service that nothing else in the program declares" in refused(stack)
    stack.set("again", "false")

    was = "checkout"
    for resource in ("web", "shop"):
        stack.set("resource", resource)
        stack.set("alias", "")
        told = refused(stack)
        alias = f"urn:pulumi:test::shop::canary:index:CanaryService::{was}"
        assert f"give it the alias {alias}" in told
        assert uids(cluster, namespace) == served

        stack.set("alias", alias)
        stack.up()
        assert uids(cluster, namespace) == served
        stack.set("alias", "")
        stack.run("preview", "--expect-no-changes")
        was = resource

    stack.run("destroy", "--yes")
    assert uids(cluster, namespace) == {}


MOVED = """
import pulumi

from canary_service.components import CanaryService, CanaryStack

config = pulumi.Config()
place = {"namespace": config.require("namespace"), "host": "shop.example"}
checkout = {
    "path": "/checkout",
    "port": 8080,
    "image": "registry.example/app:1.0",
    "canary": {"image": "registry.example/app:2.0", "weight": 20},
}
match config.require("declared"):
    case "alone":
        CanaryService("checkout", place | checkout)
    case "parent":
        shop = pulumi.ComponentResource("shop:index:Shop", "shop")
        CanaryService("checkout", place | checkout, pulumi.ResourceOptions(parent=shop))
    case "stack":
        CanaryStack("shop", place | {"services": {"checkout": checkout}})
    case "aliased":
        aliases = ["urn:pulumi:test::shop::canary:index:CanaryService::checkout"]
        CanaryStack("shop", place | {"services": {"checkout": checkout}}, pulumi.ResourceOptions(aliases=aliases))
"""


def test_a_service_that_moves_to_another_component_or_parent_is_refused_and_with_an_alias_its_objects_stay(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    source = elsewhere.folder / f"moved-{namespace}-source"
    shutil.copytree(EXAMPLES / "python", source)
    (source / "__main__.py").write_text(MOVED)
    stack = elsewhere.project(f"moved-{namespace}", source)
    stack.set("namespace", namespace)
    stack.set("declared", "alone")
    stack.up()
    served = uids(cluster, namespace)
    assert len(served) == 6

    for declared in ("parent", "stack"):
        stack.set("declared", declared)
        assert "as it was, as canary:index:CanaryService::checkout" in refused(stack)
    assert uids(cluster, namespace) == served

    stack.set("declared", "aliased")
    stack.up()
    assert uids(cluster, namespace) == served
    stack.set("declared", "stack")
    stack.run("preview", "--expect-no-changes")

    stack.set("declared", "alone")
    assert "as it was, as canary:index:CanaryStack::shop" in refused(stack)
    stack.run("destroy", "--yes")
    assert uids(cluster, namespace) == {}


NOT_READY = ONE_BESIDE_ANOTHER.replace('"port": 8080,', '"port": 8080, "readyTimeoutSeconds": 5,').replace(
    '"env": {', '"env": {"SANDBOX_REFUSE": "true", '
)


def test_pods_that_do_not_become_ready_are_told_with_their_own_reasons(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    stack = by_token(elsewhere, f"failing-{namespace}", NOT_READY)
    for key, value in {"namespace": namespace, "checkout": "20", "search": "20", "database": "x"}.items():
        stack.set(key, value)

    with pytest.raises(StackError, match="runs, but its readiness probe does not succeed"):
        stack.up()

    assert weights(cluster, namespace) == {}


WITH_AN_IMAGE_OF_ANOTHER_RESOURCE = """
image = "registry.example/app:2.0"
if config.get_bool("built"):
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "built", "namespace": config.require("namespace")},
    }
    options = pulumi.ResourceOptions(version="VERSION")
    built = pulumi.CustomResource("kubernetes:core/v1:ConfigMap", "built", manifest, options)
    image = built.id.apply(lambda _: "registry.example/app:2.0")
CanaryService(
    "checkout",
    {
        "namespace": config.require("namespace"),
        "host": "shop.example",
        "path": "/checkout",
        "port": 8080,
        "image": "registry.example/app:1.0",
        "context": config.get("context"),
        "canary": {"image": image, "weight": 20},
    },
)
""".replace("VERSION", version("pulumi-kubernetes"))


def test_a_preview_shows_a_service_whose_image_another_resource_will_give_and_refuses_a_context_that_is_not_there(
    elsewhere: Elsewhere, cluster: Client, namespace: str
) -> None:
    stack = by_token(elsewhere, f"unknown-{namespace}", WITH_AN_IMAGE_OF_ANOTHER_RESOURCE)
    stack.set("namespace", namespace)
    stack.up()

    stack.set("built", "true")
    shown = stack.run("preview")
    assert "not known before the update: canary.image. This preview takes what is in force for it" in shown
    assert "1 to create" in shown
    assert "to delete" not in shown
    stack.up()
    assert weights(cluster, namespace) == {"checkout-canary": "20"}

    stack.set("context", "nowhere")
    with pytest.raises(StackError, match="Context 'nowhere' not found"):
        stack.run("preview")


IN_A_CLUSTER = """
CanaryService(
    "checkout",
    {
        "namespace": config.require("namespace"),
        "host": "shop.example",
        "path": "/checkout",
        "port": 8080,
        "image": "registry.example/app:1.0",
        "kubeconfig": config.get_secret("kubeconfig"),
        "canary": {"image": "registry.example/app:2.0", "weight": 20},
    },
)
"""


def test_another_address_of_the_cluster_and_another_provider_replace_nothing(
    elsewhere: Elsewhere, sandbox: Sandbox, cluster: Client, namespace: str
) -> None:
    def uids() -> set[str | None]:
        found: list[Deployment | Service | Ingress] = [
            *cluster.list(Deployment, namespace=namespace),
            *cluster.list(Service, namespace=namespace),
            *cluster.list(Ingress, namespace=namespace),
        ]
        return {each.metadata.uid for each in found if each.metadata}

    def configure(key: str, value: str) -> None:
        stack.run("config", "set", "--secret", key, value)

    address, kubeconfig = "127.0.0.1", sandbox.kubeconfig.read_text()
    assert address in kubeconfig
    stack = by_token(elsewhere, f"addresses-{namespace}", IN_A_CLUSTER)
    stack.set("namespace", namespace)
    configure("kubernetes:kubeconfig", kubeconfig)
    with pytest.raises(StackError, match=f"fix: pulumi config set kubernetes:{IDENTIFIER} {OF_THE_STACK}"):
        stack.run("preview")
    stack.set(f"kubernetes:{IDENTIFIER}", OF_THE_STACK)
    stack.up()
    before = uids()
    assert len(before) == 6  # Deployment, Service and Ingress of stable and canary

    configure("kubernetes:kubeconfig", kubeconfig.replace(address, "localhost"))
    stack.up()
    configure("kubeconfig", kubeconfig)  # from here on the component has a provider of its own
    stack.up()
    configure("kubeconfig", kubeconfig.replace(address, "localhost"))
    stack.up()
    stack.remove("kubeconfig")
    stack.up()

    assert uids() == before


FROM_CONFIG = """
from canary_service.components.declaration import declare_from_config

declare_from_config()
"""


@pytest.fixture
def configured(elsewhere: Elsewhere, namespace: str) -> Iterator[StackCopy]:
    """A project of somebody else's whose program is what the configuration says."""
    source = elsewhere.folder / f"configured-{namespace}-source"
    source.mkdir()
    (source / "__main__.py").write_text(FROM_CONFIG)
    (source / "Pulumi.yaml").write_text("name: shop\nruntime: {name: python, options: {virtualenv: venv}}\n")
    stack = elsewhere.project(f"configured-{namespace}", source)
    values = {
        "namespace": namespace,
        "host": "shop.example",
        "canaryWeight": "20",
        "services.app.path": "/",
        "services.app.port": "8080",
        "services.app.image": "registry.example/app:1.0",
        "services.app.canary.image": "registry.example/app:2.0",
    }
    for key, value in values.items():
        stack.set(key, value)
    yield stack
    stack.run("destroy", "--yes")


def test_the_command_of_the_wheel_works_on_a_project_elsewhere(
    configured: StackCopy, cluster: Client, namespace: str
) -> None:
    configured.up()
    command = str(configured.folder / "venv/bin/canary")
    environment = dict(configured.environment) | {"PULUMI_STACK": configured.name}

    done = subprocess.run(
        [command, "set", "50", "--yes"],
        cwd=configured.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert weights(cluster, namespace) == {"app-canary": "50"}
