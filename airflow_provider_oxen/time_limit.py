"""
The time limit of a request, from its first to its last byte: on a thread, and on an event loop.

Neither library has one that will do. The timeout of requests starts again with every byte that arrives. aiohttp sets a
timer for each request, which costs about a tenth of what a poll costs. On an event loop, all requests of a session have
the same limit here. So they are due in the order in which they began, and one timer is set, for the oldest. Most
requests end long before it fires. Then it is set for the one that is the oldest by that time.

The rule that must not be broken: a request ends at its limit and never before.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

__all__ = ["TimeLimit", "run_within"]

T = TypeVar("T")


def run_within(seconds: float, function: Callable[[], T], more: Callable[[], float] = lambda: 0.0) -> T:
    """
    Run a function on its own thread, and wait at most ``seconds`` for it.

    One that is late is left behind, also where the waiting thread is interrupted, as Airflow does with a signal when a
    task's ``execution_timeout`` has passed. It ends with what it reads, or with the process.

    :param more: called where it is late: how much longer to wait, in seconds.
    :raises TimeoutError: it was late.
    """
    done: queue.SimpleQueue[T | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put(function())
        except BaseException as error:  # noqa: BLE001  # raised again on the thread that waits
            done.put(error)

    threading.Thread(target=run, name="oxen-request", daemon=True).start()
    while True:
        try:
            result = done.get(timeout=seconds)
            break
        except queue.Empty:
            seconds = more()
            if seconds <= 0:
                raise TimeoutError from None
    if isinstance(result, BaseException):
        raise result
    return result


class TimeLimit:
    """
    Ends what takes too long.

    :param seconds: how long it may take.
    """

    __slots__ = ("_running", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[_Running, float] = {}  # when each is due on the loop's clock, the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def running(self) -> _Running:
        """
        Limit the time of a block of the present task.

        :raises TimeoutError: on leaving the block, where it was ended.
        """
        return _Running(self)

    def close(self) -> None:
        """Stop the timer. Nothing must be running any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self, running: _Running) -> None:
        """Set the timer, where it is not set for an older one."""
        loop = asyncio.get_running_loop()
        due = self._running[running] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._end_late)

    def end(self, running: _Running) -> None:
        """Leave the timer as it is: it costs less to let it fire once in vain."""
        del self._running[running]

    def _end_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer, now = None, loop.time()
        for running, due in self._running.items():
            if due > now:
                self._timer = loop.call_at(due, self._end_late)
                return
            running.interrupt()


class _Running:
    """One block whose time is limited. Interrupted as by ``asyncio.timeout``, by a cancellation that stays inside."""

    __slots__ = ("_cancellations", "_is_late", "_limit", "_task")

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._task, self._cancellations = task, task.cancelling()
        self._limit.begin(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit.end(self)
        # Where someone else has cancelled the task as well, that counts.
        if self._is_late and self._task.uncancel() <= self._cancellations and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def interrupt(self) -> None:
        if not self._is_late:
            self._is_late = True
            self._task.cancel()
