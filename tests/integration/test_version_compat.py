"""What this package knows of Airflow's insides, checked on the Airflow that runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Undefined

from airflow_provider_oxen import airflow_names, version_compat
from tests.support.airflow import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_3_PLUS,
    DAG,
    AirflowException,
    BaseOperator,
    Param,
    task,
    task_group,
)

needs_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="used on Airflow 3.3 and later only")

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)


class Task(BaseOperator):
    """Remembers what was known while it was made."""

    def __init__(self, *, x: Any = None, **arguments: Any) -> None:
        self.made_from_mapped = version_compat.is_made_from_mapped(self)
        super().__init__(**arguments)
        self.x = x


def test_version_is_that_of_the_package() -> None:
    """The version is what Airflow says of itself, as text."""
    assert version_compat.airflow_version() == version("apache-airflow")


def test_differences_follow_the_version() -> None:
    """Each question about a version has the right value for the Airflow that runs."""
    major, minor = (int(part) for part in version_compat.airflow_version().split(".")[:2])

    assert version_compat.can_start_and_end_in_triggerer() is ((major, minor) >= (3, 3))
    assert version_compat.execution_timeout_counts_deferral() is (major == 2)


def test_operator_of_one_map_index_is_known_while_it_is_made() -> None:
    """A worker makes the operator of a map index again, and its ``__init__`` can see that."""
    with DAG("d", schedule=None):
        plain = Task(task_id="plain")
        mapped = Task.partial(task_id="mapped").expand(x=[1, 2])

    assert plain.made_from_mapped is False
    assert mapped.unmap({"x": 1}).made_from_mapped is True


@needs_3_3
def test_mapped_tasks_are_known() -> None:
    """A task has several map indexes because of itself, or of the task group that it is in."""
    made: list[BaseOperator] = []

    @task_group
    def group(x: int) -> None:
        made.append(Task(task_id="inner", x=x))

    with DAG("d", schedule=None):
        plain = Task(task_id="plain")
        mapped = Task.partial(task_id="mapped").expand(x=[1, 2])
        group.expand(x=[1, 2])

    assert [version_compat.is_mapped(one) for one in (plain, mapped, *made)] == [False, True, True]
    assert [version_compat.is_in_mapped_group(one) for one in (plain, mapped, *made)] == [False, False, True]


def test_output_of_a_task_is_found() -> None:
    """The output of one task gives the task and the key; anything else gives nothing."""
    with DAG("d", schedule=None):
        plain = Task(task_id="plain")

    assert version_compat.find_output(plain.output) == (plain, "return_value")
    assert version_compat.find_output(plain.output["id"]) == (plain, "id")
    like_an_output = SimpleNamespace(operator=plain, key="id")
    for other in (plain.output.map(str), plain.output.zip(plain.output), "text", 7, None, plain, like_an_output):
        assert version_compat.find_output(other) is None


class _WithMethods(Task):
    def pre_execute(self, context: Any) -> None: ...
    def post_execute(self, context: Any, result: Any = None) -> None: ...


@needs_3_3
def test_hooks_around_a_task_are_found() -> None:
    """What a worker calls before and after a task is an argument of it, or a method of its class."""

    def names(operator: BaseOperator) -> list[str]:
        return [name for name in ("pre_execute", "post_execute") if version_compat.has_hook(operator, name)]

    assert names(Task(task_id="t")) == []
    assert names(Task(task_id="t", pre_execute=print)) == ["pre_execute"]
    assert names(Task(task_id="t", post_execute=print)) == ["post_execute"]
    assert names(_WithMethods(task_id="t")) == ["pre_execute", "post_execute"]


@needs_3_3
def test_params_of_a_task_are_not_those_of_its_dag() -> None:
    """A task has the DAG's params as well, and those are not its own."""
    with DAG("d", schedule=None, params={"id": Param("e")}):
        inherits, adds, replaces = (
            Task(task_id="inherits"),
            Task(task_id="adds", params={"own": 1}),
            Task(task_id="replaces", params={"id": "f"}),
        )

    assert [version_compat.has_own_params(one) for one in (inherits, adds, replaces)] == [False, True, True]


@pytest.mark.parametrize(
    ("settings", "own"),
    [
        ({}, False),
        ({"jinja_environment_kwargs": {"trim_blocks": True}}, True),
        ({"template_undefined": Undefined}, True),
    ],
)
def test_settings_of_jinja_are_found(settings: dict[str, Any], own: bool) -> None:
    """A DAG that sets nothing has the settings of a triggerer."""
    assert version_compat.has_own_jinja_settings(DAG("d", schedule=None, **settings)) is own


@needs_3_3
def test_result_of_a_dag_is_found() -> None:
    """A DAG may name a task whose result is its own."""
    with DAG("d", schedule=None) as dag:
        plain, result = Task(task_id="plain"), Task(task_id="result")
        dag.add_result(result.output)

    assert [version_compat.returns_dag_result(one) for one in (plain, result)] == [False, True]


def test_expansion_over_a_result_is_found() -> None:
    """A task that is expanded over a result is found once it is in the DAG; one that only uses it does not count."""
    assert version_compat.is_expanded_over(Task(task_id="in_no_dag")) is False
    with DAG("d", schedule=None):
        used, expanded = Task(task_id="used"), Task(task_id="expanded")
        use = task(task_id="use")(lambda x: x)
        use(used.output)
        assert version_compat.is_expanded_over(expanded) is False
        use.override(task_id="expand").expand(x=expanded.output)

    assert [version_compat.is_expanded_over(one) for one in (used, expanded)] == [False, True]


def test_listeners_are_found() -> None:
    """A listener counts from the moment at which a plugin adds it."""
    from airflow.listeners.listener import get_listener_manager

    listener, manager = sys.modules[__name__], get_listener_manager()
    assert version_compat.has_listeners() is False
    manager.add_listener(listener)
    try:
        assert version_compat.has_listeners() is True
    finally:
        manager.pm.unregister(listener)


@pytest.mark.parametrize("began_at", [None, NOW])
@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 reads this from its database")
def test_start_of_a_rescheduled_attempt_is_asked_for(began_at: datetime | None) -> None:
    """The start of the attempt is what Airflow says, with the context that it needs for it."""
    context: Any = {}
    context["ti"] = SimpleNamespace(get_first_reschedule_date=lambda given: began_at if given is context else "other")

    assert version_compat.attempt_began_at(context) == began_at


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Trigger timeout" if AIRFLOW_V_3_0_PLUS else "Trigger/execution timeout", "timeout"),
        ("Trigger failure", "failure"),
    ],
)
def test_end_of_a_deferral_by_airflow_is_known(text: str, kind: str) -> None:
    """What Airflow raises where it ended a trigger itself says whether that was its timeout."""
    with pytest.raises(AirflowException) as raised:
        Task(task_id="t").resume_execution("__fail__", {"error": text}, {})

    assert version_compat.deferral_error(raised.value) == kind


@pytest.mark.parametrize("error", [AirflowException("Trigger timeout"), ValueError("Trigger/execution timeout")])
def test_other_errors_are_not_from_a_deferral(error: Exception) -> None:
    """An error of another class is not Airflow's word about a trigger, whatever its text."""
    assert version_compat.deferral_error(error) is None


def test_exception_that_reschedules_has_the_moment() -> None:
    """The exception that reschedules a task is Airflow's own."""
    exception = version_compat.reschedule_exception(NOW)

    assert type(exception).__name__ == "AirflowRescheduleException"
    assert exception.reschedule_date == NOW


def test_import_is_cheap() -> None:
    """To import the module imports nothing that a DAG file with a sensor has not imported."""
    program = """
        import sys
        from tests.support.airflow import BaseSensorOperator
        before = set(sys.modules)
        import airflow_provider_oxen.version_compat
        print(*sorted(set(sys.modules) - before))
    """
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True
    ).stdout

    assert set(loaded.splitlines()[-1].split()) <= {"airflow_provider_oxen", "airflow_provider_oxen.version_compat"}


_DEFERRABLE = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE"


@pytest.mark.parametrize(
    ("in_file", "in_environment", "expected"),
    [
        ({}, None, True),
        ({"default_deferrable": "False"}, None, False),
        ({"default_deferrable": "False", "default_owner": "data"}, None, False),
        ({"default_deferrable": "True"}, None, True),
        ({}, "False", False),
        ({"default_deferrable": "False"}, "True", True),
    ],
)
def test_default_deferrable_is_what_somebody_has_set(
    in_file: dict[str, str], in_environment: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``[operators] default_deferrable`` counts where a person has set it, the environment first."""
    conf = type(airflow_names.conf)()
    conf.read_dict({"operators": in_file})
    monkeypatch.setattr(airflow_names, "conf", conf)
    if in_environment is not None:
        monkeypatch.setenv(_DEFERRABLE, in_environment)

    assert version_compat.default_deferrable() is expected


@pytest.mark.timeout(240)  # two processes import Airflow, on a machine that may be busy
def test_default_deferrable_is_not_what_airflow_writes_by_itself(tmp_path: Path) -> None:
    """Airflow writes ``false`` into each file that it generates: it does not count, and the environment does."""
    program = f"""
        import os
        from airflow.configuration import write_default_airflow_configuration_if_needed
        write_default_airflow_configuration_if_needed()
        from airflow_provider_oxen import version_compat
        print(version_compat.default_deferrable())
        os.environ["{_DEFERRABLE}"] = "False"
        print(version_compat.default_deferrable())
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    for _ in ("it generates the file", "it reads the file"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
            env={**env, "AIRFLOW_HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
        )  # fmt: skip

        assert done.stdout.split()[-2:] == ["True", "False"]
        assert "\ndefault_deferrable = false" in (tmp_path / "airflow.cfg").read_text()
