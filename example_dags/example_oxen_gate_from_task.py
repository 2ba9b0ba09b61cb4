"""A gate behind a task: the evaluation's id is what that task returned."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

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
def example_oxen_gate_from_task() -> None:
    """Find out which evaluation to wait for, wait for it, then use its results."""

    @task
    def find_evaluation() -> str:
        # A real task would start the evaluation, or read its id from a table.
        return get_current_context()["params"]["evaluation_id"]

    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id=find_evaluation(),
        timeout=timedelta(hours=6),
        retries=2,
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(gate.output)


example_oxen_gate_from_task()
