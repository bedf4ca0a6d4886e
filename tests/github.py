"""What the tests of the workflows play: GitHub's API on the loopback, and a runner's steps."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

ROOT: Final = Path(__file__).parents[1]
WORKFLOWS: Final = ROOT / ".github" / "workflows"
ACTION: Final = ROOT / ".github" / "actions" / "stack" / "action.yml"
REPOSITORY: Final = "example/shop"
BOT: Final = "github-actions[bot]"
TOKEN: Final = "token-of-the-run"  # noqa: S105 - of the server below
LIMIT: Final = 65_536


@dataclass
class GitHub:
    """One repository of GitHub's: lists by path, with pages of `page` entries, and what was written to them."""

    url: str = ""
    page: int = 100
    lists: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    written: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator["GitHub"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def add(self, path: str, body: str, user: str = BOT, **more: object) -> dict[str, Any]:
        """Put an entry into a list, as if it had been there."""
        number = 1 + sum(map(len, self.lists.values()))
        entry = {"id": number, "number": number, "body": body, "user": {"login": user}, **more}
        self.lists.setdefault(path, []).append(entry)
        return entry

    def bodies(self, path: str) -> list[str]:
        return [entry["body"] for entry in self.lists.get(path, [])]

    def _get(self, path: str, query: Mapping[str, list[str]]) -> tuple[list[dict[str, Any]], int | None]:
        entries = self.lists.get(path, [])
        for key in ("state", "head", "environment"):
            if key in query:
                entries = [entry for entry in entries if entry.get(key, query[key][0]) == query[key][0]]
        number, size = int(query.get("page", ["1"])[0]), min(self.page, int(query["per_page"][0]))
        following = number + 1 if len(entries) > number * size else None
        return entries[(number - 1) * size : number * size], following

    def _change(self, method: str, path: str, fields: dict[str, Any]) -> HTTPStatus:
        if len(fields.get("body", "")) > LIMIT:
            return HTTPStatus.UNPROCESSABLE_ENTITY
        self.written.append((method, path, fields))
        if path.endswith("/dispatches"):
            return HTTPStatus.NO_CONTENT
        if method == "POST":
            self.add(path, **fields)
            return HTTPStatus.CREATED
        number = int(path.rpartition("/")[2])
        for entry in (entry for entries in self.lists.values() for entry in entries if entry["id"] == number):
            entry.update(fields)
            return HTTPStatus.OK
        return HTTPStatus.NOT_FOUND

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                entries, following = github._get(self._path(), parse_qs(address.query))
                links = {"next": following} if following else {}
                query = re.sub(r"&page=\d+", "", address.query)
                self._answer(
                    HTTPStatus.OK,
                    entries,
                    ", ".join(
                        f'<{github.url}{address.path}?{query}&page={n}>; rel="{name}"' for name, n in links.items()
                    ),
                )

            def do_POST(self) -> None:
                fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(github._change(self.command, self._path(), fields), {})

            do_PATCH = do_POST  # noqa: N815 - the name that the server looks for

            def _path(self) -> str:
                return urlsplit(self.path).path.removeprefix(f"/repos/{REPOSITORY}")

            def _answer(self, status: HTTPStatus, content: object, link: str = "") -> None:
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    status, content = HTTPStatus.UNAUTHORIZED, {"message": "Bad credentials"}
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Link", link)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@dataclass(frozen=True)
class Step:
    """A step that runs a script, with the environment that it and its job declare."""

    file: str
    name: str
    script: str
    variables: tuple[str, ...]


def steps() -> Iterator[Step]:
    """Yield every step that runs a script, of all workflows and the composite action."""
    action = yaml.safe_load(ACTION.read_text())
    for step in action["runs"]["steps"]:
        yield from _step(ACTION.name, step, {})
    for file in sorted(WORKFLOWS.glob("*.yml")):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            for step in job["steps"]:
                yield from _step(file.name, step, job.get("env", {}))


def _step(file: str, step: Mapping[str, Any], of_job: Mapping[str, str]) -> Iterator[Step]:
    if "run" in step:
        assert "${{" not in step["run"], "what GitHub puts into a script can be code of a stranger's"
        yield Step(file, step.get("name", step["run"]), step["run"], (*of_job, *step.get("env", {})))


@dataclass
class Runner:
    """Runs steps one after the other in a checkout, as GitHub's runner does."""

    checkout: Path
    folder: Path
    github: GitHub
    base: Mapping[str, str]
    outputs: dict[str, str] = field(default_factory=dict)

    def run(self, file: str, name: str, **given: str) -> subprocess.CompletedProcess[str]:
        """Run a step; `given` are the values of exactly the variables that it and its job declare."""
        step = next(step for step in steps() if (step.file, step.name) == (file, name))
        assert set(given) == set(step.variables)
        script = self.folder / "step.sh"
        script.write_text(step.script)
        paths, variables, outputs = (self.folder / each for each in ("path", "env", "output"))
        for each in (paths, variables, outputs):
            each.touch()
        done = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.checkout,
            env={
                **self.base,
                **_pairs(variables.read_text()),
                "PATH": ":".join([*reversed(paths.read_text().split()), self.base["PATH"]]),
                "GITHUB_ACTIONS": "true",
                "GITHUB_API_URL": self.github.url,
                "GITHUB_ENV": str(variables),
                "GITHUB_OUTPUT": str(outputs),
                "GITHUB_PATH": str(paths),
                "GITHUB_REPOSITORY": REPOSITORY,
                "GITHUB_RUN_ID": "7",
                "GITHUB_SERVER_URL": "https://github.com",
                "RUNNER_TEMP": str(self.folder),
                **given,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.outputs |= _pairs(outputs.read_text())
        return done


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())
