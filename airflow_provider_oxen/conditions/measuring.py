"""The ready-made conditions on rows: how each is measured, and what is said where it is not met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_oxen.conditions.limits import Limit
from airflow_provider_oxen.conditions.row_condition import Measured, RefusedError, RowCondition, build_fact
from airflow_provider_oxen.conditions.sentences import describe_columns, describe_rows, describe_sql
from airflow_provider_oxen.locked_duckdb import quote_name
from airflow_provider_oxen.tables import TableError

if TYPE_CHECKING:
    from airflow_provider_oxen.evaluations import Evaluation
    from airflow_provider_oxen.tables import Table

__all__ = ["ColumnMatches", "NoMissingAnswers", "RowCount", "RowsWhere"]

#: How many rows are shown of those that break a condition, and how many columns of each.
_MOST_ROWS, _MOST_CELLS = 3, 5
#: What Python takes for white space. DuckDB's ``trim`` alone takes only spaces.
_WHITE_SPACE = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
#: How the types of numbers begin, in DuckDB. They can be compared with each other.
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "U", "FLOAT", "DOUBLE", "DECIMAL")


_ALL_ROWS = Limit(at_least=1.0)


@dataclass(frozen=True, repr=False)
class RowsWhere(RowCondition):
    """What :func:`~airflow_provider_oxen.conditions.rows_where` makes."""

    factory = "rows_where"
    sql: str
    limit: Limit
    show_rows: bool = True

    def describe(self, evaluation: Evaluation) -> str:  # noqa: ARG002
        """As the base class says: the SQL."""
        return describe_sql(self.sql)

    def _measure(
        self, name: str, evaluation: Evaluation, table: Table, source_rows: Callable[[], int | None]
    ) -> Measured:
        from airflow_provider_oxen.conditions.sql import parse_expression

        del evaluation, source_rows
        expression = parse_expression(self.sql)
        names = [table.find(column) for column in expression.compared or expression.names]
        shown = [column for column in names if column is not None][:_MOST_CELLS]
        test = _Test(self.sql, shown, is_comparison=expression.compared is not None)
        try:
            return _judge(self, name, test, self.limit, table)
        except TableError as error:
            if not error.has_cells:
                _check_names(table, expression.names, self.sql)
                if shown and "explicit type casts" in error.describe(show=False):
                    first = describe_sql(shown[0])
                    error.frame(after=f" For the text of {first}, write CAST({first} AS VARCHAR)")
            elif expression.compared is not None:  # whose types differ
                error.frame(after=" (column_matches can compare any two columns)")
            raise


@dataclass(frozen=True, repr=False)
class ColumnMatches(RowCondition):
    """What :func:`~airflow_provider_oxen.conditions.column_matches` makes."""

    factory = "column_matches"
    expected: str
    column: str | None = None
    limit: Limit = _ALL_ROWS
    ignore_case: bool = False
    strip: bool = False
    show_rows: bool = True

    def describe(self, evaluation: Evaluation) -> str:
        """As the base class says: both columns."""
        return f"{_describe_column(self.column, evaluation)} matches {describe_sql(self.expected)}"

    def _measure(
        self, name: str, evaluation: Evaluation, table: Table, source_rows: Callable[[], int | None]
    ) -> Measured:
        del source_rows
        names = [_find(table, _column(self.column, evaluation)), _find(table, self.expected)]
        kinds = [table.columns[found] for found in names]
        as_text = (
            self.ignore_case
            or self.strip
            or not (kinds[0] == kinds[1] or all(kind.startswith(_NUMBERS) for kind in kinds))
        )
        sides = [quote_name(found) for found in names]
        if as_text:
            sides = [f"CAST({side} AS VARCHAR)" for side in sides]
        if self.strip:
            sides = [f"trim({side}, '{_WHITE_SPACE}')" for side in sides]
        if self.ignore_case:
            sides = [f"lower({side})" for side in sides]
        test = _Test(" = ".join(sides), names, is_comparison=True, as_text=as_text)
        return _judge(self, name, test, self.limit, table)


@dataclass(frozen=True, repr=False)
class NoMissingAnswers(RowCondition):
    """What :func:`~airflow_provider_oxen.conditions.no_missing_answers` makes."""

    factory = "no_missing_answers"
    column: str | None = None
    show_rows: bool = True

    def describe(self, evaluation: Evaluation) -> str:
        """As the base class says: the column."""
        return f"{_describe_column(self.column, evaluation)} is not missing"

    def _measure(
        self, name: str, evaluation: Evaluation, table: Table, source_rows: Callable[[], int | None]
    ) -> Measured:
        del source_rows
        column = _find(table, _column(self.column, evaluation))
        quoted, kind = quote_name(column), table.columns[column]
        sql = f"{quoted} IS NOT NULL"
        if kind == "VARCHAR":
            sql += f" AND trim({quoted}, '{_WHITE_SPACE}') <> ''"
        elif kind in ("FLOAT", "DOUBLE"):
            sql += f" AND NOT isnan({quoted})"
        elif kind.endswith("]"):
            sql += f" AND list_count({quoted}) > 0"  # which counts no NULL
        rows, of = table.count(sql), table.row_count
        fact = build_fact(name, holds=rows == of, share=rows / of, rows=rows, of=of)
        if rows == of:
            return Measured(fact, None)
        missing = Limit(at_most=0.0).describe_found(of - rows, of)
        examples = _describe_examples(self, _Test(sql), table, holds=False)
        return Measured(fact, f"{describe_sql(column)} is missing in {missing}, none may be missing{examples}")


@dataclass(frozen=True, repr=False)
class RowCount(RowCondition):
    """What :func:`~airflow_provider_oxen.conditions.row_count` makes."""

    factory = "row_count"
    at_least: int | None = None
    same_as_source: bool = False

    def describe(self, evaluation: Evaluation) -> str:  # noqa: ARG002
        """As the base class says. There is one count."""
        return "row count"

    def _measure(
        self, name: str, evaluation: Evaluation, table: Table, source_rows: Callable[[], int | None]
    ) -> Measured:
        del evaluation
        rows, reasons = table.row_count, []
        if self.at_least is not None and rows < self.at_least:
            reasons.append(f"but at least {self.at_least:,} are needed")
        of = source_rows() if self.same_as_source else None
        if self.same_as_source and of is None:
            reasons.append("and as many as in the source are needed, but the hub does not report how many it has")
        elif of is not None and rows != of:
            reasons.append(f"but the source has {of:,}, and as many are needed")
        unmet = f"the results have {rows:,} rows, {', '.join(reasons)}" if reasons else None
        return Measured(build_fact(name, holds=not reasons, rows=rows, of=of), unmet)


class _Test(NamedTuple):
    """What is counted: the rows for which SQL is true."""

    sql: str
    #: The columns that are shown of a row.
    shown: Sequence[str] = ()
    #: Whether it is ``a = b`` of the two columns that are shown.
    is_comparison: bool = False
    #: Whether the texts of the cells are read, as the file has them.
    as_text: bool = False


def _judge(condition: RowCondition, name: str, test: _Test, limit: Limit, table: Table) -> Measured:
    """Count the rows for which a test is true, and compare them with a limit."""
    rows, of = table.count(test.sql, as_written=test.as_text), table.row_count
    is_exceeded = limit.is_exceeded(rows, of)
    holds = not is_exceeded and not limit.is_missed(rows, of)
    fact = build_fact(name, holds=holds, share=rows / of, rows=rows, of=of)
    if holds:
        return Measured(fact, None)
    examples = _describe_examples(condition, test, table, holds=is_exceeded)
    return Measured(fact, f"{name} holds for {limit.describe_found(rows, of)}, {limit.describe_needed()}{examples}")


def _describe_examples(condition: RowCondition, test: _Test, table: Table, *, holds: bool) -> str:
    """Show the first rows for which a test is true, or is not."""
    if not condition.show_rows:
        return ""
    rows = table.find_rows(test.sql, test.shown, holds=holds, limit=_MOST_ROWS, as_written=test.as_text)
    operator = ("=" if holds else "≠") if test.is_comparison else None
    described = describe_rows(table, rows, test.shown, operator, as_text=test.as_text)
    return f"; for instance {described}" if described else ""


def _describe_column(given: str | None, evaluation: Evaluation) -> str:
    return describe_sql(_column(given, evaluation) or "the answer")


def _column(given: str | None, evaluation: Evaluation) -> str | None:
    return given if given is not None else evaluation.target_column


def _find(table: Table, name: str | None) -> str:
    """Find a column that a condition names."""
    if name is None:
        raise RefusedError("the hub does not report the column of the answers: name it, as column=…")
    _check_names(table, [name])
    return table.find(name) or name


def _check_names(table: Table, names: Sequence[str], sql: str = "") -> None:
    for name in names:
        if table.find(name) is None:
            hint = ". In SQL, text stands in single quotes" if quote_name(name) in sql else ""
            raise RefusedError(f"there is no column {describe_sql(name)!r}; {describe_columns(table)}{hint}")
