"""The example that starts an evaluation, but its task waits on the worker. ``make demo`` kills it there."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag, task

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator


@dag(schedule=None, params={"model": ""}, tags=["oxen", "demo"])
def demo_killed_worker() -> None:
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
        deferrable=False,
        poke_interval=1,
        retries=1,
        retry_delay=timedelta(seconds=1),
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(label.output)


demo_killed_worker()
