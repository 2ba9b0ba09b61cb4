# ruff: noqa: INP001  # a folder of DAG files, not a package
"""One DAG for each way to wait: a gate, and a task that begins when it opens. All poll every five seconds."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.providers.dbt.cloud.sensors.dbt import DbtCloudJobRunSensor
from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

COMMON: dict[str, Any] = {
    "task_id": "gate",
    "poke_interval": 5,
    "timeout": 600,
    "retries": 10,
    "retry_delay": timedelta(seconds=1),
}
OXEN: dict[str, Any] = {
    **COMMON,
    "namespace": "ox",
    "repo_name": "customer-intents",
    "evaluation_id": "{{ dag_run.conf.id }}",
}
HTTP: dict[str, Any] = {
    **COMMON,
    "http_conn_id": "hub",
    "endpoint": "api/repos/ox/customer-intents/evaluations/{{ dag_run.conf.id }}",
    "response_check": lambda response: response.json()["evaluation"]["status"] == "completed",
}


@task
def after() -> float:
    """Return when it began."""
    return time.time()


@task
def warm_up(number: int) -> int:  # noqa: D103
    time.sleep(2)
    return number


with DAG("oxen_deferred", schedule=None):
    OxenEvaluationSensor(**OXEN) >> after()

with DAG("oxen_without_worker", schedule=None):
    OxenEvaluationSensor(**OXEN, start_from_trigger=True, end_from_trigger=True) >> after()

with DAG("dbt_cloud_deferred", schedule=None):
    DbtCloudJobRunSensor(**COMMON, run_id="{{ dag_run.conf.id }}", account_id=1, deferrable=True) >> after()

with DAG("http_rescheduled", schedule=None):
    HttpSensor(**HTTP, mode="reschedule") >> after()

# With a response_check it pokes all the same, and holds its worker.
with DAG("http_deferrable", schedule=None):
    HttpSensor(**HTTP, deferrable=True) >> after()

# Airflow's workers import most of what they need with their first task.
with DAG("warm_up", schedule=None):
    warm_up.expand(number=list(range(8)))
