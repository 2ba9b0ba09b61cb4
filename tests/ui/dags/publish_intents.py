"""The gate that the browser shows. It polls often."""

from __future__ import annotations

from airflow.sdk import dag, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None, params={"evaluation_id": ""}, tags=["oxen"])
def publish_intents() -> None:
    """Wait for an evaluation, then use its results."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        poke_interval=1,
        max_wait=2,
    )

    @task
    def publish(evaluation: dict) -> str:
        return evaluation["target_path"]

    publish(gate.output)


publish_intents()
