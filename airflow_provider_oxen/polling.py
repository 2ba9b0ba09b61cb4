"""
When to look at an evaluation next. Numbers in, seconds out: no clock, no I/O, no randomness.

How this works
--------------
Three things are known of a running evaluation: when it was looked at, what its status was, and how many rows were done.

*With progress*, the rows done between two looks give a speed, and the rows left at that speed give the time left. The
next look comes after half of that time, so the looks close in on the end: ever shorter steps, down to
``poke_interval``. A burst or a stall changes the speed, and so the next step; it is never trusted beyond ``max_wait``.

*Without progress* (queued, committing, no total, or nothing moved) the best guess of how long a phase will last is how
long it has lasted so far, so the step grows with it: a tenth of the time since the status changed.

The rule for whoever changes this: the result lies between ``poke_interval`` and ``max_wait`` whatever was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Sample", "backoff_seconds", "seconds_left", "seconds_to_next_look"]

#: Samples worth keeping: speed is measured over the last few looks, so that it follows a change of pace.
SAMPLES_KEPT = 6
#: Share of the estimated time left that is slept through. A half makes the number of looks grow with the logarithm of
#: the run's length, and bounds what an estimate that is off by two can cost.
_SHARE_OF_TIME_LEFT = 0.5
#: Share of a phase's age that is slept through where nothing tells how long it will last.
_SHARE_OF_AGE = 0.1
#: Most that jitter adds, as a share: enough to part waits that began together, too little to be noticed.
_JITTER = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What one look saw.

    :param at: when, in seconds on any clock that all samples share.
    :param status: the evaluation's status.
    :param processed: rows done, or None.
    :param total: rows in all, or None.
    """

    at: float
    status: str
    processed: int | None = None
    total: int | None = None


def seconds_left(seen: Sequence[Sample]) -> float | None:
    """
    Estimate the time until the last row is done, from the last look on.

    :param seen: what was seen, oldest first.
    :return: seconds, above 0; None where nothing tells: fewer than two looks with progress in the present status, no
        row done between them, or no row left.
    """
    if not seen:
        return None
    last = seen[-1]
    if last.processed is None or not last.total or last.processed >= last.total:
        return None
    first = next((s for s in seen if s.status == last.status and s.processed is not None), last)
    if first.processed is None or first.processed >= last.processed or first.at >= last.at:
        return None
    speed = (last.processed - first.processed) / (last.at - first.at)
    return (last.total - last.processed) / speed


def seconds_to_next_look(
    seen: Sequence[Sample], *, phase_began_at: float, poke_interval: float, max_wait: float, jitter: float
) -> float:
    """
    Choose how long to sleep before the evaluation is looked at again.

    :param seen: what was seen so far, oldest first; at least one sample.
    :param phase_began_at: when the present status was first seen, on the samples' clock.
    :param poke_interval: shortest time between two looks, in seconds; above 0.
    :param max_wait: longest, in seconds; at least ``poke_interval``.
    :param jitter: 0.0 to 1.0, drawn by the caller, so that waits that began together do not look together.
    :return: seconds, from ``poke_interval`` to ``max_wait``.
    """
    left = seconds_left(seen)
    wish = _SHARE_OF_AGE * (seen[-1].at - phase_began_at) if left is None else _SHARE_OF_TIME_LEFT * left
    return min(max(wish, poke_interval) * (1 + _JITTER * jitter), max_wait)


def backoff_seconds(attempts: int, *, poke_interval: float, max_wait: float, jitter: float) -> float:
    """
    Choose how long to sleep where each sleep should be twice the one before.

    :param attempts: how many came before, 1 or more.
    :return: seconds, from half of ``poke_interval`` to ``max_wait``: half of the doubled time is certain and half is
        drawn, so that many waits that failed together do not come back together.
    """
    full = min(poke_interval * 2.0 ** min(attempts - 1, 60), max_wait)
    return full * (0.5 + 0.5 * jitter)
