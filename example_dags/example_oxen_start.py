"""The smallest pipeline that starts an evaluation. Run it with a model. On the public hub, each run costs money."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator


@dag(schedule=None, params={"model": ""}, tags=["oxen", "example"])
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
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(label.output)


example_oxen_start()
