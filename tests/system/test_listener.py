"""Gates in an Airflow with listeners: a plugin's own, and OpenLineage's, which gets the data."""

from __future__ import annotations

import json
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_oxen.testing import LocalHub

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DAG = "example_oxen_gate_without_worker"
#: Which DAG is run with which evaluation, all side by side.
RUNS = [
    (DAG, "completed-3s-heard"),
    ("example_oxen_gate", "completed-8s-gate"),
    ("example_oxen_asset", "completed-8s-asset"),
    ("example_oxen_gate", "errored-8s-gate"),
]
PLUGIN = textwrap.dedent("""
    import sys
    from airflow.listeners import hookimpl
    from airflow.plugins_manager import AirflowPlugin

    @hookimpl
    def on_task_instance_success(previous_state, task_instance):
        print(f"LISTENER heard that {task_instance.task_id} succeeded")

    class Listening(AirflowPlugin):
        name = "listening"
        listeners = [sys.modules[__name__]]
""")


@pytest.fixture(scope="module")
def listening(hub: LocalHub, dags_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    home = tmp_path_factory.mktemp("listening")
    (home / "plugins").mkdir()
    (home / "plugins" / "listening.py").write_text(PLUGIN)
    events = home / "openlineage.jsonl"
    env = {
        "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "tests",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(events), "append": True}),
    }
    with AirflowStandalone(home, dags=dags_folder, env=env) as airflow:
        airflow.wait_for_dags({DAG, "example_oxen_gate", "example_oxen_asset"})
        for dag_id, evaluation_id in RUNS:
            airflow.trigger(dag_id, evaluation_id, {"evaluation_id": evaluation_id})
        yield Listening(airflow, events)


@dataclass
class Listening:
    """An Airflow with two listeners: a plugin's own, and OpenLineage's, which writes events to a file."""

    airflow: AirflowStandalone
    events: Path

    def last_event(self, dag_id: str, evaluation_id: str) -> dict[str, Any]:
        """Return OpenLineage's last event of the gate of a run: it is written a moment after the task has ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = self.events.read_text().splitlines() if self.events.exists() else []
            for event in map(json.loads, filter(None, lines)):
                if event["job"]["name"] != f"{dag_id}.gate" or event["eventType"] not in ("COMPLETE", "FAIL"):
                    continue
                if event["run"]["facets"]["airflow"]["dagRun"]["run_id"] == evaluation_id:
                    return dict(event)
            time.sleep(0.3)
        raise AssertionError(f"OpenLineage wrote nothing about {evaluation_id}")


def test_listener_hears_the_end_of_a_gate(listening: Listening) -> None:
    """The DAG is imported, the gate opens, ends on a worker, and the listener hears of it."""
    airflow, evaluation_id = listening.airflow, "completed-3s-heard"

    assert airflow.wait_for_run(DAG, evaluation_id) == "success"
    text = airflow.task_log(DAG, evaluation_id, "gate")
    workers = list((airflow.home / "logs").glob(f"dag_id={DAG}/run_id={evaluation_id}/task_id=gate/attempt=1.log"))
    assert len(workers) == 1
    assert "The gate opens." in text
    assert "LISTENER heard that gate succeeded" in text
    assert listening.last_event(DAG, evaluation_id)["run"]["facets"]["oxen_evaluation"]["outcome"] == "completed"


@pytest.mark.parametrize(("dag_id", "evaluation_id"), RUNS[1:3])
def test_openlineage_event_of_a_completed_evaluation(
    listening: Listening, hub: LocalHub, dag_id: str, evaluation_id: str
) -> None:
    """The event of a gate that opened has source and results at their versions, model, rows, tokens and credits."""
    assert listening.airflow.wait_for_run(dag_id, evaluation_id) == "success"
    event = listening.last_event(dag_id, evaluation_id)
    assert event["eventType"] == "COMPLETE"
    (source,), (results,) = event["inputs"], event["outputs"]
    namespace = f"oxen://127.0.0.1:{hub.port}"
    assert (source["namespace"], source["name"]) == (namespace, "ox/customer-intents/data/customers.parquet")
    assert source["facets"]["version"]["datasetVersion"] == "0123456789abcdef"
    assert (results["namespace"], results["name"]) == (namespace, "ox/customer-intents/data/intents.parquet")
    commit = hub.status_of(evaluation_id)["closing_commit"]["id"]
    assert results["facets"]["version"]["datasetVersion"] == commit
    assert results["outputFacets"]["outputStatistics"]["rowCount"] == 1000
    facet = event["run"]["facets"]["oxen_evaluation"]
    assert facet["evaluation_id"] == evaluation_id
    assert facet["model"] == {"id": "local-model", "name": "Local model"}
    assert facet["progress"] == {"processed": 1000, "total": 1000}
    assert (facet["tokens_used"], facet["prompt_tokens_used"], facet["credits_used"]) == (25_000, 20_000, 1.0)


def test_openlineage_event_of_a_failure(listening: Listening) -> None:
    """The event of a gate that failed has the hub's error message, and the data that it was about."""
    evaluation_id = "errored-8s-gate"

    assert listening.airflow.wait_for_run("example_oxen_gate", evaluation_id) == "failed"
    event = listening.last_event("example_oxen_gate", evaluation_id)
    assert event["eventType"] == "FAIL"
    facets = event["run"]["facets"]
    assert facets["oxen_evaluation"]["error_message"] == "the model returned no answer for row 601"
    assert facets["oxen_evaluation"]["progress"] == {"processed": 600, "total": 1000}
    assert facets["errorMessage"]["message"].startswith("Evaluation errored: the model returned no answer for row 601")
    assert event["inputs"][0]["facets"]["version"]["datasetVersion"] == "0123456789abcdef"
    assert event["outputs"][0].get("outputFacets", {}) == {}
