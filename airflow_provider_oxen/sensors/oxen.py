"""
The sensor: a gate that opens when an evaluation has completed.

Imports are few and late here: this module is imported whenever a DAG file that uses it is parsed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_oxen import workerless
from airflow_provider_oxen.links.oxen import LINKS, read_addresses
from airflow_provider_oxen.parameters import check_path_parameter, read_seconds

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context
    from airflow.triggers.base import StartTriggerArgs

    from airflow_provider_oxen.accept import Condition
    from airflow_provider_oxen.hooks.oxen import OxenClient
    from airflow_provider_oxen.models import Evaluation, EvaluationRef
    from airflow_provider_oxen.wait import Outcome, Step, Wait

__all__ = ["OxenEvaluationSensor"]

#: What can neither be a text nor become one, as the output of a task does.
_NO_TEXT = (bool, bytes, dict, float, int, list, set, tuple)
_DURATIONS = ("poke_interval", "max_wait", "retry_window", "timeout")


class OxenEvaluationSensor(BaseSensorOperator):
    """
    Wait until an evaluation on Oxen.ai has ended, and succeed only where it completed.

    The outcome is the same whichever way the sensor waits:

    - *completed*: the task succeeds and returns the evaluation;
    - *errored* or *cancelled*, *completed* but refused by ``accept``, a deadline that passed, a hub that refuses to
      answer (wrong key, no such evaluation) or a setting that cannot be used: the task fails at once, without using its
      ``retries``, with an ``AirflowFailException`` (``AirflowSensorTimeout`` for the deadline). With ``soft_fail`` it
      is skipped;
    - a hub that is out of reach for longer than ``retry_window``: the task fails and may be retried, with an
      ``AirflowException``.

    With ``never_fail``, it is skipped instead of any of these failures.

    An outlet whose URI begins with ``oxen://`` (see :mod:`airflow_provider_oxen.assets`) gets an event when the gate
    opens, which tells of the evaluation. Airflow's OpenLineage provider, where installed, is told of the data that goes
    in and comes out (see :mod:`airflow_provider_oxen.lineage`). The task's page links to both, on the public hub.

    :param namespace: user or organization that owns the repository. (templated)
    :param repo_name: the repository. (templated)
    :param evaluation_id: the evaluation to wait for. (templated)
    :param oxen_conn_id: Airflow connection to use. (templated)
    :param deferrable: wait in the triggerer, without holding a worker (the default). Otherwise the sensor waits on a
        worker, as ``mode`` says: ``poke`` or ``reschedule``.
    :param poke_interval: shortest time between two looks, in seconds or as ``timedelta``; above 0.
    :param max_wait: longest time between two looks, in seconds or as ``timedelta``. Far from the end, looks are this
        far apart; near it, ``poke_interval``. None, or less than ``poke_interval``: always ``poke_interval``.
    :param timeout: longest time to wait, from the start of this attempt on, in seconds or as ``timedelta``. Default:
        ``[sensors] default_timeout`` of the Airflow configuration. Where ``execution_timeout`` is earlier, that counts.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds or as ``timedelta``.
        With ``silent_fail``, until the timeout.
    :param accept: asks for more than a completed evaluation: a callable that gets the
        :class:`~airflow_provider_oxen.models.Evaluation` (without its prompt) and returns True, or False or a text that
        says why not, which closes the gate for good. Several in a list are asked in order. Ready-made ones are in
        :mod:`airflow_provider_oxen.accept`. It is called on a worker. Where it raises, or returns something else, the
        task fails and may be retried, whatever ``soft_fail`` says; an ``AirflowFailException`` or an
        ``AirflowSkipException`` of its own counts as it is. None (the default): every completed evaluation will do.
    :param start_from_trigger: begin the wait in the triggerer, so that no worker process starts for it. From Airflow
        3.3 on, for a task that is not mapped; ids may be the output of a task, or Jinja over ``dag_run``, ``params``
        and ``ti.xcom_pull``. Elsewhere a worker begins the wait, and a warning says why. Airflow asks no pool before it
        begins a task in the triggerer.
    :param end_from_trigger: end the task in the triggerer when the evaluation has completed, with the same XComs, so
        that no worker process starts for it. From Airflow 3.3 on. A task with outlets or an ``on_success_callback``
        ends on a worker, as does any where a listener is installed (OpenLineage, say), and a warning says why. Where
        the evaluation did not complete, the task always ends on a worker.
    :return: the evaluation as a JSON-safe dict, with the contract's field names and without the prompt; see
        :meth:`airflow_provider_oxen.models.Evaluation.to_dict`. It is also pushed to XCom key ``evaluation``, there
        for a failed gate too, so that callbacks and downstream tasks can read what was last seen.
    """

    template_fields: Sequence[str] = ("namespace", "repo_name", "evaluation_id", "oxen_conn_id")
    operator_extra_links = LINKS
    #: Address of each link, by its XCom key; None before the evaluation was seen.
    link_addresses: dict[str, str] | None = None
    ui_color = "#e7dfc6"
    # Set for each gate that is not mapped. On the class there is none, so that a mapped gate begins on a worker:
    # Airflow would make the triggers of all its instances from the same arguments.
    start_trigger_args: StartTriggerArgs | None = None
    start_from_trigger: bool = False
    end_from_trigger: bool = False

    def __init__(
        self,
        *,
        namespace: str,
        repo_name: str,
        evaluation_id: str,
        oxen_conn_id: str = "oxen_default",
        deferrable: bool = True,
        poke_interval: timedelta | float = 10,
        max_wait: timedelta | float | None = 60,
        retry_window: timedelta | float = 600,
        accept: Condition | Sequence[Condition] | None = None,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_durations(
            poke_interval=poke_interval, max_wait=max_wait, retry_window=retry_window, timeout=kwargs.get("timeout")
        )
        super().__init__(poke_interval=poke_interval, max_wait=max_wait, **kwargs)
        self.namespace = namespace
        self.repo_name = repo_name
        self.evaluation_id = evaluation_id
        self.oxen_conn_id = oxen_conn_id
        self.deferrable = deferrable
        self.retry_window = read_seconds("retry_window", retry_window)
        self.accept = accept
        self._links_pushed: dict[str, str] = {}
        self._outcome: Outcome | None = None
        if accept is not None:
            _check_accept(accept, end_from_trigger=end_from_trigger)
        # A mapped task is made anew on its worker, with rendered values: those are execute()'s to judge.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self._check_literals()
        # Airflow 2 counts the time of a deferred task, and ends it on its worker before that can say what was seen.
        # The deadline below includes execution_timeout on every Airflow; delete this with Airflow 2.
        self._execution_limit = self.execution_timeout
        if deferrable and not AIRFLOW_V_3_0_PLUS:
            self.execution_timeout = None
        if self.deferrable and self.reschedule:
            _warn(
                "mode='reschedule' says how to wait on a worker and has no effect while deferrable=True; "
                "pass deferrable=False to use it"
            )
        if self.exponential_backoff:
            _warn(
                "exponential_backoff has no effect: the time between two looks follows the evaluation's progress, "
                "from poke_interval to max_wait"
            )
        if start_from_trigger or end_from_trigger:
            self.start_trigger_args, self.end_from_trigger, warning = workerless.plan(
                self, start_from_trigger=start_from_trigger, end_from_trigger=end_from_trigger
            )
            self.start_from_trigger = self.start_trigger_args is not None
            if warning is not None:
                _warn(warning)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """As Airflow's own; what can never work is refused here, when the DAG is parsed, and not on the workers."""
        if kwargs.get("accept") is not None:
            _check_accept(kwargs["accept"], end_from_trigger=bool(kwargs.get("end_from_trigger")))
        _check_durations(**{name: kwargs[name] for name in _DURATIONS if name in kwargs})
        return super().partial(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Look once; then wait, if there is something to wait for, in the way that was chosen."""
        from airflow.providers.common.compat.sdk import AirflowTaskTimeout

        from airflow_provider_oxen.hooks.oxen import OxenHook
        from airflow_provider_oxen.version_compat import reschedule_exception
        from airflow_provider_oxen.wait import Outcome, OutcomeReason

        if self.start_from_trigger:
            self.log.warning("start_from_trigger has no effect here: Airflow begins a mapped task on a worker.")
        wait = self._begin(context)
        try:
            with OxenHook(self.oxen_conn_id).get_conn() as client:
                while True:
                    wait, step = self._look(client, wait)
                    if isinstance(step, Outcome):
                        break
                    reschedules = self.reschedule and wait.failing_since is None
                    self._push_links(context, process_goes_on=not (self.deferrable or reschedules))
                    if self.deferrable:
                        self._defer(wait)
                    if reschedules:
                        raise reschedule_exception(datetime.now(tz=timezone.utc) + timedelta(seconds=step.seconds))
                    # While the hub is out of reach, a look is repeated here even when rescheduling: for how long it
                    # has been is known to this process alone.
                    time.sleep(step.seconds)
        except AirflowTaskTimeout:  # Airflow's timer of execution_timeout, a moment before our deadline
            step = Outcome(OutcomeReason.TIMEOUT, evaluation=wait.evaluation, deadline=wait.deadline)
        return self._conclude(context, step)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once, without waiting: done with the evaluation, not done, or the failure a wait would end in."""
        from airflow_provider_oxen.hooks.oxen import OxenHook
        from airflow_provider_oxen.wait import Outcome

        with OxenHook(self.oxen_conn_id).get_conn() as client:
            _, step = self._look(client, self._begin(context))
        if not isinstance(step, Outcome):
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, step))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take up the task where the trigger ended it."""
        from airflow_provider_oxen.wait import Outcome

        return self._conclude(context, Outcome.from_event(event, evaluation_id=str(self.evaluation_id)))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """
        Take up a deferred task.

        The base class's way of turning failures into skips differs between Airflow versions, so it is passed over:
        what a trigger reports is concluded by :meth:`execute_complete`, and how Airflow itself ends a trigger here.
        """
        from airflow.providers.common.compat.sdk import AirflowException

        from airflow_provider_oxen.version_compat import is_trigger_timeout
        from airflow_provider_oxen.wait import Outcome, OutcomeReason

        if self.start_from_trigger:
            workerless.forget_earlier_attempt(context)
        try:
            return super(BaseSensorOperator, self).resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            if type(error).__name__ not in ("TaskDeferralError", "TaskDeferralTimeout"):
                raise
            reason = OutcomeReason.TIMEOUT if is_trigger_timeout(error) else OutcomeReason.LOST
            return self._conclude(context, Outcome(reason, error=f"Airflow ended the trigger ({error})"))

    def get_openlineage_facets_on_complete(
        self,
        task_instance: Any,  # noqa: ARG002  # OpenLineage's signature
    ) -> OperatorLineage[Any, Any] | None:
        """
        Tell OpenLineage about the evaluation. Airflow's OpenLineage provider calls this when the task has ended.

        :param task_instance: is not needed: the sensor has just concluded its wait in the same process.
        :return: see :func:`airflow_provider_oxen.lineage.describe_run`; None where there was no wait.
        """
        if self._outcome is None:
            return None
        from airflow_provider_oxen.lineage import describe_run

        return describe_run(self._ref, self._outcome)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Tell OpenLineage why the gate stayed shut. As :meth:`get_openlineage_facets_on_complete`."""
        return self.get_openlineage_facets_on_complete(task_instance)

    def _check_literals(self) -> None:
        for name in ("namespace", "repo_name", "evaluation_id"):
            value = getattr(self, name)
            literal = not workerless.is_template(value) if isinstance(value, str) else isinstance(value, _NO_TEXT)
            if literal or value is None:
                check_path_parameter(name, value)
        if self.oxen_conn_id in (None, ""):
            raise ValueError("oxen_conn_id is empty: name the Airflow connection to use, such as 'oxen_default'")

    @property
    def _ref(self) -> EvaluationRef:
        from airflow_provider_oxen.models import EvaluationRef

        return EvaluationRef(self.namespace, self.repo_name, self.evaluation_id)

    def _begin(self, context: Context) -> Wait:
        from airflow_provider_oxen.version_compat import attempt_began_at
        from airflow_provider_oxen.wait import Wait

        began = attempt_began_at(context) if self.reschedule and not self.deferrable else None
        began_at = time.time() if began is None else began.timestamp()
        limit = self.timeout
        if self._execution_limit is not None:
            limit = min(limit, self._execution_limit.total_seconds())
        max_wait = 0.0 if self.max_wait is None else self.max_wait.total_seconds()
        return Wait(
            evaluation_id=self.evaluation_id,
            poke_interval=self.poke_interval,
            max_wait=max(max_wait, self.poke_interval),
            deadline=began_at + limit,
            retry_window=None if self.silent_fail else self.retry_window,
        )

    def _look(self, client: OxenClient, wait: Wait) -> tuple[Wait, Step]:
        import random
        from dataclasses import replace

        from airflow_provider_oxen import report
        from airflow_provider_oxen.exceptions import OxenError
        from airflow_provider_oxen.wait import Outcome

        seen: Evaluation | OxenError
        try:
            seen = client.get_evaluation(self._ref)
        except OxenError as error:
            seen = error
        after, step = wait.look(seen, now=time.time(), jitter=random.random())
        self._learn_links(after.evaluation, client.hub)
        if isinstance(step, Outcome):
            return after, replace(step, hub=client.hub)
        if line := report.describe_step(self._ref, wait, after, step, seen):
            self.log.log(*line)
        return after, step

    def _learn_links(self, evaluation: Evaluation | None, hub: str | None) -> None:
        if evaluation is not None and hub is not None:
            self.link_addresses = read_addresses(self._ref, evaluation, hub)

    def _push_links(self, context: Context, *, process_goes_on: bool = False) -> None:
        """Show the links now. Airflow 3 does so when the task's process ends, and reads them from no XCom backend."""
        if AIRFLOW_V_3_0_PLUS and (not process_goes_on or workerless.has_xcom_backend()):
            return
        for key, address in (self.link_addresses or {}).items():
            if address != self._links_pushed.get(key, ""):
                context["ti"].xcom_push(key=key, value=address)
                self._links_pushed[key] = address

    def _defer(self, wait: Wait) -> None:
        from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger

        self.log.info("Waiting for %s in the triggerer; this worker is free.", self._ref)
        self.defer(
            trigger=OxenEvaluationTrigger(
                namespace=self.namespace,
                repo_name=self.repo_name,
                evaluation_id=self.evaluation_id,
                oxen_conn_id=self.oxen_conn_id,
                poke_interval=wait.poke_interval,
                max_wait=wait.max_wait,
                deadline=wait.deadline,
                retry_window=wait.retry_window,
                end_from_trigger=self.end_from_trigger and workerless.may_end_here(self, self.log),
                do_xcom_push=self.do_xcom_push,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(wait.deadline - time.time(), 0.0)) + workerless.BACKSTOP,
        )

    def _conclude(self, context: Context, outcome: Outcome) -> dict[str, Any]:
        """Turn an outcome into the state of the task: return, fail, or skip. Nothing else in this package does."""
        from airflow.providers.common.compat.sdk import (
            AirflowException,
            AirflowFailException,
            AirflowSensorTimeout,
            AirflowSkipException,
        )

        from airflow_provider_oxen import report
        from airflow_provider_oxen.wait import OutcomeReason

        self._learn_links(outcome.evaluation, outcome.hub)
        self._push_links(context)
        result = None if outcome.evaluation is None else outcome.evaluation.to_dict()
        if result is not None and self.do_xcom_push:
            context["ti"].xcom_push(key="evaluation", value=result)
        self._outcome = outcome  # should accept end the task itself
        self._outcome = outcome = self._judge(outcome)
        message = report.describe_outcome(self._ref, outcome)
        if result is not None and outcome.evaluation is not None and outcome.reason is OutcomeReason.COMPLETED:
            if self.outlets:
                from airflow_provider_oxen.assets import add_to_events

                add_to_events(self.outlets, context["outlet_events"], outcome.evaluation)
            self.log.info("%s The gate opens.", message)
            return result
        if self.never_fail or (self.soft_fail and outcome.is_final):
            setting = "never_fail" if self.never_fail else "soft_fail"
            raise AirflowSkipException(f"Skipping, as {setting} is set. {message}")
        if outcome.reason is OutcomeReason.TIMEOUT:
            raise AirflowSensorTimeout(message)
        raise (AirflowFailException if outcome.is_final else AirflowException)(message)

    def _judge(self, outcome: Outcome) -> Outcome:
        from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

        from airflow_provider_oxen.accept import read_conditions

        try:
            return outcome.judge(read_conditions(self.accept))
        except (AirflowFailException, AirflowSkipException):
            raise
        except Exception as error:  # the callable may be any code
            self.log.exception("accept failed")
            return outcome.leave_unjudged(error)


def _check_accept(accept: Condition | Sequence[Condition], *, end_from_trigger: bool) -> None:
    from airflow_provider_oxen.accept import read_conditions

    read_conditions(accept)
    if end_from_trigger:
        raise ValueError(
            "accept is called on a worker, so it cannot be combined with end_from_trigger=True: leave one of them out. "
            "start_from_trigger=True may stay: the gate then takes a worker at its end alone"
        )


def _check_durations(**durations: Any) -> None:
    for name, duration in durations.items():
        if duration is None and name in ("max_wait", "timeout"):
            continue
        if read_seconds(name, duration) == 0 and name == "poke_interval":
            raise ValueError("poke_interval must be above 0 seconds")


def _warn(message: str) -> None:
    # Over this function and __init__ is the DAG file. Airflow itself adds the wrappers it puts around __init__, by
    # exchanging ``warnings`` in this module.
    warnings.warn(message, UserWarning, stacklevel=3)
