"""What the sections of the benchmark share: targets, medians with their spread, and a command line each."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import statistics
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeAlias

__all__ = ["Report", "Run", "Target", "command_line", "run_apart", "spread"]

#: Called with a few words about what is being measured now.
Report: TypeAlias = Callable[[str], None]


class Run(Protocol):
    """A section: measures, and returns the results as plain JSON, with its ``targets``."""

    def __call__(self, *, short: bool, report: Report) -> dict[str, Any]:
        """Measure."""


@dataclass(frozen=True, slots=True)
class Target:
    """
    A limit for a measured value.

    :param name: what is measured, with its unit.
    :param limit: the most it may be.
    :param value: what it is.
    """

    name: str
    limit: float
    value: float

    def plain(self) -> dict[str, Any]:
        """Write it as plain JSON."""
        return {"name": self.name, "limit": self.limit, "value": self.value, "holds": self.value <= self.limit}


def spread(values: Sequence[float]) -> dict[str, float]:
    """
    Sum up what was measured again and again.

    :param values: at least one.
    :return: ``median``, the quartiles ``low`` and ``high``, ``least`` and ``most``.
    """
    low, median, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [float(values[0])] * 3
    )
    named = {"median": median, "low": low, "high": high, "least": min(values), "most": max(values)}
    return {name: round(value, 4) for name, value in named.items()}


def command_line(
    run: Run, table: Callable[[dict[str, Any], Callable[[str], None]], None], *, description: str | None
) -> None:
    """
    Run one section by itself: ``python -m benchmarks.<section> [--short] [--json FILE]``.

    :param run: the section.
    :param table: prints what matters of its results, line by line.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="only check that it runs; the numbers mean little")
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    asked = parser.parse_args()
    results = run(short=asked.short, report=lambda words: print(f"  {words}", flush=True))
    table(results, print)
    for target in results["targets"]:
        verdict = "holds" if target["holds"] else "MISSED"
        print(f"{verdict:8}{target['name']}: {target['value']:.4g}, at most {target['limit']:g}")
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def run_apart(name: str, short: bool, to: Connection) -> None:
    """
    Run a section in a process made for it.

    :param name: its module.
    :param short: as the section takes it.
    :param to: is sent ``("report", words)`` now and then, and ``("result", …)`` or ``("error", traceback)`` last.
    """
    # So that it takes down what it started when it is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        module = importlib.import_module(f"benchmarks.{name}")
        result = module.run(short=short, report=lambda words: to.send(("report", words)))
        to.send(("result", json.loads(json.dumps(result))))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # noqa: BLE001  # reported, and counted as broken
        to.send(("error", traceback.format_exc()))
