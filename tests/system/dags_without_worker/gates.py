"""One DAG for each way in which a gate gets its evaluation id, and for each reason to need a worker all the same."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, get_current_context, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

COMMON: dict[str, Any] = {
    "namespace": "ox",
    "repo_name": "customer-intents",
    "start_from_trigger": True,
    "end_from_trigger": True,
    "poke_interval": 0.3,
    "max_wait": 0.5,
    "timeout": 90,
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
}


def conf(name: str = "id") -> Any:
    return get_current_context()["dag_run"].conf[name]


def gate(evaluation_id: Any, **arguments: Any) -> OxenEvaluationSensor:
    return OxenEvaluationSensor(**{"task_id": "gate", "evaluation_id": evaluation_id} | COMMON | arguments)


@task
def find() -> str:
    return conf()


@task(multiple_outputs=True)
def find_among() -> dict[str, str]:
    return {"id": conf(), "other": "not used"}


@task
def find_all() -> list[str]:
    return conf("ids")


@task
def same(evaluation_id: str) -> str:
    return evaluation_id


@task
def use(evaluation: Any) -> str:
    return evaluation["id"]


def note_call(context: Any) -> None:
    context["ti"].xcom_push(key="called", value="the callback was called")


with DAG("conf", schedule=None):
    use(gate("{{ dag_run.conf.id }}").output)

with DAG("param", schedule=None, params={"id": "none"}):
    use(gate("{{ params.id }}", oxen_conn_id="{{ params.get('conn', 'oxen_default') }}").output)

with DAG("output", schedule=None):
    use(gate(find()).output)

with DAG("key_of_output", schedule=None):
    use(gate(find_among()["id"]).output)

with DAG("xcom_pull", schedule=None):
    find() >> gate("{{ ti.xcom_pull(task_ids='find') }}")

with DAG("output_as_text", schedule=None):
    found = find()
    found >> gate(f"{found}")

with DAG("without_xcom", schedule=None):
    gate("{{ dag_run.conf.id }}", do_xcom_push=False)

with DAG("soft_fail", schedule=None):
    gate("{{ dag_run.conf.id }}", soft_fail=True)

with DAG("failing", schedule=None):
    gate("{{ dag_run.conf.id }}", on_failure_callback=note_call)

with DAG("deadline", schedule=None):
    gate("{{ dag_run.conf.id }}", timeout=4)

with DAG("execution_timeout", schedule=None):
    gate("{{ dag_run.conf.id }}", execution_timeout=timedelta(seconds=9))

with DAG("unreachable", schedule=None):
    gate("{{ dag_run.conf.id }}", oxen_conn_id="oxen_unreachable", retry_window=0.5, retries=1)

with DAG("failover", schedule=None):
    gate("{{ dag_run.conf.id }}", timeout=40)

with DAG("ends_on_worker_for_outlets", schedule=None):
    gate(
        "{{ dag_run.conf.id }}",
        outlets=[Asset(name="intents", uri="oxen://hub.oxen.ai/ox/customer-intents/intents.parquet")],
    )

with DAG("ends_on_worker_for_callback", schedule=None):
    gate("{{ dag_run.conf.id }}", on_success_callback=note_call)

with DAG("ends_on_worker_for_expansion", schedule=None):
    same.override(task_id="use").expand(evaluation_id=gate("{{ dag_run.conf.id }}").output)

with DAG("begins_on_worker_for_xcom_list", schedule=None):
    ids = same.expand(evaluation_id=find_all())
    ids >> gate("{{ ti.xcom_pull(task_ids='same')[1] }}")

with DAG("mapped", schedule=None):
    OxenEvaluationSensor.partial(task_id="gate", **COMMON).expand(evaluation_id=find_all())
