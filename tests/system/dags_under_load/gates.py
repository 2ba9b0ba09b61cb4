"""A wait of each kind side by side; each evaluation has the name of its task."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

ON_WORKER = {"deferrable": False, "mode": "poke"}
#: Ten minutes is less than a clock moves, and so is an hour.
TIMES = {"poke_interval": 1, "max_wait": 2, "timeout": 3600, "retry_window": 600, "retries": 2}


def gate(name: str, **arguments: Any) -> None:
    """Wait for the evaluation with the name of the task and of the run."""
    named = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": f"{name}-{{{{ dag_run.run_id }}}}"}
    OxenEvaluationSensor(**{"task_id": name, **named, **TIMES, **arguments})


def start() -> None:
    """Start an evaluation and wait for it."""
    OxenRunEvaluationOperator(
        task_id="started",
        namespace="ox",
        repo_name="customer-intents",
        branch="main",
        path="data/customers.parquet",
        model="a-model",
        prompt="Which intent is this?\n{text}",
        target_column="intent",
        **TIMES,
    )


with DAG("under_load", schedule=None):
    gate("deferred")
    gate("deferred_errored")
    gate("without_worker", start_from_trigger=True, end_from_trigger=True)
    gate("poke", **ON_WORKER)
    gate("reschedule", deferrable=False, mode="reschedule", poke_interval=6, max_wait=6)
    start()

with DAG("clock", schedule=None):
    gate("deferred")
    gate("deferred_errored")
    gate("deferred_in_outage")
    gate("without_worker", start_from_trigger=True, end_from_trigger=True)
    gate("poke", **ON_WORKER)
    gate("poke_in_outage", **ON_WORKER)
    start()
