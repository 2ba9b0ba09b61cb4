"""
An Airflow 3.3 that several teams share, with three triggerers: which of them runs a wait, and which connection it gets.

Deadline alerts and asset partitions are tested here too, with the code of their pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from demo.standalone import AirflowStandalone
from tests.docs.pages import blocks
from tests.support.postgres import postgres_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_oxen.testing import LocalHub

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

DAGS = Path(__file__).parent / "dags_teams"
#: The arguments of each triggerer.
TRIGGERERS = {
    "triggerer": (),
    "triggerer-queues": ("--queues", "evaluations,default"),
    "triggerer-red": ("--queues", "default", "--team-name", "red"),
}


class _WithVariable(AirflowStandalone):
    """An Airflow in which the scheduler, its workers and one triggerer have a connection in their environment."""

    hub: LocalHub

    def _env_of(self, name: str) -> dict[str, str]:
        own = {"AIRFLOW_CONN_OXEN_PROCESS": self.hub.connection_uri}
        return {**super()._env_of(name), **(own if name in ("scheduler", "triggerer-red") else {})}


def _code_of(page: str, name: str) -> str:
    """Return the block of a page that defines a function."""
    (found,) = [block.text for block in blocks("python") if block.page.name == page and f"def {name}(" in block.text]
    return found


def _bundle(path: Path, name: str, **team: str) -> dict[str, Any]:
    classpath = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return {"name": name, "classpath": classpath, "kwargs": {"path": str(path)}, **team}


@pytest.fixture(scope="module")
def common_dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DAGs of no team: those of this folder, and those of the pages."""
    folder = tmp_path_factory.mktemp("common")
    (folder / "gates.py").symlink_to(DAGS / "common/gates.py")
    for page, name in (
        ("teams.md", "gate_in_queue"),
        ("alerts.md", "gate_with_deadline"),
        ("assets.md", "gate_for_a_day"),
        ("assets.md", "publish_a_day"),
    ):
        (folder / f"{name}.py").write_text(_code_of(page, name).replace("timedelta(hours=2)", "timedelta(seconds=5)"))
    return folder


@pytest.fixture(scope="module")
def airflow(hub: LocalHub, common_dags: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStandalone]:
    """An Airflow of separate processes on PostgreSQL, with a team and three triggerers."""
    with postgres_server(tmp_path_factory.mktemp("run")) as server:
        home = tmp_path_factory.mktemp("airflow")
        airflow = _WithVariable(
            home,
            dags=common_dags,
            env={
                "AIRFLOW_CONN__RED___OXEN_VARIABLE": hub.connection_uri,
                "AIRFLOW__CORE__MULTI_TEAM": "True",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.get_uri().replace("postgresql:", "postgresql+psycopg2:"),
                "AIRFLOW__TRIGGERER__QUEUES_ENABLED": "True",
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            },
            commands={
                "api-server": ("api-server",),
                "scheduler": ("scheduler", "--skip-serve-logs"),
                "dag-processor": ("dag-processor",),
                **{name: ("triggerer", "--skip-serve-logs", *rest) for name, rest in TRIGGERERS.items()},
            },
        )
        airflow.hub = hub
        for command in (("db", "migrate"), ("teams", "create", "red")):
            subprocess.run(
                [sys.executable, "-m", "airflow", *command], env=airflow.env, check=True, capture_output=True
            )
        airflow.env |= {
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor;red=LocalExecutor",
            "AIRFLOW__RED___CORE__EXECUTION_API_SERVER_URL": f"{airflow.url}/execution/",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                [_bundle(common_dags, "common"), _bundle(DAGS / "red", "red", team_name="red")]
            ),
        }
        (home / "plugins").mkdir()
        (home / "plugins/late_gates.py").write_text(_code_of("alerts.md", "tell_progress"))
        with airflow:
            for conn_id, team in (("oxen_default", None), ("oxen_red", "red")):
                body = {"connection_id": conn_id, "conn_type": "oxen", "host": hub.url, "password": hub.api_key}
                airflow.post("/connections", {**body, "team_name": team})
            airflow.wait_for_dags(
                {"red_gates", "gates_with_queues", *(file.stem for file in common_dags.glob("*_*.py"))}
            )
            yield airflow


def _wait_until(condition: Callable[[], bool], what: str, *, limit_seconds: float = 240.0) -> None:
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.3)


def _tasks(airflow: AirflowStandalone, dag_id: str) -> dict[str, dict[str, Any]]:
    return {task["task_id"]: task for task in airflow.task_instances(dag_id, "run")}


def _begin(airflow: AirflowStandalone, hub: LocalHub, dag_id: str, **more: str) -> str:
    """Start a run for an evaluation that goes on until it is said to have ended."""
    evaluation_id = hub.add_evaluation(f"of-{dag_id}", seconds=3600)
    conf = {"evaluation_id": evaluation_id}
    body = {"dag_run_id": "run", "logical_date": None, "conf": conf, **more}
    airflow.post(f"/dags/{dag_id}/dagRuns", body)
    return evaluation_id


def test_team_gets_the_connections_that_the_page_says(airflow: AirflowStandalone, hub: LocalHub) -> None:
    """
    A triggerer finds connections without a team and those of its own environment, and not those of a team.

    A worker finds all of them. Only the triggerer of the team has the variable for ``of_the_process``, so it ran there.
    """
    evaluation_id = _begin(airflow, hub, "red_gates")

    hidden, found = ("of_the_team", "of_the_team_in_variable"), ("of_no_team", "of_the_process")
    _wait_until(
        lambda: (
            all(_tasks(airflow, "red_gates")[name]["state"] == "failed" for name in hidden)
            and all(_tasks(airflow, "red_gates")[name]["triggerer_job"] for name in found)
        ),
        "the gates with hidden connections have failed, and the others wait",
    )
    hub.add_evaluation(evaluation_id, seconds=0)
    airflow.wait_for_run("red_gates", "run")

    states = {name: task["state"] for name, task in _tasks(airflow, "red_gates").items()}
    assert states == {
        **dict.fromkeys(hidden, "failed"),
        **dict.fromkeys(found, "success"),
        "of_the_team_on_worker": "success",
    }
    for name in hidden:
        assert "A triggerer does not find connections that belong to a team" in airflow.task_log(
            "red_gates", "run", name
        )


def test_wait_has_the_queue_of_its_task(airflow: AirflowStandalone, hub: LocalHub) -> None:
    """A triggerer with a task's queue runs its wait, also where the task asks to begin there; others do not."""
    on_page = _begin(airflow, hub, "gate_in_queue")
    evaluation_id = _begin(airflow, hub, "gates_with_queues")
    _wait_until(
        lambda: (
            all(task["triggerer_job"] for task in _tasks(airflow, "gate_in_queue").values())
            and all(
                _tasks(airflow, "gates_with_queues")[name]["triggerer_job"] for name in ("default", "without_worker")
            )
            and _tasks(airflow, "gates_with_queues")["nowhere"]["state"] == "deferred"
        ),
        "the gates wait",
    )

    tasks = _tasks(airflow, "gates_with_queues")
    queues = {name: task["trigger"]["queue"] for name, task in tasks.items()}
    assert queues == {"default": "default", "without_worker": "evaluations", "nowhere": "nowhere"}
    assert _tasks(airflow, "gate_in_queue")["gate"]["trigger"]["queue"] == "evaluations"
    assert tasks["nowhere"]["triggerer_job"] is None
    for name in (on_page, evaluation_id):
        hub.add_evaluation(name, seconds=0)
    assert airflow.wait_for_run("gate_in_queue", "run") == "success"
    _wait_until(
        lambda: (
            [_tasks(airflow, "gates_with_queues")[n]["state"] for n in ("default", "without_worker")] == ["success"] * 2
        ),
        "the gates whose queues are taken have opened",
    )
    assert _tasks(airflow, "gates_with_queues")["nowhere"]["state"] == "deferred"
    assert "This worker is free" in airflow.task_log("gates_with_queues", "run", "without_worker")


def test_deadline_alert_says_how_far_the_evaluation_is(airflow: AirflowStandalone, hub: LocalHub) -> None:
    """The coroutine of a deadline alert asks the hub while the gate waits, and the gate opens afterwards."""
    evaluation_id = _begin(airflow, hub, "gate_with_deadline")
    said = "gate_with_deadline is late: 0 of 1000 rows, "

    _wait_until(lambda: said in (airflow.home / "triggerer.log").read_text(), "the alert")
    assert _tasks(airflow, "gate_with_deadline")["gate"]["state"] != "failed"
    hub.add_evaluation(evaluation_id, seconds=0)

    assert airflow.wait_for_run("gate_with_deadline", "run") == "success"


def test_event_of_the_gate_has_the_partition_key(airflow: AirflowStandalone, hub: LocalHub) -> None:
    """A run with a partition key starts one run of the consumer, with this key and the facts of its evaluation."""
    evaluation_id = _begin(airflow, hub, "gate_for_a_day", partition_key="2026-11-28")
    hub.add_evaluation(evaluation_id, seconds=8, rows=50)
    assert airflow.wait_for_run("gate_for_a_day", "run") == "success"

    _wait_until(lambda: airflow.get("/dags/publish_a_day/dagRuns")["total_entries"] > 0, "the consumer's run")
    (run,) = airflow.get("/dags/publish_a_day/dagRuns")["dag_runs"]
    assert run["partition_key"] == "2026-11-28"
    assert airflow.wait_for_run("publish_a_day", run["dag_run_id"]) == "success"
    assert airflow.xcom("publish_a_day", run["dag_run_id"], "publish").startswith("2026-11-28: 50 rows at ")
