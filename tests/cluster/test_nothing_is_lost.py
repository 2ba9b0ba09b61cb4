"""Waits in every way of waiting, while a worker and a triggerer are killed, and Redis and PostgreSQL restarted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.story import DEFERRABLE, KILLED_TRIGGERER_WAVE, KILLED_WORKER_WAVE

if TYPE_CHECKING:
    from tests.cluster.story import Story


def test_each_wait_ends_as_its_evaluation(story: Story) -> None:
    """No wait is lost, and no gate opens for an evaluation that errored or was cancelled."""
    assert [(wait, story.ends[wait]) for wait in story.waits if not story.has_right_end(wait)] == []


def test_each_end_is_reported_once(story: Story) -> None:
    """Each task gets its last state once, each attempt calls its callback once, and what completed makes one event."""
    assert [wait for wait in story.waits if story.is_reported_twice(wait)] == []
    for wait in story.waits:
        on_worker = not wait.ends_in_triggerer
        assert story.ended_times[wait] == on_worker, wait
        assert story.asset_events[wait] == (wait.end == "completed" and on_worker), wait
        what, attempts = "success" if wait.end == "completed" else "failure", story.ends[wait].attempts
        reports = story.reports(wait)
        # Airflow calls the callback of a failure before it stores the state, and may then lose the attempt.
        assert set(reports) <= {f"{what} {number}" for number in range(1, attempts + 1) if on_worker}, wait
        # It stores a success first, and a worker that is killed just then calls no callback.
        assert (f"{what} {attempts}" in reports) is on_worker or wait.wave == KILLED_WORKER_WAVE, wait


def test_result_is_that_of_the_evaluation(story: Story) -> None:
    """Each task's XComs have its own evaluation as it ended; only a gate that opened returns it."""
    for wait in story.waits:
        evaluation = story.xcom(wait, "evaluation")
        assert (evaluation["id"], evaluation["status"]) == (story.evaluation_of(wait), wait.end), wait
        assert story.xcom(wait, "return_value") == (evaluation if wait.end == "completed" else None), wait


def test_no_evaluation_is_started_twice(story: Story) -> None:
    """Each task that starts an evaluation asks for one, whatever happens to it later."""
    for wait in story.waits:
        assert story.posts(wait) == len(story.started(wait)) == (wait.way == "operator"), wait


def test_no_attempt_is_lost_in_the_triggerer(story: Story) -> None:
    """Airflow begins a task again only if it lost the worker, and so none that waits in the triggerer."""
    for wait in story.waits:
        if wait.way in DEFERRABLE:
            assert all(at >= story.ended_at[wait] for at in story.ends[wait].lost_at), wait


def test_logs_of_both_halves_are_found(story: Story) -> None:
    """The log of each wait, as Airflow shows it, has what its workers and its triggerer wrote, and its end once."""
    for wait in story.waits:
        # What is killed just when its part of the wait has ended uploads no log.
        if wait.wave not in (KILLED_WORKER_WAVE, KILLED_TRIGGERER_WAVE):
            assert story.has_logs(wait), f"{wait}\n{story.logs[wait]}"
