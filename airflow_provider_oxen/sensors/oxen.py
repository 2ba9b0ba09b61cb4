"""
The sensor: a gate that opens when an evaluation has completed.

Here are its arguments, their documentation, and what can be refused while a DAG file is parsed. How it waits is in
``gate``. Imports are few and late: this module is imported whenever a DAG file that uses it is parsed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.airflow_names import AirflowException, BaseSensorOperator, PokeReturnValue
from airflow_provider_oxen.gate_task import GateTaskMixin, describe_task, naming_task
from airflow_provider_oxen.parameters import (
    TriggerArguments,
    as_text,
    check_booleans,
    check_conn_id,
    check_durations,
    check_path_parameter,
    is_known,
    parse_optional_seconds,
    parse_seconds,
)

if TYPE_CHECKING:
    from uuid import UUID

    from airflow.sdk import Context, XComArg
    from airflow.triggers.base import StartTriggerArgs

    from airflow_provider_oxen.conditions import Condition
    from airflow_provider_oxen.evaluations import EvaluationRef
    from airflow_provider_oxen.start_end import Plan

__all__ = ["OxenEvaluationSensor"]


class _PlannedStart:
    """
    What the scheduler makes the trigger from; None for the class, and for a task that a worker begins.

    It is planned anew when Airflow stores the DAG: a cluster policy, or a later line of the file, may change the task
    after ``__init__``.
    """

    def __get__(self, task: OxenEvaluationSensor | None, owner: type) -> StartTriggerArgs | None:
        if task is None or task.__dict__.get("_planned_start") is None:
            return None
        plan = task.plan(start_from_trigger=True, end_from_trigger=task.end_from_trigger, is_anew=True)
        return plan.start_trigger_args

    def __set__(self, task: OxenEvaluationSensor, planned: StartTriggerArgs | None) -> None:
        task.__dict__["_planned_start"] = planned


class OxenEvaluationSensor(GateTaskMixin, BaseSensorOperator):
    """
    Wait until an evaluation on Oxen.ai has ended, and succeed only if it completed.

    The outcome is the same in every way of waiting:

    - *completed*: the task succeeds and returns the evaluation;
    - *errored* or *cancelled*, *completed* but a condition is not met, a deadline that passed, a hub that refuses the
      request (wrong key, no such evaluation) or a setting that cannot be used: the task fails at once, without using
      its ``retries``, with an ``AirflowFailException`` (``AirflowSensorTimeout`` for the deadline). ``soft_fail`` skips
      it instead;
    - a hub that is out of reach for longer than ``retry_window``: the task fails and may be retried, with an
      ``AirflowException``.

    ``never_fail`` skips the task instead of any of these failures.

    An outlet whose URI begins with ``oxen://`` (see :mod:`airflow_provider_oxen.assets`) gets an event with facts about
    the evaluation when the gate opens. Where Airflow's OpenLineage provider is installed, the task's events name the
    data that goes in and comes out (see :mod:`airflow_provider_oxen.lineage`). The task's page has
    links to the evaluation, its source data and its results, for the public hub and for a local hub with pages.

    :param namespace: user or organization that owns the repository. (templated)
    :param repo_name: the repository. (templated)
    :param evaluation_id: the evaluation to wait for: text, ``uuid.UUID``, or the output of a task. (templated)
    :param oxen_conn_id: Airflow connection to use. (templated)
    :param deferrable: wait in the triggerer, without holding a worker. If False, the sensor waits on a worker, as
        ``mode`` says: ``poke`` or ``reschedule``. None (the default): as ``[operators] default_deferrable`` of the
        Airflow configuration, where that is set, and else True.
    :param poke_interval: shortest time between two polls, in seconds or as ``timedelta``; above 0.
    :param max_wait: longest time between two polls, in seconds or as ``timedelta``. Far from the end, polls are this
        far apart; near it, ``poke_interval``. None, or less than ``poke_interval``: always ``poke_interval``.
    :param timeout: longest time to wait, from the start of this attempt, in seconds or as ``timedelta``. Default:
        ``[sensors] default_timeout`` of the Airflow configuration. If ``execution_timeout`` is earlier, that counts,
        but for ``mode="reschedule"``: there it bounds one poll, as with any sensor, and the task may be retried.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds or as ``timedelta``.
        With ``silent_fail``, until the timeout.
    :param conditions: extra conditions that a completed evaluation must meet: one or a list. Ready-made ones are in
        :mod:`airflow_provider_oxen.conditions`. A callable gets the
        :class:`~airflow_provider_oxen.evaluations.Evaluation` (without its prompt), and with a second argument also the
        rows of the results. It returns True, or False or a text that says why not; the task then fails for good.
        Conditions are called on a worker. Where one raises an exception or returns something else, the task fails and
        may be retried, whatever ``soft_fail`` says. One that raises an ``AirflowFailException`` is not met, and an
        ``AirflowSkipException`` skips the task. None (the default): every completed evaluation opens the gate.
    :param start_from_trigger: begin the wait in the triggerer, so that no worker process starts for it. From Airflow
        3.3 on, for a task that is not mapped; ids may be the output of a task, or Jinja over ``dag_run``, ``params``
        and ``ti.xcom_pull``. Elsewhere a worker begins the wait, and a warning says why. Airflow uses no pool slot for
        a task that begins in the triggerer.
    :param end_from_trigger: end the task in the triggerer when the evaluation has completed, with the same XComs, so
        that no worker process starts for it. From Airflow 3.3 on. A task with outlets or an ``on_success_callback``
        ends on a worker, as does any where a listener is installed (for example, OpenLineage), and a warning says why.
        Where the evaluation did not complete, the task always ends on a worker.
    :return: the evaluation as a JSON-safe dict, with the contract's field names and without the prompt; see
        :meth:`airflow_provider_oxen.evaluations.Evaluation.to_dict`. It is also pushed to XCom key ``evaluation``, also
        by a gate that failed, so that callbacks and downstream tasks can read what was last seen. Where the evaluation
        completed, XCom key ``results`` has where its results are and what each condition on rows measured; see
        :class:`airflow_provider_oxen.outcomes.JudgedResults`.
    """

    template_fields: Sequence[str] = ("namespace", "repo_name", "evaluation_id", "oxen_conn_id")
    ui_color = "#e7dfc6"
    # Set for each gate that is not mapped. The class has none, so that a mapped gate begins on a worker: Airflow would
    # make the triggers of all its instances from the same arguments.
    start_trigger_args: StartTriggerArgs | None = _PlannedStart()  # type: ignore[assignment]  # gives that
    start_from_trigger: bool = False
    end_from_trigger: bool = False
    started_here = False
    is_recorded = False
    may_be_retried = True

    def __init__(
        self,
        *,
        namespace: str,
        repo_name: str,
        evaluation_id: str | UUID | XComArg,
        oxen_conn_id: str = "oxen_default",
        deferrable: bool | None = None,
        poke_interval: timedelta | float = 10,
        max_wait: timedelta | float | None = 60,
        retry_window: timedelta | float = 600,
        conditions: Condition | Sequence[Condition] | None = None,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        with naming_task(kwargs):
            check_durations(
                poke_interval=poke_interval,
                max_wait=max_wait,
                retry_window=retry_window,
                timeout=kwargs.get("timeout"),
            )
        super().__init__(poke_interval=poke_interval, max_wait=max_wait, **kwargs)
        self.namespace: str = as_text(namespace)
        self.repo_name: str = as_text(repo_name)
        self.evaluation_id: str = as_text(evaluation_id)
        self.oxen_conn_id = oxen_conn_id
        self.deferrable: bool = version_compat.default_deferrable() if deferrable is None else deferrable
        # Until the deadline, where Airflow's argument silent_fail says that failed polls do not matter.
        self.retry_window = None if self.silent_fail else parse_seconds("retry_window", retry_window)
        self.conditions = conditions
        self.end_from_trigger = end_from_trigger
        self._place = describe_task(kwargs)
        with naming_task(kwargs):
            self.check_settings()
            # A mapped task is made again on its worker, with rendered values: those are checked when it runs.
            if not version_compat.is_made_from_mapped(self):
                self._check_known(vars(self) | {"start_from_trigger": start_from_trigger})
        self.prepare_if_mapped()
        if self.deferrable and self.reschedule:
            self._warn(
                "mode='reschedule' says how to wait on a worker and has no effect while deferrable=True; "
                "pass deferrable=False to use it"
            )
        if self.exponential_backoff:
            self._warn(
                "exponential_backoff has no effect: the time between two polls follows the evaluation's progress, "
                "from poke_interval to max_wait"
            )
        if start_from_trigger or end_from_trigger:
            self._plan(start_from_trigger=start_from_trigger, end_from_trigger=end_from_trigger)

    @property
    def waits_by_rescheduling(self) -> bool:
        """Whether the task ends its process between two polls on workers."""
        return bool(self.reschedule) and not self.deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Poll once; then wait, if there is something to wait for, in the way that was chosen."""
        if self.start_from_trigger:
            why = "a task that `airflow dags test` or `airflow tasks test` runs"
            if version_compat.is_made_from_mapped(self):
                why = "a mapped task"
            elif self.start_trigger_args is None:
                why = "a task with what a cluster policy, or a later line of its DAG file, has set"
            self.log.warning("start_from_trigger has no effect here: Airflow begins %s on a worker.", why)
        with self.stop_at_execution_timeout():
            return self._gate.execute(context, self._ref)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, without waiting: done with the evaluation, not done, or the failure that a wait would end in."""
        evaluation = self._gate.poke(context, self._ref)
        return PokeReturnValue(is_done=evaluation is not None, xcom_value=evaluation)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume the task with the trigger's event."""
        return self._gate.resume(context, self._ref, event)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Resume a deferred task.

        The base class's way of turning failures into skips differs between Airflow versions, so it is not used: the
        gate concludes what a trigger reports, and how Airflow itself ends a trigger.
        """
        if self.start_from_trigger:
            from airflow_provider_oxen.xcoms import delete_earlier_results

            delete_earlier_results(context)
        with self.stop_at_execution_timeout():
            try:
                return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
            except AirflowException as error:
                if version_compat.deferral_error(error) is None:
                    raise
                return self._gate.resume_without_event(context, self._ref, error)

    @property
    def _ref(self) -> EvaluationRef:
        from airflow_provider_oxen.evaluations import EvaluationRef

        return EvaluationRef(self.namespace, self.repo_name, self.evaluation_id)

    @classmethod
    def _check_known(cls, arguments: Mapping[str, Any]) -> None:
        check_booleans(arguments)
        for name in ("namespace", "repo_name", "evaluation_id"):
            if name in arguments and is_known(arguments[name]):
                check_path_parameter(name, arguments[name])
        if "oxen_conn_id" in arguments and is_known(arguments["oxen_conn_id"]):
            check_conn_id(arguments["oxen_conn_id"])

    def _plan(self, *, start_from_trigger: bool, end_from_trigger: bool) -> None:
        """Decide what may happen in the triggerer, and warn of what may not."""
        plan = self.plan(start_from_trigger=start_from_trigger, end_from_trigger=end_from_trigger)
        self.start_trigger_args = plan.start_trigger_args
        self.start_from_trigger = plan.start_trigger_args is not None
        self.end_from_trigger = plan.ends
        if plan.warning is not None:
            self._warn(plan.warning, stacklevel=4)

    def plan(self, *, start_from_trigger: bool, end_from_trigger: bool, is_anew: bool = False) -> Plan:
        """Decide it from the settings that the task has now. Durations may be numbers or ``timedelta``."""
        from airflow_provider_oxen import start_end

        return start_end.plan(
            self,
            TriggerArguments(
                namespace=self.namespace,
                repo_name=self.repo_name,
                evaluation_id=self.evaluation_id,
                oxen_conn_id=self.oxen_conn_id,
                poke_interval=parse_seconds("poke_interval", self.poke_interval),
                max_wait=parse_optional_seconds("max_wait", self.max_wait),
                retry_window=parse_optional_seconds("retry_window", self.retry_window),
                timeout=parse_seconds("timeout", self.timeout),
                do_xcom_push=self.do_xcom_push,
            ),
            deferrable=self.deferrable,
            start_from_trigger=start_from_trigger,
            end_from_trigger=end_from_trigger,
            is_anew=is_anew,
        )

    def _warn(self, message: str, stacklevel: int = 3) -> None:
        # Above this function and __init__ is the DAG file. Airflow itself adds the wrappers it puts around __init__, by
        # replacing ``warnings`` in this module.
        warnings.warn(f"{self._place}: {message}", UserWarning, stacklevel=stacklevel)
