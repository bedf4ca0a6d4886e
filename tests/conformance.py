"""What the conformance suite has found, and the table in docs/routers.md that is made of it.

`python -m tests.conformance` takes build/conformance.json, which the suite writes, over into the documents.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOUND: Final = ROOT / "build" / "conformance.json"
STORED: Final = ROOT / "docs" / "conformance.json"
DOCUMENT: Final = ROOT / "docs" / "routers.md"
_BEGIN: Final = "<!-- made of conformance.json by `python -m tests.conformance` -->\n"
_END: Final = "<!-- end -->\n"


class Results:
    """What was found in each case, by router: `routers` are those of the table, in its order."""

    def __init__(self, routers: Iterable[str]) -> None:
        self._found: dict[str, dict[str, str]] = {router: {} for router in routers}

    def add(self, router: str, case: str, found: str) -> None:
        """Note what was found, in a few words."""
        self._found[router][case] = found

    def write(self) -> None:
        """Write it down beside what earlier runs have found of other cases."""
        FOUND.parent.mkdir(exist_ok=True)
        known: dict[str, dict[str, str]] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
        merged = {router: known.get(router, {}) | cases for router, cases in self._found.items()}
        FOUND.write_text(json.dumps(merged, indent=2) + "\n")


def table(found: dict[str, dict[str, str]]) -> str:
    """Return what was found as a Markdown table, a column for each router."""
    cases = dict.fromkeys(case for results in found.values() for case in results)
    rows = [["case", *found], ["---"] * (len(found) + 1)]
    rows += [[case, *(results.get(case, "") for results in found.values())] for case in cases]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def in_document() -> str:
    """Return the table as it stands in the document."""
    return DOCUMENT.read_text().partition(_BEGIN)[2].partition(_END)[0]


def main() -> None:
    """Take over what was found."""
    found = json.loads(FOUND.read_text())
    STORED.write_text(json.dumps(found, indent=2) + "\n")
    before, _, rest = DOCUMENT.read_text().partition(_BEGIN)
    DOCUMENT.write_text(before + _BEGIN + table(found) + _END + rest.partition(_END)[2])


if __name__ == "__main__":
    main()
