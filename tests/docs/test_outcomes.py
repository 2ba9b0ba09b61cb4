"""The pages' tables of outcomes are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_oxen.reactions import REACTIONS, Reaction
from airflow_provider_oxen.wait import OutcomeReason
from tests.docs.pages import ROOT

#: How the sensor's page says it: what each outcome is in the first column of its table.
WORDS = {
    OutcomeReason.COMPLETED: r"^the evaluation completed$",
    OutcomeReason.ERRORED: r"\berrored\b",
    OutcomeReason.CANCELLED: r"\bcancelled\b",
    OutcomeReason.CONDITION_NOT_MET: r"does not meet one of `conditions`",
    OutcomeReason.CONDITION_FAILED: r"`conditions` raised an exception",
    OutcomeReason.TIMEOUT: r"`timeout`",
    OutcomeReason.REFUSED: r"wrong key",
    OutcomeReason.NOT_THE_HUB: r"something else responded in its place",
    OutcomeReason.UNREACHABLE: r"out of reach for longer than `retry_window`",
}


def section(page: Path, heading: str) -> str:
    """Return the text under a heading, up to the next one of the same level or above."""
    match = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", page.read_text(), re.MULTILINE | re.DOTALL
    )
    assert match, f"{page.name} has no section {heading!r}"
    return match[2]


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a text: the cells of each line, the head first."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *body = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.splitlines())
        found.append([head, *body])
    return found


def rows(text: str) -> list[dict[str, str]]:
    """Return the rows of every table whose first column is an outcome, by the words of its head."""
    found = []
    for head, *body in tables(text):
        found += [dict(zip(head, cells, strict=True)) | {"outcome": cells[0]} for cells in body if outcomes(cells[0])]
    return found


def outcomes(cell: str) -> list[OutcomeReason]:
    """Read the outcomes at the beginning of a cell: one or several words in backticks, with commas between them."""
    words = re.match(r"(`\w+`(, )?)*", cell)
    known = {str(reason): reason for reason in OutcomeReason}
    return [known[word] for word in re.findall(r"`(\w+)`", words[0] if words else "") if word in known]


def column(row: dict[str, str], name: str) -> str:
    """Return a cell by a word of its column's head."""
    (key,) = (key for key in row if name in key.replace("`", "").lower())
    return row[key]


def shown(row: dict[str, str]) -> tuple[str | None, bool, bool]:
    """Read a row as a reaction: the exception's name, whether retries apply, whether ``soft_fail`` skips."""
    exception = re.search(r"`(\w+)`", column(row, "raises"))
    flags = {"yes": True, "no": False}
    return (
        None if exception is None else exception[1],
        flags[column(row, "retries apply")],
        flags[column(row, "soft_fail skips")],
    )


def expected(reaction: Reaction) -> tuple[str | None, bool, bool]:
    name = None if reaction.exception is None else reaction.exception.__name__
    return (name, reaction.may_be_retried, reaction.soft_fail_skips)


def test_page_on_reliability_has_the_table_of_the_code() -> None:
    """Each outcome has one row, with what is raised, whether ``retries`` apply, and whether ``soft_fail`` skips."""
    page = rows(section(ROOT / "docs/reliability.md", "What each outcome means for the task"))

    found = {reason: shown(row) for row in page for reason in outcomes(row["outcome"])}

    assert found == {reason: expected(reaction) for reason, reaction in REACTIONS.items()}
    assert sum(len(outcomes(row["outcome"])) for row in page) == len(REACTIONS)


def test_page_on_alerts_has_every_failure() -> None:
    """Each outcome but the first has one row, with ``on_retry_callback`` where the task may be retried."""
    page = rows(section(ROOT / "docs/how-to/alerts.md", "What is available"))

    found = [(reason, column(row, "callbacks")) for row in page for reason in outcomes(row["outcome"])]

    assert sorted(reason for reason, _ in found) == sorted(set(REACTIONS) - {OutcomeReason.COMPLETED})
    for reason, callbacks in found:
        assert ("`on_retry_callback`" in callbacks) is REACTIONS[reason].may_be_retried, reason
        assert "`on_failure_callback`" in callbacks, reason


def test_page_on_alerts_is_right_about_soft_fail() -> None:
    """``soft_fail`` skips just what calls ``on_failure_callback`` alone, as the page says below its table."""
    text = section(ROOT / "docs/how-to/alerts.md", "What is available")

    assert "`soft_fail` does not skip where `on_retry_callback` is called. `never_fail` does." in text
    for reaction in REACTIONS.values():
        assert not (reaction.soft_fail_skips and reaction.may_be_retried)


def test_page_on_the_sensor_agrees_with_the_table_of_the_code() -> None:
    """The sensor's page says of each outcome whether the task succeeds, fails for good or may be retried."""
    text = section(ROOT / "docs/reference/sensor.md", "How a wait ends")
    (table,) = (table for table in tables(text) if table[0][1] == "the task")

    for reason, words in WORDS.items():
        (row,) = (row for row in table[1:] if re.search(words, row[0]))
        reaction = REACTIONS[reason]
        assert ("succeeds" in row[1]) is (reaction.exception is None), row
        assert ("may be retried" in row[1]) is reaction.may_be_retried, row
        assert ("without using `retries`" in row[1]) is (reaction.exception is not None and not reaction.may_be_retried)


def test_page_on_the_sensor_is_right_about_soft_fail() -> None:
    """``soft_fail`` skips what fails, except when the failure may be retried, as the page says below its table."""
    text = section(ROOT / "docs/reference/sensor.md", "How a wait ends")

    assert "`soft_fail` skips the task instead of failing it, except when the failure may be retried." in text
    for reaction in REACTIONS.values():
        fails = reaction.exception is not None
        assert reaction.soft_fail_skips is (fails and not reaction.may_be_retried)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("| `lost` | `OxenWaitLostError` | no | no |", False),
        ("| `lost` | `OxenWaitLostError` | yes | no |", True),
    ],
)
def test_reader_of_tables_sees_a_difference(table: str, problem: bool) -> None:
    """A row that differs from the code in one word is found."""
    (row,) = rows(f"| outcome | raises | retries apply | `soft_fail` skips |\n|---|---|---|---|\n{table}\n")

    assert (shown(row) == expected(REACTIONS[OutcomeReason.LOST])) is problem
