"""
A gate that judges the answers, and a pipeline that charts how good they were.

The gate opens only if no answer is missing, at least 95 % equal the label, and none is longer than 80 characters. The
second DAG is scheduled on the results, and reads from the asset's event what the gate measured. This needs
``pip install "airflow-provider-oxen[results]"``.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import Asset, Param, dag, get_current_context, task

from airflow_provider_oxen.conditions import no_missing_answers, rows_where
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

ANSWERS = Asset(uri="oxen://hub.oxen.ai/ox/customer-intents/data/answers.parquet?revision=main")


@dag(
    schedule=None,
    params={
        "evaluation_id": Param(
            type="string", pattern="^[A-Za-z0-9-]+$", description="The end of the address of the evaluation's page."
        )
    },
    tags=["oxen", "example"],
)
def example_oxen_accuracy() -> None:
    """Wait for the evaluation that the run was started with, judge its answers, then use them."""
    gate = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        timeout=timedelta(hours=6),
        retries=2,
        conditions=[
            no_missing_answers(),
            rows_where("intent = label", at_least=0.95),
            rows_where("length(intent) > 80", at_most=0),
        ],
        outlets=[ANSWERS],
    )

    @task
    def publish(evaluation: dict) -> str:
        return f"{evaluation['progress']['processed']} good answers are in {evaluation['target_path']}"

    publish(gate.output)


@dag(schedule=[ANSWERS], start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), tags=["oxen", "example"])
def example_oxen_accuracy_chart() -> None:
    """Read what was measured, one point for each condition."""

    @task
    def chart() -> list[dict]:
        context = get_current_context()
        # Airflow 2 calls them triggering_dataset_events.
        events = context.get("triggering_asset_events") or context["triggering_dataset_events"]
        points = []
        for event in (event for of_one_asset in events.values() for event in of_one_asset):
            for measured in event.extra["results"]["conditions"]:
                point = {
                    "evaluation": event.extra["evaluation_id"],
                    "condition": measured["condition"],
                    "share": measured["share"],
                }
                points.append(point)
        return points  # append them to the table that your chart reads

    chart()


example_oxen_accuracy()
example_oxen_accuracy_chart()
