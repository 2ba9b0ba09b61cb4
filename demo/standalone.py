"""
A real Airflow on this machine: ``airflow standalone``, or its processes one by one.

It keeps all its files in one folder and listens on free ports of the loopback interface. Each command runs in a session
of its own, which is stopped as a whole: in it, each task has a process group of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

#: Variables that Airflow must not get: settings of another Airflow, and one that makes each process compile modules.
_NOT_INHERITED = ("AIRFLOW_", "PYTHONDONTWRITEBYTECODE")
#: How long Airflow may take to start, in seconds. It takes about 20 on two cores, and many times that on busy ones.
START_LIMIT_SECONDS = 400.0
#: How long Airflow may take for one response, in seconds. It takes far less than one, unless the machine is busy.
RESPONSE_LIMIT_SECONDS = 60.0


class AirflowStandalone:
    """
    A context manager: Airflow runs from ``__enter__`` to ``__exit__``.

    :param home: folder for its database, logs and configuration; created if it is missing.
    :param dags: folder of the DAG files.
    :param env: environment variables to add, connections for instance.
    :param commands: arguments of the ``airflow`` commands to run at the same time, each under a name; None: only
        ``standalone``.
    """

    _api = "/api/v2"
    _health = "/api/v2/monitor/health"
    #: How long it may take to stop before it is killed, in seconds. Its data is not needed afterwards.
    _stop_limit_seconds = 4.0
    _parts: tuple[str, ...] = ("metadatabase", "scheduler", "triggerer", "dag_processor")

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        env: Mapping[str, str] | None = None,
        commands: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.home = home.resolve()
        self.port, worker_log_port, trigger_log_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags.resolve()),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_log_port),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_log_port),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # Airflow's 5 s are too little on a busy machine: a task fails whose request takes longer.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": f"{RESPONSE_LIMIT_SECONDS:g}",
            **(env or {}),
        }
        self._commands = dict(commands or {"standalone": ("standalone",)})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        #: Which parts of Airflow have been seen running.
        self.healthy: set[str] = set()
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def login(self) -> tuple[str, str]:
        """User name and password for the UI, which Airflow generates."""
        text = (self.home / "simple_auth_manager_passwords.json.generated").read_text()
        return next(iter(json.loads(text).items()))

    @property
    def ended(self) -> list[str]:
        """The commands that have ended, although Airflow should run."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def __enter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            for name in self._commands:
                self.start(name)
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str) -> None:
        """Run one of the commands in a session of its own. Its output goes to ``<name>.log``."""
        with (self.home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *self._commands[name]],
                env=self._env_of(name),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _env_of(self, name: str) -> dict[str, str]:  # noqa: ARG002
        """Return the environment variables of a command."""
        return self.env

    def kill(self, name: str) -> None:
        """Kill a command and all processes it started with SIGKILL, as if the machine had lost its power."""
        process = self._processes.pop(name)
        _signal_session(process, signal.SIGKILL)
        process.wait()

    def restart_if_ended(self, name: str) -> None:
        """Run a command again if it has ended, as a process supervisor does in production."""
        if self._processes[name].poll() is not None:
            self.start(name)

    def stop(self) -> None:
        """Stop all processes of Airflow. Kill those that do not stop in time."""
        self._session.close()
        processes, self._processes = list(self._processes.values()), {}
        with _signals_ignored():
            _stop_sessions(processes, self._stop_limit_seconds)

    def get(self, path: str, **params: Any) -> Any:
        """Send a GET request to Airflow's REST API, and return the JSON of the response."""
        return self._call("GET", path, params=params)

    def get_ui(self, path: str) -> Any:
        """Send a GET request to the API that Airflow's web pages use."""
        response = self._session.get(f"{self.url}/ui{path}", timeout=RESPONSE_LIMIT_SECONDS)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a POST request to Airflow's REST API."""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a PATCH request to Airflow's REST API."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """Send a DELETE request to Airflow's REST API."""
        self._call("DELETE", path)

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run of a DAG."""
        self.post(f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})})

    def wait_for_dags(self, dag_ids: set[str], *, limit_seconds: float = 300.0) -> None:
        """Wait until Airflow has parsed these DAGs. A DAG file that cannot be imported is an error."""

        def parsed() -> bool:
            if errors := self.get("/importErrors")["import_errors"]:
                raise RuntimeError(errors[0]["stack_trace"])
            return dag_ids <= {dag["dag_id"] for dag in self.get("/dags", limit=100)["dags"]}

        if not _wait_until(parsed, limit_seconds):
            raise RuntimeError(f"Airflow did not parse these DAGs in time: {', '.join(sorted(dag_ids))}")

    def wait_for_run(self, dag_id: str, run_id: str, *, limit_seconds: float = 200.0) -> str:
        """Wait until a run has ended, and return its state."""
        state = "not known"

        def ended() -> bool:
            nonlocal state
            state = self.run_state(dag_id, run_id)
            return state in ("success", "failed")

        if not _wait_until(ended, limit_seconds):
            states = {task["task_id"]: task["state"] for task in self.task_instances(dag_id, run_id)}
            raise TimeoutError(f"run {run_id} of {dag_id} is still {state}; its tasks: {states}")
        return state

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.get(f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run. A mapped task has one for each index."""
        response = self.get(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
        found: list[dict[str, Any]] = response["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom; None if there is none."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            value = self.get(path, map_index=map_index, deserialize=True)["value"]
        except requests.HTTPError as error:
            if error.response.status_code == requests.codes.not_found:
                return None
            raise
        return value

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return a task's log as the UI shows it: the lines of the worker and of the triggerer."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.get(path, map_index=map_index, full_content=True)["content"]
        return "\n".join(_log_line(entry) for entry in content)

    def _wait_until_healthy(self) -> None:
        if _wait_until(lambda: bool(self.ended) or self._is_healthy(), START_LIMIT_SECONDS) and not self.ended:
            return
        raise RuntimeError(f"Airflow did not start. {self.ends_of_logs(self._commands)}")

    def ends_of_logs(self, names: Iterable[str]) -> str:
        """Return the last lines that these commands have written."""
        logs = [self.home / f"{name}.log" for name in names]
        return "\n".join(
            f"The end of {log}:\n{log.read_text(errors='replace')[-3000:]}" for log in logs if log.exists()
        )

    def _is_healthy(self) -> bool:
        """Check whether all parts run, and log in once they do. Before that, anything may be missing."""
        with contextlib.suppress(requests.RequestException, FileNotFoundError, KeyError, ValueError):
            health = self._session.get(f"{self.url}{self._health}", timeout=RESPONSE_LIMIT_SECONDS).json()
            self.healthy = {part for part in self._parts if health[part]["status"] == "healthy"}
            if len(self.healthy) == len(self._parts):
                self._log_in()
                return True
        return False

    def _log_in(self) -> None:
        name, password = self.login
        body = {"username": name, "password": password}
        response = self._session.post(f"{self.url}/auth/token", json=body, timeout=RESPONSE_LIMIT_SECONDS)
        response.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def _call(self, method: str, path: str, **named: Any) -> Any:
        headers = {"Accept": "application/json"}
        response = self._session.request(
            method, f"{self.url}{self._api}{path}", headers=headers, timeout=RESPONSE_LIMIT_SECONDS, **named
        )
        if not response.ok:
            raise requests.HTTPError(f"{response.status_code} {response.text[:500]}", response=response)
        return response.json() if response.content else None


def _wait_until(reached: Callable[[], bool], limit_seconds: float) -> bool:
    """
    Wait until something of Airflow holds, however slow its responses are on a busy machine.

    :return: whether it held within the limit.
    """
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError, requests.Timeout):
            if reached():
                return True
        time.sleep(0.3)
    return False


def _log_line(entry: str | dict[str, Any]) -> str:
    """Format an entry of a task's log as text: the message, then its exceptions."""
    if isinstance(entry, str):
        return entry
    details = entry.get("error_detail") or []
    return "\n".join([str(entry.get("event", "")), *(f"{d['exc_type']}: {d['exc_value']}" for d in details)])


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [found.getsockname()[1] for found in sockets]


def _find_session(process: subprocess.Popen[bytes]) -> list[int]:
    """Find the processes of a session by its first process, which may have ended."""
    process.poll()  # removes a zombie, which would count as alive
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):  # it has ended, or may not be asked
            if os.getsid(pid) == process.pid:
                found.append(pid)
    return found


def _signal_session(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    for pid in _find_session(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stop_sessions(processes: list[subprocess.Popen[bytes]], limit_seconds: float) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            _signal_session(process, number)
        deadline = time.monotonic() + limit_seconds
        while time.monotonic() < deadline and any(_find_session(process) for process in processes):
            time.sleep(0.1)
    for process in processes:
        process.wait()


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Ignore signals while processes are stopped, so that none of them is left running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
