"""What the hub says about a file."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.files import FileMeta, parse_file_meta
from airflow_provider_oxen.protocol import ContractError

KEY = "a-key-of-the-tests"
COMMIT = {"id": "e6c2c7192f620617", "author": "Ox", "timestamp": "2026-11-01T10:00:00Z"}
ENTRY = {"size": 4711, "is_dir": False, "latest_commit": COMMIT, "metadata": {"tabular": {"height": 10, "width": 3}}}
META = FileMeta(4711, "e6c2c7192f620617", 10, datetime(2026, 11, 1, 10, tzinfo=timezone.utc))


def _parse(entry: object, **envelope: Any) -> FileMeta:
    return parse_file_meta(json.dumps({"status": "success", "entry": entry, **envelope}).encode(), KEY)


def test_file_of_a_table() -> None:
    """Size, commit, time and rows of a table are read."""
    assert _parse(ENTRY) == META


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"metadata": {"height": 7}}, {"rows": 7}),  # as older servers write it
        ({"metadata": None}, {"rows": None}),
        ({"metadata": {"tabular": {"height": "many"}}}, {"rows": None}),
        ({"size": None}, {"size": None}),
        ({"size": -1}, {"size": None}),
        ({"latest_commit": "abc"}, {"latest_commit": "abc", "committed_at": None}),
        ({"latest_commit": None}, {"latest_commit": None, "committed_at": None}),
        ({"latest_commit": {"id": ""}}, {"latest_commit": None, "committed_at": None}),
        ({"latest_commit": {"id": f"c-{KEY}"}}, {"latest_commit": "c-***", "committed_at": None}),
    ],
)
def test_what_makes_no_sense_is_none(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """A part that is missing or odd is None, and the others are read."""
    found = _parse({**ENTRY, **changes})

    assert {name: getattr(found, name) for name in expected} == expected
    assert found.rows == META.rows or "rows" in expected


@pytest.mark.parametrize(
    ("entry", "envelope", "problem"),
    [
        (None, {}, "describes no file"),
        ({**ENTRY, "is_dir": True}, {}, "a folder"),
        (ENTRY, {"status": "error"}, "not a good envelope"),
    ],
)
def test_what_describes_no_file_is_refused(entry: object, envelope: dict[str, Any], problem: str) -> None:
    """A response without a file in it is none, and neither is that of a folder."""
    with pytest.raises(ContractError, match=problem):
        _parse(entry, **envelope)


#: Any JSON, with the names of an entry at any depth.
ENTRIES = st.recursive(
    st.none() | st.integers() | st.text() | st.booleans(),
    lambda inner: (
        st.lists(inner)
        | st.fixed_dictionaries({}, optional=dict.fromkeys([*ENTRY, "tabular", "height", *COMMIT], inner))
    ),
)


@given(ENTRIES)
def test_any_json_is_a_file_or_refused(entry: object) -> None:
    """Whatever JSON comes, it is read or refused."""
    with contextlib.suppress(ContractError):
        assert isinstance(_parse(entry), FileMeta)
