"""Ready-made conditions on the rows of the results. They need DuckDB: the extra ``results``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.conditions.sentences import describe_sql
from airflow_provider_oxen.tables import check_duckdb

if TYPE_CHECKING:
    from airflow_provider_oxen.conditions.row_condition import RowCondition

__all__ = ["column_matches", "no_missing_answers", "row_count", "rows_where"]


def rows_where(
    sql: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    rows: int | tuple[int | None, int | None] | None = None,
    show_rows: bool = True,
) -> RowCondition:
    """
    Require that a SQL expression is true for so many rows. Give one of ``at_least``, ``at_most`` and ``rows``.

    :param sql: what may stand after ``WHERE`` in DuckDB, over the columns of the results. It is not true for a row for
        which it is NULL, as where a cell is empty. In a subquery, ``rows`` is the table of all rows.
    :param at_least: smallest share of all rows, above 0.0; 1.0: all rows.
    :param at_most: largest share of all rows, below 1.0; 0: no row.
    :param rows: the number of rows, or the least and the most, with None for no limit: ``(5, None)``.
    :param show_rows: whether messages may show up to three rows that break the condition. False where rows are
        confidential.
    :raises ValueError: the SQL is not one expression or holds a template, a limit is no share and no number of rows,
        not one is given, ``show_rows`` is not True or False, or DuckDB is not installed.
    """
    check_duckdb("rows_where")
    if not isinstance(sql, str):
        raise ValueError(f"rows_where takes SQL, such as 'intent = label', but got {sql!r}")  # noqa: TRY004
    if "{{" in sql or "{%" in sql:
        raise ValueError(
            f"rows_where: conditions are not templated, but {describe_sql(sql)!r} holds a template. Write the value "
            "itself; where {{ is text to look for, write '{' || '{'"
        )
    _check_show_rows("rows_where", show_rows)
    from airflow_provider_oxen.conditions.limits import parse_limit
    from airflow_provider_oxen.conditions.measuring import RowsWhere
    from airflow_provider_oxen.conditions.sql import parse_expression

    try:
        parse_expression(sql)
    except ValueError as error:
        raise ValueError(
            f"rows_where cannot read {describe_sql(sql)!r} as SQL: {error}. Write what stands after WHERE, such as "
            "rows_where('intent = label', at_least=0.95)"
        ) from None
    limit = parse_limit("rows_where", at_least=at_least, at_most=at_most, rows=rows)
    return RowsWhere(sql, limit, show_rows)


def no_missing_answers(column: str | None = None, *, show_rows: bool = True) -> RowCondition:
    """
    Require that every row has an answer.

    One is missing if it is NULL, NaN, text with nothing but white space, or a list with no value in it.

    :param column: the column of the answers. Default: the evaluation's ``target_column``.
    :param show_rows: whether messages may name rows without an answer.
    :raises ValueError: ``column`` is no text, or DuckDB is not installed.
    """
    check_duckdb("no_missing_answers")
    from airflow_provider_oxen.conditions.measuring import NoMissingAnswers

    _check_show_rows("no_missing_answers", show_rows)
    if column is not None:
        _check_column("no_missing_answers", "column", column)
    return NoMissingAnswers(column, show_rows)


def row_count(at_least: int | None = None, *, same_as_source: bool = False) -> RowCondition:
    """
    Require that the results have so many rows. Give one of the arguments, or both.

    :param at_least: smallest number of rows, from 1.
    :param same_as_source: require as many rows as the evaluation's source has.
    :raises ValueError: ``at_least`` is no whole number from 1, neither is given, or DuckDB is not installed.
    """
    check_duckdb("row_count")
    from airflow_provider_oxen.conditions.measuring import RowCount

    if at_least is None and same_as_source is not True:
        raise ValueError("row_count takes a number of rows, or same_as_source=True, such as row_count(1_000)")
    if at_least is not None and (isinstance(at_least, bool) or not isinstance(at_least, int) or at_least < 1):
        raise ValueError(f"row_count: at_least is a whole number of rows, from 1, but is {at_least!r}")
    return RowCount(at_least, same_as_source)


def column_matches(
    expected: str,
    *,
    column: str | None = None,
    at_least: float = 1.0,
    ignore_case: bool = False,
    strip: bool = False,
    show_rows: bool = True,
) -> RowCondition:
    """
    Require that the answers equal another column, such as labels. An empty cell equals nothing.

    Any two columns can be compared, unlike in SQL: if their types differ and one is no number, their texts are.

    :param expected: the column that the answers have to equal.
    :param column: the column of the answers. Default: the evaluation's ``target_column``.
    :param at_least: smallest share of all rows, above 0.0; 1.0: all rows.
    :param ignore_case: whether upper and lower case are the same.
    :param strip: whether white space around both is left out.
    :param show_rows: as for :func:`rows_where`.
    :raises ValueError: a column is no text, ``at_least`` is no share, or DuckDB is not installed.
    """
    check_duckdb("column_matches")
    from airflow_provider_oxen.conditions.limits import parse_limit
    from airflow_provider_oxen.conditions.measuring import ColumnMatches

    _check_show_rows("column_matches", show_rows)
    _check_column("column_matches", "expected", expected)
    if column is not None:
        _check_column("column_matches", "column", column)
    limit = parse_limit("column_matches", at_least=at_least)
    return ColumnMatches(expected, column, limit, ignore_case, strip, show_rows)


def _check_column(factory: str, argument: str, column: Any) -> None:
    if not isinstance(column, str) or not column:
        raise ValueError(f"{factory}: {argument} is the name of a column, but is {column!r}")


def _check_show_rows(factory: str, show_rows: Any) -> None:
    if not isinstance(show_rows, bool):
        raise ValueError(f"{factory}: show_rows is True or False, but is {show_rows!r}")  # noqa: TRY004
