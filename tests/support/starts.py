"""Start evaluations as a task does: with a state store that can fail, and with operators in each attempt of a task."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.start_messages import RECORD_KEY
from tests.support.airflow import TaskDeferred
from tests.support.tasks import FakeTaskInstance
from tests.support.triggers import run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub


class Died(BaseException):
    """The process of a task was killed."""


@dataclass
class FakeStore:
    """
    Stands in for Airflow's task state store, which outlives the attempts of a task.

    ``plans`` says what happens at the next calls of a method, in their order: None (it works), an exception (raised
    instead), or a callable (called before it works).
    """

    entries: dict[str, Any] = field(default_factory=dict)
    plans: dict[str, list[BaseException | Callable[[], object] | None]] = field(default_factory=dict)
    #: The methods that were called and did their work, with the phase of what was set.
    calls: list[str] = field(default_factory=list)
    retentions: list[Any] = field(default_factory=list)
    #: What is about to be set.
    pending: Any = None

    @property
    def record(self) -> Any:
        """The record of the start, as it is stored."""
        return self.entries.get(RECORD_KEY)

    @record.setter
    def record(self, value: Any) -> None:
        self.entries[RECORD_KEY] = value

    @property
    def writes(self) -> list[str]:
        """The calls that changed something."""
        return [call for call in self.calls if call != "get"]

    @property
    def phase(self) -> str | None:
        """The phase of the record."""
        return None if self.record is None else self.record["phase"]

    def get(self, key: str, default: Any = None) -> Any:
        self._follow_plan("get")
        self.calls.append("get")
        return self.entries.get(key, default)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        stored = json.loads(json.dumps(value))
        self.pending = stored
        self._follow_plan("set")
        self.calls.append(f"set {stored['phase']}")
        self.retentions.append(retention)
        self.entries[key] = stored

    def delete(self, key: str) -> None:
        self._follow_plan("delete")
        self.calls.append("delete")
        self.entries.pop(key, None)

    def _follow_plan(self, name: str) -> None:
        planned = self.plans.get(name) or [None]
        step = planned.pop(0)
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            step()


def store_error(status_code: int | None) -> Exception:
    """Make what Airflow's SDK raises where its API server refuses a call."""
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    detail = {"status_code": status_code, "message": "no"}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


def settle(hub: LocalHub) -> None:
    """
    Wait until the hub has taken every connection that was opened so far.

    One that its client has closed without a request could otherwise be taken while the hub stops, and be left open.
    """
    try:
        response = urllib.request.urlopen(f"{hub.url}/any", timeout=5)  # noqa: S310  # a local hub
    except urllib.error.HTTPError as error:
        response = error
    response.close()


def sleep(seconds: float) -> Callable[[], None]:
    """Plan a slow call."""
    return lambda: time.sleep(seconds)


@dataclass
class StartingTaskInstance(FakeTaskInstance):
    """A task instance of a task with ``retries=2``, as far as a start uses it."""

    task_id: str = "label"
    max_tries: int = 2


@dataclass
class FakeLog:
    """Collects log lines, each with its level."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def info(self, text: str, *values: object) -> None:
        self.lines.append(("info", text % values))

    def warning(self, text: str, *values: object) -> None:
        self.lines.append(("warning", text % values))

    @property
    def warnings(self) -> list[str]:
        """The texts of the warnings."""
        return [text for level, text in self.lines if level == "warning"]


#: The ways in which an operator can wait.
WAYS = ["on the worker", "deferred"]


def make_operator(**arguments: Any) -> OxenRunEvaluationOperator:
    """Make an operator with intervals fit for a test."""
    named: dict[str, Any] = {
        "task_id": "label",
        "namespace": "ox",
        "repo_name": "customer-intents",
        "branch": "main",
        "path": "data/customers.parquet",
        "model": "m",
        "prompt": "Which intent is this?\n{text}",
        "target_column": "intent",
        "retries": 2,
        "poke_interval": 0.05,
        "max_wait": 0.1,
        "retry_window": 0.5,
        "timeout": 30,
    }
    return OxenRunEvaluationOperator(**named | arguments)


@dataclass
class Run:
    """How an attempt ended."""

    returned: Any = None
    raised: BaseException | None = None
    deferrals: int = 0
    #: The XComs at the moment of the deferral.
    xcoms_when_deferred: dict[str, Any] = field(default_factory=dict)
    #: The operator of the process that ended the attempt.
    operator: OxenRunEvaluationOperator | None = None


def run_operator(
    way: str,
    ti: StartingTaskInstance,
    store: FakeStore | None,
    *,
    context: dict[str, Any] | None = None,
    rendered_later: dict[str, Any] | None = None,
    event: Any = None,
    **arguments: Any,
) -> Run:
    """
    Run an attempt of an operator to its end. Each of its processes has an operator of its own, as in Airflow.

    :param way: one of :data:`WAYS`.
    :param store: Airflow's task state store; None for an Airflow without one.
    :param context: what the task's context has besides.
    :param rendered_later: what templates render to when the task is resumed after its deferral.
    :param event: what the trigger yields instead of its own event.
    :param arguments: of the operator.
    """
    arguments = {"deferrable": way == "deferred", **arguments}
    full: Any = {"ti": ti, "task_state_store": store, **(context or {})}
    run = Run()
    ti.xcoms.clear()  # Airflow does so at the start of an attempt
    try:
        try:
            run.operator = make_operator(**arguments)
            run.returned = run.operator.execute(full)
        except TaskDeferred as deferred:
            run.deferrals += 1
            run.xcoms_when_deferred = dict(ti.xcoms)
            path, trigger_arguments = deferred.trigger.serialize()
            module, _, name = path.rpartition(".")
            trigger = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(trigger_arguments)))
            event = event or asyncio.run(run_trigger(trigger))
            run.operator = make_operator(**arguments | (rendered_later or {}))
            kwargs = {**(deferred.kwargs or {}), "event": event}
            run.returned = run.operator.resume_execution(deferred.method_name, kwargs, full)
    except Exception as error:  # noqa: BLE001  # whatever it is, is the result
        run.raised = error
    return run
