"""
The state machine of a wait: what a look at the hub means for the task.

How this works
--------------
A :class:`Wait` is a value. Whoever drives it (the trigger in a triggerer, the sensor on a worker, a simulation) asks
the hub, then hands what came back to :meth:`Wait.look`, be it an evaluation or an error, together with the time and a
drawn number. It gets back the next ``Wait`` and one step:

``Sleep``    ask again after so many seconds
``Outcome``  the wait is over

An outcome is one of:

===============  =====================================================================  ==============
``completed``    the evaluation completed: the gate opens                               task succeeds
``errored``      the evaluation failed                                                  final failure
``cancelled``    somebody stopped the evaluation                                        final failure
``unaccepted``   the evaluation completed, but a condition of ``accept`` closes the     final failure
                 gate
``unjudged``     the evaluation completed, but ``accept`` itself failed                 may be retried
``timeout``      the deadline passed; the hub was asked once more at the deadline       final failure
``refused``      the hub will not answer, or a setting is wrong: a person has to act    final failure
``unreachable``  the hub could not be asked for longer than ``retry_window``            may be retried
``lost``         a trigger ended without saying how, or in words this version lacks     may be retried
===============  =====================================================================  ==============

An outcome crosses Airflow's database as an event, made by :meth:`Outcome.to_event` and read by
:meth:`Outcome.from_event`. Events are a stored format: one written by an older release must still be understood.

The clock is the wall clock, in seconds since the epoch, because a deadline must hold in another process on another
machine. A rate limit (429) is no outage: it delays the next look, but does not count towards ``retry_window``.
A refused key is final: the driver's client has by then read the connection again and found the same key.
A connection that is missing is final on a worker, so that a slip of the pen is told at once. In a triggerer it is
an outage: Airflow says "not defined" as well where its database or a secrets backend does not answer, and a moment of
that must not fail all the gates that a triggerer takes up.

A wait knows nothing of ``accept``, which may be any code and is asked on a worker: :meth:`Outcome.judge` puts the
outcome of a wait before it.

The rule that binds the next person: whatever ends a wait is decided here and nowhere else, and nothing but a
well-formed ``completed`` of the evaluation that was asked for opens the gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from airflow_provider_oxen.accept import Condition, ask
from airflow_provider_oxen.api import read_evaluation
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenRateLimitError,
    OxenTransientError,
)
from airflow_provider_oxen.models import Evaluation, EvaluationStatus, read_number
from airflow_provider_oxen.polling import History, backoff_seconds, remember, seconds_to_next_look

__all__ = ["Outcome", "OutcomeReason", "Sleep", "Step", "Wait"]

#: Shortest sleep, in seconds: a timer that fires a moment before the deadline must not make a burst of requests.
_SHORTEST_SLEEP = 0.05
#: Longest error text an event carries, in characters.
_MAX_ERROR_TEXT = 2_000


class OutcomeReason(StrEnum):
    """How a wait ended; the table above says what each means for the task."""

    COMPLETED = "completed"
    ERRORED = "errored"
    CANCELLED = "cancelled"
    UNACCEPTED = "unaccepted"
    UNJUDGED = "unjudged"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    LOST = "lost"


_REASON_OF_STATUS: dict[str, OutcomeReason] = {
    EvaluationStatus.COMPLETED: OutcomeReason.COMPLETED,
    EvaluationStatus.ERRORED: OutcomeReason.ERRORED,
    EvaluationStatus.CANCELLED: OutcomeReason.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Sleep:
    """Ask again after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The end of a wait.

    :param reason: how it ended.
    :param evaluation: the evaluation as last seen; None where it never was.
    :param error: the last failure in words, or None.
    :param hub: address of the hub that was asked, for people; None where none was.
    :param deadline: the deadline, in seconds since the epoch, where that is what ended the wait.
    :param at: when the wait ended, in seconds since the epoch.
    """

    reason: OutcomeReason
    evaluation: Evaluation | None = None
    error: str | None = None
    hub: str | None = None
    deadline: float | None = None
    at: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether trying the task again cannot change the outcome."""
        return self.reason not in (OutcomeReason.UNJUDGED, OutcomeReason.UNREACHABLE, OutcomeReason.LOST)

    def judge(self, conditions: Sequence[Condition]) -> Outcome:
        """
        Put a completed evaluation before the conditions of ``accept``. Other outcomes stay as they are.

        The evaluation that they get is the same whichever way it came, so it is always without its prompt.

        :raises Exception: a condition raised it. That is ``unjudged``: see :meth:`leave_unjudged`.
        """
        if self.reason is not OutcomeReason.COMPLETED or self.evaluation is None or not conditions:
            return self
        reason = ask(conditions, read_evaluation(self.evaluation.to_dict()))
        return (
            self if reason is None else replace(self, reason=OutcomeReason.UNACCEPTED, error=reason[:_MAX_ERROR_TEXT])
        )

    def leave_unjudged(self, error: Exception) -> Outcome:
        """Make the outcome of a completed evaluation about which ``accept`` did not say anything."""
        told = f"{type(error).__name__}: {error}"
        return replace(self, reason=OutcomeReason.UNJUDGED, error=told[:_MAX_ERROR_TEXT])

    def to_event(self) -> dict[str, Any]:
        """
        Write the outcome as the payload of a trigger's event.

        :return: plain JSON: ``outcome`` (the reason), ``evaluation`` (as :meth:`Evaluation.to_dict`, or None),
            ``error``, ``hub``, ``deadline`` and ``at``.
        """
        return {
            "outcome": str(self.reason),
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "error": self.error,
            "hub": self.hub,
            "deadline": self.deadline,
            "at": self.at,
        }

    @classmethod
    def from_event(cls, event: object, *, evaluation_id: str) -> Outcome:
        """
        Read a trigger's event. Whatever it is, an outcome comes out, and never a ``completed`` that is not one.

        :param event: what the trigger yielded, after a passage through the database; None where it yielded nothing.
        :param evaluation_id: the evaluation that was waited for.
        """
        if not isinstance(event, Mapping):
            return cls(OutcomeReason.LOST, error=f"the trigger gave no event, but {type(event).__name__}")
        try:
            reason = OutcomeReason(str(event.get("outcome")))
        except ValueError:
            told = str(event.get("outcome"))[:80]
            return cls(OutcomeReason.LOST, error=f"the trigger gave an event of unknown outcome {told!r}")
        evaluation: Evaluation | None = None
        document = event.get("evaluation")
        if isinstance(document, Mapping):
            try:
                evaluation = read_evaluation(document)
            except ValueError:
                evaluation = None
        expected = _REASON_OF_STATUS.get(evaluation.status) if evaluation else None
        if reason is OutcomeReason.COMPLETED and (
            evaluation is None
            or expected is not OutcomeReason.COMPLETED
            or evaluation.id.lower() != evaluation_id.lower()
        ):
            return cls(OutcomeReason.LOST, error="the trigger told of a completion, but not of this evaluation's")
        error, hub, deadline, at = (event.get(name) for name in ("error", "hub", "deadline", "at"))
        return cls(
            reason,
            evaluation=evaluation,
            error=error if isinstance(error, str) else None,
            hub=hub if isinstance(hub, str) else None,
            deadline=read_number(deadline),
            at=read_number(at),
        )


Step: TypeAlias = Sleep | Outcome


@dataclass(frozen=True, slots=True)
class Wait:
    """
    A wait for one evaluation, as far as it has come.

    :param evaluation_id: whose end is waited for.
    :param poke_interval: shortest time between two looks, in seconds.
    :param max_wait: longest time between two looks, in seconds.
    :param deadline: seconds since the epoch.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds; None: until the
        deadline.
    :param missing_connection_is_outage: whether an Airflow connection that is not found may be found a moment later.
    :param evaluation: as last seen.
    :param history: what its looks have told of its pace; None before the first.
    :param unknown_statuses: those seen so far that the contract does not know.
    :param looks: how many looks have been taken.
    :param failures: how many looks in a row failed.
    :param failing_since: when the first of those was.
    """

    evaluation_id: str
    poke_interval: float
    max_wait: float
    deadline: float
    retry_window: float | None
    missing_connection_is_outage: bool = False
    evaluation: Evaluation | None = None
    history: History | None = None
    unknown_statuses: frozenset[str] = frozenset()
    looks: int = 0
    failures: int = 0
    failing_since: float | None = None

    def look(self, seen: Evaluation | OxenError, *, now: float, jitter: float) -> tuple[Wait, Step]:
        """
        Take in what the hub answered and decide what comes next.

        :param seen: the evaluation, or why there is none.
        :param now: seconds since the epoch.
        :param jitter: 0.0 to 1.0, drawn at random by the caller.
        :return: the wait after this look, and the step to take.
        """
        if isinstance(seen, Evaluation):
            return self._look_at_evaluation(seen, now=now, jitter=jitter)
        return self._look_at_error(seen, now=now, jitter=jitter)

    def _look_at_evaluation(self, seen: Evaluation, *, now: float, jitter: float) -> tuple[Wait, Step]:
        progress = seen.progress
        history = remember(self.history, at=now, status=seen.status, processed=progress.processed, total=progress.total)
        known = isinstance(seen.status, EvaluationStatus)
        wait = replace(
            self,
            evaluation=seen,
            history=history,
            unknown_statuses=self.unknown_statuses if known else self.unknown_statuses | {seen.status},
            looks=self.looks + 1,
            failures=0,
            failing_since=None,
        )
        reason = _REASON_OF_STATUS.get(seen.status)
        if reason is not None and seen.id.lower() == self.evaluation_id.lower():
            return wait, wait.end(reason, now=now)
        if now >= self.deadline:
            return wait, wait.end(OutcomeReason.TIMEOUT, now=now)
        seconds = seconds_to_next_look(history, poke_interval=self.poke_interval, max_wait=self.max_wait, jitter=jitter)
        return wait, Sleep(max(min(seconds, self.deadline - now), _SHORTEST_SLEEP))

    def _look_at_error(self, error: OxenError, *, now: float, jitter: float) -> tuple[Wait, Step]:
        missing = isinstance(error, OxenConfigError) and error.field == "conn_id"
        if not isinstance(error, OxenTransientError) and not (missing and self.missing_connection_is_outage):
            return replace(self, looks=self.looks + 1), self.end(OutcomeReason.REFUSED, error, now=now)
        failing_since: float | None = now if self.failing_since is None else self.failing_since
        if isinstance(error, OxenRateLimitError):  # a hub that asks for patience is not out of reach
            failing_since = None
        wait = replace(self, looks=self.looks + 1, failures=self.failures + 1, failing_since=failing_since)
        if now >= self.deadline:
            return wait, wait.end(OutcomeReason.TIMEOUT, error, now=now)
        give_up_at = self.deadline
        if failing_since is not None and self.retry_window is not None:
            give_up_at = min(give_up_at, failing_since + self.retry_window)
        if now >= give_up_at:
            return wait, wait.end(OutcomeReason.UNREACHABLE, error, now=now)
        backoff = backoff_seconds(
            wait.failures, poke_interval=self.poke_interval, max_wait=self.max_wait, jitter=jitter
        )
        # The pause the hub asks for is a minimum; a share is added so that those it told the same part company.
        pause = (error.retry_after_seconds or 0.0) if isinstance(error, OxenTransientError) else 0.0
        if pause:
            pause += max(0.1 * pause, self.poke_interval) * jitter
        return wait, Sleep(max(min(max(backoff, pause), give_up_at - now), _SHORTEST_SLEEP))

    def end(self, reason: OutcomeReason, error: OxenError | None = None, *, now: float) -> Outcome:
        """Make the outcome of a wait that ends as it stands."""
        return Outcome(
            reason,
            evaluation=self.evaluation,
            error=None if error is None else str(error)[:_MAX_ERROR_TEXT],
            deadline=self.deadline if reason is OutcomeReason.TIMEOUT else None,
            at=now,
        )
