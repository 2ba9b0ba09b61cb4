"""
Waiting without a worker: what of a gate may happen in the triggerer alone, and if not, why not.

How this works
--------------
With ``start_from_trigger``, Airflow's scheduler makes the trigger from what the sensor wrote down while its DAG file
was parsed (``start_trigger_args``), and the triggerer renders the templates in it. With ``end_from_trigger``, the
trigger of a completed evaluation tells Airflow to end the task.

Airflow does less on these ways than a worker does, and fails badly on some: a template may stop the trigger for ever,
and a listener keeps the DAG file from being imported. So a gate goes them only as far as they are known to work.
Otherwise a worker begins or ends it as ever, and a warning says why:

:func:`plan`                     decides both while the DAG file is parsed
:func:`may_end_here`             decides the end once more when it is near, when all of the DAG is known
:func:`end_here`                 does in the triggerer what a worker does at the end of a task
:func:`push_links`               shows the links of a wait that no worker began
:func:`deadline`                 tells when a wait that no worker began has to end
:func:`forget_earlier_attempt`   does on a worker what Airflow left out because none began the attempt

The rule that binds the next person: only a completed evaluation ends in the triggerer. Every failure goes to a worker,
where the message, the callbacks, ``soft_fail`` and what is retried are the same for all ways of waiting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger, StartTriggerArgs

__all__ = [
    "BACKSTOP",
    "deadline",
    "end_here",
    "forget_earlier_attempt",
    "has_xcom_backend",
    "is_template",
    "may_end_here",
    "plan",
    "push_links",
]

#: What Airflow's own timeout of a deferred task adds to the deadline: the trigger reports the deadline itself, with
#: what it last saw, and may be held up by one slow look and by moving to another triggerer.
BACKSTOP = timedelta(minutes=10)
#: Airflow ends a trigger at ``execution_timeout`` without a word about the evaluation; the trigger speaks this many
#: seconds earlier, which is what its event takes to arrive.
_LEAD_SECONDS = 3.0
#: What the sensor pushes.
_XCOM_KEYS = ("return_value", "evaluation")
#: What a template may name: these work in a triggerer. Others may need what a worker alone can ask Airflow for, and
#: the trigger would wait for the answer for ever.
_NAMES = frozenset(
    {
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "params",
        "run_id",
        "task_instance",
        "ti",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)
_TASK_INSTANCE_NAMES = ("task_instance", "ti")
#: What the trigger is told of the sensor's templated arguments.
_FIELDS = ("namespace", "repo_name", "evaluation_id", "oxen_conn_id")
#: What Airflow adds to Jinja's own filters, on workers and in triggerers alike.
_FILTERS = ("ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz")


class _NeedsWorkerError(Exception):
    """The reason, as the second half of a sentence that begins with the argument's name."""


def plan(
    sensor: Any, *, start_from_trigger: bool, end_from_trigger: bool
) -> tuple[StartTriggerArgs | None, bool, str | None]:
    """
    Decide what may happen in the triggerer, while a DAG file is parsed.

    :param sensor: the sensor, with all arguments set.
    :param start_from_trigger: whether the wait is to begin in the triggerer.
    :param end_from_trigger: whether a completed evaluation is to end the task there.
    :return: what the trigger is made from, or None where a worker has to begin the wait; whether the task may end in
        the triggerer; the warning to give, or None where all is as it was asked for.
    """
    fields: dict[str, str] = {}
    start_reason = end_reason = _why_not_at_all(sensor)
    if start_reason is None and start_from_trigger:
        try:
            fields = _check_start(sensor)
        except _NeedsWorkerError as error:
            start_reason = str(error)
    if end_reason is None and end_from_trigger:
        end_reason = _why_end_on_worker_now(sensor)
    starts = start_from_trigger and start_reason is None
    ends = end_from_trigger and end_reason is None
    lost = [
        (name, reason)
        for name, asked, reason in (
            ("start_from_trigger", start_from_trigger, start_reason),
            ("end_from_trigger", end_from_trigger, end_reason),
        )
        if asked and reason is not None
    ]
    return _start_trigger_args(sensor, fields, ends=ends) if starts else None, ends, _warning(lost)


def may_end_here(task: Any, log: Any) -> bool:
    """
    Decide whether a completed evaluation may end the task in the triggerer, now that the whole DAG is known.

    :param task: the operator, as the DAG file made it or as Airflow stored it.
    :param log: the logger that a reason why not goes to.
    """
    reason = _why_end_on_worker(task)
    if reason is not None:
        log.warning("end_from_trigger has no effect here: %s.", reason)
    return reason is None


async def end_here(trigger: Any, result: dict[str, Any]) -> bool:
    """
    Do what a worker does at the end of a task, where that may be done in the triggerer.

    The XComs are not left to the event that ends the task. Source: Airflow 3.3.2 stores those of an event as JSON in
    JSON, and a task that reads a dict from them gets text.

    :param trigger: the trigger, as the triggerer set it up.
    :param result: the evaluation.
    :return: whether it was done; otherwise, the task has to end on a worker.
    """
    from airflow.providers.common.compat.sdk import XCom

    # Without an id, it is not run by a triggerer but by a test of a DAG, which knows no event that ends a task.
    if trigger.trigger_id is None:
        return False
    place = _place(trigger.task_instance)
    try:
        # Where a worker began the wait, the sensor has decided by now, and the trigger may not know its task.
        if getattr(trigger.task, "start_trigger_args", None) and not may_end_here(trigger.task, trigger.log):
            return False
        for key in _XCOM_KEYS if trigger.do_xcom_push else ():
            await XCom.aset(key=key, value=result, **place)
    except Exception as error:  # noqa: BLE001  # whatever it is, a worker can do it
        trigger.log.warning("A worker ends this task, as it could not be ended from here: %r", error)
        return False
    return True


async def push_links(trigger: Any, addresses: dict[str, str], pushed: dict[str, str]) -> dict[str, str]:
    """
    Show the links of a task whose wait no worker began.

    :param trigger: the trigger, as the triggerer set it up.
    :param addresses: the address of each link by its XCom key; empty where there is none.
    :param pushed: what the last call gave.
    :return: what is shown now. A wait goes on without its links where Airflow does not take them.
    """
    from airflow_provider_oxen.version_compat import link_xcoms

    ti = getattr(trigger, "task_instance", None)
    if addresses == pushed or trigger.trigger_id is None or ti is None:
        return pushed
    try:
        for key, address in addresses.items():
            # An empty one takes away that of an earlier attempt.
            if address != pushed.get(key, "") or ti.try_number > 1:
                await link_xcoms().aset(key=key, value=address, **_place(ti))
    except Exception as error:  # noqa: BLE001  # nothing hangs on it
        trigger.log.warning("The links of this task could not be stored: %r", error)
        return pushed
    return addresses


def deadline(trigger: BaseTrigger, timeout: float) -> float:
    """
    Find when a wait that began in the triggerer has to end.

    It is the same in each triggerer that takes up the wait: it comes from the moment at which Airflow will end the
    trigger, which the scheduler stored when the attempt began.

    :param trigger: the trigger, as the triggerer set it up.
    :param timeout: the sensor's, in seconds.
    :return: seconds since the epoch.
    """
    ends_at = getattr(trigger, "timeout_after", None)
    if ends_at is None:  # only outside of a triggerer
        return time.time() + timeout
    if ends_at.tzinfo is None:
        ends_at = ends_at.replace(tzinfo=timezone.utc)
    allowed = timeout + BACKSTOP.total_seconds()
    execution_timeout = getattr(trigger.task, "execution_timeout", None)
    if execution_timeout is not None:
        allowed = min(allowed, execution_timeout.total_seconds())
    began_at = ends_at.timestamp() - allowed
    return float(min(began_at + timeout, ends_at.timestamp() - _LEAD_SECONDS))


def forget_earlier_attempt(context: Context) -> None:
    """
    Remove the results of earlier attempts, which a worker does when it begins one, and which no worker began here.

    Without it, a gate that completed once, was cleared and failed would still hand out its first result.
    """
    from airflow.providers.common.compat.sdk import XCom

    ti: Any = context["ti"]
    for key in _XCOM_KEYS if ti.try_number > 1 else ():
        XCom.delete(key=key, **_place(ti))


def _place(ti: Any) -> dict[str, Any]:
    return {"task_id": ti.task_id, "dag_id": ti.dag_id, "run_id": ti.run_id, "map_index": ti.map_index}


def has_xcom_backend() -> bool:
    """Tell whether Airflow 3 was given an XCom backend of its user's."""
    from airflow.configuration import conf

    return bool(conf.get("core", "xcom_backend") != "airflow.sdk.execution_time.xcom.BaseXCom")


def is_template(value: str) -> bool:
    """Tell whether Jinja would change a text."""
    return any(mark in value for mark in ("{{", "{%", "{#"))


def _warning(lost: list[tuple[str, str]]) -> str | None:
    if not lost:
        return None
    names, reasons = zip(*lost, strict=True)
    if len(set(reasons)) == 1:
        return f"{' and '.join(names)} {'has' if len(names) == 1 else 'have'} no effect here: {reasons[0]}"
    return "; ".join(f"{name} has no effect here: {reason}" for name, reason in lost)


def _why_not_at_all(sensor: Any) -> str | None:
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_3_PLUS

    if not AIRFLOW_V_3_3_PLUS:
        return "Airflow 3.3 or later is needed for it. The wait begins and ends on a worker"
    if not sensor.deferrable:
        return "deferrable=False waits on a worker"
    return None


def _why_end_on_worker(task: Any) -> str | None:
    """Say what would be lost of an operator's, be it as the DAG file made it or as Airflow stored it."""
    if task.outlets:
        return "only a worker emits the events of its outlets"
    if task.has_on_success_callback:
        return "only a worker calls on_success_callback"
    if getattr(task, "multiple_outputs", False):
        return "only a worker stores multiple_outputs"
    if getattr(task, "returns_dag_result", False):
        return "only a worker stores the result of the DAG"
    if task.get_dag() is not None and any(task.iter_mapped_dependants()):
        return "a task is expanded over its result, whose length only a worker records"
    return None


def _why_end_on_worker_now(sensor: Any) -> str | None:
    """As :func:`_why_end_on_worker`, with what only the process that parses the DAG file knows."""
    from airflow.listeners.listener import get_listener_manager

    if get_listener_manager().has_listeners:
        # Airflow would refuse to import the DAG file.
        return "a listener is installed (OpenLineage, say), and only a worker tells listeners how a task ended"
    if has_xcom_backend():
        return "only a worker writes to the XCom backend of [core] xcom_backend"
    if sensor._post_execute_hook is not None:  # noqa: SLF001
        return "only a worker calls post_execute"
    return _why_end_on_worker(sensor)


def _start_trigger_args(sensor: Any, fields: dict[str, str], *, ends: bool) -> StartTriggerArgs:
    from airflow.triggers.base import StartTriggerArgs

    return StartTriggerArgs(
        trigger_cls="airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger",
        # The names of the template fields must be those of the operator and of the trigger's attributes.
        trigger_kwargs={
            **fields,
            "poke_interval": sensor.poke_interval,
            "max_wait": None if sensor.max_wait is None else sensor.max_wait.total_seconds(),
            "retry_window": None if sensor.silent_fail else sensor.retry_window,
            "timeout": sensor.timeout,
            "end_from_trigger": ends,
            "do_xcom_push": sensor.do_xcom_push,
        },
        next_method="execute_complete",
        timeout=timedelta(seconds=sensor.timeout) + BACKSTOP,
    )


def _check_start(sensor: Any) -> dict[str, str]:
    """
    Write the template fields in a form that the triggerer can render.

    :raises _NeedsWorkerError: there is none, or the start needs a worker for another reason.
    """
    dag = sensor.get_dag()
    if sensor.get_closest_mapped_task_group() is not None:
        raise _NeedsWorkerError("a task in a mapped task group begins on a worker")
    if sensor.on_execute_callback or sensor._pre_execute_hook is not None:  # noqa: SLF001
        raise _NeedsWorkerError("only a worker calls on_execute_callback and pre_execute")
    if any(sensor.params.get_param(name).source == "task" for name in sensor.params):
        # The values of a run were checked against the DAG's parameters alone, and the triggerer checks none.
        raise _NeedsWorkerError("params of the task's own are checked on a worker")
    fields: dict[str, str] = {}
    for name in _FIELDS:  # a subclass may have more, which it sets later and the trigger does not know
        try:
            fields[name] = _for_triggerer(getattr(sensor, name), sensor)
        except _NeedsWorkerError as error:
            raise _NeedsWorkerError(f"{name} {error}") from None
    native = sensor.render_template_as_native_obj
    if native is None:
        native = dag is not None and dag.render_template_as_native_obj
    if any(is_template(value) for value in fields.values()):
        if native:
            raise _NeedsWorkerError("only a worker renders templates as native objects")
        if dag is not None and (dag.jinja_environment_kwargs or dag.template_undefined.__name__ != "StrictUndefined"):
            raise _NeedsWorkerError("only a worker renders templates with the DAG's own settings of Jinja")
    return fields


def _for_triggerer(value: Any, sensor: Any) -> str:
    from airflow.providers.common.compat.sdk import XComArg

    if isinstance(value, str):
        return _template_for_triggerer(value, sensor) if is_template(value) else value
    if not isinstance(value, XComArg) or not (hasattr(value, "key") and hasattr(value, "operator")):
        raise _NeedsWorkerError("is neither text nor simply the output of a task, and only a worker can resolve it")
    upstream: Any = value.operator
    _check_not_mapped(upstream)
    return f"{{{{ ti.xcom_pull(task_ids={upstream.task_id!r}, key={value.key!r}, map_indexes=-1) }}}}"


def _check_not_mapped(upstream: Any) -> None:
    if upstream.is_mapped or upstream.get_closest_mapped_task_group() is not None:
        raise _NeedsWorkerError(f"comes from a mapped task ({upstream.task_id}), whose results only a worker can read")


def _template_for_triggerer(text: str, sensor: Any) -> str:
    """
    Let a template pass that is known to work in a triggerer, and ask for the XComs in it in a way that works there.

    Source: Airflow 3.3.2's triggerer has no answer to ``xcom_pull`` without ``map_indexes`` (it asks for a
    ``GetXComSequenceSlice``), and the trigger waits for one until it times out.
    """
    import jinja2.meta
    import jinja2.sandbox

    environment = jinja2.sandbox.SandboxedEnvironment()
    environment.filters.update(dict.fromkeys(_FILTERS, str))
    for name in getattr(sensor.get_dag(), "user_defined_filters", None) or ():
        environment.filters.pop(name, None)  # a triggerer has Jinja's own of that name, or none
    try:
        tree = environment.parse(text)
        environment.compile(tree)  # finds filters that do not exist
        names = jinja2.meta.find_undeclared_variables(environment.parse(text))
    except jinja2.TemplateError as error:
        raise _NeedsWorkerError(f"is a template that only a worker may be able to render ({error})") from None
    if unknown := sorted(names - _NAMES):
        raise _NeedsWorkerError(f"is a template with {', '.join(unknown)}, which only a worker is known to render")
    nodes = jinja2.nodes
    reading = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
    if any(isinstance(statement, reading) for statement in tree.find_all(nodes.Stmt)):
        raise _NeedsWorkerError("is a template that reads another one, which only a worker can find")
    uses = sum(name.name in _TASK_INSTANCE_NAMES for name in tree.find_all(nodes.Name))
    if uses == 0:
        return text
    pulls = list(_xcom_pulls(tree))
    if len(pulls) != uses:
        raise _NeedsWorkerError("is a template that uses ti for more than xcom_pull, which needs a worker")
    for pull in pulls:
        _check_pull(pull, sensor)
    rewritten = "".join(_with_map_indexes(environment, text))
    # What was rewritten token by token is read once more, for what is missed here stops the trigger for ever.
    if not all(_names_map_indexes(pull) for pull in _xcom_pulls(environment.parse(rewritten))):
        raise _NeedsWorkerError("is a template with an xcom_pull in a form that only a worker is known to render")
    return rewritten


def _xcom_pulls(tree: jinja2.nodes.Template) -> Iterator[jinja2.nodes.Call]:
    import jinja2

    return (call for call in tree.find_all(jinja2.nodes.Call) if _is_xcom_pull(call))


def _names_map_indexes(call: jinja2.nodes.Call) -> bool:
    return any(argument.key == "map_indexes" for argument in call.kwargs)


def _is_xcom_pull(call: jinja2.nodes.Call) -> bool:
    import jinja2

    return (
        isinstance(call.node, jinja2.nodes.Getattr)
        and call.node.attr == "xcom_pull"
        and isinstance(call.node.node, jinja2.nodes.Name)
        and call.node.node.name in _TASK_INSTANCE_NAMES
    )


def _check_pull(call: jinja2.nodes.Call, sensor: Any) -> None:
    """Refuse an ``xcom_pull`` of which it is not known that ``map_indexes=-1`` brings what a worker would get."""
    given = dict(zip(("task_ids", "dag_id", "key", "include_prior_dates"), call.args, strict=False))
    given |= {argument.key: argument.value for argument in call.kwargs}
    if call.dyn_args is not None or call.dyn_kwargs is not None:
        raise _NeedsWorkerError("is a template with arguments of xcom_pull that are only known on a worker")
    if "map_indexes" in given:
        if not isinstance(_constant(given["map_indexes"]), int):
            raise _NeedsWorkerError("is a template with map_indexes other than one number, which needs a worker")
        return
    dag, task_id = sensor.get_dag(), _constant(given.get("task_ids"))
    if not isinstance(task_id, str) or ("dag_id" in given and dag and _constant(given["dag_id"]) != dag.dag_id):
        raise _NeedsWorkerError(
            "is a template with xcom_pull from other than one task of this DAG, which needs a worker"
        )
    upstream = None if dag is None else dag.task_dict.get(task_id)
    if upstream is None:
        raise _NeedsWorkerError(
            f"is a template with xcom_pull from {task_id!r}, which no earlier line of the DAG file makes, so that a "
            "worker has to find out whether it is mapped"
        )
    _check_not_mapped(upstream)


def _constant(node: jinja2.nodes.Expr | None) -> Any:
    """Give the value that is written in a template; None where it is not known before rendering."""
    import jinja2

    try:
        return None if node is None else node.as_const()
    except jinja2.nodes.Impossible:
        return None


def _with_map_indexes(environment: jinja2.Environment, text: str) -> Iterator[str]:
    """Give a template's tokens, with ``map_indexes=-1`` as the last argument of each ``xcom_pull`` that has none."""
    depth, before = 0, ""
    missing: dict[int, bool] = {}  # for each open xcom_pull, by its depth, whether it has no map_indexes
    for _, kind, token in environment.lex(text):
        if (kind, token) == ("operator", "("):
            depth += 1
            if before == "xcom_pull":
                missing[depth] = True
        elif (kind, token) == ("operator", ")"):
            if missing.pop(depth, False):
                yield "map_indexes=-1" if before == "," else ", map_indexes=-1"
            depth -= 1
        elif (kind, token) == ("name", "map_indexes") and depth in missing:
            missing[depth] = False
        if kind != "whitespace":
            before = token
        yield token
