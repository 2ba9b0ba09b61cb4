"""
A wait that goes on in another process: what it takes with it, and when that process polls.

1. A task that reschedules has many processes. One writes with :func:`to_memory` what the next must know, which reads it
   with :func:`with_memory`. The time by which that one begins later than planned is no outage: :func:`without_delay`.
2. A triggerer goes on with what a worker or another triggerer has seen: :func:`resume`. It polls when that one would
   have, or spreads its polls where it is late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_oxen import values
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.polling import History, remember, seconds_to_first_poll
from airflow_provider_oxen.wait import Wait

__all__ = ["resume", "to_memory", "with_memory", "without_delay"]


def resume(wait: Wait, seen_at: float | None, *, now: float, jitter: float) -> tuple[Wait, float]:
    """
    Go on with what the process before this one has seen.

    :param wait: with the evaluation as it was seen, if it was.
    :param seen_at: when that was, in seconds since the epoch, by a clock that may be another machine's; None where it
        is not known.
    :param now: seconds since the epoch.
    :param jitter: 0.0 to 1.0, drawn at random by the caller.
    :return: the wait, and the seconds until this process polls.
    """
    seen = wait.evaluation
    if seen is None or seen_at is None:
        return wait, 0.0
    progress = seen.progress
    history = remember(
        None, at=min(seen_at, now), status=seen.status, processed=progress.processed, total=progress.total
    )
    seconds = seconds_to_first_poll(
        history, now=now, poke_interval=wait.poke_interval, max_wait=wait.max_wait, jitter=jitter
    )
    return wait._replace(history=history), max(min(seconds, wait.deadline - now), 0.0)


def to_memory(wait: Wait) -> dict[str, Any]:
    """Write what a later process of the same wait has to know, as plain JSON."""
    return {
        **wait.ref.to_dict(),
        "deadline": wait.deadline,
        "evaluation": None if wait.evaluation is None else wait.evaluation.to_dict(),
        "history": None if wait.history is None else list(wait.history),
        "unknown_statuses": sorted(wait.unknown_statuses),
        "polls": wait.polls,
        "failures": wait.failures,
        "failing_since": wait.failing_since,
        "not_found_since": wait.not_found_since,
    }


def with_memory(wait: Wait, memory: Mapping[str, Any]) -> Wait:
    """
    Go on where an earlier process of the same wait was.

    :param memory: as :func:`to_memory` made it.
    :raises ValueError: it is not that.
    """
    try:
        ref = EvaluationRef.find_in(memory)
        if ref is None:
            raise ValueError("it names no evaluation")
        document, history = memory["evaluation"], memory["history"]
        return wait._replace(
            ref=ref,
            deadline=min(wait.deadline, float(memory["deadline"])),
            evaluation=None if document is None else Evaluation.from_dict(document),
            history=None if history is None else _parse_history(history),
            unknown_statuses=frozenset(map(str, memory["unknown_statuses"])),
            polls=int(memory["polls"]),
            failures=int(memory["failures"]),
            failing_since=values.number(memory["failing_since"]),
            not_found_since=values.number(memory["not_found_since"]),
        )
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def without_delay(wait: Wait, seconds: float) -> Wait:
    """
    Leave out the time by which the next poll is later than planned: nothing was seen to fail in it.

    :param seconds: below 0 where the clock was set back meanwhile.
    """
    since, lagging_since = wait.failing_since, wait.not_found_since
    return wait._replace(
        failing_since=None if since is None else since + seconds,
        not_found_since=None if lagging_since is None else lagging_since + seconds,
    )


def _parse_history(found: Iterable[Any]) -> History:
    history = History(*found)
    times = (history.began_at, history.phase_began_at, history.moved_at, history.at)
    numbers = (*times, history.rhythm_seconds, history.rows_per_second)
    counts = (history.processed, history.total)
    if not all(values.number(number) is not None for number in numbers) or not isinstance(history.status, str):
        raise ValueError("the stored history is not valid")
    if not all(count is None or values.count(count) is not None for count in counts):
        raise ValueError("the stored history is not valid")
    return history
