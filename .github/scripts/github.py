#!/usr/bin/env python3
"""What the workflows tell and ask GitHub. Each text stands in one place, which is kept up to date.

It is found again by its first line, a hidden marker such as `<!-- canary-plan:dev -->`, and by its author. Needs
GITHUB_REPOSITORY, GITHUB_TOKEN and GITHUB_API_URL, and nothing but Python.
"""

import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

AUTHOR: Final = "github-actions[bot]"
"""Whose token workflows have. Anybody can write a marker; what others wrote is left alone."""

LIMIT: Final = 65_536
"""The most characters that GitHub takes as a comment or a description."""

_CUT: Final = "\n\n_The rest does not fit in here; the log has it._"
_TIMEOUT_SECONDS: Final = 30


class GitHubError(Exception):
    """GitHub refused a request or could not be asked."""


class Repository:
    """The repository whose workflow this runs in."""

    def __init__(self) -> None:
        self._url = f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}"
        self._headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Content-Type": "application/json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def send(self, method: str, path: str, **fields: str) -> None:
        """Make or change something.

        Raises:
            GitHubError: it was refused.
        """
        self._asked(method, f"{self._url}{path}", json.dumps(fields).encode())

    def all(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list, of which GitHub gives a page at a time.

        Raises:
            GitHubError: the list cannot be read.
        """
        url: str | None = f"{self._url}{path}{'&' if '?' in path else '?'}per_page=100"
        while url:
            content, link = self._asked("GET", url)
            yield from json.loads(content)
            following = re.search(r'<([^>]+)>; rel="next"', link)
            url = following and following[1]

    def _asked(self, method: str, url: str, data: bytes | None = None) -> tuple[bytes, str]:
        request = urllib.request.Request(url, data, self._headers, method=method)  # noqa: S310 - GitHub's own address
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - likewise
                return answer.read(), answer.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            raise GitHubError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')}") from error
        except OSError as error:
            raise GitHubError(f"{method} {url}: {error}") from error


def comment(repository: Repository, pull_request: int, text: str) -> None:
    """Write a comment on a pull request, or change the one that is there."""
    found = _own(repository.all(f"/issues/{pull_request}/comments"), _marker(text))
    if found:
        repository.send("PATCH", f"/issues/comments/{found['id']}", body=text)
    else:
        repository.send("POST", f"/issues/{pull_request}/comments", body=text)


def issue(repository: Repository, marker: str, title: str, text: str) -> None:
    """Open an issue or change the one that is open; without a text, close it."""
    found = _own(repository.all("/issues?state=open"), marker)
    if found and text:
        repository.send("PATCH", f"/issues/{found['number']}", body=text)
    elif found:
        repository.send("PATCH", f"/issues/{found['number']}", state="closed", state_reason="completed")
    elif text:
        repository.send("POST", "/issues", title=title, body=text)


def pull_request(repository: Repository, branch: str, title: str, text: str) -> None:
    """Open a pull request from a branch to `main`, or change the one that is open."""
    owner = os.environ["GITHUB_REPOSITORY"].split("/")[0]
    found = next(repository.all(f"/pulls?state=open&head={quote(f'{owner}:{branch}')}"), None)
    if found:
        repository.send("PATCH", f"/pulls/{found['number']}", body=text)
    else:
        repository.send("POST", "/pulls", title=title, body=text, head=branch, base="main")


def deployed(repository: Repository, environment: str) -> str:
    """Return the commit that an environment has, empty while one is being deployed or if there is none."""
    for deployment in repository.all(f"/deployments?environment={quote(environment)}"):
        states = [status["state"] for status in repository.all(f"/deployments/{deployment['id']}/statuses")]
        if states and states[0] == "in_progress":
            return ""
        if "success" in states:  # it stays in the list when a later deployment makes this one inactive
            return str(deployment["sha"])
    return ""


def _own(entries: Iterator[dict[str, Any]], marker: str) -> dict[str, Any] | None:
    for entry in entries:
        lines = (entry.get("body") or "").splitlines()
        if lines[:1] == [marker] and entry["user"]["login"] == AUTHOR and "pull_request" not in entry:
            return entry
    return None


def _marker(text: str) -> str:
    marker = text.partition("\n")[0]
    if not re.fullmatch(r"<!-- \S+ -->", marker):
        raise GitHubError(f"the text has no marker, by which it could be found again: {marker!r}")
    return marker


def _text(file: Path) -> str:
    """Return a file's text with a link to the run, cut so that GitHub takes it."""
    text = file.read_text(encoding="utf-8").rstrip()
    if not text:
        return ""
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}".format_map(os.environ)
    end = f"\n\n[The run]({run})\n"
    if len(text) + len(end) > LIMIT:
        end = _CUT + end
        text = text[: LIMIT - len(end)].rpartition("\n")[0]
    return text + end


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("comment", help="write a file as comment on a pull request")
    command.add_argument("pull_request", type=int)
    command.add_argument("file", type=Path)
    command = commands.add_parser("issue", help="write a file as issue; an empty one closes it")
    command.add_argument("marker")
    command.add_argument("file", type=Path)
    command.add_argument("--title", required=True)
    command = commands.add_parser("pull-request", help="propose a branch, described by a file")
    command.add_argument("branch")
    command.add_argument("file", type=Path)
    command.add_argument("--title", required=True)
    command.add_argument("--run", metavar="WORKFLOW", required=True, help="workflow to start on the branch")
    command = commands.add_parser("deployed", help="print the commit that an environment has")
    command.add_argument("environment")
    given = parser.parse_args()
    try:
        repository = Repository()
        match given.command:
            case "comment":
                comment(repository, given.pull_request, _text(given.file))
            case "issue":
                issue(repository, given.marker, given.title, _text(given.file))
            case "pull-request":
                pull_request(repository, given.branch, given.title, _text(given.file))
                repository.send("POST", f"/actions/workflows/{given.run}/dispatches", ref=given.branch)
            case _:
                sys.stdout.write(f"{deployed(repository, given.environment)}\n")
    except GitHubError as error:
        sys.exit(f"GitHub: {error}")
    except KeyError as error:
        sys.exit(f"{error} is not set: this runs in a workflow of GitHub")


if __name__ == "__main__":
    main()
