"""Adding a router means adding one module and one line in the registry (docs/routers.md)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from canary_service.routing.registry import ROUTERS
from canary_service.routing.router import RouteKind
from canary_service.workload.facts import KINDS

ROOT = Path(__file__).parents[2]

# In a process of its own: what follows from the registry is made of it when modules are loaded.
LIFE = """
import json, time, types
from canary_service.routing import registry
from tests.unit.plain_router import Plain
registry.ROUTERS = types.MappingProxyType({**registry.ROUTERS, "plain": Plain()})

from canary_service.config.loader import ConfigError, load
from canary_service.rollout.doctor import diagnose
from canary_service.rollout.engine_events import EventStream
from canary_service.rollout.plan import Before, Target, planned
from canary_service.workload.facts import Facts
from canary_service.workload.live import Objects, live_service

def settings(weight, **canary):
    service = {"path": "/", "port": 80, "image": "a/b:1.0", "canary": {"image": "a/b:2.0"} | canary}
    raw = {"namespace": "shop", "host": "a.b", "router": "plain", "canaryWeight": str(weight)}
    return load(raw | {"services": json.dumps({"app": service})})

def refusal(**canary):
    try:
        settings(5, **canary)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]

there = [route.manifest for route in settings(5).router_of_stack().render(settings(5).split_of("app"))]
live = {"app": live_service(settings(20), "app", Objects({}, {}, there))}
plan = planned(Target("shop", "dev"), EventStream(), settings(20), Before(live), failed=False)
facts = Facts(time.time(), {"Share": there})
checks = {each.check: each.state for each in diagnose(settings(5), "shop/dev", facts)}
weight = plan.services[0].weight
print(json.dumps({"weights": [weight.before, weight.after], "refusal": refusal(cookie="c"), "checks": checks}))
"""


@pytest.fixture(scope="module")
def life() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", LIFE], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_its_objects_are_read_and_a_shift_of_them_is_planned(life: dict[str, Any]) -> None:
    assert life["weights"] == [5, 20]


def test_what_it_lacks_is_refused_with_the_routers_that_have_it(life: dict[str, Any]) -> None:
    (problem,) = life["refusal"]
    assert "services.app.canary.cookie = c" in problem
    assert "router plain cannot route by cookie; nginx, gateway" in problem


def test_the_doctor_examines_its_objects(life: dict[str, Any]) -> None:
    assert {each: life["checks"][each] for each in ("route-kinds", "route-split", "route-accepted")} == {
        "route-kinds": "ok",
        "route-split": "ok",
        "route-accepted": "ok",
    }


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        ("deploy", {"get", "list", "watch", "create", "patch", "delete"}),
        ("preview", {"get", "list"}),
        ("observe", {"list"}),
    ],
)
def test_the_roles_have_the_rights_for_its_objects(router: str, role: str, verbs: set[str]) -> None:
    for kind in ROUTERS[router].kinds:
        assert granted(role, kind) == verbs


def granted(role: str, kind: RouteKind) -> set[str]:
    own = kind.kind in KINDS
    file = ROOT / "rbac" / (f"{role}.yaml" if own else "routers/roles.yaml")
    name = f"canary-{role}" + ("" if own else "-routers")
    (found,) = (
        each
        for each in yaml.safe_load_all(file.read_text())
        if each["kind"] == "Role" and each["metadata"]["name"] == name
    )
    group = kind.api_version.partition("/")[0]
    return {
        v
        for rule in found["rules"]
        if group in rule["apiGroups"] and kind.plural in rule["resources"]
        for v in rule["verbs"]
    }


@pytest.mark.parametrize("document", ["routers.md", "reference.md"])
@pytest.mark.parametrize("router", ROUTERS)
def test_the_documents_name_it(router: str, document: str) -> None:
    assert f"`{router}`" in (ROOT / "docs" / document).read_text()


@pytest.mark.parametrize("router", ROUTERS)
def test_what_was_proven_of_it_stands_in_the_table(router: str) -> None:
    proven = (ROOT / "docs" / "routers.md").read_text().partition("## What was proven, and how")[2]
    assert f"| `{router}` |" in proven


def test_no_module_but_its_own_knows_a_router_by_name() -> None:
    """But for the first router, whose canary is an object of its own, and for who counts requests."""
    exempt = {"observability/queries.py", "config/settings.py"}
    names = {name for name in ROUTERS if name != "nginx"}
    package = ROOT / "canary_service"
    found = [
        (str(file.relative_to(package)), name)
        for file in package.rglob("*.py")
        if str(file.relative_to(package)) not in exempt and file.parent.name != "routing"
        for name in names
        if f'"{name}"' in file.read_text()
    ]
    assert found == []
