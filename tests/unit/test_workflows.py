"""The workflows keep what docs/ci.md says of them, and their scripts do their work where only GitHub is played."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.github import ACTION, BOT, LIMIT, ROOT, TOKEN, WORKFLOWS, GitHub, Runner, steps

NEEDS_GITHUB = {"Let an ordinary user have namespaces, as the sandbox needs"}
RUN_BY_LIVE_TESTS = {"Reach the cluster and the backend", "Plan", "Update", "Compare"}
RUN_BY_THIS_SUITE = {"Find or build the toolchain", "make test"}
RUN_HERE = {
    "Ask which commit is deployed",
    "Comment",
    "Install what uv.lock names",
    "Open, update or close the issue",
    "Propose the newest versions",
}
COMMENTS = "/issues/12/comments"
PLAN = "<!-- canary-plan:dev -->\n### `dev`: auth-service 20 → 50 %"


def workflow(name: str) -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text())
    return content


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS.glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            yield file.stem, job


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub().serving() as serving:
        yield serving


@pytest.fixture
def runner(github: GitHub, tmp_path: Path) -> Runner:
    (tmp_path / "runner").mkdir()
    base = {name: os.environ[name] for name in ("PATH", "HOME")}
    return Runner(ROOT, tmp_path / "runner", github, base)


def comment(runner: Runner, text: str) -> subprocess.CompletedProcess[str]:
    (runner.folder / "plan.md").write_text(text)
    return runner.run("preview.yml", "Comment", GITHUB_TOKEN=TOKEN, PULL_REQUEST="12")


class TestWorkflows:
    def test_every_action_is_pinned_by_a_commit_that_its_version_is_written_beside(self) -> None:
        used = [
            line.split("uses:", 1)[1].strip()
            for file in (ACTION, *WORKFLOWS.glob("*.yml"))
            for line in file.read_text().splitlines()
            if re.match(r"\s*(- )?uses:", line)
        ]
        foreign = {line for line in used if not line.startswith("./")}

        assert [line for line in foreign if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
        names = [re.split("[@ ]", line)[0] for line in foreign]
        assert len(names) == len(set(names)), "one action, one commit"

    def test_nothing_runs_with_rights_on_the_code_of_a_stranger(self) -> None:
        for file in WORKFLOWS.glob("*.yml"):
            assert not re.search(r"^\s*(pull_request_target|workflow_run):", file.read_text(), re.MULTILINE)
        for name, job in jobs():
            rights = workflow(name)["permissions"] | job.get("permissions", {})
            assert (
                "pull_request" not in workflow(name)[True]
                or rights == {"contents": "read"}
                or ("github.event.pull_request.head.repo.full_name == github.repository" in job["if"])
            )

    def test_a_right_to_write_is_given_where_it_is_used_only(self) -> None:
        written = {
            (name, right)
            for name, job in jobs()
            for right, access in (workflow(name)["permissions"] | job.get("permissions", {})).items()
            if access != "read"
        }

        assert written == {
            ("preview", "id-token"),
            ("preview", "pull-requests"),
            ("deploy", "id-token"),
            ("drift", "id-token"),
            ("drift", "issues"),
            ("dependencies", "actions"),
            ("dependencies", "contents"),
            ("dependencies", "pull-requests"),
        }

    def test_only_who_pushes_keeps_credentials_in_the_checkout(self) -> None:
        for name, job in jobs():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert (step["with"].get("persist-credentials") is False) is (name != "dependencies")

    def test_an_update_is_never_cancelled_and_has_its_stack_for_itself(self) -> None:
        deploy = workflow("deploy")["jobs"]

        for stack, job in deploy.items():
            assert job["concurrency"] == {"group": f"deploy-{stack}", "cancel-in-progress": False}
            assert job["environment"] == job["env"]["STACK"] == stack
        assert deploy["prod"]["needs"] == "dev"

    def test_every_stack_is_previewed_deployed_and_compared(self) -> None:
        stacks = {path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")}

        assert workflow("deploy")["jobs"].keys() == stacks
        assert set(workflow("preview")["jobs"]["plan"]["strategy"]["matrix"]["stack"]) == stacks
        assert set(workflow("drift")["jobs"]["compare"]["strategy"]["matrix"]["stack"]) == stacks

    def test_a_job_that_hangs_is_ended(self) -> None:
        assert [name for name, job in jobs() if not job.get("timeout-minutes")] == []

    def test_every_step_is_run_by_a_test_or_known_to_need_github(self) -> None:
        assert {step.name for step in steps()} == RUN_HERE | RUN_BY_LIVE_TESTS | RUN_BY_THIS_SUITE | NEEDS_GITHUB

    def test_the_shell_scripts_of_steps_pass_shellcheck(self) -> None:
        # actionlint looks into workflows, but not into actions.
        for step in steps():
            checked = subprocess.run(
                [ROOT / ".venv/bin/shellcheck", "--shell=bash", "-"],
                input=step.script,
                text=True,
                capture_output=True,
                check=False,
            )
            assert not checked.returncode, checked.stdout


class TestComment:
    def test_the_first_one_is_written_and_each_later_one_takes_its_place(self, runner: Runner, github: GitHub) -> None:
        for text in (PLAN, f"{PLAN} again", f"{PLAN} once more"):
            assert not comment(runner, text).returncode

        (body,) = github.bodies(COMMENTS)
        assert body == f"{PLAN} once more\n\n[The run](https://github.com/example/shop/actions/runs/7)\n"
        assert [method for method, _, _ in github.written] == ["POST", "PATCH", "PATCH"]

    def test_it_is_found_on_any_page(self, runner: Runner, github: GitHub) -> None:
        github.page = 2
        for number in range(5):
            github.add(COMMENTS, f"remark {number}", user="reviewer")
        github.add(COMMENTS, PLAN)

        assert not comment(runner, f"{PLAN} new").returncode

        assert [method for method, _, _ in github.written] == ["PATCH"]

    @pytest.mark.parametrize(
        ("body", "user"),
        [
            ("<!-- canary-plan:prod -->\nof another stack", BOT),
            (f"I quote:\n{PLAN}", BOT),
            (PLAN, "somebody-else"),
            ("", BOT),
        ],
    )
    def test_what_others_wrote_stays(self, runner: Runner, github: GitHub, body: str, user: str) -> None:
        github.add(COMMENTS, body, user)

        assert not comment(runner, PLAN).returncode

        assert github.bodies(COMMENTS)[0] == body
        assert len(github.bodies(COMMENTS)) == 2

    def test_one_that_is_too_long_is_cut_at_a_line_and_says_so(self, runner: Runner, github: GitHub) -> None:
        line = "- ä long line of an object\n"

        assert not comment(runner, f"{PLAN}\n{line * 4000}").returncode

        (body,) = github.bodies(COMMENTS)
        assert LIMIT - 200 < len(body) <= LIMIT
        assert f"{line}\n_The rest does not fit in here; the log has it._\n\n[The run](" in body

    def test_one_without_a_marker_is_refused(self, runner: Runner, github: GitHub) -> None:
        failed = comment(runner, "no marker")

        assert failed.returncode
        assert "has no marker" in failed.stderr
        assert github.written == []

    def test_a_refusal_is_one_line_that_says_what_github_said(self, runner: Runner, github: GitHub) -> None:
        (runner.folder / "plan.md").write_text(PLAN)

        failed = runner.run("preview.yml", "Comment", GITHUB_TOKEN="wrong", PULL_REQUEST="12")  # noqa: S106 - refused

        assert failed.returncode
        assert failed.stderr == (
            f"GitHub: GET {github.url}/repos/example/shop{COMMENTS}?per_page=100: 401 "
            + json.dumps({"message": "Bad credentials"})
            + "\n"
        )


class TestPlan:
    @pytest.mark.parametrize("code", [0, 1, 4, 6])
    def test_it_ends_as_canary_plan_does_with_the_comment_written(self, runner: Runner, code: int) -> None:
        self._canary(runner, f"echo '{PLAN}'; exit {code}")

        done = runner.run("preview.yml", "Plan", STACK="dev", PULUMI_CONFIG_PASSPHRASE="")

        assert done.returncode == code
        assert (runner.folder / "plan.md").read_text() == f"{PLAN}\n"
        assert done.stdout == f"{PLAN}\n"

    @pytest.mark.parametrize(("ends", "code"), [("exit 1", 1), ("kill -9 $$", 137), ("exit 0", 4)])
    def test_a_plan_that_says_nothing_is_told_in_the_comment(self, runner: Runner, ends: str, code: int) -> None:
        self._canary(runner, ends)

        done = runner.run("preview.yml", "Plan", STACK="dev", PULUMI_CONFIG_PASSPHRASE="")

        assert done.returncode == code
        marker, headline, reason = (runner.folder / "plan.md").read_text().splitlines()
        assert marker == "<!-- canary-plan:dev -->"
        assert headline == "### :x: `dev`: no plan"
        assert reason == f"`canary plan` ended with exit code {code}; the log says why."

    @staticmethod
    def _canary(runner: Runner, does: str) -> None:
        """Let `canary` be something that ends in a way of its own."""
        commands = runner.folder / "bin"
        commands.mkdir()
        program = commands / "canary"
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
        runner.base = {**runner.base, "PATH": f"{commands}:{runner.base['PATH']}"}


class TestDrift:
    MARKER = "<!-- canary-plan:dev -->"

    def issue(self, runner: Runner, text: str) -> None:
        (runner.folder / "drift.md").write_text(text)
        done = runner.run("drift.yml", "Open, update or close the issue", STACK="dev", GITHUB_TOKEN=TOKEN)
        assert not done.returncode, done.stderr

    def test_one_issue_is_opened_kept_up_to_date_and_closed(self, runner: Runner, github: GitHub) -> None:
        self.issue(runner, f"{self.MARKER}\nfirst")
        self.issue(runner, f"{self.MARKER}\nsecond")
        (opened,) = github.lists["/issues"]
        assert opened["title"] == "dev has drifted"
        assert opened["body"].startswith(f"{self.MARKER}\nsecond\n")

        self.issue(runner, "")
        assert opened["state"] == "closed"
        self.issue(runner, "")
        assert len(github.written) == 3

        self.issue(runner, f"{self.MARKER}\nthird")
        assert len(github.lists["/issues"]) == 2

    def test_a_pull_request_with_the_marker_is_no_issue(self, runner: Runner, github: GitHub) -> None:
        github.add("/issues", f"{self.MARKER}\n", pull_request={})

        self.issue(runner, "")

        assert github.written == []

    @pytest.mark.parametrize(
        ("deployments", "expected"),
        [
            ([], ""),
            ([("new", ["success"])], "new"),
            ([("new", ["inactive", "success", "in_progress"])], "new"),
            ([("waits", ["waiting"]), ("old", ["inactive", "success"])], "old"),
            ([("failed", ["failure", "in_progress"]), ("old", ["success"])], "old"),
            ([("runs", ["in_progress", "queued"]), ("old", ["success"])], ""),
            ([("rejected", ["failure"]), ("never", ["error"])], ""),
        ],
    )
    def test_the_stack_is_compared_with_the_commit_that_it_has(
        self, runner: Runner, github: GitHub, deployments: list[tuple[str, list[str]]], expected: str
    ) -> None:
        github.page = 1
        github.add("/deployments", "", environment="dev-preview", sha="of a preview")
        for commit, states in deployments:
            made = github.add("/deployments", "", environment="dev", sha=commit)
            for state in states:
                github.add(f"/deployments/{made['id']}/statuses", "", state=state)

        done = runner.run("drift.yml", "Ask which commit is deployed", STACK="dev", GITHUB_TOKEN=TOKEN)

        assert not done.returncode, done.stderr
        assert runner.outputs == {"commit": expected}

    def test_when_github_cannot_be_asked_nothing_is_taken_for_the_answer(self, runner: Runner) -> None:
        done = runner.run("drift.yml", "Ask which commit is deployed", STACK="dev", GITHUB_TOKEN="wrong")  # noqa: S106 - refused

        assert done.returncode
        assert runner.outputs == {}


class TestInstallation:
    def test_the_commands_of_the_lock_file_are_found_and_the_cli_has_the_version_of_the_sdk(
        self, runner: Runner, tmp_path: Path
    ) -> None:
        runner.checkout = tmp_path / "checkout"
        runner.checkout.mkdir()
        for name in ("bootstrap.sh", "pyproject.toml", "uv.lock"):
            shutil.copy(ROOT / name, runner.checkout)
        (runner.checkout / ".venv").symlink_to(ROOT / ".venv")

        done = runner.run(ACTION.name, "Install what uv.lock names")

        assert not done.returncode, done.stderr
        assert (runner.folder / "path").read_text() == f"{runner.checkout}/.venv/bin\n"
        assert f'name = "pulumi"\nversion = "{runner.outputs["pulumi"]}"' in (ROOT / "uv.lock").read_text()


class TestDependencies:
    @pytest.fixture
    def project(self, runner: Runner, tmp_path: Path) -> Path:
        """Return a checkout, cloned from elsewhere, whose one dependency has one version so far."""
        project = tmp_path / "project"
        project.mkdir()
        self.release(project, "1.0")
        (project / "pyproject.toml").write_text(
            '[project]\nname = "shop"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = ["demo"]\n'
            '[tool.uv]\npackage = false\nno-index = true\nfind-links = ["wheels"]\n'
        )
        (project / "bootstrap.sh").write_text(f"#!/bin/sh\nln -sfn {ROOT}/.venv .venv\n")
        (project / "bootstrap.sh").chmod(0o755)
        (project / ".gitignore").write_text(".venv\nwheels\n")
        shutil.copytree(ROOT / ".github" / "scripts", project / ".github" / "scripts")
        self.shell(project, f"{ROOT}/.venv/bin/uv lock --quiet")
        self.shell(project, "git init --quiet --initial-branch main && git add --all")
        self.shell(project, "git -c user.name=a -c user.email=a@example commit --quiet --message first")
        self.shell(project, "git clone --quiet --bare . ../origin.git && git remote add origin ../origin.git")
        runner.checkout = project
        return project

    def test_newer_versions_are_proposed_in_one_pull_request_that_ci_checks(
        self, runner: Runner, github: GitHub, project: Path
    ) -> None:
        self.release(project, "2.0")
        self.update(runner)

        (made,) = github.lists["/pulls"]
        assert (made["head"], made["base"]) == ("dependencies", "main")
        assert "- Updated demo v1.0 -> v2.0\n" in made["body"]
        changed = self.shell(project, "git --git-dir ../origin.git diff --name-only main dependencies")
        assert changed == "uv.lock\n"
        assert github.written[-1] == ("POST", "/actions/workflows/ci.yml/dispatches", {"ref": "dependencies"})

        made["head"] = "example:dependencies"  # as GitHub's search for it wants
        self.release(project, "3.0")
        self.shell(project, "git switch --quiet main")
        self.update(runner)

        assert len(github.lists["/pulls"]) == 1
        assert "- Updated demo v1.0 -> v3.0\n" in made["body"]

    def test_without_newer_versions_nothing_is_proposed(self, runner: Runner, github: GitHub, project: Path) -> None:
        self.update(runner)

        assert github.written == []
        assert self.shell(project, "git --git-dir ../origin.git branch --list") == "* main\n"

    @staticmethod
    def update(runner: Runner) -> None:
        done = runner.run("dependencies.yml", "Propose the newest versions", GITHUB_TOKEN=TOKEN)
        assert not done.returncode, done.stderr

    @staticmethod
    def release(project: Path, version: str) -> None:
        """Put a version of the dependency where the project looks for it."""
        (project / "wheels").mkdir(exist_ok=True)
        with zipfile.ZipFile(project / "wheels" / f"demo-{version}-py3-none-any.whl", "w") as wheel:
            info = f"demo-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    @staticmethod
    def shell(folder: Path, command: str) -> str:
        done = subprocess.run(["/bin/sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout
