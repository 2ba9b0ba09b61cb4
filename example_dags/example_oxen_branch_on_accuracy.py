"""
A branch on how many answers are right: publish them, have a person look at them, or keep the earlier ones.

``soft_fail`` skips the gate if too few answers are right, so nothing fails. The XCom ``results`` has the measured share
all the same. This needs ``pip install "airflow-provider-oxen[results]"``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_oxen.conditions import rows_where
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
def example_oxen_branch_on_accuracy() -> None:
    """Publish from 95 % on, review from 80 % on, and else keep the earlier answers."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        timeout=timedelta(hours=6),
        retries=2,
        conditions=rows_where("intent = label", at_least=0.95),
        soft_fail=True,
    )

    @task.branch(trigger_rule="none_failed")
    def choose() -> str:
        # An evaluation that did not complete has no results.
        results = get_current_context()["ti"].xcom_pull(task_ids="gate", key="results") or {"conditions": []}
        shares = [measured["share"] or 0 for measured in results["conditions"]]
        share = min(shares, default=0)
        if share >= 0.95:
            return "publish"
        return "review" if share >= 0.8 else "keep_earlier_answers"

    @task
    def publish() -> str:
        return "the answers are good"

    @task
    def review() -> str:
        results = get_current_context()["ti"].xcom_pull(task_ids="gate", key="results")
        return f"please look at {results['path']} at {results['version']}"

    @task
    def keep_earlier_answers() -> str:
        return "the earlier answers stay"

    gate >> choose() >> [publish(), review(), keep_earlier_answers()]


example_oxen_branch_on_accuracy()
