"""
A process that waits as a triggerer does, with Airflow's metrics on. ``python -m tests.dashboard.triggerer HOSTNAME``.

Each line on standard input is a wait to begin: JSON with the arguments of a sensor, and the end of the input ends the
process. What workers do of a task, before and after its deferral, is done on threads.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from airflow_provider_oxen.conditions import max_credits
from tests.support.airflow import TaskDeferred
from tests.support.counted_process import set_up
from tests.support.tasks import FakeTaskInstance, make_gate
from tests.support.triggers import make_trigger, run_trigger


def _broken(_evaluation: object) -> bool:
    raise KeyError("accuracy")


#: What a completed evaluation must meet, by name: JSON has no functions.
_CONDITIONS = {"none": None, "cheap": max_credits(1.5), "broken": _broken}


async def _wait(arguments: dict[str, Any]) -> None:
    """Run a gate to its end, whatever that is."""
    named = {**arguments, "conditions": _CONDITIONS[arguments.get("conditions", "none")], "deferrable": True}
    context = {"ti": FakeTaskInstance()}
    try:
        await asyncio.to_thread(make_gate(**named).execute, context)
    except TaskDeferred as deferred:
        event = await run_trigger(make_trigger(**deferred.trigger.serialize()[1]))
        kwargs = {**(deferred.kwargs or {}), "event": event}
        await asyncio.to_thread(make_gate(**named).resume_execution, deferred.method_name, kwargs, context)


async def _main() -> None:
    waits = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        waits.add(asyncio.create_task(_wait(json.loads(line))))
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


if __name__ == "__main__":
    hostname = sys.argv[1]
    socket.gethostname = lambda: hostname  # each triggerer has a machine of its own
    set_up("triggerer")
    asyncio.run(_main())
