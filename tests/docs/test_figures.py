"""The figures on the pages are those that the benchmarks wrote."""

from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def measured() -> Callable[..., dict[str, str]]:
    return runpy.run_path(str(ROOT / "docs/conf.py"))["measured"]


def test_table_has_a_row_for_each_target(measured: Callable[..., dict[str, str]]) -> None:
    """A section has a row for each target, with value, limit and verdict, and shows the plots that exist."""
    targets = [
        {"name": "ratio", "value": 1.2345, "limit": 1.5, "holds": True},
        {"name": "bytes | a wait", "value": 12_345.6, "limit": 9, "holds": False},
    ]
    results: dict[str, Any] = {"sections": {"cost": {"targets": targets}}}

    text = measured(results, {"cost": ("poll-schedule", "not-drawn-yet")})["cost"]

    assert "| ratio | 1.23 | 1.5 | yes |" in text
    assert r"| bytes \| a wait | 12,346 | 9 | **no** |" in text
    assert "(poll-schedule.svg)" in text
    assert "not-drawn-yet" not in text


def test_pages_say_that_nothing_was_measured(measured: Callable[..., dict[str, str]]) -> None:
    """Before the first run, the pages say that there are no figures."""
    texts = measured({}, {"cost": ()})

    assert "Nothing has been measured yet" in texts["about"]
    assert "Not measured yet" in texts["cost"]


def test_each_load_has_a_row(measured: Callable[..., dict[str, str]]) -> None:
    """The page on scaling has a row for each load, with gaps counted from zero and not from the interval."""
    load = {
        "waits": 10_000, "interval": 10.0, "polls_a_second": 994.6, "polls_a_second_wanted": 1000.0, "busy": 0.1503,
        "lag_ms": {"p99": 3.4847, "most": 355.31}, "start_lag_ms": {"p99": 3.6, "most": 304.56},
        "worst_gap_over": 0.52886, "worst_delay_over": -1.6669, "bytes_a_wait": 8216.6,
    }  # fmt: skip

    text = measured({"sections": {"scale": {"loads": [load]}}}, {})["loads"]

    assert "| 10,000 | 10 s | 995 of 1,000 | 15% | 3.48 ms | 355 ms, 305 ms | 10.5 s | 8.3 s | 8.2 KB |" in text


def test_pages_show_the_figures_of_a_full_run() -> None:
    """The repository has the results of a full run, with every section that the pages show, and its plots."""
    shown = runpy.run_path(str(ROOT / "docs/conf.py"))["myst_substitutions"]

    assert [name for name, text in shown.items() if "measured yet" in text] == []
    plots = {name: shown[name].count(".svg)") for name in ("cost", "scale", "parsing", "end_to_end")}
    assert plots == {"cost": 3, "scale": 1, "parsing": 1, "end_to_end": 1}


@pytest.mark.parametrize("plot", sorted((ROOT / "docs").glob("*.svg")), ids=lambda plot: plot.stem)
def test_plot_is_read_on_dark_pages(plot: Path) -> None:
    """A plot lets the page's colour through, and its lines and text are light on a dark page."""
    text = plot.read_text()

    assert "@media (prefers-color-scheme: dark)" in text
    assert text.count("currentColor") > 20
    assert re.findall(r"(?:fill|stroke): ?(?:#ffffff|#000000|white|black)", text) == []
    words = re.findall(r"<text style=\"([^\"]*)\"", text)
    assert len(words) > 5
    assert [style for style in words if "fill: currentColor" not in style] == []
