"""What an Airflow without a task state store lets a task start; tests/chaos has the others. Delete with Airflow 3.2."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(400),
    pytest.mark.skipif(Version(airflow_version) >= Version("3.3"), reason="this Airflow has a task state store"),
]

DAG_ID = RUN_ID = "started_once"


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"not within 120 s: {what}"
        time.sleep(0.5)


def test_only_first_attempt_starts_an_evaluation(real_airflow: AirflowStandalone, hub: LocalHub) -> None:
    """After a first attempt was killed, the second one refuses; a person's clear starts an evaluation."""

    def posts() -> int:
        return sum(f"{DAG_ID}.label" in json.loads(request.body)["name"] for request in hub.start_requests)

    real_airflow.trigger(DAG_ID, RUN_ID)

    assert real_airflow.wait_for_run(DAG_ID, RUN_ID) == "failed"
    assert posts() == 1
    assert [(task["state"], task["try_number"]) for task in real_airflow.task_instances(DAG_ID, RUN_ID)] == [
        ("failed", 2)
    ]
    log = real_airflow.task_log(DAG_ID, RUN_ID, "label", 2)
    assert f"an earlier attempt came before, and Airflow {airflow_version} keeps nothing" in log
    assert "No other evaluation is started, because each one costs money." in log
    assert "To start a new one, clear the task." in log

    body = {"dry_run": False, "dag_run_id": RUN_ID, "task_ids": ["label"], "only_failed": False, "reset_dag_runs": True}
    real_airflow.post(f"/dags/{DAG_ID}/clearTaskInstances", body)
    wait_until(lambda: posts() == 2, "the second request")

    assert real_airflow.wait_for_run(DAG_ID, RUN_ID) == "success"
    assert posts() == len(hub.started) == 2
    assert "Evaluation started: evaluation" in real_airflow.task_log(DAG_ID, RUN_ID, "label", 3)
