"""What an attempt stores about the evaluation it starts: plain JSON, which a person may edit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_provider_oxen import values

__all__ = ["Phase", "Record"]

#: The record's format. A later one adds fields and raises this only where an older reader must not use it.
_VERSION = 1


class Phase(StrEnum):
    """How far an attempt came."""

    #: The request was about to be sent. Whether it was is not known.
    STARTING = "starting"
    #: The hub has started the evaluation whose id is in the record.
    STARTED = "started"


@dataclass(frozen=True, slots=True)
class Record:
    """
    What an attempt stores about the evaluation it starts. A stored format: plain JSON.

    :param phase: how far it came.
    :param evaluation_id: the id; None while ``starting``.
    :param name: the evaluation's name, by which a person finds it on the hub.
    :param request: fingerprint of the request; None where a person wrote the record.
    :param hub: address of the hub.
    :param namespace: with ``repo_name``, the repository that it was started in: a later attempt's arguments may differ.
        None where a person wrote the record.
    :param at: when it was written, ISO 8601 in UTC.
    :param try_number: the attempt that wrote it.
    :param max_tries: Airflow's ``max_tries`` then, or when it was reported; None where a person wrote the record, or
        where it cannot be understood: no clear counts then.
    :param reported: whether an attempt has failed with the message that says what to do about this one.
    :param problem: why the entry cannot be understood; None where it can. It is not stored.
    """

    phase: Phase
    evaluation_id: str | None = None
    name: str | None = None
    request: str | None = None
    hub: str | None = None
    namespace: str | None = None
    repo_name: str | None = None
    at: str | None = None
    try_number: int | None = None
    max_tries: int | None = None
    reported: bool = False
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Write it as JSON."""
        return {
            "version": _VERSION,
            "phase": str(self.phase),
            "evaluation_id": self.evaluation_id,
            "name": self.name,
            "request": self.request,
            "hub": self.hub,
            "namespace": self.namespace,
            "repo_name": self.repo_name,
            "at": self.at,
            "try_number": self.try_number,
            "max_tries": self.max_tries,
            "reported": self.reported,
        }

    @classmethod
    def from_value(cls, value: object) -> Record | None:
        """
        Read what is stored. None where nothing is.

        A person may have written it by hand, or edited it: ``{"phase": "started", "evaluation_id": "…"}`` is enough.
        What cannot be understood counts as ``starting``: something was stored, so something may have been started.
        """
        if value is None:
            return None
        entry = _parse(value)
        if not isinstance(entry, Mapping):
            return cls(Phase.STARTING, problem=f"it is not a JSON object, but {type(value).__name__}")
        evaluation_id = (values.text(entry.get("evaluation_id")) or "").strip() or None
        problem = _find_problem(entry, evaluation_id)
        started = problem is None and evaluation_id is not None
        reported = problem is None and entry.get("reported") is True
        # An attempt that reports a record knows no id, so a person has put it there.
        by_person = started and reported
        return cls(
            Phase.STARTED if started else Phase.STARTING,
            evaluation_id=evaluation_id if started else None,
            name=values.text(entry.get("name")),
            request=values.text(entry.get("request")),
            hub=values.text(entry.get("hub")),
            namespace=values.text(entry.get("namespace")),
            repo_name=values.text(entry.get("repo_name")),
            at=values.text(entry.get("at")),
            try_number=values.count(entry.get("try_number")),
            max_tries=values.count(entry.get("max_tries")) if problem is None and not by_person else None,
            reported=reported and not by_person,
            problem=problem,
        )

    def is_of_same_start(self, other: Record | None) -> bool:
        """Whether another record is of the same request, sent by the same attempt."""
        return other is not None and (self.at, self.try_number, self.name, self.request) == (
            other.at,
            other.try_number,
            other.name,
            other.request,
        )


def _parse(value: object) -> object:
    """Parse an entry that is the text of a JSON document, as an editor of entries may store it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _find_problem(entry: Mapping[str, Any], evaluation_id: str | None) -> str | None:
    """Say why an entry cannot be understood; None where it can."""
    phase, version = entry.get("phase"), entry.get("version", _VERSION)
    if version != _VERSION:
        return f"its version is {version!r}, and not {_VERSION}"
    if phase not in (Phase.STARTED, Phase.STARTING):
        return f"its phase is {phase!r}, and neither 'started' nor 'starting'"
    if phase == Phase.STARTED and evaluation_id is None:
        return f"its phase is 'started', but its evaluation_id is {entry.get('evaluation_id')!r}"
    if phase == Phase.STARTING and evaluation_id is not None:
        return "its phase is 'starting', although it has an evaluation_id"
    return None
