"""A gate in each way of waiting, for the same evaluation, with retries that a final failure must not use."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


def remember(context: dict) -> None:
    """Say in the log what a failure callback finds of the evaluation."""
    evaluation = context["ti"].xcom_pull(task_ids=context["ti"].task_id, key="evaluation")
    print(f"CALLBACK {evaluation['status']} {evaluation['progress']['processed']}")


@dag(schedule=None, params={"evaluation_id": "", "timeout": 0})
def gate_in_each_way() -> None:
    """Wait deferred, by poking and by rescheduling; by templates over params, dag_run.conf and xcom_pull."""

    @task
    def find_evaluation(params: dict | None = None) -> dict[str, str]:
        return {"id": params["evaluation_id"]}

    found = find_evaluation()
    common = {
        "namespace": "ox",
        "repo_name": "{{ dag_run.conf.get('repo_name', 'customer-intents') }}",
        "poke_interval": 0.5,
        "max_wait": 1,
        "retries": 2,
        "retry_delay": timedelta(seconds=1),
        "on_failure_callback": remember,
    }
    gates = [
        OxenEvaluationSensor(task_id="deferred", evaluation_id=found["id"], **common),
        OxenEvaluationSensor(
            task_id="poke", evaluation_id="{{ params.evaluation_id }}", deferrable=False, mode="poke", **common
        ),
        OxenEvaluationSensor(
            task_id="reschedule",
            evaluation_id="{{ ti.xcom_pull(task_ids='find_evaluation')['id'] }}",
            deferrable=False,
            mode="reschedule",
            # Airflow 3.3 takes a worker for killed if it learns of its end only after its task was scheduled again.
            **common | {"poke_interval": 6},
        ),
        OxenEvaluationSensor(task_id="soft", evaluation_id="{{ params.evaluation_id }}", soft_fail=True, **common),
        OxenEvaluationSensor(
            task_id="short", evaluation_id="never-{{ dag_run.run_id }}", timeout=timedelta(seconds=10), **common
        ),
    ]

    @task(trigger_rule="none_failed")
    def go_on() -> None:
        """Only after an open gate."""

    found >> gates
    gates[0] >> go_on()


gate_in_each_way()
