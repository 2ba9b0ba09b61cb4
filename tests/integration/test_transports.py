"""Both transports, over real sockets, case by case the same."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trustme

from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenInvalidResponseError,
    OxenNotFoundError,
    OxenPermanentError,
    OxenRateLimitError,
    OxenServerError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.models import Evaluation, EvaluationRef
from airflow_provider_oxen.testing import Alter, Delay, Disconnect, Fault, LocalHub, Respond, Trickle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Fetch = Callable[[str], Evaluation]


@pytest.fixture(params=["requests", "aiohttp"])
def fetch(request: pytest.FixtureRequest, oxen_hub: LocalHub) -> Fetch:  # noqa: ARG001  # it sets the connection
    """Ask for an evaluation with one of the two transports."""

    def with_requests(evaluation_id: str) -> Evaluation:
        return OxenHook().get_evaluation("ox", "customer-intents", evaluation_id)

    def with_aiohttp(evaluation_id: str) -> Evaluation:
        return asyncio.run(OxenHook().aget_evaluation("ox", "customer-intents", evaluation_id))

    return with_requests if request.param == "requests" else with_aiohttp


def test_an_evaluation_is_read(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """An evaluation comes back with the fields the hub gave it."""
    evaluation_id = oxen_hub.add_evaluation(end="completed", seconds=0, rows=250)

    evaluation = fetch(evaluation_id)

    assert evaluation.id == evaluation_id
    assert evaluation.status == "completed"
    assert evaluation.progress.processed == 250
    assert evaluation.completed_at is not None


def test_the_request_is_that_of_the_contract(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """A GET with the bearer key and no body, at the contract's path."""
    fetch(oxen_hub.add_evaluation("an id", seconds=0))

    request = oxen_hub.requests[-1]
    assert request.path == "/api/repos/ox/customer-intents/evaluations/an%20id"
    assert request.headers["authorization"] == f"Bearer {oxen_hub.api_key}"
    assert request.headers["user-agent"].startswith("airflow-provider-oxen/")
    assert request.headers.get("content-length", "0") == "0"


@pytest.mark.parametrize("evaluation_id", ["50%", "a+b", "a%2Fb", "~tilde", "ünï", "a?b", "a#b", "a;b=c", "a:b", "a@b"])
def test_odd_ids_arrive_as_they_are(fetch: Fetch, oxen_hub: LocalHub, evaluation_id: str) -> None:
    """Whatever may stand in an id reaches the hub unchanged: both transports leave the encoding alone."""
    oxen_hub.add_evaluation(evaluation_id, seconds=0)

    assert fetch(evaluation_id).id == evaluation_id


FAULTS = [
    (Respond(500), OxenServerError),
    (Respond(502, b"<html>Bad gateway</html>", {"Content-Type": "text/html"}), OxenServerError),
    (Respond(408), OxenServerError),
    (Respond(429), OxenRateLimitError),
    (Respond(400), OxenBadRequestError),
    (Respond(401), OxenAuthenticationError),
    (Respond(403), OxenAuthenticationError),
    (Respond(404), OxenNotFoundError),
    (Respond(302, headers={"Location": "https://elsewhere.example/"}), OxenBadRequestError),
    (Respond(302, headers={"Location": "http://["}), OxenBadRequestError),
    (Respond(200, b"<html>Sign in to the proxy</html>", {"Content-Type": "text/html"}), OxenInvalidResponseError),
    (Respond(200, b'{"status": "success", "evaluation": {"id"'), OxenInvalidResponseError),
    (Respond(200, b""), OxenInvalidResponseError),
    (Respond(200, b"no gzip", {"Content-Encoding": "gzip"}), OxenInvalidResponseError),
    (Respond(200, b'{"status": "error", "status_message": "sorry"}'), OxenServerError),
    (Alter(evaluation={"id": "another"}), OxenInvalidResponseError),
    (Alter(without=("status",)), OxenInvalidResponseError),
    (Disconnect("before"), OxenUnreachableError),
    (Disconnect("middle"), OxenInvalidResponseError),
    (Disconnect("before", reset=True), OxenUnreachableError),
    (Disconnect("middle", reset=True), OxenInvalidResponseError),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=str)
def test_each_fault_has_its_error(
    fetch: Fetch, oxen_hub: LocalHub, fault: Respond | Alter | Disconnect, expected: type[Exception]
) -> None:
    """What goes wrong is told by class, the same one whichever transport met it, and the key is not in the text."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(Fault(fault),))

    with pytest.raises(expected) as caught:
        fetch(evaluation_id)

    assert type(caught.value) is expected
    assert oxen_hub.api_key not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_response_that_is_too_large_is_cut_off(fetch: Fetch, oxen_hub: LocalHub, encoding: str) -> None:
    """A response is read up to 4 MiB, counted after decompression, though it be an evaluation all the same."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    document = {"id": evaluation_id, "status": "completed"}
    for size, fits in ((4 * 2**20, True), (4 * 2**20 + 1, False)):
        body = json.dumps({"status": "success", "evaluation": document}).encode().ljust(size)
        body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(body)
        response = Respond(200, body, {"Content-Encoding": encoding})
        oxen_hub.add_evaluation(evaluation_id, faults=(Fault(response),))
        if fits:
            assert fetch(evaluation_id).status == "completed"
            continue
        with pytest.raises(OxenInvalidResponseError, match="larger than 4 MiB"):
            fetch(evaluation_id)


def test_bomb_takes_little_memory(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """A small response that decompresses to a quarter of a gigabyte is given up long before it has."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 2**20) for _ in range(256)) + packer.flush()
    evaluation_id = oxen_hub.add_evaluation(faults=(Fault(Respond(200, bomb, {"Content-Encoding": "gzip"})),))
    tracemalloc.start()
    try:
        # Before 3.14, aiohttp has a limit of its own, and calls what is over it garbled.
        with pytest.raises(OxenInvalidResponseError, match=r"larger than 4 MiB|garbled \(ClientPayloadError\)"):
            fetch(evaluation_id)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 96 * 2**20


def test_transports_agree_on_the_words(oxen_hub: LocalHub) -> None:
    """An error that the hub tells reads the same whichever transport brought it, but for the request id."""
    body = json.dumps({"status": "error", "status_message": "no_credits", "error": {"detail": "Top up"}}).encode()
    evaluation_id = oxen_hub.add_evaluation(faults=(Fault(Respond(402, body)),))
    hook = OxenHook()

    with pytest.raises(OxenPermanentError) as with_requests:
        hook.get_evaluation("ox", "r", evaluation_id)
    with pytest.raises(OxenPermanentError) as with_aiohttp:
        asyncio.run(hook.aget_evaluation("ox", "r", evaluation_id))

    assert str(with_requests.value).partition("] ")[2] == str(with_aiohttp.value).partition("] ")[2]
    assert "no_credits; Top up" in str(with_requests.value)
    assert with_requests.value.request_id == "local-1"


def test_refused_connection_is_transient(fetch: Fetch, set_connection: Callable[..., None]) -> None:
    """A port where nothing listens is out of reach, and the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    set_connection(host=f"http://127.0.0.1:{port}")

    with pytest.raises(OxenUnreachableError, match="Connect"):
        fetch("any")


def test_unknown_host_name_is_transient(fetch: Fetch, set_connection: Callable[..., None]) -> None:
    """A name that does not resolve is out of reach: DNS fails for a while, too."""
    set_connection(host="https://no-such-hub.invalid")

    with pytest.raises(OxenUnreachableError, match=r"no connection to the hub .*no-such-hub\.invalid"):
        fetch("any")


@pytest.mark.parametrize("what", [Delay(5), Trickle(0.05)], ids=str)
def test_timeout_covers_the_whole_request(
    fetch: Fetch, oxen_hub: LocalHub, set_connection: Callable[..., None], what: Delay | Trickle
) -> None:
    """A response that is late, or that trickles, is given up after the connection's ``timeout``."""
    set_connection(extra={"timeout": 0.4})
    evaluation_id = oxen_hub.add_evaluation(faults=(Fault(what),))
    began = time.monotonic()

    with pytest.raises(OxenUnreachableError, match=r"within 0\.4 s"):
        fetch(evaluation_id)

    assert time.monotonic() - began < 3


def test_idle_connection_closed_by_the_hub_is_replaced(oxen_hub: LocalHub) -> None:
    """A kept connection that the hub closed meanwhile does not fail the next request, on either transport."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Disconnect("after")),)))

    async def twice() -> None:
        async with OxenHook().get_async_conn() as client:
            await client.get_evaluation(ref)
            await asyncio.sleep(0.3)
            await client.get_evaluation(ref)

    asyncio.run(twice())
    oxen_hub.add_evaluation(ref.evaluation_id, seconds=60, faults=(Fault(Disconnect("after")),))
    with OxenHook().get_conn() as client:
        client.get_evaluation(ref)
        time.sleep(0.3)
        client.get_evaluation(ref)

    assert oxen_hub.connections_opened == 4


@pytest.fixture
def tls_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalHub:
    """Run a hub that speaks https with a certificate of a CA of its own, whose file is ``ca.pem``."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with LocalHub(tls=context) as hub:
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", hub.connection_json)
        yield hub


def _set_verify(monkeypatch: pytest.MonkeyPatch, hub: LocalHub, verify: object) -> None:
    connection = json.loads(hub.connection_json) | {"extra": {"verify": verify}}
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", json.dumps(connection))


def test_certificate_is_checked_by_default(fetch: Fetch, tls_hub: LocalHub) -> None:
    """A hub whose certificate nobody vouches for gets no request, and the error names the field to mend."""
    with pytest.raises(OxenUnreachableError, match="'verify'"):
        fetch(tls_hub.add_evaluation(seconds=0))

    assert tls_hub.requests == []


def test_certificate_of_a_private_ca_is_accepted_with_its_file(
    fetch: Fetch, tls_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``verify`` may name the file of the CA to trust."""
    _set_verify(monkeypatch, tls_hub, str(tmp_path / "ca.pem"))

    assert fetch(tls_hub.add_evaluation(seconds=0)).status == "completed"


def test_certificate_check_can_be_switched_off(
    fetch: Fetch, tls_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``verify`` false accepts any certificate."""
    _set_verify(monkeypatch, tls_hub, verify=False)

    # urllib3 warns of each such request, rightly.
    with pytest.warns() if fetch.__name__ == "with_requests" else monkeypatch.context():
        assert fetch(tls_hub.add_evaluation(seconds=0)).status == "completed"


def test_transports_trust_the_same_cas(
    fetch: Fetch, tls_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without ``verify``, both transports trust what this machine trusts, and not a list one library brings."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    assert fetch(tls_hub.add_evaluation(seconds=0)).status == "completed"


@pytest.fixture
def trickling_headers(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001  # its connection is replaced
    """Run a server that sends one header line after the other, for ever."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=trickle, args=(connection,), daemon=True).start()

    def trickle(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for number in range(90):
                connection.sendall(f"X-{number}: 1\r\n".encode())
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        connection = {"conn_type": "oxen", "host": f"http://127.0.0.1:{listener.getsockname()[1]}", "password": "k"}
        connection["extra"] = {"timeout": 0.4}
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", json.dumps(connection))
        yield


@pytest.mark.usefixtures("trickling_headers")
def test_timeout_covers_headers_that_trickle(fetch: Fetch) -> None:
    """Headers that never end are given up after ``timeout`` as well."""
    began = time.monotonic()

    with pytest.raises(OxenUnreachableError, match=r"within 0\.4 s"):
        fetch("any")

    assert time.monotonic() - began < 3


def test_proxy_is_used(fetch: Fetch, oxen_hub: LocalHub, set_connection: Callable[..., None]) -> None:
    """With ``proxy``, requests go to the proxy: here to the local hub, for a host that does not exist."""
    set_connection(host="http://no-such-hub.invalid", extra={"proxy": oxen_hub.url})

    assert fetch(oxen_hub.add_evaluation(seconds=0)).status == "completed"


@contextlib.contextmanager
def tunnel(*, status: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Run a proxy that answers CONNECT with a status, and lets through what follows a 200; give its requests' heads."""
    heads: list[bytes] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65_536)
            heads.append(head)
            client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            if status.startswith(b"200"):
                host, port = head.split()[1].decode().rsplit(":", 1)
                with socket.create_connection((host, int(port))) as hub:
                    back = threading.Thread(target=pump, args=(hub, client), daemon=True)
                    back.start()
                    pump(client, hub)
                    back.join(10)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"http://user:word@127.0.0.1:{listener.getsockname()[1]}", heads
        listener.shutdown(socket.SHUT_RDWR)


def _set_proxy(monkeypatch: pytest.MonkeyPatch, hub: LocalHub, proxy: str, ca_file: Path) -> None:
    extra = {"proxy": proxy, "verify": str(ca_file)}
    connection = {"conn_type": "oxen", "host": hub.url, "password": hub.api_key, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", json.dumps(connection))


def test_proxy_is_tunnelled_through_to_a_hub_with_tls(
    fetch: Fetch, tls_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy gets its own login and never the API key; the hub's certificate is checked behind it."""
    with tunnel(status=b"200 Connected") as (proxy, heads):
        _set_proxy(monkeypatch, tls_hub, proxy, tmp_path / "ca.pem")

        assert fetch(tls_hub.add_evaluation(seconds=0)).status == "completed"

    (head,) = heads
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in head
    assert tls_hub.api_key.encode() not in head


def test_proxy_that_refuses_is_named(
    fetch: Fetch, tls_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy that lets nothing through is said to be that, without its password."""
    with tunnel(status=b"407 Proxy Authentication Required") as (proxy, _):
        _set_proxy(monkeypatch, tls_hub, proxy, tmp_path / "ca.pem")

        with pytest.raises(OxenUnreachableError, match="extra field 'proxy'") as caught:
            fetch(tls_hub.add_evaluation(seconds=0))

    assert "word" not in str(caught.value)


def test_environment_is_not_asked_for_a_proxy(
    fetch: Fetch, oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies of the environment are left alone: what a connection does not say, no transport does."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert fetch(oxen_hub.add_evaluation(seconds=0)).status == "completed"


def test_redirect_is_not_followed(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """A redirect ends in an error that names where it pointed; nothing is sent there."""
    with LocalHub() as elsewhere:
        location = {"Location": f"{elsewhere.url}/api/stolen?key={oxen_hub.api_key}"}
        evaluation_id = oxen_hub.add_evaluation(faults=(Fault(Respond(307, headers=location)),))

        with pytest.raises(OxenBadRequestError, match=f"points to {elsewhere.url}/api/stolen\\."):
            fetch(evaluation_id)

        assert elsewhere.requests == []


def test_max_connections_bounds_the_sockets(oxen_hub: LocalHub, set_connection: Callable[..., None]) -> None:
    """However many requests at a time, each transport opens no more than ``max_connections``."""
    set_connection(extra={"max_connections": 3})
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(0.05)),)))

    async def many() -> None:
        async with OxenHook().get_async_conn() as client:
            await asyncio.gather(*(client.get_evaluation(ref) for _ in range(12)))

    asyncio.run(many())
    assert oxen_hub.connections_opened == 3

    with OxenHook().get_conn() as client, ThreadPoolExecutor(12) as threads:
        client.get_evaluation(ref)
        list(threads.map(client.get_evaluation, [ref] * 12))
    assert oxen_hub.connections_opened == 6


def test_transient_and_permanent_are_told_apart_by_class() -> None:
    """Each fault above is either one or the other."""
    for _, kind in FAULTS:
        assert issubclass(kind, OxenTransientError) != issubclass(kind, OxenPermanentError)
