"""
The commit that an evaluation makes when it completes. No server.

Source: the vendor's page of the call that starts an evaluation, and its open-source server. The results are the rows of
the source with one more column, at ``target_path``, or at the source's path, on ``target_branch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from airflow_provider_oxen.testing.answers import find_answers, make_source
from airflow_provider_oxen.testing.files import Commit, FileVersion, Repository, new_commit_id
from airflow_provider_oxen.testing.scenario import SOURCE_COMMITS, Scenario, closing_commit_id
from airflow_provider_oxen.testing.tables import find_columns, read_rows, write_rows

__all__ = ["commit_results", "find_target", "has_source"]

#: The columns of a source that the hub makes itself.
_COLUMNS = ("id", "text", "label")


def has_source(document: Mapping[str, Any]) -> bool:
    """Check that an evaluation names its source: its scenario may leave it out."""
    resource = document.get("resource")
    return isinstance(resource, Mapping) and all(isinstance(resource.get(name), str) for name in ("path", "version"))


def find_target(document: Mapping[str, Any]) -> tuple[str, str]:
    """
    Find where an evaluation commits its results.

    :param document: the evaluation as the hub shows it.
    :return: branch and path.
    """
    return document.get("target_branch") or "main", document.get("target_path") or document["resource"]["path"]


def commit_results(
    repository: Repository, evaluation_id: str, document: Mapping[str, Any], scenario: Scenario, at: datetime
) -> None:
    """
    Commit what the model answered. What is in the file is made when it is first asked for.

    A scenario may name another ``closing_commit`` in its ``fields``. If that is a commit of this repository, it has the
    results already.

    :param repository: where.
    :param evaluation_id: id of the evaluation.
    :param document: the evaluation as the hub shows it, completed.
    :param scenario: what it does.
    :param at: when it completed, aware.
    """
    own = closing_commit_id(evaluation_id)
    closing = document.get("closing_commit")
    shown = closing.get("id", own) if isinstance(closing, Mapping) else own
    source = _find_source(repository, document, scenario, at)
    if shown != own and shown in repository.commits:
        return
    branch, path = find_target(document)
    commit = Commit(shown, f"Results of evaluation {evaluation_id}", at)
    results = FileVersion(path, commit, partial(_make_results, path, source, document, scenario))
    repository.add(branch, results, based_on=document["resource"]["version"])


def _make_results(path: str, source: FileVersion, document: Mapping[str, Any], scenario: Scenario) -> bytes:
    """Write the source's rows with the column of answers. A sample has the first rows alone."""
    rows = read_rows(source.path, source.content)
    if document.get("is_sample"):
        rows = rows[: document["sample_count"]]
    column, answers = document["target_column"], find_answers(scenario.answers, rows)
    answered = [{**row, column: answer} for row, answer in zip(rows, answers, strict=True)]
    columns = find_columns(answered)
    if not columns and source.shape is not None:
        columns = [*(name for name, _ in source.shape.columns), column]
    return write_rows(path, columns, answered)


def _find_source(repository: Repository, document: Mapping[str, Any], scenario: Scenario, at: datetime) -> FileVersion:
    """
    Find the source of an evaluation, or make one with as many rows as its scenario has.

    The commit of the source that an evaluation shows is not in the repository. It stands for the branch ``main``, and
    has the source from now on.
    """
    path, version = document["resource"]["path"], document["resource"]["version"]
    invented = version in SOURCE_COMMITS
    source = repository.find("main" if invented else version, path)
    if source is None:
        commit = Commit(version if invented else new_commit_id(), f"Add {path}", at)
        source = FileVersion(path, commit, partial(_make_source, path, scenario.rows))
        if not invented and version not in repository.commits:
            repository.add(version, source)
    for name in SOURCE_COMMITS.intersection((version, document.get("commit_id"))):
        repository.show(name, source)
    return source


def _make_source(path: str, rows: int) -> bytes:
    return write_rows(path, _COLUMNS, make_source(rows))
