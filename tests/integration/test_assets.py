"""The ``oxen://`` asset: which URIs there are, and what is in the event of a gate's outlet."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from airflow_provider_oxen.assets import convert_asset_to_openlineage, create_asset, sanitize_uri
from airflow_provider_oxen.conditions import max_credits
from tests.support.airflow import AIRFLOW_V_3_0_PLUS, AirflowFailException, Asset
from tests.support.assets import URI, make_outlet_events
from tests.support.tasks import FakeTaskInstance, add_evaluation, make_gate, run_task

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (URI, URI),
        ("OXEN://HUB.oxen.ai/ox/r/f.csv", "oxen://hub.oxen.ai/ox/r/f.csv"),
        ("oxen://localhost:8080/ox/r/f.csv/", "oxen://localhost:8080/ox/r/f.csv"),
        ("oxen://hub.oxen.ai:443/ox/r/f.csv", "oxen://hub.oxen.ai/ox/r/f.csv"),
        ("oxen://[::1]:80/ox/r/f.csv", "oxen://[::1]:80/ox/r/f.csv"),
        ("oxen://h/ox/r/a b/%7E%c3%bc.csv?revision=a/b", "oxen://h/ox/r/a%20b/~%C3%BC.csv?revision=a%2Fb"),
    ],
)
def test_asset_uri_has_one_form(uri: str, expected: str) -> None:
    """Airflow knows the scheme: however a file is written, it is one asset."""
    assert Asset(uri=uri).uri == expected


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("oxen:///ox/r/f.csv", "names no host"),
        ("oxen://h:x/ox/r/f.csv", "names no host"),
        ("oxen://h", "names no file"),
        ("oxen://h/ox/r", "names no file"),
        ("oxen://h/ox//f.csv", "'repo_name'"),
        ("oxen://h/ox/../f.csv", "'repo_name'"),
        ("oxen://h/a%2Fb/r/f.csv", "'namespace'"),
        ("oxen://h/ox/r/a/../f.csv", "or '.' or '..'"),
        ("oxen://h/ox/r//f.csv", "empty segment"),
        ("oxen://h/ox/r/f.csv?rev=main", "query other than one revision"),
        ("oxen://h/ox/r/f.csv?revision=a&revision=b", "query other than one revision"),
        ("oxen://h/ox/r/f.csv?revision=%20", "query other than one revision"),
        ("oxen://sk-secret@h/ox/r/f.csv", "must not hold a login"),
    ],
)
def test_bad_asset_uri_is_refused(uri: str, problem: str) -> None:
    """What names no file in a repository is refused at parse time, with the form to write; no key is shown."""
    with pytest.raises(ValueError, match="Write oxen://host/namespace/repo_name/path") as caught:
        sanitize_uri(urlsplit(uri))

    assert problem in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    # Airflow 2 only warns by default; each Airflow may drop a login itself.
    if AIRFLOW_V_3_0_PLUS and "@" not in uri:
        with pytest.raises(ValueError, match="oxen://host/namespace/repo_name/path"):
            Asset(uri=uri)


def test_asset_is_made_of_its_parts() -> None:
    """The factory writes the URI, encoded, on the public hub unless another is given."""
    asset = create_asset(namespace="ox", repo_name="customer-intents", path="data/intents.parquet", revision="main")
    other = create_asset(namespace="a%b", repo_name="r", path="/ü.csv", host="localhost:1", extra={"a": 1})

    assert asset.uri == URI
    assert (other.uri, other.extra) == ("oxen://localhost:1/a%25b/r/%C3%BC.csv", {"a": 1})


@pytest.mark.filterwarnings("ignore:ProvidersManager.asset_")
def test_airflow_finds_factory_and_converter() -> None:
    """The metadata registers the scheme's factory and its OpenLineage converter with Airflow, not its check alone."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    kind = "asset" if AIRFLOW_V_3_0_PLUS else "dataset"

    assert getattr(manager, f"{kind}_uri_handlers")["oxen"] is sanitize_uri
    assert getattr(manager, f"{kind}_factories")["oxen"] is create_asset
    assert getattr(manager, f"{kind}_to_openlineage_converters")["oxen"] is convert_asset_to_openlineage


@pytest.mark.parametrize("way", ["first poll", "deferred"])
def test_open_gate_describes_the_evaluation_in_the_event(oxen_hub: LocalHub, way: str) -> None:
    """The event of an ``oxen://`` outlet has the evaluation and what it took; the events of other outlets do not."""
    ours, other = Asset(uri=URI), Asset(uri="s3://bucket/key")
    outlet_events = make_outlet_events([ours, other])
    evaluation_id = add_evaluation(oxen_hub, way, rows=50)

    run_task(way, evaluation_id, outlets=[ours, other], context={"outlet_events": outlet_events})

    assert outlet_events[ours].extra == {
        "evaluation_id": evaluation_id,
        "commit": oxen_hub.status_of(evaluation_id)["closing_commit"]["id"],
        "source_version": "0123456789abcdef",
        "rows": 50,
        "tokens": 1250,
        "results": {
            "path": "data/intents.parquet",
            "version": outlet_events[ours].extra["commit"],
            "rows": None,
            "conditions": [],
        },
        "credits": 0.05,
    }
    assert outlet_events[other].extra == {}


def test_commit_is_not_made_up(oxen_hub: LocalHub) -> None:
    """Where the hub gives no commit that holds the results, the event has none, and not that of the source."""
    ours = Asset(uri=URI)
    outlet_events = make_outlet_events([ours])
    fields = {"closing_commit": None, "commit_id": None, "resource": {"path": "a.csv", "version": "main"}}
    evaluation_id = oxen_hub.add_evaluation(seconds=0, fields=fields)

    run_task("first poll", evaluation_id, outlets=[ours], context={"outlet_events": outlet_events})

    assert outlet_events[ours].extra["commit"] is None
    assert outlet_events[ours].extra["source_version"] == "main"


def test_event_keeps_what_a_user_put_there(oxen_hub: LocalHub) -> None:
    """What the DAG's author added to the event before stays in it."""
    ours = Asset(uri=URI)
    outlet_events = make_outlet_events([ours])
    outlet_events[ours].extra["reviewed_by"] = "Bo"
    gate = make_gate(oxen_hub.add_evaluation(seconds=0), outlets=[ours])

    gate.execute({"ti": FakeTaskInstance(), "outlet_events": outlet_events})

    assert outlet_events[ours].extra["reviewed_by"] == "Bo"
    assert outlet_events[ours].extra["rows"] == 1000


def test_closed_gate_adds_nothing_to_the_event(oxen_hub: LocalHub) -> None:
    """A gate whose condition is not met leaves the event of its outlet alone."""
    ours = Asset(uri=URI)
    outlet_events = make_outlet_events([ours])
    gate = make_gate(oxen_hub.add_evaluation(seconds=0), outlets=[ours], conditions=max_credits(0))

    with pytest.raises(AirflowFailException):
        gate.execute({"ti": FakeTaskInstance(), "outlet_events": outlet_events})

    assert outlet_events[ours].extra == {}
