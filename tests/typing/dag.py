"""
A DAG file as users write it, with every public class. Never executed: type-checked strictly, as ``api.py`` is.

What comes after the DAG is there for the classes that a DAG seldom needs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

from aiohttp import web
from airflow.sdk import Param, dag, task  # pyright: ignore[reportUnknownVariableType]  # of Airflow's own dag

from airflow_provider_oxen.calls import build_get_evaluation, build_get_file, build_get_user, build_start_evaluation
from airflow_provider_oxen.clients import OxenAsyncClient, OxenClient
from airflow_provider_oxen.conditions import Condition, all_rows, max_credits, min_rows
from airflow_provider_oxen.config import ClientConfig, parse_config
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef, EvaluationStatus, Progress
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenBadRequestError,
    OxenFileTooLargeError,
    OxenInvalidResponseError,
    OxenNoResultsError,
    OxenNotFoundError,
    OxenPaymentRequiredError,
    OxenPermanentError,
    OxenServerError,
    OxenTransientError,
    OxenUnknownEffectError,
    OxenUnreachableError,
)
from airflow_provider_oxen.files import FileMeta
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.links.oxen import OxenEvaluationLink, OxenLink, OxenResultsLink, OxenSourceDataLink
from airflow_provider_oxen.operators.oxen import OxenRunEvaluationOperator
from airflow_provider_oxen.outcomes import JudgedResults, OutcomeReason
from airflow_provider_oxen.parameters import TriggerArguments
from airflow_provider_oxen.protocol import Call
from airflow_provider_oxen.reactions import (
    OxenConditionFailedError,
    OxenHubUnreachableError,
    OxenNotTheHubError,
    OxenWaitLostError,
)
from airflow_provider_oxen.refs import FileRef
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.sharing import Polled
from airflow_provider_oxen.start import OxenStartFailedError, OxenStartUnknownError
from airflow_provider_oxen.start_record import Phase, Record
from airflow_provider_oxen.streaming import Received
from airflow_provider_oxen.testing import (
    AfterStart,
    Alter,
    Answers,
    Chain,
    Delay,
    Disconnect,
    Effect,
    Endless,
    Exchange,
    Fault,
    HubRequest,
    HubResponse,
    LocalHub,
    Meanwhile,
    Respond,
    Scenario,
    StartedEvaluation,
    Trickle,
    WrongLength,
)
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger
from airflow_provider_oxen.wait import Outcome

ONE_OF_MANY: Condition = min_rows(0.99)


class LabelOperator(OxenRunEvaluationOperator):
    """A team's own operator."""

    def execute(self, context: Any) -> dict[str, Any]:
        evaluation = super().execute(context)
        assert_type(evaluation, dict[str, Any])
        return evaluation


class TeamSensor(OxenEvaluationSensor):
    """A team's own sensor, with other defaults."""

    def __init__(self, **arguments: Any) -> None:
        arguments.setdefault("max_wait", timedelta(minutes=5))
        super().__init__(**arguments)


@dag(schedule="@daily", params={"model": Param("m", type="string")}, default_args={"retries": 2})
def nightly() -> None:
    label = OxenRunEvaluationOperator(
        task_id="label",
        namespace="ox",
        repo_name="r",
        branch="main",
        path="data/customers.parquet",
        model="{{ params.model }}",
        prompt="Which intent is this? {text}",
        target_column="intent",
        auto_commit=True,
        target_path="data/intents.parquet",
        body={"batch_size": 8},
        deferrable=False,
        conditions=[all_rows(), ONE_OF_MANY],
        on_clear="start_again",
        execution_timeout=timedelta(hours=6),
    )
    gates = OxenEvaluationSensor.partial(
        task_id="gates", namespace="ox", repo_name="r", conditions=max_credits(25), map_index_template="{{ x }}"
    ).expand(evaluation_id=["e1", "e2"])  # pyright: ignore[reportUnknownMemberType]  # Airflow's

    @task
    def find_evaluation() -> str:
        return "e"

    own = TeamSensor(task_id="own", namespace="ox", repo_name="r", evaluation_id=find_evaluation())
    OxenEvaluationSensor(task_id="found", namespace="ox", repo_name="r", evaluation_id=find_evaluation())

    @task
    def publish(evaluation: Any) -> str:
        return Evaluation.from_dict(evaluation).id

    assert_type(own.evaluation_id, str)
    assert_type(own.deferrable, bool)
    assert_type(label.deferrable, bool)
    label.set_downstream(gates)
    publish(label.output)
    OxenRunEvaluationOperator(task_id="too few", namespace="ox", repo_name="r")  # type: ignore[call-arg]
    OxenEvaluationSensor(
        task_id="a word",
        namespace="ox",
        repo_name="r",
        evaluation_id="e",
        deferrable="no",  # type: ignore[arg-type]
    )


nightly()


def links() -> list[OxenLink]:
    found: list[OxenLink] = [OxenEvaluationLink(), OxenSourceDataLink(), OxenResultsLink()]
    assert_type(found[0].name, str)
    return found


def poll_by_hand(hook: OxenHook) -> str:
    ref = EvaluationRef("ox", "r", "e")
    call = build_get_evaluation(ref)
    assert_type(call, Call[Evaluation])
    with hook.get_conn() as client:
        assert_type(client, OxenClient)
        seen = client.ask(call)
        assert_type(seen, Evaluation)
        client.ask(build_get_user())
        client.ask(build_start_evaluation("ox", "r", "main", "data/a.csv", {"prompt": "p"}))
    assert_type(hook.get_config(), ClientConfig)
    assert_type(seen.progress, Progress)
    return "ended" if seen.status is EvaluationStatus.COMPLETED else "runs"


async def poll_together(hook: OxenHook) -> Polled:
    async with hook.get_async_conn() as client:
        assert_type(client, OxenAsyncClient)
        return await client.poll(EvaluationRef("ox", "r", "e"), max_age=1.0)


def count_bytes(received: Received) -> int:
    assert_type(received.length, int | None)
    return sum(len(block) for block in received.blocks)


def read_files(hook: OxenHook) -> int:
    assert_type(hook.get_file_meta("ox", "r", "main", "data/a.csv"), FileMeta)
    assert_type(JudgedResults(path="data/a.csv", version="main", rows=3).to_dict(), dict[str, Any])
    with hook.get_conn() as client:
        return client.receive(build_get_file(FileRef("ox", "r", "main", "data/a.csv")), count_bytes)


def settings() -> ClientConfig:
    return parse_config("oxen_default", host="hub.oxen.ai", password="key")


def wait_by_trigger(event: dict[str, Any]) -> str | None:
    arguments = TriggerArguments(namespace="ox", repo_name="r", evaluation_id="e", timeout=60)
    OxenEvaluationTrigger(**arguments.to_dict())
    outcome = Outcome.from_event(event, otherwise=EvaluationRef("ox", "r", "e"))
    assert_type(outcome.reason, OutcomeReason)
    return outcome.error


def read_record(stored: object) -> Phase | None:
    record = Record.from_value(stored)
    return None if record is None else record.phase


def say_why(error: BaseException) -> str:
    """An exhaustive list of what may be retried, and of what may not."""
    if isinstance(error, OxenHubUnreachableError | OxenNotTheHubError | OxenWaitLostError | OxenConditionFailedError):
        return "the wait may be retried"
    if isinstance(error, OxenStartFailedError | OxenStartUnknownError | OxenUnknownEffectError):
        return "look whether one was started"
    if isinstance(error, OxenUnreachableError | OxenServerError | OxenInvalidResponseError):
        assert_type(error.retry_after_seconds, float | None)
        temporary: OxenTransientError = error
        return str(temporary.status_code)
    if isinstance(error, OxenFileTooLargeError | OxenNoResultsError):
        return "there is nothing to read"
    if isinstance(error, OxenAuthenticationError | OxenNotFoundError | OxenPaymentRequiredError | OxenBadRequestError):
        final: OxenPermanentError = error
        return str(final.request_id)
    return str(error)


class Unchanged:
    """An effect of one's own."""

    async def act(self, exchange: Exchange, /) -> web.StreamResponse:
        assert_type(exchange.response(), HubResponse)
        return await exchange.proceed()


def test_nightly(oxen_hub: LocalHub) -> None:
    effect: Effect = Chain(Delay(0.1), Unchanged())
    oxen_hub.on_start = Scenario(end="completed", seconds=0, faults=[Fault(effect), Fault(Disconnect())])
    oxen_hub.start_faults = [Fault(AfterStart(Trickle(0.1))), Fault(Alter({"status": "errored"})), Fault(Respond(503))]
    oxen_hub.start_faults = [Fault(Endless()), Fault(WrongLength(3)), Fault(Meanwhile(lambda: None))]
    assert_type(Answers(right=0.9, wrong=0.1).label, str)
    assert_type(oxen_hub.requests, list[HubRequest])
    assert_type(oxen_hub.started, list[StartedEvaluation])
