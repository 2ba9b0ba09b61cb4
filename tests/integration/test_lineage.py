"""How a gate is described to OpenLineage: facets as its own client writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from openlineage.client.serde import Serde

from airflow_provider_oxen.assets import convert_asset_to_openlineage
from airflow_provider_oxen.conditions import all_rows
from tests.support.airflow import AirflowFailException, Asset
from tests.support.tasks import FakeTaskInstance, make_gate, run_task

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub


def written(value: Any) -> Any:
    """Write it as JSON, by OpenLineage's own writer, without what every facet has."""
    if isinstance(value, list):
        return [written(inner) for inner in value]
    if isinstance(value, dict):
        return {key: written(inner) for key, inner in value.items()}
    return _without_marks(json.loads(Serde.to_json(value)))


def _without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_marks(inner) for key, inner in value.items() if key not in ("_producer", "_schemaURL")}
    return [_without_marks(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("way", "seconds"), [("first poll", 0.0), ("deferred", 0.3)])
def test_completed_evaluation(oxen_hub: LocalHub, way: str, seconds: float) -> None:
    """Source and results are described, each at its version, and what the evaluation was and what it took."""
    evaluation_id = oxen_hub.add_evaluation(seconds=seconds, rows=50)
    sensor = run_task(way, evaluation_id).sensor

    lineage = sensor.get_openlineage_facets_on_complete(None)

    commit = oxen_hub.status_of(evaluation_id)["closing_commit"]
    namespace = oxen_hub.url.replace("http://", "oxen://")
    assert written(lineage.inputs) == [
        {
            "namespace": namespace,
            "name": "ox/customer-intents/data/customers.parquet",
            "facets": {"version": {"datasetVersion": "0123456789abcdef"}},
            "inputFacets": {},
        }
    ]
    assert written(lineage.outputs) == [
        {
            "namespace": namespace,
            "name": "ox/customer-intents/data/intents.parquet",
            "facets": {"version": {"datasetVersion": commit["id"]}},
            "outputFacets": {"outputStatistics": {"rowCount": 50}},
        }
    ]
    assert written(lineage.run_facets) == {
        "oxen_evaluation": {
            "evaluation_id": evaluation_id,
            "outcome": "completed",
            "hub": oxen_hub.url,
            "status": "completed",
            "name": "A local evaluation",
            "model": {"id": "local-model", "name": "Local model"},
            "progress": {"processed": 50, "total": 50},
            "prompt_tokens_used": 1000,
            "completion_tokens_used": 250,
            "tokens_used": 1250,
            "credits_used": 0.05,
            "target_column": "intent",
            "closing_commit": commit,
        }
    }


def test_errored_evaluation(oxen_hub: LocalHub) -> None:
    """A failure is described with the hub's reason and the task's message; no row counts as written."""
    sensor = make_gate(oxen_hub.add_evaluation(seconds=0, rows=50, end="errored", error_message="row 31 is odd"))
    with pytest.raises(AirflowFailException) as failure:
        sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_failure(None)

    facets = written(lineage.run_facets)
    assert facets["oxen_evaluation"]["error_message"] == "row 31 is odd"
    assert facets["oxen_evaluation"]["outcome"] == "errored"
    assert facets["oxen_evaluation"]["progress"] == {"processed": 30, "total": 50}
    assert facets["errorMessage"]["message"] == str(failure.value)
    assert written(lineage.inputs)[0]["facets"]["version"]["datasetVersion"] == "0123456789abcdef"
    assert written(lineage.outputs)[0]["outputFacets"] == {}


def test_evaluation_that_does_not_meet_a_condition(oxen_hub: LocalHub) -> None:
    """The results are written all the same; the run failed, for the reason that the condition gave."""
    fields = {"progress": {"processed": 49, "total": 50}}
    sensor = make_gate(oxen_hub.add_evaluation(seconds=0, fields=fields), conditions=all_rows())
    with pytest.raises(AirflowFailException):
        sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_failure(None)

    assert written(lineage.run_facets)["oxen_evaluation"]["outcome"] == "condition_not_met"
    assert "49 of 50 rows were processed" in written(lineage.run_facets)["errorMessage"]["message"]
    assert written(lineage.outputs)[0]["outputFacets"] == {"outputStatistics": {"rowCount": 49}}


def test_evaluation_that_was_never_seen(oxen_hub: LocalHub) -> None:
    """Where the hub refused the request, there is the failure, and no data is made up."""
    sensor = make_gate("unknown-id")
    with pytest.raises(AirflowFailException):
        sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_failure(None)

    assert (lineage.inputs, lineage.outputs) == ([], [])
    assert written(lineage.run_facets)["oxen_evaluation"] == {
        "evaluation_id": "unknown-id",
        "outcome": "refused",
        "hub": oxen_hub.url,
    }


def test_evaluation_of_unknown_data(oxen_hub: LocalHub) -> None:
    """Data that the hub does not name is left out; so is a version that it does not name."""
    fields = {
        "resource": {"path": "a.csv", "version": None},
        "commit_id": None,
        "closing_commit": None,
        "target_branch": None,
        "target_path": None,
    }
    known = make_gate(oxen_hub.add_evaluation(seconds=0, fields=fields))
    known.execute({"ti": FakeTaskInstance()})
    unknown = make_gate(oxen_hub.add_evaluation(seconds=0, fields={**fields, "resource": None}))
    unknown.execute({"ti": FakeTaskInstance()})

    lineage, nothing = (sensor.get_openlineage_facets_on_complete(None) for sensor in (known, unknown))

    for dataset in (*lineage.inputs, *lineage.outputs):
        assert (dataset.name, dataset.facets) == ("ox/customer-intents/a.csv", {})
    assert len(lineage.inputs) == len(lineage.outputs) == 1
    assert (nothing.inputs, nothing.outputs) == ([], [])


def test_results_without_a_file_of_their_own_are_in_the_source_file(oxen_hub: LocalHub) -> None:
    """Where ``target_path`` is null, source and results are one file, at two versions."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0, fields={"target_path": None})
    sensor = make_gate(evaluation_id)
    sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_complete(None)

    (source,), (results,) = written(lineage.inputs), written(lineage.outputs)
    assert source["name"] == results["name"] == "ox/customer-intents/data/customers.parquet"
    assert source["facets"] == {"version": {"datasetVersion": "0123456789abcdef"}}
    commit = oxen_hub.status_of(evaluation_id)["closing_commit"]["id"]
    assert results["facets"] == {"version": {"datasetVersion": commit}}


def test_results_without_a_commit_are_at_their_branch(oxen_hub: LocalHub) -> None:
    """Until the hub gives the commit that holds the results, their version is the target branch."""
    sensor = make_gate(oxen_hub.add_evaluation(seconds=0, fields={"closing_commit": None, "target_branch": "intents"}))
    sensor.execute({"ti": FakeTaskInstance()})

    (results,) = written(sensor.get_openlineage_facets_on_complete(None).outputs)

    assert results["facets"] == {"version": {"datasetVersion": "intents"}}


def test_gate_that_did_not_wait_has_no_lineage() -> None:
    """A task that failed before its first poll has no lineage."""
    assert make_gate("e").get_openlineage_facets_on_failure(None) is None


def test_asset_and_gate_name_the_same_dataset(oxen_hub: LocalHub) -> None:
    """The asset of the results is the dataset that the gate names, so that OpenLineage has one dataset for both."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    sensor = make_gate(evaluation_id)
    sensor.execute({"ti": FakeTaskInstance()})
    (output,) = sensor.get_openlineage_facets_on_complete(None).outputs
    host, commit = oxen_hub.url.removeprefix("http://"), oxen_hub.status_of(evaluation_id)["closing_commit"]["id"]

    asset = Asset(uri=f"oxen://{host}/ox/customer-intents/data/intents.parquet?revision={commit}")
    converted = convert_asset_to_openlineage(asset, None)

    assert (converted.namespace, converted.name) == (output.namespace, output.name)
    assert written(converted.facets) == written(output.facets)


def test_there_is_no_listener_where_nothing_is_sent() -> None:
    """Without a place to send events to, OpenLineage has no listener, so that gates may end in the triggerer."""
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    try:
        from airflow.listeners.listener import get_listener_manager
    except ImportError:
        from airflow.sdk._shared.listeners import get_listener_manager

    assert get_listener_manager().has_listeners is False
