"""An evaluation that the hub knows. No server."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_oxen.testing.addresses import is_missing
from airflow_provider_oxen.testing.files import Repository
from airflow_provider_oxen.testing.results import commit_results, find_target, has_source
from airflow_provider_oxen.testing.scenario import Scenario, from_evaluation_id
from airflow_provider_oxen.testing.starting import StartedEvaluation, show_request, with_defaults
from airflow_provider_oxen.testing.tables import check_format

__all__ = ["EvaluationStore", "HubEvaluation", "utc_now"]


@dataclass
class HubEvaluation:
    """
    An evaluation that the hub knows.

    :param id: its id.
    :param scenario: what it does.
    :param began_at: when its time began, aware; None before the first request for it.
    :param started: how it was started; None if it was added.
    """

    id: str
    scenario: Scenario
    began_at: datetime | None = None
    started: StartedEvaluation | None = None
    _committed_in: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Refuse at once answers that cannot be written where they go."""
        moment = utc_now()
        if self.scenario.answers is not None and self._commits and has_source(document := self._show(moment, moment)):
            check_format(find_target(document)[1])

    def document(self, now: datetime) -> dict[str, Any]:
        """Build the evaluation as the hub shows it now. Its time begins with the first call."""
        self.began_at = self.began_at or now
        return self._show(self.began_at, now)

    def show(self) -> dict[str, Any] | None:
        """Return the evaluation as the hub shows it now; None before its time begins."""
        return self.document(utc_now()) if self.began_at else None

    def is_in(self, namespace: str, repo_name: str) -> bool:
        """Check that it is in a repository. One that was added is in all of them."""
        return self.started is None or (self.started.namespace, self.started.repo_name) == (namespace, repo_name)

    def commit(self, names: tuple[str, str], repository: Repository, now: datetime) -> None:
        """
        Commit what the model answered, once in each repository, if the evaluation completed and commits at all.

        :param names: namespace and name of the repository.
        :param repository: its files.
        :param now: the moment, aware.
        """
        if self.ends_at is None or not self._commits or names in self._committed_in or not self.is_in(*names):
            return
        document = self.document(now)
        if document["status"] == "completed" and has_source(document):
            self._committed_in.add(names)
            commit_results(repository, self.id, document, self.scenario, self.ends_at)

    @property
    def _commits(self) -> bool:
        return self.started is None or with_defaults(self.started.body)["auto_commit"]

    @property
    def ends_at(self) -> datetime | None:
        """When it ends, aware; None before its time begins."""
        return self.began_at and self.began_at + timedelta(seconds=self.scenario.seconds)

    def _show(self, began_at: datetime, now: datetime) -> dict[str, Any]:
        document = self.scenario.document(self.id, began_at, now)
        return show_request(document, self.started, self.scenario) if self.started else document


class EvaluationStore:
    """The evaluations of a hub. Every thread may use it."""

    def __init__(self) -> None:
        self._evaluations: dict[str, HubEvaluation] = {}

    def add(self, evaluation: HubEvaluation) -> None:
        """Add an evaluation, in place of one with the same id."""
        self._evaluations[evaluation.id] = evaluation

    def remove(self, evaluation_id: str) -> None:
        """Remove an evaluation, if it is there."""
        self._evaluations.pop(evaluation_id, None)

    def find(self, evaluation_id: str) -> HubEvaluation | None:
        """Find an evaluation. One whose id says what it does is added when it is first looked for."""
        if evaluation_id not in self._evaluations and (scenario := from_evaluation_id(evaluation_id)):
            self._evaluations.setdefault(evaluation_id, HubEvaluation(evaluation_id, scenario))
        return self._evaluations.get(evaluation_id)

    def find_in(
        self, repository: tuple[str, str], evaluation_id: str, missing: Collection[str]
    ) -> HubEvaluation | None:
        """
        Find an evaluation of a repository.

        :param repository: its namespace and its name.
        :param evaluation_id: the evaluation's id.
        :param missing: what does not exist, as for :func:`is_missing`.
        """
        found = self.find(evaluation_id)
        return None if found is None or not found.is_in(*repository) or is_missing(missing, *repository) else found

    def begun(self) -> list[HubEvaluation]:
        """List those whose time has begun."""
        return [found for found in list(self._evaluations.values()) if found.began_at]


def utc_now() -> datetime:
    """Return the moment, aware."""
    return datetime.now(tz=timezone.utc)
