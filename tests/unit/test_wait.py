"""The state machine of a wait: what each look means, and that every wait ends."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import exceptions
from airflow_provider_oxen.api import read_evaluation
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
from airflow_provider_oxen.models import Evaluation, EvaluationStatus
from airflow_provider_oxen.wait import Outcome, OutcomeReason, Sleep, Wait

ID = "d0c8585d-1234-5678-abcd-ef0123456789"
T0 = 1_800_000_000.0
OUTAGES = [OxenUnreachableError, OxenServerError, OxenInvalidResponseError]


def _wait(**named: Any) -> Wait:
    given = {
        "evaluation_id": ID,
        "poke_interval": 10.0,
        "max_wait": 60.0,
        "deadline": T0 + 3_600,
        "retry_window": 600.0,
    }
    return Wait(**given | named)


def _seen(status: str = "running", evaluation_id: str = ID, **fields: Any) -> Evaluation:
    return read_evaluation({"id": evaluation_id, "status": status, **fields})


def _look(wait: Wait, *looks: tuple[float, Evaluation | OxenError]) -> tuple[Wait, Sleep | Outcome]:
    """Take looks at seconds after the start; all but the last must leave the wait going."""
    step: Sleep | Outcome = Sleep(0)
    for after, seen in looks:
        assert isinstance(step, Sleep), f"ended early: {step}"
        wait, step = wait.look(seen, now=T0 + after, jitter=0.0)
    return wait, step


# What ends a wait


@pytest.mark.parametrize("status", ["completed", "errored", "cancelled"])
def test_end_of_the_evaluation_ends_the_wait(status: str) -> None:
    """An evaluation that ended is the outcome of the same name."""
    _, step = _look(_wait(), (5, _seen(status)))

    assert step == Outcome(OutcomeReason(status), evaluation=_seen(status), at=T0 + 5)


@pytest.mark.parametrize("status", ["queued", "running", "committing"])
def test_evaluation_under_way_is_looked_at_again(status: str) -> None:
    """An evaluation that has not ended is asked for again."""
    assert _look(_wait(), (0, _seen(status)))[1] == Sleep(10.0)


@pytest.mark.parametrize("status", ["paused", "Completed", "COMPLETED", "completed ", "done", "success"])
def test_gate_stays_shut_on_unknown_status(status: str) -> None:
    """Only the contract's own word completes."""
    assert isinstance(_look(_wait(), (0, _seen(status)))[1], Sleep)


def test_gate_stays_shut_on_another_evaluation() -> None:
    """The completion of another evaluation ends nothing."""
    assert isinstance(_look(_wait(), (0, _seen("completed", "other")))[1], Sleep)


def test_id_in_capitals_is_the_same_evaluation() -> None:
    """UUIDs are compared without regard to case."""
    assert _look(_wait(), (0, _seen("completed", ID.upper())))[1].reason is OutcomeReason.COMPLETED


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
    """What asking again cannot mend ends the wait at the first look, in its own words."""
    _, step = _look(_wait(retry_window=None), (0, error))

    assert step == Outcome(OutcomeReason.REFUSED, error=str(error), at=T0)


def test_refusal_keeps_the_evaluation_last_seen() -> None:
    """A key that is taken away in the middle of a wait does not make the progress unseen."""
    _, step = _look(_wait(), (0, _seen()), (10, OxenAuthenticationError("401")))

    assert (step.reason, step.evaluation) == (OutcomeReason.REFUSED, _seen())


# The deadline


def test_last_look_is_at_the_deadline() -> None:
    """The sleep before the deadline ends at the deadline."""
    assert _look(_wait(), (3_597, _seen()))[1] == Sleep(3.0)


def test_completion_seen_at_the_deadline_counts() -> None:
    """The look at the deadline still opens the gate."""
    assert _look(_wait(), (3_600, _seen("completed")))[1].reason is OutcomeReason.COMPLETED


def test_deadline_ends_the_wait_with_the_evaluation_last_seen() -> None:
    """A timeout carries the deadline and how far the evaluation had come."""
    _, step = _look(_wait(), (0, _seen("queued")), (3_600, _seen("running")))

    assert step == Outcome(OutcomeReason.TIMEOUT, evaluation=_seen("running"), deadline=T0 + 3_600, at=T0 + 3_600)


@pytest.mark.parametrize("kind", [*OUTAGES, OxenRateLimitError])
def test_deadline_wins_over_an_outage(kind: type[OxenError]) -> None:
    """At the deadline a failing hub is a timeout, with the last evaluation and the last failure."""
    _, step = _look(_wait(retry_window=60.0), (3_590, _seen()), (3_595, kind("x")), (3_601, kind("down")))

    assert (step.reason, step.evaluation, step.error) == (OutcomeReason.TIMEOUT, _seen(), "down")
    assert step.deadline == T0 + 3_600


def test_outcome_before_the_deadline_does_not_carry_it() -> None:
    """A deadline is told only where it ended the wait."""
    assert _look(_wait(), (0, OxenNotFoundError("404")))[1].deadline is None


def test_timer_that_fires_early_does_not_make_a_burst() -> None:
    """A sleep is never shorter than a twentieth of a second, even just before the deadline."""
    assert _look(_wait(), (3_599.999, _seen()))[1] == Sleep(0.05)


# Failures that may pass


@pytest.mark.parametrize("kind", [*OUTAGES, OxenRateLimitError])
@pytest.mark.parametrize("retry_window", [1.0, 600.0, None])
def test_one_transient_failure_never_ends_a_wait(kind: type[OxenError], retry_window: float | None) -> None:
    """A single failure that may pass is asked about again."""
    assert isinstance(_look(_wait(retry_window=retry_window), (0, kind("x")))[1], Sleep)


@pytest.mark.parametrize("kind", OUTAGES)
def test_outage_longer_than_the_retry_window_is_unreachable(kind: type[OxenError]) -> None:
    """A hub that fails for the whole retry window is given up, in the words of the last failure."""
    _, step = _look(_wait(), (0, _seen()), (10, kind("x")), (609, kind("y")), (610, kind("z")))

    assert step == Outcome(OutcomeReason.UNREACHABLE, evaluation=_seen(), error="z", at=T0 + 610)


def test_hub_is_asked_once_more_at_the_end_of_the_retry_window() -> None:
    """The sleep before the hub would be given up ends at that moment."""
    looks = [(0, OxenServerError("x")), *[(550, OxenServerError("x"))] * 4, (595, OxenServerError("x"))]

    assert _look(_wait(), *looks)[1] == Sleep(5.0)


def test_without_a_retry_window_only_the_deadline_ends_an_outage() -> None:
    """With no retry window, a hub may be away until the deadline."""
    wait, step = _look(_wait(retry_window=None), (0, OxenServerError("x")), (3_599, OxenServerError("x")))
    assert step == Sleep(1.0)

    assert _look(wait, (3_600, OxenServerError("x")))[1].reason is OutcomeReason.TIMEOUT


def test_success_ends_an_outage() -> None:
    """An answer in between starts the retry window and the backoff anew."""
    wait, step = _look(_wait(), (0, OxenServerError("x")), (599, _seen()), (601, OxenServerError("x")))

    assert (wait.failures, wait.failing_since, step) == (1, T0 + 601, Sleep(5.0))


def test_backoff_grows_with_failures_in_a_row() -> None:
    """Each failure in a row doubles the sleep, up to the longest."""
    wait, sleeps = _wait(retry_window=None), []
    for _ in range(5):
        wait, step = wait.look(OxenServerError("x"), now=T0, jitter=1.0)
        sleeps.append(step.seconds)

    assert sleeps == [10, 20, 40, 60, 60]


# Rate limits


def test_rate_limit_does_not_count_towards_the_retry_window() -> None:
    """A hub that asks for fewer requests for hours is not unreachable."""
    limited = OxenRateLimitError("429", retry_after_seconds=30.0)
    wait, step = _look(_wait(), *[(after, limited) for after in range(0, 3_600, 100)])

    assert isinstance(step, Sleep)
    assert wait.failing_since is None


def test_rate_limit_between_failures_does_not_count_towards_the_retry_window() -> None:
    """A long pause the hub asked for is no outage, even where a failure came before and after it."""
    limited = OxenRateLimitError("429", retry_after_seconds=1_000.0)

    _, step = _look(_wait(), (0, OxenServerError("x")), (10, limited), (1_100, OxenServerError("x")))

    assert isinstance(step, Sleep)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", [OxenRateLimitError, OxenServerError])
def test_pause_the_hub_asks_for_is_kept(kind: type[OxenTransientError], jitter: float) -> None:
    """The next look comes no earlier than the hub asked for, and not much later."""
    _, step = _wait().look(kind("x", retry_after_seconds=200.0), now=T0, jitter=jitter)

    assert 200 <= step.seconds <= 220


def test_waits_told_the_same_pause_part_company() -> None:
    """Jitter spreads waits that were sent away together."""
    limited = OxenRateLimitError("429", retry_after_seconds=200.0)

    assert len({_wait().look(limited, now=T0, jitter=jitter)[1].seconds for jitter in (0.0, 0.5, 1.0)}) == 3


def test_pause_beyond_the_deadline_ends_at_the_deadline() -> None:
    """A pause does not keep a wait from its last look."""
    limited = OxenRateLimitError("429", retry_after_seconds=3_600.0)

    assert _look(_wait(), (3_500, limited))[1] == Sleep(100.0)


# What a wait remembers


def test_phase_begins_with_its_status() -> None:
    """The age of a phase is counted from the first look that saw its status."""
    wait, _ = _look(_wait(), (0, _seen("queued")), (10, _seen("running")), (20, _seen("running")))

    assert wait.history.phase_began_at == T0 + 10


def test_every_look_is_counted() -> None:
    """A wait knows how often it looked, and when last."""
    wait, _ = _look(_wait(), *[(after, _seen()) for after in range(0, 1_000, 10)])

    assert (wait.looks, wait.history.at) == (100, T0 + 990)


def test_progress_brings_the_next_look_closer() -> None:
    """Half of the estimated time left is slept."""
    looks = [(at, _seen(progress={"processed": done, "total": 1_000})) for at, done in ((0, 0), (60, 600))]

    assert _look(_wait(), *looks)[1] == Sleep(20.0)


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
LOOKS = st.lists(
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


@settings(max_examples=400, deadline=None)
@given(WAITS, LOOKS, st.floats(0, 1))
def test_every_wait_ends_once_and_opens_for_its_own_completion_only(
    wait: Wait, looks: list[tuple[Evaluation | OxenError, float]], jitter: float
) -> None:
    """Whatever the hub does, a wait ends by the first look after its deadline, and opens only for what it waits for."""
    now, count, deadline, step = T0, 0, wait.deadline, Sleep(0)
    while isinstance(step, Sleep):
        assert count == 0 or looked_at < deadline, "a look at or after the deadline did not end the wait"  # noqa: F821
        seen, late = looks[count % len(looks)]
        looked_at, count = now, count + 1
        wait, step = wait.look(seen, now=now, jitter=jitter)
        if isinstance(step, Sleep):
            assert 0 < step.seconds <= max(deadline - now, 0.0) + 0.05
            now += step.seconds + late

    opens = isinstance(seen, Evaluation) and seen.status == "completed" and seen.id.lower() == ID
    assert (step.reason is OutcomeReason.COMPLETED) is opens
    assert (step.at, wait.looks) == (looked_at, count)
    assert step.reason is not OutcomeReason.TIMEOUT or looked_at >= deadline


# Events

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
OUTCOMES = st.builds(
    Outcome,
    st.sampled_from([reason for reason in OutcomeReason if reason is not OutcomeReason.COMPLETED]),
    evaluation=st.none() | EVALUATIONS,
    error=st.none() | st.text(max_size=20),
    hub=st.none() | st.just("https://hub.oxen.ai"),
    deadline=st.none() | st.floats(0, 1e10),
    at=st.none() | st.floats(0, 1e10),
) | st.builds(Outcome, st.just(OutcomeReason.COMPLETED), evaluation=st.builds(_seen, st.just("completed")))


def _from_event(event: object) -> Outcome:
    return Outcome.from_event(event, evaluation_id=ID)


def test_event_is_plain_and_complete() -> None:
    """An event has these keys and values, which are a stored format."""
    event = Outcome(OutcomeReason.TIMEOUT, _seen(), "down", "https://hub.oxen.ai", 2.0, 3.0).to_event()

    assert event == {
        "outcome": "timeout",
        "evaluation": _seen().to_dict(),
        "error": "down",
        "hub": "https://hub.oxen.ai",
        "deadline": 2.0,
        "at": 3.0,
    }
    assert type(event["outcome"]) is str


@settings(deadline=None)
@given(OUTCOMES)
def test_event_means_the_same_after_its_passage(outcome: Outcome) -> None:
    """An outcome that crossed the database as JSON is the same outcome."""
    event = json.loads(json.dumps(outcome.to_event(), allow_nan=False))

    again = _from_event(event)

    assert again.reason is outcome.reason
    assert again.to_event() == event


@settings(max_examples=300, deadline=None)
@given(
    JSON_VALUES
    | st.fixed_dictionaries(
        {"outcome": st.sampled_from([*map(str, OutcomeReason), "new"]) | JSON_VALUES},
        optional={
            "evaluation": JSON_VALUES
            | EVALUATIONS.map(Evaluation.to_dict)
            | st.fixed_dictionaries({}, optional={"id": IDS, "status": STATUSES | JSON_VALUES, "model": JSON_VALUES}),
            **dict.fromkeys(["error", "hub", "deadline", "at", "new"], JSON_VALUES),
        },
    )
)
def test_any_event_is_an_outcome(event: object) -> None:
    """Whatever is read, an outcome comes out, and a completion only where the event holds that very evaluation's."""
    outcome = _from_event(event)

    assert outcome.reason in OutcomeReason
    if outcome.reason is OutcomeReason.COMPLETED:
        assert isinstance(event, dict)
        assert (event["outcome"], event["evaluation"]["status"]) == ("completed", "completed")
        assert event["evaluation"]["id"].lower() == ID


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
    assert _from_event(event).reason == reason


@pytest.mark.parametrize("name", ["deadline", "at"])
@pytest.mark.parametrize("value", ["soon", True, [], math.nan, math.inf, 10**400], ids=lambda value: str(value)[:5])
def test_instant_that_is_no_number_is_not_read(name: str, value: object) -> None:
    """An instant in an event is a finite number or nothing."""
    assert getattr(_from_event({"outcome": "timeout", name: value}), name) is None


def test_lost_event_says_what_came() -> None:
    """What makes no sense is told."""
    assert _from_event(None).error == "the trigger gave no event, but NoneType"
    assert _from_event({"outcome": "reborn"}).error == "the trigger gave an event of unknown outcome 'reborn'"


def test_long_error_is_cut() -> None:
    """An event's error has 2,000 characters at most."""
    assert len(_look(_wait(), (0, OxenNotFoundError("x" * 9_000)))[1].error) == 2_000


def test_only_what_may_change_is_worth_another_try() -> None:
    """A hub out of reach, a trigger lost and an ``accept`` that failed may be tried again; all else is final."""
    again = {str(reason) for reason in OutcomeReason if not Outcome(reason).is_final}
    assert again == {"unreachable", "lost", "unjudged"}


# What ``accept`` makes of an outcome


def test_accepted_evaluation_stays_completed() -> None:
    """Where all conditions return True, the outcome is the one that was."""
    outcome = Outcome(OutcomeReason.COMPLETED, _seen("completed"))

    assert outcome.judge(()) is outcome
    assert outcome.judge((lambda _: True,)) is outcome


def test_refused_evaluation_is_unaccepted_with_the_reason() -> None:
    """A condition that closes the gate makes a final outcome, which keeps the evaluation and has the reason."""
    outcome = Outcome(OutcomeReason.COMPLETED, _seen("completed")).judge((lambda _: "too short",))

    assert (outcome.reason, outcome.error, outcome.is_final) == ("unaccepted", "too short", True)
    assert outcome.evaluation == _seen("completed")


@pytest.mark.parametrize("reason", [reason for reason in OutcomeReason if reason != "completed"])
def test_only_a_completed_evaluation_is_judged(reason: OutcomeReason) -> None:
    """No condition is asked about another outcome, and none opens a gate."""
    outcome = Outcome(reason, _seen("errored"))

    assert outcome.judge((lambda _: 1 / 0,)) is outcome


def test_condition_gets_the_same_evaluation_whichever_way_it_came() -> None:
    """At the first look, the hub's document is at hand; after a deferral it is not. Conditions see no difference."""
    seen: list[Evaluation] = []
    first = Outcome(OutcomeReason.COMPLETED, _seen("completed", prompt="secret", credits_used=2, name="x" * 9_000))
    for outcome in (first, _from_event(json.loads(json.dumps(first.to_event())))):
        outcome.judge((lambda evaluation: seen.append(evaluation) or True,))

    assert seen[0].to_dict() == seen[1].to_dict()
    assert [evaluation.prompt for evaluation in seen] == [None, None]
    assert seen[0].credits_used == 2.0
