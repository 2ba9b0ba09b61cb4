"""
Polls against detection delay: the shipped poll schedule, those that lost to it, and fixed intervals.

Run ``python -m benchmarks.poll_schedule`` from the repository's root. Time is simulated: the whole takes under a
minute. The shipped schedule is driven through the real state machine, ``airflow_provider_oxen.wait.Wait``.

*Detection delay* is the time from an evaluation's end to the poll that sees it. *The equal fixed interval* is the one
that makes as many polls on average over the same runs; its mean delay is half of it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import timeit
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from airflow_provider_oxen.polling import History, remember, seconds_to_next_poll
from benchmarks.policies import (
    CANDIDATES,
    FIXED_INTERVALS,
    MAX_WAIT,
    POKE_INTERVAL,
    SHIPPED,
    Candidate,
    Fixed,
    Policy,
    Smoothed,
)
from benchmarks.section import Report, Target
from benchmarks.traces import DURATIONS, FAMILIES, REPORTS_PROGRESS, Trace, corpus

__all__ = ["Run", "Score", "compare", "cost", "estimates", "herd", "main", "measure", "run", "simulate"]

#: A wait begins so many seconds after the evaluation was created, at most; less for short ones.
_LATEST_BEGIN = 60.0
#: Polls that a fixed interval makes beside length / interval: the first at once, and half of one for the rest.
_BESIDE = 1.5


class Run(NamedTuple):
    """One wait for one trace: its polls, its detection delay and its length, in seconds."""

    polls: int
    delay: float
    length: float


@dataclass(frozen=True, slots=True)
class Score:
    """
    Many runs under one policy.

    :param polls: mean polls of a run.
    :param share: polls as a share of those of a fixed interval of ``poke_interval``.
    :param delay: mean detection delay, in seconds.
    :param worst: worst detection delay, in seconds.
    :param ratio: mean delay as a share of the equal fixed interval's.
    :param error: standard error of the mean delay, in seconds.
    """

    polls: float
    share: float
    delay: float
    worst: float
    ratio: float
    error: float

    @classmethod
    def of(cls, runs: list[Run]) -> Score:
        """Sum up many runs."""
        n = len(runs)
        polls, delay, length = (sum(run[i] for run in runs) / n for i in range(3))
        equal_fixed_delay = length / max(polls - _BESIDE, 0.5) / 2
        spread = math.sqrt(sum((run.delay - delay) ** 2 for run in runs) / n)
        return cls(
            polls=polls,
            share=polls / (length / POKE_INTERVAL + _BESIDE),
            delay=delay,
            worst=max(run.delay for run in runs),
            ratio=delay / equal_fixed_delay,
            error=spread / math.sqrt(n),
        )


def simulate(policy: Policy, trace: Trace, draw: random.Random) -> Run:
    """Wait for one evaluation, from some moment near its beginning on."""
    at = begin = draw.uniform(0.0, min(_LATEST_BEGIN, 0.1 * trace.nominal))
    waiting = policy()
    polls = 0
    while True:
        polls += 1
        seconds = waiting.poll(at, trace.at(at), draw.random())
        if seconds is None:
            return Run(polls, at - trace.ends_at, trace.ends_at - begin)
        at += seconds


def fixed(interval: float, trace: Trace, draw: random.Random) -> Run:
    """Calculate what :func:`simulate` would give for a fixed interval. A test compares the two."""
    length = trace.ends_at - draw.uniform(0.0, min(_LATEST_BEGIN, 0.1 * trace.nominal))
    sleeps = math.ceil(length / interval)
    return Run(1 + sleeps, sleeps * interval - length, length)


def measure(
    wait: Callable[[Trace, random.Random], Run], traces: Iterable[Trace], *, waits_each: int = 1, seed: int = 1
) -> dict[tuple[str, float], list[Run]]:
    """
    Wait for every trace.

    :param wait: gives one run.
    :param waits_each: waits for one trace, each with its own beginning and jitter, the same for every policy.
    :return: runs by family and nominal length.
    """
    runs: dict[tuple[str, float], list[Run]] = defaultdict(list)
    for number, trace in enumerate(traces):
        for again in range(waits_each):
            runs[trace.family, trace.nominal].append(wait(trace, random.Random(f"{seed} {number} {again}")))
    return runs


def compare(
    policies: dict[str, Policy],
    *,
    traces_each: int,
    waits_each: int = 1,
    seed: int = 1,
    fixed_intervals: bool = True,
    families: tuple[str, ...] = tuple(FAMILIES),
) -> dict[str, dict[str, Any]]:
    """
    Measure policies on the corpus.

    :return: by policy: ``all`` and ``progress`` (the families that report any), each by nominal length in seconds, and
        ``families``, by name and length; the leaves are :class:`Score`.
    """
    traces = list(corpus(traces_each=traces_each, seed=seed, families=families))
    reporting = tuple(f for f in families if f in REPORTS_PROGRESS) or families
    waits: dict[str, Callable[[Trace, random.Random], Run]] = {
        name: lambda trace, draw, policy=policy: simulate(policy, trace, draw)  # type: ignore[misc]
        for name, policy in policies.items()
    }
    if fixed_intervals:
        for interval in FIXED_INTERVALS:
            waits[f"fixed {interval:g} s"] = lambda trace, draw, interval=interval: fixed(interval, trace, draw)  # type: ignore[misc]
    results = {}
    for name, wait in waits.items():
        runs = measure(wait, traces, waits_each=waits_each, seed=seed)
        pooled = {
            label: {
                nominal: Score.of([run for family in pool for run in runs[family, nominal]]) for nominal in DURATIONS
            }
            for label, pool in (("all", families), ("progress", reporting))
        }
        apart = {f: {nominal: Score.of(runs[f, nominal]) for nominal in DURATIONS} for f in families}
        results[name] = {**pooled, "families": apart}
    return results


def estimates(policy: Callable[[], Candidate], *, traces_each: int, seed: int = 1) -> dict[str, float]:
    """
    Compare the time left that people read in the log with the truth, whenever rows moved, in runs of 10 min and 1 h.

    :return: by family, the factor by which half of the estimates are off or less; 1.0 is exact.
    """
    draw = random.Random(seed)
    off: dict[str, list[float]] = defaultdict(list)
    for trace in corpus(traces_each=traces_each, seed=seed, durations=(600.0, 3_600.0)):
        at, waiting, had = 0.0, policy(), -1
        while (seconds := waiting.poll(at, seen := trace.at(at), draw.random())) is not None:
            rows, truth = seen[1] or 0, trace.queued + trace.running - at
            if waiting.left and rows > had and truth > POKE_INTERVAL:
                off[trace.family].append(math.exp(abs(math.log(waiting.left / truth))))
            at, had = at + seconds, rows
    return {family: median(factors) for family, factors in off.items()}


def herd(policy: Policy, *, waits: int = 1_000, seed: int = 1) -> dict[str, float]:
    """
    Begin many waits in the same moment, for evaluations of about an hour, and watch the hub's busiest second.

    :return: polls in the busiest second, as a multiple of the mean: in the second minute, the tenth and the thirtieth.
    """
    draw = random.Random(seed)
    polls: Counter[int] = Counter()
    hour = corpus(traces_each=waits, seed=seed, durations=(3_600.0,))
    for trace in (trace for trace in hour if trace.family == "linear"):
        at, waiting = 0.0, policy()
        while at < 1_800 and (seconds := waiting.poll(at, trace.at(at), draw.random())) is not None:
            polls[int(at)] += 1
            at += seconds
    minutes = {"2nd minute": range(60, 120), "10th minute": range(540, 600), "30th minute": range(1_740, 1_800)}
    return {name: max(polls[s] for s in m) * 60 / sum(polls[s] for s in m) for name, m in minutes.items()}


def cost() -> dict[str, float]:
    """Time one decision in microseconds and weigh what a wait keeps for it in bytes, its numbers included."""
    history: History = remember(None, at=0.0, status="running", processed=1_000, total=9_000_000)
    history = remember(history, at=5.0, status="running", processed=2_000, total=9_000_000)

    def decide() -> None:
        seen = remember(history, at=65.0, status="running", processed=15_000, total=9_000_000)
        seconds_to_next_poll(seen, poke_interval=POKE_INTERVAL, max_wait=MAX_WAIT, jitter=0.5)

    number = 20_000
    microseconds = min(timeit.repeat(decide, number=number, repeat=5)) / number * 1e6
    own = sys.getsizeof(history) + sum(sys.getsizeof(x) for x in history if not isinstance(x, str))
    return {"microseconds": microseconds, "bytes": float(own)}


def _table(results: dict[str, dict[str, Any]]) -> Iterable[str]:
    lengths = DURATIONS
    yield "Polls in % of a fixed 5 s interval / mean delay in s / that in % of the equal fixed interval's"
    yield f"{'':34}" + "".join(f"{_length(n):>24}" for n in lengths)
    for name, result in results.items():
        cells = ""
        for nominal in lengths:
            share, score = result["all"][nominal].share, result["progress"][nominal]
            cells += f"{share:>11.1%} {score.delay:>6.2f} {score.ratio:>5.0%}"
        yield f"{name:34}{cells}"
    yield ""
    yield "Polls in %: all families. Delays: families that report progress."
    yield "At 1 min, fixed intervals above 20 s depend on the few lengths that a run of a minute has here."


def _families(result: dict[str, Any]) -> Iterable[str]:
    yield "The shipped schedule by family: polls (in % of fixed 5 s) / mean / worst delay in s / % of equal fixed"
    yield f"{'':14}" + "".join(f"{_length(n):>32}" for n in DURATIONS)
    rows = {**result["families"], "all": result["all"], "with progress": result["progress"]}
    for family, scores in rows.items():
        cells = ""
        for score in scores.values():
            cells += (
                f"{score.polls:>8.1f} {score.share:>5.0%} {score.delay:>6.2f} {score.worst:>5.1f} {score.ratio:>4.0%}"
            )
        yield f"{family:14}{cells}"


def _length(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds < 3_600 else f"{seconds / 3_600:g} h"


def _plain(value: Any) -> Any:
    if isinstance(value, Score):
        return {name: getattr(value, name) for name in Score.__slots__}
    return {str(k): _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


def run(*, short: bool, report: Report) -> dict[str, Any]:
    """
    Compare all candidates, as a section of ``make bench``.

    :param short: few traces of each family and length; what they give is noise.
    :param report: called with what is being done.
    :return: plain JSON: ``policies``, ``herd``, ``cost``, ``estimates`` and ``targets``.
    """
    report("polls and delays of each candidate, in simulated time")
    results = compare(CANDIDATES, traces_each=2 if short else 80)
    report("herds, cost of a decision and estimates of the time left")
    policies = _plain(results)
    for name, result in policies.items():
        if name != SHIPPED:
            del result["families"]
    numbers = {"policies": policies, **_of_shipped(traces_each=2 if short else 20)}
    shipped = results[SHIPPED]
    longer = DURATIONS[1:]
    targets = [
        Target(
            "polls, as a share of a fixed 5 s interval's; the largest of 10 min, 1 h and 6 h",
            0.25,
            max(shipped["all"][n].share for n in longer),
        ),
        Target(
            "mean detection delay, as a share of the equal fixed interval's; 10 min and 1 h, with progress",
            0.5,
            max(shipped["progress"][n].ratio for n in longer[:2]),
        ),
        Target("worst detection delay, seconds", MAX_WAIT, max(score.worst for score in shipped["all"].values())),
    ]
    return {**numbers, "targets": [target.plain() for target in targets]}


def _of_shipped(*, traces_each: int, seed: int = 1) -> dict[str, Any]:
    """Measure what is measured for the shipped schedule alone."""
    speeds = {f"{over:.2g}": partial(Candidate, speed=partial(Smoothed, over)) for over in (0.0, 0.1, 1 / 3, 1.0)}
    return {
        "herd": {"shipped": herd(CANDIDATES[SHIPPED]), "fixed 60 s": herd(lambda: Fixed(60.0))},
        "cost": cost(),
        "estimates": {over: estimates(speed, traces_each=traces_each, seed=seed) for over, speed in speeds.items()},
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Compare, print the tables, and return the same as plain numbers."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--traces", type=int, default=20, help="traces of one family and length")
    parser.add_argument("--short", action="store_true", help="only see that it runs: two traces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="a policy's name; may be given again")
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="may be given again")
    parser.add_argument("--json", help="file to write the numbers to")
    parser.add_argument("--plot", help="file to draw the frontier to, as SVG; needs matplotlib")
    asked = parser.parse_args(arguments)
    traces = 2 if asked.short else asked.traces
    policies = {name: CANDIDATES[name] for name in asked.only} if asked.only else CANDIDATES
    families = tuple(asked.family or FAMILIES)
    results = compare(policies, traces_each=traces, seed=asked.seed, families=families)
    print("\n".join(_table(results)), end="\n\n")
    numbers: dict[str, Any] = {"policies": _plain(results)}
    if SHIPPED in results:
        print("\n".join(_families(results[SHIPPED])), end="\n\n")
        numbers |= _of_shipped(traces_each=traces, seed=asked.seed)
        print("Estimates of the time left: half of them are off by this factor or less")
        for over, factors in numbers["estimates"].items():
            print(f"  speed smoothed over {over} of the run:", ", ".join(f"{k} {v:.2f}" for k, v in factors.items()))
        print()
        print("1,000 waits that began together, busiest second as a multiple of the mean:")
        for name, times in numbers["herd"].items():
            print(f"  {name:12}", ", ".join(f"{minute}: {value:.1f}" for minute, value in times.items()))
        print("One decision: {microseconds:.1f} µs. Kept by a wait: {bytes:.0f} bytes.".format(**numbers["cost"]))
    if asked.json:
        Path(asked.json).write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    if asked.plot:
        from benchmarks.plots import frontier

        frontier(numbers["policies"], asked.plot)
    return numbers


if __name__ == "__main__":
    main()
