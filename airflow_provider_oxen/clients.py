"""
The clients: they send calls with the settings of an Airflow connection, one on a thread and one on an event loop.

Each has one method, ``ask(call)``, and the rule for a refused key once: the connection is looked up again, and where it
has another key by now, the call is sent again with that one. A refused call had no effect, so this holds for any call.
The one for threads also has ``receive(call, consume)``, for a response that may be larger than the memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow_provider_oxen import pool
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenError,
    OxenRateLimitError,
    OxenRequestError,
    OxenTransientError,
)
from airflow_provider_oxen.metrics import Recorder
from airflow_provider_oxen.pool import MakeRecorder, SharedClient, SharedConnection, join
from airflow_provider_oxen.protocol import Call, parse_response
from airflow_provider_oxen.sharing import Polled, SharedEvaluation
from airflow_provider_oxen.streaming import Received, receive
from airflow_provider_oxen.transport import send, sync_session

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import requests

    from airflow_provider_oxen.config import ClientConfig
    from airflow_provider_oxen.evaluations import EvaluationRef

__all__ = ["OxenAsyncClient", "OxenClient"]

#: How many keys are tried for one call: a secrets backend whose replicas disagree could change them without end.
_MAX_REFUSALS = 3

T = TypeVar("T")


class OxenClient:
    """
    Sends calls to one hub, one after the other, on this thread.

    A context manager: its connections are closed at the end.

    :param look_up: reads the Airflow connection; called at the first request, and again where the hub refuses the key,
        or where it is out of reach and the last time was a minute ago.
    :param make_recorder: makes what counts the requests; called before the first of them.
    """

    def __init__(self, look_up: Callable[[], ClientConfig], make_recorder: MakeRecorder = Recorder) -> None:
        self._look_up = look_up
        self._make_recorder = make_recorder
        self._recorder: Recorder | None = None
        self._stack = ExitStack()
        self._config: ClientConfig | None = None
        self._session: requests.Session | None = None
        self._looked_up_at_monotonic = 0.0
        self._is_failing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
        if self._recorder is not None:
            self._recorder.send()

    @property
    def hub(self) -> str | None:
        """Address of the hub; None before the first request."""
        return self._config.base_url if self._config else None

    @property
    def config(self) -> ClientConfig:
        """The connection's settings."""
        if self._config is None:
            self._config = self._look_up()
            self._looked_up_at_monotonic = time.monotonic()
        return self._config

    def ask(self, call: Call[T], *, before_sending: Callable[[], None] | None = None) -> T:
        """
        Send a call and parse its response.

        :param before_sending: for a call that must not be repeated: called when its connection is established, before
            the first byte of it is sent. What it raises keeps the call from being sent, and is raised here.
        :raises OxenConfigError: the connection cannot be used; nothing was sent.
        :raises OxenRequestError: no usable response came.
        """
        return self._with_accepted_key(lambda: self._ask(call, before_sending))

    def receive(self, call: Call[NoReturn], consume: Callable[[Received], T]) -> T:
        """
        Send a call whose response is a file, and hand the bytes to a function as they come.

        :param consume: takes the bytes, on this thread. What it raises is raised here, and ends the response.
        :return: what ``consume`` returns.
        :raises OxenConfigError: the connection cannot be used; nothing was sent.
        :raises OxenRequestError: no usable response came, or not the whole of it.
        """
        return self._with_accepted_key(lambda: self._record(call, partial(receive, self.config, call, consume)))

    def _with_accepted_key(self, send_once: Callable[[], T]) -> T:
        """Send a request, and send it again where the hub refuses the key and the connection has another by now."""
        if self._is_failing:
            self._look_up_now_and_then()
        try:
            result = send_once()
        except OxenAuthenticationError:
            if not self._take(self._look_up()):
                raise
            result = send_once()
        except OxenTransientError:
            self._is_failing = True
            raise
        self._is_failing = False
        return result

    def _look_up_now_and_then(self) -> None:
        """While the hub is out of reach, a person may correct the connection."""
        if self._config is None or time.monotonic() - self._looked_up_at_monotonic < pool.MAX_LOOKUP_AGE_SECONDS:
            return
        self._looked_up_at_monotonic = time.monotonic()
        with suppress(OxenError):  # what is known is good enough; the next try is in a minute
            self._take(self._look_up())

    def _take(self, config: ClientConfig) -> bool:
        """Go on with the settings, and say whether they are others."""
        if config == self._config:
            return False
        self._config, self._session = config, None
        return True

    def _ask(self, call: Call[T], before_sending: Callable[[], None] | None) -> T:
        if self._session is None:
            self._session = self._stack.enter_context(sync_session(self.config))
        return self._record(call, partial(self._send, self._session, call, before_sending))

    def _send(self, session: requests.Session, call: Call[T], before_sending: Callable[[], None] | None) -> T:
        response = send(session, self.config, call, before_sending)
        return parse_response(self.config, call, response, now=datetime.now(tz=timezone.utc))

    def _record(self, call: Call[Any], send_once: Callable[[], T]) -> T:
        """Send a request, and count it."""
        recorder = self._recorder
        if recorder is None:
            recorder = self._recorder = self._make_recorder()
        sent_at, error = time.monotonic(), None
        try:
            return send_once()
        except OxenRequestError as found:
            error = found
            if isinstance(error, OxenRateLimitError):
                recorder.paused()
            raise
        finally:
            now = time.monotonic()
            recorder.sent(now - sent_at, now, is_poll=call.is_poll, error=error)


class OxenAsyncClient:
    """
    Sends calls to one hub from an event loop. Clients of the same Airflow connection share its look-up and its sockets.

    An asynchronous context manager: what it shares is left at the end.

    :param conn_id: id of the Airflow connection.
    :param look_up: reads the Airflow connection.
    :param make_recorder: makes what counts the requests, on a thread; None: nothing is counted.
    """

    __slots__ = (
        "_conn_id", "_connection", "_evaluation", "_joined_at_monotonic", "_look_up", "_make_recorder", "_ref",
        "_shared",
    )  # fmt: skip

    def __init__(
        self, conn_id: str, look_up: Callable[[], Awaitable[ClientConfig]], make_recorder: MakeRecorder | None = None
    ) -> None:
        self._conn_id = conn_id
        self._look_up = look_up
        self._make_recorder = make_recorder
        self._connection: SharedConnection | None = None
        self._joined_at_monotonic = 0.0
        self._shared: SharedClient | None = None
        self._evaluation: SharedEvaluation | None = None
        self._ref: EvaluationRef | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def hub(self) -> str | None:
        """Address of the hub; None before the first request, or before an evaluation is joined."""
        return self._shared.config.base_url if self._shared else None

    async def ask(self, call: Call[T]) -> T:
        """Send a call and parse its response. Raises as :meth:`OxenClient.ask`."""
        return await self._with_accepted_key(lambda client: client.ask(call))

    async def poll(self, ref: EvaluationRef, *, max_age: float) -> Polled:
        """
        Poll an evaluation together with the other waits for it. A failure is part of the result and is not raised.

        :param max_age: how old a result may be that another wait got, in seconds.
        """
        try:
            return await self._with_accepted_key(lambda client: self._share(client, ref).poll(max_age))
        except OxenError as error:
            return Polled(error, time.monotonic())

    async def join(self, ref: EvaluationRef) -> bool:
        """
        Share an evaluation with the other waits for it, before the first poll.

        What goes wrong then is left to that poll, which tries again and says so.

        :return: whether one of them has seen it end.
        """
        with suppress(OxenError):
            return self._share(await self._find_client(self._join()), ref).has_ended
        return False

    @property
    def recorder(self) -> Recorder:
        """What counts the requests, of all waits of the connection; one that does nothing before the first."""
        return Recorder() if self._connection is None else self._connection.recorder

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Sleep between two polls, at most until another wait sees that the evaluation has ended. To be awaited."""
        return self._evaluation.sleep(seconds) if self._evaluation else asyncio.sleep(seconds)

    async def close(self) -> None:
        """Leave the shared connections to the others, or close them where there are no others."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.leave()
        self._leave_evaluation()
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.leave()

    def _join(self) -> SharedConnection:
        if self._connection is None:
            self._connection = join(self._conn_id, self._look_up, self._make_recorder)
            self._joined_at_monotonic = time.monotonic()
            self._look_up, self._make_recorder = self._connection.look_up, None  # the hooks of the others are freed
        return self._connection

    async def _with_accepted_key(self, request: Callable[[SharedClient], Awaitable[T]]) -> T:
        """Send a request, and send it again where the hub refuses the key and the connection has another by now."""
        connection, refusals = self._join(), 0
        while True:
            client = await self._find_client(connection)
            try:
                return await request(client)
            except OxenAuthenticationError as error:
                refusals += 1
                if refusals == _MAX_REFUSALS:
                    raise
                await connection.check_refusal(client, error)

    async def _find_client(self, connection: SharedConnection) -> SharedClient:
        client = self._shared
        if client is None or not connection.is_current(client):
            client = await self._move_to(await connection.client(self._joined_at_monotonic))
        return client

    async def _move_to(self, client: SharedClient) -> SharedClient:
        before = self._shared
        if before is not client:
            self._leave_evaluation()
            client.waits += 1
            self._shared = client
            if before is not None:
                await before.leave()
        return client

    def _share(self, client: SharedClient, ref: EvaluationRef) -> SharedEvaluation:
        if self._evaluation is None or self._ref != ref:
            self._leave_evaluation()
            self._evaluation, self._ref = client.share(ref), ref
        return self._evaluation

    def _leave_evaluation(self) -> None:
        evaluation, self._evaluation = self._evaluation, None
        if evaluation is not None:
            evaluation.leave()
