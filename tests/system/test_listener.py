"""A gate that asks to end in the triggerer, in an Airflow with a listener, as OpenLineage installs one."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

DAG = "example_oxen_gate_without_worker"
PLUGIN = textwrap.dedent("""
    import sys
    from airflow.listeners import hookimpl
    from airflow.plugins_manager import AirflowPlugin

    @hookimpl
    def on_task_instance_success(previous_state, task_instance):
        print(f"LISTENER heard that {task_instance.task_id} succeeded")

    class Listening(AirflowPlugin):
        name = "listening"
        listeners = [sys.modules[__name__]]
""")


def test_listener_hears_the_end_of_a_gate(hub: LocalHub, dags_folder: Path, tmp_path: Path) -> None:
    """The DAG is imported, the gate opens, ends on a worker, and the listener hears of it."""
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "listening.py").write_text(PLUGIN)
    env = {"AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri}
    with AirflowStandalone(tmp_path, dags=dags_folder, env=env) as airflow:
        airflow.wait_for_dags({DAG})
        airflow.trigger(DAG, "heard", {"evaluation_id": "completed-3s-heard"})

        assert airflow.wait_for_run(DAG, "heard") == "success"
        text = airflow.task_log(DAG, "heard", "gate")
        workers = list((tmp_path / "logs").glob(f"dag_id={DAG}/run_id=heard/task_id=gate/attempt=1.log"))

    assert len(workers) == 1
    assert "The gate opens." in text
    assert "LISTENER heard that gate succeeded" in text
