"""How conditions are read from arguments, and how any of them is checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from airflow_provider_oxen.conditions.counts import all_rows, max_credits, min_rows
from airflow_provider_oxen.conditions.row_condition import RowCondition, build_fact
from airflow_provider_oxen.conditions.rows import column_matches, no_missing_answers, row_count, rows_where
from airflow_provider_oxen.tables import TableError, check_duckdb

if TYPE_CHECKING:
    import duckdb

    from airflow_provider_oxen.evaluations import Evaluation
    from airflow_provider_oxen.tables import Table

__all__ = [
    "Condition",
    "Verdict",
    "check_all",
    "check_conditions",
    "check_source",
    "needs_rows",
    "parse_conditions",
]

Condition: TypeAlias = (
    "RowCondition | Callable[[Evaluation], bool | str] | Callable[[Evaluation, duckdb.DuckDBPyRelation], bool | str]"
)

#: What makes a condition, and how it is called.
_FACTORIES = (
    (all_rows, "all_rows()"),
    (min_rows, "min_rows(0.99)"),
    (max_credits, "max_credits(25)"),
    (rows_where, "rows_where('intent = label', at_least=0.95)"),
    (no_missing_answers, "no_missing_answers()"),
    (row_count, "row_count(1_000)"),
    (column_matches, "column_matches('label', at_least=0.95)"),
)


class Verdict(NamedTuple):
    """What checking conditions found."""

    #: Why the conditions that are not met are not, in their order; None where all are met.
    unmet: str | None
    #: What each condition on rows measured, in their order; can be written as JSON.
    facts: list[dict[str, Any]]


def parse_conditions(conditions: Condition | Sequence[Condition] | None) -> tuple[Condition, ...]:
    """
    Read what was given to the sensor as ``conditions``.

    :raises ValueError: it is neither a callable nor a list of callables, or one of them can never work.
    """
    if conditions is None:
        return ()
    if callable(conditions) or isinstance(conditions, RowCondition):
        conditions = [conditions]
    if not isinstance(conditions, Sequence) or not conditions or not all(map(_may_be_one, conditions)):
        raise ValueError(f"conditions must be a callable or a list of callables, but is {conditions!r}")
    for condition in conditions:
        if problem := _why_never(condition):
            raise ValueError(f"conditions: {_name(condition)} {problem}")
        if _takes_rows(condition):
            check_duckdb(f"conditions: {_name(condition)}")
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
        if isinstance(condition, RowCondition):  # stored as its text
            continue
        try:
            inspect.getsource(getattr(condition, "func", condition))
        except TypeError:  # it has no source code of its own, which Airflow accepts
            continue
        except OSError:
            raise ValueError(
                f"conditions: Airflow stores those of a mapped task as source code, and {_name(condition)} has none "
                "(made by exec or eval): define it in a file"
            ) from None


def needs_rows(conditions: Sequence[Condition]) -> bool:
    """Check whether any of the conditions is about the rows of the results."""
    return any(map(_takes_rows, conditions))


def check_all(
    conditions: Sequence[Condition],
    evaluation: Evaluation,
    *,
    open_table: Callable[[], AbstractContextManager[Table]],
    source_rows: Callable[[], int | None],
    facts: list[dict[str, Any]] | None = None,
) -> Verdict:
    """
    Check conditions in order: those on the evaluation until one is not met, and all of those on rows.

    :param open_table: opens the rows. Called once, and only if a condition needs them. A
        :class:`~airflow_provider_oxen.tables.TableError` of its own means that no condition on rows is met.
    :param source_rows: gives how many rows the evaluation's source has; None where the hub does not report it.
    :param facts: gets what each condition on rows measured, as soon as it has, so that it is known if one raises.
    :raises TypeError: a condition returned something else than True, False or a text.
    :raises Exception: a condition raised it, or DuckDB did, for lack of memory.
    """
    reasons: list[str] = []
    facts = [] if facts is None else facts
    may_call = True
    may_show = all(getattr(condition, "show_rows", True) for condition in conditions)
    with ExitStack() as stack:
        table = _OpenedOnce(stack, open_table)
        for condition in conditions:
            if not _takes_rows(condition):
                if may_call and (reason := _ask(condition, evaluation)) is not None:
                    reasons.append(reason)
                    may_call = False
                continue
            reason, fact = _measure(condition, evaluation, table.get(), source_rows, may_show=may_show)
            facts.append(fact)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
    return Verdict("; ".join(reasons) or None, facts)


class _OpenedOnce:
    """The rows, opened when the first condition needs them."""

    def __init__(self, stack: ExitStack, open_table: Callable[[], AbstractContextManager[Table]]) -> None:
        self._stack = stack
        self._open_table = open_table
        self._found: Table | TableError | None = None

    def get(self) -> Table | TableError:
        if self._found is None:
            try:
                self._found = self._stack.enter_context(self._open_table())
            except TableError as error:
                self._found = error
        return self._found


def _measure(
    condition: Any,
    evaluation: Evaluation,
    table: Table | TableError,
    source_rows: Callable[[], int | None],
    *,
    may_show: bool,
) -> tuple[str | None, dict[str, Any]]:
    """Check one condition on rows; return why it is not met, and what to store."""
    is_ready_made = isinstance(condition, RowCondition)
    if isinstance(table, TableError):
        name = condition.describe(evaluation) if is_ready_made else _name(condition)
        return table.describe(show=may_show), build_fact(name, holds=False)
    if is_ready_made:
        measured = condition.measure(evaluation, table, source_rows)
        return measured.unmet, measured.fact
    reason = _ask(condition, evaluation, table.relation)
    return reason and table.redact(reason), build_fact(_name(condition), holds=reason is None)


def _ask(condition: Any, *arguments: Any) -> str | None:
    """Call a condition; return why it is not met, and None where it is."""
    verdict = _plain(condition(*arguments))
    if verdict is True:
        return None
    if verdict is not False and not isinstance(verdict, str):
        called = "; if it makes a condition, call it, with parentheses" if _may_be_one(verdict) else ""
        raise TypeError(
            f"{_name(condition)} returned {verdict!r}, which is not True, False or a text that says why{called}"
        )
    return (verdict and verdict.strip()) or f"{_name(condition)} returned {verdict!r}"


def _may_be_one(condition: Any) -> bool:
    return callable(condition) or isinstance(condition, RowCondition)


def _takes_rows(condition: Any) -> bool:
    """Check whether a condition is about rows: a ready-made one, or a callable that needs two arguments."""
    return isinstance(condition, RowCondition) or (not _can_call(condition, 1) and _can_call(condition, 2))


def _can_call(condition: Any, arguments: int) -> bool:
    try:
        inspect.signature(condition).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # as of some that are written in C, which have no signature
        return arguments == 1
    return True


def _why_never(condition: Any) -> str | None:
    """Say why a callable can never be a condition; None where it may be one."""
    if isinstance(condition, RowCondition):
        return None
    for factory, call in _FACTORIES:
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
    if not _can_call(condition, 1) and not _can_call(condition, 2):
        return "cannot be called with an evaluation as its only argument, nor with an evaluation and its rows"
    return None


def _plain(verdict: Any) -> Any:
    """Take numpy's and pyarrow's True and False as Python's: comparing numbers of theirs gives those."""
    for name in ("item", "as_py"):
        method = getattr(verdict, name, None)
        if callable(method) and getattr(verdict, "shape", ()) == ():
            plain = method()
            return plain if isinstance(plain, bool) else verdict
    return verdict


def _name(condition: Any) -> str:
    if isinstance(condition, RowCondition):
        return repr(condition)
    return str(getattr(condition, "__qualname__", None) or type(condition).__qualname__)
