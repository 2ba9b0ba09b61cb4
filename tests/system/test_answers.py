"""Gates on what the model answered, in a real Airflow: a line says why they stay closed, an XCom what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.testing import Answers, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DAG = "judged_gates"
WHY = "Condition not met: intent = label holds for 84 of 100 rows (84 %), at least 95 % are needed; for instance row "
GATES = ["sensor", "operator"]


@pytest.fixture(scope="module")
def tasks(real_airflow: AirflowStandalone, hub: LocalHub) -> Iterator[dict[str, dict[str, Any]]]:
    """The tasks of a run in which 84 of 100 answers are right, by name."""
    answers = Answers(right=0.84, wrong=0.16)
    evaluation_id = hub.add_evaluation(seconds=8, rows=100, answers=answers, fields={"target_path": "data/a.parquet"})
    before, hub.on_start = hub.on_start, Scenario(seconds=8, rows=100, answers=answers)
    real_airflow.trigger(DAG, "judged", {"evaluation_id": evaluation_id})
    assert real_airflow.wait_for_run(DAG, "judged") == "failed"
    yield {task["task_id"]: task for task in real_airflow.task_instances(DAG, "judged")}
    hub.on_start = before


@pytest.mark.parametrize("gate", GATES)
def test_one_line_says_why(tasks: dict, real_airflow: AirflowStandalone, gate: str) -> None:
    """The task waited in the triggerer, fails in its first try, and a line of its log has numbers and rows."""
    log = real_airflow.task_log(DAG, "judged", gate)

    assert (tasks[gate]["state"], tasks[gate]["try_number"]) == ("failed", 1)
    assert "This worker is free" in log
    (line,) = {line[line.index(WHY) :] for line in log.splitlines() if WHY in line}
    assert " ≠ " in line
    assert "evaluation completed (100 of 100 rows after " in line
    assert (
        "Checked 100 rows: intent is not missing: 100 of 100 (100.00 %); intent = label: 84 of 100 (84.00 %); " in log
    )


@pytest.mark.parametrize("gate", GATES)
def test_measured_shares_are_an_xcom(tasks: dict, real_airflow: AirflowStandalone, hub: LocalHub, gate: str) -> None:
    """It has the file, its commit, and the share of each condition, though the task failed."""
    results = real_airflow.xcom(DAG, "judged", gate, key="results")

    assert tasks[gate]["state"] == "failed"
    evaluation = hub.status_of(real_airflow.xcom(DAG, "judged", gate, key="evaluation")["id"])
    assert (results["path"], results["version"]) == (evaluation["target_path"], evaluation["closing_commit"]["id"])
    assert results["rows"] == 100
    assert results["conditions"] == [
        {"condition": "intent is not missing", "share": 1.0, "rows": 100, "of": 100, "holds": True},
        {"condition": "intent = label", "share": 0.84, "rows": 84, "of": 100, "holds": False},
        {"condition": "length(intent) > 80", "share": 0.0, "rows": 0, "of": 100, "holds": True},
    ]
