"""An HTTP server in a thread of its own. It listens on the loopback interface only and knows nothing of Oxen."""

from __future__ import annotations

import asyncio
import socket
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
        self._failure: BaseException | None = None
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

        def run() -> None:
            try:
                asyncio.run(self._serve(started))
            except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
                self._failure = error
                started.set()

        self._thread = threading.Thread(target=run, name="oxen-local-hub", daemon=True)
        self._thread.start()
        started.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Close the port and all connections, and wait for the thread to end."""
        if self._loop and self._stop and self._thread:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=0)  # 0: no limit; aiohttp would refuse bodies above 1 MiB by itself
        app.add_routes(self._routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        assert runner.server is not None  # noqa: S101  # it is there from setup() to cleanup()
        web_server = self._web_server = runner.server
        with _Listener(self) as listener:
            listener.bind(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            accepting = await self._loop.create_server(web_server, sock=listener, ssl=self._tls, backlog=1024)
            started.set()
            try:
                await self._stop.wait()
            finally:
                listener.accepts = False
                # A task makes the transport of what was accepted, and leaves it open where the server is closed by then
                # (python/cpython#109564).
                await asyncio.sleep(0)
                accepting.close()
                handlers = web_server.connections
                await runner.cleanup()
                while connections := listener.open_connections():
                    for handler in (*handlers, *web_server.connections):
                        if handler.transport is not None:  # over TLS, a close waits for the client's
                            handler.transport.abort()
                    for connection in connections:  # a handshake ends where its client is gone
                        with suppress(OSError):
                            connection.shutdown(socket.SHUT_RDWR)
                    await asyncio.sleep(0)  # callbacks close the sockets, and the loop must not end before they ran


class _Listener(socket.socket):
    """
    A listening socket that counts what it accepts, and knows what of it is open.

    The web server knows a connection only after its TLS handshake.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as asyncio does with a listener of its own
        self._server = server
        #: False: what else is in the queue is left there.
        self.accepts = True
        self._accepted: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        if not self.accepts:
            raise BlockingIOError
        connection, address = super().accept()
        self._server.connections_opened += 1
        self._accepted.add(connection)
        return connection, address

    def open_connections(self) -> list[socket.socket]:
        return [connection for connection in self._accepted if connection.fileno() != -1]
