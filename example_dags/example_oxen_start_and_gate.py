"""
Start an evaluation in one task, and wait for it in another. Run the DAG with a model.

The evaluation's id is an XCom of the first task, so the second one may be retried and cleared on every Airflow without
a new start. Before Airflow 3.3 this is the way to have retries while an evaluation runs. On the public hub, each run
costs money.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(
    schedule=None,
    params={"model": Param(type="string", minLength=1, description="The model's id on Oxen.ai.")},
    tags=["oxen", "example"],
)
def example_oxen_start_and_gate() -> None:
    """Start an evaluation, wait for it in a task of its own, then use its results."""
    start = OxenRunEvaluationOperator(
        task_id="start",
        namespace="ox",
        repo_name="customer-intents",
        branch="main",
        path="data/customers.parquet",
        model="{{ params.model }}",
        prompt="Which intent does this message have?\n{message}",
        target_column="intent",
        auto_commit=True,
        target_branch="main",
        target_path="data/intents.parquet",
        wait_for_completion=False,
        retries=0,
    )
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id=start.output["evaluation_id"],
        timeout=timedelta(hours=6),
        retries=3,
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(gate.output)


example_oxen_start_and_gate()
