"""The page on cost has its figures from what the benchmarks wrote."""

from __future__ import annotations

import runpy
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def measured() -> Callable[..., dict[str, str]]:
    return runpy.run_path(str(ROOT / "docs/conf.py"))["measured"]


def test_figures_are_those_of_the_results(measured: Callable[..., dict[str, str]]) -> None:
    """A row for each target, with what was measured and whether it holds, and the plots that are there."""
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


def test_what_was_not_measured_is_said(measured: Callable[..., dict[str, str]]) -> None:
    """Before the first run, the page says that there are no figures."""
    texts = measured({}, {"cost": ()})

    assert "Nothing has been measured yet" in texts["about"]
    assert "Not measured yet" in texts["cost"]


def test_loads_are_told_row_by_row(measured: Callable[..., dict[str, str]]) -> None:
    """The page on scaling has a row for each load, with seconds counted from zero and not from the interval."""
    load = {
        "waits": 10_000, "interval": 10.0, "polls_a_second": 994.6, "polls_a_second_wanted": 1000.0, "busy": 0.1503,
        "lag_ms": {"p99": 3.4847, "most": 355.31}, "start_lag_ms": {"p99": 3.6, "most": 304.56},
        "worst_gap_over": 0.52886, "worst_delay_over": -1.6669, "bytes_a_wait": 8216.6,
    }  # fmt: skip

    text = measured({"sections": {"scale": {"loads": [load]}}}, {})["loads"]

    assert "| 10,000 | 10 s | 995 of 1,000 | 15% | 3.48 ms | 355 ms, 305 ms | 10.5 s | 8.3 s | 8.2 KB |" in text


def test_pages_have_been_given_figures() -> None:
    """The results of a full run are kept, with all sections that the pages show, and their plots."""
    shown = runpy.run_path(str(ROOT / "docs/conf.py"))["myst_substitutions"]

    assert [name for name, text in shown.items() if "measured yet" in text] == []
    plots = {name: shown[name].count(".svg)") for name in ("cost", "scale", "parsing", "end_to_end")}
    assert plots == {"cost": 3, "scale": 1, "parsing": 1, "end_to_end": 1}
