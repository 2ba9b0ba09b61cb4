"""What the tests of this folder have seen, as a table for the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import doc_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Row", "build_table"]


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
    heads = ("what is done to the task", "requests to start one", "evaluations started", "attempts", "state")
    return doc_tables.build_table((*heads, "its log says"), [(row.what, *row.seen) for row in rows])
