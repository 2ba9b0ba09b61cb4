"""
aiohttp's connections, which end at once when they are closed.

aiohttp closes a connection that is not used again: after a response with ``Connection: close``, an error or a
cancellation. Over TLS, that close waits for the hub to close its side as well, for 30 s at most. aiohttp forgets such a
connection at once. So it counts for no limit, and is still open after the session was closed.

This module imports aiohttp, which takes time. So it is imported where aiohttp is needed.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp  # noqa: TID253 - this module is imported by functions alone

if TYPE_CHECKING:
    from aiohttp.connector import Connection

__all__ = ["PromptConnector"]


class PromptConnector(aiohttp.TCPConnector):
    """A connector that does not wait for the other side of a connection that it closes."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._given_back: list[asyncio.Transport] = []

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """Take a connection for a request. When the request gives it back, it is either kept or aborted."""
        connection = await super().connect(*args, **kwargs)
        if connection.transport is not None:
            connection.add_callback(partial(self._give_back, connection.transport))
        return connection

    def _give_back(self, transport: asyncio.Transport) -> None:
        # aiohttp calls this first, and then decides whether it keeps the connection.
        if not self._given_back:
            self._loop.call_soon(self._abort_unless_kept)
        self._given_back.append(transport)

    def _abort_unless_kept(self) -> None:
        given_back, self._given_back = self._given_back, []
        for transport in given_back:
            if transport.is_closing():
                transport.abort()
