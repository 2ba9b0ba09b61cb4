"""
A gate that needs no worker: it begins in the triggerer and, if the evaluation completes, ends there.

This needs Airflow 3.3. On an older Airflow, and where a listener is installed (for example, OpenLineage), the gate
works, too: it begins or ends on a worker, and a warning says why.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(
    schedule=None,
    params={
        # The default makes it possible: without one, the gate begins on a worker.
        "evaluation_id": Param(
            "the-id-of-an-evaluation",
            type="string",
            pattern="^[A-Za-z0-9-]+$",
            description="The end of the address of the evaluation's page.",
        )
    },
    tags=["oxen", "example"],
)
def example_oxen_gate_without_worker() -> None:
    """Find out which evaluation to wait for, wait for it without a worker, then use its results."""

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
        start_from_trigger=True,
        end_from_trigger=True,
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} rows are in {evaluation['target_path']}"

    publish(gate.output)


example_oxen_gate_without_worker()
