"""One file, opened by DuckDB: every format, damaged and hostile ones, and what DuckDB cannot reach."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from airflow_provider_oxen.tables import Table, TableError, open_table
from tests.support.rows import FORMATS, write_rows

ROWS: list[dict[str, Any]] = [
    {"id": 1, "my text": "a, \"quoted\"\nand 'broken' line", "Label": "refund", "answer": None},
    {"id": 2, "my text": "#no comment", "Label": "x\ty", "answer": None},
    {"id": 3, "my text": " ; DROP TABLE rows; --", "Label": "refund", "answer": None},
]


def _same(text: str) -> str:
    return text


def _open(file: Path, suffix: str | None = None) -> Any:
    return open_table(file, suffix or file.suffix, redact=_same)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    """Quotes, line breaks, tabs, what looks like a comment or SQL, and a column with nothing in it: all arrive."""
    with _open(write_rows(tmp_path / f"rows.{suffix}", ROWS)) as table:
        assert dict(table.columns) == {"id": "BIGINT", "my text": "VARCHAR", "Label": "VARCHAR", "answer": "VARCHAR"}
        assert table.row_count == 3
        assert table.relation.fetchall() == [tuple(row.values()) for row in ROWS]


@pytest.mark.parametrize("suffix", [".CSV", "csv", ".Csv"])
def test_suffix_may_be_in_any_case(tmp_path: Path, suffix: str) -> None:
    """The format is that of the path in the repository, however that is spelled; the file's own name does not count."""
    (tmp_path / "download").write_text("id\n1\n")

    with _open(tmp_path / "download", suffix) as table:
        assert table.row_count == 1


@pytest.mark.parametrize("suffix", [".arrow", "", ".csv.gz", ".xlsx"])
def test_other_format_is_refused(tmp_path: Path, suffix: str) -> None:
    """What cannot be read is refused, with what can be."""
    with pytest.raises(TableError, match="can read parquet, csv, tsv, jsonl, ndjson, json, but the results are in"):
        open_table(tmp_path / "x", suffix, redact=_same).__enter__()


@pytest.mark.parametrize("name", ["*.csv", "a[b].csv", "q?'\".csv", "--.csv", "s p ; x.csv", "ü\n.csv", "'); DROP.csv"])
def test_hostile_file_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    """A file's name is no pattern and no SQL: the one file is read, and no other."""
    (tmp_path / "another.csv").write_text("id\n7\n8\n")
    (tmp_path / name).write_text("id\n1\n")

    with _open(tmp_path / name) as table:
        assert table.relation.fetchall() == [(1,)]


def test_hostile_names_of_columns_are_only_names(tmp_path: Path) -> None:
    """A column's name is no SQL, and may be the one that a row's number would have."""
    for suffix in FORMATS:
        # DuckDB reads no line break in the heading of a CSV.
        names = ['a"b', "c'); --", "row number", "row number_", "rows", "ü ü" if suffix[1:] == "sv" else "ü\nü"]
        row = dict.fromkeys(names, "x")
        with _open(write_rows(tmp_path / f"rows.{suffix}", [row, row])) as table:
            assert list(table.columns) == names
            (first, _) = table.find_rows("true", names, holds=True, limit=3)
            assert first == (1, ("x",) * 6)


def test_columns_are_found_in_any_case(tmp_path: Path) -> None:
    """As in DuckDB, a column's name may be written in any case; it is shown as the file spells it."""
    with _open(write_rows(tmp_path / "rows.csv", ROWS)) as table:
        assert (table.find("LABEL"), table.find("my TEXT"), table.find("label ")) == ("Label", "my text", None)


def _write_twice(file: Path, *names: str) -> Path:
    """Write a file whose columns have these names, and whose cells are the names' places."""
    if file.suffix == ".parquet":
        # DuckDB writes no such file: the names are changed in its bytes.
        other = [name if place == 0 else name[:-1] + chr(0x7F - place) for place, name in enumerate(names)]
        with duckdb.connect() as connection:
            cells = ", ".join(f"'{place}' AS \"{name}\"" for place, name in enumerate(other))
            connection.execute(f"COPY (SELECT {cells}) TO '{file}' (FORMAT PARQUET)")
        content = file.read_bytes()
        for place, name in enumerate(names):
            content = content.replace(other[place].encode(), name.encode())
        file.write_bytes(content)
    elif file.suffix in (".csv", ".tsv"):
        cell = "\t" if file.suffix == ".tsv" else ","
        file.write_text(f"{cell.join(names)}\n{cell.join(map(str, range(len(names))))}\n")
    else:
        fields = ", ".join(f'"{name}": "{place}"' for place, name in enumerate(names))
        file.write_text(f"[{{{fields}}}]" if file.suffix == ".json" else f"{{{fields}}}\n")
    return file


@pytest.mark.parametrize("suffix", FORMATS)
def test_columns_of_one_name_are_refused(tmp_path: Path, suffix: str) -> None:
    """DuckDB would give the second another name, and a condition would be checked on the wrong one."""
    message = "SQL cannot tell the columns 'Intent' and 'intent' apart, as the case of a name does not count"
    with pytest.raises(TableError, match=message), _open(_write_twice(tmp_path / f"rows.{suffix}", "Intent", "intent")):
        pass
    if suffix in ("csv", "tsv", "parquet"):
        with pytest.raises(TableError), _open(_write_twice(tmp_path / f"same.{suffix}", "intent", "label", "intent")):
            pass


@pytest.mark.parametrize("suffix", FORMATS)
def test_column_may_end_in_a_number(tmp_path: Path, suffix: str) -> None:
    """A name such as those that DuckDB gives may be the file's own."""
    names = ("intent", "intent_1", "intent_2", "Label_1")
    with _open(_write_twice(tmp_path / f"rows.{suffix}", *names)) as table:
        assert tuple(table.columns) == names


@pytest.mark.parametrize("suffix", FORMATS)
def test_folder_is_no_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """A temporary directory whose name looks like a partition adds no column."""
    (tmp_path / "dt=1").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "dt=1"))

    with _open(write_rows(tmp_path / f"rows.{suffix}", ROWS)) as table:
        assert list(table.columns) == list(ROWS[0])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_types_are_those_of_all_rows(tmp_path: Path, suffix: str) -> None:
    """One text after 50,000 numbers makes a column of texts, and a column that comes last is a column."""
    rows = [{"id": number, "late": None} for number in range(50_000)] + [{"id": "x", "late": "y"}]

    with _open(write_rows(tmp_path / f"rows.{suffix}", rows)) as table:
        assert dict(table.columns) == {"id": "VARCHAR", "late": "VARCHAR"}
        assert table.count("late = 'y' AND id = 'x'") == 1


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_values_of_several_types_are_their_texts(tmp_path: Path, suffix: str) -> None:
    """Where answers are texts and numbers, a text is not shown with the quotes of JSON."""
    rows = [{"a": value} for value in ("x", 7, None, ["y"])]

    with _open(write_rows(tmp_path / f"rows.{suffix}", rows)) as table:
        assert table.relation.fetchall() == [("x",), ("7",), (None,), ('["y"]',)]


def test_cells_of_csv_can_be_read_as_they_are_written(tmp_path: Path) -> None:
    """Numbers of a text file can be compared as texts: 007 is not 7 then."""
    (tmp_path / "rows.csv").write_text("code\n007\n7\n")

    with _open(tmp_path / "rows.csv") as table:
        assert table.count("code = 7") == 2
        assert table.count("code = '7'", as_written=True) == 1


def test_first_row_of_many_is_the_first(tmp_path: Path) -> None:
    """Rows are shown in the order of the file, with their numbers in it."""
    for suffix in FORMATS:
        rows = [{"id": number} for number in range(1, 30_001)]
        with _open(write_rows(tmp_path / f"rows.{suffix}", rows)) as table:
            found = table.find_rows("id % 10000 = 0", ["id"], holds=True, limit=2)
            assert found == [(10_000, ("10000",)), (20_000, ("20000",))]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("few cells.csv", b"id,label\n1,x\n2\n"),
        ("many cells.csv", b"id,label\n1,x\n2,y,z\n"),
        ("open quote.csv", b'id,label\n1,"x\n'),
        ("latin.csv", b"id,label\n1,secr\xe9t\n"),
        ("cut off.json", b'[{"id": 1}, {"id'),
        ("cut off.jsonl", b'{"id": 1}\n{"id'),
        ("text.jsonl", b"hello\n"),
        ("text.parquet", b"hello, this is no parquet file, is it?"),
        ("empty.parquet", b""),
    ],
)
def test_damaged_file_can_never_be_read(tmp_path: Path, name: str, content: bytes) -> None:
    """A file that is not what its name says is refused for good, without the name it has on this machine."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(TableError) as caught, _open(tmp_path / name) as table:
        assert table.count("true")

    shown = caught.value.describe(show=True)
    assert shown.startswith("the results cannot be read as ")
    assert len(shown.splitlines()) == 1
    assert "/oxen-rows" not in shown
    assert "secr" not in caught.value.describe(show=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [("b.csv", "id,label\n"), ("a.json", "[]")],
)
def test_file_without_rows_has_none(tmp_path: Path, name: str, content: str) -> None:
    """A file without rows is no damaged one."""
    (tmp_path / name).write_text(content)

    with _open(tmp_path / name) as table:
        assert table.row_count == 0


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", ""), ("b.json", " "), ("c.jsonl", ""), ("d.jsonl", "\n\n"), ("e.parquet", "")]
)
def test_empty_file_is_said_to_be_empty(tmp_path: Path, name: str, content: str) -> None:
    """Without any text, there are no columns to name."""
    (tmp_path / name).write_text(content)

    with pytest.raises(TableError) as caught, _open(tmp_path / name):
        pass

    assert caught.value.describe(show=False).endswith(": the file is empty")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "few.csv",
            b"id,label\n1,x\n2\n",
            "CSV: a row has more or fewer cells than the heading, a quote is not closed,",
        ),
        (
            "open.tsv",
            b'id\tlabel\n1\t"x\n',
            "TSV: a row has more or fewer cells than the heading, a quote is not closed,",
        ),
        ("wide.csv", "id,label\n1,x\n".encode("utf-16"), "or the file is not in UTF-8"),
        (
            "cut.jsonl",
            b'{"id": 1}\n{"id',
            "JSON lines: Malformed JSON the file, at byte ",
        ),
        ("text.parquet", b"hello, this is no parquet file", "Parquet: No magic bytes found at end of the file"),
    ],
)
def test_damage_is_said_in_a_sentence(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """What DuckDB tried, and the query that we made, are of no use to anyone."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(TableError) as caught, _open(tmp_path / name):
        pass

    shown = caught.value.describe(show=True)
    assert said in shown
    assert not any(word in shown for word in ("LINE 1", "search space", "SELECT"))


@pytest.fixture
def table(tmp_path: Path) -> Any:
    with _open(write_rows(tmp_path / "rows.csv", ROWS)) as opened:
        yield opened


@pytest.mark.parametrize(
    "sql",
    [
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "(SELECT count(*) FROM read_blob('/etc/*')) > 0",
        "(SELECT count(*) FROM '/etc/passwd') > 0",
        "(SELECT count(*) FROM glob('/etc/*')) > 0",
        "(SELECT count(*) FROM sniff_csv('/etc/passwd')) > 0",
        "(SELECT count(*) FROM parquet_metadata('/etc/passwd')) > 0",
        "(SELECT count(*) FROM read_csv('https://example.com/x.csv')) > 0",
        "(SELECT count(*) FROM read_parquet('s3://bucket/x.parquet')) > 0",
        "(SELECT count(*) FROM query('SELECT * FROM read_text(''/etc/passwd'')')) > 0",
        "getenv('HOME') IS NOT NULL",
        "(SELECT count(*) FROM secret_of_python) > 0",
    ],
)
def test_sql_reaches_no_other_file(table: Table, sql: str) -> None:
    """SQL reads no other file, no address, no variable of the environment and none of Python's."""
    secret_of_python = duckdb.sql("SELECT 1")  # which DuckDB would find, if it might look

    with pytest.raises(TableError):
        table.count(sql)
    with pytest.raises(TableError):
        table.find_rows(sql, [], holds=True, limit=1)
    assert secret_of_python is not None


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{folder}/written.csv'",
        "EXPORT DATABASE '{folder}/written'",
        "ATTACH '{folder}/written.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "INSTALL httpfs FROM community",
        "PRAGMA threads=8",
        "SET memory_limit='9GB'",
        "SET threads=8",
        "SET enable_external_access=true",
        "SET lock_configuration=false",
        "RESET lock_configuration",
        "SET temp_directory='{folder}'",
        "SET allowed_directories=['/']",
        "SET allowed_paths=['/etc/passwd']",
        "CREATE PERSISTENT SECRET s (TYPE s3)",
    ],
)
def test_connection_is_locked(table: Table, tmp_path: Path, statement: str) -> None:
    """Even a callable of the user's, which may run any statement, changes no setting and writes no file."""
    before = sorted(tmp_path.iterdir())

    with pytest.raises(duckdb.Error):
        table._source.connection.execute(statement.format(folder=tmp_path))  # noqa: SLF001

    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link to the file is gone in the end, also after an error, and the file is as it was."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    file = write_rows(tmp_path / "rows.csv", ROWS)
    content = file.read_bytes()

    with _open(file) as table:
        assert table.row_count == 3
        assert list((tmp_path / "temp").iterdir())
    assert list((tmp_path / "temp").iterdir()) == []
    with pytest.raises(TableError), _open(file, ".parquet"):
        pass

    assert list((tmp_path / "temp").iterdir()) == []
    assert file.read_bytes() == content


def test_lack_of_memory_may_be_retried(table: Table) -> None:
    """What may go better later is DuckDB's own exception, so that the task may be retried."""
    with pytest.raises(duckdb.OutOfMemoryException, match="DuckDB needs more memory than its limit here, 512 MB"):
        table.count("(SELECT count(DISTINCT md5(i::VARCHAR)) FROM range(12_000_000) t(i)) > 0")


@pytest.mark.parametrize(
    ("suffix", "form", "rows", "characters"),
    [("parquet", "PARQUET, ROW_GROUP_SIZE 200_000", 120_000, 1_300), ("csv", "CSV", 1_000, 150_000)],
)
def test_long_answers_get_more_memory(tmp_path: Path, suffix: str, form: str, rows: int, characters: int) -> None:
    """Where the limit of short rows is too small for a file, it is read with a larger one."""
    file = tmp_path / f"rows.{suffix}"
    with duckdb.connect(config={"threads": 1}) as connection:
        text = f"i || repeat('x', {characters}) AS intent"
        connection.execute(f"COPY (SELECT {text} FROM range({rows}) t(i)) TO '{file}' (FORMAT {form})")  # noqa: S608

    with _open(file) as table:
        assert table.count("length(intent) > 1_300") == rows
        assert len(table.find_rows("true", ["intent"], holds=True, limit=3)) == 3
        assert table.relation.filter("length(intent) > 1_300").count("*").fetchall() == [(rows,)]


class _StoppedError(BaseException):
    """As of a signal's handler."""


def _stop(*_: Any) -> None:
    raise _StoppedError


def test_signal_ends_a_query(table: Table) -> None:
    """Airflow stops a task by a signal: its exception comes through at once, and DuckDB can be used again."""
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(_StoppedError):
            table.count("(SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE md5(i::VARCHAR) = 'x') > 0")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert table.count("true") == 3


def test_file_that_is_gone_may_be_retried(tmp_path: Path) -> None:
    """So is a disk that fails."""
    with pytest.raises(FileNotFoundError), _open(tmp_path / "gone.parquet"):
        pass


_PROGRAM = """
import json, re, sys
from pathlib import Path
import duckdb
duckdb.connect().close()
from airflow_provider_oxen.tables import open_table
highest = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
file, before = Path(sys.argv[1]), highest()
with open_table(file, file.suffix, redact=str) as table:
    shown = table.find_rows("id = 0", ["text"], holds=True, limit=3)
    found = table.row_count, table.count("answer = label"), len(shown)
print(json.dumps([found, highest() - before]))
"""


def test_array_of_many_small_rows_is_read(tmp_path: Path) -> None:
    """A JSON array of a million small rows fits into the limit of its format."""
    file = tmp_path / "rows.json"
    with duckdb.connect() as connection:
        columns = "i AS id, 'l' || i % 50 AS label, 'l' || i % 49 AS answer"
        connection.execute(f"COPY (SELECT {columns} FROM range(1_000_000) t(i)) TO '{file}' (FORMAT JSON, ARRAY true)")  # noqa: S608

    with _open(file) as table:
        assert table.row_count == 1_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say how much memory was used")
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "json"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    """Of a file of 400,000 rows (200 MB and more), no more than DuckDB's limit is in memory at any time."""
    file = tmp_path / f"rows.{suffix}"
    form = {"parquet": "PARQUET", "csv": "CSV", "jsonl": "JSON", "json": "JSON, ARRAY true"}[suffix]
    columns = "i AS id, repeat(md5(i::VARCHAR), 16) AS text, 'l' || i % 50 AS label, 'l' || i % 49 AS answer"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {columns} FROM range(400_000) t(i)) TO '{file}' (FORMAT {form})")  # noqa: S608

    done = subprocess.run([sys.executable, "-c", _PROGRAM, file], capture_output=True, text=True, check=True, env={
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip

    (rows, matching, shown), megabytes = json.loads(done.stdout)
    assert (rows, matching, shown) == (400_000, sum(i % 50 == i % 49 for i in range(400_000)), 1)
    # Older DuckDBs write larger pages, so that the second limit is needed for parquet.
    assert megabytes < {"json": 192, "parquet": 256}.get(suffix, 175)
