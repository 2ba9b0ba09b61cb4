"""What the matrix does with a row whose Python is not on this machine. No environment is made here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import matrix
from tests.matrix import Row
from tests.support.doc_tables import with_table

HERE = f"3.{sys.version_info.minor}"
#: What the page says of the row that is left out. No uv and no pyenv finds that Python.
MEASURED_LAST = "| 3.3.1 | 3.99.2 | newest |  | 5 passed, 1 skipped | 2 passed |"
LEFT_OUT = "3.3-py3.99-newest: left out, its line is what was measured last. To run it, install Python 3.99.\n"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rows, of a Python that is here and of one that is not, and a page with a line of the latter."""

    def install(row: Row, python: str) -> None:
        assert python
        row.installed = {"apache-airflow": f"{row.airflow}.7", "python": f"{row.python}.0"}

    def test(planned: tuple[Row, str]) -> None:
        row, kind = planned
        assert matrix.PATHS[kind]
        assert not row.left_out
        row.counts |= {f"{kind} passed": 9, f"{kind} failed": 0, f"{kind} skipped": 0}

    monkeypatch.setattr(matrix, "MATRIX", [Row("3.3", HERE), Row("3.3", "3.99", system=True)])
    monkeypatch.setattr(matrix, "_install", install)
    monkeypatch.setattr(matrix, "_test", test)
    page = tmp_path / "tested-with.md"
    page.write_text(with_table(matrix.PAGE.read_text(), MEASURED_LAST, target="test-matrix"))
    monkeypatch.setattr(matrix, "PAGE", page)
    return page


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["matrix", *arguments])
    return matrix.main()


def test_row_of_a_missing_python_is_left_out(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other rows run. The last line says which Python to install, and nothing has failed."""
    before = page.read_text()

    assert _run(monkeypatch) == 0
    shown = capsys.readouterr().out
    assert f"| 3.3.7 | {HERE}.0 | newest | 9 passed | 9 passed |  |\n{MEASURED_LAST}\n" in shown
    assert shown.endswith(LEFT_OUT)
    assert page.read_text() == before


def test_left_out_row_keeps_its_line_of_the_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is written again from the rows that ran. What was measured last of another row stays."""
    before = page.read_text()

    assert _run(monkeypatch, "--update") == 0
    measured = f"| 3.3.7 | {HERE}.0 | newest | 9 passed | 9 passed |  |"
    assert page.read_text().splitlines() == [
        line
        for old in before.splitlines()
        for line in ([*matrix.table([]).splitlines(), measured, old] if old == MEASURED_LAST else [old])
    ]


def test_left_out_row_without_a_line_has_no_counts(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new row is shown before it was ever measured."""
    page.write_text(page.read_text().replace(MEASURED_LAST, ""))

    assert _run(monkeypatch, "--update") == 0
    assert "\n| 3.3 | 3.99 | newest |  |  |  |\n" in page.read_text()


def test_rows_of_one_python_run(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ONLY`` takes a Python, too. If that one is missing, nothing runs, and nothing has failed."""
    assert page.exists()
    assert _run(monkeypatch, "--only", "3.99") == 0
    assert capsys.readouterr().out == f"{matrix.table([])}\n{MEASURED_LAST}\n{LEFT_OUT}"
