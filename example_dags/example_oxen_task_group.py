"""A task group of two gates: continue only if both evaluations completed. The group is one box in the graph."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, task, task_group

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

PATTERN = "^[A-Za-z0-9-]+$"


@dag(
    schedule=None,
    params={
        "quality": Param(type="string", pattern=PATTERN, description="Id of the evaluation that rates the quality."),
        "safety": Param(type="string", pattern=PATTERN, description="Id of the evaluation that looks for harm."),
    },
    default_args={"retries": 2},
    tags=["oxen", "example"],
)
def example_oxen_task_group() -> None:
    """Wait for two evaluations side by side, then continue."""

    @task_group
    def gates() -> None:
        for name in ("quality", "safety"):
            OxenEvaluationSensor(
                task_id=name,
                namespace="ox",
                repo_name="customer-intents",
                evaluation_id=f"{{{{ params.{name} }}}}",
                timeout=timedelta(hours=6),
            )

    @task
    def publish() -> str:
        return "both evaluations completed"

    gates() >> publish()


example_oxen_task_group()
