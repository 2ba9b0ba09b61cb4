"""
What can go wrong between a client and the hub.

A :class:`Fault` says which requests it happens to. Its effect says what happens, and knows how to do it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
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
    "Fault",
    "Respond",
    "Trickle",
    "check_faults",
    "find_fault",
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
            await stream.write(response.body[: len(response.body) // 2])
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
            for byte in response.body:
                await stream.write(bytes([byte]))
                await asyncio.sleep(self.seconds_per_byte)
        return stream


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

    :class:`Trickle` sends the response itself, and so does :class:`Disconnect` ``before`` or in the ``middle``: nothing
    can follow them, so put them last.

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


@dataclass(frozen=True)
class Fault:
    """
    Something that goes wrong with some of the requests for an evaluation, or with some of those that start one.

    :param what: what happens: one of the effects above, or an object of your own that has their method ``act``.
    :param first: number of the first request it happens to, counted from 1.
    :param count: how many requests it happens to; None: all from the first on.
    """

    what: Effect
    first: int = 1
    count: int | None = None

    def __post_init__(self) -> None:
        """Refuse at once what the hub could not do when it gets the request."""
        if isinstance(self.what, type) or not hasattr(self.what, "act"):
            raise ValueError(f"what must be an effect, such as Respond(503), but is {self.what!r}")
        if self.first < 1:
            raise ValueError(f"first must be 1 or more: requests are counted from 1, but first is {self.first!r}")

    def applies_to(self, request_number: int) -> bool:
        """
        Say whether it happens to a request.

        :param request_number: number of the request, counted from 1.
        """
        return request_number >= self.first and (self.count is None or request_number < self.first + self.count)


def check_faults(name: str, faults: Sequence[Fault]) -> None:
    """
    Refuse anything but a list of faults.

    :param name: what the list is called.
    :param faults: the list.
    :raises ValueError: it is none.
    """
    if isinstance(faults, Fault) or not all(isinstance(fault, Fault) for fault in faults):
        raise ValueError(f"{name} must be a list or tuple of Fault, but is {faults!r}")


def find_fault(faults: Sequence[Fault], request_number: int) -> Fault | None:
    """
    Find the first fault that happens to a request; None if none does.

    :param faults: what goes wrong.
    :param request_number: number of the request, counted from 1.
    """
    return next((fault for fault in faults if fault.applies_to(request_number)), None)
