"""
Poll schedules to compare: the one that is shipped, those that lost to it, and fixed intervals.

A policy is a function without arguments that begins one wait. A wait takes one poll at a time and returns the seconds
to sleep, or None when it has seen the end. :class:`Candidate` is the shipped schedule with every decision as an
argument, so that each loser differs from it in one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, EvaluationStatus, Progress
from airflow_provider_oxen.wait import Sleep, Wait
from benchmarks.traces import Seen

__all__ = [
    "CANDIDATES",
    "FIXED_INTERVALS",
    "MAX_WAIT",
    "POKE_INTERVAL",
    "SHIPPED",
    "Candidate",
    "Fixed",
    "Policy",
    "Shipped",
    "Smoothed",
]

#: Seconds. What the targets are stated for.
POKE_INTERVAL, MAX_WAIT = 5.0, 60.0

_REF = EvaluationRef("ox", "r", "3f6c1b0e-8a4d-4a52-9a57-3c1f3b1f7d11")


class Waiting(Protocol):
    """One wait."""

    def poll(self, at: float, seen: Seen, jitter: float) -> float | None:
        """Take the result of one poll; return the seconds until the next, or None at the end."""


Policy: TypeAlias = Callable[[], Waiting]


class Shipped:
    """What users run: :class:`airflow_provider_oxen.wait.Wait` itself."""

    def __init__(self) -> None:
        self._wait = Wait(
            ref=_REF, poke_interval=POKE_INTERVAL, max_wait=MAX_WAIT, deadline=math.inf, retry_window=None
        )

    def poll(self, at: float, seen: Seen, jitter: float) -> float | None:
        """Let the state machine decide."""
        status, processed, total = seen
        evaluation = Evaluation(_REF.evaluation_id, EvaluationStatus(status), Progress(processed, total))
        self._wait, step = self._wait.advance(evaluation, now=at, jitter=jitter)
        return step.seconds if isinstance(step, Sleep) else None


class Fixed:
    """The same sleep every time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def poll(self, _: float, seen: Seen, __: float) -> float | None:
        """Sleep as always."""
        return None if seen[0] == "completed" else self.seconds


class Doubling:
    """Twice the last sleep, as clients of many clouds do: the classic schedule that knows nothing of progress."""

    def __init__(self) -> None:
        self._seconds = POKE_INTERVAL / 2

    def poll(self, _: float, seen: Seen, jitter: float) -> float | None:
        """Sleep twice as long as before."""
        self._seconds = min(self._seconds * 2, MAX_WAIT)
        return None if seen[0] == "completed" else max(self._seconds * (1 - 0.25 * jitter), POKE_INTERVAL)


class Speed(Protocol):
    """An estimator: rows seen in, rows a second out."""

    def see(self, at: float, rows: int) -> None:
        """Take the rows done at one poll of the present phase."""

    def left(self, rest: int) -> float | None:
        """Return the seconds that so many rows will take from the last movement on; None while that is unknown."""


class Smoothed:
    """The speed from movement to movement, smoothed over a share of the run: 0 is the last alone, 1 the whole run."""

    def __init__(self, over: float) -> None:
        self._over, self._speed, self._began, self._at, self._rows = over, 0.0, -1.0, 0.0, 0

    def see(self, at: float, rows: int) -> None:
        """Weigh a movement by the time it took."""
        if self._began < 0:
            self._began, self._at, self._rows = at, at, rows
        elif rows > self._rows:
            took, ran = at - self._at, self._at - self._began
            weight = took / (took + self._over * ran) if self._speed else 1.0
            self._speed += weight * ((rows - self._rows) / took - self._speed)
            self._at, self._rows = at, rows

    def left(self, rest: int) -> float | None:
        """Divide."""
        return rest / self._speed if self._speed else None


class Earliest:
    """The earlier of two estimated ends: by the speed of the whole run, and by that of the last movement."""

    def __init__(self) -> None:
        self._both = (Smoothed(0.0), Smoothed(1.0))

    def see(self, at: float, rows: int) -> None:
        """Feed both."""
        for speed in self._both:
            speed.see(at, rows)

    def left(self, rest: int) -> float | None:
        """Take the lower."""
        return min((left for speed in self._both if (left := speed.left(rest)) is not None), default=None)


class Trend(Smoothed):
    """Speed and its change (Holt's double smoothing): when will the rows be done if the pace goes on changing so."""

    def __init__(self, over: float = 0.3) -> None:
        super().__init__(over)
        self._change = 0.0

    def see(self, at: float, rows: int) -> None:
        """Smooth the change of speed as the speed is."""
        speed, moved_at, ran = self._speed, self._at, self._at - self._began
        super().see(at, rows)
        if speed and self._at > moved_at:
            took = self._at - moved_at
            self._change += took / (took + ran) * ((self._speed - speed) / took - self._change)

    def left(self, rest: int) -> float | None:
        """Solve ``speed * t + change * t² / 2 = rest``."""
        if not self._speed or not self._change:
            return super().left(rest)
        root = self._speed**2 + 2 * self._change * rest
        return (math.sqrt(root) - self._speed) / self._change if root > 0 else super().left(rest)


class Window:
    """The speed between the oldest and the newest of the last polls, whether rows moved or not."""

    def __init__(self, polls: int) -> None:
        self._polls: deque[tuple[float, int]] = deque(maxlen=polls)

    def see(self, at: float, rows: int) -> None:
        """Keep the last polls."""
        self._polls.append((at, rows))

    def left(self, rest: int) -> float | None:
        """Divide."""
        (began, first), (at, last) = self._polls[0], self._polls[-1]
        return rest * (at - began) / (last - first) if last > first else None


def _lightly_smoothed() -> Smoothed:
    return Smoothed(0.1)


def _root_of_age(age: float) -> float:
    return math.sqrt(POKE_INTERVAL * max(age, 0.0))


class Candidate:
    """
    The shipped schedule, each of its decisions an argument.

    :param speed: begins an estimator.
    :param share: share of the time left that is slept through.
    :param batches: how far standing still shortens the time left: ``last`` (by what the last batch took), ``none`` or
        ``any`` (by all of it).
    :param blind: the sleep after so many seconds without news.
    :param queued: its multiple while queued.
    :param finishing: the sleep by a commit's age.
    :param per_watched: longest sleep on an estimate, as a multiple of the time the run was watched.

    ``left`` is the time left as estimated at the last poll, in seconds, or None.
    """

    def __init__(
        self,
        *,
        speed: Callable[[], Speed] = _lightly_smoothed,
        share: float = 0.5,
        batches: str = "last",
        blind: Callable[[float], float] = _root_of_age,
        queued: float = 2.0,
        finishing: Callable[[float], float] = lambda age: 0.1 * _root_of_age(age),
        per_watched: float = 2.0,
    ) -> None:
        self._new_speed, self._share, self._batches, self._blind = speed, share, batches, blind
        self._queued, self._finishing, self._per_watched = queued, finishing, per_watched
        self.left: float | None = None
        self._status: str | None = None
        self._began: float | None = None
        self._speed: Speed = speed()
        self._phase = self._moved = self._rhythm = 0.0
        self._rows: int | None = None

    def poll(self, at: float, seen: Seen, jitter: float) -> float | None:
        """Take one poll and choose."""
        status, rows, total = seen
        if status == "completed":
            return None
        first, self.left = self._began is None, None
        if first:
            self._began = at
        if status != self._status:
            self._status, self._rows, self._speed = status, rows, self._new_speed()
            self._phase, self._moved, self._rhythm = at, at, 0.0
        elif rows is not None and self._rows is not None and rows > self._rows:
            self._rows, self._rhythm, self._moved = rows, at - self._moved, at
        if rows is not None:
            self._speed.see(at, rows)
        if first:
            return min(POKE_INTERVAL * (1 + jitter), MAX_WAIT)
        return min(max(self._wish(at, total) * (1 - 0.25 * jitter), POKE_INTERVAL), MAX_WAIT)

    def _wish(self, at: float, total: int | None) -> float:
        watched, stood = at - self._phase, at - self._moved
        if self._status == "queued":
            return self._queued * self._blind(watched)
        if self._status == "committing" or (total and self._rows is not None and self._rows >= total):
            return self._finishing(stood)
        left = self._speed.left(total - self._rows) if total and self._rows is not None else None
        if left is None:
            return self._blind(watched)
        left -= {"none": 0.0, "last": min(stood, self._rhythm), "any": stood}[self._batches]
        self.left = max(left, 0.0)
        late = self._blind(max(stood - self._rhythm, 0.0))
        return min(max(self._share * left, late), self._per_watched * watched)


def _share_of_age(share: float) -> Callable[[float], float]:
    return lambda age: share * age


#: The shipped schedule's name in tables.
SHIPPED = "shipped"

#: Everything but fixed intervals, by name: what differs from the shipped schedule.
CANDIDATES: dict[str, Policy] = {
    SHIPPED: Shipped,
    # When will the last row be done?
    "speed: last movement": partial(Candidate, speed=partial(Smoothed, 0.0)),
    "speed: smoothed over a third": partial(Candidate, speed=partial(Smoothed, 1 / 3)),
    "speed: whole run": partial(Candidate, speed=partial(Smoothed, 1.0)),
    "speed: last two polls": partial(Candidate, speed=partial(Window, 2), batches="none"),
    "speed: last six polls": partial(Candidate, speed=partial(Window, 6), batches="none"),
    "speed: earliest of two": partial(Candidate, speed=Earliest),
    "speed: with its trend": partial(Candidate, speed=Trend),
    "a batch under way: ignored": partial(Candidate, batches="none"),
    "a batch under way: all of it": partial(Candidate, batches="any"),
    # How much of that is slept through?
    "share of time left: 0.3": partial(Candidate, share=0.3),
    "share of time left: 0.7": partial(Candidate, share=0.7),
    "share of time left: 0.9": partial(Candidate, share=0.9),
    "no limit by time watched": partial(Candidate, per_watched=math.inf),
    # And where nothing is known?
    "blind: age / 10": partial(Candidate, blind=_share_of_age(0.1)),
    "blind: age / 4": partial(Candidate, blind=_share_of_age(0.25)),
    "queue as any blind phase": partial(Candidate, queued=1.0),
    "commit: as any blind phase": partial(Candidate, finishing=_root_of_age),
    "commit: age / 10": partial(Candidate, finishing=_share_of_age(0.1)),
    "commit: always poke_interval": partial(Candidate, finishing=lambda _: POKE_INTERVAL),
    # Whole schedules.
    "six polls, age / 10": partial(
        Candidate,
        speed=partial(Window, 6),
        batches="none",
        blind=_share_of_age(0.1),
        queued=1.0,
        finishing=_share_of_age(0.1),
        per_watched=math.inf,
    ),
    "doubling": Doubling,
}

#: Seconds.
FIXED_INTERVALS = (5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
