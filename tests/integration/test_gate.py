"""The gate: one table of reactions, one list of trigger arguments, and what counts after a wait."""

from __future__ import annotations

import inspect
import json
import logging
import os
import signal
import threading
import time
from dataclasses import MISSING, fields
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.gate import Gate
from airflow_provider_oxen.links.oxen import LINKS
from airflow_provider_oxen.parameters import TriggerArguments
from airflow_provider_oxen.reactions import REACTIONS, OxenWaitLostError
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.testing import Fault, Respond
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from airflow_provider_oxen.wait import Outcome, OutcomeReason
from tests.support import airflow as sdk
from tests.support.airflow import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    Asset,
)
from tests.support.assets import make_outlet_events
from tests.support.public_hub import public_hub
from tests.support.tasks import WAYS, FakeTaskInstance, deferred_ti, make_gate, run_task, trigger_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub

SETTINGS = ["plain", "soft_fail", "never_fail"]
IN_TRIGGERER = pytest.param(
    "in the triggerer",
    marks=pytest.mark.skipif(not version_compat.can_start_and_end_in_triggerer(), reason="this Airflow cannot do it"),
)
#: The ways in which a trigger waits.
BY_TRIGGER = ["deferred", IN_TRIGGERER]
URI = "oxen://hub.oxen.ai/ox/customer-intents/data/intents.parquet?revision=main"


def fail(evaluation: Any) -> bool:
    """A condition that cannot be checked."""
    raise LookupError(evaluation.id)


def arrange(hub: LocalHub, way: str, reason: OutcomeReason) -> tuple[str, dict[str, Any]]:
    """Add an evaluation, and return the arguments of a gate whose wait for it ends for a reason."""
    at_once = way == "first poll"
    seconds, first = (0.0, 1) if at_once else (0.15, 3)
    settings = {"poke_interval": 0.02, "max_wait": 0.03}
    match reason:
        case OutcomeReason.ERRORED | OutcomeReason.CANCELLED:
            return hub.add_evaluation(end=str(reason), seconds=seconds), settings
        case OutcomeReason.CONDITION_NOT_MET:
            return hub.add_evaluation(seconds=seconds), settings | {"conditions": lambda _: False}
        case OutcomeReason.CONDITION_FAILED:
            return hub.add_evaluation(seconds=seconds), settings | {"conditions": fail}
        case OutcomeReason.TIMEOUT:
            return hub.add_evaluation(seconds=60), settings | {"timeout": 0 if at_once else 0.15}
        case OutcomeReason.REFUSED:
            return hub.add_evaluation(seconds=60, faults=(Fault(Respond(400), first=first),)), settings
        case OutcomeReason.NOT_THE_HUB:
            faults = (Fault(Respond(503), count=first - 1), Fault(Respond(404, b"default backend - 404"), first=first))
            return hub.add_evaluation(seconds=60, faults=faults if first > 1 else faults[1:]), settings
        case OutcomeReason.UNREACHABLE:
            faults = (Fault(Respond(503), first=first),)
            return hub.add_evaluation(seconds=60, faults=faults), settings | {"retry_window": 0 if at_once else 0.1}
    return hub.add_evaluation(seconds=seconds), settings


def check_reaction(reason: OutcomeReason, setting: str, error: BaseException | None, message: str) -> None:
    """
    Check that a task ended as the table says.

    Airflow's ``retries`` apply to every exception but two, and to no skip. Source: ``run`` in Airflow 3's
    ``sdk/execution_time/task_runner.py``, ``_run_raw_task`` in Airflow 2's ``models/taskinstance.py``.
    """
    reaction = REACTIONS[reason]
    if reaction.exception is None:
        assert error is None
        return
    if setting == "never_fail" or (setting == "soft_fail" and reaction.soft_fail_skips):
        assert type(error) is AirflowSkipException
        assert str(error).startswith(f"Skipped by {setting}. {message}")
        return
    assert type(error) is reaction.exception
    assert isinstance(error, AirflowException)
    assert not isinstance(error, AirflowSkipException)
    assert isinstance(error, (AirflowFailException, AirflowSensorTimeout)) is not reaction.may_be_retried
    assert str(error).startswith(message)


#: How the message of each outcome begins.
MESSAGES = {
    OutcomeReason.COMPLETED: "",
    OutcomeReason.ERRORED: "Evaluation errored: ",
    OutcomeReason.CANCELLED: "Evaluation cancelled",
    OutcomeReason.CONDITION_NOT_MET: "Condition not met: ",
    OutcomeReason.CONDITION_FAILED: "Condition could not be checked: LookupError: ",
    OutcomeReason.TIMEOUT: "Timed out: ",
    OutcomeReason.REFUSED: "Stopped waiting: 400",
    OutcomeReason.NOT_THE_HUB: "Stopped waiting: 404, but not from the hub: ",
    OutcomeReason.UNREACHABLE: "Hub out of reach for longer than retry_window: 503",
    OutcomeReason.LOST: "No result: ",
}


def test_table_has_a_row_for_each_outcome() -> None:
    """No outcome is without a reaction, and only a completed evaluation lets the task succeed."""
    assert set(REACTIONS) == set(OutcomeReason) == set(MESSAGES)
    assert [reason for reason, reaction in REACTIONS.items() if reaction.exception is None] == [OutcomeReason.COMPLETED]


def test_condition_that_raises_what_the_hub_sent_forges_no_line(oxen_hub: LocalHub, logged: Callable[[], str]) -> None:
    """A condition raises a text of the hub's with line breaks and escape codes: the log has it in one line."""

    def check(evaluation: Any) -> bool:
        raise ValueError(evaluation.name)

    evaluation_id = oxen_hub.add_evaluation(seconds=0, fields={"name": "x\r\nERROR forged\x1b[31m"})

    result = run_task("first poll", evaluation_id, conditions=check)

    text = logged()
    assert str(result.raised).isprintable()
    assert "A condition raised ValueError: x ERROR forged [31m, in:\n" in text
    assert "raise ValueError(evaluation.name)" in text
    assert not any(line.startswith("ERROR forged") for line in text.splitlines())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("way", [*WAYS, IN_TRIGGERER])
@pytest.mark.parametrize("reason", [reason for reason in OutcomeReason if reason is not OutcomeReason.LOST])
def test_task_ends_as_the_table_says(oxen_hub: LocalHub, reason: OutcomeReason, way: str, setting: str) -> None:
    """Each outcome raises its exception, uses ``retries`` or not, and skips where asked, in each way of waiting."""
    evaluation_id, arguments = arrange(oxen_hub, way, reason)
    if setting != "plain":
        arguments[setting] = True

    result = run_task(way, evaluation_id, **arguments)

    check_reaction(reason, setting, result.raised, MESSAGES[reason])
    assert (result.returned is not None) is (reason is OutcomeReason.COMPLETED)
    assert result.sensor.get_openlineage_facets_on_complete(None).run_facets["oxen_evaluation"].outcome == reason


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("way", BY_TRIGGER)
def test_lost_wait_ends_as_the_table_says(oxen_hub: LocalHub, way: str, setting: str) -> None:
    """So does a wait whose trigger yields nothing that can be understood."""
    evaluation_id, arguments = arrange(oxen_hub, way, OutcomeReason.LOST)
    if setting != "plain":
        arguments[setting] = True

    result = run_task(way, evaluation_id, lose_event=True, **arguments)

    check_reaction(OutcomeReason.LOST, setting, result.raised, MESSAGES[OutcomeReason.LOST])
    assert result.returned is None


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    ("text", "reason"), [("Trigger timeout", OutcomeReason.TIMEOUT), ("Trigger failure", OutcomeReason.LOST)]
)
def test_trigger_that_airflow_ends_is_in_the_table(
    oxen_hub: LocalHub, text: str, reason: OutcomeReason, setting: str
) -> None:
    """Where Airflow itself ends a trigger, the task ends as the table says."""
    error = trigger_error(text)
    gate = make_gate(oxen_hub.add_evaluation("x", seconds=60), **({} if setting == "plain" else {setting: True}))

    with pytest.raises(Exception, match="evaluation x of ox/customer-intents") as caught:
        gate.resume_execution("__fail__", {"error": error}, {"ti": deferred_ti("x")})

    check_reaction(reason, setting, caught.value, MESSAGES[reason])


@pytest.mark.parametrize("setting", SETTINGS)
def test_timer_of_airflow_is_in_the_table(oxen_hub: LocalHub, setting: str) -> None:
    """Where Airflow's timer of ``execution_timeout`` stops a worker that pokes, the task times out like any other."""

    def stop(*_: Any) -> None:
        raise AirflowTaskTimeout("the timer")

    gate = make_gate(
        oxen_hub.add_evaluation(seconds=60),
        deferrable=False,
        execution_timeout=timedelta(seconds=20),
        **({} if setting == "plain" else {setting: True}),
    )

    def ring() -> None:
        while not oxen_hub.requests:
            time.sleep(0.01)
        time.sleep(0.2)  # until the gate sleeps
        os.kill(os.getpid(), signal.SIGALRM)

    previous = signal.signal(signal.SIGALRM, stop)
    clock = threading.Thread(target=ring, daemon=True)
    clock.start()
    try:
        with pytest.raises(Exception, match="queued, when last seen") as caught:
            gate.execute({"ti": FakeTaskInstance()})
    finally:
        clock.join()
        signal.signal(signal.SIGALRM, previous)

    check_reaction(OutcomeReason.TIMEOUT, setting, caught.value, MESSAGES[OutcomeReason.TIMEOUT])


def test_any_task_can_hold_a_gate(oxen_hub: LocalHub) -> None:
    """A gate needs of its task what :class:`GateTask` lists, and no base class."""
    task = SimpleNamespace(
        oxen_conn_id="oxen_default",
        deferrable=False,
        poke_interval=0.05,
        max_wait=None,
        retry_window=None,
        timeout=30.0,
        conditions=None,
        end_from_trigger=False,
        do_xcom_push=True,
        outlets=[],
        soft_fail=False,
        never_fail=False,
        started_here=False,
        is_recorded=False,
        log=logging.getLogger("task"),
        execution_limit=None,
        check_settings=lambda: None,
        waits_by_rescheduling=False,
    )
    gate, ti = Gate(task), FakeTaskInstance()
    ref = EvaluationRef("ox", "customer-intents", oxen_hub.add_evaluation(seconds=0.2))

    returned = gate.execute({"ti": ti}, ref)

    assert returned == ti.xcoms["evaluation"]
    assert gate.outcome.reason is OutcomeReason.COMPLETED
    assert gate.outcome.ref == ref


# One list of trigger arguments


#: A value other than the default for each argument.
ARGUMENTS: dict[str, Any] = {
    "namespace": "n",
    "repo_name": "r",
    "evaluation_id": "e",
    "oxen_conn_id": "c",
    "poke_interval": 1.5,
    "max_wait": 2.5,
    "deadline": 4102444800.0,
    "retry_window": 3.5,
    "timeout": 4.5,
    "end_from_trigger": True,
    "do_xcom_push": False,
    "started_here": True,
    "is_recorded": True,
    "last_seen": {"id": "e", "status": "queued", "progress": {"processed": 0, "total": 9}},
    "seen_at": 1795953879.5,
}


def test_signature_of_the_trigger_is_the_list() -> None:
    """The trigger takes exactly the arguments of the list, by keyword, with the same defaults."""
    parameters = list(inspect.signature(OxenEvaluationTrigger.__init__).parameters.values())[1:]
    signature = {parameter.name: parameter.default for parameter in parameters}
    listed = {
        field.name: inspect.Parameter.empty if field.default is MISSING else field.default
        for field in fields(TriggerArguments)
    }

    assert signature == listed
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_defaults_of_the_sensor_are_those_of_the_list() -> None:
    """An argument that sensor and trigger share has the same default in both."""
    sensor = OxenEvaluationSensor(task_id="g", namespace="n", repo_name="r", evaluation_id="e")
    listed = TriggerArguments(namespace="n", repo_name="r", evaluation_id="e")

    for name in ("oxen_conn_id", "poke_interval", "retry_window", "end_from_trigger", "do_xcom_push"):
        assert getattr(sensor, name) == getattr(listed, name)
    assert sensor.max_wait == timedelta(seconds=listed.max_wait)


def test_trigger_is_serialized_to_the_list() -> None:
    """What is stored of a trigger is each argument of the list and nothing else, and makes the same trigger again."""
    stored = json.loads(json.dumps(OxenEvaluationTrigger(**ARGUMENTS).serialize()))

    assert stored == ["airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger", ARGUMENTS]
    assert set(ARGUMENTS) == {field.name for field in fields(TriggerArguments)}
    assert OxenEvaluationTrigger(**stored[1]).serialize()[1] == TriggerArguments(**stored[1]).to_dict() == ARGUMENTS


def test_deferring_worker_uses_the_list(oxen_hub: LocalHub) -> None:
    """A worker that defers stores each argument of the list."""
    with pytest.raises(sdk.TaskDeferred) as deferred:
        make_gate(oxen_hub.add_evaluation(seconds=60)).execute({"ti": FakeTaskInstance()})

    assert set(deferred.value.trigger.serialize()[1]) == set(ARGUMENTS)


# After the wait, the event counts


#: An event as it is stored. A later release may add to it; it takes nothing away.
EVENT: dict[str, Any] = {
    "outcome": "completed",
    "namespace": "ox",
    "repo_name": "customer-intents",
    "evaluation_id": "e",
    "evaluation": {"id": "e", "status": "completed", "progress": {"processed": 5, "total": 5}},
    "error": None,
    "hub": "https://hub.oxen.ai",
    "deadline": None,
    "at": 1764086400.0,
}


def test_stored_event_is_understood() -> None:
    """A stored event opens the gate and survives being read and written, as do those of a later release."""
    ref = EvaluationRef("not", "this", "one")
    outcome = Outcome.from_event(EVENT, otherwise=ref)

    assert set(outcome.to_event()) == set(EVENT)
    assert Outcome.from_event(outcome.to_event(), otherwise=ref) == outcome
    for event in (EVENT, EVENT | {"added_later": 1}):
        assert make_gate("e").execute_complete({"ti": FakeTaskInstance()}, event)["progress"]["processed"] == 5


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)
        yield hub


@pytest.mark.parametrize("way", BY_TRIGGER)
@pytest.mark.parametrize("end", ["completed", "errored"])
def test_template_that_renders_to_something_else_later_changes_nothing(
    hub: LocalHub, way: str, end: str, logged: Callable[[], str]
) -> None:
    """When a task is resumed, message, XComs, links, lineage and asset event are of the evaluation it waited for."""
    evaluation_id = hub.add_evaluation("waited-for", end=end, seconds=0.4)
    asset = Asset(uri=URI)
    events = make_outlet_events([asset])
    later = {name: f"moved-{name}" for name in ("namespace", "repo_name", "evaluation_id", "oxen_conn_id")}

    result = run_task(way, evaluation_id, rendered_later=later, outlets=[asset], context={"outlet_events": events})

    page = "https://www.oxen.ai/ox/customer-intents/evaluations/waited-for"
    links = {link.xcom_key: link.get_link(result.sensor, ti_key=None) for link in LINKS}
    lineage = result.sensor.get_openlineage_facets_on_complete(None)
    message = logged() if end == "completed" else str(result.raised)
    assert f"evaluation waited-for of ox/customer-intents, see {page}" in message
    assert result.xcoms["evaluation"]["id"] == "waited-for"
    assert (result.returned or {}).get("id") == ("waited-for" if end == "completed" else None)
    assert links["_link_OxenEvaluationLink"] == page
    assert lineage.run_facets["oxen_evaluation"].evaluation_id == "waited-for"
    assert {dataset.name.rpartition("/")[0] for dataset in (*lineage.inputs, *lineage.outputs)} == {
        "ox/customer-intents/data"
    }
    assert events[asset].extra.get("evaluation_id") == ("waited-for" if end == "completed" else None)
    everything = (message, result.xcoms, result.returned, links, lineage, events[asset].extra)
    assert "moved-" not in repr(everything)


# Where Airflow ends the trigger, there is no event


def _end_of_trigger(deferred: sdk.TaskDeferred | None, ti: FakeTaskInstance, now: str, **arguments: Any) -> Any:
    """Resume a deferred task whose trigger Airflow ended, with templates that now give ``now``."""
    assert deferred is None or deferred.method_name == "execute_complete"
    return make_gate(now, **arguments).resume_execution("__fail__", {"error": trigger_error()}, {"ti": ti})


def _defer(evaluation_id: str, ti: FakeTaskInstance, **arguments: Any) -> sdk.TaskDeferred:
    with pytest.raises(sdk.TaskDeferred) as deferred:
        make_gate(evaluation_id, **arguments).execute({"ti": ti})
    return deferred.value


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_gate_opens_for_no_other_evaluation_where_airflow_ends_the_trigger(
    oxen_hub: LocalHub, do_xcom_push: bool
) -> None:
    """The worker polls the evaluation that the task deferred for, though the templates give a completed one now."""
    ti = FakeTaskInstance()
    waited_for, other = oxen_hub.add_evaluation("e1", seconds=60), oxen_hub.add_evaluation("e2", seconds=0)
    deferred = _defer(waited_for, ti, do_xcom_push=do_xcom_push)

    with pytest.raises(AirflowSensorTimeout, match="evaluation e1 of ox/customer-intents"):
        _end_of_trigger(deferred, ti, other, do_xcom_push=do_xcom_push)

    assert oxen_hub.requests_for("e2") == 0


@pytest.mark.parametrize("do_xcom_push", [True, False])
def test_gate_opens_for_the_evaluation_it_deferred_for(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, do_xcom_push: bool
) -> None:
    """Where that one has completed meanwhile, the gate opens, whatever its templates give now."""
    ti = FakeTaskInstance()
    deferred = _defer(oxen_hub.add_evaluation("e1", seconds=0.2), ti, do_xcom_push=do_xcom_push)
    monkeypatch.setenv("AIRFLOW_CONN_MOVED", "oxen://:another-key@127.0.0.1:9/")
    time.sleep(0.3)

    returned = _end_of_trigger(deferred, ti, "e2", oxen_conn_id="moved", do_xcom_push=do_xcom_push)

    assert (returned["id"], returned["status"]) == ("e1", "completed")
    assert ("evaluation" in ti.xcoms) is do_xcom_push


@pytest.mark.parametrize(
    "xcoms",
    [
        {},
        {"waits_for": "e2"},
        {"waits_for": {"namespace": "ox", "repo_name": "customer-intents", "try_number": 2, "oxen_conn_id": "c"}},
        deferred_ti("e1", try_number=1).xcoms,
    ],
    ids=["nothing", "a text", "half of it", "of an earlier attempt"],
)
def test_wait_that_no_triggerer_began_is_that_of_the_templates(oxen_hub: LocalHub, xcoms: dict[str, Any]) -> None:
    """If this attempt has stored nothing, no trigger ran: the templates are rendered for the first time."""
    oxen_hub.add_evaluation("e2", seconds=0)

    returned = _end_of_trigger(None, FakeTaskInstance(xcoms=dict(xcoms), try_number=2), "e2")

    assert (returned["id"], oxen_hub.requests_for("e2")) == ("e2", 1)


def test_lost_trigger_names_the_evaluation_it_waited_for(oxen_hub: LocalHub) -> None:
    """The message about a trigger that failed names the evaluation of the wait, and not that of the templates."""
    ti = FakeTaskInstance()
    _defer(oxen_hub.add_evaluation("e1", seconds=60), ti)

    with pytest.raises(OxenWaitLostError, match="evaluation e1 of ox/customer-intents"):
        make_gate("e2").resume_execution("__fail__", {"error": trigger_error("Trigger failure")}, {"ti": ti})
