"""Gates in an Airflow with listeners: a plugin's own, and OpenLineage's, which is told of the data."""

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
        yield Listening(airflow, events)


@dataclass
class Listening:
    """An Airflow with two listeners: a plugin's own, and OpenLineage's, which writes events to a file."""

    airflow: AirflowStandalone
    events: Path

    def run(self, dag_id: str, evaluation_id: str) -> str:
        self.airflow.trigger(dag_id, evaluation_id, {"evaluation_id": evaluation_id})
        return self.airflow.wait_for_run(dag_id, evaluation_id)

    def last_event(self, dag_id: str, evaluation_id: str) -> dict[str, Any]:
        """Give OpenLineage's last word on the gate of a run: it is written a moment after the task has ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            lines = self.events.read_text().splitlines() if self.events.exists() else []
            for event in map(json.loads, filter(None, lines)):
                if event["job"]["name"] != f"{dag_id}.gate" or event["eventType"] not in ("COMPLETE", "FAIL"):
                    continue
                if event["run"]["facets"]["airflow"]["dagRun"]["run_id"] == evaluation_id:
                    return dict(event)
            time.sleep(0.3)
        raise AssertionError(f"OpenLineage said nothing about {evaluation_id}")


def test_listener_hears_the_end_of_a_gate(listening: Listening) -> None:
    """The DAG is imported, the gate opens, ends on a worker, and the listener hears of it."""
    airflow, evaluation_id = listening.airflow, "completed-3s-heard"

    assert listening.run(DAG, evaluation_id) == "success"
    text = airflow.task_log(DAG, evaluation_id, "gate")
    workers = list((airflow.home / "logs").glob(f"dag_id={DAG}/run_id={evaluation_id}/task_id=gate/attempt=1.log"))
    assert len(workers) == 1
    assert "The gate opens." in text
    assert "LISTENER heard that gate succeeded" in text
    assert listening.last_event(DAG, evaluation_id)["run"]["facets"]["oxen_evaluation"]["outcome"] == "completed"


@pytest.mark.parametrize("dag_id", ["example_oxen_gate", "example_oxen_asset"])
def test_openlineage_is_told_of_a_completed_evaluation(listening: Listening, hub: LocalHub, dag_id: str) -> None:
    """The event of a gate that opened has source and results at their versions, model, rows, tokens and credits."""
    evaluation_id = f"completed-8s-{dag_id}"

    assert listening.run(dag_id, evaluation_id) == "success"
    event = listening.last_event(dag_id, evaluation_id)
    assert event["eventType"] == "COMPLETE"
    (source,), (results,) = event["inputs"], event["outputs"]
    namespace = f"oxen://127.0.0.1:{hub.port}"
    assert (source["namespace"], source["name"]) == (namespace, "ox/customer-intents/data/customers.parquet")
    assert source["facets"]["version"]["datasetVersion"] == "0123456789abcdef"
    assert (results["namespace"], results["name"]) == (namespace, "ox/customer-intents/data/intents.parquet")
    assert results["facets"]["version"]["datasetVersion"] == "main"
    assert results["outputFacets"]["outputStatistics"]["rowCount"] == 1000
    told = event["run"]["facets"]["oxen_evaluation"]
    assert told["evaluation_id"] == evaluation_id
    assert told["model"] == {"id": "local-model", "name": "Local model"}
    assert told["progress"] == {"processed": 1000, "total": 1000}
    assert (told["tokens_used"], told["prompt_tokens_used"], told["credits_used"]) == (25_000, 20_000, 1.0)


def test_openlineage_is_told_of_a_failure(listening: Listening) -> None:
    """The event of a gate that failed has the hub's reason, and the data that it was about."""
    evaluation_id = "errored-8s-lineage"

    assert listening.run("example_oxen_gate", evaluation_id) == "failed"
    event = listening.last_event("example_oxen_gate", evaluation_id)
    assert event["eventType"] == "FAIL"
    facets = event["run"]["facets"]
    assert facets["oxen_evaluation"]["error_message"] == "the model returned no answer for row 601"
    assert facets["oxen_evaluation"]["progress"] == {"processed": 600, "total": 1000}
    assert "errored after" in facets["errorMessage"]["message"]
    assert event["inputs"][0]["facets"]["version"]["datasetVersion"] == "0123456789abcdef"
    assert event["outputs"][0].get("outputFacets", {}) == {}
