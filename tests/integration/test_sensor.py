"""The sensor: one set of outcomes, whichever way it waits."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_oxen.accept import all_rows, max_credits
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.testing import Alter, Fault, Respond
from airflow_provider_oxen.version_compat import reschedule_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub

RescheduleException = type(reschedule_exception(datetime.now(tz=timezone.utc)))

#: Every way an answer can come: at the first look on the worker, after poking, after rescheduling, after deferral.
WAYS = ["first look", "poke", "reschedule", "deferred"]


@dataclass
class FakeTaskInstance:
    """Stands in for Airflow's, as far as the sensor uses it."""

    xcoms: dict[str, Any] = field(default_factory=dict)
    first_rescheduled_at: datetime | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))

    def get_first_reschedule_date(self, context: Any) -> datetime | None:  # noqa: ARG002
        return self.first_rescheduled_at


@dataclass
class Result:
    """How a task ended."""

    returned: Any = None
    raised: BaseException | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    deferrals: int = 0

    @property
    def told(self) -> tuple[type | None, str]:
        """The exception, without what differs from run to run: how long it ran, request ids, deadlines."""
        text = re.sub(r"after( about)? [\d.]+ s", "after some time", str(self.raised or ""))
        text = re.sub(r"\[request local-\d+\] ", "", text)
        return type(self.raised), re.sub(r"by \d{4}-\d\d-\d\d [\d:]+ UTC", "by then", text)


def run_task(way: str, evaluation_id: str, **arguments: Any) -> Result:
    """Run a gate to its end, as Airflow would: trigger and event pass through JSON, reschedules are followed."""
    named: dict[str, Any] = {
        "task_id": "gate",
        "namespace": "ox",
        "repo_name": "customer-intents",
        "evaluation_id": evaluation_id,
        "poke_interval": 0.05,
        "max_wait": 0.1,
        "retry_window": 0.5,
        "timeout": 30,
        "deferrable": way in ("first look", "deferred"),
        "mode": "reschedule" if way == "reschedule" else "poke",
    }
    ti, result = FakeTaskInstance(), Result()
    context: Any = {"ti": ti}
    try:
        result.returned = _execute(OxenEvaluationSensor(**named | arguments), context, result)
    except Exception as error:  # noqa: BLE001  # whatever it is, is the result
        result.raised = error
    result.xcoms = ti.xcoms
    return result


def _execute(sensor: OxenEvaluationSensor, context: Any, result: Result) -> Any:
    while True:
        try:
            return sensor.execute(context)
        except TaskDeferred as deferred:
            result.deferrals += 1
            _, trigger_arguments = deferred.trigger.serialize()
            trigger = type(deferred.trigger)(**json.loads(json.dumps(trigger_arguments)))

            async def wait(trigger: Any = trigger) -> list[Any]:
                return [event async for event in trigger.run()]

            (event,) = asyncio.run(wait())
            next_kwargs = {**(deferred.kwargs or {}), "event": json.loads(json.dumps(event.payload))}
            return sensor.resume_execution(deferred.method_name, next_kwargs, context)
        except RescheduleException as rescheduled:
            context["ti"].first_rescheduled_at = context["ti"].first_rescheduled_at or datetime.now(tz=timezone.utc)
            time.sleep(max((rescheduled.reschedule_date - datetime.now(tz=timezone.utc)).total_seconds(), 0))


def scenario(hub: LocalHub, way: str, **named: Any) -> str:
    """Add an evaluation that ends at once for a first look, and after some looks otherwise."""
    seconds = 0.0 if way == "first look" else 0.4
    return hub.add_evaluation("d0c8585d-1234-5678-abcd-ef0123456789", seconds=seconds, **named)


@pytest.mark.parametrize("way", WAYS)
def test_completed_opens_the_gate(oxen_hub: LocalHub, way: str) -> None:
    """A completed evaluation is returned, and pushed as ``evaluation``, under the contract's names without prompt."""
    evaluation_id = scenario(oxen_hub, way, end="completed", rows=50)

    result = run_task(way, evaluation_id)

    assert result.raised is None
    assert result.deferrals == (way == "deferred")
    assert result.returned == json.loads(json.dumps(result.returned))
    assert result.xcoms == {"evaluation": result.returned}
    assert result.returned["status"] == "completed"
    assert result.returned["progress"] == {"processed": 50, "total": 50}
    assert result.returned["target_path"] == "data/intents.parquet"
    assert "prompt" not in result.returned


def test_every_argument_that_names_the_evaluation_is_templated() -> None:
    """Jinja is rendered in what says which evaluation is meant and with which connection it is asked for."""
    assert set(OxenEvaluationSensor.template_fields) == {"namespace", "repo_name", "evaluation_id", "oxen_conn_id"}


def test_return_value_has_the_fields_of_the_contract(oxen_hub: LocalHub) -> None:
    """What a gate returns has the very fields of the hub's document, but for the prompt."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    returned = run_task("first look", evaluation_id).returned

    assert set(returned) == set(oxen_hub.status_of(evaluation_id)) - {"prompt"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("errored", "errored after some time, 30 of 50 rows done: row 31 is odd."),
        ("cancelled", "was cancelled after some time, 30 of 50 rows done."),
    ],
)
def test_failed_evaluation_fails_the_task_for_good(oxen_hub: LocalHub, way: str, end: str, told: str) -> None:
    """Errored and cancelled fail at once, without retries, in the same words each way, and leave the evaluation."""
    evaluation_id = scenario(oxen_hub, way, end=end, rows=50, error_message="row 31 is odd")

    result = run_task(way, evaluation_id)

    prefix = f"Evaluation {evaluation_id} of ox/customer-intents"
    assert result.told == (AirflowFailException, f"{prefix} {told} Hub: {oxen_hub.url}")
    assert result.xcoms["evaluation"]["status"] == end
    assert result.xcoms["evaluation"]["error_message"] == ("row 31 is odd" if end == "errored" else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["errored", "cancelled"])
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_failed_evaluation_skips_where_asked(oxen_hub: LocalHub, way: str, end: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` skip, saying why, each way."""
    evaluation_id = scenario(oxen_hub, way, end=end)

    result = run_task(way, evaluation_id, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert str(result.raised).startswith(f"Skipping, as {setting} is set. Evaluation {evaluation_id}")
    assert result.xcoms["evaluation"]["status"] == end


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_timeout_says_what_was_last_seen(oxen_hub: LocalHub, way: str) -> None:
    """A timeout is Airflow's own, with the last status and progress, in the same words each way."""
    evaluation_id = oxen_hub.add_evaluation("slow", seconds=60)

    result = run_task(way, evaluation_id, timeout=timedelta(seconds=0.4))

    told = "Timed out: evaluation slow of ox/customer-intents had not ended by then, the deadline of the task."
    seen = f"Last seen queued: 0 of 1,000 rows (0.0 %). Hub: {oxen_hub.url}"
    assert result.told == (AirflowSensorTimeout, f"{told} {seen}")
    assert result.xcoms["evaluation"]["status"] == "queued"


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_timeout_skips_where_asked(oxen_hub: LocalHub, way: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` skip on a timeout, each way."""
    result = run_task(way, oxen_hub.add_evaluation(seconds=60), timeout=0.3, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert "Timed out" in str(result.raised)


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_execution_timeout_counts_where_it_is_earlier(oxen_hub: LocalHub, way: str) -> None:
    """The deadline is the earlier of ``timeout`` and ``execution_timeout``."""
    began = time.monotonic()

    result = run_task(way, oxen_hub.add_evaluation(seconds=60), execution_timeout=timedelta(seconds=0.4))

    assert type(result.raised) is AirflowSensorTimeout
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("status_code", "field_named"), [(401, "password"), (403, "password"), (404, "repo_name")])
def test_refusal_fails_for_good(oxen_hub: LocalHub, way: str, status_code: int, field_named: str) -> None:
    """A hub that refuses fails the task at once, naming what to check, each way; ``soft_fail`` skips."""
    first = 1 if way == "first look" else 3
    evaluation_id = oxen_hub.add_evaluation("x", seconds=60, faults=(Fault(Respond(status_code), first=first),))

    result = run_task(way, evaluation_id)
    oxen_hub.add_evaluation("x", seconds=60, faults=(Fault(Respond(status_code), first=first),))
    skipped = run_task(way, evaluation_id, soft_fail=True)

    assert type(result.raised) is AirflowFailException
    assert str(status_code) in str(result.raised)
    assert field_named in str(result.raised)
    assert type(skipped.raised) is AirflowSkipException


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_outage_beyond_the_retry_window_may_be_retried(oxen_hub: LocalHub, way: str) -> None:
    """A hub out of reach fails the task so that ``retries`` apply, also under ``soft_fail``, each way."""
    faults = (Fault(Respond(503), first=2),)
    told = set()
    for arguments in ({}, {"soft_fail": True}):
        result = run_task(way, oxen_hub.add_evaluation("x", seconds=60, faults=faults), **arguments)
        told.add(result.told)

    assert len(told) == 1
    kind, text = told.pop()
    assert kind is AirflowException
    assert "503" in text
    assert "retry_window" in text


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_outage_skips_under_never_fail(oxen_hub: LocalHub, way: str) -> None:
    """``never_fail`` skips on an outage, too."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(503)),))

    assert type(run_task(way, evaluation_id, never_fail=True).raised) is AirflowSkipException


@pytest.mark.parametrize("way", WAYS)
def test_one_transient_failure_does_not_end_a_wait(oxen_hub: LocalHub, way: str) -> None:
    """A first look that fails, or any other, is taken again."""
    evaluation_id = scenario(oxen_hub, way, faults=(Fault(Respond(503), first=1, count=1),))

    assert run_task(way, evaluation_id).returned["status"] == "completed"


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_silent_fail_waits_through_any_outage(oxen_hub: LocalHub, way: str) -> None:
    """``silent_fail`` keeps on asking until the timeout, beyond ``retry_window``."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(503)),))

    result = run_task(way, evaluation_id, silent_fail=True, retry_window=0.1, timeout=1)

    assert type(result.raised) is AirflowSensorTimeout
    assert "It was never seen. Last failure:" in str(result.raised)


@pytest.mark.parametrize("way", WAYS)
def test_accepted_evaluation_opens_the_gate(oxen_hub: LocalHub, way: str) -> None:
    """Where every condition of ``accept`` returns True, the gate opens as ever, each way."""
    evaluation_id = scenario(oxen_hub, way, rows=50)

    result = run_task(way, evaluation_id, accept=[all_rows(), lambda evaluation: evaluation.id == evaluation_id])

    assert result.raised is None
    assert result.returned["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_evaluation_that_is_not_accepted_fails_for_good(oxen_hub: LocalHub, way: str) -> None:
    """A refused evaluation fails the task as an errored one does, in the same words each way; nothing is returned."""
    evaluation_id = scenario(oxen_hub, way, rows=50)

    result = run_task(way, evaluation_id, accept=max_credits(0.01))

    told = f"Evaluation {evaluation_id} of ox/customer-intents completed after some time, 50 of 50 rows done, but"
    reason = "0.05 credits were spent, but at most 0.01 are accepted"
    assert result.told == (AirflowFailException, f"{told} accept closes the gate: {reason}. Hub: {oxen_hub.url}")
    assert result.returned is None
    assert result.xcoms["evaluation"]["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_evaluation_that_is_not_accepted_skips_where_asked(oxen_hub: LocalHub, way: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` skip a gate that ``accept`` closes, saying why."""
    result = run_task(way, scenario(oxen_hub, way), accept=lambda _: False, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert "accept closes the gate: " in str(result.raised)
    assert "<lambda> returned False" in str(result.raised)
    assert result.xcoms["evaluation"]["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("accept", "told"),
    [
        (lambda evaluation: evaluation.document["x"], "accept failed, so the gate stays shut: KeyError: 'x'."),
        (print, "accept failed, so the gate stays shut: TypeError: .*returned None"),
    ],
    ids=["raises", "returns nothing"],
)
def test_accept_that_fails_leaves_the_gate_shut(oxen_hub: LocalHub, way: str, accept: Any, told: str) -> None:
    """An ``accept`` that raises or makes no sense fails the task, which may be retried, also under ``soft_fail``."""
    for arguments in ({}, {"soft_fail": True}):
        result = run_task(way, scenario(oxen_hub, way), accept=accept, **arguments)

        assert type(result.raised) is AirflowException
        assert re.search(told, str(result.raised))
        assert result.xcoms["evaluation"]["status"] == "completed"


@pytest.mark.parametrize("kind", [AirflowFailException, AirflowSkipException])
def test_accept_may_end_the_task_itself(oxen_hub: LocalHub, kind: type[Exception]) -> None:
    """Airflow's own exceptions for a failure and a skip mean in ``accept`` what they mean in any task."""

    def accept(evaluation: Any) -> bool:
        raise kind(f"{evaluation.id} will not do")

    result = run_task("first look", scenario(oxen_hub, "first look"), accept=accept)

    assert type(result.raised) is kind
    assert str(result.raised).endswith("will not do")
    assert "evaluation" in result.xcoms


@pytest.mark.parametrize("end", ["errored", "cancelled"])
def test_accept_is_asked_about_completed_evaluations_only(oxen_hub: LocalHub, end: str) -> None:
    """A failed evaluation is not put before ``accept``."""
    asked: list[Any] = []

    result = run_task("first look", scenario(oxen_hub, "first look", end=end), accept=asked.append)

    assert asked == []
    assert type(result.raised) is AirflowFailException


@pytest.mark.parametrize("accept", ["all_rows", [], 5])
def test_bad_accept_is_refused_when_the_dag_is_parsed(accept: Any) -> None:
    """What cannot be called is refused as the sensor is made."""
    with pytest.raises(ValueError, match="accept must be a callable"):
        OxenEvaluationSensor(task_id="g", namespace="ox", repo_name="r", evaluation_id="x", accept=accept)


def test_accept_cannot_be_combined_with_the_end_in_the_triggerer() -> None:
    """No worker would call it, which is said when the DAG is parsed."""
    arguments = {"task_id": "g", "namespace": "ox", "repo_name": "r", "evaluation_id": "x", "accept": all_rows()}

    with pytest.raises(ValueError, match=r"accept .* cannot be combined with end_from_trigger=True"):
        OxenEvaluationSensor(**arguments, end_from_trigger=True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"accept": all_rows(), "end_from_trigger": True}, r"accept .* cannot be combined with end_from_trigger=True"),
        ({"accept": "all_rows"}, "accept must be a callable"),
    ],
)
def test_mapped_gate_refuses_accept_when_the_dag_is_parsed(arguments: dict[str, Any], told: str) -> None:
    """A mapped gate is not made before it runs: what can never work is refused where its constants are given."""
    with pytest.raises(ValueError, match=told):
        OxenEvaluationSensor.partial(task_id="g", namespace="ox", repo_name="r", **arguments)


def test_mapped_gate_takes_what_it_can() -> None:
    """``accept`` alone, and the end in the triggerer alone, are passed on to the mapped gate."""
    for arguments in ({"accept": all_rows()}, {"end_from_trigger": True}):
        named = {"namespace": "ox", "repo_name": "r"} | arguments
        mapped = OxenEvaluationSensor.partial(task_id="g", **named).expand(evaluation_id=["a", "b"])
        assert named.items() <= mapped.partial_kwargs.items()


def test_first_look_defers_only_if_there_is_something_to_wait_for(oxen_hub: LocalHub) -> None:
    """An evaluation that has ended costs one look and no deferral."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    assert run_task("deferred", evaluation_id).deferrals == 0
    assert oxen_hub.requests_for(evaluation_id) == 1


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        [],
        "completed",
        {"outcome": "done"},
        {"outcome": "completed"},
        {"outcome": "completed", "evaluation": None},
        {"outcome": "completed", "evaluation": {"id": "other", "status": "completed"}},
        {"outcome": "completed", "evaluation": {"id": "mine", "status": "running"}},
    ],
    ids=repr,
)
def test_gate_stays_shut_on_an_event_that_is_none(event: Any) -> None:
    """An event that is missing, unknown or contradicts itself fails the task, and may be retried."""
    sensor = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id="mine")

    with pytest.raises(AirflowException, match="the gate stays shut") as caught:
        sensor.execute_complete({"ti": FakeTaskInstance()}, event)

    assert type(caught.value) is AirflowException


@pytest.mark.parametrize(
    ("error", "expected"), [("Trigger timeout", AirflowSensorTimeout), ("Trigger failure", AirflowException)]
)
def test_trigger_that_airflow_ended_is_concluded_like_the_others(error: str, expected: type) -> None:
    """Where Airflow itself gives up on a trigger, the exception and the skips are the same as everywhere."""
    from airflow.exceptions import AirflowException as AnyAirflowException

    try:
        from airflow.sdk.bases.operator import TriggerFailureReason

        error = TriggerFailureReason(error)
    except ImportError:
        error = "Trigger/execution timeout" if error == "Trigger timeout" else error
    arguments = {"task_id": "gate", "namespace": "ox", "repo_name": "r", "evaluation_id": "x"}

    def resume(**more: Any) -> None:
        context = {"ti": FakeTaskInstance()}
        OxenEvaluationSensor(**arguments, **more).resume_execution("__fail__", {"error": error}, context)

    with pytest.raises(AnyAirflowException) as caught:
        resume()
    assert type(caught.value) is expected
    with pytest.raises(AirflowSkipException):
        resume(never_fail=True)


def test_poke_looks_once(oxen_hub: LocalHub) -> None:
    """``poke`` says whether the evaluation is done, without waiting."""
    running, ended = oxen_hub.add_evaluation(seconds=60), oxen_hub.add_evaluation(seconds=0)
    pokes = {}
    for evaluation_id in (running, ended):
        sensor = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id=evaluation_id)
        pokes[evaluation_id] = sensor.poke({"ti": FakeTaskInstance()})

    assert not pokes[running]
    assert pokes[ended].is_done
    assert pokes[ended].xcom_value["status"] == "completed"


def test_xcom_push_can_be_switched_off(oxen_hub: LocalHub) -> None:
    """``do_xcom_push=False`` pushes nothing."""
    assert run_task("first look", oxen_hub.add_evaluation(seconds=0), do_xcom_push=False).xcoms == {}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("namespace", ""),
        ("repo_name", "a/b"),
        ("evaluation_id", ".."),
        ("evaluation_id", "None"),
        ("namespace", " ox"),
        ("evaluation_id", None),
        ("evaluation_id", 7),
        ("evaluation_id", ["x"]),
    ],
)
def test_bad_literal_is_refused_when_the_dag_is_parsed(argument: str, value: object) -> None:
    """An argument that could never be sent is refused as the sensor is made, with its name."""
    arguments = {"namespace": "ox", "repo_name": "r", "evaluation_id": "x", argument: value}

    with pytest.raises(ValueError, match=f"argument '{argument}'"):
        OxenEvaluationSensor(task_id="gate", **arguments)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("poke_interval", 0),
        ("poke_interval", -1),
        ("retry_window", -1),
        ("retry_window", "10"),
        ("retry_window", None),
        ("retry_window", timedelta(seconds=-1)),
        ("max_wait", timedelta(seconds=-1)),
        ("timeout", -1),
    ],
)
def test_bad_duration_is_refused_when_the_dag_is_parsed(argument: str, value: object) -> None:
    """A duration that makes no sense is refused as the sensor is made, with its name; a mapped one's as well."""
    with pytest.raises((ValueError, AirflowException), match=argument):
        OxenEvaluationSensor(task_id="g", namespace="ox", repo_name="r", evaluation_id="x", **{argument: value})
    with pytest.raises(ValueError, match=argument):
        OxenEvaluationSensor.partial(task_id="g", namespace="ox", repo_name="r", **{argument: value})


def test_connection_without_a_name_is_refused_when_the_dag_is_parsed() -> None:
    """An empty ``oxen_conn_id`` is refused as the sensor is made."""
    with pytest.raises(ValueError, match="oxen_conn_id is empty"):
        OxenEvaluationSensor(task_id="g", namespace="ox", repo_name="r", evaluation_id="x", oxen_conn_id="")


@pytest.mark.parametrize("name", ["poke_interval", "max_wait", "timeout", "retry_window"])
def test_endless_duration_is_refused_when_the_dag_is_parsed(name: str) -> None:
    """Infinity cannot be stored with a trigger, nor does it mean anything."""
    with pytest.raises(ValueError, match=f"{name} must be"):
        OxenEvaluationSensor(task_id="g", namespace="ox", repo_name="r", evaluation_id="x", **{name: float("inf")})


def test_bad_value_of_a_mapped_task_is_judged_when_it_runs(oxen_hub: LocalHub) -> None:
    """A mapped task is made anew on its worker; a bad value must not fail there, beyond ``soft_fail`` and XCom."""
    sensor = OxenEvaluationSensor(
        task_id="g", namespace="ox", repo_name="r", evaluation_id="a/b", soft_fail=True, _airflow_from_mapped=True
    )

    with pytest.raises(AirflowSkipException, match="argument 'evaluation_id'"):
        sensor.execute({"ti": FakeTaskInstance()})

    assert oxen_hub.requests == []


def test_airflow_2_does_not_count_the_time_of_a_deferred_task_itself() -> None:
    """On Airflow 2, which would end the task before it can say what was seen, the sensor alone counts the time."""
    limit = timedelta(seconds=90)
    arguments = {"namespace": "ox", "repo_name": "r", "evaluation_id": "x", "execution_timeout": limit}
    deferred = OxenEvaluationSensor(task_id="g", **arguments)
    poking = OxenEvaluationSensor(task_id="g", deferrable=False, **arguments)

    assert deferred.execution_timeout == (limit if AIRFLOW_V_3_0_PLUS else None)
    assert poking.execution_timeout == limit
    for sensor in (deferred, poking):
        assert sensor._begin({"ti": FakeTaskInstance()}).deadline == pytest.approx(time.time() + 90, abs=5)


def test_rescheduled_task_does_not_hold_its_worker_through_a_rate_limit(oxen_hub: LocalHub) -> None:
    """A pause that the hub asks for is waited out without a worker, as any other time between two looks."""
    faults = (Fault(Respond(429, headers={"Retry-After": "900"})),)
    sensor = OxenEvaluationSensor(
        task_id="g",
        namespace="ox",
        repo_name="r",
        evaluation_id=oxen_hub.add_evaluation(faults=faults),
        deferrable=False,
        mode="reschedule",
    )

    with pytest.raises(RescheduleException) as rescheduled:
        sensor.execute({"ti": FakeTaskInstance()})

    assert (rescheduled.value.reschedule_date - datetime.now(tz=timezone.utc)).total_seconds() > 890


@pytest.mark.parametrize("rendered", ["", "None", "a/b", 7])
def test_bad_rendered_id_fails_for_good_before_any_request(oxen_hub: LocalHub, rendered: object) -> None:
    """A template that renders to nothing usable fails the task with the argument's name, and nothing is sent."""
    sensor = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id="{{ params.x }}")
    sensor.evaluation_id = rendered  # as Airflow does when it renders

    with pytest.raises(AirflowFailException, match="argument 'evaluation_id'"):
        sensor.execute({"ti": FakeTaskInstance()})

    assert oxen_hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"mode": "reschedule"}, "deferrable=False"), ({"exponential_backoff": True}, "max_wait")],
)
def test_argument_without_effect_is_said_to_have_none(arguments: dict[str, Any], told: str) -> None:
    """A combination that Airflow allows and that changes nothing is warned about when the DAG is parsed."""
    with pytest.warns(UserWarning, match=told):
        OxenEvaluationSensor(task_id="g", namespace="ox", repo_name="r", evaluation_id="x", **arguments)


def test_defaults_do_not_depend_on_the_mode() -> None:
    """A gate waits by the same numbers whether it is deferred or not, and durations may be ``timedelta``."""
    common = {"namespace": "ox", "repo_name": "r", "evaluation_id": "x"}
    waits = [
        OxenEvaluationSensor(task_id="g", **common, **arguments)._begin({"ti": FakeTaskInstance()})
        for arguments in (
            {},
            {"deferrable": False},
            {"deferrable": False, "mode": "reschedule"},
            {"poke_interval": timedelta(seconds=10), "max_wait": timedelta(minutes=1)},
            {"retry_window": timedelta(minutes=10), "oxen_conn_id": "oxen_default"},
        )
    ]

    numbers = {(w.poke_interval, w.max_wait, w.retry_window, round(w.deadline - time.time(), -1)) for w in waits}
    assert numbers == {(10.0, 60.0, 600.0, 604_800)}


def test_trigger_gets_every_argument(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sensor was told reaches the trigger: nothing is dropped on the way."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_OTHER", oxen_hub.connection_json)
    sensor = OxenEvaluationSensor(
        task_id="gate",
        namespace="n",
        repo_name="r",
        evaluation_id=oxen_hub.add_evaluation("e", seconds=60),
        oxen_conn_id="oxen_other",
        poke_interval=3,
        max_wait=4,
        timeout=100,
        retry_window=5,
    )

    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": FakeTaskInstance()})

    arguments = deferred.value.trigger.serialize()[1]
    deadline = arguments.pop("deadline")
    assert deadline == pytest.approx(time.time() + 100, abs=5)
    assert deferred.value.timeout.total_seconds() == pytest.approx(100 + 600, abs=5)
    assert arguments == {
        "namespace": "n",
        "repo_name": "r",
        "evaluation_id": "e",
        "oxen_conn_id": "oxen_other",
        "poke_interval": 3.0,
        "max_wait": 4.0,
        "retry_window": 5.0,
        "timeout": None,
        "end_from_trigger": False,
        "do_xcom_push": True,
    }


def test_reschedule_deadline_counts_from_the_first_look(oxen_hub: LocalHub) -> None:
    """A task that was rescheduled does not begin its time anew."""
    sensor = OxenEvaluationSensor(
        task_id="gate",
        namespace="ox",
        repo_name="r",
        evaluation_id=oxen_hub.add_evaluation(seconds=60),
        deferrable=False,
        mode="reschedule",
        timeout=100,
    )
    ti = FakeTaskInstance(first_rescheduled_at=datetime.now(tz=timezone.utc) - timedelta(seconds=101))

    with pytest.raises(AirflowSensorTimeout):
        sensor.execute({"ti": ti})


def test_outcome_stands_in_the_tasks_own_log(oxen_hub: LocalHub, logged: Callable[[], str]) -> None:
    """After deferral, the worker's log says how it ended, not the triggerer's alone."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    event = {"outcome": "completed", "evaluation": run_task("first look", evaluation_id).returned}
    sensor = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id=evaluation_id)
    logged()

    sensor.execute_complete({"ti": FakeTaskInstance()}, event)

    assert f"Evaluation {evaluation_id} of ox/r completed" in logged()


def test_unknown_status_never_opens_the_gate(oxen_hub: LocalHub) -> None:
    """A status that is not the contract's is waited on until the timeout, each way."""
    for way in ("poke", "reschedule", "deferred"):
        fault = Fault(Alter(evaluation={"status": "succeeded"}))
        evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(fault,))

        assert type(run_task(way, evaluation_id, timeout=0.3).raised) is AirflowSensorTimeout
