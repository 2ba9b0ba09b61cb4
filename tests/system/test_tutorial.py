"""
The tutorial, followed to the letter on a machine that has nothing but Python.

Files are saved and commands typed as the page says, in as many terminals as it says, and what a command prints is
compared with what the page shows, where an ellipsis stands for anything. What is seen in a browser there is asked
by command here. Three things differ: this package comes from a wheel built here, ``pip`` is uv, which has the other
packages at hand, and ports are free ones. With ``TUTORIAL_PIP=1``, pip is pip.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_oxen.testing import LocalHub
from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/tutorial.md").read_text()
WITH_PIP = "TUTORIAL_PIP" in os.environ
#: How long a command may take, and how long it is repeated where the page says so, in seconds.
LIMIT_SECONDS = 600.0 if WITH_PIP else 300.0
HUB_PORT = "8765"


@dataclass
class Step:
    """A block of the page: a file to save, or commands to type and what they print."""

    language: str
    text: str
    before: str  # what the page says since the last block

    @property
    def file(self) -> str | None:
        named = re.search(r"Save this as `([^`]+)`", self.before)
        return named[1] if named else None

    @property
    def terminal(self) -> str:
        named = re.search(r"in a (second|third) terminal", self.before, re.IGNORECASE)
        return named[1] if named else "first"

    @property
    def repeats(self) -> bool:
        return bool(re.search(r"\brepeat (this|it)\b", self.before, re.IGNORECASE))

    @property
    def is_for_now(self) -> bool:
        """Whether it stands in for another step, as long as the package index does not have this package."""
        return "until the first release" in self.before.lower()

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Each command, and a pattern of what it prints."""
        found = []
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            words = r"\s+".join(re.escape(word) for word in printed.split())
            found.append((command, re.sub(r"(\\s\+)?…(\\s\+)?", ".*", words)))
        return found


def steps(page: str) -> list[Step]:
    """Cut the page into what there is to do."""
    found, end = [], 0
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        found.append(Step(match[1], match[2], page[end : match.start()]))
        end = match.end()
    return found


class Terminal:
    """A shell that is typed into."""

    def __init__(self, folder: Path, env: dict[str, str], log: Path) -> None:
        self._log = log
        self._typed = 0
        with log.open("wb") as screen:
            self._shell = subprocess.Popen(
                ["/bin/bash", "--noprofile", "--norc"],
                cwd=folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, command: str, expected: str, *, lasts: bool) -> str | None:
        """
        Type a command.

        :param lasts: whether it goes on when it has printed what was expected.
        :return: None where that was printed, and the command ended well; otherwise what was on the screen.
        """
        begin, self._typed = self._log.stat().st_size, self._typed + 1
        self._shell.stdin.write(f"{command}\necho end of {self._typed}: $?\n".encode())
        self._shell.stdin.flush()
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            printed = self._log.read_bytes()[begin:].decode(errors="replace")
            ended = re.search(rf"^end of {self._typed}: (\d+)$", printed, re.MULTILINE)
            good = re.search(expected, printed, re.DOTALL)
            if good and (lasts or (ended and ended[1] == "0")):
                return None
            if ended:
                break
            time.sleep(0.1)
        return f"$ {command}\n{printed}\nThe page shows: {expected}"

    def close(self) -> None:
        """Press Ctrl-C, then close the window."""
        self._shell.stdin.close()  # so that it ends with the command
        for number, seconds in ((signal.SIGINT, 5.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + seconds
            try:
                os.killpg(self._shell.pid, number)
                while time.monotonic() < deadline:
                    self._shell.poll()
                    os.killpg(self._shell.pid, 0)
                    time.sleep(0.1)
            except ProcessLookupError:
                break
        self._shell.wait()


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The environment of a login, where this package can be installed from a wheel and free ports are used."""
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "build", "--wheel", "--installer", "uv", "--outdir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    ports = AirflowStandalone(tmp_path, dags=tmp_path).env
    cache = subprocess.check_output([Path(sys.executable).parent / "uv", "cache", "dir"], text=True).strip()
    return {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW_", "PYTHON", "PYTEST", "VIRTUAL_ENV"))
        },
        **{name: value for name, value in ports.items() if re.match(r"AIRFLOW_.*_(PORT|URL)$", name)},
        "HOME": str(tmp_path),
        "PATH": f"{sys.base_prefix}/bin{os.pathsep}{os.environ['PATH']}",
        "PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {wheels}",
        "UV_CACHE_DIR": cache,  # found in HOME otherwise, which is a new one
        "UV_FIND_LINKS": str(wheels),
    }


@pytest.fixture
def terminals(tmp_path: Path, env: dict[str, str]) -> Iterator[dict[str, Terminal]]:
    """The terminals that the page uses. The second and third are opened in the folder that it makes in the first."""
    opened: dict[str, Terminal] = {"first": Terminal(tmp_path, env, tmp_path / "first.txt")}
    if not WITH_PIP:
        uv = Path(sys.executable).parent / "uv"
        assert opened["first"].run(f'pip() {{ "{uv}" pip "$@"; }}', "", lasts=False) is None
    yield opened
    for terminal in opened.values():
        terminal.close()


def test_tutorial_works_to_the_letter(terminals: dict[str, Terminal], env: dict[str, str], tmp_path: Path) -> None:
    """Each command of the page ends well and prints what the page shows."""
    with LocalHub() as hub:  # its port is free afterwards
        port = str(hub.port)
    page = PAGE[: PAGE.index("## With your account")].replace(HUB_PORT, port)
    folder = tmp_path / "gates"
    todo = [step for step in steps(page) if not step.is_for_now]

    for step in todo:
        if step.file:
            (folder / step.file).write_text(step.text)
            continue
        assert step.language == "console"
        if step.terminal not in terminals:
            terminals[step.terminal] = Terminal(folder, env, tmp_path / f"{step.terminal}.txt")
        for command, expected in step.commands:
            lasts = step.terminal != "first" and bool(expected)
            _type(terminals[step.terminal], command, expected, lasts=lasts, repeats=step.repeats)

    for state in ("success", "failed"):  # as the squares in the browser show
        command = f"airflow dags list-runs first_gate --state {state} --output plain"
        _type(terminals["first"], command, rf"first_gate\s.*\s{state}\s", repeats=True)
    assert [step.file for step in todo if step.file] == ["settings.sh", "airflow/dags/first_gate.py"]
    assert set(terminals) == {"first", "second", "third"}


def _type(terminal: Terminal, command: str, expected: str, *, lasts: bool = False, repeats: bool) -> None:
    """Type a command, again and again where that is allowed, until it prints what is expected."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while problem := terminal.run(command, expected, lasts=lasts):
        assert repeats, problem
        assert time.monotonic() < deadline, problem
        time.sleep(0.5)
