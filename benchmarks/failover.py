"""
What a failover costs: a fresh triggerer takes over all the waits of another, beside dbt Cloud's trigger.

Run ``python -m benchmarks.failover`` from the repository's root, with dbt Cloud's provider installed. All waits begin
at once, in a process that has not waited before. The server is a process of its own, see :mod:`benchmarks.answering`.

Ours have been seen by a worker an hour before, and so spread their polls over ``max_wait``; dbt Cloud's poll at once.
*Until polled* is the time from the start of the first wait to the poll that sees again what a wait waits for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from benchmarks import answering, waiting
from benchmarks.section import Target, command_line

__all__ = ["run"]

_SUBJECTS = ("oxen", "dbt")
#: The sensor's default.
_MAX_WAIT_SECONDS = 60.0


def run(*, short: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """
    Measure.

    :param short: only check that it still runs; its numbers mean little.
    :param report: called with a line on the progress.
    :return: plain JSON: ``waits``; ``subjects``, for each what the server and the waiting process saw; and ``targets``.
    """
    waits, max_wait = (200, 11.0) if short else (10_000, _MAX_WAIT_SECONDS)
    subjects = {name: _measure(name, waits, max_wait, report) for name in _SUBJECTS}
    ours, dbt = subjects["oxen"], subjects["dbt"]
    targets = [
        Target("look-ups of the connection", 1, ours["look_ups"]),
        Target("connections at a time", 20, ours["most_connections"]),
        Target("waits not polled, or failed", 0, waits - ours["polled"] + ours["failed"]),
        Target(
            "seconds from the last start until all were polled, as a multiple of max_wait",
            1.02,
            (ours["seconds_until_polled"]["most"] - ours["beginning_seconds"]) / max_wait,
        ),
        Target(
            "polls in the busiest second, as a multiple of those that an even spread has",
            2.0 if short else 1.5,
            ours["most_polls_in_a_second"] / (waits / max_wait),
        ),
        Target(
            "CPU time until all were polled, as a multiple of dbt Cloud's",
            0.6,
            ours["cpu_seconds"] / dbt["cpu_seconds"],
        ),
    ]
    return {
        "waits": waits,
        "max_wait": max_wait,
        "subjects": subjects,
        "targets": [target.plain() for target in targets],
    }


def _measure(subject: str, waits: int, max_wait: float, report: Callable[[str], None]) -> dict[str, Any]:
    with answering.running(core=1) as server, waiting.running(core=0) as waiter:
        seen = waiter.send("failover", subject=subject, url=server.url, waits=waits, max_wait=max_wait)
        firsts = [at - seen["began"] for at in server.first_polls()]
        counts = server.counts()
    measured = {
        "polled": len(firsts),
        "beginning_seconds": seen["beginning_seconds"],
        "polls": counts["polls"],
        "seconds_until_polled": {
            "half": firsts[len(firsts) // 2],
            "p99": firsts[int(len(firsts) * 0.99)],
            "most": firsts[-1],
        },
        "most_polls_in_a_second": max(bisect_left(firsts, at + 1.0) - number for number, at in enumerate(firsts)),
        "connections": counts["connections"],
        "most_connections": counts["most_open"],
        "look_ups": seen["look_ups"],
        "cpu_seconds": seen["cpu_seconds"],
        "failed": seen["failed"],
        "first_failures": seen["first_failures"],
    }
    report(
        f"{waits:,} waits of {subject}: half polled after {measured['seconds_until_polled']['half']:.2f} s, all "
        f"{measured['polled']:,} after {firsts[-1]:.2f} s, at most {measured['most_polls_in_a_second']:,} in a second, "
        f"{measured['most_connections']} connections at a time ({measured['connections']} in all), "
        f"{measured['look_ups']} look-ups, {measured['cpu_seconds']:.1f} s CPU, {measured['failed']} failed "
        f"{measured['first_failures']}"
    )
    return measured


if __name__ == "__main__":
    command_line(run, lambda *_: None, description=__doc__)  # the reports say it all
