"""
How connections are made: the TLS settings of both transports, and what the one on threads lacks beside the other.

1. A host name may have several addresses, one of which may drop packets. The next is tried after
   ``NEXT_ADDRESS_SECONDS``, and the first that accepts is used (RFC 8305, "Happy Eyeballs").
2. Informational responses (1xx) may come before the response. http.client skips only 100.
3. A response that is cut off in its headers, or is not HTTP, is refused. http.client takes what came for the whole.
"""

from __future__ import annotations

import http.client
import re
import selectors
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import OxenConfigError

if TYPE_CHECKING:
    import ssl

__all__ = ["NEXT_ADDRESS_SECONDS", "adapt_connections", "connect_to_first", "is_lost_before_response", "ssl_context"]

#: How long an address has before the next is tried as well. RFC 8305 recommends it, and aiohttp has it.
NEXT_ADDRESS_SECONDS = 0.25

#: http.client's own limit, in bytes.
_MAX_LINE = 65_536


def connect_to_first(
    host: str, port: int, *, timeout: float, socket_options: Iterable[tuple[Any, ...]] = ()
) -> socket.socket:
    """
    Connect to the first address of a host that accepts.

    :param timeout: for all addresses together, in seconds; then also the socket's.
    :raises TimeoutError: none accepted in time.
    :raises OSError: each refused, with the last reason; or the name does not resolve.
    """
    give_up_at_monotonic = time.monotonic() + timeout
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError = TimeoutError()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        while addresses or selector.get_map():
            next_at_monotonic = time.monotonic() + NEXT_ADDRESS_SECONDS
            if addresses:
                family, kind, protocol, _, address = addresses.pop(0)
                try:
                    sock = stack.enter_context(socket.socket(family, kind, protocol))
                    for option in socket_options:
                        sock.setsockopt(*option)
                    sock.setblocking(False)
                    sock.connect(address)
                except BlockingIOError:
                    pass
                except OSError as error:
                    failure = error
                    continue
                selector.register(sock, selectors.EVENT_WRITE)
            while selector.get_map():
                limit = min(next_at_monotonic, give_up_at_monotonic) if addresses else give_up_at_monotonic
                ready = selector.select(max(0.0, limit - time.monotonic()))
                if not ready and time.monotonic() >= give_up_at_monotonic:
                    raise TimeoutError
                for key, _ in ready:
                    connected: Any = key.fileobj
                    selector.unregister(connected)
                    code = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        return _keep(connected, timeout)
                    failure = _connection_error(code)
                if not ready or addresses:
                    break
    raise failure


def _keep(connected: socket.socket, timeout: float) -> socket.socket:
    """Take a socket from those that are closed on leaving."""
    kept = socket.socket(fileno=connected.detach())
    kept.settimeout(timeout)
    return kept


def _connection_error(code: int) -> OSError:
    import os

    return OSError(code, os.strerror(code))


#: A status line; HTTP/2.0 is what some servers write though they speak HTTP/1.1.
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]|2\.0) (\d{3})(?: [^\r\n]*)?\r?\n")
#: A header, what continues one on the next line, or the empty line after the last.
_HEADER_LINE = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:|[ \t])[^\0\r\n]*\r?\n|\r?\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*|;[^\r\n]*)\r\n")
_LENGTH = re.compile(r"[0-9]{1,18}")
#: Empty lines before a response, which a server may leave after the one before it.
_MAX_EMPTY_LINES = 8


def ssl_context(config: ClientConfig) -> ssl.SSLContext:
    """Make the TLS settings of both transports: the machine's own CAs, unless the connection names a CA file."""
    import ssl

    if isinstance(config.verify, str):
        try:
            return ssl.create_default_context(cafile=config.verify)
        except OSError as error:  # it could be read when the connection was
            problem = f"names a CA file that cannot be read any more, {config.verify!r} ({error.strerror or error})"
            raise OxenConfigError(problem, field="verify", conn_id=config.conn_id) from None
    context = ssl.create_default_context()
    if config.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


#: So much of a garbled line is kept, in bytes: a TLS alert is recognized by its first two.
_SHOWN_BYTES = 8


class _GarbledError(http.client.HTTPException):
    """A response is not HTTP. Its first bytes are kept."""


class _Head:
    """The lines of a response's head. It takes the place of the response's file while the head is read."""

    def __init__(self, file: Any, *, started: bool = False) -> None:
        self._file = file
        self._started = started

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        if line.endswith(b"\n"):
            if not line.startswith(b"HTTP/") and not _HEADER_LINE.fullmatch(line):
                raise _GarbledError(line[:_SHOWN_BYTES])
            self._started = True
        elif len(line) != limit:  # else http.client says that it is too long
            if b"\r" in line[:-1] or not (self._started or b"HTTP/".startswith(line[:5])):
                raise _GarbledError(line[:_SHOWN_BYTES])
            raise http.client.RemoteDisconnected("cut off in its headers")
        return line

    def close(self) -> None:
        self._file.close()


class _Response(http.client.HTTPResponse):
    """A response that is read as strictly as aiohttp does it. What it overrides has no public name."""

    def begin(self) -> None:
        file = self.fp
        self.fp = _Head(file)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = file
        lengths = self.headers.get_all("Content-Length") or []
        if len(lengths) + ("Transfer-Encoding" in self.headers) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise _GarbledError

    def _read_status(self) -> tuple[str, int, str]:
        line = b"\r\n"
        for _ in range(_MAX_EMPTY_LINES):
            if line not in {b"\r\n", b"\n"}:
                break
            line = self.fp.readline(_MAX_LINE + 1)
        if len(line) > _MAX_LINE:
            raise http.client.LineTooLong("status line")
        parts = _STATUS_LINE.fullmatch(line)
        if parts is None:
            raise _GarbledError(line[:_SHOWN_BYTES])
        status = int(parts[2])
        if 101 < status < 200:  # 101 is the response: nothing follows that this package understands
            http.client.parse_headers(self.fp)
            return self._read_status()
        return "HTTP/1.0" if parts[1] == b"1.0" else "HTTP/1.1", status, ""

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_LINE + 1)
        if len(line) > _MAX_LINE:
            raise http.client.LineTooLong("chunk size")
        parts = _CHUNK_LINE.fullmatch(line)
        if parts is None:
            raise ValueError  # http.client's own word for it
        return int(parts[1], 16)

    def _read_and_discard_trailer(self) -> None:
        http.client.parse_headers(_Head(self.fp, started=True))


def adapt_connections(manager: Any) -> None:
    """Let the connections of a urllib3 pool manager do all three."""
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    def adapted(pool: Any) -> Any:
        class Connection(pool.ConnectionCls):  # type: ignore[misc]  # its base differs by scheme
            response_class = _Response

            def _new_conn(self) -> socket.socket:
                try:
                    sock = connect_to_first(
                        self._dns_host, self.port, timeout=self.timeout, socket_options=self.socket_options or ()
                    )
                except socket.gaierror as error:
                    raise NameResolutionError(self.host, self, error) from error
                except TimeoutError as error:
                    raise ConnectTimeoutError(self, "timed out") from error
                except OSError as error:
                    raise NewConnectionError(self, "failed") from error
                sys.audit("http.client.connect", self, self.host, self.port)
                return sock

        return type("Pool", (pool,), {"ConnectionCls": Connection})

    pools = manager.pool_classes_by_scheme.items()
    manager.pool_classes_by_scheme = {scheme: adapted(pool) for scheme, pool in pools}


def is_lost_before_response(error: Any) -> bool:
    """Check whether a :class:`requests.ConnectionError` says that the connection was lost before a response."""
    lost = getattr(error.args[0] if error.args else None, "args", ())
    return any(isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in lost)
