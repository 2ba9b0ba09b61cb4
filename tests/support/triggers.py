"""Run triggers as a triggerer does: on an event loop, one event each, which passes through JSON."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger

if TYPE_CHECKING:
    from collections.abc import Iterator


def make_trigger(evaluation_id: str, **arguments: Any) -> OxenEvaluationTrigger:
    """Make a trigger with intervals that are short enough for a test."""
    named = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": evaluation_id}
    return OxenEvaluationTrigger(**named | {"poke_interval": 0.05, "max_wait": 0.1, "retry_window": 5} | arguments)


async def run_trigger(trigger: OxenEvaluationTrigger, *, ti: Any = None) -> dict[str, Any]:
    """
    Run a trigger to its one event, and return what a worker would read of it.

    :param ti: the task instance, where the trigger is to know that it runs in a triggerer.
    """
    if ti is not None:
        trigger.trigger_id, trigger.task_instance = 1, ti
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return json.loads(json.dumps(events[0].payload))


class FakeComms:
    """
    The connection of a triggerer or a worker to Airflow, as far as XComs go.

    :param xcoms: those of the task, by key.
    """

    def __init__(self, xcoms: dict[str, Any]) -> None:
        self.xcoms = xcoms

    async def asend(self, message: Any) -> Any:
        return self.send(message)

    def send(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComResult

        if type(message).__name__ == "SetXCom":
            self.xcoms[message.key] = json.loads(json.dumps(message.value))
        if type(message).__name__ == "DeleteXCom":
            self.xcoms.pop(message.key, None)
        if type(message).__name__ == "GetXCom":
            return XComResult(key=message.key, value=self.xcoms.get(message.key))
        return None  # other things go on this way as well


@contextmanager
def triggerer(xcoms: dict[str, Any]) -> Iterator[None]:
    """Let triggers store and read XComs, where Airflow lets them, and workers delete them."""
    if not version_compat.is_airflow(3, 3):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", FakeComms(xcoms), raising=False)
        yield
