"""An Airflow of separate processes, which can be killed and frozen one by one, and a run of a task in it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow_provider_oxen.testing import LocalHub

#: How long anything may take, in seconds: many times what it takes on a busy machine.
LIMIT_SECONDS = 240.0


def wait_until(condition: Callable[[], Any], what: str, *, every: float = 0.5, limit: float = LIMIT_SECONDS) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(every)
    return found


class Cluster(AirflowStandalone):
    """As its base, with what only these tests do to an Airflow."""

    def add(self, name: str, *command: str) -> None:
        """Run one more command."""
        self._commands[name] = command
        self.start(name)

    def signal_group(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a command and all processes it started."""
        os.killpg(self._processes[name].pid, number)

    def kill_alone(self, name: str) -> int:
        """Kill a command but not the processes it started, and return the id of their process group."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()
        return process.pid

    def output(self, name: str) -> str:
        """Return what a command has written so far."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a PUT request to Airflow's REST API."""
        return self._call("PUT", path, json=body)


@dataclass(frozen=True)
class Processes:
    """The processes of a running task."""

    task: int
    worker: int

    def kill(self, *, worker: bool) -> None:
        """Kill the task's process with SIGKILL; with ``worker``, first the LocalExecutor worker that supervises it."""
        for pid in (self.worker, self.task) if worker else (self.task,):
            os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the worker and the task, as a machine does that is suspended."""
        for pid in (self.worker, self.task):
            os.kill(pid, signal.SIGSTOP)

    def wake_task(self) -> None:
        os.kill(self.task, signal.SIGCONT)

    def wake_worker(self) -> None:
        os.kill(self.worker, signal.SIGCONT)

    def task_has_ended(self) -> bool:
        """Check whether the task's process is gone."""
        try:
            status = Path(f"/proc/{self.task}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return status.rpartition(")")[2].split()[0] in "ZX"


class Run:
    """
    One run of one task that starts an evaluation.

    :param name: id of the run.
    :param at: the moments at which its first attempt stops.
    :param conf: more of the run's configuration.
    """

    def __init__(
        self,
        cluster: Cluster,
        hub: LocalHub,
        name: str,
        *,
        dag_id: str = "start_once",
        at: Sequence[str] = (),
        map_index: int = -1,
        conf: Mapping[str, Any] | None = None,
    ) -> None:
        self.cluster, self.hub, self.name, self.dag_id, self.map_index = cluster, hub, name, dag_id, map_index
        self._file = Path(cluster.env["CHAOS_FOLDER"]) / name
        self.path = f"/dags/{dag_id}/dagRuns/{name}"
        cluster.trigger(dag_id, name, {"stop": {"at": list(at), "map_index": map_index}, **(conf or {})})

    # What the hub has seen

    def posts(self) -> int:
        """Count the requests to start an evaluation that reached the hub for this run."""
        bodies = [json.loads(request.body) for request in list(self.hub.start_requests)]
        return sum(self._is_own(body) for body in bodies)

    def started(self) -> list[str]:
        """Return the ids of the evaluations that the hub started for this run."""
        return [started.id for started in list(self.hub.started) if self._is_own(started.body)]

    def _is_own(self, body: Mapping[str, Any]) -> bool:
        return f" {self.name} try " in body["name"]

    def end_evaluation(self, end: str = "completed", *, number: int = 0) -> None:
        """Let an evaluation of this run end, once its task waits for it in the triggerer and may be resumed."""
        evaluation_id = self.wait_deferred(number)
        self.hub.add_evaluation(evaluation_id, end=end, seconds=0)

    # What Airflow shows

    def task(self) -> dict[str, Any]:
        """Return the task instance."""
        found = self.cluster.task_instances(self.dag_id, self.name)
        return next(task for task in found if task["map_index"] == self.map_index)

    def log(self, try_number: int = 1) -> str:
        """Return the task's log."""
        return self.cluster.task_log(self.dag_id, self.name, "label", try_number, self.map_index)

    def wait_log(self, try_number: int, *texts: str) -> None:
        """Wait until the task's log has these texts; lines reach it a little late."""
        with suppress(AssertionError):
            wait_until(lambda: all(text in self.log(try_number) for text in texts), "log", every=1, limit=30)
        log = self.log(try_number)
        for text in texts:
            assert text in log, f"{text!r} is not in the log of try {try_number} of {self.name}:\n{log}"

    def wait_stopped(self, at: str) -> Processes:
        """Wait until the first attempt has stopped at a moment."""
        file = self._file.with_name(f"{self.name}-{at}.stopped")
        wait_until(file.exists, f"{self.name} stops at {at}", every=0.1)
        return Processes(**json.loads(file.read_text()))

    def go_on(self, at: str) -> None:
        """Let the first attempt go on."""
        self._file.with_name(f"{self.name}-{at}.go").touch()

    def raised(self, method: str) -> str | None:
        """Return the error of a wrapped method, in whichever attempt."""
        file = self._file.with_suffix(f".{method}-raised")
        return file.read_text() if file.exists() else None

    def wait_deferred(self, number: int = 0) -> str:
        """
        Wait until the task waits in the triggerer, and return the id of the evaluation with this number.

        Until the scheduler knows that the worker has ended, too: a task that is resumed before may be run once more
        (apache/airflow#71580).
        """
        wait_until(lambda: len(self.started()) > number, f"{self.name} starts evaluation {number}")
        evaluation_id = self.started()[number]
        task = wait_until(
            lambda: task if (task := self.task())["state"] == "deferred" else None, f"{self.name} is deferred", every=1
        )
        event = re.compile(
            f"state success for task instance .*{re.escape(repr(self.name))}, "
            rf"try_number={task['try_number']}, map_index={self.map_index}\b"
        )
        wait_until(lambda: event.search(self.cluster.output("scheduler")), f"the worker of {self.name} ends", every=1)
        before = self.hub.requests_for(evaluation_id)
        wait_until(lambda: self.hub.requests_for(evaluation_id) > before + 1, f"{self.name} polls", every=0.2)
        return evaluation_id

    def has_ended(self) -> bool:
        """Check whether the run has ended."""
        return self.cluster.run_state(self.dag_id, self.name) in ("success", "failed")

    def wait_ended(self) -> str:
        """Wait until the run has ended, and return the task's state."""
        try:
            wait_until(self.has_ended, self.name, every=1)
        except AssertionError:
            raise AssertionError(f"{self.name} does not end: {self.task()}") from None
        return str(self.task()["state"])

    # What people do

    def clear(self) -> None:
        """Clear the task."""
        body = {"dry_run": False, "dag_run_id": self.name, "task_ids": ["label"], "only_failed": False}
        self.cluster.post(f"/dags/{self.dag_id}/clearTaskInstances", body)

    def clear_run(self) -> None:
        """Clear the whole run."""
        self.cluster.post(f"{self.path}/clear", {"dry_run": False, "only_failed": False})

    def mark_failed(self) -> None:
        """Mark the task failed."""
        self.cluster.patch(f"{self.path}/taskInstances/label", {"new_state": "failed"})
