"""
Whether an attempt of a task may start an evaluation: a pure decision, from what an earlier attempt left behind.

How this works
--------------
1. A started evaluation costs money, the hub takes no idempotency key, and no documented call finds or cancels one. So
   an attempt writes a :class:`Record` *before* it sends the request (``starting``), and again when it knows the id
   (``started``). Airflow 3.3 keeps the record across retries and clears; see ``start_store``.
2. The next attempt reads it. ``started``: it takes that evaluation up, if the connection still leads to the hub where
   it runs. ``starting``: an earlier attempt may or may not have started one, and this cannot be found out; it refuses,
   or starts again where the user has allowed that.
3. Without a store (Airflow before 3.3), nothing of a task survives a retry: only the first attempt starts.
4. A retry and a clear by a person are different: a person may want a new evaluation. ``max_tries`` shows
   which it was, since Airflow raises it at a clear and not at a retry. After a clear, the evaluation may have to be
   polled first (:class:`Check`, then :func:`decide_after_check`).
5. A clear allows a second evaluation only if the person could know that one may run. So an attempt that fails because
   it is not known marks the record as ``reported``, and only a clear after that counts. A person who clears the task
   earlier, say while the request is out, gets the message from the next attempt first.

The rule that must not be broken: where it cannot be known whether an evaluation was started, none is started again
unless the user has allowed just that, or has cleared the task after reading it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from airflow_provider_oxen.evaluations import Evaluation, EvaluationStatus
from airflow_provider_oxen.start_record import Record

__all__ = [
    "Attempt",
    "Check",
    "Decision",
    "OnClear",
    "OnUnknownStart",
    "Refuse",
    "RefuseReason",
    "Start",
    "StartPolicy",
    "TakeUp",
    "decide",
    "decide_after_check",
    "fingerprint",
]

OnUnknownStart: TypeAlias = Literal["fail", "start_again"]
OnClear: TypeAlias = Literal["resume", "start_again"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    Which attempt of its task this is, by Airflow's numbers.

    :param try_number: 1 for the first.
    :param max_tries: Airflow raises it at a clear, and not at a retry.
    :param retries: the task's.
    """

    try_number: int
    max_tries: int
    retries: int

    @property
    def is_first(self) -> bool:
        """Whether no other attempt came before it, since the run began or since a person cleared the task."""
        return self.try_number <= 1 or self.try_number == self.max_tries - self.retries + 1

    def was_cleared_since(self, record: Record) -> bool:
        """Whether a person cleared the task after a record was written."""
        return record.max_tries is not None and self.max_tries > record.max_tries


@dataclass(frozen=True, slots=True)
class StartPolicy:
    """
    What the user has allowed.

    :param durable: whether records are kept at all. If not, each attempt starts an evaluation.
    :param on_unknown_start: what to do where an earlier attempt may have started one.
    :param on_clear: what to do after a person cleared the task.
    """

    durable: bool = True
    on_unknown_start: OnUnknownStart = "fail"
    on_clear: OnClear = "resume"


class RefuseReason(StrEnum):
    """Why no evaluation is started, and none is waited for."""

    #: An earlier attempt was about to send the request.
    UNKNOWN_START = "unknown_start"
    #: An earlier attempt came before, and this Airflow keeps nothing from one attempt to the next.
    NO_STORE = "no_store"
    #: The hub does not know the evaluation that an earlier attempt started.
    NOT_FOUND = "not_found"
    #: The connection leads to another hub than the one where an earlier attempt started the evaluation.
    OTHER_HUB = "other_hub"


@dataclass(frozen=True, slots=True)
class Start:
    """
    Start one.

    :param may_run_too: whether an evaluation that an earlier attempt may have started may still run.
    """

    may_run_too: bool = False


@dataclass(frozen=True, slots=True)
class TakeUp:
    """
    Wait for the one that an earlier attempt started.

    :param other_request: whether this attempt would send another request: its arguments have changed.
    """

    evaluation_id: str
    other_request: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """Poll the one that an earlier attempt started, then ask :func:`decide_after_check`."""

    evaluation_id: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Start none, and fail for good."""

    reason: RefuseReason


Decision: TypeAlias = Start | TakeUp | Check | Refuse


def decide(
    record: Record | None,
    attempt: Attempt,
    policy: StartPolicy,
    *,
    request: str,
    has_store: bool,
    hub: str | None = None,
) -> Decision:
    """
    Decide what an attempt does.

    :param record: what an earlier attempt left behind; None where nothing is stored.
    :param request: fingerprint of the request that this attempt would send.
    :param has_store: whether this Airflow keeps records.
    :param hub: address of the hub that the connection leads to now; None where that is not known.
    """
    if not policy.durable:
        return Start(may_run_too=not attempt.is_first)
    if record is None:
        if has_store or attempt.is_first:
            return Start()
        return _unknown(policy, RefuseReason.NO_STORE)
    if record.evaluation_id is None:
        if record.reported and attempt.was_cleared_since(record):  # by a person whom the message had said what it means
            return Start(may_run_too=True)
        return _unknown(policy, RefuseReason.UNKNOWN_START)
    other_request = record.request is not None and record.request != request
    was_cleared = attempt.was_cleared_since(record)
    if was_cleared and other_request:
        return Start(may_run_too=True)
    if record.hub is not None and hub is not None and _place(record.hub) != _place(hub):
        return Refuse(RefuseReason.OTHER_HUB)  # an id means nothing there
    return Check(record.evaluation_id) if was_cleared else TakeUp(record.evaluation_id, other_request=other_request)


def decide_after_check(evaluation_id: str, evaluation: Evaluation | None, policy: StartPolicy) -> Decision:
    """
    Decide what an attempt does after a person cleared its task.

    :param evaluation: the one that an earlier attempt started, as it stands now; None where the hub does not know it.
    """
    if evaluation is None:
        return Start(may_run_too=True) if policy.on_clear == "start_again" else Refuse(RefuseReason.NOT_FOUND)
    if not evaluation.is_terminal:  # never two at once: nothing could stop the first
        return TakeUp(evaluation_id)
    if evaluation.status == EvaluationStatus.COMPLETED and policy.on_clear == "resume":
        return TakeUp(evaluation_id)
    return Start()


def fingerprint(path: str, body: Mapping[str, Any]) -> str:
    """
    Make the fingerprint of a request: two that ask for the same have the same.

    :param body: without what differs by attempt (``name``, ``commit_message``), which is left out here.
    """
    asked = {name: value for name, value in body.items() if name not in ("name", "commit_message")}
    import msgspec

    # In one order, also for what has none, such as a set.
    return hashlib.sha256(msgspec.json.encode([path, asked], order="deterministic")).hexdigest()


def _place(address: str) -> tuple[str, str, str]:
    """Say where an address leads, so that two ways to write the same are equal."""
    parts = urlsplit(address)
    default_port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return parts.scheme, parts.netloc.lower().removesuffix(default_port), parts.path.rstrip("/")


def _unknown(policy: StartPolicy, reason: RefuseReason) -> Decision:
    return Start(may_run_too=True) if policy.on_unknown_start == "start_again" else Refuse(reason)
