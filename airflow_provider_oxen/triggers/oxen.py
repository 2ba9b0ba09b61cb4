"""The trigger: it polls, logs and sleeps on the triggerer's event loop. What a poll means is decided in ``wait``."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_oxen import start_end, triggerer_compat, values, xcoms
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.links.oxen import build_addresses
from airflow_provider_oxen.messages import describe_outcome, describe_step
from airflow_provider_oxen.outcomes import find_evaluation
from airflow_provider_oxen.parameters import TriggerArguments, as_text, parse_optional_seconds, parse_seconds
from airflow_provider_oxen.start_messages import describe_killed
from airflow_provider_oxen.wait import Outcome, OutcomeReason, Step, Wait
from airflow_provider_oxen.wait_memory import resume

if TYPE_CHECKING:
    import jinja2
    from airflow.sdk import DAG
    from airflow.sdk.types import Logger

    from airflow_provider_oxen.evaluations import Evaluation
    from airflow_provider_oxen.exceptions import OxenError

__all__ = ["OxenEvaluationTrigger"]

#: Where nothing else is given: Airflow's own default for a sensor's timeout.
_DEFAULT_TIMEOUT_SECONDS = 7 * 24 * 3600.0


class OxenEvaluationTrigger(BaseTrigger):
    """
    Wait until an evaluation ends, then yield one event that says how.

    The arguments are stored in Airflow's database while a task waits; see
    :class:`~airflow_provider_oxen.parameters.TriggerArguments`. They hold the connection's id and never its key.

    The event is that of :meth:`airflow_provider_oxen.wait.Outcome.to_event`: ``outcome`` is one of
    :class:`~airflow_provider_oxen.outcomes.OutcomeReason`. With ``end_from_trigger``, the event of a completed
    evaluation ends the task instead.

    :param namespace: user or organization that owns the repository.
    :param repo_name: the repository.
    :param evaluation_id: the evaluation.
    :param oxen_conn_id: id of the Airflow connection.
    :param poke_interval: shortest time between two polls, in seconds or as ``timedelta``, as all durations here; above
        0.
    :param max_wait: longest time between two polls, in seconds; None: ``poke_interval``.
    :param deadline: when to give up, in seconds since the epoch; None: ``timeout`` counts.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds; None: until the
        deadline.
    :param timeout: where there is no ``deadline``, how long to wait, in seconds, from the start of the task's attempt
        on, whichever triggerer it began in; None: seven days from now.
    :param end_from_trigger: end the task in the triggerer when the evaluation has completed.
    :param do_xcom_push: with ``end_from_trigger``, give the task the XComs that the sensor pushes.
    :param started_here: whether the task itself started the evaluation, which matters where the task is stopped, and
        where the hub does not know the evaluation yet.
    :param is_recorded: whether a later attempt of the task can wait for it.
    :param last_seen: the evaluation as the worker saw it before it deferred, without its prompt; None where it did not.
    :param seen_at: when it did, in seconds since the epoch; None where it did not.
    """

    def __init__(
        self,
        *,
        namespace: str,
        repo_name: str,
        evaluation_id: str,
        oxen_conn_id: str = OxenHook.default_conn_name,
        poke_interval: timedelta | float = 10.0,
        max_wait: timedelta | float | None = 60.0,
        deadline: float | None = None,
        retry_window: timedelta | float | None = 600.0,
        timeout: timedelta | float | None = None,
        end_from_trigger: bool = False,
        do_xcom_push: bool = True,
        started_here: bool = False,
        is_recorded: bool = False,
        last_seen: Mapping[str, Any] | None = None,
        seen_at: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.namespace: str = as_text(namespace)
        self.repo_name: str = as_text(repo_name)
        self.evaluation_id: str = as_text(evaluation_id)
        self.oxen_conn_id = oxen_conn_id
        self.poke_interval = parse_seconds("poke_interval", poke_interval)
        if self.poke_interval == 0:
            raise ValueError("poke_interval must be above 0 seconds")
        self.max_wait = parse_optional_seconds("max_wait", max_wait)
        if deadline is None and timeout is None:
            deadline = time.time() + _DEFAULT_TIMEOUT_SECONDS
        self.deadline = deadline
        self.retry_window = parse_optional_seconds("retry_window", retry_window)
        self.timeout = parse_optional_seconds("timeout", timeout)
        self.end_from_trigger = end_from_trigger
        self.do_xcom_push = do_xcom_push
        self.started_here = started_here
        self.is_recorded = is_recorded
        self.seen_at = seen_at
        self._last_seen = find_evaluation(last_seen)
        self._hub: str | None = None
        self._has_ended = False

    @property
    def log(self) -> Logger:
        """The logger of all triggers of this class: one for each of thousands would take a seventh of their memory."""
        return self.logger()

    @property
    def last_seen(self) -> dict[str, Any] | None:
        """The evaluation as the worker saw it before it deferred, without what the hub did not give."""
        if self._last_seen is None:
            return None
        return {name: value for name, value in self._last_seen.to_dict().items() if value is not None}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, all plain JSON."""
        return (
            "airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger",
            {argument.name: getattr(self, argument.name) for argument in fields(TriggerArguments)},
        )

    def get_template_env(self, dag: DAG | None = None) -> jinja2.Environment:
        """Return what renders the templates: as on a worker, a variable that is missing is an error."""
        return triggerer_compat.refuse_missing_variables(super().get_template_env(dag))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the wait is over."""
        wait, seen_at = await self._recall(self._begin())
        # Wall clock at the start, steady from then on: a change of the machine's clock moves no deadline.
        epoch = time.time() - time.monotonic()
        links: dict[str, str] = {}
        max_age = self.poke_interval / 2
        client = OxenHook(self.oxen_conn_id).get_async_conn()
        try:  # async with would keep one more object a wait
            wait, seconds = resume(wait, seen_at, now=time.time(), jitter=random.random())
            first_poll_at = time.monotonic() + seconds  # to look a connection up takes time
            if seconds > 0 and not await client.join(wait.ref):
                self._hub = client.hub
                await client.sleep(first_poll_at - time.monotonic())
            while True:
                result, at = await client.poll(wait.ref, max_age=max_age)
                before = wait
                wait, step = wait.advance(result, now=epoch + at, jitter=random.random())
                news = before.evaluation is None or isinstance(step, Outcome)
                if self.deadline is None and news and wait.evaluation is not None:  # no worker has stored the links
                    addresses = build_addresses(wait.ref, wait.evaluation, client.hub)
                    links = await xcoms.store_links_from_triggerer(self, addresses, links)
                if before.evaluation is None and wait.evaluation is not None and not isinstance(step, Outcome):
                    await self._store_waited_for(wait)  # for a triggerer that takes over
                self._hub = client.hub
                if isinstance(step, Outcome):
                    outcome, recorder = replace(step, hub=client.hub), client.recorder
                    break
                self._log_step(before, wait, step, result)
                # Counted from the result's time, a result of another wait's poll makes none late.
                sleep = client.sleep(at + step.seconds - time.monotonic())
                max_age = step.seconds / 2
                # What is kept during the sleep takes memory, and the garbage collector's time.
                del before, result, step
                await sleep
        finally:
            await client.close()
        self._has_ended = True
        completed = outcome.reason is OutcomeReason.COMPLETED
        (self.log.info if completed else self.log.error)("%s", describe_outcome(outcome))
        if (
            completed
            and outcome.evaluation is not None
            and self.end_from_trigger
            and await xcoms.store_result(self, outcome.evaluation, do_xcom_push=self.do_xcom_push)
        ):
            recorder.ended(outcome)  # no worker decides the task's end
            yield TaskSuccessEvent()
        else:
            yield TriggerEvent(outcome.to_event())  # type: ignore[no-untyped-call]  # Airflow's

    async def on_kill(self) -> None:
        """
        Say in the task's log that the evaluation keeps running.

        Airflow 3.3 calls this when a person marks or clears the deferred task, but also when the trigger only moves to
        another triggerer; then nothing is said. Nothing is cancelled here: the vendor documents no call for it.
        """
        ti = triggerer_compat.task_instance_of(self)
        if ti is None or self._has_ended:
            return
        try:
            if await triggerer_compat.is_still_deferred(ti):
                return
        except Exception as error:  # noqa: BLE001  # without the response, nothing true can be said
            self.log.debug("The state of the task is not known: %r", error)
            return
        ref = EvaluationRef(self.namespace, self.repo_name, self.evaluation_id)
        self.log.warning(
            "%s", describe_killed(ref, self._hub, started_here=self.started_here, is_recorded=self.is_recorded)
        )

    async def _recall(self, wait: Wait) -> tuple[Wait, float | None]:
        """
        Go on with what another triggerer has waited for and seen, where no worker has seen the evaluation.

        :return: the wait, and when the evaluation was seen, in seconds since the epoch.
        """
        if wait.evaluation is not None:
            return wait, values.number(self.seen_at)
        found = await xcoms.find_waited_for_from_triggerer(self)
        if found is None:
            await self._store_waited_for(wait)
            return wait, None
        # Each triggerer renders the templates of a wait that began in one, and they may have changed since.
        self.oxen_conn_id = found.oxen_conn_id
        return wait._replace(ref=found.ref, evaluation=found.evaluation), found.seen_at

    async def _store_waited_for(self, wait: Wait) -> None:
        waited_for = xcoms.WaitedFor(wait.ref, self.oxen_conn_id, wait.evaluation, wait.seen_at)
        await xcoms.store_waited_for_from_triggerer(self, waited_for)

    def _log_step(self, before: Wait, wait: Wait, step: Step, result: Evaluation | OxenError) -> None:
        """
        Log what is new after a poll, if anything.

        Not in :meth:`run`: Airflow's logging looks for its caller, whose frame then takes memory as long as it lives.
        """
        if line := describe_step(before, wait, step, result):
            self.log.log(*line)

    def _begin(self) -> Wait:
        deadline = self.deadline
        return Wait(
            ref=EvaluationRef(self.namespace, self.repo_name, self.evaluation_id),
            poke_interval=self.poke_interval,
            max_wait=max(self.max_wait or 0.0, self.poke_interval),
            deadline=start_end.find_deadline(self, self.timeout or 0.0) if deadline is None else deadline,
            retry_window=self.retry_window,
            missing_connection_is_outage=True,
            exists=self.started_here,
            evaluation=self._last_seen,
        )
