"""The trigger: it asks, logs and sleeps on the triggerer's event loop. What a look means is decided in ``wait``."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_oxen import report, workerless
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.links.oxen import read_addresses
from airflow_provider_oxen.models import EvaluationRef
from airflow_provider_oxen.parameters import read_seconds
from airflow_provider_oxen.wait import Outcome, OutcomeReason, Wait

__all__ = ["OxenEvaluationTrigger"]

#: Where nothing else is said: Airflow's own default for a sensor's timeout.
_DEFAULT_TIMEOUT_SECONDS = 7 * 24 * 3600.0


class OxenEvaluationTrigger(BaseTrigger):
    """
    Wait until an evaluation ends, then yield one event that says how.

    The arguments are stored in Airflow's database while a task waits, so they are a stored format: each one added
    later has a default, and none is ever taken away. They hold the connection's id and never its key.

    The event is that of :meth:`airflow_provider_oxen.wait.Outcome.to_event`: ``outcome`` is ``completed``,
    ``errored``, ``cancelled``, ``timeout``, ``refused`` or ``unreachable``. With ``end_from_trigger``, a completed
    evaluation is told in an event that ends the task instead.

    :param namespace: user or organization that owns the repository.
    :param repo_name: the repository.
    :param evaluation_id: the evaluation.
    :param oxen_conn_id: id of the Airflow connection.
    :param poke_interval: shortest time between two looks, in seconds or as ``timedelta``, as all durations here; above
        0.
    :param max_wait: longest time between two looks, in seconds; None: ``poke_interval``.
    :param deadline: when to give up, in seconds since the epoch; None: ``timeout`` counts.
    :param retry_window: how long the hub may be out of reach before the wait fails, in seconds; None: until the
        deadline.
    :param timeout: where there is no ``deadline``, how long to wait, in seconds, from the start of the task's attempt
        on, whichever triggerer it began in; None: seven days from now.
    :param end_from_trigger: end the task in the triggerer when the evaluation has completed.
    :param do_xcom_push: with ``end_from_trigger``, give the task the XComs that the sensor pushes.
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
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.namespace = namespace
        self.repo_name = repo_name
        self.evaluation_id = evaluation_id
        self.oxen_conn_id = oxen_conn_id
        self.poke_interval = read_seconds("poke_interval", poke_interval)
        if self.poke_interval == 0:
            raise ValueError("poke_interval must be above 0 seconds")
        self.max_wait = None if max_wait is None else read_seconds("max_wait", max_wait)
        if deadline is None and timeout is None:
            deadline = time.time() + _DEFAULT_TIMEOUT_SECONDS
        self.deadline = deadline
        self.retry_window = None if retry_window is None else read_seconds("retry_window", retry_window)
        self.timeout = None if timeout is None else read_seconds("timeout", timeout)
        self.end_from_trigger = end_from_trigger
        self.do_xcom_push = do_xcom_push

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the class path and the arguments, all plain JSON."""
        return (
            "airflow_provider_oxen.triggers.oxen.OxenEvaluationTrigger",
            {
                "namespace": self.namespace,
                "repo_name": self.repo_name,
                "evaluation_id": self.evaluation_id,
                "oxen_conn_id": self.oxen_conn_id,
                "poke_interval": self.poke_interval,
                "max_wait": self.max_wait,
                "deadline": self.deadline,
                "retry_window": self.retry_window,
                "timeout": self.timeout,
                "end_from_trigger": self.end_from_trigger,
                "do_xcom_push": self.do_xcom_push,
            },
        )

    def get_template_env(self, dag: Any = None) -> Any:
        """
        Give what renders the templates: as on a worker, a variable that is missing is an error.

        Source: Airflow 3.3.2's triggerer renders it as nothing, and the wait would be for another evaluation.
        """
        from jinja2 import StrictUndefined

        environment = super().get_template_env(dag)
        environment.undefined = StrictUndefined
        return environment

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the wait is over."""
        ref = EvaluationRef(self.namespace, self.repo_name, self.evaluation_id)
        wait = Wait(
            evaluation_id=self.evaluation_id,
            poke_interval=self.poke_interval,
            max_wait=max(self.max_wait or 0.0, self.poke_interval),
            deadline=workerless.deadline(self, self.timeout or 0.0) if self.deadline is None else self.deadline,
            retry_window=self.retry_window,
            missing_connection_is_outage=True,
        )
        # Wall clock at the start, steady from then on: setting the machine's clock moves no deadline.
        epoch = time.time() - time.monotonic()
        links: dict[str, str] = {}
        max_age = self.poke_interval / 2
        async with OxenHook(self.oxen_conn_id).get_async_conn() as client:
            while True:
                seen, at = await client.look(ref, max_age=max_age)
                before = wait
                wait, step = wait.look(seen, now=epoch + at, jitter=random.random())
                news = before.evaluation is None or isinstance(step, Outcome)
                if self.deadline is None and news and wait.evaluation is not None:  # no worker has shown the links
                    links = await workerless.push_links(self, read_addresses(ref, wait.evaluation, client.hub), links)
                if isinstance(step, Outcome):
                    outcome = replace(step, hub=client.hub)
                    break
                if line := report.describe_step(ref, before, wait, step, seen):
                    self.log.log(*line)
                # Reckoned from the answer's time, an answer to another wait for the same evaluation makes none late.
                sleep = client.sleep(at + step.seconds - time.monotonic())
                max_age = step.seconds / 2
                # What is kept through the sleep takes memory, and the garbage collector's time at each look.
                del before, seen, step, line
                await sleep
        completed = outcome.reason is OutcomeReason.COMPLETED
        (self.log.info if completed else self.log.error)("%s", report.describe_outcome(ref, outcome))
        if completed and self.end_from_trigger and await workerless.end_here(self, outcome.to_event()["evaluation"]):
            yield TaskSuccessEvent()
        else:
            yield TriggerEvent(outcome.to_event())  # type: ignore[no-untyped-call]  # Airflow's
