"""Conditions on a completed evaluation: the ready-made ones, and how any are asked."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_oxen.accept import all_rows, ask, max_credits, min_rows, read_conditions
from airflow_provider_oxen.api import read_evaluation
from airflow_provider_oxen.models import Evaluation


def _completed(processed: Any = None, total: Any = None, **fields: Any) -> Evaluation:
    progress = {"processed": processed, "total": total}
    return read_evaluation({"id": "e-1", "status": "completed", "progress": progress, **fields})


@pytest.mark.parametrize(("processed", "total"), [(10, 10), (0, 0), (11, 10)])
def test_all_rows_opens(processed: int, total: int) -> None:
    """Where no row is missing, the gate may open; of none, none is."""
    assert all_rows()(_completed(processed, total)) is True


@pytest.mark.parametrize(
    ("processed", "total", "told"),
    [
        (1_199, 1_200, "1,199 of 1,200 rows were processed, but all are needed"),
        (2**62 - 1, 2**62, "4,611,686,018,427,387,903 of 4,611,686,018,427,387,904 rows were processed"),
        (None, 1_200, "the hub does not tell how many rows were processed, of how many"),
        (1_200, None, "the hub does not tell"),
    ],
)
def test_all_rows_closes(processed: int | None, total: int | None, told: str) -> None:
    """One missing row closes the gate, and so does a hub that does not tell."""
    assert str(all_rows()(_completed(processed, total))).startswith(told)


@pytest.mark.parametrize("percent", range(1, 101))
def test_min_rows_is_exact_at_its_bound(percent: int) -> None:
    """The very share that was asked for is enough, and a row less is not, whatever floats do."""
    condition = min_rows(percent / 100)

    assert condition(_completed(percent, 100)) is True
    assert condition(_completed(percent - 1, 100)) is not True


def test_min_rows_says_what_is_needed() -> None:
    """The reason names the rows and the share."""
    assert min_rows(0.995)(_completed(99, 100)) == "99 of 100 rows were processed, but 99.5 % are needed"


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, 1_000, math.nan, True, "0.9", None])
def test_min_rows_takes_a_share(fraction: Any) -> None:
    """A number of rows, or nonsense, is refused when the DAG is parsed."""
    with pytest.raises(ValueError, match="min_rows takes a share of the rows"):
        min_rows(fraction)


def test_max_credits() -> None:
    """The budget may be spent to the last credit, and not beyond."""
    condition = max_credits(2.5)

    assert condition(_completed(credits_used=2.5)) is True
    assert condition(_completed(credits_used=1_002.75)) == ("1,002.75 credits were spent, but at most 2.5 are accepted")


def test_max_credits_closes_where_the_hub_does_not_tell() -> None:
    """Credits that are not told may be any."""
    assert max_credits(2.5)(_completed()) == "the hub does not tell how many credits were spent"


@pytest.mark.parametrize("limit", [-1, math.inf, math.nan, True, "5", None])
def test_max_credits_takes_a_number(limit: Any) -> None:
    """What is no budget is refused when the DAG is parsed."""
    with pytest.raises(ValueError, match="max_credits takes a number of credits"):
        max_credits(limit)


def test_conditions_are_asked_in_order_up_to_the_first_that_closes() -> None:
    """A later condition may rely on an earlier one."""
    asked = []

    def condition(name: str, verdict: Any) -> Any:
        return lambda _: asked.append(name) or verdict

    assert ask((condition("a", True), condition("b", "no"), condition("c", "not asked")), _completed()) == "no"
    assert asked == ["a", "b"]


def _is_fine(evaluation: Evaluation) -> bool:
    return evaluation.name == "fine"


class _IsFine:
    def __call__(self, evaluation: Evaluation) -> str:
        return "" if evaluation.name != "fine" else "never"


@pytest.mark.parametrize(
    ("condition", "told"), [(_is_fine, "_is_fine returned False"), (_IsFine(), "_IsFine returned ''")]
)
def test_condition_that_gives_no_reason_is_named(condition: Any, told: str) -> None:
    """Where a condition closes the gate without a word, its name is the reason."""
    assert ask((condition,), _completed()) == told


@pytest.mark.parametrize("verdict", [None, 0, 1, [], {"ok": True}])
def test_other_verdict_is_an_error(verdict: Any) -> None:
    """A condition that forgot its ``return``, say, opens nothing: its name is told."""
    with pytest.raises(TypeError, match=r"lambda.* returned .*not True, False or a text"):
        ask((lambda _: verdict,), _completed())


@pytest.mark.parametrize("accept", ["all_rows", 5, [], (), {}, [5], [all_rows(), None], True])
def test_what_is_no_condition_is_refused(accept: Any) -> None:
    """``accept`` is a callable or some of them."""
    with pytest.raises(ValueError, match="accept must be a callable or a list of callables"):
        read_conditions(accept)


def test_one_condition_or_several_are_read() -> None:
    """One callable is as good as a list of one; none is none."""
    assert read_conditions(None) == ()
    assert read_conditions(_is_fine) == (_is_fine,)
    assert read_conditions([_is_fine, len]) == (_is_fine, len)
