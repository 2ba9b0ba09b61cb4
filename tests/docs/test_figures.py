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
