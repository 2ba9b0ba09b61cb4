"""
What went wrong while a call was sent: the exceptions of requests and of aiohttp as our own errors.

Each library has a table, by class and never by text. Whether a call was sent is never read from an exception's class:
:class:`~airflow_provider_oxen.sent_once.SentOnce` knows it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.content import describe_long_header, describe_many_headers
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenInvalidResponseError,
    OxenRequestError,
    OxenTransientError,
    OxenUnreachableError,
)
from airflow_provider_oxen.protocol import Call, as_unknown_effect
from airflow_provider_oxen.sent_once import SentOnce

__all__ = ["aiohttp_table", "is_of_requests", "requests_table", "translate"]

#: There is no such name. A resolver that cannot be reached has another number.
_UNKNOWN_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
#: What OpenSSL calls a response that is not TLS, by its version.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
#: What OpenSSL says where the other side asks for a certificate of ours, or shares no version of TLS with us.
_TLS_REFUSED = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "asks for a client certificate, which a connection of this type cannot give",
    "TLSV1_ALERT_PROTOCOL_VERSION": "accepts no version of TLS that this machine allows",
    "UNSUPPORTED_PROTOCOL": "has no version of TLS that this machine allows",
}
#: How a port with TLS responds to plain HTTP, as bytes and as Python shows them in a text: a fatal alert.
_TLS_ALERT = ("\x15\x03", "\\x15\\x03")
#: Source: OpenSSL's x509_vfy.h.
_OTHER_NAME, _OUT_OF_DATE, _STRICT, _UNKNOWN_CA = (62, 64), (9, 10), range(79, 95), range(18, 22)
#: What http.client says where a proxy asks for a login. It raises an OSError with this text for every status code.
_NO_TUNNEL = "Tunnel connection failed: 407"

_Table: TypeAlias = tuple[
    tuple[type[BaseException], Callable[[BaseException], tuple[type[OxenTransientError], str]]], ...
]


def requests_table() -> _Table:
    """List what requests' exceptions mean. The first match counts."""
    import requests
    import urllib3

    return (
        (http.client.HTTPException, _broken_off),
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


def is_of_requests(error: BaseException) -> bool:
    """Say whether requests, or what it is built on, raises such an exception; any other is a mistake of ours."""
    import requests
    import urllib3

    return isinstance(error, (requests.RequestException, urllib3.exceptions.HTTPError, OSError, UnicodeError))


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
        (aiohttp.http_exceptions.HttpProcessingError, _broken_off),
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
    elif setting := _find_wrong_setting(error, config):
        translated = OxenUnreachableError(f"{setting} ({config.base_url})", request=request, is_setting=True)
    else:
        error = next((cause for cause in _causes(error) if _is_of_http(cause)), error)
        describe = next(describe for kind, describe in table if isinstance(error, kind))
        if not sent and describe is _broken_off:  # of a proxy, to CONNECT
            describe = _proxy_failed
        if describe is _proxy_failed and any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
            describe = _tls_failed
        kind, problem = describe(error)
        if describe is _too_slow:
            came = "whole response" if sent else "connection"
            translated = OxenUnreachableError(
                f"no {came} within {config.timeout_seconds:g} s ({config.base_url}); the connection's extra field "
                "'timeout' sets this limit",
                request=request,
            )
        else:
            # urllib3 calls it a failure of the proxy, too, once the connection is closed.
            if once is not None and sent and describe in (_no_connection, _proxy_failed):
                problem = f"the connection was lost ({_cause(error)})"
            if describe is _tls_failed:
                problem = f"{problem}; {_advise_on_certificate(error, config)}"
            translated = kind(f"{problem} ({config.base_url})", request=request)
            if isinstance(translated, OxenUnreachableError) and describe is _tls_failed:
                translated.is_setting = _verify_code(error) in (*_OTHER_NAME, *_UNKNOWN_CA, *_STRICT)
    if once is None:
        return translated
    return (
        as_unknown_effect(translated)
        if sent
        else OxenUnreachableError(
            f"not sent: {translated.problem}", request=request, is_setting=getattr(translated, "is_setting", False)
        )
    )


def _too_slow(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, f"timed out ({_cause(error)})"


def _tls_failed(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, f"no trusted TLS connection ({_cause(error)})"


def _proxy_failed(_error: BaseException) -> tuple[type[OxenTransientError], str]:
    return (
        OxenUnreachableError,
        "the proxy of the connection's extra field 'proxy' cannot be reached, or refused to connect",
    )


def _broken_off(error: BaseException) -> tuple[type[OxenTransientError], str]:
    # Of the same name in http.client and in aiohttp.
    if any(type(cause).__name__ == "LineTooLong" for cause in _causes(error)):
        return OxenInvalidResponseError, describe_long_header()
    if type(error) is http.client.HTTPException:  # which http.client raises for nothing else
        return OxenInvalidResponseError, describe_many_headers()
    return OxenInvalidResponseError, f"the response was cut off or garbled ({type(error).__name__})"


def _no_connection(error: BaseException) -> tuple[type[OxenTransientError], str]:
    return OxenUnreachableError, f"no connection to the hub ({_cause(error)})"


def _cause(error: BaseException) -> str:
    """
    Say what the operating system said, deep inside a library's exceptions; else the name of the deepest of those.

    The exceptions' own texts are left out: they quote addresses and objects, and change from release to release.
    """
    deepest = error
    for cause in _causes(error):
        deepest = cause
        if isinstance(cause, OSError) and cause.strerror:
            return " ".join(str(cause.strerror).split())[:200]
    return type(deepest).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Find the exceptions inside an exception, itself first: a library puts one into another in several ways."""
    seen: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        this = todo.pop(0)
        if isinstance(this, BaseException) and this not in seen:
            seen.append(this)
            yield this
            todo += [getattr(this, "reason", None), this.__cause__, this.__context__, *this.args]


def _find_wrong_setting(error: BaseException, config: ClientConfig) -> str | None:
    """Say which setting is likely wrong, where an exception shows one; None where it may pass by itself."""
    or_proxy = "" if config.proxy is None else ", or its extra field 'proxy'"
    for cause in _causes(error):
        if getattr(cause, "status", None) == 407 or str(cause).startswith(_NO_TUNNEL):
            return (
                "407: the proxy asks for a login: put it into the connection's extra field 'proxy', as in "
                "http://user:password@proxy.example:3128"
            )
        if isinstance(cause, socket.gaierror) and cause.errno in _UNKNOWN_NAME:
            return f"the host's name is not known ({_cause(cause)}): check the connection's host{or_proxy}"
        if isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) in _NO_TLS:
            if _has_https_proxy(config):
                return (
                    "the proxy's port, or else the hub's, does not speak TLS: write http:// in the connection's extra "
                    "field 'proxy', or check the connection's schema and port"
                )
            return f"the port does not speak TLS: set the connection's schema to http, or check its port{or_proxy}"
        if refused := _TLS_REFUSED.get(getattr(cause, "reason", None) or ""):
            return f"no TLS connection: the hub, or what is in front of it, {refused}"
        if config.base_url.startswith("http:") and any(alert in str(cause) for alert in _TLS_ALERT):
            return f"the port speaks TLS: set the connection's schema to https{or_proxy}"
    return None


def _advise_on_certificate(error: BaseException, config: ClientConfig) -> str:
    """Say what to do about a certificate that is not trusted."""
    code = _verify_code(error)
    if code in _OTHER_NAME:
        or_proxy = ", or its extra field 'proxy'" if _has_https_proxy(config) else ""
        return f"the certificate is for another name: check the connection's host{or_proxy}"
    if code in _OUT_OF_DATE:
        return "the certificate or this machine's clock is out of date"
    if code in _STRICT:
        return (
            "Python 3.13 and later refuse a CA without these extensions, which the connection cannot change: make the "
            "CA's certificate again with basicConstraints (critical), keyUsage, subjectKeyIdentifier and "
            "authorityKeyIdentifier"
        )
    if code is None:
        return "the other side refused or ended it, or asks for a client certificate, which cannot be given"
    if isinstance(config.verify, str):
        return f"check the CA file that the connection's extra field 'verify' names, {config.verify!r}"
    return "the connection's extra field 'verify' may name a CA file"


def _verify_code(error: BaseException) -> int | None:
    """Find OpenSSL's reason why a certificate is not trusted."""
    # The exceptions of aiohttp are of ssl's classes, without what those have.
    return next((found for each in _causes(error) if (found := getattr(each, "verify_code", None))), None)


def _has_https_proxy(config: ClientConfig) -> bool:
    return (config.proxy or "").lower().startswith("https:")


def _is_of_http(cause: BaseException) -> bool:
    """
    Check whether http.client could not read the response. requests reports that as a failed connection.

    A hub that closes the connection without a response is another matter.
    """
    return isinstance(cause, http.client.HTTPException) and not isinstance(cause, http.client.RemoteDisconnected)
