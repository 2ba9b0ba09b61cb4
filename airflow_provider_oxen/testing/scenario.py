"""
What an evaluation does over time, as data, without a server.

Written from the vendor's OpenAPI page and from two responses that the vendor published. It shares no code with the
client, so that a misreading of the contract on one side is seen on the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, TypeAlias, get_args

from airflow_provider_oxen.testing.answers import AnswerRow, Answers, check_answers
from airflow_provider_oxen.testing.faults import Fault, check_faults, find_fault

__all__ = ["SOURCE_COMMITS", "End", "Form", "Scenario", "closing_commit_id", "from_evaluation_id"]

End: TypeAlias = Literal["completed", "errored", "cancelled"]
Form: TypeAlias = Literal["contract", "2024"]

#: The commit of the source that an evaluation shows, in each form.
_SOURCE_COMMIT, _SOURCE_COMMIT_2024 = "0123456789abcdef", "e6c2c7192f620617"
SOURCE_COMMITS = frozenset((_SOURCE_COMMIT, _SOURCE_COMMIT_2024))

#: Shares of an evaluation's time.
_QUEUED, _COMMITTING = 0.1, 0.1
#: Share of the rows that an evaluation processes if it does not complete.
_SHARE_BEFORE_FAILURE = 0.6

# The form "2024". Source: the vendor's two responses of October 2024, of one evaluation, queued and then completed.
_NOT_IN_2024 = ("cancelled_at", "completion_tokens_used", "credits_used", "input_type", "output_type")
_IN_2024: Mapping[str, Any] = {
    "type": "text",
    "model": "gpt-4o-mini",
    "resource": {"path": "data.parquet", "version": "main"},
    "commit_id": _SOURCE_COMMIT_2024,
    "target_branch": "api-results-branch",
    "target_path": None,
    "conflict_target_branch": None,
    "parent_id": None,
    "is_sample": False,
    "sample_count": 10,
}


@dataclass(frozen=True)
class Scenario:
    """
    What an evaluation does over time: queued, running with progress, committing, and its end.

    :param end: the last status.
    :param seconds: time from the first request for the evaluation to its end, in seconds; for one that a request
        started, from its start. It is queued for a tenth of it, commits for the last tenth if it completes, and runs in
        between.
    :param rows: rows of the dataset, and of the source where the hub has to make it. An evaluation that errors or is
        cancelled stops after 60 % of them.
    :param error_message: what the hub reports if it errors.
    :param faults: what goes wrong on the way. If several apply to a request, the first one happens.
    :param answers: what the model answers, in the file that the evaluation commits when it completes:
        :class:`Answers` for shares of right, wrong and missing answers; or a function that gets a row of the source as
        a dict and returns the answer. None: what the source's column ``label`` says.
    :param fields: fields of the evaluation to add or to replace, in every response; JSON values.
    :param form: ``contract``: the fields of the vendor's OpenAPI page, and those that the hub sends besides.
        ``2024``: as in two responses that the vendor published in October 2024, with ``model`` as text, a branch name
        as ``resource.version``, no ``target_path``, ``type`` for ``input_type`` and ``output_type``, a
        ``sample_count`` without a sample, and times that end in ``Z``.
    """

    end: End = "completed"
    seconds: float = 10.0
    rows: int = 1_000
    error_message: str = "the model returned no answer for row 601"
    faults: Sequence[Fault] = ()
    answers: Answers | AnswerRow | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    form: Form = "contract"

    def __post_init__(self) -> None:
        """Refuse at once what the hub could not do when it gets the request."""
        if self.end not in get_args(End):
            raise ValueError(f"end must be one of {', '.join(get_args(End))}, but is {self.end!r}")
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, but is {self.form!r}")
        if isinstance(self.seconds, str) or not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds must be a finite number, 0 or more, but is {self.seconds!r}")
        if not isinstance(self.rows, int) or self.rows < 0:
            raise ValueError(f"rows must be a whole number, 0 or more, but is {self.rows!r}")
        check_faults("faults", self.faults)
        check_answers(self.answers)
        try:
            json.dumps(dict(self.fields))
        except TypeError as error:
            raise ValueError(f"fields must be JSON values: {error}") from None

    def fault_for(self, request_number: int) -> Fault | None:
        """
        Find what goes wrong with a request; None if nothing does.

        :param request_number: number of the request for the evaluation, counted from 1.
        """
        return find_fault(self.faults, request_number)

    def document(self, evaluation_id: str, began_at: datetime, now: datetime) -> dict[str, Any]:
        """
        Build the evaluation as the hub shows it at one moment.

        :param evaluation_id: its id.
        :param began_at: when it was queued, aware.
        :param now: the moment, aware.
        :return: the fields by name.
        """
        starts, stops = self.seconds * _QUEUED, self._stops_running_after()
        elapsed = (now - began_at).total_seconds()
        processed = self._processed(elapsed)
        status = self._status(elapsed)

        def time(seconds: float, *, shown: bool = True) -> str | None:
            return _format_time(began_at + timedelta(seconds=seconds), self.form) if shown else None

        ended_at = time(self.seconds, shown=status == self.end)
        document = {
            "id": evaluation_id,
            "status": status,
            "progress": {"processed": processed, "total": self.rows},
            "name": "A local evaluation",
            "inserted_at": time(0),
            "queued_at": time(0),
            "started_at": time(starts, shown=status != "queued"),
            "commit_started_at": time(stops, shown=status in ("committing", "completed")),
            "completed_at": ended_at if status == "completed" else None,
            "cancelled_at": ended_at if status == "cancelled" else None,
            "error_message": self.error_message if status == "errored" else None,
            "created_by": {"id": "u1", "username": "ox", "name": "Ox", "image": None},
            "credits_used": round(processed * 0.001, 6),
            "prompt_tokens_used": processed * 20,
            "completion_tokens_used": processed * 5,
            "tokens_used": processed * 25,
            "input_type": "text",
            "output_type": "text",
            "is_sample": False,
            "sample_count": 0,
            "model": {"id": "local-model", "name": "Local model"},
            "prompt": "What does this customer want? {text}",
            "repository_id": "r1",
            "resource": {"path": "data/customers.parquet", "version": _SOURCE_COMMIT},
            "commit_id": _SOURCE_COMMIT,
            "closing_commit": _closing_commit(evaluation_id, ended_at) if status == "completed" else None,
            "workspace_id": str(uuid.uuid5(uuid.NAMESPACE_OID, evaluation_id)),
            "target_branch": "main",
            "target_column": "intent",
            "target_path": "data/intents.parquet",
        }
        if self.form == "2024":
            document = {name: value for name, value in document.items() if name not in _NOT_IN_2024}
            # The same decimal came as a number from the queued evaluation, and as text from the completed one.
            credits_per_token = "0.000000600" if status == "completed" else 6e-7
            document |= {**_IN_2024, "master_id": evaluation_id, "credits_per_token": credits_per_token}
        return {**document, **self.fields}

    def _stops_running_after(self) -> float:
        return self.seconds * (1 - _COMMITTING if self.end == "completed" else 1)

    def _status(self, elapsed: float) -> str:
        if elapsed >= self.seconds:
            return self.end
        if elapsed >= self._stops_running_after():
            return "committing"
        return "running" if elapsed >= self.seconds * _QUEUED else "queued"

    def _processed(self, elapsed: float) -> int:
        starts, stops = self.seconds * _QUEUED, self._stops_running_after()
        rows = self.rows if self.end == "completed" else int(self.rows * _SHARE_BEFORE_FAILURE)
        share = 1.0 if stops <= starts else (elapsed - starts) / (stops - starts)
        return int(rows * min(max(share, 0.0), 1.0))


def from_evaluation_id(evaluation_id: str) -> Scenario | None:
    """
    Parse an id that says what its evaluation does, such as ``completed-20s`` or ``errored-5s-third``.

    :param evaluation_id: an id, or the name of a model.
    :return: the scenario; None if it is any other.
    """
    match = re.fullmatch(r"(completed|errored|cancelled)-(\d+(?:\.\d+)?)s(?:-.*)?", evaluation_id)
    if match is None:
        return None
    return Scenario(end=match[1], seconds=float(match[2]))  # type: ignore[arg-type]  # the pattern names the three


def closing_commit_id(evaluation_id: str) -> str:
    """Find the id of the commit that holds an evaluation's results: one of its own for each, the same each time."""
    return hashlib.sha256(evaluation_id.encode()).hexdigest()[:16]


def _closing_commit(evaluation_id: str, committed_at: str | None) -> dict[str, Any]:
    """Build the commit that holds the results."""
    return {
        "id": closing_commit_id(evaluation_id),
        "author": "Ox",
        "email": "ox@example.com",
        "message": "Results of a local evaluation",
        "timestamp": committed_at,
    }


def _format_time(moment: datetime, form: Form) -> str:
    """Write a time in UTC: in the form "contract" without a zone, as Phoenix may do; in the form "2024" with a Z."""
    text = moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{text}Z" if form == "2024" else text
