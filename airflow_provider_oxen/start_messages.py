"""
Every sentence that a person reads about starting an evaluation, and about one that is left running.

What matters comes first: whether one was started, and whether it costs money. Then what to do about it.
"""

from __future__ import annotations

import json

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.links.addresses import evaluation_url, repository_url
from airflow_provider_oxen.protocol import UNKNOWN_EFFECT
from airflow_provider_oxen.redaction import one_line
from airflow_provider_oxen.start_decision import RefuseReason
from airflow_provider_oxen.start_record import Record

__all__ = [
    "RECORD_KEY",
    "describe_killed",
    "describe_killed_while_starting",
    "describe_left_running",
    "describe_refusal",
    "describe_started",
    "describe_take_up",
    "describe_unknown_start",
]

#: The key of the record in Airflow's task state store. Messages name it, because a person may edit it.
RECORD_KEY = "oxen_evaluation"

_NONE_STARTED = "No other evaluation is started, because each one costs money"


def describe_started(ref: EvaluationRef, name: str, hub: str | None) -> str:
    """Say that an evaluation was started."""
    return f"Evaluation started: {ref}, name {name!r}{_see(evaluation_url(ref, hub))}"


def describe_take_up(ref: EvaluationRef, record: Record | None, hub: str | None, *, other_request: bool) -> str:
    """Say that an earlier attempt's evaluation is waited for."""
    changed = (
        " The task's arguments have changed since: clear the task to start one with the new ones."
        if other_request
        else ""
    )
    return (
        f"No new evaluation: waiting for the one that {_describe_attempt(record)} started, {ref}"
        f"{_see(evaluation_url(ref, hub))}.{changed}"
    )


def describe_unknown_start(
    namespace: str,
    repo_name: str,
    record: Record | None,
    cause: str | None,
    *,
    has_store: bool,
    hub: str | None,
    starts_again: bool = False,
) -> str:
    """
    Say that an evaluation may have been started, and what a person does next.

    :param cause: what went wrong, where this attempt knows; None where it was an earlier one.
    :param starts_again: whether a retry starts another one, because the user has allowed that.
    """
    name = f" (name {record.name!r})" if record is not None and record.name else ""
    asked_in = (namespace, repo_name)
    namespace, repo_name = _find_repository(record, *asked_in)
    named = _name_repository(namespace, repo_name, asked_in)
    if record is not None and record.problem is not None:
        happened = f"the entry {RECORD_KEY!r} cannot be understood: {one_line(record.problem)}"
    elif cause is None:
        happened = f"{_describe_attempt(record)} asked for one{name} and ended before the hub's response was stored"
    else:
        cause = one_line(cause.removeprefix(UNKNOWN_EFFECT)).rstrip(". ")  # which this message says already
        happened = f"this attempt asked for one{name}, and no usable response came: {cause}"
    again = (
        "A retry starts another one, because on_unknown_start='start_again' allows it"
        if starts_again
        else _NONE_STARTED
    )
    return (
        f"Not known whether an evaluation was started: {happened}. {again}. "
        f"Look for it in {namespace}/{repo_name} on the hub{_see(repository_url(namespace, repo_name, hub))}, now and "
        "again some minutes after that attempt ended. "
        f"{_what_to_do_next(has_store=has_store, record=record, named=named)}"
    )


def describe_refusal(
    reason: RefuseReason,
    namespace: str,
    repo_name: str,
    record: Record | None,
    *,
    airflow: str,
    hub: str | None,
    hub_now: str | None = None,
) -> str:
    """
    Say why an attempt starts no evaluation and waits for none.

    :param namespace: with ``repo_name``, the repository of this attempt's request. The record's own counts before it.
    :param hub: address of the hub, by the record.
    :param hub_now: address of the hub, by the connection, where it is another one.
    """
    evaluation_id = None if record is None else record.evaluation_id
    found_in = _find_repository(record, namespace, repo_name)
    named = _name_repository(*found_in, (namespace, repo_name))
    match reason:
        case RefuseReason.UNKNOWN_START:
            return describe_unknown_start(namespace, repo_name, record, None, has_store=True, hub=hub)
        case RefuseReason.NO_STORE:
            return (
                "Not known whether an evaluation was started: an earlier attempt came before, and Airflow "
                f"{airflow} keeps nothing from one attempt of this task to the next. {_NONE_STARTED}. "
                f"Look for it in {namespace}/{repo_name} on the hub"
                f"{_see(repository_url(namespace, repo_name, hub))}. "
                f"{_what_to_do_next(has_store=False, record=None)}"
            )
        case RefuseReason.NOT_FOUND:
            return (
                f"Evaluation not found: {_describe_attempt(record)} started {evaluation_id} in "
                f"{'/'.join(found_in)}, and the hub does not know it any more. {_NONE_STARTED}. To start one, "
                f"delete {RECORD_KEY!r} from this task's state (tab Storage, Task State Store), then clear the task."
            )
        case RefuseReason.OTHER_HUB:
            return (
                f"Nothing was started: {_describe_attempt(record)} started evaluation {evaluation_id} at "
                f"{one_line(hub or '')}, but the connection leads to {hub_now} now. To wait for it, set the "
                "connection back and clear the task. If both are the same hub, set "
                f"{RECORD_KEY!r} in this task's state (tab Storage, Task State Store) to "
                f'{{"phase": "started", "evaluation_id": "{evaluation_id}"{named}}} '
                "and clear the task, keeping its state. "
                "To start a new one there, delete that entry, then clear the task."
            )


def describe_killed(ref: EvaluationRef, hub: str | None, *, started_here: bool, is_recorded: bool = False) -> str:
    """
    Say that a task was stopped while its evaluation runs.

    :param started_here: whether the task started it.
    :param is_recorded: whether its next attempt can wait for it.
    """
    cleared = " If this task was cleared, its next attempt waits for it, unless its arguments changed."
    again = cleared if is_recorded else ""
    costs = " and costing money" if started_here else ""
    return (
        f"The evaluation is still running{costs}, although this task was stopped: {ref}. "
        f"{_stop_by_hand(ref, hub)}{again}"
    )


def describe_left_running(ref: EvaluationRef, hub: str | None, *, is_certain: bool, is_recorded: bool) -> str:
    """
    Say that a wait ended before the evaluation that its task had started.

    :param is_certain: whether the hub has just said that it runs.
    :param is_recorded: whether the task's next attempt can wait for it.
    """
    runs = "is still running and costing money" if is_certain else "may still be running and costing money"
    again = " A retry of this task waits for it. So does a clear, unless the task's arguments change."
    return (
        f"The evaluation {runs}, although this task no longer waits for it: {ref}. "
        f"{_stop_by_hand(ref, hub)}{again if is_recorded else ''}"
    )


def _stop_by_hand(ref: EvaluationRef, hub: str | None) -> str:
    return f"Airflow cannot cancel it. Stop it on the hub{_see(evaluation_url(ref, hub))}."


def describe_killed_while_starting(namespace: str, repo_name: str, name: str, hub: str | None) -> str:
    """Say that a task was stopped while it asked the hub to start an evaluation."""
    return (
        f"Not known whether an evaluation was started: this task was stopped while it asked for one (name {name!r}). "
        f"Look for it in {namespace}/{repo_name} on the hub{_see(repository_url(namespace, repo_name, hub))}."
    )


def _find_repository(record: Record | None, namespace: str, repo_name: str) -> tuple[str, str]:
    """Find the repository of the earlier attempt's request: that of its record, if it says one."""
    if record is None:
        return namespace, repo_name
    return record.namespace or namespace, record.repo_name or repo_name


def _name_repository(namespace: str, repo_name: str, asked_in: tuple[str, str]) -> str:
    """Write the fields that an entry needs besides, where its evaluation is not in this attempt's repository."""
    named = json.dumps({"namespace": namespace, "repo_name": repo_name})[1:-1]
    return "" if (namespace, repo_name) == asked_in else f", {named}"


def _what_to_do_next(*, has_store: bool, record: Record | None, named: str = "") -> str:
    if not has_store:
        return "To start a new one, clear the task."
    # Without Airflow's number in the record, a clear looks like a retry.
    delete = "" if record is not None and record.max_tries is not None else "delete that entry, then "
    return (
        f"To wait for it, set {RECORD_KEY!r} in this task's state (tab Storage, Task State Store) to "
        f'{{"phase": "started", "evaluation_id": "ITS-ID"{named}}} and clear the task, keeping its state. '
        f"To start a new one, {delete}clear the task."
    )


def _describe_attempt(record: Record | None) -> str:
    if record is None or record.try_number is None:
        return "an earlier attempt"
    at = f" at {record.at}" if record.at else ""
    return f"attempt {record.try_number}{at}"


def _see(url: str | None) -> str:
    return "" if url is None else f" (see {url})"
