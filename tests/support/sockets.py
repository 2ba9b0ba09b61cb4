"""Sockets of tests: what raw servers have in common, tunnels, full queues, and how a connection ends."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


class _ServeEach(SocketServer):
    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self._serve_one = serve

    def _serve(self, connection: socket.socket, _: int) -> None:
        self._serve_one(connection)


@contextlib.contextmanager
def serve_each(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hand each connection to a function, in a thread of its own. Gives the port."""
    with _ServeEach(serve) as server:
        yield server.port


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


def relay(client: socket.socket, upstream: socket.socket) -> None:
    """Pass on what both sides send, until both have ended."""
    back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
    back.start()
    _pump(client, upstream)
    back.join(10)


def relay_to(target: bytes | str, client: socket.socket) -> None:
    """As :func:`relay`, to a new connection to a CONNECT request's target, ``host:port``."""
    host, port = (target.decode() if isinstance(target, bytes) else target).rsplit(":", 1)
    with socket.create_connection((host, int(port))) as upstream:
        relay(client, upstream)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            sink.sendall(chunk)
    if not isinstance(sink, ssl.SSLSocket):  # whose shutdown ends TLS in both directions
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def full_queue(address: str = "127.0.0.1", port: int = 0, *, fillers: int = 4) -> Iterator[socket.socket]:
    """
    Listen at an address whose queue of connections is full, so that it drops packets, as a firewall does.

    It needs no rights, and no network beyond this machine.

    :return: the listener. Who accepts its connections makes room in the queue.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(fillers):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        time.sleep(0.1)  # until the kernel has seen them all
        yield listener
