"""The smallest gate: continue only if an evaluation completed. Run the DAG with the id of an evaluation."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(
    schedule=None,
    params={
        "evaluation_id": Param(
            type="string", pattern="^[A-Za-z0-9-]+$", description="The end of the address of the evaluation's page."
        )
    },
    tags=["oxen", "example"],
)
def example_oxen_gate() -> None:
    """Wait for the evaluation that the run was started with, then use its results."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        timeout=timedelta(hours=6),
        retries=2,  # used only where trying again can help
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(gate.output)


example_oxen_gate()
