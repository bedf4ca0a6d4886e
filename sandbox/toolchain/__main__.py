"""`python -m sandbox.toolchain`: makes sure that every program of the sandbox is there, and tells where."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence

from sandbox.command_line import Parser
from sandbox.toolchain import build, cache
from sandbox.toolchain.catalog import CATALOG, ON_DEMAND, Module
from sandbox.toolchain.ensure import ensure
from sandbox.toolchain.errors import ToolchainError
from sandbox.toolchain.locate import Found, locate
from sandbox.toolchain.progress import Estimate, processors, roughly

_DONE, _FAILED, _INTERRUPTED = 0, 4, 130


def main() -> int:
    """Run the command and return its exit code: 0 all is there, 1 usage, 4 something cannot be had, 130 interrupted."""
    parser = Parser(
        prog="python -m sandbox.toolchain",
        description="Find or build every program of the sandbox; tell where each is and where it is from.",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be built, and build nothing")
    parser.add_argument("--all", action="store_true", help="build also what only some of the tests ask for")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        if not arguments.dry_run:
            ensure(on_demand=arguments.all)
        found = locate()
    except ToolchainError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    wanted = (*CATALOG, *ON_DEMAND) if arguments.all else CATALOG
    sys.stdout.write(_json(found, wanted) if arguments.json else _text(found, wanted))
    return _DONE


def _missing(found: Mapping[str, Found], wanted: Sequence[Module]) -> list[str]:
    return [name for products in build.missing(found, wanted).values() for name in products]


def _seconds(found: Mapping[str, Found], wanted: Sequence[Module]) -> float:
    if not _missing(found, wanted):
        return 0.0
    return Estimate([task.step for task in build.tasks(found, wanted)], processors()).remaining()


def _json(found: Mapping[str, Found], wanted: Sequence[Module]) -> str:
    report = {
        "programs": {name: {"path": str(program.path), "origin": program.origin} for name, program in found.items()},
        "missing": _missing(found, wanted),
        "build_seconds": round(_seconds(found, wanted)),
        "build_bytes": build.space(found, wanted),
    }
    return json.dumps(report, indent=2) + "\n"


def _text(found: Mapping[str, Found], wanted: Sequence[Module]) -> str:
    width = max(map(len, found))
    lines = [f"{name:{width}}  {program.origin:9}  {program.path}" for name, program in found.items()]
    if missing := _missing(found, wanted):
        lines.append(
            f"To be built: {', '.join(missing)}\n"
            f"This takes about {roughly(_seconds(found, wanted))} and {build.space(found, wanted) / 1e9:.1f} GB "
            "of disk."
        )
    if unused := cache.unused():
        lines.append(
            f"Built for other versions of the sandbox, and only of use to those, "
            f"{sum(map(cache.size, unused)) / 1e9:.1f} GB of disk:\n"
            f"  rm -r {shlex.join(map(str, unused))}"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
