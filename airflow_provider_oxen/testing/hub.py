"""The local hub: a small server that speaks the vendor's contract. It listens on the loopback interface only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from airflow_provider_oxen.testing.scenario import (
    Alter,
    Delay,
    Disconnect,
    Respond,
    Scenario,
    Trickle,
    from_evaluation_id,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["HubRequest", "LocalHub"]

_GET_EVALUATION = "/api/repos/{namespace}/{repo_name}/evaluations/{evaluation_id}"


@dataclass(frozen=True)
class HubRequest:
    """
    A request the hub got.

    :param at: when, by the event loop's clock, in seconds.
    :param path: as it came, percent-encoded.
    :param headers: by lower-case name.
    :param status_code: what was answered; None where the connection was broken off instead.
    """

    at: float
    path: str
    headers: Mapping[str, str]
    status_code: int | None


class LocalHub:
    """
    An Oxen hub on this machine.

    A context manager: the server runs in a thread of its own from ``__enter__`` to ``__exit__``.

    Evaluations are those of :meth:`add_evaluation`, in any repository. An id such as ``completed-20s`` or
    ``errored-5s`` needs no adding: it names its own scenario. Its time starts with the first request.

    :param port: TCP port; 0: any free one.
    :param api_key: the key to ask for. Every other is answered 401.
    :param tls: speak https, with this context.
    """

    def __init__(self, *, port: int = 0, api_key: str = "local-hub-key", tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.api_key = api_key
        self.requests: list[HubRequest] = []
        self.connections_opened = 0
        self._tls = tls
        self._server: web.Server | None = None
        self._scenarios: dict[str, Scenario] = {}
        self._began_at: dict[str, datetime] = {}
        self._asked: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the hub, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def connections_open(self) -> int:
        """Connections that clients hold open now."""
        return 0 if self._server is None else len(self._server.connections)

    @property
    def connection_uri(self) -> str:
        """An Airflow connection to this hub as a URI, as for ``AIRFLOW_CONN_OXEN_DEFAULT``."""
        return f"oxen://:{quote(self.api_key, safe='')}@127.0.0.1:{self.port}/{self.url.partition(':')[0]}"

    @property
    def connection_json(self) -> str:
        """The same as JSON."""
        return json.dumps({"conn_type": "oxen", "host": self.url, "password": self.api_key})

    def add_evaluation(self, evaluation_id: str | None = None, **scenario: Any) -> str:
        """
        Add an evaluation, or give one a new scenario.

        :param evaluation_id: its id; None: a new UUID.
        :param scenario: the arguments of :class:`Scenario`.
        :return: its id.
        """
        evaluation_id = evaluation_id or str(uuid.uuid4())
        self._scenarios[evaluation_id] = Scenario(**scenario)
        self._began_at.pop(evaluation_id, None)
        self._asked.pop(evaluation_id, None)
        return evaluation_id

    def remove_evaluation(self, evaluation_id: str) -> None:
        """Forget an evaluation: it is answered 404 from now on."""
        self._scenarios.pop(evaluation_id, None)

    def requests_for(self, evaluation_id: str) -> int:
        """Count the requests for an evaluation."""
        return self._asked[evaluation_id]

    def status_of(self, evaluation_id: str) -> dict[str, Any] | None:
        """Look at an evaluation's ``status`` and ``progress`` without asking; None where nobody asked for it yet."""
        began_at = self._began_at.get(evaluation_id)
        scenario = self._scenarios.get(evaluation_id)
        if began_at is None or scenario is None:
            return None
        return scenario.document(evaluation_id, began_at, _utc_now())

    def __enter__(self) -> Self:
        started: threading.Event = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(started))
            except BaseException as error:  # noqa: BLE001  # raised again on the thread that waits
                failure.append(error)
                started.set()

        self._thread = threading.Thread(target=run, name="oxen-local-hub", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            raise failure[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop and self._stop and self._thread:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get(_GET_EVALUATION, self._get_evaluation)
        app.router.add_get("/api/authorize", self._authorize)
        app.router.add_route("*", "/{rest:.*}", self._not_found)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        make_protocol = self._server = runner.server

        def count_connection() -> asyncio.BaseProtocol:
            self.connections_opened += 1
            return make_protocol()  # type: ignore[misc]  # set once setup() has run

        listener = await self._loop.create_server(count_connection, "127.0.0.1", self.port, ssl=self._tls, backlog=1024)
        self.port = listener.sockets[0].getsockname()[1]
        started.set()
        try:
            await self._stop.wait()
        finally:
            listener.close()
            await runner.cleanup()

    async def _get_evaluation(self, request: web.Request) -> web.StreamResponse:
        evaluation_id = request.match_info["evaluation_id"]
        scenario = self._scenarios.get(evaluation_id)
        if scenario is None and (scenario := from_evaluation_id(evaluation_id)):
            self._scenarios[evaluation_id] = scenario
        self._asked[evaluation_id] += 1
        fault = scenario.fault_for(self._asked[evaluation_id]) if scenario else None
        what = fault.what if fault else None
        if isinstance(what, Delay):
            await asyncio.sleep(what.seconds)
        if isinstance(what, Respond):
            return self._answer(request, what.status_code, what.body, what.headers)
        if isinstance(what, Disconnect) and what.when == "before":
            self._record(request, None)
            _disconnect(request, what)
            return web.Response(status=500)
        # "is not None": before aiohttp 3.12, a response is a mapping, and an empty one is false.
        if (refusal := self._refuse(request)) is not None:
            return refusal
        if scenario is None:
            return await self._not_found(request)
        began_at = self._began_at.setdefault(evaluation_id, _utc_now())
        document = scenario.document(evaluation_id, began_at, _utc_now())
        envelope = {"status": "success", "status_message": "resource_found", "evaluation": document}
        if isinstance(what, Alter):
            envelope |= dict(what.envelope)
            document |= dict(what.evaluation)
            for name in what.without:
                document.pop(name, None)
        body = json.dumps(envelope).encode()
        if isinstance(what, Trickle) or (isinstance(what, Disconnect) and what.when == "middle"):
            return await self._send_in_pieces(request, body, what)
        response = self._answer(request, 200, body, {"Content-Type": "application/json"})
        if isinstance(what, Disconnect):
            asyncio.get_running_loop().call_later(0.05, _disconnect, request, what)
        return response

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._refuse(request)) is not None:
            return refusal
        body = json.dumps({"status": "success", "user": {"name": "Ox", "email": "ox@example.com"}}).encode()
        return self._answer(request, 200, body, {"Content-Type": "application/json"})

    async def _not_found(self, request: web.Request) -> web.StreamResponse:
        return self._error(request, 404, "resource_not_found", "Not found")

    def _refuse(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return self._error(request, 401, "unauthorized", "API key invalid")

    def _error(self, request: web.Request, status_code: int, message: str, title: str) -> web.Response:
        error = {"title": title, "type": message, "detail": None}
        body = json.dumps({"status": "error", "status_message": message, "error": error}).encode()
        return self._answer(request, status_code, body, {"Content-Type": "application/json"})

    def _answer(self, request: web.Request, status_code: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
        self._record(request, status_code)
        request_id = f"local-{len(self.requests)}"
        return web.Response(status=status_code, body=body, headers={"x-oxen-request-id": request_id, **headers})

    async def _send_in_pieces(
        self, request: web.Request, body: bytes, what: Trickle | Disconnect
    ) -> web.StreamResponse:
        self._record(request, 200)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(body)
        await response.prepare(request)
        if isinstance(what, Disconnect):
            await response.write(body[: len(body) // 2])
            await asyncio.sleep(0.05)  # a reset throws away what was not read yet
            _disconnect(request, what)
            return response
        with contextlib.suppress(ConnectionResetError):  # the client gave up, as it should
            for byte in body:
                await response.write(bytes([byte]))
                await asyncio.sleep(what.seconds_per_byte)
        return response

    def _record(self, request: web.Request, status_code: int | None) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        at = asyncio.get_running_loop().time()
        self.requests.append(HubRequest(at, request.raw_path, headers, status_code))


def _disconnect(request: web.Request, what: Disconnect) -> None:
    transport = request.transport
    if transport is None:
        return
    if not what.reset:
        transport.close()
        return
    # Closing a socket that lingers for no time makes the system send a reset.
    found = transport.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _utc_now() -> datetime:
    return datetime.now(tz=timezone.utc)
