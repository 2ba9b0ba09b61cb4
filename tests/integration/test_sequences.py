"""Whole waits as sequences: faults, foreign responses, pauses, a moved clock, takeovers and retries, in any order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.pool import shared_connections
from airflow_provider_oxen.testing import Alter, Disconnect, Fault, LocalHub, Respond
from airflow_provider_oxen.triggers import oxen as trigger_module
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from tests.support.triggers import make_trigger

if TYPE_CHECKING:
    from collections.abc import Sequence

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


@dataclass(frozen=True)
class Happenings:
    """
    What happens to one wait.

    :param faults: what comes instead of the first responses.
    :param end: how the evaluation has ended; "running": it never ends.
    :param interruptions: seconds after which the wait is taken over by another triggerer, with the clock moved by then.
    """

    faults: Sequence[Any]
    end: str
    interruptions: Sequence[tuple[float, float]]


sequences = st.builds(
    Happenings,
    st.lists(st.sampled_from(PASSING + FOREIGN), max_size=6),
    st.sampled_from(["completed", "errored", "cancelled", "running"]),
    st.lists(st.tuples(st.floats(0, 0.05), st.sampled_from([-7200.0, 0.0, 0.0, 7200.0])), max_size=3),
)


class _MovedClock:
    """The module ``time``, with a wall clock that can be moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


async def _run(trigger: OxenEvaluationTrigger, interruptions: Sequence[tuple[float, float]], clock: _MovedClock) -> Any:
    """Run a trigger; take it over from its serialized form each time it is interrupted."""

    async def collect(trigger: OxenEvaluationTrigger) -> list[Any]:
        return [event.payload async for event in trigger.run()]

    for seconds, offset in interruptions:
        task = asyncio.create_task(collect(trigger))
        done, _ = await asyncio.wait([task], timeout=seconds)
        if done:
            return task.result()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        clock.offset += offset
        _, arguments = trigger.serialize()
        trigger = OxenEvaluationTrigger(**json.loads(json.dumps(arguments)))
    return await collect(trigger)


def check_sequence(hub: LocalHub, sequence: Happenings) -> None:
    """
    Run one sequence, with as many retries as it takes, and check how each attempt ended.

    An attempt has exactly one event. It says completed, errored or cancelled only where the evaluation has ended so;
    it times out only where the deadline has passed, on the clock of the triggerer that says so; only a response that
    was not the hub's ends it as such, so that it may be retried; and nothing is left open.
    """
    clock, really = _MovedClock(), trigger_module.time
    trigger_module.time = clock  # type: ignore[attr-defined]  # not by a fixture: one for each example
    try:
        faults = tuple(Fault(what, first=number, count=1) for number, what in enumerate(sequence.faults, start=1))
        is_running = sequence.end == "running"
        hub.add_evaluation(
            "x", end="completed" if is_running else sequence.end, seconds=3600 if is_running else 0, faults=faults
        )
        # A clock that is set back puts off the deadline where a triggerer takes over: here, by two hours.
        interruptions = [(after, abs(moved) if is_running else moved) for after, moved in sequence.interruptions]
        for _attempt in range(len(sequence.faults) + 2):
            deadline = clock.time() + (0.4 if is_running else 3600)
            trigger = make_trigger("x", poke_interval=0.001, max_wait=0.002, retry_window=2, deadline=deadline)
            events = asyncio.run(_run(trigger, interruptions, clock))
            interruptions = []
            assert len(events) == 1, sequence
            outcome = events[0]["outcome"]
            assert shared_connections() == []
            assert outcome in (sequence.end, "timeout", "not_the_hub"), events
            if outcome == "timeout":
                assert clock.time() >= deadline, events
                if not is_running:  # the clock was moved past the deadline: a retry has another one
                    continue
            if outcome != "not_the_hub":
                break
            assert any(what in FOREIGN for what in sequence.faults), events
        assert outcome == ("timeout" if is_running else sequence.end), (sequence, events)
    finally:
        trigger_module.time = really  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(sequences)
def test_no_sequence_ends_a_wait_wrongly(oxen_hub: LocalHub, sequence: Happenings) -> None:
    """Whatever happens on the way, a wait ends as its evaluation did, or times out where that one never ends."""
    check_sequence(oxen_hub, sequence)
