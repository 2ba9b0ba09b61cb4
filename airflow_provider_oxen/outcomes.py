"""How a wait ended, as a value, and its form as a trigger's event: plain JSON, which Airflow stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from airflow_provider_oxen import values
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, EvaluationStatus

__all__ = ["MAX_ERROR_TEXT", "Interruption", "JudgedResults", "Outcome", "OutcomeReason", "find_evaluation"]

#: Longest error text an event carries, in characters.
MAX_ERROR_TEXT = 2_000


class OutcomeReason(StrEnum):
    """How a wait ended. What each means for the task is the table in ``reactions``."""

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
    #: The first response came from something else than the hub: a setting is likely wrong, or it may pass.
    NOT_THE_HUB = "not_the_hub"
    #: A trigger ended without an event, or with one that this version does not understand; or a process was stopped.
    LOST = "lost"


class Interruption(StrEnum):
    """How Airflow can end a wait."""

    #: Its timer of ``execution_timeout`` stopped the task's process.
    EXECUTION_TIMEOUT = "execution_timeout"
    #: The same, where it bounds one of a task's processes and not the wait: the task reschedules.
    PROCESS_TIMEOUT = "process_timeout"
    #: Its own timeout of a deferred task passed: no triggerer reported the end before.
    TRIGGER_TIMEOUT = "trigger_timeout"
    #: The trigger failed, or could not be made.
    TRIGGER_FAILURE = "trigger_failure"


@dataclass(frozen=True, slots=True)
class JudgedResults:
    """
    The results of a completed evaluation, as far as a task knows them.

    :param path: the file, inside the repository; None where there is none to read.
    :param version: the commit that holds them; None where it is not known.
    :param rows: how many rows it has; None where no condition needed them.
    :param conditions: what each condition on rows measured: ``condition``, ``share`` of all rows, number of ``rows``
        that is the share, number ``of`` all rows, and whether the condition ``holds``. What does not apply is None.
    """

    path: str | None = None
    version: str | None = None
    rows: int | None = None
    conditions: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, evaluation: Evaluation) -> JudgedResults:
        """Say where the results are, as far as the evaluation itself names the place."""
        found = evaluation.results
        return cls(found.path, found.version) if found.problem is None else cls()

    def to_dict(self) -> dict[str, Any]:
        """Write it as plain JSON: ``path``, ``version``, ``rows`` and ``conditions``."""
        return {
            "path": self.path,
            "version": self.version,
            "rows": self.rows,
            "conditions": [dict(each) for each in self.conditions],
        }


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
    :param interruption: how Airflow ended the wait, where it did. No event has it: Airflow then passes none.
    :param results: where the results of a completed evaluation are, and what was measured. No event has it: they are
        looked at on the worker.
    """

    reason: OutcomeReason
    ref: EvaluationRef
    evaluation: Evaluation | None = None
    error: str | None = None
    hub: str | None = None
    deadline: float | None = None
    at: float | None = None
    interruption: Interruption | None = None
    results: JudgedResults | None = None

    def with_unmet_condition(self, reason: str) -> Outcome:
        """Make the outcome of a completed evaluation that does not meet a condition."""
        return replace(self, reason=OutcomeReason.CONDITION_NOT_MET, error=reason[:MAX_ERROR_TEXT])

    def with_failed_condition(self, error: str) -> Outcome:
        """Make the outcome of a completed evaluation that could not be checked."""
        return replace(self, reason=OutcomeReason.CONDITION_FAILED, error=error[:MAX_ERROR_TEXT])

    def with_unread_results(self, reason: OutcomeReason, error: Exception) -> Outcome:
        """Make the outcome of a completed evaluation whose results could not be read."""
        return replace(self, reason=reason, error=str(error)[:MAX_ERROR_TEXT])

    def to_event(self) -> dict[str, Any]:
        """
        Write the outcome as the payload of a trigger's event.

        :return: plain JSON: ``outcome`` (the reason), ``namespace``, ``repo_name`` and ``evaluation_id`` as waited for,
            ``evaluation`` (as :meth:`Evaluation.to_dict`, or None), ``error``, ``hub``, ``deadline`` and ``at``.
        """
        return {
            "outcome": str(self.reason),
            **self.ref.to_dict(),
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
        ref = EvaluationRef.find_in(event)
        if ref is None:
            return cls(OutcomeReason.LOST, otherwise, error="the trigger's event does not name an evaluation")
        try:
            reason = OutcomeReason(str(event.get("outcome")))
        except ValueError:
            shown = str(event.get("outcome"))[:80]
            return cls(OutcomeReason.LOST, ref, error=f"the trigger's event has the unknown outcome {shown!r}")
        evaluation = find_evaluation(event.get("evaluation"))
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


def find_evaluation(document: object) -> Evaluation | None:
    """Read an evaluation that was stored; what cannot be used is as good as nothing."""
    try:
        return Evaluation.from_dict(document) if isinstance(document, Mapping) else None
    except ValueError:
        return None


def _completed(evaluation: Evaluation | None, ref: EvaluationRef) -> bool:
    return evaluation is not None and evaluation.status is EvaluationStatus.COMPLETED and ref.is_id_of(evaluation.id)
