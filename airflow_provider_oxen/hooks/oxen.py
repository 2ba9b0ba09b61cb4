"""The hook: the one place where Airflow connections are read, and the clients that ask the hub with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_oxen.api import (
    Request,
    Response,
    build_evaluation_request,
    build_user_request,
    read_evaluation_response,
    read_user_response,
)
from airflow_provider_oxen.client import send, sync_session
from airflow_provider_oxen.config import ClientConfig, read_config
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenConfigError,
    OxenError,
    OxenUnreachableError,
)
from airflow_provider_oxen.get_provider_info import CONNECTION_FIELDS, CONNECTION_FORM
from airflow_provider_oxen.models import Evaluation, EvaluationRef
from airflow_provider_oxen.pool import Look, SharedClient, SharedEvaluation, join

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import requests

__all__ = ["OxenAsyncClient", "OxenClient", "OxenHook"]


class OxenHook(BaseHook):
    """
    Ask an Oxen hub about evaluations.

    Nothing is read and nothing is opened before the first request.

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
        self.oxen_conn_id = oxen_conn_id

    def get_evaluation(self, namespace: str, repo_name: str, evaluation_id: str) -> Evaluation:
        """
        Ask for one evaluation as it stands now.

        :param namespace: user or organization that owns the repository.
        :param repo_name: the repository.
        :param evaluation_id: the evaluation's id.
        :return: the evaluation.
        :raises OxenConfigError: the connection or an argument cannot be used; nothing was sent.
        :raises OxenTransientError: the hub did not answer this time.
        :raises OxenPermanentError: the hub refuses to answer.
        """
        with self.get_conn() as client:
            return client.get_evaluation(EvaluationRef(namespace, repo_name, evaluation_id))

    async def aget_evaluation(self, namespace: str, repo_name: str, evaluation_id: str) -> Evaluation:
        """Ask for one evaluation without blocking the event loop. As :meth:`get_evaluation`."""
        async with self.get_async_conn() as client:
            return await client.get_evaluation(EvaluationRef(namespace, repo_name, evaluation_id))

    @contextmanager
    def get_conn(self) -> Iterator[OxenClient]:
        """Open a client for several requests: they share connections, and the Airflow connection is read once."""
        with ExitStack() as stack:
            yield OxenClient(self, stack)

    def get_async_conn(self) -> OxenAsyncClient:
        """Open a client for several requests on the event loop. Clients of equal settings share connections."""
        return OxenAsyncClient(self)

    def test_connection(self) -> tuple[bool, str]:
        """
        Ask the hub whom the key belongs to (``GET /api/authorize``), for the Test button of the connection form.

        :return: whether it worked, and who it is or why not.
        """
        try:
            with self.get_conn() as client:
                return True, f"Connected to {client.config.base_url} as {client.get_user()}"
        except OxenError as error:
            return False, str(error)

    def get_config(self) -> ClientConfig:
        """
        Read the Airflow connection.

        :raises OxenConfigError: there is none of that id, or a field cannot be used.
        :raises OxenUnreachableError: Airflow could not look it up just now.
        """
        with _lookup_errors(self.oxen_conn_id):
            connection = self.get_connection(self.oxen_conn_id)
        return self._read_config(connection)

    async def aget_config(self) -> ClientConfig:
        """Read the Airflow connection without blocking the event loop. As :meth:`get_config`."""
        with _lookup_errors(self.oxen_conn_id):
            connection = await get_async_connection(self.oxen_conn_id, hook=self)
        if "verify" not in str(connection.extra):
            return self._read_config(connection)
        # In a thread, because a CA file may have to be read. Thousands of waits may begin at once, and most have none.
        return await asyncio.to_thread(self._read_config, connection)

    def _read_config(self, connection: Any) -> ClientConfig:
        config = read_config(
            self.oxen_conn_id,
            host=connection.host,
            schema=connection.schema,
            port=connection.port,
            password=connection.password,
            extra=connection.extra,  # not extra_dejson, which drops what is no JSON
        )
        for warning in config.warnings:
            self.log.warning("%s", warning[:1].upper() + warning[1:])
        return config

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form to Airflow before 3.2, which does not read it from the provider's metadata."""
        return {
            "hidden_fields": list(CONNECTION_FORM["hidden-fields"]),
            "relabeling": dict(CONNECTION_FORM["relabeling"]),
            "placeholders": dict(CONNECTION_FORM["placeholders"]),
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow before 3.2. Needs Flask-AppBuilder, which those bring."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import StringField

        return {
            name: StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())
            for name, field in CONNECTION_FIELDS.items()
        }


class OxenClient:
    """
    Asks one hub, one request after the other. Made by :meth:`OxenHook.get_conn`.

    The Airflow connection is read at the first request, and once more when the hub refuses its key: where the key was
    rotated meanwhile, the new one is used.
    """

    def __init__(self, hook: OxenHook, stack: ExitStack) -> None:
        self._hook = hook
        self._stack = stack
        self._config: ClientConfig | None = None
        self._session: requests.Session | None = None

    @property
    def hub(self) -> str | None:
        """Address of the hub; None before the first request."""
        return self._config.base_url if self._config else None

    @property
    def config(self) -> ClientConfig:
        """The connection's settings."""
        if self._config is None:
            self._config = self._hook.get_config()
        return self._config

    def get_evaluation(self, ref: EvaluationRef) -> Evaluation:
        """Ask for one evaluation. Raises as :meth:`OxenHook.get_evaluation`."""
        try:
            return self._get_evaluation(ref)
        except OxenAuthenticationError:
            config = self._hook.get_config()
            if config == self._config:
                raise
            self._config, self._session = config, None
            return self._get_evaluation(ref)

    def get_user(self) -> str:
        """Ask whom the key belongs to. Raises as :meth:`OxenHook.get_evaluation`."""
        request = build_user_request(self.config)
        return read_user_response(request, self._send(request), now=_utc_now())

    def _get_evaluation(self, ref: EvaluationRef) -> Evaluation:
        request = build_evaluation_request(self.config, ref)
        response = self._send(request)
        return read_evaluation_response(request, response, evaluation_id=ref.evaluation_id, now=_utc_now())

    def _send(self, request: Request) -> Response:
        if self._session is None:
            self._session = self._stack.enter_context(sync_session(self.config))
        return send(self._session, self.config, request)


class OxenAsyncClient:
    """
    Asks one hub from an event loop. Made by :meth:`OxenHook.get_async_conn`; otherwise as :class:`OxenClient`.

    An asynchronous context manager: what it shares is left at the end.
    """

    def __init__(self, hook: OxenHook) -> None:
        self._hook = hook
        self._connecting = asyncio.Lock()
        self._shared: SharedClient | None = None
        self._evaluation: SharedEvaluation | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def hub(self) -> str | None:
        """Address of the hub; None before the first request."""
        return self._shared.config.base_url if self._shared else None

    async def get_evaluation(self, ref: EvaluationRef) -> Evaluation:
        """Ask for one evaluation as it stands now. Raises as :meth:`OxenHook.get_evaluation`."""
        shared = self._shared or await self._connect()
        try:
            return await shared.get_evaluation(ref)
        except OxenAuthenticationError:
            changed = await self._connect(refused=shared.config)
            if changed.config == shared.config:
                raise
            return await changed.get_evaluation(ref)

    async def look(self, ref: EvaluationRef, *, max_age: float) -> Look:
        """
        Look at the evaluation that is waited for, the same one each time. What fails is told and not raised.

        :param max_age: how old an answer may be that another wait for the same evaluation was given, in seconds.
        """
        try:
            evaluation = self._evaluation or await self._share(ref)
            look = await evaluation.look(max_age)
            if isinstance(look.seen, OxenAuthenticationError) and self._shared is not None:
                refused = self._shared.config
                if (await self._connect(refused=refused)).config != refused:
                    look = await (await self._share(ref)).look(max_age)
        except OxenError as error:
            return Look(error, time.monotonic())
        return look

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        """Sleep between two looks, no longer than until another wait sees that the evaluation has ended. To await."""
        return self._evaluation.sleep(seconds) if self._evaluation else asyncio.sleep(seconds)

    async def _share(self, ref: EvaluationRef) -> SharedEvaluation:
        shared = self._shared or await self._connect()
        self._evaluation = shared.share(ref)
        return self._evaluation

    async def _connect(self, refused: ClientConfig | None = None) -> SharedClient:
        """Read the Airflow connection, unless that was done meanwhile, and share the client it leads to."""
        async with self._connecting:
            if self._shared is None or self._shared.config == refused:
                config = await self._hook.aget_config()
                if self._shared is None or self._shared.config != config:
                    await self.close()
                    self._shared = join(config)
            return self._shared

    async def close(self) -> None:
        """Leave the shared connections to the others, or close them where there are no others."""
        evaluation, self._evaluation = self._evaluation, None
        if evaluation is not None:
            evaluation.leave()
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.leave()


@contextmanager
def _lookup_errors(conn_id: str) -> Iterator[None]:
    """Tell a connection that does not exist from a lookup that did not work this time."""
    if not conn_id:
        raise OxenConfigError("is empty: name the Airflow connection to use", field="oxen_conn_id")
    try:
        yield
    except AirflowNotFoundException as error:
        raise OxenConfigError(
            "there is no such connection, or Airflow cannot read it. Define it in the UI, as an environment variable "
            "or in a secrets backend; in a URI, the API key has to be percent-encoded",
            field="conn_id",
            conn_id=conn_id,
        ) from error
    except Exception as error:
        # Without the error's text, which may quote the connection.
        raise OxenUnreachableError(
            f"Airflow could not look up connection {conn_id!r} ({type(error).__name__})"
        ) from error


def _utc_now() -> datetime:
    return datetime.now(tz=timezone.utc)
