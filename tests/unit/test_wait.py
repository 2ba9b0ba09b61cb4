"""The state machine of a wait: what each poll means, and that every wait ends."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import exceptions
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, EvaluationStatus
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenConfigError,
    OxenError,
    OxenInvalidResponseError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenServerError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.wait import Interruption, Outcome, OutcomeReason, Sleep, Wait
from airflow_provider_oxen.wait_memory import resume, to_memory, with_memory, without_delay

ID = "d0c8585d-1234-5678-abcd-ef0123456789"
REF = EvaluationRef("ox", "customer-intents", ID)
T0 = 1_800_000_000.0
OUTAGES = [OxenUnreachableError, OxenServerError, OxenInvalidResponseError]


def _wait(**named: Any) -> Wait:
    given = {
        "ref": REF,
        "poke_interval": 10.0,
        "max_wait": 60.0,
        "deadline": T0 + 3_600,
        "retry_window": 600.0,
    }
    return Wait(**given | named)


def _seen(status: str = "running", evaluation_id: str = ID, **fields: Any) -> Evaluation:
    return Evaluation.from_dict({"id": evaluation_id, "status": status, **fields})


def _advance(wait: Wait, *polls: tuple[float, Evaluation | OxenError]) -> tuple[Wait, Sleep | Outcome]:
    """Take results of polls, at seconds after the start; all but the last must leave the wait going."""
    step: Sleep | Outcome = Sleep(0)
    for after, result in polls:
        assert isinstance(step, Sleep), f"ended early: {step}"
        wait, step = wait.advance(result, now=T0 + after, jitter=0.0)
    return wait, step


# What ends a wait


@pytest.mark.parametrize("status", ["completed", "errored", "cancelled"])
def test_end_of_the_evaluation_ends_the_wait(status: str) -> None:
    """An evaluation that ended is the outcome of the same name."""
    _, step = _advance(_wait(), (5, _seen(status)))

    assert step == Outcome(OutcomeReason(status), REF, evaluation=_seen(status), at=T0 + 5)


@pytest.mark.parametrize("status", ["queued", "running", "committing"])
def test_evaluation_under_way_is_polled_again(status: str) -> None:
    """An evaluation that has not ended is polled again."""
    assert _advance(_wait(), (0, _seen(status)))[1] == Sleep(10.0)


@pytest.mark.parametrize("status", ["paused", "Completed", "COMPLETED", "completed ", "done", "success"])
def test_gate_stays_closed_on_unknown_status(status: str) -> None:
    """Only the contract's own word completes."""
    assert isinstance(_advance(_wait(), (0, _seen(status)))[1], Sleep)


def test_gate_stays_closed_on_another_evaluation() -> None:
    """The completion of another evaluation ends nothing."""
    assert isinstance(_advance(_wait(), (0, _seen("completed", "other")))[1], Sleep)


def test_id_in_capitals_is_the_same_evaluation() -> None:
    """UUIDs are compared without regard to case."""
    assert _advance(_wait(), (0, _seen("completed", ID.upper())))[1].reason is OutcomeReason.COMPLETED


@pytest.mark.parametrize(
    "error",
    [
        OxenAuthenticationError("401"),
        OxenNotFoundError("404"),
        OxenBadRequestError("409"),
        OxenConfigError("is empty", field="password", conn_id="c"),
        OxenError("anything that is not known to pass"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_permanent_error_is_refused_at_once(error: OxenError) -> None:
    """An error that another poll cannot fix ends the wait at once, in its own words."""
    _, step = _advance(_wait(retry_window=None), (0, error))

    assert step == Outcome(OutcomeReason.REFUSED, REF, error=str(error), at=T0)


def test_missing_connection_may_be_an_outage() -> None:
    """A connection that is not found ends the wait at once, or, where it may be an outage, after ``retry_window``."""
    missing = OxenConfigError("there is none", field="conn_id", conn_id="c")
    patient = _wait(missing_connection_is_outage=True)

    assert _advance(_wait(), (0, missing))[1].reason is OutcomeReason.REFUSED
    assert isinstance(_advance(patient, (0, missing))[1], Sleep)
    assert _advance(patient, (0, missing), (600, missing))[1].reason is OutcomeReason.UNREACHABLE
    empty = OxenConfigError("is empty", field="password", conn_id="c")
    assert _advance(patient, (0, empty))[1].reason is OutcomeReason.REFUSED


def test_setting_that_never_heals_is_refused_at_the_first_poll_only() -> None:
    """What a setting causes ends the wait at its first poll; later, or where it may be later, it is an outage."""
    wrong = OxenUnreachableError("the host's name is not known", is_setting=True)
    other = OxenUnreachableError("the host's name could not be resolved")

    assert _advance(_wait(), (0, wrong))[1].reason is OutcomeReason.REFUSED
    assert isinstance(_advance(_wait(), (0, other))[1], Sleep)
    assert isinstance(_advance(_wait(), (0, other), (1, wrong))[1], Sleep)
    assert isinstance(_advance(_wait(), (0, _seen()), (1, wrong))[1], Sleep)
    assert isinstance(_advance(_wait(missing_connection_is_outage=True), (0, wrong))[1], Sleep)


def test_refusal_keeps_the_evaluation_last_seen() -> None:
    """A key that is revoked in the middle of a wait does not discard the progress seen before."""
    _, step = _advance(_wait(), (0, _seen()), (10, OxenAuthenticationError("401")))

    assert (step.reason, step.evaluation) == (OutcomeReason.REFUSED, _seen())


# The deadline


def test_last_poll_is_at_the_deadline() -> None:
    """The sleep before the deadline ends at the deadline."""
    assert _advance(_wait(), (3_597, _seen()))[1] == Sleep(3.0)


def test_completion_seen_at_the_deadline_counts() -> None:
    """The poll at the deadline still opens the gate."""
    assert _advance(_wait(), (3_600, _seen("completed")))[1].reason is OutcomeReason.COMPLETED


def test_deadline_ends_the_wait_with_the_evaluation_last_seen() -> None:
    """A timeout carries the deadline and how far the evaluation had come."""
    _, step = _advance(_wait(), (0, _seen("queued")), (3_600, _seen("running")))

    assert step == Outcome(OutcomeReason.TIMEOUT, REF, evaluation=_seen("running"), deadline=T0 + 3_600, at=T0 + 3_600)


@pytest.mark.parametrize("kind", [*OUTAGES, OxenRateLimitError])
def test_deadline_wins_over_an_outage(kind: type[OxenError]) -> None:
    """At the deadline a failing hub is a timeout, with the last evaluation and the last failure."""
    _, step = _advance(_wait(retry_window=60.0), (3_590, _seen()), (3_595, kind("x")), (3_601, kind("down")))

    assert (step.reason, step.evaluation, step.error) == (OutcomeReason.TIMEOUT, _seen(), "down")
    assert step.deadline == T0 + 3_600


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    "result",
    [
        *map(_seen, ("completed", "errored", "cancelled", "queued", "running", "committing", "paused")),
        _seen("completed", "other"),
        *(kind("no") for kind in (*OUTAGES, OxenRateLimitError, OxenNotFoundError, OxenAuthenticationError)),
        OxenServerError("later", retry_after_seconds=60.0),
        OxenInvalidResponseError("not the hub's", status_code=404),
        OxenConfigError("no such connection", conn_id="c", field="conn_id"),
    ],
    ids=repr,
)
def test_every_poll_at_the_deadline_ends_the_wait(result: Evaluation | OxenError, exists: bool) -> None:
    """Whatever the hub says at the deadline, nothing follows: who polls then needs no step but the outcome."""
    assert isinstance(_wait(deadline=T0, exists=exists).advance(result, now=T0, jitter=0.5)[1], Outcome)


def test_outcome_before_the_deadline_does_not_carry_it() -> None:
    """An outcome has a deadline only where that ended the wait."""
    assert _advance(_wait(), (0, OxenNotFoundError("404")))[1].deadline is None


def test_timer_that_fires_early_does_not_make_a_burst() -> None:
    """A sleep is never shorter than a twentieth of a second, even just before the deadline."""
    assert _advance(_wait(), (3_599.999, _seen()))[1] == Sleep(0.05)


# Failures that may pass


@pytest.mark.parametrize("kind", [*OUTAGES, OxenRateLimitError])
@pytest.mark.parametrize("retry_window", [1.0, 600.0, None])
def test_one_transient_failure_never_ends_a_wait(kind: type[OxenError], retry_window: float | None) -> None:
    """After a single failure that may pass, the hub is polled again."""
    assert isinstance(_advance(_wait(retry_window=retry_window), (0, kind("x")))[1], Sleep)


@pytest.mark.parametrize("kind", OUTAGES)
def test_outage_longer_than_the_retry_window_is_unreachable(kind: type[OxenError]) -> None:
    """A hub that fails for the whole retry window ends the wait, in the words of the last failure."""
    _, step = _advance(_wait(), (0, _seen()), (10, kind("x")), (609, kind("y")), (610, kind("z")))

    assert step == Outcome(OutcomeReason.UNREACHABLE, REF, evaluation=_seen(), error="z", at=T0 + 610)


def test_hub_is_polled_once_more_at_the_end_of_the_retry_window() -> None:
    """The last sleep of an outage ends when the retry window does."""
    polls = [(0, OxenServerError("x")), *[(550, OxenServerError("x"))] * 4, (595, OxenServerError("x"))]

    assert _advance(_wait(), *polls)[1] == Sleep(5.0)


def test_without_a_retry_window_only_the_deadline_ends_an_outage() -> None:
    """With no retry window, a hub may be away until the deadline."""
    wait, step = _advance(_wait(retry_window=None), (0, OxenServerError("x")), (3_599, OxenServerError("x")))
    assert step == Sleep(1.0)

    assert _advance(wait, (3_600, OxenServerError("x")))[1].reason is OutcomeReason.TIMEOUT


def test_success_ends_an_outage() -> None:
    """A result in between starts the retry window and the backoff again."""
    wait, step = _advance(_wait(), (0, OxenServerError("x")), (599, _seen()), (601, OxenServerError("x")))

    assert (wait.failures, wait.failing_since, step) == (1, T0 + 601, Sleep(5.0))


def test_backoff_grows_with_failures_in_a_row() -> None:
    """Each failure in a row doubles the sleep, up to the longest."""
    wait, sleeps = _wait(retry_window=None), []
    for _ in range(5):
        wait, step = wait.advance(OxenServerError("x"), now=T0, jitter=1.0)
        sleeps.append(step.seconds)

    assert sleeps == [10, 20, 40, 60, 60]


# What is not the hub's


FOREIGN = [301, 302, 400, 401, 403, 404]


@pytest.mark.parametrize("status_code", FOREIGN)
def test_foreign_response_in_a_wait_is_an_outage(status_code: int) -> None:
    """Once the evaluation was seen, a login page or a gateway's 404 counts towards ``retry_window`` and may pass."""
    error = OxenInvalidResponseError("x", status_code=status_code)

    wait, step = _advance(_wait(), (0, _seen()), (10, error))
    assert isinstance(step, Sleep)
    assert isinstance(_advance(_wait(exists=True), (0, error))[1], Sleep)
    assert _advance(wait, (20, _seen("completed")))[1].reason is OutcomeReason.COMPLETED
    assert _advance(wait, (610, error))[1].reason is OutcomeReason.UNREACHABLE


@pytest.mark.parametrize("status_code", FOREIGN)
def test_foreign_first_response_ends_a_wait_at_once(status_code: int) -> None:
    """Before the evaluation was seen, a setting is likely wrong. It has a reason of its own, which may be retried."""
    error = OxenInvalidResponseError("x", status_code=status_code)

    assert _advance(_wait(), (0, error))[1].reason is OutcomeReason.NOT_THE_HUB
    assert _advance(_wait(), (0, OxenServerError("x")), (5, error))[1].reason is OutcomeReason.NOT_THE_HUB


# The hub's own 404


@pytest.mark.parametrize(
    ("wait", "polls"), [(_wait(), [(0.0, _seen())]), (_wait(exists=True), [])], ids=["seen", "started"]
)
def test_evaluation_that_is_not_found_for_a_moment_is_polled_again(wait: Wait, polls: list[Any]) -> None:
    """A replica that lags behind says 404 of what exists: it is polled for half a minute more, then it is final."""
    lost = OxenNotFoundError("404")

    wait, step = _advance(wait, *polls, (10, lost))
    assert isinstance(step, Sleep)
    assert isinstance(_advance(wait, (39, lost))[1], Sleep)
    assert _advance(wait, (39, lost), (39.5, _seen()), (69, lost), (98, lost))[1] == Sleep(1.0)
    outcome = _advance(wait, (39, OxenServerError("x")), (40, lost))[1]
    assert (outcome.reason, outcome.error) == (OutcomeReason.REFUSED, "404")


def test_lag_does_not_count_towards_the_retry_window() -> None:
    """A 404 is no outage, and does not end one."""
    _, step = _advance(_wait(retry_window=5.0), (0, _seen()), (1, OxenNotFoundError("x")), (20, OxenNotFoundError("x")))

    assert isinstance(step, Sleep)


# Pauses


@pytest.mark.parametrize("retry_window", [1.0, 600.0])
def test_pause_asked_for_by_a_failing_hub_is_no_outage(retry_window: float) -> None:
    """A 503 that asks for half an hour, again and again, is waited for until the deadline."""
    busy = OxenServerError("503", retry_after_seconds=1_800.0)
    wait, now = _wait(deadline=T0 + 86_400, retry_window=retry_window), T0
    for _ in range(20):
        wait, step = wait.advance(busy, now=now, jitter=1.0)
        assert isinstance(step, Sleep)
        assert step.seconds >= 1_800
        now += step.seconds


def test_pause_of_a_second_hides_no_outage() -> None:
    """A hub that asks for one second with each failure is out of reach all the same."""
    busy, wait, now = OxenServerError("503", retry_after_seconds=1.0), _wait(deadline=T0 + 86_400), T0
    for _ in range(40):
        wait, step = wait.advance(busy, now=now, jitter=0.0)
        if isinstance(step, Outcome):
            break
        now += step.seconds

    assert step.reason is OutcomeReason.UNREACHABLE
    assert 600 <= now - T0 < 650


def test_rate_limit_does_not_end_an_outage() -> None:
    """Failures with a 429 between them, again and again, end the wait when they took the retry window together."""
    wait, now, failing, step = _wait(deadline=T0 + 86_400), T0, 0.0, Sleep(0)
    while isinstance(step, Sleep):
        for error in [*[OxenServerError("x")] * 4, OxenRateLimitError("x", retry_after_seconds=100.0)]:
            wait, step = wait.advance(error, now=now, jitter=0.0)
            if isinstance(step, Outcome):
                break
            now += step.seconds
            failing += 0 if isinstance(error, OxenRateLimitError) else step.seconds

    assert step.reason is OutcomeReason.UNREACHABLE
    assert failing == pytest.approx(600.0)


# Rate limits


def test_rate_limit_does_not_count_towards_the_retry_window() -> None:
    """A hub that responds with 429 for an hour is not out of reach."""
    limited = OxenRateLimitError("429", retry_after_seconds=30.0)
    wait, step = _advance(_wait(), *[(after, limited) for after in range(0, 3_600, 100)])

    assert isinstance(step, Sleep)
    assert wait.failing_since is None


def test_rate_limit_between_failures_does_not_count_towards_the_retry_window() -> None:
    """A long pause that the hub asked for is no outage, even where a failure came before and after it."""
    limited = OxenRateLimitError("429", retry_after_seconds=1_000.0)

    _, step = _advance(_wait(), (0, OxenServerError("x")), (10, limited), (1_100, OxenServerError("x")))

    assert isinstance(step, Sleep)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", [OxenRateLimitError, OxenServerError])
def test_pause_the_hub_asks_for_is_kept(kind: type[OxenTransientError], jitter: float) -> None:
    """The next poll comes no earlier than the hub asked for, and not much later."""
    _, step = _wait().advance(kind("x", retry_after_seconds=200.0), now=T0, jitter=jitter)

    assert 200 <= step.seconds <= 220


def test_waits_with_the_same_pause_spread() -> None:
    """Jitter spreads waits that were limited together."""
    limited = OxenRateLimitError("429", retry_after_seconds=200.0)

    assert len({_wait().advance(limited, now=T0, jitter=jitter)[1].seconds for jitter in (0.0, 0.5, 1.0)}) == 3


def test_pause_beyond_the_deadline_ends_at_the_deadline() -> None:
    """A pause does not keep a wait from its last poll."""
    limited = OxenRateLimitError("429", retry_after_seconds=3_600.0)

    assert _advance(_wait(), (3_500, limited))[1] == Sleep(100.0)


# What a wait remembers


def test_phase_begins_with_its_status() -> None:
    """The age of a phase is counted from the first poll that saw its status."""
    wait, _ = _advance(_wait(), (0, _seen("queued")), (10, _seen("running")), (20, _seen("running")))

    assert wait.history.phase_began_at == T0 + 10


def test_every_poll_is_counted() -> None:
    """A wait knows how many polls there were, and when the last one was."""
    wait, _ = _advance(_wait(), *[(after, _seen()) for after in range(0, 1_000, 10)])

    assert (wait.polls, wait.history.at) == (100, T0 + 990)


def test_progress_brings_the_next_poll_closer() -> None:
    """A sleep is half of the estimated time left."""
    polls = [(at, _seen(progress={"processed": done, "total": 1_000})) for at, done in ((0, 0), (60, 600))]

    assert _advance(_wait(), *polls)[1] == Sleep(20.0)


# Any wait at all

IDS = st.sampled_from([ID] * 4 + [ID.upper(), "other"])
STATUSES = st.sampled_from([*EvaluationStatus, "paused", "Completed"]).map(str) | st.text(min_size=1, max_size=5)
PROGRESS = st.fixed_dictionaries({}, optional={"processed": st.integers(0, 999), "total": st.integers(0, 999)})
EVALUATIONS = st.builds(_seen, STATUSES, IDS, progress=PROGRESS)
TRANSIENT = [k for k in map(vars(exceptions).get, exceptions.__all__) if issubclass(k, OxenTransientError)]
PERMANENT = [OxenError, *exceptions.OxenPermanentError.__subclasses__(), exceptions.OxenPermanentError]
FAILURES = st.builds(
    lambda kind, pause: kind("x", retry_after_seconds=pause),
    st.sampled_from(TRANSIENT),
    st.none() | st.floats(0, 3_600),
)
RESULTS = st.lists(
    st.tuples(
        st.builds(_seen, st.sampled_from(["queued", "running", "paused"]), progress=PROGRESS) | FAILURES,
        st.just(0.0) | st.floats(0, 100),
    )
    | st.tuples(EVALUATIONS | FAILURES | st.sampled_from(PERMANENT).map(lambda kind: kind("x")), st.just(0.0)),
    min_size=1,
    max_size=12,
)
WAITS = st.builds(
    lambda poke, times, lasts, window: _wait(
        poke_interval=poke, max_wait=poke * times, deadline=T0 + lasts, retry_window=window
    ),
    st.floats(5, 60),
    st.floats(1, 20),
    st.floats(-10, 2_000),
    st.none() | st.floats(0.1, 1_000),
)


@settings(max_examples=400)
@given(WAITS, RESULTS, st.floats(0, 1))
def test_every_wait_ends_once_and_opens_for_its_own_completion_only(
    wait: Wait, results: list[tuple[Evaluation | OxenError, float]], jitter: float
) -> None:
    """Whatever the hub does, a wait ends by the first poll after its deadline, and opens for its evaluation alone."""
    now, count, deadline, step = T0, 0, wait.deadline, Sleep(0)
    while isinstance(step, Sleep):
        assert count == 0 or polled_at < deadline, "a poll at or after the deadline did not end the wait"  # noqa: F821
        result, late = results[count % len(results)]
        polled_at, count = now, count + 1
        wait, step = wait.advance(result, now=now, jitter=jitter)
        if isinstance(step, Sleep):
            assert 0 < step.seconds <= max(deadline - now, 0.0) + 0.05
            now += step.seconds + late

    opens = isinstance(result, Evaluation) and result.status == "completed" and result.id.lower() == ID
    assert (step.reason is OutcomeReason.COMPLETED) is opens
    assert (step.at, step.ref, wait.polls) == (polled_at, REF, count)
    assert step.reason is not OutcomeReason.TIMEOUT or polled_at >= deadline


# Events

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
OUTCOMES = st.builds(
    Outcome,
    st.sampled_from([reason for reason in OutcomeReason if reason is not OutcomeReason.COMPLETED]),
    st.just(REF),
    evaluation=st.none() | EVALUATIONS,
    error=st.none() | st.text(max_size=20),
    hub=st.none() | st.just("https://hub.oxen.ai"),
    deadline=st.none() | st.floats(0, 1e10),
    at=st.none() | st.floats(0, 1e10),
) | st.builds(
    Outcome, st.just(OutcomeReason.COMPLETED), st.just(REF), evaluation=st.builds(_seen, st.just("completed"))
)


def _from_event(event: object) -> Outcome:
    return Outcome.from_event(event, otherwise=OTHERWISE)


#: An event's own names of the evaluation that was waited for.
NAMES = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": ID}
#: What a task's templates give after the wait.
OTHERWISE = EvaluationRef("rendered", "again", "later")


def test_event_is_plain_and_complete() -> None:
    """An event has these keys and values, which are a stored format."""
    event = Outcome(OutcomeReason.TIMEOUT, REF, _seen(), "down", "https://hub.oxen.ai", 2.0, 3.0).to_event()

    assert event == {
        "outcome": "timeout",
        "namespace": "ox",
        "repo_name": "customer-intents",
        "evaluation_id": ID,
        "evaluation": _seen().to_dict(),
        "error": "down",
        "hub": "https://hub.oxen.ai",
        "deadline": 2.0,
        "at": 3.0,
    }
    assert type(event["outcome"]) is str


@given(OUTCOMES)
def test_event_means_the_same_after_its_passage(outcome: Outcome) -> None:
    """An outcome that crossed the database as JSON is the same outcome."""
    event = json.loads(json.dumps(outcome.to_event(), allow_nan=False))

    again = _from_event(event)

    assert (again.reason, again.ref) == (outcome.reason, REF)
    assert again.to_event() == event


@settings(max_examples=300)
@given(
    JSON_VALUES
    | st.fixed_dictionaries(
        {"outcome": st.sampled_from([*map(str, OutcomeReason), "new"]) | JSON_VALUES},
        optional={
            "evaluation": JSON_VALUES
            | EVALUATIONS.map(Evaluation.to_dict)
            | st.fixed_dictionaries({}, optional={"id": IDS, "status": STATUSES | JSON_VALUES, "model": JSON_VALUES}),
            **dict.fromkeys(["error", "hub", "deadline", "at", "new"], JSON_VALUES),
            **{name: st.just(value) | JSON_VALUES for name, value in NAMES.items()},
        },
    )
)
def test_any_event_is_an_outcome(event: object) -> None:
    """Whatever is read, an outcome comes out, and a completion only where the event holds that very evaluation's."""
    outcome = _from_event(event)

    assert outcome.reason in OutcomeReason
    # A reference takes white space off its names, as everywhere.
    assert outcome.ref == OTHERWISE or outcome.ref == EvaluationRef(*(event[name] for name in NAMES))
    if outcome.reason is OutcomeReason.COMPLETED:
        assert isinstance(event, dict)
        assert (event["outcome"], event["evaluation"]["status"]) == ("completed", "completed")
        assert event["evaluation"]["id"].lower() == outcome.ref.evaluation_id.lower()


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"outcome": "completed", "evaluation": {"id": ID, "status": "completed"}}, "completed"),
        ({"outcome": "completed", "evaluation": {"id": ID.upper(), "status": "completed"}}, "completed"),
        ({"outcome": "errored", "evaluation": {"id": ID, "status": "errored"}}, "errored"),
        ({"outcome": "timeout"}, "timeout"),
        ({"outcome": "unreachable", "error": "down"}, "unreachable"),
        ({"outcome": "completed"}, "lost"),
        ({"outcome": "completed", "evaluation": {"id": ID, "status": "running"}}, "lost"),
        ({"outcome": "completed", "evaluation": {"id": "other", "status": "completed"}}, "lost"),
        ({"outcome": "reborn"}, "lost"),
        ({"status": "success"}, "lost"),
        ({}, "lost"),
        ([], "lost"),
        ("completed", "lost"),
        (None, "lost"),
    ],
)
def test_event_of_another_version_is_read(event: object, reason: str) -> None:
    """An event with fewer keys is read; one that says less than a completion opens nothing."""
    assert _from_event({**NAMES, **event} if isinstance(event, dict) else event).reason == reason


def test_event_names_the_evaluation_that_was_waited_for() -> None:
    """After a wait, the event's evaluation counts, and not what the task's templates give by then."""
    event = Outcome(OutcomeReason.COMPLETED, REF, _seen("completed")).to_event()

    outcome = Outcome.from_event(json.loads(json.dumps(event)), otherwise=OTHERWISE)

    assert (outcome.reason, outcome.ref) == (OutcomeReason.COMPLETED, REF)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "", 7, ["ox"]], ids=str)
@pytest.mark.parametrize("reason", ["completed", "errored"])
def test_event_that_does_not_name_its_evaluation_is_lost(name: str, value: object, reason: str) -> None:
    """Whatever it says, an event without a namespace, repository or id opens nothing; the task's own is shown."""
    event = Outcome(OutcomeReason(reason), REF, _seen(reason)).to_event()

    for broken in (event | {name: value}, {key: event[key] for key in event if key != name}):
        outcome = _from_event(broken)

        assert (outcome.reason, outcome.ref, outcome.evaluation) == (OutcomeReason.LOST, OTHERWISE, None)
        assert outcome.error == "the trigger's event does not name an evaluation"


@pytest.mark.parametrize("name", ["deadline", "at"])
@pytest.mark.parametrize("value", ["soon", True, [], math.nan, math.inf, 10**400], ids=lambda value: str(value)[:5])
def test_instant_that_is_no_number_is_not_read(name: str, value: object) -> None:
    """An instant in an event is a finite number or nothing."""
    assert getattr(_from_event({**NAMES, "outcome": "timeout", name: value}), name) is None
    assert getattr(_from_event({**NAMES, "outcome": "timeout", name: 7.5}), name) == 7.5


def test_lost_event_says_what_came() -> None:
    """The error shows what was read instead of an outcome."""
    assert _from_event(None).error == "the trigger's event is not an object, but NoneType"
    assert _from_event({**NAMES, "outcome": "reborn"}).error == "the trigger's event has the unknown outcome 'reborn'"
    assert _from_event({**NAMES, "outcome": "completed"}).error == (
        "the trigger's event says completed, but holds no completed evaluation of that id"
    )


def test_long_error_is_cut() -> None:
    """An event's error has 2,000 characters at most."""
    assert len(_advance(_wait(), (0, OxenNotFoundError("x" * 9_000)))[1].error) == 2_000


# What Airflow ends


def _waiting(**named: Any) -> Wait:
    return _advance(_wait(**named), (0, _seen(progress={"processed": 90, "total": 1_000})))[0]


def test_execution_timeout_is_a_timeout_at_the_deadline() -> None:
    """Airflow's timer of ``execution_timeout`` ends a wait as its deadline does, with what was last seen."""
    wait = _waiting()

    outcome = wait.interrupted(Interruption.EXECUTION_TIMEOUT, now=T0 + 3_599)

    assert outcome == Outcome(
        OutcomeReason.TIMEOUT,
        REF,
        evaluation=wait.evaluation,
        deadline=T0 + 3_600,
        at=T0 + 3_599,
        interruption=Interruption.EXECUTION_TIMEOUT,
    )


def test_trigger_timeout_is_a_timeout_without_a_deadline() -> None:
    """Airflow's own timeout of a deferred task is later than the deadline, which is not known any more."""
    how = Interruption.TRIGGER_TIMEOUT

    outcome = _wait().interrupted(how, now=T0, detail="last failure")

    assert outcome == Outcome(OutcomeReason.TIMEOUT, REF, error="last failure", deadline=None, at=T0, interruption=how)


def test_stopped_process_of_a_task_that_reschedules_is_lost() -> None:
    """``execution_timeout`` bounds one process of such a task: its end is no deadline, and may be retried."""
    outcome = _waiting().interrupted(Interruption.PROCESS_TIMEOUT, now=T0)

    assert (outcome.reason, outcome.deadline) == (OutcomeReason.LOST, None)
    assert outcome.error == (
        "execution_timeout stopped this process of the task, which bounds one poll in reschedule mode"
    )


def test_trigger_failure_is_lost() -> None:
    """A trigger that failed leaves no result, and Airflow's words are kept, 2,000 characters at most."""
    outcome = _wait().interrupted(Interruption.TRIGGER_FAILURE, now=T0, detail="Trigger failure")

    assert outcome == Outcome(
        OutcomeReason.LOST,
        REF,
        error="Airflow ended the trigger (Trigger failure)",
        at=T0,
        interruption=Interruption.TRIGGER_FAILURE,
    )
    assert len(_wait().interrupted(Interruption.TRIGGER_FAILURE, now=T0, detail="x" * 9_000).error) == 2_000


@pytest.mark.parametrize("how", Interruption)
def test_no_interruption_opens_the_gate(how: Interruption) -> None:
    """Whatever was seen last, a wait that Airflow ends did not see a completion."""
    outcome = _waiting().interrupted(how, now=T0 + 10)

    assert outcome.reason in (OutcomeReason.TIMEOUT, OutcomeReason.LOST)
    assert outcome.evaluation == _waiting().evaluation
    assert "None" not in (outcome.error or "")


# What another process of the same wait remembers


def test_wait_goes_on_in_another_process() -> None:
    """What a wait remembers crosses a store as JSON, and makes the same wait again."""
    polls = [(0, _seen("queued")), (20, _seen("odd")), (40, _seen(progress={"processed": 5, "total": 90}))]
    wait, _ = _advance(_wait(), *polls, (50, OxenServerError("x")), (60, OxenNotFoundError("x")))

    memory = json.loads(json.dumps(to_memory(wait), allow_nan=False))

    assert with_memory(_wait(), memory) == wait
    assert wait.failures == 2
    assert with_memory(_wait(ref=EvaluationRef("moved", "since", "x")), memory).ref == REF
    assert with_memory(_wait(deadline=T0 + 5), memory).deadline == T0 + 5


@pytest.mark.parametrize("late", [7_200.0, 30.0, 0.0, -7_200.0])
def test_time_by_which_a_poll_is_late_counts_neither_as_outage_nor_as_lag(late: float) -> None:
    """A scheduler that was down, or a clock that was set, between two processes shortens no time for which it fails."""
    failing, _ = _advance(_wait(deadline=T0 + 86_400, retry_window=600.0), (0, OxenServerError("x")))
    lagging, _ = _advance(_wait(deadline=T0 + 86_400), (0, _seen()), (1, OxenNotFoundError("x")))

    for wait, error, window in ((failing, OxenServerError("x"), 600.0), (lagging, OxenNotFoundError("x"), 31.0)):
        after = without_delay(wait, late)
        assert isinstance(_advance(after, (late + window - 1, error))[1], Sleep)
        assert isinstance(_advance(after, (late + window + 1, error))[1], Outcome)
    assert without_delay(_wait(), late) == _wait()


@given(
    st.dictionaries(st.sampled_from(sorted(to_memory(_wait()))), st.none() | st.integers() | st.text() | st.just([])),
    st.booleans(),
)
def test_memory_that_cannot_be_used_is_a_value_error(change: dict[str, Any], complete: bool) -> None:
    """Whatever is in the store, either a wait or one kind of error comes out."""
    whole = to_memory(_advance(_wait(), (0, _seen()), (1, OxenServerError("x")))[0])
    try:
        wait = with_memory(_wait(), whole | change if complete else change)
    except ValueError:
        return
    assert isinstance(wait.advance(_seen(), now=T0 + 2, jitter=0.5)[1], (Sleep, Outcome))


# A triggerer that goes on


def test_triggerer_goes_on_with_what_the_worker_saw() -> None:
    """It polls when the worker would have, and knows the speed at its own first poll."""
    before = _wait(evaluation=_seen(progress={"processed": 10, "total": 100}))

    wait, seconds = resume(before, T0, now=T0 + 2, jitter=0.5)

    assert (seconds, wait.seen_at) == (13.0, T0)  # 10 to 20 s after the worker's poll
    after, _ = _advance(wait, (10, _seen(progress={"processed": 20, "total": 100})))
    assert after.history is not None
    assert after.history.rows_per_second == 1.0


@pytest.mark.parametrize(
    ("fields", "seen_at"), [({}, None), ({}, T0), ({"evaluation": _seen()}, None)], ids=["nothing", "no one", "no time"]
)
def test_triggerer_polls_at_once_where_it_knows_nothing(fields: dict[str, Any], seen_at: float | None) -> None:
    """A wait that no worker has seen, or one that an older release stored, is polled at once."""
    assert resume(_wait(**fields), seen_at, now=T0 + 2, jitter=0.5) == (_wait(**fields), 0.0)


@pytest.mark.parametrize(("now", "expected"), [(3_597.0, 3.0), (3_600.0, 0.0), (9_000.0, 0.0)])
def test_triggerer_that_goes_on_polls_at_the_deadline(now: float, expected: float) -> None:
    """A wait that is taken over near its deadline or after it is polled then, so that it ends with what is true."""
    assert resume(_wait(evaluation=_seen()), T0, now=T0 + now, jitter=1.0)[1] == expected


def test_stall_after_a_take_over_is_polled_less_and_less() -> None:
    """What moved while no poll was made says how fast, but not how long a batch takes: a stall is seen as one."""
    before = _wait(deadline=T0 + 86_400, evaluation=_seen(progress={"processed": 0, "total": 1_000}))
    wait, _ = resume(before, T0, now=T0 + 18_000, jitter=0.5)
    seen, now, polls = _seen(progress={"processed": 950, "total": 1_000}), T0 + 18_000, 0
    while now < T0 + 36_000:
        wait, step = wait.advance(seen, now=now, jitter=0.0)
        now, polls = now + step.seconds, polls + 1

    assert polls < 400  # 300, if all sleeps were max_wait


def test_clock_of_the_worker_may_be_wrong() -> None:
    """A poll that was seen in the future, by another machine's clock, counts as one of now."""
    wait, seconds = resume(_wait(evaluation=_seen()), T0 + 7_200, now=T0, jitter=0.0)

    assert (wait.seen_at, seconds) == (T0, 10.0)


# A wait that begins again at each poll


def test_pace_is_taken_from_the_evaluations_own_times() -> None:
    """Where each poll is a first one, the time left is estimated from when the evaluation began."""
    seen = _seen(started_at="2027-01-15T07:00:00Z", progress={"processed": 100, "total": 1_000})
    began = seen.started_at.timestamp()

    _, step = _wait(assumes_pace=True, max_wait=600.0, deadline=began + 9_000).advance(
        seen, now=began + 100, jitter=0.0
    )

    assert step == Sleep(200.0)  # half of what is left would be 450 s: never more than twice what was watched
    _, queued = _wait(assumes_pace=True, max_wait=600.0, deadline=began + 9_000).advance(
        _seen("queued", queued_at="2027-01-15T07:00:00Z"), now=began + 1_000, jitter=0.0
    )
    assert queued == Sleep(200.0)  # twice the root of 10 times 1,000


@pytest.mark.parametrize("fields", [{}, {"started_at": "2030-01-01T00:00:00Z"}])
def test_unknown_or_impossible_begin_is_not_used(fields: dict[str, Any]) -> None:
    """Without a begin, or with one that a wrong clock puts after the poll, the wait is paced as at any first poll."""
    step = _wait(assumes_pace=True).advance(_seen(**fields), now=T0, jitter=0.0)[1]

    assert step == Sleep(10.0)


# What conditions make of an outcome


def test_unmet_condition_keeps_the_evaluation_and_has_the_reason() -> None:
    """A condition that is not met makes another outcome of the same evaluation, with its reason, cut where long."""
    outcome = Outcome(OutcomeReason.COMPLETED, REF, _seen("completed"), hub="https://hub.oxen.ai", at=T0)

    unmet = outcome.with_unmet_condition("too short")

    assert unmet == Outcome(
        OutcomeReason.CONDITION_NOT_MET, REF, _seen("completed"), "too short", hub="https://hub.oxen.ai", at=T0
    )
    assert len(outcome.with_unmet_condition("x" * 9_000).error) == 2_000


def test_failed_condition_keeps_the_evaluation_and_has_the_error() -> None:
    """A condition that raised makes another outcome of the same evaluation, with the error in words."""
    outcome = Outcome(OutcomeReason.COMPLETED, REF, _seen("completed"))

    failed = outcome.with_failed_condition("KeyError: 'score'")

    assert failed == Outcome(OutcomeReason.CONDITION_FAILED, REF, _seen("completed"), "KeyError: 'score'")
    assert len(outcome.with_failed_condition("x" * 9_000).error) == 2_000
