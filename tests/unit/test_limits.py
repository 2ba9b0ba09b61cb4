"""Limits on a number of rows: read, compared exactly, and never rounded to the limit."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.conditions.limits import parse_limit

_SHARES = st.decimals(0, 1, places=4).map(float)


@pytest.mark.parametrize("percent", range(1, 101))
def test_share_is_exact_at_its_bound(percent: int) -> None:
    """Exactly the share that was asked for is enough, and one row less is not, whatever floats do."""
    limit = parse_limit("f", at_least=percent / 100)

    assert not limit.is_missed(percent * 7, 700)
    assert limit.is_missed(percent * 7 - 1, 700)
    assert not limit.is_exceeded(700, 700)


@pytest.mark.parametrize("percent", range(100))
def test_largest_share_is_exact_at_its_bound(percent: int) -> None:
    """Exactly the largest share is allowed, and one row more is not."""
    limit = parse_limit("f", at_most=percent / 100)

    assert not limit.is_exceeded(percent * 7, 700)
    assert limit.is_exceeded(percent * 7 + 1, 700)
    assert not limit.is_missed(0, 700)


@pytest.mark.parametrize(
    ("arguments", "rows", "of", "shown"),
    [
        ({"at_least": 0.95}, 8_412, 10_000, "8,412 of 10,000 rows (84.1 %), at least 95 % are needed"),
        ({"at_least": 0.95}, 94_996, 100_000, "94,996 of 100,000 rows (94.996 %), at least 95 % are needed"),
        ({"at_least": 0.95}, 94_999_999, 100_000_000, "(94.999999 %)"),
        ({"at_least": 1}, 9_999_999, 10_000_000, "9,999,999 of 10,000,000 rows (99.99999 %), all rows are needed"),
        ({"at_least": 0.841}, 8_409, 10_000, "(84.09 %), at least 84.1 % are needed"),
        ({"at_least": 0.5}, 0, 3, "0 of 3 rows (0 %), at least 50 % are needed"),
        ({"at_most": 0}, 1, 10_000_000, "1 of 10,000,000 rows (0.00001 %), no row is allowed"),
        ({"at_most": 0.05}, 5_001, 100_000, "5,001 of 100,000 rows (5.001 %), at most 5 % are allowed"),
        ({"at_most": 0.0025}, 1, 3, "(33.3 %), at most 0.25 % are allowed"),
        ({"rows": 5}, 4, 9, "4 of 9 rows, exactly 5 are needed"),
        ({"rows": (5, 5)}, 4, 9, "exactly 5 are needed"),
        ({"rows": 0}, 4, 9, "no row is allowed"),
        ({"rows": (5, None)}, 4, 9, "at least 5 are needed"),
        ({"rows": (None, 5_000)}, 9_000, 9_000, "at most 5,000 are allowed"),
        ({"rows": (0, 5)}, 9, 9, "at most 5 are allowed"),
        ({"rows": [5, 8]}, 9, 9, "5 to 8 are needed"),
    ],
)
def test_what_is_said_tells_the_share_from_the_limit(arguments: dict[str, Any], rows: int, of: int, shown: str) -> None:
    """The numbers say why the limit is not met: no share is rounded to it."""
    limit = parse_limit("f", **arguments)

    assert limit.is_missed(rows, of) or limit.is_exceeded(rows, of)
    assert shown in f"{limit.describe_found(rows, of)}, {limit.describe_needed()}"


@given(_SHARES.filter(bool), st.integers(0, 10**9), st.integers(1, 10**9))
def test_share_that_is_too_small_reads_so(share: float, rows: int, of: int) -> None:
    """Whatever the numbers, the decision is the exact one, and the share in the text is below the limit in the text."""
    rows = min(rows, of)
    limit = parse_limit("f", at_least=share)

    is_missed = limit.is_missed(rows, of)

    assert is_missed == (Fraction(rows, of) < Fraction(str(share)))
    shown = Fraction(re.search(r"\((.+) %\)", limit.describe_found(rows, of))[1])  # type: ignore[index]
    assert (shown < Fraction(str(share)) * 100) == is_missed


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"at_least": 0.5, "at_most": 0.9},
        {"at_least": 0},
        {"at_least": 95},
        {"at_least": "0.95"},
        {"at_least": True},
        {"at_least": math.nan},
        {"at_most": 1},
        {"at_most": -0.1},
        {"at_most": False},
        {"at_most": math.nan},
        {"rows": -1},
        {"rows": True},
        {"rows": 0.5},
        {"rows": (None, None)},
        {"rows": (5, 4)},
        {"rows": (0, None)},
        {"rows": (1, 2, 3)},
        {"rows": "5"},
    ],
)
def test_what_is_no_limit_is_refused(arguments: dict[str, Any]) -> None:
    """Nonsense, and what holds for any rows, is refused when the DAG is parsed. The error names the argument."""
    with pytest.raises(ValueError, match=r"^rows_where(: | takes one of at_least, at_most and rows)"):
        parse_limit("rows_where", **arguments)
