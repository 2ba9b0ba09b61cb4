"""What can happen to a request in place of what the hub does, or besides it: each effect knows how to do it itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from airflow_provider_oxen.testing.exchange import HubResponse

if TYPE_CHECKING:
    from aiohttp import web

    from airflow_provider_oxen.testing.exchange import Effect, Exchange

__all__ = [
    "AfterStart",
    "Alter",
    "Chain",
    "Delay",
    "Disconnect",
    "Endless",
    "Meanwhile",
    "Respond",
    "Trickle",
    "WrongLength",
]

When: TypeAlias = Literal["before", "middle", "after"]

#: How long a client gets to receive what was sent, before the connection is closed. A reset throws away the rest.
_DELIVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Respond:
    """
    Send another response. The hub does not carry out the request.

    :param status_code: HTTP status code.
    :param body: the body; the default is the shortest error of the hub's.
    :param headers: headers to send.
    """

    status_code: int
    body: bytes = b'{"status": "error"}'
    headers: Mapping[str, str] = field(default_factory=dict)

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Go on with this response."""
        return await exchange.proceed(HubResponse(self.status_code, self.body, self.headers))


@dataclass(frozen=True)
class Delay:
    """
    Wait, then respond as usual.

    :param seconds: time before the hub carries out the request, in seconds.
    """

    seconds: float

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Sleep, then go on."""
        await asyncio.sleep(self.seconds)
        return await exchange.proceed()


@dataclass(frozen=True)
class Disconnect:
    """
    Close the TCP connection.

    :param when: ``before`` the response, and before the hub carries out the request; in the ``middle`` of the
        response's body; or ``after`` the response, while the client keeps the connection for its next request.
    :param reset: close it with a reset (RST), as a crash or a firewall does; otherwise it is closed normally.
    """

    when: When = "before"
    reset: bool = False

    def __post_init__(self) -> None:
        """Refuse at once what the hub could not do when it gets the request."""
        if self.when not in get_args(When):
            raise ValueError(f"when must be one of {', '.join(get_args(When))}, but is {self.when!r}")

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Close the connection at the chosen moment."""
        if self.when == "before":
            return exchange.disconnect_without_response(reset=self.reset)
        if self.when == "middle":
            response = exchange.response()
            stream = await exchange.send_head(response)
            for piece in response.pieces(stop=response.length // 2):
                await stream.write(piece)
            await asyncio.sleep(_DELIVERY_SECONDS)
            exchange.disconnect(reset=self.reset)
            return stream
        sent = await exchange.proceed()
        close = partial(exchange.disconnect, reset=self.reset)
        asyncio.get_running_loop().call_later(_DELIVERY_SECONDS, close)
        return sent


@dataclass(frozen=True)
class Trickle:
    """
    Send the body byte by byte.

    :param seconds_per_byte: time between two bytes, in seconds.
    """

    seconds_per_byte: float

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Send the response slowly."""
        response = exchange.response()
        stream = await exchange.send_head(response)
        with suppress(ConnectionResetError):  # the client has left, and the server has not cancelled this yet
            for piece in response.pieces():
                for byte in piece:
                    await stream.write(bytes([byte]))
                    await asyncio.sleep(self.seconds_per_byte)
        return stream


@dataclass(frozen=True)
class WrongLength:
    """
    Send a ``Content-Length`` that is not the body's length.

    :param by: how many bytes more than the body has; then the connection is closed before all of them came. Negative:
        so many bytes fewer; then the end of the body is not sent. None: no ``Content-Length``, and the body in chunks.
    """

    by: int | None

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Send the response with this length."""
        response = exchange.response()
        stream = await exchange.send_head(response, too_long_by=self.by)
        for piece in response.pieces():
            await stream.write(piece)
        if self.by is not None and self.by > 0:
            await asyncio.sleep(_DELIVERY_SECONDS)
            exchange.disconnect()
        return stream


@dataclass(frozen=True)
class Endless:
    """Send the body again and again, without a ``Content-Length``, until the client leaves."""

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Send without an end. The response to a HEAD has no body, so it ends."""
        if exchange.request.method == "HEAD":
            return await exchange.proceed()
        response = exchange.response()
        stream = await exchange.send_head(response, too_long_by=None)
        with suppress(ConnectionResetError):  # the client has left, and the server has not cancelled this yet
            while True:
                for piece in response.pieces() if response.length else [b"\n"]:
                    await stream.write(piece)
                await asyncio.sleep(0)
        return stream


@dataclass(frozen=True)
class Meanwhile:
    """
    Let something else happen between the hub's making of the response and its sending.

    For example another commit, which the client is not told of::

        hub.meta_faults = [Fault(Meanwhile(lambda: hub.add_file("ox", "r", "a.csv", rows)))]

    :param do: what happens; called in the thread of the hub, for each request.
    """

    do: Callable[[], object]

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Carry out the request, then call the function, then send the response."""
        exchange.response()
        self.do()
        return await exchange.proceed()


@dataclass(frozen=True)
class Alter:
    """
    Change fields of a successful response. An error response stays as it is.

    :param evaluation: fields to set in the evaluation.
    :param envelope: fields to set beside the evaluation, such as ``status``.
    :param without: fields to remove from the evaluation.
    """

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    envelope: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Go on with the changed response."""
        response = exchange.response()
        if response.status_code >= 400:
            return await exchange.proceed()
        document = json.loads(response.body)
        if self.evaluation or self.without:
            fields = {**document["evaluation"], **self.evaluation}
            document["evaluation"] = {name: value for name, value in fields.items() if name not in self.without}
        body = json.dumps({**document, **self.envelope}).encode()
        return await exchange.proceed(replace(response, body=body))


@dataclass(frozen=True)
class Chain:
    """
    Two effects on the same request, one after the other. For three, put a chain into a chain.

    :class:`Trickle`, :class:`WrongLength` and :class:`Endless` send the response themselves, and so does
    :class:`Disconnect` ``before`` or in the ``middle``: nothing can follow them, so put them last.

    :param first: the effect that acts first.
    :param second: the effect that acts on what the first one goes on with.
    """

    first: Effect
    second: Effect

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Let both act."""
        exchange.then(self.second)
        return await self.first.act(exchange)


@dataclass(frozen=True)
class AfterStart:
    """
    Start the evaluation, and only then let something else go wrong.

    ``Respond``, ``Delay`` and ``Disconnect("before")`` act before the hub carries out the request. So ``Disconnect()``
    starts nothing, and ``AfterStart(Disconnect())`` loses the response of an evaluation that was started. A request
    that the hub refuses starts nothing in either case.

    :param then: the effect that acts next.
    """

    then: Effect

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        """Carry out the request, then let the effect act."""
        exchange.response()
        return await self.then.act(exchange)
