"""
Every sentence that a person reads about a wait. What happened is decided in ``wait``; here it is put into words.

What matters comes first, because Airflow's page cuts a line at its width: the progress or the cause, then which
evaluation, then where to look.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from airflow_provider_oxen.evaluations import Evaluation, EvaluationStatus
from airflow_provider_oxen.exceptions import OxenError
from airflow_provider_oxen.links.addresses import evaluation_url
from airflow_provider_oxen.outcomes import MAX_ERROR_TEXT, JudgedResults
from airflow_provider_oxen.polling import seconds_left
from airflow_provider_oxen.redaction import one_line
from airflow_provider_oxen.wait import Interruption, Outcome, OutcomeReason, Sleep, Step, Wait

__all__ = ["describe_deferral", "describe_duration", "describe_outcome", "describe_results", "describe_step"]

#: How often a line says that nothing has changed, in seconds.
_STANDSTILL_SECONDS = 1_800.0


def describe_step(before: Wait, after: Wait, step: Step, result: Evaluation | OxenError) -> tuple[int, str] | None:
    """
    Describe one poll in one line of log; None where nothing changed.

    :param before: the wait before the poll.
    :param after: the wait after it.
    :param step: what was decided. An :class:`Outcome` has its own sentence, :func:`describe_outcome`.
    :param result: what the poll brought: the evaluation, or why there is none.
    :return: logging level and line.
    """
    if not isinstance(step, Sleep):
        return None
    if not isinstance(result, Evaluation):
        again = describe_duration(step.seconds)
        return logging.WARNING, _sentence(
            f"{_phrase(str(result))}; poll {after.polls} failed ({type(result).__name__}), next in {again}"
        )
    last, recovered = before.evaluation, before.failures > 0
    if last is not None and not recovered and (result.status, result.progress) == (last.status, last.progress):
        return _describe_standstill(before, after, result)
    if result.status in after.unknown_statuses - before.unknown_statuses:
        return logging.WARNING, (
            f"Unknown status {str(result.status)[:80]!r}, only 'completed' opens the gate: still waiting for "
            f"{after.ref}."
        )
    left = None if after.history is None else seconds_left(after.history)
    eta = "" if left is None else f", {describe_duration(math.ceil(left))} left"
    rows, share = _count_rows(result), result.progress.fraction
    if result.status == EvaluationStatus.RUNNING and rows:
        # Beside the graph of a DAG, Airflow's page has room for the first 13 characters.
        begin = f"{rows}{eta}" if share is None else f"{_format_share(share)}{eta} ({rows})"
        return logging.INFO, f"{begin}: {after.ref} is running."
    return logging.INFO, f"{_describe_state(result).capitalize()}{eta}: {after.ref}."


def describe_deferral(wait: Wait) -> str:
    """Say that the wait goes on in the triggerer, when the task times out, what has to run, and when it polls next."""
    polls = "at once"
    if wait.seen_at is not None:
        within = min(2 * wait.poke_interval, wait.max_wait, max(wait.deadline - wait.seen_at, 0.0))
        polls = f"within {describe_duration(within)}"
    return (
        f"Waiting in the triggerer until {_format_instant(wait.deadline)} at most. It must run, and polls {polls}: "
        f"{one_line(str(wait.ref))}. This worker is free."
    )


def describe_outcome(outcome: Outcome) -> str:
    """Say how a wait ended, why, how far the evaluation came, which it was, and where to look."""
    evaluation = outcome.evaluation
    match outcome.reason:
        case OutcomeReason.COMPLETED:
            text = f"Evaluation completed{_describe_run(outcome)}"
        case OutcomeReason.ERRORED:
            why = evaluation.error_message if evaluation is not None else None
            text = f"Evaluation errored: {_phrase(why or 'the hub gives no error message')}{_describe_run(outcome)}"
        case OutcomeReason.CANCELLED:
            why = evaluation.error_message if evaluation is not None else None
            text = f"Evaluation cancelled{': ' + _phrase(why) if why else ''}{_describe_run(outcome)}"
        case OutcomeReason.CONDITION_NOT_MET:
            why = _phrase(outcome.error, MAX_ERROR_TEXT)  # of each condition that is not met
            text = f"Condition not met: {why}; evaluation completed{_describe_run(outcome)}"
        case OutcomeReason.CONDITION_FAILED:
            text = (
                f"Condition could not be checked: {_phrase(outcome.error)}; evaluation completed"
                f"{_describe_run(outcome)}"
            )
        case OutcomeReason.TIMEOUT:
            text = _describe_timeout(outcome)
        case OutcomeReason.REFUSED if evaluation is not None and evaluation.status == EvaluationStatus.COMPLETED:
            why = _phrase(outcome.error)
            text = f"Conditions not checked, a file cannot be read: {why}; evaluation completed{_describe_run(outcome)}"
        case OutcomeReason.REFUSED | OutcomeReason.NOT_THE_HUB:
            text = f"Stopped waiting: {_phrase(outcome.error)}{_and_last(evaluation)}"
        case OutcomeReason.UNREACHABLE if evaluation is not None and evaluation.status == EvaluationStatus.COMPLETED:
            why = _phrase(outcome.error)
            text = (
                f"Results could not be read for longer than retry_window: {why}; evaluation completed"
                f"{_describe_run(outcome)}"
            )
        case OutcomeReason.UNREACHABLE:
            why, last = _phrase(outcome.error), _describe_last(evaluation)
            text = f"Hub out of reach for longer than retry_window: {why}; {last}"
        case OutcomeReason.LOST:
            text = f"No result: {_sentence(_phrase(outcome.error))} The gate stays closed{_and_last(evaluation)}"
    return f"{text}, {one_line(str(outcome.ref))}{_describe_place(outcome)}"


def describe_duration(seconds: float) -> str:
    """Write a duration in its two largest units, for instance ``3 min 20 s``; below 10 s with a decimal."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    for size, large, small_size, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {large} {rest} {small}" if rest else f"{whole // size} {large}"
    return f"{whole} s"


def describe_results(results: JudgedResults) -> str:
    """Say what the conditions on rows measured, whether they hold or not."""
    measured = "; ".join(_describe_condition(each) for each in results.conditions)
    rows = "no rows" if results.rows is None else f"{results.rows:,} rows"
    return one_line(f"Checked {rows}: {measured} ({results.path} at {results.version})", MAX_ERROR_TEXT)


def _describe_condition(measured: Mapping[str, Any]) -> str:
    share, rows, of = (measured[name] for name in ("share", "rows", "of"))
    if share is not None and rows is not None and of:
        # Rounded down: a share below a limit must not look like one that meets it.
        return f"{measured['condition']}: {rows:,} of {of:,} ({rows * 10_000 // of / 100:.2f} %)"
    return f"{measured['condition']}: {'met' if measured['holds'] else 'not met'}"


def _describe_standstill(before: Wait, after: Wait, seen: Evaluation) -> tuple[int, str] | None:
    """Say now and then that nothing has changed; None between."""
    if before.history is None or after.history is None:
        return None
    since = after.history.moved_at
    if (before.history.at - since) // _STANDSTILL_SECONDS == (after.history.at - since) // _STANDSTILL_SECONDS:
        return None
    return logging.INFO, (
        f"Still {_describe_state(seen)}, unchanged for {describe_duration(after.history.at - since)}: "
        f"{one_line(str(after.ref))}. Times out at {_format_instant(after.deadline)}."
    )


def _count_rows(evaluation: Evaluation) -> str:
    """Write the rows, for instance ``120 of 1,000 rows``; nothing where they are not known."""
    processed, total = evaluation.progress.processed, evaluation.progress.total
    if evaluation.progress.fraction is not None:
        return f"{processed:,} of {total:,} rows"
    return f"{processed:,} rows" if processed else ""


def _describe_rows(evaluation: Evaluation) -> str:
    """Write the rows and their share, for instance ``120 of 1,000 rows (12.0 %)``; nothing where they are not known."""
    share = evaluation.progress.fraction
    return _count_rows(evaluation) + ("" if share is None else f" ({_format_share(share)})")


def _describe_state(evaluation: Evaluation) -> str:
    """Write status and rows, for instance ``committing, 1,000 of 1,000 rows (100.0 %)``."""
    rows = _describe_rows(evaluation)
    return one_line(str(evaluation.status)) + (f", {rows}" if rows else "")


def _describe_last(evaluation: Evaluation | None) -> str:
    return "never seen" if evaluation is None else f"last seen {_describe_state(evaluation)}"


def _and_last(evaluation: Evaluation | None) -> str:
    return "" if evaluation is None else f"; {_describe_last(evaluation)}"


def _describe_timeout(outcome: Outcome) -> str:
    at = "the task's deadline"
    by = at if outcome.deadline is None else f"{_format_instant(outcome.deadline)}, {at}"
    if outcome.evaluation is None:
        text = f"Timed out: the evaluation was never seen by {by}"
    else:
        status, rows = one_line(str(outcome.evaluation.status)), _describe_rows(outcome.evaluation)
        seen = f"{rows}, {status}, when last seen" if rows else f"{status} when last seen"
        text = f"Timed out: {seen}; it had not ended by {by}"
    if outcome.interruption is Interruption.TRIGGER_TIMEOUT:
        text = f"{text}; no triggerer reported: is one running?"
    return f"{text}; last failure: {_phrase(outcome.error)}" if outcome.error else text


def _describe_run(outcome: Outcome) -> str:
    """Write how far a run came and how long it took, for instance `` (600 of 1,000 rows after 13 s)``."""
    evaluation = outcome.evaluation
    if evaluation is None:
        return ""
    processed, total = evaluation.progress.processed, evaluation.progress.total
    rows = "" if processed is None else f"{processed:,} of {total:,} rows" if total else f"{processed:,} rows"
    took = _describe_time_taken(evaluation, outcome.at)
    shown = " ".join(part for part in (rows, took) if part)
    return f" ({shown})" if shown else ""


def _describe_time_taken(evaluation: Evaluation, ended_at: float | None) -> str:
    """Write how long an evaluation ran: by the hub's clock, or, where it gives no end, until the end was seen."""
    if (seconds := evaluation.ran_for_seconds) is not None:
        return f"after {describe_duration(seconds)}"
    began = evaluation.started_at or evaluation.inserted_at
    if not evaluation.is_terminal or began is None or ended_at is None or ended_at < began.timestamp():
        return ""
    return f"after about {describe_duration(ended_at - began.timestamp())}"


def _describe_place(outcome: Outcome) -> str:
    """Say where to look, and end the sentence; a link ends it without a full stop."""
    url = evaluation_url(outcome.ref, outcome.hub)
    if url is None and outcome.hub is not None and outcome.reason is not OutcomeReason.COMPLETED:
        return f", hub {one_line(outcome.hub)}"
    return "." if url is None else f", see {url}"


def _phrase(text: str | None, limit: int = 500) -> str:
    """Fit a text of the hub's, of a library's or of a user's into a sentence: one line, no full stop at its end."""
    return one_line(text or "", limit).rstrip(". ") or "no reason was given"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _format_share(fraction: float) -> str:
    """Write a share; 100.0 % is kept for what is whole."""
    return f"{min(fraction * 100, 99.9 if fraction < 1 else 100.0):.1f} %"


def _format_instant(epoch_seconds: float) -> str:
    try:
        return datetime.fromtimestamp(epoch_seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "a time beyond the calendar"
