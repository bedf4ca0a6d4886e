"""`python -m sandbox.toolchain`: makes sure that every program of the sandbox is there, and tells where."""

import json
import shlex
import sys
from collections.abc import Mapping

from sandbox.command_line import Parser
from sandbox.toolchain import build, cache
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
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    try:
        if not arguments.dry_run:
            ensure()
        found = locate()
    except ToolchainError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    missing = [name for products in build.missing(found).values() for name in products]
    sys.stdout.write(_json(found, missing) if arguments.json else _text(found, missing))
    return _DONE


def _seconds(found: Mapping[str, Found], missing: list[str]) -> float:
    return Estimate([task.step for task in build.tasks(found)], processors()).remaining() if missing else 0.0


def _json(found: Mapping[str, Found], missing: list[str]) -> str:
    report = {
        "programs": {name: {"path": str(program.path), "origin": program.origin} for name, program in found.items()},
        "missing": missing,
        "build_seconds": round(_seconds(found, missing)),
        "build_bytes": build.space(found),
    }
    return json.dumps(report, indent=2) + "\n"


def _text(found: Mapping[str, Found], missing: list[str]) -> str:
    width = max(map(len, found))
    lines = [f"{name:{width}}  {program.origin:9}  {program.path}" for name, program in found.items()]
    if missing:
        lines.append(
            f"To be built: {', '.join(missing)}\n"
            f"This takes about {roughly(_seconds(found, missing))} and {build.space(found) / 1e9:.1f} GB of disk."
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
