"""``[operators] default_deferrable``: each task follows it, unless the DAG says something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from tests.support.airflow import DAG
from tests.support.starts import make_operator
from tests.support.tasks import FakeTaskInstance, RescheduleException, make_gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub

MAKERS = pytest.mark.parametrize("make", [make_gate, make_operator])


def _set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", value)


@MAKERS
@pytest.mark.parametrize(("value", "expected"), [(None, True), ("False", False), ("True", True)])
def test_task_follows_the_configuration(
    make: Callable[..., Any], value: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that does not say how it waits follows the configuration; where that is not set, it is deferrable."""
    if value is not None:
        _set(monkeypatch, value)

    assert make().deferrable is expected
    assert make(deferrable=None).deferrable is expected


@MAKERS
@pytest.mark.parametrize("value", ["False", "True"])
def test_argument_wins(make: Callable[..., Any], value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument of the task, and one of ``default_args``, count before the configuration."""
    _set(monkeypatch, value)

    assert make(deferrable=True).deferrable is True
    assert make(deferrable=False).deferrable is False
    assert make(default_args={"deferrable": value == "False"}).deferrable is (value == "False")


def test_mapped_task_follows_the_configuration_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker makes the task for a map index: the configuration counts there, and an argument of ``partial`` wins."""
    _set(monkeypatch, "False")
    made = {}
    for name, arguments in {"by configuration": {}, "by argument": {"deferrable": True}}.items():
        with DAG(name.replace(" ", "_"), schedule=None):
            mapped = OxenEvaluationSensor.partial(task_id="gate", namespace="ox", repo_name="r", **arguments).expand(
                evaluation_id=["e"]
            )
            made[name] = mapped.unmap(
                {"task_id": "gate", "namespace": "ox", "repo_name": "r", "evaluation_id": "e", **arguments}
            )

    assert {name: task.deferrable for name, task in made.items()} == {"by configuration": False, "by argument": True}


def test_waits_on_a_worker_as_mode_says(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the configuration says no triggerer, ``mode`` counts, and nothing is deferred."""
    _set(monkeypatch, "False")

    with pytest.raises(RescheduleException):
        make_gate(oxen_hub.add_evaluation(seconds=60), mode="reschedule").execute({"ti": FakeTaskInstance()})
