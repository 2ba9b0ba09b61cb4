"""What a model answers, row by row, as data. No server."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from airflow_provider_oxen.testing.tables import Row, find_columns

__all__ = ["AnswerRow", "Answers", "check_answers", "find_answers", "make_source"]

#: Gives the answer for one row of the source: a text, a number, a boolean, or None for none.
AnswerRow: TypeAlias = Callable[[Row], Any]

#: Rows that the hub makes itself: what a customer writes, and what that means.
_MADE = (
    ("Where is my parcel?", "track_order"),
    ("I want my money back", "get_refund"),
    ("Please cancel what I ordered yesterday", "cancel_order"),
    ("I have moved, send it to the new place", "change_address"),
)


@dataclass(frozen=True)
class Answers:
    """
    Right, wrong and missing answers, by their shares of all rows.

    Which rows get which answer looks random, and is the same each time.

    :param right: share of the rows whose answer is what the label says; the three shares add up to 1.
    :param wrong: share of the rows with a wrong answer.
    :param missing: share of the rows with an empty cell, as the hub leaves one where a row failed.
    :param label: column of the source that says what is right.
    :param wrong_answer: every wrong answer; None: the label of another row.
    """

    right: float = 1.0
    wrong: float = 0.0
    missing: float = 0.0
    label: str = "label"
    wrong_answer: str | None = None

    def __post_init__(self) -> None:
        """Refuse at once what cannot be."""
        shares = (self.right, self.wrong, self.missing)
        if not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"right, wrong and missing must be shares that add up to 1, but are {shares}")

    def find(self, rows: Sequence[Row]) -> list[Any]:
        """
        Answer all rows.

        :param rows: the source.
        :raises ValueError: the source has no such column.
        """
        columns = find_columns(rows)
        if rows and self.label not in columns:
            raise ValueError(f"the source has no column {self.label!r}, but {', '.join(columns)}")
        labels = [row.get(self.label) for row in rows]
        right, wrong = round(len(rows) * self.right), round(len(rows) * self.wrong)
        numbers = list(range(len(rows)))
        random.Random(0).shuffle(numbers)
        answers: list[Any] = [None] * len(rows)
        for number in numbers[:right]:
            answers[number] = labels[number]
        known = list(dict.fromkeys(label for label in labels if label is not None))[:2]
        for number in numbers[right : right + wrong]:
            others = (other for other in known if other != labels[number])
            answers[number] = next(others, "a wrong answer") if self.wrong_answer is None else self.wrong_answer
        return answers


def check_answers(answers: Answers | AnswerRow | None) -> None:
    """
    Refuse anything but answers.

    :raises ValueError: they are none.
    """
    if isinstance(answers, type) or not (answers is None or isinstance(answers, Answers) or callable(answers)):
        raise ValueError(f"answers must be Answers(…) or a function of a row, but is {answers!r}")


def find_answers(answers: Answers | AnswerRow | None, rows: Sequence[Row]) -> list[Any]:
    """
    Answer all rows of a source.

    :param answers: None: what the column ``label`` says, or "an answer" where the source has no such column.
    :param rows: the source.
    """
    if answers is None:
        return [row.get("label", "an answer") for row in rows]
    return answers.find(rows) if isinstance(answers, Answers) else [answers(row) for row in rows]


def make_source(rows: int) -> list[dict[str, Any]]:
    """
    Make a table: columns ``id``, counted from 1, ``text`` and ``label``.

    :param rows: how many rows.
    """
    made = (_MADE[number % len(_MADE)] for number in range(rows))
    return [{"id": number, "text": text, "label": label} for number, (text, label) in enumerate(made, 1)]
