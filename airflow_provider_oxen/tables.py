"""
The rows of one downloaded file, read by DuckDB, which can reach nothing but that file.

How this works:

1. DuckDB gets a name of ours that leads to the file, so that no character of the file's name is a pattern to it.
2. It may read that name alone: no other file, no network, no extension, no variable of Python's. Its configuration is
   locked, its memory limited, and it uses one thread, as the worker has other tasks. It writes nothing to disk.
   If its memory runs out, it is started again with a larger limit, once.
3. The types of a text file's columns are found once, from all rows: a sample could miss the one row that is no number.
   How a file is to be read is fixed, not guessed: a guess could take a row for a comment or a heading.
4. Rows are streamed. What DuckDB holds does not grow with the file.

Rule: what can never be read is a :class:`TableError`. Whatever may go better later (memory, disk) stays an exception of
DuckDB's.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_oxen.locked_duckdb import connect, quote_name, run
from airflow_provider_oxen.redaction import one_line
from airflow_provider_oxen.table_formats import (
    AS_WRITTEN,
    ROWS,
    Format,
    find_format,
    find_same_names,
    may_be_renamed,
    top_names,
)

if TYPE_CHECKING:
    import duckdb

__all__ = ["FailedRow", "Table", "TableError", "check_duckdb", "first_lines", "open_table"]

#: A longer file is not looked through for anything else than white space.
_LONGEST_BLANK = 100
_MALFORMED_CSV = "a row has more or fewer cells than the heading, a quote is not closed, or the file is not in UTF-8"
#: Characters of a cell that are fetched. More than are shown, so that a key is found before the text is cut.
_FETCHED = 400

#: What DuckDB gets where the limit of a format does not do: pages of parquet are decompressed as a whole, and long rows
#: are read by the thousand.
_MOST_MEMORY = "512MB"
_OUT_OF_MEMORY = (
    "DuckDB needs more memory than its limit here, 512 MB: a group of rows in the file is too large, or SQL keeps too "
    "many rows at once"
)


class TableError(ValueError):
    """
    What can never be read: a damaged file, a column that is not there, SQL that does not fit the columns.

    :param detail: what DuckDB says, in one line.
    :param has_cells: whether that may hold the content of cells.
    """

    def __init__(self, detail: str, *, has_cells: bool = False) -> None:
        super().__init__(detail)
        self.has_cells = has_cells
        self._detail = detail
        self._before = self._after = ""

    def frame(self, *, before: str = "", after: str = "") -> None:
        """Add what is no content of cells."""
        self._before += before
        self._after += after

    def describe(self, *, show: bool) -> str:
        """
        Say what is wrong, in one line.

        :param show: whether the content of cells may be shown.
        """
        hidden = self.has_cells and not show
        return f"{self._before}{'a value does not fit, which is not shown' if hidden else self._detail}{self._after}"


class FailedRow(NamedTuple):
    """One row: its number, from 1, and the texts of some cells; None where a cell is NULL."""

    number: int
    cells: tuple[str | None, ...]


class Table:
    """
    The rows of one file. Made by :func:`open_table`, and usable until that ends.

    :param columns: the type of each column, by its name as the file spells it.
    :param redact: hides what must not be shown.
    """

    def __init__(self, source: _Source, columns: Mapping[str, str], redact: Callable[[str], str]) -> None:
        self._source = source
        self.columns = columns
        self.redact = redact
        self._row_count: int | None = None

    @property
    def relation(self) -> duckdb.DuckDBPyRelation:
        """The rows as a relation of DuckDB's, which has the larger limit: its queries cannot be repeated."""
        self._source.use_most_memory()
        return self._source.connection.view(ROWS)

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        if self._row_count is None:
            self.count("true")
        return self._row_count or 0

    def find(self, name: str) -> str | None:
        """Find a column as DuckDB does, whatever its case; return the file's spelling of it."""
        return next((column for column in self.columns if column.lower() == name.lower()), None)

    def count(self, sql: str, *, as_written: bool = False) -> int:
        """
        Count the rows for which a condition is true. For NULL it is not.

        :param sql: an expression that :mod:`airflow_provider_oxen.conditions.sql` has checked.
        :param as_written: read the cells of CSV and TSV as the texts that they are.
        :raises TableError: it does not fit the columns, or the file is damaged.
        """
        source = quote_name(AS_WRITTEN if as_written else ROWS)
        # The line breaks end a comment in the SQL.
        query = f"SELECT count(*), count(CASE WHEN (\n{sql}\n) THEN 1 END) FROM {source} AS rows"  # noqa: S608
        ((self._row_count, *found),) = self._fetch(query)
        if len(found) != 1:  # which COLUMNS does, and no parser can tell
            raise TableError(f"it is {len(found)} expressions, one for each column: write one, with AND or OR")
        return int(found[0])

    def find_rows(
        self, sql: str, shown: Sequence[str], *, holds: bool, limit: int, as_written: bool = False
    ) -> list[FailedRow]:
        """
        Find the first rows for which a condition is true, or is not.

        :param shown: the columns whose cells are wanted, as the file spells them.
        :raises TableError: as :meth:`count`.
        """
        source = quote_name(AS_WRITTEN if as_written else ROWS)
        number = "row number"
        while self.find(number):
            number += "_"
        number = quote_name(number)
        cells = "".join(f", left(CAST({quote_name(name)} AS VARCHAR), {_FETCHED})" for name in shown)
        query = (
            f"SELECT {number}{cells} FROM (SELECT row_number() OVER () AS {number}, * FROM {source}) AS rows "  # noqa: S608
            f"WHERE CASE WHEN (\n{sql}\n) THEN {holds} ELSE {not holds} END LIMIT {limit}"
        )
        return [FailedRow(row[0], row[1:]) for row in self._fetch(query)]

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        with _raising_ours(self.redact):
            return self._source.run(query)


@contextmanager
def open_table(file: Path, suffix: str, *, redact: Callable[[str], str]) -> Iterator[Table]:
    """
    Open a file with DuckDB, which can reach nothing but that file.

    :param suffix: of the path in the repository, which says the format; in any case.
    :param redact: hides in a text what must not be shown: the key.
    :raises TableError: the format is another, or the file is damaged.
    :raises OSError: the file is not there.
    """
    form = find_format(suffix)
    if isinstance(form, str):
        raise TableError(form)
    with tempfile.TemporaryDirectory(prefix="oxen-rows-") as folder:
        link = Path(folder) / "rows"
        link.symlink_to(file.resolve(strict=True))
        with closing(_Source(form, link)) as source:
            try:
                with _raising_ours(redact, form.name):
                    source.check_content()
                    columns = source.open()
                    source.check_names(columns, redact)
            except TableError as error:
                error.frame(before=f"the results cannot be read as {form.name}: ")
                raise
            yield Table(source, columns, redact)


class _Source:
    """One file, and the DuckDB that reads it. Where that runs out of memory, it is started again with more, once."""

    def __init__(self, form: Format, link: Path) -> None:
        self._form = form
        self._link = link
        self._views: list[str] = []
        self._has_most = False
        self.connection = connect(form.memory_limit, allowed=link)

    def check_content(self) -> None:
        """
        Refuse a file with nothing in it, for which DuckDB makes up a column.

        :raises TableError: it has no more than white space.
        """
        with self._link.open("rb") as file:
            content = file.read(_LONGEST_BLANK + 1)
        if len(content) <= _LONGEST_BLANK and not content.strip():
            raise TableError("the file is empty")

    def open(self) -> dict[str, str]:
        """Make the rows known to SQL; return the types of the columns."""
        path = str(self._link)
        columns = {str(row[0]): str(row[1]) for row in self.run(self._form.describe(path))}
        columns = self._form.choose_types(columns)
        for view in self._form.create_views(path, columns):
            self.run(view)
            self._views.append(view)
        return columns

    def check_names(self, columns: Mapping[str, str], redact: Callable[[str], str]) -> None:
        """
        Refuse two columns with one name, whatever its case. DuckDB gives the second another name, without a word.

        :raises TableError: there are two.
        """
        if not may_be_renamed(columns):
            return
        found = self.run(self._form.select_names(str(self._link), list(columns)))
        same = find_same_names(top_names(found, has_root=self._form.reader == "read_parquet"))
        if same is not None:
            first, second = (repr(redact(name)[:_FETCHED]) for name in same)
            raise TableError(
                f"SQL cannot tell the columns {first} and {second} apart, as the case of a name does not count"
            )

    def run(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query; once more, with the larger limit, if memory runs out."""
        import duckdb

        try:
            return run(self.connection, query)
        except duckdb.OutOfMemoryException:
            if self._has_most:
                raise duckdb.OutOfMemoryException(_OUT_OF_MEMORY) from None
        self.use_most_memory()
        return self.run(query)

    def use_most_memory(self) -> None:
        """Start DuckDB again with the larger limit, unless that is done."""
        if self._has_most:
            return
        self.close()  # which frees its memory
        self.connection = connect(_MOST_MEMORY, allowed=self._link)
        self._has_most = True
        for view in self._views:
            self.connection.execute(view)

    def close(self) -> None:
        """Stop DuckDB."""
        self.connection.close()


def check_duckdb(what: str) -> None:
    """
    Refuse what needs DuckDB where it is not installed. Does not import it.

    :raises ValueError: it is not installed.
    """
    if find_spec("duckdb") is None:
        raise ValueError(f'{what} needs DuckDB, which is not installed: pip install "airflow-provider-oxen[results]"')


def first_lines(error: Exception, lines: int = 1) -> str:
    """Take from DuckDB's text what happened, without the kind of error and what follows, such as the query."""
    text = re.sub(r"\s*^LINE \d+: .*", "", str(error), flags=re.DOTALL | re.MULTILINE)
    said = [line.strip() for line in re.sub(r"^[\w ]+ Error: ", "", text).splitlines()]
    return one_line(" ".join(line for line in said[:lines] if line))


@contextmanager
def _raising_ours(redact: Callable[[str], str], reading: str | None = None) -> Iterator[None]:
    """Turn those of DuckDB's errors that are final into ours. The file's name here is of no use to anyone."""
    import duckdb

    try:
        yield
    except (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError, duckdb.PermissionException) as error:
        # The first line of what is wrong with a text file says only that something is.
        is_damaged = reading is not None or "CSV Error" in str(error) or "JSON" in str(error)
        detail = re.sub(
            r'(in )?(file )?["\']?[^"\' ]*oxen-rows-\w+/rows["\']?',
            "the file",
            first_lines(error, 3 if is_damaged else 1),
        )
        has_cells = isinstance(error, (duckdb.DataError, duckdb.InvalidInputException))
        if "automatically detect the CSV" in detail:  # and then all that DuckDB tried
            detail, has_cells = _MALFORMED_CSV, False
        raise TableError(redact(detail), has_cells=has_cells) from None
