"""
Gates in a real Airflow: scheduler, triggerer, DAG processor and API server, against the local hub.

Evaluations take some seconds. On SQLite, which may be locked for five, a worker may end late after its deferral.
Airflow 3.3 takes it for the worker that resumed the task, and fails that task.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow import __version__ as airflow_version

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone
    from tests.support.listeners import StatsdListener

pytestmark = [pytest.mark.system, pytest.mark.timeout(500)]

DAG = "gate_in_each_way"
WAYS = ["deferred", "poke", "reschedule"]


@pytest.fixture(scope="module")
def runs(real_airflow: AirflowStandalone, hub: LocalHub) -> dict[str, dict[str, dict[str, Any]]]:
    """A run for each end, side by side; the tasks of each, by name."""
    ends = ("completed", "errored", "cancelled")
    for end in ends:
        hub.add_evaluation(f"all-{end}", seconds=3600)
        hub.add_evaluation(f"never-{end}", seconds=3600)
        real_airflow.trigger(DAG, end, {"evaluation_id": f"all-{end}"})

    def found(end: str) -> dict[str, dict[str, Any]]:
        return {task["task_id"]: task for task in real_airflow.task_instances(DAG, end)}

    # The evaluations run once the gates wait for them, however long these fifteen workers take to start.
    deadline = time.monotonic() + 150
    while {found(end)[way]["state"] for end in ends for way in ("deferred", "soft")} != {"deferred"}:
        assert time.monotonic() < deadline, {end: found(end) for end in ends}
        time.sleep(0.5)
    for end in ends:
        hub.add_evaluation(f"all-{end}", end=end, seconds=10, rows=50)
    for end in ends:
        real_airflow.wait_for_run(DAG, end, limit_seconds=200)
    return {end: found(end) for end in ends}


@pytest.mark.parametrize("way", [*WAYS, "soft"])
def test_gate_opens_on_completed(runs: dict, real_airflow: AirflowStandalone, way: str) -> None:
    """On a completed evaluation the task succeeds, and its XCom is the evaluation, the same in each way."""
    returned = real_airflow.xcom(DAG, "completed", way)

    assert runs["completed"][way]["state"] == "success"
    assert returned["status"] == "completed"
    assert returned["progress"] == {"processed": 50, "total": 50}
    assert returned == real_airflow.xcom(DAG, "completed", "deferred", key="evaluation")


def test_what_comes_after_runs_only_when_the_gate_opened(runs: dict) -> None:
    """The downstream task runs after an open gate, and not after a closed one."""
    assert {end: tasks["go_on"]["state"] for end, tasks in runs.items()} == {
        "completed": "success",
        "errored": "upstream_failed",
        "cancelled": "upstream_failed",
    }


@pytest.mark.parametrize("end", ["errored", "cancelled"])
@pytest.mark.parametrize("way", WAYS)
def test_gate_fails_at_once_without_retries(runs: dict, real_airflow: AirflowStandalone, end: str, way: str) -> None:
    """A failed evaluation fails the task in its first try, with the reason in its log and the evaluation in XCom."""
    assert (runs[end][way]["state"], runs[end][way]["try_number"]) == ("failed", 1)
    assert real_airflow.xcom(DAG, end, way) is None
    assert real_airflow.xcom(DAG, end, way, key="evaluation")["status"] == end
    text = real_airflow.task_log(DAG, end, way)
    assert "AirflowFailException" in text
    assert re.search(rf"Evaluation {end}.* \(30 of 50 rows after", text)
    assert f", evaluation all-{end} of ox/customer-intents, hub http://127.0.0.1:" in text
    assert f"CALLBACK {end} 30" in text


@pytest.mark.parametrize("end", ["errored", "cancelled"])
def test_soft_fail_skips(runs: dict, end: str) -> None:
    """With ``soft_fail``, a failed evaluation skips the task."""
    assert runs[end]["soft"]["state"] == "skipped"


def test_timeout_fails_with_the_last_status(runs: dict, real_airflow: AirflowStandalone) -> None:
    """A deadline that passes while the task is deferred fails it in time, without retries, with what was seen."""
    task = runs["completed"]["short"]
    text = real_airflow.task_log(DAG, "completed", "short")

    assert (task["state"], task["try_number"]) == ("failed", 1)
    assert "AirflowSensorTimeout" in text
    assert "Timed out: 0 of 1,000 rows (0.0 %), queued, when last seen; it had not ended by " in text
    assert "the task's deadline, evaluation never-" in text


def test_wait_holds_no_worker(runs: dict, real_airflow: AirflowStandalone) -> None:
    """A deferred gate's log shows the wait in the triggerer, with progress, and the end on the worker."""
    text = real_airflow.task_log(DAG, "completed", "deferred")

    assert runs["completed"]["deferred"]["state"] == "success"
    assert "It must run, and polls within 1 s: evaluation all-completed" in text
    assert " of 50 rows): evaluation all-completed" in text
    assert "The gate opens. Evaluation completed (50 of 50 rows after" in text


@pytest.mark.parametrize("process", ["triggerer", "worker"])
def test_metrics_arrive(runs: dict, statsd: StatsdListener, process: str) -> None:  # noqa: ARG001
    """A triggerer and the processes of tasks send their metrics to Airflow's statsd server, with tags."""
    assert statsd.sum("airflow.oxen.polls", conn_id="oxen_default", process=process) > 0
    assert statsd.sum("airflow.oxen.poll_seconds", process=process) > 0


def test_metrics_have_each_outcome_and_no_wait_is_left(runs: dict, statsd: StatsdListener) -> None:  # noqa: ARG001
    """Each of the three ways has counted how its wait ended, and the triggerer's number of waits is back at 0."""
    outcomes = {end: statsd.sum("airflow.oxen.outcomes", outcome=end) for end in ("completed", "errored", "cancelled")}
    waits = [sample.value for sample in statsd.named("airflow.oxen.waits")]

    assert all(number >= len(WAYS) for number in outcomes.values()), outcomes
    assert statsd.sum("airflow.oxen.rows", process="worker") >= len(WAYS) * (50 + 30 + 30)
    assert max(waits) > 1
    assert waits[-1] == 0


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("example_oxen_gate", {"evaluation_id": "completed-8s-gate"}),
        ("example_oxen_gate_from_task", {"evaluation_id": "completed-8s-task"}),
        ("example_oxen_gate_without_worker", {"evaluation_id": "completed-3s-workerless"}),
        ("example_oxen_branch_on_accuracy", {"evaluation_id": "completed-8s-share"}),
        ("example_oxen_mapped_gate", {"evaluation_ids": ["completed-8s-a", "completed-9s-b"]}),
    ],
)
def test_example_runs(real_airflow: AirflowStandalone, hub: LocalHub, dag_id: str, conf: dict) -> None:
    """Each example, run as its table says, succeeds after requests to the hub. That of the asset is run below."""
    before = len(hub.requests)
    real_airflow.trigger(dag_id, "example", conf)

    assert real_airflow.wait_for_run(dag_id, "example") == "success"
    assert len(hub.requests) > before


@pytest.fixture(scope="module")
def produced(real_airflow: AirflowStandalone, hub: LocalHub) -> dict[str, str]:
    """A run of the asset's example that meets the conditions and one that does not, side by side; how each ended."""
    hub.add_evaluation("met", seconds=8, rows=50)
    hub.add_evaluation("unmet", seconds=8, fields={"credits_used": 25.5})
    for evaluation_id in ("met", "unmet"):
        real_airflow.trigger("example_oxen_asset", evaluation_id, {"evaluation_id": evaluation_id})
    return {run_id: real_airflow.wait_for_run("example_oxen_asset", run_id) for run_id in ("met", "unmet")}


def _consumer_has_run(airflow: AirflowStandalone, dag_id: str = "example_oxen_asset_consumer") -> str:
    """
    Wait until the run that the asset's event started has succeeded, and return its id.

    Airflow 3.3.2 cannot show an event whose run was created and has not started: its response is a 500.
    """
    deadline = time.monotonic() + 60
    while not (runs := airflow.get(f"/dags/{dag_id}/dagRuns")["dag_runs"]):
        assert time.monotonic() < deadline, "no run started"
        time.sleep(0.3)
    (run_id,) = (str(run["dag_run_id"]) for run in runs)
    assert airflow.wait_for_run(dag_id, run_id) == "success"
    return run_id


def test_asset_of_a_gate_starts_the_next_pipeline(
    produced: dict, real_airflow: AirflowStandalone, hub: LocalHub
) -> None:
    """A gate that opens emits its asset's event with facts about the evaluation; the DAG scheduled on it reads them."""
    assert produced["met"] == "success"
    run_id = _consumer_has_run(real_airflow)
    (event,) = real_airflow.get("/assets/events", source_dag_id="example_oxen_asset")["asset_events"]
    commit = hub.status_of("met")["closing_commit"]["id"]
    assert (event["source_run_id"], event["source_task_id"]) == ("met", "gate")
    assert event["uri"] == "oxen://hub.oxen.ai/ox/customer-intents/data/intents.parquet?revision=main"
    assert event["extra"] == {
        "evaluation_id": "met",
        "commit": commit,
        "source_version": "0123456789abcdef",
        "rows": 50,
        "tokens": 1250,
        "credits": 0.05,
        "results": {"path": "data/intents.parquet", "version": commit, "rows": None, "conditions": []},
    }
    published = real_airflow.xcom("example_oxen_asset_consumer", run_id, "publish")
    assert published == [f"met: 50 rows at {commit}, 1250 tokens, 0.05 credits"]


def test_gate_whose_condition_is_not_met_produces_no_asset(produced: dict, real_airflow: AirflowStandalone) -> None:
    """A condition that is not met fails the task for good, with the reason, and the asset has no event of it."""
    assert produced["unmet"] == "failed"
    text = real_airflow.task_log("example_oxen_asset", "unmet", "gate")
    assert "Condition not met: 25.5 credits were spent, but at most 25 are allowed; evaluation completed (" in text
    assert _consumer_has_run(real_airflow)
    (event,) = real_airflow.get("/assets/events", source_dag_id="example_oxen_asset")["asset_events"]
    assert event["source_run_id"] == "met"
    assert real_airflow.xcom("example_oxen_asset", "unmet", "gate") is None
    assert real_airflow.xcom("example_oxen_asset", "unmet", "gate", "evaluation")["credits_used"] == 25.5


def test_measured_shares_start_the_next_pipeline(real_airflow: AirflowStandalone) -> None:
    """The DAG that is scheduled on the results reads from the asset's event what each condition measured."""
    real_airflow.trigger("example_oxen_accuracy", "good", {"evaluation_id": "completed-8s-good"})
    assert real_airflow.wait_for_run("example_oxen_accuracy", "good") == "success"

    run_id = _consumer_has_run(real_airflow, "example_oxen_accuracy_chart")

    points = real_airflow.xcom("example_oxen_accuracy_chart", run_id, "chart")
    assert {point["evaluation"] for point in points} == {"completed-8s-good"}
    assert {point["condition"]: point["share"] for point in points} == {
        "intent is not missing": 1.0,
        "intent = label": 1.0,
        "length(intent) > 80": 0.0,
    }


def test_mapped_gates_end_each_as_it_should(real_airflow: AirflowStandalone) -> None:
    """Of several mapped gates each has its own outcome; a bad id fails at once, whatever ``retries`` say."""
    ids = ["completed-8s-m", "errored-8s-m", "a/b", ""]
    real_airflow.trigger("mapped_gates", "mixed", {"evaluation_ids": ids})
    real_airflow.wait_for_run("mapped_gates", "mixed")

    found = {
        (task["task_id"], task["map_index"]): (task["state"], task["try_number"])
        for task in real_airflow.task_instances("mapped_gates", "mixed")
        if task["map_index"] >= 0
    }
    strict, soft = [[found[task_id, index] for index in range(len(ids))] for task_id in ("strict", "soft")]
    assert strict == [("success", 1), ("failed", 1), ("failed", 1), ("failed", 1)]
    assert soft == [("success", 1), ("skipped", 1), ("skipped", 1), ("skipped", 1)]
    assert "argument 'evaluation_id'" in real_airflow.task_log("mapped_gates", "mixed", "strict", map_index=2)


def test_variable_that_changes_during_the_wait_changes_nothing(
    real_airflow: AirflowStandalone, oxen_public: tuple[LocalHub, str]
) -> None:
    """A gate ends with the evaluation it waited for, whatever its templates render to when its task is resumed."""
    hub, dag_id = oxen_public[0], "moved_template"
    gates = {"open": "first-open", "failed": "first-failed", "timed_out": "first-timed-out"}
    for evaluation_id in gates.values():
        hub.add_evaluation(evaluation_id, seconds=3600)
    for key, value in (("waited_for", "first"), ("waited_for_repo", "customer-intents")):
        real_airflow.post("/variables", {"key": key, "value": value})
    real_airflow.trigger(dag_id, "moved")
    deadline = time.monotonic() + 120
    while not all(
        task["state"] == "deferred" and hub.requests_for(gates[task["task_id"]]) > 1
        for task in real_airflow.task_instances(dag_id, "moved")
    ):
        assert time.monotonic() < deadline, real_airflow.task_instances(dag_id, "moved")
        time.sleep(0.3)

    for key, value in (("waited_for", "second"), ("waited_for_repo", "another-repo")):
        real_airflow.patch(f"/variables/{key}", {"key": key, "value": value})
    hub.add_evaluation("first-open", seconds=5)
    hub.add_evaluation("first-failed", seconds=5, end="errored")
    hub.add_evaluation("second-timed-out", seconds=0)
    with contextlib.closing(sqlite3.connect(real_airflow.home / "airflow.db", timeout=60)) as database, database:
        # Airflow's scheduler then ends the trigger, without an event.
        database.execute(
            "UPDATE task_instance SET trigger_timeout = '2026-01-01 00:00:00.000000' WHERE task_id = 'timed_out'"
        )
    real_airflow.wait_for_run(dag_id, "moved")

    states = {task["task_id"]: task["state"] for task in real_airflow.task_instances(dag_id, "moved")}
    assert states == {"open": "success", "failed": "failed", "timed_out": "failed"}
    begins = {
        "open": "The gate opens. Evaluation completed",
        "failed": "Evaluation errored: ",
        "timed_out": "Timed out: .*no triggerer reported",
    }
    for task_id, evaluation_id in gates.items():
        page = f"https://www.oxen.ai/ox/customer-intents/evaluations/{evaluation_id}"
        begin = begins[task_id]
        end = f"evaluation {evaluation_id} of ox/customer-intents, see {page}"
        log = real_airflow.task_log(dag_id, "moved", task_id)
        assert re.search(rf"{begin}.*{re.escape(end)}", log)
        assert "second" not in log.replace("seconds", "")
        assert real_airflow.xcom(dag_id, "moved", task_id, "evaluation")["id"] == evaluation_id
        links = real_airflow.get(f"/dags/{dag_id}/dagRuns/moved/taskInstances/{task_id}/links")["extra_links"]
        assert links["Evaluation on Oxen"] == page
        assert all("/ox/customer-intents/" in address for address in links.values())
    (event,) = real_airflow.get("/assets/events", source_dag_id=dag_id)["asset_events"]
    assert event["extra"]["evaluation_id"] == "first-open"


@pytest.fixture(scope="module")
def linked(real_airflow: AirflowStandalone, oxen_public: tuple[LocalHub, str]) -> dict[str, dict[str, Any]]:
    """The links of a gate of each kind, as Airflow's page shows them, and the state it was in then."""
    expected = {
        "waiting": "deferred",
        "poking": "running",
        "open": "success",
        "failed": "failed",
        "waiting_without_worker": "deferred",
        "open_without_worker": "success",
        "mapped-0": "success",
        "mapped-1": "success",
        "unseen": "failed",
        "elsewhere": "success",
    }
    for name, state in expected.items():
        if name not in ("unseen", "elsewhere"):
            oxen_public[0].add_evaluation(
                name,
                end="errored" if state == "failed" else "completed",
                seconds=8 if state in ("success", "failed") else 3600,
                fields={
                    "resource": {"path": f"data/{name}.parquet", "version": f"commit-{name}"},
                    "commit_id": f"commit-{name}",
                    "closing_commit": None,
                    "target_branch": "intents",
                    "target_path": f"results/{name}.parquet",
                },
            )
    real_airflow.trigger("gate_links", "links")
    found: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + 240
    while len(found) < len(expected):
        assert time.monotonic() < deadline, (found, real_airflow.task_instances("gate_links", "links"))
        for task in real_airflow.task_instances("gate_links", "links"):
            name = task["task_id"] if task["map_index"] < 0 else f"{task['task_id']}-{task['map_index']}"
            path = f"/dags/gate_links/dagRuns/links/taskInstances/{task['task_id']}/links"
            links = real_airflow.get(path, map_index=task["map_index"])["extra_links"]
            # A task's state changes a moment before its links are there, one after the other.
            if task["state"] == expected[name] and (name in ("unseen", "elsewhere") or all(links.values())):
                found.setdefault(name, links)
        time.sleep(0.5)
    for name in ("waiting", "poking", "waiting_without_worker"):
        oxen_public[0].add_evaluation(name, seconds=0)
    real_airflow.wait_for_run("gate_links", "links")
    return found


@pytest.mark.parametrize(
    "name",
    [
        "waiting",
        "poking",
        "open",
        "failed",
        "waiting_without_worker",
        "open_without_worker",
        "mapped-0",
        "mapped-1",
    ],
)
def test_links_open_evaluation_source_and_results(linked: dict, name: str) -> None:
    """A gate links to its evaluation, its source data and its results, in whatever state it is."""
    start = "https://www.oxen.ai/ox/customer-intents"

    assert linked[name] == {
        "Evaluation on Oxen": f"{start}/evaluations/{name}",
        "Source data on Oxen": f"{start}/file/commit-{name}/data/{name}.parquet",
        "Results on Oxen": f"{start}/file/intents/results/{name}.parquet",
    }


@pytest.mark.parametrize("name", ["unseen", "elsewhere"])
def test_no_link_is_made_up(linked: dict, real_airflow: AirflowStandalone, name: str) -> None:
    """An evaluation that was never seen, and one on another hub, have no links, and no XComs for them."""
    assert set(linked[name].values()) == {None}
    stored = real_airflow.get(f"/dags/gate_links/dagRuns/links/taskInstances/{name}/xcomEntries")["xcom_entries"]
    assert [entry["key"] for entry in stored if entry["key"].startswith("_link_")] == []


@pytest.mark.skipif(airflow_version.startswith("2."), reason="Airflow 2 begins and ends every task on a worker")
def test_gates_without_a_worker_have_links(linked: dict, real_airflow: AirflowStandalone) -> None:
    """No worker started to store the links."""
    assert linked
    folder = real_airflow.home / "logs" / "dag_id=gate_links" / "run_id=links"

    for name in ("waiting_without_worker", "open_without_worker"):
        assert [path.name for path in (folder / f"task_id={name}").rglob("*.log") if ".trigger." not in path.name] == []


@pytest.mark.skipif(airflow_version.startswith("2."), reason="Airflow 2 makes the form itself, from the hook's widgets")
def test_connection_form(real_airflow: AirflowStandalone) -> None:
    """Airflow's API offers the connection type with its own fields."""
    forms = {form["connection_type"]: form for form in real_airflow.get_ui("/connections/hook_meta")}

    assert forms["oxen"]["hook_name"] == "Oxen"
    assert forms["oxen"]["standard_fields"]["login"]["hidden"] is True
    assert forms["oxen"]["standard_fields"]["password"]["title"] == "API key"
    assert set(forms["oxen"]["extra_fields"]) == {"timeout", "verify", "proxy", "max_connections"}


def test_test_button(real_airflow: AirflowStandalone, hub: LocalHub) -> None:
    """Airflow's Test of a connection shows whose API key it is; port 0, which its pages send for no port, is none."""
    body = {"connection_id": "tried", "conn_type": "oxen", "host": hub.url, "port": 0, "password": hub.api_key}
    response = real_airflow.post("/connections/test", body)
    assert response == {"status": True, "message": f"Connected to {hub.url} as Ox <ox@example.com>"}


def test_key_is_nowhere_to_be_found(runs: dict, real_airflow: AirflowStandalone, hub: LocalHub) -> None:
    """After all of this, no log and no table of Airflow's holds the API key."""
    assert runs
    key = hub.api_key.encode()
    files = [path for path in Path(real_airflow.home).rglob("*") if path.is_file()]

    assert any(path.suffix == ".db" for path in files)
    assert sum(path.suffix == ".log" for path in files) > 10
    assert [str(path) for path in files if key in path.read_bytes()] == []
