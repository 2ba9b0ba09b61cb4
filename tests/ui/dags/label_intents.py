"""The task that starts an evaluation, whose response is lost."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator


@dag(schedule=None, tags=["oxen"])
def label_intents() -> None:
    """Start an evaluation, and wait for it."""
    OxenRunEvaluationOperator(
        task_id="label",
        namespace="ox",
        repo_name="customer-intents",
        branch="main",
        path="data/customers.parquet",
        model="a-model",
        prompt="Which intent does this message have?\n{message}",
        target_column="intent",
        poke_interval=1,
        max_wait=2,
    )


label_intents()
