"""An HTTP server in a thread of its own. It listens on the loopback interface only and knows nothing of Oxen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import ssl

__all__ = ["Server"]


class Server:
    """
    An HTTP server that runs from :meth:`start` to :meth:`stop`.

    :param routes: what it serves.
    :param port: TCP port; 0: any free one.
    :param tls: TLS context to serve https with; None: http.
    """

    def __init__(self, routes: Iterable[web.RouteDef], *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.connections_opened = 0
        self._routes = list(routes)
        self._tls = tls
        self._web_server: web.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the server, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def connections_open(self) -> int:
        """How many connections clients hold open now."""
        return 0 if self._web_server is None else len(self._web_server.connections)

    def start(self) -> None:
        """
        Listen, and return once connections are accepted.

        :raises OSError: the port cannot be used.
        """
        started = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(started))
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
                failure.append(error)
                started.set()

        self._thread = threading.Thread(target=run, name="oxen-local-hub", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            raise failure[0]

    def stop(self) -> None:
        """Close the port and all connections, and wait for the thread to end."""
        if self._loop and self._stop and self._thread:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=0)  # 0: no limit; aiohttp would refuse bodies above 1 MiB by itself
        app.add_routes(self._routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        make_protocol = self._web_server = runner.server

        def count_connection() -> asyncio.BaseProtocol:
            self.connections_opened += 1
            return make_protocol()  # type: ignore[misc]  # set once setup() has run

        listener = await self._loop.create_server(count_connection, "127.0.0.1", self.port, ssl=self._tls, backlog=1024)
        self.port = listener.sockets[0].getsockname()[1]
        started.set()
        try:
            await self._stop.wait()
        finally:
            listener.close()
            await asyncio.sleep(0)  # what was accepted meanwhile becomes known, and is closed with the others
            transports = [handler.transport for handler in runner.server.connections] if runner.server else []
            await runner.cleanup()
            for transport in transports:  # over TLS, a close waits for the client's
                if transport is not None:
                    transport.abort()
            await asyncio.sleep(0.01)  # sockets are closed by callbacks, which need a turn of the loop
