"""Pictures of a run for the documents: `python -m demo.screens JOURNAL` writes docs/images/{report.png,watch.svg}.

The page is drawn by Chromium, which has to be installed; the view is that of the last look at a canary.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

from canary_service.cli.report import write
from canary_service.cli.view import scene_of
from canary_service.rollout.course import Course
from canary_service.rollout.events import Sampled
from canary_service.rollout.journal import read

_FOLDER: Final = Path(__file__).parents[1] / "docs" / "images"
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_PAGE: Final = (1280, 1000)
_TERMINAL: Final = (100, 20)

# As rich's own, without the window and the fonts that it loads.
_SVG: Final = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px ui-monospace, Menlo, Consolas, monospace; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
<rect fill="#1b1f24" width="{width}" height="{height}" rx="8"/>
<g transform="translate(12, 12)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


def main(journal: Path) -> None:
    """Draw both."""
    _FOLDER.mkdir(exist_ok=True)
    events = read(journal)
    last = max(index for index, event in enumerate(events) if isinstance(event, Sampled))
    console = Console(record=True, file=io.StringIO(), width=_TERMINAL[0], height=_TERMINAL[1], force_terminal=True)
    console.print(scene_of(Course(events[: last + 1]), events[last].at))
    (_FOLDER / "watch.svg").write_text(console.export_svg(code_format=_SVG, unique_id="watch"), encoding="utf-8")
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(_BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        page = write(journal, Path(folder) / "report.html")
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",  # it draws a page of ours, and root has no other way
                "--hide-scrollbars",
                f"--user-data-dir={folder}",
                f"--window-size={_PAGE[0]},{_PAGE[1]}",
                f"--screenshot={_FOLDER / 'report.png'}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
