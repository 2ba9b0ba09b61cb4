"""
Whole waits as sequences, in any way of waiting and any order.

They have faults, foreign responses, pauses, a moved clock, cluster policies, takeovers and retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import gate as gate_module
from airflow_provider_oxen import version_compat
from airflow_provider_oxen.pool import shared_connections
from airflow_provider_oxen.testing import Alter, Disconnect, Fault, LocalHub, Respond
from airflow_provider_oxen.triggers import oxen as trigger_module
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from tests.support.airflow import AirflowException, TaskDeferred
from tests.support.tasks import FakeTaskInstance, FakeTaskStateStore, RescheduleException, make_gate
from tests.support.triggers import run_trigger, triggerer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

_TEXT = {"Content-Type": "text/plain"}
_HTML = {"Content-Type": "text/html"}

#: What passes, whenever it comes: it is no response of the hub's about this evaluation, or a pause.
PASSING: list[Any] = [
    Respond(500),
    Respond(502, b"<html>Bad gateway</html>", _HTML),
    Respond(503, headers={"Retry-After": "0"}),
    Respond(503, headers={"Retry-After": "0.02"}),
    Respond(429, headers={"Retry-After": "0.02"}),
    Respond(408),
    Respond(200, b"<html>Sign in</html>", _HTML),
    Respond(200, b'{"status": "success", "evaluation": {"id": "'),
    Respond(200, b'{"status": "error"}'),
    Respond(200, b"", {"Content-Encoding": "br"}),
    Respond(200, b"no gzip", {"Content-Encoding": "gzip"}),
    Respond(204),
    Alter(evaluation={"id": "another", "status": "completed"}),
    Alter(evaluation={"status": "paused"}),
    Alter(evaluation={"status": None}),
    Alter(without=("status",)),
    Disconnect("before"),
    Disconnect("before", reset=True),
    Disconnect("middle"),
    Disconnect("middle", reset=True),
    Disconnect("after"),
]
#: What something in front of the hub may send: it may pass or refuse, but never is an end of the evaluation.
FOREIGN: list[Any] = [
    Respond(404, b"default backend - 404", _TEXT),
    Respond(403, b"<html>Blocked</html>", _HTML),
    Respond(401, b"<html>Sign in</html>", _HTML),
    Respond(400, b"<html>Bad request</html>", _HTML),
    Respond(302, b"", {"Location": "https://login.example/"}),
]


#: What a cluster policy may set. The first two end the wait of an evaluation that never ends.
POLICY = ["timeout", "execution_timeout", "poke_interval", "max_wait", "retry_window"]
WAYS = ["deferred", "poke", "reschedule"]
WAYS += ["in the triggerer"] if version_compat.can_start_and_end_in_triggerer() else []


@dataclass(frozen=True)
class Happenings:
    """
    What happens to one task.

    :param way: how it waits.
    :param faults: what comes instead of the first responses.
    :param end: how the evaluation has ended; "running": it never ends.
    :param interruptions: seconds after which the wait is taken over by another triggerer, with the clock moved by then.
    :param policy: what a cluster policy sets once the task is made: by name, whether to a ``timedelta``.
    """

    way: str
    faults: Sequence[Any]
    end: str
    interruptions: Sequence[tuple[float, float]]
    policy: Mapping[str, bool]


sequences = st.builds(
    Happenings,
    st.sampled_from(WAYS),
    st.lists(st.sampled_from(PASSING + FOREIGN), max_size=6),
    st.sampled_from(["completed", "errored", "cancelled", "running", "running"]),
    st.lists(st.tuples(st.floats(0, 0.05), st.sampled_from([-7200.0, 0.0, 0.0, 7200.0])), max_size=3),
    st.dictionaries(st.sampled_from(POLICY), st.booleans(), min_size=2),
)


class _MovedClock:
    """The module ``time``, with a wall clock that can be moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def _make_gate(sequence: Happenings, limit: float) -> OxenEvaluationSensor:
    """Make the task as each of its processes does. What a policy sets is something else in the DAG file."""
    wanted = {"timeout": limit, "poke_interval": 0.001, "max_wait": 0.002, "retry_window": 2}
    arguments = {name: 86_400 if name in sequence.policy else value for name, value in wanted.items()}
    if "execution_timeout" in sequence.policy and sequence.way in ("deferred", "poke"):  # else it ends no wait
        arguments["timeout"], wanted["execution_timeout"] = 86_400, limit
        wanted["timeout"] = 86_400
    gate = make_gate(
        "x",
        **arguments,
        deferrable=sequence.way in ("deferred", "in the triggerer"),
        mode="reschedule" if sequence.way == "reschedule" else "poke",
        start_from_trigger=sequence.way == "in the triggerer",
    )
    for name, as_timedelta in sequence.policy.items():
        if name in wanted:
            is_timedelta = as_timedelta or name == "execution_timeout"
            setattr(gate, name, timedelta(seconds=wanted[name]) if is_timedelta else wanted[name])
    return gate if gate.start_trigger_args else gate.prepare_for_execution()


async def _run(
    trigger: OxenEvaluationTrigger, interruptions: Sequence[tuple[float, float]], clock: _MovedClock, ti: Any
) -> Any:
    """Run a trigger; take it over from its serialized form each time it is interrupted."""
    for seconds, offset in interruptions:
        task = asyncio.create_task(run_trigger(trigger, ti=ti))
        done, _ = await asyncio.wait([task], timeout=seconds)
        if done:
            return task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        clock.offset += offset
        ends_at, (_, arguments) = getattr(trigger, "timeout_after", None), trigger.serialize()
        trigger = OxenEvaluationTrigger(**json.loads(json.dumps(arguments)))
        trigger.timeout_after = ends_at
    return await run_trigger(trigger, ti=ti)


def _attempt(
    sequence: Happenings,
    limit: float,
    interruptions: Sequence[tuple[float, float]],
    clock: _MovedClock,
    context: dict[str, Any],
) -> str:
    """Run one attempt of the task, and return how it ended."""
    ti = context["ti"]
    while True:
        gate = _make_gate(sequence, limit)
        try:
            if start := gate.start_trigger_args:
                trigger, method = OxenEvaluationTrigger(**start.trigger_kwargs), start.next_method
                trigger.timeout_after = datetime.fromtimestamp(clock.time(), tz=timezone.utc) + start.timeout
            else:
                gate.execute(context)
                break
        except TaskDeferred as deferred:
            trigger = OxenEvaluationTrigger(**json.loads(json.dumps(deferred.trigger.serialize()[1])))
            method = deferred.method_name
        except RescheduleException as rescheduled:
            ti.first_rescheduled_at = ti.first_rescheduled_at or datetime.now(tz=timezone.utc)
            time.sleep(max((rescheduled.reschedule_date - datetime.now(tz=timezone.utc)).total_seconds(), 0))
            continue
        except AirflowException:  # the outcome says what it was
            break
        with triggerer(ti.xcoms):
            event = asyncio.run(_run(trigger, interruptions, clock, ti))  # it has exactly one
        gate = _make_gate(sequence, limit)
        with triggerer(ti.xcoms), contextlib.suppress(AirflowException):
            gate.resume_execution(method, {"event": event}, context)
        break
    described = gate.get_openlineage_facets_on_complete(None)
    assert described is not None
    return str(described.run_facets["oxen_evaluation"].outcome)


def check_sequence(hub: LocalHub, sequence: Happenings) -> None:
    """
    Run one sequence, with as many retries as it takes, and check how each attempt ended.

    An attempt says completed, errored or cancelled only where the evaluation has ended so; it times out only where the
    deadline has passed, on the clock of the triggerer that says so, be it the DAG file's or a policy's; only a response
    that was not the hub's ends it as such, so that it may be retried; and nothing is left open.
    """
    clock, really = _MovedClock(), time
    trigger_module.time = gate_module.time = clock  # type: ignore[attr-defined]  # not by a fixture: one for each example
    try:
        faults = tuple(Fault(what, first=number, count=1) for number, what in enumerate(sequence.faults, start=1))
        is_running = sequence.end == "running"
        hub.add_evaluation(
            "x", end="completed" if is_running else sequence.end, seconds=3600 if is_running else 0, faults=faults
        )
        # A clock that is set back puts off the deadline where a triggerer takes over: here, by two hours.
        interruptions = [(after, abs(moved) if is_running else moved) for after, moved in sequence.interruptions]
        limit = 0.4 if is_running else 3600.0
        kept: dict[str, Any] = {}  # where no worker begins an attempt, Airflow keeps the XComs of the one before
        for attempt in range(1, len(sequence.faults) + 3):
            xcoms = kept if sequence.way == "in the triggerer" else {}
            ti, deadline = FakeTaskInstance(xcoms, try_number=attempt, id=str(attempt)), clock.time() + limit
            store = {"task_state_store": FakeTaskStateStore()} if sequence.way == "reschedule" else {}
            outcome = _attempt(sequence, limit, interruptions, clock, {"ti": ti, **store})
            interruptions = []
            assert shared_connections() == []
            assert outcome in (sequence.end, "timeout", "not_the_hub"), (outcome, sequence)
            if outcome == "timeout":
                assert clock.time() >= deadline - 0.001, sequence
                if not is_running:  # the clock was moved past the deadline: a retry has another one
                    continue
            if outcome != "not_the_hub":
                break
            assert any(what in FOREIGN for what in sequence.faults), sequence
        assert outcome == ("timeout" if is_running else sequence.end), (sequence, outcome)
    finally:
        trigger_module.time = gate_module.time = really  # type: ignore[attr-defined]


@pytest.mark.timeout(300)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(sequences)
def test_no_sequence_ends_a_wait_wrongly(oxen_hub: LocalHub, sequence: Happenings) -> None:
    """Whatever happens on the way, a wait ends as its evaluation did, or times out where that one never ends."""
    check_sequence(oxen_hub, sequence)
