"""Every sentence that a person reads about a wait."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import OxenError, OxenRateLimitError, OxenServerError
from airflow_provider_oxen.messages import (
    describe_deferral,
    describe_duration,
    describe_outcome,
    describe_results,
    describe_step,
)
from airflow_provider_oxen.outcomes import JudgedResults
from airflow_provider_oxen.wait import Interruption, Outcome, OutcomeReason, Wait

REF = EvaluationRef("ox", "customer-intents", "e-1")
WHICH = "evaluation e-1 of ox/customer-intents"
HUB = "https://hub.oxen.ai"
SEE = f"{WHICH}, see https://www.oxen.ai/ox/customer-intents/evaluations/e-1"
T0 = 1_793_527_200.0  # 2026-11-01 10:00:00 UTC
RUN = {"started_at": "2026-11-01T09:00:00", "completed_at": "2026-11-01T09:03:20"}
#: How many characters of a line a narrow page surely shows.
SHOWN = 60
#: Line breaks, escape codes and other characters that a log or a terminal would act on, and that no text may bring in.
HOSTILE = "quota\n2026-11-01 INFO \x1b[31mexceeded\x1b[0m\r\x00\x07\x9b2J\u2028row\u202e 7\ud800"


def _seen(status: str = "running", processed: int | None = None, total: int | None = None, **fields: Any) -> Evaluation:
    return Evaluation.from_dict(
        {"id": "e-1", "status": status, "progress": {"processed": processed, "total": total}, **fields}
    )


def _lines(*results: Evaluation | OxenError, every: float = 10.0) -> list[tuple[int, str] | None]:
    wait, lines = Wait(REF, 10.0, 60.0, T0 + 3_600, 600.0), []
    for number, result in enumerate(results):
        before = wait
        wait, step = before.advance(result, now=T0 + number * every, jitter=0.0)
        lines.append(describe_step(before, wait, step, result))
    return lines


def _outcome(reason: str, evaluation: Evaluation | None = None, **named: Any) -> str:
    return describe_outcome(Outcome(OutcomeReason(reason), REF, evaluation, **{"hub": HUB, **named}))


# A line for each poll


def test_poll_is_one_line_and_none_where_nothing_changed() -> None:
    """A change of status or rows is a line with the time left; a poll that brings the same again is none."""
    results = [_seen("queued"), _seen("queued"), *[_seen(processed=n, total=1_200) for n in (100, 100, 300)]]

    assert _lines(*results) == [
        (logging.INFO, f"Queued: {WHICH}."),
        None,
        (logging.INFO, f"8.3 % (100 of 1,200 rows): {WHICH} is running."),
        None,
        (logging.INFO, f"25.0 %, 1 min 30 s left (300 of 1,200 rows): {WHICH} is running."),
    ]


def test_time_left_is_shown_where_a_later_poll_lacks_the_total() -> None:
    """The total that an earlier poll brought still counts for the time left."""
    results = [_seen(processed=100, total=1_200), _seen(processed=300, total=1_200), _seen(processed=500)]

    assert _lines(*results)[-1] == (logging.INFO, f"500 rows, 35 s left: {WHICH} is running.")


def test_failed_poll_is_a_warning_with_the_next_poll() -> None:
    """A failure is a line with its cause first, then its number, its class, and when the next poll is."""
    (line,) = _lines(OxenServerError("503: busy.", request="GET /x", request_id="r-1"))

    assert line == (
        logging.WARNING,
        "503: busy (GET /x, request id r-1); poll 1 failed (OxenServerError), next in 5 s.",
    )


def test_every_failed_poll_is_shown() -> None:
    """A failure that repeats is a line each time, with its number."""
    lines = _lines(*[OxenRateLimitError("429", retry_after_seconds=30.0)] * 3, every=40)

    assert [re.findall("poll . failed", line[1]) if line else [] for line in lines] == [
        [f"poll {n} failed"] for n in (1, 2, 3)
    ]


def test_recovery_is_shown_though_nothing_changed() -> None:
    """After a failure there is a line about the evaluation, even where it is as before."""
    lines = _lines(_seen("queued"), OxenServerError("x"), _seen("queued"), _seen("queued"))

    assert lines[2:] == [(logging.INFO, f"Queued: {WHICH}."), None]


def test_unknown_status_is_a_warning_once() -> None:
    """A status this version does not know is one warning; further progress under it is plain information."""
    lines = _lines(
        _seen(), _seen("paused"), _seen("paused"), _seen("paused", 5, 10), OxenServerError("x"), _seen("paused"),
        _seen(), _seen("paused")
    )  # fmt: skip

    assert [line and line[0] for line in lines] == [
        logging.INFO,
        logging.WARNING,
        None,
        logging.INFO,
        logging.WARNING,
        logging.INFO,
        logging.INFO,
        logging.INFO,
    ]
    assert lines[1][1] == f"Unknown status 'paused', only 'completed' opens the gate: still waiting for {WHICH}."


def test_end_of_a_wait_is_not_the_line_of_a_poll() -> None:
    """An outcome has its own sentence."""
    assert _lines(_seen("completed")) == [None]


@pytest.mark.parametrize(
    ("status", "progress", "shown"),
    [
        ("running", (None, None), f"Running: {WHICH}."),
        ("running", (0, None), f"Running: {WHICH}."),
        ("running", (0, 0), f"Running: {WHICH}."),
        ("running", (7, None), f"7 rows: {WHICH} is running."),
        ("running", (1_200, 0), f"1,200 rows: {WHICH} is running."),
        ("running", (0, 40), f"0.0 % (0 of 40 rows): {WHICH} is running."),
        ("running", (99_999, 100_000), f"99.9 % (99,999 of 100,000 rows): {WHICH} is running."),
        ("running", (40, 40), f"100.0 % (40 of 40 rows): {WHICH} is running."),
        ("queued", (0, 12_000), f"Queued, 0 of 12,000 rows (0.0 %): {WHICH}."),
        ("committing", (12_000, 12_000), f"Committing, 12,000 of 12,000 rows (100.0 %): {WHICH}."),
    ],
)
def test_progress_comes_first_as_far_as_it_is_known(
    status: str, progress: tuple[int | None, int | None], shown: str
) -> None:
    """A line begins with the share or the rows, as far as they are known; 100.0 % is kept for when all are done."""
    assert _lines(_seen(status, *progress)) == [(logging.INFO, shown)]


def test_deferral_says_that_the_worker_is_free() -> None:
    """A task that defers says where it waits, and for what."""
    wait = Wait(REF, 10.0, 60.0, T0 + 3_600, 600.0)
    line = describe_deferral(wait)

    assert "until 2026-11-01 11:00:00 UTC" in line[:SHOWN]
    assert line == (
        "Waiting in the triggerer until 2026-11-01 11:00:00 UTC at most. It must run, and polls at once: "
        f"{WHICH}. This worker is free."
    )


def test_deferral_says_when_the_triggerer_polls() -> None:
    """What the worker has just seen is polled again after one to two poke intervals."""
    wait, _ = Wait(REF, 10.0, 60.0, T0 + 3_600, 600.0).advance(_seen("running", 5, 90), now=T0, jitter=0.5)

    assert " at most. It must run, and polls within 20 s: " in describe_deferral(wait)
    assert "It must run, and polls within 15 s: " in describe_deferral(wait._replace(max_wait=15.0))
    assert "It must run, and polls within 5 s: " in describe_deferral(wait._replace(deadline=T0 + 5))


def test_standstill_is_shown_now_and_then() -> None:
    """An evaluation that stands still for six hours has a line each half hour, and no more."""
    wait = Wait(REF, 10.0, 60.0, T0 + 86_400, 600.0)
    seen, lines, now = _seen("running", 5, 90), [], T0
    while now < T0 + 6 * 3_600 + 60:
        after, step = wait.advance(seen, now=now, jitter=0.5)
        lines.append(describe_step(wait, after, step, seen))
        wait, now = after, now + step.seconds

    shown = [line for line in lines[1:] if line is not None]
    assert len(lines) > 300
    assert len(shown) == 12
    assert shown[0][0] == logging.INFO
    assert re.fullmatch(
        rf"Still running, 5 of 90 rows \(5.6 %\), unchanged for 30 min( \d+ s)?: {re.escape(WHICH)}. "
        "Times out at 2026-11-02 10:00:00 UTC.",
        shown[0][1],
    )


def test_trigger_that_reported_nothing_points_to_the_triggerer() -> None:
    """Where Airflow itself ended the trigger in time, the message asks whether a triggerer is running."""
    outcome = Outcome(
        OutcomeReason.TIMEOUT,
        REF,
        evaluation=_seen("running", 5, 90),
        error="503",
        interruption=Interruption.TRIGGER_TIMEOUT,
    )

    assert describe_outcome(outcome) == (
        "Timed out: 5 of 90 rows (5.6 %), running, when last seen; it had not ended by the task's deadline; no "
        f"triggerer reported: is one running?; last failure: 503, {WHICH}."
    )


def test_refusal_after_it_was_seen_says_what_was_last_seen() -> None:
    """An evaluation that is gone was there before: how far it had come is shown."""
    shown = describe_outcome(Outcome(OutcomeReason.REFUSED, REF, evaluation=_seen("running", 5, 90), error="404"))

    assert shown == f"Stopped waiting: 404; last seen running, 5 of 90 rows (5.6 %), {WHICH}."


# How a wait ended


def test_completed() -> None:
    """A completion shows the rows that were processed, and how long the evaluation ran."""
    assert _outcome("completed", _seen("completed", 1_200, 1_200, **RUN)) == (
        f"Evaluation completed (1,200 of 1,200 rows after 3 min 20 s), {SEE}"
    )


def test_errored() -> None:
    """A failure shows the hub's reason, the rows done, and how long it had run until it was seen."""
    evaluation = _seen("errored", 700, 1_200, started_at=RUN["started_at"], error_message="model quota exceeded")

    assert _outcome("errored", evaluation, at=T0) == (
        f"Evaluation errored: model quota exceeded (700 of 1,200 rows after about 1 h), {SEE}"
    )


def test_errored_without_a_reason() -> None:
    """Where the hub gives no reason, the message says so."""
    assert _outcome("errored", _seen("errored")) == f"Evaluation errored: the hub gives no error message, {SEE}"


def test_cancelled() -> None:
    """A cancellation shows rows, time, and the hub's words where it has any."""
    evaluation = _seen("cancelled", 3, None, started_at=RUN["started_at"], cancelled_at="2026-11-01T11:05:00")

    assert _outcome("cancelled", evaluation) == f"Evaluation cancelled (3 rows after 2 h 5 min), {SEE}"
    assert _outcome("cancelled", _seen("cancelled", error_message="by Bo!")) == f"Evaluation cancelled: by Bo!, {SEE}"


def test_timeout() -> None:
    """A timeout shows the deadline, the last status and progress, and the last failure."""
    shown = _outcome("timeout", _seen("running", 700, 1_200), deadline=T0, at=T0, error="503: busy.")

    assert shown == (
        "Timed out: 700 of 1,200 rows (58.3 %), running, when last seen; it had not ended by 2026-11-01 10:00:00 UTC, "
        f"the task's deadline; last failure: 503: busy, {SEE}"
    )


@pytest.mark.parametrize("deadline", [1e300, 1e17, -1e12])
def test_deadline_beyond_the_calendar_is_shown_without_a_date(deadline: float) -> None:
    """A deadline that no calendar has does not keep a timeout from being described."""
    assert _outcome("timeout", deadline=deadline).startswith("Timed out: the evaluation was never seen by ")


def test_timeout_of_an_evaluation_never_seen() -> None:
    """A wait in which no poll succeeded says so."""
    assert _outcome("timeout", deadline=T0, error="down") == (
        "Timed out: the evaluation was never seen by 2026-11-01 10:00:00 UTC, the task's deadline; last failure: down, "
        + SEE
    )


def test_timeout_of_an_evaluation_whose_rows_are_not_known() -> None:
    """Where the hub gives no rows, the status comes first."""
    assert _outcome("timeout", _seen("queued"), deadline=T0).startswith(
        "Timed out: queued when last seen; it had not ended by "
    )


def test_refused() -> None:
    """A refusal has the words of the error."""
    assert _outcome("refused", error="401: the API key is not accepted (GET /x)") == (
        f"Stopped waiting: 401: the API key is not accepted (GET /x), {SEE}"
    )


def test_unreachable() -> None:
    """A hub out of reach is shown with the argument that ended the wait, the last failure and the last evaluation."""
    assert _outcome("unreachable", _seen("queued"), error="connection refused.") == (
        f"Hub out of reach for longer than retry_window: connection refused; last seen queued, {SEE}"
    )


def test_results_that_could_not_be_read() -> None:
    """The evaluation was not out of reach: it completed, and its results were."""
    assert _outcome("unreachable", _seen("completed", 9, 9, **RUN), error="503: busy.") == (
        "Results could not be read for longer than retry_window: 503: busy; evaluation completed "
        f"(9 of 9 rows after 3 min 20 s), {SEE}"
    )


@pytest.mark.parametrize(
    ("rows", "of", "shown"),
    [
        (94_996, 100_000, "94.99 %"),  # and not 95 %, which may be the limit
        (94_999_999, 100_000_000, "94.99 %"),
        (8_412, 10_000, "84.12 %"),
        (57, 100, "57.00 %"),
        (99_999_999, 100_000_000, "99.99 %"),
        (100, 100, "100.00 %"),
        (0, 100, "0.00 %"),
    ],
)
def test_share_that_was_measured_is_never_rounded_up(rows: int, of: int, shown: str) -> None:
    """A share below a limit is not shown as one that meets it."""
    fact = {"condition": "intent = label", "share": rows / of, "rows": rows, "of": of, "holds": False}

    line = describe_results(JudgedResults("a.csv", "c1", of, (fact,)))

    assert line == f"Checked {of:,} rows: intent = label: {rows:,} of {of:,} ({shown}) (a.csv at c1)"


def test_all_that_was_measured_is_shown() -> None:
    """The line ends with the file, however many conditions there are."""
    facts = [{"condition": "x" * 80, "share": 1.0, "rows": 9, "of": 9, "holds": True}] * 15

    assert describe_results(JudgedResults("a.csv", "c1", 9, tuple(facts))).endswith(" (a.csv at c1)")


def test_condition_not_met() -> None:
    """A completed evaluation that does not meet a condition is shown with the reason."""
    assert _outcome("condition_not_met", _seen("completed", 9, 10, **RUN), error="9 of 10 rows were processed") == (
        "Condition not met: 9 of 10 rows were processed; evaluation completed (9 of 10 rows after 3 min 20 s), " + SEE
    )


def test_all_that_is_not_met_is_shown() -> None:
    """The message of conditions that are not met is longer than others: each has its numbers."""
    reasons = "; ".join(f"condition {number} holds for {'x' * 90} rows" for number in range(15))

    shown = _outcome("condition_not_met", _seen("completed"), error=f"{reasons}\n{'y' * 9_000}")

    assert shown.startswith(f"Condition not met: {reasons}")
    assert len(shown) < 2_300
    assert shown.isprintable()


def test_condition_failed() -> None:
    """A condition that raised is shown with its error."""
    assert _outcome("condition_failed", _seen("completed"), error="KeyError: 'x'") == (
        f"Condition could not be checked: KeyError: 'x'; evaluation completed, {SEE}"
    )


def test_lost() -> None:
    """A trigger that ended without a result says so, and that the gate stays closed."""
    assert _outcome("lost", error="no event", hub=None) == (f"No result: no event. The gate stays closed, {WHICH}.")


# What matters comes first


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("completed", "700 of 1,200 rows after 3 min 20 s"),
        ("errored", "model quota exceeded"),
        ("cancelled", "model quota exceeded"),
        ("condition_not_met", "CAUSE"),
        ("condition_failed", "CAUSE"),
        ("timeout", "700 of 1,200 rows (58.3 %), running"),
        ("refused", "CAUSE"),
        ("unreachable", "CAUSE"),
        ("not_the_hub", "CAUSE"),
        ("lost", "CAUSE"),
    ],
)
def test_cause_or_progress_is_at_the_beginning(reason: str, shown: str) -> None:
    """A narrow page, which cuts a line at its width, still shows why a wait ended, or how far the evaluation came."""
    status = reason if reason in ("completed", "errored", "cancelled") else "running"
    evaluation = _seen(status, 700, 1_200, error_message="model quota exceeded", **RUN)

    text = _outcome(reason, evaluation, deadline=T0, at=T0, error="CAUSE, and a long story after it")

    assert shown in text[:SHOWN]
    assert text.index(shown) < text.index(WHICH)


def test_every_reason_is_checked_for_its_beginning() -> None:
    """A reason that is added has to be added to the test above."""
    (parameters,) = test_cause_or_progress_is_at_the_beginning.pytestmark

    assert {reason for reason, _ in parameters.args[1]} == set(map(str, OutcomeReason))


# Where to look


@pytest.mark.parametrize("reason", OutcomeReason)
def test_every_outcome_on_the_public_hub_links_to_the_page_of_the_evaluation(reason: OutcomeReason) -> None:
    """On the public hub, a message ends with the address of the evaluation's own page."""
    assert _outcome(reason).endswith(f", {SEE}")


@pytest.mark.parametrize("reason", [reason for reason in OutcomeReason if reason != "completed"])
def test_every_failure_on_another_hub_ends_with_its_address(reason: OutcomeReason) -> None:
    """Any end but a completion says which hub it was, where the pages of that are not known."""
    assert _outcome(reason, hub="http://localhost:8080").endswith(f", {WHICH}, hub http://localhost:8080")


def test_completion_on_another_hub_needs_no_address() -> None:
    """A completion on another hub ends with the evaluation."""
    assert _outcome("completed", _seen("completed"), hub="http://localhost:8080") == f"Evaluation completed, {WHICH}."


@pytest.mark.parametrize("reason", OutcomeReason)
def test_outcome_of_which_nothing_is_known_is_still_a_sentence(reason: OutcomeReason) -> None:
    """An outcome may lack everything but its reason: what is missing is not shown as ``None``."""
    shown = describe_outcome(Outcome(reason, REF))

    assert "None" not in shown
    assert shown.endswith(f", {WHICH}.")


# One printable line


@pytest.mark.parametrize("reason", OutcomeReason)
def test_no_text_breaks_the_line_of_an_outcome(reason: OutcomeReason) -> None:
    """Line breaks, escape codes and control characters in any text do not reach a log, and the words stay."""
    status = str(reason) if reason in ("completed", "errored", "cancelled") else HOSTILE
    shown = describe_outcome(
        Outcome(
            reason,
            EvaluationRef(HOSTILE, HOSTILE, HOSTILE),
            _seen(status, 1, 2, error_message=HOSTILE),
            error=HOSTILE,
            hub=f"http://{HOSTILE}",
            deadline=T0,
        )
    )

    assert shown.isprintable()
    assert "quota 2026-11-01 INFO [31mexceeded [0m 2J row 7" in shown


@pytest.mark.parametrize("result", [_seen(HOSTILE, 1, 2), OxenServerError(HOSTILE, hub_message=HOSTILE)], ids=type)
def test_no_text_breaks_the_line_of_a_poll(result: Evaluation | OxenError) -> None:
    """The same holds for an unknown status, for progress under it, and for the words of a failure."""
    progress = [result] if isinstance(result, OxenError) else [result, _seen(HOSTILE, 2, 2)]

    lines = [line for line in _lines(*progress) if line is not None]

    assert len(lines) == len(progress)
    for _, line in lines:
        assert line.isprintable()
        assert "[31mexceeded" in line.lower()


@pytest.mark.parametrize("status", ["completed ", "completed\n", "\N{CYRILLIC SMALL LETTER ES}ompleted"])
def test_unknown_status_that_looks_like_the_right_one_is_shown_as_it_is(status: str) -> None:
    """White space around a status, which a line of log would hide, is in the warning."""
    ((_, line),) = _lines(_seen(status))

    assert line.startswith(f"Unknown status {status!r}, only 'completed' opens the gate: ")


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=200)
@given(
    st.sampled_from(OutcomeReason),
    st.fixed_dictionaries(dict.fromkeys(["error", "hub", "deadline", "at"], ODD)),
    st.dictionaries(st.sampled_from(["started_at", "inserted_at", "completed_at"]), st.datetimes().map(str)),
    st.text(max_size=5),
)
def test_any_event_can_be_described(
    reason: OutcomeReason, fields: dict[str, object], moments: dict[str, str], message: str
) -> None:
    """Whatever an event holds, its outcome has a sentence, on one printable line."""
    status = str(reason) if reason in ("completed", "errored", "cancelled") else "running"
    evaluation = {"id": "e-1", "status": status, "error_message": message, **moments}
    names = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": "e-1"}
    event = {"outcome": str(reason), **names, "evaluation": evaluation, **fields}

    shown = describe_outcome(Outcome.from_event(event, otherwise=EvaluationRef("a", "b", "c")))

    assert WHICH in shown
    assert shown.isprintable()


# Durations


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.05, "0.1 s"),
        (5, "5 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (3_661, "1 h 1 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_duration_is_written_in_its_two_largest_units(seconds: float, shown: str) -> None:
    """A duration is short to read; below ten seconds it has a decimal."""
    assert describe_duration(seconds) == shown
