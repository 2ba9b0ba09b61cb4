"""The local hub: which endpoints it has, what it knows of evaluations, and what it responds."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from airflow_provider_oxen.testing.endpoints import Endpoint, FindEffects, Handler, build_handler, with_key
from airflow_provider_oxen.testing.envelope import build_error, build_evaluation, build_file, build_meta
from airflow_provider_oxen.testing.evaluation import EvaluationStore, HubEvaluation, utc_now
from airflow_provider_oxen.testing.exchange import Effect, HubRequest, HubResponse
from airflow_provider_oxen.testing.faults import Fault, FaultList
from airflow_provider_oxen.testing.files import Commit, FileStore, FileVersion, Repository, new_commit_id
from airflow_provider_oxen.testing.scenario import Scenario
from airflow_provider_oxen.testing.server import Server
from airflow_provider_oxen.testing.site import Site
from airflow_provider_oxen.testing.starting import OnStart, StartedEvaluation, check_request, choose_scenario
from airflow_provider_oxen.testing.tables import Content, Row, find_columns, write_rows

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["LocalHub"]

#: The end of the address of a hub with pages. By it, the client knows that there are some.
_WITH_PAGES = "/local-hub"


class LocalHub:
    """
    An Oxen hub on this machine.

    A context manager: the server runs in a thread of its own from ``__enter__`` to ``__exit__``.

    The hub has the evaluations that :meth:`add_evaluation` adds, in any repository. An id such as ``completed-20s`` or
    ``errored-5s`` need not be added: it says itself what the evaluation does. The time of an evaluation begins with the
    first request for it.

    It has the files that :meth:`add_file` adds. An evaluation that completes commits its results: the source's rows
    with one more column, on ``target_branch``, at ``target_path`` or at the source's path. ``closing_commit`` is that
    commit. One that was added does so in every repository. If no file was added at the source's path, the hub makes it.

    A client may start others, as at Oxen. Each one gets a new id and is in the repository that it was started in. Its
    time begins at its start. Every repository, branch and file exists, unless ``missing`` names it.

    Attributes to set, also while the hub runs:

    - ``api_key``: another API key.
    - ``on_start``: what started evaluations do. A :class:`Scenario`; or a function that gets the
      :class:`StartedEvaluation` and returns one, in the thread of the hub; or None, as at first: ``model_id`` says it,
      as ids do, and otherwise the evaluation does what one does that was added without arguments.
    - ``start_faults``: what goes wrong with requests to start one.
    - ``file_faults`` and ``meta_faults``: what goes wrong with requests for files, GET and HEAD, and with those for
      their metadata.
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
    :param pages: whether it serves web pages, too, that show its evaluations and files to a person, without a key. Its
        address then ends in ``/local-hub``, and tasks with that address link to the pages, unless it is https.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str = "local-hub-key",
        tls: ssl.SSLContext | None = None,
        pages: bool = False,
    ) -> None:
        self.api_key = api_key
        self._prefix = _WITH_PAGES if pages else ""
        self.requests: list[HubRequest] = []
        self.on_start: OnStart = None
        self.out_of_credits = False
        self.missing: set[str] = set()
        self.branches: set[str] = set()
        self.start_requests: list[HubRequest] = []
        self.started: list[StartedEvaluation] = []
        self._start_faults = FaultList("start_faults")
        self._file_faults = FaultList("file_faults")
        self._meta_faults = FaultList("meta_faults")
        self._files = FileStore(self._commit_results)
        self._evaluations = EvaluationStore()
        self._server = Server(self._routes(), port=port, tls=tls)
        self._request_counts: Counter[str] = Counter()

    def _routes(self) -> list[web.RouteDef]:
        """List the endpoints. A new one is a line here and a method that makes its response; the first match counts."""
        found = [route for prefix in dict.fromkeys(("", self._prefix)) for route in self._api_routes(f"{prefix}/api")]
        if self._prefix:
            found += Site(lambda: self.url, self._evaluations, self._files, lambda: self.missing).routes(self._prefix)
        return [*found, web.route("*", "/{rest:.*}", build_handler(self._not_found, lambda *_: (), self._record))]

    def _api_routes(self, api: str) -> list[web.RouteDef]:
        repository = f"{api}/repos/{{namespace}}/{{repo_name}}"
        return [
            web.get(
                f"{repository}/evaluations/{{evaluation_id}}",
                self._handler(self._evaluation, self._effects_on_evaluation),
            ),
            web.post(f"{repository}/evaluations/{{target:.*}}", self._handler(self._start, self._effects_on_start)),
            web.get(  # and HEAD
                f"{repository}/file/{{target:.*}}",
                self._handler(self._file, lambda *_: self._file_faults.next_effects()),
            ),
            web.get(
                f"{repository}/meta/{{target:.*}}",
                self._handler(self._meta, lambda *_: self._meta_faults.next_effects()),
            ),
            web.get(f"{api}/authorize", self._handler(self._user)),
        ]

    @property
    def port(self) -> int:
        """TCP port; 0 before the hub runs, if it may be any free one."""
        return self._server.port

    @property
    def url(self) -> str:
        """Address of the hub, without a slash at the end."""
        return f"{self._server.url}{self._prefix}"

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
        key = quote(self.api_key, safe="")
        if self._prefix:  # a host with a path has to be percent-encoded in a URI
            return f"oxen://:{key}@{quote(self.url, safe='')}"
        return f"oxen://:{key}@127.0.0.1:{self.port}/{self.url.partition(':')[0]}"

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
        return self._start_faults.faults

    @start_faults.setter
    def start_faults(self, faults: Sequence[Fault]) -> None:
        self._start_faults.set(faults)

    @property
    def file_faults(self) -> Sequence[Fault]:
        """What goes wrong with requests for files, GET and HEAD. Counted as for :attr:`start_faults`."""
        return self._file_faults.faults

    @file_faults.setter
    def file_faults(self, faults: Sequence[Fault]) -> None:
        self._file_faults.set(faults)

    @property
    def meta_faults(self) -> Sequence[Fault]:
        """What goes wrong with requests for files' metadata. Counted as for :attr:`start_faults`."""
        return self._meta_faults.faults

    @meta_faults.setter
    def meta_faults(self, faults: Sequence[Fault]) -> None:
        self._meta_faults.set(faults)

    def add_evaluation(self, evaluation_id: str | None = None, **scenario: Any) -> str:
        """
        Add an evaluation, or begin an evaluation again with another scenario.

        :param evaluation_id: its id; None: a new UUID.
        :param scenario: the arguments of :class:`Scenario`.
        :return: its id.
        """
        evaluation_id = evaluation_id or str(uuid.uuid4())
        self._evaluations.add(HubEvaluation(evaluation_id, Scenario(**scenario)))
        self._request_counts.pop(evaluation_id, None)
        return evaluation_id

    def remove_evaluation(self, evaluation_id: str) -> None:
        """Remove an evaluation: from now on the response is 404."""
        self._evaluations.remove(evaluation_id)

    def add_file(
        self, namespace: str, repo_name: str, path: str, content: Content | Sequence[Row], *, branch: str = "main"
    ) -> str:
        """
        Add a file, or a new version of one, in a commit of its own.

        :param namespace: the namespace.
        :param repo_name: the repository.
        :param path: the file's path.
        :param content: its bytes; or a :class:`~pathlib.Path` of a file on this machine, which is read whenever it is
            asked for, and must stay as it is; or rows as dicts, which are written in the format of the path's suffix:
            parquet, csv, tsv, jsonl, ndjson or json.
        :param branch: the branch, which is made if there is none of this name.
        :return: id of the commit.
        :raises ValueError: there is no such file on this machine, or rows cannot be written in that format.
        :raises ModuleNotFoundError: Parquet is to be written, and DuckDB is not installed: it is in the extra
            ``results``.
        """
        if isinstance(content, Path) and not content.is_file():
            raise ValueError(f"there is no file {content}")
        if not isinstance(content, bytes | Path):
            content = write_rows(path, find_columns(content), content)
        added, commit = content, Commit(new_commit_id(), f"Add {path}", utc_now())
        self._files.add((namespace, repo_name), branch, FileVersion(path, commit, lambda: added))
        return commit.id

    def requests_for(self, evaluation_id: str) -> int:
        """Count the requests for an evaluation, those without a response yet included."""
        return self._request_counts[evaluation_id]

    def status_of(self, evaluation_id: str) -> dict[str, Any] | None:
        """Return an evaluation's fields as they are now, without a request; None before the first request for it."""
        found = self._evaluations.find(evaluation_id)
        return found.show() if found else None

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop()

    def _evaluation(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:
        repository = names["namespace"], names["repo_name"]
        found = self._evaluations.find_in(repository, names["evaluation_id"], self.missing)
        return build_evaluation(found.document(utc_now())) if found else self._not_found(request, names)

    def _start(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        request = self._at_root(request)
        started = check_request(request, self.branches, self.missing, out_of_credits=self.out_of_credits)
        if isinstance(started, HubResponse):
            return started
        scenario = choose_scenario(self.on_start, started)
        now = utc_now()
        self._evaluations.add(HubEvaluation(started.id, scenario, now, started))
        self.started.append(started)
        # At its start it is queued, also if it takes no time at all.
        return build_evaluation(HubEvaluation(started.id, replace(scenario, seconds=1), now, started).document(now))

    def _file(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:
        found = self._files.find(self._at_root(request).path, self.missing)
        return build_file(found[0]) if found else self._not_found(request, names)

    def _meta(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:
        found = self._files.find(self._at_root(request).path, self.missing)
        return build_meta(*found) if found else self._not_found(request, names)

    def _commit_results(self, names: tuple[str, str], repository: Repository) -> None:
        """Let evaluations commit to a repository what was answered, in the order in which they completed."""
        ends = [(found.ends_at, found) for found in self._evaluations.begun()]
        for _, evaluation in sorted(((at, found) for at, found in ends if at), key=itemgetter(0)):
            evaluation.commit(names, repository, utc_now())

    def _effects_on_evaluation(self, request: HubRequest, names: Mapping[str, str]) -> Sequence[Effect]:  # noqa: ARG002
        """Count a request for an evaluation, and find what its scenario says goes wrong with this one."""
        evaluation_id = names["evaluation_id"]
        self._request_counts[evaluation_id] += 1
        found = self._evaluations.find(evaluation_id)
        fault = found.scenario.fault_for(self._request_counts[evaluation_id]) if found else None
        return [fault.what] if fault else []

    def _effects_on_start(self, request: HubRequest, names: Mapping[str, str]) -> Sequence[Effect]:  # noqa: ARG002
        """List a request to start an evaluation, and find what goes wrong with this one."""
        self.start_requests.append(request)
        return self._start_faults.next_effects()

    def _user(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        return HubResponse.from_json({"status": "success", "user": {"name": "Ox", "email": "ox@example.com"}})

    def _not_found(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        return build_error(404, "resource_not_found", "Not found")

    def _at_root(self, request: HubRequest) -> HubRequest:
        """Give a request the address that it has at a hub without pages."""
        return replace(request, path=request.path.removeprefix(self._prefix))

    def _handler(self, endpoint: Endpoint, find_effects: FindEffects = lambda *_: ()) -> Handler:
        """Serve an endpoint to requests with the hub's API key, with what may go wrong with them."""
        return build_handler(with_key(endpoint, lambda: self.api_key), find_effects, self._record)

    def _record(self, request: HubRequest) -> str:
        """Add a request to the list, and return the id of its response."""
        self.requests.append(request)
        return f"local-{len(self.requests)}"
