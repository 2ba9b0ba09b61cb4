"""Calls that must not be repeated, over real sockets: sent once, and errors that say whether they were sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trustme

from airflow_provider_oxen.config import parse_config
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenNotFoundError,
    OxenPaymentRequiredError,
    OxenRateLimitError,
    OxenUnknownEffectError,
    OxenUnreachableError,
)
from airflow_provider_oxen.protocol import Call, ContractError, parse_response
from airflow_provider_oxen.transport import async_session, send, send_async, sync_session
from tests.support.sockets import SocketServer, full_queue, relay_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_oxen.config import ClientConfig

    Ask = Callable[[ClientConfig, Call[bytes]], bytes]
    Reply = Callable[[socket.socket], None]

KEY = "a-key-of-the-tests"
PATH = "/api/repos/ox/r/evaluations"
POST = Call("POST", PATH, lambda body, _: body, body={"name": "a run"}, repeatable=False)
GET = Call("GET", PATH, lambda body, _: body)
#: The shortest error of the hub's.
HUBS = b'{"status": "error"}'
#: Longer than the timeout of the tests below, so that what is left behind has the time to send.
LATE_SECONDS = 1.0
QUICK = {"timeout": 0.4}


class Server(SocketServer):
    """A server on a raw socket: it records whole requests, and replies with whatever bytes it is given."""

    def __init__(self, reply: Reply, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.reply = reply
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.bytes_received = 0
        self._tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket, _: int) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._tls:
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_side=True))
            while self.receive(connection):
                self.reply(connection)

    def receive(self, connection: socket.socket) -> bool:
        """Receive a request, and say whether to reply."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._read(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self._read(connection)
        self.requests.append((first, headers, body))
        return True

    def _read(self, connection: socket.socket) -> bytes:
        data = connection.recv(65_536)
        self.bytes_received += len(data)
        if not data:
            raise ConnectionResetError
        return data


def _respond(status: int, body: bytes = b"{}", **headers: str) -> Reply:
    named = {"Content-Type": "application/json", "Content-Length": len(body), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return lambda connection: connection.sendall(f"HTTP/1.1 {status} Any\r\n{lines}\r\n".encode() + body)


def _send_and_close(data: bytes) -> Reply:
    def reply(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_RDWR)

    return reply


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    raise ConnectionResetError


def _trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n")
    for _ in range(90):
        connection.sendall(b" ")
        time.sleep(0.05)


def _ask_with_requests(config: ClientConfig, call: Call[bytes]) -> bytes:
    with sync_session(config) as session:
        return parse_response(config, call, send(session, config, call), now=datetime.now(timezone.utc))


def _ask_with_aiohttp(config: ClientConfig, call: Call[bytes]) -> bytes:
    async def ask() -> bytes:
        async with async_session(config) as session:
            response = await send_async(session, config, call)
            return parse_response(config, call, response, now=datetime.now(timezone.utc))

    return asyncio.run(ask())


@pytest.fixture(params=[_ask_with_requests, _ask_with_aiohttp], ids=["requests", "aiohttp"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Send a call with one of the two transports, and parse the response."""
    return request.param


def _config(url: str, **extra: object) -> ClientConfig:
    return parse_config("oxen_default", host=url, password=KEY, extra=extra)


@pytest.fixture
def tls(tmp_path: Path) -> ssl.SSLContext:
    """Return the TLS settings of a server whose CA is in the file ``ca.pem``."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


# Sent


def test_call_is_sent_as_it_is(ask: Ask) -> None:
    """Method, path, key, JSON body and its content type arrive, and the connection is not kept."""
    with Server(_respond(200, b'{"ok": 1}')) as server:
        assert ask(_config(server.url), POST) == b'{"ok": 1}'

    ((first, headers, body),) = server.requests
    assert first == f"POST {PATH} HTTP/1.1"
    assert json.loads(body) == {"name": "a run"}
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["user-agent"].startswith("Apache-Airflow/")
    assert headers["connection"] == "close"


def test_call_is_sent_over_tls_and_through_a_proxy(ask: Ask, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """A proxy's tunnel and TLS bring the call to the hub, once."""
    with Server(_respond(200), tls=tls) as server, _Proxy() as proxy:
        assert ask(_config(server.url, verify=str(tmp_path / "ca.pem"), proxy=proxy.url), POST) == b"{}"

    assert len(server.requests) == 1
    assert proxy.heads == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]


def test_call_goes_through_a_forwarding_proxy(ask: Ask) -> None:
    """For a hub without TLS, the proxy gets the call itself, once."""
    with Server(_respond(200)) as proxy:
        assert ask(_config("http://no-such-hub.invalid", proxy=proxy.url), POST) == b"{}"

    assert [first for first, _, _ in proxy.requests] == [f"POST http://no-such-hub.invalid{PATH} HTTP/1.1"]


def test_kept_connection_is_not_reused() -> None:
    """A call that is sent once has a connection of its own; other calls keep theirs. With requests."""
    with Server(_respond(200)) as server, sync_session(config := _config(server.url)) as session:
        for call in (GET, POST, GET, POST, GET):
            send(session, config, call)

    assert (server.connections, len(server.requests)) == (3, 5)


async def test_kept_connection_is_not_reused_async() -> None:
    """A call that is sent once has a connection of its own; other calls keep theirs. With aiohttp."""
    with Server(_respond(200)) as server:
        config = await asyncio.to_thread(_config, server.url)
        async with async_session(config) as session:
            for call in (GET, POST, GET, POST, GET):
                await send_async(session, config, call)

    assert (server.connections, len(server.requests)) == (3, 5)


def test_repeatable_call_keeps_its_errors(ask: Ask) -> None:
    """A call that may be repeated raises what it always did: no "not sent", no unknown effect."""
    with Server(_send_and_close(b"")) as server, pytest.raises(OxenUnreachableError) as lost:
        ask(_config(server.url), GET)
    with pytest.raises(OxenUnreachableError) as refused:
        ask(_config(server.url), GET)

    assert all("sent" not in str(error.value) for error in (lost, refused))


# Refused


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (307, OxenBadRequestError),
        (308, OxenBadRequestError),
        (303, OxenBadRequestError),
        (400, OxenBadRequestError),
        (401, OxenAuthenticationError),
        (402, OxenPaymentRequiredError),
        (404, OxenNotFoundError),
        (407, OxenBadRequestError),
        (409, OxenBadRequestError),
        (422, OxenBadRequestError),
        (426, OxenBadRequestError),
        (429, OxenRateLimitError),
    ],
)
def test_refused_call_has_the_error_of_its_status_code(ask: Ask, status: int, kind: type[Exception]) -> None:
    """What the hub refuses had no effect: the error is that of the status code, and no redirect is followed."""
    with Server(_respond(200)) as elsewhere, Server(_respond(status, HUBS, Location=elsewhere.url)) as server:
        with pytest.raises(kind) as caught:
            ask(_config(server.url), POST)

        assert type(caught.value) is kind
        assert (len(server.requests), len(elsewhere.requests)) == (1, 0)


# Not known


@pytest.mark.parametrize(
    "reply",
    [
        _send_and_close(b""),
        _reset,
        _send_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"),
        _send_and_close(b"HTTP/1.1 200 OK\r\nContent-Le"),
        _send_and_close(b"\0\1\2 no HTTP\r\n\r\n"),
        _respond(200, b"no gzip", Content_Encoding="gzip"),
        _respond(200, b" " * (4 * 2**20 + 1)),
        lambda _: time.sleep(2),
        _trickle,
        _respond(200, b"<html>Sign in</html>", Content_Type="text/html"),
        _respond(204, b""),
        _respond(303, b"<html>See other</html>", Content_Type="text/html", Location="/"),
        _respond(403, b"<html>Blocked</html>", Content_Type="text/html"),
        _respond(409, b'{"detail": "of a gateway"}'),
        _respond(408),
        _respond(500),
        _respond(502, b"<html>Bad gateway</html>", Content_Type="text/html"),
    ],
    ids=[
        "closed",
        "reset",
        "cut off",
        "cut off head",
        "garbled",
        "no gzip",
        "too large",
        "silent",
        "trickle",
        "html",
        "204",
        "303 of a gateway",
        "403 of a gateway",
        "409 of a gateway",
        "408",
        "500",
        "502",
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_lost_response_leaves_the_effect_unknown(ask: Ask, reply: Reply, method: str) -> None:
    """What goes wrong once the call was sent says that it is not known whether it took effect, and repeats nothing."""

    def parse(body: bytes, _: str) -> bytes:
        raise ContractError(f"{len(body)} bytes")

    call = Call(method, PATH, parse, body={"name": "a run"}, repeatable=False)
    with Server(reply) as server:
        with pytest.raises(OxenUnknownEffectError) as caught:
            ask(_config(server.url, timeout=0.8), call)
        time.sleep(0.1)

        assert caught.value.problem.startswith("sent once, and whether it took effect is not known: ")
        assert caught.value.request == f"{method} {PATH}"
        assert KEY not in f"{caught.value} {caught.value!r}"
        assert (len(server.requests), server.connections) == (1, 1)


@pytest.mark.parametrize("reply", [_send_and_close(b""), _reset], ids=["closed", "reset"])
def test_connection_lost_behind_a_proxy_and_tls_leaves_the_effect_unknown(
    ask: Ask, tls: ssl.SSLContext, tmp_path: Path, reply: Reply
) -> None:
    """With a proxy and TLS in between, a lost response is as unknown as without, and no fault of the proxy."""
    with Server(reply, tls=tls) as server, _Proxy() as proxy:
        with pytest.raises(OxenUnknownEffectError) as caught:
            ask(_config(server.url, verify=str(tmp_path / "ca.pem"), proxy=proxy.url), POST)

        assert len(server.requests) == 1
        assert "'proxy'" not in caught.value.problem


# Not sent


class _Proxy(SocketServer):
    """A proxy that replies to CONNECT with some bytes, slowly if asked, and lets through what follows a 200."""

    def __init__(self, reply: bytes = b"HTTP/1.1 200 OK\r\n\r\n", *, seconds_per_byte: float = 0) -> None:
        super().__init__()
        self.heads: list[str] = []
        self._reply = reply
        self._pause = seconds_per_byte
        self.url = f"http://127.0.0.1:{self.port}"

    def _serve(self, connection: socket.socket, _: int) -> None:
        with connection as client, contextlib.suppress(OSError):
            self.heads.append(client.recv(65_536).decode().partition("\r\n")[0].replace("HTTP/1.0", "HTTP/1.1"))
            for byte in self._reply if self._pause else ():
                client.sendall(bytes([byte]))
                time.sleep(self._pause)
            if not self._pause:
                client.sendall(self._reply)
            if b" 200 " not in self._reply:
                return
            relay_to(self.heads[-1].split()[1], client)


def _assert_not_sent(ask: Ask, config: ClientConfig, words: str) -> None:
    with pytest.raises(OxenUnreachableError, match=rf"^not sent: .*{words}") as caught:
        ask(config, POST)
    assert caught.value.request == str(POST)
    assert KEY not in f"{caught.value} {caught.value!r}"


def test_refused_connection_is_not_sent(ask: Ask) -> None:
    """Where nothing listens, nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    _assert_not_sent(ask, _config(f"http://127.0.0.1:{port}"), "Connect")


def test_unknown_name_is_not_sent(ask: Ask) -> None:
    """Where the name does not resolve, nothing was sent."""
    _assert_not_sent(ask, _config("http://no-such-hub.invalid"), r"no-such-hub\.invalid")


def test_untrusted_certificate_is_not_sent(ask: Ask, tls: ssl.SSLContext) -> None:
    """A hub that is not trusted gets nothing."""
    with Server(_respond(200), tls=tls) as server:
        _assert_not_sent(ask, _config(server.url), "'verify'")

        assert server.requests == []


def test_failed_tls_handshake_is_not_sent(ask: Ask) -> None:
    """A server that closes the connection during the TLS handshake got nothing of the call."""
    with Server(_respond(200)) as server:
        server.receive = lambda connection: bool(connection.close())  # it accepts, and closes
        _assert_not_sent(ask, _config(server.url.replace("http:", "https:")), "")

        assert server.requests == []


@pytest.mark.parametrize("reply", [b"HTTP/1.1 407 Login\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"no HTTP\r\n\r\n", b""])
def test_proxy_that_refuses_is_not_sent(ask: Ask, tls: ssl.SSLContext, reply: bytes) -> None:
    """A proxy that opens no tunnel lets nothing through."""
    with Server(_respond(200), tls=tls) as server, _Proxy(reply) as proxy:
        _assert_not_sent(ask, _config(server.url, proxy=proxy.url), "")

        assert server.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "https://127.0.0.1:9"])
def test_unreachable_proxy_is_not_sent(ask: Ask, url: str) -> None:
    """Without the proxy, nothing is sent."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    _assert_not_sent(ask, _config(url, proxy=f"http://127.0.0.1:{port}"), "proxy")


def test_missing_ca_file_is_not_sent(tmp_path: Path, tls: ssl.SSLContext) -> None:
    """A CA file that is gone when the call is to be sent stops it, with the field's name."""
    ca_file = tmp_path / "ca.pem"
    with (
        Server(_respond(200), tls=tls) as server,
        sync_session(config := _config(server.url, verify=str(ca_file))) as session,
    ):
        ca_file.unlink()
        with pytest.raises(OxenUnreachableError, match=r"^not sent: .*field 'verify'"):
            send(session, config, POST)

        assert server.connections == 0


@contextlib.contextmanager
def _full_backlog() -> Iterator[tuple[str, list[bytes]]]:
    """Run a server whose queue of connections is full until the test ends its body; return what it then receives."""
    received: list[bytes] = []

    def drain(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(1)
                with connection, contextlib.suppress(OSError):
                    received.append(connection.recv(65_536))

    with full_queue(fillers=3) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        threading.Thread(target=drain, args=(listener,), daemon=True).start()
        time.sleep(3)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def test_connect_timeout_is_not_sent(ask: Ask) -> None:
    """A connection that is not accepted in time was not used, and is not used once it is accepted."""
    with _full_backlog() as (url, received):
        _assert_not_sent(ask, _config(url, **QUICK), r"no connection within 0\.4 s")

    assert b"".join(received) == b""


# Left behind


class _LookUp(NamedTuple):
    """Set when a look-up of a name begins, and when it ends."""

    began: threading.Event
    done: threading.Event


@pytest.fixture
def slow_dns(monkeypatch: pytest.MonkeyPatch) -> _LookUp:
    """Let each look-up of a name take long, which no timeout of a socket bounds."""
    resolve, look_up = socket.getaddrinfo, _LookUp(threading.Event(), threading.Event())

    def slow(*args: Any, **named: Any) -> Any:
        look_up.began.set()
        time.sleep(LATE_SECONDS)
        found = resolve(*args, **named)
        look_up.done.set()
        return found

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    return look_up


def _assert_nothing_comes_later(server: Server, slow_dns: _LookUp) -> None:
    assert slow_dns.done.wait(5)
    time.sleep(0.5)
    assert (server.requests, server.bytes_received) == ([], 0)


@pytest.mark.alone
def test_timeout_while_connecting_sends_nothing_later(ask: Ask, slow_dns: _LookUp) -> None:
    """A call that was given up before it was sent is not sent by what was left behind."""
    with Server(_respond(200)) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        _assert_not_sent(ask, _config(url, **QUICK), r"no connection within 0\.4 s")

        _assert_nothing_comes_later(server, slow_dns)


@pytest.mark.alone
def test_response_has_the_whole_timeout_however_slow_connecting_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a slow connection nor a slow record takes from the time of the response, which is lost if not read."""
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: (time.sleep(0.4), resolve(*args, **named))[1])

    def reply(connection: socket.socket) -> None:
        time.sleep(0.7)
        _respond(200, b"late")(connection)

    with Server(reply) as server:
        config = _config(server.url.replace("127.0.0.1", "localhost"), timeout=1.0)
        with sync_session(config) as session:
            assert send(session, config, POST, lambda: time.sleep(0.2)).body == b"late"


@pytest.mark.alone
@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"], ids=["nothing", "trickle"])
def test_response_has_no_more_than_the_timeout(piece: bytes) -> None:
    """The time of the response is bounded, also where its bytes keep coming."""

    def reply(connection: socket.socket) -> None:
        connection.sendall(piece)
        for _ in range(30):
            time.sleep(0.1)
            connection.sendall(b"x" if piece else b"")

    with Server(reply) as server:
        config = _config(server.url, timeout=1.0)
        began_at = time.monotonic()
        with sync_session(config) as session, pytest.raises(OxenUnknownEffectError, match="response within 1 s"):
            send(session, config, POST, lambda: time.sleep(0.6))

        assert 1.6 <= time.monotonic() - began_at < 3


def test_timeout_in_the_proxys_tunnel_sends_nothing_later(ask: Ask, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """A tunnel that opens after the call was given up is not used."""
    with Server(_respond(200), tls=tls) as server, _Proxy(seconds_per_byte=0.06) as proxy:
        config = _config(server.url, proxy=proxy.url, verify=str(tmp_path / "ca.pem"), **QUICK)
        _assert_not_sent(ask, config, r"no connection within 0\.4 s")

        time.sleep(0.06 * 19 + 0.8)
        assert server.requests == []


class _TaskTimeoutError(BaseException):
    """What Airflow's signal handler raises when ``execution_timeout`` has passed is a BaseException as well."""


@contextlib.contextmanager
def _interrupted_when(moment: threading.Event) -> Iterator[None]:
    """Interrupt the main thread at that moment with a signal, as Airflow's timer of a task does."""

    def handle(*_: object) -> None:
        raise _TaskTimeoutError

    def interrupt() -> None:
        if moment.wait(10):
            os.kill(os.getpid(), signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, handle)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGALRM, before)


def test_signal_while_connecting_sends_nothing_later(slow_dns: _LookUp) -> None:
    """A thread that waits and is interrupted leaves nothing behind that sends the call."""
    with Server(_respond(200)) as server:
        config = _config(server.url.replace("127.0.0.1", "localhost"))
        with pytest.raises(_TaskTimeoutError), _interrupted_when(slow_dns.began):
            _ask_with_requests(config, POST)

        _assert_nothing_comes_later(server, slow_dns)


def test_signal_after_sending_passes_through() -> None:
    """A call that was interrupted after it was sent raises what interrupted it, and is not sent again."""
    asked = threading.Event()

    def respond_late(_: object) -> None:
        asked.set()
        time.sleep(1)

    with Server(respond_late) as server:
        with pytest.raises(_TaskTimeoutError), _interrupted_when(asked):
            _ask_with_requests(_config(server.url), POST)
        time.sleep(0.9)

        assert len(server.requests) == 1


async def test_cancelled_call_sends_nothing_later(slow_dns: _LookUp) -> None:
    """After a cancellation while connecting, nothing is sent."""
    with Server(_respond(200)) as server:
        config = await asyncio.to_thread(_config, server.url.replace("127.0.0.1", "localhost"))
        async with async_session(config) as session:
            task = asyncio.create_task(send_async(session, config, POST))
            assert await asyncio.to_thread(slow_dns.began.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(_assert_nothing_comes_later, server, slow_dns)
