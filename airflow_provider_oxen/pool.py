"""
What the waits of one process share: connections, and the pause a rate limit asks for.

How this works
--------------
A triggerer runs thousands of waits on one event loop. Each opens a :func:`shared_client` for its configuration and
closes it when it ends. The first to come opens an aiohttp session, the others use the same one, and the last to leave
closes it; so there are at most ``max_connections`` sockets to a hub, whatever the number of waits. A client is shared
only by waits of the same event loop (aiohttp's sessions are bound to theirs) and of equal configuration (host, key, TLS
settings): a rotated key makes a new one.

When the hub answers 429, nobody who shares the client asks it again before the pause is over: their requests end at
once in an :class:`OxenRateLimitError` that says how long is left, without a byte being sent. How a wait takes that is
decided in ``wait``, as for any error; it adds its own jitter, so that they do not all come back together.

This is the only module with state of its own, ``_clients``, because what is shared must be found by waits that know
nothing of each other. It holds nothing that outlives the last wait.

The rule that binds the next person: whatever is opened here is closed by the last who leaves, also when that one is
cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_oxen.api import MAX_RETRY_AFTER_SECONDS, Request, Response
from airflow_provider_oxen.client import async_session, send_async
from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import OxenRateLimitError

if TYPE_CHECKING:
    import aiohttp

__all__ = ["SharedClient", "shared_client"]

#: Pause after a 429 that names none, in seconds; doubled with each further one.
_FIRST_PAUSE_SECONDS = 10.0

_T = TypeVar("_T")
_clients: dict[tuple[asyncio.AbstractEventLoop, ClientConfig], SharedClient] = {}


class SharedClient:
    """Requests to one hub, by all the waits of one event loop that use the same configuration."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.users = 0
        self.requests = 0
        self._opening = asyncio.Lock()
        self._opened: AbstractAsyncContextManager[aiohttp.ClientSession] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._quiet_from_monotonic = 0.0
        self._quiet_until_monotonic = 0.0
        self._limits_in_a_row = 0

    def __repr__(self) -> str:
        return f"<SharedClient {self.config.base_url}: {self.users} waits, {self.requests} requests under way>"

    async def ask(self, request: Request, read: Callable[[Response], _T]) -> _T:
        """
        Send a request and read its response.

        :param read: turns the response into what was asked for, or raises an :class:`OxenRequestError`.
        :raises OxenRequestError: what ``read`` raises; or no response came; or the hub asked for a pause that is
            not over.
        """
        session = self._session or await self._open()
        sent_at = time.monotonic()
        quiet_for = self._quiet_until_monotonic - sent_at
        if quiet_for > 0:
            raise OxenRateLimitError(
                f"not sent: the hub answered 429 and asked for a pause, of which {quiet_for:.1f} s are left",
                request=str(request),
                retry_after_seconds=quiet_for,
            )
        self.requests += 1
        try:
            response = await send_async(session, self.config, request)
        finally:
            self.requests -= 1
        try:
            answer = read(response)
        except OxenRateLimitError as error:
            error.retry_after_seconds = self._pause(error.retry_after_seconds, sent_at)
            raise
        self._limits_in_a_row = 0
        return answer

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                self._opened = async_session(self.config)
                self._session = await self._opened.__aenter__()
            return self._session

    def _pause(self, asked_for: float | None, sent_at: float) -> float:
        """Begin a pause, or lengthen the one that began while the request was under way; give its seconds."""
        now = time.monotonic()
        if sent_at >= self._quiet_from_monotonic:
            self._limits_in_a_row += 1
            self._quiet_from_monotonic = now
        if asked_for is None:
            doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._limits_in_a_row - 1, 20)
            asked_for = min(doubled, MAX_RETRY_AFTER_SECONDS) - (now - self._quiet_from_monotonic)
        self._quiet_until_monotonic = max(self._quiet_until_monotonic, now + asked_for)
        return self._quiet_until_monotonic - now

    async def close(self) -> None:
        """Close the connections. For the last who leaves."""
        if self._opened is not None:
            await self._opened.__aexit__(None, None, None)


@asynccontextmanager
async def shared_client(config: ClientConfig) -> AsyncIterator[SharedClient]:
    """Use the client of a configuration on the running event loop, made for the first who asks."""
    key = (asyncio.get_running_loop(), config)
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = SharedClient(config)
    client.users += 1
    try:
        yield client
    finally:
        client.users -= 1
        if client.users == 0:
            del _clients[key]
            # A task that is being cancelled still closes what it opened.
            await asyncio.shield(client.close())
