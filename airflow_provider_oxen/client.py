"""
Send one request, return status code, headers and body: twice, with requests and with aiohttp.

The two transports do nothing else. They agree on what limits a response (``MAX_BODY_BYTES``, and the configured
timeout from first to last byte), on never following a redirect, on the CAs they trust, on taking no proxy and no
``.netrc`` from the environment (which one library reads and the other does not), and on the errors they raise: each
has a table that maps its library's exceptions to ours, by class and never by text.

requests and aiohttp are imported on first use: a DAG file that is parsed needs neither.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import __version__
from airflow_provider_oxen.api import MAX_BODY_BYTES, Request, Response, build_headers
from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenInvalidResponseError,
    OxenTransientError,
    OxenUnreachableError,
)

if TYPE_CHECKING:
    import ssl

    import aiohttp
    import requests
    import yarl

__all__ = ["async_session", "read_url", "send", "send_async", "sync_session"]

_USER_AGENT = f"airflow-provider-oxen/{__version__}"
#: Bytes asked of a stream at a time.
_CHUNK_BYTES = 64 * 1024


@contextmanager
def sync_session(config: ClientConfig) -> Iterator[requests.Session]:
    """Open connections for :func:`send`; they are closed on leaving."""
    import requests
    from requests.adapters import HTTPAdapter

    context = _ssl_context(config)

    class Adapter(HTTPAdapter):
        """Checks certificates against what the other transport does; requests would bring a list of its own."""

        def init_poolmanager(self, *args: Any, **named: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **named)

        def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=context, **named)

        def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ARG002
            conn.cert_reqs = "CERT_NONE" if config.verify is False else "CERT_REQUIRED"

    class Session(requests.Session):
        """Leaves redirects alone: requests reads where one points even if it is not to follow, and may fail at it."""

        def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
            return None

    with Session() as session:
        session.trust_env = False
        session.verify = config.verify is not False
        session.proxies = {"http": config.proxy, "https": config.proxy} if config.proxy else {}
        session.headers["User-Agent"] = _USER_AGENT
        adapter = Adapter(pool_connections=1, pool_maxsize=config.max_connections, pool_block=True)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        yield session


def send(session: requests.Session, config: ClientConfig, request: Request) -> Response:
    """
    Send a request and read its response, on this thread.

    :raises OxenTransientError: no response came, or not a whole one.
    """
    import requests
    import urllib3

    give_up_at = time.monotonic() + config.timeout_seconds

    def exchange() -> Response:
        with session.get(
            request.url,
            headers=dict(request.headers),
            timeout=config.timeout_seconds,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = bytearray()
            # read1 returns what has come, so that a trickle is noticed between two of its drops.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                body += chunk
                _check_size(request, len(body))
                if time.monotonic() > give_up_at:
                    raise _timed_out(request, config)
            return Response(response.status_code, _lower(response.headers), bytes(body))

    try:
        return _within(config.timeout_seconds, exchange)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError) as error:
        raise _translate(error, _requests_table(), request, config) from None


def _within(seconds: float, call: Callable[[], Response]) -> Response:
    """
    Bound a call's whole time, which requests does not: its timeout counts anew with every byte that arrives.

    The call runs on a thread of its own. One that is late is left behind; it ends with what it reads, or with the
    process.
    """
    done: queue.SimpleQueue[Response | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put(call())
        except BaseException as error:  # noqa: BLE001  # raised again on the thread that waits
            done.put(error)

    threading.Thread(target=run, name="oxen-request", daemon=True).start()
    try:
        result = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(result, BaseException):
        raise result
    return result


@asynccontextmanager
async def async_session(config: ClientConfig) -> AsyncIterator[aiohttp.ClientSession]:
    """Open connections for :func:`send_async`; they are closed on leaving."""
    import asyncio

    # Importing the library and reading CA files take time, for which the event loop must not stand still.
    context = await asyncio.to_thread(_prepare, config)
    import aiohttp

    connector = aiohttp.TCPConnector(limit=config.max_connections, ssl=context)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": _USER_AGENT, **build_headers(config)},
        timeout=aiohttp.ClientTimeout(total=config.timeout_seconds),
        trust_env=False,
    ) as session:
        yield session


def read_url(request: Request) -> yarl.URL:
    """Read a request's address for :func:`send_async`. It costs more than an address should, and can be kept."""
    import yarl

    return yarl.URL(request.url, encoded=True)


async def send_async(
    session: aiohttp.ClientSession, config: ClientConfig, request: Request, url: yarl.URL | None = None
) -> Response:
    """
    Send a request and read its response, on the running event loop.

    :param session: of the same configuration; it has the request's headers, so that they need not be merged each time.
    :param url: what :func:`read_url` gave for the request, where it was kept.
    :raises OxenTransientError: no response came, or not a whole one.
    """
    try:
        response = await session.get(url or read_url(request), proxy=config.proxy, allow_redirects=False)
        try:
            return Response(response.status, response.headers, await _read_body(request, response))
        finally:
            response.release()  # closes the connection where the body was not read to its end
    except (TimeoutError, OSError, UnicodeError) as error:
        raise _translate(error, _aiohttp_table(), request, config) from None
    except Exception as error:
        import aiohttp

        if isinstance(error, aiohttp.ClientError):
            raise _translate(error, _aiohttp_table(), request, config) from None
        if not isinstance(error, RuntimeError) or not session.closed:
            raise
        # Another user of the client found the key rotated and closed these connections.
        raise OxenUnreachableError("the connections were closed meanwhile", request=str(request)) from error


async def _read_body(request: Request, response: aiohttp.ClientResponse) -> bytes:
    # Where the length is told and nothing is compressed, no more than that is read, and it can be had at one go.
    length = response.content_length
    if length is not None and "Content-Encoding" not in response.headers:
        _check_size(request, length)
        return await response.read()
    body = bytearray()
    while chunk := await response.content.read(_CHUNK_BYTES):
        body += chunk
        _check_size(request, len(body))
    return bytes(body)


def _prepare(config: ClientConfig) -> ssl.SSLContext | bool:
    """Import what a wait on an event loop will need, and make the TLS settings; True where there is no TLS."""
    import aiohttp  # noqa: F401
    import msgspec  # noqa: F401
    import pendulum  # noqa: F401

    return _ssl_context(config) if config.base_url.startswith("https") else True


def _ssl_context(config: ClientConfig) -> ssl.SSLContext:
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


_Table = tuple[tuple[type[BaseException], Callable[[BaseException], tuple[type[OxenTransientError], str]]], ...]


def _requests_table() -> _Table:
    """Which of requests' exceptions mean what, the first match counts."""
    import requests
    import urllib3

    return (
        (requests.exceptions.SSLError, _tls_failed),
        (requests.Timeout, _too_slow),
        (urllib3.exceptions.TimeoutError, _too_slow),
        (TimeoutError, _too_slow),
        (requests.exceptions.ProxyError, _proxy_failed),
        (requests.exceptions.ContentDecodingError, _broken_off),
        (requests.exceptions.ChunkedEncodingError, _broken_off),
        (urllib3.exceptions.ProtocolError, _broken_off),
        (urllib3.exceptions.DecodeError, _broken_off),
        (BaseException, _no_connection),
    )


def _aiohttp_table() -> _Table:
    """Which of aiohttp's exceptions mean what, the first match counts."""
    import aiohttp

    return (
        (aiohttp.ClientSSLError, _tls_failed),
        (TimeoutError, _too_slow),
        (aiohttp.ClientProxyConnectionError, _proxy_failed),
        (aiohttp.ClientHttpProxyError, _proxy_failed),
        (aiohttp.ClientPayloadError, _broken_off),
        (aiohttp.ClientResponseError, _broken_off),
        (BaseException, _no_connection),
    )


def _translate(error: BaseException, table: _Table, request: Request, config: ClientConfig) -> OxenTransientError:
    describe = next(describe for kind, describe in table if isinstance(error, kind))
    if describe is _too_slow:
        return _timed_out(request, config)
    kind, problem = describe(error)
    return kind(f"{problem} ({config.base_url})", request=str(request))


def _timed_out(request: Request, config: ClientConfig) -> OxenUnreachableError:
    return OxenUnreachableError(
        f"no whole response within {config.timeout_seconds:g} s ({config.base_url}); the connection's extra field "
        "'timeout' sets this limit",
        request=str(request),
    )


def _too_slow(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, f"timed out ({_cause(error)})"


def _tls_failed(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, (
        f"no trusted TLS connection ({_cause(error)}); the connection's extra field 'verify' may name a CA file"
    )


def _proxy_failed(_error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, "the proxy of the connection's extra field 'proxy' does not let through"


def _broken_off(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenInvalidResponseError, f"the response was cut off or garbled ({type(error).__name__})"


def _no_connection(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, f"no connection to the hub ({_cause(error)})"


def _cause(error: BaseException) -> str:
    """
    Say what the operating system said, deep inside a library's exceptions; else the name of the deepest of those.

    The exceptions' own texts are left out: they quote addresses and objects, and change from release to release.
    """
    chain: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        this = todo.pop(0)
        if not isinstance(this, BaseException) or this in chain:
            continue
        chain.append(this)
        if isinstance(this, OSError) and this.strerror:
            return " ".join(str(this.strerror).split())[:200]
        todo += [getattr(this, "reason", None), this.__cause__, this.__context__, *this.args]
    return type(chain[-1]).__name__


def _check_size(request: Request, size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise OxenInvalidResponseError(
            f"the response is larger than {MAX_BODY_BYTES // 2**20} MiB, which no evaluation is", request=str(request)
        )


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
