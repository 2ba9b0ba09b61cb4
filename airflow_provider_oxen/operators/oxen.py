"""
The operator: it starts an evaluation, and waits for it as the sensor does.

Here are its arguments, their documentation, and what can be refused while a DAG file is parsed. How it starts at most
once is in ``start``, how it waits in ``gate``. Imports are few and late, as in the sensor's module.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import start_request, version_compat
from airflow_provider_oxen.airflow_names import AirflowException, AirflowFailException, BaseOperator, conf
from airflow_provider_oxen.gate_task import GateTaskMixin, check_start_is_judged, describe_task, naming_task
from airflow_provider_oxen.parameters import check_durations, is_known, parse_seconds

if TYPE_CHECKING:
    from typing import Literal

    from airflow.sdk import Context
    from airflow.sdk.definitions.mappedoperator import OperatorPartial

    from airflow_provider_oxen.conditions import Condition
    from airflow_provider_oxen.evaluations import EvaluationRef
    from airflow_provider_oxen.start import Starter
    from airflow_provider_oxen.start_request import StartRequest

__all__ = ["OxenRunEvaluationOperator"]


class OxenRunEvaluationOperator(GateTaskMixin, BaseOperator):
    """
    Start an evaluation on Oxen.ai, wait until it has ended, and succeed only if it completed.

    **At most once.** An evaluation costs money, so the task never starts a second one by itself. If an attempt ends
    after it may have started one, and the next attempt cannot know, that attempt fails and says what to do next. On
    Airflow 3.3 and later, a record in Airflow's task state store lets a later attempt wait for the evaluation that an
    earlier one started. Before Airflow 3.3, only a task's first attempt starts one. ``airflow tasks test`` and
    ``airflow dags test`` really start one, too.

    The task waits as :class:`~airflow_provider_oxen.sensors.oxen.OxenEvaluationSensor` does, with the same outcomes,
    XComs, links, asset events and OpenLineage events. An evaluation that errored or was cancelled is a final failure:
    Airflow's ``retries`` do not buy a second one.

    If the task is stopped while its evaluation runs, the evaluation keeps running: the vendor documents no call to
    cancel one. The task's log then says so, with its page.

    :param namespace: user or organization that owns the repository. (templated)
    :param repo_name: the repository. (templated)
    :param branch: the branch the rows are read from. (templated)
    :param path: the file whose rows are evaluated, inside the repository. (templated)
    :param model: the model, sent as ``model_id``. (templated)
    :param prompt: what to ask about each row. ``{column}`` stands for the row's value in that column and is filled in
        by the hub; ``{{ … }}`` is Jinja and is rendered by Airflow. (templated)
    :param target_column: the column that receives the model's output. (templated)
    :param input_type: ``text``, ``image`` or ``video``. (templated)
    :param output_type: ``text``, ``image``, ``video`` or ``embeddings``. (templated)
    :param name: the evaluation's name on the hub. None: DAG, task, run, map index and attempt, by which a person finds
        one that is lost. (templated)
    :param target_branch: the branch that the results are committed to; needs ``auto_commit``. None: not sent.
        (templated)
    :param target_path: the file that the results are written to; needs ``auto_commit``. None: not sent. (templated)
    :param auto_commit: commit the results when the evaluation completes. None: not sent (the hub's default is no).
    :param commit_message: message of that commit. None: not sent. (templated)
    :param is_sample: evaluate only the first ``sample_count`` rows. None: not sent.
    :param sample_count: number of rows of a sample. None: not sent.
    :param batch_size: rows of one inference batch. None: not sent.
    :param body: fields of the request to add or replace, for what has no argument here. A field that is None is left
        out of the request. (templated)
    :param oxen_conn_id: Airflow connection to use. (templated)
    :param wait_for_completion: wait for the end. If False, the task succeeds as soon as the evaluation has started, and
        a sensor can wait for ``start.output["evaluation_id"]``.
    :param deferrable: wait in the triggerer, without holding a worker, or on the worker. None: as for the sensor.
    :param poke_interval: shortest time between two polls, in seconds or as ``timedelta``; above 0.
    :param max_wait: longest time between two polls, as for the sensor.
    :param timeout: longest time to wait once the evaluation has started, in seconds or as ``timedelta``. Default:
        ``[sensors] default_timeout`` of the Airflow configuration.
    :param retry_window: how long the hub may be out of reach before the task fails, in seconds or as ``timedelta``.
    :param conditions: extra conditions that a completed evaluation must meet, as for the sensor.
    :param soft_fail: skip instead of a final failure *of the wait*. A start that fails always fails the task.
    :param end_from_trigger: end the task in the triggerer when the evaluation has completed, as for the sensor.
    :param durable: keep the record of what was started. If False, each attempt starts an evaluation, and a warning says
        that this may cost you twice.
    :param on_unknown_start: what an attempt does that cannot know whether an earlier one started an evaluation:
        ``fail`` (the default) or ``start_again``, which may cost you twice. ``start_again`` holds for an attempt's own
        lost response, too: ``retries`` apply, and the next attempt starts another one.
    :param on_clear: what happens after a person clears the task. If the arguments have changed, a new evaluation is
        started, whatever the state of the earlier one. Otherwise, ``resume`` (the default): wait for the evaluation if
        it still runs or has completed, and start a new one if it errored or was cancelled. ``start_again``: start a new
        one, unless the earlier one still runs. On an Airflow that deletes the task's state at a clear, its dialog
        decides.
    :return: the evaluation as a JSON-safe dict, as the sensor returns it; with ``wait_for_completion=False`` as it was
        started. Its id is pushed to XCom key ``evaluation_id`` at once, and the evaluation to ``evaluation`` when the
        wait has ended; ``results`` as for the sensor.
    """

    template_fields: Sequence[str] = (
        *("namespace", "repo_name", "branch", "path", "model", "prompt", "target_column", "input_type", "output_type"),
        *("name", "target_branch", "target_path", "commit_message", "body", "oxen_conn_id"),
    )
    ui_color = "#e7dfc6"
    never_fail = False
    waits_by_rescheduling = False
    started_here = True
    is_recorded = False
    _made_starter: Starter | None = None  # made when the task runs

    def __init__(
        self,
        *,
        namespace: str,
        repo_name: str,
        branch: str,
        path: str,
        model: str,
        prompt: str,
        target_column: str,
        input_type: str = "text",
        output_type: str = "text",
        name: str | None = None,
        target_branch: str | None = None,
        target_path: str | None = None,
        auto_commit: bool | None = None,
        commit_message: str | None = None,
        is_sample: bool | None = None,
        sample_count: int | None = None,
        batch_size: int | None = None,
        body: Mapping[str, Any] | None = None,
        oxen_conn_id: str = "oxen_default",
        wait_for_completion: bool = True,
        deferrable: bool | None = None,
        poke_interval: timedelta | float = 10,
        max_wait: timedelta | float | None = 60,
        timeout: timedelta | float | None = None,
        retry_window: timedelta | float = 600,
        conditions: Condition | Sequence[Condition] | None = None,
        soft_fail: bool = False,
        end_from_trigger: bool = False,
        durable: bool = True,
        on_unknown_start: Literal["fail", "start_again"] = "fail",
        on_clear: Literal["resume", "start_again"] = "resume",
        **kwargs: Any,
    ) -> None:
        with naming_task(kwargs):
            start_request.check_settings({"start_from_trigger": kwargs.pop("start_from_trigger", False)})
            check_durations(poke_interval=poke_interval, max_wait=max_wait, retry_window=retry_window, timeout=timeout)
        super().__init__(**kwargs)
        self.namespace = namespace
        self.repo_name = repo_name
        self.branch = branch
        self.path = path
        self.model = model
        self.prompt = prompt
        self.target_column = target_column
        self.input_type = input_type
        self.output_type = output_type
        self.name = name
        self.target_branch = target_branch
        self.target_path = target_path
        self.auto_commit = auto_commit
        self.commit_message = commit_message
        self.is_sample = is_sample
        self.sample_count = sample_count
        self.batch_size = batch_size
        self.body = body
        self.oxen_conn_id = oxen_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable: bool = version_compat.default_deferrable() if deferrable is None else deferrable
        self.poke_interval = parse_seconds("poke_interval", poke_interval)
        self.max_wait = None if max_wait is None else timedelta(seconds=parse_seconds("max_wait", max_wait))
        default_timeout = conf.getfloat("sensors", "default_timeout")
        self.timeout = parse_seconds("timeout", default_timeout if timeout is None else timeout)
        self.retry_window: float | None = parse_seconds("retry_window", retry_window)
        self.conditions = conditions
        self.soft_fail = soft_fail
        self.end_from_trigger = end_from_trigger
        self.durable = durable
        self.on_unknown_start = on_unknown_start
        self.on_clear = on_clear
        self._place = describe_task(kwargs)
        with naming_task(kwargs):
            self._check()
        if not durable:
            self._warn("durable=False: each attempt starts an evaluation, so a retry pays again", stacklevel=3)
        if end_from_trigger:
            self._plan_end()
        self.prepare_if_mapped()

    @classmethod
    def partial(cls, *, start_from_trigger: bool = False, **kwargs: Any) -> OperatorPartial:
        """As Airflow's own, which knows no ``start_from_trigger``: it is refused in the words of the other tasks."""
        made = super().partial(**kwargs)
        if start_from_trigger:
            version_compat.discard_partial(made)
            with naming_task({**made.kwargs, "task_group": None}):
                start_request.check_settings({"start_from_trigger": True})
        return made

    def execute(self, context: Context) -> dict[str, Any]:
        """Start the evaluation, or find the one that an earlier attempt started; then wait for it."""
        with self.stop_at_execution_timeout():
            self._check_rendered()
            request = self._build_request(context)
            started = self._starter.start(context, request)
            self.is_recorded = started.is_recorded
            if not started.is_recorded:  # a retry could only refuse, so the wait lasts until its deadline
                self.retry_window = None
            self._starter.push_id(context, started, waits=self.wait_for_completion)
            if not self.wait_for_completion:
                seen = started.evaluation or self._starter.poll(started.ref)
                if seen is None:
                    raise AirflowFailException(f"Evaluation not found: {started.ref}")
                return self._gate.report(context, started.ref, seen, self._starter.hub)
            return self._gate.execute(context, started.ref, started.evaluation, self._starter.hub)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume the task with the trigger's event."""
        from airflow_provider_oxen.wait import Outcome

        ref = Outcome.from_event(event, otherwise=self._find_waited_for(context)).ref
        self.is_recorded = self._starter.complete_record(context, ref)
        return self._gate.resume(context, ref, event)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume a deferred task. The gate concludes what a trigger reports, and how Airflow itself ends a trigger."""
        with self.stop_at_execution_timeout():
            try:
                return super().resume_execution(next_method, next_kwargs, context)
            except AirflowException as error:
                if version_compat.deferral_error(error) is None:
                    raise
                ref = self._find_waited_for(context)
                self.is_recorded = self._starter.complete_record(context, ref)
                return self._gate.resume_without_event(context, ref, error)

    def on_kill(self) -> None:
        """Say in the task's log that the evaluation keeps running. Airflow calls this when the task is stopped."""
        line = self._starter.stop(is_recorded=self.is_recorded)
        if line is not None and not self._has_ended:
            self.log.warning("%s", line)

    @property
    def may_be_retried(self) -> bool:
        """Whether a later attempt can wait for the evaluation, or may start one; else it could only refuse."""
        return self.is_recorded or not self.durable or self.on_unknown_start == "start_again"

    @property
    def _starter(self) -> Starter:
        if self._made_starter is None:
            from airflow_provider_oxen.start import Starter
            from airflow_provider_oxen.start_decision import StartPolicy

            policy = StartPolicy(self.durable, self.on_unknown_start, self.on_clear)
            self._made_starter = Starter(self, policy, retries=self.retries or 0)
        return self._made_starter

    def _build_request(self, context: Context) -> StartRequest:
        ti = context["ti"]
        index = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
        named = f"{ti.dag_id}.{ti.task_id}{index} {ti.run_id} try {ti.try_number}"
        return start_request.build_request(vars(self), default_name=named)

    def _find_waited_for(self, context: Context) -> EvaluationRef:
        """Find the evaluation of a task that is resumed: its templates do not name it."""
        from airflow_provider_oxen.evaluations import EvaluationRef

        ti = context["ti"]
        # With the map index: without it, Airflow may give the value of another one.
        pushed = ti.xcom_pull(task_ids=self.task_id, key="evaluation_id", map_indexes=ti.map_index)
        return self._starter.find(context, EvaluationRef(self.namespace, self.repo_name, pushed or ""))

    def check_settings(self) -> None:
        """Refuse what can never work, also of the settings that only this task has."""
        super().check_settings()
        start_request.check_settings(vars(self))

    def _check_rendered(self) -> None:
        """Refuse what is wrong, before it costs anything. It will be no better at the next attempt."""
        try:
            self.check_settings()
            vars(self).update(
                start_request.check_literals({name: getattr(self, name) for name in self.template_fields})
            )
            start_request.check_fields(vars(self), are_rendered=True)
        except ValueError as error:
            raise AirflowFailException(f"Nothing was started: {error}") from None

    def _check(self) -> None:
        """Refuse what can be known to be wrong now."""
        self.check_settings()
        # A mapped task is made again on its worker, with rendered values: those are checked when it runs.
        if version_compat.is_made_from_mapped(self):
            return
        start_request.check_fields(vars(self))
        for warning in start_request.find_unknown_types(self._check_known(vars(self))):
            self._warn(warning)

    @classmethod
    def _check_partial(cls, kwargs: Mapping[str, Any]) -> None:
        super()._check_partial(kwargs)
        # What each of the tasks needs is given here, too: what they are expanded over is not known yet.
        defaults = (getattr(kwargs.get(place), "default_args", None) or {} for place in ("dag", "task_group"))
        with naming_task({**kwargs, "task_group": None}):
            given = {name: value for arguments in (*defaults, kwargs) for name, value in arguments.items()}
            start_request.check_settings(given)
            start_request.check_fields(given)
            check_start_is_judged(given)

    @classmethod
    def _check_known(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: arguments[name] for name in cls.template_fields if name in arguments}
        return start_request.check_literals({name: value for name, value in given.items() if is_known(value)})

    def _plan_end(self) -> None:
        """Decide whether the task may end in the triggerer, and warn if it may not."""
        from airflow_provider_oxen import start_end

        plan = start_end.plan(self, None, deferrable=self.deferrable, start_from_trigger=False, end_from_trigger=True)
        self.end_from_trigger = plan.ends
        if plan.warning:
            self._warn(plan.warning)

    def _warn(self, message: str, stacklevel: int = 4) -> None:
        # Above this function, the check and __init__ is the DAG file. Airflow itself adds the wrappers it puts around
        # __init__, by replacing ``warnings`` in this module.
        warnings.warn(f"{self._place}: {message}", UserWarning, stacklevel=stacklevel)
