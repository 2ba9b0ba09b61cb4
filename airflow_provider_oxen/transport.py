"""
Send one call, return status code, headers and body: twice, with requests and with aiohttp.

How this works:

1. Both transports have the same limits: ``MAX_BODY_BYTES``, those on headers, and the configured timeout from the
   first to the last byte. Neither library decompresses: ``content`` does it for both. Both follow no redirect, trust
   the same CAs, and take no proxy and no ``.netrc`` from the environment, which only one of the libraries reads.
2. Both raise the same errors. Each has a table that maps the exceptions of its library to ours, by class and never by
   text.
3. A call that is not repeatable is sent once: on a connection of its own, which is opened for it and closed after it,
   so that no closed connection is met and no library sends it again. :func:`send` gives its response the whole timeout.
4. :class:`SentOnce` knows whether it began to be sent. Until then, what goes wrong is an :class:`OxenUnreachableError`
   whose text begins with "not sent: ", and afterwards an :class:`OxenUnknownEffectError`.

requests and aiohttp are imported on first use: a DAG file that is parsed needs neither.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_oxen import __version__
from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.connecting import adapt_connections, is_lost_before_response, ssl_context
from airflow_provider_oxen.content import LIBRARY_HEADER_BYTES, check_headers, check_size, decode_content
from airflow_provider_oxen.exceptions import OxenUnreachableError
from airflow_provider_oxen.protocol import Call, Response, build_headers
from airflow_provider_oxen.sent_once import SentOnce, trace_connections, watch_connections
from airflow_provider_oxen.time_limit import TimeLimit, run_within
from airflow_provider_oxen.transport_errors import aiohttp_table, is_of_requests, requests_table, translate
from airflow_provider_oxen.version_compat import airflow_version

if TYPE_CHECKING:
    import ssl

    import aiohttp
    import requests
    import yarl

__all__ = [
    "AsyncSession",
    "async_session",
    "build_url",
    "build_user_agent",
    "read_headers",
    "send",
    "send_async",
    "sync_session",
]

#: How long to wait for connections to be closed, in seconds: usually much less than one.
_CLOSING_SECONDS = 2.0
#: Bytes asked of a stream at a time.
_CHUNK_BYTES = 64 * 1024


def build_user_agent(airflow_version: str) -> str:
    """
    Name Airflow and this provider, Airflow first.

    The vendor's server takes any agent with "oxen" in it for an Oxen client, reads what follows the first slash as that
    client's version, and refuses versions below 0.36.0 with 426. Source: the open-source Oxen server.
    """
    return f"Apache-Airflow/{airflow_version} airflow-provider-oxen/{__version__}"


@contextmanager
def sync_session(config: ClientConfig, once: SentOnce | None = None) -> Iterator[requests.Session]:
    """Open connections for :func:`send`; they are closed on leaving. ``once`` is for :func:`send` alone."""
    import requests
    from requests.adapters import HTTPAdapter

    context = ssl_context(config)

    class Adapter(HTTPAdapter):
        """Checks certificates against what the other transport does; requests would bring a list of its own."""

        def init_poolmanager(self, *args: Any, **named: Any) -> None:
            super().init_poolmanager(*args, ssl_context=context, **named)
            adapt_connections(self.poolmanager)
            if once is not None:
                watch_connections(self.poolmanager, once)

        def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
            if proxy in self.proxy_manager:  # a second call gives the same manager
                return self.proxy_manager[proxy]
            manager = super().proxy_manager_for(proxy, ssl_context=context, proxy_ssl_context=context, **named)
            adapt_connections(manager)
            if once is not None:
                watch_connections(manager, once)
            return manager

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
        session.headers["User-Agent"] = build_user_agent(airflow_version())
        adapter = Adapter(pool_connections=1, pool_maxsize=config.max_connections, pool_block=True)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        yield session


def send(
    session: requests.Session,
    config: ClientConfig,
    call: Call[Any],
    before_sending: Callable[[], None] | None = None,
) -> Response:
    """
    Send a call and receive its response, on this thread.

    :param session: of the same configuration. A call that is not repeatable uses a session of its own instead.
    :param before_sending: for a call that is not repeatable: called when its connection is established, before the
        first byte of it is sent. What it raises keeps the call from being sent, and is raised here.
    :raises OxenTransientError: no response came, or not a whole one. Of a call that is not repeatable: it was not sent.
    :raises OxenUnknownEffectError: a call that is not repeatable was sent, and no whole response came.
    """
    import requests

    give_up_at_monotonic = time.monotonic() + config.timeout_seconds
    once = None if call.repeatable else SentOnce(before_sending)
    more: Callable[[], float] = (lambda: 0.0) if once is None else partial(once.seconds_left, config.timeout_seconds)
    content = call.content()
    headers = build_headers(config) | ({} if content is None else {"Content-Type": "application/json"})
    if once is not None:
        headers["Connection"] = "close"

    def exchange() -> Response:
        try:
            return exchange_once()
        except requests.ConnectionError as error:
            # As aiohttp does: most often, the hub closed a kept connection just when the request was sent.
            if once is not None or call.method != "GET" or not is_lost_before_response(error):
                raise
            return exchange_once()

    def exchange_once() -> Response:
        with (
            nullcontext(session) if once is None else sync_session(config, once) as used,
            used.request(
                call.method,
                config.base_url + call.path,
                data=content,
                headers=headers,
                timeout=config.timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            found = read_headers(call, response.raw.headers)
            check_size(call, int(length) if (length := found.get("content-length", "")[:20]).isdecimal() else 0)
            body = bytearray()
            # read1 returns what has come, so that a trickle is noticed between two of its drops.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                body += chunk
                check_size(call, len(body))
                if time.monotonic() > give_up_at_monotonic and more() <= 0:
                    raise TimeoutError
            content_read = decode_content(call, response.status_code, found.get("content-encoding"), bytes(body))
            return Response(response.status_code, found, content_read)

    try:
        try:
            return run_within(config.timeout_seconds, exchange, more)
        finally:
            if once is not None:
                once.give_up()
    except Exception as error:
        if once is not None and once.prevented_by is not None:
            raise once.prevented_by from None
        if once is None and not is_of_requests(error):
            raise
        raise translate(error, requests_table(), call, config, once) from None


class AsyncSession(NamedTuple):
    """Connections to one hub, and the time limit of the requests on them."""

    connections: aiohttp.ClientSession
    limit: TimeLimit


@asynccontextmanager
async def async_session(config: ClientConfig, once: SentOnce | None = None) -> AsyncIterator[AsyncSession]:
    """Open connections for :func:`send_async`; they are closed on leaving. ``once`` is for :func:`send_async` alone."""
    import asyncio

    # Importing the library and reading CA files take time, for which the event loop must not stand still.
    context, user_agent = await asyncio.to_thread(_prepare, config)
    import aiohttp

    from airflow_provider_oxen.aiohttp_connector import PromptConnector

    limit = TimeLimit(config.timeout_seconds)
    connections = aiohttp.ClientSession(
        connector=PromptConnector(limit=config.max_connections, ssl=context),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent, **build_headers(config)},
        timeout=aiohttp.ClientTimeout(),  # none: the limit is ours
        auto_decompress=False,
        max_line_size=LIBRARY_HEADER_BYTES,
        max_field_size=LIBRARY_HEADER_BYTES,
        trust_env=False,
        trace_configs=None if once is None else [trace_connections(once)],
    )
    try:
        yield AsyncSession(connections, limit)
    finally:
        limit.close()
        # Before 3.12.15, aiohttp closes a connection through a proxy's tunnel, but never stops waiting for its end.
        with suppress(TimeoutError):
            await asyncio.wait_for(connections.close(), _CLOSING_SECONDS)


def build_url(config: ClientConfig, call: Call[Any]) -> yarl.URL:
    """Build a call's address for :func:`send_async`. It costs more than an address should, and can be kept."""
    import yarl

    return yarl.URL(config.base_url + call.path, encoded=True)


async def send_async(
    session: AsyncSession, config: ClientConfig, call: Call[Any], url: yarl.URL | None = None
) -> Response:
    """
    Send a call and receive its response, on the running event loop. After a cancellation, nothing is sent.

    :param session: of the same configuration; it has the headers of every request, so that they need not be merged
        each time. A call that is not repeatable uses a session of its own instead.
    :param url: what :func:`build_url` gave for the call, where it was kept.
    :raises OxenTransientError: no response came, or not a whole one. Of a call that is not repeatable: it was not sent.
    :raises OxenUnknownEffectError: a call that is not repeatable was sent, and no whole response came.
    """
    once = None if call.repeatable else SentOnce()
    try:
        url = url or build_url(config, call)
        if once is None:
            return await _exchange(session, config, call, url)
        async with async_session(config, once) as own:
            return await _exchange(own, config, call, url, {"Connection": "close"})
    except Exception as error:
        import aiohttp

        if once is None and not isinstance(error, (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)):
            if not isinstance(error, RuntimeError) or not session.connections.closed:
                raise
            # Another user of the client found the key rotated and closed these connections.
            raise OxenUnreachableError("the connections were closed meanwhile", request=str(call)) from error
        raise translate(error, aiohttp_table(), call, config, once) from None


async def _exchange(
    session: AsyncSession,
    config: ClientConfig,
    call: Call[Any],
    url: yarl.URL,
    headers: Mapping[str, str] | None = None,
) -> Response:
    options: dict[str, Any] = {} if config.proxy is None else {"proxy": config.proxy}
    if (content := call.content()) is not None:
        options["data"] = content
        headers = {"Content-Type": "application/json", **(headers or {})}
    elif call.method != "GET":
        options["skip_auto_headers"] = ["Content-Type"]  # aiohttp names a type even where there is no body
    if headers is not None:
        options["headers"] = headers
    with session.limit.running():
        response = await session.connections.request(call.method, url, allow_redirects=False, **options)
        try:
            check_headers(call, response.raw_headers, response.headers.get("Transfer-Encoding"))
            body = await _read_body(call, response)
        except BaseException:
            response.close()
            raise
    if encoding := response.headers.get("Content-Encoding"):
        body = decode_content(call, response.status, encoding, body)
    return Response(response.status, response.headers, body)


async def _read_body(call: Call[Any], response: aiohttp.ClientResponse) -> bytes:
    # Where the length is given, no more than that is read, and it can be read at once.
    length = response.content_length
    if length is not None:
        check_size(call, length)
        return await response.read()
    body = bytearray()
    while chunk := await response.content.read(_CHUNK_BYTES):
        body += chunk
        check_size(call, len(body))
    return bytes(body)


def _prepare(config: ClientConfig) -> tuple[ssl.SSLContext | bool, str]:
    """Import what a wait on an event loop will need; make the TLS settings (True: no TLS) and the user agent."""
    import msgspec  # noqa: F401
    import pendulum  # noqa: F401

    import airflow_provider_oxen.aiohttp_connector  # noqa: F401

    needed = any((address or "").startswith("https:") for address in (config.base_url, config.proxy))
    context = ssl_context(config) if needed else True
    return context, build_user_agent(airflow_version())


def read_headers(call: Call[Any], headers: Any) -> dict[str, str]:
    """Read urllib3's headers. Of a name that is there more than once the first counts, as with aiohttp."""
    pairs = list(headers.iteritems())
    found = {name.lower(): value for name, value in reversed(pairs)}
    check_headers(call, pairs, found.get("transfer-encoding"))
    return found
