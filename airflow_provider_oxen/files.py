"""
The contract of files: what the hub says about one, and where an evaluation's results are.

Source: the open-source Oxen server and client. Its older versions write the size of a table into ``metadata``, newer
ones into ``metadata.tabular``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_oxen import values
from airflow_provider_oxen.protocol import GOOD_ENVELOPES, ContractError, decode_object
from airflow_provider_oxen.redaction import redact

__all__ = ["HOW_TO_COMMIT", "EvaluationResults", "FileMeta", "find_results", "parse_file_meta"]

#: What to do about results that were not committed, as the end of a sentence.
HOW_TO_COMMIT = "start it with auto_commit=True and target_branch, or commit them on its page"


@dataclass(frozen=True, slots=True)
class FileMeta:
    """
    What the hub says about a file. Each may be None, where the hub does not say.

    :param size: bytes.
    :param latest_commit: the commit that changed the file last.
    :param rows: rows, where the file is a table.
    :param committed_at: when that commit was made, in UTC.
    """

    size: int | None = None
    latest_commit: str | None = None
    rows: int | None = None
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EvaluationResults:
    """
    Where the results of an evaluation are.

    :param path: the file, inside the repository.
    :param version: the commit that holds them; None where the evaluation does not name it.
    :param branch: the branch they are committed to; None where the evaluation does not name it.
    :param problem: why there is no file to read, as a sentence; None where there is one.
    """

    path: str | None = None
    version: str | None = None
    branch: str | None = None
    problem: str | None = None


def find_results(
    unfinished: str | None, path: str | None, version: str | None, branch: str | None
) -> EvaluationResults:
    """
    Say where results are, or why there are none to read.

    :param unfinished: the status of an evaluation that has not completed; None: it has.
    """
    problem = None
    if unfinished is not None:
        problem = f"the evaluation has not completed (its status is {unfinished!r}), so there are no results to read"
    elif version is None and branch is None:
        problem = (
            f"the evaluation was started without auto_commit=True, so its results were not committed: {HOW_TO_COMMIT}"
        )
    elif path is None:
        problem = "the hub does not say which file holds the results of the evaluation"
    return EvaluationResults(path, version, branch, problem)


def parse_file_meta(body: bytes, secret: str) -> FileMeta:
    """
    Parse the body of a response that describes a file.

    :raises ContractError: it describes none, or a folder.
    """
    envelope = decode_object(body)
    if envelope is None or envelope.get("status") not in GOOD_ENVELOPES:
        raise ContractError("the response is not a good envelope")
    entry = redact(envelope.get("entry"), secret, names=_NAMES)
    if not isinstance(entry, Mapping):
        raise ContractError("the response describes no file")
    if entry.get("is_dir") is True:
        raise ContractError("the path is that of a folder, and not of a file")
    commit = entry.get("latest_commit")
    commit = commit if isinstance(commit, Mapping) else {"id": commit}
    table = _object(entry.get("metadata"))
    table = _object(table.get("tabular")) or table
    return FileMeta(
        size=values.count(entry.get("size")),
        latest_commit=values.text(commit.get("id")) or None,
        rows=values.count(table.get("height")),
        committed_at=values.moment(commit.get("timestamp")),
    )


#: The names that the entry is read by.
_NAMES = ("size", "is_dir", "latest_commit", "id", "timestamp", "metadata", "tabular", "height")


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
