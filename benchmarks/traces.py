"""
The corpus: what the hub reports of an evaluation from its start to its end. Pure functions of time, drawn from a seed.

A :class:`Trace` gives, for any second since the evaluation was created, the status, the rows done and the rows in all,
as the hub would. A family is a way to make progress; each of its traces draws its own exact length, number of
rows and shape, so that a mean over a family is not a mean over one lucky case.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

__all__ = ["DURATIONS", "FAMILIES", "REPORTS_PROGRESS", "Seen", "Trace", "corpus"]

#: What one poll sees: status, rows done, rows in all.
Seen: TypeAlias = tuple[str, int | None, int | None]
#: A shape of progress: share of the running time gone, to share of the rows done.
Curve: TypeAlias = Callable[[float], float]

#: Nominal lengths, in seconds: 1 minute, 10 minutes, 1 hour, 6 hours.
DURATIONS = (60.0, 600.0, 3_600.0, 21_600.0)
#: Most by which a trace's length differs from the nominal one, as a share: else every fixed interval that divides the
#: nominal length would poll at the very moment of the end.
_LENGTH_SPREAD = 0.15
#: Seconds: longest queue and longest commit where a family says nothing else, and their longest shares of the whole.
_SHORT_QUEUE, _SHORT_COMMIT, _SHORT_SHARE = 20.0, 60.0, 0.05


@dataclass(frozen=True, slots=True)
class Trace:
    """
    One evaluation.

    :param family: how it makes progress.
    :param nominal: the length it stands for, in seconds.
    :param queued: seconds in the queue.
    :param running: seconds over the rows.
    :param committing: seconds in which the results are committed.
    :param rows: rows in all.
    :param curve: the shape of its progress.
    :param reports: which numbers the hub gives while it runs: ``all``, ``none``, ``zeros``, ``total`` or ``processed``.
    """

    family: str
    nominal: float
    queued: float
    running: float
    committing: float
    rows: int
    curve: Curve
    reports: str = "all"

    @property
    def ends_at(self) -> float:
        """When it completes, in seconds since it was created."""
        return self.queued + self.running + self.committing

    def at(self, seconds: float) -> Seen:
        """Return what the hub reports so many seconds after the evaluation was created."""
        if seconds >= self.ends_at:
            return "completed", self.rows, self.rows
        if seconds < self.queued:
            return ("queued", None, None) if self.reports == "none" else ("queued", 0, 0)
        ran = seconds - self.queued
        if ran >= self.running:
            return ("committing", *self._numbers(self.rows))
        return ("running", *self._numbers(min(int(self.rows * self.curve(ran / self.running)), self.rows)))

    def _numbers(self, processed: int) -> tuple[int | None, int | None]:
        match self.reports:
            case "none":
                return None, None
            case "zeros":
                return 0, 0
            case "total":
                return 0, self.rows
            case "processed":
                return processed, None
        return processed, self.rows


def _through(points: list[tuple[float, float]]) -> Curve:
    """Draw straight lines through points, the first at (0, 0), the last at (1, 1)."""
    xs = [x for x, _ in points]

    def curve(share: float) -> float:
        i = min(max(bisect_right(xs, share), 1), len(points) - 1)
        (x0, y0), (x1, y1) = points[i - 1], points[i]
        return y1 if x1 <= x0 else y0 + (y1 - y0) * (share - x0) / (x1 - x0)

    return curve


def _shares(draw: random.Random, count: int, spread: float) -> list[float]:
    """Cut 1 into so many parts, the longest about ``exp(2 * spread)`` times the middle one; return the running sum."""
    parts = [draw.lognormvariate(0.0, spread) for _ in range(count)]
    return [0.0, *accumulate(part / sum(parts) for part in parts)]


def _linear(_: random.Random) -> Curve:
    return float


def _accelerating(draw: random.Random) -> Curve:
    power = draw.uniform(1.5, 3.0)
    return lambda share: share**power


def _decelerating(draw: random.Random) -> Curve:
    power = draw.uniform(1.5, 3.0)
    return lambda share: 1.0 - (1.0 - share) ** power


def _wandering(draw: random.Random) -> Curve:
    """Change pace ten times, often twofold."""
    return _through(list(zip(_shares(draw, 10, 0.7), _shares(draw, 10, 0.0), strict=True)))


def _bursty(draw: random.Random) -> Curve:
    """Finish batch after batch: nothing is reported of a batch until it is done."""
    count = draw.randint(5, 40)
    ends = _shares(draw, count, draw.uniform(0.0, 0.5))[1:]
    return lambda share: bisect_right(ends, share) / count


def _stalled(draw: random.Random) -> Curve:
    """Run evenly but for one to three stalls, 20 % to 60 % of the running time together."""
    stalls, lost = draw.randint(1, 3), draw.uniform(0.2, 0.6)
    cuts = sorted(draw.random() for _ in range(stalls))
    points, x = [(0.0, 0.0)], 0.0
    for before, after in pairwise([0.0, *cuts, 1.0]):
        x += (after - before) * (1.0 - lost)
        points.append((x, after))
        if after < 1.0:
            x += lost / stalls
            points.append((x, after))
    return _through([*points[:-1], (1.0, 1.0)])


#: Every family and its shape. The last three are even where they run: what sets them apart is in :func:`_trace`.
FAMILIES: dict[str, Callable[[random.Random], Curve]] = {
    "linear": _linear,
    "accelerating": _accelerating,
    "decelerating": _decelerating,
    "wandering": _wandering,
    "bursty": _bursty,
    "stalled": _stalled,
    "long queue": _linear,
    "long commit": _linear,
    "no progress": _linear,
}
#: Families whose progress the hub reports.
REPORTS_PROGRESS = tuple(family for family in FAMILIES if family != "no progress")


def _trace(family: str, nominal: float, draw: random.Random) -> Trace:
    whole = nominal * draw.uniform(1.0 - _LENGTH_SPREAD, 1.0 + _LENGTH_SPREAD)
    queued = draw.uniform(0.0, min(_SHORT_QUEUE, _SHORT_SHARE * whole))
    committing = math.exp(draw.uniform(0.0, math.log(max(min(_SHORT_COMMIT, _SHORT_SHARE * whole), 1.0))))
    if family == "long queue":
        queued = draw.uniform(0.3, 0.7) * whole
    if family == "long commit":
        committing = draw.uniform(0.15, 0.4) * whole
    return Trace(
        family=family,
        nominal=nominal,
        queued=queued,
        running=whole - queued - committing,
        committing=committing,
        rows=round(10 ** draw.uniform(1.5, 4.5)),
        curve=FAMILIES[family](draw),
        reports=draw.choice(("none", "zeros", "total", "processed")) if family == "no progress" else "all",
    )


def corpus(
    *,
    traces_each: int,
    seed: int = 1,
    durations: tuple[float, ...] = DURATIONS,
    families: tuple[str, ...] = tuple(FAMILIES),
) -> Iterator[Trace]:
    """
    Draw the corpus: every family at every length.

    :param traces_each: how many traces of one family and length.
    :param seed: the same seed gives the same corpus, whatever the other arguments: each trace draws for itself.
    :param durations: nominal lengths, in seconds.
    :param families: names out of :data:`FAMILIES`.
    """
    for family in families:
        for nominal in durations:
            for number in range(traces_each):
                yield _trace(family, nominal, random.Random(f"{seed} {family} {nominal} {number}"))
