"""
One request to the local hub and the response to it, as a fault gets them.

A fault acts on an :class:`Exchange` and on nothing else. It needs no knowledge of the server, and the server needs none
of the fault.
"""

from __future__ import annotations

import io
import json
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

__all__ = ["Effect", "Exchange", "HubRequest", "HubResponse"]

#: How much of a body is sent at once, in bytes.
_PIECE = 64 * 1024


@dataclass(frozen=True)
class HubRequest:
    """
    A request that the hub received.

    :param at: when it arrived, in seconds, by a clock that is good only for differences.
    :param method: for example ``GET``.
    :param path: as it was sent: percent-encoded, with the query.
    :param headers: by lower-case name.
    :param body: ``b""`` for a request without one.
    :param status_code: of the response; None if the hub closed the connection instead.
    """

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status_code: int | None = None


@dataclass(frozen=True)
class HubResponse:
    """
    A response that is not sent yet.

    :param status_code: HTTP status code.
    :param body: the body, complete.
    :param headers: besides ``x-oxen-request-id``, which every response gets.
    :param file: a file on this machine's disk that has the body, and is read while it is sent. ``body`` is then empty.
    """

    status_code: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None

    @property
    def length(self) -> int:
        """Length of the body, in bytes."""
        return len(self.body) if self.file is None else self.file.stat().st_size

    def pieces(self, *, stop: int | None = None) -> Iterator[bytes]:
        """
        Go through the body, a piece after the other.

        :param stop: how many bytes to go through; None: all.
        """
        left = self.length if stop is None else stop
        with io.BytesIO(self.body) if self.file is None else self.file.open("rb") as source:
            while left > 0 and (piece := source.read(min(left, _PIECE))):
                left -= len(piece)
                yield piece

    @classmethod
    def from_json(cls, document: Any, status_code: int = 200) -> HubResponse:
        """Build a response whose body is a JSON document."""
        return cls(status_code, json.dumps(document).encode(), {"Content-Type": "application/json"})


class Effect(Protocol):
    """What a fault does to a request: any object with this method."""

    async def act(self, exchange: Exchange, /) -> web.StreamResponse:
        """
        Handle the request in place of the hub, and return what was sent or is to be sent.

        Most effects do something and return ``await exchange.proceed()``.
        """
        ...


class Exchange:
    """
    One request and the response to it.

    Use each only for its own request: it remembers how far the request has come.

    :param request: what the client sent.
    :param incoming: the same request, as the server has it.
    :param make_response: carries out the request and makes the hub's own response.
    :param record: adds a request to the hub's list, and returns the request id for its response.
    :param effects: what acts on the request, in this order.
    """

    def __init__(
        self,
        request: HubRequest,
        *,
        incoming: web.Request,
        make_response: Callable[[], HubResponse],
        record: Callable[[HubRequest], str],
        effects: Iterable[Effect] = (),
    ) -> None:
        self.request = request
        self._incoming = incoming
        self._make_response = make_response
        self._record = record
        self._effects = deque(effects)
        self._response: HubResponse | None = None

    def response(self) -> HubResponse:
        """
        Make the response, without sending it.

        The first call carries out the request, so an effect that never calls this leaves the hub as it was. Later calls
        return the same response.
        """
        if self._response is None:
            self._response = self._make_response()
        return self._response

    async def proceed(self, response: HubResponse | None = None) -> web.StreamResponse:
        """
        Let the next effect act. After the last one, send the response.

        :param response: the response to go on with; None: the hub's own.
        :return: what an effect has to return from ``act``. The server sends it, so it may not have been sent yet.
        """
        if response is not None:
            self._response = response
        if self._effects:
            return await self._effects.popleft().act(self)
        ready = self.response()
        if ready.file is None:
            return web.Response(status=ready.status_code, body=ready.body, headers=self._record_response(ready))
        stream = await self.send_head(ready)
        for piece in ready.pieces():
            await stream.write(piece)
        return stream

    def then(self, effect: Effect) -> None:
        """Let this effect act at the next :meth:`proceed`, before all others."""
        self._effects.appendleft(effect)

    async def send_head(self, response: HubResponse, *, too_long_by: int | None = 0) -> web.StreamResponse:
        """
        Send the status line and the headers, with the length of the whole body.

        :param too_long_by: how many bytes to add to that length; a negative number: to take from it; None: send no
            length, and the body in chunks.
        :return: the response to ``write`` the body to, and then to return from ``act``. Where the request is a HEAD,
            what is written is not sent.
        """
        kind = _WithoutBody if self.request.method == "HEAD" else web.StreamResponse
        stream = kind(status=response.status_code, headers=self._record_response(response))
        if too_long_by is not None:
            stream.content_length = max(response.length + too_long_by, 0)
        await stream.prepare(self._incoming)
        return stream

    def disconnect(self, *, reset: bool = False) -> None:
        """
        Close the TCP connection.

        :param reset: close it with a reset (RST), which throws away what the client has not received yet.
        """
        transport = self._incoming.transport
        if transport is None:
            return
        if not reset:
            transport.close()
            return
        # The system sends a reset when a socket is closed whose time to linger is zero.
        found = transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def disconnect_without_response(self, *, reset: bool = False) -> web.StreamResponse:
        """Close the TCP connection in place of a response. Return a placeholder, which is not sent."""
        self._record(self.request)
        self.disconnect(reset=reset)
        return web.Response(status=500)

    def _record_response(self, response: HubResponse) -> dict[str, str]:
        request_id = self._record(replace(self.request, status_code=response.status_code))
        return {"x-oxen-request-id": request_id, **response.headers}


class _WithoutBody(web.StreamResponse):
    """The response to a HEAD."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send nothing."""
