"""
A process that waits for evaluations, with Airflow's metrics set up as Airflow does it in a process of its own.

``python -m tests.support.counted_process triggerer|worker EVALUATION_ID...``, or ``... cost``, which only counts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from importlib import import_module

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.pool import shared_connections
from airflow_provider_oxen.recording import triggerer_recorder
from tests.support.tasks import run_task
from tests.support.triggers import make_trigger, run_trigger


def set_up(process: str) -> None:
    """
    Set metrics up as Airflow does in a triggerer or in a task's process. Before Airflow 3.2, nothing has to be done.

    Source: ``TriggererJobRunner._execute``, and ``main`` of the task runner.
    """
    if not version_compat.is_airflow(3, 2):
        return
    package = "airflow.sdk" if process == "worker" else "airflow"
    stats = import_module(f"{package}.observability.stats")
    utils = import_module(f"{package}.observability.metrics.stats_utils")
    if version_compat.is_airflow(3, 3):
        stats.initialize(factory=utils.get_stats_factory(), export_legacy_names=True)
    else:
        stats.Stats.initialize(factory=utils.get_stats_factory(stats.Stats))


async def _run_triggers(evaluation_ids: list[str]) -> None:
    """Wait for each of them in three triggers, and cancel one more wait, which would not end, after its first poll."""
    never = asyncio.create_task(run_trigger(make_trigger("never", poke_interval=60)))
    ends = [make_trigger(evaluation_id) for evaluation_id in evaluation_ids for _ in range(3)]
    await asyncio.gather(*map(run_trigger, ends))
    never.cancel()
    await asyncio.wait([never])
    assert shared_connections() == []


def _measure() -> float:
    """Measure the microseconds of CPU that metrics take for a poll, at ten polls a second."""
    recorder, times = triggerer_recorder("oxen_default"), []
    for _ in range(10):
        began_at = time.process_time()
        for number in range(2_000):
            recorder.sent(0.01, len(times) * 200 + number / 10, is_poll=True)
        times.append((time.process_time() - began_at) / 2_000)
    return 1e6 * min(times)


def main(process: str, *evaluation_ids: str) -> None:
    set_up(process)
    if process == "cost":
        print(_measure())
    elif process == "triggerer":
        asyncio.run(_run_triggers(list(evaluation_ids)))
    else:
        for evaluation_id in evaluation_ids:
            run_task("poke", evaluation_id)
    if "opentelemetry.sdk.metrics" in sys.modules:
        from opentelemetry.metrics import get_meter_provider

        get_meter_provider().force_flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
