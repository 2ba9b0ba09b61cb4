"""
When to look at an evaluation next. Numbers in, seconds out: no clock, no I/O, no randomness.

How this works
--------------
:func:`remember` folds one look after another into a :class:`History`, nine values however long the wait. Out of it
:func:`seconds_left` estimates when the last row will be done, and :func:`seconds_to_next_look` chooses a sleep:

=====================================  ==============================================================================
rows are moving                        half of the estimated time left: the looks close in on the end, each step half
                                       as long as the one before, down to ``poke_interval``
rows should have moved by now          the blind sleep, counted from when they should have
nothing tells (no total, none moved)   the blind sleep, counted from when the status was first seen
queued                                 twice the blind sleep: the whole run is still to come
committing, or no row is left          a tenth of the blind sleep: the end is next, so ``poke_interval`` for long
=====================================  ==============================================================================

*The blind sleep* is ``sqrt(poke_interval * age)``. What has lasted for some time will, for all that is known, last
about as long again: its chance to end in the next second falls as one over its age. Looks then cost least, sleeps and
delays together, where the sleep grows with the square root of the age. Growing with the age itself looks too often
early and too late later on.

*The speed* is that of the rows' last movement, smoothed over a tenth of the run: quick to follow a change of pace,
slow enough to survive a burst. Hubs tell rows in batches, so time is counted from movement to movement: a batch in the
making shortens the time left by as much as the last batch took, no more. A stall therefore neither stretches the
estimate nor lets it run down to nothing.

*Jitter* shortens a sleep by up to a quarter, which parts waits for good within a few minutes. The first sleep is drawn
from one to two ``poke_interval``, so that waits that began in the same second part at once. A sleep that would be far
longer than ``max_wait`` has none: waits that far from their end stay as they parted before. Where ``max_wait`` is
``poke_interval`` there is no room for either.

What else was tried, and by how much it lost, is in ``docs/poll-schedule.md``; ``benchmarks/poll_schedule.py`` measures.

The rule for whoever changes this: the result lies between ``poke_interval`` and ``max_wait`` whatever was seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from airflow_provider_oxen.models import EvaluationStatus

__all__ = ["History", "backoff_seconds", "remember", "seconds_left", "seconds_to_next_look"]

#: Share of the estimated time left that is slept through. A half makes the number of looks grow with the logarithm of
#: the time left, and an estimate may be twice too long before the end is slept through.
_SHARE_OF_TIME_LEFT = 0.5
#: Share of the run over which speed is smoothed. 0 is the speed of the last movement alone, which one row after a
#: stall makes far too low; 1 is that of the whole run, which is late to see a change of pace.
_SMOOTHED_OVER = 0.1
#: Longest sleep on an estimate, as a multiple of how long the run was watched: the first speeds are measured over
#: seconds, and a run of a minute must not be slept through on the word of one.
_SLEEP_PER_WATCHED = 2.0
#: The queue's share of the blind sleep. The delay of a start costs little: the run is still to be waited for.
_QUEUED = 2.0
#: A commit's share. At a ``poke_interval`` of 5 s it is looked at every 5 s for 8 minutes, every 10 s after half an
#: hour: most commits end before, and one that hangs does not cost what a fixed interval would.
_FINISHING = 0.1
#: Most that jitter takes off a sleep, as a share, before the sleep is kept to ``max_wait``; more would cost looks.
_JITTER = 0.25
#: Shortest time a movement can take, in seconds, so that a clock set back makes no speed infinite.
_SHORTEST_MOVEMENT = 0.001


class History(NamedTuple):
    """
    What all looks so far have told, as made by :func:`remember`. A tuple, since one is made at every look.

    Times are in seconds, on any one clock.

    :param began_at: the first look.
    :param phase_began_at: the first look that saw the present status.
    :param moved_at: the last look that saw the status change or rows done.
    :param at: the last look.
    :param status: the evaluation's status.
    :param processed: most rows seen done, or None.
    :param total: rows in all, or None.
    :param rhythm_seconds: how long the rows' last movement took; 0.0 before the first in this status.
    :param rows_per_second: speed in this status; 0.0 while it is unknown.
    """

    began_at: float
    phase_began_at: float
    moved_at: float
    at: float
    status: str
    processed: int | None
    total: int | None
    rhythm_seconds: float
    rows_per_second: float


def remember(before: History | None, *, at: float, status: str, processed: int | None, total: int | None) -> History:
    """
    Take in one look.

    Rows that go backwards, as one replica may tell that lags behind another, count as standing still.

    :param before: what was known before; None at the first look.
    :param at: when the look was, in seconds on the clock of the looks before.
    :param status: the evaluation's status.
    :param processed: rows done, or None.
    :param total: rows in all, or None.
    """
    if before is None or status != before.status:
        began_at = at if before is None else before.began_at
        return History(began_at, at, at, at, status, processed, total, 0.0, 0.0)
    began_at, phase_began_at, moved_at, _, _, had, had_total, rhythm, speed = before
    if total is None:
        total = had_total
    if processed is None or (had is not None and processed <= had):
        return History(began_at, phase_began_at, moved_at, at, status, had, total, rhythm, speed)
    if had is None:
        return History(began_at, phase_began_at, at, at, status, processed, total, 0.0, 0.0)
    took = max(at - moved_at, _SHORTEST_MOVEMENT)
    now = (processed - had) / took
    if speed > 0:
        weight = took / (took + _SMOOTHED_OVER * max(moved_at - phase_began_at, 0.0))
        now = speed + weight * (now - speed)
    return History(began_at, phase_began_at, at, at, status, processed, total, took, now)


def seconds_left(history: History) -> float | None:
    """
    Estimate the time until the last row is done, from the last look on.

    :return: seconds, 0 or more; None where nothing tells: no rows moved yet in the present status, no total, or no row
        left.
    """
    processed, total, speed = history.processed, history.total, history.rows_per_second
    if processed is None or not total or processed >= total or speed <= 0:
        return None
    stood = history.at - history.moved_at
    return max((total - processed) / speed - max(min(stood, history.rhythm_seconds), 0.0), 0.0)


def seconds_to_next_look(history: History, *, poke_interval: float, max_wait: float, jitter: float) -> float:
    """
    Choose how long to sleep before the evaluation is looked at again.

    :param history: what was seen so far.
    :param poke_interval: shortest time between two looks, in seconds; above 0.
    :param max_wait: longest, in seconds; at least ``poke_interval``.
    :param jitter: 0.0 to 1.0, drawn by the caller, so that waits that began together do not look together.
    :return: seconds, from ``poke_interval`` to ``max_wait``.
    """
    if history.at == history.began_at:
        return min(poke_interval * (1.0 + jitter), max_wait)
    watched, stood = history.at - history.phase_began_at, history.at - history.moved_at
    left = seconds_left(history)
    if history.status == EvaluationStatus.QUEUED:
        wish = _QUEUED * _blind_sleep(watched, poke_interval)
    elif history.status == EvaluationStatus.COMMITTING or _no_row_is_left(history):
        wish = _FINISHING * _blind_sleep(stood, poke_interval)
    elif left is None:
        wish = _blind_sleep(watched, poke_interval)
    else:
        late = _blind_sleep(stood - history.rhythm_seconds, poke_interval)
        wish = min(max(_SHARE_OF_TIME_LEFT * left, late), _SLEEP_PER_WATCHED * watched)
    return min(max(wish * (1.0 - _JITTER * jitter), poke_interval), max_wait)


def _blind_sleep(age: float, poke_interval: float) -> float:
    """Choose a sleep by how long something has lasted, where nothing else is known of when it will end."""
    return math.sqrt(poke_interval * max(age, 0.0))


def _no_row_is_left(history: History) -> bool:
    return bool(history.total) and history.processed is not None and history.processed >= (history.total or 0)


def backoff_seconds(attempts: int, *, poke_interval: float, max_wait: float, jitter: float) -> float:
    """
    Choose how long to sleep where each sleep should be twice the one before.

    :param attempts: how many came before, 1 or more.
    :return: seconds, from half of ``poke_interval`` to ``max_wait``: half of the doubled time is certain and half is
        drawn, so that many waits that failed together do not come back together.
    """
    full = min(poke_interval * 2.0 ** min(attempts - 1, 60), max_wait)
    return full * (0.5 + 0.5 * jitter)
