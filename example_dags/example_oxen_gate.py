"""The smallest gate: continue only if an evaluation completed. Run the DAG with the id of an evaluation."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None, params={"evaluation_id": ""}, tags=["oxen", "example"])
def example_oxen_gate() -> None:
    """Wait for the evaluation that the run was started with, then use its results."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(gate.output)


example_oxen_gate()
