"""Gates that judge the answers: a sensor that waits in the triggerer, and an operator that starts the evaluation."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_oxen.conditions import no_missing_answers, rows_where
from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None, params={"evaluation_id": ""})
def judged_gates() -> None:
    """Judge what was waited for, and what was started here, in the same way."""
    common = {
        "namespace": "ox",
        "repo_name": "customer-intents",
        "poke_interval": 0.5,
        "max_wait": 1,
        "retries": 1,
        "conditions": [
            no_missing_answers(),
            rows_where("intent = label", at_least=0.95),
            rows_where("length(intent) > 80", at_most=0),
        ],
    }
    OxenEvaluationSensor(task_id="sensor", evaluation_id="{{ params.evaluation_id }}", **common)
    OxenRunEvaluationOperator(
        task_id="operator",
        branch="main",
        path="data/customers.parquet",
        model="a model that is right in 84 of 100 rows",
        prompt="Which intent does this message have? {text}",
        target_column="intent",
        auto_commit=True,
        target_branch="main",
        target_path="data/judged.parquet",
        **common,
    )


judged_gates()
