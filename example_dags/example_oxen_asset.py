"""
A gate that produces an asset, and a pipeline that runs whenever it does.

The second DAG knows nothing of the first. It is scheduled on the results of the evaluation, and it reads from the
asset's event which evaluation they come from. Run the first DAG with the id of an evaluation that meets the conditions:
all rows were processed, and at most 25 credits were spent.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import Asset, Param, dag, get_current_context, task

from airflow_provider_oxen.conditions import all_rows, max_credits
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

INTENTS = Asset(uri="oxen://hub.oxen.ai/ox/customer-intents/data/intents.parquet?revision=main")


@dag(
    schedule=None,
    params={
        "evaluation_id": Param(
            type="string", pattern="^[A-Za-z0-9-]+$", description="The end of the address of the evaluation's page."
        )
    },
    tags=["oxen", "example"],
)
def example_oxen_asset() -> None:
    """Wait for the evaluation that the run was started with; its results are the asset."""
    OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="customer-intents",
        evaluation_id="{{ params.evaluation_id }}",
        timeout=timedelta(hours=6),
        retries=2,  # used only where trying again can help
        conditions=[all_rows(), max_credits(25)],
        outlets=[INTENTS],
    )


@dag(schedule=[INTENTS], start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), tags=["oxen", "example"])
def example_oxen_asset_consumer() -> None:
    """Use the results, with facts about the evaluation they come from."""

    @task
    def publish() -> list[str]:
        context = get_current_context()
        # Airflow 2 calls them triggering_dataset_events.
        events = context.get("triggering_asset_events") or context["triggering_dataset_events"]
        return [
            f"{event.extra['evaluation_id']}: {event.extra['rows']} rows at {event.extra['commit']}, "
            f"{event.extra['tokens']} tokens, {event.extra['credits']} credits"
            for of_one_asset in events.values()
            for event in of_one_asset
        ]

    publish()


example_oxen_asset()
example_oxen_asset_consumer()
