"""
How a task starts an evaluation at most once, or says that this cannot be known.

How this works
--------------
1. Read the record that an earlier attempt stored, and decide (``start_decision``): start one, wait for the
   earlier one, or refuse.
2. To start: connect, store ``starting``, send the request once, log the id, store ``started``; see ``start_sending``.
3. A refusal is noted in the record: the next clear of the task is then a decision of a person who could read it.

The rule that must not be broken: what is not known is never taken for "nothing was started".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.airflow_names import AirflowFailException
from airflow_provider_oxen.calls import build_get_evaluation, build_start_evaluation
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenNotFoundError,
    OxenTransientError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.retries import Retries
from airflow_provider_oxen.start_decision import (
    Attempt,
    Check,
    Refuse,
    RefuseReason,
    Start,
    StartPolicy,
    TakeUp,
    decide,
    decide_after_check,
    fingerprint,
)
from airflow_provider_oxen.start_messages import (
    describe_killed,
    describe_killed_while_starting,
    describe_refusal,
    describe_take_up,
)
from airflow_provider_oxen.start_record import Phase, Record
from airflow_provider_oxen.start_request import StartRequest
from airflow_provider_oxen.start_sending import (
    OxenStartFailedError,
    OxenStartUnknownError,
    Sender,
    Started,
    StartTask,
)
from airflow_provider_oxen.start_store import Ledger, StartStore, SupersededError, open_store
from airflow_provider_oxen.wait import NOT_FOUND_SECONDS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oxen.clients import OxenClient
    from airflow_provider_oxen.protocol import Call

__all__ = ["OxenStartFailedError", "OxenStartUnknownError", "Started", "Starter"]

#: Time between two polls of an evaluation that the hub does not know.
_NOT_FOUND_SLEEP_SECONDS = 5.0

T = TypeVar("T")


class Starter:
    """
    Starts one evaluation for a task, or finds the one that an earlier attempt started.

    :param task: the task.
    :param policy: what the user has allowed.
    :param retries: the task's ``retries``.
    """

    def __init__(self, task: StartTask, policy: StartPolicy, *, retries: int) -> None:
        self._task = task
        self._policy = policy
        self._retries = retries
        #: Whether the task was stopped: nothing is sent from now on.
        self.stopped = False
        self._hub: str | None = None
        self._taken_up: EvaluationRef | None = None
        self._sender: Sender | None = None

    @property
    def hub(self) -> str | None:
        """Address of the hub; None before the first request."""
        return (self._sender and self._sender.hub) or self._hub

    @property
    def started(self) -> EvaluationRef | None:
        """The evaluation, from the moment on that its id is known."""
        return self._taken_up if self._sender is None else self._sender.started

    @property
    def sending(self) -> StartRequest | None:
        """What the hub may have been asked for right now, without an id yet; None before and after."""
        return None if self._sender is None else self._sender.sending

    def start(self, context: Context, request: StartRequest) -> Started:
        """
        Start it, or find the one that an earlier attempt started.

        :raises AirflowFailException: nothing was started and trying again cannot help; or it is not known.
        :raises OxenStartFailedError: nothing was started, and the task may be retried.
        :raises OxenStartUnknownError: it is not known, and the user has allowed a retry to start another one.
        """
        call, wanted = _build(request)
        ti = context["ti"]
        attempt = Attempt(ti.try_number, ti.max_tries, self._retries)
        store = open_store(context) if self._policy.durable else None
        record = None if store is None else _read(store)
        with OxenHook(self._task.oxen_conn_id).get_conn() as client:
            hub = None if record is None or record.evaluation_id is None else self._find_hub(client, request, record)
            decision = decide(record, attempt, self._policy, request=wanted, has_store=store is not None, hub=hub)
            if isinstance(decision, Check):
                evaluation = self.poll(request.ref_of(decision.evaluation_id, record))
                decision = decide_after_check(decision.evaluation_id, evaluation, self._policy)
            if isinstance(decision, TakeUp):
                if store is not None and record is not None and record.max_tries != attempt.max_tries:
                    self._adopt(store, replace(record, hub=record.hub or hub), request, wanted, attempt)
                return self._take_up(request.ref_of(decision.evaluation_id, record), record, decision)
            if isinstance(decision, Refuse):
                if decision.reason is RefuseReason.UNKNOWN_START and store is not None and record is not None:
                    store.report(record, attempt.max_tries, self._task.log)
                raise AirflowFailException(_describe_refusal(decision, request, record, hub))
            if decision == Start(may_run_too=True):
                self._task.log.warning(
                    "A second evaluation is started: one that an earlier attempt may have started may still run, and "
                    "both cost money."
                )
            elif store is None and attempt.try_number > 1:
                self._task.log.warning(
                    "Attempt %d is taken for the first one after a clear: an earlier attempt may have started an "
                    "evaluation, and both cost money.",
                    attempt.try_number,
                )
            starting = Record(
                Phase.STARTING,
                name=request.name,
                request=wanted,
                namespace=request.namespace,
                repo_name=request.repo_name,
                at=datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
                try_number=attempt.try_number,
                max_tries=attempt.max_tries,
            )
            ledger = Ledger(store, starting, lambda: client.hub, record, lambda: self.stopped)
            self._sender = Sender(self._task, self._policy, request)
            return self._sender.send(client, call, ledger)

    def push_id(self, context: Context, started: Started, *, waits: bool) -> None:
        """
        Push the id to XCom. A task that waits goes on where that fails: the evaluation runs, and the log has its id.

        :raises Exception: the task does not wait. What Airflow raised, where a retry waits for the evaluation.
        :raises AirflowFailException: the task does not wait, and a retry would not find it.
        """
        try:
            context["ti"].xcom_push(key="evaluation_id", value=started.ref.evaluation_id)
        except Exception as error:
            if not waits and started.is_recorded:
                raise
            text = f"The id of {started.ref}, which has started, could not be pushed to XCom ({error!r})"
            if not waits:
                raise AirflowFailException(f"{text}. Wait for it with a sensor.") from error
            self._task.log.warning("%s", text)

    def stop(self, *, is_recorded: bool) -> str | None:
        """
        Send nothing from now on, because the task is stopped.

        :param is_recorded: whether the next attempt can wait for what was started.
        :return: what to log about an evaluation that may run; None where there is none.
        """
        self.stopped = True
        if self.started is not None:
            return describe_killed(self.started, self.hub, started_here=True, is_recorded=is_recorded)
        if (request := self.sending) is None:
            return None
        return describe_killed_while_starting(request.namespace, request.repo_name, request.name, self.hub)

    def find(self, context: Context, pushed: EvaluationRef) -> EvaluationRef:
        """
        Find the evaluation of a task that is resumed: the record names it.

        :param pushed: what the task's XCom names, in the repository that its templates give now; else this one counts.
        """
        store = open_store(context) if self._policy.durable else None
        return pushed if store is None else store.find(pushed, self._task.log)

    def complete_record(self, context: Context, ref: EvaluationRef) -> bool:
        """Store the id of a started evaluation, if that failed before. Say whether a later attempt will find it."""
        store = open_store(context) if self._policy.durable else None
        if store is None or not ref.evaluation_id:
            return False
        return store.complete(ref.evaluation_id, context["ti"].try_number, self._task.log)

    def poll(self, ref: EvaluationRef) -> Evaluation | None:
        """
        Poll the evaluation that an earlier attempt started; where the hub is out of reach, for ``retry_window``.

        :return: None where the hub has not known it for ``NOT_FOUND_SECONDS``. A single 404 may come from a part of the
            hub that lags.
        :raises AirflowFailException: the hub refuses, or a setting is wrong.
        :raises OxenStartFailedError: the hub was out of reach. The task may be retried.
        """
        give_up_at: float | None = None
        with OxenHook(self._task.oxen_conn_id).get_conn() as client:
            while True:
                try:
                    evaluation = self._ask(lambda: client.ask(build_get_evaluation(ref)), ref)
                except OxenNotFoundError as error:
                    now = time.monotonic()
                    if give_up_at is None:
                        give_up_at = now + NOT_FOUND_SECONDS
                        self._task.log.warning("Polled for %g s more: %s, %s", NOT_FOUND_SECONDS, error, ref)
                    if now >= give_up_at:
                        return None
                    time.sleep(min(_NOT_FOUND_SLEEP_SECONDS, give_up_at - now))
                else:
                    self._hub = client.hub
                    return evaluation

    def _find_hub(self, client: OxenClient, request: StartRequest, record: Record) -> str:
        """Find out which hub the connection leads to, before an id is used there. Raises as :meth:`poll`."""
        return self._ask(lambda: client.config.base_url, request.ref_of(record.evaluation_id or "", record))

    def _ask(self, ask: Callable[[], T], ref: EvaluationRef) -> T:
        """Ask about an earlier evaluation, for ``retry_window``."""
        retries = Retries(self._task.retry_window, self._task.log)
        while True:
            try:
                return ask()
            except OxenNotFoundError:
                raise
            except OxenTransientError as error:
                if not retries.sleep(error, "The earlier evaluation could not be polled"):
                    raise OxenStartFailedError(f"Nothing was started: {error}, the earlier {ref}") from None
            except OxenError as error:
                raise AirflowFailException(f"Nothing was started: {error}, the earlier {ref}") from None

    def _adopt(self, store: StartStore, record: Record, request: StartRequest, wanted: str, attempt: Attempt) -> None:
        """
        Note that the task waits for this evaluation since it was cleared, or since a person wrote the record.

        Otherwise a retry would be taken for a clear, or a clear for a retry.
        """
        adopted = replace(
            record,
            request=record.request or wanted,
            namespace=record.namespace or request.namespace,
            repo_name=record.repo_name or request.repo_name,
            max_tries=attempt.max_tries,
        )
        try:
            store.write(adopted)
        except SupersededError as error:
            raise AirflowFailException(f"Nothing was started: {error}.") from None
        except Exception as error:  # without it, a retry would be taken for the clear, and start another one
            raise OxenStartFailedError(
                f"The record of the earlier evaluation could not be updated ({error})"
            ) from error

    def _take_up(self, ref: EvaluationRef, record: Record | None, decision: TakeUp) -> Started:
        self._hub = hub = None if record is None else record.hub
        self._taken_up = ref
        line = describe_take_up(ref, record, hub, other_request=decision.other_request)
        (self._task.log.warning if decision.other_request else self._task.log.info)("%s", line)
        return Started(ref, None, is_recorded=True)


def _build(request: StartRequest) -> tuple[Call[Evaluation], str]:
    """Build the call and its fingerprint. What cannot be sent will be no better at the next attempt."""
    try:
        call = build_start_evaluation(request.namespace, request.repo_name, request.branch, request.path, request.body)
        call.content()
        return call, fingerprint(call.path, request.body)
    except OxenConfigError as error:
        raise AirflowFailException(f"Nothing was started: {error}") from None
    except (TypeError, ValueError) as error:
        raise AirflowFailException(f"Nothing was started: the request cannot be written as JSON ({error})") from None


def _read(store: StartStore) -> Record | None:
    try:
        return store.read()
    except Exception as error:
        raise OxenStartFailedError(
            f"Nothing was started: Airflow could not read what earlier attempts stored ({error})"
        ) from error


def _describe_refusal(decision: Refuse, request: StartRequest, record: Record | None, hub: str | None) -> str:
    return describe_refusal(
        decision.reason,
        request.namespace,
        request.repo_name,
        record,
        airflow=version_compat.airflow_version(),
        hub=None if record is None else record.hub,
        hub_now=hub,
    )
