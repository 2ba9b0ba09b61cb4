"""
A task that starts an evaluation is killed, frozen, cleared and marked at each moment, in a real Airflow.

How this works: a run's first attempt stops at the moment that the run names, and says so; see ``dags/start_once.py``.
Most cases run side by side, each as a run of its own; the others, which take away what all runs need, come after them.
Evaluations run until their case ends them, when the task waits for them in the triggerer.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.chaos.cluster import LIMIT_SECONDS, Run, wait_until
from tests.chaos.table import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_oxen.testing import LocalHub
    from tests.chaos.cluster import Cluster

STARTED = "Evaluation started: evaluation "
TAKEN_UP = "No new evaluation: waiting for the one that attempt 1"
UNKNOWN = "Not known whether an evaluation was started: attempt 1"
NO_RESPONSE = "Not known whether an evaluation was started: this attempt asked for one"
STOPPED = "Not known whether an evaluation was started: this task was stopped while it asked for one"
KEEPS_RUNNING = "The evaluation is still running and costing money, although this task was stopped"
MAY_RUN_TOO = "A second evaluation is started: one that an earlier attempt may have started may still run"
SUPERSEDED = "Nothing was started: Airflow has replaced this attempt with a later one."
NOT_STORED = "The id of the evaluation could not be stored, but is in this log"


@dataclass(frozen=True)
class Places:
    """Where a case runs."""

    cluster: Cluster
    hub: LocalHub
    losing_hub: LocalHub


@dataclass(frozen=True)
class Case:
    """
    One thing that is done to a task, and what must come of it.

    :param name: also the id of the run.
    :param what: the same for people.
    :param play: does it, and returns the run when it has ended.
    :param words: what the log of the last attempt says, or of the first one with ``words_in=1``.
    """

    name: str
    what: str
    play: Callable[[Places, Case], Run]
    posts: int
    started: int
    attempts: int
    state: str
    words: str
    words_in: int | None = None

    def check(self, run: Run) -> Row:
        """Assert all that must hold, and return what was seen."""
        wait_until(lambda: run.has_ended() or run.posts() > self.posts, f"{self.name} ends", every=1)
        assert run.posts() <= self.posts, f"{self.name}: {run.posts()} requests and not {self.posts}"
        state = run.wait_ended()
        last = run.task()["try_number"]
        if self.words:
            run.wait_log(self.words_in or last, self.words)
        seen = Row(self.what, run.posts(), len(run.started()), last, state, self.words and f"*{self.words.strip()} …*")
        wanted = (self.posts, self.started, self.attempts, self.state)
        got = (seen.posts, seen.started, seen.attempts, seen.state)
        logs = "\n".join(f"--- try {number} of {self.name}\n{run.log(number)}" for number in range(1, last + 1))
        assert got == wanted, f"{self.name}: {got} and not {wanted}\n{logs}"
        assert len(run.started()) == len(set(run.started()))
        return seen


# What is done. Each returns the run, which has ended or is about to.


def kill_at(at: str, *, worker: bool, dag_id: str = "start_once") -> Callable[[Places, Case], Run]:
    """Kill the first attempt at a moment."""

    def play(places: Places, case: Case) -> Run:
        run = Run(places.cluster, places.hub, case.name, dag_id=dag_id, at=[at])
        if at == "f":
            run.end_evaluation()
        processes = run.wait_stopped(at)
        if at in "bc":
            wait_until(run.started, "the hub has started it", every=0.1)
        if at in "cdf":
            run.wait_log(1, STARTED)
        processes.kill(worker=worker)
        if case.state == "success" and at != "f":
            run.end_evaluation(number=case.started - 1)
        return run

    return play


def freeze_at(at: str) -> Callable[[Places, Case], Run]:
    """Freeze worker and task at a moment, and wake them when the next attempt has ended."""

    def play(places: Places, case: Case) -> Run:
        run = Run(places.cluster, places.hub, case.name, at=[at])
        processes = run.wait_stopped(at)
        if at == "c":
            run.wait_log(1, STARTED)
        processes.freeze()
        try:
            if case.state == "success":
                run.end_evaluation()
            run.wait_ended()
            before = run.posts()
            run.go_on(at)
        finally:
            processes.wake_task()
            try:
                # Its request leaves now, without its worker; or it must not leave, and has the time to be seen.
                limit = LIMIT_SECONDS if at == "a" else 2.0
                with nullcontext() if at == "a" else suppress(AssertionError):
                    wait_until(lambda: run.posts() > before, "the frozen request", every=0.1, limit=limit)
            finally:
                processes.wake_worker()
        wait_until(processes.task_has_ended, "the frozen task ends")
        # Airflow refuses the record, or stops the task first, or kills it.
        assert at != "before" or run.raised("open") in ("SupersededError", "StoppedError", None)
        assert at == "a" or run.posts() == before
        return run

    return play


def clear_waiting(places: Places, case: Case) -> Run:
    """Clear the task while it is deferred."""
    run = Run(places.cluster, places.hub, case.name)
    run.wait_deferred()
    run.clear()
    wait_until(lambda: run.task()["try_number"] == 2, "the second attempt", every=1)
    run.end_evaluation()
    return run


def clear_ended(
    end: str = "completed", *, dag_id: str = "start_once", whole_run: bool = False
) -> Callable[[Places, Case], Run]:
    """Clear the task, or its whole run, after the evaluation has ended."""

    def play(places: Places, case: Case) -> Run:
        run = Run(places.cluster, places.hub, case.name, dag_id=dag_id)
        run.end_evaluation(end)
        assert run.wait_ended() == ("success" if end == "completed" else "failed")
        assert (run.task()["try_number"], run.posts()) == (1, 1)  # an evaluation that errored is final
        (run.clear_run if whole_run else run.clear)()
        if case.started == 2:
            run.end_evaluation(number=1)
        return run

    return play


def clear_unknown(places: Places, case: Case) -> Run:
    """Clear the task after an attempt has refused to start one, as its message says."""
    run = Run(places.cluster, places.hub, case.name, at="b")
    processes = run.wait_stopped("b")
    wait_until(run.started, "the hub has started it", every=0.1)
    processes.kill(worker=False)
    assert run.wait_ended() == "failed"
    run.wait_log(2, UNKNOWN, "To start a new one, clear the task.")
    run.clear()
    run.end_evaluation(number=1)
    return run


def clear_sending(*, again: bool) -> Callable[[Places, Case], Run]:
    """Clear the task while the response to its request is out; with ``again``, once more when it has refused."""

    def play(places: Places, case: Case) -> Run:
        run = Run(places.cluster, places.hub, case.name, at="b")
        processes = run.wait_stopped("b")
        wait_until(run.started, "the hub has started it", every=0.1)
        run.clear()
        wait_until(processes.task_has_ended, "the task's process ends")
        run.wait_log(1, STOPPED)
        if again:
            assert run.wait_ended() == "failed"
            assert run.posts() == 1
            run.wait_log(2, UNKNOWN, "To start a new one, clear the task.")
            run.clear()
            run.end_evaluation(number=1)
        return run

    return play


def kill_one_of_three(places: Places, case: Case) -> Run:
    """Kill one of three mapped tasks when the id of its evaluation is stored."""
    run = Run(places.cluster, places.hub, case.name, dag_id="start_once_mapped", at="d", map_index=1)
    run.wait_stopped("d").kill(worker=False)
    wait_until(lambda: len(run.started()) == 3, "all three start one")

    def deferred_by_index() -> dict[int, int]:
        tasks = run.cluster.task_instances(run.dag_id, run.name)
        return {task["map_index"]: task["try_number"] for task in tasks if task["state"] == "deferred"}

    wait_until(lambda: deferred_by_index() == {0: 1, 1: 2, 2: 1}, "all three wait", every=1)
    run.wait_deferred()
    ids = {
        index: run.cluster.xcom(run.dag_id, run.name, "label", key="evaluation_id", map_index=index)
        for index in (0, 1, 2)
    }
    assert sorted(ids.values()) == sorted(run.started())
    for evaluation_id in run.started():
        run.hub.add_evaluation(evaluation_id, seconds=0)
    run.wait_ended()
    tasks = run.cluster.task_instances(run.dag_id, run.name)
    assert {task["map_index"]: (task["state"], task["try_number"]) for task in tasks} == {
        0: ("success", 1),
        1: ("success", 2),
        2: ("success", 1),
    }
    waited_for = {index: run.cluster.xcom(run.dag_id, run.name, "label", map_index=index)["id"] for index in (0, 1, 2)}
    assert waited_for == ids
    return run


def follow_the_message(places: Places, case: Case) -> Run:
    """Lose the response, then do to the letter what the message says: set the state, and clear the task."""
    run = Run(places.cluster, places.losing_hub, case.name, conf={"conn_id": "oxen_losing"})
    assert run.wait_ended() == "failed"
    assert run.task()["try_number"] == 1
    run.wait_log(1, NO_RESPONSE)
    message = next(line for line in run.log().splitlines() if NO_RESPONSE in line)
    said = re.search(
        r"set '([^']+)' in this task's state \(tab Storage, Task State Store\) to (\{.*?\}) and clear the task", message
    )
    assert said is not None, message
    value = {name: run.started()[0] if text == "ITS-ID" else text for name, text in json.loads(said[2]).items()}
    run.cluster.put(f"{run.path}/taskInstances/label/state-store/{said[1]}", {"value": value})
    run.clear()
    run.end_evaluation()
    return run


def resume_before_exit(places: Places, case: Case) -> Run:
    """
    Let the task be resumed before its first process has ended, as where a worker is slow to upload a log.

    Airflow then takes the exit of the first process for that of the second one, and runs the task again
    (apache/airflow#71580). Once Airflow does not do that any more, there is only one attempt.
    """
    run = Run(places.cluster, places.hub, case.name, at=["e", "f"])
    run.wait_stopped("e")
    (evaluation_id,) = run.started()
    run.hub.add_evaluation(evaluation_id, seconds=0)
    resumed = run.wait_stopped("f")
    assert run.task()["state"] == "running"
    run.go_on("e")
    wait_until(lambda: run.has_ended() or run.posts() > 1, f"{run.name} ends", every=1)
    run.go_on("f")
    wait_until(resumed.task_has_ended, "the resumed process ends")
    return run


def mark_failed(at: str | None) -> Callable[[Places, Case], Run]:
    """Mark the task failed, at a moment on its worker or while it is deferred."""

    def play(places: Places, case: Case) -> Run:
        run = Run(places.cluster, places.hub, case.name, at=[at] if at else ())
        processes = None
        if at is None:
            run.wait_deferred()
        else:
            processes = run.wait_stopped(at)
            wait_until(run.started, "the hub has started it", every=0.1)
        run.mark_failed()
        if processes is not None:
            wait_until(processes.task_has_ended, "the task's process ends")
        return run

    return play


KILLED = {
    "before": ("before the record is stored", 1, 1, "success", STARTED),
    "a": ("after the record is stored, before the request is sent", 0, 0, "failed", UNKNOWN),
    "b": ("after the request is sent, before the response", 1, 1, "failed", UNKNOWN),
    "c": ("after the response, before the id is stored", 1, 1, "failed", UNKNOWN),
    "d": ("after the id is stored, before the task is deferred", 1, 1, "success", TAKEN_UP),
    "f": ("when the task is resumed after the wait", 1, 1, "success", TAKEN_UP),
}

SIDE_BY_SIDE = [
    *(
        Case(
            f"{'worker' if worker else 'task'}-killed-{at}",
            f"{'worker and process are' if worker else 'the process is'} killed {when}",
            kill_at(at, worker=worker),
            posts,
            started,
            2,
            state,
            words,
        )
        for worker in (True, False)  # those that Airflow notices late come first
        for at, (when, posts, started, state, words) in KILLED.items()
    ),
    Case(
        "frozen-before",
        "worker and process are frozen before the record is stored, and wake up after attempt 2 has ended",
        *(freeze_at("before"), 1, 1, 2, "success", STARTED),
    ),
    Case(
        "frozen-a",
        "worker and process are frozen after the record is stored, and send the request after attempt 2 has ended",
        *(freeze_at("a"), 1, 1, 2, "failed", UNKNOWN),
    ),
    Case(
        "frozen-c",
        "worker and process are frozen after the response, and wake up after attempt 2 has ended",
        *(freeze_at("c"), 1, 1, 2, "failed", UNKNOWN),
    ),
    Case(
        "killed-b-start-again",
        'the process is killed after the request is sent, with `on_unknown_start="start_again"`',
        *(kill_at("b", worker=False, dag_id="start_once_unknown_again"), 2, 2, 2, "success", MAY_RUN_TOO),
    ),
    Case(
        "killed-b-cleared",
        "the process is killed after the request is sent; attempt 2 refuses; a person clears the task",
        *(clear_unknown, 2, 2, 3, "success", MAY_RUN_TOO),
    ),
    Case(
        "cleared-sending",
        "cleared on its worker, after the request is sent",
        *(clear_sending(again=False), 1, 1, 2, "failed", UNKNOWN),
    ),
    Case(
        "cleared-sending-twice",
        "the same; after attempt 2 refused, a person clears the task once more",
        *(clear_sending(again=True), 2, 2, 3, "success", MAY_RUN_TOO),
    ),
    Case(
        "response-lost-followed",
        "the response is lost; a person stores the id and clears the task, as the message says",
        *(follow_the_message, 1, 1, 2, "success", "No new evaluation: waiting for the one that an earlier attempt"),
    ),
    Case(
        "mapped-killed-d",
        "mapped over three files, the process of one task is killed after the id is stored",
        *(kill_one_of_three, 3, 3, 2, "success", TAKEN_UP),
    ),
    Case(
        "resumed-before-exit",
        "resumed before its first process has ended: Airflow runs it again by itself (apache/airflow#71580)",
        *(resume_before_exit, 1, 1, 2, "success", TAKEN_UP),
    ),
    Case(
        "cleared-waiting",
        "cleared while it is deferred",
        *(clear_waiting, 1, 1, 2, "success", TAKEN_UP),
    ),
    Case(
        "cleared-completed",
        "cleared after the evaluation completed",
        *(clear_ended(), 1, 1, 2, "success", TAKEN_UP),
    ),
    Case(
        "cleared-completed-again",
        'the same, with `on_clear="start_again"`',
        *(clear_ended(dag_id="start_once_clear_again"), 2, 2, 2, "success", STARTED),
    ),
    Case(
        "cleared-errored",
        "cleared after the evaluation errored, for which no retry is used",
        *(clear_ended("errored"), 2, 2, 2, "success", STARTED),
    ),
    Case(
        "run-cleared",
        "the whole run is cleared after the evaluation completed",
        *(clear_ended(whole_run=True), 1, 1, 2, "success", TAKEN_UP),
    ),
    Case(
        "marked-failed-waiting",
        "marked failed while it is deferred",
        *(mark_failed(None), 1, 1, 1, "failed", KEEPS_RUNNING),
    ),
    Case(
        "marked-failed-running",
        "marked failed on its worker, after the id is stored",
        *(mark_failed("d"), 1, 1, 1, "failed", KEEPS_RUNNING),
    ),
    Case(
        "marked-failed-sending",
        "marked failed on its worker, after the request is sent",
        *(mark_failed("b"), 1, 1, 1, "failed", STOPPED),
    ),
]


@pytest.fixture(scope="module")
def places(cluster: Cluster, hub: LocalHub, losing_hub: LocalHub) -> Places:
    return Places(cluster, hub, losing_hub)


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, places: Places) -> Iterator[dict[str, Future[Row]]]:
    """All selected cases that run side by side. Each has its result, or its failure, when it has ended."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    cases = [found["side_by_side"] for found in params if "side_by_side" in found]
    with ThreadPoolExecutor(14) as pool:
        yield {case.name: pool.submit(lambda case=case: case.check(case.play(places, case))) for case in cases}


@pytest.fixture(scope="module")
def settled(played: dict[str, Future[Row]], places: Places) -> Places:
    """The places, when all that ran side by side has ended."""
    for future in played.values():
        future.exception()
    return places


@pytest.mark.parametrize("side_by_side", SIDE_BY_SIDE, ids=lambda case: case.name)
def test_at_most_one_evaluation_is_started(side_by_side: Case, played: dict[str, Future[Row]], rows: list[Row]) -> None:
    """Whatever is done to a task, no evaluation is started twice unless a person has allowed just that."""
    rows.append(played[side_by_side.name].result())


def test_wait_outlives_its_triggerer(settled: Places, rows: list[Row]) -> None:
    """A triggerer that is killed and started again goes on waiting for the same evaluation."""

    def play(places: Places, case: Case) -> Run:
        run = Run(places.cluster, places.hub, case.name)
        evaluation_id = run.wait_deferred()
        places.cluster.kill("triggerer")
        before = places.hub.requests_for(evaluation_id)
        places.cluster.start("triggerer")
        wait_until(lambda: places.hub.requests_for(evaluation_id) > before + 1, "it is polled again", every=0.2)
        run.end_evaluation()
        return run

    what = "the triggerer is killed and started again"
    case = Case("triggerer-killed", what, play, 1, 1, 1, "success", "The gate opens.")
    rows.append(case.check(play(settled, case)))


def test_trigger_that_moves_says_nothing(settled: Places, rows: list[Row]) -> None:
    """A trigger that moves to another triggerer does not say that the task was stopped; one that is cancelled does."""
    invoked = "invoking on_kill"

    def play(places: Places, case: Case) -> Run:
        cluster, run = places.cluster, Run(places.cluster, places.hub, case.name)
        evaluation_id = run.wait_deferred()
        calls = cluster.output("triggerer").count(invoked)
        cluster.add("triggerer-2", "triggerer", "--skip-serve-logs")
        try:
            cluster.signal_group("triggerer", signal.SIGSTOP)
            try:
                before = places.hub.requests_for(evaluation_id)
                wait_until(lambda: places.hub.requests_for(evaluation_id) > before + 1, "the other polls", every=0.2)
            finally:
                cluster.signal_group("triggerer", signal.SIGCONT)
            # Airflow takes the move for a person's action; an Airflow that does not any more has nothing to be seen.
            moved = lambda: cluster.output("triggerer").count(invoked) > calls or invoked in run.log()  # noqa: E731
            with suppress(AssertionError):
                wait_until(moved, "the trigger is cancelled", every=1, limit=30)
            print("on_kill was called for the move:", moved())
            time.sleep(3)  # what it says would be in the log by then
            assert "although this task was stopped" not in run.log()
            run.end_evaluation()
            run.wait_ended()
        finally:
            cluster.kill("triggerer-2")
        assert "although this task was stopped" not in run.log()
        return run

    what = "its trigger moves to another triggerer"
    case = Case("trigger-moved", what, play, 1, 1, 1, "success", "The gate opens.")
    rows.append(case.check(play(settled, case)))


def test_scheduler_is_killed(settled: Places, rows: list[Row]) -> None:
    """Airflow runs a task with ``retries=0`` again after its scheduler was killed, and nothing is started twice."""
    cluster, runs = settled.cluster, {}
    cases = {
        at: Case(
            f"scheduler-killed-{at}",
            f"with `retries=0`, the scheduler is killed and started again {when}",
            lambda _places, case: runs[case.name],
            *(posts, started, 2, state, words),
        )
        for at, (when, posts, started, state, words) in KILLED.items()
        if at in ("before", "a", "c", "d")
    }
    for at, case in cases.items():
        runs[case.name] = Run(cluster, settled.hub, case.name, dag_id="start_once_no_retries", at=[at])
    processes = [runs[case.name].wait_stopped(at) for at, case in cases.items()]
    group = cluster.kill_alone("scheduler")
    try:
        cluster.start("scheduler")
        for at, case in cases.items():
            run = runs[case.name]
            wait_until(lambda run=run: run.task()["try_number"] == 2, f"{run.name} is run again", every=1)
            if case.state == "success":
                run.end_evaluation()
            run.wait_ended()
            run.go_on(at)  # in case that the first attempt still lives
        wait_until(lambda: all(found.task_has_ended() for found in processes), "the first attempts end")
        rows.extend(case.check(runs[case.name]) for case in cases.values())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
