"""The sensor: the same outcomes in every way of waiting."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
import uuid
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import wait as wait_module
from airflow_provider_oxen.conditions import all_rows, max_credits, no_missing_answers, rows_where
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.reactions import OxenConditionFailedError, OxenHubUnreachableError, OxenWaitLostError
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.testing import Alter, Disconnect, Fault, Respond
from airflow_provider_oxen.wait import Outcome, OutcomeReason
from tests.support.airflow import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_3_PLUS,
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
    TaskGroup,
)
from tests.support.tasks import (
    WAYS,
    WAYS_TO_WAIT,
    FakeTaskInstance,
    RescheduleException,
    add_evaluation,
    deferred_ti,
    make_gate,
    run_task,
    trigger_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub


@pytest.mark.parametrize("way", WAYS)
def test_completed_opens_the_gate(oxen_hub: LocalHub, way: str) -> None:
    """A completed evaluation is returned, and pushed as ``evaluation``, under the contract's names without prompt."""
    evaluation_id = add_evaluation(oxen_hub, way, end="completed", rows=50)

    result = run_task(way, evaluation_id)

    assert result.raised is None
    assert result.deferrals == (way == "deferred")
    assert result.returned == json.loads(json.dumps(result.returned))
    assert result.xcoms["evaluation"] == result.returned
    assert set(result.xcoms) == {"evaluation", "results"} | ({"waits_for"} if way == "deferred" else set())
    assert result.returned["status"] == "completed"
    assert result.returned["progress"] == {"processed": 50, "total": 50}
    assert result.returned["target_path"] == "data/intents.parquet"
    assert "prompt" not in result.returned


def test_every_argument_that_names_the_evaluation_is_templated() -> None:
    """Jinja is rendered in what says which evaluation is meant, and which connection is used."""
    assert set(OxenEvaluationSensor.template_fields) == {"namespace", "repo_name", "evaluation_id", "oxen_conn_id"}


def test_return_value_has_the_fields_of_the_contract(oxen_hub: LocalHub) -> None:
    """What a gate returns has the very fields of the hub's document, but for the prompt."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    returned = run_task("first poll", evaluation_id).returned

    assert set(returned) == set(oxen_hub.status_of(evaluation_id)) - {"prompt"} | {"namespace", "repo_name"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("end", "why"), [("errored", "errored: row 31 is odd"), ("cancelled", "cancelled")])
def test_failed_evaluation_fails_the_task_for_good(oxen_hub: LocalHub, way: str, end: str, why: str) -> None:
    """Errored and cancelled fail at once, without retries, with the same message each way; the evaluation is stored."""
    evaluation_id = add_evaluation(oxen_hub, way, end=end, rows=50, error_message="row 31 is odd")

    result = run_task(way, evaluation_id)

    assert result.failure == (
        AirflowFailException,
        (
            f"Evaluation {why} (30 of 50 rows after some time), evaluation {evaluation_id} of ox/customer-intents, "
            f"hub {oxen_hub.url}"
        ),
    )
    assert result.xcoms["evaluation"]["status"] == end
    assert result.xcoms["evaluation"]["error_message"] == ("row 31 is odd" if end == "errored" else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["errored", "cancelled"])
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_failed_evaluation_skips_where_asked(oxen_hub: LocalHub, way: str, end: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` skip and say why, each way."""
    evaluation_id = add_evaluation(oxen_hub, way, end=end)

    result = run_task(way, evaluation_id, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert str(result.raised).startswith(f"Skipped by {setting}. Evaluation {end}")
    assert result.xcoms["evaluation"]["status"] == end


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_timeout_says_what_was_last_seen(oxen_hub: LocalHub, way: str) -> None:
    """A timeout is Airflow's own, with the last status and progress, with the same message each way."""
    evaluation_id = oxen_hub.add_evaluation("slow", seconds=60)

    result = run_task(way, evaluation_id, timeout=timedelta(seconds=0.4))

    assert result.failure == (
        AirflowSensorTimeout,
        (
            "Timed out: 0 of 1,000 rows (0.0 %), queued, when last seen; it had not ended by then, the task's "
            f"deadline, evaluation slow of ox/customer-intents, hub {oxen_hub.url}"
        ),
    )
    assert result.xcoms["evaluation"]["status"] == "queued"


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_timeout_skips_where_asked(oxen_hub: LocalHub, way: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` skip on a timeout, each way."""
    result = run_task(way, oxen_hub.add_evaluation(seconds=60), timeout=0.3, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert "Timed out" in str(result.raised)


@pytest.mark.parametrize("way", ["poke", "deferred"])
def test_execution_timeout_counts_where_it_is_earlier(oxen_hub: LocalHub, way: str) -> None:
    """The deadline is the earlier of ``timeout`` and ``execution_timeout``, but where that bounds one poll."""
    began = time.monotonic()

    result = run_task(way, oxen_hub.add_evaluation(seconds=60), execution_timeout=timedelta(seconds=0.4))

    assert type(result.raised) is AirflowSensorTimeout
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("status_code", "field_named"), [(401, "password"), (403, "password"), (404, "repo_name")])
def test_refusal_fails_for_good(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, way: str, status_code: int, field_named: str
) -> None:
    """A hub that refuses fails the task, and names what to check, each way; ``soft_fail`` skips."""
    monkeypatch.setattr(wait_module, "NOT_FOUND_SECONDS", 0.2)
    first = 1 if way == "first poll" else 3
    evaluation_id = oxen_hub.add_evaluation("x", seconds=60, faults=(Fault(Respond(status_code), first=first),))

    result = run_task(way, evaluation_id)
    oxen_hub.add_evaluation("x", seconds=60, faults=(Fault(Respond(status_code), first=first),))
    skipped = run_task(way, evaluation_id, soft_fail=True)

    assert type(result.raised) is AirflowFailException
    assert str(status_code) in str(result.raised)
    assert field_named in str(result.raised)
    assert type(skipped.raised) is AirflowSkipException


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_outage_beyond_the_retry_window_may_be_retried(oxen_hub: LocalHub, way: str) -> None:
    """A hub out of reach fails the task so that ``retries`` apply, also under ``soft_fail``, each way."""
    faults = (Fault(Respond(503), first=2),)
    failures = set()
    for arguments in ({}, {"soft_fail": True}):
        result = run_task(way, oxen_hub.add_evaluation("x", seconds=60, faults=faults), **arguments)
        failures.add(result.failure)

    assert len(failures) == 1
    kind, text = failures.pop()
    assert kind is OxenHubUnreachableError
    assert "503" in text
    assert "retry_window" in text


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_outage_skips_under_never_fail(oxen_hub: LocalHub, way: str) -> None:
    """``never_fail`` skips on an outage, too."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(503)),))

    assert type(run_task(way, evaluation_id, never_fail=True).raised) is AirflowSkipException


@pytest.mark.parametrize("way", WAYS)
def test_one_transient_failure_does_not_end_a_wait(oxen_hub: LocalHub, way: str) -> None:
    """A poll that fails is repeated, the first one as well."""
    evaluation_id = add_evaluation(oxen_hub, way, faults=(Fault(Respond(503), first=1, count=1),))

    assert run_task(way, evaluation_id).returned["status"] == "completed"


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_silent_fail_waits_through_any_outage(oxen_hub: LocalHub, way: str) -> None:
    """With ``silent_fail``, polls go on until the timeout, beyond ``retry_window``."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(503)),))

    result = run_task(way, evaluation_id, silent_fail=True, retry_window=0.1, timeout=1)

    assert type(result.raised) is AirflowSensorTimeout
    assert "the evaluation was never seen by " in str(result.raised)


@pytest.mark.parametrize("way", WAYS)
def test_conditions_that_are_met_open_the_gate(oxen_hub: LocalHub, way: str) -> None:
    """Where every condition returns True, the gate opens, each way."""
    evaluation_id = add_evaluation(oxen_hub, way, rows=50)

    result = run_task(way, evaluation_id, conditions=[all_rows(), lambda evaluation: evaluation.id == evaluation_id])

    assert result.raised is None
    assert result.returned["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_unmet_condition_fails_for_good(oxen_hub: LocalHub, way: str) -> None:
    """A condition that is not met fails the task without retries, with the same message each way; nothing returned."""
    evaluation_id = add_evaluation(oxen_hub, way, rows=50)

    result = run_task(way, evaluation_id, conditions=max_credits(0.01))

    assert result.failure == (
        AirflowFailException,
        (
            "Condition not met: 0.05 credits were spent, but at most 0.01 are allowed; evaluation completed "
            f"(50 of 50 rows after some time), evaluation {evaluation_id} of ox/customer-intents, hub {oxen_hub.url}"
        ),
    )
    assert result.returned is None
    assert result.xcoms["evaluation"]["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_unmet_condition_skips_where_asked(oxen_hub: LocalHub, way: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` skip a task whose condition is not met, and say why."""
    result = run_task(way, add_evaluation(oxen_hub, way), conditions=lambda _: False, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert str(result.raised).startswith(f"Skipped by {setting}. Condition not met: ")
    assert "<lambda> returned False" in str(result.raised)
    assert result.xcoms["evaluation"]["status"] == "completed"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        (lambda evaluation: evaluation.resource["x"], "Condition could not be checked: KeyError: 'x'; "),
        (print, "Condition could not be checked: TypeError: .*returned None"),
    ],
    ids=["raises", "returns nothing"],
)
def test_condition_that_fails_leaves_the_gate_closed(
    oxen_hub: LocalHub, way: str, conditions: Any, problem: str
) -> None:
    """A condition that raises or returns no verdict fails the task; retries apply, also under ``soft_fail``."""
    for arguments in ({}, {"soft_fail": True}):
        result = run_task(way, add_evaluation(oxen_hub, way), conditions=conditions, **arguments)

        assert type(result.raised) is OxenConditionFailedError
        assert re.search(problem, str(result.raised))
        assert result.xcoms["evaluation"]["status"] == "completed"


@pytest.mark.parametrize("kind", [AirflowFailException, AirflowSkipException])
def test_condition_may_end_the_task_itself(oxen_hub: LocalHub, kind: type[Exception]) -> None:
    """Airflow's own exceptions for a failure and a skip mean in a condition what they mean in any task."""

    def condition(evaluation: Any) -> bool:
        raise kind(f"{evaluation.id} will not do")

    result = run_task("first poll", add_evaluation(oxen_hub, "first poll"), conditions=condition)

    assert type(result.raised) is kind
    assert "will not do" in str(result.raised)
    assert "evaluation" in result.xcoms


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["soft_fail", "never_fail"])
def test_condition_that_fails_the_task_skips_where_asked(oxen_hub: LocalHub, way: str, setting: str) -> None:
    """``soft_fail`` and ``never_fail`` hold for the ``AirflowFailException`` of a condition, as for any other."""

    def condition(_: Evaluation) -> bool:
        raise AirflowFailException("the answers are\nall the same")

    result = run_task(way, add_evaluation(oxen_hub, way), conditions=condition, **{setting: True})

    assert type(result.raised) is AirflowSkipException
    assert str(result.raised).startswith(f"Skipped by {setting}. Condition not met: the answers are all the same; ")


@pytest.mark.parametrize("way", WAYS)
def test_text_of_the_hub_is_one_line_where_it_is_shown(oxen_hub: LocalHub, way: str, logged: Callable[[], str]) -> None:
    """A text with line breaks and escape codes cannot forge a line of a log; the XCom keeps it as it is."""
    text = "quota\n2026-01-01 INFO - The gate opens.\x1b[2K\r\u2028\x9b31m end"
    evaluation_id = add_evaluation(oxen_hub, way, end="errored", error_message=text)

    result = run_task(way, evaluation_id)

    assert str(result.raised).isprintable()
    assert "quota 2026-01-01 INFO - The gate opens. [2K 31m end" in str(result.raised)
    assert result.xcoms["evaluation"]["error_message"] == text
    assert not any(line.lstrip().startswith("2026-01-01 INFO") for line in logged().splitlines())


@pytest.mark.parametrize("way", ["poke", "reschedule", "deferred"])
def test_setting_that_never_heals_fails_at_the_first_poll(
    oxen_hub: LocalHub, way: str, set_connection: Callable[..., None]
) -> None:
    """TLS spoken to a port that has none fails at once, for good, and the message says what to set."""
    set_connection(host=oxen_hub.url.replace("http:", "https:"), schema=None)

    began = time.monotonic()
    result = run_task(way, "e", retry_window=60)

    assert type(result.raised) is AirflowFailException
    assert "the port does not speak TLS: set the connection's schema to http" in str(result.raised)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("number", "kind"), [("EAI_NONAME", AirflowFailException), ("EAI_AGAIN", OxenHubUnreachableError)]
)
def test_unknown_name_fails_at_the_first_poll(
    set_connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    number: str,
    kind: type[Exception],
) -> None:
    """A name that no resolver knows is a setting; a resolver that is out of reach is waited for."""

    def fails(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(getattr(socket, number), "made up")

    set_connection(host="https://hub.invalid", schema=None)
    monkeypatch.setattr(socket, "getaddrinfo", fails)

    result = run_task("poke", "e", retry_window=0.2)

    assert type(result.raised) is kind
    assert ("check the connection's host" in str(result.raised)) == (number == "EAI_NONAME")


def test_unknown_name_during_a_wait_is_waited_for(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the evaluation was seen, a name that does not resolve is an outage."""
    evaluation_id = oxen_hub.add_evaluation(seconds=1, faults=(Fault(Disconnect("after")),))
    known, calls = socket.getaddrinfo, []

    def fails_at_times(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        if 1 < len(calls) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "made up")
        return known(*arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", fails_at_times)

    result = run_task("poke", evaluation_id, retry_window=20)

    assert result.raised is None
    assert len(calls) > 3


@pytest.mark.parametrize("end", ["errored", "cancelled"])
def test_conditions_are_checked_on_completed_evaluations_only(oxen_hub: LocalHub, end: str) -> None:
    """A condition is not called with an evaluation that failed."""
    checked: list[Any] = []

    result = run_task("first poll", add_evaluation(oxen_hub, "first poll", end=end), conditions=checked.append)

    assert checked == []
    assert type(result.raised) is AirflowFailException


@pytest.mark.parametrize("way", WAYS)
def test_condition_gets_the_same_evaluation_each_way(oxen_hub: LocalHub, way: str) -> None:
    """Whether a worker or the triggerer saw the end, a condition gets all fields but the prompt."""
    checked: list[Evaluation] = []

    def condition(evaluation: Evaluation) -> bool:
        checked.append(evaluation)
        return True

    result = run_task(way, add_evaluation(oxen_hub, way), conditions=condition)

    (evaluation,) = checked
    assert evaluation.prompt is None
    assert json.loads(json.dumps(evaluation.to_dict())) == result.returned


@pytest.mark.parametrize("conditions", ["all_rows", [], 5])
def test_bad_conditions_are_refused_when_the_dag_is_parsed(conditions: Any) -> None:
    """What cannot be called is refused as the sensor is made."""
    with pytest.raises(ValueError, match="conditions must be a callable"):
        make_gate(conditions=conditions)


def test_conditions_cannot_be_combined_with_the_end_in_the_triggerer() -> None:
    """No worker would call them, so the combination is refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=r"conditions .* cannot be combined with end_from_trigger=True"):
        make_gate(conditions=all_rows(), end_from_trigger=True)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"conditions": all_rows(), "end_from_trigger": True},
            r"conditions .* cannot be combined with end_from_trigger=True",
        ),
        ({"conditions": "all_rows"}, "conditions must be a callable"),
    ],
)
def test_mapped_gate_refuses_conditions_when_the_dag_is_parsed(arguments: dict[str, Any], problem: str) -> None:
    """A mapped gate is not made before it runs: what can never work is refused where its constants are given."""
    with pytest.raises(ValueError, match=problem):
        OxenEvaluationSensor.partial(task_id="g", namespace="ox", repo_name="r", **arguments)


def test_mapped_gate_takes_what_it_can() -> None:
    """``conditions`` alone, and the end in the triggerer alone, are passed on to the mapped gate."""
    for arguments in ({"conditions": all_rows()}, {"end_from_trigger": True}):
        named = {"namespace": "ox", "repo_name": "r"} | arguments
        mapped = OxenEvaluationSensor.partial(task_id="g", **named).expand(evaluation_id=["a", "b"])
        assert named.items() <= mapped.partial_kwargs.items()


def _on_rows(_evaluation: Evaluation, _rows: Any) -> bool:
    return True


def test_mapped_gate_takes_conditions_on_rows() -> None:
    """They are stored with the DAG as they are written, so that another share is another version of the DAG."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization
    stored = []
    for at_least in (0.95, 0.95, 0.96):
        with DAG("mapped", schedule=None) as dag:
            OxenEvaluationSensor.partial(
                task_id="gate",
                namespace="ox",
                repo_name="r",
                conditions=[
                    rows_where("intent = label", at_least=at_least),
                    no_missing_answers(),
                    all_rows(),
                    _on_rows,
                ],
            ).expand(evaluation_id=["a", "b"])
        stored.append(json.dumps(Serialization.to_dict(dag), sort_keys=True))

    assert "rows_where(sql='intent = label', at_least=0.95)" in stored[0]
    assert "no_missing_answers()" in stored[0]
    assert stored[0] == stored[1] != stored[2]


def test_task_defers_only_if_there_is_something_to_wait_for(oxen_hub: LocalHub) -> None:
    """An evaluation that has ended costs one poll and no deferral."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    assert run_task("deferred", evaluation_id).deferrals == 0
    assert oxen_hub.requests_for(evaluation_id) == 1


#: The names with which an event says whose outcome it is.
MINE = {"namespace": "ox", "repo_name": "customer-intents", "evaluation_id": "mine"}


@pytest.mark.parametrize(
    "event",
    [
        None,
        {},
        [],
        "completed",
        {"outcome": "completed", "evaluation": {"id": "mine", "status": "completed"}},
        {**MINE, "evaluation_id": None, "outcome": "completed", "evaluation": {"id": "mine", "status": "completed"}},
        {**MINE, "outcome": "done"},
        {**MINE, "outcome": "completed"},
        {**MINE, "outcome": "completed", "evaluation": None},
        {**MINE, "outcome": "completed", "evaluation": {"id": "other", "status": "completed"}},
        {**MINE, "outcome": "completed", "evaluation": {"id": "mine", "status": "running"}},
    ],
    ids=repr,
)
def test_gate_stays_closed_on_an_event_that_is_none(event: Any) -> None:
    """An event that is missing, unknown, names no evaluation or contradicts itself fails the task; retries apply."""
    with pytest.raises(OxenWaitLostError, match=r"^No result: .*\. The gate stays closed, evaluation mine of ox/"):
        make_gate("mine").execute_complete({"ti": FakeTaskInstance()}, event)


@pytest.mark.parametrize(
    ("error", "expected"), [("Trigger timeout", AirflowSensorTimeout), ("Trigger failure", OxenWaitLostError)]
)
def test_trigger_that_airflow_ended_is_concluded_like_the_others(
    oxen_hub: LocalHub, error: str, expected: type
) -> None:
    """Where Airflow itself gives up on a trigger, the exception and the skips are the same as everywhere."""
    from airflow.exceptions import AirflowException as AnyAirflowException

    def resume(**arguments: Any) -> None:
        gate = make_gate(oxen_hub.add_evaluation("x", seconds=60), **arguments)
        gate.resume_execution("__fail__", {"error": trigger_error(error)}, {"ti": deferred_ti("x")})

    with pytest.raises(AnyAirflowException, match="evaluation x of ox/customer-intents") as caught:
        resume()
    assert type(caught.value) is expected
    with pytest.raises(AirflowSkipException):
        resume(never_fail=True)


def test_poke_polls_once(oxen_hub: LocalHub) -> None:
    """``poke`` says whether the evaluation is done, without waiting."""
    running, ended = oxen_hub.add_evaluation(seconds=60), oxen_hub.add_evaluation(seconds=0)
    pokes = {}
    for evaluation_id in (running, ended):
        pokes[evaluation_id] = make_gate(evaluation_id).poke({"ti": FakeTaskInstance()})

    assert not pokes[running]
    assert pokes[ended].is_done
    assert pokes[ended].xcom_value["status"] == "completed"


def test_xcom_push_can_be_switched_off(oxen_hub: LocalHub) -> None:
    """``do_xcom_push=False`` pushes nothing but what a task that defers needs itself."""
    assert run_task("first poll", oxen_hub.add_evaluation(seconds=0), do_xcom_push=False).xcoms == {}
    assert set(run_task("deferred", oxen_hub.add_evaluation(seconds=0.1), do_xcom_push=False).xcoms) == {"waits_for"}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("namespace", ""),
        ("repo_name", "a/b"),
        ("evaluation_id", ".."),
        ("evaluation_id", "None"),
        ("namespace", "ox/r"),
        ("evaluation_id", "https://www.oxen.ai/ox/r/evaluations/x"),
        ("evaluation_id", None),
        ("evaluation_id", 7.5),
        ("evaluation_id", ["x"]),
        ("evaluation_id", print),
    ],
)
def test_bad_literal_is_refused_when_the_dag_is_parsed(argument: str, value: object) -> None:
    """An argument that could never be sent is refused as the sensor is made, with its name."""
    arguments = {"namespace": "ox", "repo_name": "r", "evaluation_id": "x", argument: value}

    with pytest.raises(ValueError, match=f"^Task 'gate': argument '{argument}'"):
        OxenEvaluationSensor(task_id="gate", **arguments)
    if argument != "evaluation_id":
        del arguments["evaluation_id"]
        with pytest.raises(ValueError, match=f"^Task 'gate': argument '{argument}'"):
            OxenEvaluationSensor.partial(task_id="gate", **arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"poke_interval": 0}, "poke_interval must be above 0"),
        ({"deferrable": "false"}, "deferrable must be True or False, but is 'false'"),
        ({"soft_fail": "false"}, "soft_fail must be True or False, but is 'false'"),
        ({"never_fail": "0"}, "never_fail must be True or False, but is '0'"),
        ({"start_from_trigger": "no"}, "start_from_trigger must be True or False, but is 'no'"),
        ({"namespace": "my team"}, "argument 'namespace': is 'my team': no name has white space in it"),
        ({"namespace": lambda: "ox"}, "argument 'namespace': must be text, but is function: a function was given"),
        ({"oxen_conn_id": "None"}, "oxen_conn_id is empty: name the Airflow connection"),
        ({"timeout": timedelta.max}, "timeout is .* beyond the calendar"),
        ({"default_args": {"timeout": timedelta.max}}, "timeout is .* beyond the calendar"),
        ({"execution_timeout": timedelta.max}, "execution_timeout is .* beyond the calendar"),
        ({"default_args": {"execution_timeout": timedelta.max}}, "execution_timeout is .* beyond the calendar"),
        ({"conditions": all_rows}, r"conditions: all_rows makes a condition and was not called: write all_rows\(\)"),
        ({"conditions": [max_credits]}, "conditions: max_credits makes a condition and was not called"),
        ({"oxen_conn_id": "https://hub.oxen.ai"}, "oxen_conn_id is an address"),
        ({"namespace": "ox/r"}, "argument 'namespace'"),
        ({"conditions": eval("lambda evaluation: True")}, None),  # noqa: S307
    ],
)
def test_what_is_refused_when_the_dag_is_parsed_names_dag_and_task(
    arguments: dict[str, Any], problem: str | None
) -> None:
    """A DAG file may make hundreds of tasks: the error says which one is meant, also in a group and where mapped."""
    named = {"task_id": "gate", "namespace": "ox", "repo_name": "r", **arguments}

    if "default_args" in arguments:  # which a mapped task gets on its worker
        with DAG("nightly", schedule=None), pytest.raises(ValueError, match=rf"^DAG 'nightly', task 'gate': {problem}"):
            OxenEvaluationSensor(evaluation_id="x", **named)
        return
    with DAG("nightly", schedule=None), TaskGroup("checks"):
        if problem is not None:
            with pytest.raises(ValueError, match=rf"^DAG 'nightly', task 'checks\.gate': {problem}"):
                OxenEvaluationSensor(evaluation_id="x", **named)
        with pytest.raises(
            ValueError, match=rf"^DAG 'nightly', task 'checks\.gate': {problem or 'conditions: .*exec'}"
        ):
            OxenEvaluationSensor.partial(**named).expand(evaluation_id=["x"])


def test_function_that_airflow_calls_in_place_of_a_template_is_accepted(oxen_hub: LocalHub) -> None:
    """Airflow calls a function with the context and its Jinja environment: it is known when the task runs."""

    def newest(context: Any, jinja_env: Any) -> str:
        assert jinja_env is not None
        return context["newest"]

    with DAG("d", schedule=None):
        gate = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="customer-intents", evaluation_id=newest)
        OxenEvaluationSensor.partial(task_id="mapped", namespace="ox", evaluation_id=newest).expand(repo_name=["r"])
    gate.render_template_fields({"newest": oxen_hub.add_evaluation(seconds=0)})

    assert gate.execute({"ti": FakeTaskInstance()})["status"] == "completed"


@pytest.mark.parametrize("conn_id", [None, "None", "", ["c"], {"conn_id": "c"}, "https://hub.oxen.ai"])
def test_rendered_connection_id_that_is_none_fails_at_once(oxen_hub: LocalHub, conn_id: Any) -> None:
    """What a template or a task gives for the connection's id is checked before anything is looked up."""
    gate = make_gate("e", retry_window=60)
    gate.oxen_conn_id = conn_id

    with pytest.raises(AirflowFailException, match=r"argument 'oxen_conn_id': .*, such as 'oxen_default'"):
        gate.execute({"ti": FakeTaskInstance()})

    assert oxen_hub.requests == []


def test_warning_names_dag_and_task() -> None:
    """A warning about an argument begins with the ids of DAG and task."""
    with DAG("nightly", schedule=None), pytest.warns(UserWarning, match=r"^DAG 'nightly', task 'gate': mode="):
        OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id="x", mode="reschedule")


@pytest.mark.parametrize("way", [*WAYS, "in the triggerer"])
def test_uuid_is_taken_as_its_text(oxen_hub: LocalHub, way: str) -> None:
    """An id that is a UUID, as a task may return it, is waited for, each way."""
    if way == "in the triggerer" and not AIRFLOW_V_3_3_PLUS:
        pytest.skip("Airflow 3.3 or later is needed")
    evaluation_id = add_evaluation(oxen_hub, way, end="completed")

    result = run_task(way, uuid.UUID(evaluation_id))  # type: ignore[arg-type]

    assert result.raised is None
    assert result.returned["id"] == evaluation_id


@pytest.mark.parametrize("way", WAYS)
def test_white_space_around_rendered_names_is_left_out(oxen_hub: LocalHub, way: str) -> None:
    """What a shell pushed ends with a line break; a number is the name it is written as."""
    evaluation_id = add_evaluation(oxen_hub, way, end="completed")

    result = run_task(way, f" {evaluation_id}\n", namespace="ox\n", oxen_conn_id="oxen_default\n")

    assert result.raised is None
    assert f"/api/repos/ox/customer-intents/evaluations/{evaluation_id}" in str(oxen_hub.requests)


@pytest.mark.parametrize("written", ["2024", "1e3", "1e5", "0x10", "1_000", "00123", "1.50", "True", "2024 "])
@pytest.mark.parametrize("mapped", [False, True])
def test_name_that_looks_like_a_number_stays_as_written(oxen_hub: LocalHub, written: str, *, mapped: bool) -> None:
    """With ``render_template_as_native_obj``, Jinja would make another name of it, of a template's as well."""
    names = {"namespace": written, "repo_name": "{{ x }}"}
    with DAG("d", schedule=None, render_template_as_native_obj=True):
        if mapped:
            made = OxenEvaluationSensor.partial(task_id="gate", **names).expand(evaluation_id=["{{ x -}} "])
            gate = made.unmap({"evaluation_id": "{{ x -}} "})
        else:
            gate = OxenEvaluationSensor(task_id="gate", **names, evaluation_id="{{ x -}} ")

    gate.render_template_fields({"x": written})
    with contextlib.suppress(AirflowFailException):  # the hub has no such evaluation
        gate.poke({})

    text = written.strip()
    assert [request.path for request in oxen_hub.requests] == [f"/api/repos/{text}/{text}/evaluations/{text}"]


@pytest.mark.parametrize(
    ("rendered", "words"),
    [
        (None, ": nothing was given, or the task it should come from returned nothing"),
        ("None", ": nothing was given, or the task it should come from returned nothing"),
        (["e-1"], "it is a list as text: name one task in xcom_pull"),
        ({"id": "e-1"}, "it is a dict as text: give one of its values"),
        ("e 1", "is 'e 1': no name has white space in it"),
    ],
)
def test_value_of_a_template_that_is_no_name_is_refused(rendered: object, words: str) -> None:
    """What a template renders to is checked on the worker, also where Jinja made an object of it."""
    for native in (True, False):
        with DAG("d", schedule=None, render_template_as_native_obj=native):
            gate = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id="{{ x }}")
        gate.render_template_fields({"x": rendered})

        with pytest.raises(AirflowFailException) as raised:
            gate.execute({"ti": FakeTaskInstance()})

        assert words in str(raised.value)


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


def test_bad_value_of_a_mapped_task_is_refused_when_it_runs(oxen_hub: LocalHub) -> None:
    """A mapped task is made again on its worker; a bad value ends it as any outcome does, so ``soft_fail`` skips."""
    sensor = OxenEvaluationSensor(
        task_id="g", namespace="ox", repo_name="r", evaluation_id="a/b", soft_fail=True, _airflow_from_mapped=True
    )

    with pytest.raises(AirflowSkipException, match="argument 'evaluation_id'"):
        sensor.execute({"ti": FakeTaskInstance()})

    assert oxen_hub.requests == []


def test_airflow_2_does_not_count_the_time_of_a_deferred_task_itself(oxen_hub: LocalHub) -> None:
    """On Airflow 2, which would end the task before it can say what was seen, the gate alone counts the time."""
    limit = timedelta(seconds=90)
    evaluation_id = oxen_hub.add_evaluation(seconds=600)
    deferred = make_gate(evaluation_id, execution_timeout=limit, timeout=1000)
    poking = make_gate(evaluation_id, execution_timeout=limit, timeout=1000, deferrable=False)

    deferred = deferred.prepare_for_execution()
    with pytest.raises(TaskDeferred) as caught:
        deferred.execute({"ti": FakeTaskInstance()})

    assert deferred.execution_timeout == (limit if AIRFLOW_V_3_0_PLUS else None)
    assert poking.execution_timeout == limit
    assert deferred.execution_limit == poking.execution_limit == limit
    assert caught.value.trigger.deadline == pytest.approx(time.time() + 90, abs=5)


def test_rescheduled_task_does_not_hold_its_worker_through_a_rate_limit(oxen_hub: LocalHub) -> None:
    """A pause that the hub asks for is waited out without a worker, as any other time between two polls."""
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


@pytest.mark.parametrize("rendered", ["", "None", "a/b", 7.5, ["a"]])
def test_bad_rendered_id_fails_for_good_before_any_request(oxen_hub: LocalHub, rendered: object) -> None:
    """A template that renders to nothing usable fails the task with the argument's name, and nothing is sent."""
    sensor = OxenEvaluationSensor(task_id="gate", namespace="ox", repo_name="r", evaluation_id="{{ params.x }}")
    sensor.evaluation_id = rendered  # as Airflow does when it renders

    with pytest.raises(AirflowFailException, match="argument 'evaluation_id'"):
        sensor.execute({"ti": FakeTaskInstance()})

    assert oxen_hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "alternative"),
    [({"mode": "reschedule"}, "deferrable=False"), ({"exponential_backoff": True}, "max_wait")],
)
def test_argument_without_effect_gives_a_warning(arguments: dict[str, Any], alternative: str) -> None:
    """A combination that Airflow allows and that changes nothing is warned about when the DAG is parsed."""
    with pytest.warns(UserWarning, match=alternative):
        OxenEvaluationSensor(task_id="g", namespace="ox", repo_name="r", evaluation_id="x", **arguments)


def test_defaults_do_not_depend_on_the_mode() -> None:
    """A gate waits by the same numbers whether it is deferred or not, and durations may be ``timedelta``."""
    common = {"namespace": "ox", "repo_name": "r", "evaluation_id": "x"}
    gates = [
        OxenEvaluationSensor(task_id="g", **common, **arguments)
        for arguments in (
            {},
            {"deferrable": False},
            {"deferrable": False, "mode": "reschedule"},
            {"poke_interval": timedelta(seconds=10), "max_wait": timedelta(minutes=1)},
            {"retry_window": timedelta(minutes=10), "oxen_conn_id": "oxen_default"},
            {"timeout": timedelta(days=7)},
        )
    ]

    numbers = {(gate.poke_interval, gate.max_wait, gate.retry_window, gate.timeout) for gate in gates}
    assert numbers == {(10.0, timedelta(seconds=60), 600.0, 604_800.0)}
    assert {gate.oxen_conn_id for gate in gates} == {"oxen_default"}


def test_trigger_gets_every_argument(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sensor was given reaches the trigger: no argument is dropped on the way."""
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
    deadline, last_seen, seen_at = (arguments.pop(name) for name in ("deadline", "last_seen", "seen_at"))
    assert deadline == pytest.approx(time.time() + 100, abs=5)
    assert (last_seen["id"], last_seen["status"]) == ("e", "queued")
    assert seen_at == pytest.approx(time.time(), abs=5)
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
        "started_here": False,
        "is_recorded": False,
    }


def test_reschedule_deadline_counts_from_the_first_poll(oxen_hub: LocalHub) -> None:
    """The time of a task that was rescheduled counts from its first poll."""
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


def test_outcome_is_in_the_log_of_the_worker(oxen_hub: LocalHub, logged: Callable[[], str]) -> None:
    """After a deferral, the worker's log says how the wait ended, and not only the triggerer's."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)
    evaluation = Evaluation.from_dict(run_task("first poll", evaluation_id).returned)
    outcome = Outcome(OutcomeReason.COMPLETED, EvaluationRef("ox", "customer-intents", evaluation_id), evaluation)
    logged()

    make_gate(evaluation_id).execute_complete({"ti": FakeTaskInstance()}, outcome.to_event())

    text = logged()
    assert "The gate opens. Evaluation completed (1,000 of 1,000 rows" in text
    assert f"evaluation {evaluation_id} of ox/customer-intents" in text


def test_unknown_status_never_opens_the_gate(oxen_hub: LocalHub) -> None:
    """With a status that is not the contract's, the wait goes on until the timeout, each way."""
    for way in WAYS_TO_WAIT:
        fault = Fault(Alter(evaluation={"status": "succeeded"}))
        evaluation_id = oxen_hub.add_evaluation(seconds=0, faults=(fault,))

        assert type(run_task(way, evaluation_id, timeout=0.3).raised) is AirflowSensorTimeout
