"""
Extra conditions that a completed evaluation must meet.

A condition is one of the ready-made ones below, or a callable that returns

- True where it is met,
- False, or a text that says why, where it is not.

A callable with one argument gets the completed :class:`~airflow_provider_oxen.evaluations.Evaluation`, without its
prompt. One with two also gets the rows of the results, as a relation of DuckDB's.

The argument ``conditions`` of the sensor and of the operator takes one condition, or a list. Ready-made ones are
called::

    OxenEvaluationSensor(..., conditions=[all_rows(), max_credits(25), rows_where("intent = label", at_least=0.95)])

Those on the evaluation are checked in order, up to the first that is not met. Those on rows are all measured, so that
each has its number.

Where the hub does not report the number that a ready-made condition needs, the condition is not met. Where an
evaluation had no rows at all, nothing was evaluated, so no ready-made condition on rows is met.
"""

from airflow_provider_oxen.conditions.checking import (
    Condition,
    Verdict,
    check_all,
    check_conditions,
    check_source,
    needs_rows,
    parse_conditions,
)
from airflow_provider_oxen.conditions.counts import all_rows, max_credits, min_rows
from airflow_provider_oxen.conditions.rows import column_matches, no_missing_answers, row_count, rows_where

__all__ = [
    "Condition",
    "Verdict",
    "all_rows",
    "check_all",
    "check_conditions",
    "check_source",
    "column_matches",
    "max_credits",
    "min_rows",
    "needs_rows",
    "no_missing_answers",
    "parse_conditions",
    "row_count",
    "rows_where",
]
