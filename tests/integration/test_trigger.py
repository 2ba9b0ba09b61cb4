"""The trigger on an event loop, against the local hub."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import json
import os
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.hooks import oxen as hook_module
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.parameters import TriggerArguments
from airflow_provider_oxen.pool import shared_connections
from airflow_provider_oxen.sharing import Ticks
from airflow_provider_oxen.testing import Alter, Delay, Disconnect, Fault, LocalHub, Respond
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from tests.support.triggers import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable

#: The arguments as each release that was published wrote them. A release adds its own and keeps the others.
STORED = {
    "0.1.0": {
        "namespace": "ox",
        "repo_name": "customer-intents",
        "evaluation_id": "completed-0s",
        "oxen_conn_id": "oxen_default",
        "poke_interval": 10.0,
        "max_wait": 60.0,
        "deadline": 4102444800.0,
        "retry_window": 600.0,
    },
}


@pytest.mark.parametrize("end", ["completed", "errored", "cancelled"])
async def test_each_end_is_one_event(oxen_hub: LocalHub, end: str) -> None:
    """An evaluation's end is one event, with a typed outcome and the evaluation without its prompt."""
    evaluation_id = oxen_hub.add_evaluation(end=end, seconds=0.5)

    event = await run_trigger(make_trigger(evaluation_id))

    assert event["outcome"] == end
    assert (event["namespace"], event["repo_name"]) == ("ox", "customer-intents")
    assert event["evaluation_id"] == event["evaluation"]["id"] == evaluation_id
    assert event["evaluation"]["status"] == end
    assert "prompt" not in event["evaluation"]
    assert event["hub"] == oxen_hub.url
    assert len(json.dumps(event)) < 2_000


async def test_log_shows_what_changed_and_nothing_else(oxen_hub: LocalHub, logged: Callable[[], str]) -> None:
    """Each change of status and progress is a line with rows, percent and time left; no change is no line."""
    evaluation_id = oxen_hub.add_evaluation(seconds=1.2, rows=4)

    await run_trigger(make_trigger(evaluation_id, poke_interval=0.04, max_wait=0.04))
    lines = [line for line in logged().splitlines() if f"evaluation {evaluation_id} of ox/customer-intents" in line]

    polls = oxen_hub.requests_for(evaluation_id)
    assert len(lines) < polls / 2
    assert sum("Queued, 0 of 4 rows (0.0 %): " in line for line in lines) == 1
    assert sum("50.0 %, " in line and " left (2 of 4 rows): " in line for line in lines) == 1
    assert sum("Committing, 4 of 4 rows (100.0 %): " in line for line in lines) == 1
    assert "Evaluation completed (4 of 4 rows after " in lines[-1]


async def test_one_transient_failure_does_not_end_a_wait(oxen_hub: LocalHub, logged: Callable[[], str]) -> None:
    """After any single failure the wait goes on, and the log has one line that names it."""
    faults = (
        Fault(Disconnect("before"), first=1, count=2),  # aiohttp itself sends it again on a broken connection
        Fault(Respond(503), first=3, count=1),
        Fault(Respond(200, b"<html>"), first=4, count=1),
        Fault(Alter(evaluation={"id": "another"}), first=5, count=1),
    )
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=faults)

    event = await run_trigger(make_trigger(evaluation_id))

    assert event["outcome"] == "completed"
    text = logged()
    for kind in ("OxenServerError", "OxenUnreachableError", "OxenInvalidResponseError"):
        assert f"failed ({kind})" in text
    assert text.count(", next in ") == 4


async def test_failures_beyond_the_retry_window_end_the_wait(oxen_hub: LocalHub) -> None:
    """A hub that stays out of reach ends the wait once ``retry_window`` is over, with the last cause."""
    evaluation_id = oxen_hub.add_evaluation(faults=(Fault(Respond(503)),))
    began = time.monotonic()

    event = await run_trigger(make_trigger(evaluation_id, retry_window=0.4))

    assert event["outcome"] == "unreachable"
    assert "503" in event["error"]
    assert 0.3 < time.monotonic() - began < 5
    assert oxen_hub.requests_for(evaluation_id) > 2


def _seen_by_a_worker(evaluation_id: str, seconds_ago: float) -> dict[str, Any]:
    """Return the arguments of a trigger whose worker has polled."""
    last_seen = {"id": evaluation_id, "status": "running", "progress": {"processed": 0, "total": 90}}
    return {"last_seen": last_seen, "seen_at": time.time() - seconds_ago, "deadline": time.time() + 60}


async def test_trigger_polls_when_the_worker_would_have(oxen_hub: LocalHub) -> None:
    """What a worker has just seen is not polled again at once."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    trigger = make_trigger(evaluation_id, poke_interval=1, max_wait=1, **_seen_by_a_worker(evaluation_id, 0.2))
    began = time.monotonic()
    run = asyncio.create_task(run_trigger(trigger))

    await asyncio.sleep(0.4)
    assert oxen_hub.requests_for(evaluation_id) == 0
    assert (await run)["outcome"] == "completed"
    assert 0.7 < time.monotonic() - began < 1.3


async def test_slow_look_up_delays_no_first_poll(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look-up takes is part of the sleep before the first poll: the deadline holds."""
    look_up = hook_module.get_async_connection

    async def slow(conn_id: str, **named: Any) -> Any:
        await asyncio.sleep(1.5)
        return await look_up(conn_id, **named)

    monkeypatch.setattr(hook_module, "get_async_connection", slow)
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    seen = _seen_by_a_worker(evaluation_id, 0)
    began = time.monotonic()

    event = await run_trigger(make_trigger(evaluation_id, poke_interval=2, max_wait=2, **seen))

    assert event["outcome"] == "completed"
    assert 1.9 < time.monotonic() - began < 3.2


async def test_wait_that_joins_one_whose_end_was_seen_does_not_sleep(oxen_hub: LocalHub) -> None:
    """A wait that goes on in a triggerer takes the end that another wait for the same evaluation has seen."""
    ref = EvaluationRef("ox", "customer-intents", oxen_hub.add_evaluation(seconds=0))
    trigger = make_trigger(ref.evaluation_id, poke_interval=30, max_wait=30, **_seen_by_a_worker(ref.evaluation_id, 0))
    async with OxenHook().get_async_conn() as other, asyncio.timeout(10):
        await other.poll(ref, max_age=60)

        event = await run_trigger(trigger)

    assert (event["outcome"], oxen_hub.requests_for(ref.evaluation_id)) == ("completed", 1)


async def test_trigger_whose_connection_is_missing_at_first_polls_all_the_same(
    oxen_hub: LocalHub, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that fails before the first poll is left to that poll."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    monkeypatch.delenv("AIRFLOW_CONN_OXEN_DEFAULT")
    trigger = make_trigger(evaluation_id, poke_interval=0.4, max_wait=0.4, **_seen_by_a_worker(evaluation_id, 0))
    run = asyncio.create_task(run_trigger(trigger))
    await asyncio.sleep(0.2)
    set_connection(host=oxen_hub.url)

    assert (await run)["outcome"] == "completed"


async def test_waits_that_are_taken_over_spread_their_first_polls(
    oxen_hub: LocalHub, look_ups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A triggerer that takes over 300 waits looks their connection up once, and polls them over ``max_wait``."""
    sleeps: list[float] = []
    after = Ticks.after
    monkeypatch.setattr(Ticks, "after", lambda ticks, seconds: sleeps.append(seconds) or after(ticks, seconds))
    ids = [oxen_hub.add_evaluation(seconds=60) for _ in range(300)]
    arguments = [{"poke_interval": 1, "max_wait": 2, **_seen_by_a_worker(each, 900)} for each in ids]
    runs = [
        asyncio.create_task(run_trigger(make_trigger(each, **made))) for each, made in zip(ids, arguments, strict=True)
    ]
    async with asyncio.timeout(30):
        while not all(oxen_hub.requests_for(each) for each in ids):
            await asyncio.sleep(0.05)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)

    for quarter in range(4):
        assert 40 < sum(quarter <= 2 * seconds < quarter + 1 for seconds in sleeps[:300]) < 110
    assert look_ups == ["oxen_default"]


async def test_deadline_ends_the_wait_with_what_was_last_seen(oxen_hub: LocalHub) -> None:
    """At the deadline there is one more poll, the event carries status and progress, and nothing is left open."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60)

    event = await run_trigger(make_trigger(evaluation_id, deadline=time.time() + 0.5, poke_interval=30, max_wait=30))

    assert event["outcome"] == "timeout"
    assert event["evaluation"]["status"] == "queued"
    assert oxen_hub.requests_for(evaluation_id) == 2
    async with asyncio.timeout(1):
        while oxen_hub.connections_open:
            await asyncio.sleep(0.01)


async def test_deadline_that_passed_before_the_start_is_a_timeout(oxen_hub: LocalHub) -> None:
    """A trigger that first runs after its deadline still polls once: an evaluation that ended meanwhile counts."""
    running = oxen_hub.add_evaluation(seconds=60)
    ended = oxen_hub.add_evaluation(seconds=0)

    assert (await run_trigger(make_trigger(running, deadline=1.0)))["outcome"] == "timeout"
    assert (await run_trigger(make_trigger(ended, deadline=1.0)))["outcome"] == "completed"


async def test_wrong_key_is_refused_at_once(oxen_hub: LocalHub) -> None:
    """A key the hub does not accept ends the wait with the first response."""
    oxen_hub.api_key = "another"
    evaluation_id = oxen_hub.add_evaluation()

    event = await run_trigger(make_trigger(evaluation_id))

    assert event["outcome"] == "refused"
    assert "password" in event["error"]
    assert oxen_hub.requests_for(evaluation_id) == 1


async def test_bad_connection_is_refused_without_a_request(
    oxen_hub: LocalHub, set_connection: Callable[..., None]
) -> None:
    """A connection that cannot be used ends the wait with the field to fix, before anything is sent."""
    set_connection(extra={"timeout": "soon"})

    event = await run_trigger(make_trigger("any"))

    assert event["outcome"] == "refused"
    assert "connection 'oxen_default', field 'timeout'" in event["error"]
    assert oxen_hub.requests == []


@pytest.mark.parametrize("status", ["archived", "COMPLETED", "completed ", "succeeded"])
async def test_gate_stays_closed_on_unknown_status(oxen_hub: LocalHub, status: str, logged: Callable[[], str]) -> None:
    """A status the contract does not know is waited on, with one warning, however much it sounds like success."""
    fault = Fault(Alter(evaluation={"status": status}))
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(fault,))

    event = await run_trigger(make_trigger(evaluation_id, deadline=time.time() + 0.4))

    assert event["outcome"] == "timeout"
    assert logged().count(f"Unknown status {status!r}, only 'completed' opens the gate: ") == 1


async def test_progress_may_be_missing(oxen_hub: LocalHub) -> None:
    """Fields that are missing or null do not end a wait."""
    faults = (
        Fault(Alter(without=("progress", "inserted_at", "model")), count=2),
        Fault(Alter(evaluation={"progress": None, "resource": None, "surprise": [1]}), first=3, count=2),
    )
    evaluation_id = oxen_hub.add_evaluation(seconds=0.3, faults=faults)

    assert (await run_trigger(make_trigger(evaluation_id)))["outcome"] == "completed"


def test_serialized_form_is_exact() -> None:
    """The class path and the arguments, as they are stored, are plain JSON and name each argument there is."""
    trigger = OxenEvaluationTrigger(**STORED["0.1.0"])

    path, arguments = trigger.serialize()

    assert path == "airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert set(arguments) == set(inspect.signature(OxenEvaluationTrigger).parameters)
    assert arguments == TriggerArguments(**STORED["0.1.0"]).to_dict()
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name)(**arguments).serialize() == (path, arguments)


@pytest.mark.parametrize("release", STORED)
async def test_trigger_of_an_older_release_still_starts(release: str, oxen_hub: LocalHub) -> None:
    """Arguments as an older release stored them start a wait that ends well."""
    trigger = OxenEvaluationTrigger(**STORED[release])

    _, arguments = trigger.serialize()

    assert arguments.items() >= STORED[release].items()
    assert (await run_trigger(trigger))["outcome"] == "completed"
    assert len(oxen_hub.requests) == 1


@pytest.mark.parametrize(
    ("argument", "value", "expected_polls"), [("poke_interval", 0.4, (2, 4)), ("max_wait", 0.05, (8, 40))]
)
async def test_intervals_are_kept(
    oxen_hub: LocalHub, argument: str, value: float, expected_polls: tuple[int, int]
) -> None:
    """The time between two polls is at least ``poke_interval`` and at most ``max_wait``."""
    evaluation_id = oxen_hub.add_evaluation(seconds=1)

    await run_trigger(make_trigger(evaluation_id, **{"poke_interval": 0.04, "max_wait": 0.5, argument: value}))

    least, most = expected_polls
    assert least <= oxen_hub.requests_for(evaluation_id) <= most


async def test_polls_are_further_apart_than_poke_interval_where_max_wait_allows(oxen_hub: LocalHub) -> None:
    """``max_wait`` reaches the wait: while polls fail, they are further and further apart, up to it."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(Fault(Respond(503), count=4),))

    await run_trigger(make_trigger(evaluation_id, poke_interval=0.05, max_wait=0.4))

    times = [request.at for request in oxen_hub.requests]
    assert times[4] - times[3] >= 0.2  # half of the sleep is certain


@pytest.mark.alone
async def test_cancelled_trigger_stops_at_once_and_leaves_nothing_open(oxen_hub: LocalHub) -> None:
    """Cancelling the trigger, as Airflow does with a task that was cleared, ends it in a second in any state."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(30), first=2),))
    for polls in (1, 2):
        task = asyncio.create_task(
            run_trigger(make_trigger(evaluation_id, poke_interval=0.2 if polls == 2 else 30, max_wait=30))
        )
        while oxen_hub.requests_for(evaluation_id) < polls:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while oxen_hub.connections_open:
            await asyncio.sleep(0.01)

        assert time.monotonic() - began < 1
        assert shared_connections() == []
        oxen_hub.add_evaluation(evaluation_id, seconds=60, faults=(Fault(Delay(30), first=2),))


@pytest.mark.alone
def test_event_loop_is_never_blocked(oxen_hub: LocalHub) -> None:
    """
    In a fresh interpreter, first imports included, no step of a wait holds the loop.

    asyncio's debug mode reports slow steps, and a watchdog on the loop measures how late its own ticks are. A busy
    machine makes both late, so these limits are wide; what a step itself computes is held to much less, by the clock
    of the loop's thread.
    """
    oxen_hub.add_evaluation("watched", seconds=1.0, faults=(Fault(Delay(0.5), first=2, count=1),))
    program = textwrap.dedent("""
        import asyncio, gc, logging, time
        from airflow.hooks.base import BaseHook  # Airflow's own first look-up imports much of Airflow
        from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
        BaseHook.get_connection("oxen_default")
        slow = []
        logging.getLogger("asyncio").addFilter(lambda record: slow.append(record.getMessage()))
        worst = 0.0
        async def watch():
            global worst
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.005)
                worst = max(worst, time.perf_counter() - began - 0.005)
        gc.disable()  # what falls due in a step is not that step's
        heaviest = 0.0
        run_step = asyncio.Handle._run
        def weighed(handle):
            global heaviest
            began = time.thread_time()
            run_step(handle)
            heaviest = max(heaviest, time.thread_time() - began)
        async def main():
            asyncio.get_running_loop().slow_callback_duration = 0.25
            asyncio.Handle._run = weighed  # from here on: making the loop is not the wait's
            watchdog = asyncio.create_task(watch())
            trigger = OxenEvaluationTrigger(
                namespace="ox", repo_name="r", evaluation_id="watched", poke_interval=0.1, max_wait=0.2
            )
            events = [event async for event in trigger.run()]
            watchdog.cancel()
            return events[0].payload["outcome"]
        outcome = asyncio.run(main(), debug=True)
        slow = [text for text in slow if "took" in text]
        print("RESULT", outcome, worst, heaviest, slow)
    """)
    # Compiled once beforehand, as every installed package is: compiling holds the interpreter's lock.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-c", "import aiohttp, msgspec, pendulum, ssl"], env=env, check=True)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
    line = next(line for line in result.stdout.splitlines() if line.startswith("RESULT"))
    _, outcome, worst, heaviest, slow = line.split(maxsplit=4)

    assert outcome == "completed"
    assert float(worst) < 0.25, result.stdout
    assert float(heaviest) < 0.05, result.stdout
    assert slow == "[]", result.stdout


async def test_waiting_holds_no_thread(oxen_hub: LocalHub) -> None:
    """While many waits sleep, no thread waits for any of them."""
    import threading

    gc.collect()
    ids = [oxen_hub.add_evaluation(seconds=60) for _ in range(40)]
    tasks = [
        asyncio.create_task(run_trigger(make_trigger(evaluation_id, poke_interval=30, max_wait=30)))
        for evaluation_id in ids
    ]
    while len(oxen_hub.requests) < 40:
        await asyncio.sleep(0.01)
    frames = sys._current_frames().values()  # noqa: SLF001  # documented, in spite of its name
    busy = [frame for frame in frames if "airflow_provider_oxen" in frame.f_code.co_filename]
    names = [thread.name for thread in threading.enumerate()]

    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # What the default executor used to read the connection is idle; its size does not grow with the waits.
    assert len(busy) <= 1
    assert sum(name.startswith("asyncio_") for name in names) <= 32


@pytest.mark.parametrize(
    ("argument", "value"),
    [("poke_interval", 0), ("poke_interval", "5"), ("max_wait", -1), ("retry_window", float("inf")), ("timeout", True)],
)
def test_bad_duration_is_refused_when_the_trigger_is_made(argument: str, value: object) -> None:
    """A duration that makes no sense is refused, with its name, before it is stored."""
    with pytest.raises(ValueError, match=argument):
        make_trigger("x", **{argument: value})


def test_durations_may_be_timedeltas() -> None:
    """A trigger that a person makes takes durations as the sensor does, and stores seconds."""
    given = {name: timedelta(minutes=1) for name in ("poke_interval", "max_wait", "retry_window", "timeout")}
    _, stored = make_trigger("x", **given).serialize()

    assert {name: stored[name] for name in given} == dict.fromkeys(given, 60.0)
