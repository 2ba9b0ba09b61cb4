"""
A process of the section ``judging``: ``python -m benchmarks.judges HOW TASK``, with a task as JSON.

It imports Airflow, as a task does, then downloads a file and counts for three conditions. The last line that it prints
is JSON: the ``facts`` (all rows, those with an answer, those that are right, those that are too long), the highest
``peak_mb`` of resident memory and the ``seconds`` that it took after Airflow was there.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

__all__ = [
    "HOW",
    "judge_nothing",
    "judge_with_oxen",
    "judge_with_oxenai",
    "judge_with_pandas",
    "judge_with_two_columns",
]

#: All rows, those with an answer, those that are right, those that are too long.
Facts: TypeAlias = list[int]
_BLOCK = 64 * 1024


def judge_nothing(_: Mapping[str, Any]) -> Facts:
    """Do nothing: what Airflow itself takes."""
    return []


def judge_with_oxen(task: Mapping[str, Any]) -> Facts:
    """Do what a gate does once its evaluation has completed."""
    from airflow_provider_oxen.conditions import no_missing_answers, rows_where
    from airflow_provider_oxen.hooks.oxen import OxenHook
    from airflow_provider_oxen.judgement import judge
    from airflow_provider_oxen.outcomes import Outcome, OutcomeReason
    from airflow_provider_oxen.refs import EvaluationRef

    ref = EvaluationRef(task["namespace"], task["repo_name"], task["evaluation_id"])
    evaluation = OxenHook().get_evaluation(ref.namespace, ref.repo_name, ref.evaluation_id)
    outcome = judge(
        Outcome(OutcomeReason.COMPLETED, ref, evaluation=evaluation),
        [
            no_missing_answers(),
            rows_where("intent = label", at_least=0.95),
            rows_where("length(intent) > 80", at_most=0),
        ],
        oxen_conn_id=OxenHook.default_conn_name,
        retry_window=0,
        log=logging.getLogger(__name__),
    )
    results = outcome.results
    if outcome.reason is not OutcomeReason.COMPLETED or results is None or results.rows is None:
        raise RuntimeError(f"{outcome.reason}: {outcome.error}")
    return [results.rows, *(fact["rows"] for fact in results.conditions)]


def judge_with_pandas(task: Mapping[str, Any]) -> Facts:
    """Download with requests, and read all columns with pandas."""
    return _with_pandas(task, _download_with_requests)


def judge_with_two_columns(task: Mapping[str, Any]) -> Facts:
    """Download with requests, and read with pandas the columns that are compared and no others."""
    return _with_pandas(task, _download_with_requests, columns=["label", "intent"])


def judge_with_oxenai(task: Mapping[str, Any]) -> Facts:
    """Download with the vendor's client, and read all columns with pandas."""
    return _with_pandas(task, _download_with_oxenai)


def _download_with_requests(task: Mapping[str, Any], to: Path) -> None:
    import requests

    address = "/".join((task["namespace"], task["repo_name"], "file", task["version"], task["path"]))
    headers = {"Authorization": f"Bearer {task['api_key']}"}
    with requests.get(f"{task['url']}/api/repos/{address}", headers=headers, stream=True, timeout=60) as response:
        response.raise_for_status()
        with to.open("wb") as file:
            for block in response.iter_content(_BLOCK):
                file.write(block)


def _download_with_oxenai(task: Mapping[str, Any], to: Path) -> None:
    from oxen import RemoteRepo
    from oxen.auth import config_auth

    host = f"127.0.0.1:{task['vendor_port']}"
    config_auth(task["api_key"], host=host)  # it writes the key below HOME, and makes no request to such a host
    repository = RemoteRepo(f"{task['namespace']}/{task['repo_name']}", host=host, scheme="http")
    repository.download(task["path"], str(to), revision=task["version"])


def _with_pandas(
    task: Mapping[str, Any], download: Callable[[Mapping[str, Any], Path], None], columns: list[str] | None = None
) -> Facts:
    import pandas as pd

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, f"results{Path(task['path']).suffix}")
        download(task, file)
        if file.suffix == ".parquet":
            table = pd.read_parquet(file, columns=columns)
        elif file.suffix == ".csv":
            table = pd.read_csv(file)
        else:
            table = pd.read_json(file, lines=file.suffix == ".jsonl")
    answers = table["intent"]
    counts = answers.notna() & (answers != ""), answers == table["label"], answers.str.len() > 80
    return [len(table), *(int(found.sum()) for found in counts)]


#: What can be measured.
HOW: dict[str, Callable[[Mapping[str, Any]], Facts]] = {
    "nothing": judge_nothing,
    "oxen": judge_with_oxen,
    "pandas": judge_with_pandas,
    "two_columns": judge_with_two_columns,
    "oxenai": judge_with_oxenai,
}


def _peak_mb() -> float:
    """Find the most memory that was resident so far."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # macOS, where it is in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # On Linux, getrusage would count the process that started this one.
    kibibytes = next(line for line in lines if line.startswith("VmHWM:")).split()[1]
    return int(kibibytes) * 1024 / 1e6


def _main() -> None:
    how, task = sys.argv[1:]
    import airflow.sdk  # noqa: F401  # as every task's process does

    import airflow_provider_oxen.sensors.oxen  # noqa: F401  # and its DAG file

    began = time.perf_counter()
    facts = HOW[how](json.loads(task))
    print(json.dumps({"facts": facts, "seconds": time.perf_counter() - began, "peak_mb": _peak_mb()}))


if __name__ == "__main__":
    _main()
