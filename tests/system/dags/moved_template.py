"""Gates whose templates render to something else when their tasks are resumed: a Variable was changed meanwhile."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import Asset, dag

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

RESULTS = Asset(uri="oxen://hub.oxen.ai/ox/customer-intents/data/moved.parquet")


@dag(schedule=None)
def moved_template() -> None:
    """One evaluation that completes, one that errors, and one that goes on while Airflow ends its trigger."""
    common = {
        "oxen_conn_id": "oxen_public",
        "namespace": "ox",
        "repo_name": "{{ var.value.waited_for_repo }}",
        "poke_interval": 0.5,
        "max_wait": 1,
        "retries": 0,
        "outlets": [RESULTS],
    }
    OxenEvaluationSensor(task_id="open", evaluation_id="{{ var.value.waited_for }}-open", **common)
    OxenEvaluationSensor(task_id="failed", evaluation_id="{{ var.value.waited_for }}-failed", **common)
    OxenEvaluationSensor(task_id="timed_out", evaluation_id="{{ var.value.waited_for }}-timed-out", **common)


moved_template()
