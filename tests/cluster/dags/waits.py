"""Waits in every way of waiting, each of which reports its end."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

#: How many waits there are in each way.
WAITS: dict[str, int] = json.loads(os.environ.get("CLUSTER_WAITS", "{}"))
REPORTS = Path(os.environ.get("CLUSTER_REPORTS", "."))


def evaluation_ids(way: str) -> list[str]:
    return [f"{way}-{number:03}" for number in range(WAITS.get(way, 1))]


def report(what: str, context: Any) -> None:
    """Add a line to what a task has reported."""
    ti = context["ti"]
    number = ti.map_index if ti.map_index >= 0 else int(ti.task_id.rpartition("_")[2])
    with (REPORTS / f"{ti.task_id.partition('_')[0]}-{number:03}").open("a") as file:
        file.write(f"{what} {ti.try_number}\n")


def report_failure(context: Any) -> None:
    report("failure", context)


def report_success(context: Any) -> None:
    report("success", context)


COMMON: dict[str, Any] = {
    "namespace": "ox",
    "repo_name": "customer-intents",
    "poke_interval": 5,
    "max_wait": 10,
    "retries": 5,
    "retry_delay": timedelta(seconds=1),
    "on_failure_callback": report_failure,
}
#: What a task has that ends on a worker.
ON_WORKER: dict[str, Any] = {
    "on_success_callback": report_success,
    "outlets": [Asset(name="intents", uri="oxen://hub.oxen.ai/ox/customer-intents/data/intents.parquet")],
}
#: Each poll of a wait that reschedules takes a process of its own.
RESCHEDULED = {"poke_interval": 3 * WAITS.get("reschedule", 1), "max_wait": None}

with DAG("waits", schedule=None, max_active_tasks=1_000):
    for way, arguments in {
        "deferred": {"priority_weight": 3},
        "reschedule": {"priority_weight": 2, "deferrable": False, "mode": "reschedule", **RESCHEDULED},
        "poke": {"priority_weight": 1, "deferrable": False},
    }.items():
        OxenEvaluationSensor.partial(task_id=way, **COMMON | ON_WORKER | arguments).expand(
            evaluation_id=evaluation_ids(way)
        )
    for number, evaluation_id in enumerate(evaluation_ids("triggerer")):
        # Every second one ends in the triggerer, too.
        ending = {"end_from_trigger": True} if number % 2 else ON_WORKER
        OxenEvaluationSensor(
            task_id=f"triggerer_{number}",
            evaluation_id=evaluation_id,
            start_from_trigger=True,
            **COMMON | ending,
        )
    OxenRunEvaluationOperator.partial(
        task_id="operator",
        branch="main",
        model="a-model",
        prompt="Which intent is this?\n{text}",
        target_column="intent",
        priority_weight=3,
        **COMMON | ON_WORKER,
    ).expand(path=[f"data/{evaluation_id}.parquet" for evaluation_id in evaluation_ids("operator")])
