"""Conditions on a completed evaluation: the ready-made ones, and how any are checked."""

from __future__ import annotations

import copy
import math
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest

from airflow_provider_oxen.conditions import (
    all_rows,
    check_all,
    column_matches,
    max_credits,
    min_rows,
    needs_rows,
    no_missing_answers,
    parse_conditions,
    row_count,
    rows_where,
)
from airflow_provider_oxen.evaluations import Evaluation


def _completed(processed: Any = None, total: Any = None, **fields: Any) -> Evaluation:
    progress = {"processed": processed, "total": total}
    return Evaluation.from_dict({"id": "e-1", "status": "completed", "progress": progress, **fields})


def _find_unmet(conditions: Any, evaluation: Evaluation) -> str | None:
    """Check conditions that need no rows."""
    return check_all(conditions, evaluation, open_table=lambda: pytest.fail("opened"), source_rows=lambda: None).unmet


class _Scalar:
    """Has what a scalar and an array of numpy's have."""

    def __init__(self, value: Any, shape: tuple[int, ...] = ()) -> None:
        self.value = value
        self.shape = shape

    def item(self) -> Any:
        return self.value


class _Arrow:
    """Has what a scalar of pyarrow's has."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def as_py(self) -> Any:
        return self.value


@pytest.mark.parametrize(("processed", "total"), [(10, 10), (11, 10)])
def test_all_rows_is_met(processed: int, total: int) -> None:
    """The condition is met where no row is missing."""
    assert all_rows()(_completed(processed, total)) is True


@pytest.mark.parametrize(
    ("processed", "total", "shown"),
    [
        (1_199, 1_200, "1,199 of 1,200 rows were processed, but all are needed"),
        (2**62 - 1, 2**62, "4,611,686,018,427,387,903 of 4,611,686,018,427,387,904 rows were processed"),
        (0, 0, "0 of 0 rows were processed: nothing was evaluated"),
        (None, 1_200, "the hub does not report how many rows were processed, of how many"),
        (1_200, None, "the hub does not report"),
    ],
)
def test_all_rows_is_not_met(processed: int | None, total: int | None, shown: str) -> None:
    """One missing row is enough, and so is a hub that does not report the rows."""
    assert str(all_rows()(_completed(processed, total))).startswith(shown)


@pytest.mark.parametrize("percent", range(1, 101))
def test_min_rows_is_exact_at_its_bound(percent: int) -> None:
    """Exactly the share that was asked for is enough, and one row less is not, whatever floats do."""
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
    assert condition(_completed(credits_used=1_002.75)) == ("1,002.75 credits were spent, but at most 2.5 are allowed")


def test_max_credits_is_not_met_where_the_hub_does_not_report_them() -> None:
    """Credits that are not reported may be any number."""
    assert max_credits(2.5)(_completed()) == "the hub does not report how many credits were spent"


@pytest.mark.parametrize("limit", [-1, math.inf, math.nan, True, "5", None])
def test_max_credits_takes_a_number(limit: Any) -> None:
    """What is not a number of credits is refused when the DAG is parsed."""
    with pytest.raises(ValueError, match="max_credits takes a number of credits"):
        max_credits(limit)


def test_conditions_are_checked_in_order_up_to_the_first_that_is_not_met() -> None:
    """A later condition may rely on an earlier one."""
    checked = []

    def condition(name: str, verdict: Any) -> Any:
        return lambda _: checked.append(name) or verdict

    conditions = (condition("a", True), condition("b", "no"), condition("c", "not checked"))

    assert _find_unmet(conditions, _completed()) == "no"
    assert checked == ["a", "b"]


def test_all_conditions_met_is_none() -> None:
    """Where every condition returns True, and where there is none, nothing is unmet."""
    assert _find_unmet((lambda _: True, all_rows()), _completed(1, 1)) is None
    assert _find_unmet((), _completed()) is None


def _is_fine(evaluation: Evaluation) -> bool:
    return evaluation.name == "fine"


class _IsFine:
    def __call__(self, evaluation: Evaluation) -> str:
        return "" if evaluation.name != "fine" else "never"


@pytest.mark.parametrize(
    ("condition", "shown"), [(_is_fine, "_is_fine returned False"), (_IsFine(), "_IsFine returned ''")]
)
def test_condition_that_gives_no_reason_is_named(condition: Any, shown: str) -> None:
    """Where a condition that is not met gives no reason, its name is the reason."""
    assert _find_unmet((condition,), _completed()) == shown


@pytest.mark.parametrize(
    ("verdict", "unmet"),
    [
        (_Scalar(True), None),
        (_Arrow(True), None),
        (_Scalar(False), "returned False"),
        (_Arrow(False), "returned False"),
    ],
)
def test_verdict_of_numpy_counts_as_what_it_says(verdict: Any, unmet: str | None) -> None:
    """A comparison of numpy's numbers gives numpy's True or False, which are not Python's."""
    found = _find_unmet((lambda _: verdict,), _completed())

    assert found is None if unmet is None else unmet in str(found)


@pytest.mark.parametrize("verdict", [_Scalar(True, shape=(1,)), _Scalar(1), _Scalar(1.0), _Arrow(None)])
def test_other_verdict_of_numpy_is_an_error(verdict: Any) -> None:
    """An array or a number of numpy's is as unclear as a number of Python's."""
    with pytest.raises(TypeError, match="not True, False or a text"):
        _find_unmet((lambda _: verdict,), _completed())


def test_condition_that_makes_a_condition_is_named() -> None:
    """A function of the user's that returns a condition was meant to be called."""
    with pytest.raises(TypeError, match="if it makes a condition, call it, with parentheses"):
        _find_unmet((lambda _: all_rows(),), _completed())


class _Decorated:
    """Looks like what Airflow's decorator makes of a function."""

    operator_class = object

    def __call__(self, evaluation: Evaluation) -> bool:
        return bool(evaluation)


async def _is_async(_: Evaluation) -> bool:
    return True


def _yields(_: Evaluation) -> Any:
    yield True


@pytest.mark.parametrize(
    ("condition", "advice"),
    [
        (all_rows, r"all_rows makes a condition and was not called: write all_rows\(\)"),
        (min_rows, r"min_rows makes a condition and was not called: write min_rows\(0.99\)"),
        (max_credits, r"max_credits makes a condition and was not called: write max_credits\(25\)"),
        (lambda: True, "cannot be called with an evaluation as its only argument, nor with an evaluation and its rows"),
        (lambda _a, _b, _c: True, "cannot be called with an evaluation as its only argument"),
        (rows_where, r"rows_where makes a condition and was not called: write rows_where\('intent = label', at_least"),
        (no_missing_answers, r"no_missing_answers makes .* write no_missing_answers\(\)"),
        (row_count, r"row_count makes .* write row_count\(1_000\)"),
        (column_matches, r"column_matches makes .* write column_matches\('label', at_least=0.95\)"),
        (_is_async, "_is_async is async"),
        (_yields, "_yields is a generator"),
        (_Decorated(), "_Decorated is a task"),
        (dict, "dict is a class: a condition is a function"),
    ],
)
@pytest.mark.parametrize("as_list", [False, True])
def test_callable_that_can_never_be_a_condition_is_refused(condition: Any, advice: str, *, as_list: bool) -> None:
    """What is known to be wrong with a callable is refused when the DAG is parsed, with what to write instead."""
    given = [condition] if as_list else condition
    with pytest.raises(ValueError, match=f"^conditions: .*{advice}"):
        parse_conditions(given)


@pytest.mark.parametrize("verdict", [None, 0, 1, [], {"ok": True}])
def test_other_verdict_is_an_error(verdict: Any) -> None:
    """A condition that returns something else, as without its ``return``, is an error that names it."""
    with pytest.raises(TypeError, match=r"lambda.* returned .*not True, False or a text"):
        _find_unmet((lambda _: verdict,), _completed())


@pytest.mark.parametrize("conditions", ["all_rows", 5, [], (), {}, [5], [all_rows(), None], True])
def test_what_is_not_a_condition_is_refused(conditions: Any) -> None:
    """``conditions`` is a callable or a list of callables."""
    with pytest.raises(ValueError, match="conditions must be a callable or a list of callables"):
        parse_conditions(conditions)


def test_one_condition_or_several_are_parsed() -> None:
    """One callable is the same as a list of one; None is no condition."""
    assert parse_conditions(None) == ()
    assert parse_conditions(_is_fine) == (_is_fine,)
    assert parse_conditions([_is_fine, len]) == (_is_fine, len)


def _is_about_rows(_evaluation: Evaluation, _rows: Any) -> bool:
    return True


def test_conditions_on_rows_are_parsed() -> None:
    """A ready-made condition on rows needs no list, and a callable with two arguments is one on rows."""
    condition = no_missing_answers()

    assert parse_conditions(condition) == (condition,)
    assert parse_conditions(_is_about_rows) == (_is_about_rows,)


@pytest.mark.parametrize(
    ("condition", "is_about_rows"),
    [
        (row_count(1), True),
        (_is_about_rows, True),
        (lambda _evaluation, *, rows=None: rows, False),
        (lambda _evaluation, rows=None: rows, False),
        (lambda *arguments: arguments, False),
        (all_rows(), False),
        (str, False),
    ],
)
def test_callable_is_about_rows_if_it_needs_two_arguments(condition: Any, *, is_about_rows: bool) -> None:
    """A callable that can do with the evaluation gets no rows, as before there were any to get."""
    assert needs_rows([all_rows(), condition]) is is_about_rows


@pytest.mark.parametrize(
    ("condition", "shown"),
    [
        (all_rows(), "all_rows()"),
        (min_rows(0.99), "min_rows(0.99)"),
        (max_credits(25), "max_credits(25)"),
        (rows_where("a = b", at_least=0.95), "rows_where(sql='a = b', at_least=0.95)"),
        (
            rows_where("a = b", rows=(None, 5), show_rows=False),
            "rows_where(sql='a = b', rows=(None, 5), show_rows=False)",
        ),
        (rows_where("a = b", rows=5), "rows_where(sql='a = b', rows=5)"),
        (no_missing_answers(), "no_missing_answers()"),
        (no_missing_answers("intent"), "no_missing_answers(column='intent')"),
        (row_count(5, same_as_source=True), "row_count(at_least=5, same_as_source=True)"),
        (column_matches("label"), "column_matches(expected='label')"),
        (
            column_matches("label", column="intent", at_least=0.9, strip=True),
            "column_matches(expected='label', column='intent', at_least=0.9, strip=True)",
        ),
    ],
)
def test_ready_made_condition_reads_as_it_is_written(condition: Any, shown: str) -> None:
    """Airflow shows conditions, copies them with their task, and may store their text: it is the same in each parse."""
    assert repr(condition) == shown
    assert eval(shown) == condition  # noqa: S307
    assert copy.deepcopy(condition) == condition
    assert pickle.loads(pickle.dumps(condition)) == condition  # noqa: S301


def test_conditions_on_rows_need_duckdb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DuckDB is not installed, what needs it is refused when the DAG is parsed, with the line to install it."""
    monkeypatch.setattr("airflow_provider_oxen.tables.find_spec", lambda _: None)
    advice = re.escape('needs DuckDB, which is not installed: pip install "airflow-provider-oxen[results]"')

    for make in (
        lambda: rows_where("a = b", at_least=1),
        no_missing_answers,
        lambda: row_count(5),
        lambda: column_matches("label"),
        lambda: parse_conditions(_is_about_rows),
    ):
        with pytest.raises(ValueError, match=advice):
            make()
    assert parse_conditions([all_rows(), max_credits(1)])


def test_conditions_do_not_import_duckdb_before_sql_is_given() -> None:
    """Whoever uses none of it does not pay for it in each parse of a DAG file."""
    program = (
        "import sys; from airflow_provider_oxen.conditions import *\n"
        "parse_conditions([all_rows(), no_missing_answers()])\n"
        "assert 'duckdb' not in sys.modules; rows_where('a', at_least=1); assert 'duckdb' in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
