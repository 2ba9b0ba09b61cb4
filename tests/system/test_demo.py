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


def test_demo_shows_each_gate_and_stays_up_where_asked(start: list[subprocess.Popen[str]]) -> None:
    """Each gate ends as it should; with KEEP the UI accepts the login that is printed; then all is stopped."""
    process = _demo(start, "--keep")
    text = ""
    for line in process.stdout:
        text += line
        if "Ctrl-C ends it" in line:
            break
    address, name, password = re.search(r"stays up at (\S+) \(user (\S+), password (\S+)\)", text).groups()

    assert text.count("│ yes ") == 8, text
    assert text.count("│ once ") == 2, text
    assert re.search(r"process \d+ of the task label was killed", text), text
    words = " ".join(text.split())
    assert "accuracy: the evaluation completed, but the gate stays closed. Condition not met: intent = label" in words
    assert "holds for 840 of 1,000 rows (84 %), at least 95 % are needed." in words
    login = requests.post(f"{address}/auth/token", json={"username": name, "password": password}, timeout=10)
    assert login.status_code == 201
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
