"""
A branch instead of a failure: if the evaluation does not complete, the pipeline goes on in another way.

``soft_fail`` skips the gate instead of failing it. If the hub is out of reach, the gate still fails and may be retried.
"""

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
def example_oxen_branch() -> None:
    """Use the new results if the evaluation completed, and else the earlier ones."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        timeout=timedelta(hours=6),
        retries=2,
        soft_fail=True,
    )

    @task.branch(trigger_rule="none_failed")
    def choose() -> str:
        # Only a gate that opened has a result.
        is_open = get_current_context()["ti"].xcom_pull(task_ids="gate") is not None
        return "use_new_results" if is_open else "keep_earlier_results"

    @task
    def use_new_results() -> str:
        return get_current_context()["ti"].xcom_pull(task_ids="gate")["target_path"]

    @task
    def keep_earlier_results() -> str:
        # The evaluation as the gate last saw it is there, too; None where it never did.
        seen = get_current_context()["ti"].xcom_pull(task_ids="gate", key="evaluation") or {}
        return f"the evaluation is {seen.get('status')}: {seen.get('error_message')}"

    gate >> choose() >> [use_new_results(), keep_earlier_results()]


example_oxen_branch()
