"""
All sections of the benchmark: ``make bench``, or ``make bench SHORT=1`` to check that they still run.

A full run writes ``benchmarks/results.json`` and the plots in ``docs/``. So does ``make bench ONLY=cost UPDATE=1``, for
that section alone: each section's results say when they were measured, and where. Any other run writes to ``.bench/``.
A missed target is reported and is no failure: the machine may have been busy. A section that raises an error is one.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from benchmarks.section import run_apart

__all__ = ["SECTIONS", "main"]

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Section:
    """
    A part of the benchmark, in the module of its name.

    :param title: what it measures.
    :param limit_seconds: longer than this, and it is stopped.
    """

    title: str
    limit_seconds: float


SECTIONS = {
    "poll_schedule": Section("Polls against detection delay", 180),
    "cost": Section("CPU, memory and connections of a wait", 900),
    "scale": Section("1,000 to 10,000 waits", 420),
    "failover": Section("10,000 waits taken over", 300),
    "parsing": Section("Parsing a DAG file", 240),
    "judging": Section("Judging the rows of results", 600),
    "end_to_end": Section("End to end, in a real Airflow", 360),
    "starting": Section("Starts for one task that is killed", 420),
}
#: How many sections run at a time in the short form, whose numbers do not matter: most of them wait.
_SHORT_AT_ONCE = 3
#: What the results depend on, beside this package.
_PACKAGES = (
    "apache-airflow",
    "apache-airflow-task-sdk",
    "apache-airflow-providers-airbyte",
    "apache-airflow-providers-databricks",
    "apache-airflow-providers-dbt-cloud",
    "apache-airflow-providers-http",
    "apache-airflow-providers-standard",
    "aiohttp",
    "duckdb",
    "msgspec",
    "oxenai",
    "pandas",
    "pyarrow",
    "requests",
)


def main() -> int:
    """Run the sections and print the results; the exit code says whether every section ran to its end."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure this package beside its peers.")
    parser.add_argument("--short", action="store_true", help="only check that everything runs; the numbers mean little")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="a section; may be given again")
    parser.add_argument("--update", action="store_true", help="keep the results of these sections, as a full run does")
    asked = parser.parse_args()
    if asked.update and asked.short:
        parser.error("the numbers of the short form mean too little to be kept")
    sections = [name for name in SECTIONS if not asked.only or name in asked.only]
    keep = not asked.short and (asked.update or len(sections) == len(SECTIONS))
    console = Console()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        measured, broken = _run_all(console, sections, short=asked.short)
    except KeyboardInterrupt:
        console.print("Interrupted; what was started has been stopped, and nothing was written.")
        return 130
    about = _about(short=asked.short)
    results = {name: {"about": about, **result} for name, result in measured.items()}
    keep &= not broken
    folder = _ROOT / ".bench"
    if not keep:
        folder.mkdir(exist_ok=True)
    written = _ROOT / "benchmarks/results.json" if keep else folder / "results.json"
    if keep and written.exists():
        before = json.loads(written.read_text(encoding="utf-8"))
        results = {name: {**before, **results}[name] for name in SECTIONS if name in before or name in results}
    written.write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")
    plots = _draw(console, measured, _ROOT / "docs" if keep else folder)
    _print_targets(console, measured)
    console.print(f"Took {time.monotonic() - began:.0f} s.", _about_in_words(about), soft_wrap=True)
    written_to = ", ".join(str(path.relative_to(_ROOT)) for path in [written, *(plots or [])])
    console.print(f"Written: {written_to}", soft_wrap=True)
    for name in broken:
        console.print(f"[red]{name} failed, see above.[/red]")
    return 1 if broken or plots is None else 0


def _run_all(console: Console, names: list[str], *, short: bool) -> tuple[dict[str, Any], list[str]]:
    """Run the sections; return the results and the names of those that failed. In short, some run side by side."""
    waiting = list(names)
    running: list[_Running] = []
    ended: dict[str, _Running] = {}
    columns = (SpinnerColumn(finished_text=" "), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("[dim]{task.fields[doing]}"), console=console) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < (_SHORT_AT_ONCE if short else 1):
                    running.append(_Running(waiting.pop(0), progress, short=short))
                wait([section.pipe for section in running], min(section.seconds_left for section in running))
                for section in [section for section in running if section.has_ended()]:
                    running.remove(section)
                    section.close()
                    ended[section.name] = section
        except KeyboardInterrupt:
            for section in running:
                section.process.join(20)  # it was interrupted, too, and is stopping what it started
            raise
        finally:
            for section in running:
                section.close()
    measured = {name: ended[name].result for name in names if ended[name].result is not None}
    return measured, [name for name in names if name not in measured]


class _Running:
    """A section in a fresh process, so that nothing of one section is part of the next measurement."""

    def __init__(self, name: str, progress: Progress, *, short: bool) -> None:
        self.name = name
        self.result: dict[str, Any] | None = None
        self._progress = progress
        self._bar = progress.add_task(SECTIONS[name].title, total=1, doing="")
        self.pipe, there = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context("spawn").Process(target=run_apart, args=(name, short, there))
        self._began = time.monotonic()
        self.process.start()
        there.close()

    @property
    def seconds_left(self) -> float:
        """How much longer it may take."""
        return max(SECTIONS[self.name].limit_seconds - (time.monotonic() - self._began), 0)

    def has_ended(self) -> bool:
        """Read what it has sent, if it has; show what it is doing, and how it ended once it has or has to."""
        kind: str = "report"
        sent: Any = None
        try:
            while kind == "report" and self.pipe.poll():
                kind, sent = self.pipe.recv()
                if kind == "report":
                    self._report(sent)
        except EOFError:
            kind, sent = "error", "it ended without a result"
        if kind == "report" and not self.seconds_left:
            kind, sent = "error", f"it took longer than {SECTIONS[self.name].limit_seconds:g} s"
        if kind == "result":
            self.result = {"seconds": round(time.monotonic() - self._began, 1), **sent}
            targets = [target["holds"] for target in sent.get("targets", [])]
            self._progress.update(self._bar, completed=1, doing=f"{sum(targets)} of {len(targets)} targets hold")
        elif kind == "error":
            self._progress.console.print(Text(f"{self.name} failed:\n{sent}", "red"), soft_wrap=True)
            self._progress.update(self._bar, completed=1, doing="failed")
        return kind != "report"

    def _report(self, doing: str) -> None:
        self._progress.update(self._bar, doing=doing)
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"{self.name}: {doing}", soft_wrap=True)

    def close(self) -> None:
        """Wait for its process. Stop it if it has no result."""
        if self.result is None and self.process.is_alive():
            self.process.terminate()
        self.process.join(20)
        self.process.kill()


def _about(*, short: bool) -> dict[str, Any]:
    """Say where and when this was measured."""
    versions = {}
    for package in ("airflow-provider-oxen", *_PACKAGES):
        versions[package] = metadata.version(package)
    return {
        "date": datetime.now(tz=timezone.utc).date().isoformat(),
        "short": short,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
        "python": platform.python_version(),
        "versions": versions,
        "note": "Times are those of this one machine; ratios are of values measured in one run, one after the other.",
    }


def _about_in_words(about: Mapping[str, Any]) -> str:
    machine, versions = about["machine"], about["versions"]
    return (
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"Python {about['python']}, Airflow {versions['apache-airflow']}. "
        "Absolute times are this machine's."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _rounded(value: Any) -> Any:
    """Keep five digits of a measured number: more are noise. What is not finite becomes null."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _draw(console: Console, measured: Mapping[str, Any], folder: Path) -> list[Path] | None:
    """Draw what can be drawn; None where that failed."""
    from benchmarks.plots import draw_all

    try:
        return draw_all(measured, folder)
    except Exception:  # noqa: BLE001  # the numbers are there all the same
        console.print(Text(f"The plots failed:\n{traceback.format_exc()}", "red"), soft_wrap=True)
        return None


def _print_targets(console: Console, measured: Mapping[str, Any]) -> None:
    table = Table("Section", "Measured", Column("Value", justify="right"), Column("At most", justify="right"), "Holds")
    for name, result in measured.items():
        for number, target in enumerate(result["targets"]):
            holds = Text("yes", "green") if target["holds"] else Text("no", "red")
            value, limit = (f"{target[key]:.4g}" for key in ("value", "limit"))
            table.add_row("" if number else name, target["name"], value, limit, holds)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
