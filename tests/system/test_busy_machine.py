"""
Waits on a machine with far too much to do, and on one whose clock is set: none ends but as its evaluation did.

Airflow's own limits for slow answers are raised: on such a machine, they would fail tasks that have not begun to wait.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from airflow import __version__ as airflow_version

from airflow_provider_oxen.testing import Fault, LocalHub, Respond, Scenario
from demo.standalone import AirflowStandalone
from tests.support.postgres import postgres_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [
    pytest.mark.system,
    pytest.mark.alone,
    pytest.mark.timeout(900),
    pytest.mark.skipif(airflow_version.startswith("2."), reason="the DAGs need Airflow 3"),
]

_HERE = Path(__file__).parent
#: How long one step may take, in seconds: many times what it takes with nothing else to do.
_LIMIT_SECONDS = 300.0
#: Where a gate of each kind is while it waits.
_WAITING = {"deferred", "running", "up_for_reschedule", "scheduled", "queued"}
_TWO_HOURS = 7200

#: Processes that do nothing but take a core. They end with the test process, or after ten minutes.
_HOGS = """
import os, sys, time

def hog():
    parent, end = os.getppid(), time.monotonic() + 600
    while os.getppid() == parent and time.monotonic() < end:
        for _ in range(1_000_000):
            pass

for _ in range(int(sys.argv[1]) - 1):
    if os.fork() == 0:
        hog()
        os._exit(0)
hog()
"""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep the machine busy with processes in a group of their own."""
    leader = subprocess.Popen([sys.executable, "-c", _HOGS, str(processes)], start_new_session=True)
    try:
        _wait_until(lambda: len(psutil.Process(leader.pid).children()) == processes - 1, "the machine is busy")
        yield
        assert leader.poll() is None
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


def _wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {_LIMIT_SECONDS:g} s: {what}"
        time.sleep(0.3)


class Lab:
    """
    One Airflow, and one hub.

    :param clock: the file that says by how many seconds the clock of workers and triggerers is wrong.
    """

    def __init__(self, airflow: AirflowStandalone, hub: LocalHub, clock: Path) -> None:
        self.airflow = airflow
        self.hub = hub
        self._clock = clock

    def begin(self, dag_id: str, run_id: str, names: list[str]) -> dict[str, str]:
        """Start a run, and return the evaluation of each task once all of them wait."""
        outage = (Fault(Respond(503), first=2),)
        for name in names:
            faults = outage if "outage" in name else ()
            self.hub.add_evaluation(f"{name}-{run_id}", seconds=3600, faults=faults)
        before = len(self.hub.started)
        self.airflow.trigger(dag_id, run_id)
        _wait_until(lambda: len(self.hub.started) > before, "an evaluation is started")
        evaluations = {name: f"{name}-{run_id}" for name in names} | {"started": self.hub.started[-1].id}
        _wait_until(lambda: all(self.hub.requests_for(one) > 1 for one in evaluations.values()), "all are polled")
        return evaluations

    def tasks(self, dag_id: str, run_id: str) -> dict[str, tuple[str, int]]:
        """Return state and attempt of each task."""
        found = self.airflow.task_instances(dag_id, run_id)
        return {task["task_id"]: (task["state"], task["try_number"]) for task in found}

    def check_all_wait(self, dag_id: str, run_id: str, evaluations: dict[str, str]) -> None:
        """Let each evaluation be polled three times more, and check that no wait has ended."""
        before = {one: self.hub.requests_for(one) for one in evaluations.values()}

        def polled_again() -> bool:
            tasks = self.tasks(dag_id, run_id)
            assert {state for state, _ in tasks.values()} <= _WAITING, tasks
            assert {attempt for _, attempt in tasks.values()} == {1}, tasks
            return all(self.hub.requests_for(one) >= count + 3 for one, count in before.items())

        _wait_until(polled_again, "all are polled again")

    def end(self, dag_id: str, run_id: str, evaluations: dict[str, str]) -> None:
        """Let the evaluations end, and check that each wait ends as its own did."""
        for name, evaluation_id in evaluations.items():
            self.hub.add_evaluation(evaluation_id, end="errored" if "errored" in name else "completed", seconds=0)
        self.airflow.wait_for_run(dag_id, run_id, limit_seconds=_LIMIT_SECONDS)
        expected = {name: ("failed" if "errored" in name else "success", 1) for name in evaluations}
        assert self.tasks(dag_id, run_id) == expected
        for name, evaluation_id in evaluations.items():
            seen = self.airflow.xcom(dag_id, run_id, name, "evaluation")
            assert (seen["id"], seen["status"]) == (evaluation_id, "errored" if "errored" in name else "completed")

    def set_clock(self, seconds: int) -> None:
        """Set the clock of workers and triggerers forward, or back."""
        new = self._clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._clock)
        poking, triggers = "scheduler-2", "triggerer-1"
        _wait_until(
            lambda: self._moved_by(poking, seconds) >= 2 and self._moved_by(triggers, seconds) == 1, "the clock is set"
        )

    def _moved_by(self, process: str, seconds: int) -> int:
        """Count the processes of a kind whose clock is wrong by so much."""
        times = [file.read_text() for file in self._clock.parent.glob(f"seconds-{process}-*")]
        errors = [datetime.fromisoformat(shown) - datetime.now(tz=timezone.utc) for shown in times if shown]
        return sum(abs(error.total_seconds() - seconds) < _LIMIT_SECONDS for error in errors)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An Airflow of separate processes on PostgreSQL: SQLite is locked for longer than Airflow waits for it."""
    home = tmp_path_factory.mktemp("airflow")
    clock = tmp_path_factory.mktemp("clock") / "seconds"
    clock.write_text("0")
    with postgres_server(tmp_path_factory.mktemp("run")) as postgres, LocalHub() as hub:
        hub.on_start = Scenario(seconds=3600)
        env = {
            "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
            "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "3600",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.get_uri().replace(
                "postgresql://", "postgresql+psycopg2://"
            ),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "900",
            "AIRFLOW__TRIGGERER__RUNNER_HEALTH_CHECK_THRESHOLD": "300",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "300",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
            "MOVED_CLOCK": str(clock),
            "PYTHONPATH": str(_HERE / "moved_clock"),
        }
        commands = {
            "api-server": ("api-server",),
            "scheduler": ("scheduler", "--skip-serve-logs"),
            "dag-processor": ("dag-processor",),
            "triggerer": ("triggerer", "--skip-serve-logs"),
        }
        airflow = AirflowStandalone(home, dags=_HERE / "dags_under_load", env=env, commands=commands)
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=airflow.env, check=True, capture_output=True)
        with airflow:
            airflow.wait_for_dags({"under_load", "clock"})
            yield Lab(airflow, hub, clock)


def test_no_wait_ends_wrongly_under_load(lab: Lab) -> None:
    """With ten times as many busy processes as cores, no gate opens early, and none fails."""
    names = ["deferred", "deferred_errored", "without_worker", "poke", "reschedule"]
    with busy(10 * (os.cpu_count() or 1)):
        evaluations = lab.begin("under_load", "run", names)
        lab.check_all_wait("under_load", "run", evaluations)

        lab.end("under_load", "run", evaluations)


def test_no_wait_ends_wrongly_when_the_clock_is_set(lab: Lab) -> None:
    """The clock of workers and triggerer jumps two hours forward, then four back: none times out, or gives up."""
    names = ["deferred", "deferred_errored", "deferred_in_outage", "without_worker", "poke", "poke_in_outage"]
    evaluations = lab.begin("clock", "run", names)
    for seconds in (_TWO_HOURS, -_TWO_HOURS):
        lab.set_clock(seconds)
        lab.check_all_wait("clock", "run", evaluations)

    lab.end("clock", "run", evaluations)
