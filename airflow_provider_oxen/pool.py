"""
What the waits of one process share: the look-up of an Airflow connection, and the sockets to its hub.

How this works
--------------
1. A triggerer runs thousands of waits on one event loop. Those that use the same Airflow connection share one
   :class:`SharedConnection`: its settings are looked up once, and again when they are a minute old, so that a change
   reaches all waits. A look-up that fails then changes nothing. Waits that need one while it is under way share it,
   also where it fails.
2. The settings lead to a :class:`SharedClient`. Its first wait opens an aiohttp session, the others use the same one,
   and the last to leave closes it; so there are at most ``max_connections`` sockets to a hub, whatever the number of
   waits. Changed settings (a new key, another host) make a new client.
3. Requests beyond ``max_connections`` wait in a queue, first come, first served. The time limit of a request begins
   with its turn, so that many waits delay polls instead of making them fail. Only where the hub has responded to no
   request for as long as one may take, the requests that were queued all that time fail: a hub that hangs must not
   keep waits beyond their deadlines.
4. When the hub responds 429, the client sends nothing until the pause is over (see ``pause``): requests end at once
   in an :class:`OxenRateLimitError` that says how long is left. A wait adds jitter of its own, so that they do not all
   come back together.
5. The first request of a client is sent alone, so that a key that is wrong is refused once. When the hub responds 401,
   the client sends nothing any more, and the connection is looked up again, once for all its waits. With another key,
   they go on with a new client; with the same key, they all get that error. A wait that begins later makes a new
   client, and asks.

This is the only module with state of its own, ``_connections``, because waits that know nothing of each other must find
what they share. It holds nothing that outlives the last wait.

The rule that must not be broken: whatever is opened here is closed by the last wait that leaves, also when that one is
cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from copy import copy
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenError,
    OxenRateLimitError,
    OxenUnreachableError,
)
from airflow_provider_oxen.metrics import Recorder
from airflow_provider_oxen.pause import Pause
from airflow_provider_oxen.protocol import Call, parse_response
from airflow_provider_oxen.sharing import SharedEvaluation, Ticks
from airflow_provider_oxen.transport import AsyncSession, async_session, build_url, send_async

if TYPE_CHECKING:
    import yarl

__all__ = ["MAX_LOOKUP_AGE_SECONDS", "SharedClient", "SharedConnection", "join", "shared_connections"]

#: How old the settings of a connection may be, in seconds, before they are looked up again.
MAX_LOOKUP_AGE_SECONDS = 60.0

LookUp: TypeAlias = Callable[[], Awaitable[ClientConfig]]
MakeRecorder: TypeAlias = Callable[[], Recorder]
T = TypeVar("T")

_connections: dict[tuple[asyncio.AbstractEventLoop, str], SharedConnection] = {}


def join(conn_id: str, look_up: LookUp, make_recorder: MakeRecorder | None = None) -> SharedConnection:
    """
    Share an Airflow connection on the running event loop. Leave it at the end.

    :param look_up: reads the connection. The first wait's is used for all.
    :param make_recorder: makes what counts the requests, on a thread; None: nothing is counted.
    """
    key = (asyncio.get_running_loop(), conn_id)
    connection = _connections.get(key)
    if connection is None:
        connection = _connections[key] = SharedConnection(conn_id, look_up, make_recorder)
    connection.waits += 1
    return connection


def shared_connections() -> list[SharedConnection]:
    """List what is shared in this process now."""
    return list(_connections.values())


class SharedConnection:
    """One Airflow connection, for all the waits of one event loop that use it."""

    def __init__(self, conn_id: str, look_up: LookUp, make_recorder: MakeRecorder | None = None) -> None:
        self.waits = 0
        self.look_up = look_up
        self.recorder = Recorder()
        self._make_recorder = make_recorder
        self._conn_id = conn_id
        self._looking_up = asyncio.Lock()
        self._client: SharedClient | None = None
        self._looked_up_at_monotonic = 0.0  # when the look-up began that led to the client's settings
        self._failure: OxenError | None = None
        self._failed_at_monotonic = 0.0

    def __repr__(self) -> str:
        return f"<SharedConnection {self._conn_id!r}: {self.waits} waits, client {self._client!r}>"

    async def client(self, joined_at_monotonic: float) -> SharedClient:
        """
        Return the client of the connection's present settings.

        :param joined_at_monotonic: when the wait began. It gets no client whose key was refused before that.
        :raises OxenError: the connection cannot be looked up, or its settings cannot be used.
        """
        known = self._client
        if (
            known is not None
            and (self.is_current(known) or self._looking_up.locked())
            and not known.was_refused_before(joined_at_monotonic)
        ):
            return known
        asked_at = time.monotonic()
        async with self._looking_up:
            known = self._client
            if known is None:
                return await self._look_up_since(asked_at)
            if known.was_refused_before(joined_at_monotonic):
                current = await self._look_up_since(asked_at)
                if current is known:
                    current = self._client = SharedClient(known.config, self.recorder)
                return current
            if not self.is_current(known):
                with suppress(OxenError):  # what is known is good enough; the next try is in a minute
                    return await self._look_up_since(asked_at)
            return known

    def is_current(self, client: SharedClient) -> bool:
        """Check that a client has the connection's settings, and that a look-up was tried less than a minute ago."""
        tried_at = max(self._looked_up_at_monotonic, self._failed_at_monotonic)
        return client is self._client and time.monotonic() - tried_at < MAX_LOOKUP_AGE_SECONDS

    async def check_refusal(self, refused: SharedClient, error: OxenAuthenticationError) -> None:
        """
        Look the connection up again, because the hub refused the key. One look-up after a 401 will do for all waits.

        :param refused: the client whose request was refused.
        :raises OxenAuthenticationError: ``error``, where the connection still has the settings that were refused.
        """
        # A 403 is not remembered: it may be about one repository alone.
        asked_at = refused.refused_at_monotonic if error.status_code == 401 else time.monotonic()
        async with self._looking_up:
            current = self._client
            if current is refused:
                try:
                    current = await self._look_up_since(asked_at)
                except OxenError:
                    refused.refusal = None  # whether there is another key is not known
                    raise
            if current is None or current.config == refused.config:
                raise error

    def leave(self) -> None:
        """End one wait's share."""
        self.waits -= 1
        if self.waits == 0:
            del _connections[asyncio.get_running_loop(), self._conn_id]
            self.recorder.send()

    async def _look_up_since(self, asked_at: float) -> SharedClient:
        """Look the connection up, where that was not done since then. Only for the holder of the lock."""
        if self._client is not None and self._looked_up_at_monotonic >= asked_at:
            return self._client
        if self._failure is not None and self._failed_at_monotonic >= asked_at:
            raise copy(self._failure)  # each wait gets its own: raising an error adds to it
        if self._make_recorder is not None:
            self.recorder = await asyncio.to_thread(self._make_recorder)
            self._make_recorder = None
        began_at = time.monotonic()
        try:
            config = await self.look_up()
        except OxenError as error:
            self._failure, self._failed_at_monotonic = error, time.monotonic()
            raise
        self._looked_up_at_monotonic = began_at
        if self._client is None or self._client.config != config:
            self._client = SharedClient(config, self.recorder)
        return self._client


class SharedClient:
    """Requests to one hub, by all the waits of one event loop that use the same settings."""

    def __init__(self, config: ClientConfig, recorder: Recorder) -> None:
        self.config = config
        self.waits = 0
        self._recorder = recorder
        self.requests = 0
        self.ticks = Ticks()
        #: The hub's 401, from which on nothing is sent.
        self.refusal: OxenAuthenticationError | None = None
        self.refused_at_monotonic = 0.0
        self._evaluations: dict[EvaluationRef, SharedEvaluation] = {}
        #: One, until the hub has responded to the first request: a key that is wrong costs one 401.
        self._slots = asyncio.Semaphore(1)
        self._was_tried = False
        self._opening = asyncio.Lock()
        self._opened: AbstractAsyncContextManager[AsyncSession] | None = None
        self._session: AsyncSession | None = None
        self._last_response_at_monotonic = 0.0
        self._pause = Pause()

    def __repr__(self) -> str:
        return (
            f"<SharedClient {self.config.base_url}: {self.waits} waits for {len(self._evaluations)} evaluations, "
            f"{self.requests} requests under way, {len(self.ticks)} timers>"
        )

    def share(self, ref: EvaluationRef) -> SharedEvaluation:
        """
        Share the polls of an evaluation. Leave it at the end.

        :raises OxenConfigError: the reference cannot be part of a path.
        """
        shared = self._evaluations.get(ref)
        if shared is None:
            shared = self._evaluations[ref] = SharedEvaluation(self, ref)
        shared.waits += 1
        return shared

    def forget(self, ref: EvaluationRef) -> None:
        """Take note that the last wait for an evaluation has left."""
        del self._evaluations[ref]

    def was_refused_before(self, at_monotonic: float) -> bool:
        """Check that the hub had refused the key by a certain time."""
        return self.refusal is not None and self.refused_at_monotonic < at_monotonic

    async def ask(self, call: Call[T], url: yarl.URL | None = None) -> T:
        """
        Send a call and parse its response.

        :param url: the call's address, where the caller keeps it.
        :raises OxenRequestError: no usable response came, to this or to any request before it in the queue; or the hub
            asked for a pause that is not over, or has refused the key before.
        """
        session = self._session or await self.open()
        queued_at = time.monotonic()
        await self._slots.acquire()
        self.requests += 1
        was_sent = False
        try:
            sent_at = time.monotonic()
            self._check_may_send(call, queued_at, sent_at)
            was_sent = True
            response = await send_async(session, self.config, call, url)
        except OxenError as error:
            self._use_all_slots()
            if was_sent:
                now = time.monotonic()
                self._recorder.sent(now - sent_at, now, is_poll=call.is_poll, error=error)
            raise
        finally:
            self.requests -= 1
            self._slots.release()
        self._use_all_slots()
        self._last_response_at_monotonic = now = time.monotonic()
        try:
            result = parse_response(self.config, call, response, now=datetime.now(tz=timezone.utc))
        except OxenError as error:
            self._take_note(error, sent_at, now)
            self._recorder.sent(now - sent_at, now, is_poll=call.is_poll, error=error)
            raise
        self._pause = self._pause.after_response()
        self._recorder.sent(now - sent_at, now, is_poll=call.is_poll)
        return result

    async def build_url(self, call: Call[T]) -> yarl.URL:
        """Build the address of a call, which takes time: keep it where the call is sent again."""
        await self.open()  # which imports what the address needs, and not on the event loop
        return build_url(self.config, call)

    async def open(self) -> AsyncSession:
        """Open the session, where none of the waits has done it yet."""
        async with self._opening:
            if self._session is None:
                self._opened = async_session(self.config)
                self._session = await self._opened.__aenter__()
            return self._session

    async def leave(self) -> None:
        """End one wait's share; the last closes the connections."""
        self.waits -= 1
        if self.waits == 0:
            self.ticks.cancel()
            if self._opened is not None:
                # A task that is being cancelled still closes what it opened.
                opened, self._opened, self._session = self._opened, None, None
                await asyncio.shield(opened.__aexit__(None, None, None))

    def _take_note(self, error: OxenError, sent_at: float, now: float) -> None:
        """Remember what a response means for the requests after it."""
        if isinstance(error, OxenRateLimitError):
            before = self._pause
            self._pause = before.after_limit(asked_for=error.retry_after_seconds, sent_at=sent_at, now=now)
            error.retry_after_seconds = self._pause.seconds_left(now)
            if self._pause.began_at != before.began_at:
                self._recorder.paused()
        elif isinstance(error, OxenAuthenticationError) and error.status_code == 401 and self.refusal is None:
            self.refusal, self.refused_at_monotonic = error, now

    def _use_all_slots(self) -> None:
        if not self._was_tried:
            self._was_tried = True
            for _ in range(self.config.max_connections - 1):
                self._slots.release()

    def _check_may_send(self, call: Call[T], queued_at: float, now: float) -> None:
        if self.refusal is not None:
            refusal = copy(self.refusal)
            refusal.request, refusal.request_id = str(call), None  # not those of the request that was sent
            raise refusal
        silent_for = now - max(queued_at, self._last_response_at_monotonic)
        if silent_for >= self.config.timeout_seconds:
            raise OxenUnreachableError(
                f"not sent: waited {silent_for:.0f} s for a free connection, while the hub responded to none "
                f"({self.config.base_url})",
                request=str(call),
            )
        self._pause.check(call, now)
