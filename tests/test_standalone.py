"""The Airflow that demonstration and tests start: it is waited for with patience, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from demo import standalone
from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
#: A test that a kill ends while its Airflow starts.
STARTS_AIRFLOW = """
from pathlib import Path
from demo.standalone import AirflowStandalone

def test_that_is_killed():
    home = Path(__file__).parent / "home"
    with AirflowStandalone(home, dags=home):
        raise AssertionError("started before it was killed")
"""


class SlowAirflow(AirflowStandalone):
    """An Airflow whose processes do as they are told: nothing but to live, or to end at once."""

    program = "import time; time.sleep(60)"

    def start(self, name: str) -> None:
        self._processes[name] = subprocess.Popen([sys.executable, "-c", self.program], start_new_session=True)


@contextmanager
def api_server(port: int, seconds: list[float]) -> Iterator[None]:
    """Respond on a port as Airflow does, the first times after so many seconds each."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            released.wait(seconds.pop(0) if seconds else 0)
            names = ("metadatabase", "scheduler", "triggerer", "dag_processor")
            self._respond(json.dumps({name: {"status": "healthy"} for name in names}))

        def do_POST(self) -> None:
            self._respond('{"access_token": "token"}')

        def _respond(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """Say nothing of clients that have gone."""

    with Server(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            released.set()
            server.shutdown()
            thread.join()


def test_slow_airflow_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A health check that takes too long is made again, within the limit for the whole start."""
    monkeypatch.setattr(standalone, "RESPONSE_LIMIT_SECONDS", 0.2)
    airflow = SlowAirflow(tmp_path, dags=tmp_path)
    (tmp_path / "simple_auth_manager_passwords.json.generated").write_text('{"admin": "password"}')
    slow = [30.0, 30.0]

    with api_server(airflow.port, slow), airflow:
        assert slow == []


def test_wait_for_airflow_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow that never responds is stopped at the limit, and the error says so."""
    monkeypatch.setattr(standalone, "RESPONSE_LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(standalone, "START_LIMIT_SECONDS", 1.0)
    airflow = SlowAirflow(tmp_path, dags=tmp_path)

    with api_server(airflow.port, [30.0] * 9), pytest.raises(RuntimeError, match="Airflow did not start"), airflow:
        raise AssertionError("started")


def test_airflow_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    """Where a process ends, the start has failed, at once."""
    airflow = SlowAirflow(tmp_path, dags=tmp_path)
    airflow.program = ""

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="Airflow did not start"), airflow:
        raise AssertionError("started")
    assert time.monotonic() - began < 30


def test_slow_response_does_not_end_the_wait_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes too long is sent again while a run is waited for."""
    monkeypatch.setattr(standalone, "RESPONSE_LIMIT_SECONDS", 0.2)
    airflow = AirflowStandalone(tmp_path, dags=tmp_path)
    responses = iter(["running", "success"])
    monkeypatch.setattr(airflow, "run_state", lambda *_: (airflow.get("/any"), next(responses))[1])
    slow = [30.0]

    with api_server(airflow.port, slow):
        assert airflow.wait_for_run("dag", "run", limit_seconds=30) == "success"
    assert slow == []


@pytest.mark.parametrize("done", ["stopped", "killed"])
def test_tasks_end_with_airflow(tmp_path: Path, done: str) -> None:
    """A task, which Airflow runs in a process group of its own, ends with the command that runs it."""
    file = tmp_path / "task"

    class AirflowWithTask(SlowAirflow):
        program = f"""
import subprocess, sys, time
task = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
open({str(file)!r} + ".part", "w").write(str(task.pid))
__import__("os").rename({str(file)!r} + ".part", {str(file)!r})
time.sleep(60)
"""

    airflow = AirflowWithTask(tmp_path, dags=tmp_path)
    try:
        airflow.start("standalone")
        while not file.exists():
            time.sleep(0.05)
        task = psutil.Process(int(file.read_text()))
        if done == "killed":
            airflow.kill("standalone")
    finally:
        airflow.stop()

    deadline = time.monotonic() + 10
    with suppress(psutil.NoSuchProcess):
        while task.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.alone  # a worker of pytest-xdist that is terminated itself takes no fixtures down
@pytest.mark.timeout(200)
def test_pytest_that_is_terminated_leaves_no_airflow(tmp_path: Path) -> None:
    """SIGTERM ends pytest as Ctrl-C does: the Airflow that a test started is stopped."""
    file = tmp_path / "test_killed.py"
    file.write_text(STARTS_AIRFLOW)
    home = str(tmp_path / "home")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", str(file)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not _processes_of(home):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)

        process.send_signal(signal.SIGTERM)

        printed = process.communicate(timeout=60)[0]
    left = _processes_of(home)
    for found in left:
        found.kill()
    assert left == []
    assert process.returncode == pytest.ExitCode.INTERRUPTED, printed


def _processes_of(home: str) -> list[psutil.Process]:
    """Find the processes of an Airflow."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
