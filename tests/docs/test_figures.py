"""The figures on the pages are those that the benchmarks wrote."""

from __future__ import annotations

import re
import runpy
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


ABOUT = {
    "date": "2026-11-01",
    "machine": {"cores": 2, "processor": "Some CPU", "memory_gib": 23.5},
    "python": "3.11.7",
    "versions": {
        "apache-airflow": "3.3.2",
        "apache-airflow-providers-http": "6.3.0",
        "apache-airflow-providers-dbt-cloud": "4.11.1",
    },
}


@pytest.fixture(scope="module")
def measured() -> Callable[..., dict[str, str]]:
    return runpy.run_path(str(ROOT / "docs/conf.py"))["measured"]


def test_costs_have_units_and_are_beside_others(measured: Callable[..., dict[str, str]]) -> None:
    """Each row of the table of costs says what it counts, and compares this provider with the others in one unit."""
    subjects = ("oxen", "bare", "dbt", "http")
    cpu = {
        who: {"median": 0.1234 + number, "connections": [6, 2055], "polls": [2000]}
        for number, who in enumerate(subjects)
    }
    found = {
        "waits": 400,
        "cpu": {"plain": {**cpu, "oxen_moving": {"median": 0.25}}, "tls": cpu},
        "whole_waits": {who: {"median": 2.46} for who in subjects},
        "memory": {who: {"bytes_a_wait": 6765.8} for who in subjects},
    }

    lines = measured({"cost": {"about": ABOUT, **found}})["cost"].splitlines()

    assert lines[0] == "|  | this provider | bare polling loop | dbt Cloud's trigger | `HttpEventTrigger` |"
    assert lines[2] == "| CPU time of one poll over HTTP | 0.12 ms | 1.12 ms | 2.12 ms | 3.12 ms |"
    assert lines[3] == "| the same, if rows were processed since the last poll | 0.25 ms |  |  |  |"
    assert lines[5] == "| CPU time of a whole wait of eight polls | 2.5 ms | 2.5 ms | 2.5 ms | 2.5 ms |"
    assert lines[6] == "| memory of one wait | 6.8 KB | 6.8 KB | 6.8 KB | 6.8 KB |"
    assert lines[7].startswith("| connections opened for 400 waits with about 5 polls each | 1,030 |")


def test_each_way_to_wait_has_its_parts(measured: Callable[..., dict[str, str]]) -> None:
    """The time to the next task is divided into its two parts, in seconds."""
    way = {"name": "deferrable", "noticing": {"median": 3.906}, "handing_over": {"median": 1.209}}
    way |= {"delay": {"median": 5.3095}, "workers": {"median": 2.0}}

    text = measured({"end_to_end": {"about": ABOUT, "ways": {"one": way}}})["end_to_end"]

    assert text.splitlines()[2] == "| deferrable | 3.9 s | 1.2 s | 5.3 s | 2 |"


def test_each_sensor_has_its_time(measured: Callable[..., dict[str, str]]) -> None:
    """Importing a sensor takes milliseconds and modules."""
    sensors = {"oxen": {"ms": {"median": 2.2784}, "modules": 12}, "HTTP": {"ms": {"median": 91.985}, "modules": 223}}

    text = measured({"parsing": {"about": ABOUT, "sensors": sensors}})["parsing"]

    assert text.splitlines()[2:4] == ["| this provider | 2.3 ms | 12 |", "| HTTP | 92.0 ms | 223 |"]


def test_pages_say_that_nothing_was_measured(measured: Callable[..., dict[str, str]]) -> None:
    """Before the first run, the pages say that there are no figures."""
    assert set(measured({}).values()) == {"*Not measured yet: `make bench` does.*"}


def test_each_table_says_when_and_where_it_was_measured(measured: Callable[..., dict[str, str]]) -> None:
    """Sections may be measured on different days, so the sentence is below each table."""
    text = measured({"parsing": {"about": ABOUT, "sensors": {}}})["parsing"]

    assert text.splitlines()[-1] == (
        "*Measured on 2026-11-01: 2 cores of Some CPU, 23.5 GiB, Python 3.11.7, Airflow 3.3.2, HTTP provider 6.3.0, "
        "dbt Cloud provider 4.11.1.*"
    )


def test_failover_is_beside_another_trigger(measured: Callable[..., dict[str, str]]) -> None:
    """The table of a failover says how soon all waits were polled, in how large bursts, and over how much."""
    one = {
        "seconds_until_polled": {"half": 30.04, "p99": 59.3, "most": 59.96}, "most_polls_in_a_second": 1_204,
        "cpu_seconds": 5.55, "look_ups": 1, "connections": 20, "most_connections": 19,
    }  # fmt: skip

    text = measured({"failover": {"about": ABOUT, "waits": 10_000, "subjects": {"oxen": one, "dbt": one}}})["failover"]

    assert text.splitlines()[:5] == [
        "| 10,000 waits | this provider | dbt Cloud's trigger |",
        "| --- | --: | --: |",
        "| until half of the waits had polled | 30.0 s | 30.0 s |",
        "| until all had | 60.0 s | 60.0 s |",
        "| most polls in a second | 1,204 | 1,204 |",
    ]


def test_each_load_has_a_row(measured: Callable[..., dict[str, str]]) -> None:
    """The page on scaling has a row for each load, with gaps counted from zero and not from the interval."""
    load = {
        "waits": 10_000, "interval": 10.0, "polls_a_second": 994.6, "polls_a_second_wanted": 1000.0, "busy": 0.1503,
        "lag_ms": {"p99": 3.4847, "most": 355.31}, "start_lag_ms": {"p99": 3.6, "most": 304.56},
        "worst_gap_over": 0.52886, "worst_delay_over": -1.6669, "bytes_a_wait": 8216.6,
    }  # fmt: skip

    text = measured({"scale": {"about": ABOUT, "loads": [load]}})["scale"]

    assert "| 10,000 | 10 s | 995 of 1,000 | 15% | 3.48 ms | 355 ms, 305 ms | 10.5 s | 8.3 s | 8.2 KB |" in text


def test_pages_show_the_figures_of_a_full_run() -> None:
    """The repository has the results of a full run, with every section that the pages show."""
    shown = runpy.run_path(str(ROOT / "docs/conf.py"))["myst_substitutions"]
    pages = "".join(page.read_text() for page in PAGES)

    assert [name for name, text in shown.items() if "measured yet" in text] == []
    assert set(re.findall(r"^\{\{ (\w+) \}\}$", pages, re.MULTILINE)) == set(shown)


def test_every_plot_is_shown() -> None:
    """Each plot is on a page; that those on the pages exist is checked with the links."""
    pages = "".join(page.read_text() for page in PAGES)

    assert set(re.findall(r"!\[.+\]\(([\w-]+\.svg)\)", pages)) == {plot.name for plot in (ROOT / "docs").glob("*.svg")}


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


def test_garbage_collections_are_beside_those_of_what_only_sleeps(measured: Callable[..., dict[str, str]]) -> None:
    """They come from the run of the loads, and are on the page that says what they mean."""
    found = {
        name: {"tracked_a_wait": 10.6 + number, "least_ms": 100.4 * (1 + number)}
        for number, name in enumerate(("sleeping", "sleeping_triggers", "oxen"))
    }

    lines = measured({"scale": {"about": ABOUT, "loads": [], "collections": found}})["collections"].splitlines()

    assert lines[2] == "| coroutines that only sleep | 11 | 100 ms |"
    assert lines[4] == "| gates | 13 | 301 ms |"
