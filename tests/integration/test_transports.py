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
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import aiohttp
import airflow
import pytest
import requests
import trustme

from airflow_provider_oxen import __version__
from airflow_provider_oxen.calls import build_get_evaluation
from airflow_provider_oxen.config import ClientConfig, parse_config
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenInvalidResponseError,
    OxenNotFoundError,
    OxenPaymentRequiredError,
    OxenPermanentError,
    OxenRateLimitError,
    OxenServerError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.protocol import Call, parse_response
from airflow_provider_oxen.testing import Alter, Delay, Disconnect, Fault, LocalHub, Respond, Trickle
from airflow_provider_oxen.transport import async_session, build_url, send, send_async, sync_session
from airflow_provider_oxen.transport_errors import aiohttp_table, requests_table, translate
from tests.support.raw_responses import RawServer
from tests.support.sockets import relay_to, serve_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    Fetch = Callable[..., Evaluation]


def _config(hub: LocalHub, **fields: Any) -> ClientConfig:
    """Read a connection to a hub, with other fields than the hub needs."""
    return parse_config("oxen_default", **{"host": hub.url, "password": hub.api_key, **fields})


def _call(evaluation_id: str) -> Call[Evaluation]:
    return build_get_evaluation(EvaluationRef("ox", "customer-intents", evaluation_id))


def _ask_with_requests(config: ClientConfig, call: Call[Any]) -> Any:
    with sync_session(config) as session:
        return parse_response(config, call, send(session, config, call), now=datetime.now(timezone.utc))


def _ask_with_aiohttp(config: ClientConfig, call: Call[Any]) -> Any:
    async def ask() -> Any:
        async with async_session(config) as session:
            return parse_response(config, call, await send_async(session, config, call), now=datetime.now(timezone.utc))

    return asyncio.run(ask())


@pytest.fixture(params=["requests", "aiohttp"])
def fetch(request: pytest.FixtureRequest, oxen_hub: LocalHub) -> Fetch:
    """Ask for an evaluation with one of the two transports; other arguments are fields of the connection."""
    ask = _ask_with_requests if request.param == "requests" else _ask_with_aiohttp

    def with_fields(evaluation_id: str, hub: LocalHub = oxen_hub, **fields: Any) -> Evaluation:
        return ask(_config(hub, **fields), _call(evaluation_id))

    with_fields.__name__ = request.param
    return with_fields


def test_evaluation_is_received(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """An evaluation comes back with the fields the hub gave it."""
    evaluation_id = oxen_hub.add_evaluation(end="completed", seconds=0, rows=250)

    evaluation = fetch(evaluation_id)

    assert evaluation.id == evaluation_id
    assert evaluation.status == "completed"
    assert evaluation.progress.processed == 250
    assert evaluation.completed_at is not None


def test_request_is_the_contracts(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """A GET with the bearer key and no body, at the contract's path."""
    fetch(oxen_hub.add_evaluation("än-id", seconds=0))

    request = oxen_hub.requests[-1]
    assert request.path == "/api/repos/ox/customer-intents/evaluations/%C3%A4n-id"
    assert request.headers["authorization"] == f"Bearer {oxen_hub.api_key}"
    assert request.method == "GET"
    assert request.headers["user-agent"] == f"Apache-Airflow/{airflow.__version__} airflow-provider-oxen/{__version__}"
    assert request.headers["accept"] == "application/json"
    assert request.headers.get("content-length", "0") == "0"
    assert "content-type" not in request.headers
    assert request.body == b""


@pytest.mark.parametrize("ask", [_ask_with_requests, _ask_with_aiohttp])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_method_and_json_body_arrive(oxen_hub: LocalHub, ask: Callable[..., Any], method: str) -> None:
    """A call of any method may have a JSON body, whose content type is sent with it."""
    with pytest.raises(OxenNotFoundError):
        ask(_config(oxen_hub), Call(method, "/api/x%20y?z=1", bytes, body={"prompt": "Wäs? {text}", "n": 1}))

    request = oxen_hub.requests[-1]
    assert (request.method, request.path) == (method, "/api/x%20y?z=1")
    assert json.loads(request.body) == {"prompt": "Wäs? {text}", "n": 1}
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == str(len(request.body))


@pytest.mark.parametrize("ask", [_ask_with_requests, _ask_with_aiohttp])
def test_call_without_a_body_has_no_content_type(oxen_hub: LocalHub, ask: Callable[..., Any]) -> None:
    """A POST without a body says that it has none."""
    with pytest.raises(OxenNotFoundError):
        ask(_config(oxen_hub), Call("POST", "/api/x", bytes))

    request = oxen_hub.requests[-1]
    assert (request.method, request.body, request.headers.get("content-length")) == ("POST", b"", "0")
    assert "content-type" not in request.headers


def test_url_can_be_kept(oxen_hub: LocalHub) -> None:
    """An address that was built once serves many requests."""
    config, call = _config(oxen_hub), _call(oxen_hub.add_evaluation("än-id", seconds=60))
    url = build_url(config, call)

    async def twice() -> None:
        async with async_session(config) as session:
            await send_async(session, config, call, url)
            await send_async(session, config, call, url)

    asyncio.run(twice())

    assert [request.path for request in oxen_hub.requests] == [call.path, call.path]
    assert oxen_hub.connections_opened == 1


@pytest.mark.parametrize("evaluation_id", ["50%", "a+b", "a%2-b", "~tilde", "ünï", "a?b", "a#b", "a;b=c", "a:b", "a@b"])
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
    (Respond(402), OxenPaymentRequiredError),
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
    """What goes wrong is raised as the same class by both transports, and the key is not in the text."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(Fault(fault),))

    with pytest.raises(expected) as caught:
        fetch(evaluation_id)

    assert type(caught.value) is expected
    assert oxen_hub.api_key not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_response_that_is_too_large_is_cut_off(fetch: Fetch, oxen_hub: LocalHub, encoding: str) -> None:
    """A response is read up to 4 MiB, counted after decompression, even if it is an evaluation."""
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
    """A small response that decompresses to 256 MiB is given up long before that."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 2**20) for _ in range(256)) + packer.flush()
    evaluation_id = oxen_hub.add_evaluation(faults=(Fault(Respond(200, bomb, {"Content-Encoding": "gzip"})),))
    tracemalloc.start()
    try:
        with pytest.raises(OxenInvalidResponseError, match="larger than 4 MiB"):
            fetch(evaluation_id)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 32 * 2**20


def test_transports_agree_on_the_words(oxen_hub: LocalHub) -> None:
    """An error of the hub has the same text whichever transport received it, but for the request id."""
    body = json.dumps({"status": "error", "status_message": "no_credits", "error": {"detail": "Top up"}}).encode()
    call = _call(oxen_hub.add_evaluation(faults=(Fault(Respond(402, body)),)))

    with pytest.raises(OxenPaymentRequiredError) as with_requests:
        _ask_with_requests(_config(oxen_hub), call)
    with pytest.raises(OxenPaymentRequiredError) as with_aiohttp:
        _ask_with_aiohttp(_config(oxen_hub), call)

    assert str(with_requests.value).replace("local-1", "local-2") == str(with_aiohttp.value)
    assert "no_credits; Top up" in str(with_requests.value)
    assert with_requests.value.request_id == "local-1"


def test_refused_connection_is_transient(fetch: Fetch) -> None:
    """A port where nothing listens cannot be reached, and the error says so."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    with pytest.raises(OxenUnreachableError, match="Connect"):
        fetch("any", host=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("number", ["EAI_NONAME", "EAI_AGAIN"])
def test_name_that_does_not_resolve_is_transient(fetch: Fetch, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    """DNS fails for a while, too; only a name that is not known may be a setting, and the error says so."""

    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(getattr(socket, number), "made up")

    monkeypatch.setattr(socket, "getaddrinfo", fails)

    with pytest.raises(OxenUnreachableError, match=r"made up.*https://no-such-hub\.invalid") as caught:
        fetch("any", host="https://no-such-hub.invalid")

    assert caught.value.is_setting == (number == "EAI_NONAME")
    assert ("check the connection's host" in str(caught.value)) == caught.value.is_setting


def test_tls_to_a_port_without_it_names_the_setting(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """A hub that speaks plain HTTP cannot be reached with https, and the error says what to set."""
    with pytest.raises(OxenUnreachableError, match="does not speak TLS: set the connection's schema to http") as caught:
        fetch("any", host=oxen_hub.url.replace("http:", "https:"))

    assert caught.value.is_setting


def test_plain_http_to_a_port_with_tls_names_the_setting(fetch: Fetch) -> None:
    """A port that responds with an alert of TLS speaks https, and the error says what to set."""
    with (
        raw_server(b"\x15\x03\x03\x00\x02\x02\x46") as url,
        pytest.raises(OxenUnreachableError, match="speaks TLS: set the connection's schema to https") as caught,
    ):
        fetch("any", host=url)

    assert caught.value.is_setting


@pytest.mark.parametrize(
    ("code", "advice", "is_setting"),
    [
        (92, "Python 3.13 and later refuse a CA without these extensions", True),
        (62, "the certificate is for another name: check the connection's host", True),
        (10, "the certificate or this machine's clock is out of date", False),
        (20, "check the CA file that the connection's extra field 'verify' names, '/ca.pem'", True),
    ],
)
def test_certificate_that_is_refused_has_its_own_advice(code: int, advice: str, *, is_setting: bool) -> None:
    """Where ``verify`` is set already, the error does not advise to set it, but what helps with this certificate."""
    config = ClientConfig("c", "https://hub.example", "key", verify="/ca.pem")
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed: made up")
    refused.verify_code = code

    error = translate(requests.exceptions.SSLError(refused), requests_table(), _call("e"), config, None)

    assert "certificate verify failed: made up" in str(error)
    assert advice in str(error)
    assert "may name" not in str(error)
    assert error.is_setting == is_setting  # type: ignore[attr-defined]


def test_hub_that_asks_for_a_client_certificate_is_named(fetch: Fetch, tmp_path: Path) -> None:
    """The error says that none can be given, and not to set ``verify``."""
    ca, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(tls)
    ca.configure_trust(tls)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls.verify_mode, tls.maximum_version = ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2

    with (
        RawServer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tls=tls) as server,
        pytest.raises(OxenUnreachableError, match="asks for a client certificate, which") as caught,
    ):
        fetch("any", host=server.url, extra={"verify": str(tmp_path / "ca.pem")})

    assert "verify" not in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "asks for a client certificate, which a connection of this type cannot"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "accepts no version of TLS that this machine allows"),
        ("UNSUPPORTED_PROTOCOL", "has no version of TLS that this machine allows"),
    ],
)
@pytest.mark.parametrize("library", ["requests", "aiohttp"])
def test_tls_that_can_never_work_is_a_setting(library: str, reason: str, words: str) -> None:
    """The alerts of TLS that no later poll heals are told from those that may pass."""
    refused = ssl.SSLError(1, f"[SSL: {reason}] made up")
    refused.reason = reason
    raised: BaseException = requests.exceptions.SSLError(refused)
    if library == "aiohttp":
        raised = aiohttp.ClientOSError(1, f"[SSL: {reason}] made up")
        raised.__cause__ = refused
    table = requests_table() if library == "requests" else aiohttp_table()

    error = translate(raised, table, _call("e"), ClientConfig("c", "https://hub.example", "key"), None)

    assert words in str(error)
    assert error.is_setting  # type: ignore[attr-defined]


@pytest.mark.parametrize("what", [Delay(5), Trickle(0.05)], ids=str)
def test_timeout_covers_the_whole_request(fetch: Fetch, oxen_hub: LocalHub, what: Delay | Trickle) -> None:
    """A response that is late, or that trickles, is given up after the connection's ``timeout``."""
    evaluation_id = oxen_hub.add_evaluation(faults=(Fault(what),))
    began = time.monotonic()

    with pytest.raises(OxenUnreachableError, match=r"within 0\.4 s"):
        fetch(evaluation_id, extra={"timeout": 0.4})

    assert time.monotonic() - began < 3


def test_idle_connection_closed_by_the_hub_is_replaced(oxen_hub: LocalHub) -> None:
    """A kept connection that the hub closed meanwhile does not fail the next request, with either transport."""
    closes = (Fault(Disconnect("after")),)
    config, call = _config(oxen_hub), _call(oxen_hub.add_evaluation(seconds=60, faults=closes))

    async def twice() -> None:
        async with async_session(config) as session:
            await send_async(session, config, call)
            await asyncio.sleep(0.3)
            await send_async(session, config, call)

    asyncio.run(twice())
    with sync_session(config) as session:
        send(session, config, call)
        time.sleep(0.3)
        send(session, config, call)

    assert oxen_hub.connections_opened == 4


@contextlib.contextmanager
def raw_server(response: bytes) -> Iterator[str]:
    """Serve bytes, whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(response)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
            thread.join()


@pytest.fixture
def tls_hub(tmp_path: Path) -> Iterator[LocalHub]:
    """Run a hub that speaks https with a certificate of a CA of its own, whose file is ``ca.pem``."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    with LocalHub(tls=context) as hub:
        yield hub


def test_certificate_is_checked_by_default(fetch: Fetch, tls_hub: LocalHub) -> None:
    """A hub whose certificate is of an unknown CA gets no request, and the error names the field to set."""
    with pytest.raises(OxenUnreachableError, match="'verify'") as caught:
        fetch(tls_hub.add_evaluation(seconds=0), tls_hub)

    assert tls_hub.requests == []
    assert caught.value.is_setting


def test_certificate_for_another_name_is_a_setting(fetch: Fetch, tmp_path: Path) -> None:
    """A hub whose certificate is for another name gets no request, and the error says what to check."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("other.example").configure_cert(context)
    with LocalHub(tls=context) as hub:
        with pytest.raises(OxenUnreachableError, match="for another name: check the connection's host") as caught:
            fetch("any", hub, extra={"verify": str(tmp_path / "ca.pem")})

        assert hub.requests == []
    assert caught.value.is_setting


def test_certificate_of_a_private_ca_is_accepted_with_its_file(fetch: Fetch, tls_hub: LocalHub, tmp_path: Path) -> None:
    """``verify`` may name the file of the CA to trust."""
    extra = {"verify": str(tmp_path / "ca.pem")}

    assert fetch(tls_hub.add_evaluation(seconds=0), tls_hub, extra=extra).status == "completed"


def test_certificate_check_can_be_switched_off(fetch: Fetch, tls_hub: LocalHub) -> None:
    """``verify`` false accepts any certificate."""
    # urllib3 warns of each such request, rightly.
    with pytest.warns() if fetch.__name__ == "requests" else contextlib.nullcontext():
        assert fetch(tls_hub.add_evaluation(seconds=0), tls_hub, extra={"verify": False}).status == "completed"


def test_transports_trust_the_same_cas(
    fetch: Fetch, tls_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without ``verify``, both transports trust what this machine trusts, and not a list that one library brings."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    assert fetch(tls_hub.add_evaluation(seconds=0), tls_hub).status == "completed"


@pytest.fixture
def trickling_headers() -> Iterator[str]:
    """Run a server that sends one header line after the other, without end."""

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
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_timeout_covers_headers_that_trickle(fetch: Fetch, trickling_headers: str) -> None:
    """Headers that never end are given up after ``timeout`` as well."""
    began = time.monotonic()

    with pytest.raises(OxenUnreachableError, match=r"within 0\.4 s"):
        fetch("any", host=trickling_headers, extra={"timeout": 0.4})

    assert time.monotonic() - began < 3


def test_proxy_is_used(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """With ``proxy``, requests go to the proxy: here to the local hub, for a host that does not exist."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    evaluation = fetch(evaluation_id, host="http://no-such-hub.invalid", extra={"proxy": oxen_hub.url})

    assert evaluation.status == "completed"


@contextlib.contextmanager
def tunnel(*, status: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Run a proxy that responds to CONNECT with a status, and lets through what follows a 200; return the heads."""
    heads: list[bytes] = []

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65_536)
            heads.append(head)
            client.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            if status.startswith(b"200"):
                relay_to(head.split()[1], client)

    with serve_each(serve) as port:
        yield f"http://user:word@127.0.0.1:{port}", heads


def test_proxy_is_tunnelled_through_to_a_hub_with_tls(fetch: Fetch, tls_hub: LocalHub, tmp_path: Path) -> None:
    """The proxy gets its own login and never the API key; the hub's certificate is checked behind it."""
    with tunnel(status=b"200 Connected") as (proxy, heads):
        extra = {"proxy": proxy, "verify": str(tmp_path / "ca.pem")}

        assert fetch(tls_hub.add_evaluation(seconds=0), tls_hub, extra=extra).status == "completed"

    (head,) = heads
    assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in head
    assert tls_hub.api_key.encode() not in head


def test_proxy_that_refuses_is_named(fetch: Fetch, tls_hub: LocalHub, tmp_path: Path) -> None:
    """An error because of a proxy that refuses names the proxy's field, without its password."""
    with tunnel(status=b"502 Bad Gateway") as (proxy, _):
        extra = {"proxy": proxy, "verify": str(tmp_path / "ca.pem")}

        with pytest.raises(OxenUnreachableError, match="extra field 'proxy'") as caught:
            fetch(tls_hub.add_evaluation(seconds=0), tls_hub, extra=extra)

    assert "word" not in str(caught.value)
    assert not caught.value.is_setting


def test_proxy_that_asks_for_a_login_is_a_setting(fetch: Fetch, tls_hub: LocalHub, tmp_path: Path) -> None:
    """No later poll finds another login: the error says where to put it, and does not show the one that is there."""
    with tunnel(status=b"407 Proxy Authentication Required") as (proxy, _):
        extra = {"proxy": proxy, "verify": str(tmp_path / "ca.pem")}

        with pytest.raises(
            OxenUnreachableError, match=r"407: the proxy asks for a login: .* extra field 'proxy'"
        ) as caught:
            fetch(tls_hub.add_evaluation(seconds=0), tls_hub, extra=extra)

    assert proxy not in str(caught.value)
    assert caught.value.is_setting


def test_proxy_that_does_not_speak_tls_is_named_first(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """Where the proxy's address says https and its port does not speak it, the proxy is what to change."""
    extra = {"proxy": oxen_hub.url.replace("http:", "https:")}

    with pytest.raises(OxenUnreachableError, match=r"^the proxy's port, or else the hub's, does not") as caught:
        fetch("any", host="https://no-such-hub.invalid", extra=extra)

    assert caught.value.is_setting


def test_proxy_of_the_environment_is_not_used(
    fetch: Fetch, oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies of the environment are not used: only the connection sets one."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert fetch(oxen_hub.add_evaluation(seconds=0)).status == "completed"


def test_redirect_is_not_followed(fetch: Fetch, oxen_hub: LocalHub) -> None:
    """A redirect ends in an error that names where it pointed; nothing is sent there."""
    with LocalHub() as elsewhere:
        location = {"Location": f"{elsewhere.url}/api/stolen?key={oxen_hub.api_key}"}
        evaluation_id = oxen_hub.add_evaluation(faults=(Fault(Respond(307, headers=location)),))

        with pytest.raises(OxenBadRequestError, match=f"a redirect to {elsewhere.url}/api/stolen\\."):
            fetch(evaluation_id)

        assert elsewhere.requests == []


def test_max_connections_bounds_the_sockets(oxen_hub: LocalHub) -> None:
    """However many requests at a time, each transport opens no more than ``max_connections``."""
    config = _config(oxen_hub, extra={"max_connections": 3})
    call = _call(oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(0.05)),)))

    async def many() -> None:
        async with async_session(config) as session:
            await asyncio.gather(*(send_async(session, config, call) for _ in range(12)))

    asyncio.run(many())
    assert oxen_hub.connections_opened == 3

    with sync_session(config) as session, ThreadPoolExecutor(12) as threads:
        send(session, config, call)
        list(threads.map(lambda _: send(session, config, call), range(12)))
    assert oxen_hub.connections_opened == 6


def test_transient_and_permanent_are_different_classes() -> None:
    """Each fault above is either one or the other."""
    for _, kind in FAULTS:
        assert issubclass(kind, OxenTransientError) != issubclass(kind, OxenPermanentError)
