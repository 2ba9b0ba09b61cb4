"""
The rows of one downloaded file, read by DuckDB, which can reach nothing but that file.

How this works:

1. DuckDB gets a name of ours that leads to the file, so that no character of the file's name is a pattern to it.
2. It may read that name alone: no other file, no network, no extension, no variable of Python's. Its configuration is
   locked, its memory limited, and it uses one thread, as the worker has other tasks. It writes nothing to disk.
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
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_oxen.redaction import one_line

if TYPE_CHECKING:
    import duckdb

__all__ = ["FailedRow", "Table", "TableError", "check_duckdb", "connect", "first_lines", "open_table", "quote_name"]

#: The name of the rows in SQL.
_ROWS = "rows"
#: The same rows of a text file, every cell as it is written there.
_AS_WRITTEN = "rows as written"
#: Characters of a cell that are fetched. More than are shown, so that a key is found before the text is cut.
_FETCHED = 400

_CSV = (
    "quote='\"', escape='\"', header=true, skip=0, comment='', nullstr='', null_padding=false, "
    # The default holds 32 MB at a time. A row may be as long as DuckDB's default.
    "buffer_size=8000000, max_line_size=2000000"
)
#: A table of many columns is no single column of maps.
_JSON = "map_inference_threshold=-1"


class _Format(NamedTuple):
    """How the files of one format are read."""

    name: str
    reader: str
    options: str = ""
    #: Whether the types of the columns have to be found in the rows.
    typeless: bool = True
    #: The least in which DuckDB read 5 million rows, with room to spare. To find the types in a JSON array, it parses
    #: 32 MB at once, which takes 300 MB where rows are small.
    memory_limit: str = "128MB"


_FORMATS = {
    "parquet": _Format("Parquet", "read_parquet", typeless=False),
    "csv": _Format("CSV", "read_csv", f"delim=',', {_CSV}"),
    "tsv": _Format("TSV", "read_csv", f"delim='\t', {_CSV}"),
    "jsonl": _Format("JSON lines", "read_json", f"format='newline_delimited', {_JSON}"),
    "ndjson": _Format("JSON lines", "read_json", f"format='newline_delimited', {_JSON}"),
    "json": _Format("JSON", "read_json", f"format='auto', {_JSON}", memory_limit="320MB"),
}


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

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, columns: Mapping[str, str], redact: Callable[[str], str]
    ) -> None:
        self._connection = connection
        self.columns = columns
        self.redact = redact
        self._row_count: int | None = None

    @property
    def relation(self) -> duckdb.DuckDBPyRelation:
        """The rows as a relation of DuckDB's."""
        return self._connection.view(_ROWS)

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
        source = quote_name(_AS_WRITTEN if as_written else _ROWS)
        # The line breaks end a comment in the SQL.
        query = f"SELECT count(*), count(CASE WHEN (\n{sql}\n) THEN 1 END) FROM {source} AS rows"  # noqa: S608
        ((self._row_count, found),) = self._fetch(query)
        return int(found)

    def find_rows(
        self, sql: str, shown: Sequence[str], *, holds: bool, limit: int, as_written: bool = False
    ) -> list[FailedRow]:
        """
        Find the first rows for which a condition is true, or is not.

        :param shown: the columns whose cells are wanted, as the file spells them.
        :raises TableError: as :meth:`count`.
        """
        source = quote_name(_AS_WRITTEN if as_written else _ROWS)
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
            return _run(self._connection, query)


@contextmanager
def open_table(file: Path, suffix: str, *, redact: Callable[[str], str]) -> Iterator[Table]:
    """
    Open a file with DuckDB, which can reach nothing but that file.

    :param suffix: of the path in the repository, which says the format; in any case.
    :param redact: hides in a text what must not be shown: the key.
    :raises TableError: the format is another, or the file is damaged.
    :raises OSError: the file is not there.
    """
    form = _FORMATS.get(suffix.lower().removeprefix("."))
    if form is None:
        known = ", ".join(_FORMATS)
        raise TableError(f"conditions on rows can read {known}, but the results are in a file ending in {suffix!r}")
    with tempfile.TemporaryDirectory(prefix="oxen-rows-") as folder:
        link = Path(folder) / "rows"
        link.symlink_to(file.resolve(strict=True))
        with closing(connect(form.memory_limit, allowed=link)) as connection:
            try:
                with _raising_ours(redact, form.name):
                    columns = _make_views(connection, form, link)
            except TableError as error:
                error.frame(before=f"the results cannot be read as {form.name}: ")
                raise
            yield Table(connection, columns, redact)


def connect(memory_limit: str = "64MB", *, allowed: Path | None = None) -> duckdb.DuckDBPyConnection:
    """
    Start a DuckDB in memory that can reach nothing.

    :param allowed: a file that it can reach all the same.
    """
    import duckdb

    connection = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": memory_limit})
    try:
        for setting, value in {
            "allowed_paths": "[]" if allowed is None else f"[{_quote_text(str(allowed))}]",
            "temp_directory": "''",
            "enable_progress_bar": "false",  # or it is in the task's log
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "enable_external_access": "false",
            "lock_configuration": "true",  # the last, as nothing can be set after it
        }.items():
            connection.execute(f"SET {setting} = {value}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_duckdb(what: str) -> None:
    """
    Refuse what needs DuckDB where it is not installed. Does not import it.

    :raises ValueError: it is not installed.
    """
    if find_spec("duckdb") is None:
        raise ValueError(f'{what} needs DuckDB, which is not installed: pip install "airflow-provider-oxen[results]"')


def quote_name(name: str) -> str:
    """Write a name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def first_lines(error: Exception, lines: int = 1) -> str:
    """Take from DuckDB's text what happened, without the kind of error and what follows, such as the query."""
    said = [line.strip() for line in re.sub(r"^[\w ]+ Error: ", "", str(error)).splitlines()]
    return one_line(" ".join(line for line in said[:lines] if line))


def _run(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[Any, ...]]:
    """
    Run a query on a thread of its own, so that what a signal raises comes through: Airflow stops tasks by signals.

    On the main thread, a signal ends the query too, but DuckDB then raises a RuntimeError of its own.
    """
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: connection.execute(query).fetchall())
        try:
            return running.result()
        except BaseException:
            while not running.done():  # it may not have begun
                connection.interrupt()
                wait([running], timeout=0.1)
            raise


def _make_views(connection: duckdb.DuckDBPyConnection, form: _Format, link: Path) -> dict[str, str]:
    """Make the rows known to SQL; return the types of the columns."""
    options = f", {form.options}" if form.options else ""
    path = _quote_text(str(link))
    sampled = ", sample_size=-1" if form.typeless else ""
    described = _run(connection, f"DESCRIBE SELECT * FROM {form.reader}({path}{options}{sampled})")  # noqa: S608
    columns = {str(row[0]): str(row[1]) for row in described}
    written = options
    if form.typeless:
        if form.reader == "read_json":  # values of several types, or none: their texts, without the quotes of JSON
            columns = {name: "VARCHAR" if kind in ("JSON", '"NULL"') else kind for name, kind in columns.items()}
        else:
            options += ", auto_detect=false"
        written = f"{options}, columns={_write_columns(dict.fromkeys(columns, 'VARCHAR'))}"
        options += f", columns={_write_columns(columns)}"
    as_written = written if form.reader == "read_csv" else options
    for view, how in {_ROWS: options, _AS_WRITTEN: as_written}.items():
        connection.execute(f"CREATE VIEW {quote_name(view)} AS SELECT * FROM {form.reader}({path}{how})")  # noqa: S608
    return columns


def _write_columns(columns: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_quote_text(name)}: {_quote_text(kind)}" for name, kind in columns.items()) + "}"


def _quote_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


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
        raise TableError(redact(detail), has_cells=has_cells) from None
