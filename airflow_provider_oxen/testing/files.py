"""
The files of a repository: commits, branches, and the versions of a file. No server.

A commit keeps all files as they were: what was added later changes none of an older commit.
"""

from __future__ import annotations

import hashlib
import mimetypes
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import PurePosixPath
from threading import Lock

from airflow_provider_oxen.testing.addresses import decode_segments, is_missing
from airflow_provider_oxen.testing.tables import Content, Shape, find_shape

__all__ = ["Commit", "FileStore", "FileVersion", "Repository", "new_commit_id"]

#: Media types that Python's own table does not have, or not on every system.
_MEDIA_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "tsv": "text/tab-separated-values",
}


@dataclass(frozen=True)
class Commit:
    """
    A commit.

    :param id: 16 hexadecimal digits, as the vendor has shown them.
    :param message: its message.
    :param at: when it was made, aware.
    """

    id: str
    message: str
    at: datetime


@dataclass
class FileVersion:
    """
    One version of a file.

    :param path: its path.
    :param commit: the commit that made it.
    :param make: gives what is in it. Called when it is first asked for, and not again.
    """

    path: str
    commit: Commit
    make: Callable[[], Content]

    @cached_property
    def content(self) -> Content:
        """What is in it."""
        return self.make()

    @cached_property
    def size(self) -> int:
        """Its size, in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def hash(self) -> str:
        """A hash of its bytes."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()[:32]
        with self.content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]

    @cached_property
    def shape(self) -> Shape | None:
        """Rows and columns; None if it is no table."""
        return find_shape(self.path, self.content)

    @property
    def suffix(self) -> str:
        """The suffix of its name, without the dot."""
        return PurePosixPath(self.path).suffix.removeprefix(".")

    @property
    def media_type(self) -> str:
        """Its media type, from the suffix of its name."""
        known = _MEDIA_TYPES.get(self.suffix.lower()) or mimetypes.guess_type(self.path)[0]
        return known or "application/octet-stream"


@dataclass
class Repository:
    """
    The files of one repository.

    :param branches: the files at the head of each branch, by path.
    :param commits: the files of each commit, by path.
    """

    branches: dict[str, Mapping[str, FileVersion]] = field(default_factory=dict)
    commits: dict[str, Mapping[str, FileVersion]] = field(default_factory=dict)
    _others: dict[str, Mapping[str, FileVersion]] = field(default_factory=dict)

    def add(self, branch: str, file: FileVersion, *, based_on: str = "main") -> None:
        """
        Add a version of a file, in the commit that it names.

        :param branch: the branch; made if there is none of this name.
        :param file: the file.
        :param based_on: branch or commit that a new branch has its other files from.
        """
        before = self.branches.get(branch) or self.branches.get(based_on) or self.commits.get(based_on, {})
        self.branches[branch] = self.commits[file.commit.id] = {**before, file.path: file}

    def show(self, name: str, file: FileVersion) -> None:
        """Let a name that is neither a branch nor a commit lead to a file."""
        self._others[name] = {**self._others.get(name, {}), file.path: file}

    def find(self, version: str, path: str) -> FileVersion | None:
        """
        Find a file.

        :param version: a branch, or the id of a commit.
        :param path: its path.
        :return: None if there is no such version, or no such file in it.
        """
        return self._files_at(version).get(path)

    def _files_at(self, version: str) -> Mapping[str, FileVersion]:
        found = (known.get(version) for known in (self.branches, self.commits, self._others))
        return next((files for files in found if files is not None), {})

    def split(self, segments: Sequence[str]) -> tuple[str, str] | None:
        """
        Find version and path in the segments of an address. The longest branch that matches counts.

        :return: the two; None if no version matches, or if no path follows it.
        """
        for count in range(len(segments) - 1, 0, -1):
            version = "/".join(segments[:count])
            if self._files_at(version):
                return version, "/".join(segments[count:])
        return None


class FileStore:
    """
    The files of all repositories. Every thread may use it.

    :param prepare: called with the namespace and the name of a repository, and with its files, before these are used.
    """

    def __init__(self, prepare: Callable[[tuple[str, str], Repository], None]) -> None:
        self._prepare = prepare
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._lock = Lock()

    def add(self, repository: tuple[str, str], branch: str, file: FileVersion) -> None:
        """
        Add a version of a file, in the commit that it names.

        :param repository: its namespace and its name.
        :param branch: the branch.
        :param file: the file.
        """
        with self._lock:
            self._repository(*repository).add(branch, file)

    def find(self, address: str, missing: Collection[str]) -> tuple[FileVersion, str] | None:
        """
        Find the file that the address of a request names.

        :param address: path of the URL as it was sent.
        :param missing: what does not exist, as for :func:`is_missing`.
        :return: the file, and the branch or the commit by which it was found; None if there is no such file.
        """
        segments = decode_segments(address.removeprefix("/api/repos/"))
        if segments is None:
            return None
        namespace, repo_name, _, *target = segments
        with self._lock:
            named = self._repository(namespace, repo_name).split(target)
        found = self.find_at((namespace, repo_name), *named, missing) if named else None
        return (found, named[0]) if found and named else None

    def find_at(
        self, repository: tuple[str, str], version: str, path: str, missing: Collection[str]
    ) -> FileVersion | None:
        """
        Find a file.

        :param repository: its namespace and its name.
        :param version: a branch, or the id of a commit.
        :param path: the file's path.
        :param missing: as for :meth:`find`.
        """
        if is_missing(missing, *repository, version, path):
            return None
        with self._lock:
            return self._repository(*repository).find(version, path)

    def _repository(self, namespace: str, repo_name: str) -> Repository:
        names = (namespace, repo_name)
        repository = self._repositories.setdefault(names, Repository())
        self._prepare(names, repository)
        return repository


def new_commit_id() -> str:
    """Draw an id for a commit."""
    return uuid.uuid4().hex[:16]
