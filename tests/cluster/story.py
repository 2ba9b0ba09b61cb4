"""
What happens to the cluster while it waits, and what is seen of each wait afterwards.

How this works: all waits begin. Before each fault, the evaluations of a fifth of them end, and as soon as Airflow is
about to end the tasks of these, the fault strikes. Then they have to end, and the others have to be polled again. The
last fifth ends after all faults.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

import psycopg2
import requests

from airflow_provider_oxen.testing.scenario import Scenario
from tests.support.doc_tables import build_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub
    from airflow_provider_oxen.testing.scenario import End
    from tests.cluster.airflow import CeleryAirflow
    from tests.support.redis import RedisServer

#: How many waits there are in each way of waiting. Each that pokes holds a slot of a worker.
WHOLE = {"deferred": 80, "triggerer": 50, "operator": 40, "poke": 10, "reschedule": 20}
SHORT = {"deferred": 10, "triggerer": 10, "operator": 10, "poke": 4, "reschedule": 6}
#: How many slots the workers have besides those. More would make two cores slower, and not faster.
FREE_SLOTS = 8

WAYS = {
    "deferred": "deferred by a worker",
    "triggerer": "begun in the triggerer",
    "operator": "started by the operator, and deferred",
    "poke": '`mode="poke"`',
    "reschedule": '`mode="reschedule"`',
}
#: Those that wait in the triggerer.
DEFERRABLE = ("deferred", "triggerer", "operator")

#: The waves whose tasks are about to end when a worker is killed, and when a triggerer is.
KILLED_WORKER_WAVE, KILLED_TRIGGERER_WAVE = 0, 1

#: How long anything may take, in seconds: many times what it takes on a busy machine.
LIMIT_SECONDS = 1200.0
#: How long Redis and PostgreSQL are away, in seconds.
_AWAY_SECONDS = 5.0

_DAG, _RUN = "waits", "run"
_ENDS: Sequence[End] = ("completed", "errored", "cancelled")
_ON_WORKER = ("scheduled", "queued", "running")
_KILLED_WORKER = "worker-1"


@dataclass(frozen=True)
class Wait:
    """One of the waits, by its way and its number in it."""

    way: str
    number: int

    @property
    def name(self) -> str:
        """Id of its evaluation, unless the task itself starts one."""
        return f"{self.way}-{self.number:03}"

    @property
    def task(self) -> tuple[str, int]:
        """Task id and map index."""
        return (f"triggerer_{self.number}", -1) if self.way == "triggerer" else (self.way, self.number)

    @property
    def wave(self) -> int:
        """The fault before which its evaluation ends."""
        return self.number % 5

    @property
    def end(self) -> End:
        """How its evaluation ends: differently in each wave."""
        return _ENDS[(self.number + 2 * (self.number // 5)) % 3]

    @property
    def ends_in_triggerer(self) -> bool:
        """Whether no worker ends the task."""
        return self.way == "triggerer" and self.number % 2 == 1 and self.end == "completed"


@dataclass
class Task:
    """
    What Airflow has stored about the task of a wait.

    :param host: the worker that has run it last.
    :param attempts: how many there were.
    :param lost_at: when Airflow gave up each but the last of them.
    """

    state: str | None
    host: str
    attempts: int
    lost_at: list[datetime] = field(default_factory=list)


@dataclass(frozen=True)
class Fault:
    """What was done, and how long it took until all was well."""

    what: str
    on_workers: int
    ended_seconds: float
    polled_seconds: float


class Story:
    """All of it."""

    def __init__(
        self,
        waits: Mapping[str, int],
        airflow: CeleryAirflow,
        hub: LocalHub,
        redis: RedisServer,
        postgres: Any,
        reports: Path,
        say: Callable[[str], None],
    ) -> None:
        self.waits = [Wait(way, number) for way, count in waits.items() for number in range(count)]
        self.airflow, self.hub, self.redis, self.postgres, self._reports = airflow, hub, redis, postgres, reports
        self._say = say
        self.faults: list[Fault] = []
        #: When the evaluation of a wait ended.
        self.ended_at: dict[Wait, datetime] = {}

    def play(self) -> None:
        """Let it all happen."""
        self.hub.on_start = Scenario(seconds=24 * 3600)
        for wait in self.waits:
            if wait.way != "operator":
                self.hub.add_evaluation(wait.name, seconds=24 * 3600)
        began = time.monotonic()
        self.airflow.trigger(_DAG, _RUN)
        self._until(self._all_wait, "all wait")
        self._say(f"all {len(self.waits)} wait after {time.monotonic() - began:.0f} s")
        for wave, (what, strike) in enumerate(self._strikes()):
            self._play_fault(wave, what, strike)
        self._end(4)
        self._until(lambda: self.airflow.run_state(_DAG, _RUN) in ("success", "failed"), "the run ends")
        self._say(f"all ended after {time.monotonic() - began:.0f} s")

    def _strikes(self) -> list[tuple[str, Callable[[], None]]]:
        def kill(name: str) -> Callable[[], None]:
            def strike() -> None:
                self.airflow.kill(name)
                self.airflow.start(name)

            return strike

        def restart_redis() -> None:
            self.redis.stop()
            time.sleep(_AWAY_SECONDS)  # the outage itself
            self.redis.start()

        def restart_postgres() -> None:
            self.postgres.stop()
            time.sleep(_AWAY_SECONDS)  # the outage itself
            self.postgres.ensure_postgres_running()

        return [
            ("one of two workers is killed, and started again", kill(_KILLED_WORKER)),
            ("one of two triggerers is killed, and started again", kill("triggerer-1")),
            (f"Redis is stopped, and started again after {_AWAY_SECONDS:g} s", restart_redis),
            (f"PostgreSQL is stopped, and started again after {_AWAY_SECONDS:g} s", restart_postgres),
        ]

    def _play_fault(self, wave: int, what: str, strike: Callable[[], None]) -> None:
        ending = [wait for wait in self.waits if wait.wave == wave]
        # Those that reschedule poll so seldom here that it says nothing.
        waiting = [wait for wait in self.waits if wait.wave > wave and wait.way != "reschedule"]

        def have_ended() -> bool:
            tasks = self.tasks()
            return all(tasks[wait].state in ("success", "failed") for wait in ending)

        def are_about_to_end() -> bool:
            tasks = [task for wait, task in self.tasks().items() if wait.wave == wave and wait.way in DEFERRABLE]
            if wave == KILLED_WORKER_WAVE:
                return any(task.state == "running" and task.host == _KILLED_WORKER for task in tasks)
            return any(task.state in _ON_WORKER for task in tasks)

        self._end(wave)
        self._until(lambda: are_about_to_end() or have_ended(), f"tasks are about to end: {what}", every=0.1)
        on_workers = sum(task.state in _ON_WORKER for task in self.tasks().values())
        strike()
        struck, polled_again = time.monotonic(), self._polled_again(waiting)
        self._until(polled_again, f"all others are polled again, after: {what}")
        polled_seconds = time.monotonic() - struck
        self._until(have_ended, f"all whose evaluations have ended end, after: {what}")
        ended_seconds = time.monotonic() - struck
        self.faults.append(Fault(what, on_workers, ended_seconds, polled_seconds))
        self._say(f"{what}: all polled again after {polled_seconds:.0f} s, all ended after {ended_seconds:.0f} s")

    def _end(self, wave: int) -> None:
        """Let the evaluations of a wave end."""
        for wait in self.waits:
            if wait.wave == wave:
                self.ended_at[wait] = datetime.now(tz=timezone.utc)
                self.hub.add_evaluation(self.evaluation_of(wait), end=wait.end, seconds=0)

    def _all_wait(self) -> bool:
        started = {wait for wait in self.waits if wait.way != "operator" or self.started(wait)}
        if len(started) < len(self.waits):
            return False
        tasks = self.tasks()
        states = {"poke": ("running",), "reschedule": ("up_for_reschedule", *_ON_WORKER)}
        return all(
            tasks[wait].state in states.get(wait.way, ("deferred",))
            and self.hub.requests_for(self.evaluation_of(wait)) > (wait.way == "deferred")
            for wait in self.waits
        )

    def _polled_again(self, waits: Iterable[Wait]) -> Callable[[], bool]:
        before = {wait: self.hub.requests_for(self.evaluation_of(wait)) for wait in waits}
        return lambda: all(self.hub.requests_for(self.evaluation_of(wait)) > before[wait] for wait in before)

    def _until(self, condition: Callable[[], bool], what: str, *, every: float = 0.5) -> None:
        """Wait until something holds, while what has ended is started again and may not respond."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            self.airflow.supervise()
            with suppress(requests.RequestException, psycopg2.Error):
                if condition():
                    return
            assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS:g} s: {what}\n{self._describe()}"
            time.sleep(every)

    def _describe(self) -> str:
        tasks = self.tasks()
        found = Counter((wait.way, wait.wave, tasks[wait].state, tasks[wait].attempts) for wait in self.waits)
        return "\n".join(f"{count} x {what}" for what, count in sorted(found.items(), key=str))

    # What is seen of a wait

    def started(self, wait: Wait) -> list[str]:
        """Return the ids of the evaluations that the hub started for a wait."""
        return [found.id for found in list(self.hub.started) if self._asked(wait, found.body)]

    def posts(self, wait: Wait) -> int:
        """Count the requests to start an evaluation for a wait."""
        return sum(self._asked(wait, json.loads(request.body)) for request in list(self.hub.start_requests))

    @staticmethod
    def _asked(wait: Wait, body: Mapping[str, Any]) -> bool:
        return wait.way == "operator" and str(body["name"]).startswith(f"{_DAG}.operator[{wait.number}] ")

    def evaluation_of(self, wait: Wait) -> str:
        """Return the id of the evaluation that a wait is for."""
        return self.started(wait)[0] if wait.way == "operator" else wait.name

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Ask Airflow's database."""
        with closing(psycopg2.connect(self.postgres.get_uri(), connect_timeout=10)) as connection:
            cursor = connection.cursor()
            cursor.execute(text)
            return cursor.fetchall()

    def tasks(self) -> dict[Wait, Task]:
        """Return what Airflow has stored about the task of each wait."""
        found = {
            (task_id, index): Task(state, host, attempts)
            for task_id, index, state, host, attempts in self.query(
                "SELECT task_id, map_index, state, hostname, try_number FROM task_instance"
            )
        }
        for task_id, index, at in self.query("SELECT task_id, map_index, end_date FROM task_instance_history"):
            if (task_id, index) in found:
                found[task_id, index].lost_at.append(at)
        return {wait: found.get(wait.task, Task(None, "", 0)) for wait in self.waits}

    @cached_property
    def ends(self) -> dict[Wait, Task]:
        """The tasks, now that all of it is over."""
        return self.tasks()

    @cached_property
    def ended_times(self) -> Counter[Wait]:
        """How often each wait's task was set to success or failed in its last attempt."""
        return self._count(
            "SELECT task_id, map_index FROM log"
            " JOIN task_instance USING (dag_id, run_id, task_id, map_index, try_number)"
            " WHERE event IN ('success', 'failed')"
        )

    @cached_property
    def asset_events(self) -> Counter[Wait]:
        """How many asset events each wait's task has emitted."""
        return self._count("SELECT source_task_id, source_map_index FROM asset_event")

    def _count(self, text: str) -> Counter[Wait]:
        waits = {wait.task: wait for wait in self.waits}
        rows = [(task_id, -1 if index is None else index) for task_id, index in self.query(text)]
        return Counter(waits[task] for task in rows if task in waits)

    def reports(self, wait: Wait) -> list[str]:
        """Return what a wait's callbacks have reported."""
        file = self._reports / wait.name
        return file.read_text().splitlines() if file.exists() else []

    def xcom(self, wait: Wait, key: str) -> Any:
        """Return an XCom of a wait's task."""
        task_id, index = wait.task
        return self.airflow.xcom(_DAG, _RUN, task_id, key=key, map_index=index)

    @cached_property
    def logs(self) -> dict[Wait, str]:
        """The log of each wait's last attempt, as Airflow shows it, with the names of the files that it is from."""
        return {
            wait: self.airflow.task_log(_DAG, _RUN, wait.task[0], self.ends[wait].attempts, wait.task[1])
            for wait in self.waits
        }

    # For people

    def build_faults_table(self) -> str:
        """Write what was done as a table in Markdown."""
        heads = ("what is done", "tasks on a worker, or on the way to one, just then")
        heads += ("all others that do not reschedule were polled again after", "all that had to end had ended after")
        rows = [
            (fault.what, fault.on_workers, f"{fault.polled_seconds:.0f} s", f"{fault.ended_seconds:.0f} s")
            for fault in self.faults
        ]
        return build_table(heads, rows)

    def build_waits_table(self) -> str:
        """Write what came of the waits as a table in Markdown."""
        heads = ("way to wait", "waits", "ended as the evaluation did", "begun again, because Airflow lost the worker")
        heads += ("lost", "reported twice", "callback of a lost attempt, too")
        heads += ("logs of both halves found", "requests to start an evaluation")
        rows = []
        for way, words in WAYS.items():
            waits = [wait for wait in self.waits if wait.way == way]
            right = sum(map(self.has_right_end, waits))
            again = sum(self.ends[wait].attempts > 1 for wait in waits)
            twice, logs = sum(map(self.is_reported_twice, waits)), sum(map(self.has_logs, waits))
            lost_too = sum(len(set(self.reports(wait))) > 1 for wait in waits)
            posts = sum(map(self.posts, waits)) if way == "operator" else "none"
            rows.append((words, len(waits), right, again, len(waits) - right, twice, lost_too, logs, posts))
        return build_table(heads, rows)

    def has_right_end(self, wait: Wait) -> bool:
        """Check that a task ended as its evaluation did."""
        return self.ends[wait].state == ("success" if wait.end == "completed" else "failed")

    def has_logs(self, wait: Wait) -> bool:
        """
        Check that the log of a wait has what its workers and its triggerer wrote, and its end once.

        A later attempt finds the evaluation ended, and so it does not wait in the triggerer.
        """
        log, attempts = self.logs[wait], self.ends[wait].attempts
        end = "The gate opens." if wait.end == "completed" else "AirflowFailException: "
        by_triggerer = wait.way in DEFERRABLE and attempts == 1
        return (
            f"Evaluation {wait.end}" in log
            and log.count(end) == (not wait.ends_in_triggerer)
            and (f"attempt={attempts}.log.worker-" in log) is (not wait.ends_in_triggerer)
            and (f"attempt={attempts}.log.trigger." in log or not by_triggerer)
            and ("Waiting in the triggerer" in log) is (by_triggerer and wait.way != "triggerer")
        )

    def is_reported_twice(self, wait: Wait) -> bool:
        """Check whether an attempt called a callback, or the task got its last state or an asset event, repeatedly."""
        calls = Counter(self.reports(wait)).values()
        return max(*calls, self.asset_events[wait], self.ended_times[wait]) > 1
