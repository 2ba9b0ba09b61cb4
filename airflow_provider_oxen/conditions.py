"""
Extra conditions that a completed evaluation must meet.

A condition is any callable that takes the completed :class:`~airflow_provider_oxen.evaluations.Evaluation` (without its
prompt) and returns

- True where it is met,
- False, or a text that says why, where it is not.

The argument ``conditions`` of the sensor and of the operator takes one of them, or a list. They are checked in order,
and the first that is not met keeps the gate closed. Three are ready-made::

    OxenEvaluationSensor(..., conditions=[all_rows(), max_credits(25)])

Where the hub does not report the number that a ready-made condition needs, the condition is not met. Where an
evaluation had no rows at all, nothing was evaluated, so :func:`all_rows` and :func:`min_rows` are not met.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from airflow_provider_oxen.evaluations import Evaluation

__all__ = [
    "Condition",
    "all_rows",
    "check_conditions",
    "check_source",
    "find_unmet",
    "max_credits",
    "min_rows",
    "parse_conditions",
]

Condition: TypeAlias = "Callable[[Evaluation], bool | str]"


def all_rows() -> Condition:
    """Require that every row was processed, and at least one. An evaluation may complete although some rows failed."""
    return min_rows(1.0)


def min_rows(fraction: float) -> Condition:
    """
    Require that a share of the rows was processed.

    :param fraction: smallest share, above 0.0; 1.0: all rows.
    :raises ValueError: it is not a number above 0 and up to 1.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise ValueError(f"min_rows takes a share of the rows, above 0 and up to 1, but got {fraction!r}")

    def check(evaluation: Evaluation) -> bool | str:
        processed, total = evaluation.progress.processed, evaluation.progress.total
        if processed is None or total is None:
            return "the hub does not report how many rows were processed, of how many"
        if total == 0:
            return "0 of 0 rows were processed: nothing was evaluated"
        if processed >= total or (fraction < 1 and processed / total >= fraction):
            return True
        needed = "all" if fraction == 1 else f"{fraction * 100:.10g} %"
        return f"{processed:,} of {total:,} rows were processed, but {needed} are needed"

    return check


def max_credits(limit: float) -> Condition:
    """
    Require that no more than so many credits were spent.

    :param limit: most Oxen credits, 0 or more.
    :raises ValueError: it is not a number, or below 0.
    """
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < math.inf:
        raise ValueError(f"max_credits takes a number of credits, 0 or more, but got {limit!r}")

    def check(evaluation: Evaluation) -> bool | str:
        spent = evaluation.credits_used
        if spent is None:
            return "the hub does not report how many credits were spent"
        return spent <= limit or f"{spent:,.10g} credits were spent, but at most {limit:,.10g} are allowed"

    return check


def parse_conditions(conditions: Condition | Sequence[Condition] | None) -> tuple[Condition, ...]:
    """
    Read what was given to the sensor as ``conditions``.

    :raises ValueError: it is neither a callable nor a list of callables, or one of them can never work.
    """
    if conditions is None:
        return ()
    if callable(conditions):
        conditions = [conditions]
    if not isinstance(conditions, Sequence) or not conditions or not all(callable(one) for one in conditions):
        raise ValueError(f"conditions must be a callable or a list of callables, but is {conditions!r}")
    for condition in conditions:
        if problem := _why_never(condition):
            raise ValueError(f"conditions: {_name(condition)} {problem}")
    return tuple(conditions)


def check_conditions(conditions: Condition | Sequence[Condition], *, end_from_trigger: bool) -> None:
    """
    Refuse what can never work, while a DAG file is parsed.

    :raises ValueError: as :func:`parse_conditions`; or the task would have to end in the triggerer.
    """
    parse_conditions(conditions)
    if end_from_trigger:
        raise ValueError(
            "conditions are checked on a worker, so they cannot be combined with end_from_trigger=True: leave one of "
            "them out. You can keep start_from_trigger=True: the gate then uses a worker only at its end"
        )


def check_source(conditions: Condition | Sequence[Condition]) -> None:
    """
    Refuse conditions of a mapped task that Airflow cannot store: it stores their source code with the DAG.

    :raises ValueError: one has no source code, because it was made by ``exec`` or ``eval``.
    """
    for condition in parse_conditions(conditions):
        try:
            inspect.getsource(getattr(condition, "func", condition))
        except TypeError:  # it has no source code of its own, which Airflow accepts
            continue
        except OSError:
            raise ValueError(
                f"conditions: Airflow stores those of a mapped task as source code, and {_name(condition)} has none "
                "(made by exec or eval): define it in a file"
            ) from None


def find_unmet(conditions: Sequence[Condition], evaluation: Evaluation) -> str | None:
    """
    Check conditions in order, until one is not met.

    :return: why not; None where all are met.
    :raises TypeError: a condition returned something else than True, False or a text.
    :raises Exception: a condition raised it.
    """
    for condition in conditions:
        verdict = _plain(condition(evaluation))
        if verdict is True:
            continue
        if verdict is not False and not isinstance(verdict, str):
            called = "; if it makes a condition, call it, with parentheses" if callable(verdict) else ""
            raise TypeError(
                f"{_name(condition)} returned {verdict!r}, which is not True, False or a text that says why{called}"
            )
        return (verdict and verdict.strip()) or f"{_name(condition)} returned {verdict!r}"
    return None


def _why_never(condition: Any) -> str | None:
    """Say why a callable can never be a condition; None where it may be one."""
    for factory, call in ((all_rows, "all_rows()"), (min_rows, "min_rows(0.99)"), (max_credits, "max_credits(25)")):
        if condition is factory:
            return f"makes a condition and was not called: write {call}"
    if isinstance(condition, type):
        return "is a class: a condition is a function, or an object of a class with __call__"
    if hasattr(condition, "operator_class"):
        return "is a task: a condition is a plain function, without the decorator"
    if inspect.iscoroutinefunction(condition) or inspect.iscoroutinefunction(getattr(condition, "__call__", None)):  # noqa: B004
        return "is async: a condition is a plain function"
    if inspect.isgeneratorfunction(condition):
        return "is a generator: a condition returns True, False or a text, and does not yield"
    try:
        signature = inspect.signature(condition)
    except (TypeError, ValueError):  # as of some that are written in C
        return None
    try:
        signature.bind(None)
    except TypeError as error:
        return f"cannot be called with an evaluation as its only argument ({error})"
    return None


def _plain(verdict: Any) -> Any:
    """Take numpy's and pyarrow's True and False as Python's: comparing numbers of theirs gives those."""
    for name in ("item", "as_py"):
        method = getattr(verdict, name, None)
        if callable(method) and getattr(verdict, "shape", ()) == ():
            plain = method()
            return plain if isinstance(plain, bool) else verdict
    return verdict


def _name(condition: Condition) -> str:
    return str(getattr(condition, "__qualname__", None) or type(condition).__qualname__)
