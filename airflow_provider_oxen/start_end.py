"""
Whether a task may start or end in the triggerer, and if not, why not.

How this works
--------------
1. With ``start_from_trigger``, Airflow's scheduler makes the trigger from ``start_trigger_args``, which the sensor set
   while its DAG file was parsed. The triggerer renders the templates in it. With ``end_from_trigger``, the trigger of a
   completed evaluation yields an event that ends the task.
2. Airflow does less in a triggerer than on a worker, and some of it fails badly there: a template may make the trigger
   hang, and with a listener the DAG file is not imported. So a task starts and ends there only if that is known to
   work. Otherwise a worker does it as always, and a warning gives the reason.
3. :func:`plan` decides both while the DAG file is parsed. ``triggerer_templates`` decides about a template. Later lines
   of the file and cluster policies may change the task, so the sensor plans the start anew when its DAG is stored.
4. What is stored later may change the decision about the end: a task is expanded over the result, say. So
   :func:`may_end_in_triggerer` decides again when the end is near.
5. The deadline of a wait that no worker started is not in its arguments, because they are made when the DAG file is
   parsed. :func:`find_deadline` computes it in the triggerer.
6. ``xcoms`` stores what a worker would have stored.

The rule that must not be broken: only a completed evaluation ends in the triggerer. Every failure goes to a worker,
where the message, the callbacks, ``soft_fail`` and the retries are the same for all ways of waiting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import storage_compat, triggerer_compat, version_compat
from airflow_provider_oxen.parameters import TriggerArguments
from airflow_provider_oxen.triggerer_templates import (
    DagFacts,
    NeedsWorkerError,
    build_output_template,
    rewrite_template,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.triggers.base import BaseTrigger, StartTriggerArgs

__all__ = ["BACKSTOP", "Plan", "find_deadline", "may_end_in_triggerer", "plan"]

#: Airflow's own timeout of a deferred task is later than the deadline by this. The trigger itself reports the deadline,
#: with what it last saw, and may be late because of one slow request or because it moved to another triggerer.
BACKSTOP = timedelta(minutes=10)
#: Airflow ends a trigger at ``execution_timeout``, and then says nothing about the evaluation. The trigger's own
#: deadline is this many seconds earlier, so that its event arrives before.
_LEAD_SECONDS = 3.0
#: The templated arguments of the trigger. Their names must be those of the operator's template fields.
_TEMPLATED = ("namespace", "repo_name", "evaluation_id", "oxen_conn_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What may happen in the triggerer.

    :param start_trigger_args: what the scheduler makes the trigger from; None if a worker has to start the task.
    :param ends: whether a completed evaluation may end the task in the triggerer.
    :param warning: what to warn of; None if all is as it was asked for.
    """

    start_trigger_args: StartTriggerArgs | None
    ends: bool
    warning: str | None


def plan(
    task: BaseOperator,
    arguments: TriggerArguments | None,
    *,
    deferrable: bool,
    start_from_trigger: bool,
    end_from_trigger: bool,
    is_anew: bool = False,
) -> Plan:
    """
    Decide what may happen in the triggerer, while a DAG file is parsed.

    :param task: the operator, with all of Airflow's arguments set.
    :param arguments: the arguments of the trigger, for a task that may start there; None for one that never does.
        ``timeout`` must be given. The templated ones may be templates or the output of a task. ``deadline`` and
        ``end_from_trigger`` do not count: both are decided here.
    :param deferrable: whether the task waits in the triggerer at all.
    :param start_from_trigger: whether the user wants the task to start in the triggerer.
    :param end_from_trigger: whether the user wants a completed evaluation to end the task there.
    :param is_anew: whether the start was planned before. What the trigger will find out about the end by itself is then
        left to it, because it says so in the task's log.
    :raises ValueError: ``timeout`` is not given.
    """
    never = _why_not_at_all(deferrable=deferrable)
    reasons: dict[str, str] = {}  # why an argument has no effect
    if start_from_trigger and never is not None:
        reasons["start_from_trigger"] = never
    elif start_from_trigger and arguments is not None:
        try:
            arguments = _for_triggerer(task, arguments)
        except NeedsWorkerError as error:
            reasons["start_from_trigger"] = str(error)
    reason = never or _why_end_on_worker_while_parsing(task) or (None if is_anew else _why_end_on_worker(task))
    if end_from_trigger and reason is not None:
        reasons["end_from_trigger"] = reason
    starts = start_from_trigger and "start_from_trigger" not in reasons
    ends = end_from_trigger and "end_from_trigger" not in reasons
    start_trigger_args = None
    if starts and arguments is not None:
        start_trigger_args = _start_trigger_args(replace(arguments, end_from_trigger=ends))
    return Plan(
        start_trigger_args=start_trigger_args,
        ends=ends,
        warning=_warning(reasons),
    )


def may_end_in_triggerer(task: version_compat.Task, log: version_compat.TaskLogger) -> bool:
    """
    Decide whether a completed evaluation may end the task in the triggerer, now that the whole DAG is known.

    :param task: the operator, as the DAG file made it or as Airflow stored it.
    :param log: gets a warning with the reason if it may not.
    """
    reason = _why_end_on_worker(task)
    if reason is not None:
        log.warning("end_from_trigger has no effect here: %s.", reason)
    return reason is None


def find_deadline(trigger: BaseTrigger, timeout_seconds: float) -> float:
    """
    Find when a wait that started in the triggerer has to end.

    It is the same in each triggerer that takes over the wait: it is computed from the time at which Airflow will end
    the trigger, which the scheduler stored when the attempt began.

    :param trigger: the trigger, as the triggerer set it up.
    :param timeout_seconds: how long to wait, from the start of the attempt.
    :return: seconds since the epoch. Outside of a triggerer, the wait starts now.
    """
    ends_at = triggerer_compat.trigger_ends_at(trigger)
    if ends_at is None:
        return time.time() + timeout_seconds
    allowed = timedelta(seconds=timeout_seconds) + BACKSTOP
    task = triggerer_compat.task_of(trigger)
    if task is not None and task.execution_timeout is not None:
        allowed = min(allowed, task.execution_timeout)
    began_at = ends_at - allowed
    return min(began_at.timestamp() + timeout_seconds, ends_at.timestamp() - _LEAD_SECONDS)


def _warning(reasons: dict[str, str]) -> str | None:
    """Build the warning about arguments that have no effect, from the reason for each."""
    if len(reasons) > 1 and len(set(reasons.values())) == 1:
        return f"{' and '.join(reasons)} have no effect here: {next(iter(reasons.values()))}"
    return "; ".join(f"{name} has no effect here: {reason}" for name, reason in reasons.items()) or None


def _why_not_at_all(*, deferrable: bool) -> str | None:
    if not version_compat.can_start_and_end_in_triggerer():
        return "Airflow 3.3 or later is needed for it. The wait begins and ends on a worker"
    if not deferrable:
        return "deferrable=False waits on a worker"
    return None


def _why_end_on_worker(task: version_compat.Task) -> str | None:
    """Say what would be lost, of an operator as the DAG file made it or as Airflow stored it."""
    if task.outlets:
        return "only a worker emits the events of its outlets"
    if task.has_on_success_callback:
        return "only a worker calls on_success_callback"
    if task.multiple_outputs:
        return "only a worker stores multiple_outputs"
    if version_compat.returns_dag_result(task):
        return "only a worker stores the result of the DAG"
    if version_compat.is_expanded_over(task):
        return "a task is expanded over its result, whose length only a worker records"
    return None


def _why_end_on_worker_while_parsing(task: BaseOperator) -> str | None:
    """Give a reason that only the process that parses the DAG file knows."""
    if version_compat.has_listeners():
        # Airflow would refuse to import the DAG file.
        return "a listener is installed (for example, OpenLineage), and only a worker calls listeners when a task ends"
    if storage_compat.has_custom_xcom_backend():
        return "only a worker writes to the XCom backend of [core] xcom_backend"
    if version_compat.has_hook(task, "post_execute"):
        return "only a worker calls post_execute"
    return None


def _start_trigger_args(arguments: TriggerArguments) -> StartTriggerArgs:
    from airflow.triggers.base import StartTriggerArgs

    if arguments.timeout is None:
        raise ValueError("a task that starts in the triggerer needs a timeout")
    return StartTriggerArgs(
        trigger_cls="airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger",
        trigger_kwargs=arguments.to_dict(),
        next_method="execute_complete",
        timeout=timedelta(seconds=arguments.timeout) + BACKSTOP,
    )


def _for_triggerer(task: BaseOperator, arguments: TriggerArguments) -> TriggerArguments:
    """
    Rewrite the templated arguments to a form that the triggerer can render.

    :raises NeedsWorkerError: there is none, or the start needs a worker for another reason.
    """
    if version_compat.has_triggerer_queues():
        raise NeedsWorkerError(
            "[triggerer] queues_enabled is set, and triggerers with --queues do not run what begins there"
        )
    if version_compat.is_in_mapped_group(task):
        raise NeedsWorkerError("a task in a mapped task group begins on a worker")
    if task.on_execute_callback or version_compat.has_hook(task, "pre_execute"):
        raise NeedsWorkerError("only a worker calls on_execute_callback and pre_execute")
    if version_compat.has_own_params(task):
        # The values of a run were checked against the DAG's parameters only, and the triggerer checks none.
        raise NeedsWorkerError("params of the task's own are checked on a worker")
    params: Any = task.params
    try:
        params.validate()
    except ValueError:
        # Source: Airflow 3.3.2, ``TriggerRunner.create_triggers``, checks the defaults before it reads the values of
        # the run. What that raises ends the triggerer, with all of its waits.
        raise NeedsWorkerError("a param of the DAG has no default, or one that its schema does not allow") from None
    facts = _dag_facts(task)
    rewritten: dict[str, Any] = {}
    for name in _TEMPLATED:
        try:
            rewritten[name] = _rewrite_argument(getattr(arguments, name), facts)
        except NeedsWorkerError as error:
            raise NeedsWorkerError(f"{name} {error}") from None
    return replace(arguments, deadline=None, **rewritten)


def _rewrite_argument(value: object, facts: DagFacts) -> str:
    if isinstance(value, str):
        return rewrite_template(value, facts)
    output = version_compat.find_output(value)
    if output is None:
        raise NeedsWorkerError("is neither text nor simply the output of a task, and only a worker can resolve it")
    upstream, key = output
    return rewrite_template(
        build_output_template(upstream.task_id, key, mapped=version_compat.is_mapped(upstream)), facts
    )


def _dag_facts(task: BaseOperator) -> DagFacts:
    native = task.render_template_as_native_obj
    dag = task.get_dag()
    if dag is None:
        return DagFacts(renders_native_objects=bool(native))

    def is_mapped(task_id: str) -> bool | None:
        upstream = dag.task_dict.get(task_id)
        return None if upstream is None else version_compat.is_mapped(upstream)

    return DagFacts(
        dag_id=dag.dag_id,
        is_mapped=is_mapped,
        user_defined_filters=frozenset(dag.user_defined_filters or ()),
        renders_native_objects=dag.render_template_as_native_obj if native is None else native,
        has_own_jinja_settings=version_compat.has_own_jinja_settings(dag),
    )
