"""The steps of the workflows, one after the other as a runner would take them, against a real engine and cluster."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lightkube import Client
from lightkube.resources.core_v1 import Namespace

from sandbox.lifecycle import Sandbox
from tests.github import ACTION, ROOT, TOKEN, GitHub, Runner
from tests.live.account import DEPLOY, PREVIEW, Account, install
from tests.live.scene import CANARY, GOOD_CANARY, Scene

MARKER = "<!-- canary-plan:dev -->"


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub().serving() as serving:
        yield serving


@pytest.fixture
def scene(sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path) -> Scene:
    """Return a scene whose stack is a checkout with a commit."""
    made = Scene.create(sandbox, cluster, namespace, tmp_path)
    install(made, tmp_path)
    for name in (".github", "bootstrap.sh", "cli", "observability", "policies"):
        if not (made.stack.folder / name).exists():
            (made.stack.folder / name).symlink_to(ROOT / name)
    commit = "git init --quiet && git -c user.name=a -c user.email=a@example commit --quiet --allow-empty -m 'A shift'"
    subprocess.run(["/bin/sh", "-c", commit], cwd=made.stack.folder, check=True)
    return made


def runner_of(scene: Scene, account: str, github: GitHub, folder: Path) -> Runner:
    """Return a runner whose earlier steps have made the account and the backend ready."""
    home = folder / account
    home.mkdir()
    mine = {"KUBECONFIG", "PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"}
    base = {name: value for name, value in scene.stack.environment.items() if name not in mine}
    runner = Runner(scene.stack.folder, home, github, base)
    assert not runner.run(ACTION.name, "Install what uv.lock names").returncode
    reached = runner.run(
        ACTION.name,
        "Reach the cluster and the backend",
        CLUSTER_KUBECONFIG=Account.of(scene, account, folder).kubeconfig.read_text(),
        EKS_CLUSTER="",
        PULUMI_BACKEND_URL=scene.stack.environment["PULUMI_BACKEND_URL"],
        PULUMI_ORGANIZATION="",
    )
    assert not reached.returncode, reached.stderr
    return runner


def plan(runner: Runner) -> tuple[int, str]:
    """Plan and comment; return the exit code of the plan, and the comment."""
    planned = runner.run("preview.yml", "Plan", STACK="dev", PULUMI_CONFIG_PASSPHRASE="")
    commented = runner.run("preview.yml", "Comment", GITHUB_TOKEN=TOKEN, PULL_REQUEST="3")
    assert not commented.returncode, commented.stderr
    (comment,) = runner.github.bodies("/issues/3/comments")
    return planned.returncode, comment


def test_a_change_is_planned_commented_deployed_and_watched(scene: Scene, github: GitHub, tmp_path: Path) -> None:
    scene.configure(weight=20, canary=GOOD_CANARY)
    reader, writer = (runner_of(scene, account, github, tmp_path) for account in (PREVIEW, DEPLOY))

    backend = Path(scene.stack.environment["PULUMI_BACKEND_URL"].removeprefix("file://"))
    before = {path: path.read_bytes() for path in backend.rglob("*") if path.is_file()}
    code, comment = plan(reader)
    assert code == 0, comment
    assert comment.startswith(f"{MARKER}\n")
    assert scene.weight() is None
    assert {path: path.read_bytes() for path in backend.rglob("*") if path.is_file()} == before

    updated = writer.run("deploy.yml", "Update", STACK="dev", PULUMI_CONFIG_PASSPHRASE="")
    assert not updated.returncode, updated.stdout + updated.stderr
    assert scene.weight() == 20
    assert "A shift" in scene.stack.run("stack", "history", "--json")

    def compare() -> None:
        compared = reader.run("drift.yml", "Compare", STACK="dev", PULUMI_CONFIG_PASSPHRASE="")
        assert not compared.returncode, compared.stdout + compared.stderr
        told = reader.run("drift.yml", "Open, update or close the issue", STACK="dev", GITHUB_TOKEN=TOKEN)
        assert not told.returncode, told.stderr

    compare()
    assert github.bodies("/issues") == []
    scene.kubectl("annotate", "--overwrite", "ingress", CANARY, "nginx.ingress.kubernetes.io/canary-weight=60")
    compare()
    (issue,) = github.lists["/issues"]
    assert "was changed by kubectl" in issue["body"]
    scene.kubectl("annotate", "--overwrite", "ingress", CANARY, "nginx.ingress.kubernetes.io/canary-weight=20")
    writer.run("deploy.yml", "Update", STACK="dev", PULUMI_CONFIG_PASSPHRASE="")
    compare()
    assert issue["state"] == "closed"


def test_what_a_policy_forbids_fails_the_plan_is_told_in_the_comment_and_not_deployed(
    scene: Scene, github: GitHub, tmp_path: Path
) -> None:
    scene.configure(image="registry.example/app:latest")
    writer = runner_of(scene, DEPLOY, github, tmp_path)

    code, comment = plan(writer)
    assert code == 6
    assert "latest" in comment

    assert writer.run("deploy.yml", "Update", STACK="dev", PULUMI_CONFIG_PASSPHRASE="").returncode
    assert scene.pods("stable") == {}


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"CLUSTER_KUBECONFIG": ""}, "neither the variable EKS_CLUSTER nor the secret KUBECONFIG"),
        ({"PULUMI_BACKEND_URL": ""}, "set the variable PULUMI_ORGANIZATION or PULUMI_BACKEND_URL"),
    ],
)
def test_an_environment_without_cluster_or_backend_is_told_what_it_lacks(
    sandbox: Sandbox, github: GitHub, tmp_path: Path, missing: dict[str, str], message: str
) -> None:
    runner = Runner(ROOT, tmp_path, github, sandbox.environment)
    given = {"CLUSTER_KUBECONFIG": "a: b", "EKS_CLUSTER": "", "PULUMI_BACKEND_URL": "s3://b", "PULUMI_ORGANIZATION": ""}

    done = runner.run(ACTION.name, "Reach the cluster and the backend", **(given | missing))

    assert done.returncode == 1
    assert message in done.stdout


def test_the_commands_of_the_guide_to_rights_give_an_account_that_can_deploy(
    sandbox: Sandbox, cluster: Client, namespace: str, tmp_path: Path
) -> None:
    own = f"{namespace}-guide"
    text = (ROOT / "docs" / "rbac.md").read_text().replace("macromind", own)
    commands = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    ") and "error:" not in line)
    shutil.copytree(ROOT / "rbac", tmp_path / "rbac")
    kustomization = tmp_path / "rbac" / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("macromind", own))
    scene = Scene.create(sandbox, cluster, own, tmp_path)
    try:
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", commands],
            cwd=tmp_path,
            env=dict(sandbox.environment),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr

        kubeconfig = str(tmp_path / "deploy.kubeconfig")
        stack = replace(scene.stack, environment=dict(scene.stack.environment) | {"KUBECONFIG": kubeconfig})
        stack.set("createNamespace", "true")
        stack.up()
        assert scene.ready_pods("stable") == 2
    finally:
        cluster.delete(Namespace, own)
