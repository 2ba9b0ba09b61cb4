"""What ``make demo`` shows: on a terminal a table that follows the runs, and otherwise a line for each step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from rich.console import Console, RenderableType

    from airflow_provider_oxen.testing import LocalHub
    from demo.runs import Run

__all__ = ["Screen", "ends_table", "progress_table"]

_COLOURS = {
    "success": "green",
    "failed": "red",
    "upstream_failed": "yellow",
    "skipped": "yellow",
    "deferred": "magenta",
    "running": "cyan",
}
#: After so many seconds without a line, one says how far it is.
_SILENT_SECONDS = 15.0


class Screen:
    """
    A context manager: steps with the seconds since the start, and what is under way now.

    :param console: where to.
    :param clock: seconds that only increase.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._began_at = clock()
        self._said_at = self._began_at
        self._now = ""
        self._spinner = Spinner("dots")
        self._table: Callable[[], RenderableType] | None = None
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,
            transient=True,
            vertical_overflow="visible",
        )

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._began_at

    def step(self, text: str) -> None:
        """Show a step, with the time that has passed."""
        self._now = text
        self._said_at = self._clock()
        self.console.print(f"[{self.seconds:3.0f} s] {text}", soft_wrap=True, markup=False, highlight=False)

    def follow(self, now: str, table: Callable[[], RenderableType] | None = None) -> None:
        """Show what is under way: a sentence and a table where there is a terminal, and now and then the sentence."""
        self._now, self._table = now, table
        if not self.console.is_terminal and self._clock() - self._said_at >= _SILENT_SECONDS:
            self.step(now)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        self._spinner.update(text=Text(f"{self.seconds:.0f} s  {self._now}"))
        return self._spinner if self._table is None else Group(self._table(), self._spinner)


def progress_table(runs: Sequence[Run], hub: LocalHub) -> Table:
    """Show how far each run is. It fits on a terminal of 80 columns."""
    table = _table()
    for name, justify in (("Run", "left"), ("", "left"), ("Rows", "right"), ("", "right"), ("Left", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # both are ways to justify
    table.add_column("Gate", no_wrap=True, max_width=11)
    table.add_column("Next task", no_wrap=True)
    for run in runs:
        progress = run.progress(hub)
        if progress is None:
            bar: RenderableType = ""
            rows = percent = left = ""
        else:
            bar = ProgressBar(total=progress.total or 1, completed=progress.rows, width=8)
            rows = f"{progress.rows:,}/{progress.total:,}" if progress.total else ""
            percent = f"{progress.percent} %" if progress.total else ""
            left = "" if progress.seconds_left is None else f"{progress.seconds_left:.0f} s"
        then = _state(None if run.then == run.gate else run.then_state)
        table.add_row(run.name, bar, rows, percent, left, _state(run.gate_state), then)
    return table


def ends_table(runs: Sequence[Run]) -> Table:
    """Show how each run ended. It fits on a terminal of 80 columns."""
    table = _table("Run", "DAG", "Gate", "Next task", "OK")
    for column in (*table.columns[:2], table.columns[-1]):
        column.no_wrap = True
    table.columns[2].max_width = 9
    for run in runs:
        wanted = Text("yes", "green") if run.problem is None else Text("no", "red")
        then = Text(f"{run.then} ").append_text(_state(run.then_state)) if run.then != run.gate else Text()
        table.add_row(run.name, run.dag_id.removeprefix("example_oxen_"), _state(run.gate_state), then, wanted)
    return table


def _table(*headers: str) -> Table:
    return Table(*headers, box=None, padding=(0, 1, 0, 0), header_style="bold", pad_edge=False)


def _state(state: str | None) -> Text:
    """Colour a state: of several, as the last one."""
    text = "" if state in (None, "none") else str(state)
    return Text(text, _COLOURS.get(text.rpartition(" ")[2], ""))
