"""
The contract of evaluations: their fields and their statuses.

Source: the vendor's OpenAPI page "Get evaluation status" (API 0.224.2), and two responses that the vendor published,
which hold more and other things than that page. No field is marked as required there, so every field but ``id`` and
``status`` may be None here. A field whose value makes no sense is None as well, and never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache, partial
from sys import intern
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from airflow_provider_oxen import values
from airflow_provider_oxen.files import EvaluationResults, find_results
from airflow_provider_oxen.protocol import GOOD_ENVELOPES, ContractError
from airflow_provider_oxen.redaction import may_hold, redact
from airflow_provider_oxen.refs import EvaluationRef

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Evaluation", "EvaluationRef", "EvaluationStatus", "Progress", "parse_evaluation"]

T = TypeVar("T")


class EvaluationStatus(StrEnum):
    """The statuses of the contract. The hub may add others; none of those opens a gate."""

    QUEUED = "queued"
    RUNNING = "running"
    COMMITTING = "committing"
    COMPLETED = "completed"
    ERRORED = "errored"
    CANCELLED = "cancelled"


_STATUSES = {status.value: status for status in EvaluationStatus}
_TERMINAL = frozenset({EvaluationStatus.COMPLETED, EvaluationStatus.ERRORED, EvaluationStatus.CANCELLED})


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


_NO_PROGRESS = Progress()
#: What reads each other field, by its name, in the order in which an evaluation keeps their values.
_READERS: dict[str, Callable[[object], Any]] = {}


class _Field(Generic[T]):
    """
    A field of the evaluation object: read from the decoded value when it is asked for, since most polls need none.

    :param read: makes the attribute's value from the decoded one.
    """

    def __init__(self, read: Callable[[object], T]) -> None:
        self._read = read

    def __set_name__(self, owner: type, name: str) -> None:
        _READERS[name] = self._read
        self._index = list(_READERS).index(name)

    @overload
    def __get__(self, evaluation: None, owner: type) -> Self: ...
    @overload
    def __get__(self, evaluation: Evaluation, owner: type) -> T: ...
    def __get__(self, evaluation: Evaluation | None, owner: type) -> Self | T:
        if evaluation is None:
            return self
        return self._read(_unpack(evaluation._values)[self._index])  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Evaluation:
    """
    One run of a model over the rows of a dataset. A value: it never changes, and a poll makes another.

    :param id: the evaluation's id, a UUID as text.
    :param status: the hub's word for its state. An :class:`EvaluationStatus` where the contract knows the word,
        plain text where it does not.
    :param progress: rows done and rows in all.
    :param namespace: user or organization that owns its repository, as it was asked for; None where that is not known.
    :param repo_name: its repository, likewise.
    """

    id: str
    status: EvaluationStatus | str
    progress: Progress = field(default_factory=Progress)
    namespace: str | None = None
    repo_name: str | None = None
    _values: bytes = field(default=b"", repr=False, hash=False)

    cancelled_at = _Field(values.moment)
    """When it was cancelled, in UTC."""
    closing_commit = _Field(
        partial(values.named_texts, names=("id", "author", "email", "message", "timestamp")),
    )
    """The commit that holds the results: ``id``, ``author``, ``email``, ``message`` and ``timestamp``."""
    commit_id = _Field(values.text)
    """The commit that holds the source rows."""
    commit_started_at = _Field(values.moment)
    """When the hub began to commit the results, in UTC."""
    completed_at = _Field(values.moment)
    """When it completed, in UTC."""
    completion_tokens_used = _Field(values.count)
    """Tokens the model wrote."""
    created_by = _Field(partial(values.named_texts, names=("id", "username", "name", "image")))
    """Who created it: ``id``, ``username``, ``name`` and ``image`` (an address), each a text or None."""
    credits_used = _Field(values.number)
    """Oxen credits spent."""
    error_message = _Field(values.text)
    """The hub's reason, where the status is errored."""
    input_type = _Field(values.text)
    """``text``, ``image`` or ``video``; the hub may add others."""
    inserted_at = _Field(values.moment)
    """When it was created, in UTC."""
    is_sample = _Field(values.boolean)
    """Whether only a sample of the rows is run."""
    model = _Field(values.plain_values)
    """The model that is run: its name, or an object of texts, numbers and booleans, whose keys are open."""
    name = _Field(values.text)
    """What a person called it."""
    output_type = _Field(values.text)
    """``text``, ``image``, ``video`` or ``embeddings``; the hub may add others."""
    prompt = _Field(values.text)
    """The prompt template. Left out of :meth:`to_dict`: it may be long, and it may be confidential."""
    prompt_tokens_used = _Field(values.count)
    """Tokens the model read."""
    queued_at = _Field(values.moment)
    """When it was queued, in UTC."""
    repository_id = _Field(values.text)
    """The hub's id of the repository."""
    resource = _Field(partial(values.named_texts, names=("path", "version")))
    """The source rows: ``path`` inside the repository and ``version``, a commit id or a branch name."""
    sample_count = _Field(values.count)
    """Rows of a sample run."""
    started_at = _Field(values.moment)
    """When its first row was begun, in UTC; None while queued."""
    target_branch = _Field(values.text)
    """The branch the results are committed to."""
    target_column = _Field(values.text)
    """The column the results are written to."""
    target_path = _Field(values.text)
    """The file the results are written to, inside the repository; None also where that is the source file."""
    tokens_used = _Field(values.count)
    """Tokens in all, as the hub counts them: read and written."""
    workspace_id = _Field(values.text)
    """The workspace that holds results which are not committed."""

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Evaluation:
        """
        Make an evaluation from the contract's object, or from what :meth:`to_dict` made.

        :raises ValueError: it has no usable ``id`` or ``status``; every other field may be missing.
        """
        head = (document.get("id"), document.get("status"), document.get("progress"))
        texts = (values.text(document.get(name)) for name in ("namespace", "repo_name"))
        # The same texts for all: a triggerer keeps an evaluation for each of thousands of waits.
        names = [text if text is None else intern(text) for text in texts]
        found = map(document.get, _READERS)
        return _from_values(head, [None if value is None else values.json_safe(value) for value in found], *names)

    @property
    def is_terminal(self) -> bool:
        """Whether the evaluation has ended: completed, errored or cancelled. An unknown status has not."""
        return self.status in _TERMINAL

    @property
    def source_version(self) -> str | None:
        """The exact version of the source rows: the commit where the hub gives it, else ``resource.version``."""
        return self.commit_id or (self.resource or {}).get("version")

    @property
    def results_path(self) -> str | None:
        """The file that holds the results. Where ``target_path`` is null, the hub writes to the source file."""
        return self.target_path or (self.resource or {}).get("path")

    @property
    def results_commit(self) -> str | None:
        """The commit that holds the results; None before there is one, and where the hub does not give it."""
        return (self.closing_commit or {}).get("id") or None

    @property
    def results(self) -> EvaluationResults:
        """Where the results are, or why there are none to read."""
        status = None if self.status is EvaluationStatus.COMPLETED else str(self.status)
        return find_results(status, self.results_path, self.results_commit, self.target_branch)

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

        :return: every field above but ``prompt``: texts (4,000 characters at most), numbers, booleans, times as ISO
            8601 in UTC, ``progress`` as ``{"processed", "total"}``, ``resource`` as ``{"path", "version"}``,
            ``created_by`` as ``{"id", "username", "name", "image"}``, ``closing_commit`` as ``{"id", "author",
            "email", "message", "timestamp"}``, ``model`` as text or as an object of plain values. A field that is
            missing or makes no sense is None. :meth:`from_dict` reads it back.
        """
        written: dict[str, Any] = {"id": self.id, "status": str(self.status)}
        written |= {"namespace": self.namespace, "repo_name": self.repo_name}
        written |= {"progress": {"processed": self.progress.processed, "total": self.progress.total}}
        for (name, read), packed in zip(_READERS.items(), _unpack(self._values), strict=True):
            if name != "prompt":
                value = None if packed is None else read(packed)
                written[name] = value.isoformat() if isinstance(value, datetime) else value
        return written


def parse_evaluation(
    body: bytes,
    secret: str,
    *,
    evaluation_id: str | None = None,
    namespace: str | None = None,
    repo_name: str | None = None,
) -> Evaluation:
    """
    Parse the body of a response with an evaluation.

    :param evaluation_id: the id that was asked for; None where any will do.
    :param namespace: as asked for.
    :param repo_name: as asked for.
    :raises ContractError: there is none in it, or one of another id.
    """
    import msgspec

    try:
        body.decode()  # the decoder does not check what it skips to be UTF-8
        envelope = _decoder().decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ContractError("the response has no evaluation in it") from None
    if envelope.status not in GOOD_ENVELOPES:
        raise ContractError("the envelope says that there is none")
    found_id, status, progress, *others = msgspec.structs.astuple(envelope.evaluation)
    is_suspect = may_hold(body, secret)
    try:
        if is_suspect:
            # A known status and a number hold no key. The id is compared below.
            status = status if status in list(_STATUSES) else redact(status, secret)
            others = [_redact(read, value, secret) for read, value in zip(_READERS.values(), others, strict=True)]
        found_id = evaluation_id if found_id == evaluation_id else found_id  # one text in memory, and not two
        evaluation = _from_values((found_id, status, progress), others, namespace, repo_name)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"the evaluation in the response cannot be used: {error}") from None
    if evaluation_id is None:
        if is_suspect and redact(found_id, secret) != found_id:
            raise ContractError("the evaluation in the response cannot be used: its id holds the API key")
    elif evaluation.id.lower() != evaluation_id.lower():  # as EvaluationRef.is_id_of
        shown = redact(found_id, secret)[:80]  # redacted before it is cut and quoted
        raise ContractError(f"the response is about another evaluation, {shown!r}")
    return evaluation


def _redact(read: Callable[[object], Any], value: object, secret: str) -> Any:
    """Redact a field's value, but for what its reader needs: a time as it is, and the names of an object's contract."""
    if read is values.moment and values.moment(value):
        return value
    return redact(value, secret, names=read.keywords["names"] if isinstance(read, partial) else ())


@cache
def _decoder() -> Any:
    """
    Make what decodes an envelope with an evaluation. Each field may be missing, and of any type.

    So a field that makes no sense is None when it is read, and not an error that ends a wait. The values are kept as
    they were decoded, and packed: most polls read few fields, and thousands of waits keep an evaluation each.
    """
    import msgspec

    names = ("id", "status", "progress", *_READERS)
    evaluation = msgspec.defstruct("evaluation", [(name, Any, None) for name in names], gc=False)
    envelope = msgspec.defstruct("envelope", [("evaluation", evaluation), ("status", Any, None)], gc=False)
    return msgspec.json.Decoder(envelope, float_hook=float)  # a number too large for a float is infinite, not an error


def _from_values(
    head: tuple[Any, Any, Any], others: list[Any], namespace: str | None, repo_name: str | None
) -> Evaluation:
    evaluation_id, status, progress = head
    evaluation_id = values.text(evaluation_id)
    if not evaluation_id:
        raise ValueError("it has no id")
    if not isinstance(status, str) or not status:
        raise ValueError("it has no status")
    rows = _NO_PROGRESS
    if type(progress) is dict or isinstance(progress, Mapping):  # the first is quicker
        rows = Progress(values.count(progress.get("processed")), values.count(progress.get("total")))
    status = _STATUSES.get(status) or values.text(status) or ""
    return Evaluation(evaluation_id, status, rows, namespace, repo_name, values.pack(others))


def _unpack(packed: bytes) -> list[Any]:
    return values.unpack(packed) if packed else [None] * len(_READERS)
