"""A timer for ``execution_timeout`` where Airflow has none. Delete with Airflow 2."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["execution_timer"]


def execution_timer(limit: timedelta | None) -> AbstractContextManager[Any]:
    """
    Stop what runs on a worker after a time, as Airflow 3 does with each of a task's processes.

    :param limit: None where Airflow has a timer of its own.
    """
    if limit is None:
        return nullcontext()
    from airflow.utils.timeout import timeout  # type: ignore[import-not-found]  # Airflow 2 only

    timer: AbstractContextManager[Any] = timeout(seconds=limit.total_seconds())
    return timer
