"""
A file of the hub becomes a file here: whole, or not at all.

How this works:

1. The bytes go to a file beside the target, under a name of its own. Only a whole one gets the target's name. It is
   removed whatever else happens, and only a process that is killed leaves it behind, under the other name.
2. What does not come whole is begun again from the start: the hub documents no way to go on in the middle. That goes on
   until ``retry_window`` has passed since the first failure, with the pauses that the hub asks for.
3. Results are read at one commit, which is named first. What is committed meanwhile does not matter.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from airflow_provider_oxen.calls import build_get_file, build_get_file_meta
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenFileTooLargeError,
    OxenInvalidResponseError,
    OxenNoResultsError,
    OxenTransientError,
)
from airflow_provider_oxen.files import HOW_TO_COMMIT, FileMeta
from airflow_provider_oxen.messages import describe_duration
from airflow_provider_oxen.parameters import parse_optional_seconds
from airflow_provider_oxen.redaction import one_line
from airflow_provider_oxen.refs import EvaluationRef, FileRef
from airflow_provider_oxen.retries import Retries

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_oxen.clients import OxenClient
    from airflow_provider_oxen.evaluations import Evaluation
    from airflow_provider_oxen.protocol import Call
    from airflow_provider_oxen.streaming import Received
    from airflow_provider_oxen.version_compat import TaskLogger

__all__ = ["DownloadedResults", "Downloader"]

#: Seconds between two lines of the log about the same file.
_PROGRESS_SECONDS = 10.0

#: Longest name of a file that usual file systems take.
_MAX_NAME_BYTES = 255

T = TypeVar("T")


@dataclass(frozen=True)
class DownloadedResults:
    """
    The results of an evaluation, in a file here.

    :param file: the file.
    :param path: its path inside the repository.
    :param version: the commit that was read.
    :param size: bytes.
    """

    file: Path
    path: str
    version: str
    size: int


class Downloader:
    """
    Downloads one thing.

    :param max_bytes: most bytes that a file may have; None: as many as the disk takes.
    :param retry_window: how long to begin again after the first failure, in seconds or as ``timedelta``; None: without
        a limit.
    :raises OxenConfigError: ``max_bytes`` is no number of bytes.
    :raises ValueError: ``retry_window`` is no duration.
    """

    def __init__(
        self,
        client: OxenClient,
        log: TaskLogger,
        *,
        max_bytes: int | None,
        retry_window: timedelta | float | None,
    ) -> None:
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 0):
            raise OxenConfigError(f"must be a whole number, 0 or more, but is {max_bytes!r}", field="max_bytes")
        self._client = client
        self._log = log
        self._max_bytes = max_bytes
        self._window = parse_optional_seconds("retry_window", retry_window)
        self._retries: Retries | None = None

    def download_file(self, ref: FileRef, to: Path) -> Path:
        """Download a file as it stands at a branch or a commit."""
        _check_target(to)
        self._download(ref, to)
        return to

    def download_results(self, evaluation: Evaluation, directory: Path) -> DownloadedResults:
        """Download the results of an evaluation, at the commit that holds them."""
        if evaluation.namespace is None or evaluation.repo_name is None:
            raise OxenConfigError(
                "does not name its repository: get it anew, as with OxenHook.get_evaluation", field="evaluation"
            )
        results = evaluation.results
        version = results.version or results.branch
        if results.problem is not None or results.path is None or version is None:
            raise OxenNoResultsError(results.problem or "", request=_name(evaluation))
        ref = FileRef(evaluation.namespace, evaluation.repo_name, version, results.path)
        to = directory / ref.path.rpartition("/")[2]
        call = _build_call(ref, evaluation)
        _check_target(to)
        if results.version is None:
            check = f"that the evaluation was started with auto_commit=True, and that branch {ref.version!r} still has "
            call = replace(call, check=f"{check}its results")
        meta = self._retry(ref, lambda: self._client.ask(call))
        if results.version is None:
            _check_time(ref, evaluation, meta)
            if meta.latest_commit is None:  # something else may be committed meanwhile, of another size
                size, revision = self._download(ref, to, needs_revision=True)
                return DownloadedResults(to, ref.path, revision or "", size)
            ref = replace(ref, version=meta.latest_commit)
        size, _ = self._download(ref, to, size=meta.size)
        return DownloadedResults(to, ref.path, ref.version, size)

    def _retry(self, ref: FileRef, attempt: Callable[[], T]) -> T:
        """Try until it works, or until the window is over."""
        while True:
            try:
                return attempt()
            except OxenTransientError as error:
                self._retries = self._retries or Retries(self._window, self._log)
                if not self._retries.sleep(error, f"Could not download {ref}"):
                    raise

    def _download(
        self, ref: FileRef, to: Path, *, size: int | None = None, needs_revision: bool = False
    ) -> tuple[int, str | None]:
        """Download a file, and return its size and the commit that the hub says it read."""
        call = build_get_file(ref)

        def consume(received: Received) -> tuple[int, str | None]:
            if needs_revision and received.revision is None:
                problem = "the hub does not say which commit the file is of"
                raise OxenInvalidResponseError(problem, request=str(call))
            return self._save(ref, to, received, size), received.revision

        return self._retry(ref, lambda: self._client.receive(call, consume))

    def _save(self, ref: FileRef, to: Path, received: Received, size: int | None) -> int:
        length = received.length if size is None else size
        request = str(build_get_file(ref))
        if received.length not in (None, length):
            raise OxenInvalidResponseError(
                f"the response has {received.length:,} bytes, but the file has {length:,}", request=request
            )
        self._check_limit(ref, length or 0, request)
        if length is not None and (free := shutil.disk_usage(to.parent).free) < length:
            raise OSError(errno.ENOSPC, f"{ref} has {length:,} bytes, and only {free:,} are free", str(to.parent))
        began_at, written = time.monotonic(), 0
        logged_at = began_at
        with _whole_or_nothing(to) as part:
            for block in received.blocks:
                written += len(block)
                self._check_limit(ref, written, request)
                if length is not None and written > length:
                    problem = f"the response goes on beyond the {length:,} bytes that the file has"
                    raise OxenInvalidResponseError(problem, request=request)
                part.write(block)
                if (now := time.monotonic()) - logged_at >= _PROGRESS_SECONDS:
                    logged_at = now
                    self._log.info("Downloading %s: %s", ref, _describe(written, length, now - began_at))
            if size is not None and written != size:
                problem = f"the response has {written:,} bytes, but the file has {size:,}"
                raise OxenInvalidResponseError(problem, request=request)
        seconds = time.monotonic() - began_at
        self._log.info("Downloaded %s: %s bytes in %s", ref, f"{written:,}", describe_duration(seconds))
        return written

    def _check_limit(self, ref: FileRef, size: int, request: str) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            problem = f"{ref} has more than {self._max_bytes:,} bytes, the limit max_bytes"
            raise OxenFileTooLargeError(problem, request=request)


def _name(evaluation: Evaluation) -> str:
    return str(EvaluationRef(evaluation.namespace or "", evaluation.repo_name or "", evaluation.id))


def _build_call(ref: FileRef, evaluation: Evaluation) -> Call[FileMeta]:
    """Build the call that describes the results. Their path and version are the hub's: no user can correct them."""
    problem = ""
    try:
        call = build_get_file_meta(ref)
    except OxenConfigError as error:
        if error.field not in ("path", "version"):
            raise
        problem = f"is a {error.field} that cannot be asked for: it {error.problem}"
    if (size := len(os.fsencode(ref.path.rpartition("/")[2]))) > _MAX_NAME_BYTES:
        problem = problem or f"has a name of {size:,} bytes, too long for a file here"
    if problem:
        where = f"{one_line(ref.path)!r} at {one_line(ref.version)!r}"
        raise OxenNoResultsError(
            f"the hub says that the results are in {where}, which {problem}", request=_name(evaluation)
        )
    return call


def _check_target(to: Path) -> None:
    """Refuse what no file can be moved to, before anything is asked for."""
    if to.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the file to download to is a directory", str(to))
    if not to.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the directory to download to does not exist", str(to.parent))


def _check_time(ref: FileRef, evaluation: Evaluation, meta: FileMeta) -> None:
    """
    Refuse a file that is or may be of an earlier run, where an evaluation does not name its commit.

    Both times are the hub's.
    """
    began_at = evaluation.started_at or evaluation.inserted_at
    if began_at is None or meta.committed_at is None:
        unknown = "when it began" if began_at is None else "when the file was last changed"
        raise OxenNoResultsError(
            f"{ref} may hold the results of an earlier run: the evaluation does not name the commit of its results, "
            f"and the hub does not say {unknown}",
            request=_name(evaluation),
        )
    if meta.committed_at < began_at.replace(microsecond=0):
        raise OxenNoResultsError(
            f"{ref} was last changed before the evaluation began, so its results were not committed: {HOW_TO_COMMIT}",
            request=_name(evaluation),
        )


@contextmanager
def _whole_or_nothing(to: Path) -> Iterator[BinaryIO]:
    """Open a file beside the target, which gets the target's name where no error leaves the block."""
    part = to.with_name(f".oxen-{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(to)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _describe(done: int, total: int | None, seconds: float) -> str:
    """Say how far a download has come."""
    of = "" if not total else f" of {total / 1e6:,.1f} MB ({done / total:.0%})"
    unit = "" if of else " MB"
    return f"{done / 1e6:,.1f}{unit}{of}, {done / 1e6 / seconds:,.1f} MB/s"
