"""Each instance of a mapped task is shown under its evaluation's id, unless the user says something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.wait import Outcome, OutcomeReason
from tests.support.airflow import DAG, TaskDeferred
from tests.support.starts import StartingTaskInstance

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub

GATE = {"task_id": "gate", "namespace": "ox", "repo_name": "r"}
START = {
    **GATE,
    "task_id": "label",
    "branch": "main",
    "model": "m",
    "prompt": "p",
    "target_column": "c",
}


def _label(dag: Any, task: Any) -> str:
    """Render the template as Airflow does, before and after a task is executed."""
    return str(dag.get_template_env().from_string(task.map_index_template).render({"task": task}))


def test_instance_of_a_gate_is_named_after_its_evaluation() -> None:
    """The id is known before the gate has polled."""
    with DAG("d", schedule=None) as dag:
        mapped = OxenEvaluationSensor.partial(**GATE).expand(evaluation_id=["e1", "e2"])
        made = mapped.unmap({**GATE, "evaluation_id": "e2", "map_index_template": mapped.map_index_template})

    assert _label(dag, made) == "e2"


def test_instance_of_an_operator_is_named_once_it_has_started(oxen_hub: LocalHub) -> None:
    """The operator has no id at first; the worker that resumes it knows it from the event."""
    with DAG("d", schedule=None) as dag:
        mapped = OxenRunEvaluationOperator.partial(**START).expand(path=["a.csv", "b.csv"])
        named = {**START, "path": "b.csv", "map_index_template": mapped.map_index_template}
        made, resumed = mapped.unmap(named), mapped.unmap(named)
    ti = StartingTaskInstance(map_index=1)

    assert _label(dag, made) == ""
    with pytest.raises(TaskDeferred):
        made.execute({"ti": ti})
    (started,) = oxen_hub.started
    assert _label(dag, made) == started.id
    ref = EvaluationRef("ox", "r", started.id)
    resumed.execute_complete(
        {"ti": ti},
        Outcome(
            OutcomeReason.COMPLETED, ref, Evaluation.from_dict({"id": started.id, "status": "completed"})
        ).to_event(),
    )
    assert _label(dag, resumed) == started.id


@pytest.mark.parametrize("by", ["argument", "default_args of the DAG"])
def test_template_of_the_user_wins(by: str) -> None:
    """An own ``map_index_template`` stays."""
    own = {"map_index_template": "{{ task.repo_name }}"}
    with DAG("d", schedule=None, default_args=own if by != "argument" else {}):
        mapped = OxenEvaluationSensor.partial(**GATE, **(own if by == "argument" else {})).expand(evaluation_id=["e"])

    assert mapped.map_index_template == "{{ task.repo_name }}"


def test_task_that_is_not_mapped_has_no_label() -> None:
    """Its own name says which one it is."""
    assert OxenEvaluationSensor(**GATE, evaluation_id="e").map_index_template is None
