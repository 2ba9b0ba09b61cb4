"""Ready-made conditions on what the hub reports of an evaluation: how many rows were processed, what it cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from airflow_provider_oxen.evaluations import Evaluation

__all__ = ["EvaluationCondition", "all_rows", "max_credits", "min_rows"]

EvaluationCondition: TypeAlias = "Callable[[Evaluation], bool | str]"


def all_rows() -> EvaluationCondition:
    """Require that every row was processed, and at least one. An evaluation may complete although some rows failed."""
    return _MinRows(1.0)


def min_rows(fraction: float) -> EvaluationCondition:
    """
    Require that a share of the rows was processed.

    :param fraction: smallest share, above 0.0; 1.0: all rows.
    :raises ValueError: it is not a number above 0 and up to 1.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise ValueError(f"min_rows takes a share of the rows, above 0 and up to 1, but got {fraction!r}")
    return _MinRows(fraction)


def max_credits(limit: float) -> EvaluationCondition:
    """
    Require that no more than so many credits were spent.

    :param limit: most Oxen credits, 0 or more.
    :raises ValueError: it is not a number, or below 0.
    """
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ValueError(f"max_credits takes a number of credits, 0 or more, but got {limit!r}")
    return _MaxCredits(limit)


@dataclass(frozen=True, repr=False)
class _MinRows:
    fraction: float

    def __call__(self, evaluation: Evaluation) -> bool | str:
        processed, total = evaluation.progress.processed, evaluation.progress.total
        if processed is None or total is None:
            return "the hub does not report how many rows were processed, of how many"
        if total == 0:
            return "0 of 0 rows were processed: nothing was evaluated"
        if processed >= total or (self.fraction < 1 and processed / total >= self.fraction):
            return True
        needed = "all" if self.fraction == 1 else f"{self.fraction * 100:.10g} %"
        return f"{processed:,} of {total:,} rows were processed, but {needed} are needed"

    def __repr__(self) -> str:
        return "all_rows()" if self.fraction == 1 else f"min_rows({self.fraction!r})"


@dataclass(frozen=True, repr=False)
class _MaxCredits:
    limit: float

    def __call__(self, evaluation: Evaluation) -> bool | str:
        spent = evaluation.credits_used
        if spent is None:
            return "the hub does not report how many credits were spent"
        return spent <= self.limit or f"{spent:,.10g} credits were spent, but at most {self.limit:,.10g} are allowed"

    def __repr__(self) -> str:
        return f"max_credits({self.limit!r})"
