"""
What Airflow's triggerer gives the triggers that it runs, and does differently from a worker.

As in ``version_compat``, each function names the source that it relies on, or when to delete it.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import version_compat

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as TaskInstance
    from airflow.serialization.definitions.baseoperator import SerializedBaseOperator
    from airflow.triggers.base import BaseTrigger

__all__ = [
    "hides_connections_of_teams",
    "is_still_deferred",
    "may_use_xcoms",
    "refuse_missing_variables",
    "runs_in_triggerer",
    "task_instance_of",
    "task_of",
    "trigger_ends_at",
]


def hides_connections_of_teams() -> bool:
    """
    Say whether a triggerer does not find the connections that belong to a team. No public way.

    Source: ``InProcessExecutionAPI`` of Airflow 3.3.2. A triggerer looks connections up there in the name of no task,
    so the look-up is for no team.
    """
    from airflow_provider_oxen.airflow_names import conf

    return bool(conf.getboolean("core", "multi_team", fallback=False))


def runs_in_triggerer(trigger: BaseTrigger) -> bool:
    """
    Say whether a triggerer runs the trigger, and not ``dag.test()`` or code of the user's.

    No public way. Source: ``TriggerRunner.create_triggers`` gives it an id.
    """
    return getattr(trigger, "trigger_id", None) is not None


def may_use_xcoms(trigger: BaseTrigger) -> bool:
    """
    Say whether a trigger can store and read XComs without blocking the event loop. Delete the second with Airflow 3.2.

    Source: ``aset`` and ``aget_one`` of ``XCom``, which are new in Airflow 3.3.
    """
    return runs_in_triggerer(trigger) and version_compat.is_airflow(3, 3)


def task_instance_of(trigger: BaseTrigger) -> TaskInstance | None:
    """Return the task instance that waits for a trigger; None outside of a triggerer."""
    ti: TaskInstance | None = getattr(trigger, "task_instance", None)
    return ti


def task_of(trigger: BaseTrigger) -> SerializedBaseOperator | None:
    """
    Return the task that waits for a trigger, as Airflow stored it. Delete the default with Airflow 3.2.

    :return: None if the wait did not begin in the triggerer: Airflow then loads no DAG there.
    """
    task: SerializedBaseOperator | None = getattr(trigger, "task", None)
    return task


def trigger_ends_at(trigger: BaseTrigger) -> datetime | None:
    """
    Return when Airflow ends a trigger, in UTC; None outside of a triggerer, or if Airflow does not end it.

    No public way. Source: ``TriggerRunner.create_triggers``. It is the task instance's ``trigger_timeout``.
    """
    ends_at: datetime | None = getattr(trigger, "timeout_after", None)
    if ends_at is not None and ends_at.tzinfo is None:  # SQLite has no time zones
        return ends_at.replace(tzinfo=timezone.utc)
    return ends_at


async def is_still_deferred(ti: TaskInstance) -> bool:
    """
    Ask Airflow whether a task is deferred, from its trigger. For Airflow 3.3 and later.

    ``on_kill`` is called also where a trigger only moves to another triggerer (apache/airflow#73454). No public way.
    """
    from airflow.sdk.execution_time.comms import GetTaskStates
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    asked = GetTaskStates(dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[ti.task_id], run_ids=[ti.run_id])
    response: Any = await SUPERVISOR_COMMS.asend(asked)
    return "deferred" in response.task_states.get(ti.run_id, {}).values()


def refuse_missing_variables(environment: jinja2.Environment) -> jinja2.Environment:
    """
    Make a variable that is missing from a template an error, as on a worker. No public way.

    Source: Airflow 3.3.2's triggerer renders it as nothing, and the wait would be for another evaluation.
    """
    from jinja2 import StrictUndefined

    environment.undefined = StrictUndefined
    return environment
