"""Gates of each kind, on a local hub that they take for the public one."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None)
def gate_links() -> None:
    """Evaluations ``waiting``, ``errored`` and so on, and two of mapped gates."""
    common = {
        "oxen_conn_id": "oxen_public",
        "namespace": "ox",
        "repo_name": "customer-intents",
        "poke_interval": 0.5,
        "max_wait": 1,
        "retries": 0,
    }
    without_worker = {"start_from_trigger": True, "end_from_trigger": True}
    OxenEvaluationSensor(task_id="waiting", evaluation_id="waiting", **common)
    OxenEvaluationSensor(task_id="poking", evaluation_id="poking", deferrable=False, **common)
    OxenEvaluationSensor(task_id="open", evaluation_id="open", **common)
    OxenEvaluationSensor(task_id="failed", evaluation_id="failed", **common)
    OxenEvaluationSensor(
        task_id="waiting_without_worker", evaluation_id="waiting_without_worker", **common, **without_worker
    )
    OxenEvaluationSensor(task_id="open_without_worker", evaluation_id="open_without_worker", **common, **without_worker)
    OxenEvaluationSensor.partial(task_id="mapped", **common).expand(evaluation_id=["mapped-0", "mapped-1"])
    OxenEvaluationSensor(task_id="unseen", evaluation_id="unknown-id", **common)
    OxenEvaluationSensor(task_id="elsewhere", evaluation_id="completed-0s", **common | {"oxen_conn_id": "oxen_default"})


gate_links()
