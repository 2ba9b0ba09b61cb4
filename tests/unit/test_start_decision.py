"""The decision to start an evaluation: every row of its table, and that no sequence of crashes starts two."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.evaluations import Evaluation
from airflow_provider_oxen.start_decision import (
    Attempt,
    Check,
    Decision,
    Refuse,
    RefuseReason,
    Start,
    StartPolicy,
    TakeUp,
    decide,
    decide_after_check,
    fingerprint,
)
from airflow_provider_oxen.start_record import Phase, Record

RETRIES = 2
FIRST = Attempt(1, 2, RETRIES)
RETRY = Attempt(2, 2, RETRIES)
#: The first attempt after a person cleared the task, and the next one.
CLEARED = Attempt(2, 3, RETRIES)
CLEARED_RETRY = Attempt(3, 3, RETRIES)

STARTING = Record(Phase.STARTING, name="n", request="r1", try_number=1, max_tries=2)
#: The same, after an attempt has failed with the message that says what to do.
REPORTED = replace(STARTING, reported=True)
STARTED = Record(Phase.STARTED, evaluation_id="e1", name="n", request="r1", try_number=1, max_tries=2)

DEFAULT = StartPolicy()
START_AGAIN = StartPolicy(on_unknown_start="start_again")
ON_CLEAR = StartPolicy(on_clear="start_again")
BOTH = StartPolicy(on_unknown_start="start_again", on_clear="start_again")
DURABLE = [DEFAULT, START_AGAIN, ON_CLEAR, BOTH]


def evaluation(status: str) -> Evaluation:
    return Evaluation.from_dict({"id": "e1", "status": status})


def choose(
    record: Record | None,
    attempt: Attempt,
    policy: StartPolicy = DEFAULT,
    *,
    request: str = "r1",
    store: bool = True,
    hub: str | None = None,
) -> Decision:
    return decide(record, attempt, policy, request=request, has_store=store, hub=hub)


# No record


@pytest.mark.parametrize("policy", DURABLE)
@pytest.mark.parametrize("attempt", [FIRST, RETRY, CLEARED, CLEARED_RETRY])
def test_store_without_a_record_starts(attempt: Attempt, policy: StartPolicy) -> None:
    """Where there is a store and it is empty, no earlier attempt came as far as the request, so one is started."""
    assert choose(None, attempt, policy) == Start()


@pytest.mark.parametrize("policy", DURABLE)
@pytest.mark.parametrize("attempt", [FIRST, CLEARED])
def test_first_attempt_starts_without_a_store(attempt: Attempt, policy: StartPolicy) -> None:
    """Without a store, the first attempt starts one; so does the first one after a clear."""
    assert choose(None, attempt, policy, store=False) == Start()


@pytest.mark.parametrize("attempt", [RETRY, CLEARED_RETRY, Attempt(2, 0, 0)])
def test_later_attempt_refuses_without_a_store(attempt: Attempt) -> None:
    """Without a store, a later attempt cannot know and refuses, also where Airflow runs a try beyond ``retries``."""
    assert choose(None, attempt, store=False) == Refuse(RefuseReason.NO_STORE)
    assert choose(None, attempt, ON_CLEAR, store=False) == Refuse(RefuseReason.NO_STORE)


@pytest.mark.parametrize("policy", [START_AGAIN, BOTH])
def test_later_attempt_starts_without_a_store_where_allowed(policy: StartPolicy) -> None:
    """``on_unknown_start`` lets a later attempt start another one without a store, and it is warned of."""
    assert choose(None, RETRY, policy, store=False) == Start(may_run_too=True)


def test_retry_after_fewer_retries_is_taken_for_a_clear() -> None:
    """Without a store, ``retries`` that a person lowered between two attempts look like a clear: not covered."""
    assert choose(None, Attempt(2, RETRIES, RETRIES - 1), store=False) == Start()


# Starting


@pytest.mark.parametrize("policy", [DEFAULT, ON_CLEAR])
@pytest.mark.parametrize("request_now", ["r1", "r2"])
@pytest.mark.parametrize("record", [STARTING, REPORTED])
def test_unknown_start_is_refused_at_a_retry(policy: StartPolicy, request_now: str, record: Record) -> None:
    """A record without an id refuses, whatever the arguments are by now, and as often as Airflow retries."""
    assert choose(record, RETRY, policy, request=request_now) == Refuse(RefuseReason.UNKNOWN_START)


@pytest.mark.parametrize("policy", [START_AGAIN, BOTH])
@pytest.mark.parametrize("attempt", [RETRY, CLEARED, CLEARED_RETRY])
@pytest.mark.parametrize("record", [STARTING, REPORTED])
def test_unknown_start_starts_again_where_allowed(policy: StartPolicy, attempt: Attempt, record: Record) -> None:
    """``on_unknown_start`` starts another one."""
    assert choose(record, attempt, policy) == Start(may_run_too=True)


@pytest.mark.parametrize("policy", DURABLE)
def test_reported_unknown_start_starts_again_after_a_clear(policy: StartPolicy) -> None:
    """A person who cleared the task has decided, after words that say what it means."""
    assert choose(REPORTED, CLEARED, policy) == Start(may_run_too=True)


@pytest.mark.parametrize("policy", [DEFAULT, ON_CLEAR])
@pytest.mark.parametrize("request_now", ["r1", "r2"])
@pytest.mark.parametrize("attempt", [CLEARED, CLEARED_RETRY])
def test_unknown_start_that_was_not_reported_is_refused_after_a_clear(
    policy: StartPolicy, request_now: str, attempt: Attempt
) -> None:
    """A person who cleared the task before any attempt said so could not know what it means."""
    assert choose(STARTING, attempt, policy, request=request_now) == Refuse(RefuseReason.UNKNOWN_START)


@pytest.mark.parametrize("reported", [False, True])
def test_unknown_start_after_a_clear_is_refused_at_its_retry(reported: bool) -> None:
    """The clear counts once: what the attempt after it left behind, or has reported, is a record of its own."""
    after = replace(STARTING, try_number=2, max_tries=CLEARED.max_tries, reported=reported)

    assert choose(after, CLEARED_RETRY) == Refuse(RefuseReason.UNKNOWN_START)


# Started


@pytest.mark.parametrize("policy", DURABLE)
def test_started_is_taken_up_at_a_retry(policy: StartPolicy) -> None:
    """A retry waits for the evaluation that an earlier attempt started, whatever the user has allowed."""
    assert choose(STARTED, RETRY, policy) == TakeUp("e1")


@pytest.mark.parametrize("policy", DURABLE)
def test_started_with_other_arguments_is_taken_up_at_a_retry(policy: StartPolicy) -> None:
    """So it does where the arguments have changed, and says so."""
    assert choose(STARTED, RETRY, policy, request="r2") == TakeUp("e1", other_request=True)


@pytest.mark.parametrize("policy", DURABLE)
def test_started_is_checked_after_a_clear(policy: StartPolicy) -> None:
    """After a clear, the evaluation is polled before anything is decided."""
    assert choose(STARTED, CLEARED, policy) == Check("e1")


@pytest.mark.parametrize("policy", DURABLE)
def test_started_with_other_arguments_starts_after_a_clear(policy: StartPolicy) -> None:
    """A clear with other arguments asks for another evaluation."""
    assert choose(STARTED, CLEARED, policy, request="r2") == Start(may_run_too=True)


@pytest.mark.parametrize(
    ("status", "resume", "start_again"),
    [
        ("queued", TakeUp("e1"), TakeUp("e1")),
        ("running", TakeUp("e1"), TakeUp("e1")),
        ("committing", TakeUp("e1"), TakeUp("e1")),
        ("a status of the future", TakeUp("e1"), TakeUp("e1")),
        ("completed", TakeUp("e1"), Start()),
        ("errored", Start(), Start()),
        ("cancelled", Start(), Start()),
        (None, Refuse(RefuseReason.NOT_FOUND), Start(may_run_too=True)),
    ],
)
def test_check_decides_after_a_clear(status: str | None, resume: Decision, start_again: Decision) -> None:
    """One that may still run is never doubled; ``on_clear`` decides about one that completed or is gone."""
    found = None if status is None else evaluation(status)

    assert decide_after_check("e1", found, DEFAULT) == resume
    assert decide_after_check("e1", found, START_AGAIN) == resume
    assert decide_after_check("e1", found, ON_CLEAR) == start_again
    assert decide_after_check("e1", found, BOTH) == start_again


# Another hub

HUB = "https://hub.oxen.ai"
AT_HUB = replace(STARTED, hub=HUB)
OTHER_HUBS = [
    "http://hub.oxen.ai",
    "https://dev.hub.oxen.ai",
    "https://hub.oxen.ai:8443",
    "https://hub.oxen.ai:80",
    "https://hub.oxen.ai/other",
]


@pytest.mark.parametrize("policy", DURABLE)
@pytest.mark.parametrize("attempt", [RETRY, CLEARED, CLEARED_RETRY])
@pytest.mark.parametrize("hub", OTHER_HUBS)
def test_evaluation_of_another_hub_is_refused(policy: StartPolicy, attempt: Attempt, hub: str) -> None:
    """Where the connection leads to another scheme, host, port or path by now, the id is not used there."""
    assert choose(AT_HUB, attempt, policy, hub=hub) == Refuse(RefuseReason.OTHER_HUB)


@pytest.mark.parametrize(
    "hub", [None, HUB, "https://HUB.oxen.ai", "HTTPS://hub.oxen.ai", "https://hub.oxen.ai:443", "https://hub.oxen.ai/"]
)
def test_same_hub_is_no_other(hub: str | None) -> None:
    """The default port, a slash at the end and upper case do not count; nor does an address that is not known."""
    assert choose(AT_HUB, RETRY, hub=hub) == TakeUp("e1")
    assert choose(AT_HUB, CLEARED, hub=hub) == Check("e1")
    assert choose(STARTED, RETRY, hub=hub) == TakeUp("e1")


def test_hubs_below_two_paths_of_a_host_are_two() -> None:
    """A gateway may lead to several hubs by their paths, in which upper and lower case count."""
    behind = replace(STARTED, hub="http://gateway:80/team-a")

    assert choose(behind, RETRY, hub="http://gateway/team-a/") == TakeUp("e1")
    for other in ("http://gateway/team-b", "http://gateway", "http://gateway/Team-A"):
        assert choose(behind, RETRY, hub=other) == Refuse(RefuseReason.OTHER_HUB)


@pytest.mark.parametrize("hub", OTHER_HUBS)
def test_clear_with_other_arguments_starts_on_another_hub(hub: str) -> None:
    """Nothing is waited for then, so that the address of the earlier one does not matter."""
    assert choose(AT_HUB, CLEARED, request="r2", hub=hub) == Start(may_run_too=True)
    assert choose(AT_HUB, RETRY, request="r2", hub=hub) == Refuse(RefuseReason.OTHER_HUB)


# Not durable


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("record", [None, STARTING, REPORTED, STARTED])
@pytest.mark.parametrize(("attempt", "again"), [(FIRST, False), (RETRY, True), (CLEARED, False), (CLEARED_RETRY, True)])
def test_every_attempt_starts_where_nothing_is_durable(
    attempt: Attempt, again: bool, record: Record | None, store: bool
) -> None:
    """``durable=False`` starts one in each attempt, and warns in the later ones."""
    assert choose(record, attempt, StartPolicy(durable=False), store=store) == Start(may_run_too=again)


# What is stored


def test_nothing_stored_is_no_record() -> None:
    """An empty store gives no record."""
    assert Record.from_value(None) is None


@pytest.mark.parametrize(
    "record",
    [
        STARTING,
        REPORTED,
        Record(
            Phase.STARTED,
            evaluation_id="e1",
            name="d.t r try 1",
            request="r1",
            hub="https://hub.oxen.ai",
            namespace="ox",
            repo_name="r",
            at="2026-11-25T10:00:00+00:00",
            try_number=1,
            max_tries=2,
        ),
    ],
)
def test_record_is_read_as_it_was_written(record: Record) -> None:
    """A record passes through JSON unchanged."""
    assert Record.from_value(json.loads(json.dumps(record.to_dict()))) == record


def test_stored_form_of_version_1_is_kept() -> None:
    """What version 1 stored is a format: its fields stay."""
    assert STARTED.to_dict() == {
        "version": 1,
        "phase": "started",
        "evaluation_id": "e1",
        "name": "n",
        "request": "r1",
        "hub": None,
        "namespace": None,
        "repo_name": None,
        "at": None,
        "try_number": 1,
        "max_tries": 2,
        "reported": False,
    }
    assert replace(STARTED, reported=True).to_dict()["reported"] is True


@pytest.mark.parametrize("attempt", [RETRY, CLEARED])
@pytest.mark.parametrize("evaluation_id", ["e1", "  e1\n"])
def test_record_written_by_hand_is_taken_up(attempt: Attempt, evaluation_id: str) -> None:
    """A person needs to write a phase and an id only; white space around the id is left out."""
    record = Record.from_value({"phase": "started", "evaluation_id": evaluation_id})

    assert choose(record, attempt) == TakeUp("e1")
    assert choose(record, attempt, request="r2") == TakeUp("e1")


@pytest.mark.parametrize("text", [False, True], ids=["object", "text"])
def test_record_that_was_edited_in_place_is_taken_up(text: bool) -> None:
    """A person changes phase and id of the entry that is there, or stores it as text: it counts as theirs."""
    entry = REPORTED.to_dict() | {"phase": "started", "evaluation_id": "e2"}
    record = Record.from_value(json.dumps(entry) if text else entry)

    for attempt in (CLEARED, CLEARED_RETRY):
        assert choose(record, attempt) == TakeUp("e2")
        assert choose(record, attempt, ON_CLEAR) == TakeUp("e2")
    assert (record.name, record.problem, record.reported) == ("n", None, False)


@pytest.mark.parametrize(
    "value",
    [
        "started",
        7,
        True,
        [],
        [{"phase": "started", "evaluation_id": "e1"}],
        {},
        {"phase": "started"},
        {"phase": "started", "evaluation_id": None},
        {"phase": "started", "evaluation_id": " "},
        {"phase": "started", "evaluation_id": 12},
        {"phase": "Started", "evaluation_id": "e1"},
        {"phase": "finished", "evaluation_id": "e1"},
        {"phase": "starting", "evaluation_id": "e1"},
        {"version": 0, "phase": "started", "evaluation_id": "e1"},
        {"version": 2, "phase": "started", "evaluation_id": "e1"},
        {"version": "1", "phase": "started", "evaluation_id": "e1"},
        {"version": None, "phase": "started", "evaluation_id": "e1"},
        '{"phase": "Started", "evaluation_id": "e1"}',
        '"started"',
        "[" * 100_000,
    ],
)
def test_unreadable_record_counts_as_starting(value: Any) -> None:
    """What cannot be understood may stand for an evaluation: it is no reason to start one."""
    record = Record.from_value(value)

    assert record is not None
    assert (record.phase, record.evaluation_id) == (Phase.STARTING, None)
    assert record.problem is not None
    assert choose(record, RETRY) == Refuse(RefuseReason.UNKNOWN_START)
    assert choose(record, CLEARED) == Refuse(RefuseReason.UNKNOWN_START)
    assert choose(record, RETRY, START_AGAIN) == Start(may_run_too=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": "Started", "evaluation_id": "e1"},
        {"evaluation_id": "e1"},
        {"phase": "started"},
        {"version": 2},
    ],
)
def test_record_that_was_edited_wrongly_is_refused_after_a_clear(changes: dict[str, Any]) -> None:
    """A person meant to say which evaluation it is, and cleared the task: a mistake in it starts no second one."""
    record = Record.from_value(REPORTED.to_dict() | changes)

    assert choose(record, CLEARED) == Refuse(RefuseReason.UNKNOWN_START)
    assert choose(Record.from_value(REPORTED.to_dict()), CLEARED) == Start(may_run_too=True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(list(STARTED.to_dict())), inner),
    )
)
def test_any_stored_value_is_read(value: Any) -> None:
    """No stored value raises an error, and an id comes with ``started`` alone."""
    record = Record.from_value(value)

    assert (record is None) == (value is None)
    assert record is None or (record.evaluation_id is None) == (record.phase is Phase.STARTING)


# The fingerprint


def test_fingerprint_ignores_what_differs_by_attempt() -> None:
    """The name and the commit message differ by attempt, and the order of fields means nothing."""
    one = fingerprint("/p", {"prompt": "a", "name": "try 1", "commit_message": "x", "model_id": "m"})

    assert one == fingerprint("/p", {"model_id": "m", "name": "try 2", "prompt": "a"})
    assert len(one) == 64


@pytest.mark.parametrize(
    ("path", "body"), [("/q", {"prompt": "a"}), ("/p", {"prompt": "b"}), ("/p", {"prompt": "a", "batch_size": 1})]
)
def test_fingerprint_differs_by_request(path: str, body: dict[str, Any]) -> None:
    """Another file, another value and another field each make another request."""
    assert fingerprint(path, body) != fingerprint("/p", {"prompt": "a"})


# Sequences of crashes


class World:
    """
    An Airflow, a store and a hub, and the order in which an attempt uses them.

    :param has_store: whether what an attempt stores is there for the next one.
    """

    def __init__(self, policy: StartPolicy, retries: int, *, has_store: bool) -> None:
        self.policy, self.retries, self.has_store = policy, retries, has_store
        self.try_number, self.max_tries, self.generation = 1, retries, 0
        self.stored: Any = None
        #: Status of each started evaluation, and the generation that started it.
        self.statuses: dict[str, str] = {}
        self.generations: dict[str, int] = {}
        self.taken_up: list[str] = []
        #: Whether each start that is not known was reported; and the generations whose clear came before that.
        self.is_reported = True
        self.cleared_early: set[int] = set()

    def clear(self) -> None:
        self.max_tries = self.try_number + self.retries
        self.try_number += 1
        self.generation += 1
        if not self.is_reported:
            self.cleared_early.add(self.generation)

    def retry(self) -> None:
        self.try_number += 1

    def run(self, window: str, request: str, end: str) -> None:
        """Run an attempt that dies in a window, or whose request has an outcome; then the evaluation may end."""
        attempt = Attempt(self.try_number, self.max_tries, self.retries)
        previous = self.stored
        record = Record.from_value(previous)
        decision = decide(record, attempt, self.policy, request=request, has_store=self.has_store)
        if isinstance(decision, Check):
            status = self.statuses[decision.evaluation_id]
            found = None if end == "gone" else Evaluation.from_dict({"id": decision.evaluation_id, "status": status})
            decision = decide_after_check(decision.evaluation_id, found, self.policy)
        if isinstance(decision, TakeUp):
            self.taken_up.append(decision.evaluation_id)
            if end in ("completed", "errored"):
                self.statuses[decision.evaluation_id] = end
        if decision == Refuse(RefuseReason.UNKNOWN_START):
            self.report(record)
        if not isinstance(decision, Start) or window == "before the record":
            return
        starting = Record(Phase.STARTING, request=request, try_number=self.try_number, max_tries=self.max_tries)
        self.store(starting.to_dict())
        self.is_reported = window == "refused"
        if window == "after the record":
            return
        if window == "not received":
            self.report(starting)
            return
        if window == "refused":
            self.store(previous)
            return
        evaluation_id = f"e{len(self.statuses)}"
        self.statuses[evaluation_id], self.generations[evaluation_id] = "running", self.generation
        if window == "response lost":
            self.report(starting)
            return
        if window in ("response out", "after the response"):
            return
        self.is_reported = True
        self.store(Record(**{**_fields(starting), "phase": Phase.STARTED, "evaluation_id": evaluation_id}).to_dict())
        if window != "after the id" and end in ("completed", "errored"):
            self.statuses[evaluation_id] = end

    def report(self, record: Record | None) -> None:
        """Fail with the message, and note that."""
        assert record is not None
        self.store(replace(record, reported=True, max_tries=self.max_tries).to_dict())
        self.is_reported = True

    def store(self, value: Any) -> None:
        if self.has_store and self.policy.durable:
            self.stored = json.loads(json.dumps(value))


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__slots__}


WINDOWS = [
    "before the record",
    "after the record",
    "not received",
    "refused",
    "response out",
    "response lost",
    "after the response",
    "after the id",
    "none",
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["retry", "clear"]),
        st.sampled_from(WINDOWS),
        st.sampled_from(["r1", "r2"]),
        st.sampled_from(["running", "completed", "errored", "gone"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=600)
@given(
    steps=STEPS,
    retries=st.integers(0, 3),
    has_store=st.booleans(),
    on_clear=st.sampled_from(["resume", "start_again"]),
)
@example(
    steps=[("retry", window, "r1", "running") for window in ("response lost", "none")],
    retries=0,
    has_store=True,
    on_clear="resume",
)
@example(
    steps=[(action, window, "r1", "running") for action, window in (("retry", "response out"), ("clear", "none"))],
    retries=2,
    has_store=True,
    on_clear="start_again",
)
def test_no_sequence_of_crashes_starts_two(
    steps: list[tuple[str, str, str, str]], retries: int, has_store: bool, on_clear: Any
) -> None:
    """
    Between two clears, at most one evaluation is started; and each one that is waited for was started by the task.

    With a store, a clear starts none where an earlier start is not known and no attempt had said so before the clear.
    """
    world = World(StartPolicy(on_clear=on_clear), retries, has_store=has_store)

    for number, (action, window, request, end) in enumerate(steps):
        if number:
            world.clear() if action == "clear" else world.retry()
        world.run(window, request, end)

    started = list(world.generations.values())
    assert len(started) == len(set(started))
    assert set(world.taken_up) <= set(world.statuses)
    assert not has_store or world.cleared_early.isdisjoint(started)


@pytest.mark.parametrize("policy", [START_AGAIN, StartPolicy(durable=False)])
def test_two_are_started_only_where_allowed(policy: StartPolicy) -> None:
    """The simulation can start two, and does where the user has allowed it."""
    world = World(policy, RETRIES, has_store=True)
    for _ in range(2):
        world.run("response lost", "r1", "running")
        world.retry()

    assert list(world.generations.values()) == [0, 0]


def test_every_pair_of_windows_starts_one_at_most() -> None:
    """Every window before a retry with every window in it."""
    for first, second in itertools.product(WINDOWS, repeat=2):
        world = World(DEFAULT, RETRIES, has_store=True)
        world.run(first, "r1", "running")
        world.retry()
        world.run(second, "r1", "running")
        assert len(world.generations) <= 1, (first, second)
