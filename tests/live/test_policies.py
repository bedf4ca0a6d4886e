"""The policy pack in real previews: each rule stops one that breaks it, and the shipped stacks pass."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightkube import ApiError, Client
from lightkube.resources.core_v1 import ConfigMap

from canary_policies.catalog import RULES
from canary_policies.rule import Rule
from demo.stack import CHECKOUT, StackCopy
from sandbox.lifecycle import Sandbox
from tests.unit.policies.samples import CONFIG, Manifest, changed, manifest, valid
from tests.unit.policies.test_mutations import ADDED, MUTATIONS

PACK = CHECKOUT / "policies"

PROJECT = "name: manifests\nruntime: {name: python, options: {toolchain: uv, virtualenv: .venv}}\n"

# `{"idOf": NAME}` in a manifest is what the provider will give an object before it, unknown in a preview.
PROGRAM = """
import json
from importlib.metadata import version
from pathlib import Path

import pulumi


def resolved(value):
    if isinstance(value, dict) and "idOf" in value:
        return made[value["idOf"]].id
    if isinstance(value, dict):
        return {key: resolved(inside) for key, inside in value.items()}
    return [resolved(inside) for inside in value] if isinstance(value, list) else value


made = {}
for manifest in json.loads(Path("manifests.json").read_text()):
    group = manifest["apiVersion"] if "/" in manifest["apiVersion"] else f"core/{manifest['apiVersion']}"
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    options = pulumi.ResourceOptions(version=version("pulumi-kubernetes"))
    token = f"kubernetes:{group}:{kind}"
    made[f"{kind} {name}"] = pulumi.CustomResource(token, name, resolved(manifest), options)
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str

    @property
    def findings(self) -> dict[str, list[str]]:
        """The lines of each finding, by level and rule: what the engine says first, then why, then our message."""
        found: dict[str, list[str]] = {}
        lines = [line.strip() for line in self.output.splitlines()]
        for number, line in enumerate(lines):
            if match := re.match(r"- \[(mandatory|advisory)\]\s+(\S+)\s", line):
                found[f"{match[1]} {match[2]}"] = lines[number : number + 3]
        return found


class Program:
    def __init__(self, stack: StackCopy) -> None:
        self._stack = stack

    def run(self, command: Sequence[str], manifests: Sequence[Manifest], config: Mapping[str, Any]) -> Outcome:
        (self._stack.folder / "manifests.json").write_text(json.dumps(manifests))
        (self._stack.folder / "policies.json").write_text(json.dumps(config))
        return with_pack(self._stack, command, self._stack.folder / "policies.json")

    def preview(self, manifests: Sequence[Manifest], **config: Any) -> Outcome:  # noqa: ANN401 - as JSON has it
        return self.run(["preview"], manifests, {"all": "mandatory", **CONFIG} | config)


def with_pack(stack: StackCopy, command: Sequence[str], config: Path) -> Outcome:
    program = shutil.which("pulumi", path=stack.environment["PATH"])
    assert program
    pack = ["--policy-pack", str(PACK), "--policy-pack-config", str(config)]
    done = subprocess.run(
        [program, *command, "--non-interactive", "--color", "never", *pack],
        cwd=stack.folder,
        env={**stack.environment, "PULUMI_STACK": stack.name},
        check=False,
        capture_output=True,
        text=True,
    )
    return Outcome(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def program(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("policies") / "manifests"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(PROJECT)
    (folder / "__main__.py").write_text(PROGRAM)
    for part in (".venv", "pyproject.toml", "uv.lock"):
        (folder / part).symlink_to(CHECKOUT / part)
    return Program(StackCopy.initialise(folder, "dev", sandbox.environment))


def breaking(rule: Rule) -> list[Manifest]:
    """Return a stack that breaks a rule, and no other that reads the same objects."""
    if rule.name == "one-canary-per-service":
        return [*valid(), *ADDED["a second canary of a Service"][0]]
    fitting = [found for found in MUTATIONS if rule.name in found.broken]
    mutation = min(fitting, key=lambda found: len(found.broken))
    return changed(valid(), mutation.of, *mutation.changes)


def test_a_stack_that_breaks_no_rule_passes_though_all_are_on(program: Program) -> None:
    outcome = program.preview(valid())

    assert outcome.findings == {}
    assert outcome.code == 0, outcome.output


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_stops_a_preview_and_names_object_reason_and_fix(program: Program, rule: Rule) -> None:
    manifests = [found for found in breaking(rule) if found["kind"] in rule.kinds]

    outcome = program.preview(manifests)

    assert list(outcome.findings) == [f"mandatory {rule.name}"], outcome.output
    _, why, message = outcome.findings[f"mandatory {rule.name}"]
    assert why == rule.why
    named, _, rest = message.partition(": ")
    reason, _, fix = rest.partition(". Fix: ")
    assert named in {f"{found['kind']} shop/{found['metadata']['name']}" for found in manifests}
    assert reason
    assert fix == rule.fix
    assert outcome.code != 0


def test_a_value_that_a_preview_does_not_know_hides_no_violation(program: Program) -> None:
    made = manifest("ConfigMap", "first", data={"GREETING": "hello"})
    unknown = {"idOf": "ConfigMap first"}
    later = manifest("ConfigMap", "second", data={"API_TOKEN": "hunter22", "OTHER_TOKEN": unknown})

    outcome = program.preview([made, later])

    assert list(outcome.findings) == ["mandatory no-plain-secrets"]
    assert "ConfigMap shop/second: key API_TOKEN has a secret in plain text" in outcome.output
    assert "OTHER_TOKEN" not in outcome.output
    assert "can't run policy" not in outcome.output
    assert outcome.code != 0


def test_an_update_stops_before_it_makes_the_object(program: Program, cluster: Client, namespace: str) -> None:
    guilty = manifest("ConfigMap", "guilty", data={"API_TOKEN": "hunter22"})
    guilty["metadata"]["namespace"] = namespace

    outcome = program.run(["up", "--yes", "--skip-preview"], [guilty], {})

    assert list(outcome.findings) == ["mandatory no-plain-secrets"]
    assert outcome.code != 0
    with pytest.raises(ApiError, match="not found"):
        cluster.get(ConfigMap, "guilty", namespace=namespace)


def test_an_advisory_finding_is_said_and_stops_nothing(program: Program) -> None:
    guilty = manifest("ConfigMap", "guilty", data={"API_TOKEN": "hunter22"})

    outcome = program.preview([guilty], **{"no-plain-secrets": "advisory"})

    assert list(outcome.findings) == ["advisory no-plain-secrets"]
    assert outcome.code == 0


def test_a_misspelled_option_stops_the_preview_and_names_those_there_are(program: Program) -> None:
    ingress = [found for found in valid() if found["kind"] == "Ingress"]

    outcome = program.preview(ingress, **{"max-weight": {"maxWieght": 10}})

    assert "max-weight has no option maxWieght: choose maxWeight, override, canary" in outcome.output
    assert outcome.code != 0


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_shipped_stacks_pass(sandbox: Sandbox, namespace: str, tmp_path: Path, name: str) -> None:
    stack = StackCopy.create(tmp_path / "project", name, sandbox.environment)
    shutil.copyfile(CHECKOUT / f"Pulumi.{name}.yaml", stack.folder / f"Pulumi.{name}.yaml")
    stack.set("namespace", namespace)  # other tests of the same cluster may have used the shipped one

    outcome = with_pack(stack, ["preview"], PACK / f"{name}.json")

    assert "canary-policies" in outcome.output
    assert outcome.findings == {}, outcome.output
    assert outcome.code == 0, outcome.output
