"""The page of a gate that judges the answers: it says why the gate stays closed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from airflow_provider_oxen.testing import Answers
from tests.ui.measuring import right_edge_of_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone

DAG = "judge_intents"
JUDGED = "c41f7d20-93b5-4e1a-a6c8-5d2e8f907b31"
#: The line's first 60 characters, which say why.
WHY = "Condition not met: intent = label holds for 8,412 of 10,000 "


def test_page_says_why_the_gate_stays_closed(
    page: Page, airflow: AirflowStandalone, public: tuple[LocalHub, str], shoot: Callable[..., None]
) -> None:
    """A person reads in the log, without scrolling, which condition is not met, and the numbers."""
    answers = Answers(right=0.8412, wrong=0.1588)
    public[0].add_evaluation(JUDGED, seconds=8, rows=10_000, answers=answers)
    airflow.trigger(DAG, "judged", {"evaluation_id": JUDGED})
    assert airflow.wait_for_run(DAG, "judged") == "failed"

    page.goto(f"/dags/{DAG}/runs/judged/tasks/gate")

    error = page.get_by_text(f"AirflowFailException: {WHY}rows (84.1 %), at least 95 % are needed; for instance row ")
    expect(error).to_be_in_viewport()
    expect(
        page.get_by_text(re.compile(r"Checked 10,000 rows: intent is not missing: 10,000 of 10,000"))
    ).to_be_visible()
    assert right_edge_of_text(error, f"AirflowFailException: {WHY}") <= page.viewport_size["width"]
    # Close the traceback, which is Airflow's own and holds paths of this machine. Playwright's click would scroll.
    error.evaluate("element => element.click()")
    expect(page.get_by_text("in execute_complete")).to_be_hidden()
    shoot("gate-judged", log=True)
