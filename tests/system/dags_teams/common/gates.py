"""Gates of no team, for triggerers with queues."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

COMMON = {
    "namespace": "ox",
    "repo_name": "customer-intents",
    "evaluation_id": "{{ dag_run.conf['evaluation_id'] }}",
    "poke_interval": 0.5,
    "max_wait": 1,
}


@dag(schedule=None)
def gates_with_queues() -> None:
    """Two whose queue a triggerer has, and one whose queue none has."""
    OxenEvaluationSensor(task_id="default", **COMMON)
    OxenEvaluationSensor(task_id="without_worker", queue="evaluations", start_from_trigger=True, **COMMON)
    OxenEvaluationSensor(task_id="nowhere", queue="nowhere", **COMMON)


gates_with_queues()
