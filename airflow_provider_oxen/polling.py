"""
When to poll an evaluation next. Numbers in, seconds out: no clock, no I/O, no randomness.

How this works
--------------
:func:`remember` adds one poll after another to a :class:`History`, nine values however long the wait. From it,
:func:`seconds_left` estimates when the last row will be done, and :func:`seconds_to_next_poll` chooses a sleep:

=====================================  ==============================================================================
rows are moving                        half of the estimated time left: polls come closer as the end does, each sleep
                                       half as long as the one before, down to ``poke_interval``
rows should have moved by now          the blind sleep, counted from when they should have
nothing is known (no total or speed)   the blind sleep, counted from when the status was first seen
queued                                 twice the blind sleep: the whole run is still to come
committing, or no row is left          a tenth of the blind sleep: the end is next, so ``poke_interval`` for long
=====================================  ==============================================================================

*The blind sleep* is ``sqrt(poke_interval * age)``. Where nothing else is known, what has lasted for some time lasts
about as long again: its chance to end in the next second falls as one over its age. The cost of polls and delays
together is then least where the sleep grows with the square root of the age. A sleep that grows with the age itself
polls too often early and too late later on.

*The speed* is that of the rows' last movement, smoothed over a tenth of the run: quick to follow a change of pace,
slow enough to survive a burst. Hubs report rows in batches, so time is counted from movement to movement: a batch under
way shortens the time left by as much as the last batch took, no more. A stall therefore neither stretches the estimate
nor lets it run down to zero.

*Jitter* shortens a sleep by up to a quarter, so that waits that started together stop polling together within a few
minutes. The first sleep is drawn from one to two ``poke_interval``, so that waits that began in the same second spread
at once. A sleep that would be far longer than ``max_wait`` has no jitter: waits that far from their end stay as they
are spread. Where ``max_wait`` is ``poke_interval``, there is no room for either.

*Another process* that goes on with a wait polls when the one before it would have (:func:`seconds_to_first_poll`). If
that time has passed, thousands of waits may have lost their triggerer together. Each then polls at a random moment
within the sleep that an evaluation of its age gets, so the hub sees about as many polls a second as before.

What else was tried, and by how much it was worse, is in ``docs/poll-schedule.md``; ``benchmarks/poll_schedule.py``
measures it.

The rule that must not be broken: whatever was seen, the sleep between two polls is ``poke_interval`` to ``max_wait``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = [
    "History",
    "assume",
    "backoff_seconds",
    "remember",
    "seconds_left",
    "seconds_to_first_poll",
    "seconds_to_next_poll",
]

#: The statuses of the contract in which an evaluation waits for its first row, and in which it has done its last.
_QUEUED_STATUS, _COMMITTING_STATUS = "queued", "committing"
#: Share of the estimated time left that is slept through. A half makes the number of polls grow with the logarithm of
#: the time left, and an estimate may be twice too long before the end is slept through.
_SHARE_OF_TIME_LEFT = 0.5
#: Share of the run over which speed is smoothed. 0 is the speed of the last movement alone, which one row after a
#: stall makes far too low; 1 is that of the whole run, which is late to see a change of pace.
_SMOOTHED_OVER = 0.1
#: Longest sleep on an estimate, as a multiple of how long the run was watched: the first speeds are measured over
#: seconds, and a run of a minute must not be slept through because of one of them.
_SLEEP_PER_WATCHED = 2.0
#: The queue's share of the blind sleep. The delay of a start costs little: the run is still to be waited for.
_QUEUED = 2.0
#: A commit's share. At a ``poke_interval`` of 5 s it is polled every 5 s for 8 minutes, every 10 s after half an
#: hour: most commits end before, and one that hangs does not cost what a fixed interval would.
_FINISHING = 0.1
#: Most that jitter takes off a sleep, as a share, before the sleep is kept to ``max_wait``; more would cost polls.
_JITTER = 0.25
#: Shortest time a movement can take, in seconds, so that a clock set back makes no speed infinite.
_SHORTEST_MOVEMENT = 0.001


class History(NamedTuple):
    """
    What all polls so far have shown, as made by :func:`remember`. A tuple, since one is made at every poll.

    Times are in seconds, on any one clock.

    :param began_at: the first poll.
    :param phase_began_at: the first poll that saw the present status.
    :param moved_at: the last poll that saw the status change or rows done.
    :param at: the last poll.
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
    Add one poll.

    Rows that go backwards, as a replica may report that lags behind another, count as standing still.

    :param before: what was known before; None at the first poll.
    :param at: when the poll was, in seconds on the clock of the polls before.
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


def assume(began_at: float | None, *, at: float, status: str, total: int | None) -> History | None:
    """
    Make the history of a status that was not watched, from when it began: no row was done then.

    :param began_at: when the status began, which a clock that is wrong may put after the poll; None if not known.
    :param at: when the first poll is.
    :return: None where nothing can be assumed.
    """
    if began_at is None or began_at >= at:
        return None
    return History(began_at, began_at, began_at, began_at, status, 0, total, 0.0, 0.0)


def seconds_left(history: History) -> float | None:
    """
    Estimate the time until the last row is done, from the last poll on.

    :return: seconds, 0 or more; None where it cannot be known: no rows moved yet in the present status, no total, or no
        row left.
    """
    processed, total, speed = history.processed, history.total, history.rows_per_second
    if processed is None or not total or processed >= total or speed <= 0:
        return None
    stood = history.at - history.moved_at
    return max((total - processed) / speed - max(min(stood, history.rhythm_seconds), 0.0), 0.0)


def seconds_to_next_poll(history: History, *, poke_interval: float, max_wait: float, jitter: float) -> float:
    """
    Choose how long to sleep before the evaluation is polled again.

    :param history: what was seen so far.
    :param poke_interval: shortest time between two polls, in seconds; above 0.
    :param max_wait: longest, in seconds; at least ``poke_interval``.
    :param jitter: 0.0 to 1.0, drawn by the caller, so that waits that began together do not poll together.
    :return: seconds, from ``poke_interval`` to ``max_wait``.
    """
    if history.at == history.began_at:
        return min(poke_interval * (1.0 + jitter), max_wait)
    watched, stood = history.at - history.phase_began_at, history.at - history.moved_at
    left = seconds_left(history)
    if history.status == _QUEUED_STATUS:
        wish = _QUEUED * _blind_sleep(watched, poke_interval)
    elif history.status == _COMMITTING_STATUS or _no_row_is_left(history):
        wish = _FINISHING * _blind_sleep(stood, poke_interval)
    elif left is None:
        wish = _blind_sleep(watched, poke_interval)
    else:
        late = _blind_sleep(stood - history.rhythm_seconds, poke_interval)
        wish = min(max(_SHARE_OF_TIME_LEFT * left, late), _SLEEP_PER_WATCHED * watched)
    return min(max(wish * (1.0 - _JITTER * jitter), poke_interval), max_wait)


def seconds_to_first_poll(
    history: History, *, now: float, poke_interval: float, max_wait: float, jitter: float
) -> float:
    """
    Choose how long a process sleeps that goes on with a wait, before its own first poll.

    :param history: what the process before it has seen.
    :param now: the present, in seconds on the clock of the history.
    :param poke_interval: shortest time between two polls, in seconds; above 0.
    :param max_wait: longest, in seconds; at least ``poke_interval``.
    :param jitter: 0.0 to 1.0, drawn by the caller, so that waits that are taken over together do not poll together.
    :return: seconds, from 0 to ``max_wait``.
    """
    planned = seconds_to_next_poll(history, poke_interval=poke_interval, max_wait=max_wait, jitter=jitter)
    passed = max(now - history.at, 0.0)
    if passed < planned:
        return planned - passed
    unchanged = history._replace(at=now)
    return jitter * seconds_to_next_poll(unchanged, poke_interval=poke_interval, max_wait=max_wait, jitter=0.0)


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
