"""A task whose first attempt is killed when it has started an evaluation, before it waits for it."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import dag

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.start_store import Ledger

_first_attempt: list[bool] = []
_complete = Ledger.complete


def remember_attempt(context: Any) -> None:
    """Note whether this is the first attempt; Airflow calls this before it executes the task."""
    _first_attempt.append(context["ti"].try_number == 1)


def complete_and_die(self: Ledger, *args: Any) -> None:
    """Complete the record as usual; then kill the process of a first attempt."""
    _complete(self, *args)
    if any(_first_attempt):
        os.kill(os.getpid(), signal.SIGKILL)


Ledger.complete = complete_and_die


@dag(schedule=None)
def started_once() -> None:
    """Start one."""
    OxenRunEvaluationOperator(
        task_id="label",
        namespace="ox",
        repo_name="customer-intents",
        branch="main",
        path="data/customers.parquet",
        model="completed-15s",
        prompt="Which intent is this?\n{text}",
        target_column="intent",
        poke_interval=1,
        retries=2,
        retry_delay=timedelta(seconds=1),
        pre_execute=remember_attempt,
    )


started_once()
