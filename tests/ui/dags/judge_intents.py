"""The gate on answers that the browser shows."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_oxen.conditions import no_missing_answers, rows_where
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None, params={"evaluation_id": ""}, tags=["oxen"])
def judge_intents() -> None:
    """Wait for an evaluation, judge its answers, then use them."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        poke_interval=1,
        max_wait=2,
        conditions=[
            no_missing_answers(),
            rows_where("intent = label", at_least=0.95),
            rows_where("length(intent) > 80", at_most=0),
        ],
    )

    @task
    def publish(evaluation: dict) -> str:
        return evaluation["target_path"]

    publish(gate.output)


judge_intents()
