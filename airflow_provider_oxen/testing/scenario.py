"""
What an evaluation does over time, and what goes wrong on the way: data, without a server.

Written from the vendor's OpenAPI page alone. It shares no code with the client, so that a misreading of the contract on
one side is seen on the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, TypeAlias, get_args

__all__ = ["Alter", "Delay", "Disconnect", "End", "Fault", "Respond", "Scenario", "Trickle", "from_evaluation_id"]

End: TypeAlias = Literal["completed", "errored", "cancelled"]

#: Shares of an evaluation's time.
_QUEUED, _COMMITTING = 0.1, 0.1
#: How far an evaluation comes that does not complete.
_SHARE_BEFORE_FAILURE = 0.6


@dataclass(frozen=True)
class Respond:
    """Answer with something else."""

    status_code: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delay:
    """Answer as ever, but only after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Disconnect:
    """
    Break the TCP connection.

    :param when: ``before`` the response, in the ``middle`` of its body, or ``after`` it, while the client keeps the
        connection for its next request.
    :param reset: break it with a reset (RST), as a crash or a firewall does; otherwise it is closed in good order.
    """

    when: Literal["before", "middle", "after"] = "before"
    reset: bool = False


@dataclass(frozen=True)
class Trickle:
    """Send the body byte by byte, with so many seconds between two of them."""

    seconds_per_byte: float


@dataclass(frozen=True)
class Alter:
    """
    Answer with other fields.

    :param evaluation: fields to put over the evaluation's own.
    :param envelope: fields to put over the envelope's own.
    :param without: fields of the evaluation to leave out.
    """

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    envelope: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fault:
    """
    Something that goes wrong with some of the requests for an evaluation.

    :param what: what happens instead.
    :param first: number of the first request it happens to, counted from 1.
    :param count: to how many requests it happens; None: to all from then on.
    """

    what: Respond | Delay | Disconnect | Trickle | Alter
    first: int = 1
    count: int | None = None

    def applies_to(self, request_number: int) -> bool:
        """Say whether it happens to the n-th request."""
        return request_number >= self.first and (self.count is None or request_number < self.first + self.count)


@dataclass(frozen=True)
class Scenario:
    """
    What an evaluation does over time: queued, running with progress, committing, and its end.

    :param end: how it ends.
    :param seconds: time from the first request for it to its end: a tenth queued, a tenth committing where it
        completes, running in between.
    :param rows: rows of the dataset. One that errors or is cancelled stops at 60 % of them.
    :param error_message: what the hub tells of an error.
    :param faults: what goes wrong on the way; of several that apply to a request, the first.
    :param fields: other fields of the evaluation, over those made up here.
    """

    end: End = "completed"
    seconds: float = 10.0
    rows: int = 1_000
    error_message: str = "the model returned no answer for row 601"
    faults: tuple[Fault, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse at once what the hub could not act out when it is asked."""
        if self.end not in get_args(End):
            raise ValueError(f"end must be one of {', '.join(get_args(End))}, but is {self.end!r}")
        if isinstance(self.seconds, str) or not 0 <= self.seconds < math.inf:
            raise ValueError(f"seconds must be a finite number, 0 or more, but is {self.seconds!r}")
        if not isinstance(self.rows, int) or self.rows < 0:
            raise ValueError(f"rows must be a whole number, 0 or more, but is {self.rows!r}")

    def fault_for(self, request_number: int) -> Fault | None:
        """Find what goes wrong with the n-th request."""
        return next((fault for fault in self.faults if fault.applies_to(request_number)), None)

    def document(self, evaluation_id: str, began_at: datetime, now: datetime) -> dict[str, Any]:
        """
        Write the evaluation as the contract has it.

        :param began_at: when it was queued, aware.
        :param now: the present, aware.
        """
        elapsed = (now - began_at).total_seconds()
        runs_from = self.seconds * _QUEUED
        runs_to = self.seconds * (1 - _COMMITTING if self.end == "completed" else 1)
        rows_to_do = self.rows if self.end == "completed" else int(self.rows * _SHARE_BEFORE_FAILURE)
        share = 1.0 if runs_to <= runs_from else (elapsed - runs_from) / (runs_to - runs_from)
        processed = int(rows_to_do * min(max(share, 0.0), 1.0))
        if elapsed >= self.seconds:
            status: str = self.end
        elif elapsed >= runs_to:
            status = "committing"
        else:
            status = "running" if elapsed >= runs_from else "queued"
        ended_at = _stamp(began_at + timedelta(seconds=self.seconds)) if status == self.end else None
        return {
            "id": evaluation_id,
            "status": status,
            "progress": {"processed": processed, "total": self.rows},
            "name": "A local evaluation",
            "inserted_at": _stamp(began_at),
            "started_at": None if status == "queued" else _stamp(began_at + timedelta(seconds=runs_from)),
            "completed_at": ended_at if self.end == "completed" else None,
            "cancelled_at": ended_at if self.end == "cancelled" else None,
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
            "resource": {"path": "data/customers.parquet", "version": "0123456789abcdef"},
            "target_branch": "main",
            "target_column": "intent",
            "target_path": "data/intents.parquet",
            **self.fields,
        }


def from_evaluation_id(evaluation_id: str) -> Scenario | None:
    """Read a scenario out of an id such as ``completed-20s`` or ``errored-5s-third``; None for any other id."""
    match = re.fullmatch(r"(completed|errored|cancelled)-(\d+(?:\.\d+)?)s(?:-.*)?", evaluation_id)
    if match is None:
        return None
    return Scenario(end=match[1], seconds=float(match[2]))  # type: ignore[arg-type]  # the pattern names the three


def _stamp(moment: datetime) -> str:
    """Write a time as Phoenix does: UTC, without a zone."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="seconds")
