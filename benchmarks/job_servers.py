"""What Databricks and dbt Cloud respond when a job run is started and polled, emulated for the section on starts."""

from __future__ import annotations

import itertools
import ssl
from collections import Counter, defaultdict

from aiohttp import web  # noqa: TID253  # no part of a DAG file

from benchmarks.emulated import EmulatedServer

__all__ = ["JobServers"]

#: As in ``airflow.providers.dbt.cloud.hooks.dbt.DbtCloudJobRunStatus``.
_RUNNING, _SUCCESS = 3, 10


class JobServers(EmulatedServer):
    """
    A server for both on this machine, from ``__enter__`` to ``__exit__``. A job run goes on until :meth:`end`.

    A job is known by its number: the id of dbt Cloud's job, and the name of Databricks' run.

    :param tls: the dbt Cloud provider speaks https alone.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(tls)
        #: Requests to start a run, and ids of the runs that were started, by number of the job.
        self.requests: Counter[str] = Counter()
        self.started: dict[str, list[str]] = defaultdict(list)
        self.polls: Counter[str] = Counter()
        self._losing: set[str] = set()
        self._ended: set[str] = set()
        self._by_token: dict[str, str] = {}
        self._ids = itertools.count(1001)

    def lose_response(self, job: str) -> None:
        """Lose the response to the first request to start this job: the run is started, the connection is reset."""
        self._losing.add(job)

    def end(self, run_id: str) -> None:
        """Let a run succeed."""
        self._ended.add(run_id)

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/v2/accounts/1/jobs/{job}/run/", self._start_in_dbt)
        router.add_get("/api/v2/accounts/1/runs/", self._list_in_dbt)
        router.add_get("/api/v2/accounts/1/runs/{run_id}/", self._get_in_dbt)
        router.add_post("/api/2.2/jobs/runs/submit", self._start_in_databricks)
        router.add_get("/api/2.2/jobs/runs/get", self._get_in_databricks)

    def _start(self, request: web.Request, job: str, token: str | None = None) -> str:
        """Start a run, unless the token says that it is a repeated request, and return its id."""
        self.requests[job] += 1
        run_id = self._by_token.get(token) if token is not None else None
        if run_id is None:
            run_id = str(next(self._ids))
            self.started[job].append(run_id)
            if token is not None:
                self._by_token[token] = run_id
        if job in self._losing and request.transport is not None:
            self._losing.remove(job)
            request.transport.abort()
        return run_id

    def _describe_for_dbt(self, run_id: str) -> dict[str, object]:
        status = _SUCCESS if run_id in self._ended else _RUNNING
        return {"id": int(run_id), "status": status, "href": f"https://127.0.0.1:{self.port}/runs/{run_id}"}

    async def _start_in_dbt(self, request: web.Request) -> web.Response:
        run_id = self._start(request, request.match_info["job"])
        return web.json_response({"data": self._describe_for_dbt(run_id)})

    async def _list_in_dbt(self, request: web.Request) -> web.Response:
        """List the runs of a job that have not ended, the newest first: the only list that the provider asks for."""
        running = [run_id for run_id in self.started[request.query["job_definition_id"]] if run_id not in self._ended]
        return web.json_response({"data": [self._describe_for_dbt(run_id) for run_id in reversed(running)]})

    async def _get_in_dbt(self, request: web.Request) -> web.Response:
        run_id = request.match_info["run_id"]
        self.polls[run_id] += 1
        return web.json_response({"data": self._describe_for_dbt(run_id)})

    async def _start_in_databricks(self, request: web.Request) -> web.Response:
        body = await request.json()
        run_id = self._start(request, body["run_name"], body.get("idempotency_token"))
        return web.json_response({"run_id": int(run_id)})

    async def _get_in_databricks(self, request: web.Request) -> web.Response:
        run_id = request.query.get("run_id") or str((await request.json())["run_id"])
        self.polls[run_id] += 1
        ended = run_id in self._ended
        state = {"life_cycle_state": "TERMINATED" if ended else "RUNNING", "state_message": ""}
        if ended:
            state["result_state"] = "SUCCESS"
        url = f"https://127.0.0.1:{self.port}/#job/1/run/{run_id}"
        return web.json_response(
            {"run_id": int(run_id), "job_id": 1, "state": state, "run_page_url": url, "tasks": []},
        )
