"""What the tests of this folder have seen, as a table for the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PAGE", "Row", "build_table", "with_table"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


@dataclass(frozen=True)
class Row:
    """
    What was done to a task, and what came of it.

    :param posts: how many requests to start an evaluation reached the hub.
    :param started: how many evaluations the hub started.
    :param attempts: how many attempts the task had.
    :param state: its state in the end.
    :param words: what its log says of it.
    """

    what: str
    posts: int
    started: int
    attempts: int
    state: str
    words: str

    @property
    def seen(self) -> tuple[str, ...]:
        return (str(self.posts), str(self.started), str(self.attempts), self.state, self.words)


def build_table(rows: Sequence[Row]) -> str:
    """Write rows as a table in Markdown."""
    lines = [
        "| what is done to the task | requests to start one | evaluations started | attempts | state | its log says |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join([row.what, *row.seen])} |" for row in rows)])


def with_table(text: str, table: str, *, target: str) -> str:
    """Put a table between the two markers of a text that name a target of make."""
    begin, end = f"<!-- written by make {target} UPDATE=1 -->", f"<!-- end of what make {target} writes -->"
    pattern = f"({re.escape(begin)}\n).*?(\n?{re.escape(end)})"
    new, count = re.subn(pattern, lambda match: f"{match[1]}{table}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError("the text has not exactly one pair of markers for the table")
    return new
