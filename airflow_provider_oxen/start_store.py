"""
Where the record of a start is kept: Airflow 3.3's task state store, which outlives retries, reschedules and clears.

Earlier Airflows have nothing of the kind, so there :func:`open_store` gives None. Each attempt of a task has its own
task-instance id, and Airflow refuses a write with an older one: an attempt that was replaced cannot store anything, and
must not start anything either (:class:`SupersededError`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.start_decision import Phase, Record
from airflow_provider_oxen.start_messages import RECORD_KEY

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["Ledger", "StartStore", "StoppedError", "StoreError", "SupersededError", "open_store"]

#: A store that took longer than this is written once more before the request is sent: this process may have been frozen
#: meanwhile, and Airflow may have replaced its attempt, which the second write finds out.
_LEASE_SECONDS = 5.0
#: How often a slow store is written before the request is given up.
_LEASE_TRIES = 3


class SupersededError(Exception):
    """Airflow has replaced this attempt by a later one."""

    def __init__(self) -> None:
        super().__init__("Airflow has replaced this attempt by a later one")


class StoreError(Exception):
    """Airflow could not store the record, so nothing was sent."""


class StoppedError(StoreError):
    """The task was stopped before the request was sent."""

    def __init__(self) -> None:
        super().__init__("the task was stopped")


class _Accessor(Protocol):
    """What is used of ``context["task_state_store"]``."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...

    def delete(self, key: str) -> None: ...


def open_store(context: Context) -> StartStore | None:
    """Find the store of this task instance; None where Airflow has none. Delete the None with Airflow 3.2."""
    accessor: Any = context.get("task_state_store")
    return None if accessor is None else StartStore(accessor)


class StartStore:
    """
    Keeps one record for a task instance, each map index its own.

    :param accessor: Airflow's.
    """

    def __init__(self, accessor: _Accessor) -> None:
        self._accessor = accessor

    def read(self) -> Record | None:
        """Read the record; None where there is none."""
        return Record.from_value(self._accessor.get(RECORD_KEY))

    def write(self, record: Record) -> None:
        """
        Store a record. It never expires: a clear after months must find it.

        :raises SupersededError: this attempt was replaced.
        :raises Exception: Airflow could not store it.
        """
        from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # missing in the stub of Airflow 3.3

        try:
            self._accessor.set(RECORD_KEY, record.to_dict(), retention=NEVER_EXPIRE)
        except Exception as error:
            if _status_code(error) == 404:
                raise SupersededError from error
            raise

    def find(self, otherwise: EvaluationRef, log: Any) -> EvaluationRef:
        """
        Find the evaluation that the record names.

        :param otherwise: the one to give where there is no record of an id; its repository counts where the record
            names none.
        """
        try:
            record = self.read()
        except Exception as error:  # noqa: BLE001  # there is the other one
            log.warning("The record of the evaluation could not be read: %r", error)
            return otherwise
        if record is None or record.evaluation_id is None:
            return otherwise
        namespace, repo_name = record.namespace or otherwise.namespace, record.repo_name or otherwise.repo_name
        return EvaluationRef(namespace, repo_name, record.evaluation_id)

    def complete(self, evaluation_id: str, log: Any) -> None:
        """Store the id of a started evaluation, if that failed before."""
        try:
            record = self.read()
            if record is not None and record.phase is Phase.STARTING:
                self.write(replace(record, phase=Phase.STARTED, evaluation_id=evaluation_id))
        except Exception as error:  # noqa: BLE001  # the wait does not depend on it
            log.warning("The id of the evaluation could not be stored: %r", error)

    def delete(self) -> None:
        """Remove the record: nothing was started."""
        self._accessor.delete(RECORD_KEY)


class Ledger:
    """
    The record of one start, while it is made.

    Two threads share it: the one that sends calls :meth:`open`, and may be left behind while Airflow is slow to store.
    What follows waits for it, so that no late write undoes a later one.

    :param store: where it is kept; None where Airflow has no store, or the user wants none.
    :param record: the record as it is before the request is sent.
    :param hub: gives the address of the hub, which is known when the request is about to be sent.
    :param previous: the record that is in the store so far; it is put back where nothing is started.
    :param is_stopped: says whether the task was stopped, after which its process may go on for seconds.
    """

    def __init__(
        self,
        store: StartStore | None,
        record: Record,
        hub: Callable[[], str | None],
        previous: Record | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_stopped = is_stopped
        self._store = store
        self._hub = hub
        self._previous = previous
        self._lock = threading.Lock()
        self._may_be_stored = False
        self.record = record
        #: Whether the request was about to be sent.
        self.is_open = False

    @property
    def is_kept(self) -> bool:
        """Whether the record outlives this attempt."""
        return self._store is not None

    def open(self) -> None:
        """
        Store that the request is about to be sent. Called when the connection is established.

        :raises SupersededError: this attempt was replaced.
        :raises StoreError: it could not be stored, or the task was stopped.
        """
        with self._lock:
            self.record = replace(self.record, hub=self._hub())
            if self._store is not None:
                self._may_be_stored = True
                self._write_in_time(self._store)
            self.is_open = True
            if self._is_stopped():
                raise StoppedError

    def remove(self, log: Any) -> None:
        """Remove the record, or put the previous one back: nothing was started."""
        with self._lock:
            self.is_open = False
            if self._store is None or not self._may_be_stored:
                return
            self._may_be_stored = False
            try:
                if self._previous is None:
                    self._store.delete()
                else:
                    self._store.write(self._previous)
            except Exception as error:  # noqa: BLE001  # safe: a later attempt refuses to start one
                log.warning("The record of the start could not be removed, although nothing was started: %r", error)

    def complete(self, evaluation_id: str, log: Any) -> bool:
        """Store the id, which the log has already. Say whether a later attempt will find it."""
        with self._lock:
            self.record = replace(self.record, phase=Phase.STARTED, evaluation_id=evaluation_id)
            if self._store is None:
                return False
            try:
                self._store.write(self.record)
            except Exception as error:  # noqa: BLE001  # the evaluation runs; the record is completed later
                log.warning("The id of the evaluation could not be stored, but is in this log: %r", error)
                return False
            return True

    def _write_in_time(self, store: StartStore) -> None:
        for _ in range(_LEASE_TRIES):
            began_at = time.monotonic()
            try:
                store.write(self.record)
            except SupersededError:
                raise
            except Exception as error:
                raise StoreError(f"Airflow could not store the record of the start ({error})") from error
            if time.monotonic() - began_at <= _LEASE_SECONDS:
                return
        raise StoreError(f"Airflow took longer than {_LEASE_SECONDS:g} s to store the record of the start, each time")


def _status_code(error: Exception) -> int | None:
    """
    Find the status code with which Airflow's API server refused.

    Source: Airflow 3.3.2's supervisor responds to a failed request with an ``ErrorResponse``, which the SDK raises as
    an ``AirflowRuntimeError`` whose ``error.detail`` has ``status_code``.
    """
    detail = getattr(getattr(error, "error", None), "detail", None)
    code = detail.get("status_code") if isinstance(detail, dict) else None
    return code if isinstance(code, int) else None
