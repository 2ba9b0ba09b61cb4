"""What OpenLineage is told of a gate: facets as its own client writes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Asset
from openlineage.client.serde import Serde

from airflow_provider_oxen.accept import all_rows
from airflow_provider_oxen.assets import convert_asset_to_openlineage
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from tests.integration.test_sensor import FakeTaskInstance

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub


def gate(evaluation_id: str, **arguments: Any) -> OxenEvaluationSensor:
    named = {"task_id": "gate", "namespace": "ox", "repo_name": "customer-intents", "evaluation_id": evaluation_id}
    return OxenEvaluationSensor(**named | arguments)


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


@pytest.mark.parametrize("way", ["first look", "event"])
def test_completed_evaluation(oxen_hub: LocalHub, way: str) -> None:
    """OpenLineage is told of source and results, each at its version, and what the evaluation was and took."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0, rows=50)
    sensor, other = gate(evaluation_id), gate(evaluation_id)
    sensor.execute({"ti": FakeTaskInstance()})
    if way == "event":
        event = sensor._outcome.to_event()
        other.execute_complete({"ti": FakeTaskInstance()}, json.loads(json.dumps(event)))
        sensor = other

    lineage = sensor.get_openlineage_facets_on_complete(None)

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
            "facets": {"version": {"datasetVersion": "main"}},
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
        }
    }


def test_errored_evaluation(oxen_hub: LocalHub) -> None:
    """A failure is told with the hub's reason and the words the task failed with; no row counts as written."""
    sensor = gate(oxen_hub.add_evaluation(seconds=0, rows=50, end="errored", error_message="row 31 is odd"))
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


def test_evaluation_that_is_not_accepted(oxen_hub: LocalHub) -> None:
    """The results are written all the same; the run failed, for the reason that ``accept`` gave."""
    fields = {"progress": {"processed": 49, "total": 50}}
    sensor = gate(oxen_hub.add_evaluation(seconds=0, fields=fields), accept=all_rows())
    with pytest.raises(AirflowFailException):
        sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_failure(None)

    assert written(lineage.run_facets)["oxen_evaluation"]["outcome"] == "unaccepted"
    assert "49 of 50 rows were processed" in written(lineage.run_facets)["errorMessage"]["message"]
    assert written(lineage.outputs)[0]["outputFacets"] == {"outputStatistics": {"rowCount": 49}}


def test_evaluation_that_was_never_seen(oxen_hub: LocalHub) -> None:
    """Where the hub refused to answer, there is the failure, and no data is made up."""
    sensor = gate("nobody-knows")
    with pytest.raises(AirflowFailException):
        sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_failure(None)

    assert (lineage.inputs, lineage.outputs) == ([], [])
    assert written(lineage.run_facets)["oxen_evaluation"] == {
        "evaluation_id": "nobody-knows",
        "outcome": "refused",
        "hub": oxen_hub.url,
    }


def test_evaluation_of_unknown_data(oxen_hub: LocalHub) -> None:
    """Data that the hub does not name is left out; a version that it does not name is none."""
    fields = {"resource": {"path": "a.csv", "version": None}, "target_path": None}
    sensor = gate(oxen_hub.add_evaluation(seconds=0, fields=fields))
    sensor.execute({"ti": FakeTaskInstance()})

    lineage = sensor.get_openlineage_facets_on_complete(None)

    assert written(lineage.inputs)[0]["facets"] == {}
    assert lineage.outputs == []


def test_gate_that_did_not_wait_tells_nothing() -> None:
    """A task that failed before its first look has no lineage."""
    assert gate("e").get_openlineage_facets_on_failure(None) is None


def test_asset_and_gate_name_the_same_dataset(oxen_hub: LocalHub) -> None:
    """The asset of the results is the dataset that the gate names, so that OpenLineage knows one thing, not two."""
    sensor = gate(oxen_hub.add_evaluation(seconds=0))
    sensor.execute({"ti": FakeTaskInstance()})
    (output,) = sensor.get_openlineage_facets_on_complete(None).outputs
    host = oxen_hub.url.removeprefix("http://")

    asset = Asset(uri=f"oxen://{host}/ox/customer-intents/data/intents.parquet?revision=main")
    converted = convert_asset_to_openlineage(asset, None)

    assert (converted.namespace, converted.name) == (output.namespace, output.name)
    assert written(converted.facets) == written(output.facets)


def test_listener_sleeps_where_nothing_is_to_be_sent() -> None:
    """Installed but not told where to send events, OpenLineage listens to nothing: gates may end in the triggerer."""
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    try:
        from airflow.listeners.listener import get_listener_manager
    except ImportError:
        from airflow.sdk._shared.listeners import get_listener_manager

    assert get_listener_manager().has_listeners is False
