#!/usr/bin/env python3
"""Writes a file as note on the merge request, or changes the one that has the same first line and the same author.

Runs in a merge request's pipeline with GITLAB_TOKEN, a project access token, and needs nothing but Python.
"""

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_API = os.environ["CI_API_V4_URL"]
_NOTES = f"/projects/{os.environ['CI_PROJECT_ID']}/merge_requests/{os.environ['CI_MERGE_REQUEST_IID']}/notes"
_TIMEOUT_SECONDS = 30


def asked(path: str, method: str = "GET", **fields: str) -> tuple[Any, str]:
    """Return what GitLab answers, and the number of the next page, empty on the last."""
    headers = {"PRIVATE-TOKEN": os.environ["GITLAB_TOKEN"], "Content-Type": "application/json"}
    data = json.dumps(fields).encode() if fields else None
    request = urllib.request.Request(_API + path, data, headers, method=method)  # noqa: S310 - GitLab's own address
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - likewise
        return json.load(answer), answer.headers.get("X-Next-Page", "")


def notes() -> Iterator[dict[str, Any]]:
    """Yield all notes of the merge request."""
    page = "1"
    while page:
        entries, page = asked(f"{_NOTES}?per_page=100&page={page}")
        yield from entries


def main() -> None:
    """Write or change the note."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    author, _ = asked("/user")
    for note in notes():
        if note["author"]["id"] == author["id"] and note["body"].splitlines()[:1] == text.splitlines()[:1]:
            asked(f"{_NOTES}/{note['id']}", "PUT", body=text)
            return
    asked(_NOTES, "POST", body=text)


if __name__ == "__main__":
    main()
