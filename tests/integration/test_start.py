"""Starting at most once: the order of record and request, and what each response means, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import retries, start, start_store
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenNotFoundError,
    OxenPaymentRequiredError,
    OxenRateLimitError,
    OxenUnknownEffectError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.start import OxenStartFailedError, OxenStartUnknownError, Started, Starter
from airflow_provider_oxen.start_decision import StartPolicy
from airflow_provider_oxen.start_messages import RECORD_KEY
from airflow_provider_oxen.start_request import StartRequest
from airflow_provider_oxen.testing import AfterStart, Delay, Disconnect, Fault, LocalHub, Respond, Scenario, Trickle
from airflow_provider_oxen.wait import NOT_FOUND_SECONDS
from tests.support.airflow import (
    AIRFLOW_V_3_3_PLUS,
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
)
from tests.support.sockets import relay
from tests.support.starts import Died, FakeLog, FakeStore, StartingTaskInstance, settle, sleep, store_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_store = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="this Airflow has no task state store")

BODY = {
    "model_id": "m",
    "prompt": "Which? {text}",
    "target_column": "intent",
    "input_type": "text",
    "output_type": "text",
    "name": "d.label r try 1",
}
UNKNOWN = "Not known whether an evaluation was started: this attempt asked for one (name 'd.label r try 1')"


@dataclass
class Task:
    """A task that starts an evaluation. What it stores and the hub outlive its attempts."""

    store: FakeStore | None = None
    policy: StartPolicy = field(default_factory=StartPolicy)
    retry_window: timedelta | float = 0.0
    ti: StartingTaskInstance = field(default_factory=StartingTaskInstance)
    log: FakeLog = field(default_factory=FakeLog)
    body: dict[str, Any] = field(default_factory=lambda: dict(BODY))
    repo_name: str = "customer-intents"
    path: str = "data/customers.parquet"
    oxen_conn_id: str = "oxen_default"
    starter: Starter | None = None

    @property
    def context(self) -> Any:
        return {"ti": self.ti, "task_state_store": self.store}

    def start(self) -> Started:
        """Run an attempt, as far as the start."""
        self.starter = Starter(self, self.policy, retries=2)
        request = StartRequest("ox", self.repo_name, "main", self.path, self.body)
        return self.starter.start(self.context, request)

    def fail(self, kind: type[BaseException] = AirflowFailException) -> str:
        """Run an attempt that fails, in exactly this way."""
        with pytest.raises(kind) as caught:
            self.start()
        assert type(caught.value) is kind
        return str(caught.value)

    def retry(self, **changes: Any) -> None:
        """Go on to the next attempt."""
        self.ti.try_number += 1
        self._begin(**changes)

    def clear(self, **changes: Any) -> None:
        """Clear the task, as a person does."""
        self.ti.max_tries = self.ti.try_number + 2
        self.retry(**changes)

    def _begin(self, **changes: Any) -> None:
        self.ti.xcoms.clear()
        self.log.lines.clear()
        for name, value in changes.items():
            setattr(self, name, value)


@pytest.fixture(params=[pytest.param(True, marks=needs_store), False], ids=["store", "no store"])
def task(request: pytest.FixtureRequest, oxen_hub: LocalHub) -> Task:
    """A task of an Airflow with a store, and of one without."""
    oxen_hub.on_start = Scenario(seconds=60)
    return Task(FakeStore() if request.param else None)


@pytest.fixture
def stored(oxen_hub: LocalHub) -> Task:
    """A task of an Airflow with a store."""
    if not AIRFLOW_V_3_3_PLUS:
        pytest.skip("this Airflow has no task state store")
    oxen_hub.on_start = Scenario(seconds=60)
    return Task(FakeStore())


# The order


def test_evaluation_is_started(oxen_hub: LocalHub, task: Task) -> None:
    """One request starts it; it is returned as it was started, and the log has its id."""
    started = task.start()

    (at_hub,) = oxen_hub.started
    assert started.ref == EvaluationRef("ox", "customer-intents", at_hub.id)
    assert started.evaluation is not None
    assert started.evaluation.status == "queued"
    assert started.is_recorded is (task.store is not None)
    assert (at_hub.branch, at_hub.path, at_hub.body) == ("main", "data/customers.parquet", BODY)
    assert task.log.lines == [
        ("info", f"Evaluation started: evaluation {at_hub.id} of ox/customer-intents, name 'd.label r try 1'")
    ]
    assert len(oxen_hub.start_requests) == 1


def test_record_has_what_a_later_attempt_needs(oxen_hub: LocalHub, stored: Task) -> None:
    """The record names the evaluation, its repository, hub and attempt, and never expires."""
    from airflow.sdk import NEVER_EXPIRE

    started = stored.start()

    record = stored.store.record
    assert {**record, "request": None, "at": None} == {
        "version": 1,
        "phase": "started",
        "evaluation_id": started.ref.evaluation_id,
        "name": "d.label r try 1",
        "request": None,
        "hub": oxen_hub.url,
        "namespace": "ox",
        "repo_name": "customer-intents",
        "at": None,
        "try_number": 1,
        "max_tries": 2,
        "reported": False,
    }
    assert len(record["request"]) == 64
    assert stored.store.writes == ["set starting", "set started"]
    assert stored.store.retentions == [NEVER_EXPIRE, NEVER_EXPIRE]
    assert oxen_hub.api_key not in json.dumps(stored.store.entries)


def test_record_is_stored_between_the_connection_and_the_first_byte(
    stored: Task, set_connection: Callable[..., None]
) -> None:
    """``starting`` is stored once the hub has accepted the connection, and before the first byte arrives there."""
    events: list[str] = []

    def serve() -> None:
        connection, _ = listener.accept()
        events.append("accepted")
        accepted.set()
        connection.recv(1)
        events.append(f"byte, {stored.store.phase}")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = threading.Event()
        # The store is slow: bytes that did not wait for it would be there first.
        stored.store.plans["set"] = [lambda: (accepted.wait(5), time.sleep(0.2), events.append("store"))]
        server = threading.Thread(target=serve)
        server.start()
        set_connection(host=f"http://127.0.0.1:{listener.getsockname()[1]}")
        stored.fail()
        server.join()

    assert events == ["accepted", "store", "byte, starting"]
    assert stored.store.phase == "starting"


def test_id_is_logged_before_it_is_stored(stored: Task) -> None:
    """Whatever happens to the store, the id is in the log."""
    logged: list[int] = []
    stored.store.plans["set"] = [None, lambda: logged.append(len(stored.log.lines))]

    stored.start()

    assert logged == [1]


def test_request_is_refused_before_anything_is_stored(oxen_hub: LocalHub, task: Task) -> None:
    """What cannot be sent is a final failure in words, without a record and without a request."""
    task.path = "../secret"
    assert task.fail().startswith("Nothing was started: argument 'path': ")
    task.path, task.body["options"] = "a.csv", {1, object()}
    assert task.fail().startswith("Nothing was started: the request cannot be written as JSON (")

    assert task.store is None or task.store.calls == []
    assert oxen_hub.start_requests == []


# A store that fails


def test_store_that_cannot_be_read_starts_nothing(oxen_hub: LocalHub, stored: Task) -> None:
    """Without knowing what earlier attempts did, nothing is started, and the task may be retried."""
    stored.store.plans["get"] = [store_error(500)]

    assert stored.fail(OxenStartFailedError).startswith("Nothing was started: Airflow could not read what earlier")
    assert oxen_hub.start_requests == []


def test_store_that_cannot_be_written_starts_nothing(oxen_hub: LocalHub, stored: Task) -> None:
    """Where ``starting`` cannot be stored, no byte is sent, and the task may be retried."""
    stored.store.plans["set"] = [store_error(500)]

    text = stored.fail(OxenStartFailedError)

    assert text.startswith("Nothing was started: Airflow could not store the record of the start (")
    assert oxen_hub.start_requests == []
    assert stored.store.record is None
    stored.retry()
    assert stored.start().evaluation is not None
    assert len(oxen_hub.started) == 1


def test_record_that_was_stored_although_airflow_failed_is_removed(oxen_hub: LocalHub, stored: Task) -> None:
    """Airflow may store the record and then fail to say so: nothing was sent, so the next attempt starts one."""
    stored.store.plans["set"] = [lambda: _store_and_raise(stored.store)]

    stored.fail(OxenStartFailedError)

    assert stored.store.record is None
    stored.retry()
    stored.start()
    assert len(oxen_hub.start_requests) == 1


def _store_and_raise(store: FakeStore) -> None:
    store.record = store.pending
    raise store_error(None)


def test_attempt_that_was_replaced_starts_nothing(oxen_hub: LocalHub, stored: Task) -> None:
    """Airflow refuses the write of an attempt that it has replaced: a final failure, and the record is let alone."""
    stored.store.plans["set"] = [store_error(404)]

    assert stored.fail() == "Nothing was started: Airflow has replaced this attempt with a later one."
    assert oxen_hub.start_requests == []
    assert stored.store.writes == []


class Clock:
    """The two clocks of a machine, which a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steady, self.wall = 0.0, 1_800_000_000.0
        clock = SimpleNamespace(monotonic=lambda: self.steady, time=lambda: self.wall)
        monkeypatch.setattr(start_store, "time", clock)

    def move(self, seconds: float, *, wall: float | None = None) -> Callable[[], None]:
        def act() -> None:
            self.steady += seconds
            self.wall += seconds if wall is None else wall

        return act


@pytest.mark.parametrize(
    ("steady", "wall"),
    [(6, 6), (0, 600), (6, -3600), (0, 3600)],
    ids=["slow", "suspended machine", "clock set back", "clock set forward"],
)
def test_slow_store_is_written_again(
    oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch, steady: float, wall: float
) -> None:
    """A process that may have been frozen while it stored the record, by either clock, stores it once more."""
    clock = Clock(monkeypatch)
    stored.store.plans["set"] = [clock.move(steady, wall=wall), clock.move(4)]

    stored.start()

    assert stored.store.writes == ["set starting", "set starting", "set started"]
    assert len(oxen_hub.started) == 1


def test_freeze_before_the_write_counts(oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time counts from the look at the record that comes right before the write."""
    clock = Clock(monkeypatch)
    stored.store.plans["get"] = [None, clock.move(600)]

    stored.start()

    assert stored.store.writes == ["set starting", "set starting", "set started"]
    assert len(oxen_hub.started) == 1


def test_frozen_attempt_that_was_replaced_starts_nothing(
    oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Airflow replaced the attempt while it was frozen, the second write finds out."""
    clock = Clock(monkeypatch)
    stored.store.plans["set"] = [clock.move(0, wall=600), store_error(404)]

    assert "Airflow has replaced this attempt" in stored.fail()
    assert oxen_hub.start_requests == []


# A record that someone else has changed

CHANGED = "the record of the start was changed since this attempt read it"


def _of_another_attempt(store: FakeStore, **fields: Any) -> Callable[[], None]:
    """Let another attempt of the task, which Airflow runs beside this one, store its record."""

    def act() -> None:
        record = {"version": 1, "phase": "starting", "at": "2026-11-25T10:00:00+00:00", "try_number": 7, "max_tries": 2}
        store.record = record | fields

    return act


@pytest.mark.parametrize("fields", [{}, {"phase": "started", "evaluation_id": "e7"}], ids=["starting", "started"])
@pytest.mark.parametrize("lease", [False, True], ids=["first write", "second write"])
def test_record_of_another_attempt_is_found_before_the_request(
    oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], lease: bool
) -> None:
    """A record that was not there at the decision is let alone, and nothing is sent."""
    clock = Clock(monkeypatch)
    other = _of_another_attempt(stored.store, **fields)
    stored.store.plans["set"] = [clock.move(600)]
    stored.store.plans["get"] = [None, None, other] if lease else [None, other]

    assert stored.fail() == f"Nothing was started: {CHANGED}."

    assert stored.store.record["try_number"] == 7
    assert stored.store.writes == (["set starting"] if lease else [])
    settle(oxen_hub)
    assert oxen_hub.start_requests == []


@pytest.mark.parametrize("change", ["removed", "edited"])
def test_record_that_was_changed_since_the_decision_starts_nothing(
    oxen_hub: LocalHub, stored: Task, change: str
) -> None:
    """So is one that was removed or edited after this attempt read it."""
    stored.start()
    stored.clear(body={**BODY, "prompt": "Another?"})

    def act() -> None:
        stored.store.record = None if change == "removed" else stored.store.record | {"evaluation_id": "e7"}

    stored.store.plans["get"] = [None, act]

    assert stored.fail() == f"Nothing was started: {CHANGED}."
    assert len(oxen_hub.start_requests) == 1


def test_id_does_not_replace_the_record_of_another_attempt(oxen_hub: LocalHub, stored: Task) -> None:
    """What was started meanwhile is in the log alone, and the record of the other attempt stays."""
    stored.store.plans["get"] = [None, None, _of_another_attempt(stored.store)]

    started = stored.start()

    assert not started.is_recorded
    assert stored.store.record["try_number"] == 7
    assert CHANGED in stored.log.warnings[0]
    assert oxen_hub.started[0].id in stored.log.lines[0][1]
    # Nor when the task is resumed.
    assert not Starter(stored, stored.policy, retries=2).complete_record(stored.context, started.ref)
    assert stored.store.record["try_number"] == 7


@pytest.mark.parametrize("change", ["removed", "reported"])
def test_id_is_stored_where_only_this_start_is_concerned(stored: Task, change: str) -> None:
    """A record that is gone, or that a refusal of a later attempt has marked, gets the id: it would be lost."""

    def act() -> None:
        stored.store.record = None if change == "removed" else stored.store.record | {"reported": True, "max_tries": 5}

    stored.store.plans["get"] = [None, None, act]

    started = stored.start()

    assert started.is_recorded
    assert stored.store.record["evaluation_id"] == started.ref.evaluation_id


def test_refused_request_does_not_remove_the_record_of_another_attempt(oxen_hub: LocalHub, stored: Task) -> None:
    """Nothing was started here, which says nothing about the other attempt."""
    oxen_hub.out_of_credits = True
    stored.store.plans["get"] = [None, None, _of_another_attempt(stored.store)]

    stored.fail()

    assert stored.store.record["try_number"] == 7


def test_store_that_stays_slow_starts_nothing(
    oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is slow each time is given up after a few tries, and the record goes."""
    clock = Clock(monkeypatch)
    stored.store.plans["set"] = [clock.move(6)] * 9

    text = stored.fail(OxenStartFailedError)

    assert "Airflow took longer than 5 s to store the record of the start" in text
    assert stored.store.writes == [*["set starting"] * 3, "delete"]
    assert oxen_hub.start_requests == []


@pytest.mark.alone
def test_late_write_of_a_slow_store_undoes_nothing(
    oxen_hub: LocalHub, stored: Task, set_connection: Callable[..., None]
) -> None:
    """A write that is still under way when the request is given up ends before anything else is written."""
    set_connection(extra={"timeout": 0.3})
    stored.retry_window = 30
    stored.store.plans["set"] = [sleep(0.8)]

    stored.start()

    assert stored.store.writes == ["set starting", "delete", "set starting", "set started"]
    assert stored.store.phase == "started"
    assert len(oxen_hub.start_requests) == 1


def test_wait_goes_on_where_the_id_cannot_be_stored(oxen_hub: LocalHub, stored: Task) -> None:
    """The id is in the log and is returned; the record is completed when the task is resumed."""
    stored.store.plans["set"] = [None, store_error(500)]

    started = stored.start()

    (line, warning) = stored.log.lines
    assert not started.is_recorded
    assert started.ref.evaluation_id in line[1]
    assert warning[1].startswith("The id of the evaluation could not be stored, but is in this log: ")
    assert stored.store.phase == "starting"
    stored.store.record = {**stored.store.record, "reported": True}  # by an attempt that Airflow ran beside this one
    Starter(stored, stored.policy, retries=2).complete_record(stored.context, started.ref)
    assert (stored.store.phase, stored.store.record["reported"]) == ("started", False)  # else it is a person's
    stored.retry()
    assert stored.start().ref == started.ref
    assert len(oxen_hub.start_requests) == 1


def test_record_is_completed_only_where_it_is_not(stored: Task) -> None:
    """A record with an id stays as it is; where there is none, none is made; and a failure is only warned of."""
    starter, ref = Starter(stored, stored.policy, retries=2), EvaluationRef("ox", "r", "other")
    starter.complete_record(stored.context, ref)
    assert stored.store.record is None
    stored.start()
    before = dict(stored.store.record)
    starter.complete_record(stored.context, ref)
    assert stored.store.record == before
    stored.store.plans["get"] = [store_error(500)]
    starter.complete_record(stored.context, ref)
    assert stored.log.warnings[-1].startswith("The id of the evaluation could not be stored: ")


def test_record_that_cannot_be_removed_is_warned_of(oxen_hub: LocalHub, stored: Task) -> None:
    """A record that stays although nothing was started makes later attempts refuse, so the log says it."""
    oxen_hub.out_of_credits = True
    stored.store.plans["delete"] = [store_error(500)]

    stored.fail()

    assert stored.log.warnings[0].startswith("The record of the start could not be removed, although nothing was ")


# Not sent


@pytest.fixture(params=["refused", "not resolved"])
def no_hub(
    request: pytest.FixtureRequest, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the connection lead nowhere, as no hub listens, or as no resolver responds."""

    known = socket.getaddrinfo

    def fails(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "no-such-hub.invalid":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    set_connection(host=f"http://127.0.0.1:{port}" if request.param == "refused" else "http://no-such-hub.invalid")


@pytest.mark.usefixtures("no_hub")
def test_no_connection_leaves_no_record(task: Task) -> None:
    """What was not sent leaves no record. With a store it may be retried; without one a retry could only refuse."""
    text = task.fail(OxenStartFailedError if task.store else AirflowFailException)

    assert text.startswith("Nothing was started within retry_window: not sent: ")
    assert task.store is None or task.store.writes == []


@pytest.mark.parametrize(
    "policy", [StartPolicy(durable=False), StartPolicy(on_unknown_start="start_again")], ids=["not durable", "again"]
)
@pytest.mark.usefixtures("no_hub")
def test_no_connection_may_be_retried_where_a_retry_starts(task: Task, policy: StartPolicy) -> None:
    """Where the next attempt starts one anyway, there is no reason to fail for good."""
    task.policy = policy

    task.fail(OxenStartFailedError)


def test_no_connection_is_tried_again_within_retry_window(
    oxen_hub: LocalHub, task: Task, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within ``retry_window``, the request is tried again, with the next connection's settings."""
    good = oxen_hub.url
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    set_connection(host=f"http://127.0.0.1:{port}")
    forwarder: list[socket.socket] = []
    task.retry_window = timedelta(seconds=30)  # as a cluster policy may set it
    naps: list[float] = []

    def come_back(seconds: float) -> None:
        naps.append(seconds)
        forwarder.append(_forward(port, int(good.rpartition(":")[2])))

    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=time.monotonic, sleep=come_back))
    try:
        task.start()
    finally:
        for listener in forwarder:
            listener.close()

    assert len(oxen_hub.started) == 1
    assert len(naps) == 1
    assert 1 <= naps[0] <= 2
    assert task.log.warnings[0].startswith("Nothing was started, next try in ")


def _forward(port: int, target: int) -> socket.socket:
    """Forward one connection."""
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        client, _ = listener.accept()
        with client, socket.create_connection(("127.0.0.1", target)) as hub:
            relay(client, hub)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_rate_limit_is_waited_for(oxen_hub: LocalHub, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 started nothing: after ``Retry-After``, the request is sent again, and one evaluation is started."""
    oxen_hub.start_faults = [Fault(Respond(429, headers={"Retry-After": "7"}), count=1)]
    task.retry_window = 30
    naps: list[tuple[float, Any]] = []

    def nap(seconds: float) -> None:
        naps.append((seconds, task.store.record if task.store else None, task.starter.sending))

    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=time.monotonic, sleep=nap))

    task.start()

    assert naps == [(7.0, None, None)]  # without a record, and nothing under way
    assert len(oxen_hub.start_requests) == 2
    assert len(oxen_hub.started) == 1
    assert task.log.warnings[0].startswith("Nothing was started, next try in 7 s: 429: too many requests")


def test_rate_limit_beyond_retry_window_ends_the_attempt(oxen_hub: LocalHub, task: Task) -> None:
    """A pause that is longer than ``retry_window`` is not waited for on the worker."""
    oxen_hub.start_faults = [Fault(Respond(429, headers={"Retry-After": "600"}))]
    task.retry_window = 30

    text = task.fail(OxenStartFailedError if task.store else AirflowFailException)

    assert text.startswith("Nothing was started within retry_window: 429: too many requests, asked to wait 600 s")
    assert task.store is None or task.store.record is None


# Refused


REFUSALS = [
    (400, "400: the hub refuses the request. Check namespace, repo_name, branch and path, and the fields"),
    (401, "401: the API key is not accepted"),
    (402, "402: the account has no credits left"),
    (403, "403: the API key is missing or may not see this"),
    (404, "404: not found. Check namespace, repo_name, branch and path"),
    (409, "409: the hub refuses the request"),
    (422, "422: the hub refuses the request"),
    (301, "301: a redirect to "),
    (307, "307: a redirect to "),
]


@pytest.mark.parametrize(("code", "problem"), REFUSALS)
def test_refusal_is_final_and_leaves_no_record(oxen_hub: LocalHub, task: Task, code: int, problem: str) -> None:
    """What the hub refuses started nothing: the task fails for good, in the hub's words, and the record goes."""
    body = json.dumps({"status": "error", "error": {"title": "No, not so", "detail": None}}).encode()
    oxen_hub.start_faults = [Fault(Respond(code, body, {"Location": f"{oxen_hub.url}/elsewhere"}))]
    task.retry_window = 30

    text = task.fail()

    assert text.startswith(f"Nothing was started: {problem}")
    assert "The hub says: No, not so (POST " in text
    assert oxen_hub.api_key not in text
    assert len(oxen_hub.start_requests) == 1
    assert task.store is None or task.store.writes == ["set starting", "delete"]


@pytest.mark.parametrize("code", [301, 302, 307, 308, 401, 404, 405, 407])
def test_response_of_something_that_passes_nothing_on_is_a_refusal(oxen_hub: LocalHub, task: Task, code: int) -> None:
    """A login page, or a server that is not the hub, has started nothing: a wrong host is no reason for doubt."""
    headers = {"Content-Type": "text/html", "Location": "https://login.example/?next=/"}
    oxen_hub.start_faults = [Fault(Respond(code, b"<html>Log in</html>", headers))]

    assert task.fail().startswith(f"Nothing was started: {code}: ")
    assert task.store is None or task.store.record is None


@pytest.mark.parametrize("code", [300, 303, 400, 402, 403, 409, 410, 422, 451])
def test_response_of_something_in_front_of_the_hub_leaves_it_open(oxen_hub: LocalHub, task: Task, code: int) -> None:
    """A gateway may have replaced the hub's response after the hub did its work."""
    oxen_hub.start_faults = [Fault(AfterStart(Respond(code, b"<html>No</html>", {"Content-Type": "text/html"})))]

    text = task.fail()

    assert text.startswith(f"{UNKNOWN}, and no usable response came: {code}")
    assert task.store is None or task.store.record["reported"]
    task.retry()
    task.fail()
    assert len(oxen_hub.started) == 1


@pytest.mark.parametrize("body", [b"<html>Slow down</html>", b'{"message": "slow down"}'], ids=["html", "json"])
def test_rate_limit_of_something_in_front_of_the_hub_leaves_it_open(
    oxen_hub: LocalHub, task: Task, body: bytes
) -> None:
    """It may have counted the request after it passed it on, so the request is not sent again."""
    oxen_hub.start_faults = [Fault(AfterStart(Respond(429, body)), count=1)]
    task.retry_window = 30

    assert task.fail().startswith(f"{UNKNOWN}, and no usable response came: 429, but not from the hub: ")

    assert len(oxen_hub.start_requests) == 1


def test_refusals_of_the_hub_itself_are_shown(oxen_hub: LocalHub, task: Task) -> None:
    """Which field is wrong, and that the credits are used up, are in the message."""
    del task.body["target_column"]
    assert "target_column" in task.fail()
    task.body["target_column"], oxen_hub.out_of_credits = "intent", True
    assert "402: the account has no credits left. Add credits on Oxen.ai. The hub says: " in task.fail()
    assert oxen_hub.started == []


def test_refused_request_puts_the_earlier_record_back(oxen_hub: LocalHub, stored: Task) -> None:
    """Where nothing was started, a cleared task's earlier evaluation is not forgotten."""
    first = stored.start()
    before = dict(stored.store.record)
    stored.clear(body={**stored.body, "prompt": "Another?"})
    oxen_hub.out_of_credits = True

    stored.fail()

    assert stored.store.record == before
    stored.clear(body=dict(BODY))
    assert stored.start().ref == first.ref
    assert len(oxen_hub.started) == 1


def test_rotated_key_is_used(oxen_hub: LocalHub, task: Task, set_connection: Callable[..., None]) -> None:
    """A key that was refused and is another one by now is used: one evaluation, with the new key."""
    oxen_hub.start_faults = [Fault(_Rotate(oxen_hub, set_connection), count=1)]

    task.start()

    assert [request.headers["authorization"] for request in oxen_hub.start_requests] == [
        "Bearer local-hub-key",
        "Bearer a-rotated-key",
    ]
    assert len(oxen_hub.started) == 1
    assert task.store is None or task.store.writes == ["set starting", "set starting", "set started"]


@dataclass
class _Rotate:
    hub: LocalHub
    set_connection: Callable[..., None]

    async def act(self, exchange: Any) -> Any:
        self.hub.api_key = "a-rotated-key"
        self.set_connection(password="a-rotated-key")  # of a test
        return await exchange.proceed()


# Not known


UNKNOWN_RESPONSES = {
    "500": Respond(500),
    "502": Respond(502, b"<html>Bad gateway</html>", {"Content-Type": "text/html"}),
    "503": Respond(503, headers={"Retry-After": "1"}),
    "408": Respond(408),
    "201": Respond(201),
    "HTML": Respond(200, b"<html>Welcome</html>", {"Content-Type": "text/html"}),
    "error in 200": Respond(200, b'{"status": "error"}'),
    "other JSON": Respond(200, b'{"status": "success"}'),
    "closed": Disconnect(),
    "reset": Disconnect(reset=True),
    "cut off": Disconnect("middle"),
    "cut off by a reset": Disconnect("middle", reset=True),
    "500 after the start": AfterStart(Respond(500)),
    "reset after the start": AfterStart(Disconnect(reset=True)),
    "HTML after the start": AfterStart(Respond(200, b"<html>Welcome</html>", {"Content-Type": "text/html"})),
    "too late": Delay(2.0),
    "trickle": Trickle(0.1),
}


@pytest.mark.parametrize("effect", UNKNOWN_RESPONSES.values(), ids=list(UNKNOWN_RESPONSES))
@pytest.mark.alone
def test_lost_response_is_final_and_keeps_the_record(
    oxen_hub: LocalHub, task: Task, effect: Any, set_connection: Callable[..., None]
) -> None:
    """Where it is not known whether one was started, the task fails for good, and no later attempt starts another."""
    set_connection(extra={"timeout": 0.6})
    oxen_hub.start_faults = [Fault(effect)]
    task.retry_window = 30

    text = task.fail()

    assert text.startswith(f"{UNKNOWN}, and no usable response came: ")
    assert "No other evaluation is started, because each one costs money." in text
    assert oxen_hub.api_key not in text
    assert task.store is None or (task.store.writes, task.store.phase) == (["set starting"] * 2, "starting")
    task.retry()
    assert task.fail().startswith("Not known whether an evaluation was started: ")
    assert len(oxen_hub.start_requests) == 1


def test_lost_one_is_taken_up_as_the_message_says(oxen_hub: LocalHub, stored: Task) -> None:
    """A person finds the id, writes the record that the message shows, and clears the task: it is waited for."""
    oxen_hub.start_faults = [Fault(Disconnect("middle"), count=1)]
    text = stored.fail()
    (found,) = oxen_hub.started
    stored.store.record = json.loads(text[text.index("{") : text.index("}") + 1].replace("ITS-ID", found.id))
    stored.clear()

    assert stored.start() == Started(EvaluationRef("ox", "customer-intents", found.id), None, is_recorded=True)
    assert len(oxen_hub.start_requests) == 1
    # From now on it is as if the task had started it itself.
    stored.retry()
    assert stored.start().ref.evaluation_id == found.id
    oxen_hub.add_evaluation(found.id, end="errored", seconds=0)
    stored.clear()
    assert stored.start().ref.evaluation_id != found.id
    assert len(oxen_hub.started) == 2


@pytest.mark.parametrize(("on_clear", "end"), [("start_again", "completed"), ("resume", "errored")])
def test_entry_that_was_edited_in_place_is_taken_up_at_the_next_clear(
    oxen_hub: LocalHub, stored: Task, on_clear: Any, end: Any
) -> None:
    """A person changes phase and id alone: the next clear waits for it, and the one after it may start another."""
    stored.policy = StartPolicy(on_clear=on_clear)
    oxen_hub.on_start = Scenario(seconds=0, end=end)
    oxen_hub.start_faults = [Fault(AfterStart(Disconnect(reset=True)), count=1)]
    stored.fail()
    (found,) = oxen_hub.started
    stored.store.record = {**stored.store.record, "phase": "started", "evaluation_id": found.id}
    stored.clear()
    assert stored.start().ref.evaluation_id == found.id
    assert len(oxen_hub.started) == 1
    stored.clear()
    stored.start()
    assert len(oxen_hub.started) == 2


def test_lost_one_is_taken_up_where_it_is(oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the repository of the lost one, also where the arguments name another one by now."""
    _die_sending(stored, monkeypatch)
    stored.retry(repo_name="other")
    text = stored.fail()
    (found,) = oxen_hub.started
    stored.store.record = json.loads(text[text.index("{") : text.index("}") + 1].replace("ITS-ID", found.id))
    stored.clear()

    assert "Look for it in ox/customer-intents on the hub" in text
    assert stored.start().ref == EvaluationRef("ox", "customer-intents", found.id)


def test_failure_that_says_what_to_do_is_noted(oxen_hub: LocalHub, stored: Task) -> None:
    """An attempt that says that it is not known notes that, and a person who clears the task then starts another."""
    oxen_hub.start_faults = [Fault(Disconnect("middle"), count=1)]
    stored.fail()
    assert stored.store.record["reported"] is True
    stored.clear()

    assert stored.start().evaluation is not None
    assert len(oxen_hub.started) == 2
    assert stored.log.warnings[0].startswith("A second evaluation is started: ")


def _die_sending(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process of an attempt die after the request is sent."""
    with monkeypatch.context() as patch:
        patch.setattr(start_store.Ledger, "complete", lambda *_: (_ for _ in ()).throw(Died()))
        with pytest.raises(Died):
            task.start()


def test_clear_before_anything_was_said_is_refused_once(
    oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who cleared the task while the request was out is told first; the next clear starts another one."""
    _die_sending(stored, monkeypatch)
    stored.clear()

    assert stored.fail().startswith("Not known whether an evaluation was started: attempt 1 at ")
    assert stored.store.record["reported"] is True
    stored.retry()  # Airflow may run it once more
    assert stored.fail().startswith("Not known whether an evaluation was started: attempt 1 at ")
    assert len(oxen_hub.started) == 1
    stored.clear()

    assert stored.start().evaluation is not None
    assert len(oxen_hub.started) == 2


def test_refusal_of_a_retry_counts_as_said(oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry has said what to do, so the first clear after it starts another one."""
    _die_sending(stored, monkeypatch)
    stored.retry()
    stored.fail()
    stored.clear()

    assert stored.start().evaluation is not None
    assert len(oxen_hub.started) == 2


def test_refusal_that_cannot_be_noted_is_said_again(
    oxen_hub: LocalHub, stored: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the note fails, the failure is the same, and the next clear is refused once more."""
    _die_sending(stored, monkeypatch)
    stored.clear()
    stored.store.plans["set"] = [store_error(500)]
    stored.fail()
    assert stored.log.warnings[0].startswith("The record of the start could not be updated: ")
    stored.clear()

    stored.fail()

    assert len(oxen_hub.started) == 1


def test_stop_while_the_response_is_out_counts_as_nothing_said(oxen_hub: LocalHub, stored: Task) -> None:
    """A clear may be what stops the task: what the log says then comes after it, so the next attempt says it first."""

    def stop(_: Any) -> Scenario:
        stored.starter.stop(is_recorded=False)
        return Scenario(seconds=60)

    oxen_hub.on_start = stop
    oxen_hub.start_faults = [Fault(AfterStart(Disconnect()), count=1)]
    stored.fail()
    assert stored.store.record["reported"] is False
    stored.clear()

    stored.fail()

    assert len(oxen_hub.started) == 1


def test_record_that_a_person_wrote_is_left_for_them_to_look_at(oxen_hub: LocalHub, stored: Task) -> None:
    """What cannot be understood is refused, and not overwritten."""
    stored.store.record = written = {"phase": "Started", "evaluation_id": "e1"}

    assert "the entry 'oxen_evaluation' cannot be understood: its phase is 'Started'" in stored.fail()
    assert "delete that entry, then clear the task" in stored.fail()
    assert stored.store.record == written
    assert oxen_hub.start_requests == []


@pytest.mark.parametrize("way", ["lost", "execution timeout"])
def test_lost_response_may_be_retried_where_a_retry_starts_again(
    oxen_hub: LocalHub, task: Task, way: str, ring: Callable[[], None]
) -> None:
    """``on_unknown_start="start_again"`` holds for an attempt's own lost response: ``retries`` apply."""
    task.policy = StartPolicy(on_unknown_start="start_again")
    oxen_hub.start_faults = [Fault(AfterStart(Disconnect()) if way == "lost" else _Act(ring), count=1)]

    text = task.fail(OxenStartUnknownError)

    assert text.startswith(f"{UNKNOWN}, and no usable response came: ")
    assert "A retry starts another one, because on_unknown_start='start_again' allows it." in text
    settle(oxen_hub)
    task.retry()
    assert task.start().evaluation is not None
    assert len(oxen_hub.start_requests) == 2


def test_execution_timeout_while_the_response_is_out(oxen_hub: LocalHub, task: Task, ring: Callable[[], None]) -> None:
    """Airflow's timer may go off while the hub works: not known, for good, and nothing is sent later."""
    oxen_hub.start_faults = [Fault(_Act(ring))]

    text = task.fail()

    assert f"{UNKNOWN}, and no usable response came: execution_timeout ended the task before the hub" in text
    assert len(oxen_hub.start_requests) == 1
    assert task.store is None or task.store.phase == "starting"


def test_execution_timeout_before_the_request_sends_nothing(
    oxen_hub: LocalHub, stored: Task, ring: Callable[[], None]
) -> None:
    """A timer that goes off while the record is stored ends the task, and no byte is sent afterwards."""
    stored.store.plans["set"] = [lambda: (ring(), time.sleep(0.3))]

    stored.fail(AirflowTaskTimeout)

    _join_requests()
    assert stored.store.phase == "starting"
    assert oxen_hub.start_requests == []


@dataclass
class _Act:
    """Do something when the request has arrived, and respond late."""

    what: Callable[[], None]

    async def act(self, exchange: Any) -> Any:
        self.what()
        await asyncio.sleep(1)
        return await exchange.proceed()


@pytest.fixture
def ring() -> Iterator[Callable[[], None]]:
    """Raise in the main thread what Airflow's ``execution_timeout`` raises there."""

    def raise_timeout(*_: object) -> None:
        raise AirflowTaskTimeout

    before = signal.signal(signal.SIGALRM, raise_timeout)
    yield lambda: os.kill(os.getpid(), signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


# Later attempts


def test_retry_takes_up_the_evaluation(oxen_hub: LocalHub, stored: Task) -> None:
    """A retry waits for what the first attempt started, and says so."""
    first = stored.start()
    stored.retry()

    assert stored.start() == Started(first.ref, None, is_recorded=True)
    (level, line), *more = stored.log.lines
    assert (level, more) == ("info", [])
    assert line.startswith("No new evaluation: waiting for the one that attempt 1 at 2")
    assert stored.starter.started == first.ref
    assert stored.starter.hub == oxen_hub.url
    assert stored.store.writes == ["set starting", "set started"]


def test_retry_with_other_arguments_takes_up_the_evaluation_where_it_is(oxen_hub: LocalHub, stored: Task) -> None:
    """A retry whose templates give another repository waits for the one that runs, in its repository, and warns."""
    first = stored.start()
    stored.retry(repo_name="other")

    assert stored.start().ref == first.ref
    assert stored.log.warnings[0].endswith("clear the task to start one with the new ones.")
    assert len(oxen_hub.started) == 1


def test_attempts_differ_by_name_alone_and_are_the_same_request(stored: Task) -> None:
    """The name says the attempt, so it is no change of the arguments."""
    stored.start()
    stored.retry(body={**BODY, "name": "d.label r try 2", "commit_message": "try 2"})

    stored.start()

    assert stored.log.warnings == []


@pytest.mark.parametrize(("on_clear", "started"), [("resume", 1), ("start_again", 2)])
def test_clear_of_a_completed_evaluation(oxen_hub: LocalHub, stored: Task, on_clear: Any, started: int) -> None:
    """``resume`` gives the evaluation that completed; ``start_again`` starts another one."""
    stored.policy = StartPolicy(on_clear=on_clear)
    oxen_hub.on_start = Scenario(seconds=0)
    stored.start()
    stored.clear()

    stored.start()

    assert len(oxen_hub.started) == started
    assert stored.log.warnings == []


@pytest.mark.parametrize("on_clear", ["resume", "start_again"])
def test_clear_of_a_running_evaluation_takes_it_up(oxen_hub: LocalHub, stored: Task, on_clear: Any) -> None:
    """Two at once are never meant. The attempts after it wait for the same one, even when it has ended meanwhile."""
    stored.policy = StartPolicy(on_clear=on_clear)
    first = stored.start()
    stored.clear()
    assert stored.start().ref == first.ref
    oxen_hub.add_evaluation(first.ref.evaluation_id, end="errored", seconds=0)
    stored.retry()

    assert stored.start().ref == first.ref
    assert len(oxen_hub.started) == 1


@pytest.mark.parametrize("on_clear", ["resume", "start_again"])
@pytest.mark.parametrize("end", ["errored", "cancelled"])
def test_clear_of_a_failed_evaluation_starts_another(oxen_hub: LocalHub, stored: Task, on_clear: Any, end: Any) -> None:
    """A person who clears a failure wants another one; a retry does not."""
    stored.policy = StartPolicy(on_clear=on_clear)
    oxen_hub.on_start = Scenario(end=end, seconds=0)
    stored.start()
    stored.retry()
    stored.start()
    assert len(oxen_hub.started) == 1
    stored.clear()

    stored.start()

    assert len(oxen_hub.started) == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the sleeps of a start take no time, and collect them."""
    naps: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(naps), sleep=naps.append)
    monkeypatch.setattr(start, "time", clock)
    return naps


@pytest.mark.parametrize("on_clear", ["resume", "start_again"])
def test_evaluation_that_lags_is_polled_again_after_a_clear(
    oxen_hub: LocalHub, stored: Task, quick: list[float], on_clear: Any
) -> None:
    """One that the hub does not know for a moment is not gone: no second one is started."""
    not_found = Respond(404, b'{"status": "error", "status_message": "resource_not_found"}')
    oxen_hub.on_start = Scenario(seconds=600, faults=[Fault(not_found, count=2)])
    stored.policy = StartPolicy(on_clear=on_clear)
    first = stored.start()
    stored.clear()

    assert stored.start().ref == first.ref

    assert len(oxen_hub.start_requests) == 1
    assert quick == [5.0, 5.0]
    (warning,) = stored.log.warnings
    assert warning.startswith("Polled for 30 s more: 404: not found.")


def test_clear_of_an_evaluation_that_is_gone(oxen_hub: LocalHub, stored: Task, quick: list[float]) -> None:
    """Where the hub does not know it any more, ``resume`` refuses in words, and ``start_again`` starts another."""
    first = stored.start()
    oxen_hub.remove_evaluation(first.ref.evaluation_id)
    stored.clear()
    assert stored.fail().startswith(f"Evaluation not found: attempt 1 at {stored.store.record['at']} started ")
    assert sum(quick) == NOT_FOUND_SECONDS
    stored.clear(policy=StartPolicy(on_clear="start_again"))

    stored.start()

    assert len(oxen_hub.started) == 2


@pytest.mark.parametrize("cleared", [False, True], ids=["retry", "clear"])
def test_evaluation_of_another_hub_is_not_polled(
    oxen_hub: LocalHub, stored: Task, set_connection: Callable[..., None], cleared: bool
) -> None:
    """Where the connection leads to another hub, both addresses are named; once it is set back, the wait goes on."""
    first = stored.start()
    with LocalHub(api_key=oxen_hub.api_key) as other:
        set_connection(host=other.url)
        stored.clear() if cleared else stored.retry()

        text = stored.fail()

        assert f"started evaluation {first.ref.evaluation_id} at {oxen_hub.url}, but the connection leads to " in text
        assert f"leads to {other.url} now. To wait for it, set the connection back and clear the task." in text
        assert other.requests == []
        assert oxen_hub.requests_for(first.ref.evaluation_id) == 0
        set_connection()
        stored.clear()
        assert stored.start().ref == first.ref
        assert len(oxen_hub.start_requests) == 1

        set_connection(host=other.url)
        stored.store.delete(RECORD_KEY)
        stored.clear()
        stored.start()
        assert len(other.started) == 1


def test_hub_of_a_record_written_by_hand_is_stored(
    oxen_hub: LocalHub, stored: Task, set_connection: Callable[..., None]
) -> None:
    """The person meant the hub to which the connection leads; from then on, no other one is polled."""
    stored.store.record = {"phase": "started", "evaluation_id": "e1"}
    stored.start()
    assert stored.store.record["hub"] == oxen_hub.url
    set_connection(host="http://localhost:1")
    stored.retry()

    assert "but the connection leads to http://localhost:1 now" in stored.fail()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ConnectionError("no"), OxenStartFailedError), (AirflowNotFoundException("no"), AirflowFailException)],
    ids=["look-up fails", "no connection"],
)
def test_evaluation_is_not_taken_up_without_a_connection(
    stored: Task, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    """Where the connection cannot be read, it is not known where the id would be used."""
    first = stored.start()
    stored.retry()

    def fails(*_: object) -> Any:
        raise error

    monkeypatch.setattr(OxenHook, "get_connection", fails)

    assert stored.fail(kind).endswith(f", the earlier {first.ref}")


def test_clear_with_other_arguments_starts_another_and_warns(oxen_hub: LocalHub, stored: Task) -> None:
    """Other arguments after a clear ask for another evaluation; the first one may still run and cost money."""
    stored.start()
    stored.clear(body={**BODY, "prompt": "Another?"})

    stored.start()

    assert len(oxen_hub.started) == 2
    (warning,) = stored.log.warnings
    assert warning == (
        "A second evaluation is started: one that an earlier attempt may have started may still run, and both cost "
        "money."
    )


@pytest.mark.parametrize(
    ("response", "kind"), [(Respond(503), OxenStartFailedError), (Respond(401), AirflowFailException)]
)
def test_evaluation_that_cannot_be_checked_after_a_clear(
    oxen_hub: LocalHub, stored: Task, response: Any, kind: type[AirflowException]
) -> None:
    """Where the earlier evaluation cannot be polled, nothing is started."""
    oxen_hub.on_start = Scenario(seconds=60, faults=(Fault(response),))
    first = stored.start()
    stored.clear()

    text = stored.fail(kind)

    assert text.startswith(f"Nothing was started: {response.status_code}: ")
    assert text.endswith(f", the earlier {first.ref}")
    assert len(oxen_hub.start_requests) == 1


def test_replaced_attempt_takes_nothing_up_after_a_clear(oxen_hub: LocalHub, stored: Task) -> None:
    """An attempt that was replaced while it polled the earlier evaluation ends."""
    stored.start()
    stored.clear()
    stored.store.plans["set"] = [store_error(404)]

    assert stored.fail() == "Nothing was started: Airflow has replaced this attempt with a later one."
    assert len(oxen_hub.start_requests) == 1


def test_record_that_cannot_be_updated_after_a_clear_is_tried_again(oxen_hub: LocalHub, stored: Task) -> None:
    """Without it, a retry would be taken for the clear: the attempt may be retried, and the next one waits for it."""
    first = stored.start()
    stored.clear()
    stored.store.plans["set"] = [store_error(500)]

    stored.fail(OxenStartFailedError)

    assert stored.start().ref == first.ref
    assert len(oxen_hub.started) == 1


@pytest.mark.parametrize("context", [{}, {"task_state_store": None}], ids=["no key", "none"])
def test_no_store_counts_as_an_airflow_without_one(oxen_hub: LocalHub, context: dict[str, Any]) -> None:
    """Where the context has no store, the first attempt starts one and a later one refuses, on any Airflow."""
    task = Task()
    starter = Starter(task, task.policy, retries=2)
    request = StartRequest("ox", "r", "main", "a.csv", BODY)
    assert not starter.start({"ti": task.ti, **context}, request).is_recorded
    assert task.log.warnings == []
    task.retry()

    with pytest.raises(AirflowFailException, match=r"^Not known whether an evaluation was started: an earlier attempt"):
        Starter(task, task.policy, retries=2).start({"ti": task.ti, **context}, request)
    assert len(oxen_hub.start_requests) == 1
    task.clear()
    Starter(task, task.policy, retries=2).start({"ti": task.ti, **context}, request)
    assert len(oxen_hub.start_requests) == 2
    (warning,) = task.log.warnings
    assert warning == (
        "Attempt 3 is taken for the first one after a clear: an earlier attempt may have started an evaluation, and "
        "both cost money."
    )


def test_not_durable_uses_no_store(oxen_hub: LocalHub, stored: Task) -> None:
    """``durable=False`` neither reads nor writes the store, and each attempt starts one; later ones warn."""
    stored.policy = StartPolicy(durable=False)
    stored.start()
    assert stored.log.warnings == []
    stored.retry()
    stored.start()

    assert stored.store.calls == []
    assert len(oxen_hub.started) == 2
    assert stored.log.warnings[0].startswith("A second evaluation is started: ")


def test_what_is_under_way_is_known(oxen_hub: LocalHub, task: Task) -> None:
    """While the response is out, the request is under way; before and after it is not, and then the id is known."""
    seen: list[Any] = []

    def on_start(_: Any) -> Scenario:
        seen.append((task.starter.sending, task.starter.started))
        return Scenario(seconds=60)

    oxen_hub.on_start = on_start
    if task.store is not None:
        task.store.plans["set"] = [lambda: seen.append((task.starter.sending, task.starter.started)), None]
    started = task.start()

    *before, (request, evaluation) = seen
    assert before == ([(None, None)] if task.store else [])
    assert (request.name, evaluation) == ("d.label r try 1", None)
    assert (task.starter.sending, task.starter.started) == (None, started.ref)


# Sequences of crashes, with the starter itself


class FakeHub:
    """A hub without sockets, whose next request dies or fails where a test says."""

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.generation = 0
        self.window = ""
        self.hub = "http://hub"
        self.config = SimpleNamespace(base_url=self.hub)

    def __call__(self, conn_id: str) -> FakeHub:
        assert conn_id == "oxen_default"
        return self

    def get_conn(self) -> FakeHub:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, call: Any, *, before_sending: Callable[[], None] | None = None) -> Evaluation:
        if before_sending is None:
            evaluation_id = call.path.rpartition("/")[2]
            if self.window == "gone":
                raise OxenNotFoundError("404")
            return Evaluation.from_dict({"id": evaluation_id, "status": self.statuses[evaluation_id]})
        self._act("not connected", OxenUnreachableError("not sent"))
        self._act("dies before the record", Died())
        before_sending()
        self._act("dies after the record", Died())
        self._act("not received", OxenUnknownEffectError("reset"))
        self._act("refused", OxenPaymentRequiredError("402"))
        self._act("busy", OxenRateLimitError("429"))
        evaluation_id = f"e{len(self.statuses)}"
        self.statuses[evaluation_id], self.generations[evaluation_id] = "running", self.generation
        self._act("dies while the response is out", Died())
        self._act("response lost", OxenUnknownEffectError("reset"))
        self._act("execution timeout", AirflowTaskTimeout())
        return Evaluation.from_dict({"id": evaluation_id, "status": "queued"})

    def _act(self, window: str, error: BaseException) -> None:
        if self.window == window:
            raise error


#: What happens to the store in an attempt: what each write and each removal does.
STORE_WINDOWS: dict[str, Callable[[FakeStore], dict[str, list[Any]]]] = {
    "store cannot be read": lambda _: {"get": [store_error(500)]},
    "record refused": lambda _: {"set": [store_error(500)]},
    "record stored, no response": lambda store: {"set": [lambda: _store_and_raise(store)]},
    "record stored, no response, not removed": lambda store: {
        "set": [lambda: _store_and_raise(store), store_error(500)],
        "delete": [store_error(500)],
    },
    "attempt replaced": lambda _: {"set": [store_error(404)]},
    "id refused": lambda _: {"set": [None, store_error(500)]},
    "dies before the id is stored": lambda _: {"set": [None, Died()]},
}
WINDOWS = [
    "none",
    "gone",
    "not connected",
    "dies before the record",
    "dies after the record",
    "not received",
    "refused",
    "busy",
    "dies while the response is out",
    "response lost",
    "execution timeout",
    *STORE_WINDOWS,
]


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="this Airflow has no task state store")
@settings(max_examples=400)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["retry", "clear"]),
            st.sampled_from(WINDOWS),
            st.sampled_from(["Which?", "Another?"]),
            st.sampled_from(["running", "completed", "errored", "cancelled"]),
            st.booleans(),
        ),
        min_size=1,
        max_size=10,
    ),
    on_clear=st.sampled_from(["resume", "start_again"]),
    has_store=st.booleans(),
)
def test_no_sequence_of_crashes_starts_two(
    steps: list[tuple[str, str, str, str, bool]], on_clear: Any, has_store: bool
) -> None:
    """
    Between two clears, the starter starts one at most, and waits for none that the task did not start.

    With a store, a clear starts none where an earlier one is lost and no attempt had said so before the clear.
    """
    lost, cleared_early = False, set()
    hub, store = FakeHub(), FakeStore()
    task = Task(store if has_store else None, StartPolicy(on_clear=on_clear))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "OxenHook", hub)
        patch.setattr(start, "NOT_FOUND_SECONDS", 0)
        for number, (action, window, prompt, end, resumes) in enumerate(steps):
            if number and action == "clear":
                hub.generation += 1
                if lost:
                    cleared_early.add(hub.generation)
                task.clear()
            elif number:
                task.retry()
            hub.window, task.body = window, {**BODY, "prompt": prompt}
            store.plans = STORE_WINDOWS[window](store) if window in STORE_WINDOWS else {}
            known = set(hub.statuses)
            try:
                started = task.start()
            except (Died, AirflowTaskTimeout, AirflowException) as error:
                said = str(error).startswith("Not known whether")
                lost = not said and (lost or set(hub.statuses) != known)
                continue
            finally:
                store.plans = {}
            lost = started.evaluation is not None and not started.is_recorded and not resumes
            if started.evaluation is None:
                assert started.ref.evaluation_id in known
            hub.statuses[started.ref.evaluation_id] = end
            if resumes:
                task.starter.complete_record(task.context, started.ref)

    generations = list(hub.generations.values())
    assert len(generations) == len(set(generations))
    assert not has_store or cleared_early.isdisjoint(generations)


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="this Airflow has no task state store")
@pytest.mark.parametrize(
    "policy", [StartPolicy(durable=False), StartPolicy(on_unknown_start="start_again")], ids=["not durable", "again"]
)
def test_two_are_started_where_allowed(monkeypatch: pytest.MonkeyPatch, policy: StartPolicy) -> None:
    """The simulation can start two, and does where the user has allowed it."""
    hub, task = FakeHub(), Task(FakeStore(), policy)
    monkeypatch.setattr(start, "OxenHook", hub)
    hub.window = "response lost"
    for _ in range(2):
        task.fail(AirflowFailException if not policy.durable else OxenStartUnknownError)
        task.retry()

    assert list(hub.generations.values()) == [0, 0]


@pytest.fixture(autouse=True)
def _nothing_goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Wait for what a late request has left behind, so that it cannot reach into the next test."""
    hub = request.getfixturevalue("oxen_hub") if "oxen_hub" in request.fixturenames else None
    yield
    _join_requests()
    if hub is not None:
        settle(hub)


def _join_requests() -> None:
    for thread in threading.enumerate():
        if thread.name == "oxen-request":
            thread.join(5)
