"""Run triggers as a triggerer does: on an event loop, one event each, which passes through JSON."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger


def make_trigger(evaluation_id: str, **arguments: Any) -> OxenEvaluationTrigger:
    """Make a trigger with intervals that are short enough for a test."""
    named = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": evaluation_id}
    return OxenEvaluationTrigger(**named | {"poke_interval": 0.05, "max_wait": 0.1, "retry_window": 5} | arguments)


async def run_trigger(trigger: OxenEvaluationTrigger) -> dict[str, Any]:
    """Run a trigger to its one event, and return what a worker would read of it."""
    events = [event async for event in trigger.run()]
    assert len(events) == 1
    return json.loads(json.dumps(events[0].payload))
