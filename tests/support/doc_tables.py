"""Tables of what tests have seen, for people and for the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

__all__ = ["RELIABILITY_PAGE", "build_table", "markers", "show_tables", "with_table"]

RELIABILITY_PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def build_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def markers(target: str) -> tuple[str, str]:
    """Return what stands before and after the tables that a target of make writes."""
    return f"<!-- written by make {target} UPDATE=1 -->", f"<!-- end of what make {target} writes -->"


def with_table(text: str, table: str, *, target: str) -> str:
    """Put a table between the two markers of a text that name a target of make."""
    begin, end = markers(target)
    pattern = f"({re.escape(begin)}\n).*?(\n?{re.escape(end)})"
    new, count = re.subn(pattern, lambda match: f"{match[1]}{table}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError("the text has not exactly one pair of markers for the table")
    return new


def show_tables(reporter: pytest.TerminalReporter, tables: str, *, target: str, update: bool, whole: bool) -> None:
    """
    Print what was seen.

    :param target: the target of make that runs the tests.
    :param update: whether to write it to the documentation, too.
    :param whole: whether all of it was seen. If not, the documentation is left as it is.
    """
    reporter.section("what was seen")
    reporter.write_line(tables)
    if update and not whole:
        reporter.write_line(f"{RELIABILITY_PAGE.name} is left as it is: it is written from all tests.")
    elif update:
        RELIABILITY_PAGE.write_text(with_table(RELIABILITY_PAGE.read_text(), tables, target=target))
