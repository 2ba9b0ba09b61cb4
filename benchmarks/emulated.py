"""A server of a benchmark, emulating another product's API in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from aiohttp import web  # noqa: TID253  # no part of a DAG file

__all__ = ["EmulatedServer"]


class EmulatedServer(ABC):
    """
    A server on this machine, on a free port, from ``__enter__`` to ``__exit__``.

    :param tls: its certificate; the dbt Cloud provider speaks https alone. None: http.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _add_routes(self, router: web.UrlDispatcher) -> None:
        """Add what the server responds to."""

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError(f"the emulated server {type(self).__name__} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop and self._stop and self._thread:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        self._add_routes(app.router)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        try:
            await self._stop.wait()
        finally:
            await runner.cleanup()
