"""
How many waits one triggerer process carries: the event loop's lag, CPU a poll, and how late an end is seen.

Run ``python -m benchmarks.scale`` from the repository's root. All waits begin at once, without anything that
was seen before, and poll at a fixed interval, which is the hardest case: nothing spreads them but the start itself.
Fifty of the evaluations complete on the way. The server is a process of its own, on a processor of
its own where there are two.

*CPU a poll* is that of the waiting process without the interpreter's full garbage collections, which have numbers of
their own: one visits every object there is and takes up to some hundred milliseconds, so that whether one falls into a
stretch would decide the number. The loads that a target is stated for are measured over three stretches of an interval
each, of which the median counts.

*Lag* is how late the event loop runs a task that is due every five milliseconds, also while the loop stands. *Gap* is
the time between two polls of one evaluation, as the server sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks import answering, waiting
from benchmarks.section import Target, command_line

__all__ = ["run"]

#: Waits and their interval in seconds. The first three are the targets'; the others drive one triggerer to
#: where it stops keeping up, with shorter intervals standing for more waits.
_LOADS = ((1_000, 10.0), (5_000, 10.0), (10_000, 10.0), (20_000, 10.0), (10_000, 2.5), (10_000, 1.5), (10_000, 1.0))
_SHORT_LOADS = ((100, 1.0), (200, 1.0))
_ENDING = 50
#: How many of the loads the targets are stated for, and how many stretches each of those is measured over.
_HELD, _STRETCHES = 3, 3
#: What a poll may be late by, in seconds, beside its interval.
_LATE = 1.0
_MOST_LAG_MS = 50.0
#: Whose full garbage collections are compared: coroutines that only sleep, triggers that only sleep, and ours.
_COLLECTED = ("sleeping", "sleeping_triggers", "oxen")


def run(*, short: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """
    Measure.

    :param short: only check that it still runs; its numbers mean little.
    :param report: called with a line on the progress.
    :return: plain JSON: ``loads``, one for each number of waits and interval; ``collections``, by subject: what the
        garbage collector tracks for a wait, and what a full collection takes; and ``targets``.
    """
    collections = {name: _measure_collection(name, short, report) for name in _COLLECTED}
    loads = [
        _measure(waits, interval, _STRETCHES if number < _HELD else 1, report)
        for number, (waits, interval) in enumerate(_SHORT_LOADS if short else _LOADS)
    ]
    held = loads[:_HELD]
    costs = [load["ms_a_poll"] for load in held]
    targets = [
        Target("event loop's p99 lag, ms", _MOST_LAG_MS, max(load["lag_ms"]["p99"] for load in held)),
        Target("its p99 lag during the start, ms", _MOST_LAG_MS, max(load["start_lag_ms"]["p99"] for load in held)),
        Target(
            "CPU a poll without full collections, as a multiple of that with the fewest waits",
            1.2,
            max(costs) / costs[0],
        ),
        Target("end seen, s over poke_interval", _LATE, max(load["worst_delay_over"] for load in held)),
        Target("longest gap, s over poke_interval", _LATE, max(load["worst_gap_over"] for load in held)),
        Target("waits polled only once", 0, max(load["polled_once_only"] for load in held)),
        Target(
            "full collection, as a multiple of that with as many triggers that only sleep",
            1.2,
            collections["oxen"]["least_ms"] / collections["sleeping_triggers"]["least_ms"],
        ),
        Target("ends not seen", 0, max(_ENDING - load["ends_seen"] for load in held)),
    ]
    return {"loads": loads, "collections": collections, "targets": [target.plain() for target in targets]}


def _measure_collection(subject: str, short: bool, report: Callable[[str], None]) -> dict[str, float]:
    waits, interval = (100, 1.0) if short else (10_000, 10.0)
    with answering.running(core=1) as server, waiting.running(core=0) as waiter:
        found: dict[str, float] = waiter.send(
            "collection", subject=subject, url=server.url, waits=waits, interval=interval
        )
    report(
        f"{waits:6,} {subject}: {found['tracked_a_wait']:.1f} objects tracked for each, a full collection takes "
        f"{found['least_ms']:.0f} ms"
    )
    return found


def _measure(waits: int, interval: float, stretches: int, report: Callable[[str], None]) -> dict[str, Any]:
    # A process for each load: memory that one has freed must not serve the next.
    with answering.running(core=1) as server, waiting.running(core=0) as waiter:
        settle = max(interval, waits / 1_500)
        began = waiter.send(
            "scale",
            url=server.url,
            waits=waits,
            interval=interval,
            ending=_ENDING,
            settle=settle,
            stretches=stretches,
        )
        lag = waiter.read()
        counts = [server.counts()]
        steady = []
        for _ in range(stretches):
            steady.append(waiter.read())
            counts.append(server.counts())
        seen = waiter.read()
        gaps = server.gaps()
    polls = counts[-1]["polls"] - counts[0]["polls"]
    cpu, wall = (sum(stretch[f"{name}_seconds"] for stretch in steady) for name in ("cpu", "wall"))
    full = [seconds for stretch in steady for seconds in stretch["full_collections"]]
    each = [
        1_000 * (stretch["cpu_seconds"] - sum(stretch["full_collections"])) / max(end["polls"] - begin["polls"], 1)
        for stretch, (begin, end) in zip(steady, pairwise(counts), strict=True)
    ]
    delays = seen["delays"] or [float("inf")]
    load = {
        "waits": waits,
        "interval": interval,
        "polls_a_second": polls / wall,
        "polls_a_second_wanted": waits / interval,
        "ms_a_poll": median(each),
        "ms_a_poll_each": each,
        "measured_seconds": wall,
        "full_collections_ms": [1_000 * seconds for seconds in full],
        "busy": cpu / wall,
        "lag_ms": lag["lag_ms"],
        "start_lag_ms": began["lag_ms"],
        "creating_seconds": began["creating_seconds"],
        "bytes_a_wait": steady[-1]["bytes_a_wait"],
        "connections": counts[-1]["connections"],
        "ends_seen": len(seen["delays"]),
        "failed": seen["failed"],
        "worst_delay_over": delays[-1] - interval,
        "worst_gap_over": max(gaps.values(), default=0.0) - interval,
        "polled_once_only": waits - _ENDING - sum(name.startswith("still-") for name in gaps),
    }
    lag_ms, start_lag_ms = load["lag_ms"], load["start_lag_ms"]
    report(
        f"{waits:6,} waits every {interval:g} s: {load['polls_a_second']:,.0f} polls/s, {load['ms_a_poll']:.3f} ms a "
        f"poll ({min(each):.3f} to {max(each):.3f}; {len(full)} full collections: {1_000 * sum(full):.0f} ms more), "
        f"busy {load['busy']:.0%}, lag p99 {lag_ms['p99']:.1f} ms (most {lag_ms['most']:.0f}; in the start "
        f"{start_lag_ms['p99']:.1f}, most {start_lag_ms['most']:.0f}), worst gap {load['worst_gap_over']:+.2f} s and "
        f"worst delay {load['worst_delay_over']:+.2f} s over the interval, {load['ends_seen']} ends, "
        f"{load['bytes_a_wait'] / 1000:.1f} KB a wait, created in {load['creating_seconds']:.1f} s"
    )
    return load


if __name__ == "__main__":
    command_line(run, lambda *_: None, description=__doc__)  # the reports say it all, load by load
