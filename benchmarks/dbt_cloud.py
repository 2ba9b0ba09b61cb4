"""What dbt Cloud responds about a job run, emulated for the end-to-end benchmark: running, then succeeded."""

from __future__ import annotations

import ssl
import time
from collections import defaultdict

from aiohttp import web  # noqa: TID253  # no part of a DAG file

from benchmarks.emulated import EmulatedServer

__all__ = ["DbtCloud"]

#: As in ``airflow.providers.dbt.cloud.hooks.dbt.DbtCloudJobRunStatus``.
_RUNNING, _SUCCESS = 3, 10


class DbtCloud(EmulatedServer):
    """
    A server on this machine, from ``__enter__`` to ``__exit__``. Its clock is ``time.monotonic()``.

    :param tls: the provider speaks https alone.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(tls)
        self.polled_at: dict[str, list[float]] = defaultdict(list)
        self._seconds: dict[str, float] = {}

    def add_run(self, run_id: str, seconds: float) -> None:
        """Let a job run succeed so many seconds after its first poll."""
        self._seconds[run_id] = seconds

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/v2/accounts/{account_id}/runs/{run_id}/", self._get_run)

    async def _get_run(self, request: web.Request) -> web.Response:
        run_id = request.match_info["run_id"]
        polled_at = self.polled_at[run_id]
        polled_at.append(time.monotonic())
        over = polled_at[-1] - polled_at[0] >= self._seconds[run_id]
        return web.json_response({"data": {"id": int(run_id), "status": _SUCCESS if over else _RUNNING}})
