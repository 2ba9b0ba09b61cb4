"""What is shown of what the hub sends: never the key, and one printable line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.redaction import may_hold, one_line, redact

KEY = "oxk-4f1c9a\N{LATIN SMALL LETTER E WITH ACUTE}"

texts = st.text(max_size=8) | st.just(KEY) | st.text(max_size=4).map(lambda text: f"{text}{KEY}{text}")
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def test_key_in_a_text_is_replaced() -> None:
    """Every occurrence of the key is shown as three asterisks, and the rest of the text stays."""
    assert redact(f"Bearer {KEY}, and {KEY} again", KEY) == "Bearer ***, and *** again"


@pytest.mark.parametrize(
    "written",
    [
        "oxk%2F4f%221c%2B9a%C3%A9",
        "oxk/4f%221c+9a%c3%a9",
        "%6fxk%2f4f%221c%2b9a%c3%a9",
        r"oxk\/4f\"1c+9aé",
        r"oxk/4f\u00221c\u002B9a\u00e9",
    ],
)
def test_key_is_found_encoded(written: str) -> None:
    """A key in the address of a redirect, or in JSON that is shown as it is, is found however it is written."""
    assert redact(f"to /login?next={written}&x=1", 'oxk/4f"1c+9aé') == "to /login?next=***&x=1"


def test_key_inside_objects_and_lists_is_replaced() -> None:
    """The key is found at any depth, also as the name of a field."""
    document = {"a": [{"b": f"x{KEY}"}, KEY], KEY: 1, "c": {"d": {"e": KEY}}}

    assert redact(document, KEY) == {"a": [{"b": "x***"}, "***"], "***": 1, "c": {"d": {"e": "***"}}}


def test_names_that_are_read_stay() -> None:
    """A name that the document is read by stays; all else is searched."""
    assert redact({KEY: KEY, f"x{KEY}": 1}, KEY, names=(KEY,)) == {KEY: "***", "x***": 1}


@pytest.mark.parametrize("value", [None, True, 7, 0.5, "text", [], {}, [1, "two"], {"three": None}])
def test_what_does_not_hold_the_key_is_unchanged(value: Any) -> None:
    """Values without the key are the same afterwards, of the same type."""
    assert redact(value, KEY) == value
    assert type(redact(value, KEY)) is type(value)


@pytest.mark.parametrize(("secret", "redacted"), [("k", False), ("running", False), ("8-chars.", True)])
def test_only_keys_of_eight_characters_or_more_are_redacted(secret: str, redacted: bool) -> None:
    """A shorter key is a placeholder, which ids and words may hold by chance."""
    assert (redact({"text": f"a {secret} b"}, secret) == {"text": "a *** b"}) is redacted


@given(documents)
def test_no_document_shows_the_key(document: Any) -> None:
    """Whatever a document is, its key is in none of its texts afterwards."""
    assert KEY not in json.dumps(redact(document, KEY), ensure_ascii=False)


@given(documents, st.booleans())
def test_body_that_holds_the_key_is_searched(document: Any, escaped: bool) -> None:
    """However JSON is written, a body with the key in one of its texts is one that may hold it."""
    body = json.dumps(document, ensure_ascii=escaped).encode(errors="replace")

    assert may_hold(body, KEY) or redact(document, KEY) == document


def test_body_without_the_key_need_not_be_searched() -> None:
    """Most bodies have neither the key nor an escape in them."""
    assert not may_hold(b'{"status": "running"}', KEY)
    assert may_hold(f'{{"status": "{KEY}"}}'.encode(), KEY)
    assert may_hold(b'{"status": "\\u006fxk"}', KEY)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\r\nor three", "two lines or three"),
        ("  white \t space  ", "white space"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("nul\0bell\x07", "nul bell"),
        ("line\N{LINE SEPARATOR}paragraph\N{PARAGRAPH SEPARATOR}next\x85", "line paragraph next"),
        ("left\N{RIGHT-TO-LEFT OVERRIDE}right", "left right"),
        ("half\ud800", "half"),
        ("Ärger 東京 🐂", "Ärger 東京 🐂"),
        ("", ""),
        ("\n \x00", ""),
    ],
)
def test_text_is_one_printable_line(text: str, shown: str) -> None:
    """Line breaks and what a terminal would act on become spaces; letters of any script stay."""
    assert one_line(text) == shown


def test_long_text_is_cut() -> None:
    """A text has 500 characters at most, and an ellipsis where more were there."""
    assert one_line("x" * 500) == "x" * 500
    assert one_line("x" * 501) == "x" * 499 + "…"
    assert len(one_line("x" * 10**6)) == 500


@given(st.text())
def test_any_text_is_one_short_printable_line(text: str) -> None:
    """Whatever comes in, a line of a log comes out, and it is the same when shown again."""
    line = one_line(text)

    assert line.isprintable()
    assert len(line) <= 500
    assert one_line(line) == line
