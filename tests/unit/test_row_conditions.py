"""Conditions on rows: what they count, what they say, and what they store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.conditions import (
    Verdict,
    check_all,
    column_matches,
    max_credits,
    no_missing_answers,
    row_count,
    rows_where,
)
from airflow_provider_oxen.evaluations import Evaluation
from airflow_provider_oxen.tables import TableError, open_table
from tests.support.rows import FORMATS, write_rows

EVALUATION = Evaluation.from_dict({"id": "e-1", "status": "completed", "target_column": "intent", "credits_used": 30})
Check = Callable[..., Verdict]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Check conditions on rows, which are written in the format of a suffix."""

    def checked(
        rows: Sequence[dict[str, Any]] | str,
        *conditions: Any,
        suffix: str = "jsonl",
        source_rows: int | None = None,
        evaluation: Evaluation = EVALUATION,
        key: str = "a key of the hub's",
    ) -> Verdict:
        file = tmp_path / f"rows.{suffix}"
        if isinstance(rows, str):
            file.write_text(rows)
        else:
            write_rows(file, rows)
        verdict = check_all(
            conditions,
            evaluation,
            open_table=lambda: open_table(file, file.suffix, redact=lambda text: text.replace(key, "***")),
            source_rows=lambda: source_rows,
        )
        assert json.loads(json.dumps(verdict.facts, allow_nan=False)) == verdict.facts
        assert verdict.unmet is None or len(verdict.unmet.splitlines()) == 1
        return verdict

    return checked


def _intents(right: int, wrong: int) -> list[dict[str, Any]]:
    rows = [{"id": number, "intent": "refund", "label": "refund"} for number in range(right + wrong)]
    for number in range(wrong):
        rows[number + 16]["label"] = "get_refund"
    return rows


@pytest.mark.parametrize("suffix", FORMATS)
def test_message_has_the_numbers_and_some_rows(check: Check, suffix: str) -> None:
    """The message says how many rows there are, how many were needed, and which are not so; the fact has the share."""
    unmet, facts = check(_intents(8_412, 1_588), rows_where("intent = label", at_least=0.95), suffix=suffix)

    assert unmet == (
        "intent = label holds for 8,412 of 10,000 rows (84.1 %), at least 95 % are needed; for instance "
        "row 17: 'refund' ≠ 'get_refund'; row 18: 'refund' ≠ 'get_refund'; row 19: 'refund' ≠ 'get_refund'"
    )
    assert facts == [{"condition": "intent = label", "share": 0.8412, "rows": 8_412, "of": 10_000, "holds": False}]


def test_condition_that_is_met_is_a_fact_too(check: Check) -> None:
    """Its share can be charted, although no message has it."""
    unmet, facts = check(_intents(98, 2), rows_where("intent = label", at_least=0.95))

    assert unmet is None
    assert facts == [{"condition": "intent = label", "share": 0.98, "rows": 98, "of": 100, "holds": True}]


@pytest.mark.parametrize(
    ("condition", "unmet"),
    [
        (
            rows_where("length(intent) > 5", at_most=0),
            (
                "length(intent) > 5 holds for 2 of 4 rows (50 %), no row is allowed; for instance "
                "row 1: intent='refund'; row 3: intent='very \"long\\' \\n'"
            ),
        ),
        (
            rows_where("intent = label", at_most=0.1),
            (
                "intent = label holds for 1 of 4 rows (25 %), at most 10 % are allowed; for instance "
                "row 1: 'refund' = 'refund'"
            ),
        ),
        (
            rows_where("score > 1 AND LABEL = 'x'", rows=(2, None)),
            (
                "score > 1 AND LABEL = 'x' holds for 1 of 4 rows, at least 2 are needed; for instance "
                "row 1: score=1, label='refund'; row 3: score=3, label=NULL; row 4: score=NULL, label='7'"
            ),
        ),
        (rows_where("intent = 'x'", rows=0), None),
        (
            rows_where("intent = 'x'", rows=3),
            (
                "intent = 'x' holds for 0 of 4 rows, exactly 3 are needed; for instance "
                "row 1: intent='refund'; row 2: intent=' '; row 3: intent='very \"long\\' \\n'"
            ),
        ),
        (
            rows_where("score IS NULL", rows=(None, 0), show_rows=False),
            "score IS NULL holds for 1 of 4 rows, no row is allowed",
        ),
        (
            rows_where("random() > 2", at_least=0.5),
            ("random() > 2 holds for 0 of 4 rows (0 %), at least 50 % are needed; for instance row 1; row 2; row 3"),
        ),
        (
            rows_where("label = label -- compared\n", at_least=1),
            (
                "label = label -- compared holds for 3 of 4 rows (75 %), all rows are needed; for instance "
                "row 3: NULL ≠ NULL"
            ),
        ),
        (rows_where("rows.score = (SELECT max(score) FROM rows)", at_least=0.25), None),
        (
            no_missing_answers(),
            "intent is missing in 2 of 4 rows (50 %), none may be missing; for instance row 2; row 4",
        ),
        (no_missing_answers(show_rows=False), "intent is missing in 2 of 4 rows (50 %), none may be missing"),
        (
            no_missing_answers("Score"),
            "score is missing in 1 of 4 rows (25 %), none may be missing; for instance row 4",
        ),
        (row_count(4), None),
        (row_count(1_000), "the results have 4 rows, but at least 1,000 are needed"),
        (row_count(same_as_source=True), "the results have 4 rows, but the source has 5, and as many are needed"),
        (column_matches("LABEL", at_least=0.25), None),
        (
            column_matches("score", column="label"),
            (
                "label matches score holds for 0 of 4 rows (0 %), all rows are needed; for instance "
                "row 1: 'refund' ≠ '1'; row 2: 'x' ≠ '2'; row 3: NULL ≠ '3'"
            ),
        ),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_counted_and_said(check: Check, condition: Any, unmet: str | None, suffix: str) -> None:
    """Each condition in each format: what holds, and the sentence where too few or too many rows do."""
    rows = [
        {"intent": "refund", "label": "refund", "score": 1},
        {"intent": " ", "label": "x", "score": 2},
        {"intent": "very \"long' \n", "label": None, "score": 3},
        {"intent": None, "label": "7", "score": None},
    ]

    found = check(rows, condition, suffix=suffix, source_rows=5)

    assert found.unmet == unmet
    assert [fact["holds"] for fact in found.facts] == [unmet is None]


def test_all_conditions_on_rows_are_measured_and_all_reasons_given(check: Check) -> None:
    """A chart needs every number, and who reads the message wants to know all that is wrong, in the order asked."""
    unmet, facts = check(
        [{"intent": "a", "label": "b"}, {"intent": "b", "label": "b"}],
        rows_where("intent = label", at_least=0.9, show_rows=False),
        max_credits(25),
        lambda _: pytest.fail("not called, as it may rely on the one before"),
        no_missing_answers(),
        row_count(5),
    )

    assert unmet == (
        "intent = label holds for 1 of 2 rows (50 %), at least 90 % are needed; "
        "30 credits were spent, but at most 25 are allowed; the results have 2 rows, but at least 5 are needed"
    )
    assert facts == [
        {"condition": "intent = label", "share": 0.5, "rows": 1, "of": 2, "holds": False},
        {"condition": "intent is not missing", "share": 1.0, "rows": 2, "of": 2, "holds": True},
        {"condition": "row count", "share": None, "rows": 2, "of": None, "holds": False},
    ]


def test_rows_are_not_opened_without_need() -> None:
    """Conditions on the evaluation alone need no file."""
    verdict = check_all(
        [max_credits(25)],
        EVALUATION,
        open_table=lambda: pytest.fail("opened"),
        source_rows=lambda: pytest.fail("asked"),
    )

    assert verdict == ("30 credits were spent, but at most 25 are allowed", [])


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        (
            rows_where("intnt = label", at_least=1),
            "intnt = label cannot be checked: there is no column 'intnt'; the columns are intent, label, n",
        ),
        (
            rows_where('intent = "refund"', at_least=1),
            "no column 'refund'; the columns are intent, label, n. In SQL, text stands in single quotes",
        ),
        (
            no_missing_answers("answer"),
            "answer is not missing cannot be checked: there is no column 'answer'; the columns are",
        ),
        (column_matches("labels"), "intent matches labels cannot be checked: there is no column 'labels'; the columns"),
        (
            rows_where("n = label", at_least=0.1),
            "n = label cannot be checked: Could not convert string 'get_refund' to INT",
        ),
        (
            rows_where("n = label", at_least=0.1),
            "(column_matches can compare any two columns); the columns are intent VARCHAR, label VARCHAR, n BIGINT",
        ),
        (rows_where("label", at_least=0.1), "label cannot be checked: Could not convert string 'get_refund' to BOOL"),
        (
            rows_where("label > DATE '2024-01-01'", at_least=0.1),
            "Cannot compare values of type VARCHAR and type DATE",
        ),
        (
            rows_where("nofunc(label)", at_least=0.1),
            "Scalar Function with name nofunc does not exist; the columns are intent",
        ),
        (
            rows_where("length(n) > 80", at_most=0),
            "type casts. For the text of n, write CAST(n AS VARCHAR); the columns are",
        ),
        (rows_where("count(*) > 3", at_least=0.1), "count(*) > 3 cannot be checked: aggregate function"),
        (rows_where("error(label) IS NULL", at_least=0.1), "error(label) IS NULL cannot be checked: get_refund"),
        (rows_where("(SELECT count(*) FROM '/etc/passwd') > 0", at_least=0.1), "with name /etc/passwd does not"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_what_can_never_be_checked_is_not_met(check: Check, condition: Any, why: str, suffix: str) -> None:
    """SQL that does not fit the columns is a condition that is not met. The message names the columns there are."""
    row = {"intent": "refund", "label": "get_refund", "n": 1}

    unmet, facts = check([row], condition, row_count(1), suffix=suffix)

    assert why in str(unmet)
    assert "the columns are intent" in str(unmet)
    assert "oxen-rows" not in str(unmet)
    assert [(fact["holds"], fact["share"]) for fact in facts] == [(False, None), (True, None)]


@pytest.mark.parametrize(
    "condition",
    [
        rows_where("intent = label", at_least=0.1, show_rows=False),
        rows_where("intent = n", at_least=0.1, show_rows=False),
        rows_where("error(intent) IS NULL", at_least=0.1, show_rows=False),
        rows_where("intent::DATE > '2020-01-01'", at_least=0.1, show_rows=False),
        no_missing_answers("empty", show_rows=False),
        column_matches("label", show_rows=False),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_confidential_rows_are_not_shown(check: Check, condition: Any, suffix: str) -> None:
    """With show_rows=False, no message has what is in a cell, those of DuckDB included."""
    rows = [
        {"intent": "secret", "label": "hidden", "n": 1, "empty": ""},
        {"intent": "private", "label": "", "n": 2, "empty": "x"},
    ]

    unmet = str(check(rows, condition, suffix=suffix).unmet)

    assert not any(word in unmet for word in ("secret", "hidden", "private", "row 1", "row 2"))
    assert "cannot be checked" in unmet or "of 2 rows" in unmet


def test_damaged_file_shows_no_confidential_row(check: Check) -> None:
    """Where the file cannot be read, one condition that hides rows hides what DuckDB says of them."""
    shown = check('{"id": secret}', no_missing_answers(), row_count(1), suffix="jsonl")
    hidden = check('{"id": secret}', no_missing_answers(show_rows=False), row_count(1), suffix="jsonl")

    assert str(shown.unmet).startswith("the results cannot be read as JSON lines: Malformed JSON")
    assert hidden.unmet == "the results cannot be read as JSON lines: a value does not fit, which is not shown"
    assert [fact["holds"] for fact in hidden.facts] == [False, False]


@pytest.mark.parametrize(
    "condition",
    [
        rows_where("intent = label", at_least=0.1),
        rows_where("intent = label", at_most=0.9),
        rows_where("intent = label", rows=(None, 9)),
        no_missing_answers(),
        row_count(1),
        row_count(same_as_source=True),
        column_matches("label"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_table_without_rows_meets_no_condition(check: Check, condition: Any, suffix: str) -> None:
    """Nothing was evaluated where there are no rows, so nothing is good."""
    unmet, (fact,) = check("intent,label\n" if suffix == "csv" else "[]", condition, suffix=suffix, source_rows=0)

    assert str(unmet).startswith("the results have no rows; the columns are ")
    assert (fact["holds"], fact["share"], fact["rows"], fact["of"]) == (False, None, 0, 0)


def test_many_columns_are_not_all_named(check: Check) -> None:
    """A message stays readable where a table has hundreds of columns."""
    unmet = check([{f"c{number}": 1 for number in range(300)}], no_missing_answers()).unmet

    assert str(unmet).endswith("c18, c19 and 280 more")


def test_hostile_cells_stay_on_the_line(check: Check) -> None:
    """A cell forges no line of a log, hides no direction of writing, is not long, and shows no key."""
    cell = "a key of the hub's\n2024 ERROR \x1b[31m\u202e' ≠ 'x" + "y" * 10_000
    (unmet, _) = check([{"intent": cell, "label": "'; DROP TABLE rows"}], rows_where("intent = label", at_least=1))

    assert str(unmet).endswith(
        'row 1: "***\\n2024 ERROR \\x1b[31m\\u202e\' ≠ \'xyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…" ≠ "\'; DROP TABLE rows"'
    )


def test_key_is_found_before_a_cell_is_cut(check: Check) -> None:
    """A key that would be cut in half is hidden as a whole."""
    (unmet, _) = check([{"intent": "x" * 50 + "a key of the hub's", "label": "y"}], column_matches("label"))

    assert f"'{'x' * 50}***' ≠ 'y'" in str(unmet)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_column_matches_compares_what_it_finds(check: Check, suffix: str) -> None:
    """Numbers are compared as numbers; what is of several types, as text."""
    rows = [{"intent": "7", "n": 7, "f": 7.0}, {"intent": "8.0", "n": 8, "f": 8.0}]

    assert check(rows, column_matches("f", column="n"), suffix=suffix).unmet is None
    assert check(rows, column_matches("n"), suffix=suffix).facts[0]["rows"] == 1
    assert check(rows, column_matches("f"), suffix=suffix).facts[0]["rows"] == 1


def test_column_matches_compares_csv_as_it_is_written(check: Check) -> None:
    """The label 007 is the answer 007, although the labels are all numbers and the answers are not."""
    assert check("label,intent\n007,007\n8,eight\n", column_matches("label"), suffix="csv").facts[0]["rows"] == 1


def test_column_matches_can_ignore_case_and_space(check: Check) -> None:
    """Each of both is ignored only if asked for."""
    rows = [
        {"intent": intent, "label": "Refund"}
        for intent in ("Refund", "refund", " \u00a0Refund\n", " rEFUND\t", "Re fund")
    ]

    for ignore_case, strip, expected in ((False, False, 1), (True, False, 2), (False, True, 2), (True, True, 4)):
        condition = column_matches("label", ignore_case=ignore_case, strip=strip)
        assert check(rows, condition).facts[0]["rows"] == expected


def test_target_column_that_is_not_reported(check: Check) -> None:
    """Where the hub does not report the column of the answers, the message says how to name it."""
    evaluation = Evaluation.from_dict({"id": "e-1", "status": "completed"})

    for condition in (no_missing_answers(), column_matches("label")):
        unmet = str(check([{"label": "x"}], condition, evaluation=evaluation).unmet)
        assert unmet.startswith("the answer ")
        assert "the hub does not report the column of the answers: name it, as column=…" in unmet


def test_source_rows_that_are_not_reported(check: Check) -> None:
    """Where the hub does not report the rows of the source, as many cannot be asked for."""
    unmet, (fact,) = check([{"label": "x"}], row_count(same_as_source=True))

    assert unmet == (
        "the results have 1 rows, and as many as in the source are needed, but the hub does not report how many it has"
    )
    assert not fact["holds"]


def test_callable_gets_the_evaluation_and_the_rows(check: Check) -> None:
    """A callable with two arguments may ask DuckDB anything of the rows, and is a fact without numbers."""

    def has_two_labels(evaluation: Evaluation, rows: Any) -> bool | str:
        labels = sorted(row[0] for row in rows.filter(f"{evaluation.target_column} = 'x'").project("label").fetchall())
        return labels == ["a", "b"] or f"the labels are {labels} and a key of the hub's"

    met = check([{"intent": "x", "label": "b"}, {"intent": "x", "label": "a"}], has_two_labels)
    unmet = check([{"intent": "x", "label": "b"}], has_two_labels)

    fact = {"condition": has_two_labels.__qualname__, "share": None, "rows": None, "of": None}
    assert met == (None, [{**fact, "holds": True}])
    assert unmet == ("the labels are ['b'] and ***", [{**fact, "holds": False}])


def test_exception_of_a_callable_is_not_caught(check: Check) -> None:
    """It may be that of a service that is down for a moment, so the task may be retried."""
    with pytest.raises(ZeroDivisionError):
        check([{"a": 1}], lambda _evaluation, _rows: 1 / 0)
    with pytest.raises(TypeError, match="not True, False or a text"):
        check([{"a": 1}], lambda _evaluation, _rows: None)


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("intent = = label", 'syntax error at or near "="'),
        ("intent =", "syntax error"),
        ("", "SELECT clause without selection list"),
        ("a = b, c", "it is not one expression"),
        ("a; DROP TABLE rows", "syntax error"),
        ("SELECT count(*) FROM rows", "syntax error"),
        ("true) FROM x WHERE (1=1", "syntax error"),
        ("1) UNION SELECT (2", "syntax error"),
        ("a FROM x", "syntax error"),
        ("a WHERE b", "syntax error"),
        ("a AS b", "syntax error"),
        ("a ORDER BY b", "syntax error"),
        ("a LIMIT 1", "syntax error"),
        ("a /*", "unterminated /* comment"),
        ("intent = 'x", "unterminated "),
        ("a = ?", "or has parameters"),
        ("a = $key", "or has parameters"),
        ("COPY rows TO 'x'", "syntax error"),
    ],
)
def test_sql_is_checked_when_the_dag_is_parsed(sql: str, why: str) -> None:
    """What is not one expression of SQL is refused at once, with what to write."""
    with pytest.raises(ValueError, match=r"^rows_where cannot read ") as caught:
        rows_where(sql, at_least=0.95)

    assert why in str(caught.value)
    assert str(caught.value).endswith(
        "Write what stands after WHERE, such as rows_where('intent = label', at_least=0.95)"
    )
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("sql", ["intent = '{{ params.label }}'", "{% if params.all %} true {% endif %}"])
def test_sql_with_a_template_is_refused(sql: str) -> None:
    """It would be compared as it is written, and a gate that no row may break would open."""
    with pytest.raises(ValueError, match="conditions are not templated"):
        rows_where(sql, at_most=0)


@pytest.mark.parametrize("show_rows", ["no", None, 0])
def test_show_rows_is_true_or_false(show_rows: Any) -> None:
    """Any other text than an empty one would show rows that are confidential."""
    with pytest.raises(ValueError, match=r"^rows_where: show_rows is True or False, but is "):
        rows_where("a = b", at_most=0, show_rows=show_rows)
    with pytest.raises(ValueError, match=r"^no_missing_answers: show_rows is True or False"):
        no_missing_answers(show_rows=show_rows)
    with pytest.raises(ValueError, match=r"^column_matches: show_rows is True or False"):
        column_matches("a", show_rows=show_rows)


def test_sql_of_several_columns_is_refused(check: Check) -> None:
    """COLUMNS makes an expression of each column, and only their number says how many."""
    rows = [{"intent": "a", "label": "a"}]

    assert str(check(rows, rows_where("COLUMNS(*) = 'a'", at_least=1)).unmet).startswith(
        "COLUMNS(*) = 'a' cannot be checked: it is 2 expressions, one for each column: write one, with AND or OR"
    )
    assert check(rows, rows_where("COLUMNS('int.*') = 'a'", at_least=1)).unmet is None


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_list_without_values_is_missing(tmp_path: Path, suffix: str) -> None:
    """A list is an answer if it has a value: not if it is empty, or has nothing but NULLs."""
    file = tmp_path / f"lists.{suffix}"
    with duckdb.connect() as connection:
        lists = "unnest([[0.5], [], [NULL], NULL, [NULL, 1.5]]) AS intent"
        connection.execute(f"COPY (SELECT {lists}) TO '{file}' (FORMAT {'PARQUET' if suffix == 'parquet' else 'JSON'})")
    verdict = check_all(
        [no_missing_answers()],
        EVALUATION,
        open_table=lambda: open_table(file, file.suffix, redact=str),
        source_rows=lambda: None,
    )

    assert verdict.facts[0]["rows"] == 2


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("intent", "label"),
    [
        ("2024-01-02", "2024-1-2"),
        ("12:30:00", "12:30"),
        ("2024-01-02T10:00:00Z", "2024-01-02 10:00:00"),
        ("d0c8585d-1234-5678-abcd-ef0123456789", "D0C8585D-1234-5678-ABCD-EF0123456789"),
    ],
)
def test_texts_of_json_are_compared_as_written(check: Check, suffix: str, intent: str, label: str) -> None:
    """JSON has no dates and the like: what looks like one is text."""
    rows = [{"intent": intent, "label": label}, {"intent": intent, "label": intent}]

    assert check(rows, column_matches("label"), suffix=suffix).facts[0]["rows"] == 1
    assert check(rows, rows_where("intent = label", at_least=1), suffix=suffix).facts[0]["rows"] == 1


@pytest.mark.parametrize("sql", [None, 5, b"a", ["a"]])
def test_sql_is_text(sql: Any) -> None:
    """So is anything else than text."""
    with pytest.raises(ValueError, match="rows_where takes SQL, such as"):
        rows_where(sql, at_least=0.95)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: no_missing_answers(5), "no_missing_answers: column is the name of a column, but is 5"),
        (lambda: no_missing_answers(""), "no_missing_answers: column is the name of a column, but is ''"),
        (lambda: column_matches(None), "column_matches: expected is the name of a column, but is None"),
        (lambda: column_matches("a", column=5), "column_matches: column is the name of a column, but is 5"),
        (lambda: column_matches("a", at_least=95), "column_matches: at_least is a share of the rows"),
        (row_count, r"row_count takes a number of rows, or same_as_source=True"),
        (lambda: row_count(0), "row_count: at_least is a whole number of rows, from 1, but is 0"),
        (lambda: row_count(True), "row_count: at_least is a whole number of rows, from 1, but is True"),
        (lambda: row_count(0.5), "row_count: at_least is a whole number of rows, from 1, but is 0.5"),
    ],
)
def test_wrong_argument_is_refused(make: Callable[[], Any], message: str) -> None:
    """A wrong argument is refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=message):
        make()


def test_error_while_opening_is_no_condition_that_is_not_met() -> None:
    """A download that fails may be retried; only what can never be read is a condition that is not met."""

    def fail(error: Exception) -> Any:
        raise error

    with pytest.raises(OSError, match="disk"):
        check_all([row_count(1)], EVALUATION, open_table=lambda: fail(OSError("disk")), source_rows=lambda: None)
    verdict = check_all([row_count(1)], EVALUATION, open_table=lambda: fail(TableError("no")), source_rows=lambda: None)
    assert verdict.unmet == "no"


_CELLS = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=4)
    | st.sampled_from(
        ["refund", " refund", "REFUND", "\t", "\u2003", "\x1c", "\x85", "NULL", "NaN", "007", "7", '"', "'", "#"]
    )
)


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(_CELLS, _CELLS), min_size=1, max_size=12))
def test_counts_are_those_of_plain_python(check: Check, suffix: str, rows: list[tuple[str | None, str | None]]) -> None:
    """Whatever is in the cells, the conditions count what Python counts."""
    is_csv = suffix.endswith("sv")
    # An empty cell of a CSV is no value, and its line breaks are not told apart.
    texts = [
        tuple((cell or None) if is_csv else cell for cell in row) for row in rows if not is_csv or not _breaks(row)
    ]
    texts.append(("text", "other text"))

    facts = check(
        [{"intent": a, "label": b} for a, b in texts],
        no_missing_answers(),
        rows_where("intent = label", at_least=0.5),
        column_matches("label"),
        column_matches("label", strip=True),
        rows_where("length(intent) > 2", at_most=0.5),
        suffix=suffix,
    ).facts

    assert [fact["rows"] for fact in facts] == [
        sum(a is not None and a.strip() != "" for a, _ in texts),
        sum(a is not None and a == b for a, b in texts),
        sum(a is not None and a == b for a, b in texts),
        sum(a is not None and b is not None and a.strip() == b.strip() for a, b in texts),
        sum(a is not None and len(a) > 2 for a, _ in texts),
    ]
    assert {fact["of"] for fact in facts} == {len(texts)}


def _breaks(row: tuple[str | None, ...]) -> bool:
    return any(c in (cell or "") for cell in row for c in "\r\n")
