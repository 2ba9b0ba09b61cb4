"""
What holds for any call to the hub: how a request is written and how a response is parsed. No I/O happens here.

A :class:`Call` is a value: a new endpoint is a function that builds one. Both transports send it in the same way, and
both hand what came back to :func:`parse_response`, so they cannot disagree on what the hub said.

Sources: for the envelope, the request id and what is worth asking again, the response type and the error
classification of the open-source Oxen client and server; for ``Retry-After``, RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenInvalidResponseError,
    OxenNotFoundError,
    OxenPaymentRequiredError,
    OxenRateLimitError,
    OxenRequestError,
    OxenServerError,
    OxenTransientError,
    OxenUnknownEffectError,
)
from airflow_provider_oxen.redaction import one_line, redact

__all__ = [
    "GOOD_ENVELOPES",
    "MAX_BODY_BYTES",
    "MAX_RETRY_AFTER_SECONDS",
    "UNKNOWN_EFFECT",
    "Call",
    "ContractError",
    "Response",
    "as_unknown_effect",
    "build_headers",
    "decode_object",
    "parse_response",
]

#: How an :class:`OxenUnknownEffectError` begins. Then follows what went wrong.
UNKNOWN_EFFECT = "sent once, and whether it took effect is not known: "
#: An evaluation is a few kilobytes (its prompt included). More than this is no response of the hub's API.
MAX_BODY_BYTES = 4 * 1024 * 1024
#: Longest pause a hub may ask for: a mistake in its header must not stop a wait for days.
MAX_RETRY_AFTER_SECONDS = 3_600.0
#: The envelope's ``status`` in a good response. The vendor's client knows one more, "error". None is a response without
#: the field, which the contract does not require.
GOOD_ENVELOPES = (None, "success", "warning")
#: An error of the hub's has at least one of these. JSON without any comes from something in front of it, as HTML does.
_ENVELOPE_FIELDS = ("status", "status_message", "error")
#: What something in front of the hub says instead of passing a request on: ask elsewhere, log in, no such thing here.
#: Any other 3xx or 4xx of its own (303, 403, 409 and so on) may replace the hub's response after the hub did its work.
_NOT_PASSED_ON = frozenset({301, 302, 307, 308, 401, 404, 405, 407})
#: How much is shown of a plain text that is not the hub's.
_SHOWN_CHARACTERS = 60
#: The vendor documents 200 for every call, also for one that creates something; 201 would say the same.
_SUCCESS = (200, 201)

T = TypeVar("T")


class ContractError(ValueError):
    """A successful response is not what the contract says. The text says why."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """
    One call to the hub.

    :param method: HTTP method.
    :param path: percent-encoded path, from the hub's root on.
    :param parse: makes the result from the body of a successful response, and from the key, which must not be in
        the result. Raises :class:`ContractError` where the body is not the contract's.
    :param check: what a person should check where the hub refuses the call, as the end of a sentence.
    :param body: what to send as JSON; None: nothing.
    :param on_redirect: what a person should do where the hub redirects it, as the end of a sentence.
    :param repeatable: whether sending it again has no further effect. A call that is not is sent at most once.
    :param is_poll: whether it asks for the state of an evaluation, which metrics count.
    """

    method: str
    path: str
    parse: Callable[[bytes, str], T] = field(repr=False)
    check: str = ""
    on_redirect: str = "put the right address into the connection's host"
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    repeatable: bool = True
    is_poll: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def content(self) -> bytes | None:
        """Write the body; None where there is none."""
        import msgspec

        return None if self.body is None else msgspec.json.encode(self.body)


class Response(NamedTuple):
    """
    What came back. A tuple, since one is made at every poll.

    :param status_code: HTTP status code.
    :param headers: found by lower-case name.
    :param body: bytes after decompression, at most :data:`MAX_BODY_BYTES`.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<Response: {self.status_code}, {len(self.body):,} bytes>"


def build_headers(config: ClientConfig) -> dict[str, str]:
    """Build the headers that every request has."""
    return {
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",  # and no more, whatever else the libraries could decompress
        "Authorization": f"Bearer {config.api_key}",
    }


def parse_response(config: ClientConfig, call: Call[T], response: Response, *, now: datetime) -> T:
    """
    Parse the response to a call.

    :param now: the present, aware, for a ``Retry-After`` that is a date where the response has no date of its own.
    :return: what ``call.parse`` makes of it.
    :raises OxenRequestError: of the class that says what happened. For a call that must not be repeated, an
        :class:`OxenUnknownEffectError` takes the place of a transient error, but for a rate limit.
    """
    try:
        if response.status_code in _SUCCESS:
            return call.parse(response.body, config.api_key)
        error = _ErrorResponse(config, call, response).error_by_status_code(now)
    except ContractError as problem:
        error = _ErrorResponse(config, call, response).error_in_success(problem)
    if not call.repeatable and isinstance(error, OxenTransientError) and not isinstance(error, OxenRateLimitError):
        error = as_unknown_effect(error)
    raise error


def as_unknown_effect(error: OxenRequestError) -> OxenUnknownEffectError:
    """Make the error of a call that was sent and must not be repeated, where its response cannot be used."""
    return OxenUnknownEffectError(
        f"{UNKNOWN_EFFECT}{error.problem}",
        request=error.request,
        status_code=error.status_code,
        request_id=error.request_id,
        hub_message=error.hub_message,
    )


class _ErrorResponse:
    """Makes the error of a response without a result. What the error shows of the response is redacted, in one line."""

    def __init__(self, config: ClientConfig, call: Call[Any], response: Response) -> None:
        self._config = config
        self._call = call
        self._response = response
        self._envelope = decode_object(response.body)
        envelope = self._envelope or {}
        self._is_from_hub = any(name in envelope for name in _ENVELOPE_FIELDS)
        if not call.repeatable:  # the hub writes the first two as text; a gateway's error must not pass for its refusal
            self._is_from_hub = any(isinstance(envelope.get(name), str) for name in _ENVELOPE_FIELDS[:2])

    def error_in_success(self, problem: ContractError) -> OxenRequestError:
        """Say what is wrong with a response whose status code is that of a success."""
        if self._envelope is None:
            return self._error(OxenInvalidResponseError, f"the response is not JSON ({self._describe_body()})")
        envelope_status = self._envelope.get("status")
        if envelope_status not in GOOD_ENVELOPES:
            shown = self._show(str(redact(envelope_status, self._config.api_key)))  # before an object is quoted
            message = f"status code {self._response.status_code}, but the envelope's status is {shown!r}"
            return self._error(OxenServerError, message)
        return self._error(OxenInvalidResponseError, self._show(str(problem)))

    def error_by_status_code(self, now: datetime) -> OxenRequestError:
        """Say what any other status code means."""
        code = self._response.status_code
        foreign = "" if self._is_from_hub else f" The response is not the hub's JSON ({self._describe_body()})."
        if code == 429 and (self._is_from_hub or self._call.repeatable):
            pause = _parse_retry_after(self._response.headers, now)
            message = "429: too many requests" + ("" if pause is None else f", asked to wait {pause:g} s")
            return self._error(OxenRateLimitError, message, retry_after_seconds=pause)
        if code == 408 or code >= 500:
            pause = _parse_retry_after(self._response.headers, now)
            message = f"{code}: the hub, or a proxy in front of it, failed.{foreign}"
            return self._error(OxenServerError, message, retry_after_seconds=pause)
        if not 300 <= code < 500:
            return self._error(OxenInvalidResponseError, f"status code {code} is not in the contract")
        kind, message = self._refusal(code)
        if self._is_from_hub or (not self._call.repeatable and code in _NOT_PASSED_ON):
            return self._error(kind, f"{code}: {message}{foreign}")
        # Something in front of the hub sent it. That may pass, and advice about ids and keys would be wrong.
        came = f"{self._describe_body()}, instead of the hub's JSON, from {self._config.base_url}{self._call.path}"
        if code < 400 or code == 407:
            text = f"{code}: {message.rstrip('.')} ({came})"
        else:
            text = f"{code}, but not from the hub: {came}. Check the connection's host and proxy."
        return self._error(OxenInvalidResponseError, text)

    def _refusal(self, code: int) -> tuple[type[OxenRequestError], str]:
        check = f" Check {self._call.check}." if self._call.check else ""
        if code < 400:
            return OxenBadRequestError, (
                f"a redirect to {self._redirect_target()}. Redirects are not followed, so that the API key is sent "
                f"nowhere else: {self._call.on_redirect}"
            )
        match code:
            case 401:
                message = "the API key is not accepted. Check the connection's API key (its password field)."
                return OxenAuthenticationError, message
            case 402:
                return OxenPaymentRequiredError, "the account has no credits left. Add credits on Oxen.ai."
            case 403:
                return OxenAuthenticationError, (
                    "the API key is missing or may not see this. Check the connection's API key (its password field), "
                    "and that the key's owner may read the repository."
                )
            case 404:
                return OxenNotFoundError, f"not found{self._asked_below_a_path()}.{check}"
            case 407:
                return OxenBadRequestError, "the proxy asks for a login. Check the connection's extra field 'proxy'."
        return OxenBadRequestError, f"the hub refuses the request.{check}"

    def _asked_below_a_path(self) -> str:
        """Show the whole address where the connection's host has a path: a part of it may be there twice."""
        path = urlsplit(self._config.base_url).path
        return f" at {self._config.base_url}{self._call.path} (the connection's host ends in {path!r})" if path else ""

    def _error(self, kind: type[OxenRequestError], problem: str, **named: Any) -> OxenRequestError:
        request_id = self._response.headers.get("x-oxen-request-id")
        return kind(
            problem,
            request=str(self._call),
            status_code=self._response.status_code,
            request_id=self._show(request_id) if request_id else None,
            hub_message=self._hub_message(),
            **named,
        )

    def _hub_message(self) -> str | None:
        """Collect what an error envelope says for people, each text once."""
        if self._envelope is None or self._envelope.get("status") == "success":
            return None
        details = found if isinstance(found := self._envelope.get("error"), Mapping) else {}
        texts = [
            *(self._envelope.get(key) for key in ("status_message", "status_description")),
            *(details.get(key) for key in ("title", "type", "detail", "message")),
        ]
        shown = dict.fromkeys(self._show(text) for text in texts if isinstance(text, str) and text.strip())
        return one_line("; ".join(shown)) or None

    def _describe_body(self) -> str:
        kind = self._show(self._response.headers.get("content-type", "no content type"))
        size = f"{kind}, {len(self._response.body):,} bytes"
        if not kind.startswith("text/plain"):
            return size
        # Redacted before it is cut, so that no part of the key is left.
        text = self._show(self._response.body[:4_096].decode(errors="replace"))
        return f"{size}, {text[:_SHOWN_CHARACTERS]!r}"

    def _redirect_target(self) -> str:
        """Say where a redirect points: scheme, host and path, without login or query."""
        location = self._response.headers.get("location", "")
        try:
            parts = urlsplit(urljoin(self._config.base_url + self._call.path, location))
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            return "an invalid address"
        return self._show(f"{parts.scheme}://{host}{port}{parts.path}") if location else "no address"

    def _show(self, text: str) -> str:
        return one_line(redact(text, self._config.api_key))


def decode_object(body: bytes) -> Mapping[str, Any] | None:
    """Decode a body that is a JSON object; None for any other."""
    import msgspec  # here: the rest of the module serves callers that parse no response

    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _parse_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """
    Parse a ``Retry-After`` header, seconds or an HTTP date; None where it is neither.

    A date counts from the response's own ``Date``, so that a clock that is wrong, here or there, does not matter.
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value.partition(",")[0])  # a proxy may have put two into one
    except ValueError:
        moment = _parse_http_date(value)
        if moment is None:
            return None
        seconds = (moment - (_parse_http_date(headers.get("date")) or now)).total_seconds()
    if not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def _parse_http_date(value: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
