"""
A call that must not be repeated: whether it was sent, and that it is not sent later.

How this works:

1. Each such call has one :class:`SentOnce`, and a session of its own.
2. The connections of that session call :meth:`SentOnce.connect` before they connect, and :meth:`SentOnce.begin` after
   the TCP connection, the proxy's tunnel and TLS are established, and before the first byte of the request.
3. A second connection after the first was used is refused. So is everything after :meth:`SentOnce.give_up`, which the
   waiting thread calls when it stops waiting: because of the timeout, or of a signal as for Airflow's
   ``execution_timeout``. The thread that it leaves behind may still be connecting.

The rule that must not be broken: no byte of a request is sent after its caller got "not sent".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

__all__ = ["SentOnce", "trace_connections", "watch_connections"]


class _NotAllowedError(ConnectionError):
    """A call that is sent once is not sent: its caller has given up, or it was sent already."""


class SentOnce:
    """
    How far a call that is sent once has come.

    Two threads share it: the one that sends, and the one that waits and may stop waiting.

    :param before_sending: called when the connection is established, before the first byte of the request. What it
        raises keeps the request from being sent, and is kept in ``prevented_by``.
    """

    def __init__(self, before_sending: Callable[[], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._before_sending = before_sending
        self._given_up = False
        self._began_at_monotonic: float | None = None
        self.prevented_by: BaseException | None = None

    def connect(self) -> None:
        """Allow a connection to be opened; not a second one after the first was used."""
        with self._lock:
            if self._began_at_monotonic is not None or self._given_up:
                raise _NotAllowedError(0, "not sent again")  # aiohttp repeats a PUT whose connection is lost

    def begin(self) -> None:
        """Allow bytes of the request to be sent. From now on, it may have an effect."""
        if self._before_sending is not None and self._began_at_monotonic is None:
            try:
                self._before_sending()
            except BaseException as error:
                self.prevented_by = error
                raise _NotAllowedError(0, "prevented") from error
        with self._lock:
            if self._given_up:
                raise _NotAllowedError(0, "given up")
            if self._began_at_monotonic is None:
                self._began_at_monotonic = time.monotonic()

    def seconds_left(self, seconds: float) -> float:
        """
        Say how much of the time for the response is left; if nothing was sent so far, none, and nothing is any more.

        :param seconds: the time that the response has: all of it, since one that is lost may cost money.
        """
        with self._lock:
            if self._began_at_monotonic is None:
                self._given_up = True
                return 0.0
            return self._began_at_monotonic + seconds - time.monotonic()

    def give_up(self) -> None:
        """Allow nothing any more."""
        with self._lock:
            self._given_up = True

    def may_have_effect(self) -> bool:
        """Check whether bytes of the request may have been sent. Final after :meth:`give_up`."""
        with self._lock:
            return self._began_at_monotonic is not None


def watch_connections(manager: Any, once: SentOnce) -> None:
    """Let the connections of a urllib3 pool manager ask before they connect, and before they send."""

    def watched(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]  # its base differs by scheme
            established = False

            def connect(self) -> None:
                once.connect()
                self.established = False
                super().connect()  # the proxy's tunnel and TLS included
                self.established = True

            def send(self, data: Any) -> None:
                if self.sock is None:
                    self.connect()
                if self.established:  # else this is the proxy's CONNECT
                    once.begin()
                super().send(data)

        return type("Pool", (pool,), {"ConnectionCls": Connection})

    pools = manager.pool_classes_by_scheme.items()
    manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in pools}


def trace_connections(once: SentOnce) -> aiohttp.TraceConfig:
    """Let the connections of an aiohttp session ask before they connect, and before they send."""
    import aiohttp

    async def connect(*_: object) -> None:
        once.connect()

    async def begin(*_: object) -> None:
        once.begin()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(connect)
    trace.on_connection_create_end.append(begin)  # fires after the proxy's tunnel and TLS
    return trace
