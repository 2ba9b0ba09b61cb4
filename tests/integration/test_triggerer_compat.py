"""What this package knows of Airflow's triggerer, checked on the Airflow that runs the tests."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger
from jinja2 import UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from airflow_provider_oxen import triggerer_compat
from tests.support.airflow import AIRFLOW_V_3_3_PLUS, BaseOperator

needs_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="used on Airflow 3.3 and later only")

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


class Trigger(BaseTrigger):
    """Is only made, and never run."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "", {}

    async def run(self) -> Any:
        yield None


def test_trigger_outside_of_a_triggerer_is_known() -> None:
    """A trigger that no triggerer set up has no task, no task instance, and no end."""
    trigger = Trigger()

    assert triggerer_compat.runs_in_triggerer(trigger) is False
    assert triggerer_compat.task_instance_of(trigger) is None
    assert triggerer_compat.task_of(trigger) is None
    assert triggerer_compat.trigger_ends_at(trigger) is None


def test_trigger_in_a_triggerer_is_known() -> None:
    """A triggerer gives a trigger its id, its task instance and the time of its end; SQLite's has no time zone."""
    trigger = Trigger()
    trigger.trigger_id = 1
    trigger.task_instance = SimpleNamespace(task_id="t")

    assert triggerer_compat.runs_in_triggerer(trigger) is True
    assert triggerer_compat.task_instance_of(trigger) is trigger.task_instance
    for stored in (NOW, NOW.replace(tzinfo=None)):
        trigger.timeout_after = stored
        assert triggerer_compat.trigger_ends_at(trigger) == NOW


@needs_3_3
def test_trigger_that_began_in_a_triggerer_knows_its_task() -> None:
    """For a wait that began in the triggerer, Airflow gives the task instance its task."""
    trigger = Trigger()
    stored = BaseOperator(task_id="t", execution_timeout=timedelta(seconds=5))
    trigger.task_instance = SimpleNamespace(task_id="t", task=stored)

    assert triggerer_compat.task_of(trigger) is stored


def test_missing_variable_is_an_error() -> None:
    """A variable that is missing is an error, and what is there is rendered."""
    environment = triggerer_compat.refuse_missing_variables(SandboxedEnvironment())

    assert environment.from_string("{{ x }}").render(x="1") == "1"
    with pytest.raises(UndefinedError):
        environment.from_string("{{ x }}").render()
