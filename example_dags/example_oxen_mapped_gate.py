"""A mapped gate: one gate for each evaluation. How many there are is known only when the DAG runs."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(
    schedule=None,
    params={
        "evaluation_ids": Param(
            type="array",
            items={"type": "string", "pattern": "^[A-Za-z0-9-]+$"},
            minItems=1,
            description="Ids of evaluations, one a line.",
        )
    },
    tags=["oxen", "example"],
)
def example_oxen_mapped_gate() -> None:
    """Wait for all evaluations that the run was started with, then compare them."""

    @task
    def find_evaluations() -> list[str]:
        return get_current_context()["params"]["evaluation_ids"]

    gates = OxenEvaluationSensor.partial(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        timeout=timedelta(hours=6),
        retries=2,
        map_index_template="{{ task.repo_name }}: {{ task.evaluation_id }}",
    ).expand(evaluation_id=find_evaluations())

    @task
    def compare(evaluations: list[dict]) -> dict[str, float]:
        return {evaluation["id"]: evaluation["credits_used"] for evaluation in evaluations}

    compare(gates.output)


example_oxen_mapped_gate()
