"""
How many evaluations, or job runs, are started for one task that is killed at the wrong moment, beside the peers.

Run ``python -m benchmarks.starting``. One Airflow runs the DAGs of ``benchmarks/starting_dags``. Evaluations come from
the local hub, the job runs of Databricks and dbt Cloud from emulated endpoints, all over TLS. Each cell of the table is
one run of one task with ``retries=2``. Some of them run side by side.

The first attempt of a task stops at its moment, and its process is killed with SIGKILL. At *polling*, it is killed once
the server has been polled. *Lost* kills nothing: the server starts the job, and its response is lost. The job then runs
until the next attempt polls it, and a deferred one for 12 seconds or more. If Airflow itself fails a task before its
moment, the cell is played again.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import requests  # noqa: TID253  # no part of a DAG file

from airflow_provider_oxen.testing import AfterStart, Disconnect, Fault, LocalHub
from airflow_provider_oxen.testing.scenario import Scenario
from benchmarks.job_servers import JobServers
from benchmarks.section import Report, Target, command_line
from demo.standalone import AirflowStandalone

__all__ = ["MOMENTS", "WAYS", "Start", "run"]

#: The ways to start a job and to wait for it, by the id of their DAG.
WAYS = {
    "oxen": "oxen, deferrable=False",
    "oxen_deferrable": "oxen, deferrable",
    "databricks": "Databricks, durable",
    "databricks_token": "Databricks, durable, idempotency_token",
    "databricks_deferrable": "Databricks, deferrable",
    "dbt_cloud": "dbt Cloud",
    "dbt_cloud_reuse": "dbt Cloud, reuse_existing_run",
    "dbt_cloud_deferrable": "dbt Cloud, deferrable",
}
#: What is done to a task.
MOMENTS = {
    "polling": "killed while it polls",
    "response": "killed after the response, before the id is stored",
    "deferring": "killed before it is deferred",
    "resuming": "killed when it is resumed",
    "lost": "the response is lost",
}
_ON_A_WORKER, _DEFERRABLE = ("polling", "response", "lost"), ("response", "deferring", "resuming", "lost")
#: Airflow runs a task again if a deferral comes back before its scheduler has seen the worker end
#: (apache/airflow#71580).
_DEFERRED_SECONDS = 12.0
#: How many tasks run at the same time: Airflow's database is SQLite.
_SIDE_BY_SIDE = 6
_DAGS = Path(__file__).parent / "starting_dags"
_UNKNOWN = "Not known whether an evaluation was started"
#: How long all tasks together may take, in seconds.
_PATIENCE = 330.0


@dataclass(frozen=True, slots=True)
class Start:
    """
    What was seen of one task.

    :param way: the id of its DAG.
    :param moment: what was done to it.
    :param requests: requests to start a job that reached the server.
    :param started: jobs that the server started for it.
    :param attempts: how many attempts it had.
    :param state: its state in the end.
    :param says_unknown: its log says that it is not known whether one was started.
    """

    way: str
    moment: str
    requests: int
    started: int
    attempts: int
    state: str
    says_unknown: bool


def run(*, short: bool, report: Report) -> dict[str, Any]:
    """
    Start the jobs, and kill their tasks.

    :param short: one moment alone, and one way for each provider.
    :param report: called with what is being done.
    :return: ``ways`` and ``moments``: their names; ``starts``: each as :class:`Start` has it; ``played_again``: how
        many cells Airflow failed before their moment.
    """
    if short:
        cells = [(way, "response") for way in ("oxen_deferrable", "databricks", "dbt_cloud")]
    else:
        cells = [
            (way, moment) for way in WAYS for moment in (_DEFERRABLE if way.endswith("deferrable") else _ON_A_WORKER)
        ]
    with ExitStack() as stack:
        report("starting Airflow")
        lab = _Lab(stack)
        report(f"{len(cells)} tasks")
        starts = lab.run(cells, report)
    own = [start for start in starts if start.way.startswith("oxen")]
    targets = [
        Target("evaluations started for one task, at most", 1, max(start.started for start in own)),
        Target(
            "tasks that failed and do not say that the start is not known",
            0,
            sum(start.state != "success" and not start.says_unknown for start in own),
        ),
    ]
    ways, moments = {start.way for start in starts}, {start.moment for start in starts}
    return {
        "ways": {way: name for way, name in WAYS.items() if way in ways},
        "moments": {moment: name for moment, name in MOMENTS.items() if moment in moments},
        "starts": [asdict(start) for start in starts],
        "played_again": lab.played_again,
        "targets": [target.plain() for target in targets],
    }


class _Server(Protocol):
    """Where jobs are started; a job is known by its number."""

    def requests(self, job: str) -> int: ...

    def started(self, job: str) -> Sequence[str]: ...

    def polls(self, run_id: str) -> int: ...

    def end(self, run_id: str) -> None: ...


class _Hub:
    """A local hub as such a server: an evaluation has the number of its job for a name."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub = hub

    def requests(self, job: str) -> int:
        return sum(json.loads(request.body)["name"] == job for request in list(self._hub.start_requests))

    def started(self, job: str) -> list[str]:
        return [started.id for started in list(self._hub.started) if started.body["name"] == job]

    def polls(self, run_id: str) -> int:
        return self._hub.requests_for(run_id)

    def end(self, run_id: str) -> None:
        self._hub.add_evaluation(run_id, seconds=0)


class _Jobs:
    """The emulated endpoints as such a server."""

    def __init__(self, servers: JobServers) -> None:
        self._servers = servers

    def requests(self, job: str) -> int:
        return self._servers.requests[job]

    def started(self, job: str) -> list[str]:
        return list(self._servers.started[job])

    def polls(self, run_id: str) -> int:
        return self._servers.polls[run_id]

    def end(self, run_id: str) -> None:
        self._servers.end(run_id)


@dataclass(slots=True)
class _Cell:
    """One task: kills its first attempt at the moment, and lets its jobs end."""

    way: str
    moment: str
    job: str
    server: _Server
    folder: Path
    is_killed: bool = False
    ended: set[str] = field(default_factory=set)
    _polls_before: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _since: dict[str, float] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return f"{self.way}.{self.moment}.{self.job}"

    @property
    def is_missed(self) -> bool:
        """Check whether its moment did not come: if it has ended, Airflow failed its first attempt before."""
        return self.moment != "lost" and not self.is_killed

    def step(self) -> None:
        """Do what it is time for."""
        if self.is_missed and self._may_be_killed():
            os.kill(int((self.folder / f"{self.run_id}.attempt-1").read_text()), signal.SIGKILL)
            self.is_killed = True
        if not self._may_end():
            return
        if not self._since and not self._polls_before and self.moment not in ("lost", "resuming"):
            # Only polls of the attempt that follows count.
            self._polls_before |= {run_id: self.server.polls(run_id) for run_id in self.server.started(self.job)}
        for run_id in self.server.started(self.job):
            polls = self.server.polls(run_id) - self._polls_before[run_id]
            if polls and run_id not in self._since:
                self._since[run_id] = time.monotonic()
            least = _DEFERRED_SECONDS if self.way.endswith("deferrable") else 1.0
            if polls > 1 and run_id not in self.ended and time.monotonic() - self._since[run_id] > least:
                self.server.end(run_id)
                self.ended.add(run_id)

    def _may_be_killed(self) -> bool:
        if self.moment == "polling":
            return any(self.server.polls(run_id) > 1 for run_id in self.server.started(self.job))
        return (self.folder / f"{self.run_id}.stopped").exists()

    def _may_end(self) -> bool:
        """Check whether its jobs may end: when a later attempt polls, or where nothing is killed before they end."""
        return self.moment in ("lost", "resuming") or (self.folder / f"{self.run_id}.attempt-2").exists()


class _Lab:
    """One Airflow, two hubs, and the emulated endpoints."""

    def __init__(self, stack: ExitStack) -> None:
        import trustme

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oxen-bench-")))
        authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        ca_file = str(folder / "ca.pem")
        authority.cert_pem.write_to_path(ca_file)
        hub, losing_hub = (stack.enter_context(LocalHub(tls=tls)) for _ in range(2))
        hub.on_start = losing_hub.on_start = Scenario(seconds=3600)
        losing_hub.start_faults = [Fault(AfterStart(Disconnect(reset=True)))]
        self._servers = stack.enter_context(JobServers(tls))
        self._hub, self._losing_hub, self._jobs = _Hub(hub), _Hub(losing_hub), _Jobs(self._servers)
        self.played_again = 0
        self._folder = folder / "moments"
        self._folder.mkdir()
        address = {"host": "127.0.0.1", "port": self._servers.port}
        verify = {"conn_type": "oxen", "extra": {"verify": ca_file}}
        connections = {
            "OXEN_DEFAULT": {"host": hub.url, "password": hub.api_key, **verify},
            "OXEN_LOSING": {"host": losing_hub.url, "password": losing_hub.api_key, **verify},
            "DATABRICKS_DEFAULT": {"conn_type": "databricks", **address, "password": "an-emulated-token"},
            "DBT_CLOUD_DEFAULT": {"conn_type": "dbt_cloud", "host": f"127.0.0.1:{self._servers.port}"}
            | {"password": "an-emulated-token"},
        }
        env = {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()}
        # Where requests and OpenSSL find certificate authorities; nothing else here uses TLS.
        env |= {"REQUESTS_CA_BUNDLE": ca_file, "SSL_CERT_FILE": ca_file, "BENCH_FOLDER": str(self._folder)}
        # An API server that is busy must not fail tasks.
        env |= {"AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60"}
        self._airflow = stack.enter_context(AirflowStandalone(folder / "airflow", dags=_DAGS, env=env))
        self._airflow.wait_for_dags(set(WAYS))

    def run(self, wanted: Sequence[tuple[str, str]], report: Report) -> list[Start]:
        """Run a task for each way and moment until all have ended."""
        waiting = list(wanted)
        cells: list[_Cell] = []
        running: list[_Cell] = []
        done: list[Start] = []
        next_check, deadline = 0.0, time.monotonic() + _PATIENCE
        while waiting or running:
            if waiting and len(running) < _SIDE_BY_SIDE:
                way, moment = waiting.pop(0)
                cells.append(self._begin(way, moment, str(len(cells) + 1)))
                running.append(cells[-1])
            for cell in running:
                cell.step()
            if time.monotonic() >= next_check:
                next_check = time.monotonic() + 2
                found = self._ask(lambda: self._airflow.get("/dags/~/dagRuns", limit=100))["dag_runs"]
                over = {run["dag_run_id"] for run in found if run["state"] in ("success", "failed")}
                for cell in [cell for cell in running if cell.run_id in over]:
                    running.remove(cell)
                    if cell.is_missed:
                        same = [c for c in cells if (c.way, c.moment) == (cell.way, cell.moment)]
                        self._check_missed(cell, len(same))
                        report(f"{cell.run_id} ended before it could be killed, and is played again")
                        waiting.append((cell.way, cell.moment))
                        continue
                    done.append(self._examine(cell))
                    report(f"{len(done)} of {len(wanted)} tasks have ended")
            if running and time.monotonic() > deadline:
                raise RuntimeError(f"these did not end: {', '.join(cell.run_id for cell in running)}")
            time.sleep(0.1)
        self.played_again = len(cells) - len(wanted)
        return sorted(done, key=lambda start: wanted.index((start.way, start.moment)))

    def _check_missed(self, cell: _Cell, times: int) -> None:
        """Give up if the moment of a task has not come for the third time: this is no accident."""
        if times == 3:
            log = self._ask(lambda: self._airflow.task_log(cell.way, cell.run_id, "job", 1))
            raise RuntimeError(f"{cell.run_id} ended before it could be killed. The log of its first attempt:\n{log}")

    @staticmethod
    def _ask(request: Callable[[], Any]) -> Any:
        """Send a request to Airflow again if it fails: its database, SQLite, may be locked for a moment."""
        tries = 0
        while True:
            try:
                return request()
            except requests.HTTPError as error:
                if error.response.status_code == requests.codes.conflict:
                    return None  # a request that seemed to fail has created the run
                tries += 1
                if tries == 5:
                    raise
            time.sleep(1)

    def _begin(self, way: str, moment: str, job: str) -> _Cell:
        own = way.startswith("oxen")
        losing = own and moment == "lost"
        if moment == "lost":
            self._servers.lose_response(job)
        server: _Server = (self._losing_hub if losing else self._hub) if own else self._jobs
        cell = _Cell(way, moment, job, server, self._folder)
        conf = {"job": job, "moment": moment, "conn_id": "oxen_losing" if losing else "oxen_default"}
        self._ask(lambda: self._airflow.trigger(way, cell.run_id, conf))
        return cell

    def _examine(self, cell: _Cell) -> Start:
        (task,) = self._ask(lambda: self._airflow.task_instances(cell.way, cell.run_id))
        attempts = task["try_number"]
        return Start(
            way=cell.way,
            moment=cell.moment,
            requests=cell.server.requests(cell.job),
            started=len(cell.server.started(cell.job)),
            attempts=attempts,
            state=task["state"],
            says_unknown=task["state"] != "success" and self._says_unknown(cell, attempts),
        )

    def _says_unknown(self, cell: _Cell, attempt: int) -> bool:
        """Read the last attempt's log, whose lines reach it a little late."""
        for _ in range(20):
            with suppress(requests.HTTPError):
                if _UNKNOWN in self._airflow.task_log(cell.way, cell.run_id, "job", attempt):
                    return True
            time.sleep(0.5)
        return False


def _table(results: dict[str, Any], say: Callable[[str], None]) -> None:
    moments = results["moments"]
    cells = {(start["way"], start["moment"]): start for start in results["starts"]}
    for moment, name in moments.items():
        say(f"{moment:12}{name}")
    say(f"{'started for one task':42}" + "".join(f"{moment:>14}" for moment in moments))
    for way, name in results["ways"].items():
        found = [cells.get((way, moment)) for moment in moments]
        texts = [f"{start['started']}, {start['state']}" if start else "-" for start in found]
        say(f"{name:42}" + "".join(f"{text:>14}" for text in texts))


if __name__ == "__main__":
    command_line(run, _table, description=__doc__)
