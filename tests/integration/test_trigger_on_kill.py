"""What a trigger says when Airflow cancels it: nothing where it only moves; of money, where its task started it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import triggerer_compat
from airflow_provider_oxen.testing import LocalHub
from tests.support.airflow import AIRFLOW_V_3_3_PLUS
from tests.support.tasks import FakeTaskInstance
from tests.support.triggers import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger

needs_on_kill = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="this Airflow calls no on_kill of a trigger")

SENSORS = (
    "The evaluation is still running, although this task was stopped: evaluation {id} of ox/customer-intents. Airflow "
    "cannot cancel it. Stop it on the hub."
)
OPERATORS = (
    "The evaluation is still running and costing money, although this task was stopped: evaluation {id} of "
    "ox/customer-intents. Airflow cannot cancel it. Stop it on the hub. If this task was cleared, its next attempt "
    "waits for it, unless its arguments changed."
)


class Supervisor:
    """Responds to a triggerer's question as Airflow does, with the state that the task has by now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.sdk.execution_time import task_runner

        self.state: str | None = "deferred"
        self.asked: list[Any] = []
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", self, raising=False)

    async def asend(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import TaskStatesResult

        if type(message).__name__ != "GetTaskStates":  # other things go on this way as well
            return None
        self.asked.append(message)
        if self.state == "no response":
            raise ConnectionError("the supervisor is gone")
        states = {} if self.state is None else {message.run_ids[0]: {message.task_ids[0]: self.state}}
        return TaskStatesResult(task_states=states)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    return Supervisor(monkeypatch)


async def kill(trigger: OxenEvaluationTrigger) -> None:
    """Cancel a trigger that polls, as a triggerer does."""
    trigger.task_instance = FakeTaskInstance()
    running = asyncio.create_task(run_trigger(trigger))
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await trigger.on_kill()


@needs_on_kill
@pytest.mark.parametrize("state", ["failed", "success", "skipped", "up_for_retry", "scheduled", "queued", "restarting"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [({}, SENSORS), ({"started_here": True, "is_recorded": True}, OPERATORS)],
    ids=["sensor", "operator"],
)
async def test_stopped_task_says_what_keeps_running(
    oxen_hub: LocalHub,
    supervisor: Supervisor,
    logged: Callable[[], str],
    state: str,
    arguments: dict[str, Any],
    words: str,
) -> None:
    """Marked or cleared: a warning; that it costs money, only where the task has started it."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60)
    supervisor.state = state

    await kill(make_trigger(evaluation_id, **arguments))

    text = logged()
    assert words.format(id=evaluation_id) in text
    assert "warning" in text.lower()
    assert ("money" in text) is bool(arguments)
    (asked,) = supervisor.asked
    assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("d", ["gate"], ["r"], -1)


@needs_on_kill
async def test_task_that_is_stopped_before_its_first_poll_says_where_to_look(
    monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor, logged: Callable[[], str]
) -> None:
    """A wait that goes on with what a worker saw knows the hub's address before it polls."""
    supervisor.state = "failed"
    with LocalHub(pages=True) as hub:
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", hub.connection_json)
        evaluation_id = hub.add_evaluation(seconds=60)
        seen = {"last_seen": {"id": evaluation_id, "status": "running"}, "seen_at": time.time()}
        await kill(make_trigger(evaluation_id, poke_interval=30, max_wait=30, **seen))

        assert hub.requests_for(evaluation_id) == 0
        assert f"{hub.url}/ox/customer-intents/evaluations/{evaluation_id}" in logged()


@needs_on_kill
@pytest.mark.parametrize("state", ["deferred", "no response"])
async def test_trigger_that_moves_says_nothing(
    oxen_hub: LocalHub, supervisor: Supervisor, logged: Callable[[], str], state: str
) -> None:
    """A task that is still deferred waits elsewhere; and where Airflow does not respond, nothing true can be said."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60)
    supervisor.state = state

    await kill(make_trigger(evaluation_id, started_here=True))

    assert "although this task was stopped" not in logged()
    assert len(supervisor.asked) == 1


@needs_on_kill
async def test_mapped_task_asks_about_its_own_index(oxen_hub: LocalHub, supervisor: Supervisor) -> None:
    """The state of a sibling says nothing about this one."""
    trigger = make_trigger(oxen_hub.add_evaluation(seconds=60))
    trigger.task_instance = FakeTaskInstance(map_index=2)

    await trigger.on_kill()

    assert supervisor.asked[0].map_index == 2


@needs_on_kill
async def test_wait_that_has_ended_says_nothing(
    oxen_hub: LocalHub, supervisor: Supervisor, logged: Callable[[], str]
) -> None:
    """An evaluation that has ended does not run on, whatever state the task has by now."""
    trigger = make_trigger(oxen_hub.add_evaluation(seconds=0), started_here=True)
    trigger.task_instance = FakeTaskInstance()
    supervisor.state = "failed"
    await run_trigger(trigger)

    await trigger.on_kill()

    assert "although this task was stopped" not in logged()
    assert supervisor.asked == []


async def test_trigger_outside_of_a_triggerer_says_nothing(
    monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """Without a task instance there is no task to ask about."""
    monkeypatch.setattr(triggerer_compat, "task_instance_of", lambda _: None)

    await make_trigger("e1").on_kill()

    assert logged() == ""
