"""Gates of team red, each with its connection in another place."""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

COMMON = {
    "namespace": "ox",
    "repo_name": "customer-intents",
    "evaluation_id": "{{ dag_run.conf['evaluation_id'] }}",
    "poke_interval": 0.5,
    "max_wait": 1,
    "retry_window": 5,
    "retries": 0,
}


@dag(schedule=None)
def red_gates() -> None:
    """All wait for one evaluation."""
    OxenEvaluationSensor(task_id="of_no_team", **COMMON)
    OxenEvaluationSensor(task_id="of_the_team", oxen_conn_id="oxen_red", **COMMON)
    OxenEvaluationSensor(task_id="of_the_team_on_worker", oxen_conn_id="oxen_red", deferrable=False, **COMMON)
    OxenEvaluationSensor(task_id="of_the_process", oxen_conn_id="oxen_process", **COMMON)
    OxenEvaluationSensor(task_id="of_the_team_in_variable", oxen_conn_id="oxen_variable", **COMMON)


red_gates()
