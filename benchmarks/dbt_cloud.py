"""What dbt Cloud responds about a job run, emulated for the end-to-end benchmark: running, then succeeded."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

from aiohttp import web  # noqa: TID253  # no part of a DAG file

__all__ = ["DbtCloud"]

#: As in ``airflow.providers.dbt.cloud.hooks.dbt.DbtCloudJobRunStatus``.
_RUNNING, _SUCCESS = 3, 10


class DbtCloud:
    """
    A server on this machine, from ``__enter__`` to ``__exit__``. Its clock is ``time.monotonic()``.

    :param tls: the provider speaks https alone.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self.port = 0
        self.polled_at: dict[str, list[float]] = defaultdict(list)
        self._seconds: dict[str, float] = {}
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def add_run(self, run_id: str, seconds: float) -> None:
        """Let a job run succeed so many seconds after its first poll."""
        self._seconds[run_id] = seconds

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True)
        self._thread.start()
        if not started.wait(10):
            raise RuntimeError("the emulated dbt Cloud did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop and self._stop and self._thread:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/api/v2/accounts/{account_id}/runs/{run_id}/", self._get_run)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = runner.addresses[0][1]
        started.set()
        try:
            await self._stop.wait()
        finally:
            await runner.cleanup()

    async def _get_run(self, request: web.Request) -> web.Response:
        run_id = request.match_info["run_id"]
        polled_at = self.polled_at[run_id]
        polled_at.append(time.monotonic())
        over = polled_at[-1] - polled_at[0] >= self._seconds[run_id]
        return web.json_response({"data": {"id": int(run_id), "status": _SUCCESS if over else _RUNNING}})
