"""The operator: what it refuses, what it sends, and that it waits as the sensor does."""

from __future__ import annotations

import asyncio
import json
import warnings
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import wait as wait_module
from airflow_provider_oxen.conditions import all_rows, max_credits, no_missing_answers, row_count
from airflow_provider_oxen.links.oxen import LINKS
from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.reactions import OxenConditionFailedError, OxenHubUnreachableError, OxenWaitLostError
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.start import OxenStartFailedError
from airflow_provider_oxen.testing import AfterStart, Delay, Disconnect, Fault, Respond, Scenario
from tests.support.airflow import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_3_PLUS,
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    Asset,
    TaskDeferred,
)
from tests.support.assets import URI, make_outlet_events
from tests.support.links import NAMES
from tests.support.public_hub import public_hub
from tests.support.starts import (
    WAYS,
    FakeStore,
    StartingTaskInstance,
    make_operator,
    run_operator,
    settle,
    store_error,
)
from tests.support.tasks import trigger_error
from tests.support.triggers import run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub

needs_store = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="this Airflow has no task state store")


@pytest.fixture
def ti() -> StartingTaskInstance:
    """A task instance, at its first attempt."""
    return StartingTaskInstance()


@pytest.fixture(params=[pytest.param(True, marks=needs_store), False], ids=["store", "no store"])
def store(request: pytest.FixtureRequest) -> FakeStore | None:
    """Airflow's task state store, and none."""
    return FakeStore() if request.param else None


def ends(oxen_hub: LocalHub, way: str, **scenario: Any) -> None:
    """Let what is started end soon."""
    oxen_hub.on_start = Scenario(**{"seconds": 0.3 if way == "deferred" else 0.1, "rows": 50} | scenario)


# Refused while a DAG file is parsed


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": None}, "prompt is empty"),
        ({"model": ""}, "model is empty"),
        ({"target_column": ""}, "target_column is empty"),
        ({"namespace": ""}, "namespace is empty"),
        ({"namespace": "a/b"}, "argument 'namespace'"),
        ({"repo_name": ".."}, "argument 'repo_name'"),
        ({"branch": ""}, "branch is empty"),
        ({"branch": "eval/../main"}, "argument 'branch'"),
        ({"path": "../secret"}, "argument 'path'"),
        ({"path": "/data/a.csv"}, "argument 'path'"),
        ({"target_branch": "results"}, "target_branch and target_path need auto_commit=True"),
        ({"target_path": "out.csv", "auto_commit": False}, "target_branch and target_path need auto_commit=True"),
        ({"on_clear": "fail"}, "on_clear must be 'resume' or 'start_again'"),
        ({"on_unknown_start": "resume"}, "on_unknown_start must be 'fail' or 'start_again'"),
        ({"is_sample": True, "sample_count": 0}, "sample_count must be a whole number"),
        ({"is_sample": True, "sample_count": "10"}, "sample_count must be a whole number"),
        ({"batch_size": -1}, "batch_size must be a whole number"),
        ({"body": "{}"}, "body must be a dict"),
        ({"body": {"prompt": ""}}, "prompt is empty"),
        ({"body": {"sample_count": 20}}, "sample_count needs is_sample=True"),
        ({"auto_commit": "no"}, "auto_commit must be True or False"),
        ({"target_path": "../../etc", "auto_commit": True}, "argument 'target_path'"),
        ({"oxen_conn_id": ""}, "oxen_conn_id is empty"),
        ({"poke_interval": 0}, "poke_interval must be above 0"),
        ({"deferrable": "false"}, "deferrable must be True or False, but is 'false'"),
        ({"durable": "false"}, "durable must be True or False, but is 'false'"),
        ({"wait_for_completion": "no"}, "wait_for_completion must be True or False, but is 'no'"),
        ({"execution_timeout": timedelta.max}, "execution_timeout is .* beyond the calendar"),
        ({"timeout": -1}, "timeout must be"),
        ({"conditions": "all_rows"}, "conditions must be a callable"),
        ({"conditions": all_rows(), "end_from_trigger": True}, "cannot be combined with end_from_trigger=True"),
        ({"conditions": no_missing_answers()}, "conditions on rows need auto_commit=True"),
        ({"conditions": lambda evaluation, rows: True}, "conditions on rows need auto_commit=True"),  # noqa: ARG005
        (
            {"conditions": [row_count(5)], "auto_commit": True, "body": {"auto_commit": False}},
            "conditions on rows need auto_commit=True",
        ),
        (
            {"conditions": row_count(5), "auto_commit": True, "path": "data/rows.txt"},
            r"conditions on rows can read parquet, .*, but the results are in a file ending in '\.txt'",
        ),
        (
            {"conditions": row_count(5), "auto_commit": True, "target_path": "out/rows.csv.gz"},
            r"but the results are in a file ending in '\.gz'",
        ),
        ({"start_from_trigger": True}, "start_from_trigger cannot be used here: an evaluation is started on a worker"),
    ],
)
def test_what_can_never_work_is_refused_when_the_dag_is_parsed(arguments: dict[str, Any], problem: str) -> None:
    """A mistake is found before anything runs and costs money, and the message says what is allowed."""
    with pytest.raises(ValueError, match=problem):
        make_operator(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"auto_commit": True},
        {"body": {"auto_commit": True}},
        {"body": "{{ x }}"},
        {"auto_commit": True, "target_path": "{{ ds }}"},
        {"auto_commit": True, "path": "rows.txt", "target_path": "out.CSV"},
    ],
)
def test_conditions_on_rows_are_allowed_where_results_may_be_committed(arguments: dict[str, Any]) -> None:
    """The argument says so, the body does, or a template may."""
    assert make_operator(conditions=no_missing_answers(), **arguments)


def test_uncommitted_results_are_refused_before_anything_is_started(oxen_hub: LocalHub) -> None:
    """Where that is known only when the task runs, as where a policy sets its conditions, no request is sent."""
    ti = StartingTaskInstance()
    task = make_operator(conditions=all_rows())
    task.conditions = [no_missing_answers()]  # as a cluster policy may

    with pytest.raises(AirflowFailException, match="Nothing was started: conditions on rows need auto_commit=True"):
        task.execute({"ti": ti})

    assert oxen_hub.requests == []


#: Constants of a mapped task.
MAPPED: dict[str, Any] = {
    "task_id": "label",
    "namespace": "ox",
    "repo_name": "r",
    "branch": "main",
    "model": "m",
    "prompt": "p",
    "target_column": "c",
}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"conditions": all_rows(), "end_from_trigger": True}, "cannot be combined with end_from_trigger=True"),
        ({"conditions": "all_rows"}, "conditions must be a callable"),
        ({"poke_interval": 0}, "poke_interval must be above 0"),
        ({"deferrable": "false"}, "deferrable must be True or False, but is 'false'"),
        ({"durable": "false"}, "durable must be True or False, but is 'false'"),
        ({"wait_for_completion": "no"}, "wait_for_completion must be True or False, but is 'no'"),
        ({"execution_timeout": timedelta.max}, "execution_timeout is .* beyond the calendar"),
        ({"timeout": -1}, "timeout must be"),
        ({"prompt": " "}, "prompt is empty"),
        ({"model": None}, "model is empty"),
        ({"branch": "eval/../main"}, "argument 'branch'"),
        ({"namespace": "a/b"}, "argument 'namespace'"),
        ({"oxen_conn_id": ""}, "oxen_conn_id is empty"),
        ({"target_branch": "results"}, "target_branch and target_path need auto_commit=True"),
        ({"target_path": "out.csv", "auto_commit": False}, "target_branch and target_path need auto_commit=True"),
        ({"body": {"target_branch": "results"}}, "target_branch and target_path need auto_commit=True"),
        ({"body": "{}"}, "body must be a dict"),
        ({"on_clear": "fail"}, "on_clear must be 'resume' or 'start_again'"),
        ({"on_unknown_start": "resume"}, "on_unknown_start must be 'fail' or 'start_again'"),
        ({"is_sample": True, "sample_count": 0}, "sample_count must be a whole number"),
        ({"sample_count": 10}, "sample_count needs is_sample=True"),
        ({"batch_size": -1}, "batch_size must be a whole number"),
        ({"wait_for_completion": False, "soft_fail": True}, "soft_fail has no meaning with wait_for_completion=False"),
        ({"conditions": row_count(5)}, "conditions on rows need auto_commit=True"),
        (
            {"conditions": row_count(5), "auto_commit": True, "target_path": "out/rows.csv.gz"},
            r"but the results are in a file ending in '\.gz'",
        ),
        ({"start_from_trigger": True}, "start_from_trigger cannot be used here: an evaluation is started on a worker"),
    ],
)
def test_mapped_task_refuses_its_constants_when_the_dag_is_parsed(arguments: dict[str, Any], problem: str) -> None:
    """A mapped task is not made before it runs: what can never work is refused where its constants are given."""
    with pytest.raises(ValueError, match=f"DAG 'd', task 'label': .*{problem}"), DAG("d", schedule=None):
        OxenRunEvaluationOperator.partial(**MAPPED | arguments).expand(path=["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "defaults"),
    [
        ({"target_branch": "results", "auto_commit": True}, {}),
        ({"target_branch": "results"}, {"auto_commit": True}),
        ({"target_branch": "results", "body": {"auto_commit": True}}, {}),
        ({"start_from_trigger": False}, {}),
        ({"conditions": row_count(5), "target_path": "out.csv"}, {"auto_commit": True}),
        ({"prompt": "{{ params.prompt }}", "on_clear": "start_again", "on_unknown_start": "start_again"}, {}),
    ],
)
def test_mapped_task_takes_good_constants(arguments: dict[str, Any], defaults: dict[str, Any]) -> None:
    """What works for one task works for a mapped one, also where it comes from the DAG's ``default_args``."""
    with DAG("d", schedule=None, default_args=defaults):
        OxenRunEvaluationOperator.partial(**MAPPED | arguments).expand(path=["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        ({"input_type": "audio"}, "input_type='audio' is none of those that the vendor documents: text, image, video"),
        ({"output_type": "audio"}, "output_type='audio' is none of those that the vendor documents"),
        ({"durable": False}, "durable=False: each attempt starts an evaluation, so a retry pays again"),
    ],
)
def test_what_may_be_a_mistake_is_warned_of(arguments: dict[str, Any], warning: str) -> None:
    """A type that the vendor may have added, and a setting that may cost twice, are warned of in the DAG file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_operator(**arguments)

    (only,) = caught
    assert str(only.message).startswith(f"Task 'label': {warning}")
    assert only.category is UserWarning


def test_literals_are_sent_as_their_text(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """A UUID or a number that is given as a name is the text it stands for, and white space around names goes."""
    ends(oxen_hub, "on the worker")
    named: dict[str, Any] = {"namespace": "ox\n", "repo_name": 2024, "path": " data/a.parquet\n", "name": 7}

    run = run_operator("on the worker", ti, None, **named)

    assert run.raised is None
    assert oxen_hub.start_requests[0].path == "/api/repos/ox/2024/evaluations/main/data/a.parquet"
    assert oxen_hub.started[0].body["name"] == "7"


@pytest.mark.parametrize("name", ["prompt", "model", "target_column", "path", "commit_message"])
@pytest.mark.parametrize("value", [["x"], {"id": "x"}, 1.5, print])
def test_value_that_is_not_text_is_refused_when_the_dag_is_parsed(name: str, value: object) -> None:
    """A list, a function that was not called and the like are refused, where mapped too, with DAG and task."""
    named = {"namespace": "ox", "repo_name": "r", "branch": "main", "model": "m", "prompt": "p", "target_column": "c"}
    with pytest.raises(ValueError, match=rf"^Task 'label': .*{name}.* must be text, but is {type(value).__name__}"):
        make_operator(**{name: value})
    with DAG("d", schedule=None), pytest.raises(ValueError, match=rf"^DAG 'd', task 'label': .*{name}.* must be text"):
        make_operator(**{name: value})
    with DAG("d", schedule=None), pytest.raises(ValueError, match=rf"^DAG 'd', task 'label': .*{name}.* must be text"):
        OxenRunEvaluationOperator.partial(task_id="label", **{**named, name: value})


def test_start_fails_at_once_where_a_setting_never_heals(
    oxen_hub: LocalHub, ti: StartingTaskInstance, set_connection: Callable[..., None]
) -> None:
    """TLS spoken to a port that has none is no outage: nothing was started, and the message says what to set."""
    set_connection(host=oxen_hub.url.replace("http:", "https:"))

    raised = run_operator("on the worker", ti, FakeStore() if AIRFLOW_V_3_3_PLUS else None, retry_window=60).raised

    assert type(raised) is AirflowFailException
    assert str(raised).startswith(
        "Nothing was started: not sent: the port does not speak TLS: set the connection's schema"
    )


def test_defaults_and_templates_give_no_warning() -> None:
    """What is right, and what is known later, is neither refused nor warned of."""
    make_operator()
    make_operator(
        prompt="{{ params.prompt }}",
        input_type="{{ params.type }}",
        path="{{ ds }}/../a.csv",
        target_branch="results",
        auto_commit=True,
        start_from_trigger=False,
    )
    make_operator(target_path="out.csv", body={"auto_commit": True})


# What is sent


def test_required_fields_are_sent(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """Only what is given is sent; ``model`` goes out as ``model_id``; the default name has every number."""
    ends(oxen_hub, "on the worker")
    run_operator("on the worker", ti, None)

    (started,) = oxen_hub.started
    assert (started.namespace, started.repo_name) == ("ox", "customer-intents")
    assert (started.branch, started.path) == ("main", "data/customers.parquet")
    assert started.body == {
        "model_id": "m",
        "prompt": "Which intent is this?\n{text}",
        "target_column": "intent",
        "input_type": "text",
        "output_type": "text",
        "name": "d.label r try 1",
    }


def test_every_field_is_sent(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """Each argument of the vendor's page goes out under its own name."""
    ends(oxen_hub, "on the worker")
    fields = {
        "target_column": "c",
        "input_type": "image",
        "output_type": "embeddings",
        "name": "mine",
        "target_branch": "results",
        "target_path": "out.parquet",
        "auto_commit": True,
        "commit_message": "labels",
        "is_sample": True,
        "sample_count": 5,
        "batch_size": 20,
    }
    run_operator("on the worker", ti, None, **fields, model="other", prompt="p")

    assert oxen_hub.started[0].body == {**fields, "model_id": "other", "prompt": "p"}


def test_false_is_sent(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """False is a value; only None leaves a field out."""
    ends(oxen_hub, "on the worker")
    run_operator("on the worker", ti, None, auto_commit=False, is_sample=False)

    assert {"auto_commit": False, "is_sample": False}.items() <= oxen_hub.started[0].body.items()


def test_body_adds_replaces_and_removes_fields(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """``body`` can send the vendor's older form: it adds and replaces fields, and None removes one."""
    ends(oxen_hub, "on the worker")
    body = {
        "model": "gemini-flash",
        "type": "text",
        "model_id": None,
        "input_type": None,
        "output_type": None,
        "target_column": "other",
        "name": "mine",
    }
    run_operator("on the worker", ti, None, body=body)

    assert oxen_hub.started[0].body == {
        "prompt": "Which intent is this?\n{text}",
        "model": "gemini-flash",
        "type": "text",
        "target_column": "other",
        "name": "mine",
    }


@pytest.mark.parametrize(
    ("map_index", "name"), [(-1, "d.label r try 3"), (0, "d.label[0] r try 3"), (7, "d.label[7] r try 3")]
)
def test_default_name_says_the_attempt(oxen_hub: LocalHub, map_index: int, name: str) -> None:
    """A person who looks for a lost one finds the DAG, task, map index, run and attempt in its name."""
    ends(oxen_hub, "on the worker")
    ti = StartingTaskInstance(try_number=3, max_tries=4, map_index=map_index)
    run_operator("on the worker", ti, None)

    assert oxen_hub.started[0].body["name"] == name


def test_templated_fields_are_the_texts() -> None:
    """Jinja is rendered in every text, and in ``body``."""
    assert set(OxenRunEvaluationOperator.template_fields) == {
        "namespace",
        "repo_name",
        "branch",
        "path",
        "model",
        "prompt",
        "target_column",
        "input_type",
        "output_type",
        "name",
        "target_branch",
        "target_path",
        "commit_message",
        "body",
        "oxen_conn_id",
    }


def test_prompt_may_have_columns_and_templates(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """``{column}`` is the vendor's and stays; ``{{ … }}`` is Jinja and is rendered."""
    ends(oxen_hub, "on the worker")
    with DAG("d", schedule=None):
        operator = make_operator(
            prompt="On {{ ds }}: what does {name} want? {text}",
            path="data/{{ ds }}.parquet",
            body={"extra": "{{ ds }}", "{{ ds }}": 1},
            deferrable=False,
        )
    operator.render_template_fields({"ds": "2026-11-25"})
    operator.execute({"ti": ti})

    (started,) = oxen_hub.started
    assert started.body["prompt"] == "On 2026-11-25: what does {name} want? {text}"
    assert started.body["extra"] == "2026-11-25"
    assert started.path == "data/2026-11-25.parquet"


@pytest.mark.parametrize("marks", ["{{ %s }}", "<< %s >>"])
def test_native_rendering_changes_no_text(oxen_hub: LocalHub, ti: StartingTaskInstance, marks: str) -> None:
    """With ``render_template_as_native_obj``, texts are sent as written; only what is in ``body`` may be a number."""
    ends(oxen_hub, "on the worker")
    own = {} if "{" in marks else {"variable_start_string": "<<", "variable_end_string": ">>"}
    with DAG("d", schedule=None, render_template_as_native_obj=True, jinja_environment_kwargs=own):
        operator = make_operator(
            prompt=marks % "prompt",
            model="'quoted' or not'",
            target_column="1_000",
            name='"a name"',
            target_branch=marks % "nothing",
            auto_commit=True,
            commit_message=marks % "number",
            body={"seed": marks % "number", "tag": "2024"},
            deferrable=False,
        )
    operator.render_template_fields({"prompt": '{"is": [1, 2]}', "number": "1_000", "nothing": None})
    operator.execute({"ti": ti})

    body = oxen_hub.started[0].body
    assert (body["prompt"], body["target_column"], body["commit_message"]) == ('{"is": [1, 2]}', "1_000", "1_000")
    assert (body["model_id"], body["name"]) == ("'quoted' or not'", '"a name"')
    assert (body["seed"], body["tag"]) == (1000, "2024")
    assert "target_branch" not in body


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("poke_interval", 0, "poke_interval must be above 0 seconds"),
        ("max_wait", "60", "max_wait must be a timedelta or a finite number"),
        ("retry_window", -1, "retry_window must be a timedelta or a finite number"),
        ("timeout", None, "timeout must be a timedelta or a finite number"),
        ("conditions", all_rows, "conditions: all_rows makes a condition and was not called"),
        ("on_clear", "again", "on_clear must be 'resume' or 'start_again'"),
        ("deferrable", "false", "deferrable must be True or False"),
    ],
)
def test_setting_of_a_policy_that_can_never_work_starts_nothing(
    oxen_hub: LocalHub, ti: StartingTaskInstance, name: str, value: Any, problem: str
) -> None:
    """A cluster policy sets what the operator itself refuses: that is noticed before an evaluation is started."""
    operator = make_operator()
    setattr(operator, name, value)

    with pytest.raises(AirflowFailException, match=f"^Nothing was started: {problem}"):
        operator.execute({"ti": ti})
    assert oxen_hub.start_requests == []


@pytest.mark.parametrize(
    ("rendered", "problem"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"path": "a/../b"}, "argument 'path'"),
        ({"branch": None}, "branch is empty"),
    ],
)
def test_wrong_rendered_argument_is_a_final_failure(
    oxen_hub: LocalHub, ti: StartingTaskInstance, rendered: dict[str, Any], problem: str
) -> None:
    """What a template renders to is checked, too. It will be no better at the next attempt, so the failure is final."""
    operator = make_operator(**dict.fromkeys(rendered, "{{ x }}"))
    for name, value in rendered.items():
        setattr(operator, name, value)

    with pytest.raises(AirflowFailException, match=f"^Nothing was started: {problem}"):
        operator.execute({"ti": ti})
    assert oxen_hub.start_requests == []


@pytest.mark.parametrize(
    ("rendered", "problem"),
    [
        ({"body": ["a"]}, "body must be a dict of fields of the request, but is list"),
        ({"body": "abc"}, "body must be a dict"),
        ({"body": 5}, "body must be a dict"),
        ({"body": {"prompt": ""}}, "prompt is empty"),
        ({"target_branch": "b"}, "target_branch and target_path need auto_commit=True"),
    ],
    ids=str,
)
def test_wrong_rendered_field_is_a_final_failure(
    oxen_hub: LocalHub, ti: StartingTaskInstance, rendered: dict[str, Any], problem: str
) -> None:
    """So is a field that is known only when the task runs, such as another task's output."""
    operator = make_operator()
    vars(operator).update(rendered)

    with pytest.raises(AirflowFailException, match=f"^Nothing was started: {problem}"):
        operator.execute({"ti": ti})
    assert oxen_hub.start_requests == []


# Waiting


@pytest.mark.parametrize("way", WAYS)
def test_completed_evaluation_is_returned(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None, way: str
) -> None:
    """One is started and waited for; it is returned, and pushed as ``evaluation`` beside its id."""
    ends(oxen_hub, way)

    run = run_operator(way, ti, store)

    (started,) = oxen_hub.started
    assert run.raised is None
    assert run.deferrals == (way == "deferred")
    assert run.returned["id"] == started.id
    assert run.returned["status"] == "completed"
    assert run.returned["progress"] == {"processed": 50, "total": 50}
    assert "prompt" not in run.returned
    assert ti.xcoms.pop("waits_for", {}).get("evaluation_id") == (started.id if way == "deferred" else None)
    results = {"path": None, "version": None, "rows": None, "conditions": []}  # nothing was committed
    assert ti.xcoms == {"evaluation_id": started.id, "evaluation": run.returned, "results": results}
    assert len(oxen_hub.start_requests) == 1
    assert store is None or store.phase == "started"


def test_id_is_pushed_before_the_wait(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """Other tasks can read the id while the task waits."""
    ends(oxen_hub, "deferred")

    run = run_operator("deferred", ti, None)

    assert run.xcoms_when_deferred["evaluation_id"] == oxen_hub.started[0].id


class XComsFail(StartingTaskInstance):
    """A task instance of an Airflow that cannot store XComs for now."""

    def xcom_push(self, key: str, value: Any) -> None:
        if key == "evaluation_id":
            raise store_error(500)
        super().xcom_push(key, value)


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="this Airflow's SDK has no such error")
@pytest.mark.parametrize("way", WAYS)
def test_wait_goes_on_where_the_id_cannot_be_pushed(
    oxen_hub: LocalHub, store: FakeStore | None, logged: Callable[[], str], way: str
) -> None:
    """The evaluation runs, so the task waits for it, and the log warns."""
    ends(oxen_hub, way)

    run = run_operator(way, XComsFail(), store)

    assert run.raised is None
    assert run.returned["id"] == oxen_hub.started[0].id
    assert f"The id of evaluation {oxen_hub.started[0].id} of ox/customer-intents, which has started, could" in logged()


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="this Airflow's SDK has no such error")
def test_start_without_a_wait_fails_where_the_id_cannot_be_pushed(oxen_hub: LocalHub, store: FakeStore | None) -> None:
    """A retry waits for the evaluation where it can; else the failure is final, and has the id."""
    ends(oxen_hub, "deferred")

    raised = run_operator("deferred", XComsFail(), store, wait_for_completion=False).raised

    if store is None:
        assert type(raised) is AirflowFailException
        assert f"evaluation {oxen_hub.started[0].id} of ox/customer-intents" in str(raised)
        return
    assert not isinstance(raised, AirflowFailException)
    again = run_operator("deferred", StartingTaskInstance(try_number=2), store, wait_for_completion=False)
    assert again.returned["id"] == oxen_hub.started[0].id
    assert len(oxen_hub.start_requests) == 1


def test_id_is_pushed_although_xcoms_are_off(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """``do_xcom_push=False`` leaves out the evaluation, and not what the task itself needs."""
    ends(oxen_hub, "deferred")

    run = run_operator("deferred", ti, None, do_xcom_push=False)

    assert run.raised is None
    assert set(ti.xcoms) == {"evaluation_id", "waits_for"}
    assert ti.xcoms["evaluation_id"] == oxen_hub.started[0].id


def test_wait_needs_no_first_poll(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """What the hub responded to the start is the first poll: the task defers at once."""
    oxen_hub.on_start = Scenario(seconds=60)

    with pytest.raises(TaskDeferred) as deferred:
        make_operator().execute({"ti": ti})

    assert oxen_hub.requests_for(oxen_hub.started[0].id) == 0
    _, arguments = deferred.value.trigger.serialize()
    assert arguments["evaluation_id"] == oxen_hub.started[0].id
    assert arguments["started_here"] is True
    assert oxen_hub.api_key not in json.dumps(arguments)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["errored", "cancelled"])
def test_failed_evaluation_is_final(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None, way: str, end: str
) -> None:
    """Errored and cancelled fail for good: ``retries`` do not buy a second one, and neither does a try beyond them."""
    ends(oxen_hub, way, end=end)

    run = run_operator(way, ti, store)

    assert type(run.raised) is AirflowFailException
    assert str(run.raised).startswith(f"Evaluation {end}")
    assert ti.xcoms["evaluation"]["status"] == end
    ti.try_number = 2
    again = run_operator(way, ti, store)
    assert type(again.raised) is AirflowFailException
    assert len(oxen_hub.start_requests) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("setting", ["soft_fail"])
def test_final_failure_skips_where_asked(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str, setting: str) -> None:
    """``soft_fail`` skips instead, as the sensor does."""
    ends(oxen_hub, way, end="errored")

    run = run_operator(way, ti, None, **{setting: True})

    assert type(run.raised) is AirflowSkipException
    assert str(run.raised).startswith(f"Skipped by {setting}. Evaluation errored")


@pytest.mark.parametrize("way", WAYS)
def test_conditions_are_checked(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """A completed evaluation must meet the conditions."""
    ends(oxen_hub, way)
    assert run_operator(way, ti, None, conditions=all_rows()).raised is None
    unmet = run_operator(way, ti, None, conditions=[all_rows(), max_credits(0)]).raised
    assert type(unmet) is AirflowFailException
    assert str(unmet).startswith("Condition not met: ")


@pytest.mark.parametrize("way", WAYS)
def test_timeout_counts_from_the_start(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """A wait that takes longer than ``timeout`` is Airflow's own timeout, with what was last seen."""
    oxen_hub.on_start = Scenario(seconds=60)

    run = run_operator(way, ti, None, timeout=0.4)

    assert type(run.raised) is AirflowSensorTimeout
    assert str(run.raised).startswith("Timed out: ")


@needs_store
@pytest.mark.parametrize("way", WAYS)
def test_hub_out_of_reach_may_be_retried_with_a_store(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """The next attempt waits for the evaluation that was started."""
    store = FakeStore()
    oxen_hub.on_start = Scenario(seconds=0.2, faults=(Fault(Respond(503), count=40),))

    assert type(run_operator(way, ti, store, retry_window=0.1).raised) is OxenHubUnreachableError
    ti.try_number = 2
    run = run_operator(way, ti, store, retry_window=20)

    assert run.raised is None
    assert run.returned["id"] == oxen_hub.started[0].id
    assert len(oxen_hub.start_requests) == 1


@pytest.mark.parametrize("way", WAYS)
def test_hub_out_of_reach_is_waited_for_without_a_store(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """A retry could only refuse, so ``retry_window`` does not end the wait."""
    oxen_hub.on_start = Scenario(seconds=0.2, faults=(Fault(Respond(503), count=5),))

    run = run_operator(way, ti, None, retry_window=0)

    assert run.raised is None
    assert run.returned["status"] == "completed"


@needs_store
@pytest.mark.parametrize("way", WAYS)
def test_retry_takes_up_the_evaluation(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """An attempt that ended while it waited is followed by one that waits for the same evaluation."""
    store = FakeStore()
    oxen_hub.on_start = Scenario(seconds=60)
    with pytest.raises(TaskDeferred):
        make_operator().execute({"ti": ti, "task_state_store": store})
    evaluation_id = oxen_hub.started[0].id
    oxen_hub.add_evaluation(evaluation_id, seconds=0.3)
    ti.try_number = 2

    run = run_operator(way, ti, store)

    assert run.returned["id"] == evaluation_id
    assert ti.xcoms["evaluation_id"] == evaluation_id
    assert len(oxen_hub.start_requests) == 1


@needs_store
@pytest.mark.parametrize("way", WAYS)
def test_retry_does_not_start_another_one_where_the_hub_knows_none(
    oxen_hub: LocalHub, ti: StartingTaskInstance, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation that is gone is a final failure in words."""
    monkeypatch.setattr(wait_module, "NOT_FOUND_SECONDS", 0.3)
    ends(oxen_hub, way)
    store = FakeStore()
    run_operator(way, ti, store)
    oxen_hub.remove_evaluation(oxen_hub.started[0].id)
    ti.try_number = 2

    raised = run_operator(way, ti, store).raised

    assert type(raised) is AirflowFailException
    assert str(raised).startswith("Stopped waiting: 404: not found.")
    assert len(oxen_hub.start_requests) == 1


def test_later_attempt_without_a_store_is_final(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """Without a store, nothing is started by a retry, and the failure says why."""
    ti.try_number = 2

    raised = run_operator("deferred", ti, None).raised

    assert type(raised) is AirflowFailException
    assert "keeps nothing from one attempt of this task to the next" in str(raised)
    assert oxen_hub.start_requests == []


@needs_store
def _raise(_: Any) -> bool:
    raise RuntimeError("the condition's own words")


@pytest.mark.parametrize("way", WAYS)
def test_condition_that_fails_is_final_where_a_retry_could_only_refuse(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None, way: str
) -> None:
    """Without a store the next attempt would refuse, and hide the reason: the failure is final and says it."""
    ends(oxen_hub, way)

    raised = run_operator(way, ti, store, conditions=_raise).raised

    assert type(raised) is (AirflowFailException if store is None else OxenConditionFailedError)
    assert "the condition's own words" in str(raised)


def test_lost_wait_is_final_where_a_retry_could_only_refuse(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None
) -> None:
    """So is a trigger that failed, whose words are the last ones of the task."""
    oxen_hub.on_start = Scenario(seconds=60)

    raised = run_operator("deferred", ti, store, event={"form": "unknown"}).raised

    assert type(raised) is (AirflowFailException if store is None else OxenWaitLostError)
    assert "the trigger's event does not name an evaluation" in str(raised)


@needs_store
@pytest.mark.parametrize("heals", [False, True])
def test_condition_that_fails_is_final_where_the_id_could_not_be_stored(
    oxen_hub: LocalHub, ti: StartingTaskInstance, heals: bool
) -> None:
    """With a store it depends on whether the record names the evaluation by the end of the wait."""
    ends(oxen_hub, "deferred")
    store = FakeStore(plans={"set": [None, store_error(500), None if heals else store_error(500)]})

    raised = run_operator("deferred", ti, store, conditions=_raise).raised

    assert type(raised) is (OxenConditionFailedError if heals else AirflowFailException)


@pytest.mark.parametrize("policy", [{"on_unknown_start": "start_again"}, {"durable": False}])
def test_condition_that_fails_may_be_retried_where_a_retry_starts(
    oxen_hub: LocalHub, ti: StartingTaskInstance, policy: dict[str, Any]
) -> None:
    """Where the user has allowed another evaluation, ``retries`` apply."""
    ends(oxen_hub, "deferred")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        raised = run_operator("deferred", ti, None, conditions=_raise, **policy).raised

    assert type(raised) is OxenConditionFailedError


@pytest.mark.parametrize(
    "policy", [pytest.param({"on_unknown_start": "start_again"}, marks=needs_store), {"durable": False}]
)
@pytest.mark.filterwarnings("ignore:.*durable=False")
def test_setting_that_may_start_two_is_used(
    oxen_hub: LocalHub, ti: StartingTaskInstance, policy: dict[str, Any]
) -> None:
    """``on_unknown_start`` and ``durable`` reach the decision."""
    ends(oxen_hub, "on the worker")
    store = FakeStore()
    oxen_hub.start_faults = [Fault(AfterStart(Disconnect()), count=1)]
    run_operator("on the worker", ti, store, **policy)
    ti.try_number = 2

    assert run_operator("on the worker", ti, store, **policy).raised is None
    assert len(oxen_hub.started) == 2


@needs_store
@pytest.mark.parametrize(("on_clear", "started"), [("resume", 1), ("start_again", 2)])
def test_on_clear_is_used(oxen_hub: LocalHub, ti: StartingTaskInstance, on_clear: str, started: int) -> None:
    """``on_clear`` reaches the decision, and ``retries`` is no clear."""
    ends(oxen_hub, "on the worker")
    store = FakeStore()
    run_operator("on the worker", ti, store, on_clear=on_clear)
    ti.try_number, ti.max_tries = 2, 3

    assert run_operator("on the worker", ti, store, on_clear=on_clear).raised is None
    assert len(oxen_hub.started) == started


@pytest.mark.parametrize("way", WAYS)
def test_start_that_fails_is_no_wait(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """Where none was started, there is no id, no lineage and no link."""
    oxen_hub.out_of_credits = True

    run = run_operator(way, ti, None, soft_fail=True)

    assert type(run.raised) is AirflowFailException
    assert str(run.raised).startswith("Nothing was started: 402")
    assert ti.xcoms == {}
    assert run.operator.link_addresses is None
    assert run.operator.get_openlineage_facets_on_failure(None) is None


def test_connection_is_the_one_that_was_named(
    oxen_hub: LocalHub, ti: StartingTaskInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``oxen_conn_id`` is used to start and to wait."""
    ends(oxen_hub, "deferred")
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", oxen_hub.connection_json)
    monkeypatch.delenv("AIRFLOW_CONN_OXEN_DEFAULT")

    assert run_operator("deferred", ti, None, oxen_conn_id="other").raised is None
    raised = run_operator("on the worker", ti, None).raised
    assert type(raised) is AirflowFailException
    assert "connection 'oxen_default'" in str(raised)


# Not waiting


@needs_store
def test_task_succeeds_at_once_without_a_wait(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """``wait_for_completion=False`` returns the evaluation as it was started; its retry as it is."""
    store = FakeStore()
    oxen_hub.on_start = Scenario(seconds=60)

    run = run_operator("deferred", ti, store, wait_for_completion=False)

    evaluation_id = oxen_hub.started[0].id
    assert (run.raised, run.deferrals) == (None, 0)
    assert (run.returned["id"], run.returned["status"]) == (evaluation_id, "queued")
    assert ti.xcoms["evaluation_id"] == evaluation_id
    assert oxen_hub.requests_for(evaluation_id) == 0
    oxen_hub.add_evaluation(evaluation_id, seconds=0)
    ti.try_number = 2
    assert run_operator("deferred", ti, store, wait_for_completion=False).returned["status"] == "completed"
    assert len(oxen_hub.start_requests) == 1


@needs_store
@pytest.mark.parametrize(("fault", "kind"), [(503, OxenStartFailedError), (401, AirflowFailException)])
def test_evaluation_that_cannot_be_reported(
    oxen_hub: LocalHub, ti: StartingTaskInstance, fault: int, kind: type[Exception]
) -> None:
    """A retry that cannot poll the evaluation fails, for good only where polling again cannot help."""
    store = FakeStore()
    oxen_hub.on_start = Scenario(seconds=60, faults=(Fault(Respond(fault)),))
    run_operator("deferred", ti, store, wait_for_completion=False)
    ti.try_number = 2

    raised = run_operator("deferred", ti, store, wait_for_completion=False).raised

    assert type(raised) is kind
    assert f"{fault}: " in str(raised)
    assert oxen_hub.started[0].id in str(raised)


def test_sensor_can_wait_for_the_output() -> None:
    """The pattern of two tasks: the sensor's id is the XCom of the task that starts."""
    with DAG("d", schedule=None):
        start = make_operator(task_id="start", wait_for_completion=False)
        gate = OxenEvaluationSensor(
            task_id="gate", namespace="ox", repo_name="r", evaluation_id=start.output["evaluation_id"]
        )

    assert gate.evaluation_id.operator is start
    assert gate.evaluation_id.key == "evaluation_id"
    assert gate.upstream_task_ids == {"start"}


# Resuming


@needs_store
def test_record_is_completed_when_the_task_is_taken_up(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """Where the id could not be stored at the start, it is stored later."""
    ends(oxen_hub, "deferred")
    store = FakeStore(plans={"set": [None, store_error(500)]})

    assert run_operator("deferred", ti, store).raised is None
    assert (store.phase, store.record["evaluation_id"]) == ("started", oxen_hub.started[0].id)


@needs_store
def test_record_is_completed_from_the_event(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """Where neither the record nor an XCom has the id, the event has it."""
    ends(oxen_hub, "deferred")
    context: Any = {"ti": ti, "task_state_store": (store := FakeStore(plans={"set": [None, store_error(500)]}))}
    with pytest.raises(TaskDeferred) as deferred:
        make_operator().execute(context)
    event = asyncio.run(run_trigger(deferred.value.trigger))
    ti.xcoms.clear()

    make_operator().execute_complete(context, event)

    assert store.record["evaluation_id"] == oxen_hub.started[0].id


def test_event_says_which_evaluation_is_meant(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """After the wait the event counts, and not templates that are rendered again."""
    ends(oxen_hub, "deferred", end="errored")

    run = run_operator("deferred", ti, None, rendered_later={"repo_name": "other"})

    assert f"evaluation {oxen_hub.started[0].id} of ox/customer-intents" in str(run.raised)


@pytest.mark.parametrize("event", [{"form": "unknown"}, "text", [1]])
def test_event_that_says_nothing_is_a_lost_wait(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None, event: Any
) -> None:
    """The message names the evaluation all the same."""
    ends(oxen_hub, "deferred")

    run = run_operator("deferred", ti, store, event=event)

    assert str(run.raised).startswith("No result: ")
    assert f"evaluation {oxen_hub.started[0].id} of ox/customer-intents" in str(run.raised)
    assert store is None or store.record["evaluation_id"] == oxen_hub.started[0].id


@pytest.mark.parametrize("found_in", ["xcom", pytest.param("store", marks=needs_store)])
@pytest.mark.parametrize(
    ("error", "kind"), [("Trigger timeout", "AirflowSensorTimeout"), ("Trigger failure", "OxenWaitLostError")]
)
def test_trigger_that_airflow_ended_finds_the_evaluation(
    oxen_hub: LocalHub, ti: StartingTaskInstance, error: Any, kind: str, found_in: str
) -> None:
    """Where Airflow itself ended the trigger, the id comes from the record, or from the XCom."""
    oxen_hub.on_start = Scenario(seconds=60)
    store = FakeStore() if found_in == "store" else None
    if store is None and kind == "OxenWaitLostError":
        kind = "AirflowFailException"  # a retry could only refuse
    with pytest.raises(TaskDeferred):
        make_operator().execute({"ti": ti, "task_state_store": store})
    if found_in == "store":
        ti.xcoms.clear()

    with pytest.raises(Exception, match=f"evaluation {oxen_hub.started[0].id} of ox/customer-intents") as caught:
        make_operator().resume_execution(
            "__fail__", {"error": trigger_error(error)}, {"ti": ti, "task_state_store": store}
        )
    assert type(caught.value).__name__ == kind


@needs_store
def test_store_that_fails_when_the_task_is_taken_up_does_not_matter(
    oxen_hub: LocalHub, ti: StartingTaskInstance
) -> None:
    """The event has the id."""
    ends(oxen_hub, "deferred")
    store = FakeStore(plans={"get": [None, store_error(500), store_error(500)]})
    store.plans["get"][1:1] = [None, None]  # the attempt itself looks at its record twice more

    run = run_operator("deferred", ti, store)

    assert run.raised is None
    assert run.returned["id"] == oxen_hub.started[0].id


# Mapped


def test_mapped_tasks_start_one_each(oxen_hub: LocalHub) -> None:
    """Each map index has its own file, name, record and XCom."""
    oxen_hub.on_start = Scenario(seconds=60)
    named = {"namespace": "ox", "repo_name": "r", "branch": "main", "model": "m", "prompt": "p {text}"}
    with DAG("d", schedule=None):
        mapped = OxenRunEvaluationOperator.partial(
            task_id="label", wait_for_completion=False, target_column="c", **named
        ).expand(path=["a.csv", "b.csv"])
    instances = [StartingTaskInstance(map_index=index) for index in range(2)]
    for ti, path in zip(instances, ("a.csv", "b.csv"), strict=True):
        mapped.unmap({"path": path}).execute({"ti": ti})

    assert [(one.path, one.body["name"]) for one in oxen_hub.started] == [
        ("a.csv", "d.label[0] r try 1"),
        ("b.csv", "d.label[1] r try 1"),
    ]
    assert [ti.xcoms["evaluation_id"] for ti in instances] == [one.id for one in oxen_hub.started]


@pytest.mark.parametrize("path", ["../a.csv", ""])
def test_mapped_value_that_is_wrong_is_a_final_failure(oxen_hub: LocalHub, path: str) -> None:
    """A mapped value is known when the task runs; then it is refused in words."""
    named = {"namespace": "ox", "repo_name": "r", "branch": "main", "model": "m", "prompt": "p", "target_column": "c"}
    with DAG("d", schedule=None):
        mapped = OxenRunEvaluationOperator.partial(task_id="label", **named).expand(path=[path])

    with pytest.raises(AirflowFailException, match=r"^Nothing was started: .*path"):
        mapped.unmap({"path": path}).execute({"ti": StartingTaskInstance(map_index=0)})
    assert oxen_hub.start_requests == []


def test_mapped_field_that_is_wrong_is_a_final_failure(oxen_hub: LocalHub) -> None:
    """A branch without ``auto_commit`` is found when the mapped task runs: no retry makes it better."""
    with DAG("d", schedule=None):
        mapped = OxenRunEvaluationOperator.partial(**MAPPED, path="a.csv").expand(target_branch=["b1", "b2"])

    with pytest.raises(AirflowFailException, match=r"^Nothing was started: target_branch and target_path need"):
        mapped.unmap({"target_branch": "b1"}).execute({"ti": StartingTaskInstance(map_index=0)})
    assert oxen_hub.start_requests == []


# Links, lineage, asset events


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """What the operator takes for the public hub."""
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)
        yield hub


def test_links_are_known_from_the_start_on(hub: LocalHub, ti: StartingTaskInstance) -> None:
    """When the task defers, its links lead to the evaluation that it has started."""
    hub.on_start = Scenario(seconds=60)
    operator = make_operator()
    with pytest.raises(TaskDeferred):
        operator.execute({"ti": ti})

    page = f"https://www.oxen.ai/ox/customer-intents/evaluations/{hub.started[0].id}"
    assert operator.link_addresses["_link_OxenEvaluationLink"] == page
    if AIRFLOW_V_3_0_PLUS:
        assert LINKS[0].get_link(operator, ti_key=ti) == page
    else:
        assert ti.xcoms["_link_OxenEvaluationLink"] == page
    assert [link.name for link in type(operator).operator_extra_links] == NAMES
    assert [link.name for link in operator.operator_extra_links] == ["Evaluation on Oxen", "Source data on Oxen"]


def test_messages_lead_to_the_page(hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str]) -> None:
    """The line that says that one was started has its address."""
    hub.on_start = Scenario(seconds=60)
    run_operator("on the worker", ti, None, wait_for_completion=False)

    assert f"(see https://www.oxen.ai/ox/customer-intents/evaluations/{hub.started[0].id})" in logged()


@pytest.mark.parametrize("way", WAYS)
def test_lineage_describes_the_evaluation(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """OpenLineage gets what the sensor gives it."""
    ends(oxen_hub, way)

    run = run_operator(way, ti, None)

    lineage = run.operator.get_openlineage_facets_on_complete(None)
    facet = lineage.run_facets["oxen_evaluation"]
    assert (facet.evaluation_id, facet.outcome) == (oxen_hub.started[0].id, "completed")
    assert [dataset.name for dataset in lineage.inputs] == ["ox/customer-intents/data/customers.parquet"]
    assert len(lineage.outputs) == 1


@pytest.mark.parametrize("way", WAYS)
def test_asset_event_has_the_evaluation(oxen_hub: LocalHub, ti: StartingTaskInstance, way: str) -> None:
    """The event of an ``oxen://`` outlet has the evaluation and what it took."""
    ends(oxen_hub, way)
    ours = Asset(uri=URI)
    outlet_events = make_outlet_events([ours])

    run_operator(way, ti, None, outlets=[ours], context={"outlet_events": outlet_events})

    extra = outlet_events[ours].extra
    assert (extra["evaluation_id"], extra["rows"]) == (oxen_hub.started[0].id, 50)


def test_asset_event_of_a_task_that_does_not_wait_has_the_id_alone(
    oxen_hub: LocalHub, ti: StartingTaskInstance
) -> None:
    """Airflow emits the event when the evaluation has started: rows, cost and commit are not known."""
    oxen_hub.on_start = Scenario(seconds=60)
    ours = Asset(uri=URI)
    outlet_events = make_outlet_events([ours])

    run_operator(
        "deferred", ti, None, wait_for_completion=False, outlets=[ours], context={"outlet_events": outlet_events}
    )

    assert outlet_events[ours].extra == {"evaluation_id": oxen_hub.started[0].id}


@needs_store
def test_start_with_a_name_that_is_cut_is_recorded(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """The name is sent as it is stored, so that the record is known for that of the same start."""
    ends(oxen_hub, "deferred")
    store = FakeStore()

    run = run_operator("deferred", ti, store, name="x" * 5_000, wait_for_completion=False)

    assert run.operator.is_recorded
    assert store.record["name"] == oxen_hub.started[0].body["name"]


# Stopped


@needs_store
def test_stop_while_waiting_says_what_keeps_running(
    hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str]
) -> None:
    """The log says which evaluation runs on and costs money, where to stop it, and what a clear does."""
    hub.on_start = Scenario(seconds=60)
    operator = make_operator()
    with pytest.raises(TaskDeferred):
        operator.execute({"ti": ti, "task_state_store": FakeStore()})
    logged()

    operator.on_kill()

    line = logged()
    evaluation_id = hub.started[0].id
    assert (
        f"The evaluation is still running and costing money, although this task was stopped: evaluation "
        f"{evaluation_id} of ox/customer-intents. Airflow cannot cancel it. Stop it on the hub (see "
        f"https://www.oxen.ai/ox/customer-intents/evaluations/{evaluation_id}). If this task was cleared, its next "
        "attempt waits for it, unless its arguments changed."
    ) in line
    assert "warning" in line.lower()
    assert hub.api_key not in line


@needs_store
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize(
    ("response", "limits", "runs"),
    [
        (None, {"timeout": 0.4}, "is still running"),
        (None, {"execution_timeout": timedelta(seconds=0.4)}, "is still running"),
        (Respond(503), {"retry_window": 0.1}, "may still be running"),
        (Respond(401), {}, "may still be running"),
    ],
    ids=["timeout", "execution_timeout", "unreachable", "refused"],
)
def test_wait_that_ends_first_says_what_keeps_running(
    oxen_hub: LocalHub,
    ti: StartingTaskInstance,
    logged: Callable[[], str],
    way: str,
    soft_fail: bool,
    response: Any,
    limits: dict[str, Any],
    runs: str,
) -> None:
    """The wait has ended, and the evaluation that the task started has not: that costs money, also after a skip."""
    oxen_hub.on_start = Scenario(seconds=60, faults=(Fault(response),) if response else ())

    run = run_operator(way, ti, FakeStore(), soft_fail=soft_fail, **limits)

    assert run.raised is not None
    assert (type(run.raised) is AirflowSkipException) is (soft_fail and response != Respond(503))
    line = f"The evaluation {runs} and costing money, although this task no longer waits for it: evaluation "
    assert f"{line}{oxen_hub.started[0].id} of ox/customer-intents." in logged()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["errored", "completed"])
def test_wait_that_sees_the_end_says_nothing_of_money(
    oxen_hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str], way: str, end: str
) -> None:
    """Nothing keeps running, also where a condition is not met."""
    ends(oxen_hub, way, end=end)

    assert run_operator(way, ti, None, conditions=max_credits(0)).raised is not None

    assert "costing money" not in logged()


def test_stop_while_the_response_is_out_says_that_it_is_not_known(
    oxen_hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str]
) -> None:
    """The log says under which name to look for it."""
    operator = make_operator(deferrable=False)

    def stop(_: Any) -> Scenario:
        operator.on_kill()
        return Scenario(seconds=0)

    oxen_hub.on_start = stop
    operator.execute({"ti": ti})

    text = logged()
    assert (
        "Not known whether an evaluation was started: this task was stopped while it asked for one (name "
        "'d.label r try 1'). Look for it in ox/customer-intents on the hub."
    ) in text
    assert oxen_hub.api_key not in text


@needs_store
def test_stop_while_the_id_is_stored_names_the_evaluation(
    oxen_hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str]
) -> None:
    """From the moment on that the id is known, it is named."""
    oxen_hub.on_start = Scenario(seconds=60)
    operator = make_operator(wait_for_completion=False)
    store = FakeStore(plans={"set": [None, operator.on_kill]})

    operator.execute({"ti": ti, "task_state_store": store})

    assert f"although this task was stopped: evaluation {oxen_hub.started[0].id} of" in logged()


def test_stop_before_the_request_starts_nothing(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None, logged: Callable[[], str]
) -> None:
    """A process may go on for seconds after it was stopped: nothing is started then, and no record is left."""
    operator = make_operator()
    if store is None:
        operator.on_kill()
    else:
        store.plans["set"] = [operator.on_kill]
    logged()

    with pytest.raises(OxenStartFailedError, match=r"^Nothing was started: the task was stopped"):
        operator.execute({"ti": ti, "task_state_store": store})
    settle(oxen_hub)
    assert oxen_hub.start_requests == []
    assert store is None or store.record is None
    assert "Not known" not in logged()


@needs_store
def test_stop_before_the_record_stores_none(oxen_hub: LocalHub, ti: StartingTaskInstance) -> None:
    """A process that dies after it was stopped leaves no record behind that would make the next attempt refuse."""
    operator, store = make_operator(), FakeStore()
    operator.on_kill()

    with pytest.raises(OxenStartFailedError, match=r"^Nothing was started: the task was stopped"):
        operator.execute({"ti": ti, "task_state_store": store})
    assert store.writes == []
    settle(oxen_hub)
    assert oxen_hub.start_requests == []


@pytest.mark.parametrize("when", ["made", "refused"])
def test_stop_says_nothing_where_nothing_runs(
    oxen_hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str], when: str
) -> None:
    """Before the request, and after one that was refused, there is nothing to say."""
    operator = make_operator()
    if when == "refused":
        oxen_hub.out_of_credits = True
        with pytest.raises(AirflowFailException):
            operator.execute({"ti": ti})
    logged()

    operator.on_kill()

    assert logged() == ""


def test_key_is_shown_nowhere(
    oxen_hub: LocalHub, ti: StartingTaskInstance, store: FakeStore | None, logged: Callable[[], str]
) -> None:
    """A hub that echoes the key carries it into no log, error, XCom or record."""
    key = oxen_hub.api_key
    oxen_hub.on_start = Scenario(seconds=0.2, end="errored", error_message=f"bad key {key}", fields={"name": key})
    failed = run_operator("deferred", ti, store)
    ti.try_number, ti.max_tries = 2, 3
    body = json.dumps({"status": "error", "error": {"title": f"no {key}", "detail": key}}).encode()
    oxen_hub.start_faults = [Fault(Respond(400, body))]
    refused = run_operator("deferred", ti, store)
    oxen_hub.start_faults = [Fault(Respond(500, body, {"x-oxen-request-id": key}))]
    unknown = run_operator("deferred", ti, store)

    shown = [str(failed.raised), str(refused.raised), str(unknown.raised), logged(), json.dumps(ti.xcoms)]
    assert "***" in str(failed.raised)
    assert "***" in str(refused.raised)
    assert str(unknown.raised).startswith("Not known")
    assert all(key not in text for text in shown)
    assert store is None or key not in json.dumps(store.entries)


@pytest.mark.parametrize("way", WAYS)
def test_failures_to_start_are_airflow_exceptions(
    oxen_hub: LocalHub, ti: StartingTaskInstance, way: str, set_connection: Callable[..., None]
) -> None:
    """For a retry policy, a start that may be retried has another class than one that may not."""
    set_connection(extra={"timeout": 0.3})
    oxen_hub.start_faults = [Fault(Delay(1.0))]
    assert type(run_operator(way, ti, None).raised) is AirflowFailException
    assert issubclass(OxenStartFailedError, AirflowException)
    assert not issubclass(OxenStartFailedError, AirflowFailException)


@pytest.mark.parametrize("argument", [{"conditions": all_rows()}, {"soft_fail": True}, {"end_from_trigger": True}])
def test_argument_about_the_wait_is_refused_without_one(argument: dict[str, Any]) -> None:
    """What would have no effect is refused while the DAG file is parsed."""
    with pytest.raises(ValueError, match=f"{next(iter(argument))} has no meaning with wait_for_completion=False"):
        make_operator(wait_for_completion=False, **argument)


def test_target_inside_the_body_needs_auto_commit() -> None:
    """A target in ``body`` is checked as the argument of that name is."""
    with pytest.raises(ValueError, match="auto_commit=True"):
        make_operator(body={"target_branch": "results"})

    assert make_operator(body={"target_branch": "results", "auto_commit": True}).body


def test_body_may_be_the_output_of_a_task() -> None:
    """``body`` is templated, so another task may make it."""
    with DAG("with_body", schedule=None):
        fields = make_operator(task_id="fields")
        operator = make_operator(body=fields.output)

    assert operator.upstream_task_ids == {"fields"}


def test_stop_after_the_evaluation_ended_says_nothing(
    hub: LocalHub, ti: StartingTaskInstance, logged: Callable[[], str]
) -> None:
    """An evaluation that has completed costs nothing more, so a stop while a condition is checked is silent."""
    hub.on_start = Scenario(seconds=0)

    def stop(_: Any) -> bool:
        logged()
        operator.on_kill()
        return True

    operator = make_operator(deferrable=False, poke_interval=0.05, conditions=stop)
    operator.execute({"ti": ti})

    assert "still running" not in logged()
