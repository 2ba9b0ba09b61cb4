"""How connections are made: several addresses, IPv6, proxies over https. Both transports do the same."""

from __future__ import annotations

import contextlib
import gc
import socket
import ssl
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from airflow_provider_oxen.connecting import connect_to_first
from airflow_provider_oxen.exceptions import OxenInvalidResponseError, OxenUnknownEffectError, OxenUnreachableError
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.protocol import Call
from airflow_provider_oxen.testing import LocalHub
from tests.support.raw_responses import TRANSPORTS, RawServer, make_config, outcome
from tests.support.sockets import full_queue, relay_to, serve_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Resolve = Callable[..., None]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
POST = Call("POST", "/api/x", lambda body, _: body, body={"name": "a run"}, repeatable=False)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Let the name ``hub.test`` have some addresses."""
    real = socket.getaddrinfo

    def set_addresses(*addresses: str) -> None:
        def look_up(host: Any, port: Any, *args: Any, **named: Any) -> Any:
            if host not in ("hub.test", b"hub.test"):
                return real(host, port, *args, **named)
            return [found for address in addresses for found in real(address, port, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return set_addresses


@contextlib.contextmanager
def silent_address(address: str, port: int = 0) -> Iterator[int]:
    """Let an address drop packets. Gives its port."""
    with full_queue(address, port) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def slow_address(address: str) -> Iterator[int]:
    """Let an address take connections, and respond, after a second only. Gives its port."""

    def serve() -> None:
        time.sleep(1.1)
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=respond, args=(connection,), daemon=True).start()

    def respond(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if connection.recv(65_536):
                connection.sendall(OK)

    with full_queue(address) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("call", [Call("GET", "/api/x", lambda body, _: body), POST], ids=["repeatable", "sent once"])
def test_address_that_drops_packets_costs_little_time(transport: str, resolve: Resolve, call: Call[bytes]) -> None:
    """Where the first of two addresses takes no connection, the second is used after a quarter of a second."""
    resolve("127.0.0.2", "127.0.0.1")
    with RawServer(OK) as server, silent_address("127.0.0.2", server.port):
        began = time.monotonic()
        found = outcome(transport, make_config(f"http://hub.test:{server.port}", timeout=30), (call,))

        assert found == b"{}"
        assert time.monotonic() - began < 3
        assert len(server.requests) == 1


def test_test_button_is_as_quick(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Test button of the connection form does not wait for an address that drops packets."""
    resolve("127.0.0.2", "127.0.0.1")
    with LocalHub() as hub, silent_address("127.0.0.2", hub.port):
        url = hub.connection_uri.replace("127.0.0.1", "hub.test")
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", url)
        began = time.monotonic()

        worked, message = OxenHook().test_connection()

        assert worked, message
        assert time.monotonic() - began < 3


@pytest.mark.alone
def test_address_that_refuses_costs_no_time(transport: str, resolve: Resolve) -> None:
    """Where the first of two addresses refuses connections, the second is used at once."""
    resolve("127.0.0.2", "127.0.0.1")
    with RawServer(OK) as server:
        began = time.monotonic()

        assert outcome(transport, make_config(f"http://hub.test:{server.port}")) == b"{}"
        assert time.monotonic() - began < 2


def test_hub_that_is_slow_to_accept_is_waited_for(transport: str) -> None:
    """One address has the whole time limit: a connection that is taken after more than a second is used."""
    with slow_address("127.0.0.2") as port:
        assert outcome(transport, make_config(f"http://127.0.0.2:{port}", timeout=20)) == b"{}"


def test_first_address_is_used_where_the_next_refuses(transport: str, resolve: Resolve) -> None:
    """An address has more than its quarter of a second: it is used if it accepts after the next was tried in vain."""
    resolve("127.0.0.2", "127.0.0.3")
    with slow_address("127.0.0.2") as port:
        assert outcome(transport, make_config(f"http://hub.test:{port}", timeout=20)) == b"{}"


def test_no_address_accepts_in_time(transport: str, resolve: Resolve) -> None:
    """Where no address takes a connection, the time limit counts for all of them together."""
    resolve("127.0.0.2", "127.0.0.3")
    with silent_address("127.0.0.2") as port, silent_address("127.0.0.3", port):
        began = time.monotonic()

        with pytest.raises(OxenUnreachableError, match=r"within 0\.8 s"):
            TRANSPORTS[transport](make_config(f"http://hub.test:{port}", timeout=0.8))

        assert 0.7 < time.monotonic() - began < 3


def test_connection_has_its_time_limit_and_options() -> None:
    """The socket has the time limit of the request, and sends small requests without delay."""
    with (
        RawServer(OK) as server,
        connect_to_first(
            "127.0.0.1", server.port, timeout=7, socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        ) as connected,
    ):
        assert connected.gettimeout() == 7
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 on this machine")


@needs_ipv6
def test_ipv6_address(transport: str) -> None:
    """A hub may be named by an IPv6 address, which the header Host has in brackets."""
    with RawServer(OK, address="::1") as server:
        assert outcome(transport, make_config(server.url)) == b"{}"

    assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in server.requests[0]


@needs_ipv6
def test_hub_without_ipv6_behind_a_name_that_has_it(transport: str, resolve: Resolve) -> None:
    """A name with an IPv6 address on which nothing listens leads to the hub at its IPv4 address."""
    resolve("::1", "127.0.0.1")
    with RawServer(OK) as server:
        assert outcome(transport, make_config(f"http://hub.test:{server.port}")) == b"{}"


class Authority:
    """A private CA, its file, and TLS settings for servers."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ca.pem"
        self.renew()

    def renew(self) -> None:
        """Make another CA, and replace the file in place."""
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(self.file))

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("127.0.0.1").configure_cert(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.contextmanager
def https_proxy(context: ssl.SSLContext) -> Iterator[tuple[str, list[bytes]]]:
    """Run a proxy over TLS that tunnels CONNECT, and responds to other requests itself; return the requests' heads."""
    heads: list[bytes] = []

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as client:
            received = b""
            while b"\r\n\r\n" not in received:
                received += client.recv(65_536)
            heads.append(received)
            if not received.startswith(b"CONNECT"):
                client.sendall(OK)
                while client.recv(65_536):
                    pass
                return
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            relay_to(received.split()[1], client)

    with serve_each(serve) as port:
        yield f"https://127.0.0.1:{port}", heads


@pytest.mark.parametrize("call", [Call("GET", "/api/x", lambda body, _: body), POST], ids=["repeatable", "sent once"])
@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n", OxenInvalidResponseError),
    ],
    ids=["that is the last", "that is not read"],
)
def test_response_leaves_no_connection_behind(
    transport: str, authority: Authority, call: Call[bytes], response: bytes, expected: Any
) -> None:
    """Over TLS, a connection is closed without waiting for a hub that does not close its side."""
    if call is POST and expected is OxenInvalidResponseError:
        expected = OxenUnknownEffectError
    context, done = authority.server(), threading.Event()

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as client:
            client.recv(65_536)
            client.sendall(response)
            done.wait(10)

    with serve_each(serve) as port, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = make_config(f"https://127.0.0.1:{port}", verify=str(authority.file))

        assert outcome(transport, config, [call]) == expected
        gc.collect()
        done.set()

    assert [str(each.message) for each in caught] == []


@pytest.mark.parametrize("call", [Call("GET", "/api/x", lambda body, _: body), POST], ids=["repeatable", "sent once"])
def test_proxy_over_https_is_checked_against_verify(transport: str, authority: Authority, call: Call[bytes]) -> None:
    """``verify`` names the CA of the proxy as well; behind it, the hub's own certificate is checked."""
    with RawServer(OK, tls=authority.server()) as server, https_proxy(authority.server()) as (proxy, heads):
        config = make_config(server.url, proxy=proxy, verify=str(authority.file))

        assert outcome(transport, config, (call,)) == b"{}"

    assert len(heads) == len(server.requests) == 1


@pytest.mark.parametrize("call", [Call("GET", "/api/x", lambda body, _: body), POST], ids=["repeatable", "sent once"])
def test_http_hub_behind_a_proxy_over_https(transport: str, authority: Authority, call: Call[bytes]) -> None:
    """A hub without TLS may be behind a proxy with it, whose certificate ``verify`` checks."""
    with https_proxy(authority.server()) as (proxy, heads):
        config = make_config("http://no-such-hub.invalid", proxy=proxy, verify=str(authority.file))

        assert outcome(transport, config, (call,)) == b"{}"

    (head,) = heads
    assert head.startswith(call.method.encode() + b" http://no-such-hub.invalid/api/x HTTP/1.1")


@pytest.mark.parametrize("hub", ["http", "https"])
def test_proxy_that_is_not_trusted_gets_nothing(transport: str, authority: Authority, hub: str) -> None:
    """Without ``verify``, a proxy whose certificate is of a private CA gets no request."""
    with https_proxy(authority.server()) as (proxy, heads):
        config = make_config(f"{hub}://no-such-hub.invalid", proxy=proxy)

        with pytest.raises(OxenUnreachableError):
            TRANSPORTS[transport](config)

    assert heads == []


def test_proxy_that_is_not_trusted_is_named(authority: Authority) -> None:
    """Both transports say the same of a proxy whose certificate is not trusted: what to set."""
    with https_proxy(authority.server()) as (proxy, _):
        texts = set()
        for ask in TRANSPORTS.values():
            with pytest.raises(OxenUnreachableError, match="'verify'") as caught:
                ask(make_config("https://no-such-hub.invalid", proxy=proxy))
            texts.add(caught.value.problem)

    assert len(texts) == 1


@pytest.mark.parametrize("hub", ["http", "https"])
def test_proxy_is_not_checked_where_verify_is_false(transport: str, authority: Authority, hub: str) -> None:
    """``verify`` false accepts any certificate of the proxy, too."""
    with (
        RawServer(OK, tls=authority.server() if hub == "https" else None) as server,
        https_proxy(authority.server()) as (proxy, _),
        pytest.warns() if transport == "requests" else contextlib.nullcontext(),
    ):
        assert outcome(transport, make_config(server.url, proxy=proxy, verify=False)) == b"{}"
