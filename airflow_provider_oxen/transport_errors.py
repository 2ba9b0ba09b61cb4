"""
What went wrong while a call was sent: the exceptions of requests and of aiohttp as our own errors.

Each library has a table, by class and never by text. Whether a call was sent is never read from an exception's class:
:class:`~airflow_provider_oxen.sent_once.SentOnce` knows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenInvalidResponseError,
    OxenRequestError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.protocol import Call, as_unknown_effect
from airflow_provider_oxen.sent_once import SentOnce

__all__ = ["aiohttp_table", "requests_table", "translate"]

_Table: TypeAlias = tuple[
    tuple[type[BaseException], Callable[[BaseException], tuple[type[OxenTransientError], str]]], ...
]


def requests_table() -> _Table:
    """List what requests' exceptions mean. The first match counts."""
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


def aiohttp_table() -> _Table:
    """List what aiohttp's exceptions mean. The first match counts."""
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


def translate(
    error: BaseException, table: _Table, call: Call[Any], config: ClientConfig, once: SentOnce | None
) -> OxenRequestError:
    """Make our error of a library's; of a call that is sent once, the one that says whether it was sent."""
    request, sent = str(call), once is None or once.may_have_effect()
    if isinstance(error, OxenRequestError):
        translated = error
    elif isinstance(error, OxenConfigError):
        translated = OxenUnreachableError(str(error), request=request)
    else:
        describe = next(describe for kind, describe in table if isinstance(error, kind))
        if not sent and describe is _broken_off:  # of a proxy, to CONNECT
            describe = _proxy_failed
        kind, problem = describe(error)
        if describe is _too_slow:
            came = "whole response" if sent else "connection"
            translated = OxenUnreachableError(
                f"no {came} within {config.timeout_seconds:g} s ({config.base_url}); the connection's extra field "
                "'timeout' sets this limit",
                request=request,
            )
        else:
            if once is not None and sent and describe is _no_connection:
                problem = f"the connection was lost ({_cause(error)})"
            translated = kind(f"{problem} ({config.base_url})", request=request)
    if once is None:
        return translated
    return (
        as_unknown_effect(translated)
        if sent
        else OxenUnreachableError(f"not sent: {translated.problem}", request=request)
    )


def _too_slow(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, f"timed out ({_cause(error)})"


def _tls_failed(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, (
        f"no trusted TLS connection ({_cause(error)}); the connection's extra field 'verify' may name a CA file"
    )


def _proxy_failed(_error: BaseException) -> tuple[type[OxenTransientError], str]:
    return (
        OxenUnreachableError,
        "the proxy of the connection's extra field 'proxy' cannot be reached, or refused to connect",
    )


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
