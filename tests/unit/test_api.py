"""The contract with the hub: the request that is written, and every response that can come back."""

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

from airflow_provider_oxen import api, exceptions
from airflow_provider_oxen.api import (
    MAX_RETRY_AFTER_SECONDS,
    Request,
    Response,
    build_evaluation_request,
    build_user_request,
    read_evaluation,
    read_evaluation_response,
    read_user_response,
)
from airflow_provider_oxen.config import read_config
from airflow_provider_oxen.exceptions import (
    OxenBadRequestError,
    OxenConfigError,
    OxenError,
    OxenInvalidResponseError,
    OxenRequestError,
    OxenServerError,
    OxenTransientError,
)
from airflow_provider_oxen.models import Evaluation, EvaluationRef

ID = "d0c8585d-1234-5678-abcd-ef0123456789"
#: With a character that JSON writers may escape.
KEY = "oxk-4f/1c9a"
NOW = datetime(2026, 11, 1, 10, 0, 0, tzinfo=timezone.utc)
CONFIG = read_config("oxen_default", password=KEY)
REF = EvaluationRef("ox", "customer-intents", ID)
REQUEST = build_evaluation_request(CONFIG, REF)
GOOD = {"status": "success", "status_message": "resource_found", "evaluation": {"id": ID, "status": "running"}}
BAD = {"status": "error", "status_message": "not today", "error": {"title": "Busy", "detail": "not today"}}


def _read(status_code: int = 200, body: object = None, **headers: str) -> Evaluation:
    content = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_evaluation_response(REQUEST, Response(status_code, named, content), evaluation_id=ID, now=NOW)


def _error(status_code: int = 200, body: object = None, **headers: str) -> OxenRequestError:
    with pytest.raises(OxenRequestError) as caught:
        _read(status_code, body, **headers)
    return caught.value


# The request


def test_evaluation_request_is_the_contracts() -> None:
    """An evaluation is asked for at the contract's path, with the key as a bearer."""
    assert REQUEST.url == f"https://hub.oxen.ai/api/repos/ox/customer-intents/evaluations/{ID}"
    assert REQUEST.headers == {"Accept": "application/json", "Authorization": f"Bearer {KEY}"}


def test_user_request_is_below_the_prefix() -> None:
    """A hub below a path is asked below that path."""
    request = build_user_request(read_config("c", password=KEY, host="http://localhost:8080/hub/"))

    assert request.url == "http://localhost:8080/hub/api/authorize"


def test_request_shows_method_and_path_only() -> None:
    """A request in a message is its method and path; its key is in neither form of it."""
    assert str(REQUEST) == f"GET /api/repos/ox/customer-intents/evaluations/{ID}"
    assert KEY not in repr(REQUEST)
    assert "Bearer" not in repr(REQUEST)


@settings(deadline=None)
@given(*[st.text(min_size=1, max_size=8)] * 3)
def test_request_names_what_was_asked_for(namespace: str, repo_name: str, evaluation_id: str) -> None:
    """Every name that is accepted is one encoded segment of the path."""
    try:
        request = build_evaluation_request(CONFIG, EvaluationRef(namespace, repo_name, evaluation_id))
    except OxenConfigError:
        return

    segments = [unquote(segment) for segment in request.path.split("/")]
    assert segments == ["", "api", "repos", namespace, repo_name, "evaluations", evaluation_id]
    assert request.path.isascii()


@pytest.mark.parametrize("name", ["namespace", "repo_name", "evaluation_id"])
def test_request_is_not_built_from_an_empty_name(name: str) -> None:
    """A name that is missing is refused before any request, by its argument's name."""
    named = {"namespace": "ox", "repo_name": "r", "evaluation_id": ID} | {name: ""}

    with pytest.raises(OxenConfigError, match=f"^argument '{name}': "):
        build_evaluation_request(CONFIG, EvaluationRef(**named))


# Responses that carry an evaluation


@pytest.mark.parametrize("envelope_status", ["success", "warning", None])
def test_envelope_that_is_no_error_carries_the_evaluation(envelope_status: str | None) -> None:
    """Success, warning and a missing word are all answers."""
    assert _read(body=GOOD | {"status": envelope_status}).id == ID


def test_envelope_needs_only_the_evaluation() -> None:
    """The contract requires neither status nor message of the wrapper."""
    assert _read(body={"evaluation": GOOD["evaluation"]}).status == "running"


def test_id_is_the_same_in_either_case() -> None:
    """A UUID in capitals is the evaluation that was asked for."""
    assert _read(body={"evaluation": {"id": ID.upper(), "status": "queued"}}).id == ID.upper()


@pytest.mark.parametrize("word", ["error", "unknown", "Success", "", 7, False, [], {"a": []}])
def test_envelope_with_another_status_carries_nothing(word: object) -> None:
    """A 200 that does not say success is a failure of the hub that may pass, whatever else is in it."""
    error = _error(body=GOOD | {"status": word, "status_message": "no database"})

    assert type(error) is OxenServerError
    assert "answered 200, but says status" in error.problem
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
def test_unusable_evaluation_is_not_believed(evaluation: object, words: str) -> None:
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


@pytest.mark.parametrize("document", [{}, {"id": ID}, {"status": "running"}, {"id": ID, "status": None}])
def test_evaluation_needs_id_and_status(document: dict[str, Any]) -> None:
    """An evaluation without its id or its status is none."""
    with pytest.raises(ValueError, match=r"it has no (id|status)"):
        read_evaluation(document)


# Responses that carry none

PASSWORD, NAMES = "connection's API key (its password field)", "namespace, repo_name and evaluation_id"


@pytest.mark.parametrize(
    ("status_code", "kind", "words"),
    [
        (200, "OxenServerError", "says status 'error'"),
        (204, "OxenInvalidResponseError", "status code 204 is not in the contract"),
        (301, "OxenBadRequestError", "points to https://elsewhere.example/hub."),
        (302, "OxenBadRequestError", "points to https://elsewhere.example/hub."),
        (307, "OxenBadRequestError", "put the right address into the connection's host"),
        (400, "OxenBadRequestError", NAMES),
        (401, "OxenAuthenticationError", PASSWORD),
        (403, "OxenAuthenticationError", PASSWORD),
        (404, "OxenNotFoundError", NAMES),
        (407, "OxenBadRequestError", "the connection's extra field 'proxy'"),
        (408, "OxenServerError", "could not answer"),
        (409, "OxenBadRequestError", NAMES),
        (418, "OxenBadRequestError", NAMES),
        (422, "OxenBadRequestError", NAMES),
        (429, "OxenRateLimitError", "too many requests"),
        (500, "OxenServerError", "could not answer"),
        (502, "OxenServerError", "could not answer"),
        (503, "OxenServerError", "could not answer"),
        (504, "OxenServerError", "could not answer"),
    ],
)
@pytest.mark.parametrize("body", [BAD, b"<html></html>"], ids=["json", "html"])
def test_status_code_gives_its_error(status_code: int, kind: str, words: str, body: object) -> None:
    """Each status code is one class of error, whose text says what to check, whether or not the body is the hub's."""
    if status_code == 200 and body is not BAD:
        kind, words = "OxenInvalidResponseError", "is not JSON"
    error = _error(status_code, body, location="https://elsewhere.example/hub?to=1", x_oxen_request_id="r-42")

    assert type(error) is getattr(exceptions, kind)
    assert words in error.problem
    assert str(error).startswith(f"[request r-42] {REQUEST}: ")
    assert (error.status_code, error.request_id, error.request) == (status_code, "r-42", str(REQUEST))


def test_foreign_answer_is_told_from_the_hubs() -> None:
    """A gateway's HTML page is named as what it is."""
    error = _error(502, b"<html>", content_type="text/html")

    assert error.problem == (
        "502: the hub, or a proxy before it, could not answer. The answer is not the hub's JSON (text/html, 6 bytes)."
    )


def test_hubs_words_are_gathered_once() -> None:
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
    ("location", "told"),
    [
        ("https://ox:s3cret@elsewhere.example:8443/a/b?token=s3cret#s3cret", "https://elsewhere.example:8443/a/b"),
        ("/login?next=s3cret", "https://hub.oxen.ai/login"),
        ("//elsewhere.example", "https://elsewhere.example"),
        ("http://[::1]:8080/hub", "http://[::1]:8080/hub"),
        ("https://[::1", "an address that is none"),
        ("https://elsewhere.example:x", "an address that is none"),
        ("", "nowhere"),
    ],
)
def test_redirect_names_its_target_without_login_or_query(location: str, told: str) -> None:
    """A redirect is told by scheme, host, port and path; a login or query in it is left out."""
    error = _error(302, location=location)

    assert type(error) is OxenBadRequestError
    assert f"points to {told}. " in error.problem
    assert "s3cret" not in str(error)


def test_redirect_without_a_target_points_nowhere() -> None:
    """A redirect without a location says so."""
    assert "points to nowhere. " in _error(301).problem


@pytest.mark.parametrize("status_code", [429, 408, 500, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
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
def test_retry_after_is_read(status_code: int, header: str | None, seconds: float | None) -> None:
    """Seconds and dates are read, from 0 to an hour; what is neither is no pause."""
    error = _error(status_code, BAD, **({} if header is None else {"retry_after": header}))

    assert isinstance(error, OxenTransientError)
    assert error.retry_after_seconds == seconds


def test_rate_limit_says_the_pause() -> None:
    """A rate limit tells how long the hub asked to be left alone."""
    assert _error(429, BAD, retry_after="7").problem == "429: too many requests, asked to wait 7 s"


# The user


@pytest.mark.parametrize(
    ("user", "told"),
    [
        ({"name": "Bo", "email": "bo@ox.example"}, "Bo <bo@ox.example>"),
        ({"name": "Bo", "email": None}, "Bo"),
        ({"email": "bo@ox.example"}, "bo@ox.example"),
        ({"name": 7}, "a user without a name"),
        ({"name": "B\no"}, "B o"),
    ],
)
def test_user_is_told_as_far_as_known(user: dict[str, Any], told: str) -> None:
    """A user is name and email, as far as the hub gives them, on one line."""
    response = Response(200, {}, json.dumps({"status": "success", "user": user}).encode())

    assert read_user_response(build_user_request(CONFIG), response, now=NOW) == told


@pytest.mark.parametrize(("status_code", "kind"), [(200, "OxenInvalidResponseError"), (401, "OxenAuthenticationError")])
def test_user_response_without_a_user_is_an_error(status_code: int, kind: str) -> None:
    """An answer that names no user is no user."""
    with pytest.raises(getattr(exceptions, kind)):
        read_user_response(build_user_request(CONFIG), Response(status_code, {}, b"{}"), now=NOW)


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


@pytest.mark.parametrize("header", ["x_oxen_request_id", "location", "content_type", "retry_after"])
@pytest.mark.parametrize("status_code", [200, 302, 404, 429, 502])
def test_key_in_a_header_is_in_no_error(status_code: int, header: str) -> None:
    """A header that echoes the key does not carry it into a message."""
    error = _error(status_code, b"<html>", **{header: f"/{KEY}"})

    assert all(KEY not in text for text in _texts_of(error))


@pytest.mark.parametrize("written", [KEY, KEY.replace("/", "\\/")], ids=["as it is", "slash escaped"])
def test_key_in_an_evaluation_is_struck_out(written: str) -> None:
    """An evaluation that echoes the key does not carry it into an event or an XCom."""
    body = json.dumps({"evaluation": {"id": ID, "status": "errored", "error_message": "key @ refused"}})

    assert _read(body=body.replace("@", written).encode()).error_message == "key *** refused"


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


@settings(max_examples=500, deadline=None)
@given(st.sampled_from([200] * 4 + [100, 204, 302, 304, 401, 404, 408, 429, 500, 599, 999]), HEADERS, BODIES)
@example(429, {"retry-after": "1 Jan 1 0:0 +2359"}, b"{}")
def test_any_response_is_an_evaluation_or_an_error(status_code: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever comes back is the evaluation that was asked for, or an error of this package that is one line."""
    response = Response(status_code, headers, body)
    try:
        told = read_evaluation_response(REQUEST, response, evaluation_id=ID, now=NOW)
    except OxenRequestError as error:
        told = error

    if isinstance(told, Evaluation):
        assert (status_code, told.id.lower()) == (200, ID)
    else:
        assert str(told).isprintable()
        assert KEY not in f"{told} {told!r}"
        assert 0 <= (getattr(told, "retry_after_seconds", None) or 0) <= MAX_RETRY_AFTER_SECONDS


@given(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from([ID, ID.upper(), "another", 7]),
            "status": st.sampled_from(["running", "completed", "odd"]),
        },
        optional={
            "progress": st.sampled_from([{"processed": 3, "total": 9}, {"processed": 1e400}, None, "odd"]),
            "prompt": st.sampled_from(["plain", "J\u00fcrgen", "line\nbreak", f"echo {KEY}", "\ud800"]),
            "model": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        },
    ),
    st.sampled_from([{}, {"status": "warning"}, {"status": "error"}, {"status": None}]),
    st.booleans(),
)
def test_short_way_of_reading_brings_what_the_long_way_does(
    document: dict[str, Any], envelope: dict[str, Any], escaped: bool
) -> None:
    """An answer that is read in passing says the same as one that is read with care."""
    text = json.dumps({"status": "success", "evaluation": document} | envelope, ensure_ascii=escaped)
    body = text.encode(errors="surrogatepass")

    def read() -> object:
        try:
            seen = _read(200, body)
        except OxenRequestError as error:
            return type(error), str(error)
        return seen, seen.to_dict(), dict(seen.document)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "_read_plain", lambda *_: None)
        with_care = read()
    assert read() == with_care


@pytest.mark.parametrize("depth", [9, 400, 970, 5_000])
def test_nested_nonsense_is_survived(depth: int) -> None:
    """An answer nested as deep as the stack is an evaluation without the nonsense, or an error, and nothing else."""
    nest = b"[" * depth + b'"\\n"' + b"]" * depth
    body = b'{"evaluation": {"id": "%s", "status": "running", "name": %s}}' % (ID.encode(), nest)
    try:
        assert _read(200, body).to_dict()["name"] is None
    except OxenInvalidResponseError:
        assert depth > 400


@pytest.mark.parametrize("number", ["1e999", "1" * 400 + ".0", "-" + "1" * 5_000])
def test_number_that_cannot_be_read_breaks_no_wait(number: str) -> None:
    """A number of no size in a field that nobody reads leaves status and progress as they are, and raises nothing."""
    body = f'{{"evaluation": {{"id": "{ID}", "status": "completed", "credits_used": {number}}}}}'

    evaluation = _read(200, body.encode())

    assert evaluation.to_dict()["status"] == "completed"
    assert evaluation.credits_used is None


def test_stored_evaluation_holds_no_key() -> None:
    """An evaluation that somebody pickles takes no key along, not even one it was never asked to strike out."""
    assert KEY.encode() not in pickle.dumps(_read())


def test_request_is_a_value() -> None:
    """Two requests for the same thing are equal, so that waits may share one."""
    assert build_evaluation_request(CONFIG, REF) == REQUEST
    assert isinstance(REQUEST, Request)
