"""The page of a task that does not know whether it started an evaluation: a person does what its message says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from airflow_provider_oxen.testing import AfterStart, Disconnect, Fault, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone

DAG = "label_intents"


@pytest.fixture
def lost(airflow: AirflowStandalone, public: tuple[LocalHub, str]) -> Iterator[str]:
    """Run the task, and lose the response to its request; yield its page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(public[0], "on_start", Scenario(seconds=2))
        patch.setattr(public[0], "start_faults", [Fault(AfterStart(Disconnect(reset=True)))])
        airflow.trigger(DAG, "lost")
        assert airflow.wait_for_run(DAG, "lost") == "failed"
        yield f"/dags/{DAG}/runs/lost/tasks/label"


def test_lost_evaluation_is_taken_up_by_hand(
    page: Page, lost: str, airflow: AirflowStandalone, public: tuple[LocalHub, str]
) -> None:
    """What the message says can be done in Airflow's pages, word for word; the task then waits for that evaluation."""
    (started,) = public[0].started
    page.goto(lost)
    line = page.get_by_text(re.compile("Not known whether an evaluation was started")).first
    expect(line).to_be_visible()
    message = line.inner_text()
    said = re.search(r"set '(.+?)' in this task's state \(tab (.+?)\) to (\{.*?\}) and clear the task", message)
    assert said is not None, message
    key, tabs, value = said.groups()

    for tab in tabs.split(", "):
        page.get_by_role("link", name=tab, exact=True).click()
    page.get_by_role("row").filter(has_text=key).get_by_role("button", name="Edit Task State Store").click()
    dialog = page.get_by_role("dialog")
    editor = dialog.locator(".monaco-editor").first
    expect(editor).to_contain_text("starting")
    editor.click()
    page.keyboard.press("Control+A")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("text => navigator.clipboard.writeText(text)", value.replace("ITS-ID", started.id))
    page.keyboard.press("Control+V")
    expect(editor).to_contain_text(started.id)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Press shift+c to clear").click()
    dialog.get_by_role("button", name="Confirm").click()
    expect(dialog).to_be_hidden()

    page.get_by_role("link", name="Logs", exact=True).click()
    taken_up = f"No new evaluation: waiting for the one that an earlier attempt started, evaluation {started.id}"
    expect(page.get_by_text(taken_up)).to_be_visible(timeout=90_000)
    assert airflow.wait_for_run(DAG, "lost") == "success"
    assert len(public[0].start_requests) == 1
