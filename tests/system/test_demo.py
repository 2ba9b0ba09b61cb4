"""``make demo``, as a person runs it: to its end, kept up, and interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import requests

from demo.runs import all_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect what a test starts, and end it whatever happens."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        process.stdout.close()


def _demo(started: list[subprocess.Popen[str]], *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def _left_over() -> list[str]:
    """Find the processes of the demonstration's Airflow."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("AIRFLOW_HOME") == str(ROOT / ".demo") and process.status() != "zombie":
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_demo_runs_each_example_and_stays_up_where_asked(start: list[subprocess.Popen[str]]) -> None:
    """
    Each run ends as it should. The login is the first thing that is shown, and with KEEP the UI accepts it.

    The command that is shown to try next begins one more run. Then all is stopped.
    """
    process = _demo(start, "--keep")
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("Watch it at"):
            break
    first = text.splitlines()[0]
    address, name, password = re.search(r"\[ .. s\] Airflow: (\S+) \(user (\S+), password (\S+)\)", first).groups()
    words = " ".join(text.split())

    assert len(re.findall(r" yes *$", text, re.MULTILINE)) == len(all_runs()), text
    for run in all_runs():
        assert re.search(rf"^\[ *\d+ s\] {run.name} \({run.dag_id}\): ", text, re.MULTILINE), text
    assert re.search(r"worker-killed: process \d+ of the task label was killed", text), text
    assert "hub counted: 1." in text
    assert (
        "84-percent-closed: the evaluation completed, but the gate stays closed. Condition not met: intent = label "
        "holds for 840 of 1,000 rows (84 %), at least 95 % are needed." in words
    )
    assert "intent = label: 97%" in words
    assert "Its error: the model returned no answer for row 601" in words
    login = requests.post(f"{address}/auth/token", json={"username": name, "password": password}, timeout=60)
    assert login.status_code == 201
    command = re.search(r"Try next, in another shell: (.+)", text)[1]
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=120, capture_output=True)
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    runs = requests.get(f"{address}/api/v2/dags/example_oxen_gate/dagRuns", headers=headers, timeout=60).json()[
        "dag_runs"
    ]
    assert {"evaluation_id": "completed-60s"} in [run["conf"] for run in runs]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert _left_over() == []


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=str)
def test_interrupted_demo_leaves_nothing_running(
    start: list[subprocess.Popen[str]], numbers: list[signal.Signals]
) -> None:
    """However it is interrupted, even twice, while Airflow starts, everything it started is stopped."""
    process = _demo(start)
    deadline = time.monotonic() + 180
    while len(_left_over()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.2)

    for number in numbers:
        process.send_signal(number)
        time.sleep(0.5)

    assert process.wait(60) == 130
    assert _left_over() == []
