"""
Raw responses over real sockets: both transports give the same value, or the same class of error.

What they do not do alike is in ``DIFFERENCES``, and in ``docs/reliability.md``.
"""

from __future__ import annotations

import pytest

from airflow_provider_oxen.exceptions import OxenInvalidResponseError, OxenNotFoundError
from tests.support.raw_cases import BODY, CASES, DIFFERENCES, INVALID, UNREACHABLE, chunked, numbered, ok
from tests.support.raw_responses import GET, TRANSPORTS, RawServer, make_config, outcome

#: What aiohttp takes before 3.13.
LATER_IN_AIOHTTP = {"trailers without end", "header b'X: a\\x00b'"}


@pytest.mark.parametrize("case", CASES)
def test_transports_agree_on_a_raw_response(case: str) -> None:
    """The bytes lead to one value or to one class of error, whichever transport receives them."""
    raw, expected = CASES[case]
    with RawServer(raw) as server:
        found = {name: outcome(name, make_config(server.url)) for name in TRANSPORTS}

    if case in LATER_IN_AIOHTTP and found["aiohttp"] == BODY:
        found["aiohttp"] = expected
    assert found == dict.fromkeys(TRANSPORTS, expected)


@pytest.mark.parametrize("case", DIFFERENCES)
def test_difference_that_stays_is_known(case: str) -> None:
    """No more than these: one transport takes what the other refuses, and neither refuses for good."""
    raw, *expected = DIFFERENCES[case]
    with RawServer(raw) as server:
        assert [outcome(name, make_config(server.url)) for name in TRANSPORTS] == expected


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"X: " + b"x" * 40_000, "a header of the response is longer than 32 KiB"),
        (b"X: " + b"x" * 70_000, "a header of the response is longer than 32 KiB"),
        (b"\r\n".join(numbered(110)), "the response has more than 99 headers"),
        (b"Content-Encoding: br", r"a content encoding that was not asked for \(br\); gzip and deflate were"),
        (b"Content-Encoding: gzip", "is not the gzip that its header says"),
    ],
)
def test_error_says_what_is_too_much(transport: str, line: bytes, words: str) -> None:
    """What is wrong with the response is in the text, and not only that something is."""
    with RawServer(ok(line)) as server, pytest.raises(OxenInvalidResponseError, match=words):
        TRANSPORTS[transport](make_config(server.url))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_key_in_an_encodings_name_is_not_shown(transport: str) -> None:
    """A hub that echoes the key there does not carry it into the error."""
    with RawServer(ok(b"Content-Encoding: a-key-of-the-tests")) as server:
        assert outcome(transport, make_config(server.url)) is OxenInvalidResponseError


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_only_what_is_decompressed_is_asked_for(transport: str) -> None:
    """No request asks for an encoding that this package does not read, whatever else is installed."""
    with RawServer(ok()) as server:
        outcome(transport, make_config(server.url))

    assert b"\r\nAccept-Encoding: gzip, deflate\r\n" in server.requests[0]


@pytest.mark.parametrize("raw", [ok(), chunked(b"9\r\n" + BODY + b"\r\n0\r\n\r\n")], ids=["length", "chunks"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_connection_closed_at_each_byte(transport: str, raw: bytes) -> None:
    """A response that ends in its head did not come; one that ends in its body is cut off; only a whole one counts."""
    body_at = raw.index(b"\r\n\r\n") + 4
    for length in range(len(raw) + 1):
        with RawServer(raw[:length]) as server:
            found = outcome(transport, make_config(server.url))
        assert found == (UNREACHABLE if length < body_at else INVALID if length < len(raw) else BODY), length


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_kept_connection_closed_at_each_byte(transport: str) -> None:
    """A kept connection that ends before or in the next response's head costs nothing: the request is sent again."""
    raw = ok()
    body_at = raw.index(b"\r\n\r\n") + 4
    for length in range(0, len(raw) + 1, 3):
        with RawServer([ok(body=b"first"), raw[:length]], ok(body=b"again")) as server:
            found = outcome(transport, make_config(server.url), (GET, GET))
        assert found == (b"again" if length < body_at else INVALID if length < len(raw) else BODY), length


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_second_response_in_one_piece_is_not_taken_for_the_next(transport: str) -> None:
    """What a server sends after a response, unasked, is never the response to the next request."""
    with RawServer([ok() + ok(body=b"unasked"), ok(body=b"second")], ok(body=b"second")) as server:
        assert outcome(transport, make_config(server.url), (GET, GET)) == b"second"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_404_that_is_cut_off_in_its_head_is_not_taken_for_one(transport: str) -> None:
    """A response that is not whole refuses nothing."""
    with RawServer(b"HTTP/1.1 404 Not Found\r\nContent-Le") as server:
        found = outcome(transport, make_config(server.url))

    assert found is not OxenNotFoundError
    assert found is UNREACHABLE
