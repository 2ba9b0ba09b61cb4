"""Every sentence a person reads about a wait. What happened is decided in ``wait``; here it is put into words."""

from __future__ import annotations

import logging
import math
from datetime import datetime, timezone

from airflow_provider_oxen.exceptions import OxenError
from airflow_provider_oxen.models import Evaluation, EvaluationRef
from airflow_provider_oxen.polling import seconds_left
from airflow_provider_oxen.wait import Outcome, OutcomeReason, Sleep, Step, Wait

__all__ = [
    "describe_duration",
    "describe_outcome",
    "describe_progress",
    "describe_step",
    "repository_url",
    "results_url",
    "source_url",
]

#: The host whose repositories people open at ``www.oxen.ai``. Where other hubs show theirs is not known.
_PUBLIC_HUB = "https://hub.oxen.ai"


def describe_step(
    ref: EvaluationRef, before: Wait, after: Wait, step: Step, seen: Evaluation | OxenError
) -> tuple[int, str] | None:
    """
    Put one look into one line of log, or None where nothing moved.

    :param before: the wait before the look.
    :param after: the wait after it.
    :param step: what was decided. An :class:`Outcome` has its own sentence, :func:`describe_outcome`.
    :param seen: what the look brought: the evaluation, or why there is none.
    :return: logging level and line.
    """
    if not isinstance(step, Sleep):
        return None
    if not isinstance(seen, Evaluation):
        line = _sentence(f"Look {after.looks} failed ({type(seen).__name__}): {seen}")
        return logging.WARNING, f"{line} Asking again in {describe_duration(step.seconds)}."
    now, then = seen, before.evaluation
    recovered = before.failures > 0
    if then is not None and not recovered and (now.status, now.progress) == (then.status, then.progress):
        return None
    if now.status in after.unknown_statuses - before.unknown_statuses:
        return logging.WARNING, (
            f"{_capital(ref)} has the status {now.status!r}, which this version does not know. Waiting on: only "
            "'completed' opens the gate."
        )
    left = None if after.history is None else seconds_left(after.history)
    eta = "" if left is None else f", about {describe_duration(math.ceil(left))} left"
    return logging.INFO, f"{_capital(ref)} is {describe_progress(now)}{eta}."


def describe_progress(evaluation: Evaluation) -> str:
    """Say status and rows, for instance ``running: 120 of 1,000 rows (12.0 %)``."""
    processed, total = evaluation.progress.processed, evaluation.progress.total
    fraction = evaluation.progress.fraction
    if fraction is not None:
        return f"{evaluation.status}: {processed:,} of {total:,} rows ({_percent(fraction)})"
    if processed:
        return f"{evaluation.status}: {processed:,} rows"
    return str(evaluation.status)


def describe_outcome(ref: EvaluationRef, outcome: Outcome) -> str:
    """Say how a wait ended, why, how far the evaluation came, and where to look."""
    evaluation = outcome.evaluation
    rows = _rows(evaluation)
    ran = _ran_for(evaluation, outcome.at)
    match outcome.reason:
        case OutcomeReason.COMPLETED:
            text = f"{_capital(ref)} completed{ran}{rows}."
        case OutcomeReason.ERRORED:
            told = evaluation.error_message if evaluation is not None else None
            text = f"{_capital(ref)} errored{ran}{rows}: {told or 'the hub gives no error message'}"
        case OutcomeReason.CANCELLED:
            told = evaluation.error_message if evaluation is not None else None
            text = f"{_capital(ref)} was cancelled{ran}{rows}{': ' + told if told else ''}"
        case OutcomeReason.UNACCEPTED:
            text = f"{_capital(ref)} completed{ran}{rows}, but accept closes the gate: {outcome.error or 'no reason'}"
        case OutcomeReason.UNJUDGED:
            why = outcome.error or "nobody knows why"
            text = f"{_capital(ref)} completed{ran}{rows}, but accept failed, so the gate stays shut: {why}"
        case OutcomeReason.TIMEOUT:
            by = "" if outcome.deadline is None else f" by {_instant(outcome.deadline)}"
            text = f"Timed out: {ref} had not ended{by}, the deadline of the task. {_last_seen(evaluation)}"
        case OutcomeReason.REFUSED:
            text = f"Cannot wait for {ref}: {outcome.error or 'the reason was not told'}"
        case OutcomeReason.UNREACHABLE:
            text = (
                f"Gave up on {ref}: the hub could not be asked for longer than retry_window. {_last_seen(evaluation)}"
            )
        case OutcomeReason.LOST:
            why = outcome.error or "nobody knows why"
            text = f"The wait for {ref} ended without a result, so the gate stays shut: {why}"
    if outcome.error and outcome.reason in (OutcomeReason.TIMEOUT, OutcomeReason.UNREACHABLE):
        text = f"{text} Last failure: {outcome.error}"
    return f"{_sentence(text)} {_where(ref, outcome)}".rstrip()


def describe_duration(seconds: float) -> str:
    """Say a duration in its two largest units, for instance ``3 min 20 s``; below 10 s with a decimal."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    whole = round(seconds)
    for size, large, small_size, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {large} {rest} {small}" if rest else f"{whole // size} {large}"
    return f"{whole} s"


def repository_url(ref: EvaluationRef, hub: str | None) -> str | None:
    """Give the address at which a person finds the repository; None for a hub whose pages are not known."""
    if hub != _PUBLIC_HUB:
        return None
    from urllib.parse import quote

    return f"https://www.oxen.ai/{quote(ref.namespace, safe='')}/{quote(ref.repo_name, safe='')}"


def source_url(ref: EvaluationRef, evaluation: Evaluation, hub: str | None) -> str | None:
    """
    Give the address at which a person finds the rows that are evaluated, at the version that is.

    None where the hub does not tell both, and for a hub whose pages are not known.
    """
    resource = evaluation.resource or {}
    return _file_url(ref, hub, resource.get("version"), resource.get("path"))


def results_url(ref: EvaluationRef, evaluation: Evaluation, hub: str | None) -> str | None:
    """Give the address at which a person finds the results, at the target branch. None as for :func:`source_url`."""
    return _file_url(ref, hub, evaluation.target_branch, evaluation.target_path)


def _file_url(ref: EvaluationRef, hub: str | None, version: str | None, path: str | None) -> str | None:
    """
    Write the address of a file.

    The hub's texts are checked, as they end up in a link: none may lead out of the repository.
    Source: oxen.ai's own links, ``https://www.oxen.ai/{namespace}/{repo_name}/file/{branch_or_commit}/{path}``.
    """
    repository = repository_url(ref, hub)
    steps = (path or "").strip("/").split("/")
    if repository is None or any(step in ("", ".", "..") for step in (version or "", *steps)):
        return None
    from urllib.parse import quote

    place = "/".join(quote(step, safe="") for step in (str(version), *steps))
    return f"{repository}/file/{place}"


def _where(ref: EvaluationRef, outcome: Outcome) -> str:
    if outcome.reason is OutcomeReason.COMPLETED or outcome.hub is None:
        return ""
    url = repository_url(ref, outcome.hub)
    return f"See {url}" if url else f"Hub: {outcome.hub}"


def _last_seen(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "It was never seen."
    return f"Last seen {describe_progress(evaluation)}."


def _rows(evaluation: Evaluation | None) -> str:
    if evaluation is None or evaluation.progress.processed is None:
        return ""
    processed, total = evaluation.progress.processed, evaluation.progress.total
    return f", {processed:,} of {total:,} rows done" if total else f", {processed:,} rows done"


def _ran_for(evaluation: Evaluation | None, ended_at: float | None) -> str:
    """Say how long an evaluation ran: by the hub's clock, or, where it gives no end, until the end was seen."""
    if evaluation is None:
        return ""
    if evaluation.ran_for_seconds is not None:
        return f" after {describe_duration(evaluation.ran_for_seconds)}"
    began = evaluation.started_at or evaluation.inserted_at
    if not evaluation.is_terminal or began is None or ended_at is None or ended_at < began.timestamp():
        return ""
    return f" after about {describe_duration(ended_at - began.timestamp())}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _percent(fraction: float) -> str:
    """Say a share; 100.0 % is kept for what is whole."""
    return f"{min(fraction * 100, 99.9 if fraction < 1 else 100.0):.1f} %"


def _instant(epoch_seconds: float) -> str:
    try:
        return datetime.fromtimestamp(epoch_seconds, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "the end of time"


def _capital(ref: EvaluationRef) -> str:
    text = str(ref)
    return text[:1].upper() + text[1:]
