"""
Every difference between Airflow versions, and every use of what Airflow does not document.

Each function names the source that it relies on. "Delete with Airflow 2" means: when Airflow 2 is no longer supported.
"No public way" means: it stays until Airflow has one. Names that only moved between modules are in ``airflow_names``.

Imports are late, because this module is imported whenever a DAG file is parsed.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator, Context
    from airflow.sdk.definitions.mappedoperator import MappedOperator
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as TaskInstance
    from airflow.serialization.definitions.baseoperator import SerializedBaseOperator
    from airflow.triggers.base import BaseTrigger

    #: An operator as the DAG file made it, or as Airflow stored it.
    Task: TypeAlias = BaseOperator | SerializedBaseOperator

__all__ = [
    "Output",
    "airflow_version",
    "attempt_began_at",
    "can_start_and_end_in_triggerer",
    "deferral_error",
    "delete_xcom",
    "execution_timeout_counts_deferral",
    "find_output",
    "has_custom_xcom_backend",
    "has_hook",
    "has_listeners",
    "has_own_jinja_settings",
    "has_own_params",
    "is_expanded_over",
    "is_in_mapped_group",
    "is_made_from_mapped",
    "is_mapped",
    "is_still_deferred",
    "link_xcoms",
    "reschedule_exception",
    "returns_dag_result",
    "runs_in_triggerer",
    "store_link",
    "store_xcom",
    "stores_links_at_process_end",
    "task_instance_of",
    "task_of",
    "trigger_ends_at",
]


class Output(NamedTuple):
    """The output of a task, as it is passed to another one."""

    operator: BaseOperator | MappedOperator
    key: str


def airflow_version() -> str:
    """Return the version of the running Airflow, such as ``3.3.2``."""
    from airflow import __version__

    return str(__version__)


def _is_airflow(*at_least: int) -> bool:
    """Compare the running Airflow, pre-releases of a version included."""
    return tuple(map(int, airflow_version().split(".")[:2])) >= at_least


def can_start_and_end_in_triggerer() -> bool:
    """
    Say whether a triggerer renders templates and knows its task. Delete with Airflow 3.2.

    Source: ``BaseTrigger.render_template_fields``, which is new in Airflow 3.3.
    """
    return _is_airflow(3, 3)


def execution_timeout_counts_deferral() -> bool:
    """
    Say whether ``execution_timeout`` includes the time for which a task was deferred. Delete with Airflow 2.

    A worker then ends such a task when it takes it up again, before the task can say what the trigger saw. Airflow 3
    counts from there again. Source: ``_execute_task`` in Airflow 2.11's ``models/taskinstance.py``.
    """
    return not _is_airflow(3, 0)


def stores_links_at_process_end() -> bool:
    """
    Say whether Airflow itself stores the links of a task when its process ends. Delete with Airflow 2.

    Source: ``finalize`` in Airflow 3's ``sdk/execution_time/task_runner.py``.
    """
    return _is_airflow(3, 0)


# A task, while its DAG file is parsed and later


def is_made_from_mapped(operator: BaseOperator) -> bool:
    """Say whether a worker made an operator for one map index, from rendered values. No public way."""
    # ``BaseOperatorMeta`` sets it before ``__init__`` is called.
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def is_mapped(operator: BaseOperator | MappedOperator) -> bool:
    """Say whether a task has several map indexes: because of itself, or of its task group."""
    return operator.is_mapped or is_in_mapped_group(operator)


def is_in_mapped_group(operator: BaseOperator | MappedOperator) -> bool:
    """Say whether a task is in a mapped task group. No public way: the method is "meta private"."""
    return operator.get_closest_mapped_task_group() is not None


def find_output(value: object) -> Output | None:
    """
    Find the task and the key behind an argument that is the output of one task.

    :return: None if it is something else, such as an output that was changed by ``.map()``.

    No public way: ``PlainXComArg`` is "meta private".
    """
    from airflow_provider_oxen.airflow_names import XComArg

    if isinstance(value, XComArg) and hasattr(value, "operator") and hasattr(value, "key"):
        return Output(value.operator, value.key)
    return None


def has_hook(operator: BaseOperator, name: Literal["pre_execute", "post_execute"]) -> bool:
    """
    Say whether a worker has something to call before or after the task: an argument, or the method of a subclass.

    No public way. Source: ``_execute_task`` of Airflow 3.3.2's task runner.
    """
    from airflow_provider_oxen.airflow_names import BaseOperator

    method = getattr(getattr(operator, name), "__func__", None)
    return getattr(operator, f"_{name}_hook") is not None or method is not getattr(BaseOperator, name)


def has_own_params(operator: BaseOperator) -> bool:
    """Say whether a task has ``params`` of its own. No public way. Source: ``ParamsDict.filter_params_by_source``."""
    params: Any = operator.params
    return any(params.get_param(name).source == "task" for name in params)


def has_own_jinja_settings(dag: DAG) -> bool:
    """Say whether a DAG changes Jinja's environment, of which a triggerer knows nothing. The defaults are Airflow's."""
    return bool(dag.jinja_environment_kwargs) or dag.template_undefined.__name__ != "StrictUndefined"


def returns_dag_result(task: Task) -> bool:
    """
    Say whether the task's result is that of its DAG. Delete with Airflow 3.2, which has no such results.

    Airflow 3.3.2 does not store this with the DAG: of a stored task, it is not known.
    """
    return bool(getattr(task, "returns_dag_result", False))


def is_expanded_over(task: Task) -> bool:
    """Say whether a later task is expanded over this one's result. True only once that task is in the DAG."""
    return task.get_dag() is not None and any(task.iter_mapped_dependants())


def has_listeners() -> bool:
    """Say whether a plugin listens to what happens to tasks. No public way. Source: ``DagBag.bag_dag``."""
    from airflow.listeners.listener import get_listener_manager

    return bool(get_listener_manager().has_listeners)


def attempt_began_at(context: Context) -> datetime | None:
    """
    Find when this attempt of a rescheduled task began; None if it has not been rescheduled yet.

    Airflow 3 asks its API server. Airflow 2 (delete that branch with it) has the rows in the database at hand.
    """
    ti: Any = context["ti"]
    if hasattr(ti, "get_first_reschedule_date"):
        first: datetime | None = ti.get_first_reschedule_date(context)
        return first
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]  # Airflow 2 only

    start: datetime | None = _orig_start_date(
        dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index, try_number=ti.try_number
    )
    return start


def deferral_error(error: BaseException) -> Literal["timeout", "failure"] | None:
    """
    Find out how Airflow itself ended the trigger of a deferred task.

    :param error: what ``resume_execution`` raised.
    :return: ``timeout`` if the trigger took too long; ``failure`` if it raised or was lost; None if the error is not
        from the deferral.

    Source: ``BaseOperator.resume_execution``. The classes are compared by name, because they moved in Airflow 3.2.
    Airflow 2 (delete that branch with it) has one class for both, and its scheduler writes the text for a timeout.
    """
    name = type(error).__name__
    if name == "TaskDeferralTimeout":
        return "timeout"
    if name == "TaskDeferralError":
        return "timeout" if str(error) == "Trigger/execution timeout" else "failure"
    return None


def reschedule_exception(moment: datetime) -> Exception:
    """Make the exception that ends a task's process until ``moment``. Delete the fallback with Airflow 3.1."""
    try:
        from airflow.sdk.exceptions import AirflowRescheduleException
    except ImportError:
        from airflow.exceptions import AirflowRescheduleException
    return AirflowRescheduleException(moment)  # type: ignore[no-untyped-call]  # Airflow's


def runs_in_triggerer(trigger: BaseTrigger) -> bool:
    """
    Say whether a triggerer runs the trigger, and not ``dag.test()`` or code of the user's.

    No public way. Source: ``TriggerRunner.create_triggers`` gives it an id.
    """
    return getattr(trigger, "trigger_id", None) is not None


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


# XComs, and the links in them


def has_custom_xcom_backend() -> bool:
    """Say whether Airflow has an XCom backend of the user's. Delete the second default with Airflow 2."""
    from airflow_provider_oxen.airflow_names import conf

    defaults = ("airflow.sdk.execution_time.xcom.BaseXCom", "airflow.models.xcom.BaseXCom")
    return conf.get("core", "xcom_backend", fallback=defaults[0]) not in defaults


async def store_xcom(ti: TaskInstance, key: str, value: object) -> None:
    """Store an XCom from a triggerer, as a worker does. For Airflow 3.3 and later."""
    from airflow.sdk.execution_time.xcom import XCom

    await XCom.aset(key=key, value=value, **_place(ti))


def delete_xcom(ti: TaskInstance, key: str) -> None:
    """Delete an XCom on a worker, if there is one."""
    from airflow_provider_oxen.airflow_names import XCom

    XCom.delete(key=key, **_place(ti))


async def store_link(ti: TaskInstance, key: str, address: str) -> None:
    """Store the address of a link from a triggerer. For Airflow 3.3 and later."""
    await link_xcoms().aset(key=key, value=address, **_place(ti))


def link_xcoms() -> Any:
    """
    Find the class of the XComs that hold links.

    Airflow 3 keeps them in its database and reads them from there, whatever ``[core] xcom_backend`` says. Airflow 2
    (delete the fallback with it) makes no difference.
    """
    try:
        from airflow.sdk.bases.xcom import BaseXCom
    except ImportError:
        from airflow.models.xcom import XCom

        return XCom
    return BaseXCom


def _place(ti: TaskInstance) -> dict[str, Any]:
    return {"task_id": ti.task_id, "dag_id": ti.dag_id, "run_id": ti.run_id, "map_index": ti.map_index}
