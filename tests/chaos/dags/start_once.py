"""
Tasks that start an evaluation, and that stop at a chosen moment of it until they may go on.

A run's ``stop`` says at which moments its first attempt stops: it then writes its process ids into a file, and goes on
when another file appears. The moments are found by wrapping functions of the package and of Airflow inside the task's
process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import urllib3
from airflow.sdk import DAG
from airflow.sdk.execution_time import task_runner

from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.start import Starter
from airflow_provider_oxen.start_store import Ledger

FOLDER = Path(os.environ.get("CHAOS_FOLDER", "."))

#: Where this process stops: the moments, and the file that says so.
_stop: dict[str, Any] = {}


def plan_stop(context: Any) -> None:
    """Find out where this attempt stops; Airflow calls this before it executes or resumes the task."""
    ti, stop = context["ti"], context["dag_run"].conf.get("stop") or {}
    _stop["file"] = FOLDER / ti.run_id
    if ti.try_number == 1 and ti.map_index == stop.get("map_index", -1):
        _stop["at"] = stop.get("at") or []


def stop_at(moment: str) -> None:
    """Stop here, if the run's plan says so."""
    if moment not in _stop.get("at", ()):
        return
    file = _stop["file"].with_name(f"{_stop['file'].name}-{moment}")
    file.with_suffix(".part").write_text(json.dumps({"task": os.getpid(), "worker": os.getppid()}))
    file.with_suffix(".part").rename(file.with_suffix(".stopped"))
    while not file.with_suffix(".go").exists():
        time.sleep(0.05)


def wrap(owner: Any, name: str, *, before: str | None = None, after: str | None = None) -> None:
    """Let a method or function stop before or after what it does. What it raises is kept in a file."""
    method: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        if before is not None:
            stop_at(before)
        try:
            result = method(*args, **named)
        except Exception as error:
            if "file" in _stop:
                _stop["file"].with_suffix(f".{name}-raised").write_text(type(error).__name__)
            raise
        if after is not None:
            stop_at(after)
        return result

    setattr(owner, name, wrapped)


wrap(Ledger, "open", before="before", after="a")
wrap(urllib3.connection.HTTPConnection, "getresponse", before="b")
wrap(Ledger, "complete", before="c", after="d")
wrap(task_runner, "finalize", before="e")  # the task's new state is stored, and its process is about to end
wrap(Starter, "complete_record", before="f")

ARGUMENTS: dict[str, Any] = {
    "task_id": "label",
    "namespace": "ox",
    "repo_name": "customer-intents",
    "branch": "main",
    "model": "a-model",
    "prompt": "Which intent is this?\n{text}",
    "target_column": "intent",
    "oxen_conn_id": "{{ dag_run.conf.get('conn_id', 'oxen_default') }}",
    "poke_interval": 2,
    "max_wait": 2,
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
    "pre_execute": plan_stop,
}

for dag_id, changed in {
    "start_once": {},
    "start_once_no_retries": {"retries": 0},
    "start_once_unknown_again": {"on_unknown_start": "start_again"},
    "start_once_clear_again": {"on_clear": "start_again"},
}.items():
    with DAG(dag_id, schedule=None):
        OxenRunEvaluationOperator(**{"path": "data/customers.parquet"} | ARGUMENTS | changed)

with DAG("start_once_mapped", schedule=None):
    OxenRunEvaluationOperator.partial(**ARGUMENTS).expand(path=["data/0.parquet", "data/1.parquet", "data/2.parquet"])
