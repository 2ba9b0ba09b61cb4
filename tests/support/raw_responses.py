"""A server that sends bytes as they are, the two transports side by side, and what came out of each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.config import ClientConfig, parse_config
from airflow_provider_oxen.exceptions import OxenError
from airflow_provider_oxen.protocol import Call, parse_response
from airflow_provider_oxen.transport import async_session, send, send_async, sync_session
from tests.support.sockets import SocketServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

KEY = "a-key-of-the-tests"
GET = Call("GET", "/api/x", lambda body, _: body)


class RawServer(SocketServer):
    """
    Sends the next of some responses, as they are, for each request, and then closes the connection.

    :param responses: bytes for one connection each, the last for all that follow. A list: bytes for the requests on
        one connection, one after the other.
    """

    def __init__(
        self, *responses: bytes | list[bytes], address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address)
        self.responses = list(responses)
        self.requests: list[bytes] = []
        self._tls = tls
        shown = f"[{address}]" if ":" in address else address
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}"

    def _serve(self, connection: socket.socket, index: int) -> None:
        response = self.responses[min(index, len(self.responses) - 1)]
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            connection.settimeout(5)
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            for data in response if isinstance(response, list) else [response]:
                head = b""
                while b"\r\n\r\n" not in head:
                    more = connection.recv(65_536)
                    if not more:
                        return
                    head += more
                self.requests.append(head)
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):  # else the close may be a reset, which discards what was sent
                pass


def make_config(url: str, **extra: object) -> ClientConfig:
    """Parse the connection of a hub at an address."""
    return parse_config("oxen_default", host=url, password=KEY, extra={"timeout": 5, **extra})


def ask_with_requests(config: ClientConfig, calls: Sequence[Call[Any]] = (GET,)) -> Any:
    """Send calls one after the other on one session; return the last result, or the first error."""
    with sync_session(config) as session:
        for call in calls:
            result = parse_response(config, call, send(session, config, call), now=datetime.now(timezone.utc))
    return result


def ask_with_aiohttp(config: ClientConfig, calls: Sequence[Call[Any]] = (GET,)) -> Any:
    """As :func:`ask_with_requests`."""

    async def ask() -> Any:
        async with async_session(config) as session:
            for call in calls:
                response = await send_async(session, config, call)
                result = parse_response(config, call, response, now=datetime.now(timezone.utc))
        return result

    return asyncio.run(ask())


#: Both transports, by name.
TRANSPORTS = {"requests": ask_with_requests, "aiohttp": ask_with_aiohttp}


def outcome(transport: str, config: ClientConfig, calls: Sequence[Call[Any]] = (GET,)) -> Any:
    """Return the result, or the class of the error."""
    try:
        return TRANSPORTS[transport](config, calls)
    except OxenError as error:
        assert KEY not in f"{error} {error!r}"
        assert str(error).isprintable()
        return type(error)
