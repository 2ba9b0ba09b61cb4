"""What ``make`` shows while it installs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def step(command: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(ROOT / "demo/step.py"), "Installing it, about 10 s", command]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_step_of_make_says_how_long_it_took() -> None:
    """What the command writes is not shown if all is well."""
    done = step("echo noise")

    assert done.returncode == 0
    assert re.fullmatch(r"Installing it, about 10 s \.\.\.\n\.\.\. done after \d+ s\n", done.stdout)


def test_step_of_make_that_fails_shows_why() -> None:
    """Its exit code is the command's."""
    failed = step("echo no network >&2; exit 3")

    assert failed.returncode == 3
    assert re.search(r"\.\.\. failed after \d+ s\nno network", failed.stdout)


def test_make_shows_its_install_steps() -> None:
    """What takes long before the demonstration says what it does, and for about how long."""
    command = ["make", "-n", "-B", "demo"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    steps = re.findall(r'demo/step.py "(.+?)"', shown)
    assert len(steps) == 2
    assert all(re.search(r"^Only the first time: .* \d+ s", step) for step in steps)
