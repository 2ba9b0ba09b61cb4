"""
Rows to the bytes of a file, and back, in each format that Oxen has for tables. No server.

Parquet is written and read with DuckDB, which the extra ``results`` installs.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TextIO, TypeAlias

__all__ = ["Content", "Row", "Shape", "check_format", "find_columns", "find_shape", "read_rows", "write_rows"]

#: What is in a file: its bytes, or the place on this machine's disk where they are.
Content: TypeAlias = bytes | Path
Row: TypeAlias = Mapping[str, Any]

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_LINES = ("jsonl", "ndjson")
_FORMATS = ("parquet", *_DELIMITERS, *_LINES, "json")

#: Types of the cells, as DuckDB names them, by the type of the value.
_TYPES: Mapping[type, str] = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR"}
#: The same types as Oxen names them. Source: ``DataType`` in the vendor's open-source server.
_NAMES = {"BOOLEAN": "bool", "BIGINT": "i64", "DOUBLE": "f64", "VARCHAR": "str"}


@dataclass(frozen=True)
class Shape:
    """
    What the hub knows of a table without reading its cells.

    :param rows: how many rows it has.
    :param columns: name and type of each column, in order; types as Oxen names them.
    """

    rows: int
    columns: Sequence[tuple[str, str]]


def check_format(path: str) -> str:
    """
    Find the format that rows are written in.

    :param path: path of the file; its suffix says the format.
    :raises ValueError: Oxen has no tables of this format.
    :raises ModuleNotFoundError: it is Parquet, and DuckDB is not installed.
    """
    kind = _format_of(path)
    if kind is None:
        raise ValueError(f"rows can be written to {', '.join(_FORMATS)}, but the path is {path!r}")
    if kind == "parquet":
        _import_duckdb()
    return kind


def find_columns(rows: Sequence[Row]) -> list[str]:
    """List the columns of rows, in the order in which they first appear."""
    return list(dict.fromkeys(name for row in rows for name in row))


def write_rows(path: str, columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """
    Write rows in the format that a path's suffix says.

    :param path: path of the file.
    :param columns: the columns, in order. A row that lacks one has an empty cell there.
    :param rows: values are text, numbers, booleans, None for an empty cell, and lists and dicts of these.
    :raises ValueError: the format is none that Oxen has for tables.
    :raises ModuleNotFoundError: it is Parquet, and DuckDB is not installed.
    """
    kind = check_format(path)
    if kind in _DELIMITERS:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=_DELIMITERS[kind])  # ends lines as RFC 4180 does, and so quotes both ends
        writer.writerow(columns)
        writer.writerows([_to_text(row.get(name)) for name in columns] for row in rows)
        return text.getvalue().encode()
    documents = [{name: row.get(name) for name in columns} for row in rows]
    if kind == "json":
        return json.dumps(documents, ensure_ascii=False).encode()
    lines = "".join(f"{json.dumps(document, ensure_ascii=False)}\n" for document in documents).encode()
    return _write_parquet(columns, rows, lines) if kind == "parquet" else lines


def read_rows(path: str, content: Content, *, limit: int | None = None) -> list[dict[str, Any]]:
    """
    Read the rows of a table. In CSV and TSV, every value is text.

    :param path: path of the file; its suffix says the format.
    :param content: what is in it.
    :param limit: how many rows to read; None: all. Only in JSON are the others read as well.
    :raises ValueError: it is no table, or its format is none that Oxen has for tables.
    :raises ModuleNotFoundError: it is Parquet, and DuckDB is not installed.
    """
    kind = check_format(path)
    if kind == "parquet":
        with _parquet(content) as relation:
            found = relation if limit is None else relation.limit(limit)
            return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    with _text(content) as lines:
        if kind in _DELIMITERS:
            return list(islice(csv.DictReader(lines, delimiter=_DELIMITERS[kind]), limit))
        if kind == "json":
            return _check_rows(json.load(lines))[:limit]
        return _check_rows([json.loads(line) for line in islice(filter(str.strip, lines), limit)])


def find_shape(path: str, content: Content) -> Shape | None:
    """
    Count rows and list columns. A large file is not loaded into memory, unless it is ``json``.

    :param path: path of the file; its suffix says the format.
    :param content: what is in it.
    :return: None if it is no table, or Parquet without DuckDB.
    """
    kind = _format_of(path)
    try:
        return _read_shape(kind, path, content) if kind else None
    except (ValueError, csv.Error, ModuleNotFoundError):
        return None


def _read_shape(kind: str, path: str, content: Content) -> Shape:
    if kind == "parquet":
        with _parquet(content) as relation:
            names = [_NAMES.get(str(found), str(found).lower()) for found in relation.types]
            return Shape(relation.count("*").fetchall()[0][0], list(zip(relation.columns, names, strict=True)))
    if kind == "json":
        rows = read_rows(path, content)
        return Shape(len(rows), _columns_of(rows))
    with _text(content) as lines:
        if kind in _DELIMITERS:
            reader = csv.reader(lines, delimiter=_DELIMITERS[kind])
            columns = next(reader, [])
            return Shape(sum(1 for row in reader if row), [(name, "str") for name in columns])
        filled = (line for line in lines if line.strip())
        first = _check_rows([json.loads(line) for line in islice(filled, 1)])
        return Shape(len(first) + sum(1 for _ in filled), _columns_of(first))


def _columns_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """List the columns of rows that come from JSON, with the name of each one's type."""
    return [(name, _NAMES.get(_type_of(name, rows), "str")) for name in find_columns(rows)]


def _type_of(column: str, rows: Sequence[Row]) -> str:
    """Find the type that holds all values of a column: text, if they are of several types, and JSON for the rest."""
    kinds = {type(row.get(column)) for row in rows} - {type(None)}
    if kinds == {int, float}:
        return "DOUBLE"
    if kinds & {list, dict}:
        return "JSON"
    return _TYPES.get(kinds.pop(), "VARCHAR") if len(kinds) == 1 else "VARCHAR"


def _check_rows(document: Any) -> list[dict[str, Any]]:
    """Refuse JSON that is no list of rows."""
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise ValueError("this is no table: its rows must be objects")
    return document


def _format_of(path: str) -> str | None:
    suffix = PurePosixPath(path).suffix.lower().removeprefix(".")
    return suffix if suffix in _FORMATS else None


def _to_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextmanager
def _text(content: Content) -> Iterator[TextIO]:
    """Open a file of text. Line ends stay as they are: a cell of CSV may have some."""
    raw = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as lines:
        yield lines


@contextmanager
def _parquet(content: Content) -> Iterator[Any]:
    """Open Parquet as a relation of DuckDB."""
    duckdb = _import_duckdb()
    with tempfile.TemporaryDirectory() as directory, duckdb.connect() as connection:
        if isinstance(content, bytes):
            path = Path(directory, "table.parquet")
            path.write_bytes(content)
        else:
            path = content
        try:
            yield connection.read_parquet(str(path))
        except duckdb.Error as error:
            raise ValueError(f"this is no Parquet file: {error}") from None


def _write_parquet(columns: Sequence[str], rows: Sequence[Row], lines: bytes) -> bytes:
    """Let DuckDB write Parquet from lines of JSON: with a type for each column, so that it guesses none."""
    types = ", ".join(f"{_quote(name)}: {_quote(_type_of(name, rows))}" for name in columns)
    with tempfile.TemporaryDirectory() as directory, _import_duckdb().connect() as connection:
        source, target = Path(directory, "rows.jsonl"), Path(directory, "table.parquet")
        source.write_bytes(lines)
        read = f"read_json({_quote(str(source))}, format = 'newline_delimited', columns = {{{types}}})"
        connection.execute(f"COPY (FROM {read}) TO {_quote(str(target))} (FORMAT parquet)")
        return target.read_bytes()


def _quote(text: str) -> str:
    """Write a text as one of SQL's."""
    return "'{}'".format(text.replace("'", "''"))


def _import_duckdb() -> Any:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        if error.name != "duckdb":
            raise
        message = 'Parquet needs DuckDB: pip install "airflow-provider-oxen[results]"'
        raise ModuleNotFoundError(message, name="duckdb") from None
    return duckdb
