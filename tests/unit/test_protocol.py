"""What holds for any call to the hub: the request that is written, and every response that can come back."""

from __future__ import annotations

import json
import pickle
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import exceptions
from airflow_provider_oxen.calls import build_get_evaluation, build_get_user
from airflow_provider_oxen.config import parse_config
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenBadRequestError,
    OxenConfigError,
    OxenError,
    OxenInvalidResponseError,
    OxenRequestError,
    OxenServerError,
    OxenTransientError,
    OxenUnknownEffectError,
)
from airflow_provider_oxen.parameters import as_text
from airflow_provider_oxen.protocol import (
    MAX_RETRY_AFTER_SECONDS,
    Call,
    ContractError,
    Response,
    as_unknown_effect,
    build_headers,
    parse_response,
)

ID = "d0c8585d-1234-5678-abcd-ef0123456789"
#: With a character that JSON writers may escape.
KEY = "oxk-4f/1c9a"
NOW = datetime(2026, 11, 1, 10, 0, 0, tzinfo=timezone.utc)
CONFIG = parse_config("oxen_default", password=KEY)
REF = EvaluationRef("ox", "customer-intents", ID)
CALL = build_get_evaluation(REF)
#: A call that must not be repeated, whose result is the body's length.
POST = Call("POST", "/api/start", lambda body, _: _length(body), check="the prompt", body={"n": 1}, repeatable=False)
GOOD = {"status": "success", "status_message": "resource_found", "evaluation": {"id": ID, "status": "running"}}
BAD = {"status": "error", "status_message": "not today", "error": {"title": "Busy", "detail": "not today"}}


def _length(body: bytes) -> int:
    if b"evaluation" not in body:
        raise ContractError("the response has no evaluation in it")
    return len(body)


def _response(status_code: int, body: object, headers: dict[str, str]) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
    return Response(status_code, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def _parse(status_code: int = 200, body: object = None, **headers: str) -> Evaluation:
    return parse_response(CONFIG, CALL, _response(status_code, body, headers), now=NOW)


def _error(status_code: int = 200, body: object = None, **headers: str) -> OxenRequestError:
    with pytest.raises(OxenRequestError) as caught:
        _parse(status_code, body, **headers)
    return caught.value


def _post_error(status_code: int, body: object, **headers: str) -> OxenRequestError:
    with pytest.raises(OxenRequestError) as caught:
        parse_response(CONFIG, POST, _response(status_code, body, headers), now=NOW)
    return caught.value


# The request


def test_call_for_an_evaluation_is_the_contracts() -> None:
    """An evaluation is asked for at the contract's path, with nothing in the body, and may be asked for again."""
    assert (CALL.method, CALL.path) == ("GET", f"/api/repos/ox/customer-intents/evaluations/{ID}")
    assert (CALL.content(), CALL.repeatable) == (None, True)


def test_call_for_the_user_is_the_contracts() -> None:
    """Whose key it is, is asked for at the path of the vendor's client."""
    assert str(build_get_user()) == "GET /api/authorize"


def test_headers_have_the_key_as_a_bearer() -> None:
    """Every request accepts JSON and has the key."""
    assert build_headers(CONFIG) == {
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "Authorization": f"Bearer {KEY}",
    }


def test_call_shows_method_and_path_only() -> None:
    """A call in a message is its method and path; its body is in neither form of it."""
    call = Call("POST", "/api/x", _length, body={"prompt": "confidential"})

    assert str(call) == "POST /api/x"
    assert "confidential" not in repr(call)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (None, None),
        ({}, b"{}"),
        ({"prompt": "Wäs?", "n": [1, None, True]}, '{"prompt":"Wäs?","n":[1,null,true]}'.encode()),
    ],
)
def test_body_is_written_as_json(body: dict[str, Any] | None, content: bytes | None) -> None:
    """A body is written as JSON; an empty one is a body, and None is not."""
    assert Call("POST", "/", _length, body=body).content() == content


def test_response_hides_its_body() -> None:
    """A response in a traceback does not show its body, which may hold data or the key."""
    assert KEY not in repr(Response(200, {}, KEY.encode()))


@given(*[st.text(min_size=1, max_size=8)] * 3)
def test_path_names_what_was_asked_for(namespace: str, repo_name: str, evaluation_id: str) -> None:
    """Every name that is accepted is one encoded segment of the path."""
    try:
        call = build_get_evaluation(EvaluationRef(namespace, repo_name, evaluation_id))
    except OxenConfigError:
        return

    segments = [unquote(segment) for segment in call.path.split("/")]
    namespace, repo_name, evaluation_id = map(as_text, (namespace, repo_name, evaluation_id))
    assert segments == ["", "api", "repos", namespace, repo_name, "evaluations", evaluation_id]
    assert call.path.isascii()


@pytest.mark.parametrize("name", ["namespace", "repo_name", "evaluation_id"])
def test_call_is_not_built_from_an_empty_name(name: str) -> None:
    """A name that is missing is refused before any request, by its argument's name."""
    named = {"namespace": "ox", "repo_name": "r", "evaluation_id": ID} | {name: ""}

    with pytest.raises(OxenConfigError, match=f"^argument '{name}': "):
        build_get_evaluation(EvaluationRef(**named))


# Responses that carry an evaluation


@pytest.mark.parametrize("envelope_status", ["success", "warning", None])
def test_envelope_that_is_no_error_carries_the_evaluation(envelope_status: str | None) -> None:
    """Success, warning and a missing status all bring the evaluation."""
    assert _parse(body=GOOD | {"status": envelope_status}).id == ID


def test_envelope_needs_only_the_evaluation() -> None:
    """The contract requires neither status nor message of the wrapper."""
    assert _parse(body={"evaluation": GOOD["evaluation"]}).status == "running"


def test_id_is_the_same_in_either_case() -> None:
    """A UUID in capitals is the evaluation that was asked for."""
    assert _parse(body={"evaluation": {"id": ID.upper(), "status": "queued"}}).id == ID.upper()


@pytest.mark.parametrize("word", ["error", "unknown", "Success", "", 7, False, [], {"a": []}])
def test_envelope_with_another_status_carries_nothing(word: object) -> None:
    """A 200 that does not say success is a failure of the hub that may pass, whatever else is in it."""
    error = _error(body=GOOD | {"status": word, "status_message": "no database"})

    assert type(error) is OxenServerError
    assert "status code 200, but the envelope's status is" in error.problem
    assert error.hub_message == "no database"


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (None, "has no evaluation in it"),
        ([], "has no evaluation in it"),
        ("completed", "has no evaluation in it"),
        ({}, "it has no id"),
        ({"id": None, "status": "completed"}, "it has no id"),
        ({"id": 7, "status": "completed"}, "it has no id"),
        ({"id": "", "status": "completed"}, "it has no id"),
        ({"id": ID}, "it has no status"),
        ({"id": ID, "status": ""}, "it has no status"),
        ({"id": ID, "status": True}, "it has no status"),
        ({"id": "other", "status": "completed"}, "is about another evaluation, 'other'"),
        ({"id": ID + " ", "status": "completed"}, "is about another evaluation"),
    ],
)
def test_unusable_evaluation_is_refused(evaluation: object, words: str) -> None:
    """A 200 without a well-formed evaluation of that very id is not the contract's."""
    error = _error(body=GOOD | {"evaluation": evaluation})

    assert type(error) is OxenInvalidResponseError
    assert words in error.problem


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"[]",
        b'"completed"',
        b'{"evaluation": {"id"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b"[" * 10_000,
    ],
    ids=["empty", "html", "list", "text", "cut off", "no utf-8", "nan", "deep"],
)
def test_body_that_is_no_json_object_is_described(body: bytes) -> None:
    """A 200 that is not JSON says what came instead: its type and size."""
    error = _error(body=body, content_type="text/html; charset=utf-8")

    assert type(error) is OxenInvalidResponseError
    assert error.problem == f"the response is not JSON (text/html; charset=utf-8, {len(body):,} bytes)"


def test_bytes_that_are_not_utf8_are_not_json() -> None:
    """A response is read as UTF-8 in whole, also in fields that are not used."""
    body = b'{"evaluation": {"id": "%s", "status": "running", "extra": "\xff"}}' % ID.encode()

    assert type(_error(body=body)) is OxenInvalidResponseError


# Responses that carry none

PASSWORD, NAMES = "connection's API key (its password field)", "namespace, repo_name and evaluation_id"


@pytest.mark.parametrize(
    ("status_code", "kind", "words"),
    [
        (200, "OxenServerError", "the envelope's status is 'error'"),
        (204, "OxenInvalidResponseError", "status code 204 is not in the contract"),
        (301, "OxenBadRequestError", "a redirect to https://elsewhere.example/hub."),
        (302, "OxenBadRequestError", "a redirect to https://elsewhere.example/hub."),
        (307, "OxenBadRequestError", "put the right address into the connection's host"),
        (400, "OxenBadRequestError", NAMES),
        (402, "OxenPaymentRequiredError", "no credits left"),
        (401, "OxenAuthenticationError", PASSWORD),
        (403, "OxenAuthenticationError", PASSWORD),
        (404, "OxenNotFoundError", NAMES),
        (407, "OxenBadRequestError", "the connection's extra field 'proxy'"),
        (408, "OxenServerError", "the hub, or a proxy in front of it, failed"),
        (409, "OxenBadRequestError", NAMES),
        (418, "OxenBadRequestError", NAMES),
        (422, "OxenBadRequestError", NAMES),
        (429, "OxenRateLimitError", "too many requests"),
        (500, "OxenServerError", "the hub, or a proxy in front of it, failed"),
        (502, "OxenServerError", "the hub, or a proxy in front of it, failed"),
        (503, "OxenServerError", "the hub, or a proxy in front of it, failed"),
        (504, "OxenServerError", "the hub, or a proxy in front of it, failed"),
    ],
)
@pytest.mark.parametrize("body", [BAD, b"<html></html>"], ids=["json", "html"])
def test_status_code_gives_its_error(status_code: int, kind: str, words: str, body: object) -> None:
    """Each status code is one class of error, whose text says what to check. A 3xx or 4xx has to be the hub's."""
    if status_code == 200 and body is BAD:
        words = "the envelope's status is 'error'"
    elif status_code == 200:
        kind, words = "OxenInvalidResponseError", "is not JSON"
    elif 300 <= status_code < 500 and status_code not in (408, 429) and body is not BAD:
        kind = "OxenInvalidResponseError"
        if 400 <= status_code != 407:
            words = f"{status_code}, but not from the hub: "
    error = _error(status_code, body, location="https://elsewhere.example/hub?to=1", x_oxen_request_id="r-42")

    assert type(error) is getattr(exceptions, kind)
    assert words in error.problem
    assert str(error).startswith(error.problem.removesuffix("."))
    assert str(error).endswith(f" ({CALL}, request id r-42)")
    assert (error.status_code, error.request_id, error.request) == (status_code, "r-42", str(CALL))


def test_foreign_response_is_described() -> None:
    """A gateway's HTML page is named as what it is."""
    error = _error(502, b"<html>", content_type="text/html")

    assert error.problem == (
        "502: the hub, or a proxy in front of it, failed. The response is not the hub's JSON (text/html, 6 bytes)."
    )


@pytest.mark.parametrize("code", [400, 401, 403, 404])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"message": "no Route matched"}'])
def test_refusal_that_is_not_the_hubs_says_where_it_came_from(code: int, body: bytes) -> None:
    """A gateway's 4xx is no refusal of the hub: the text says what came from which address, and not to check ids."""
    error = _error(code, body, content_type="application/json")

    assert type(error) is OxenInvalidResponseError
    assert error.status_code == code
    assert error.problem == (
        f"{code}, but not from the hub: application/json, {len(body)} bytes, instead of the hub's JSON, from "
        f"{CONFIG.base_url}{CALL.path}. Check the connection's host and proxy."
    )


def test_plain_text_that_is_not_the_hubs_is_quoted() -> None:
    """A short text says more than its size. The key is not in it, not even a part."""
    shown = _error(404, b"default backend - 404", content_type="text/plain; charset=utf-8").problem
    echoed = _error(404, b"x" * 55 + CONFIG.api_key.encode(), content_type="text/plain").problem

    assert ": text/plain; charset=utf-8, 21 bytes, 'default backend - 404', instead of the hub's JSON" in shown
    assert CONFIG.api_key[:5] not in echoed


def test_hubs_words_are_collected_once() -> None:
    """The texts of an error envelope are joined, each once, in the order in which they explain."""
    error = _error(404, BAD | {"status_description": "gone", "error": {"title": "gone", "type": "t", "detail": 7}})

    assert error.hub_message == "not today; gone; t"


def test_hubs_words_fit_a_line_of_log() -> None:
    """Line breaks and control characters become spaces, and a long text is cut."""
    error = _error(500, {"status_message": "a\r\n\x1b[31mb\0c" + "x" * 600})

    assert error.hub_message is not None
    assert error.hub_message.startswith("a [31mb cxxx")
    assert (len(error.hub_message), error.hub_message.isprintable()) == (500, True)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://ox:s3cret@elsewhere.example:8443/a/b?token=s3cret#s3cret", "https://elsewhere.example:8443/a/b"),
        ("/login?next=s3cret", "https://hub.oxen.ai/login"),
        ("//elsewhere.example", "https://elsewhere.example"),
        ("http://[::1]:8080/hub", "http://[::1]:8080/hub"),
        ("https://[::1", "an invalid address"),
        ("https://elsewhere.example:x", "an invalid address"),
        ("", "no address"),
    ],
)
def test_redirect_names_its_target_without_login_or_query(location: str, shown: str) -> None:
    """A redirect is shown by scheme, host, port and path; a login or query in it is left out."""
    error = _error(302, location=location)

    assert type(error) is OxenBadRequestError
    assert f"a redirect to {shown}. " in error.problem
    assert "s3cret" not in str(error)


def test_redirect_without_a_target_says_so() -> None:
    """A redirect without a location says so."""
    assert "a redirect to no address. " in _error(301).problem


@pytest.mark.parametrize("status_code", [429, 408, 500, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("7, 9", 7.0),
        ("86400", MAX_RETRY_AFTER_SECONDS),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        ("Sun, 01 Nov 2026 10:00:30 -0000", 30.0),
        ("Sun, 01 Nov 2026 11:00:30 +0100", 30.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), MAX_RETRY_AFTER_SECONDS),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("Sun, 99 Nov 2026 10:00:30 GMT", None),
        ("Sun, 01 Nov 99999999999999999999 10:00:30 GMT", None),
        ("Sun, 01 Nov 2026 10:00:30 +99999999", None),
    ],
)
def test_retry_after_is_parsed(status_code: int, header: str | None, seconds: float | None) -> None:
    """Seconds and dates are parsed, from 0 to an hour; anything else is no pause."""
    error = _error(status_code, BAD, **({} if header is None else {"retry_after": header}))

    assert isinstance(error, OxenTransientError)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        (NOW - timedelta(days=3), 3_600.0),
        (NOW + timedelta(seconds=60), 30.0),
        (NOW + timedelta(seconds=90), 0.0),
        (NOW + timedelta(days=3), 0.0),
    ],
)
def test_retry_after_date_counts_from_the_responses_own_date(date: datetime, seconds: float) -> None:
    """A wrong clock, here or there, does not change the pause: both dates are the hub's."""
    until = format_datetime(NOW + timedelta(seconds=90), usegmt=True)
    error = _error(429, BAD, retry_after=until, date=format_datetime(date, usegmt=True))

    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize("date", ["", "yesterday", "Sun, 99 Nov 2026 10:00:30 GMT"])
def test_retry_after_date_counts_from_now_without_a_valid_date(date: str) -> None:
    """Where the response has no date that can be read, the pause counts from now."""
    until = format_datetime(NOW + timedelta(seconds=90), usegmt=True)

    assert _error(503, BAD, retry_after=until, date=date).retry_after_seconds == 90.0


def test_rate_limit_says_the_pause() -> None:
    """A rate limit says how long the hub asked clients to wait."""
    assert _error(429, BAD, retry_after="7").problem == "429: too many requests, asked to wait 7 s"


# The user


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ({"name": "Bo", "email": "bo@ox.example"}, "Bo <bo@ox.example>"),
        ({"name": "Bo", "email": None}, "Bo"),
        ({"email": "bo@ox.example"}, "bo@ox.example"),
        ({"name": 7}, "a user without a name"),
        ({"name": "B\no"}, "B o"),
        ({"name": f"B {KEY}"}, "B ***"),
    ],
)
def test_user_is_shown_as_far_as_known(user: dict[str, Any], shown: str) -> None:
    """A user is name and email, as far as the hub gives them, on one line and without the key."""
    response = Response(200, {}, json.dumps({"status": "success", "user": user}).encode())

    assert parse_response(CONFIG, build_get_user(), response, now=NOW) == shown


@pytest.mark.parametrize(
    ("status_code", "body", "kind"),
    [
        (200, b"{}", "OxenInvalidResponseError"),
        (200, b'{"user": "Bo"}', "OxenInvalidResponseError"),
        (200, b'{"status": "error", "user": {"name": "Bo"}}', "OxenServerError"),
        (200, b"<html>", "OxenInvalidResponseError"),
        (401, b"{}", "OxenInvalidResponseError"),
        (401, b'{"status": "error"}', "OxenAuthenticationError"),
    ],
)
def test_response_without_a_user_is_an_error(status_code: int, body: bytes, kind: str) -> None:
    """A response that names no user brings none."""
    with pytest.raises(getattr(exceptions, kind)):
        parse_response(CONFIG, build_get_user(), Response(status_code, {}, body), now=NOW)


# A call that must not be repeated


def test_result_of_a_call_that_is_not_repeatable() -> None:
    """A good response brings the result, as for any call."""
    assert parse_response(CONFIG, POST, Response(200, {}, b"evaluation"), now=NOW) == 10


@pytest.mark.parametrize(
    ("status_code", "body", "words"),
    [
        (500, BAD, "500: the hub, or a proxy in front of it, failed"),
        (502, b"<html>", "502: the hub, or a proxy in front of it, failed"),
        (408, BAD, "408: the hub, or a proxy in front of it, failed"),
        (200, b"<html>", "the response is not JSON"),
        (200, b"\xff\0", "the response is not JSON"),
        (200, b'{"evalu', "the response is not JSON"),
        (200, b"{}", "the response has no evaluation in it"),
        (200, BAD, "the envelope's status is 'error'"),
        (201, BAD, "the envelope's status is 'error'"),
        (204, b"", "status code 204 is not in the contract"),
    ],
)
def test_unusable_response_leaves_the_effect_unknown(status_code: int, body: object, words: str) -> None:
    """A call that was sent once and whose response cannot be used may have taken effect."""
    error = _post_error(status_code, body, x_oxen_request_id="r-42", retry_after="5")

    assert type(error) is OxenUnknownEffectError
    assert error.problem.startswith("sent once, and whether it took effect is not known: ")
    assert words in error.problem
    assert (error.status_code, error.request_id, error.request) == (status_code, "r-42", "POST /api/start")
    assert error.hub_message == ("not today; Busy" if body is BAD else None)


@pytest.mark.parametrize(
    ("status_code", "kind"),
    [
        (302, "OxenBadRequestError"),
        (400, "OxenBadRequestError"),
        (401, "OxenAuthenticationError"),
        (402, "OxenPaymentRequiredError"),
        (403, "OxenAuthenticationError"),
        (404, "OxenNotFoundError"),
        (407, "OxenBadRequestError"),
        (422, "OxenBadRequestError"),
        (426, "OxenBadRequestError"),
        (429, "OxenRateLimitError"),
    ],
)
def test_refused_call_had_no_effect(status_code: int, kind: str) -> None:
    """What the hub refuses is raised as for any call, also where the call must not be repeated."""
    assert type(_post_error(status_code, BAD)) is getattr(exceptions, kind)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b'{"message": "of a gateway"}',
        b'{"timestamp": "t", "status": 403, "error": "Forbidden", "path": "/api"}',
        b'{"error": {"code": 409}}',
        b'{"status": null, "status_message": ["no"], "error": "no"}',
    ],
    ids=["html", "json", "number as status", "error alone", "no text"],
)
@pytest.mark.parametrize("status_code", range(300, 500))
def test_foreign_response_leaves_the_effect_open_unless_nothing_was_passed_on(status_code: int, body: bytes) -> None:
    """Something in front of the hub may replace its response; only some codes say that the hub was never asked."""
    refused = status_code in (301, 302, 307, 308, 401, 404, 405, 407)

    error = _post_error(status_code, body)

    assert isinstance(error, OxenUnknownEffectError) is not refused
    assert str(status_code) in str(error)


@pytest.mark.parametrize("envelope", [{"status": "error"}, {"status_message": "busy"}])
@pytest.mark.parametrize(("status_code", "kind"), [(403, "OxenAuthenticationError"), (429, "OxenRateLimitError")])
def test_either_text_of_the_envelope_is_a_refusal(envelope: dict[str, str], status_code: int, kind: str) -> None:
    """One of the two texts that the hub writes is enough."""
    assert type(_post_error(status_code, envelope)) is getattr(exceptions, kind)


def test_unknown_effect_keeps_what_is_known() -> None:
    """Request, request id, status code and the hub's words are those of the error that it is made of."""
    error = OxenServerError("500: it broke.", request="POST /x", status_code=500, request_id="r-1", hub_message="sorry")

    assert str(as_unknown_effect(error)) == (
        "sent once, and whether it took effect is not known: 500: it broke. The hub says: sorry "
        "(POST /x, request id r-1)"
    )


# The key


@pytest.mark.parametrize(
    "written",
    ["your key " + KEY, KEY.replace("/", "\\/"), "".join(f"\\u{ord(c):04x}" for c in KEY)],
    ids=["as it is", "slash escaped", "all escaped"],
)
@pytest.mark.parametrize(
    ("status_code", "template"),
    [
        (401, '{"status": "error", "status_message": "%s"}'),
        (503, '{"error": {"detail": "%s"}}'),
        (200, '{"status": "%s"}'),
        (200, '{"status": [{"%s": 1}]}'),
        (200, '{"evaluation": {"id": "%s", "status": "running"}}'),
    ],
)
def test_key_in_a_body_is_in_no_error(status_code: int, template: str, written: str) -> None:
    """A hub or proxy that echoes the key, however it writes it, does not carry it into a message."""
    error = _error(status_code, (template % written).encode())

    assert all(KEY not in text for text in _texts_of(error))


def test_key_in_an_object_that_is_quoted_is_in_no_error() -> None:
    """A key that would be quoted with escapes is redacted before."""
    key = "oxk-4f\\1c\"9'a"
    body = json.dumps({"status": [{"key": key}]}).encode()

    with pytest.raises(OxenServerError, match=r"the envelope's status is .*\*\*\*") as caught:
        parse_response(parse_config("c", password=key), CALL, _response(200, body, {}), now=NOW)

    assert all(key[:4] not in text for text in _texts_of(caught.value))


@pytest.mark.parametrize("header", ["x_oxen_request_id", "location", "content_type", "retry_after"])
@pytest.mark.parametrize("status_code", [200, 302, 404, 429, 502])
def test_key_in_a_header_is_in_no_error(status_code: int, header: str) -> None:
    """A header that echoes the key does not carry it into a message."""
    error = _error(status_code, b"<html>", **{header: f"/{KEY}"})

    assert all(KEY not in text for text in _texts_of(error))


@pytest.mark.parametrize("key", ["1", "null", "token", "e", "status", "running"])
@pytest.mark.parametrize("status_code", [200, 401, 503])
def test_short_key_changes_nothing(key: str, status_code: int) -> None:
    """A key of fewer than 8 characters is a placeholder: no text and no field is lost because of it."""
    document = {"id": ID, "status": "running", "name": "token 1 null", "tokens_used": 11, "progress": {"processed": 1}}
    body = {"status": "success" if status_code == 200 else "error", "status_message": key, "evaluation": document}
    results = []
    for used in (key, "another-key"):
        try:
            evaluation = parse_response(
                parse_config("c", password=used),
                CALL,
                _response(status_code, body, {"x_oxen_request_id": key}),
                now=NOW,
            )
            results.append(evaluation.to_dict())
        except OxenRequestError as error:
            results.append(str(error))

    assert results[0] == results[1]
    assert status_code == 200 or f"The hub says: {key} (" in results[0]


@pytest.mark.parametrize(("key", "shown"), [("1234567", "key 1234567"), ("12345678", "key ***")])
def test_key_is_redacted_from_eight_characters_on(key: str, shown: str) -> None:
    """A key of 8 characters is long enough to be a secret."""
    response = _response(401, {"status": "error", "status_message": f"key {key}"}, {})

    with pytest.raises(OxenRequestError) as caught:
        parse_response(parse_config("c", password=key), CALL, response, now=NOW)

    assert caught.value.hub_message == shown


def _texts_of(error: OxenError) -> list[str]:
    return [str(error), repr(error), *map(str, vars(error).values())]


# Anything at all

HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "location", "x-oxen-request-id", "content-type"]),
    st.text(max_size=20)
    | st.from_regex(r"\A[A-Z][a-z]{2}, [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,5} [0-9:]{1,9} [-+]?[0-9A-Z]{1,6}\Z")
    | st.from_regex(r"\A(https?:)?//[a-z@:\[\]0-9./?#]{0,15}\Z"),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["success", "warning", "error"]) | JSON_VALUES,
        "status_message": JSON_VALUES,
        "error": JSON_VALUES | st.fixed_dictionaries({}, optional={"title": JSON_VALUES, "detail": JSON_VALUES}),
        "evaluation": JSON_VALUES
        | st.fixed_dictionaries(
            {
                "id": st.sampled_from([ID, ID.upper(), "other"]),
                "status": st.sampled_from(["completed", "new"]) | st.text(),
            },
            optional={"progress": JSON_VALUES, "model": JSON_VALUES},
        ),
    },
)
BODIES = st.binary(max_size=60) | (ENVELOPES | JSON_VALUES).map(lambda value: json.dumps(value).encode())


@settings(max_examples=500)
@given(st.sampled_from([200] * 4 + [100, 204, 302, 304, 401, 404, 408, 429, 500, 599, 999]), HEADERS, BODIES)
@example(429, {"retry-after": "1 Jan 1 0:0 +2359"}, b"{}")
def test_any_response_is_an_evaluation_or_an_error(status_code: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever comes back is the evaluation that was asked for, or an error of this package that is one line."""
    response = Response(status_code, headers, body)
    try:
        result: object = parse_response(CONFIG, CALL, response, now=NOW)
    except OxenRequestError as error:
        result = error

    if isinstance(result, Evaluation):
        assert (status_code, result.id.lower()) == (200, ID)
    else:
        assert str(result).isprintable()
        assert KEY not in f"{result} {result!r}"
        assert 0 <= (getattr(result, "retry_after_seconds", None) or 0) <= MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("depth", [9, 400, 970, 5_000])
def test_nested_nonsense_is_survived(depth: int) -> None:
    """A response nested as deep as the stack is an evaluation without the nonsense, or an error, and nothing else."""
    nest = b"[" * depth + b'"\\n"' + b"]" * depth
    body = b'{"evaluation": {"id": "%s", "status": "running", "name": %s}}' % (ID.encode(), nest)
    try:
        assert _parse(200, body).to_dict()["name"] is None
    except OxenInvalidResponseError:
        assert depth > 400


@pytest.mark.parametrize("number", ["1e999", "1" * 400 + ".0", "-" + "1" * 4_000])
def test_number_that_is_too_large_breaks_no_wait(number: str) -> None:
    """A number too large for any field leaves the other fields as they are, and raises nothing."""
    body = f'{{"evaluation": {{"id": "{ID}", "status": "completed", "credits_used": {number}}}}}'

    evaluation = _parse(200, body.encode())

    assert evaluation.to_dict()["status"] == "completed"
    assert evaluation.credits_used is None


def test_number_longer_than_python_reads_is_not_the_contracts() -> None:
    """An integer of thousands of digits makes the response unusable, and raises this package's own error."""
    body = f'{{"evaluation": {{"id": "{ID}", "status": "completed", "credits_used": {"1" * 5_000}}}}}'

    assert type(_error(200, body.encode())) is OxenInvalidResponseError


def test_stored_evaluation_holds_no_key() -> None:
    """An evaluation that is pickled takes no key along."""
    assert KEY.encode() not in pickle.dumps(_parse())


def test_calls_are_compared_by_value() -> None:
    """Two calls with the same fields are equal."""
    assert Call("POST", "/x", _length, body={"n": 1}) == Call("POST", "/x", _length, body={"n": 1})
    assert Call("POST", "/x", _length, body={"n": 1}) != Call("POST", "/x", _length, body={"n": 2})
