"""
How a task starts an evaluation at most once, or says that this cannot be known.

How this works
--------------
1. Read the record that an earlier attempt stored, and decide (``start_decision``): start, take up, or refuse.
2. To start: connect, store ``starting``, send the request once, log the id, store ``started``. The record is stored
   when the connection is established and before the first byte of the request, so what fails before leaves none.
3. Not sent, or 429: nothing was started. The record goes, and it is tried again within ``retry_window``.
   Refused (any other 3xx or 4xx): nothing was started. The record goes, and the task fails for good.
   Anything else: it is not known. The record stays, so no later attempt starts another, and the task fails for good.
4. Storing ``started`` may fail. The id is in the log then, and the record is completed when the task is taken up.

The rule that must not be broken: no request is sent before ``starting`` is stored, and none is sent where that failed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.airflow_names import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow_provider_oxen.calls import build_get_evaluation, build_start_evaluation
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenTransientError,
    OxenUnknownEffectError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.retries import Retries
from airflow_provider_oxen.start_decision import (
    Attempt,
    Check,
    Phase,
    Record,
    Refuse,
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
    describe_started,
    describe_take_up,
    describe_unknown_start,
)
from airflow_provider_oxen.start_request import StartRequest
from airflow_provider_oxen.start_store import Ledger, StartStore, StoreError, SupersededError, open_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_oxen.clients import OxenClient
    from airflow_provider_oxen.protocol import Call

__all__ = ["OxenStartFailedError", "StartTask", "Started", "Starter"]


class OxenStartFailedError(AirflowException):
    """No evaluation was started, because the hub or Airflow's store could not be reached. The task may be retried."""


@dataclass(frozen=True, slots=True)
class Started:
    """
    The evaluation to wait for.

    :param evaluation: as the hub reported it when it started; None where an earlier attempt started it.
    :param is_recorded: whether a later attempt can find it.
    """

    ref: EvaluationRef
    evaluation: Evaluation | None
    is_recorded: bool


class StartTask(Protocol):
    """What a starter needs of its task."""

    oxen_conn_id: str
    retry_window: float | None

    @property
    def log(self) -> Any:
        """Airflow's logger of the task."""


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
        #: Address of the hub; None before the first request.
        self.hub: str | None = None
        #: The evaluation, from the moment on that its id is known.
        self.started: EvaluationRef | None = None
        #: Whether the task was stopped: nothing is sent from now on.
        self.stopped = False
        self._request: StartRequest | None = None
        self._ledger: Ledger | None = None

    @property
    def sending(self) -> StartRequest | None:
        """What the hub may have been asked for right now, without an id yet; None before and after."""
        is_open = self._ledger is not None and self._ledger.is_open
        return self._request if is_open and self.started is None else None

    def start(self, context: Context, request: StartRequest) -> Started:
        """
        Start it, or find the one that an earlier attempt started.

        :raises AirflowFailException: nothing was started and trying again cannot help; or it is not known.
        :raises OxenStartFailedError: nothing was started, and the task may be retried.
        """
        call, wanted = _build(request)
        ti = context["ti"]
        attempt = Attempt(ti.try_number, ti.max_tries, self._retries)
        store = open_store(context) if self._policy.durable else None
        record = None if store is None else _read(store)
        decision = decide(record, attempt, self._policy, request=wanted, has_store=store is not None)
        with OxenHook(self._task.oxen_conn_id).get_conn() as client:
            if isinstance(decision, Check):
                evaluation = self.poll(request.ref_of(decision.evaluation_id, record))
                decision = decide_after_check(decision.evaluation_id, evaluation, self._policy)
            if isinstance(decision, TakeUp):
                if store is not None and record is not None and record.max_tries != attempt.max_tries:
                    self._adopt(store, record, request, wanted, attempt)
                return self._take_up(request.ref_of(decision.evaluation_id, record), record, decision)
            if isinstance(decision, Refuse):
                raise AirflowFailException(_describe_refusal(decision, request, record))
            if decision == Start(may_run_too=True):
                self._task.log.warning(
                    "A second evaluation is started: one that an earlier attempt may have started may still run, and "
                    "both cost money."
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
            return self._send(client, request, call, ledger)

    def stop(self, *, is_recorded: bool) -> str | None:
        """
        Send nothing from now on, because the task is stopped.

        :param is_recorded: whether the next attempt can take up what was started.
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
        Find the evaluation of a task that is taken up: the record names it.

        :param pushed: what the task's XCom names, in the repository that its templates give now; else this one counts.
        """
        store = open_store(context) if self._policy.durable else None
        return pushed if store is None else store.find(pushed, self._task.log)

    def complete_record(self, context: Context, ref: EvaluationRef) -> None:
        """Store the id of a started evaluation, if that failed before."""
        store = open_store(context) if self._policy.durable else None
        if store is not None and ref.evaluation_id:
            store.complete(ref.evaluation_id, self._task.log)

    def poll(self, ref: EvaluationRef) -> Evaluation | None:
        """
        Poll the evaluation that an earlier attempt started; where the hub is out of reach, for ``retry_window``.

        :return: None where the hub does not know it.
        :raises AirflowFailException: the hub refuses, or a setting is wrong.
        :raises OxenStartFailedError: the hub was out of reach. The task may be retried.
        """
        retries = Retries(self._task.retry_window, self._task.log)
        with OxenHook(self._task.oxen_conn_id).get_conn() as client:
            while True:
                try:
                    evaluation = client.ask(build_get_evaluation(ref))
                except OxenNotFoundError:
                    return None
                except OxenTransientError as error:
                    if not retries.sleep(error, "The earlier evaluation could not be polled"):
                        raise OxenStartFailedError(f"Nothing was started: {error}, the earlier {ref}") from None
                except OxenError as error:
                    raise AirflowFailException(f"Nothing was started: {error}, the earlier {ref}") from None
                else:
                    self.hub = client.hub
                    return evaluation

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
        self.hub = hub = None if record is None else record.hub
        self.started = ref
        line = describe_take_up(ref, record, hub, other_request=decision.other_request)
        (self._task.log.warning if decision.other_request else self._task.log.info)("%s", line)
        return Started(ref, None, is_recorded=True)

    def _send(self, client: OxenClient, request: StartRequest, call: Call[Evaluation], ledger: Ledger) -> Started:
        self._request, self._ledger = request, ledger
        retries = Retries(self._task.retry_window, self._task.log)
        for tries in count(1):
            try:
                evaluation = client.ask(call, before_sending=ledger.open)
                self.started = ref = request.ref_of(evaluation.id)
                break
            except (OxenUnreachableError, OxenRateLimitError) as error:  # not sent, or refused for now
                ledger.remove(self._task.log)
                if tries == 1 and isinstance(error, OxenUnreachableError) and error.is_setting:  # no later try helps
                    raise AirflowFailException(f"Nothing was started: {error}") from None
                if not retries.sleep(error, "Nothing was started"):
                    raise self._not_started(error, ledger) from None
            except OxenUnknownEffectError as error:
                raise AirflowFailException(self._describe_unknown(request, ledger, str(error))) from None
            except OxenError as error:
                ledger.remove(self._task.log)
                raise AirflowFailException(f"Nothing was started: {error}") from None
            except SupersededError as error:
                raise AirflowFailException(f"Nothing was started: {error}.") from None
            except AirflowTaskTimeout:
                if not ledger.is_open:
                    raise
                cause = "execution_timeout ended the task before the hub responded"
                raise AirflowFailException(self._describe_unknown(request, ledger, cause)) from None
            except StoreError as error:
                ledger.remove(self._task.log)  # it may have been stored all the same
                raise OxenStartFailedError(f"Nothing was started: {error}") from error
            finally:
                self.hub = client.hub
        self._task.log.info("%s", describe_started(ref, request.name, self.hub))
        return Started(ref, evaluation, is_recorded=ledger.complete(evaluation.id, self._task.log))

    def _not_started(self, error: OxenError, ledger: Ledger) -> Exception:
        """Make the failure of a start that was tried for ``retry_window``. Without a record, a retry would refuse."""
        text = f"Nothing was started within retry_window: {error}"
        may_start = ledger.is_kept or not self._policy.durable or self._policy.on_unknown_start == "start_again"
        return OxenStartFailedError(text) if may_start else AirflowFailException(text)

    def _describe_unknown(self, request: StartRequest, ledger: Ledger, cause: str) -> str:
        return describe_unknown_start(
            request.namespace, request.repo_name, ledger.record, cause, has_store=ledger.is_kept, hub=self.hub
        )


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


def _describe_refusal(decision: Refuse, request: StartRequest, record: Record | None) -> str:
    return describe_refusal(
        decision.reason,
        request.namespace,
        request.repo_name,
        record,
        airflow=version_compat.airflow_version(),
        hub=None if record is None else record.hub,
    )
