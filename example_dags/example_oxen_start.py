"""The smallest pipeline that starts an evaluation. Run it with a model. On the public hub, each run costs money."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator


@dag(
    schedule=None,
    params={"model": Param(type="string", minLength=1, description="The model's id on Oxen.ai.")},
    tags=["oxen", "example"],
)
def example_oxen_start() -> None:
    """Start an evaluation, wait until it has completed, then use its results."""
    label = OxenRunEvaluationOperator(
        task_id="label",
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
        timeout=timedelta(hours=6),
        retries=2,
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(label.output)


example_oxen_start()
