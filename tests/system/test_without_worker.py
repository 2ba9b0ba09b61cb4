"""Gates that need no worker, in a real Airflow: the log files show which processes ran."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from airflow_provider_oxen.testing import LocalHub
from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(500)]

_DAGS = Path(__file__).parent / "dags_without_worker"
#: How long one gate may take, in seconds: most of it is Airflow's own loops.
_LIMIT_SECONDS = 150.0


class Lab:
    """One Airflow and one hub for all the tests here."""

    def __init__(self, airflow: AirflowStandalone, hub: LocalHub) -> None:
        self.airflow = airflow
        self.hub = hub
        self._runs = 0

    def start(self, dag_id: str, evaluation_ids: list[str]) -> str:
        self._runs += 1
        run_id = f"run-{self._runs}"
        self.airflow.trigger(dag_id, run_id, {"id": evaluation_ids[0], "ids": evaluation_ids})
        return run_id

    def run(self, dag_id: str, *evaluation_ids: str) -> str:
        """Run a DAG to its end."""
        run_id = self.start(dag_id, list(evaluation_ids))
        self.wait(lambda: self.airflow.run_state(dag_id, run_id) in ("success", "failed"), dag_id)
        return run_id

    def wait(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not reached():
            assert time.monotonic() < deadline, f"{what} took too long"
            time.sleep(0.3)

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.airflow.task_instances(dag_id, run_id)}

    def gate(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return next(ti for ti in self.airflow.task_instances(dag_id, run_id) if ti["task_id"] == "gate")

    def gate_log(self, dag_id: str, run_id: str, try_number: int = 1) -> str:
        return self.airflow.task_log(dag_id, run_id, "gate", try_number)

    def worker_logs(self, dag_id: str, run_id: str, task_id: str = "gate") -> int:
        """Count the workers that ever started for a task: each attempt of theirs has a log file of its own."""
        folder = self.airflow.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return sum(".trigger." not in path.name for path in folder.rglob("*.log"))

    def was_triggered_by_scheduler(self, dag_id: str, run_id: str) -> bool:
        """Whether the wait began in the triggerer: a worker that begins one logs it."""
        return "This worker is free" not in self.gate_log(dag_id, run_id)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with LocalHub() as hub:
        airflow = AirflowStandalone(
            tmp_path_factory.mktemp("airflow"),
            dags=_DAGS,
            env={
                "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
                "AIRFLOW_CONN_OXEN_UNREACHABLE": "oxen://:key@127.0.0.1:9/http",
                "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
            },
        )
        with airflow:
            lab = Lab(airflow, hub)
            lab.wait(lambda: airflow.get("/dags", limit=100)["total_entries"] == 18, "reading the DAG file")
            assert airflow.get("/importErrors")["import_errors"] == []
            yield lab


@pytest.mark.parametrize("dag_id", ["conf", "param", "output", "key_of_output", "xcom_pull", "output_as_text"])
def test_completed_evaluation_needs_no_worker(lab: Lab, dag_id: str) -> None:
    """Whichever way its id is given, an evaluation that completes opens the gate without a worker, with both XComs."""
    evaluation_id = lab.hub.add_evaluation(seconds=2)

    run_id = lab.run(dag_id, evaluation_id)

    assert set(lab.states(dag_id, run_id).values()) == {"success"}
    assert lab.worker_logs(dag_id, run_id) == 0
    result = lab.airflow.xcom(dag_id, run_id, "gate")
    assert (result["id"], result["status"]) == (evaluation_id, "completed")
    assert lab.airflow.xcom(dag_id, run_id, "gate", "evaluation") == result
    assert "prompt" not in result
    assert "Evaluation completed (1,000 of 1,000 rows after" in lab.gate_log(dag_id, run_id)
    if "use" in lab.states(dag_id, run_id):
        assert lab.airflow.xcom(dag_id, run_id, "use") == evaluation_id


def test_gate_without_xcom_leaves_none(lab: Lab) -> None:
    """With ``do_xcom_push=False``, a gate that ends in the triggerer leaves no XCom either."""
    run_id = lab.run("without_xcom", "completed-1s-without-xcom")

    assert lab.states("without_xcom", run_id) == {"gate": "success"}
    assert lab.worker_logs("without_xcom", run_id) == 0
    assert lab.airflow.xcom("without_xcom", run_id, "gate") is None
    assert lab.airflow.xcom("without_xcom", run_id, "gate", "evaluation") is None


def test_failure_ends_on_a_worker_and_is_not_retried(lab: Lab) -> None:
    """An errored evaluation fails the task with its message, callback and XCom, without using its retries."""
    evaluation_id = lab.hub.add_evaluation(end="errored", seconds=1)

    run_id = lab.run("failing", evaluation_id)

    assert (lab.gate("failing", run_id)["state"], lab.gate("failing", run_id)["try_number"]) == ("failed", 1)
    assert lab.worker_logs("failing", run_id) == 1
    assert lab.was_triggered_by_scheduler("failing", run_id)
    assert "the model returned no answer for row 601" in lab.gate_log("failing", run_id)
    assert lab.airflow.xcom("failing", run_id, "gate", "called") == "the callback was called"
    assert lab.airflow.xcom("failing", run_id, "gate", "evaluation")["status"] == "errored"
    assert lab.airflow.xcom("failing", run_id, "gate") is None


def test_soft_fail_skips(lab: Lab) -> None:
    """With ``soft_fail``, an evaluation that was cancelled skips a gate that began in the triggerer."""
    run_id = lab.run("soft_fail", lab.hub.add_evaluation(end="cancelled", seconds=1))

    assert lab.states("soft_fail", run_id) == {"gate": "skipped"}
    assert lab.was_triggered_by_scheduler("soft_fail", run_id)


@pytest.mark.parametrize(("dag_id", "seconds"), [("deadline", 4), ("execution_timeout", 9)])
def test_deadline_counts_from_the_attempt(lab: Lab, dag_id: str, seconds: float) -> None:
    """At the earlier of ``timeout`` and ``execution_timeout``, the task fails, not retried, with what was last seen."""
    run_id = lab.run(dag_id, lab.hub.add_evaluation(seconds=600))

    gate = lab.gate(dag_id, run_id)
    assert (gate["state"], gate["try_number"]) == ("failed", 1)
    assert lab.was_triggered_by_scheduler(dag_id, run_id)
    log = lab.gate_log(dag_id, run_id)
    assert "Timed out" in log
    assert "0 of 1,000 rows (0.0 %), queued, when last seen" in log
    assert seconds - 4 < gate["duration"] < seconds + 90  # Airflow's own timeout is ten minutes later


def test_each_retry_begins_in_the_triggerer(lab: Lab) -> None:
    """Where the hub stays out of reach, each attempt begins in the triggerer and ends on a worker."""
    run_id = lab.run("unreachable", "completed-1s-unreachable")

    gate = lab.gate("unreachable", run_id)
    assert (gate["state"], gate["try_number"]) == ("failed", 2)
    assert lab.worker_logs("unreachable", run_id) == 2
    for try_number in (1, 2):
        log = lab.gate_log("unreachable", run_id, try_number)
        assert "Hub out of reach for longer than retry_window: " in log
        assert "This worker is free" not in log


def test_cleared_gate_waits_again(lab: Lab) -> None:
    """A gate that was cleared polls again; its first result is gone if it fails, and replaced if it opens."""
    evaluation_id = lab.hub.add_evaluation(seconds=1)
    run_id = lab.run("conf", evaluation_id)
    assert lab.airflow.xcom("conf", run_id, "gate")["id"] == evaluation_id

    for end, expected, attempt in (("errored", "failed", 2), ("completed", "success", 3)):
        lab.hub.add_evaluation(evaluation_id, end=end, seconds=1)
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["gate"], "only_failed": False}
        lab.airflow.post("/dags/conf/clearTaskInstances", body | {"include_downstream": True})
        lab.wait(
            lambda attempt=attempt, expected=expected: (
                (lab.gate("conf", run_id)["try_number"], lab.gate("conf", run_id)["state"]) == (attempt, expected)
            ),
            f"the gate that was cleared and {end}",
        )
        # A task that is cleared just before the scheduler ends its run stays without a state.
        lab.wait(lambda expected=expected: lab.airflow.run_state("conf", run_id) == expected, "the run")
        result = lab.airflow.xcom("conf", run_id, "gate")
        assert result is None if expected == "failed" else result["id"] == evaluation_id
        assert lab.airflow.xcom("conf", run_id, "gate", "evaluation")["status"] == end
    assert lab.worker_logs("conf", run_id) == 1


def test_outlets_emit_their_events(lab: Lab) -> None:
    """A gate with outlets begins in the triggerer and ends on a worker, so that the asset's event is there."""
    run_id = lab.run("ends_on_worker_for_outlets", "completed-1s-outlets")

    assert lab.states("ends_on_worker_for_outlets", run_id) == {"gate": "success"}
    assert lab.worker_logs("ends_on_worker_for_outlets", run_id) == 1
    assert lab.was_triggered_by_scheduler("ends_on_worker_for_outlets", run_id)
    events = lab.airflow.get("/assets/events", source_dag_id="ends_on_worker_for_outlets")["asset_events"]
    assert [event["source_run_id"] for event in events] == [run_id]


def test_success_callback_is_called(lab: Lab) -> None:
    """A gate with ``on_success_callback`` ends on a worker, which calls it."""
    run_id = lab.run("ends_on_worker_for_callback", "completed-1s-callback")

    assert lab.was_triggered_by_scheduler("ends_on_worker_for_callback", run_id)
    called = lab.airflow.xcom("ends_on_worker_for_callback", run_id, "gate", "called")
    assert called == "the callback was called"


def test_task_can_be_expanded_over_the_result(lab: Lab) -> None:
    """A gate whose result a later task is expanded over ends on a worker, which records how long the result is."""
    run_id = lab.run("ends_on_worker_for_expansion", "completed-1s-expansion")

    assert set(lab.states("ends_on_worker_for_expansion", run_id).values()) == {"success"}
    assert lab.was_triggered_by_scheduler("ends_on_worker_for_expansion", run_id)
    assert "only a worker records" in lab.gate_log("ends_on_worker_for_expansion", run_id)


def test_template_that_would_hang_is_rendered_on_a_worker(lab: Lab) -> None:
    """A template that reads the results of a mapped task works: a worker renders it."""
    run_id = lab.run("begins_on_worker_for_xcom_list", "completed-0s-first", "completed-1s-second")

    assert set(lab.states("begins_on_worker_for_xcom_list", run_id).values()) == {"success"}
    assert lab.worker_logs("begins_on_worker_for_xcom_list", run_id) == 1
    assert not lab.was_triggered_by_scheduler("begins_on_worker_for_xcom_list", run_id)
    assert lab.airflow.xcom("begins_on_worker_for_xcom_list", run_id, "gate")["id"] == "completed-1s-second"


def test_mapped_gates_begin_on_workers(lab: Lab) -> None:
    """Mapped gates begin on a worker each, with a warning, and end in the triggerer."""
    run_id = lab.run("mapped", "completed-1s-a", "completed-2s-b")

    assert set(lab.states("mapped", run_id).values()) == {"success"}
    for map_index, evaluation_id in enumerate(("completed-1s-a", "completed-2s-b")):
        assert lab.airflow.xcom("mapped", run_id, "gate", map_index=map_index)["id"] == evaluation_id
        log = lab.airflow.task_log("mapped", run_id, "gate", map_index=map_index)
        assert log.count("start_from_trigger has no effect here: Airflow begins a mapped task on a worker.") == 1
    assert lab.worker_logs("mapped", run_id) == 2


def test_deadline_survives_the_triggerer(lab: Lab) -> None:
    """Another triggerer that takes over a wait keeps to the deadline that counts from the start of the attempt."""
    airflow = lab.airflow
    evaluation_id = lab.hub.add_evaluation(seconds=600)
    with (airflow.home / "second-triggerer.log").open("wb") as log:
        command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
        second = subprocess.Popen(command, env=airflow.env, stdout=log, stderr=log)
    try:
        # Both run before the wait begins, so that its timeout does not pass while one starts.
        lab.wait(lambda: len(_triggerer_jobs(airflow)) == 2, "the second triggerer")
        run_id = lab.start("failover", [evaluation_id])
        lab.wait(lambda: lab.hub.requests_for(evaluation_id) > 2, "the first polls")
        gate = lab.gate("failover", run_id)
        began_at = datetime.fromisoformat(gate["start_date"]).timestamp()
        of_second = {second.pid, *(child.pid for child in psutil.Process(second.pid).children(recursive=True))}
        in_second = gate["triggerer_job"]["id"] == max(_triggerer_jobs(airflow))
        killed = [process for process in _triggerers(airflow) if (process.pid in of_second) is in_second]
        assert killed
        for process in killed:
            process.kill()
        polls = lab.hub.requests_for(evaluation_id)

        lab.wait(lambda: lab.gate("failover", run_id)["state"] == "failed", "the end of the wait")
    finally:
        second.terminate()
        second.wait(30)

    assert lab.hub.requests_for(evaluation_id) > polls + 2
    shown = re.search(r"it had not ended by ([\d-]+ [\d:]+) UTC", lab.gate_log("failover", run_id))
    assert shown is not None
    deadline = datetime.fromisoformat(shown[1]).replace(tzinfo=timezone.utc).timestamp()
    assert deadline == pytest.approx(began_at + 40, abs=1.5)


def _triggerer_jobs(airflow: AirflowStandalone) -> list[int]:
    """Return the ids of the triggerers that Airflow takes for alive."""
    found = airflow.get("/jobs", job_type="TriggererJob", is_alive=True)
    return [job["id"] for job in found["jobs"]]


def _triggerers(airflow: AirflowStandalone) -> list[psutil.Process]:
    """Find the processes of all triggerers of an Airflow."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "triggerer" not in " ".join(process.info["cmdline"] or []):
                continue
            if process.environ().get("AIRFLOW_HOME") == str(airflow.home):
                found.append(process)
    return found
