"""Mapped gates over ids of which not all are good."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag, get_current_context, task

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor


@dag(schedule=None, params={"evaluation_ids": []})
def mapped_gates() -> None:
    """The same ids, once strictly and once with ``soft_fail``; evaluations of the latter are others of these names."""

    @task
    def find_evaluations(kind: str) -> list[str]:
        return [f"{name}-{kind}" if "-" in name else name for name in get_current_context()["params"]["evaluation_ids"]]

    common = {"namespace": "ox", "repo_name": "r", "poke_interval": 1, "max_wait": 1, "retries": 2}
    OxenEvaluationSensor.partial(task_id="strict", **common).expand(evaluation_id=find_evaluations("strict"))
    OxenEvaluationSensor.partial(task_id="soft", soft_fail=True, **common).expand(
        evaluation_id=find_evaluations("soft")
    )


mapped_gates()
