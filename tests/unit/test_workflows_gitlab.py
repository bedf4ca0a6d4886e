"""The GitLab example does what the GitHub workflows do, as far as it can be run without a GitLab."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.github import ROOT

EXAMPLES = ROOT / "docs" / "examples"
PIPELINE: dict[str, Any] = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())
NOTES = "/projects/5/merge_requests/8/notes"
PAGE = 2
PLAN = "<!-- canary-plan:dev -->\n### a plan\n"


def scripts() -> dict[str, list[str]]:
    """Return the script lines of each job, with those of the jobs that it extends."""
    found = {}
    for name, job in PIPELINE.items():
        lines: list[str] = []
        inherited: dict[str, Any] | None = job if isinstance(job, dict) else None
        while inherited:
            lines = [*inherited.get("before_script", []), *lines, *inherited.get("script", [])]
            inherited = PIPELINE.get(inherited.get("extends", ""))
        if lines:
            found[name] = lines
    return found


@dataclass
class GitLab:
    """The notes of one merge request."""

    url: str = ""
    notes: list[dict[str, Any]] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        gitlab = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                if address.path == "/user":
                    return self._answer({"id": 1})
                assert address.path == NOTES
                page = int(parse_qs(address.query)["page"][0])
                more = str(page + 1) if len(gitlab.notes) > page * PAGE else ""
                return self._answer(gitlab.notes[(page - 1) * PAGE : page * PAGE], more)

            def do_POST(self) -> None:
                assert self.path == NOTES
                gitlab.notes.append({"id": len(gitlab.notes), "author": {"id": 1}, **self._fields()})
                self._answer({})

            def do_PUT(self) -> None:
                gitlab.notes[int(self.path.removeprefix(f"{NOTES}/"))].update(self._fields())
                self._answer({})

            def _fields(self) -> dict[str, str]:
                fields: dict[str, str] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                return fields

            def _answer(self, content: object, more: str = "") -> None:
                body = json.dumps(content).encode()
                self.send_response(200 if self.headers["PRIVATE-TOKEN"] == "secret" else 401)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Next-Page", more)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def gitlab() -> Iterator[GitLab]:
    made = GitLab()
    server = ThreadingHTTPServer(("127.0.0.1", 0), made.handler())
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def planned(gitlab: GitLab, folder: Path, does: str) -> int:
    """Run the script of job `plan` with a `canary` that does something of its own; return its exit code."""
    (folder / ".gitlab").mkdir(exist_ok=True)
    shutil.copy(EXAMPLES / "gitlab_note.py", folder / ".gitlab")
    shutil.copytree(ROOT / ".github" / "scripts", folder / ".github" / "scripts", dirs_exist_ok=True)
    canary = folder / "canary"
    canary.write_text(f"#!/bin/sh\n{does}\n")
    canary.chmod(0o755)
    environment = {
        "CI_API_V4_URL": gitlab.url,
        "CI_MERGE_REQUEST_IID": "8",
        "CI_PROJECT_ID": "5",
        "GITLAB_TOKEN": "secret",
        "PATH": f"{folder}:{os.environ['PATH']}",
        "STACK": "dev",
    }
    script = "\n".join(PIPELINE["plan"]["script"])
    return subprocess.run(
        ["/bin/bash", "-eo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, check=False
    ).returncode


def test_the_note_is_written_once_and_changed_with_each_plan(gitlab: GitLab, tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [
        {"id": 0, "author": {"id": 2}, "body": PLAN},
        {"id": 1, "author": {"id": 1}, "body": "<!-- canary-plan:prod -->\n"},
        {"id": 2, "author": {"id": 1}, "body": ""},
    ]
    gitlab.notes = [dict(note) for note in others]

    assert planned(gitlab, tmp_path, f"printf '{PLAN}'") == 0
    assert planned(gitlab, tmp_path, f"printf '{PLAN}and more'; exit 6") == 6

    assert gitlab.notes[:3] == others
    assert [note["body"] for note in gitlab.notes[3:]] == [f"{PLAN}and more"]


def test_the_scripts_of_its_jobs_pass_shellcheck() -> None:
    assert scripts().keys() == {"test", ".stack", "plan", ".deploy", "deploy-dev", "deploy-prod"}
    for lines in scripts().values():
        checked = subprocess.run(
            [ROOT / ".venv/bin/shellcheck", "--shell=bash", "-"],
            input="\n".join(lines),
            text=True,
            capture_output=True,
            check=False,
        )
        assert not checked.returncode, checked.stdout


def test_it_covers_every_stack_and_gives_each_update_its_stack_for_itself() -> None:
    stacks = {path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml")}

    assert set(PIPELINE["plan"]["parallel"]["matrix"][0]["STACK"]) == stacks
    assert {PIPELINE[f"deploy-{stack}"]["variables"]["STACK"] for stack in stacks} == stacks
    assert PIPELINE[".deploy"]["resource_group"] == "$STACK"
    assert PIPELINE["deploy-prod"]["rules"] == [{"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH", "when": "manual"}]


def test_its_jobs_name_stages_and_templates_that_there_are() -> None:
    keywords = {"stages", "workflow", "default"}
    jobs = {name: job for name, job in PIPELINE.items() if name not in keywords}

    assert [name for name, job in jobs.items() if "extends" in job and job["extends"] not in jobs] == []
    assert {job["stage"] for job in jobs.values() if "stage" in job} == set(PIPELINE["stages"])
