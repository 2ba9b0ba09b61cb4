"""
How a task waits for an evaluation, and what the end of a wait means for the task.

How this works
--------------
1. A task (the sensor) holds a :class:`Gate` and calls it from the methods that Airflow calls.
2. :meth:`Gate.execute` polls once on the worker. If the evaluation has not ended, it defers to the triggerer,
   reschedules the task, or stays and polls, as the task's settings say.
3. :meth:`Gate.resume` resumes the task with the trigger's event; :meth:`Gate.resume_without_event` does so
   where Airflow itself ended the trigger.
4. Each way ends in an outcome, and :meth:`Gate._conclude` turns it into the state of the task by the table in
   ``reactions``. After a wait, the outcome says which evaluation is meant, and not the task's templates, which Airflow
   renders again. Where there is no event, an XCom says it, which the worker stored before it deferred.

A gate is not a base class of its tasks: sensors and operators have different ones, which also differ between Airflow
versions.

The rule that must not be broken: nothing else in this package raises an Airflow exception about the end of a wait.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_oxen import start_end, version_compat, xcoms
from airflow_provider_oxen.airflow_names import (
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_provider_oxen.calls import build_get_evaluation
from airflow_provider_oxen.conditions import needs_rows, parse_conditions
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import OxenError
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.judgement import judge
from airflow_provider_oxen.links.oxen import LINKS, build_addresses
from airflow_provider_oxen.messages import describe_deferral, describe_outcome, describe_step
from airflow_provider_oxen.parameters import TriggerArguments, parse_optional_seconds, parse_seconds
from airflow_provider_oxen.reactions import REACTIONS, OxenWaitLostError
from airflow_provider_oxen.recording import worker_recorder
from airflow_provider_oxen.start_messages import describe_left_running
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from airflow_provider_oxen.wait import Interruption, Outcome, OutcomeReason, Step, Wait
from airflow_provider_oxen.wait_store import WaitStore, open_wait_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oxen.clients import OxenClient
    from airflow_provider_oxen.gate_protocol import GateTask
    from airflow_provider_oxen.outcomes import JudgedResults

__all__ = ["Gate"]


class Gate:
    """
    Makes a task wait, and lets it succeed only if the evaluation completed.

    :param task: the task that waits.
    """

    def __init__(self, task: GateTask) -> None:
        self._task = task
        self._epoch = time.time() - time.monotonic()
        self._links_stored: dict[str, str] = {}
        #: Whether the task goes on after a deferral: what it waited for is then in an XCom.
        self._is_resumed = False
        #: Address of each link, by its XCom key; None before the evaluation was seen.
        self.link_addresses: dict[str, str] | None = None
        #: What the task waits for; None before that is known.
        self.ref: EvaluationRef | None = None
        #: How the wait ended; None before it has.
        self.outcome: Outcome | None = None

    def execute(
        self, context: Context, ref: EvaluationRef, seen: Evaluation | None = None, hub: str | None = None
    ) -> dict[str, Any]:
        """
        Poll once; then wait, if there is something to wait for, in the way that the task's settings say.

        :param seen: the evaluation, where the task has just started it: no first poll is needed.
        :param hub: address of the hub that it came from.
        :return: the completed evaluation, as :meth:`Evaluation.to_dict`.
        :raises Exception: by :data:`REACTIONS`; or the one with which a task defers or is rescheduled.
        """
        wait = self._begin(context, ref)
        store = open_wait_store(context) if self._task.waits_by_rescheduling else None
        if store is not None:
            wait = store.read(wait, self._task.log, now=self._now())
        try:
            with OxenHook(self._task.oxen_conn_id).get_conn() as client:
                while True:
                    if seen is None:
                        wait, step = self._poll(client, wait)
                    else:
                        (wait, step), seen = self._advance(wait, seen, hub), None
                    if isinstance(step, Outcome):
                        break
                    reschedules = self._task.waits_by_rescheduling and self._next_process_can_go_on(
                        wait, step.seconds, store
                    )
                    self._store_links(context, process_goes_on=not (self._task.deferrable or reschedules))
                    if self._task.deferrable:
                        self._defer(context, wait)
                    if reschedules:
                        # Without a store, the next process does not know of failures, and could not back off from them.
                        seconds = step.seconds if store is not None or not wait.failures else wait.max_wait
                        until = datetime.now(tz=timezone.utc) + timedelta(seconds=max(seconds, step.seconds))
                        raise version_compat.reschedule_exception(until)
                    time.sleep(step.seconds)
        except AirflowTaskTimeout:  # Airflow's timer of execution_timeout, a moment before our deadline
            rescheduling = self._task.waits_by_rescheduling
            how = Interruption.PROCESS_TIMEOUT if rescheduling else Interruption.EXECUTION_TIMEOUT
            step = wait.interrupted(how, now=self._now())
        return self._conclude(context, step)

    def poke(self, context: Context, ref: EvaluationRef) -> dict[str, Any] | None:
        """Poll once, without waiting. Return the completed evaluation, None while it has not ended, or raise."""
        with OxenHook(self._task.oxen_conn_id).get_conn() as client:
            _, step = self._poll(client, self._begin(context, ref))
        return self._conclude(context, step) if isinstance(step, Outcome) else None

    def report(self, context: Context, ref: EvaluationRef, seen: Evaluation, hub: str | None) -> dict[str, Any]:
        """Return the evaluation as it stands, without waiting."""
        self._learn_links(ref, seen, hub)
        self._store_links(context)
        self._add_to_asset_events(context, seen)
        return seen.to_dict()

    def resume(self, context: Context, ref: EvaluationRef, event: object) -> dict[str, Any]:
        """
        Resume the task with the trigger's event.

        :param ref: what the task's templates give now; only where the event names no evaluation.
        """
        self._is_resumed = True
        return self._conclude(context, Outcome.from_event(event, otherwise=ref))

    def resume_without_event(self, context: Context, ref: EvaluationRef, error: Exception) -> dict[str, Any]:
        """
        Resume the task where Airflow itself ended its trigger.

        :param ref: what the task has started, or what its templates give now. The latter counts only where no triggerer
            has begun the wait, which is where the templates are rendered for the first time.
        :param error: what Airflow says about it. Raised again where it is about something else.
        """
        kind = version_compat.deferral_error(error)
        if kind is None:
            raise error
        self._is_resumed = True
        waited_for = xcoms.find_waited_for(context) or xcoms.WaitedFor(ref, self._task.oxen_conn_id)
        wait = self._begin(context, waited_for.ref)._replace(evaluation=waited_for.evaluation)
        # No triggerer reported anything, so what the evaluation has come to is not known: one poll finds out.
        with OxenHook(waited_for.oxen_conn_id).get_conn() as client:
            wait, step = self._poll(client, wait._replace(deadline=self._now(), exists=True))
        outcome = cast("Outcome", step)  # at the deadline, each poll ends a wait
        if outcome.reason is OutcomeReason.TIMEOUT:
            how, detail = Interruption.TRIGGER_TIMEOUT, outcome.error
            if kind == "failure":
                failed = f"; last failure: {detail}" if detail else ""
                how, detail = Interruption.TRIGGER_FAILURE, f"{error}{failed}"
            outcome = replace(wait.interrupted(how, now=self._now(), detail=detail), hub=outcome.hub)
        return self._conclude(context, outcome)

    def _begin(self, context: Context, ref: EvaluationRef) -> Wait:
        task = self._task
        began = version_compat.attempt_began_at(context) if task.waits_by_rescheduling else None
        try:
            task.check_settings()
        except ValueError as error:
            raise AirflowFailException(f"Cannot wait: {error}") from None
        # A cluster policy may have set the durations since the task was made, to a number or to a timedelta.
        limit = parse_seconds("timeout", task.timeout)
        if task.execution_limit is not None and not task.waits_by_rescheduling:
            limit = min(limit, task.execution_limit.total_seconds())
        poke_interval = parse_seconds("poke_interval", task.poke_interval)
        max_wait = parse_optional_seconds("max_wait", task.max_wait) or 0.0
        return Wait(
            ref=ref,
            poke_interval=poke_interval,
            max_wait=max(max_wait, poke_interval),
            deadline=(self._now() if began is None else began.timestamp()) + limit,
            retry_window=parse_optional_seconds("retry_window", task.retry_window),
            missing_connection_is_outage=began is not None,  # an earlier process of the task has found it
            exists=task.started_here,
            assumes_pace=task.waits_by_rescheduling,
        )

    def _now(self) -> float:
        """Return the time by a steady clock, which was set by the wall clock when the gate was made."""
        return self._epoch + time.monotonic()

    def _next_process_can_go_on(self, wait: Wait, seconds: float, store: WaitStore | None) -> bool:
        """Say whether this process may end now, and the next poll after ``seconds``, without losing what matters."""
        now = self._now()
        if store is not None and store.write(wait, self._task.log, now=now, next_poll_at=now + seconds):
            return True
        # Only this process knows for how long the hub has been out of reach.
        outage_counts = wait.failing_since is not None and wait.retry_window is not None
        return not outage_counts and wait.not_found_since is None

    def _poll(self, client: OxenClient, wait: Wait) -> tuple[Wait, Step]:
        result: Evaluation | OxenError
        try:
            result = client.ask(build_get_evaluation(wait.ref))
        except OxenError as error:
            result = error
        return self._advance(wait, result, client.hub)

    def _advance(self, wait: Wait, result: Evaluation | OxenError, hub: str | None) -> tuple[Wait, Step]:
        after, step = wait.advance(result, now=self._now(), jitter=random.random())
        self._learn_links(wait.ref, after.evaluation, hub)
        if isinstance(step, Outcome):
            return after, replace(step, hub=hub)
        if line := describe_step(wait, after, step, result):
            self._task.log.log(*line)
        return after, step

    def _defer(self, context: Context, wait: Wait) -> None:
        task = self._task
        waited_for = xcoms.WaitedFor(wait.ref, task.oxen_conn_id, wait.evaluation, wait.seen_at)
        xcoms.store_waited_for(context, waited_for)
        arguments = TriggerArguments(
            namespace=wait.ref.namespace,
            repo_name=wait.ref.repo_name,
            evaluation_id=wait.ref.evaluation_id,
            oxen_conn_id=task.oxen_conn_id,
            poke_interval=wait.poke_interval,
            max_wait=wait.max_wait,
            deadline=wait.deadline,
            retry_window=wait.retry_window,
            end_from_trigger=task.end_from_trigger and start_end.may_end_in_triggerer(task, task.log),  # type: ignore[arg-type]  # a task is an operator
            do_xcom_push=task.do_xcom_push,
            started_here=task.started_here,
            is_recorded=task.is_recorded,
            last_seen=None if wait.evaluation is None else wait.evaluation.to_dict(),
            seen_at=wait.seen_at,
        )
        task.log.info("%s", describe_deferral(wait))
        task.defer(
            trigger=OxenEvaluationTrigger(**arguments.to_dict()),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(wait.deadline - self._now(), 0.0)) + start_end.BACKSTOP,
        )

    def _conclude(self, context: Context, outcome: Outcome) -> dict[str, Any]:
        """Turn an outcome into the state of the task: return, fail or skip."""
        task = self._task
        self._learn_links(outcome.ref, outcome.evaluation, outcome.hub)
        self._store_links(context)
        result = None if outcome.evaluation is None else outcome.evaluation.to_dict()
        if result is not None and task.do_xcom_push:
            context["ti"].xcom_push(key="evaluation", value=result)
        self.outcome = outcome
        try:
            self.outcome = outcome = self._judge(context, outcome)
        finally:  # a condition may end the task itself, by raising
            worker_recorder(task.oxen_conn_id).ended(self.outcome)
        if outcome.results is not None and task.do_xcom_push:
            context["ti"].xcom_push(key=xcoms.RESULTS_KEY, value=outcome.results.to_dict())
        message = describe_outcome(outcome)
        reaction = REACTIONS[outcome.reason]
        if reaction.exception is None and result is not None and outcome.evaluation is not None:
            self._add_to_asset_events(context, outcome.evaluation, outcome.results)
            task.log.info("The gate opens. %s", message)
            return result
        if task.started_here and (outcome.evaluation is None or not outcome.evaluation.is_terminal):
            certain = outcome.reason is OutcomeReason.TIMEOUT and outcome.evaluation is not None
            left = describe_left_running(outcome.ref, outcome.hub, is_certain=certain, is_recorded=task.is_recorded)
            task.log.warning("%s", left)
        if task.never_fail or (task.soft_fail and reaction.soft_fail_skips):
            setting = "never_fail" if task.never_fail else "soft_fail"
            raise AirflowSkipException(f"Skipped by {setting}. {message}")
        if reaction.may_be_retried and not task.may_be_retried:  # or a refusal would hide the reason
            raise AirflowFailException(message)
        raise (reaction.exception or OxenWaitLostError)(message)

    def _add_to_asset_events(
        self, context: Context, evaluation: Evaluation, results: JudgedResults | None = None
    ) -> None:
        if self._task.outlets:
            from airflow_provider_oxen.assets import add_to_events

            add_to_events(self._task.outlets, context["outlet_events"], evaluation, results)

    def _judge(self, context: Context, outcome: Outcome) -> Outcome:
        """Check the conditions on a completed evaluation, with the connection that it was polled with."""
        conditions = parse_conditions(self._task.conditions)
        waited_for = xcoms.find_waited_for(context) if self._is_resumed and needs_rows(conditions) else None
        return judge(
            outcome,
            conditions,
            oxen_conn_id=self._task.oxen_conn_id if waited_for is None else waited_for.oxen_conn_id,
            retry_window=self._task.retry_window,
            log=self._task.log,
        )

    def _learn_links(self, ref: EvaluationRef, evaluation: Evaluation | None, hub: str | None) -> None:
        self.ref = ref
        if evaluation is not None and hub is not None:
            self.link_addresses = found = build_addresses(ref, evaluation, hub)
            # Airflow 3 stores each of them when the process ends, an empty one as well.
            self._task.operator_extra_links = [link for link in LINKS if found[link.xcom_key]]

    def _store_links(self, context: Context, *, process_goes_on: bool = False) -> None:
        self._links_stored = xcoms.store_links(
            context, self.link_addresses or {}, self._links_stored, process_goes_on=process_goes_on
        )
