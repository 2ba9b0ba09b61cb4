"""Reading values of a decoded JSON document: what makes no sense is None, and never an error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen import values

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
READERS = [
    *(values.boolean, values.count, values.moment, values.number, values.plain_values, values.text),
    lambda value: values.named_texts(value, ("a", "b")),
]


@given(JSON_VALUES)
def test_nothing_raises_and_all_is_strict_json(value: object) -> None:
    """Whatever the value, each reader gives None or something that can be written as strict JSON in UTF-8."""
    for read in READERS:
        json.dumps(read(value), allow_nan=False, ensure_ascii=False, default=str).encode()


@pytest.mark.parametrize(
    ("written", "read"),
    [("1.5", 1.5), ("-2e3", -2000.0), (3, 3.0), (0.25, 0.25)]
    + [(odd, None) for odd in ("", "x", "1_000", "\u0663", "nan", "inf", "1e999", "0" * 41, True, None, [], 10**400)],
)
def test_number(written: object, read: float | None) -> None:
    """A number is finite, and may be text of plain digits."""
    assert values.number(written) == read


@pytest.mark.parametrize(
    ("written", "read"), [(0, 0), (7.0, 7), (-1, None), (2**63, None), ("7", None), (True, None), (math.nan, None)]
)
def test_count(written: object, read: int | None) -> None:
    """A count is a whole number from 0 on that fits a database."""
    assert values.count(written) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ({"a": "x", "n": 1, "on": True, "o": {}, "l": [], "nil": None, "": "x"}, {"a": "x", "n": 1, "on": True}),
        ({"digits": "12"}, {"digits": "12"}),
        ([], None),
        (7, None),
    ],
)
def test_plain_values(written: object, read: Any) -> None:
    """Of an open object, texts, numbers and booleans are kept, each as its own type; a text stays a text."""
    assert values.plain_values(written) == read


def test_named_texts() -> None:
    """Of an object with known names, the texts are kept, and None stands for any other value."""
    assert values.named_texts({"a": "x", "b": 7, "c": "y"}, ("a", "b", "d")) == {"a": "x", "b": None, "d": None}
    assert values.named_texts([("a", "x")], ("a",)) is None


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01T10:00:00", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01T12:00:00.5+02:00", "2026-11-01T10:00:00.500000+00:00"),
    ],
)
def test_moment(written: str, read: str) -> None:
    """A time is read in UTC, which is also meant where no zone is written."""
    moment = values.moment(written)

    assert moment is not None
    assert moment.isoformat() == read


@pytest.mark.parametrize("written", ["", "soon", "P1D", 7, None, "2026-13-01", "9999-12-31T23:59:59-14:00"])
def test_moment_that_is_none(written: object) -> None:
    """What is not a time of the calendar is None."""
    assert values.moment(written) is None


@pytest.mark.parametrize("written", [0, 1, "true", None, []])
def test_boolean_is_true_or_false_only(written: object) -> None:
    """Only JSON's own true and false are booleans."""
    assert values.boolean(written) is None
    assert values.boolean(value=True) is True
