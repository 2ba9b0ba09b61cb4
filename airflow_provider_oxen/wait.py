"""
The state machine of a wait: what a poll of the hub means for the task.

How this works
--------------
1. A :class:`Wait` is a value. Whoever drives it (the trigger in a triggerer, the gate on a worker, a simulation) polls
   the hub and hands the result, an evaluation or an error, to :meth:`Wait.advance`, with the time and a random number.
2. It gets back the next ``Wait`` and one step: ``Sleep`` (poll again after so many seconds) or ``Outcome`` (the wait
   is over). :class:`OutcomeReason` lists how a wait can end.
3. Airflow can end a wait, too: with ``execution_timeout``, with its own timeout of a deferred task, or because a
   trigger is lost. :meth:`Wait.interrupted` makes the outcome of that.
4. An outcome crosses Airflow's database as an event: :meth:`Outcome.to_event`, :meth:`Outcome.from_event`. Events are
   a stored format: one that an older release wrote must still be understood. An event names its evaluation, so that
   nothing after the wait depends on templates that are rendered again.
5. The clock is the wall clock, in seconds since the epoch: a deadline must hold in another process on another machine.
6. A rate limit (429) is no outage. It delays the next poll and does not count towards ``retry_window``.
7. A refused key is final: the client has by then read the connection again and found the same key.
8. A missing connection is final on a worker, so that a typing error shows at once. In a triggerer it is an outage:
   Airflow says "not defined" also where its database or a secrets backend does not respond, and such a moment must not
   fail all gates that a triggerer takes over. A host's name that does not resolve is the same.
9. A wait knows nothing of ``conditions``, which may be any code and are checked on a worker:
   :meth:`Outcome.with_unmet_condition` and :meth:`Outcome.with_failed_condition` add what they say.

The rule that must not be broken: whatever ends a wait is decided here and nowhere else, and nothing but a well-formed
``completed`` of the evaluation that was asked for opens the gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from airflow_provider_oxen import values
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, EvaluationStatus
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenRateLimitError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.polling import History, backoff_seconds, remember, seconds_to_next_poll

__all__ = ["Interruption", "Outcome", "OutcomeReason", "Sleep", "Step", "Wait"]

#: Shortest sleep, in seconds: a timer that fires a moment before the deadline must not make a burst of requests.
_SHORTEST_SLEEP = 0.05
#: Longest error text an event carries, in characters.
_MAX_ERROR_TEXT = 2_000


class OutcomeReason(StrEnum):
    """How a wait ended. What each means for the task is the table in ``gate``."""

    #: The evaluation completed.
    COMPLETED = "completed"
    #: The evaluation failed.
    ERRORED = "errored"
    #: A person stopped the evaluation.
    CANCELLED = "cancelled"
    #: The evaluation completed, but does not meet one of ``conditions``.
    CONDITION_NOT_MET = "condition_not_met"
    #: The evaluation completed, but one of ``conditions`` raised an exception.
    CONDITION_FAILED = "condition_failed"
    #: The deadline passed. The hub was polled once more at the deadline.
    TIMEOUT = "timeout"
    #: The hub refuses the call, or a setting is wrong: a person has to act.
    REFUSED = "refused"
    #: The hub could not be reached for longer than ``retry_window``.
    UNREACHABLE = "unreachable"
    #: A trigger ended without an event, or with one that this version does not understand.
    LOST = "lost"


_REASON_BY_STATUS: dict[str, OutcomeReason] = {
    EvaluationStatus.COMPLETED: OutcomeReason.COMPLETED,
    EvaluationStatus.ERRORED: OutcomeReason.ERRORED,
    EvaluationStatus.CANCELLED: OutcomeReason.CANCELLED,
}


class Interruption(StrEnum):
    """How Airflow can end a wait."""

    #: Its timer of ``execution_timeout`` stopped the task's process.
    EXECUTION_TIMEOUT = "execution_timeout"
    #: Its own timeout of a deferred task passed: no triggerer reported the end before.
    TRIGGER_TIMEOUT = "trigger_timeout"
    #: The trigger failed, or could not be made.
    TRIGGER_FAILURE = "trigger_failure"


@dataclass(frozen=True, slots=True)
class Sleep:
    """Poll again after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The end of a wait.

    :param reason: how it ended.
    :param ref: the evaluation that was waited for.
    :param evaluation: the evaluation as last seen; None where it never was.
    :param error: the last failure in words, or None.
    :param hub: address of the hub that was asked, for people; None where none was.
    :param deadline: the deadline, in seconds since the epoch, where that is what ended the wait.
    :param at: when the wait ended, in seconds since the epoch.
    """

    reason: OutcomeReason
    ref: EvaluationRef
    evaluation: Evaluation | None = None
    error: str | None = None
    hub: str | None = None
    deadline: float | None = None
    at: float | None = None

    def with_unmet_condition(self, reason: str) -> Outcome:
        """Make the outcome of a completed evaluation that does not meet a condition."""
        return replace(self, reason=OutcomeReason.CONDITION_NOT_MET, error=reason[:_MAX_ERROR_TEXT])

    def with_failed_condition(self, error: Exception) -> Outcome:
        """Make the outcome of a completed evaluation that could not be checked."""
        text = f"{type(error).__name__}: {error}"
        return replace(self, reason=OutcomeReason.CONDITION_FAILED, error=text[:_MAX_ERROR_TEXT])

    def to_event(self) -> dict[str, Any]:
        """
        Write the outcome as the payload of a trigger's event.

        :return: plain JSON: ``outcome`` (the reason), ``namespace``, ``repo_name`` and ``evaluation_id`` as waited for,
            ``evaluation`` (as :meth:`Evaluation.to_dict`, or None), ``error``, ``hub``, ``deadline`` and ``at``.
        """
        return {
            "outcome": str(self.reason),
            "namespace": self.ref.namespace,
            "repo_name": self.ref.repo_name,
            "evaluation_id": self.ref.evaluation_id,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "error": values.text(self.error),
            "hub": self.hub,
            "deadline": self.deadline,
            "at": self.at,
        }

    @classmethod
    def from_event(cls, event: object, *, otherwise: EvaluationRef) -> Outcome:
        """
        Read a trigger's event. Whatever it is, an outcome results, and never a ``completed`` that is not one.

        :param event: what the trigger yielded, after a passage through the database; None where it yielded nothing.
        :param otherwise: the evaluation that is shown where the event does not name the one that was waited for.
        """
        if not isinstance(event, Mapping):
            return cls(
                OutcomeReason.LOST, otherwise, error=f"the trigger's event is not an object, but {type(event).__name__}"
            )
        names = [event.get(name) for name in ("namespace", "repo_name", "evaluation_id")]
        if not all(isinstance(name, str) and name for name in names):
            return cls(OutcomeReason.LOST, otherwise, error="the trigger's event does not name an evaluation")
        ref = EvaluationRef(*map(str, names))
        try:
            reason = OutcomeReason(str(event.get("outcome")))
        except ValueError:
            shown = str(event.get("outcome"))[:80]
            return cls(OutcomeReason.LOST, ref, error=f"the trigger's event has the unknown outcome {shown!r}")
        document = event.get("evaluation")
        try:
            evaluation = Evaluation.from_dict(document) if isinstance(document, Mapping) else None
        except ValueError:
            evaluation = None
        if reason is OutcomeReason.COMPLETED and not _completed(evaluation, ref):
            error = "the trigger's event says completed, but holds no completed evaluation of that id"
            return cls(OutcomeReason.LOST, ref, error=error)
        return cls(
            reason,
            ref,
            evaluation=evaluation,
            error=values.text(event.get("error")),
            hub=values.text(event.get("hub")),
            deadline=values.number(event.get("deadline")),
            at=values.number(event.get("at")),
        )


Step: TypeAlias = Sleep | Outcome


@dataclass(frozen=True, slots=True)
class Wait:
    """
    A wait for one evaluation, as far as it has come.

    :param ref: whose end is waited for.
    :param poke_interval: shortest time between two polls, in seconds.
    :param max_wait: longest time between two polls, in seconds.
    :param deadline: seconds since the epoch.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds; None: until the
        deadline.
    :param missing_connection_is_outage: whether an Airflow connection that is not found may be found a moment later.
    :param evaluation: as last seen.
    :param history: what the polls have shown of its pace; None before the first.
    :param unknown_statuses: those seen so far that the contract does not know.
    :param polls: how many polls were made.
    :param failures: how many polls in a row failed.
    :param failing_since: when the first of those was.
    """

    ref: EvaluationRef
    poke_interval: float
    max_wait: float
    deadline: float
    retry_window: float | None
    missing_connection_is_outage: bool = False
    evaluation: Evaluation | None = None
    history: History | None = None
    unknown_statuses: frozenset[str] = frozenset()
    polls: int = 0
    failures: int = 0
    failing_since: float | None = None

    def advance(self, result: Evaluation | OxenError, *, now: float, jitter: float) -> tuple[Wait, Step]:
        """
        Take the result of a poll and decide what comes next.

        :param result: the evaluation, or why there is none.
        :param now: seconds since the epoch.
        :param jitter: 0.0 to 1.0, drawn at random by the caller.
        :return: the wait after this poll, and the step to take.
        """
        if isinstance(result, Evaluation):
            return self._advance_by_evaluation(result, now=now, jitter=jitter)
        return self._advance_by_error(result, now=now, jitter=jitter)

    def interrupted(self, how: Interruption, *, now: float, detail: str | None = None) -> Outcome:
        """
        Make the outcome of a wait that Airflow ends.

        :param detail: what Airflow says about it, if anything.
        """
        reason = OutcomeReason.LOST if how is Interruption.TRIGGER_FAILURE else OutcomeReason.TIMEOUT
        shown = detail
        if how is not Interruption.EXECUTION_TIMEOUT:
            shown = f"Airflow ended the trigger ({detail or 'no reason was given'})"
        outcome = self.end(reason, now=now)
        if how is Interruption.TRIGGER_TIMEOUT:  # Airflow's timeout is later than the deadline, which is not known here
            outcome = replace(outcome, deadline=None)
        return replace(outcome, error=None if shown is None else shown[:_MAX_ERROR_TEXT])

    def _advance_by_evaluation(self, seen: Evaluation, *, now: float, jitter: float) -> tuple[Wait, Step]:
        progress = seen.progress
        history = remember(self.history, at=now, status=seen.status, processed=progress.processed, total=progress.total)
        known = isinstance(seen.status, EvaluationStatus)
        wait = replace(
            self,
            evaluation=seen,
            history=history,
            unknown_statuses=self.unknown_statuses if known else self.unknown_statuses | {seen.status},
            polls=self.polls + 1,
            failures=0,
            failing_since=None,
        )
        reason = _REASON_BY_STATUS.get(seen.status)
        if reason is not None and self.ref.is_id_of(seen):
            return wait, wait.end(reason, now=now)
        if now >= self.deadline:
            return wait, wait.end(OutcomeReason.TIMEOUT, now=now)
        seconds = seconds_to_next_poll(history, poke_interval=self.poke_interval, max_wait=self.max_wait, jitter=jitter)
        return wait, Sleep(max(min(seconds, self.deadline - now), _SHORTEST_SLEEP))

    def _advance_by_error(self, error: OxenError, *, now: float, jitter: float) -> tuple[Wait, Step]:
        missing = isinstance(error, OxenConfigError) and error.field == "conn_id"
        final = not isinstance(error, OxenTransientError) and not (missing and self.missing_connection_is_outage)
        if final or self._is_wrong_setting(error):
            return replace(self, polls=self.polls + 1), self.end(OutcomeReason.REFUSED, error, now=now)
        failing_since: float | None = now if self.failing_since is None else self.failing_since
        if isinstance(error, OxenRateLimitError):  # a hub that asks for a pause is not out of reach
            failing_since = None
        wait = replace(self, polls=self.polls + 1, failures=self.failures + 1, failing_since=failing_since)
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
        # The pause the hub asks for is a minimum; a share is added so that waits with the same pause spread.
        pause = (error.retry_after_seconds or 0.0) if isinstance(error, OxenTransientError) else 0.0
        if pause:
            pause += max(0.1 * pause, self.poke_interval) * jitter
        return wait, Sleep(max(min(max(backoff, pause), give_up_at - now), _SHORTEST_SLEEP))

    def _is_wrong_setting(self, error: OxenError) -> bool:
        """
        Say whether an error at the very first poll is one that no later poll heals.

        In a triggerer, and in a later process of a task that reschedules, the first poll may not be the wait's first.
        """
        may_be_later = self.polls > 0 or self.evaluation is not None or self.missing_connection_is_outage
        return isinstance(error, OxenUnreachableError) and error.is_setting and not may_be_later

    def end(self, reason: OutcomeReason, error: OxenError | None = None, *, now: float) -> Outcome:
        """Make the outcome of a wait that ends as it stands."""
        return Outcome(
            reason,
            self.ref,
            evaluation=self.evaluation,
            error=None if error is None else str(error)[:_MAX_ERROR_TEXT],
            deadline=self.deadline if reason is OutcomeReason.TIMEOUT else None,
            at=now,
        )


def _completed(evaluation: Evaluation | None, ref: EvaluationRef) -> bool:
    return evaluation is not None and evaluation.status is EvaluationStatus.COMPLETED and ref.is_id_of(evaluation)
