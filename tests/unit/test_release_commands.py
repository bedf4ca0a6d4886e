"""`canary set`, `promote` and `abort` as commands: what is told before anything is done.

A small script stands in for the `pulumi` CLI, and there is no cluster.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import click
import pytest

from canary_service.cli.project import Project
from canary_service.cli.release import chosen
from canary_service.cluster.errors import ClusterError, UnknownKindError
from canary_service.config.loader import load
from canary_service.config.settings import Settings
from canary_service.rollout.engine import EngineError
from canary_service.rollout.engine_events import EventStream, read
from canary_service.rollout.release import Changes
from canary_service.routing.split import Split
from canary_service.workload.live import LiveService
from tests.unit.commands import Fake

PULUMI = """#!/bin/sh
printf '%s\\n' "$*" >> "$FAKE/calls"
[ -f "$FAKE/errors" ] && { cat "$FAKE/errors" >&2; exit 255; }
cat "$FAKE/config"
"""
SERVICES = {
    "cart": {"path": "/cart", "port": 8080, "image": "example/cart:1.0", "canary": {"image": "example/cart:2.0"}},
    "shop": {"path": "/shop", "port": 8080, "image": "example/shop:1.0"},
}
COMMANDS = (("set", "50"), ("promote",), ("abort",))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fake:
    fake = Fake(monkeypatch, capsys, tmp_path)
    fake.begin(PULUMI, "name: shop\nruntime: python\n")
    config = {"shop:namespace": "shop", "shop:host": "shop.example", "shop:services": SERVICES}
    (tmp_path / "project" / "Pulumi.dev.yaml").write_text(json.dumps({"config": config}))
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    (tmp_path / "config").write_text(json.dumps({key: {"value": value} for key, value in texts.items()}))
    return fake


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_cluster_nothing_is_tried(fake: Fake, command: tuple[str, ...]) -> None:
    file = Path("Pulumi.dev.yaml").read_bytes()
    done = fake.run(*command, "--stack", "dev", "--yes")
    assert done.code == 4
    assert done.err.startswith("Error: no cluster to talk to: ")
    result = json.loads(fake.run(*command, "--stack", "dev", "--yes", "--json").out)
    assert (result["command"], result["outcome"], result["services"]) == (command[0], "failed", {})
    assert Path("Pulumi.dev.yaml").read_bytes() == file


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("set", "101"), "101 is not in the range"),
        (("set", "half"), "'half' is not a valid whole number from 0 to 100"),
        (("set",), "Missing argument 'WEIGHT'"),
        (("promote", "--policy-pack-config", "rules.json"), "configures a --policy-pack, and there is none"),
        (("abort", "--policy-pack", "missing"), "Directory 'missing' does not exist"),
    ],
)
def test_a_wrong_invocation_is_told_before_anything_runs(fake: Fake, arguments: tuple[str, ...], told: str) -> None:
    Path("rules.json").touch()
    done = fake.run(*arguments)
    assert done.code == 1
    assert told in done.err
    assert not (fake.folder / "calls").exists()


@pytest.mark.parametrize(("command", "exit_code"), [(("set", "50"), 4), (("promote",), 4)])
def test_what_the_engine_says_of_the_stack_is_told(fake: Fake, command: tuple[str, ...], exit_code: int) -> None:
    (fake.folder / "errors").write_text("error: getting stack configuration: incorrect passphrase\n")
    done = fake.run(*command, "--stack", "dev", "--yes")
    assert (done.code, done.err) == (exit_code, "Error: getting stack configuration: incorrect passphrase\n")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name: [", "Pulumi.yaml, line 1 is not valid YAML: expected the node content, but found '<stream end>'"),
        ("", "Pulumi.yaml names no project"),
        ("runtime: python", "Pulumi.yaml names no project"),
        ("- name: shop", "Pulumi.yaml is to hold keys with values, not list"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        ("run", "--yes"),
        ("status",),
        ("doctor",),
        ("plan",),
        ("watch", "--once"),
        ("verify", "--passive"),
        ("logs",),
    ],
)
def test_a_broken_project_is_one_message_with_its_file(
    fake: Fake, command: tuple[str, ...], content: str, told: str
) -> None:
    Path("Pulumi.yaml").write_text(content)
    done = fake.run(*command, "--stack", "dev")
    assert done.code == 1
    assert told in done.err
    assert done.err.count("Error: ") == 1


@pytest.mark.parametrize("command", [*COMMANDS, ("run", "--yes"), ("status",), ("doctor",), ("watch", "--once")])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("config:\n  shop:host: [\n", "Pulumi.dev.yaml, line 3 is not valid YAML: "),
        ("config: 3", "config in Pulumi.dev.yaml is to hold keys with values, not 3"),
    ],
)
def test_a_broken_file_of_the_stack_is_one_message_with_its_name(
    fake: Fake, command: tuple[str, ...], content: str, told: str
) -> None:
    Path("Pulumi.dev.yaml").write_text(content)
    done = fake.run(*command, "--stack", "dev")
    assert done.code == 1
    assert told in done.err


@pytest.mark.parametrize(
    "message",
    [
        "invalid YAML file: yaml: line 7: did not find expected node content",
        'getting stack configuration: yaml: unmarshal errors:\n  line 3: mapping key "a" already defined at line 2',
    ],
)
@pytest.mark.parametrize("command", [("set", "50"), ("plan",)])
def test_what_only_the_engine_finds_wrong_in_the_file_is_told_with_its_name(
    fake: Fake, command: tuple[str, ...], message: str
) -> None:
    (fake.folder / "errors").write_text(f"error: {message}\n")
    done = fake.run(*command, "--stack", "dev")
    assert done.code == 1
    assert done.err == f"Error: Pulumi.dev.yaml: {message}\n"


def test_a_wrong_value_is_shown_where_another_is_encrypted(fake: Fake) -> None:
    services = {"cart": SERVICES["cart"] | {"env": {"KEY": {"secure": "v1:x"}}, "port": "hunter"}}
    config = {"shop:namespace": "shop", "shop:host": {"secure": "v1:x"}, "shop:services": services}
    Path("Pulumi.dev.yaml").write_text(json.dumps({"config": config}))
    services["cart"]["env"] = {"KEY": ["5ecret"]}
    decrypted = {
        "shop:namespace": {"value": "shop"},
        "shop:host": {"value": "-5ecret", "secret": True},
        "shop:services": {"value": json.dumps(services), "secret": True},
        "shop:canaryWeight": {"value": "5ecret", "secret": True},
    }
    (fake.folder / "config").write_text(json.dumps(decrypted))
    done = fake.run("status", "--stack", "dev")
    assert "services.cart.port = hunter\n" in done.err
    assert done.err.count("= (secret)") == 3
    assert "5ecret" not in done.err


def test_an_abort_does_not_ask_the_engine_where_the_cluster_is(fake: Fake) -> None:
    fake.run("abort", "--stack", "dev", "--yes")
    assert not (fake.folder / "calls").exists()


def test_an_abort_asks_the_engine_for_what_the_file_encrypts(fake: Fake) -> None:
    content = json.loads(Path("Pulumi.dev.yaml").read_text())
    content["config"]["kubernetes:kubeconfig"] = {"secure": "v1:x"}
    Path("Pulumi.dev.yaml").write_text(json.dumps(content))
    fake.run("abort", "--stack", "dev", "--yes")
    assert "config --json --show-secrets --stack dev" in (fake.folder / "calls").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(fake: Fake, command: tuple[str, ...]) -> None:
    done = fake.run(command[0], "--help")
    assert done.code == 0
    assert f"canary {command[0]}" in done.out
    assert "Exit codes: 0" in " ".join(done.out.split())


class Unreadable:
    """A cluster whose routes cannot be read: no object of the service `cart`, or none at all."""

    def __init__(self, settings: Settings, *, answers: bool) -> None:
        self.settings = settings
        self.routes = self
        self._answers = answers

    def read(self) -> dict[str, LiveService]:
        if not self._answers:
            raise UnknownKindError("router traefik needs TraefikService")
        return {"cart": LiveService(unreadable="two rules"), "shop": LiveService()}

    def lower(self, weights: Mapping[str, int]) -> dict[str, Split]:
        raise ClusterError(f"{', '.join(weights)}: the weight is not lowered: two rules")


class Updates:
    """A stack whose updates fail, or end and change nothing."""

    declared: ClassVar[list[Changes]] = []
    error: ClassVar[EngineError | None] = None

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set(self, changes: Changes) -> None:
        self.declared.append(changes)

    def up(self, _: object) -> EventStream:
        if self.error:
            raise self.error
        return read([])


@pytest.mark.parametrize(
    ("answers", "error"), [(True, None), (True, EngineError("it failed")), (False, EngineError("it failed"))]
)
def test_an_abort_never_claims_a_weight_that_it_could_not_read_back(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, error: EngineError | None, *, answers: bool
) -> None:
    file = json.loads(Path("Pulumi.dev.yaml").read_text())
    Path("Pulumi.dev.yaml").write_text(json.dumps({"config": file["config"] | {"shop:canaryWeight": "20"}}))
    monkeypatch.setattr("canary_service.cli.release.connect", lambda _: None)
    monkeypatch.setattr(
        "canary_service.cli.release.LiveCluster", lambda _, settings: Unreadable(settings, answers=answers)
    )
    monkeypatch.setattr("canary_service.cli.release.Stack", Updates)
    monkeypatch.setattr(Updates, "declared", [])
    monkeypatch.setattr(Updates, "error", error)

    done = fake.run("abort", "--stack", "dev", "--yes")

    assert done.code == 4
    assert "cart: canary ? → 0 %" in done.out
    assert "Warning: not cut off ahead of the update: cart: the weight is not lowered: two rules" in done.err
    assert ("two rules" if answers else "router traefik needs TraefikService") in done.err
    assert ("cart: NO WEIGHT READ BACK, the canary may get requests: two rules" in done.out) == answers
    assert "no canary" not in done.out + done.err
    assert Updates.declared == [{"canaryWeight": "0"}]


def test_only_what_has_a_canary_is_chosen() -> None:
    settings = load({"namespace": "shop", "host": "shop.example", "services": json.dumps(SERVICES)})
    project = Project(Path(), "shop", "dev", settings, {})
    assert chosen(project, [], ["cart"]) == chosen(project, ["cart"], ["cart"]) == ["cart"]
    for names, having, told in (
        (["card"], ["cart"], "no service is called card; stack dev has cart, shop"),
        (["shop"], ["cart"], "shop has no canary; those that have one: cart"),
        ([], [], "no service of stack dev has a canary"),
    ):
        with pytest.raises(click.UsageError, match=told):
            chosen(project, names, having)


def test_verify_sends_nothing_from_outside_into_a_mesh(fake: Fake) -> None:
    config = json.loads((fake.folder / "config").read_text())
    (fake.folder / "config").write_text(json.dumps(config | {"shop:router": {"value": "linkerd"}}))
    done = fake.run("verify", "--stack", "dev", "--url", "http://192.0.2.1", "--version-header", "X-Version")
    assert done.code == 1
    assert "router linkerd shares out what clients in the mesh send, and this is none: --passive looks" in done.err
