"""
What a wait that reschedules remembers from one of its processes to the next.

Airflow 3.3 has a store for a task's state. Earlier ones have none that lives between two processes of a rescheduled
task: its own XComs are deleted at each start. There, a process knows only what the hub's response says.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_oxen import storage_compat, values
from airflow_provider_oxen.wait_memory import to_memory, with_memory, without_delay

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor

    from airflow_provider_oxen.version_compat import TaskLogger
    from airflow_provider_oxen.wait import Wait

__all__ = ["WAIT_KEY", "WaitStore", "open_wait_store"]

#: Where in the task's store the wait is.
WAIT_KEY = "oxen_wait"
#: How long a wait is kept after its deadline. Its last process may be late.
_KEPT_AFTER = timedelta(days=1)


def open_wait_store(context: Context) -> WaitStore | None:
    """Find the store of this task instance; None where Airflow has none."""
    accessor = storage_compat.task_state_store(context)
    return None if accessor is None else WaitStore(accessor, str(getattr(context["ti"], "id", "")))


class WaitStore:
    """
    Keeps the wait of one attempt. The store outlives attempts, and each attempt has an id of its own.

    :param accessor: Airflow's.
    :param attempt: the attempt's id.
    """

    def __init__(self, accessor: TaskStateStoreAccessor, attempt: str) -> None:
        self._accessor = accessor
        self._attempt = attempt

    def read(self, wait: Wait, log: TaskLogger, *, now: float) -> Wait:
        """Go on where the attempt's last process was; where that is not known, begin again."""
        try:
            memory = self._accessor.get(WAIT_KEY)
            if not isinstance(memory, dict) or memory.get("attempt") != self._attempt:
                return wait
            planned = values.number(memory.get("next_poll_at"))
            return without_delay(with_memory(wait, memory), 0.0 if planned is None else now - planned)
        except Exception as error:  # noqa: BLE001  # the wait is worse without it, but goes on
            log.warning("What this wait has seen so far could not be read: %r", error)
            return wait

    def write(self, wait: Wait, log: TaskLogger, *, now: float, next_poll_at: float) -> bool:
        """Store the wait, and say whether the next process will find it."""
        memory = {"attempt": self._attempt, "next_poll_at": next_poll_at, **to_memory(wait)}
        keep_for = timedelta(seconds=max(wait.deadline - now, 0.0)) + _KEPT_AFTER
        try:
            self._accessor.set(WAIT_KEY, memory, retention=keep_for)
        except Exception as error:  # noqa: BLE001  # the wait is worse without it, but goes on
            log.warning("What this wait has seen so far could not be stored: %r", error)
            return False
        return True
