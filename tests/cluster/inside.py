"""
What the processes of the cluster load: remote logs in a folder, by ``[logging] logging_config_class``, and a host name.

Airflow 3.3 finds by the scheme of ``[logging] remote_base_log_folder`` who stores remote logs, and no provider does so
for ``file://``. What a module of one's own names ``REMOTE_TASK_LOG`` comes first. As on separate machines, each process
has a log folder of its own, so the API server finds nothing but what was uploaded.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow.config_templates.airflow_local_settings import DEFAULT_LOGGING_CONFIG
from airflow.sdk import ObjectStoragePath

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEFAULT_REMOTE_CONN_ID", "LOGGING_CONFIG", "REMOTE_TASK_LOG", "FolderLogs", "host_name"]

LOGGING_CONFIG = DEFAULT_LOGGING_CONFIG
DEFAULT_REMOTE_CONN_ID = None


class FolderLogs:
    """
    Keeps logs in a folder of an object storage.

    :param url: the folder.
    """

    processors: Sequence[Any] = ()

    def __init__(self, url: str) -> None:
        self._folder = ObjectStoragePath(url)

    def upload(self, path: os.PathLike[str] | str, ti: Any = None) -> None:  # noqa: ARG002  # Airflow's interface
        """
        Store what this host has logged of an attempt, in place of what it has stored of it before.

        Each host has a file of its own: two may log at the same time, where Celery delivers a message twice.
        """
        local = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"], path)
        remote = self._folder / f"{path}.{host_name()}"
        remote.parent.mkdir(parents=True, exist_ok=True)
        remote.write_bytes(local.read_bytes())

    def read(self, relative_path: str, ti: Any) -> tuple[list[str], list[str]]:  # noqa: ARG002  # Airflow's interface
        """Return an attempt's logs: the worker's and the triggerers'."""
        path = PurePosixPath(relative_path)
        folder = self._folder / str(path.parent)
        if not folder.exists():
            return [], []
        found = sorted((file for file in folder.iterdir() if file.name.startswith(path.name)), key=str)
        return [str(file) for file in found], [file.read_text() for file in found]


REMOTE_TASK_LOG = FolderLogs(os.environ["CLUSTER_LOGS"])


def host_name() -> str:
    """Return the name of this part, for ``[core] hostname_callable``."""
    return os.environ.get("CLUSTER_HOST", "tests")
