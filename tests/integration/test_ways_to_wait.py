"""The same wait in every way of waiting: outcome, message, XComs, links and lineage are compared, fault by fault."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import pool, version_compat
from airflow_provider_oxen import wait as wait_module
from airflow_provider_oxen.links.oxen import LINKS
from airflow_provider_oxen.reactions import OxenHubUnreachableError, OxenNotTheHubError, OxenWaitLostError
from airflow_provider_oxen.testing import Alter, Disconnect, Fault, LocalHub, Respond, Trickle
from tests.support.airflow import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_3_PLUS,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowTaskTimeout,
    TaskDeferred,
)
from tests.support.dag_test import prepare_database, run_dag_test
from tests.support.public_hub import public_hub
from tests.support.tasks import (
    TAKEN_OVER_IN_TRIGGERER,
    WAYS_TO_GO_ON,
    FakeTaskInstance,
    FakeTaskStateStore,
    RescheduleException,
    Result,
    deferred_ti,
    make_gate,
    run_task,
    trigger_error,
)
from tests.support.triggers import make_trigger, run_trigger, triggerer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aiohttp import web

    from airflow_provider_oxen.testing.exchange import Exchange

IN_TRIGGERER = [
    pytest.param(way, marks=pytest.mark.skipif(not version_compat.can_start_and_end_in_triggerer(), reason="not here"))
    for way in ("in the triggerer", TAKEN_OVER_IN_TRIGGERER)
]
IN_DAG_TEST = pytest.param(
    "dag.test()",
    marks=pytest.mark.skipif(
        AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_3_PLUS, reason="it fails there with the newest fastapi, with any task"
    ),
)
needs_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="Airflow 3.3 has triggers that store XComs")
HTML = (b"<html>Sign in</html>", {"Content-Type": "text/html"})
#: An HTTP error of a gateway's, with the location that makes a 302 whole.
LOGIN = (b"<html>Sign in</html>", {"Content-Type": "text/html", "Location": "https://login.example/"})


@dataclass(frozen=True)
class Rotate:
    """
    Refuse the key from now on, and put another one into the connection.

    :param status_code: how the hub refuses the request that comes with the old one.
    """

    status_code: int
    hub: LocalHub | None = None

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        assert self.hub is not None
        self.hub.api_key += "-new"
        _change_connection(password=self.hub.api_key)
        return await Respond(self.status_code).act(exchange)


def _change_connection(**fields: Any) -> None:
    os.environ["AIRFLOW_CONN_OXEN_DEFAULT"] = json.dumps(json.loads(os.environ["AIRFLOW_CONN_OXEN_DEFAULT"]) | fields)


#: Each row of the table of faults: the faults after the evaluation was seen for the first time, how the evaluation
#: ends, and further arguments of the sensor. Polls are counted from 1.
ROWS: dict[str, tuple[tuple[Fault, ...], str, dict[str, Any]]] = {
    "completes": ((), "completed", {}),
    "errors": ((), "errored", {}),
    "is cancelled": ((), "cancelled", {}),
    "condition not met": ((), "completed", {"conditions": lambda _: "no"}),
    "503 that passes": ((Fault(Respond(503, *HTML), first=2, count=2),), "completed", {}),
    "reset that passes": ((Fault(Disconnect("before", reset=True), first=2, count=2),), "completed", {}),
    "429 that passes": ((Fault(Respond(429, headers={"Retry-After": "0.1"}), first=2, count=1),), "completed", {}),
    "pause that passes": ((Fault(Respond(503, headers={"Retry-After": "0.6"}), first=2, count=1),), "completed", {}),
    "503 that lasts": ((Fault(Respond(503), first=2),), "completed", {"retry_window": 0.3}),
    "503 until the deadline": ((Fault(Respond(503), first=2),), "completed", {"retry_window": 30, "timeout": 2.5}),
    "404 of a gateway that passes": (
        (Fault(Respond(404, b"default backend - 404"), first=2, count=2),),
        "completed",
        {},
    ),
    "401 page that passes": ((Fault(Respond(401, *HTML), first=2, count=2),), "completed", {}),
    "400 page that passes": ((Fault(Respond(400, *HTML), first=2, count=2),), "completed", {}),
    "redirect to a login that passes": ((Fault(Respond(302, *LOGIN), first=2, count=2),), "completed", {}),
    "403 page that lasts": ((Fault(Respond(403, *HTML), first=2),), "completed", {"retry_window": 0.3}),
    "404 of the hub that passes": ((Fault(Respond(404), first=2, count=2),), "completed", {}),
    "404 of the hub that lasts": ((Fault(Respond(404), first=2),), "completed", {}),
    "refusal": ((Fault(Respond(402), first=2),), "completed", {}),
    "refusal of the key": ((Fault(Respond(401), first=2),), "completed", {}),
    "refusal of the key's owner": ((Fault(Respond(403), first=2),), "completed", {}),
    "rotated key that passes": ((Fault(Rotate(401), first=2, count=1),), "completed", {}),
    "rotated key, refused with 403, that passes": ((Fault(Rotate(403), first=2, count=1),), "completed", {}),
    "trickle that passes": ((Fault(Trickle(0.05), first=2, count=1),), "completed", {"retry_window": 5}),
    "trickle that lasts": ((Fault(Trickle(0.05), first=2),), "completed", {"retry_window": 0.3}),
    "unknown status that passes": ((Fault(Alter(evaluation={"status": "paused"}), first=2, count=2),), "completed", {}),
    "unknown status until the deadline": (
        (Fault(Alter(evaluation={"status": "paused"}), first=2),),
        "completed",
        {"timeout": 2.5},
    ),
    "body that is too large and passes": ((Fault(Respond(200, b" " * 5_000_000), first=2, count=1),), "completed", {}),
    "deadline": ((), "completed", {"timeout": 0.3}),
}


@pytest.fixture(autouse=True)
def _short_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub says "not found" for half a second at most, and not for half a minute."""
    monkeypatch.setattr(wait_module, "NOT_FOUND_SECONDS", 0.5)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)
        yield hub


def _facts(result: Result) -> dict[str, Any]:
    """Return what people and later tasks see of an end, without times and ids of single requests."""
    lineage = result.sensor.get_openlineage_facets_on_complete(None)
    return json.loads(
        re.sub(
            r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)?",
            "a time",
            json.dumps(
                {
                    "failure": [str(result.failure[0]), result.failure[1]],
                    "returned": result.returned,
                    "evaluation": result.xcoms.get("evaluation"),
                    "links": {link.xcom_key: link.get_link(result.sensor, ti_key=None) for link in LINKS},
                    "inputs": [f"{one.namespace} {one.name}" for one in lineage.inputs],
                    "outputs": [f"{one.namespace} {one.name}" for one in lineage.outputs],
                    "facet": lineage.run_facets["oxen_evaluation"].outcome,
                }
            ),
        )
    )


def _run(hub: LocalHub, way: str, row: str) -> Result:
    faults, end, arguments = ROWS[row]
    run = run_dag_test if way == "dag.test()" else partial(run_task, way)
    faults = tuple(
        replace(fault, what=replace(fault.what, hub=hub)) if isinstance(fault.what, Rotate) else fault
        for fault in faults
    )
    if "trickle" in row:
        extra = json.loads(os.environ["AIRFLOW_CONN_OXEN_DEFAULT"])["extra"]
        _change_connection(extra=extra | {"timeout": 0.7})
    stays = "deadline" in row or "lasts" in row or "refusal" in row  # then what was last seen is always the same
    evaluation_id = hub.add_evaluation("waited-for", end=end, seconds=60 if stays else 0.5, rows=10, faults=faults)
    return run(evaluation_id, **{"poke_interval": 0.05, "max_wait": 0.06, **arguments})


#: How a task that pokes ends, by row: what the other ways are compared with.
_poked: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="module")
def _database() -> None:
    """What ``dag.test()`` needs."""
    prepare_database()


@pytest.mark.usefixtures("_database")
@pytest.mark.parametrize("way", ["deferred", *WAYS_TO_GO_ON, *IN_TRIGGERER, IN_DAG_TEST])
@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.alone) if "until the deadline" in row else row for row in ROWS]
)
def test_every_way_of_waiting_ends_alike(hub: LocalHub, row: str, way: str) -> None:
    """An evaluation that was seen, and then a fault: the end is that of a task that pokes."""
    if row not in _poked:
        _poked[row] = _facts(_run(hub, "poke", row))
        hub.remove_evaluation("waited-for")

    assert _facts(_run(hub, way, row)) == _poked[row]


@pytest.mark.parametrize("row", ["completes", "errors", "503 that passes", "429 that passes", "deadline"])
def test_rescheduling_without_a_store_ends_alike_where_nothing_has_to_be_remembered(hub: LocalHub, row: str) -> None:
    """Before Airflow 3.3, each process of a task that reschedules begins again, which most ends do not need."""
    expected = _facts(_run(hub, "poke", row))
    hub.remove_evaluation("waited-for")

    assert _facts(_run(hub, "reschedule", row)) == expected


# Where Airflow ends the wait


def _take_up(
    evaluation_id: str,
    ti: FakeTaskInstance,
    *,
    prepare: bool = False,
    error: str = "Trigger timeout",
    **arguments: Any,
) -> Any:
    gate = make_gate(evaluation_id, **arguments)
    gate = gate.prepare_for_execution() if prepare else gate
    ti.xcoms |= deferred_ti(evaluation_id).xcoms
    return gate.resume_execution("__fail__", {"error": trigger_error(error)}, {"ti": ti})


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger failure"])
def test_completion_that_no_triggerer_reported_opens_the_gate(hub: LocalHub, error: str) -> None:
    """Where no triggerer ran, or the trigger failed, the worker polls once: a completed evaluation opens the gate."""
    ti = FakeTaskInstance()

    returned = _take_up(hub.add_evaluation("waited-for", seconds=0), ti, error=error)

    assert returned == ti.xcoms["evaluation"]
    assert returned["status"] == "completed"
    assert hub.requests_for("waited-for") == 1


def test_failure_of_a_trigger_says_what_was_last_seen(hub: LocalHub) -> None:
    """Where the evaluation has not ended, the task fails with what Airflow says, may be retried, and has its XCom."""
    ti = FakeTaskInstance()

    with pytest.raises(OxenWaitLostError, match=r"Airflow ended the trigger \(.*; last seen queued"):
        _take_up(hub.add_evaluation("waited-for", seconds=60), ti, error="Trigger failure")
    assert ti.xcoms["evaluation"]["status"] == "queued"
    with pytest.raises(OxenWaitLostError, match=r"Airflow ended the trigger \(.*; last failure: 503"):
        _take_up(hub.add_evaluation("down", faults=(Fault(Respond(503)),)), ti, error="Trigger failure")


def test_timeout_that_no_triggerer_reported_says_what_was_last_seen(hub: LocalHub) -> None:
    """Where it has not ended, the message says how far it came, and asks whether a triggerer is running."""
    ti = FakeTaskInstance()

    with pytest.raises(AirflowSensorTimeout, match=r"when last seen.*; no triggerer reported: is one running\?"):
        _take_up(hub.add_evaluation("waited-for", seconds=60), ti)
    assert ti.xcoms["evaluation"]["status"] == "queued"
    with pytest.raises(AirflowSensorTimeout, match=r"never seen by .*; no triggerer reported.*; last failure: 503"):
        _take_up(hub.add_evaluation("down", faults=(Fault(Respond(503)),)), ti)
    with pytest.raises(AirflowFailException, match="Stopped waiting: 404"):
        _take_up("no-such", ti)


# Time


def _deferral(gate: Any) -> Any:
    with pytest.raises(TaskDeferred) as deferred:
        gate.execute({"ti": FakeTaskInstance()})
    return deferred.value


def _now() -> float:
    return datetime.now(tz=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 25), ("timeout", timedelta(seconds=25)), ("execution_timeout", timedelta(seconds=25))],
)
def test_limit_of_a_policy_counts_for_a_deferred_wait(hub: LocalHub, name: str, value: Any) -> None:
    """A cluster policy sets ``timeout`` or ``execution_timeout`` after ``__init__``: that is the deadline."""
    gate = make_gate(hub.add_evaluation(seconds=60), timeout=3_600)
    setattr(gate, name, value)

    deferred = _deferral(gate.prepare_for_execution())

    assert deferred.trigger.serialize()[1]["deadline"] == pytest.approx(_now() + 25, abs=5)


def test_limit_of_a_policy_counts_where_the_wait_starts_in_the_triggerer(hub: LocalHub) -> None:
    """What the scheduler makes the trigger from has the durations that the task has in the end."""
    if not version_compat.can_start_and_end_in_triggerer():
        pytest.skip("this Airflow cannot do it")
    gate = make_gate(hub.add_evaluation(seconds=60), timeout=3_600, start_from_trigger=True)
    gate.timeout, gate.max_wait, gate.poke_interval = timedelta(seconds=25), timedelta(seconds=9), 4

    start = gate.start_trigger_args

    assert start.timeout == timedelta(seconds=25, minutes=10)
    assert (start.trigger_kwargs["timeout"], start.trigger_kwargs["max_wait"]) == (25.0, 9.0)
    assert start.trigger_kwargs["poke_interval"] == 4
    assert type(gate).start_trigger_args is None


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_timeout_of_a_policy_counts_for_a_wait_on_workers(hub: LocalHub, mode: str) -> None:
    """A cluster policy sets ``timeout`` after ``__init__``: it ends a wait that pokes, and one that reschedules."""
    ti = FakeTaskInstance(first_rescheduled_at=datetime.now(tz=timezone.utc) - timedelta(seconds=60))
    gate = make_gate(hub.add_evaluation(seconds=60), deferrable=False, mode=mode, timeout=3_600)
    gate.timeout = timedelta(seconds=0.3) if mode == "poke" else 59

    with pytest.raises(AirflowSensorTimeout):
        gate.prepare_for_execution().execute({"ti": ti})


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_other_durations_of_a_policy_may_be_a_timedelta(hub: LocalHub, way: str) -> None:
    """A cluster policy sets ``retry_window`` and ``poke_interval`` to a ``timedelta``: both count."""
    faults = (Fault(Respond(503)),)
    gate = make_gate(
        hub.add_evaluation(faults=faults),
        deferrable=way == "deferred",
        mode="reschedule" if way == "reschedule" else "poke",
        retry_window=3_600,
    )
    gate.retry_window, gate.poke_interval = timedelta(seconds=0.3), timedelta(seconds=0.02)

    if way == "deferred":
        arguments = _deferral(gate).trigger.serialize()[1]
        assert (arguments["retry_window"], arguments["poke_interval"]) == (0.3, 0.02)
        return
    with pytest.raises(OxenHubUnreachableError):
        gate.execute({"ti": FakeTaskInstance()})


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("poke_interval", 0, "poke_interval must be above 0 seconds"),
        ("retry_window", -1, "retry_window must be a timedelta or a finite number of seconds"),
        ("timeout", None, "timeout must be a timedelta or a finite number of seconds"),
        ("conditions", "all_rows", "conditions must be a callable"),
    ],
)
def test_setting_of_a_policy_that_can_never_work_fails_at_once(
    hub: LocalHub, name: str, value: Any, words: str, *, deferrable: bool
) -> None:
    """A cluster policy sets what the sensor itself refuses: nothing is polled, and no retry can help."""
    gate = make_gate(hub.add_evaluation("waited-for", seconds=60), deferrable=deferrable)
    setattr(gate, name, value)

    with pytest.raises(AirflowFailException, match=f"^Cannot wait: {words}"):
        gate.execute({"ti": FakeTaskInstance()})

    assert hub.requests_for("waited-for") == 0


@pytest.mark.parametrize(("mode", "seconds"), [("poke", 25), ("reschedule", 3_600)])
def test_execution_timeout_bounds_the_wait_or_one_poll(hub: LocalHub, mode: str, seconds: int) -> None:
    """``execution_timeout`` ends a wait that pokes; one that reschedules goes on until ``timeout``, as Airflow says."""
    ti, store = FakeTaskInstance(), FakeTaskStateStore()
    arguments = {"deferrable": False, "mode": mode, "timeout": 3_600 if mode == "reschedule" else 25}
    ti.first_rescheduled_at = datetime.now(tz=timezone.utc) - timedelta(seconds=60)
    gate = make_gate(hub.add_evaluation(seconds=60), **arguments, execution_timeout=timedelta(seconds=25))
    if mode == "poke":
        gate.timeout, gate.execution_timeout = 3_600, timedelta(seconds=0.4)
        with pytest.raises(AirflowSensorTimeout, match=r"^Timed out: .*; it had not ended by"):
            gate.execute({"ti": ti})
        return

    with pytest.raises(RescheduleException):
        gate.execute({"ti": ti, "task_state_store": store})

    assert store.values["oxen_wait"]["deadline"] == pytest.approx(_now() - 60 + seconds, abs=5)


def test_process_that_execution_timeout_stops_may_be_retried(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that hangs in a task that reschedules is stopped by Airflow's timer, and ``retries`` apply."""
    from airflow_provider_oxen.clients import OxenClient

    def hang(*_: Any, **__: Any) -> None:
        raise AirflowTaskTimeout("the timer")

    monkeypatch.setattr(OxenClient, "ask", hang)
    gate = make_gate(hub.add_evaluation(seconds=60), deferrable=False, mode="reschedule", soft_fail=True)

    with pytest.raises(OxenWaitLostError, match="execution_timeout stopped this process"):
        gate.execute({"ti": FakeTaskInstance()})


def test_setting_the_clock_moves_no_deadline_of_a_task_that_pokes(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's clock jumps by two hours while a task pokes: it ends when the evaluation has."""
    really = time.time
    evaluation_id = hub.add_evaluation("waited-for", seconds=0.5)

    def jump(seconds: float) -> None:
        monkeypatch.setattr("airflow_provider_oxen.gate.time.time", lambda: really() + 7_200)
        sleep(seconds)

    sleep = time.sleep
    monkeypatch.setattr("airflow_provider_oxen.gate.time.sleep", jump)

    assert run_task("poke", evaluation_id, timeout=30).returned["status"] == "completed"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The wall clock of the workers, which ``moved_by`` sets forward or back."""
    clock, really = SimpleNamespace(moved_by=0.0), time.time
    monkeypatch.setattr("airflow_provider_oxen.gate.time.time", lambda: really() + clock.moved_by)
    return clock


def test_clock_that_is_set_counts_for_the_next_process_of_a_task_that_reschedules(
    hub: LocalHub, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process reads the clock once: one that stays for an outage keeps its deadline, and the next has a new look."""
    ti = FakeTaskInstance(first_rescheduled_at=datetime.now(tz=timezone.utc))
    arguments = {"deferrable": False, "mode": "reschedule", "timeout": 3_600}

    def set_clock(seconds: float) -> None:
        clock.moved_by = 7_200.0
        sleep(seconds)

    sleep = time.sleep
    monkeypatch.setattr("airflow_provider_oxen.gate.time.sleep", set_clock)
    gate = make_gate(hub.add_evaluation(seconds=60, faults=(Fault(Respond(503), count=2),)), **arguments)

    with pytest.raises(RescheduleException):
        gate.execute({"ti": ti})

    assert clock.moved_by
    with pytest.raises(AirflowSensorTimeout):
        make_gate(hub.add_evaluation(seconds=60), **arguments).execute({"ti": ti})


@pytest.mark.parametrize("moved_by", [7_200.0, -7_200.0])
def test_outage_is_no_longer_or_shorter_where_the_clock_is_set_between_two_processes(
    hub: LocalHub, clock: SimpleNamespace, moved_by: float
) -> None:
    """With the store, ``retry_window`` counts on, and not the time for which a process was late or the clock moved."""
    context = {"ti": FakeTaskInstance(), "task_state_store": FakeTaskStateStore()}
    evaluation_id = hub.add_evaluation(seconds=60, faults=(Fault(Respond(503), first=2),))
    arguments = {"deferrable": False, "mode": "reschedule", "timeout": 86_400, "retry_window": 0.3}

    def poll(**changed: Any) -> None:
        make_gate(evaluation_id, **arguments, **changed).execute(context)

    for _ in range(2):
        with pytest.raises(RescheduleException):
            poll()
    clock.moved_by = moved_by
    with pytest.raises(RescheduleException):
        poll()
    with pytest.raises(OxenHubUnreachableError):  # noqa: PT012  # however many polls that takes
        while True:
            with pytest.raises(RescheduleException) as rescheduled:
                poll()
            assert rescheduled.value.reschedule_date is not None


def test_airflow_2_stops_a_process_that_hangs(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gate applies ``execution_timeout`` itself, each process of the task has that timer, too."""
    timers: list[float] = []

    @contextmanager
    def timeout(seconds: float) -> Iterator[None]:
        timers.append(seconds)
        yield

    monkeypatch.setitem(sys.modules, "airflow.utils.timeout", SimpleNamespace(timeout=timeout))
    monkeypatch.setattr(version_compat, "execution_timeout_counts_deferral", lambda: True)
    gate = make_gate(hub.add_evaluation(seconds=60), timeout=3_600)
    gate.execution_timeout = timedelta(seconds=25)  # by a policy
    prepared = gate.prepare_for_execution()

    deferred = _deferral(prepared)
    _take_up(
        hub.add_evaluation("done", seconds=0), FakeTaskInstance(), prepare=True, execution_timeout=timedelta(seconds=25)
    )

    assert deferred.trigger.serialize()[1]["deadline"] == pytest.approx(_now() + 25, abs=5)
    assert (prepared.execution_timeout, gate.execution_timeout) == (None, timedelta(seconds=25))
    assert timers == [25.0, 25.0]


@pytest.mark.parametrize("begun_by", ["a worker", "the triggerer"])
async def test_retry_window_begins_again_where_another_triggerer_takes_over(hub: LocalHub, begun_by: str) -> None:
    """What a triggerer takes over has no failures: its ``retry_window`` counts from the first that it sees itself."""
    limit = {"deadline": time.time() + 60} if begun_by == "a worker" else {"timeout": 60}
    trigger = make_trigger(hub.add_evaluation(faults=(Fault(Respond(503)),)), retry_window=1, **limit)
    first = asyncio.create_task(run_trigger(trigger))
    await asyncio.sleep(0.8)
    first.cancel()
    second = type(trigger)(**trigger.serialize()[1])
    began = time.monotonic()

    event = await run_trigger(second)

    assert event["outcome"] == "unreachable"
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize(
    ("response", "outcome"), [(Respond(404), "refused"), (Respond(404, b"default backend - 404"), "not_the_hub")]
)
@pytest.mark.parametrize("begun_by", ["a worker", "the triggerer"])
async def test_triggerer_that_takes_over_knows_what_another_one_has_seen(
    hub: LocalHub, response: Respond, outcome: str, begun_by: str
) -> None:
    """An evaluation that a triggerer was the first to see is known from Airflow 3.3 on, and a 404 may pass."""
    knows = version_compat.is_airflow(3, 3)
    limit = {"deadline": time.time() + 60} if begun_by == "a worker" else {"timeout": 60}
    ti, evaluation_id = FakeTaskInstance(), hub.add_evaluation(seconds=60)
    trigger = make_trigger(evaluation_id, **limit)
    with triggerer(ti.xcoms):
        first = asyncio.create_task(run_trigger(trigger, ti=ti))
        while hub.requests_for(evaluation_id) < 2:
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])  # what they share in one process is gone
        hub.add_evaluation(evaluation_id, seconds=0, faults=(Fault(response, count=2),))

        event = await run_trigger(type(trigger)(**trigger.serialize()[1]), ti=ti)

    assert (event["outcome"], hub.requests_for(evaluation_id)) == (("completed", 3) if knows else (outcome, 1))


@needs_3_3
async def test_wait_that_began_in_a_triggerer_is_polled_when_that_one_would_have(hub: LocalHub) -> None:
    """The triggerer that saw the evaluation first stores when, so that the next one does not poll at once."""
    ti, evaluation_id = FakeTaskInstance(), hub.add_evaluation(seconds=60)
    trigger = make_trigger(evaluation_id, timeout=60, poke_interval=30, max_wait=30)
    with triggerer(ti.xcoms):
        for _ in range(2):
            run = asyncio.create_task(run_trigger(trigger, ti=ti))
            await asyncio.sleep(0.5)
            run.cancel()
            await asyncio.wait([run])
            trigger = type(trigger)(**trigger.serialize()[1])

    assert ti.xcoms["waits_for"]["seen_at"] == pytest.approx(time.time(), abs=20)
    assert hub.requests_for(evaluation_id) == 1


@needs_3_3
async def test_triggerer_that_takes_over_waits_for_the_same_evaluation(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Templates are rendered again where a triggerer takes over, and may give another evaluation and connection."""
    ti = FakeTaskInstance()
    hub.add_evaluation("old-one", seconds=60)
    hub.add_evaluation("new-one", end="errored", seconds=0)
    with triggerer(ti.xcoms):
        first = asyncio.create_task(run_trigger(make_trigger("old-one", timeout=60), ti=ti))
        while not hub.requests_for("old-one"):
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        hub.add_evaluation("old-one", seconds=0)
        monkeypatch.setenv("AIRFLOW_CONN_MOVED", "oxen://:another-key@127.0.0.1:9/")

        event = await run_trigger(make_trigger("new-one", oxen_conn_id="moved", timeout=60), ti=ti)

        assert (event["outcome"], event["evaluation_id"]) == ("completed", "old-one")
        ti.try_number += 1
        assert (await run_trigger(make_trigger("new-one", timeout=60), ti=ti))["evaluation_id"] == "new-one"


@needs_3_3
@pytest.mark.parametrize("stored", [None, "a text", {"try_number": 1}])
async def test_what_cannot_be_read_of_an_earlier_triggerer_changes_nothing(hub: LocalHub, stored: Any) -> None:
    """A wait begins as if no triggerer had run it before."""
    ti = FakeTaskInstance(xcoms={"waits_for": stored})
    with triggerer(ti.xcoms):
        event = await run_trigger(make_trigger(hub.add_evaluation(seconds=0), timeout=60), ti=ti)

    assert event["outcome"] == "completed"


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger failure"])
def test_worker_that_airflow_hands_the_wait_knows_what_was_seen(hub: LocalHub, error: str) -> None:
    """Where the poll of that worker fails, message and XCom have the evaluation as it was seen before the deferral."""
    ti, evaluation_id = FakeTaskInstance(), hub.add_evaluation(seconds=60, faults=(Fault(Respond(503), first=2),))
    with pytest.raises(TaskDeferred):
        make_gate(evaluation_id).execute({"ti": ti})

    with pytest.raises(
        (AirflowSensorTimeout, OxenWaitLostError), match=r"queued.*last failure: 503|last failure: 503.*queued"
    ):
        make_gate(evaluation_id).resume_execution("__fail__", {"error": trigger_error(error)}, {"ti": ti})

    assert ti.xcoms["evaluation"]["status"] == "queued"


# What a task that reschedules remembers


def _polls_by_rescheduling(hub: LocalHub, way: str, **arguments: Any) -> Result:
    return run_task(way, hub.add_evaluation("waited-for", seconds=3), poke_interval=0.02, **arguments)


def test_max_wait_paces_rescheduling(hub: LocalHub) -> None:
    """With the store, polls grow apart as in the other ways of waiting, up to ``max_wait``."""
    paced = _polls_by_rescheduling(hub, "reschedule with a store", max_wait=0.5)

    assert paced.returned["status"] == "completed"
    assert paced.processes < 50  # a poll every 0.02 to 0.04 s would be 75 to 150


def test_rescheduling_frees_the_worker_in_an_outage(hub: LocalHub) -> None:
    """With the store, a process ends also while the hub fails: for how long it has is remembered."""
    evaluation_id = hub.add_evaluation("waited-for", seconds=60, faults=(Fault(Respond(503), first=2),))

    result = run_task("reschedule with a store", evaluation_id, retry_window=0.4)

    assert isinstance(result.raised, OxenHubUnreachableError)
    assert result.processes == hub.requests_for(evaluation_id) > 3
    silent = make_gate("waited-for", deferrable=False, mode="reschedule", silent_fail=True)
    with pytest.raises(RescheduleException):
        silent.execute({"ti": FakeTaskInstance()})


def test_remembered_evaluation_is_waited_for_though_the_template_moves(hub: LocalHub) -> None:
    """With the store, a task that reschedules goes on with the evaluation that it began with."""
    store, ti = FakeTaskStateStore(), FakeTaskInstance()
    arguments = {"deferrable": False, "mode": "reschedule"}
    hub.add_evaluation("old-one", seconds=0.3)
    hub.add_evaluation("new-one", end="errored", seconds=0)
    with pytest.raises(RescheduleException):
        make_gate("old-one", **arguments).execute({"ti": ti, "task_state_store": store})
    hub.add_evaluation("old-one", seconds=0)

    assert make_gate("new-one", **arguments).execute({"ti": ti, "task_state_store": store})["id"] == "old-one"
    ti.id = "the next attempt"
    with pytest.raises(AirflowFailException, match="new-one"):
        make_gate("new-one", **arguments).execute({"ti": ti, "task_state_store": store})


@pytest.mark.parametrize("broken", ["get", "set"])
def test_store_that_fails_keeps_the_process(hub: LocalHub, broken: str) -> None:
    """Where Airflow's store does not respond, the wait goes on all the same."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no store")

    store = SimpleNamespace(**{"get": lambda _: None, "set": lambda *_, **__: None, broken: fail})
    faults = (Fault(Respond(503), count=2),)
    gate = make_gate(
        hub.add_evaluation(seconds=0, faults=faults), deferrable=False, mode="reschedule", poke_interval=0.02
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_oxen.wait_store.to_memory", lambda _: {})
        if broken == "set":
            assert gate.execute({"ti": FakeTaskInstance(), "task_state_store": store})["status"] == "completed"
        else:
            with pytest.raises(RescheduleException):
                gate.execute({"ti": FakeTaskInstance(), "task_state_store": store})


# What is not the hub's


@pytest.mark.parametrize("way", ["poke", "reschedule", "first poll"])
def test_foreign_first_response_fails_at_once_and_may_be_retried(hub: LocalHub, way: str) -> None:
    """Before it was seen, a gateway's 404 ends the wait at once; it says what came from where, not to check ids."""
    faults = (Fault(Respond(404, b"default backend - 404", {"Content-Type": "text/plain"})),)

    result = run_task(way, hub.add_evaluation("waited-for", faults=faults))

    assert isinstance(result.raised, OxenNotTheHubError)
    assert str(result.raised).startswith(
        "Stopped waiting: 404, but not from the hub: text/plain, 21 bytes, 'default backend - 404', instead of the "
        "hub's JSON, from https://hub.oxen.ai/api/repos/ox/customer-intents/evaluations/waited-for. Check the "
        "connection's host and proxy"
    )
    assert hub.requests_for("waited-for") == 1


# A connection that is corrected


def test_worker_reads_a_corrected_connection_while_the_hub_is_out_of_reach(
    oxen_hub: LocalHub, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong host that a person corrects is noticed by a task that pokes, well before ``retry_window`` ends."""
    monkeypatch.setattr(pool, "MAX_LOOKUP_AGE_SECONDS", 0.2)
    set_connection(host="http://127.0.0.1:9")
    sleeps = []

    def correct(seconds: float) -> None:
        sleeps.append(seconds)
        set_connection()
        really(seconds)

    really = time.sleep
    monkeypatch.setattr("airflow_provider_oxen.gate.time.sleep", correct)

    result = run_task("poke", oxen_hub.add_evaluation(seconds=0), retry_window=30)

    assert result.returned["status"] == "completed"
    assert len(sleeps) < 20
