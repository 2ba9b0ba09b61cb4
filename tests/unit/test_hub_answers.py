"""What a model answers in the local hub: shares of right, wrong and missing answers, and rows that the hub makes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.testing import Answers
from airflow_provider_oxen.testing.answers import find_answers, make_source


def kinds(answers: Answers, rows: list[dict[str, Any]]) -> list[str]:
    found = zip(rows, answers.find(rows), strict=True)
    return [
        "missing" if answer is None else "right" if answer == row[answers.label] else "wrong" for row, answer in found
    ]


def test_shares_are_exact() -> None:
    """Of 10,000 rows, as many are right, wrong and missing as the shares say, and not in blocks."""
    found = kinds(Answers(right=0.84, wrong=0.12, missing=0.04), make_source(10_000))

    assert Counter(found) == {"right": 8_400, "wrong": 1_200, "missing": 400}
    assert all(len(set(found[at : at + 500])) == 3 for at in range(0, 10_000, 500))


@given(st.integers(0, 200), st.integers(0, 100), st.integers(0, 100))
def test_every_row_has_one_answer(rows: int, first: int, second: int) -> None:
    """Whatever the shares, each count is within a row of its share."""
    percent = {"right": min(first, second), "wrong": abs(first - second), "missing": 100 - max(first, second)}
    found = Counter(kinds(Answers(*(each / 100 for each in percent.values())), make_source(rows)))

    assert sum(found.values()) == rows
    for kind, each in percent.items():
        assert abs(100 * found[kind] - each * rows) <= 100


def test_answers_are_the_same_each_time() -> None:
    """The same rows get the same answers, in every process."""
    answers = Answers(right=0.5, wrong=0.25, missing=0.25)

    assert answers.find(make_source(50)) == answers.find(make_source(50))
    expected = ["wrong", "right", "right", "wrong", "right", "right", "missing", "missing"]
    assert kinds(answers, make_source(8)) == expected


def test_wrong_answer_is_anothers_label() -> None:
    """Unless it is given, or all labels are the same."""
    rows = [{"label": label} for label in ("a", "b", None)]

    assert Answers(right=0, wrong=1).find(rows) == ["b", "a", "a"]
    assert Answers(right=0, wrong=1, wrong_answer="no").find(rows) == ["no"] * 3
    assert Answers(right=0, wrong=1).find(rows[:1]) == ["a wrong answer"]


def test_label_is_a_column_of_the_source() -> None:
    """Any column may say what is right; one that is not there is an error with those that are."""
    assert Answers(label="intent").find([{"intent": "a"}]) == ["a"]
    assert Answers(label="intent").find([]) == []
    with pytest.raises(ValueError, match="the source has no column 'intent', but id, text, label"):
        Answers(label="intent").find(make_source(1))


def test_answers_by_function_and_by_default() -> None:
    """A function gets the row; by default the label is the answer, or a text if there is none."""
    assert find_answers(lambda row: row["id"], [{"id": 1}, {"id": 2}]) == [1, 2]
    assert find_answers(None, [{"label": "a"}, {"label": None}]) == ["a", None]
    assert find_answers(None, [{"id": 1}]) == ["an answer"]


@pytest.mark.parametrize("shares", [(1.1, 0, -0.1), (0.5, 0.4, 0), (float("nan"), 0, 0), (-1, 1, 1)])
def test_shares_that_cannot_be_are_refused(shares: tuple[float, float, float]) -> None:
    """Each is from 0 to 1, and together they are 1; thirds are."""
    with pytest.raises(ValueError, match="must be shares that add up to 1"):
        Answers(*shares)
    Answers(1 / 3, 1 / 3, 1 / 3)


def test_made_rows_have_several_labels() -> None:
    """Made rows are numbered from 1, and have a text and a label."""
    rows = make_source(10)

    assert [row["id"] for row in rows] == list(range(1, 11))
    assert all(list(row) == ["id", "text", "label"] for row in rows)
    assert len({row["label"] for row in rows}) == len({row["text"] for row in rows}) == 4
