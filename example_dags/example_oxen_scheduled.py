"""
A pipeline that starts an evaluation each day, for the file of that day.

On the public hub, each run costs money. So the DAG is paused at first, and there is one run at a time.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import Param, dag, task

from airflow_provider_oxen.conditions import min_rows
from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    params={"model": Param("YOUR_MODEL", type="string", minLength=1, description="The model's id on Oxen.ai.")},
    tags=["oxen", "example"],
)
def example_oxen_scheduled() -> None:
    """Label the messages of one day, then use the labels."""
    label = OxenRunEvaluationOperator(
        task_id="label",
        namespace="ox",
        repo_name="customer-intents",
        branch="main",
        path="data/messages-{{ ds }}.parquet",
        model="{{ params.model }}",
        prompt="Which intent does this message have?\n{message}",
        target_column="intent",
        auto_commit=True,
        target_branch="main",
        target_path="data/intents-{{ ds }}.parquet",
        conditions=min_rows(0.99),
        timeout=timedelta(hours=6),
        retries=2,
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(label.output)


example_oxen_scheduled()
