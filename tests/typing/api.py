"""
How users write against this package. Never executed: type-checked strictly, against the wheel as it is installed.

What is annotated here is what the package promises; a promise that changes fails the check.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, assert_type

from pendulum import DateTime

import airflow_provider_oxen
from airflow_provider_oxen.assets import create_asset
from airflow_provider_oxen.conditions import (
    Condition,
    all_rows,
    column_matches,
    max_credits,
    min_rows,
    no_missing_answers,
    row_count,
    rows_where,
)
from airflow_provider_oxen.downloads import DownloadedResults
from airflow_provider_oxen.evaluations import Evaluation, EvaluationStatus, Progress
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenError,
    OxenPermanentError,
    OxenRateLimitError,
    OxenRequestError,
    OxenTransientError,
)
from airflow_provider_oxen.files import EvaluationResults
from airflow_provider_oxen.get_provider_info import get_provider_info
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.testing import Fault, LocalHub, Respond
from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger

assert_type(airflow_provider_oxen.__version__, str)
assert_type(get_provider_info(), dict[str, Any])


def enough(evaluation: Evaluation) -> bool | str:
    return (evaluation.tokens_used or 0) > 0 or "no token was used"


def vary(evaluation: Evaluation, rows: Any) -> bool | str:
    return evaluation.target_column in rows.columns


def gates(condition: Condition) -> None:
    OxenEvaluationSensor(task_id="least", namespace="ox", repo_name="r", evaluation_id="{{ params.id }}")
    OxenEvaluationSensor(
        task_id="most",
        namespace="ox",
        repo_name="r",
        evaluation_id="e",
        oxen_conn_id="oxen_default",
        deferrable=False,
        mode="reschedule",
        poke_interval=timedelta(seconds=5),
        max_wait=60.0,
        timeout=3600,
        retry_window=timedelta(minutes=10),
        conditions=[all_rows(), min_rows(0.99), max_credits(25), enough],
        outlets=[create_asset(namespace="ox", repo_name="r", path="data/intents.parquet", revision="main")],
        start_from_trigger=False,
        end_from_trigger=False,
        soft_fail=True,
        retries=2,
    )
    OxenEvaluationSensor(task_id="one", namespace="ox", repo_name="r", evaluation_id="e", conditions=condition)
    on_rows: list[Condition] = [
        no_missing_answers(),
        rows_where("intent = label", at_least=0.95),
        rows_where("length(intent) > 80", rows=(None, 5), show_rows=False),
        column_matches("label", at_least=0.9, ignore_case=True, strip=True),
        row_count(1_000, same_as_source=True),
        vary,
    ]
    OxenEvaluationSensor(task_id="rows", namespace="ox", repo_name="r", evaluation_id="e", conditions=on_rows)
    OxenEvaluationSensor(task_id="no id", namespace="ox", repo_name="r")  # type: ignore[call-arg]
    OxenEvaluationSensor(task_id="a number", namespace="ox", repo_name="r", evaluation_id=7)  # type: ignore[arg-type]


def trigger() -> tuple[str, dict[str, Any]]:
    return OxenEvaluationTrigger(namespace="ox", repo_name="r", evaluation_id="e", deadline=None).serialize()


def hook() -> None:
    evaluation = OxenHook("oxen_default").get_evaluation("ox", "r", "e")
    assert_type(evaluation, Evaluation)
    assert_type(evaluation.status, EvaluationStatus | str)
    assert_type(evaluation.is_terminal, bool)
    assert_type(evaluation.progress, Progress)
    assert_type(evaluation.progress.fraction, float | None)
    assert_type(evaluation.started_at, DateTime | None)
    assert_type(evaluation.tokens_used, int | None)
    assert_type(evaluation.credits_used, float | None)
    assert_type(evaluation.source_version, str | None)
    assert_type(evaluation.results_path, str | None)
    assert_type(evaluation.results_commit, str | None)
    assert_type(evaluation.namespace, str | None)
    assert_type(evaluation.results, EvaluationResults)
    assert_type(evaluation.results.problem, str | None)
    assert_type(Evaluation.from_dict(evaluation.to_dict()), Evaluation)
    assert_type(evaluation.to_dict(), dict[str, Any])
    assert_type(OxenHook(oxen_conn_id="oxen_default").test_connection(), tuple[bool, str])
    evaluation.status = "completed"  # type: ignore[misc]  # it cannot be changed


def downloads(evaluation: Evaluation) -> None:
    hook = OxenHook()
    assert_type(hook.get_file_meta("ox", "r", "main", "a.csv").rows, int | None)
    assert_type(hook.download_file("ox", "r", "main", "a.csv", "a.csv", max_bytes=10), Path)
    assert_type(hook.download_results(evaluation, Path(), retry_window=timedelta(hours=1)), DownloadedResults)
    assert_type(hook.download_results(evaluation.to_dict(), ".").version, str)
    hook.download_file("ox", "r", "main", "a.csv")  # type: ignore[call-arg]


async def asynchronous_hook() -> Evaluation:
    return await OxenHook().aget_evaluation("ox", "r", "e")


def errors(error: OxenError) -> str:
    if isinstance(error, OxenConfigError):
        return str(error)
    if isinstance(error, OxenRateLimitError):
        assert_type(error.retry_after_seconds, float | None)
    if isinstance(error, OxenTransientError | OxenPermanentError):
        assert_type(error.status_code, int | None)
    if isinstance(error, OxenRequestError):
        assert_type(error.request_id, str | None)
    return "another"


def local_hub(end: Literal["completed", "errored", "cancelled"]) -> None:
    with LocalHub(port=0, api_key="key") as hub:
        assert_type(hub, LocalHub)
        assert_type(hub.url, str)
        assert_type(hub.connection_uri, str)
        assert_type(hub.add_evaluation(end=end, seconds=2), str)
        assert_type(hub.requests_for("e"), int)
        hub.add_evaluation(faults=[Fault(Respond(503), first=1)])
