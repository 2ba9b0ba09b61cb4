"""The local hub that is shipped for users: its evaluations, its faults over real sockets, its fixture, its command."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests

import airflow_provider_oxen.testing
from airflow_provider_oxen.testing import (
    Alter,
    Chain,
    Delay,
    Disconnect,
    Exchange,
    Fault,
    HubResponse,
    LocalHub,
    Respond,
    Scenario,
    Trickle,
)
from airflow_provider_oxen.testing.scenario import from_evaluation_id
from tests.support.sockets import read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import web

NOW = datetime(2026, 11, 1, 10, tzinfo=timezone.utc)
KEY = "local-hub-key"

#: The fields of an evaluation on the vendor's OpenAPI page.
CONTRACT = {
    "cancelled_at", "completed_at", "completion_tokens_used", "created_by", "credits_used", "error_message", "id",
    "input_type", "inserted_at", "is_sample", "model", "name", "output_type", "progress", "prompt",
    "prompt_tokens_used", "repository_id", "resource", "sample_count", "started_at", "status", "target_branch",
    "target_column", "target_path", "tokens_used",
}  # fmt: skip
#: Fields that the hub sends besides.
BESIDES = {"closing_commit", "commit_id", "commit_started_at", "queued_at", "workspace_id"}


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


def path_of(evaluation_id: str) -> str:
    return f"/api/repos/ox/r/evaluations/{evaluation_id}"


def get(hub: LocalHub, path: str = "/api/authorize", *, key: str = KEY, timeout: float = 10) -> requests.Response:
    return requests.get(hub.url + path, headers={"Authorization": f"Bearer {key}"}, timeout=timeout)


def get_evaluation(hub: LocalHub, evaluation_id: str) -> dict[str, Any]:
    return get(hub, path_of(evaluation_id)).json()["evaluation"]


def exchange_bytes(hub: LocalHub, evaluation_id: str, *, wait: float = 1.0) -> tuple[bytes, str]:
    """
    Send one request over a socket that stays open, and read until the hub closes it.

    :return: what came, and how it ended: ``closed``, ``reset``, or ``open`` if nothing came for ``wait`` seconds.
    """
    with socket.create_connection(("127.0.0.1", hub.port), timeout=wait) as client:
        client.sendall(
            f"GET {path_of(evaluation_id)} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
        )
        return read_to_end(client)


# What an evaluation does


@pytest.mark.parametrize("form", ["contract", "2024"])
@pytest.mark.parametrize(
    ("end", "statuses"),
    [
        ("completed", ["queued", "running", "running", "committing", "completed"]),
        ("errored", ["queued", "running", "running", "running", "errored"]),
        ("cancelled", ["queued", "running", "running", "running", "cancelled"]),
    ],
)
def test_evaluation_goes_through_its_phases(end: Any, statuses: list[str], form: Any) -> None:
    """Queued, running with progress, committing if it completes, and its end."""
    scenario = Scenario(end=end, seconds=100, rows=1_000, form=form)
    documents = [scenario.document("x", NOW, NOW + timedelta(seconds=at)) for at in (5, 10, 50, 95, 100)]

    assert [document["status"] for document in documents] == statuses
    rows = [document["progress"]["processed"] for document in documents]
    assert rows == sorted(rows)
    assert rows[-1] == (1_000 if end == "completed" else 600)
    assert (documents[-1]["error_message"] is not None) == (end == "errored")
    assert (documents[-1]["completed_at"] is not None) == (end == "completed")


def test_document_has_the_fields_of_the_contract_and_those_seen_besides() -> None:
    """By default an evaluation has every field of the contract, and the five that the hub sends besides."""
    document = Scenario(seconds=0).document("x", NOW, NOW)

    assert set(document) == CONTRACT | BESIDES
    assert re.fullmatch(r"[0-9a-f]{16}", document["commit_id"])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document["workspace_id"])
    assert document["resource"] == {"path": "data/customers.parquet", "version": document["commit_id"]}


@pytest.mark.parametrize(
    ("form", "times"),
    [
        ("contract", ["2026-11-01T10:00:00", "2026-11-01T10:00:10", "2026-11-01T10:01:30", "2026-11-01T10:01:40"]),
        ("2024", ["2026-11-01T10:00:00Z", "2026-11-01T10:00:10Z", "2026-11-01T10:01:30Z", "2026-11-01T10:01:40Z"]),
    ],
)
def test_times_are_known_once_they_have_come(form: Any, times: list[str]) -> None:
    """Each phase sets its time when it begins; in the form of 2024 the times end in Z."""
    scenario = Scenario(seconds=100, form=form)
    names = ("queued_at", "started_at", "commit_started_at", "completed_at")

    for known, at in enumerate((5, 50, 95, 100), start=1):
        document = scenario.document("x", NOW, NOW + timedelta(seconds=at))
        assert [document[name] for name in names] == times[:known] + [None] * (4 - known)
        assert document["inserted_at"] == times[0]


@pytest.mark.parametrize(("end", "name"), [("completed", "completed_at"), ("cancelled", "cancelled_at")])
def test_end_has_its_time_and_no_other(end: Any, name: str) -> None:
    """Only the time of how it ended is set."""
    document = Scenario(end=end, seconds=0).document("x", NOW, NOW)

    assert document[name] == "2026-11-01T10:00:00"
    assert [document["completed_at"], document["cancelled_at"]].count(None) == 1


@pytest.mark.parametrize("end", ["completed", "errored", "cancelled"])
def test_closing_commit_is_there_once_completed(end: Any) -> None:
    """The commit of the results is null until the evaluation has completed, and differs from the one of the source."""
    scenario = Scenario(end=end, seconds=10)
    before, after = (scenario.document("x", NOW, NOW + timedelta(seconds=at)) for at in (9.5, 10))

    assert before["commit_id"] == after["commit_id"]
    assert before["closing_commit"] is None
    if end != "completed":
        assert after["closing_commit"] is None
        assert after["commit_started_at"] is None
        return
    commit = after["closing_commit"]
    assert set(commit) == {"id", "author", "email", "message", "timestamp"}
    assert re.fullmatch(r"[0-9a-f]{16}", commit["id"])
    assert commit["timestamp"] == after["completed_at"]
    assert commit["id"] != scenario.document("y", NOW, NOW + timedelta(seconds=10))["closing_commit"]["id"]


def test_form_of_2024_is_as_the_vendor_showed_it() -> None:
    """Names, types and values of the vendor's two responses, queued and then completed."""
    scenario = Scenario(seconds=10, form="2024")
    queued, completed = (scenario.document("x", NOW, NOW + timedelta(seconds=at)) for at in (0, 10))

    for document in (queued, completed):
        assert set(document) >= BESIDES
        assert CONTRACT - set(document) == {
            "cancelled_at", "completion_tokens_used", "credits_used", "input_type", "output_type",
        }  # fmt: skip
        expected = {
            "type": "text", "model": "gpt-4o-mini", "resource": {"path": "data.parquet", "version": "main"},
            "target_path": None, "target_branch": "api-results-branch", "conflict_target_branch": None,
            "master_id": "x", "parent_id": None, "sample_count": 10, "is_sample": False,
        }  # fmt: skip
        assert {name: document[name] for name in expected} == expected
    assert (queued["closing_commit"], completed["closing_commit"]["timestamp"]) == (None, "2026-11-01T10:00:10Z")
    assert (queued["credits_per_token"], completed["credits_per_token"]) == (6e-7, "0.000000600")


def test_form_is_what_the_hub_sends(hub: LocalHub) -> None:
    """A form is an argument of ``add_evaluation``; ``fields`` go over it."""
    evaluation_id = hub.add_evaluation(seconds=0, form="2024", fields={"target_branch": "mine"})

    document = get_evaluation(hub, evaluation_id)

    assert (document["model"], document["target_branch"]) == ("gpt-4o-mini", "mine")


def test_fields_add_and_replace(hub: LocalHub) -> None:
    """``fields`` replaces what the hub would make up, and adds what it does not know."""
    fields = {"resource": {"path": "a.csv", "version": "main"}, "closing_commit": None, "surprise": [1]}
    document = get_evaluation(hub, hub.add_evaluation(seconds=0, fields=fields))

    assert {name: document[name] for name in fields} == fields


@pytest.mark.parametrize(
    "wrong",
    [
        {"end": "complete"},
        {"form": "2023"},
        {"seconds": "3"},
        {"seconds": float("nan")},
        {"rows": -1},
        {"fields": {"completed_at": NOW}},
        {"faults": Fault(Respond(503))},
        {"faults": [Respond(503)]},
    ],
    ids=str,
)
def test_scenario_that_cannot_happen_is_refused_at_once(hub: LocalHub, wrong: dict[str, Any]) -> None:
    """A mistake in a test's scenario is an error in the line that makes it, not an evaluation that never ends."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        hub.add_evaluation(**wrong)


def test_time_begins_with_the_first_request(hub: LocalHub) -> None:
    """However long ago an evaluation was added, it is queued at the first request for it."""
    evaluation_id = hub.add_evaluation(seconds=3_600)

    assert hub.status_of(evaluation_id) is None
    assert get_evaluation(hub, evaluation_id)["status"] == "queued"
    assert hub.status_of(evaluation_id)["status"] == "queued"


def test_evaluation_that_is_added_again_begins_again(hub: LocalHub) -> None:
    """Another scenario for the same id starts its time, its count of requests and its faults from the beginning."""
    fault = Fault(Respond(503), count=1)
    hub.add_evaluation("x", seconds=0, faults=(fault,))
    assert [get(hub, path_of("x")).status_code for _ in range(2)] == [503, 200]

    hub.add_evaluation("x", seconds=3_600, faults=(fault,))

    assert hub.requests_for("x") == 0
    assert hub.status_of("x") is None
    assert get(hub, path_of("x")).status_code == 503
    assert get_evaluation(hub, "x")["status"] == "queued"


def test_id_may_name_its_own_scenario(hub: LocalHub) -> None:
    """An id such as ``errored-0s`` is an evaluation that ends so after that time."""
    assert get_evaluation(hub, "errored-0s-again")["status"] == "errored"
    assert from_evaluation_id("completed-20s") == Scenario(end="completed", seconds=20)
    assert from_evaluation_id("d0c8585d-1234-5678-abcd-ef0123456789") is None


def test_removed_evaluation_is_not_found(hub: LocalHub) -> None:
    """The response for a removed evaluation is 404, in the contract's form."""
    evaluation_id = hub.add_evaluation()
    assert get(hub, path_of(evaluation_id)).status_code == 200
    hub.remove_evaluation(evaluation_id)

    response = get(hub, path_of(evaluation_id))

    assert response.status_code == 404
    assert response.json() == {
        "status": "error",
        "status_message": "resource_not_found",
        "error": {"title": "Not found", "type": "resource_not_found", "detail": None},
    }


# The server


def test_wrong_key_is_refused_by_every_endpoint() -> None:
    """A wrong key is refused in the contract's form; an address that does not exist is 404 with any key."""
    with LocalHub(api_key="right") as hub:
        evaluation_id = hub.add_evaluation()
        for path in (path_of(evaluation_id), "/api/authorize"):
            refused, good = get(hub, path, key="wrong"), get(hub, path, key="right")

            assert (refused.status_code, good.status_code) == (401, 200)
            assert (refused.json()["status"], good.json()["status"]) == ("error", "success")
        assert get(hub, "/api", key="wrong").status_code == 404
        assert hub.requests_for(evaluation_id) == 2


def test_request_without_a_key_starts_no_time(hub: LocalHub) -> None:
    """A refused request does not begin the time of an evaluation."""
    evaluation_id = hub.add_evaluation()
    get(hub, path_of(evaluation_id), key="wrong")

    assert hub.status_of(evaluation_id) is None


def test_requests_are_kept_as_they_were_sent(hub: LocalHub) -> None:
    """The list has method, path, headers by lower-case name, body and status code, in the order of the responses."""
    hub.add_evaluation("a b", seconds=0)
    get(hub, path_of("a%20b") + "?page=1")
    body = os.urandom(2 * 2**20)  # larger than what aiohttp takes by default
    requests.post(f"{hub.url}/api/repos/ox/r/unknown", data=body, headers={"X-Token": "t1"}, timeout=10)

    first, second = hub.requests
    assert (first.method, first.path, first.status_code) == ("GET", f"{path_of('a%20b')}?page=1", 200)
    assert first.body == b""
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert (second.method, second.path, second.status_code) == ("POST", "/api/repos/ox/r/unknown", 404)
    assert second.body == body
    assert second.headers["x-token"] == "t1"
    assert 0 < second.at - first.at < 10


def test_every_response_has_a_request_id_of_its_own(hub: LocalHub) -> None:
    """Good or bad, complete or in pieces, each response has an id that support could be given."""
    faults = (Fault(Trickle(0), count=1), Fault(Respond(503), first=2, count=1))
    evaluation_id = hub.add_evaluation(faults=faults)

    responses = [get(hub, path_of(evaluation_id)) for _ in range(3)] + [get(hub, key="wrong")]

    assert [response.status_code for response in responses] == [200, 503, 200, 401]
    assert len({response.headers["x-oxen-request-id"] for response in responses}) == 4


def test_connections_are_counted(hub: LocalHub) -> None:
    """The hub knows how many connections there were and how many are open."""
    clients = [socket.create_connection(("127.0.0.1", hub.port)) for _ in range(2)]
    _until(lambda: hub.connections_open == 2)
    for client in clients:
        client.close()
    _until(lambda: hub.connections_open == 0)

    assert hub.connections_opened == 2


def test_port_in_use_is_an_error_at_once() -> None:
    """A hub whose port is in use fails where it is entered."""
    with LocalHub() as hub, pytest.raises(OSError, match="in use"), LocalHub(port=hub.port):
        pass


def test_port_is_free_after_the_hub() -> None:
    """A hub that has ended lets another one have its port, and its clients see that it is gone."""
    with LocalHub() as first:
        port = first.port
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        _until(lambda: first.connections_open == 1)
    with client, LocalHub(port=port) as second:
        assert client.recv(1) == b""
        assert second.url == f"http://127.0.0.1:{port}"


# Faults


def test_fault_happens_to_the_requests_it_is_for(hub: LocalHub) -> None:
    """A fault counts an evaluation's requests from 1, and ends after ``count`` of them, or never."""
    passes = hub.add_evaluation(faults=(Fault(Respond(503), first=2, count=2),))
    stays = hub.add_evaluation(faults=[Fault(Respond(503), first=2)])

    assert [get(hub, path_of(passes)).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert [get(hub, path_of(stays)).status_code for _ in range(4)] == [200, 503, 503, 503]


def test_first_of_several_faults_happens(hub: LocalHub) -> None:
    """If several faults apply to a request, the first one in the list happens, and no other."""
    faults = (Fault(Respond(500), first=2, count=1), Fault(Respond(503), count=2))
    evaluation_id = hub.add_evaluation(faults=faults)

    assert [get(hub, path_of(evaluation_id)).status_code for _ in range(3)] == [503, 500, 200]


@pytest.mark.parametrize(
    ("named", "make"),
    [
        ("first", lambda: Fault(Respond(503), first=0)),
        ("what", lambda: Fault(503)),
        ("what", lambda: Fault(Disconnect)),
        ("when", lambda: Disconnect("meanwhile")),
    ],
)
def test_fault_that_cannot_happen_is_refused_at_once(named: str, make: Callable[[], object]) -> None:
    """A mistake in a fault is an error in the line that makes it, not a fault that never happens."""
    with pytest.raises(ValueError, match=f"^{named} must be"):
        make()


def test_respond_replaces_the_response(hub: LocalHub) -> None:
    """Status code, body and headers are those of the fault, with any key; the evaluation's time does not begin."""
    what = Respond(429, b"<html>", {"Content-Type": "text/html", "Retry-After": "7"})
    evaluation_id = hub.add_evaluation(faults=(Fault(what),))

    response = get(hub, path_of(evaluation_id), key="wrong")

    assert (response.status_code, response.content) == (429, b"<html>")
    assert (response.headers["Content-Type"], response.headers["Retry-After"]) == ("text/html", "7")
    assert hub.requests[-1].status_code == 429
    assert hub.status_of(evaluation_id) is None


def test_delay_delays_a_response_as_usual(hub: LocalHub) -> None:
    """The response comes late and is otherwise the usual one; the request arrived, and was counted, before."""
    evaluation_id = hub.add_evaluation(seconds=0, faults=(Fault(Delay(0.3), count=1),))
    started = time.monotonic()

    slow = get(hub, path_of(evaluation_id))
    took = time.monotonic() - started
    get(hub, path_of(evaluation_id))

    assert 0.3 <= took < 2
    assert slow.json()["evaluation"]["status"] == "completed"
    assert hub.requests[1].at - hub.requests[0].at >= 0.3


def test_client_that_stops_waiting_is_no_error(hub: LocalHub, caplog: pytest.LogCaptureFixture) -> None:
    """A request whose client left is counted, is not carried out, and has no entry in the list of requests."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Delay(0.4)),))
    with pytest.raises(requests.Timeout):
        get(hub, path_of(evaluation_id), timeout=0.1)
    time.sleep(0.5)

    assert hub.requests_for(evaluation_id) == 1
    assert hub.status_of(evaluation_id) is None
    assert hub.requests == []
    assert caplog.text == ""


@pytest.mark.parametrize(("reset", "ending"), [(False, "closed"), (True, "reset")])
def test_disconnect_before_the_response(hub: LocalHub, reset: bool, ending: str) -> None:
    """Not one byte comes back; the request is in the list without a status code and was not carried out."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Disconnect("before", reset=reset)),))

    assert exchange_bytes(hub, evaluation_id) == (b"", ending)
    assert [request.status_code for request in hub.requests] == [None]
    assert hub.status_of(evaluation_id) is None


@pytest.mark.parametrize(("reset", "ending"), [(False, "closed"), (True, "reset")])
def test_disconnect_in_the_middle_of_the_response(hub: LocalHub, reset: bool, ending: str) -> None:
    """The head announces the whole body, half of it comes, and the request was carried out."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Disconnect("middle", reset=reset)),))

    received, ended = exchange_bytes(hub, evaluation_id)

    head, _, body = received.partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head)[1])
    assert ended == ending
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Content-Type: application/json" in head
    assert len(body) == length // 2
    assert body.startswith(b'{"status": "success", ')
    assert [request.status_code for request in hub.requests] == [200]
    assert hub.status_of(evaluation_id) is not None


@pytest.mark.parametrize(("reset", "ending"), [(False, "closed"), (True, "reset")])
def test_disconnect_after_the_response(hub: LocalHub, reset: bool, ending: str) -> None:
    """The whole response comes; then the connection is closed, which without the fault stays open."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Disconnect("after", reset=reset), count=1),))

    received, ended = exchange_bytes(hub, evaluation_id)

    assert ended == ending
    assert json.loads(received.partition(b"\r\n\r\n")[2])["evaluation"]["id"] == evaluation_id
    assert [request.status_code for request in hub.requests] == [200]
    assert exchange_bytes(hub, evaluation_id, wait=0.3)[1] == "open"


def test_trickle_sends_byte_by_byte(hub: LocalHub) -> None:
    """The head comes at once with the length of the whole body, which then comes bit by bit."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Chain(Respond(200, b"0123456789"), Trickle(0.1))),))
    pieces: list[tuple[float, bytes]] = []
    with socket.create_connection(("127.0.0.1", hub.port), timeout=5) as client:
        client.sendall(f"GET {path_of(evaluation_id)} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n".encode())
        while piece := client.recv(65_536):
            pieces.append((time.monotonic(), piece))

    head, _, body = b"".join(piece for _, piece in pieces).partition(b"\r\n\r\n")
    assert b"Content-Length: 10" in head
    assert body == b"0123456789"
    assert len(pieces) > 5  # on a busy machine, some bytes may be received together
    assert 0.5 < pieces[-1][0] - pieces[0][0] < 4


def test_trickle_sends_the_hubs_own_response(hub: LocalHub) -> None:
    """Alone, it slows down what the hub would send, and nothing else changes."""
    evaluation_id = hub.add_evaluation(seconds=0, faults=(Fault(Trickle(0), count=1),))

    slow, usual = (get(hub, path_of(evaluation_id)) for _ in range(2))

    assert slow.content == usual.content
    assert slow.headers["Content-Type"] == usual.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("seconds_per_byte", [0.02, 0])
def test_trickle_ends_when_the_client_leaves(
    hub: LocalHub, seconds_per_byte: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that stops reading is no error of the hub, and its connection does not stay."""
    what = Chain(Respond(200, bytes(1_000_000)), Trickle(seconds_per_byte))
    evaluation_id = hub.add_evaluation(faults=(Fault(what, count=1),))
    with requests.get(hub.url + path_of(evaluation_id), stream=True, timeout=5) as response:
        assert next(response.iter_content(1)) == b"\0"
    _until(lambda: hub.connections_open == 0)

    assert get(hub, path_of(evaluation_id)).status_code == 200
    assert caplog.text == ""


def test_alter_changes_fields(hub: LocalHub) -> None:
    """Fields of the evaluation and of the envelope are set, others removed; the rest stays as it is."""
    what = Alter(evaluation={"id": "another", "extra": 1}, envelope={"status": "warning"}, without=("progress",))
    evaluation_id = hub.add_evaluation(seconds=0, faults=(Fault(what, count=1),))

    altered, usual = (get(hub, path_of(evaluation_id)).json() for _ in range(2))

    expected = {**usual, "status": "warning", "evaluation": {**usual["evaluation"], "id": "another", "extra": 1}}
    del expected["evaluation"]["progress"]
    assert altered == expected
    assert list(altered) == list(usual)


def test_alter_can_replace_the_whole_evaluation(hub: LocalHub) -> None:
    """The envelope may be left without an evaluation."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Alter(envelope={"evaluation": None})),))

    assert get(hub, path_of(evaluation_id)).json()["evaluation"] is None


def test_alter_leaves_an_error_response_as_it_is(hub: LocalHub) -> None:
    """A refused request gets the usual error."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Alter(evaluation={"id": "another"}, envelope={"status": "ok"})),))

    response = get(hub, path_of(evaluation_id), key="wrong")

    assert (response.status_code, response.json()["status"]) == (401, "error")


def test_chained_effects_act_in_order(hub: LocalHub) -> None:
    """A chain acts first to last, a chain in a chain too, and carries the request out once."""
    three = Chain(Delay(0.2), Chain(Alter(evaluation={"id": "one", "name": "one"}), Alter(evaluation={"name": "two"})))
    evaluation_id = hub.add_evaluation(faults=(Fault(three),))
    started = time.monotonic()

    document = get_evaluation(hub, evaluation_id)

    assert time.monotonic() - started >= 0.2
    assert (document["id"], document["name"]) == ("one", "two")
    assert len(hub.requests) == 1


@pytest.mark.parametrize(
    "what",
    [
        Chain(Chain(Delay(0), Alter(evaluation={"name": "x" * 5_000})), Disconnect("middle")),
        Chain(Delay(0), Chain(Alter(evaluation={"name": "x" * 5_000}), Disconnect("middle"))),
    ],
    ids=["first", "second"],
)
def test_chain_hands_an_altered_response_on(hub: LocalHub, what: Chain) -> None:
    """What one effect changed is what the next one sends, wherever the inner chain stands."""
    evaluation_id = hub.add_evaluation(faults=(Fault(what),))

    received, ended = exchange_bytes(hub, evaluation_id)

    assert ended == "closed"
    assert int(re.search(rb"Content-Length: (\d+)", received)[1]) > 5_000


def test_delayed_response_of_another_kind_leaves_the_evaluation_alone(hub: LocalHub) -> None:
    """A chain of effects that need no response of the hub's does not begin the time of the evaluation."""
    evaluation_id = hub.add_evaluation(faults=(Fault(Chain(Delay(0), Respond(503))),))

    assert get(hub, path_of(evaluation_id)).status_code == 503
    assert hub.status_of(evaluation_id) is None


class _CarriedOutButLost:
    """Carry the request out, and close the connection in place of the response."""

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        assert exchange.request.method == "GET"
        assert exchange.response() is exchange.response()
        await asyncio.sleep(0)
        return exchange.disconnect_without_response()


class _Teapot:
    """Respond with JSON of its own."""

    async def act(self, exchange: Exchange) -> web.StreamResponse:
        return await exchange.proceed(HubResponse.from_json({"path": exchange.request.path}, 418))


def test_effect_of_ones_own(hub: LocalHub) -> None:
    """Any object with the method ``act`` is an effect, alone and in a chain."""
    evaluation_id = hub.add_evaluation(
        faults=(Fault(_CarriedOutButLost(), count=1), Fault(Chain(_Teapot(), Alter(envelope={"more": 1}))))
    )

    assert exchange_bytes(hub, evaluation_id) == (b"", "closed")
    assert hub.status_of(evaluation_id)["status"] == "queued"
    response = get(hub, path_of(evaluation_id))
    assert (response.status_code, response.json()) == (418, {"path": path_of(evaluation_id)})
    assert response.headers["Content-Type"] == "application/json"


# The command, the fixture, the package


@pytest.fixture
def command() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect the processes that a test starts, and kill them at its end."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_command_runs_a_hub_until_it_is_interrupted(command: list[subprocess.Popen[str]]) -> None:
    """The command prints its address, a connection and the evaluations to add, and ends well on SIGTERM."""
    arguments = ["--api-key", "k", "--evaluation", "completed:0", "--evaluation", "errored"]
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_oxen.testing", *arguments], stdout=subprocess.PIPE, text=True
    )
    command.append(process)
    lines = [process.stdout.readline() for _ in range(4)]
    url = lines[0].split()[-1]
    evaluation_id = re.search(r"completed after 0 s: (\S+)", lines[2])[1]

    assert lines[0].startswith("Oxen hub at http://127.0.0.1:")
    name, value = shlex.split(lines[1])[0].split("=", 1)  # as a shell reads it
    assert (name, json.loads(value)) == (
        "AIRFLOW_CONN_OXEN_DEFAULT",
        {"conn_type": "oxen", "host": url, "password": "k"},
    )
    assert "errored after 10 s: " in lines[3]
    response = requests.get(url + path_of(evaluation_id), headers={"Authorization": "Bearer k"}, timeout=10)
    assert response.json()["evaluation"]["status"] == "completed"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.mark.parametrize("tls", [None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)], ids=["http", "https"])
@pytest.mark.parametrize("settles", [False, True])
def test_stopped_hub_leaves_no_socket_open(tls: ssl.SSLContext | None, settles: bool) -> None:
    """What was just accepted is closed as well, and what waits for its client's part of a TLS handshake."""
    with contextlib.ExitStack() as stack:
        with LocalHub(tls=tls) as hub:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", hub.port), 5)) for _ in range(40)]
            if settles:
                _until(lambda: hub.connections_opened == 40)
                time.sleep(0.05)

        assert {read_to_end(client)[1] for client in clients} <= {"closed", "reset"}
    gc.collect()  # pytest makes an error of each socket that is found open


@pytest.mark.parametrize(
    "arguments",
    [
        ["--evaluation", "done"],
        ["--evaluation", "errored:soon"],
        ["--evaluation", "errored:nan"],
        ["--port", "busy"],
        ["--port", "99999"],
    ],
)
def test_command_says_what_is_wrong_in_a_line(arguments: list[str]) -> None:
    """An argument that cannot be used, or a port that is in use, ends the command with a line that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [sys.executable, "-m", "airflow_provider_oxen.testing", *(port if a == "busy" else a for a in arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert re.search(r"error: .*(completed, errored, cancelled|number of seconds|cannot be used)", result.stderr)


def test_fixture_defines_the_connection(oxen_hub: LocalHub) -> None:
    """During the test, ``oxen_default`` is a connection to the fixture's hub."""
    assert json.loads(os.environ["AIRFLOW_CONN_OXEN_DEFAULT"])["host"] == oxen_hub.url
    assert get(oxen_hub, key=oxen_hub.api_key).json()["user"]["name"] == "Ox"


def test_plugin_costs_a_run_without_a_hub_nothing() -> None:
    """pytest loads the plugin in every run: neither it nor the package imports the server before it is used."""
    program = (
        "import sys; import airflow_provider_oxen.testing.plugin; assert 'aiohttp' not in sys.modules\n"
        "from airflow_provider_oxen.testing import Fault; assert 'aiohttp' in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_package_has_the_names_it_promises() -> None:
    """Each public name can be imported; any other is an AttributeError that names it."""
    package = airflow_provider_oxen.testing

    assert {getattr(package, name).__name__ for name in package.__all__} == set(package.__all__)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = package.Nothing


def _until(condition: Callable[[], bool], *, limit_seconds: float = 5) -> None:
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
