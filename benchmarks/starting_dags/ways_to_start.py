# ruff: noqa: INP001  # a folder of DAG files, not a package
"""
One DAG for each way to start a job and wait for it. A run's ``moment`` says where its first attempt stops.

It then waits until it is killed. The moments are found by wrapping functions inside the task's process. Each attempt
also writes its process id into a file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.databricks.hooks.databricks import DatabricksHook
from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator
from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
from airflow.providers.dbt.cloud.operators.dbt import DbtCloudRunJobOperator
from airflow.sdk import DAG, BaseOperator

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.start_store import Ledger

FOLDER = Path(os.environ.get("BENCH_FOLDER", "."))

#: Where this process stops: the moment, and the file that says so.
_stop: dict[str, Any] = {}


def begin(context: Any) -> None:
    """Write the process id, and find out where this attempt stops. Airflow calls this before it runs or resumes."""
    ti, conf = context["ti"], context["dag_run"].conf
    (FOLDER / f"{ti.run_id}.part").write_text(str(os.getpid()))
    (FOLDER / f"{ti.run_id}.part").rename(FOLDER / f"{ti.run_id}.attempt-{ti.try_number}")
    if ti.try_number == 1:
        _stop.update(moment=conf["moment"], file=FOLDER / f"{ti.run_id}.stopped")


def wrap(owner: type, name: str, moment: str, *, after: bool = False) -> None:
    """Let a method stop at a moment: before what it does, or after it."""
    method: Callable[..., Any] = getattr(owner, name)

    def stop() -> None:
        if _stop.get("moment") == moment:
            _stop["file"].touch()
            while True:
                time.sleep(1)

    def wrapped(self: Any, *args: Any, **named: Any) -> Any:
        if not after:
            stop()
        result = method(self, *args, **named)
        if after:
            stop()
        return result

    setattr(owner, name, wrapped)


wrap(Ledger, "complete", "response")
wrap(DatabricksHook, "submit_run", "response", after=True)
wrap(DbtCloudHook, "trigger_job_run", "response", after=True)
wrap(BaseOperator, "defer", "deferring")
for operator in (OxenRunEvaluationOperator, DatabricksSubmitRunOperator, DbtCloudRunJobOperator):
    wrap(operator, "execute_complete", "resuming")

JOB = "{{ dag_run.conf.job }}"
COMMON: dict[str, Any] = {
    "task_id": "job",
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
    "pre_execute": begin,
}
OXEN: dict[str, Any] = {
    **COMMON,
    "namespace": "ox",
    "repo_name": "customer-intents",
    "branch": "main",
    "path": "data/customers.parquet",
    "model": "a-model",
    "prompt": "Which intent is this?\n{text}",
    "target_column": "intent",
    "name": JOB,
    "oxen_conn_id": "{{ dag_run.conf.conn_id }}",
    "poke_interval": 1,
    "max_wait": 1,
}
DATABRICKS: dict[str, Any] = {**COMMON, "polling_period_seconds": 1}
RUN: dict[str, Any] = {
    "run_name": JOB,
    "existing_cluster_id": "a-cluster",
    "notebook_task": {"notebook_path": "/a-notebook"},
}
DBT: dict[str, Any] = {**COMMON, "job_id": JOB, "account_id": 1, "check_interval": 1}

with DAG("oxen", schedule=None):
    OxenRunEvaluationOperator(**OXEN, deferrable=False)

with DAG("oxen_deferrable", schedule=None):
    OxenRunEvaluationOperator(**OXEN, deferrable=True)

with DAG("databricks", schedule=None):
    DatabricksSubmitRunOperator(**DATABRICKS, json=RUN, deferrable=False, durable=True)

with DAG("databricks_token", schedule=None):
    DatabricksSubmitRunOperator(
        **DATABRICKS, json=RUN | {"idempotency_token": "{{ run_id }}"}, deferrable=False, durable=True
    )

with DAG("databricks_deferrable", schedule=None):
    DatabricksSubmitRunOperator(**DATABRICKS, json=RUN, deferrable=True)

with DAG("dbt_cloud", schedule=None):
    DbtCloudRunJobOperator(**DBT, deferrable=False)

with DAG("dbt_cloud_reuse", schedule=None):
    DbtCloudRunJobOperator(**DBT, deferrable=False, reuse_existing_run=True)

with DAG("dbt_cloud_deferrable", schedule=None):
    DbtCloudRunJobOperator(**DBT, deferrable=True)
