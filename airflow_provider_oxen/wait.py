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
6. A pause that the hub asks for is no outage: after a 429, the time until the next poll does not count towards
   ``retry_window``, and neither does what a ``Retry-After`` of another failure asks for. It does not end an outage
   either: only the evaluation does.
7. A refused key is final: the client has by then read the connection again and found the same key.
8. A missing connection is final on a worker, so that a typing error shows at once. In a triggerer it is an outage:
   Airflow says "not defined" also where its database or a secrets backend does not respond, and such a moment must not
   fail all gates that a triggerer takes over. A host's name that does not resolve is the same.
9. What is not the hub's (a 3xx or 4xx without its JSON) is an outage once the evaluation was seen. Before that, a
   setting is likely wrong: the wait ends at once, and the task may be retried.
10. The hub's own 404 about an evaluation that exists is polled again for half a minute, because a replica may lag.
11. A wait that goes on in another process takes with it what it must remember, see ``wait_memory``.
12. A wait knows nothing of ``conditions``, which may be any code and are checked on a worker:
   :meth:`Outcome.with_unmet_condition` and :meth:`Outcome.with_failed_condition` add what they say.

The rule that must not be broken: whatever ends a wait is decided here and nowhere else, and nothing but a well-formed
``completed`` of the evaluation that was asked for opens the gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, EvaluationStatus
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenInvalidResponseError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.outcomes import MAX_ERROR_TEXT, Interruption, Outcome, OutcomeReason
from airflow_provider_oxen.polling import (
    History,
    assume,
    backoff_seconds,
    remember,
    seconds_to_next_poll,
)

__all__ = ["NOT_FOUND_SECONDS", "Interruption", "Outcome", "OutcomeReason", "Sleep", "Step", "Wait"]

#: Shortest sleep, in seconds: a timer that fires a moment before the deadline must not make a burst of requests.
_SHORTEST_SLEEP = 0.05
#: How long the hub may say "not found" of an evaluation that exists, in seconds: one of its replicas may lag behind.
NOT_FOUND_SECONDS = 30.0
#: How many fields of a wait are its settings. They come first; the others are what its polls have shown.
_SETTINGS: Final = 8


_REASON_BY_STATUS: dict[str, OutcomeReason] = {
    EvaluationStatus.COMPLETED: OutcomeReason.COMPLETED,
    EvaluationStatus.ERRORED: OutcomeReason.ERRORED,
    EvaluationStatus.CANCELLED: OutcomeReason.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Sleep:
    """Poll again after ``seconds``."""

    seconds: float


Step: TypeAlias = Sleep | Outcome


class Wait(NamedTuple):
    """
    A wait for one evaluation, as far as it has come. A tuple, since one is made at every poll.

    :param ref: whose end is waited for.
    :param poke_interval: shortest time between two polls, in seconds.
    :param max_wait: longest time between two polls, in seconds.
    :param deadline: seconds since the epoch.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds; None: until the
        deadline.
    :param missing_connection_is_outage: whether an Airflow connection that is not found may be found a moment later.
    :param exists: whether the evaluation is known to exist, although this wait may not have seen it.
    :param assumes_pace: whether a first poll may take the pace from the evaluation's own times. For a wait that begins
        again at each poll.
    :param evaluation: as last seen.
    :param history: what the polls have shown of its pace; None before the first.
    :param unknown_statuses: those seen so far that the contract does not know.
    :param polls: how many polls were made.
    :param failures: how many polls in a row failed.
    :param failing_since: when the first of those was, later by the pauses that the hub has asked for since.
    :param not_found_since: when the hub said first, after it had shown the evaluation, that there is none.
    """

    ref: EvaluationRef
    poke_interval: float
    max_wait: float
    deadline: float
    retry_window: float | None
    missing_connection_is_outage: bool = False
    exists: bool = False
    assumes_pace: bool = False
    evaluation: Evaluation | None = None
    history: History | None = None
    unknown_statuses: frozenset[str] = frozenset()
    polls: int = 0
    failures: int = 0
    failing_since: float | None = None
    not_found_since: float | None = None

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

        :param detail: what Airflow says about a failed trigger, or the last failure, if anything.
        """
        outcome = self.end(OutcomeReason.TIMEOUT, now=now)
        text = detail
        if how is Interruption.TRIGGER_FAILURE:
            text = f"Airflow ended the trigger ({detail or 'no reason was given'})"
        elif how is Interruption.PROCESS_TIMEOUT:
            text = "execution_timeout stopped this process of the task, which bounds one poll in reschedule mode"
        if how in (Interruption.TRIGGER_FAILURE, Interruption.PROCESS_TIMEOUT):
            outcome = self.end(OutcomeReason.LOST, now=now)
        if how is Interruption.TRIGGER_TIMEOUT:  # Airflow's timeout is later than the deadline, which is not known here
            outcome = replace(outcome, deadline=None)
        return replace(outcome, error=None if text is None else text[:MAX_ERROR_TEXT], interruption=how)

    def _advance_by_evaluation(self, seen: Evaluation, *, now: float, jitter: float) -> tuple[Wait, Step]:
        progress = seen.progress
        before = self.history
        if before is None and self.assumes_pace:
            before = assume(_started_at(seen), at=now, status=seen.status, total=progress.total)
        history = remember(before, at=now, status=seen.status, processed=progress.processed, total=progress.total)
        if before is not None and now - before.at > 2 * self.max_wait:
            # No poll was made meanwhile, so how long a batch of rows takes is not known.
            history = history._replace(rhythm_seconds=min(history.rhythm_seconds, self.max_wait))
        known = isinstance(seen.status, EvaluationStatus)
        wait = Wait(  # _replace takes twice as long
            *self[:_SETTINGS],
            evaluation=seen,
            history=history,
            unknown_statuses=self.unknown_statuses if known else self.unknown_statuses | {seen.status},
            polls=self.polls + 1,
        )
        reason = _REASON_BY_STATUS.get(seen.status)
        if reason is not None and self.ref.is_id_of(seen.id):
            return wait, wait.end(reason, now=now)
        if now >= self.deadline:
            return wait, wait.end(OutcomeReason.TIMEOUT, now=now)
        seconds = seconds_to_next_poll(history, poke_interval=self.poke_interval, max_wait=self.max_wait, jitter=jitter)
        return wait, Sleep(max(min(seconds, self.deadline - now), _SHORTEST_SLEEP))

    def _advance_by_error(self, error: OxenError, *, now: float, jitter: float) -> tuple[Wait, Step]:
        known = self.exists or self.evaluation is not None
        polled = self._replace(polls=self.polls + 1)
        if isinstance(error, OxenNotFoundError) and known:
            return self._advance_by_not_found(error, now=now, jitter=jitter)
        missing = isinstance(error, OxenConfigError) and error.field == "conn_id"
        final = not isinstance(error, OxenTransientError) and not (missing and self.missing_connection_is_outage)
        if final or self._is_wrong_setting(error):
            return polled, self.end(OutcomeReason.REFUSED, error, now=now)
        if not known and _is_foreign(error) and now < self.deadline:
            return polled, self.end(OutcomeReason.NOT_THE_HUB, error, now=now)
        # The pause the hub asks for is a minimum; a share is added so that waits with the same pause spread.
        pause = (error.retry_after_seconds or 0.0) if isinstance(error, OxenTransientError) else 0.0
        if pause:
            pause += max(0.1 * pause, self.poke_interval) * jitter
        wait = polled._replace(failures=self.failures + 1)
        seconds = max(pause, self._backoff(jitter))
        limited = isinstance(error, OxenRateLimitError)
        since = now if self.failing_since is None and not limited else self.failing_since
        if now >= self.deadline:
            return wait._replace(failing_since=since), self.end(OutcomeReason.TIMEOUT, error, now=now)
        give_up_at = self.deadline
        if since is not None:
            window = math.inf if self.retry_window is None else self.retry_window
            asked_first = bool(pause) and self.failing_since is None  # with the shortest window, it is still kept
            if now >= since + window and not limited and not asked_first:
                return wait._replace(failing_since=since), self.end(OutcomeReason.UNREACHABLE, error, now=now)
            since += min(seconds if limited else pause, self.deadline - now)
            give_up_at = min(give_up_at, max(since + window, now + pause))
        return wait._replace(failing_since=since), Sleep(max(min(seconds, give_up_at - now), _SHORTEST_SLEEP))

    def _advance_by_not_found(self, error: OxenNotFoundError, *, now: float, jitter: float) -> tuple[Wait, Step]:
        since = now if self.not_found_since is None else self.not_found_since
        wait = self._replace(polls=self.polls + 1, failures=self.failures + 1, not_found_since=since)
        if now >= since + NOT_FOUND_SECONDS or now >= self.deadline:
            return wait, self.end(OutcomeReason.REFUSED, error, now=now)
        until = min(since + NOT_FOUND_SECONDS, self.deadline)
        return wait, Sleep(max(min(self._backoff(jitter), until - now), _SHORTEST_SLEEP))

    def _backoff(self, jitter: float) -> float:
        """Choose how long to sleep after one more failure."""
        return backoff_seconds(
            self.failures + 1, poke_interval=self.poke_interval, max_wait=self.max_wait, jitter=jitter
        )

    def _is_wrong_setting(self, error: OxenError) -> bool:
        """
        Say whether an error at the very first poll is one that no later poll heals.

        In a triggerer, and in a later process of a task that reschedules, the first poll may not be the wait's first.
        """
        known = self.exists or self.evaluation is not None
        may_be_later = known or self.polls > 0 or self.missing_connection_is_outage
        return isinstance(error, OxenUnreachableError) and error.is_setting and not may_be_later

    def end(self, reason: OutcomeReason, error: OxenError | None = None, *, now: float) -> Outcome:
        """Make the outcome of a wait that ends as it stands."""
        return Outcome(
            reason,
            self.ref,
            evaluation=self.evaluation,
            error=None if error is None else str(error)[:MAX_ERROR_TEXT],
            deadline=self.deadline if reason is OutcomeReason.TIMEOUT else None,
            at=now,
        )

    @property
    def seen_at(self) -> float | None:
        """When the evaluation was last seen, in seconds since the epoch; None before."""
        return None if self.history is None else self.history.at


def _is_foreign(error: OxenError) -> bool:
    """Say whether a 3xx or 4xx did not come from the hub."""
    return isinstance(error, OxenInvalidResponseError) and 300 <= (error.status_code or 0) < 500


def _started_at(seen: Evaluation) -> float | None:
    """Say since when, by the hub's clock, an evaluation has been in its status; None where that is not known."""
    began = seen.started_at if seen.status == EvaluationStatus.RUNNING else None
    if seen.status == EvaluationStatus.QUEUED:
        began = seen.queued_at or seen.inserted_at
    return None if began is None else began.timestamp()
