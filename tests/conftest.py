"""What all tests share: an Airflow that belongs to the tests alone, and a network that ends at this machine."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import tempfile
from importlib.metadata import version
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import HealthCheck, settings
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Airflow reads its configuration when it is first imported.
for _name in [name for name in os.environ if name.startswith("AIRFLOW_") or name.lower().endswith("_proxy")]:
    del os.environ[_name]
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-provider-oxen-tests-")
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "True"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
if version("apache-airflow").startswith("2."):  # whose default for tests does not go with SQLite
    os.environ["AIRFLOW__CORE__EXECUTOR"] = "SequentialExecutor"
os.environ["AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY"] = "True"  # Airflow 2 warns where it is not set

# Else pytest-asyncio asks for a loop, which older Pythons then make, and which nothing closes.
asyncio.set_event_loop(None)

# How long an example takes says how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """
    End on SIGTERM as on Ctrl-C, with all fixtures taken down: none leaves an Airflow behind.

    A terminal sends Ctrl-C to the processes of pytest-xdist, too. SIGTERM has to be sent on to them.

    Old versions of aiohttp leave a proxy's tunnel to the garbage collector, which closes it with a warning.
    """
    has_processes = bool(config.getoption("numprocesses", None))

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        for process in psutil.Process().children() if has_processes else ():
            process.terminate()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if Version(version("aiohttp")) < Version("3.12.15"):
        for owner in ("function _(Selector|SSLProtocol)Transport", "socket.socket"):
            ignored = f"ignore:Exception ignored in. .{owner}:pytest.PytestUnraisableExceptionWarning"
            config.addinivalue_line("filterwarnings", ignored)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that connects to anything but this machine."""
    connect = socket.socket.connect

    def checked(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else "localhost"
        assert host.startswith("127.") or host in ("::1", "localhost"), f"a test connects to {host}"
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", checked)


@pytest.fixture(autouse=True)
def _left_behind() -> Iterator[None]:
    """Collect the garbage of each test at its end: what it left open is then reported of it, not of a later test."""
    gc.freeze()  # what is there already, which is most, need not be looked through
    yield
    gc.collect()
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def _left_behind_by_module() -> Iterator[None]:
    """Collect at a module's end what was there before its tests began, and is not needed any more."""
    yield
    gc.collect()
