"""Which thing on the hub is meant: an evaluation, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from airflow_provider_oxen.parameters import as_text

__all__ = ["EvaluationRef", "FileRef"]


@dataclass(frozen=True, slots=True)
class EvaluationRef:
    """
    Which evaluation is meant.

    :param namespace: user or organization that owns the repository.
    :param repo_name: the repository.
    :param evaluation_id: the evaluation, a UUID as text.
    """

    namespace: str
    repo_name: str
    evaluation_id: str

    def __post_init__(self) -> None:
        """Take ids as their text: a task may have returned a UUID, or a line break at its end."""
        for name in ("namespace", "repo_name", "evaluation_id"):
            object.__setattr__(self, name, as_text(getattr(self, name)))

    def __str__(self) -> str:
        return f"evaluation {self.evaluation_id} of {self.namespace}/{self.repo_name}"

    def to_dict(self) -> dict[str, str]:
        """Write it as plain JSON, by the names of its fields."""
        return {"namespace": self.namespace, "repo_name": self.repo_name, "evaluation_id": self.evaluation_id}

    @classmethod
    def find_in(cls, document: Mapping[str, Any]) -> EvaluationRef | None:
        """Read it from an object with what :meth:`to_dict` made in it; None where it names no evaluation."""
        names = [document.get(item.name) for item in fields(cls)]
        return cls(*map(str, names)) if all(isinstance(name, str) and name for name in names) else None

    def is_id_of(self, evaluation_id: str) -> bool:
        """Check that an evaluation has this id. UUIDs are the same in upper and lower case."""
        return evaluation_id.lower() == self.evaluation_id.lower()


@dataclass(frozen=True, slots=True)
class FileRef:
    """
    Which file is meant, and how it stood at which version.

    :param namespace: user or organization that owns the repository.
    :param repo_name: the repository.
    :param version: a commit, or a branch, whose name may hold slashes.
    :param path: the file, inside the repository.
    """

    namespace: str
    repo_name: str
    version: str
    path: str

    def __post_init__(self) -> None:
        """Take names as their text, as :class:`EvaluationRef` does."""
        for name in ("namespace", "repo_name", "version", "path"):
            object.__setattr__(self, name, as_text(getattr(self, name)))

    def __str__(self) -> str:
        return f"{self.path} of {self.namespace}/{self.repo_name} at {self.version}"
