"""How the rollout is shown: a live table on a terminal, one line for each event elsewhere."""

import time
from collections.abc import Mapping
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.rollout import Row, Shift
from sandbox.traffic import Tally

_BAR_WIDTH: Final = 20


class LinesView:
    """One line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def phase(self, text: str) -> None:
        """Say what begins."""
        self._say(text)

    def shifted(self, shift: Shift) -> None:
        """Say what was counted."""
        self._say(
            f"  {shift.service}: {shift.weight} % declared and read back, "
            f"{shift.canary_requests} of {shift.requests} requests answered by the canary "
            f"(pulumi up {shift.up_seconds:.1f} s)"
        )

    def _say(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(f"{elapsed:6.1f} s  {text}", highlight=False, markup=False, soft_wrap=True)


class TableView:
    """A table that is drawn anew while the rollout goes on; a context manager."""

    def __init__(self, console: Console, rows: Mapping[str, Row], totals: Mapping[str, Tally]) -> None:
        self._rows = rows
        self._totals = totals
        self._started = self._phase_started = time.monotonic()
        self._phase = ""
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=5)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.refresh()
        self._live.stop()

    def phase(self, text: str) -> None:
        """Show another phase under the table."""
        self._phase, self._phase_started = text, time.monotonic()

    def shifted(self, shift: Shift) -> None:
        """Nothing more: the table shows the share."""

    def _render(self) -> RenderableType:
        table = Table(title="Canary rollout", title_justify="left", expand=False)
        for heading in ("service", "declared", "read back", "measured", "", "requests", "failed"):
            table.add_column(heading, justify="left" if heading in ("service", "") else "right", no_wrap=True)
        for name, row in self._rows.items():
            total = self._totals[name]
            table.add_row(
                name,
                _percent(row.declared),
                _percent(row.read_back),
                "…" if row.measured is None else f"{row.measured:.1f} %",
                _bar(row.measured),
                f"{total.requests:,}",
                Text(str(total.failed), style="bold red" if total.failed else "green"),
            )
        now = time.monotonic()
        phase = f"{now - self._started:5.0f} s  {self._phase} ({now - self._phase_started:.0f} s)"
        return Group(table, Text(phase, style="dim"))


def _percent(weight: int | None) -> str:
    return "…" if weight is None else f"{weight} %"


def _bar(share: float | None) -> Text:
    filled = round((share or 0) * _BAR_WIDTH / 100)
    return Text("█" * filled, style="yellow") + Text("░" * (_BAR_WIDTH - filled), style="dim")
