"""
The contract with the hub: how a request is written and how a response is read. No I/O happens here.

Both transports send what :func:`build_evaluation_request` and :func:`build_user_request` give, and hand what came back
to :func:`read_evaluation_response` and :func:`read_user_response`; so they cannot disagree on what the hub said.

Sources: the vendor's OpenAPI page "Get evaluation status" (API 0.224.2); for the envelope, the request id and what is
worth asking again, the response type and error classification of the open-source Oxen client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenInvalidResponseError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenRequestError,
    OxenServerError,
)
from airflow_provider_oxen.models import (
    Document,
    Evaluation,
    EvaluationRef,
    EvaluationStatus,
    read_progress,
    read_status,
    read_text,
)
from airflow_provider_oxen.parameters import check_path_parameter

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_RETRY_AFTER_SECONDS",
    "Request",
    "Response",
    "build_evaluation_request",
    "build_headers",
    "build_user_request",
    "read_evaluation",
    "read_evaluation_response",
    "read_user_response",
]

#: An evaluation is a few kilobytes (its prompt included). More than this is no evaluation, and not worth the memory.
MAX_BODY_BYTES = 4 * 1024 * 1024
#: Longest pause a hub may ask for: a slip in its header must not silence a wait for days.
MAX_RETRY_AFTER_SECONDS = 3_600.0
#: Longest text of the hub's shown in an error, in characters.
_MAX_WORDS = 500

#: Envelopes that carry an evaluation; "error" is the third word the vendor's client knows. None: the contract does not
#: require the field.
_GOOD_ENVELOPES = (None, "success", "warning")


@dataclass(frozen=True, slots=True)
class Request:
    """
    A GET request to the hub.

    :param path: percent-encoded path, for messages.
    :param url: full address.
    :param headers: what to send; not shown, since the key is among them.
    :param secret: the key, to keep out of what is read back.
    """

    path: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"GET {self.path}"


@dataclass(frozen=True, slots=True)
class Response:
    """
    What came back.

    :param status_code: HTTP status code.
    :param headers: found by lower-case name.
    :param body: bytes after decompression, at most :data:`MAX_BODY_BYTES`.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def build_evaluation_request(config: ClientConfig, ref: EvaluationRef) -> Request:
    """
    Ask for one evaluation.

    :raises OxenConfigError: namespace, repo_name or evaluation_id cannot stand in a path.
    """
    segments = [
        quote(check_path_parameter(name, value), safe="")
        for name, value in (
            ("namespace", ref.namespace),
            ("repo_name", ref.repo_name),
            ("evaluation_id", ref.evaluation_id),
        )
    ]
    return _build(config, "/api/repos/{}/{}/evaluations/{}".format(*segments))


def build_user_request(config: ClientConfig) -> Request:
    """Ask whom the key belongs to."""
    return _build(config, "/api/authorize")


def build_headers(config: ClientConfig) -> dict[str, str]:
    """Give the headers that every request has."""
    return {"Accept": "application/json", "Authorization": f"Bearer {config.api_key}"}


def _build(config: ClientConfig, path: str) -> Request:
    return Request(path=path, url=config.base_url + path, headers=build_headers(config), secret=config.api_key)


def read_evaluation_response(request: Request, response: Response, *, evaluation_id: str, now: datetime) -> Evaluation:
    """
    Read the answer to :func:`build_evaluation_request`.

    :param evaluation_id: the id that was asked for: an answer about another one is not believed.
    :param now: the present, aware, to read a ``Retry-After`` that is a date.
    :raises OxenRequestError: of the class that says what happened.
    """
    plain = _read_plain(request, response, evaluation_id)
    if plain is not None:
        return plain
    response = _without_secret(request, response)
    envelope = _read_envelope(request, response, now)
    document = envelope.get("evaluation")
    if not isinstance(document, Mapping):
        raise _invalid(request, response, "the response has no evaluation in it")
    try:
        evaluation = read_evaluation(document)
    except ValueError as error:
        raise _invalid(request, response, f"the evaluation in the response is unusable: {error}") from None
    if evaluation.id.lower() != evaluation_id.lower():  # UUIDs are the same in either case
        raise _invalid(request, response, f"the response is about another evaluation, {evaluation.id[:80]!r}")
    return evaluation


def _read_plain(request: Request, response: Response, evaluation_id: str) -> Evaluation | None:
    """
    Read an answer as nearly all are: good, about the evaluation that was asked for, and without a trace of the key.

    Only what a wait needs is decoded; the rest is checked to be JSON, and decoded when it is asked for.

    :return: None where the answer is anything else, which then has to be read with care.
    """
    import msgspec

    body = response.body
    if response.status_code != 200 or request.secret.encode() in body:
        return None
    try:
        body.decode()  # the decoder does not check what it skips to be UTF-8
        answer = _plain_decoder().decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    head, status = answer.evaluation, answer.evaluation.status
    known = isinstance(status, str) and isinstance(read_status(status), EvaluationStatus)
    if not known or head.id != evaluation_id or answer.status not in _GOOD_ENVELOPES:
        return None
    document = Document(partial(_decode_document, body, request.secret))
    return Evaluation(evaluation_id, read_status(status), read_progress(head.progress), document)


@cache
def _plain_decoder() -> Any:
    import msgspec

    head = msgspec.defstruct("head", [("id", Any, None), ("status", Any, None), ("progress", Any, None)])
    answer = msgspec.defstruct("answer", [("evaluation", head), ("status", Any, None)])
    return msgspec.json.Decoder(answer)


def _decode_document(body: bytes, secret: str) -> Mapping[str, Any]:
    import msgspec

    try:
        document: Mapping[str, Any] = msgspec.json.decode(body)["evaluation"]
    except (RecursionError, msgspec.MsgspecError):  # nested as deep as the stack, or a number of no size: passed unread
        return {}
    # Without escapes, the key would have been seen in the bytes.
    return _strike(Document(document), secret) if b"\\" in body else document


def read_evaluation(document: Mapping[str, Any]) -> Evaluation:
    """
    Read the contract's evaluation object, or what :meth:`Evaluation.to_dict` made of it.

    :raises ValueError: it has no usable ``id`` or ``status``; every other field may be missing.
    """
    evaluation_id, status = read_text(document.get("id")), document.get("status")
    if not evaluation_id:
        raise ValueError("it has no id")
    if not isinstance(status, str) or not status:
        raise ValueError("it has no status")
    return Evaluation(
        id=evaluation_id,
        status=read_status(status),
        progress=read_progress(document.get("progress")),
        document=document,
    )


def read_user_response(request: Request, response: Response, *, now: datetime) -> str:
    """
    Read the answer to :func:`build_user_request`.

    :return: the user's name and email, as far as the hub gives them.
    :raises OxenRequestError: as for an evaluation.
    """
    response = _without_secret(request, response)
    user = _read_envelope(request, response, now).get("user")
    if not isinstance(user, Mapping):
        raise _invalid(request, response, "the response names no user")
    name, email = (value if isinstance(value := user.get(key), str) else "" for key in ("name", "email"))
    if name and email:
        return f"{_words(name)} <{_words(email)}>"
    return _words(name or email) or "a user without a name"


def _read_envelope(request: Request, response: Response, now: datetime) -> Mapping[str, Any]:
    """Read the wrapper every answer has, or raise what its status code or its words say."""
    envelope = _decode(request, response)
    status_code = response.status_code
    if status_code == 200 and envelope is not None:
        envelope_status = envelope.get("status")
        if envelope_status in _GOOD_ENVELOPES:
            return envelope
        message = f"the hub answered 200, but says status {_words(str(envelope_status))!r}"
        raise _error(OxenServerError, request, response, message, envelope)
    if status_code == 200:
        raise _invalid(request, response, f"the response is not JSON ({_describe_body(response)})")
    raise _error_for_status_code(request, response, envelope, now)


def _error_for_status_code(
    request: Request, response: Response, envelope: Mapping[str, Any] | None, now: datetime
) -> OxenRequestError:
    code = response.status_code
    foreign = "" if envelope is not None else f" The answer is not the hub's JSON ({_describe_body(response)})."
    if 300 <= code < 400:
        message = (
            f"{code}, which points to {_redirect_target(request, response)}. Redirects are not followed, so that the "
            "API key goes nowhere else: put the right address into the connection's host"
        )
        return _error(OxenBadRequestError, request, response, message, envelope)
    if code == 401:
        message = f"401: the API key is not accepted. Check the connection's API key (its password field).{foreign}"
        return _error(OxenAuthenticationError, request, response, message, envelope)
    if code == 403:
        message = (
            "403: the API key is missing or may not see this. Check the connection's API key (its password field), "
            f"and that the key's owner may read the repository.{foreign}"
        )
        return _error(OxenAuthenticationError, request, response, message, envelope)
    if code == 404:
        message = (
            "404: not found. Check namespace, repo_name and evaluation_id, and that the evaluation was not "
            f"deleted.{foreign}"
        )
        return _error(OxenNotFoundError, request, response, message, envelope)
    if code == 407:
        message = "407: the proxy asks for a login. Check the connection's extra field 'proxy'"
        return _error(OxenBadRequestError, request, response, message, envelope)
    if code == 429:
        pause = _read_retry_after(response.headers.get("retry-after"), now)
        message = "429: too many requests" + ("" if pause is None else f", asked to wait {pause:g} s")
        return _error(OxenRateLimitError, request, response, message, envelope, retry_after_seconds=pause)
    if code == 408 or code >= 500:
        pause = _read_retry_after(response.headers.get("retry-after"), now)
        message = f"{code}: the hub, or a proxy before it, could not answer.{foreign}"
        return _error(OxenServerError, request, response, message, envelope, retry_after_seconds=pause)
    if 400 <= code < 500:
        message = f"{code}: the hub refuses the request. Check namespace, repo_name and evaluation_id.{foreign}"
        return _error(OxenBadRequestError, request, response, message, envelope)
    return _invalid(request, response, f"status code {code} is not in the contract")


def _without_secret(request: Request, response: Response) -> Response:
    """Strike the key out before anything is read: a hub or proxy that echoes it must not carry it into a log."""
    secret = request.secret
    body = response.body
    if secret.encode() in body:
        body = body.replace(secret.encode(), b"***")
    headers = {name.lower(): value.replace(secret, "***") for name, value in response.headers.items()}
    return Response(response.status_code, headers, body)


def _decode(request: Request, response: Response) -> Mapping[str, Any] | None:
    """Decode a body that is a JSON object; None for any other."""
    # Imported here: the rest of the module serves callers that read no response.
    import msgspec

    try:
        value = msgspec.json.decode(response.body)
        if b"\\" in response.body:
            value = _strike(value, request.secret)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _strike(value: Any, secret: str) -> Any:
    """Strike the key out of decoded texts: written with JSON's escapes, it was not seen in the bytes."""
    if isinstance(value, str):
        return value.replace(secret, "***")
    if isinstance(value, Mapping):
        return {_strike(key, secret): _strike(inner, secret) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strike(inner, secret) for inner in value]
    return value


def _error(
    kind: type[OxenRequestError],
    request: Request,
    response: Response,
    message: str,
    envelope: Mapping[str, Any] | None = None,
    **named: Any,
) -> OxenRequestError:
    request_id = response.headers.get("x-oxen-request-id")
    return kind(
        message,
        request=str(request),
        status_code=response.status_code,
        request_id=_words(request_id) if request_id else None,
        hub_message=_read_hub_message(envelope),
        **named,
    )


def _invalid(request: Request, response: Response, message: str) -> OxenRequestError:
    return _error(OxenInvalidResponseError, request, response, message)


def _read_hub_message(envelope: Mapping[str, Any] | None) -> str | None:
    """Gather what an error envelope says for people, each text once."""
    if envelope is None:
        return None
    details = envelope.get("error")
    details = details if isinstance(details, Mapping) else {}
    texts = [
        *(envelope.get(key) for key in ("status_message", "status_description")),
        *(details.get(key) for key in ("title", "type", "detail")),
    ]
    words = list(dict.fromkeys(_words(text) for text in texts if isinstance(text, str) and text.strip()))
    return _words("; ".join(words)) or None


def _words(text: str) -> str:
    """Make the hub's text fit for one line of a log: no control characters, no surrogates, not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * _MAX_WORDS]).split())
    return line if len(line) <= _MAX_WORDS else line[: _MAX_WORDS - 1] + "…"


def _describe_body(response: Response) -> str:
    kind = _words(response.headers.get("content-type", "no content type"))
    return f"{kind}, {len(response.body):,} bytes"


def _redirect_target(request: Request, response: Response) -> str:
    """Say where a redirect points: scheme, host and path, without login or query."""
    location = response.headers.get("location", "")
    try:
        parts = urlsplit(urljoin(request.url, location))
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that is none"
    return _words(f"{parts.scheme}://{host}{port}{parts.path}") if location else "nowhere"


def _read_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header, seconds or an HTTP date (RFC 9110, section 10.2.3); None where it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        seconds = (moment - now).total_seconds()
    if not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
