"""What a person reads about starting an evaluation: what matters first, then what to do, and all of it true."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import OxenServerError
from airflow_provider_oxen.protocol import as_unknown_effect
from airflow_provider_oxen.start_decision import Attempt, RefuseReason, StartPolicy, TakeUp, decide
from airflow_provider_oxen.start_messages import (
    RECORD_KEY,
    describe_killed,
    describe_killed_while_starting,
    describe_left_running,
    describe_refusal,
    describe_started,
    describe_take_up,
    describe_unknown_start,
)
from airflow_provider_oxen.start_record import Phase, Record

PUBLIC = "https://hub.oxen.ai"
OTHER = "http://localhost:3000"
REF = EvaluationRef("ox", "customer-intents", "e1")
PAGE = "https://www.oxen.ai/ox/customer-intents"
STARTING = Record(
    Phase.STARTING, name="d.t r try 1", request="r1", at="2026-11-25T13:24:11+00:00", try_number=1, max_tries=2
)
STARTED = Record(
    Phase.STARTED, evaluation_id="e1", request="r1", at="2026-11-25T13:24:11+00:00", try_number=1, max_tries=2
)
GO_ON = (
    "To wait for it, set 'oxen_evaluation' in this task's state (tab Storage, Task State Store) to "
    '{"phase": "started", "evaluation_id": "ITS-ID"} and clear the task, keeping its state. To start a new one, '
)


def refuse(reason: RefuseReason, record: Record | None, *, airflow: str = "3.3.2", hub: str | None = PUBLIC) -> str:
    return describe_refusal(reason, "ox", "customer-intents", record, airflow=airflow, hub=hub)


def test_started() -> None:
    """That one was started comes first, then its id, its name and its page."""
    assert describe_started(REF, "d.t r try 1", PUBLIC) == (
        f"Evaluation started: evaluation e1 of ox/customer-intents, name 'd.t r try 1' (see {PAGE}/evaluations/e1)"
    )
    assert describe_started(REF, "n", OTHER) == "Evaluation started: evaluation e1 of ox/customer-intents, name 'n'"


def test_take_up() -> None:
    """That none is started comes first, then whose is waited for."""
    assert describe_take_up(REF, STARTED, PUBLIC, other_request=False) == (
        "No new evaluation: waiting for the one that attempt 1 at 2026-11-25T13:24:11+00:00 started, "
        f"evaluation e1 of ox/customer-intents (see {PAGE}/evaluations/e1)."
    )


def test_take_up_of_a_record_written_by_hand() -> None:
    """Where a person wrote the record, no attempt is named."""
    record = Record.from_value({"phase": "started", "evaluation_id": "e1"})

    assert describe_take_up(REF, record, None, other_request=False) == (
        "No new evaluation: waiting for the one that an earlier attempt started, evaluation e1 of ox/customer-intents."
    )


def test_take_up_with_other_arguments_says_how_to_use_them() -> None:
    """Where the arguments have changed, the line says what to do to use the new ones."""
    line = describe_take_up(REF, STARTED, None, other_request=True)

    assert line.endswith("The task's arguments have changed since: clear the task to start one with the new ones.")


ELSEWHERE = {"namespace": "cow", "repo_name": "other"}


@pytest.mark.parametrize("reason", [RefuseReason.UNKNOWN_START, RefuseReason.NOT_FOUND, RefuseReason.OTHER_HUB])
def test_repository_of_the_record_counts(reason: RefuseReason) -> None:
    """Where the arguments name another repository by now, a person is sent to the one of the earlier attempt."""
    record = replace(STARTING if reason is RefuseReason.UNKNOWN_START else STARTED, **ELSEWHERE)

    text = refuse(reason, record)

    assert reason is RefuseReason.OTHER_HUB or "in cow/other" in text
    assert "customer-intents" not in text
    if reason is not RefuseReason.NOT_FOUND:
        (shown,) = re.findall(r"\{.*?\}", text)
        read = Record.from_value(json.loads(shown))
        assert (read.phase, read.namespace, read.repo_name) == (Phase.STARTED, "cow", "other")


def test_repository_that_is_the_same_is_not_in_the_entry() -> None:
    """A person has no more to write than is needed."""
    record = replace(STARTING, namespace="ox", repo_name="customer-intents")

    assert refuse(RefuseReason.UNKNOWN_START, record) == refuse(RefuseReason.UNKNOWN_START, STARTING)


def test_unknown_start_of_an_earlier_attempt() -> None:
    """Who asked for one, under which name, where to look for it, and what to do next."""
    assert refuse(RefuseReason.UNKNOWN_START, STARTING) == (
        "Not known whether an evaluation was started: attempt 1 at 2026-11-25T13:24:11+00:00 asked for one (name "
        "'d.t r try 1') and ended before the hub's response was stored. No other evaluation is started, because each "
        f"one costs money. Look for it in ox/customer-intents on the hub (see {PAGE}), now and again some minutes "
        f"after that attempt ended. {GO_ON}clear the task."
    )


def test_unknown_start_of_this_attempt() -> None:
    """Where this attempt asked for one, its failure is the reason."""
    text = describe_unknown_start(
        "ox", "customer-intents", STARTING, "500: the hub failed (POST /api/…)", has_store=True, hub=OTHER
    )

    assert text.startswith(
        "Not known whether an evaluation was started: this attempt asked for one (name 'd.t r try 1'), and no usable "
        "response came: 500: the hub failed (POST /api/…). No other evaluation is started, because each one costs "
        "money. Look for it in ox/customer-intents on the hub, now"
    )
    assert text.endswith("clear the task.")


def test_unknown_is_said_once() -> None:
    """The error of a call that was sent once says that its effect is not known, which the message says already."""
    error = as_unknown_effect(OxenServerError("500: the hub failed.", request="POST /x"))

    text = describe_unknown_start("ox", "r", STARTING, str(error), has_store=True, hub=None)

    assert "no usable response came: 500: the hub failed (POST /x). No other" in text
    assert text.lower().count("not known") == 1


def test_unknown_start_without_a_store() -> None:
    """Without a store, nothing is said of one."""
    text = describe_unknown_start("ox", "r", STARTING, "reset", has_store=False, hub=None)

    assert RECORD_KEY not in text
    assert text.endswith("To start a new one, clear the task.")


def test_cause_is_one_line_of_limited_length() -> None:
    """A hub's text cannot fill the log."""
    text = describe_unknown_start("ox", "r", STARTING, "a\nb" + "x" * 5000, has_store=True, hub=None)

    assert "a b" in text
    assert "\n" not in text
    assert len(text) < 1500


@pytest.mark.parametrize("value", ["what", {"phase": "starting"}, {"version": 2, "phase": "started"}])
def test_clear_alone_is_not_advised_where_it_is_of_no_use(value: object) -> None:
    """A record without Airflow's number cannot show that the task was cleared, so the entry has to go first."""
    record = Record.from_value(value)

    assert refuse(RefuseReason.UNKNOWN_START, record).endswith(
        "To start a new one, delete that entry, then clear the task."
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("what", "it is not a JSON object, but str"),
        (["e1"], "it is not a JSON object, but list"),
        ({"version": 2, "phase": "started", "evaluation_id": "e1"}, "its version is 2, and not 1"),
        ({"phase": "Started", "evaluation_id": "e1"}, "its phase is 'Started', and neither 'started' nor 'starting'"),
        ({"phase": "started"}, "its phase is 'started', but its evaluation_id is None"),
        ({"phase": "started", "evaluation_id": 12}, "its phase is 'started', but its evaluation_id is 12"),
        ({"phase": "starting", "evaluation_id": "e1"}, "its phase is 'starting', although it has an evaluation_id"),
    ],
)
def test_what_is_wrong_with_the_entry_is_said(value: object, problem: str) -> None:
    """A person who made a mistake in the entry reads which."""
    text = refuse(RefuseReason.UNKNOWN_START, Record.from_value(value))

    assert text.startswith(
        "Not known whether an evaluation was started: the entry 'oxen_evaluation' cannot be understood: "
        f"{problem}. No other evaluation is started"
    )


def test_record_of_the_message_is_taken_up() -> None:
    """The record that the message shows makes the next attempt wait."""
    (shown,) = re.findall(r"\{.*?\}", refuse(RefuseReason.UNKNOWN_START, STARTING))
    record = Record.from_value(json.loads(shown))

    assert decide(record, Attempt(2, 3, 2), StartPolicy(), request="r1", has_store=True) == TakeUp("ITS-ID")


def test_no_store() -> None:
    """Without a store, the reason is the Airflow that runs."""
    assert refuse(RefuseReason.NO_STORE, None, airflow="2.11.2", hub=None) == (
        "Not known whether an evaluation was started: an earlier attempt came before, and Airflow 2.11.2 keeps nothing "
        "from one attempt of this task to the next. No other evaluation is started, because each one costs money. Look "
        "for it in ox/customer-intents on the hub. To start a new one, clear the task."
    )


def test_not_found() -> None:
    """One that is gone is named, and how to start another."""
    assert refuse(RefuseReason.NOT_FOUND, STARTED) == (
        "Evaluation not found: attempt 1 at 2026-11-25T13:24:11+00:00 started e1 in ox/customer-intents, and the hub "
        "does not know it any more. No other evaluation is started, because each one costs money. To start one, delete "
        "'oxen_evaluation' from this task's state (tab Storage, Task State Store), then clear the task."
    )


def test_other_hub() -> None:
    """Both addresses are named, and what to do in each case; the record it shows makes the task wait."""
    text = describe_refusal(
        RefuseReason.OTHER_HUB, "ox", "r", STARTED, airflow="3.3.2", hub=PUBLIC, hub_now="http://localhost:3000"
    )

    assert text == (
        "Nothing was started: attempt 1 at 2026-11-25T13:24:11+00:00 started evaluation e1 at https://hub.oxen.ai, but "
        "the connection leads to http://localhost:3000 now. To wait for it, set the connection back and clear the "
        "task. If both are the same hub, set 'oxen_evaluation' in this task's state (tab Storage, Task State Store) to "
        '{"phase": "started", "evaluation_id": "e1"} and clear the task, keeping its state. To start a new one there, '
        "delete that entry, then clear the task."
    )
    record = Record.from_value(json.loads(text[text.index("{") : text.index("}") + 1]))
    decision = decide(record, Attempt(3, 4, 2), StartPolicy(), request="r1", has_store=True, hub=OTHER)
    assert decision == TakeUp("e1")


def test_unknown_start_of_this_attempt_where_a_retry_starts_again() -> None:
    """It does not say that no other one is started."""
    text = describe_unknown_start(
        "ox", "r", STARTING, "the connection was lost", has_store=True, hub=OTHER, starts_again=True
    )

    assert "A retry starts another one, because on_unknown_start='start_again' allows it. Look for it" in text
    assert "No other evaluation is started" not in text
    assert text.endswith(f"{GO_ON}clear the task.")


def test_killed_while_waiting() -> None:
    """A task that started it says that it costs money, and what its next attempt does."""
    assert describe_killed(REF, PUBLIC, started_here=True, is_recorded=True) == (
        "The evaluation is still running and costing money, although this task was stopped: evaluation e1 of "
        f"ox/customer-intents. Airflow cannot cancel it. Stop it on the hub (see {PAGE}/evaluations/e1). If this task "
        "was cleared, its next attempt waits for it, unless its arguments changed."
    )


def test_killed_while_only_waiting() -> None:
    """A task that waits for another one's evaluation says nothing of money."""
    assert describe_killed(REF, OTHER, started_here=False) == (
        "The evaluation is still running, although this task was stopped: evaluation e1 of ox/customer-intents. "
        "Airflow cannot cancel it. Stop it on the hub."
    )


@pytest.mark.parametrize(("certain", "runs"), [(True, "is still running"), (False, "may still be running")])
def test_left_running(certain: bool, runs: str) -> None:
    """A wait that ends before its evaluation says that this costs money, where to stop it, and who waits for it."""
    text = describe_left_running(REF, PUBLIC, is_certain=certain, is_recorded=True)

    assert text == (
        f"The evaluation {runs} and costing money, although this task no longer waits for it: evaluation e1 of "
        f"ox/customer-intents. Airflow cannot cancel it. Stop it on the hub (see {PAGE}/evaluations/e1). A retry of "
        "this task waits for it. So does a clear, unless the task's arguments change."
    )
    unrecorded = describe_left_running(REF, None, is_certain=certain, is_recorded=False)
    assert unrecorded.endswith("Airflow cannot cancel it. Stop it on the hub.")


def test_killed_while_starting() -> None:
    """A task that was stopped while it asked for one says the name to look for."""
    assert describe_killed_while_starting("ox", "customer-intents", "d.t r try 1", PUBLIC) == (
        "Not known whether an evaluation was started: this task was stopped while it asked for one (name "
        f"'d.t r try 1'). Look for it in ox/customer-intents on the hub (see {PAGE})."
    )
