"""Fifty gates side by side, and one for the waits that something is done to."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import dag

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

COMMON = {"namespace": "ox", "repo_name": "customer-intents", "poke_interval": 1, "max_wait": 2, "retries": 3}


@dag(schedule=None, max_active_tasks=64)
def fifty_gates() -> None:
    """Evaluations ``gate-00`` to ``gate-49``."""
    OxenEvaluationSensor.partial(task_id="gate", **COMMON).expand(evaluation_id=[f"gate-{n:02}" for n in range(50)])


@dag(schedule=None, params={"evaluation_id": ""})
def one_gate() -> None:
    """Any evaluation."""
    OxenEvaluationSensor(task_id="gate", evaluation_id="{{ params.evaluation_id }}", **COMMON)


@dag(schedule=None, params={"evaluation_id": ""})
def numbered_gate() -> None:
    """An evaluation for each attempt: ``x-1``, then ``x-2``."""
    OxenEvaluationSensor(task_id="gate", evaluation_id="{{ params.evaluation_id }}-{{ ti.try_number }}", **COMMON)


fifty_gates()
one_gate()
numbered_gate()
