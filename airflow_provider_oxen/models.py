"""
An evaluation as the hub describes it, read once and never changed.

Source of every field: the vendor's OpenAPI page "Get evaluation status", API version 0.224.2. That page marks no field
as required, so every field but ``id`` and ``status`` may be None here, whatever its schema says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pendulum import DateTime

__all__ = [
    "Document",
    "Evaluation",
    "EvaluationRef",
    "EvaluationStatus",
    "Progress",
    "read_number",
    "read_progress",
    "read_status",
    "read_text",
]

#: Longest text handed on, in characters: an event and an XCom are rows in Airflow's database.
_TEXT_LIMIT = 4_000
#: Most entries of ``model`` handed on, for the same reason. The contract leaves its keys open.
_MODEL_LIMIT = 50
#: Deepest object or list kept inside another; the contract's own lie one deep.
_DEPTH_LIMIT = 8
#: Largest count believed: what a signed 64-bit column holds.
_COUNT_LIMIT = 2**63 - 1


class EvaluationStatus(StrEnum):
    """The statuses the contract names. The hub may grow others; none of those opens a gate."""

    QUEUED = "queued"
    RUNNING = "running"
    COMMITTING = "committing"
    COMPLETED = "completed"
    ERRORED = "errored"
    CANCELLED = "cancelled"


_TERMINAL = frozenset({EvaluationStatus.COMPLETED, EvaluationStatus.ERRORED, EvaluationStatus.CANCELLED})


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

    def __str__(self) -> str:
        return f"evaluation {self.evaluation_id} of {self.namespace}/{self.repo_name}"


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far an evaluation has come.

    :param processed: rows done so far, 0 or more; None where the hub does not say.
    :param total: rows to do in all, 0 or more; None where the hub does not say. May be 0 while queued.
    """

    processed: int | None = None
    total: int | None = None

    @property
    def fraction(self) -> float | None:
        """Share of the rows that is done, 0.0 to 1.0; None while the total is 0 or either number is unknown."""
        if self.processed is None or not self.total:
            return None
        return min(self.processed / self.total, 1.0)


class Document(Mapping[str, Any]):
    """
    A JSON object that nobody changes: neither it, nor the objects and lists in it.

    :param source: the object, of which a copy is kept; or what gives it when the first field is asked for.
    """

    __slots__ = ("_fields", "_source")

    def __init__(self, source: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        self._source = source if callable(source) else None
        self._fields: dict[str, Any] | None = None if callable(source) else _freeze_fields(source)

    def _read(self) -> dict[str, Any]:
        if self._fields is None:
            assert self._source is not None  # noqa: S101  # one of the two is there
            self._fields = _freeze_fields(self._source())
            self._source = None
        return self._fields

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __reduce__(self) -> tuple[object, ...]:
        # As fields: what they would be read from may hold more than anyone should store.
        return Document, (dict(self._read()),)


def _freeze_fields(source: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    return {key: _freeze(value, depth) for key, value in source.items()}


def _freeze(value: Any, depth: int) -> Any:
    if not isinstance(value, (Mapping, list)):
        return value
    if depth == _DEPTH_LIMIT:
        return None
    if isinstance(value, list):
        return tuple(_freeze(item, depth + 1) for item in value)
    return value if isinstance(value, Document) else Document(_freeze_fields(value, depth + 1))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """
    One run of a model over the rows of a dataset.

    Made by :func:`airflow_provider_oxen.api.read_evaluation`. ``id``, ``status`` and ``progress`` are read at once; the
    rest is read from the hub's document when it is asked for, since most looks at an evaluation need none of it.

    :param id: the evaluation's id, a UUID as text.
    :param status: the hub's word for where it stands. An :class:`EvaluationStatus` where the contract knows the word,
        plain text where it does not.
    :param progress: rows done and rows in all.
    :param document: the hub's JSON object; it is kept as a copy that cannot be changed.
    """

    id: str
    status: EvaluationStatus | str
    progress: Progress = field(default_factory=Progress)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.document, Document):
            object.__setattr__(self, "document", Document(self.document))

    @property
    def is_terminal(self) -> bool:
        """Whether the evaluation has ended: completed, errored or cancelled. An unknown status has not."""
        return self.status in _TERMINAL

    @property
    def cancelled_at(self) -> DateTime | None:
        """When it was cancelled, in UTC."""
        return _moment(self.document.get("cancelled_at"))

    @property
    def completed_at(self) -> DateTime | None:
        """When it completed, in UTC."""
        return _moment(self.document.get("completed_at"))

    @property
    def inserted_at(self) -> DateTime | None:
        """When it was created, in UTC."""
        return _moment(self.document.get("inserted_at"))

    @property
    def started_at(self) -> DateTime | None:
        """When its first row was begun, in UTC; None while queued."""
        return _moment(self.document.get("started_at"))

    @property
    def completion_tokens_used(self) -> int | None:
        """Tokens the model wrote."""
        return _count(self.document.get("completion_tokens_used"))

    @property
    def prompt_tokens_used(self) -> int | None:
        """Tokens the model read."""
        return _count(self.document.get("prompt_tokens_used"))

    @property
    def tokens_used(self) -> int | None:
        """Tokens in all, as the hub counts them: read and written."""
        return _count(self.document.get("tokens_used"))

    @property
    def credits_used(self) -> float | None:
        """Oxen credits spent."""
        return read_number(self.document.get("credits_used"))

    @property
    def sample_count(self) -> int | None:
        """Rows of a sample run."""
        return _count(self.document.get("sample_count"))

    @property
    def is_sample(self) -> bool | None:
        """Whether only a sample of the rows is run."""
        value = self.document.get("is_sample")
        return value if isinstance(value, bool) else None

    @property
    def created_by(self) -> dict[str, str | None] | None:
        """Who created it: ``id``, ``username``, ``name`` and ``image`` (an address), each a text or None."""
        person = self.document.get("created_by")
        if not isinstance(person, Mapping):
            return None
        return {key: read_text(person.get(key)) for key in ("id", "username", "name", "image")}

    @property
    def error_message(self) -> str | None:
        """The hub's reason, where the status is errored."""
        return read_text(self.document.get("error_message"))

    @property
    def input_type(self) -> str | None:
        """``text``, ``image`` or ``video``; the hub may grow others."""
        return read_text(self.document.get("input_type"))

    @property
    def output_type(self) -> str | None:
        """``text``, ``image``, ``video`` or ``embeddings``; the hub may grow others."""
        return read_text(self.document.get("output_type"))

    @property
    def model(self) -> dict[str, Any] | None:
        """The model that is run. The contract leaves its keys open; here, those with a plain value."""
        model = self.document.get("model")
        if not isinstance(model, Mapping):
            return None
        plain = ((read_text(key), _plain(value)) for key, value in model.items())
        return dict([(key, value) for key, value in plain if key and value is not None][:_MODEL_LIMIT])

    @property
    def name(self) -> str | None:
        """What a person called it."""
        return read_text(self.document.get("name"))

    @property
    def prompt(self) -> str | None:
        """The prompt template. Left out of :meth:`to_dict`: it may be long, and it may be confidential."""
        return read_text(self.document.get("prompt"))

    @property
    def repository_id(self) -> str | None:
        """The hub's id of the repository."""
        return read_text(self.document.get("repository_id"))

    @property
    def resource(self) -> dict[str, str | None] | None:
        """The rows' source: ``path`` inside the repository and ``version``, a commit id or branch."""
        resource = self.document.get("resource")
        if not isinstance(resource, Mapping):
            return None
        return {key: read_text(resource.get(key)) for key in ("path", "version")}

    @property
    def target_branch(self) -> str | None:
        """The branch the results are committed to."""
        return read_text(self.document.get("target_branch"))

    @property
    def target_column(self) -> str | None:
        """The column the results are written to."""
        return read_text(self.document.get("target_column"))

    @property
    def target_path(self) -> str | None:
        """The file the results are written to, inside the repository."""
        return read_text(self.document.get("target_path"))

    @property
    def ran_for_seconds(self) -> float | None:
        """Seconds from its start to its end by the hub's clock; None while it runs or where a time is missing."""
        began, ended = self.started_at, self.completed_at or self.cancelled_at
        if began is None or ended is None or ended < began:
            return None
        return float((ended - began).total_seconds())

    def to_dict(self) -> dict[str, Any]:
        """
        Write the evaluation as JSON-safe values under the contract's own field names.

        :return: every field of the contract but ``prompt``: texts (4,000 characters at most), numbers, booleans,
            times as ISO 8601 in UTC, ``progress`` as ``{"processed", "total"}``, ``resource`` as ``{"path",
            "version"}``, ``created_by`` as ``{"id", "username", "name", "image"}``, ``model`` as an object of plain
            values. A field that is missing or makes no sense is None. :func:`airflow_provider_oxen.api.read_evaluation`
            reads it back.
        """
        moments = {
            name: None if moment is None else moment.isoformat()
            for name, moment in (
                ("cancelled_at", self.cancelled_at),
                ("completed_at", self.completed_at),
                ("inserted_at", self.inserted_at),
                ("started_at", self.started_at),
            )
        }
        return {
            "id": self.id,
            "status": str(self.status),
            "progress": {"processed": self.progress.processed, "total": self.progress.total},
            **moments,
            "completion_tokens_used": self.completion_tokens_used,
            "created_by": self.created_by,
            "credits_used": self.credits_used,
            "error_message": self.error_message,
            "input_type": self.input_type,
            "is_sample": self.is_sample,
            "model": self.model,
            "name": self.name,
            "output_type": self.output_type,
            "prompt_tokens_used": self.prompt_tokens_used,
            "repository_id": self.repository_id,
            "resource": self.resource,
            "sample_count": self.sample_count,
            "target_branch": self.target_branch,
            "target_column": self.target_column,
            "target_path": self.target_path,
            "tokens_used": self.tokens_used,
        }


def read_progress(value: object) -> Progress:
    """Read the contract's ``progress`` object, or whatever stands in its place."""
    if not isinstance(value, Mapping):
        return Progress()
    return Progress(_count(value.get("processed")), _count(value.get("total")))


def read_status(value: str) -> EvaluationStatus | str:
    """Read the contract's ``status``; a word it does not know stays plain text."""
    return _KNOWN.get(value) or read_text(value) or ""


_KNOWN = {status.value: status for status in EvaluationStatus}


def read_text(value: object) -> str | None:
    """
    Read a text, in a form every database takes.

    PostgreSQL refuses NUL in text and JSON, and no database takes lone surrogates.
    """
    if not isinstance(value, str):
        return None
    if len(value) > _TEXT_LIMIT:
        value = value[: _TEXT_LIMIT - 1] + "…"
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _count(value: object) -> int | None:
    """Read a whole number of things. JSON writers may spell 12 as 12.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_LIMIT:
        return None
    return value


def read_number(value: object) -> float | None:
    """Read a finite number; a count too large for a float is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _plain(value: object) -> str | int | float | bool | None:
    """Read a value that is no object and no list."""
    if isinstance(value, bool):
        return value
    return read_text(value) if isinstance(value, str) else read_number(value)


def _moment(value: object) -> DateTime | None:
    """
    Read a time.

    The hub writes ISO 8601, often without a zone: those are UTC. Python's own reader is strict and quick; pendulum's
    takes more than times (durations, intervals), which a field that may hold anything must not.
    """
    if not isinstance(value, str):
        return None
    import pendulum

    try:
        return pendulum.instance(datetime.fromisoformat(value.strip()), tz="UTC").in_timezone("UTC")
    except (ValueError, OverflowError):
        return None
