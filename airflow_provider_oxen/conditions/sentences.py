"""What is said about rows: SQL, columns and cells, each on one line and not too long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_oxen.redaction import one_line

if TYPE_CHECKING:
    from airflow_provider_oxen.tables import FailedRow, Table

__all__ = ["describe_columns", "describe_rows", "describe_sql"]

#: Longest text of a cell that is shown, or name of a column, in characters.
_LONGEST_CELL = 60
#: Longest SQL that is shown.
_LONGEST_SQL = 120
#: How many columns are named.
_MOST_COLUMNS = 20


def describe_sql(sql: str) -> str:
    """Write SQL on one line."""
    return _shorten(one_line(sql), _LONGEST_SQL)


def describe_columns(table: Table, *, with_types: bool = False) -> str:
    """Name the columns there are."""
    names = [f"{name} {kind}" if with_types else name for name, kind in list(table.columns.items())[:_MOST_COLUMNS]]
    more = len(table.columns) - len(names)
    listed = ", ".join(_describe_name(name, table) for name in names)
    return f"the columns are {listed}" + (f" and {more:,} more" if more else "")


def describe_rows(
    table: Table,
    rows: Sequence[FailedRow],
    shown: Sequence[str],
    operator: str | None = None,
    *,
    as_text: bool = False,
) -> str:
    """
    Write rows as examples: ``row 17: 'refund' ≠ 'get_refund'; row 21: …``.

    :param shown: the columns of the rows' cells.
    :param operator: stands between the two cells. None: each cell is named by its column.
    :param as_text: whether the cells are texts, whatever the types of their columns.
    """
    kinds = ["VARCHAR" if as_text else table.columns[name] for name in shown]
    described = []
    for row in rows:
        cells = [_describe_cell(cell, kind, table) for cell, kind in zip(row.cells, kinds, strict=True)]
        named = (f"{_describe_name(name, table)}={cell}" for name, cell in zip(shown, cells, strict=True))
        text = ", ".join(named) if operator is None else f" {operator} ".join(cells)
        described.append(f"row {row.number:,}" + (f": {text}" if text else ""))
    return "; ".join(described)


def _describe_name(name: str, table: Table) -> str:
    return _shorten(one_line(table.redact(name)), _LONGEST_CELL)


def _describe_cell(text: str | None, kind: str, table: Table) -> str:
    """Write a cell as Python does, so that white space, quotes and what is not printable can be seen."""
    if text is None:
        return "NULL"
    escaped = repr(_shorten(table.redact(text), _LONGEST_CELL))
    return escaped if kind == "VARCHAR" else escaped[1:-1]


def _shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
