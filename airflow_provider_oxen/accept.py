"""
Conditions on a completed evaluation, for a gate that asks for more than the status.

A condition is any callable that takes the completed :class:`~airflow_provider_oxen.models.Evaluation` and returns

- True where the gate may open,
- False, or a text that says why, where it has to stay shut.

The sensor's argument ``accept`` takes one of them, or several: they are asked in order, and the first that does not
return True closes the gate. Two are ready-made here::

    OxenEvaluationSensor(..., accept=[all_rows(), max_credits(25)])

Where the hub does not tell the number that a ready-made condition is about, the gate stays shut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from airflow_provider_oxen.models import Evaluation

__all__ = ["Condition", "all_rows", "ask", "max_credits", "min_rows", "read_conditions"]

Condition: TypeAlias = "Callable[[Evaluation], bool | str]"


def all_rows() -> Condition:
    """Ask for every row to have been processed. An evaluation may complete although some rows failed."""
    return min_rows(1.0)


def min_rows(fraction: float) -> Condition:
    """
    Ask for a share of the rows to have been processed.

    :param fraction: smallest share, above 0.0; 1.0: all rows.
    :raises ValueError: it is no number above 0 and up to 1.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise ValueError(f"min_rows takes a share of the rows, above 0 and up to 1, but was given {fraction!r}")

    def check(evaluation: Evaluation) -> bool | str:
        processed, total = evaluation.progress.processed, evaluation.progress.total
        if processed is None or total is None:
            return "the hub does not tell how many rows were processed, of how many"
        if processed >= total or (fraction < 1 and processed / total >= fraction):
            return True
        needed = "all" if fraction == 1 else f"{fraction * 100:.10g} %"
        return f"{processed:,} of {total:,} rows were processed, but {needed} are needed"

    return check


def max_credits(limit: float) -> Condition:
    """
    Ask for no more than so many credits to have been spent.

    :param limit: most Oxen credits, 0 or more.
    :raises ValueError: it is no number, or below 0.
    """
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ValueError(f"max_credits takes a number of credits, 0 or more, but was given {limit!r}")

    def check(evaluation: Evaluation) -> bool | str:
        spent = evaluation.credits_used
        if spent is None:
            return "the hub does not tell how many credits were spent"
        return spent <= limit or f"{spent:,.10g} credits were spent, but at most {limit:,.10g} are accepted"

    return check


def read_conditions(accept: Condition | Sequence[Condition] | None) -> tuple[Condition, ...]:
    """
    Read what was given to the sensor as ``accept``.

    :raises ValueError: it is neither a callable nor some of them.
    """
    if accept is None:
        return ()
    if callable(accept):
        return (accept,)
    if not isinstance(accept, Sequence) or not accept or not all(callable(condition) for condition in accept):
        raise ValueError(f"accept must be a callable or a list of callables, but is {accept!r}")
    return tuple(accept)


def ask(conditions: Sequence[Condition], evaluation: Evaluation) -> str | None:
    """
    Ask conditions in order, until one closes the gate.

    :return: why the gate has to stay shut; None where all returned True.
    :raises TypeError: a condition returned something else than True, False or a text.
    :raises Exception: a condition raised it.
    """
    for condition in conditions:
        verdict = condition(evaluation)
        if verdict is True:
            continue
        if verdict is not False and not isinstance(verdict, str):
            raise TypeError(
                f"{_name(condition)} returned {verdict!r}, which is not True, False or a text that says why"
            )
        return (verdict and verdict.strip()) or f"{_name(condition)} returned {verdict!r}"
    return None


def _name(condition: Condition) -> str:
    return str(getattr(condition, "__qualname__", None) or type(condition).__qualname__)
