"""
Where the record of a start is kept: Airflow 3.3's task state store, which outlives retries, reschedules and clears.

Earlier Airflows have nothing of the kind, so there :func:`open_store` gives None. Each attempt of a task has its own
task-instance id, and Airflow refuses a write with an older one: an attempt that was replaced cannot store anything, and
must not start anything either (:class:`SupersededError`).

The id alone does not fence off an attempt that Airflow has not replaced but runs beside another one, nor a person who
edits the record. So each write reads the record first, and does nothing where someone else has changed it. The store
has no compare-and-set: a moment is left between the two.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_oxen import storage_compat
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.start_messages import RECORD_KEY
from airflow_provider_oxen.start_record import Phase, Record

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor

    from airflow_provider_oxen.version_compat import TaskLogger

__all__ = ["Ledger", "StartStore", "StoppedError", "StoreError", "SupersededError", "open_store"]

#: A store that took longer than this is written once more before the request is sent: this process may have been frozen
#: meanwhile, and Airflow may have replaced its attempt, which the second write finds out.
_LEASE_SECONDS = 5.0
#: How often a slow store is written before the request is given up.
_LEASE_TRIES = 3


class SupersededError(Exception):
    """Airflow has replaced this attempt with a later one, or someone else has changed its record."""

    def __init__(self, why: str = "Airflow has replaced this attempt with a later one") -> None:
        super().__init__(why)


class StoreError(Exception):
    """Airflow could not store the record, so nothing was sent."""


class StoppedError(StoreError):
    """The task was stopped before the request was sent."""

    def __init__(self) -> None:
        super().__init__("the task was stopped")


def open_store(context: Context) -> StartStore | None:
    """Find the store of this task instance; None where Airflow has none."""
    accessor = storage_compat.task_state_store(context)
    return None if accessor is None else StartStore(accessor)


class StartStore:
    """
    Keeps one record for a task instance, each map index its own.

    :param accessor: Airflow's.
    """

    def __init__(self, accessor: TaskStateStoreAccessor) -> None:
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
        try:
            self._accessor.set(RECORD_KEY, record.to_dict(), retention=storage_compat.never_expire())
        except Exception as error:
            if storage_compat.find_status_code(error) == 404:
                raise SupersededError from error
            raise

    def find(self, otherwise: EvaluationRef, log: TaskLogger) -> EvaluationRef:
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

    def complete(self, evaluation_id: str, try_number: int, log: TaskLogger) -> bool:
        """
        Store the id of an evaluation that this attempt has started, if that failed before.

        :return: whether the record names it, so that a later attempt will find it.
        """
        try:
            record = self.read()
            if record is not None and record.phase is Phase.STARTING and record.try_number == try_number:
                record = replace(record, phase=Phase.STARTED, evaluation_id=evaluation_id, reported=False)
                self.write(record)
        except Exception as error:  # noqa: BLE001  # the wait does not depend on it
            log.warning("The id of the evaluation could not be stored: %r", error)
            return False
        return record is not None and record.evaluation_id == evaluation_id

    def report(self, record: Record, max_tries: int, log: TaskLogger) -> None:
        """
        Note that a person is told what to do about a start that is not known: the next clear of the task counts.

        :param record: the one that the message is about.
        :param max_tries: Airflow's, now. An earlier clear does not count.
        """
        if record.max_tries is None:  # nothing of ours: it stays as it is, for a person to look at
            return
        try:
            if self.read() == record:
                self.write(replace(record, reported=True, max_tries=max_tries))
        except Exception as error:  # noqa: BLE001  # safe: a cleared task then says it once more
            log.warning("The record of the start could not be updated: %r", error)

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
        #: What may be in the store, by what this attempt has read and written.
        self._expected = [previous]
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
            self.is_open = False  # an earlier request was refused
            if self._is_stopped():
                raise StoppedError
            self.record = replace(self.record, hub=self._hub())
            if self._store is not None:
                self._may_be_stored = True
                self._write_in_time(self._store)
            self.is_open = True
            if self._is_stopped():
                raise StoppedError

    def remove(self, log: TaskLogger) -> None:
        """Remove the record, or put the previous one back: nothing was started."""
        with self._lock:
            self.is_open = False
            if self._store is None or not self._may_be_stored:
                return
            self._may_be_stored = False
            try:
                if not self.record.is_of_same_start(self._store.read()):
                    return
                if self._previous is None:
                    self._store.delete()
                else:
                    self._store.write(self._previous)
                self._expected = [self._previous]
            except Exception as error:  # noqa: BLE001  # safe: a later attempt refuses to start one
                log.warning("The record of the start could not be removed, although nothing was started: %r", error)

    def complete(self, evaluation_id: str, log: TaskLogger) -> bool:
        """Store the id, which the log has already. Say whether a later attempt will find it."""
        with self._lock:
            starting = self.record
            self.record = replace(self.record, phase=Phase.STARTED, evaluation_id=evaluation_id)
            if self._store is None:
                return False
            try:
                found = self._store.read()
                # Where a person has removed it, the id is better stored than lost.
                _check(found is None or starting.is_of_same_start(found))
                self._store.write(self.record)
            except Exception as error:  # noqa: BLE001  # the evaluation runs; the record is completed later
                log.warning("The id of the evaluation could not be stored, but is in this log: %r", error)
                return False
            return True

    def report(self, log: TaskLogger) -> None:
        """Note that this attempt fails with the message that says what to do: the next clear of the task counts."""
        if self._is_stopped():  # perhaps by a clear, which came before the message
            return
        with self._lock:
            if self._store is not None and self.record.max_tries is not None:
                self._store.report(self.record, self.record.max_tries, log)

    def _write_in_time(self, store: StartStore) -> None:
        for _ in range(_LEASE_TRIES):
            began_at, began_at_monotonic = time.time(), time.monotonic()
            try:
                _check(store.read() in self._expected)
                self._expected.append(self.record)
                store.write(self.record)
                self._expected = [self.record]
            except SupersededError:
                raise
            except Exception as error:
                raise StoreError(f"Airflow could not store the record of the start ({error})") from error
            # The steady clock may stand still while a machine is suspended; the other one may be set back.
            if max(time.monotonic() - began_at_monotonic, time.time() - began_at) <= _LEASE_SECONDS:
                return
        raise StoreError(f"Airflow took longer than {_LEASE_SECONDS:g} s to store the record of the start, each time")


def _check(is_unchanged: bool) -> None:
    if not is_unchanged:
        raise SupersededError("the record of the start was changed since this attempt read it")
