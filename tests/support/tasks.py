"""Run gates as Airflow does, in each way of waiting: events pass through JSON, and reschedules are followed."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.version_compat import reschedule_exception
from tests.support.airflow import TaskDeferred
from tests.support.triggers import run_trigger, triggerer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_oxen.testing import LocalHub

RescheduleException = type(reschedule_exception(datetime.now(tz=timezone.utc)))

#: Every way in which a wait can end: at the first poll on the worker, after poking, after rescheduling, after deferral.
WAYS = ["first poll", "poke", "reschedule", "deferred"]
#: Those in which a task waits.
WAYS_TO_WAIT = WAYS[1:]
#: Those in which another process takes over what one has seen: the store of Airflow 3.3, or a second triggerer.
WAYS_TO_GO_ON = ["reschedule with a store", "taken over"]
#: The same, of a wait that no worker has begun.
TAKEN_OVER_IN_TRIGGERER = "in the triggerer, taken over"


@dataclass
class FakeTaskInstance:
    """Stands in for Airflow's, as far as the sensor uses it."""

    xcoms: dict[str, Any] = field(default_factory=dict)
    first_rescheduled_at: datetime | None = None
    try_number: int = 1
    task_id: str = "gate"
    dag_id: str = "d"
    run_id: str = "r"
    map_index: int = -1
    id: str = "an-attempt"

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, context: Any) -> datetime | None:  # noqa: ARG002
        return self.first_rescheduled_at


def deferred_ti(evaluation_id: str, **named: Any) -> FakeTaskInstance:
    """Make the task instance of a gate that has deferred to wait for an evaluation."""
    names = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": evaluation_id}
    stored = {**names, "oxen_conn_id": "oxen_default", "try_number": 1}
    return FakeTaskInstance(xcoms={"waits_for": stored}, **named)


@dataclass
class FakeTaskStateStore:
    """Stands in for the store of a task's state that Airflow has from 3.3 on."""

    values: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        assert retention is not None
        self.values[key] = json.loads(json.dumps(value))


def trigger_error(text: str = "Trigger timeout") -> Any:
    """Return what the scheduler passes to a task whose trigger it ended."""
    try:
        from airflow.sdk.bases.operator import TriggerFailureReason
    except ImportError:
        return "Trigger/execution timeout" if text == "Trigger timeout" else text
    return TriggerFailureReason(text)


@dataclass
class Result:
    """How a task ended."""

    returned: Any = None
    raised: BaseException | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    deferrals: int = 0
    processes: int = 0
    #: The sensor of the process that ended the task.
    sensor: OxenEvaluationSensor | None = None

    @property
    def failure(self) -> tuple[type | None, str]:
        """The exception, without what differs from run to run: durations, request ids, deadlines."""
        text = re.sub(r"after( about)? [\d.]+ s", "after some time", str(self.raised or ""))
        text = re.sub(r", request id local-\d+", "", text)
        text = re.sub(r"by \d{4}-\d\d-\d\d [\d:]+ UTC", "by then", text)
        return (None if self.raised is None else type(self.raised)), text


def make_gate(evaluation_id: Any = "e", **arguments: Any) -> OxenEvaluationSensor:
    """Make a sensor with intervals fit for a test."""
    named: dict[str, Any] = {
        "task_id": "gate",
        "namespace": "ox",
        "repo_name": "customer-intents",
        "evaluation_id": evaluation_id,
        "poke_interval": 0.05,
        "max_wait": 0.1,
        "retry_window": 0.5,
        "timeout": 30,
    }
    return OxenEvaluationSensor(**named | arguments)


def run_task(
    way: str,
    evaluation_id: str,
    *,
    context: Mapping[str, Any] | None = None,
    rendered_later: Mapping[str, Any] | None = None,
    lose_event: bool = False,
    **arguments: Any,
) -> Result:
    """
    Run a gate to its end. Each of its processes has a sensor of its own, as in Airflow.

    :param way: one of :data:`WAYS` or :data:`WAYS_TO_GO_ON`, or ``in the triggerer``: no worker starts the wait; or
        :data:`TAKEN_OVER_IN_TRIGGERER`.
    :param context: what the task's context has besides the task instance.
    :param rendered_later: what templates render to when the task is resumed after its deferral.
    :param lose_event: resume the task with an event of an unknown form.
    :param arguments: of the sensor.
    """
    arguments = {
        "deferrable": way != "poke" and not way.startswith("reschedule"),
        "mode": "reschedule" if way.startswith("reschedule") else "poke",
        "start_from_trigger": way.startswith("in the triggerer"),
        **arguments,
    }
    ti, result = FakeTaskInstance(), Result()
    context = {"ti": ti, **(context or {})}
    if way == "reschedule with a store":
        context["task_state_store"] = FakeTaskStateStore()
    try:
        method, kwargs = _start(evaluation_id, arguments, context, result, take_over=way.endswith("taken over"))
        if method is not None:
            result.sensor = make_gate(evaluation_id, **arguments)
            for name, value in (rendered_later or {}).items():
                setattr(result.sensor, name, value)
            kwargs |= {"event": {"form": "unknown"}} if lose_event else {}
            result.returned = result.sensor.resume_execution(method, kwargs, context)
    except Exception as error:  # noqa: BLE001  # whatever it is, is the result
        result.raised = error
    result.xcoms = ti.xcoms
    return result


def _start(
    evaluation_id: str, arguments: dict[str, Any], context: dict[str, Any], result: Result, *, take_over: bool
) -> tuple[str | None, dict[str, Any]]:
    """Run the task until it ends, or its trigger has: then return the method to resume it with, and its arguments."""
    while True:
        result.sensor = sensor = make_gate(evaluation_id, **arguments)
        result.processes += 1
        try:
            start = sensor.start_trigger_args
            if start is None:
                result.returned = sensor.execute(context)
                return None, {}
            path, trigger_arguments = start.trigger_cls, start.trigger_kwargs
            method, kwargs = start.next_method, start.next_kwargs
        except TaskDeferred as deferred:
            result.deferrals += 1
            path, trigger_arguments = deferred.trigger.serialize()
            method, kwargs = deferred.method_name, deferred.kwargs
        except RescheduleException as rescheduled:
            context["ti"].first_rescheduled_at = context["ti"].first_rescheduled_at or datetime.now(tz=timezone.utc)
            time.sleep(max((rescheduled.reschedule_date - datetime.now(tz=timezone.utc)).total_seconds(), 0))
            continue
        trigger = _load(path)(**json.loads(json.dumps(trigger_arguments)))
        if take_over:
            with triggerer(context["ti"].xcoms):
                asyncio.run(_run_for_a_moment(trigger, context["ti"]))
                trigger = _load(path)(**json.loads(json.dumps(trigger.serialize()[1])))
                return method, {**(kwargs or {}), "event": asyncio.run(run_trigger(trigger, ti=context["ti"]))}
        return method, {**(kwargs or {}), "event": asyncio.run(run_trigger(trigger))}


async def _run_for_a_moment(trigger: Any, ti: FakeTaskInstance) -> None:
    """Run a trigger in a triggerer that stops soon after its first poll, when the evaluation was seen."""
    task = asyncio.create_task(run_trigger(trigger, ti=ti))
    await asyncio.wait([task], timeout=0.08)
    while not task.done() and version_compat.is_airflow(3, 3) and ti.xcoms["waits_for"]["last_seen"] is None:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.wait([task])


def _load(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def add_evaluation(hub: LocalHub, way: str, **scenario: Any) -> str:
    """Add an evaluation that ends at once for a first poll, and after some polls otherwise."""
    seconds = 0.0 if way == "first poll" else 0.4
    return hub.add_evaluation("d0c8585d-1234-5678-abcd-ef0123456789", **{"seconds": seconds, **scenario})
