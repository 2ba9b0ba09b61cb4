"""Servers on raw sockets: what they have in common; and how a client sees a connection end."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self


class SocketServer(ABC):
    """Accepts connections on a free port, and serves each in a thread of its own, while its context lasts."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.connections = 0
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family, backlog=64)
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection, self.connections - 1), daemon=True).start()

    @abstractmethod
    def _serve(self, connection: socket.socket, index: int) -> None:
        """Serve one connection. ``index`` counts from 0."""


def read_to_end(client: socket.socket) -> tuple[bytes, str]:
    """
    Read until the other side ends the connection, or the socket's timeout is over.

    :return: what came, and how it ended: ``closed``, ``reset``, or ``open`` if nothing came for the timeout.
    """
    received = b""
    while True:
        try:
            piece = client.recv(65_536)
        except TimeoutError:
            return received, "open"
        except ConnectionResetError:
            return received, "reset"
        if not piece:
            return received, "closed"
        received += piece
