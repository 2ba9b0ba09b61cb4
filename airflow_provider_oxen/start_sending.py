"""
How the request to start an evaluation is sent, and what each response to it means.

How this works
--------------
1. The record is stored when the connection is established and before the first byte of the request, so what fails
   before leaves none.
2. Not sent, or 429: nothing was started. The record goes, and it is tried again within ``retry_window``.
   Refused (most other 3xx and 4xx): nothing was started. The record goes, and the task fails for good.
   Anything else: it is not known. The record stays, so no later attempt starts another, and the task fails for good; or
   a retry starts another one, where the user has allowed that.
3. Storing ``started`` may fail. The id is in the log then, and the record is completed when the task is resumed.

The rule that must not be broken: no request is sent before ``starting`` is stored, and none is sent where that failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

from airflow_provider_oxen.airflow_names import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow_provider_oxen.exceptions import (
    OxenError,
    OxenRateLimitError,
    OxenUnknownEffectError,
    OxenUnreachableError,
)
from airflow_provider_oxen.retries import Retries
from airflow_provider_oxen.start_messages import describe_started, describe_unknown_start
from airflow_provider_oxen.start_store import StoreError, SupersededError

if TYPE_CHECKING:
    from airflow_provider_oxen.clients import OxenClient
    from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
    from airflow_provider_oxen.protocol import Call
    from airflow_provider_oxen.start_decision import StartPolicy
    from airflow_provider_oxen.start_request import StartRequest
    from airflow_provider_oxen.start_store import Ledger
    from airflow_provider_oxen.version_compat import TaskLogger

__all__ = ["OxenStartFailedError", "OxenStartUnknownError", "Sender", "StartTask", "Started"]


class OxenStartFailedError(AirflowException):
    """No evaluation was started, because the hub or Airflow's store could not be reached. The task may be retried."""


class OxenStartUnknownError(AirflowException):
    """Not known whether one was started. A retry starts another: ``on_unknown_start="start_again"`` allows it."""


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
    """What a start needs of its task."""

    oxen_conn_id: str
    retry_window: float | None

    @property
    def log(self) -> TaskLogger:
        """Airflow's logger of the task."""


class Sender:
    """
    Sends one request, and stores what came of it.

    :param task: the task.
    :param policy: what the user has allowed.
    :param request: what is asked for.
    """

    def __init__(self, task: StartTask, policy: StartPolicy, request: StartRequest) -> None:
        self._task = task
        self._policy = policy
        self._request = request
        self._ledger: Ledger | None = None
        #: Address of the hub; None before the first request.
        self.hub: str | None = None
        #: The evaluation, from the moment on that its id is known.
        self.started: EvaluationRef | None = None

    @property
    def sending(self) -> StartRequest | None:
        """What the hub may have been asked for right now, without an id yet; None before and after."""
        is_open = self._ledger is not None and self._ledger.is_open
        return self._request if is_open and self.started is None else None

    def send(self, client: OxenClient, call: Call[Evaluation], ledger: Ledger) -> Started:
        """
        Send it.

        :raises AirflowFailException: nothing was started and trying again cannot help; or it is not known.
        :raises OxenStartFailedError: nothing was started, and the task may be retried.
        :raises OxenStartUnknownError: it is not known, and the user has allowed a retry to start another one.
        """
        self._ledger = ledger
        retries = Retries(self._task.retry_window, self._task.log)
        for tries in count(1):
            try:
                evaluation = client.ask(call, before_sending=ledger.open)
                self.started = ref = self._request.ref_of(evaluation.id)
                break
            except (OxenUnreachableError, OxenRateLimitError) as error:  # not sent, or refused for now
                ledger.remove(self._task.log)
                if tries == 1 and isinstance(error, OxenUnreachableError) and error.is_setting:  # no later try helps
                    raise AirflowFailException(f"Nothing was started: {error}") from None
                if not retries.sleep(error, "Nothing was started"):
                    raise self._not_started(error, ledger) from None
            except OxenUnknownEffectError as error:
                raise self._not_known(ledger, str(error)) from None
            except OxenError as error:
                ledger.remove(self._task.log)
                raise AirflowFailException(f"Nothing was started: {error}") from None
            except SupersededError as error:
                raise AirflowFailException(f"Nothing was started: {error}.") from None
            except AirflowTaskTimeout:
                if not ledger.is_open:
                    raise
                cause = "execution_timeout ended the task before the hub responded"
                raise self._not_known(ledger, cause) from None
            except StoreError as error:
                ledger.remove(self._task.log)  # it may have been stored all the same
                raise OxenStartFailedError(f"Nothing was started: {error}") from error
            finally:
                self.hub = client.hub
        self._task.log.info("%s", describe_started(ref, self._request.name, self.hub))
        return Started(ref, evaluation, is_recorded=ledger.complete(evaluation.id, self._task.log))

    def _not_started(self, error: OxenError, ledger: Ledger) -> Exception:
        """Make the failure of a start that was tried for ``retry_window``. Without a record, a retry would refuse."""
        text = f"Nothing was started within retry_window: {error}"
        may_start = ledger.is_kept or not self._policy.durable or self._policy.on_unknown_start == "start_again"
        return OxenStartFailedError(text) if may_start else AirflowFailException(text)

    def _not_known(self, ledger: Ledger, cause: str) -> Exception:
        """Make the failure where it is not known whether one was started, and note in the record that this is said."""
        starts_again = self._policy.durable and self._policy.on_unknown_start == "start_again"
        text = describe_unknown_start(
            self._request.namespace,
            self._request.repo_name,
            ledger.record,
            cause,
            has_store=ledger.is_kept,
            hub=ledger.record.hub,
            starts_again=starts_again,
        )
        ledger.report(self._task.log)
        return OxenStartUnknownError(text) if starts_again else AirflowFailException(text)
