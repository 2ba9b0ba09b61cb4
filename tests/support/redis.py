"""A Redis server of its own for tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from demo.standalone import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: How long Redis may take to start or to stop, in seconds. It takes less than one.
_LIMIT_SECONDS = 60.0


class RedisServer:
    """
    A Redis that keeps its data when it is restarted, on a free port of the loopback interface.

    :param folder: where its data and its log are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of its first database."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Run it in a process group of its own, and return once it responds."""
        command = shutil.which("redis-server")
        assert command is not None, "Redis is needed: `make .venv/.cluster` installs it"
        options = {"--bind": "127.0.0.1", "--port": str(self._port), "--dir": str(self._folder), "--save": "60 1"}
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [command, *(text for option in options.items() for text in option)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not self._responds():
            assert time.monotonic() < deadline, (self._folder / "redis.log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it; it saves its data first."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(_LIMIT_SECONDS)
                return
        process.wait()

    def _responds(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run a server with its data in a folder."""
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
