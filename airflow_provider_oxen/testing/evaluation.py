"""An evaluation that the hub knows. No server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_provider_oxen.testing.scenario import Scenario
from airflow_provider_oxen.testing.starting import StartedEvaluation, show_request

__all__ = ["HubEvaluation"]


@dataclass
class HubEvaluation:
    """
    An evaluation that the hub knows.

    :param began_at: when its time began, aware; None before the first request for it.
    :param started: how it was started; None if it was added.
    """

    scenario: Scenario
    began_at: datetime | None = None
    started: StartedEvaluation | None = None

    def document(self, evaluation_id: str, now: datetime) -> dict[str, Any]:
        """Build the evaluation as the hub shows it now. Its time begins with the first call."""
        self.began_at = self.began_at or now
        document = self.scenario.document(evaluation_id, self.began_at, now)
        return show_request(document, self.started, self.scenario) if self.started else document

    def is_in(self, namespace: str, repo_name: str) -> bool:
        """Check that it is in a repository. One that was added is in all of them."""
        return self.started is None or (self.started.namespace, self.started.repo_name) == (namespace, repo_name)
