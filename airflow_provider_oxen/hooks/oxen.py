"""The hook: the one place where Airflow connections are read. What it asks the hub for, it asks with a client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import triggerer_compat, version_compat
from airflow_provider_oxen.airflow_names import AirflowNotFoundException, BaseHook, get_async_connection
from airflow_provider_oxen.calls import (
    build_get_evaluation,
    build_get_file_meta,
    build_get_user,
    build_start_evaluation,
)
from airflow_provider_oxen.clients import OxenAsyncClient, OxenClient
from airflow_provider_oxen.config import ClientConfig, parse_config
from airflow_provider_oxen.downloads import DownloadedResults, Downloader
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import OxenConfigError, OxenError, OxenUnreachableError
from airflow_provider_oxen.files import FileMeta
from airflow_provider_oxen.get_provider_info import CONNECTION_FIELDS, CONNECTION_FORM
from airflow_provider_oxen.parameters import as_text, check_conn_id
from airflow_provider_oxen.recording import triggerer_recorder, worker_recorder
from airflow_provider_oxen.refs import FileRef

if TYPE_CHECKING:
    import os
    from datetime import timedelta

    from airflow.sdk import Connection

__all__ = ["OxenHook"]


class OxenHook(BaseHook):
    """
    Ask an Oxen hub about evaluations, and download their results.

    Nothing is read and no connection is opened before the first request.

    :param oxen_conn_id: the Airflow connection to use, of type ``oxen``. Host (default ``hub.oxen.ai``), schema
        (default ``https``) and port say where the hub is; the password is the API key; the extra fields are
        ``timeout`` (seconds a request may take, default 30), ``verify`` (true, false or the path of a CA file),
        ``proxy`` (address of an HTTP proxy) and ``max_connections`` (default 20).
    """

    conn_name_attr = "oxen_conn_id"
    default_conn_name = "oxen_default"
    conn_type = "oxen"
    hook_name = "Oxen"

    def __init__(self, oxen_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.oxen_conn_id: str = as_text(oxen_conn_id)
        self._warned: set[str] = set()

    def get_evaluation(self, namespace: str, repo_name: str, evaluation_id: str) -> Evaluation:
        """
        Get one evaluation as it stands now.

        :param namespace: user or organization that owns the repository.
        :param repo_name: the repository.
        :param evaluation_id: the evaluation's id.
        :return: the evaluation.
        :raises OxenConfigError: the connection or an argument cannot be used; nothing was sent.
        :raises OxenTransientError: no usable response came this time.
        :raises OxenPermanentError: the hub refuses the request.
        """
        with self.get_conn() as client:
            return client.ask(build_get_evaluation(EvaluationRef(namespace, repo_name, evaluation_id)))

    async def aget_evaluation(self, namespace: str, repo_name: str, evaluation_id: str) -> Evaluation:
        """Get one evaluation without blocking the event loop. As :meth:`get_evaluation`."""
        async with self.get_async_conn() as client:
            return await client.ask(build_get_evaluation(EvaluationRef(namespace, repo_name, evaluation_id)))

    def start_evaluation(
        self, namespace: str, repo_name: str, branch: str, path: str, body: Mapping[str, Any]
    ) -> Evaluation:
        """
        Start an evaluation over the rows of a file. **Nothing repeats this call**: each costs money.

        In a DAG, use :class:`~airflow_provider_oxen.operators.oxen.OxenRunEvaluationOperator`, which starts at most one
        although its task may be retried.

        :param namespace: user or organization that owns the repository.
        :param repo_name: the repository.
        :param branch: the branch the rows are read from.
        :param path: the file, inside the repository.
        :param body: the fields of the request by the vendor's names, such as ``model_id``, ``prompt``,
            ``target_column``, ``input_type`` and ``output_type``.
        :return: the evaluation as it was started.
        :raises OxenConfigError: the connection or an argument cannot be used; nothing was sent.
        :raises OxenUnreachableError: nothing was sent.
        :raises OxenRateLimitError: the hub started nothing, and asks for a pause.
        :raises OxenPermanentError: the hub refuses, and started nothing.
        :raises OxenUnknownEffectError: the call was sent, and whether an evaluation was started is not known.
        """
        with self.get_conn() as client:
            return client.ask(build_start_evaluation(namespace, repo_name, branch, path, body))

    def get_file_meta(self, namespace: str, repo_name: str, version: str, path: str) -> FileMeta:
        """
        Get the size of a file, the commit that changed it last, and how many rows it has.

        :param namespace: user or organization that owns the repository.
        :param repo_name: the repository.
        :param version: a commit or a branch.
        :param path: the file, inside the repository.
        :return: what the hub says; each part of it may be None.
        :raises OxenConfigError: the connection or an argument cannot be used; nothing was sent.
        :raises OxenTransientError: no usable response came this time.
        :raises OxenPermanentError: the hub refuses the request, or has no such file.
        """
        with self.get_conn() as client:
            return client.ask(build_get_file_meta(FileRef(namespace, repo_name, version, path)))

    def download_file(
        self,
        namespace: str,
        repo_name: str,
        version: str,
        path: str,
        to: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        retry_window: timedelta | float | None = 600.0,
    ) -> Path:
        """
        Download a file. There is never half a file under the name ``to``; what was there is replaced.

        The memory that this takes does not grow with the file. A file that does not come whole is begun again.

        :param namespace: user or organization that owns the repository.
        :param repo_name: the repository.
        :param version: a commit or a branch.
        :param path: the file, inside the repository.
        :param to: where to write it. Its directory must exist.
        :param max_bytes: most bytes that the file may have; None: as many as the disk takes.
        :param retry_window: how long to begin again after the first failure, in seconds or as ``timedelta``; None:
            without a limit.
        :return: ``to``, as a path.
        :raises OxenConfigError: the connection or an argument cannot be used; nothing was sent.
        :raises OxenTransientError: the file did not come whole within ``retry_window``.
        :raises OxenFileTooLargeError: it has more than ``max_bytes`` bytes.
        :raises OxenPermanentError: the hub refuses the request, or has no such file.
        :raises OSError: the file cannot be written here, or the disk has too little room for it.
        """
        with self.get_conn() as client:
            downloader = Downloader(client, self.log, max_bytes=max_bytes, retry_window=retry_window)
            return downloader.download_file(FileRef(namespace, repo_name, version, path), Path(to))

    def download_results(
        self,
        evaluation: Evaluation | Mapping[str, Any],
        directory: str | os.PathLike[str],
        *,
        max_bytes: int | None = None,
        retry_window: timedelta | float | None = 600.0,
    ) -> DownloadedResults:
        """
        Download the results of a completed evaluation, under their own name.

        They are read at the commit that holds them, also where the branch has moved on, and their size is checked
        against what the hub says about the file. Otherwise as :meth:`download_file`.

        :param evaluation: the evaluation, or the dictionary that the sensor or the operator returned.
        :param directory: where to write the file. It must exist.
        :param max_bytes: most bytes that the file may have; None: as many as the disk takes.
        :param retry_window: how long to begin again after the first failure, in seconds or as ``timedelta``; None:
            without a limit.
        :return: the file, its path and commit on the hub, and its size.
        :raises OxenNoResultsError: the evaluation has not completed, or its results were not committed.
        """
        if not isinstance(evaluation, Evaluation):
            evaluation = Evaluation.from_dict(evaluation)
        with self.get_conn() as client:
            downloader = Downloader(client, self.log, max_bytes=max_bytes, retry_window=retry_window)
            return downloader.download_results(evaluation, Path(directory))

    def get_conn(self) -> OxenClient:
        """Make a client for several requests: they share connections, and the Airflow connection is read once."""
        return OxenClient(self.get_config, partial(worker_recorder, self.oxen_conn_id))

    def get_async_conn(self) -> OxenAsyncClient:
        """Make a client for several requests on the event loop. Clients of the same connection share what they can."""
        return OxenAsyncClient(self.oxen_conn_id, self.aget_config, partial(triggerer_recorder, self.oxen_conn_id))

    def test_connection(self) -> tuple[bool, str]:
        """
        Ask the hub whose API key it is (``GET /api/authorize``), for the *Test* button of the connection form.

        :return: whether it worked, and whose key it is or why not.
        """
        try:
            with self.get_conn() as client:
                connected = f"Connected to {client.config.base_url} as {client.ask(build_get_user())}"
                # Airflow tests a connection under an id that it makes up: it would only puzzle.
                warnings = (each.removeprefix(f"connection {self.oxen_conn_id!r}: ") for each in client.config.warnings)
                return True, ". Warning: ".join([connected, *warnings])
        except OxenConfigError as error:
            return False, f"Field {error.field!r} {error.problem}"
        except OxenError as error:
            return False, str(error).replace(f"connection {self.oxen_conn_id!r}", "the connection")

    def get_config(self) -> ClientConfig:
        """
        Read the Airflow connection.

        :raises OxenConfigError: there is no connection of that id, or a field cannot be used.
        :raises OxenUnreachableError: Airflow could not look it up just now.
        """
        with _lookup_errors(self.oxen_conn_id):
            connection = self.get_connection(self.oxen_conn_id)
        return self._parse_config(connection)

    async def aget_config(self) -> ClientConfig:
        """Read the Airflow connection without blocking the event loop. As :meth:`get_config`."""
        with _lookup_errors(self.oxen_conn_id, in_triggerer=True):
            connection = await get_async_connection(self.oxen_conn_id, hook=self)
        # In a thread, because it looks at CA files. All waits of a connection share one look-up.
        return await asyncio.to_thread(self._parse_config, connection)

    def _parse_config(self, connection: Connection) -> ClientConfig:
        config = parse_config(
            self.oxen_conn_id,
            host=connection.host,
            schema=connection.schema,
            port=connection.port,
            password=connection.password,
            extra=connection.extra,  # not extra_dejson, which drops what is not JSON
        )
        for warning in set(config.warnings) - self._warned:
            self.log.warning("%s", warning[:1].upper() + warning[1:])
        self._warned |= set(config.warnings)
        return config

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form to an Airflow that does not read it from the provider's metadata."""
        return version_compat.form_behaviour(CONNECTION_FORM)

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to an Airflow that does not read them from the provider's metadata."""
        return version_compat.form_widgets(CONNECTION_FIELDS)


@contextmanager
def _lookup_errors(conn_id: str, *, in_triggerer: bool = False) -> Iterator[None]:
    """Distinguish a connection that does not exist from a look-up that failed this time."""
    try:
        check_conn_id(conn_id)
    except ValueError as error:
        raise OxenConfigError(str(error).removeprefix("oxen_conn_id "), field="oxen_conn_id") from None
    try:
        yield
    except AirflowNotFoundException as error:
        hidden = in_triggerer and triggerer_compat.hides_connections_of_teams()
        raise OxenConfigError(
            "there is no such connection, or Airflow cannot read it. Define it in the UI, as an environment variable "
            "or in a secrets backend; in a URI, the API key has to be percent-encoded"
            + (". A triggerer does not find connections that belong to a team" if hidden else ""),
            field="conn_id",
            conn_id=conn_id,
        ) from error
    except Exception as error:
        # Without the error's text, which may quote the connection.
        raise OxenUnreachableError(
            f"Airflow could not look up connection {conn_id!r} ({type(error).__name__})"
        ) from error
