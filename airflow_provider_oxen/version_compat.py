"""
Every difference between Airflow versions, and every use of what Airflow does not document.

Each function names the source that it relies on. "Delete with Airflow 2" means: when Airflow 2 is no longer supported.
"No public way" means: it stays until Airflow has one. What concerns triggers is in ``triggerer_compat``, how Airflow
stores things is in ``storage_compat``, and names that moved between modules are in ``airflow_names``.

Imports are late, because this module is imported whenever a DAG file is parsed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeAlias

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator, Context
    from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial
    from airflow.sdk.types import Logger
    from airflow.serialization.definitions.baseoperator import SerializedBaseOperator

    #: An operator as the DAG file made it, or as Airflow stored it.
    Task: TypeAlias = BaseOperator | SerializedBaseOperator
    #: The log of a task or of a trigger. Airflow 2's is of ``logging``, and Airflow 3's of structlog.
    TaskLogger: TypeAlias = Logger

__all__ = [
    "ExecutionTimeoutMixin",
    "Output",
    "airflow_version",
    "attempt_began_at",
    "can_start_and_end_in_triggerer",
    "default_deferrable",
    "deferral_error",
    "discard_partial",
    "execution_timeout_counts_deferral",
    "find_output",
    "form_behaviour",
    "form_widgets",
    "has_hook",
    "has_listeners",
    "has_own_jinja_settings",
    "has_own_params",
    "has_triggerer_queues",
    "is_airflow",
    "is_expanded_over",
    "is_in_mapped_group",
    "is_made_from_mapped",
    "is_mapped",
    "reschedule_exception",
    "returns_dag_result",
]


class Output(NamedTuple):
    """The output of a task, as it is passed to another one."""

    operator: BaseOperator | MappedOperator
    key: str


def airflow_version() -> str:
    """Return the version of the running Airflow, such as ``3.3.2``."""
    from airflow import __version__

    return str(__version__)


def is_airflow(*at_least: int) -> bool:
    """Compare the running Airflow, pre-releases of a version included."""
    return tuple(map(int, airflow_version().split(".")[:2])) >= at_least


def can_start_and_end_in_triggerer() -> bool:
    """
    Say whether a triggerer renders templates and knows its task. Delete with Airflow 3.2.

    Source: ``BaseTrigger.render_template_fields``, which is new in Airflow 3.3.
    """
    return is_airflow(3, 3)


def execution_timeout_counts_deferral() -> bool:
    """
    Say whether ``execution_timeout`` includes the time for which a task was deferred. Delete with Airflow 2.

    A worker then ends such a task when it resumes it, before the task can say what the trigger saw. Airflow 3
    counts from there again. Source: ``_execute_task`` in Airflow 2.11's ``models/taskinstance.py``.
    """
    return not is_airflow(3, 0)


def default_deferrable() -> bool:
    """
    Say whether a task waits in the triggerer: as ``[operators] default_deferrable``, and yes where that is not set.

    Airflow writes ``false`` into the file that it generates, with all else of that section. So there it says nothing.
    No public way: of what is in the file alone, only Airflow's base class ``ConfigParser`` knows.
    """
    from configparser import ConfigParser

    from airflow_provider_oxen.airflow_names import conf

    names = ("default_cpus", "default_deferrable", "default_gpus")
    in_file = [name for name in names if ConfigParser.has_option(conf, "operators", name)]
    if "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE" in os.environ or in_file == ["default_deferrable"]:
        return bool(conf.getboolean("operators", "default_deferrable"))
    return True


# A task, while its DAG file is parsed and later


def discard_partial(partial: OperatorPartial) -> None:
    """
    Keep Airflow from warning that a task was never mapped, where it was refused before it could be. No public way.

    Source: ``OperatorPartial.__del__``.
    """
    partial._expand_called = True  # noqa: SLF001


def is_made_from_mapped(operator: object) -> bool:
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


def has_triggerer_queues() -> bool:
    """
    Say whether some triggerers may run only the triggers of their queues. No public way.

    Source: Airflow 3.3.2's scheduler writes a trigger that begins without a worker without a queue, whatever the task's
    is, and triggerers with ``--queues`` do not run it.
    """
    from airflow_provider_oxen.airflow_names import conf

    return bool(conf.getboolean("triggerer", "queues_enabled", fallback=False))


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


# execution_timeout of a deferrable task. All of this is for Airflow 2: delete it with it


class ExecutionTimeoutMixin:
    """
    Applies ``execution_timeout`` to a deferrable task where Airflow would count the deferral as well.

    Airflow 2 would end the task before it can say what the trigger saw. So the task hides the timeout from it, and
    stops itself in each of its processes, as Airflow 3 does. See :func:`execution_timeout_counts_deferral`.
    """

    deferrable: bool
    execution_timeout: timedelta | None
    _hidden_timeout: timedelta | None = None

    @property
    def execution_limit(self) -> timedelta | None:
        """How long this attempt may take by ``execution_timeout``, also where that is hidden from Airflow."""
        return self.execution_timeout if self._hidden_timeout is None else self._hidden_timeout

    def prepare_for_execution(self) -> Self:
        """Return the task that a worker runs: as Airflow's own. What cluster policies have set counts by now."""
        task: Self = super().prepare_for_execution()  # type: ignore[misc]  # Airflow's base class follows
        task.hide_execution_timeout()
        return task

    def hide_execution_timeout(self) -> None:
        """Hide the timeout from an Airflow that would count the deferral."""
        if self.deferrable and execution_timeout_counts_deferral():
            self._hidden_timeout, self.execution_timeout = self.execution_timeout, None

    def hide_execution_timeout_if_mapped(self) -> None:
        """Do the same with a task that a worker makes for a map index: Airflow 2 does not prepare it."""
        if is_made_from_mapped(self):
            self.hide_execution_timeout()

    def stop_at_execution_timeout(self) -> AbstractContextManager[object]:
        """Stop this process after a hidden timeout. Airflow itself does so where none is hidden."""
        if self._hidden_timeout is None:
            return nullcontext()
        from airflow.utils.timeout import timeout  # type: ignore[import-not-found]  # Airflow 2 only

        timer: AbstractContextManager[object] = timeout(seconds=self._hidden_timeout.total_seconds())
        return timer


# The connection form of Airflow before 3.2, which does not read it from the provider's metadata. Delete with that


def form_behaviour(form: Mapping[str, Any]) -> dict[str, Any]:
    """Describe how the fields of every connection appear, for ``get_ui_field_behaviour`` of a hook."""
    return {
        "hidden_fields": list(form["hidden-fields"]),
        "relabeling": dict(form["relabeling"]),
        "placeholders": dict(form["placeholders"]),
    }


def form_widgets(fields: Mapping[str, Any]) -> dict[str, Any]:
    """
    Make the widgets of the extra fields, for ``get_connection_form_widgets`` of a hook.

    Needs Flask-AppBuilder, which those versions bring.
    """
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import StringField

    return {
        name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
        for name, field in fields.items()
    }
