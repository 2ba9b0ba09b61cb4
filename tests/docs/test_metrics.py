"""The page on metrics lists what the code sends, and the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_oxen import exceptions
from airflow_provider_oxen.exceptions import OxenNoResultsError, OxenRequestError
from airflow_provider_oxen.metrics import METRICS, error_name
from airflow_provider_oxen.outcomes import OutcomeReason
from tests.docs.pages import ROOT
from tests.docs.test_outcomes import section, tables

PAGE = ROOT / "docs/how-to/metrics.md"
DASHBOARD = json.loads((ROOT / "docs/grafana.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def _error_names() -> set[str]:
    """Return the names of failures of requests: those of classes without subclasses."""
    kinds = [getattr(exceptions, name) for name in exceptions.__all__]
    requests = [kind for kind in kinds if issubclass(kind, OxenRequestError) and not kind.__subclasses__()]
    return {error_name(kind) for kind in requests if kind is not OxenNoResultsError}  # raised before a request


def _all_names() -> dict[str, str]:
    """Return every name that can arrive, with the kind of its metric."""
    values = {
        "error": _error_names(),
        "outcome": set(map(str, OutcomeReason)),
        "hostname": {"triggerer-1"},
        None: set(),
    }
    return {
        name: metric.kind
        for metric in METRICS
        for name in (metric.name, *(f"{metric.name}.{value}" for value in values[metric.split_by]))
    }


def _in_prometheus(*, otlp: bool) -> set[str]:
    """
    Return these names in Prometheus, from OpenTelemetry's collector or from statsd_exporter.

    Both replace what a name there cannot have. Only the collector adds a suffix to counters.
    """
    suffixes = {"counter": "_total"} if otlp else {}
    return {
        re.sub("[^a-zA-Z0-9_]", "_", f"airflow.{name}") + suffixes.get(kind, "") for name, kind in _all_names().items()
    }


def _asked_for(expression: str) -> list[str]:
    """Return the patterns of the metrics in a query."""
    patterns = re.findall(r'__name__=~"([^"]*)"', expression)
    rest = re.sub(r'"[^"]*"', "", expression)
    return patterns + re.findall(r"airflow_\w+", rest)


def test_table_is_that_of_the_code() -> None:
    """The page has each metric with its kind, its tags and what it is, and no other."""
    (table,) = tables(section(PAGE, "What is counted"))

    assert table[1:] == [
        [f"`{metric.name}`", metric.kind, ", ".join(f"`{tag}`" for tag in metric.tags), metric.meaning]
        for metric in METRICS
    ]


def test_page_lists_the_values_of_tags() -> None:
    """The page says which errors and which outcomes there are."""
    text = PAGE.read_text()
    errors, outcomes = (re.search(rf"^- `{tag}`: .*$", text, re.MULTILINE)[0] for tag in ("error", "outcome"))

    assert set(re.findall("`([a-z_]+)`", errors)) - {"error"} == _error_names()
    assert set(re.findall("`([a-z_]+)`", outcomes)) - {"outcome"} == set(map(str, OutcomeReason))


@pytest.mark.parametrize("otlp", [False, True], ids=["statsd_exporter", "OpenTelemetry"])
def test_dashboard_asks_for_metrics_that_exist(otlp: bool) -> None:
    """Each pattern in a query finds one metric at least, under the names that either way gives it."""
    names = _in_prometheus(otlp=otlp)
    lost = [
        pattern
        for expression in EXPRESSIONS
        for pattern in _asked_for(expression) or ["nothing"]
        if not any(re.fullmatch(pattern, name) for name in names)
    ]

    assert lost == []


def test_dashboard_shows_every_metric() -> None:
    """Each metric, each error and each outcome is in a query."""
    patterns = [pattern for expression in EXPRESSIONS for pattern in _asked_for(expression)]
    unseen = {name for name in _in_prometheus(otlp=False) if not any(re.fullmatch(each, name) for each in patterns)}

    assert unseen == {"airflow_oxen_waits"}  # of one triggerer, where there are no tags


def test_dashboard_can_be_imported() -> None:
    """Panels do not overlap, and each has an id, a unit and the data source that is chosen in Grafana."""
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    sources = {json.dumps(part["datasource"]) for panel in panels for part in (panel, *panel["targets"])}

    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)


def test_no_number_turns_red_by_itself() -> None:
    """Where nothing is set, Grafana draws all from 80 on in red. Here, 80 is no limit of anything."""
    numbers = [panel["fieldConfig"]["defaults"] for panel in DASHBOARD["panels"] if panel["type"] == "stat"]

    assert numbers
    assert all(each["color"]["mode"] == "fixed" for each in numbers)
