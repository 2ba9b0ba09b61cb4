"""Rows to the bytes of a file and back, as the local hub writes and reads them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.testing.tables import Shape, check_format, find_columns, find_shape, read_rows, write_rows

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = ["parquet", "csv", "tsv", "jsonl", "ndjson", "json"]
LINES_OF_JSON = ["jsonl", "ndjson", "json"]

#: DuckDB ends a text at no character, but JSON cannot hold half of a pair of surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.none() | TEXTS | st.booleans() | st.integers(-(2**53), 2**53)


def write(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    return write_rows(f"a.{suffix}", find_columns(rows), rows)


@pytest.mark.parametrize("suffix", LINES_OF_JSON)
@given(rows=st.lists(st.fixed_dictionaries({"a": VALUES, "b c": VALUES}), min_size=1, max_size=5))
def test_json_keeps_every_value(suffix: str, rows: list[dict[str, Any]]) -> None:
    """What is written is read again, of any type."""
    assert read_rows(f"a.{suffix}", write(suffix, rows)) == rows


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@settings(max_examples=25)
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXTS, "b c": TEXTS}), min_size=1, max_size=5))
def test_every_text_is_kept(suffix: str, rows: list[dict[str, Any]]) -> None:
    """Quotes, tabs, line ends and what else a cell may have."""
    assert read_rows(f"a.{suffix}", write(suffix, rows)) == rows


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], "i64"),
        ([1, 2.5], "f64"),
        ([True, False], "bool"),
        (["2024-01-01", "12"], "str"),
        ([None, None], "str"),
        ([1, "text"], "str"),
    ],
)
def test_parquet_has_the_types_of_the_values(values: list[Any], kind: str) -> None:
    """Nothing is guessed from what a text looks like; values of several types become text."""
    rows = [{"it's": value} for value in values]
    content = write("parquet", rows)

    assert find_shape("a.parquet", content) == Shape(2, [("it's", kind)])
    read = [row["it's"] for row in read_rows("a.parquet", content)]
    assert read == ([str(value) for value in values] if values == [1, "text"] else values)


@pytest.mark.parametrize("suffix", FORMATS)
def test_shape_is_that_of_the_rows(suffix: str, tmp_path: Path) -> None:
    """Rows and columns are counted alike in memory and on the disk, with line ends in cells."""
    content = write(suffix, [{"id": 1, "text": "two\nlines"}, {"id": 2, "text": None}])
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)

    found = find_shape(path.name, content)
    assert found == find_shape(path.name, path)
    assert found is not None
    assert (found.rows, [name for name, _ in found.columns]) == (2, ["id", "text"])


@pytest.mark.parametrize("suffix", FORMATS)
def test_table_without_rows_has_its_columns_where_the_format_allows(suffix: str) -> None:
    """An empty table is none that is broken."""
    found = find_shape(f"a.{suffix}", write_rows(f"a.{suffix}", ["id"], []))

    assert found is not None
    assert found.rows == 0
    assert [name for name, _ in found.columns] == ([] if suffix in LINES_OF_JSON else ["id"])


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a.txt", b"id\n1\n"),
        ("a", b"id\n1\n"),
        ("a.parquet", b"PAR1"),
        ("a.parquet", b""),
        ("a.json", b'{"id": 1}'),
        ("a.json", b"[1]"),
        ("a.jsonl", b"1\n"),
        ("a.jsonl", b"{\n"),
        ("a.csv", b"\xff\n"),
    ],
)
def test_what_is_no_table_has_no_shape(path: str, content: bytes) -> None:
    """Another format, and what cannot be read."""
    assert find_shape(path, content) is None


def test_columns_come_in_the_order_of_the_rows() -> None:
    """A row that lacks a column has an empty cell there."""
    rows = [{"b": 1}, {"a": 2, "b": 3}]

    assert write("csv", rows) == b"b,a\r\n1,\r\n3,2\r\n"
    assert json.loads(write("json", rows)) == [{"b": 1, "a": None}, {"b": 3, "a": 2}]


def test_values_of_csv_are_written_as_in_json() -> None:
    """Booleans, numbers and lists have JSON's form; a text has none; an empty cell is empty."""
    rows = [{"a": True, "b": 1.5, "c": [1, "x"], "d": "text", "e": None}]

    assert write("csv", rows) == b'a,b,c,d,e\r\ntrue,1.5,"[1, ""x""]",text,\r\n'
    assert write("tsv", rows) == b'a\tb\tc\td\te\r\ntrue\t1.5\t"[1, ""x""]"\ttext\t\r\n'


def test_format_is_the_suffix() -> None:
    """In upper case, too; any other format is refused, and so is Parquet without DuckDB."""
    assert [check_format(f"data.d/a.{suffix.upper()}") for suffix in FORMATS] == FORMATS
    for path in ("a.txt", "csv", "a.csv.gz", "a.d/csv"):
        with pytest.raises(ValueError, match="rows can be written to"):
            check_format(path)


def test_parquet_needs_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra; the other formats need nothing."""
    monkeypatch.setitem(sys.modules, "duckdb", None)

    with pytest.raises(ModuleNotFoundError, match=r"airflow-provider-oxen\[results\]"):
        write("parquet", [{"id": 1}])
    assert [bool(write(suffix, [{"id": 1}])) for suffix in FORMATS[1:]] == [True] * 5
