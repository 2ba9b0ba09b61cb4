"""A gate's page in Airflow: its log while it waits, why it failed, and its links."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from airflow_provider_oxen.testing import Alter, Fault
from tests.ui.measuring import right_edge_of_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone

DAG = "publish_intents"
WAITING = "d0c8585d-1234-5678-abcd-ef0123456789"
FAILING = "7b52009b-64fd-40a2-8f1a-2c1d3e4f5a6b"
ERROR = "the model returned no answer for row 7,201"
FILES = {
    "resource": {"path": "data/customers.parquet", "version": "5e8c1f0a"},
    "commit_id": "5e8c1f0a",
    "target_branch": "intents",
    "target_path": "data/intents.parquet",
}
PAGES = "https://www.oxen.ai/ox/customer-intents/evaluations"
SOURCE = "https://www.oxen.ai/ox/customer-intents/file/5e8c1f0a/data/customers.parquet"
RESULTS = "https://www.oxen.ai/ox/customer-intents/file/intents/data/intents.parquet"


def _progress(number: int, processed: int, count: int | None = 1) -> Fault:
    """The progress in the response to the n-th request, so that each run of these tests shows the same."""
    status = "running" if processed else "queued"
    return Fault(
        Alter(evaluation={"status": status, "progress": {"processed": processed, "total": 12_000}}), number, count
    )


@pytest.fixture(scope="module")
def runs(airflow: AirflowStandalone, public: tuple[LocalHub, str]) -> dict[str, str]:
    """Start a run whose gate keeps waiting, and one whose gate fails."""
    done = [0, 0, 1_310, 2_950, 4_480, 5_960]
    faults = (*(_progress(n, rows) for n, rows in enumerate(done, 1)), _progress(len(done) + 1, 7_420, None))
    public[0].add_evaluation(WAITING, seconds=3600, rows=12_000, faults=faults, fields=FILES)
    public[0].add_evaluation(FAILING, end="errored", seconds=8, rows=12_000, error_message=ERROR, fields=FILES)
    airflow.trigger(DAG, "failing", {"evaluation_id": FAILING})
    airflow.wait_for_run(DAG, "failing")
    airflow.trigger(DAG, "waiting", {"evaluation_id": WAITING})
    return {name: f"/dags/{DAG}/runs/{name}/tasks/gate" for name in ("waiting", "failing")}


def test_log_shows_progress_while_the_gate_is_deferred(
    page: Page, runs: dict[str, str], shoot: Callable[..., None]
) -> None:
    """A deferred gate's page shows, without a reload, how far the evaluation is."""
    page.goto(runs["waiting"])

    end = rf".*: evaluation {WAITING} of ox/customer-intents is running"
    last = page.get_by_text(re.compile(rf"61\.8 %, .* left \(7,420 of 12,000 rows\){end}"))
    expect(last).to_be_visible(timeout=90_000)
    expect(page.get_by_text(re.compile(rf"37\.3 %, .* left \(4,480 of 12,000 rows\){end}"))).to_be_visible()
    expect(page.get_by_text("Waiting in the triggerer until")).to_be_visible()
    expect(page.get_by_text("Deferred").first).to_be_visible()
    shoot("gate-deferred", log=True)


@pytest.mark.parametrize("run", ["waiting", "failing"])
def test_links_open_evaluation_source_and_results_on_oxen(
    page: Page, runs: dict[str, str], shoot: Callable[..., None], run: str
) -> None:
    """The gate's page links to the evaluation, the source at its version and the results, waiting or failed."""
    page.goto(runs[run])
    page.get_by_role("link", name="Details", exact=True).click()

    evaluation_page = f"{PAGES}/{WAITING if run == 'waiting' else FAILING}"
    evaluation = page.get_by_role("link", name="Evaluation on Oxen")
    source = page.get_by_role("link", name="Source data on Oxen")
    results = page.get_by_role("link", name="Results on Oxen")
    expect(evaluation).to_have_attribute("href", evaluation_page)
    expect(source).to_have_attribute("href", SOURCE)
    expect(results).to_have_attribute("href", RESULTS)
    shoot(f"gate-links-{run}")
    page.context.route("https://www.oxen.ai/**", lambda route: route.fulfill(body="a page of Oxen's"))
    for link, address in ((evaluation, evaluation_page), (source, SOURCE), (results, RESULTS)):
        with page.expect_popup() as opened:
            link.click()
        expect(opened.value).to_have_url(address)
        expect(opened.value.get_by_text("a page of Oxen's")).to_be_visible()
        opened.value.close()


def test_page_of_a_failed_gate_says_why(page: Page, runs: dict[str, str], shoot: Callable[..., None]) -> None:
    """A failed gate's log shows how the evaluation ended, the hub's error message and the evaluation's address."""
    page.goto(runs["failing"])

    error = page.get_by_text(f"AirflowFailException: Evaluation errored: {ERROR} (7,200 of 12,000 rows after")
    expect(error).to_be_visible()
    expect(page.get_by_text(f"{PAGES}/{FAILING}").first).to_be_visible()
    expect(page.get_by_text("Failed").first).to_be_visible()
    # Close the traceback, which is Airflow's own and holds paths of this machine. Playwright's click would scroll.
    error.evaluate("element => element.click()")
    expect(page.get_by_text("in execute_complete")).to_be_hidden()
    shoot("gate-failed", log=True)


def test_graph_shows_what_is_downstream_of_the_gate(
    page: Page, runs: dict[str, str], shoot: Callable[..., None]
) -> None:
    """The graph of a run shows the gate that waits and the task downstream of it."""
    page.goto(runs["waiting"].removesuffix("/tasks/gate"))
    page.get_by_role("button", name="Show Graph").click()

    graph = page.locator(".react-flow")
    expect(graph.get_by_text("gate", exact=True)).to_be_visible()
    expect(graph.get_by_text("Deferred")).to_be_visible()
    expect(graph.get_by_text("publish", exact=True)).to_be_visible()
    shoot("gate-graph")


def test_progress_is_read_beside_the_graph(page: Page, runs: dict[str, str], shoot: Callable[..., None]) -> None:
    """In the narrow log beside the graph, the share of the rows and the minutes left are within the page."""
    page.goto(runs["waiting"].removesuffix("/tasks/gate"))
    page.get_by_role("button", name="Show Graph").click()
    page.goto(runs["waiting"])

    line = page.get_by_text(re.compile(r"61\.8 %, \d+ s left \(7,420 of 12,000 rows\)"))
    expect(line).to_be_visible(timeout=90_000)
    expect(page.locator(".react-flow").get_by_text("publish", exact=True)).to_be_visible()
    log = page.get_by_test_id("virtualized-list")
    edge = min(log.evaluate("element => element.getBoundingClientRect().right"), page.viewport_size["width"])
    shown = re.search(r"61\.8 %, \d+ s", line.inner_text())[0]
    assert right_edge_of_text(line, shown) <= edge
    shoot("gate-beside-graph")
