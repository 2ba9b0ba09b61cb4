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
from threading import Lock

from airflow_provider_oxen.testing.addresses import decode_segments, is_missing
from airflow_provider_oxen.testing.tables import Content, Shape, find_shape

__all__ = ["Commit", "FileStore", "FileVersion", "Repository"]

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
        name, dot, suffix = self.path.rpartition("/")[2].rpartition(".")
        return suffix if dot and name else ""

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

    def add(self, branch: str, path: str, make: Callable[[], Content], commit: Commit) -> None:
        """
        Add a version of a file, in a commit of its own.

        :param branch: the branch; made, without any other file, if there is none of this name.
        :param path: the file's path.
        :param make: gives what is in it, when that is first asked for.
        :param commit: the commit.
        """
        files = {**self.branches.get(branch, {}), path: FileVersion(path, commit, make)}
        self.branches[branch] = self.commits[commit.id] = files

    def find(self, version: str, path: str) -> FileVersion | None:
        """
        Find a file.

        :param version: a branch, or the id of a commit.
        :param path: its path.
        :return: None if there is no such version, or no such file in it.
        """
        return (self.branches.get(version) or self.commits.get(version) or {}).get(path)

    def split(self, segments: Sequence[str]) -> tuple[str, str] | None:
        """
        Find version and path in the segments of an address. The longest branch that matches counts.

        :return: the two; None if no version matches, or if no path follows it.
        """
        for count in range(len(segments) - 1, 0, -1):
            version = "/".join(segments[:count])
            if version in self.branches or version in self.commits:
                return version, "/".join(segments[count:])
        return None


class FileStore:
    """The files of all repositories. Every thread may use it."""

    def __init__(self) -> None:
        self._repositories: dict[tuple[str, str], Repository] = {}
        self._lock = Lock()

    def add(self, repository: tuple[str, str], branch: str, path: str, content: Content, at: datetime) -> str:
        """
        Add a version of a file, in a commit of its own.

        :param repository: its namespace and its name.
        :param branch: the branch.
        :param path: the file's path.
        :param content: what is in it.
        :param at: when, aware.
        :return: id of the commit.
        """
        commit = Commit(uuid.uuid4().hex[:16], f"Add {path}", at)
        with self._lock:
            self._repository(*repository).add(branch, path, lambda: content, commit)
        return commit.id

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
            repository = self._repository(namespace, repo_name)
            named = repository.split(target)
            found = repository.find(*named) if named else None
        if found is None or named is None or is_missing(missing, namespace, repo_name, *named):
            return None
        return found, named[0]

    def _repository(self, namespace: str, repo_name: str) -> Repository:
        return self._repositories.setdefault((namespace, repo_name), Repository())
