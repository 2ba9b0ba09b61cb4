"""Run a gate with ``dag.test()``, in a database of its own."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.gate import Gate
from tests.support.airflow import DAG
from tests.support.tasks import Result, make_gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_oxen.wait import Outcome

_DAG_FILE = """
from tests.support.airflow import DAG
from tests.support.tasks import make_gate

with DAG("tested", schedule=None):
    make_gate()
"""


@contextlib.contextmanager
def _airflows_own_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def prepare_database() -> None:
    """Make Airflow's database, and the DAG file whose DAG is known there."""
    from airflow import settings
    from airflow.utils.db import initdb

    folder = Path(settings.DAGS_FOLDER)
    folder.mkdir(exist_ok=True)
    (folder / "tested.py").write_text(_DAG_FILE)
    with _airflows_own_warnings_ignored():
        initdb()


def run_dag_test(evaluation_id: str, **arguments: Any) -> Result:
    """Run a gate to its end with ``dag.test()``: the trigger runs in this process."""
    result = Result()
    conclude = vars(Gate)["_conclude"]

    def concluded(self: Gate, context: Any, outcome: Outcome) -> dict[str, Any]:
        result.sensor = self._task
        try:
            return conclude(self, context, outcome)
        except Exception as error:
            result.raised = error
            raise

    with DAG("tested", schedule=None) as dag:
        make_gate(evaluation_id, **arguments)
    with pytest.MonkeyPatch.context() as patch, _airflows_own_warnings_ignored():
        patch.setattr(Gate, "_conclude", concluded)
        ti = dag.test().get_task_instance("gate")
    assert ti.state == ("success" if result.raised is None else "failed")
    result.returned = ti.xcom_pull("gate")
    result.xcoms = {"evaluation": ti.xcom_pull("gate", key="evaluation")}
    return result
