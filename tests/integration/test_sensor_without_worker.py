"""Gates that begin or end in the triggerer: what is decided while a DAG file is parsed, and what the trigger does."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from jinja2 import Undefined, UndefinedError

from airflow_provider_oxen import version_compat
from airflow_provider_oxen.conditions import all_rows
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.parameters import TriggerArguments
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.start_end import BACKSTOP, find_deadline
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from airflow_provider_oxen.wait import Outcome, OutcomeReason
from tests.support.airflow import DAG, BaseOperator, Param, task, task_group
from tests.support.links import ADDRESSES, addresses_of
from tests.support.public_hub import public_hub
from tests.support.tasks import FakeTaskInstance as TaskInstanceWithXComs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub

needs_3_3 = pytest.mark.skipif(not version_compat.can_start_and_end_in_triggerer(), reason="this Airflow cannot do it")

BOTH = {"start_from_trigger": True, "end_from_trigger": True}


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, params={"id": "e"}) as dag:
        task(task_id="find", multiple_outputs=True)(lambda: {"id": "e"})()
        task(task_id="mapped")(lambda x: x).expand(x=[1, 2])
        yield dag


def gate(evaluation_id: Any = "e", **arguments: Any) -> OxenEvaluationSensor:
    named: dict[str, Any] = {"task_id": "gate", "namespace": "ox", "repo_name": "r", "evaluation_id": evaluation_id}
    return OxenEvaluationSensor(**named | BOTH | arguments)


def gate_and_warnings(evaluation_id: Any = "e", **arguments: Any) -> tuple[OxenEvaluationSensor, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = gate(evaluation_id, **arguments)
    return made, [str(warning.message) for warning in caught]


def rendered_by_triggerer(sensor: OxenEvaluationSensor, **context: Any) -> OxenEvaluationTrigger:
    """Do with what Airflow stores of the sensor what a triggerer does: make the trigger and render its templates."""
    from airflow.serialization.serialized_objects import BaseSerialization, DagSerialization

    stored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(sensor.dag)))).get_task("gate")
    assert stored.start_from_trigger is True
    trigger = OxenEvaluationTrigger(**BaseSerialization.deserialize(stored.start_trigger_args.trigger_kwargs))
    trigger.task_instance = FakeTaskInstance(stored)
    trigger.render_template_fields({"ti": (ti := trigger.task_instance), "task_instance": ti, **context})
    return trigger


@dataclass
class FakeTaskInstance:
    """A task instance in a triggerer, where reading XComs without ``map_indexes`` would hang."""

    task: Any = None
    task_id: str = "gate"
    dag_id: str = "d"
    run_id: str = "r"
    map_index: int = -1
    try_number: int = 1

    def xcom_pull(self, task_ids: str, dag_id: str | None = None, key: str = "return_value", **more: Any) -> str:
        assert dag_id in (None, "d")
        assert more == {"map_indexes": -1}
        return f"{key} of {task_ids}"


@dataclass
class FakeComms:
    """The triggerer's connection to Airflow, as far as XComs go."""

    refuse: bool = False
    sent: list[Any] = field(default_factory=list)
    noted: Callable[[], Any] = lambda: None
    notes: list[Any] = field(default_factory=list)

    async def asend(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import XComResult

        if type(message).__name__ != "SetXCom":  # other things go on this way as well
            return XComResult(key="waits_for", value=None) if type(message).__name__ == "GetXCom" else None
        if self.refuse:
            raise ConnectionError("Airflow is down")
        self.sent.append(message)
        self.notes.append(self.noted())
        return None


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> FakeComms:
    from airflow.sdk.execution_time import task_runner

    comms = FakeComms()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return comms


@needs_3_3
def test_gate_with_conditions_may_begin_in_the_triggerer() -> None:
    """``conditions`` take a worker at the end of the wait, not at its start."""
    made, warned = gate_and_warnings(conditions=all_rows(), end_from_trigger=False)

    assert warned == []
    assert made.start_from_trigger is True
    assert made.start_trigger_args.trigger_kwargs["end_from_trigger"] is False


@needs_3_3
async def test_links_are_stored_from_the_triggerer(comms: FakeComms, tmp_path: Path, monkeypatch: Any) -> None:
    """A wait that no worker began stores the links after its first poll, and at its end those that changed."""
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)
        evaluation_id = hub.add_evaluation(seconds=0.3)
        comms.noted = lambda: hub.requests_for(evaluation_id)

        await _event(_trigger(evaluation_id, namespace="ox", repo_name="customer-intents"))

        waiting, ended = addresses_of(hub, evaluation_id, closed=False), addresses_of(hub, evaluation_id)
    stored = list(zip(comms.sent, comms.notes, strict=True))
    links = [(message.key, message.value, polls) for message, polls in stored if message.key.startswith("_link_")]
    assert links[:3] == [(key, value, 1) for key, value in waiting.items()]
    assert [(key, value) for key, value, _ in links[3:]] == [
        (key, value) for key, value in ended.items() if value != waiting[key]
    ]
    assert waiting != ended


@needs_3_3
@pytest.mark.parametrize(("try_number", "stored"), [(1, {}), (2, dict.fromkeys(ADDRESSES, ""))])
async def test_links_of_an_earlier_attempt_are_removed(
    oxen_hub: LocalHub, comms: FakeComms, try_number: int, stored: dict[str, str]
) -> None:
    """Where there is no address, nothing is stored in a first attempt; in a later one, what was there is removed."""
    trigger = _trigger(oxen_hub.add_evaluation(seconds=0.2))
    trigger.task_instance.try_number = try_number

    await _event(trigger)

    links = [(message.key, message.value) for message in comms.sent if message.key in ADDRESSES]
    assert links == list(stored.items())


@needs_3_3
async def test_wait_goes_on_where_links_cannot_be_stored(comms: FakeComms, tmp_path: Path, monkeypatch: Any) -> None:
    """An Airflow that does not store links does not end the wait."""
    comms.refuse = True
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)

        event = await _event(_trigger(hub.add_evaluation(seconds=0.3)))

    assert event.payload["outcome"] == "completed"


@needs_3_3
def test_triggerer_gets_every_argument() -> None:
    """What the scheduler makes the trigger from has each argument, as plain JSON; Airflow's own timeout is later."""
    made, warned = gate_and_warnings(
        oxen_conn_id="c", poke_interval=3, max_wait=4, timeout=100, retry_window=5, do_xcom_push=False
    )

    args = made.start_trigger_args
    assert warned == []
    assert (made.start_from_trigger, made.end_from_trigger) == (True, True)
    assert args is not None
    assert (args.next_method, args.next_kwargs) == ("execute_complete", None)
    assert args.timeout == timedelta(seconds=100) + BACKSTOP
    assert json.loads(json.dumps(args.trigger_kwargs)) == {
        "namespace": "ox",
        "repo_name": "r",
        "evaluation_id": "e",
        "oxen_conn_id": "c",
        "poke_interval": 3.0,
        "max_wait": 4.0,
        "deadline": None,
        "retry_window": 5.0,
        "timeout": 100.0,
        "end_from_trigger": True,
        "do_xcom_push": False,
        "started_here": False,
        "is_recorded": False,
        "last_seen": None,
        "seen_at": None,
    }
    trigger = OxenEvaluationTrigger(**args.trigger_kwargs)
    assert trigger.serialize()[1] == args.trigger_kwargs == TriggerArguments(**args.trigger_kwargs).to_dict()
    assert (
        f"{trigger.__class__.__module__}.{trigger.__class__.__qualname__}" == args.trigger_cls == trigger.serialize()[0]
    )


@needs_3_3
def test_silent_fail_reaches_the_triggerer() -> None:
    """With ``silent_fail`` there is no retry window but the deadline, in the triggerer as well."""
    args = gate(silent_fail=True).start_trigger_args

    assert args is not None
    assert args.trigger_kwargs is not None
    assert args.trigger_kwargs["retry_window"] is None


@pytest.mark.parametrize(("start", "end"), [(True, False), (False, True), (False, False)])
@needs_3_3
def test_start_and_end_are_independent(start: bool, end: bool) -> None:
    """A gate may begin in the triggerer and end on a worker, or the other way round."""
    made = gate(start_from_trigger=start, end_from_trigger=end)

    assert (made.start_trigger_args is not None, made.start_from_trigger, made.end_from_trigger) == (start, start, end)


@needs_3_3
@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("plain", "plain"),
        ("{{ dag_run.conf.id }}", "conf-id"),
        ("{{ dag_run.conf['id'] | lower }}", "conf-id"),
        ("{% if params.id %}{{ params.id }}{% else %}{{ run_id }}{% endif %}", "param-id"),
        ("{{ ti.xcom_pull('find') }}", "return_value of find"),
        ("{{ ti.xcom_pull(task_ids='find', key='id', ) }}", "id of find"),
        ("{{ task_instance.xcom_pull(task_ids='find', dag_id='d', key='return_value') }}", "return_value of find"),
        (
            "{{ ti.xcom_pull('find', key=params.id) ~ '-' ~ ti.xcom_pull('find') }}",
            "param-id of find-return_value of find",
        ),
        ("{{ (ti.xcom_pull('find', key=(params.id)) or 'x') | trim }}", "param-id of find"),
        ("{{ ti.xcom_pull('mapped', map_indexes=-1) }}", "return_value of mapped"),
        ("{{ logical_date | ds_nodash }}", "20260102"),
        ("{# a comment with xcom_pull( #}{{ ti.xcom_pull('find') -}} ", "return_value of find"),
    ],
)
def test_template_is_rendered_in_the_triggerer(dag: DAG, template: str, rendered: str) -> None:
    """What works in a triggerer goes there, with ``map_indexes`` for each ``xcom_pull`` that has none."""
    made, warned = gate_and_warnings(template)

    assert warned == []
    run = type("Run", (), {"conf": {"id": "conf-id"}})
    logical_date = datetime(2026, 1, 2, tzinfo=timezone.utc)
    trigger = rendered_by_triggerer(made, dag_run=run, params={"id": "param-id"}, run_id="r", logical_date=logical_date)
    assert trigger.evaluation_id == rendered
    assert made.dag is dag


@needs_3_3
@pytest.mark.parametrize("template", ["eval-{{ dag_run.conf.missing }}", "eval-{{ ds }}", "eval-{{ params.missing }}"])
@pytest.mark.usefixtures("dag")
def test_missing_variable_is_an_error_in_the_triggerer(template: str) -> None:
    """A variable that a run lacks (``ds`` of a manual run, say) never leaves the id of another evaluation behind."""
    made, _ = gate_and_warnings(template)
    assert made.start_trigger_args is not None

    with pytest.raises(UndefinedError):
        rendered_by_triggerer(made, dag_run=type("Run", (), {"conf": {}}), params={})


@needs_3_3
@pytest.mark.parametrize(
    ("settings", "template", "reason"),
    [
        ({"user_defined_filters": {"lower": str.upper}}, "{{ run_id | lower }}", "No filter named 'lower'"),
        ({"jinja_environment_kwargs": {"trim_blocks": True}}, "{{ run_id }}", "the DAG's own settings of Jinja"),
        ({"template_undefined": Undefined}, "{{ dag_run.conf.id }}", "the DAG's own settings of Jinja"),
    ],
)
def test_settings_of_the_dag_need_a_worker(settings: dict[str, Any], template: str, reason: str) -> None:
    """What a DAG sets for its templates is known on a worker only, so a gate with a template begins there."""
    with DAG("d", schedule=None, **settings):
        made, warned = gate_and_warnings(template)
        plain, unwarned = gate_and_warnings("plain", task_id="plain")

    assert made.start_trigger_args is None
    assert [reason in text for text in warned] == [True]
    assert plain.start_trigger_args is not None
    assert unwarned == []


@needs_3_3
@pytest.mark.usefixtures("dag")
def test_subclass_may_have_template_fields_of_its_own() -> None:
    """A subclass may add template fields, and set them when it likes: the trigger gets those it knows."""

    class Gate(OxenEvaluationSensor):
        template_fields = (*OxenEvaluationSensor.template_fields, "title")

        def __init__(self, *, title: str, **named: Any) -> None:
            super().__init__(**named)
            self.title = title

    made = Gate(task_id="gate", namespace="ox", repo_name="r", evaluation_id="e", title="{{ ds }}", **BOTH)

    assert rendered_by_triggerer(made).evaluation_id == "e"


@needs_3_3
def test_output_of_a_task_is_rendered_in_the_triggerer(dag: DAG) -> None:
    """A task's output, a key of it and its form as text are rewritten to a template that a triggerer can render."""
    output = dag.get_task("find").output
    for value, rendered in ((output, "return_value of find"), (output["id"], "id of find"), (f"{output}", None)):
        made, warned = gate_and_warnings(value)

        assert warned == []
        assert rendered_by_triggerer(made).evaluation_id == (rendered or "return_value of find")
        dag.task_dict.pop("gate")
        dag.task_group.children.pop("gate")
        dag.task_group.used_group_ids.discard("gate")


@needs_3_3
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ var.value.id }}", "is a template with var, which only a worker is known to render"),
        ("{{ prev_start_date_success }}", "is a template with prev_start_date_success"),
        ("{{ dag_run.conf.id | mine }}", "that only a worker may be able to render (No filter named 'mine'."),
        ("{{ dag_run.conf.id", "that only a worker may be able to render"),
        ("{{ ti.try_number }}", "uses ti for more than xcom_pull"),
        ("{% set x = ti %}{{ x.xcom_pull('find') }}", "uses ti for more than xcom_pull"),
        ("{{ ti.xcom_pull('mapped')[0] }}", "comes from a mapped task (mapped)"),
        ("{{ ti.xcom_pull('unknown') }}", "xcom_pull from 'unknown', which no earlier line of the DAG file defines"),
        ("{{ ti.xcom_pull(params.id) }}", "xcom_pull from other than one task of this DAG"),
        ("{{ ti.xcom_pull(['find', 'find']) }}", "xcom_pull from other than one task of this DAG"),
        ("{{ ti.xcom_pull('find', dag_id='other') }}", "xcom_pull from other than one task of this DAG"),
        ("{{ ti.xcom_pull() }}", "xcom_pull from other than one task of this DAG"),
        ("{{ ti.xcom_pull(*params.id) }}", "only known on a worker"),
        ("{{ ti.xcom_pull('mapped', map_indexes=[0, 1]) }}", "map_indexes other than one number"),
        ("{{ (ti.xcom_pull)('find') }}", "in a form that only a worker is known to render"),
        ("{{ (ti.xcom_pull)('find') ~ ti.xcom_pull('find') }}", "in a form that only a worker is known to render"),
        ("{% include 'id.txt' %}", "reads another one"),
        ("{% import 'ids.j2' as ids %}{{ ids.one() }}", "reads another one"),
        ("{% from 'ids.j2' import one %}{{ one() }}", "reads another one"),
        ("{% extends 'id.txt' %}", "reads another one"),
    ],
)
@pytest.mark.usefixtures("dag")
def test_template_that_may_hang_goes_to_a_worker(template: str, reason: str) -> None:
    """Any template that is not known to work in a triggerer is rendered on a worker, and one warning says why."""
    made, warned = gate_and_warnings(template)

    assert len(warned) == 1
    assert warned[0].startswith("DAG 'd', task 'gate': start_from_trigger has no effect here: evaluation_id ")
    assert reason in warned[0]
    assert (made.start_from_trigger, made.start_trigger_args, made.end_from_trigger) == (False, None, True)
    assert made.evaluation_id == template


@needs_3_3
def test_output_that_is_no_single_value_goes_to_a_worker(dag: DAG) -> None:
    """The outputs of mapped tasks, and outputs that Python code changes, are resolved on a worker."""
    find, mapped = dag.get_task("find").output, dag.get_task("mapped").output
    for number, value in enumerate((mapped, find.map(str), find.zip(find))):
        made, warned = gate_and_warnings(value, task_id=f"gate_{number}")

        assert made.start_trigger_args is None
        assert len(warned) == 1
        assert "only a worker" in warned[0]


def _nothing(*_: Any) -> None: ...


@needs_3_3
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"on_execute_callback": _nothing}, "on_execute_callback"),
        ({"pre_execute": _nothing}, "pre_execute"),
        ({"params": {"own": 1}}, "params of the task's own"),
        ({"params": {"id": 1}}, "params of the task's own"),
        ({"evaluation_id": "{{ params.id }}", "render_template_as_native_obj": True}, "native"),
    ],
)
@pytest.mark.usefixtures("dag")
def test_start_that_needs_a_worker(arguments: dict[str, Any], reason: str) -> None:
    """Where Airflow does something at the start of a task on a worker only, the wait begins there, with a warning."""
    made, warned = gate_and_warnings(**arguments)

    assert (made.start_from_trigger, made.start_trigger_args, made.end_from_trigger) == (False, None, True)
    assert len(warned) == 1
    assert warned[0].startswith("DAG 'd', task 'gate': start_from_trigger has no effect here: ")
    assert reason in warned[0]


@needs_3_3
@pytest.mark.parametrize("param", [Param(type="string"), Param("", type="string", minLength=1)])
def test_gate_begins_on_a_worker_where_a_param_has_no_value(param: Param) -> None:
    """Airflow's triggerer would end, with all of its waits, before it reads the values of the run."""
    with DAG("d", schedule=None, params={"id": param}):
        made, warned = gate_and_warnings("{{ params.id }}")

    assert made.start_trigger_args is None
    reason = "a param of the DAG has no default, or one that its schema does not allow"
    assert warned == [f"DAG 'd', task 'gate': start_from_trigger has no effect here: {reason}"]


@needs_3_3
def test_gate_begins_on_a_worker_where_triggerers_have_queues(dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow gives a trigger that no worker made no queue, and then no triggerer with ``--queues`` would run it."""
    monkeypatch.setenv("AIRFLOW__TRIGGERER__QUEUES_ENABLED", "True")

    made, warned = gate_and_warnings(dag=dag)

    assert not made.start_from_trigger
    assert made.start_trigger_args is None
    assert made.end_from_trigger
    reason = "[triggerer] queues_enabled is set, and triggerers with --queues do not run what begins there"
    assert warned == [f"DAG 'd', task 'gate': start_from_trigger has no effect here: {reason}"]


@needs_3_3
def test_what_is_set_after_init_counts_for_the_start() -> None:
    """A cluster policy, or a later line of the DAG file, sets other ids: Airflow makes the trigger from those."""
    made = gate("e-1")

    made.oxen_conn_id, made.namespace, made.evaluation_id = "other", "another", "{{ params.id }}"

    arguments = made.start_trigger_args.trigger_kwargs
    assert (arguments["oxen_conn_id"], arguments["namespace"]) == ("other", "another")
    assert arguments["evaluation_id"] == gate("{{ params.id }}").start_trigger_args.trigger_kwargs["evaluation_id"]


@needs_3_3
@pytest.mark.parametrize(
    ("name", "value"),
    [("deferrable", False), ("on_execute_callback", [print]), ("evaluation_id", "{{ ti.start_date }}")],
)
def test_task_that_needs_a_worker_after_init_begins_on_one(
    oxen_hub: LocalHub, logged: Callable[[], str], name: str, value: Any
) -> None:
    """Where what is set later needs a worker, Airflow gets nothing to begin from, and the worker's log says why."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    made = gate(evaluation_id)

    setattr(made, name, value)

    assert made.start_trigger_args is None
    if name == "evaluation_id":  # as it is rendered on the worker, it would do
        return
    made.execute({"ti": TaskInstanceWithXComs()})
    assert "Airflow begins a task with what a cluster policy, or a later line of its DAG file, has set" in logged()


@needs_3_3
@pytest.mark.parametrize("mapped", [False, True])
def test_worker_that_begins_all_the_same_says_why(
    oxen_hub: LocalHub, logged: Callable[[], str], *, mapped: bool
) -> None:
    """A worker gets such a task where it is mapped, and where ``airflow dags test`` runs it: the log says which."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    made = gate(evaluation_id)
    if mapped:
        named = {"task_id": "mapped", "namespace": "ox", "repo_name": "r", **BOTH}
        expanded = OxenEvaluationSensor.partial(**named).expand(evaluation_id=[evaluation_id])
        made = expanded.unmap({**named, "evaluation_id": evaluation_id})

    made.execute({"ti": TaskInstanceWithXComs()})

    why = "a mapped task" if mapped else "a task that `airflow dags test` or `airflow tasks test` runs"
    assert f"start_from_trigger has no effect here: Airflow begins {why} on a worker." in logged()


@needs_3_3
@pytest.mark.usefixtures("dag")
def test_gate_in_a_mapped_group_begins_on_a_worker() -> None:
    """In a mapped task group, a gate begins on a worker: there is one for each of several evaluations."""
    made: list[OxenEvaluationSensor] = []

    @task_group
    def group(evaluation_id: str) -> None:
        made.append(gate(evaluation_id))

    with pytest.warns(UserWarning, match=r"start_from_trigger has no effect here: a task in a mapped task group"):
        group.expand(evaluation_id=["a", "b"])

    assert made[0].start_trigger_args is None


@needs_3_3
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"outlets": ["an outlet"]}, "outlets"),
        ({"on_success_callback": _nothing}, "on_success_callback"),
        ({"multiple_outputs": True}, "multiple_outputs"),
        ({"post_execute": _nothing}, "post_execute"),
    ],
)
def test_end_that_needs_a_worker(arguments: dict[str, Any], reason: str) -> None:
    """Where something would be lost if the task ended in the triggerer, it ends on a worker, with a warning."""
    made, warned = gate_and_warnings(**arguments)

    assert len(warned) == 1
    assert warned[0].startswith("Task 'gate': end_from_trigger has no effect here: only a worker ")
    assert reason in warned[0]
    assert made.end_from_trigger is False
    assert made.start_trigger_args is not None
    assert made.start_trigger_args.trigger_kwargs is not None
    assert made.start_trigger_args.trigger_kwargs["end_from_trigger"] is False


@needs_3_3
def test_end_with_another_xcom_backend_needs_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an XCom backend of one's own, the result is stored on a worker."""
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "my.Backend")

    made, warned = gate_and_warnings()

    assert made.end_from_trigger is False
    assert ["[core] xcom_backend" in text for text in warned] == [True]


@needs_3_3
def test_listener_does_not_break_the_import(tmp_path: Path) -> None:
    """With a listener installed, Airflow imports the DAG file all the same, and one warning says what is different."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.listeners.listener import get_listener_manager

    (tmp_path / "gates.py").write_text(
        textwrap.dedent(
            """
            from airflow.sdk import DAG
            from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor

            with DAG("listened"):
                OxenEvaluationSensor(
                    task_id="gate", namespace="n", repo_name="r", evaluation_id="e",
                    start_from_trigger=True, end_from_trigger=True,
                )
            """
        )
    )
    get_listener_manager().add_listener(sys.modules[__name__])
    try:
        with warnings.catch_warnings(record=True):  # Airflow captures them, and gives them once more
            warnings.simplefilter("always")
            bag = DagBag(tmp_path)
    finally:
        get_listener_manager().pm.unregister(sys.modules[__name__])

    assert bag.import_errors == {}
    made = bag.dags["listened"].get_task("gate")
    assert (made.start_from_trigger, made.end_from_trigger) == (True, False)
    (ours,) = (text for texts in bag.captured_warnings.values() for text in texts if "from_trigger" in text)
    assert str(tmp_path / "gates.py") in ours
    assert "end_from_trigger has no effect here: a listener is installed (" in ours


def test_older_airflow_goes_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow before 3.3 begins and ends the wait on a worker, and one warning says so."""
    monkeypatch.setattr(version_compat, "airflow_version", lambda: "3.2.2")

    made, warned = gate_and_warnings("{{ dag_run.conf.id }}")

    assert (made.start_from_trigger, made.start_trigger_args, made.end_from_trigger) == (False, None, False)
    reason = "Airflow 3.3 or later is needed for it. The wait begins and ends on a worker"
    assert warned == [f"Task 'gate': start_from_trigger and end_from_trigger have no effect here: {reason}"]


@needs_3_3
def test_waiting_on_a_worker_stays_there() -> None:
    """With ``deferrable=False`` there is no trigger to begin or end with, and one warning says so."""
    made, warned = gate_and_warnings(deferrable=False)

    assert (made.start_trigger_args, made.end_from_trigger) == (None, False)
    assert len(warned) == 1
    assert "deferrable=False" in warned[0]


def test_class_has_no_trigger_arguments() -> None:
    """A mapped gate has no arguments to make a trigger from, so that Airflow begins each instance on a worker."""
    with DAG("d", schedule=None):
        mapped = OxenEvaluationSensor.partial(task_id="gate", namespace="n", repo_name="r", **BOTH).expand(
            evaluation_id=["a", "b"]
        )

    assert mapped.start_trigger_args is None


def _trigger(evaluation_id: str, **arguments: Any) -> OxenEvaluationTrigger:
    named = {"namespace": "ox", "repo_name": "r", "evaluation_id": evaluation_id, "poke_interval": 0.05}
    trigger = OxenEvaluationTrigger(**named | {"timeout": 20.0, "end_from_trigger": True} | arguments)
    trigger.trigger_id = 1
    trigger.task_instance = FakeTaskInstance()
    return trigger


async def _event(trigger: OxenEvaluationTrigger) -> TriggerEvent:
    (event,) = [event async for event in trigger.run()]
    return event


@needs_3_3
async def test_completed_evaluation_ends_the_task(oxen_hub: LocalHub, comms: FakeComms) -> None:
    """The result is stored as a worker would store it, before the event that ends the task."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0.2)

    event = await _event(_trigger(evaluation_id))

    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None
    begun, seen, *results = comms.sent
    assert [(each.key, each.value["evaluation_id"]) for each in (begun, seen)] == [("waits_for", evaluation_id)] * 2
    assert (begun.value["last_seen"], seen.value["last_seen"]["status"]) == (None, "queued")
    assert [message.key for message in results] == ["return_value", "evaluation", "results"]
    for message in results:
        assert (message.dag_id, message.run_id, message.task_id, message.map_index) == ("d", "r", "gate", -1)
    for message in results[:2]:
        assert (message.value["id"], message.value["status"]) == (evaluation_id, "completed")
    assert results[2].value["path"] == "data/intents.parquet"


@needs_3_3
async def test_nothing_is_stored_without_xcom_push(oxen_hub: LocalHub, comms: FakeComms) -> None:
    """With ``do_xcom_push=False``, a task that ends in the triggerer leaves no result either."""
    event = await _event(_trigger(oxen_hub.add_evaluation(seconds=0), do_xcom_push=False))

    assert isinstance(event, TaskSuccessEvent)
    assert [message.key for message in comms.sent] == ["waits_for"]


@needs_3_3
@pytest.mark.parametrize("end", ["errored", "cancelled"])
async def test_other_ends_go_to_a_worker(oxen_hub: LocalHub, comms: FakeComms, end: str) -> None:
    """Only a completed evaluation ends the task in the triggerer."""
    event = await _event(_trigger(oxen_hub.add_evaluation(end=end, seconds=0)))

    assert not isinstance(event, TaskSuccessEvent)
    assert event.payload["outcome"] == end
    assert [message.key for message in comms.sent] == ["waits_for"]


@needs_3_3
async def test_result_that_cannot_be_stored_goes_to_a_worker(
    oxen_hub: LocalHub, comms: FakeComms, logged: Callable[[], str]
) -> None:
    """Where the triggerer cannot store the result, the event is the ordinary one, and a worker stores it."""
    comms.refuse = True

    event = await _event(_trigger(oxen_hub.add_evaluation(seconds=0)))

    assert event.payload["outcome"] == "completed"
    assert "A worker ends this task" in logged()


@needs_3_3
async def test_trigger_outside_of_a_triggerer_gives_an_ordinary_event(oxen_hub: LocalHub, comms: FakeComms) -> None:
    """A DAG's test runs triggers by itself and does not know the event that ends a task."""
    trigger = _trigger(oxen_hub.add_evaluation(seconds=0))
    trigger.trigger_id = None

    event = await _event(trigger)

    assert event.payload["outcome"] == "completed"
    assert comms.sent == []


@needs_3_3
@pytest.mark.parametrize("expanded", [True, False])
async def test_expansion_over_the_result_needs_a_worker(
    oxen_hub: LocalHub, comms: FakeComms, dag: DAG, expanded: bool
) -> None:
    """A later task that is expanded over the gate's result is known once the whole DAG is: the trigger finds it."""
    made = gate(oxen_hub.add_evaluation(seconds=0))
    use = task(task_id="use")(lambda x: x)
    use.expand(x=made.output) if expanded else use(made.output)
    trigger = rendered_by_triggerer(made)
    trigger.trigger_id = 1

    event = await _event(trigger)

    assert isinstance(event, TaskSuccessEvent) is not expanded
    assert ("return_value" in [message.key for message in comms.sent]) is not expanded
    assert made.dag is dag


@needs_3_3
@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "airflow_ends_after", "expected"),
    [
        (100, None, 700, 100),
        (100, 5000, 700, 100),
        (100, 400, 400, 100),
        (100, 40, 40, 37),
        (7 * 86400, 48 * 3600, 48 * 3600, 48 * 3600 - 3),
    ],
)
def test_deadline_counts_from_the_start_of_the_attempt(
    timeout: float, execution_timeout: float | None, airflow_ends_after: float, expected: float
) -> None:
    """The deadline is the same in any triggerer, and just before Airflow's own end where that is earlier."""
    began_at = datetime.now(tz=timezone.utc) - timedelta(seconds=20)
    limit = None if execution_timeout is None else timedelta(seconds=execution_timeout)
    stored = BaseOperator(task_id="gate", execution_timeout=limit)
    for ends_at in (began_at, began_at.replace(tzinfo=None)):
        trigger = _trigger("e", timeout=timeout)
        trigger.task_instance = FakeTaskInstance(stored)
        trigger.timeout_after = ends_at + timedelta(seconds=airflow_ends_after)

        assert find_deadline(trigger, timeout) == pytest.approx(began_at.timestamp() + expected, abs=0.01)


async def test_timeout_counts_where_there_is_no_deadline(oxen_hub: LocalHub) -> None:
    """A trigger with a timeout and no deadline gives up after that time."""
    began = time.monotonic()

    event = await _event(_trigger(oxen_hub.add_evaluation(seconds=60), timeout=0.4, max_wait=0.1))

    assert event.payload["outcome"] == "timeout"
    assert 0.3 < time.monotonic() - began < 5


@needs_3_3
def test_failure_removes_the_result_of_an_earlier_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that fails the task first removes what an earlier attempt stored, as no worker began this one."""
    from tests.support.airflow import AirflowFailException, XCom

    deleted: list[dict[str, Any]] = []
    monkeypatch.setattr(XCom, "delete", lambda **where: deleted.append(where))
    event = Outcome(OutcomeReason.REFUSED, EvaluationRef("ox", "r", "e"), error="no such evaluation").to_event()

    for try_number in (1, 2):
        assert deleted == []
        ti = FakeTaskInstance(try_number=try_number)
        with pytest.raises(AirflowFailException):
            gate().resume_execution("execute_complete", {"event": event}, {"ti": ti})

    place = {"task_id": "gate", "dag_id": "d", "run_id": "r", "map_index": -1}
    assert deleted == [{"key": key, **place} for key in ("return_value", "evaluation", "results")]


@pytest.mark.parametrize("flags", [{}, BOTH])
def test_parsing_stays_cheap(flags: dict[str, bool]) -> None:
    """A DAG file loads neither HTTP libraries nor the trigger, and Airflow's trigger module only where it is needed."""
    program = """
        import json, sys
        from tests.support.airflow import BaseSensorOperator
        BaseSensorOperator(task_id="any")  # what Airflow itself imports is not ours
        before = set(sys.modules)
        from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
        named = {"namespace": "n", "repo_name": "r", "evaluation_id": "{{ params.x }}"}
        OxenEvaluationSensor(task_id="g", **named, **json.loads(sys.argv[1]))
        for name in sorted(set(sys.modules) - before):
            print(name)
    """
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), json.dumps(flags)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()

    heavy = {"aiohttp", "requests", "airflow_provider_oxen.hooks.oxen", "airflow_provider_oxen.triggers.oxen"}
    assert not heavy & set(loaded)
    assert flags or "airflow.triggers.base" not in loaded
