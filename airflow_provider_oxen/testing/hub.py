"""The local hub: which endpoints it has, what it knows of evaluations, and what it responds."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from aiohttp import web

from airflow_provider_oxen.testing.envelope import build_error, build_evaluation, build_invalid_params
from airflow_provider_oxen.testing.exchange import Effect, Exchange, HubRequest, HubResponse
from airflow_provider_oxen.testing.faults import Fault, check_faults, find_fault
from airflow_provider_oxen.testing.scenario import Scenario, from_evaluation_id
from airflow_provider_oxen.testing.server import Server
from airflow_provider_oxen.testing.starting import (
    OnStart,
    StartedEvaluation,
    choose_scenario,
    find_mistakes,
    is_missing,
    parse_body,
    show_request,
    split_address,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["LocalHub"]

#: Makes the response to a request. The second argument holds what the names in the endpoint's path stand for.
_Endpoint: TypeAlias = Callable[[HubRequest, Mapping[str, str]], HubResponse]
#: Finds what acts on a request to an endpoint. Called once for each request, as soon as all of it has arrived.
_FindEffects: TypeAlias = Callable[[HubRequest, Mapping[str, str]], Sequence[Effect]]
_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class _Evaluation:
    """
    An evaluation that the hub knows.

    :param began_at: when its time began, aware; None before the first request for it.
    :param started: how it was started; None if it was added.
    """

    scenario: Scenario
    began_at: datetime | None = None
    started: StartedEvaluation | None = None

    def document(self, evaluation_id: str, now: datetime) -> dict[str, Any]:
        """Build the evaluation as the hub shows it now. Its time begins with the first call."""
        self.began_at = self.began_at or now
        document = self.scenario.document(evaluation_id, self.began_at, now)
        return show_request(document, self.started, self.scenario) if self.started else document

    def is_in(self, namespace: str, repo_name: str) -> bool:
        """Check that it is in a repository. One that was added is in all of them."""
        return self.started is None or (self.started.namespace, self.started.repo_name) == (namespace, repo_name)


class LocalHub:
    """
    An Oxen hub on this machine.

    A context manager: the server runs in a thread of its own from ``__enter__`` to ``__exit__``.

    The hub has the evaluations that :meth:`add_evaluation` adds, in any repository. An id such as ``completed-20s`` or
    ``errored-5s`` need not be added: it says itself what the evaluation does. The time of an evaluation begins with the
    first request for it.

    A client may start others, as at Oxen. Each one gets a new id and is in the repository that it was started in. Its
    time begins at its start. Every repository, branch and file exists, unless ``missing`` names it.

    Attributes to set, also while the hub runs:

    - ``api_key``: another API key.
    - ``on_start``: what started evaluations do. A :class:`Scenario`; or a function that gets the
      :class:`StartedEvaluation` and returns one, in the thread of the hub; or None, as at first: ``model_id`` says it,
      as ids do, and otherwise the evaluation does what one does that was added without arguments.
    - ``start_faults``: what goes wrong with requests to start one.
    - ``out_of_credits``: True: the response to a request that would start one is 402.
    - ``missing``: a set of what does not exist, such as ``ox/r``, ``ox/r/main`` or ``ox/r/main/data/a.csv``. The
      response to a request for it, or for anything in it, is 404.
    - ``branches``: a set of branches whose names have a slash, such as ``eval/first``. Without it, a branch is one
      segment of the address.

    Attributes to look at:

    - ``requests``: the requests as :class:`HubRequest`, in the order of their responses. Those whose client left before
      the response are missing.
    - ``start_requests``: the requests to start an evaluation, in the order in which they arrived, whatever the response
      was and whether there was one. In this list ``status_code`` is always None.
    - ``started``: what was started, as :class:`StartedEvaluation`, in that order.

    :param port: TCP port; 0: any free one.
    :param api_key: the API key that requests must have. The response to any other is 401.
    :param tls: TLS context to serve https with; None: http.
    """

    def __init__(self, *, port: int = 0, api_key: str = "local-hub-key", tls: ssl.SSLContext | None = None) -> None:
        self.api_key = api_key
        self.requests: list[HubRequest] = []
        self.on_start: OnStart = None
        self.out_of_credits = False
        self.missing: set[str] = set()
        self.branches: set[str] = set()
        self.start_requests: list[HubRequest] = []
        self.started: list[StartedEvaluation] = []
        self._start_faults: tuple[Fault, ...] = ()
        self._requests_before_start_faults = 0
        self._server = Server(self._routes(), port=port, tls=tls)
        self._evaluations: dict[str, _Evaluation] = {}
        self._request_counts: Counter[str] = Counter()

    def _routes(self) -> list[web.RouteDef]:
        """List the endpoints. A new one is a line here and a method that makes its response; the first match counts."""
        return [
            web.get(
                "/api/repos/{namespace}/{repo_name}/evaluations/{evaluation_id}",
                self._handler(self._with_key(self._evaluation), self._effects_on_evaluation),
            ),
            web.post(
                "/api/repos/{namespace}/{repo_name}/evaluations/{target:.*}",
                self._handler(self._with_key(self._start), self._effects_on_start),
            ),
            web.get("/api/authorize", self._handler(self._with_key(self._user))),
            web.route("*", "/{rest:.*}", self._handler(self._not_found)),
        ]

    @property
    def port(self) -> int:
        """TCP port; 0 before the hub runs, if it may be any free one."""
        return self._server.port

    @property
    def url(self) -> str:
        """Address of the hub, without a slash at the end."""
        return self._server.url

    @property
    def connections_opened(self) -> int:
        """How many connections clients have opened so far."""
        return self._server.connections_opened

    @property
    def connections_open(self) -> int:
        """How many connections clients hold open now."""
        return self._server.connections_open

    @property
    def connection_uri(self) -> str:
        """An Airflow connection to this hub as a URI, as for ``AIRFLOW_CONN_OXEN_DEFAULT``."""
        return f"oxen://:{quote(self.api_key, safe='')}@127.0.0.1:{self.port}/{self.url.partition(':')[0]}"

    @property
    def connection_json(self) -> str:
        """The same connection as JSON."""
        return json.dumps({"conn_type": "oxen", "host": self.url, "password": self.api_key})

    @property
    def start_faults(self) -> Sequence[Fault]:
        """
        What goes wrong with requests to start an evaluation. If several apply to a request, the first one happens.

        Requests are counted from 1, from when this is set; so set it to another list instead of changing it.
        """
        return self._start_faults

    @start_faults.setter
    def start_faults(self, faults: Sequence[Fault]) -> None:
        check_faults("start_faults", faults)
        self._start_faults = tuple(faults)
        self._requests_before_start_faults = len(self.start_requests)

    def add_evaluation(self, evaluation_id: str | None = None, **scenario: Any) -> str:
        """
        Add an evaluation, or begin an evaluation again with another scenario.

        :param evaluation_id: its id; None: a new UUID.
        :param scenario: the arguments of :class:`Scenario`.
        :return: its id.
        """
        evaluation_id = evaluation_id or str(uuid.uuid4())
        self._evaluations[evaluation_id] = _Evaluation(Scenario(**scenario))
        self._request_counts.pop(evaluation_id, None)
        return evaluation_id

    def remove_evaluation(self, evaluation_id: str) -> None:
        """Remove an evaluation: from now on the response is 404."""
        self._evaluations.pop(evaluation_id, None)

    def requests_for(self, evaluation_id: str) -> int:
        """Count the requests for an evaluation, those without a response yet included."""
        return self._request_counts[evaluation_id]

    def status_of(self, evaluation_id: str) -> dict[str, Any] | None:
        """Return an evaluation's fields as they are now, without a request; None before the first request for it."""
        found = self._evaluations.get(evaluation_id)
        if found is None or found.began_at is None:
            return None
        return found.document(evaluation_id, _utc_now())

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()

    def _evaluation(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:
        evaluation_id, repository = names["evaluation_id"], (names["namespace"], names["repo_name"])
        found = self._find(evaluation_id)
        if found is None or not found.is_in(*repository) or is_missing(self.missing, *repository):
            return self._not_found(request, names)
        return build_evaluation(found.document(evaluation_id, _utc_now()))

    def _start(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:
        body, address = parse_body(request), split_address(request.path, self.branches)
        if body is None:
            return build_invalid_params({"body": "must be a JSON object, with the Content-Type application/json"})
        if mistakes := find_mistakes(body):
            return build_invalid_params(mistakes)
        if address is None or is_missing(self.missing, *address):
            return self._not_found(request, names)
        if self.out_of_credits:
            return build_error(402, "insufficient_credits", "Out of credits")
        started = StartedEvaluation(str(uuid.uuid4()), *address, body=body, at=time.monotonic())
        scenario = choose_scenario(self.on_start, started)
        now = _utc_now()
        self._evaluations[started.id] = _Evaluation(scenario, now, started)
        self.started.append(started)
        # At its start it is queued, also if it takes no time at all.
        return build_evaluation(_Evaluation(replace(scenario, seconds=1), now, started).document(started.id, now))

    def _effects_on_evaluation(self, request: HubRequest, names: Mapping[str, str]) -> Sequence[Effect]:  # noqa: ARG002
        """Count a request for an evaluation, and find what its scenario says goes wrong with this one."""
        evaluation_id = names["evaluation_id"]
        self._request_counts[evaluation_id] += 1
        found = self._find(evaluation_id)
        fault = found.scenario.fault_for(self._request_counts[evaluation_id]) if found else None
        return [fault.what] if fault else []

    def _effects_on_start(self, request: HubRequest, names: Mapping[str, str]) -> Sequence[Effect]:  # noqa: ARG002
        """List a request to start an evaluation, and find what goes wrong with this one."""
        self.start_requests.append(request)
        fault = find_fault(self._start_faults, len(self.start_requests) - self._requests_before_start_faults)
        return [fault.what] if fault else []

    def _user(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        return HubResponse.from_json({"status": "success", "user": {"name": "Ox", "email": "ox@example.com"}})

    def _not_found(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        return build_error(404, "resource_not_found", "Not found")

    def _with_key(self, endpoint: _Endpoint) -> _Endpoint:
        """Let an endpoint respond only to requests with the hub's API key."""

        def checked(request: HubRequest, names: Mapping[str, str]) -> HubResponse:
            if request.headers.get("authorization") != f"Bearer {self.api_key}":
                return build_error(401, "unauthorized", "API key invalid")
            return endpoint(request, names)

        return checked

    def _handler(self, endpoint: _Endpoint, find_effects: _FindEffects = lambda *_: ()) -> _Handler:
        """Serve an endpoint, with what may go wrong with requests to it."""

        async def handle(incoming: web.Request) -> web.StreamResponse:
            at, names = asyncio.get_running_loop().time(), incoming.match_info
            headers = {name.lower(): value for name, value in incoming.headers.items()}
            request = HubRequest(at, incoming.method, incoming.raw_path, headers, await incoming.read())
            exchange = Exchange(
                request,
                incoming=incoming,
                make_response=lambda: endpoint(request, names),
                record=self._record,
                effects=find_effects(request, names),
            )
            return await exchange.proceed()

        return handle

    def _record(self, request: HubRequest) -> str:
        """Add a request to the list, and return the id of its response."""
        self.requests.append(request)
        return f"local-{len(self.requests)}"

    def _find(self, evaluation_id: str) -> _Evaluation | None:
        if evaluation_id not in self._evaluations and (scenario := from_evaluation_id(evaluation_id)):
            self._evaluations[evaluation_id] = _Evaluation(scenario)
        return self._evaluations.get(evaluation_id)


def _utc_now() -> datetime:
    return datetime.now(tz=timezone.utc)
