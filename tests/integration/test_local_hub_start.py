"""The local hub's call that starts an evaluation: the vendor's schema, what is started, and its faults over sockets."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_oxen.testing import (
    AfterStart,
    Chain,
    Delay,
    Disconnect,
    Fault,
    LocalHub,
    Respond,
    Scenario,
    StartedEvaluation,
    Trickle,
)
from airflow_provider_oxen.testing.starting import split_address, with_defaults
from tests.support.sockets import read_to_end
from tests.support.start_schema import ERRORS, FIELDS, MINIMAL, OLDER_FORM, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "local-hub-key"
TARGET = "main/data/customers.parquet"
#: A value of each JSON type.
VALUES = {str: "text", bool: True, int: 3, float: 2.5, list: ["text"], dict: {"text": 1}, type(None): None}


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


def post(
    hub: LocalHub, body: Any = None, *, target: str = TARGET, repository: str = "ox/r", **options: Any
) -> requests.Response:
    address = f"{hub.url}/api/repos/{repository}/evaluations/{target}"
    options = {"json": MINIMAL if body is None else body, **options}
    headers = {"Authorization": f"Bearer {KEY}", **options.pop("headers", {})}
    return requests.post(address, headers=headers, timeout=options.pop("timeout", 10), **options)


def start(hub: LocalHub, **fields: Any) -> dict[str, Any]:
    return post(hub, {**MINIMAL, **fields}).json()["evaluation"]


def get(hub: LocalHub, evaluation_id: str, repository: str = "ox/r") -> requests.Response:
    address = f"{hub.url}/api/repos/{repository}/evaluations/{evaluation_id}"
    return requests.get(address, headers={"Authorization": f"Bearer {KEY}"}, timeout=10)


def post_bytes(hub: LocalHub, *, wait: float = 5.0) -> tuple[bytes, str]:
    """
    Send one POST over a socket, and read until the hub closes it.

    :return: what came, and how it ended: ``closed``, ``reset``, or ``open`` if nothing came for ``wait`` seconds.
    """
    body = json.dumps(MINIMAL).encode()
    with socket.create_connection(("127.0.0.1", hub.port), timeout=wait) as client:
        client.sendall(
            f"POST /api/repos/ox/r/evaluations/{TARGET} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        return read_to_end(client)


def assert_refused(hub: LocalHub, response: requests.Response, status_code: int) -> str | None:
    """Check an error response of the contract's form, and that it started nothing. Return its detail."""
    document = response.json()
    assert response.status_code == status_code
    assert set(document) == {"status", "status_message", "error"}
    assert set(document["error"]) == {"title", "type", "detail"}
    assert (document["status"], document["error"]["type"]) == ("error", ERRORS[status_code])
    assert document["status_message"] == ERRORS[status_code]
    assert hub.started == []
    return document["error"]["detail"]


# The vendor's schema


def test_minimal_request_starts_an_evaluation(hub: LocalHub) -> None:
    """The required fields are enough; the response is 200 with the envelope and the evaluation, queued."""
    response = post(hub)
    document = response.json()

    evaluation = document["evaluation"]
    assert set(document) == {"status", "status_message", "evaluation"}
    shown = (response.status_code, document["status"], document["status_message"], evaluation["status"])
    assert shown == SUCCESS
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", evaluation["id"])
    assert evaluation["progress"]["processed"] == 0


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.required])
def test_required_field_that_is_missing_is_named(hub: LocalHub, name: str) -> None:
    """Without a required field the response is 400 and names it, and no other."""
    detail = assert_refused(hub, post(hub, {key: value for key, value in MINIMAL.items() if key != name}), 400)

    assert detail == f"{name} is missing"


@pytest.mark.parametrize("name", FIELDS)
def test_field_has_the_type_of_the_schema(hub: LocalHub, name: str) -> None:
    """A value of any other JSON type is refused and its field named; null too, and true is not an integer."""
    for kind, value in VALUES.items():
        if kind is not FIELDS[name].kind:
            detail = assert_refused(hub, post(hub, {**MINIMAL, name: value}), 400)
            assert detail.startswith(f"{name} must be "), value
    assert post(hub, {**MINIMAL, name: VALUES[FIELDS[name].kind]}).status_code == 200


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.enum])
def test_enum_is_that_of_the_schema(hub: LocalHub, name: str) -> None:
    """Each value of the enum is accepted, and any other one is refused, with those that are allowed."""
    every = {value for field in FIELDS.values() for value in field.enum} | {"audio", "Text", ""}
    for value in every - set(FIELDS[name].enum):
        detail = assert_refused(hub, post(hub, {**MINIMAL, name: value}), 400)
        assert detail == f"{name} must be one of {', '.join(FIELDS[name].enum)}"
    for value in FIELDS[name].enum:
        assert start(hub, **{name: value})[name] == value


def test_all_mistakes_are_named_at_once(hub: LocalHub) -> None:
    """One response names all fields that are wrong."""
    body = {**MINIMAL, "batch_size": "10", "output_type": "audio"}
    del body["prompt"]

    detail = assert_refused(hub, post(hub, body), 400)

    assert re.findall(r"(?:^|; )(\w+) ", detail) == ["prompt", "output_type", "batch_size"]


def test_defaults_are_those_of_the_schema(hub: LocalHub) -> None:
    """A field that is not sent has the schema's default, and one without a documented default has none."""
    assert with_defaults(MINIMAL) == {
        **MINIMAL,
        **{name: field.default for name, field in FIELDS.items() if field.default is not None},
    }
    evaluation = start(hub)

    assert (evaluation["is_sample"], evaluation["sample_count"]) == (False, 10)
    assert hub.started[0].body == MINIMAL


def test_every_field_of_the_schema_together(hub: LocalHub) -> None:
    """A request may have all fields of the schema, and fields that the schema does not name."""
    every = {name: MINIMAL.get(name, VALUES[field.kind]) for name, field in FIELDS.items()}

    assert post(hub, {**every, "temperature": 0.2}).status_code == 200
    assert hub.started[0].body == {**every, "temperature": 0.2}


def test_older_form_is_accepted(hub: LocalHub) -> None:
    """``type`` stands for both types and ``model`` for ``model_id``, as in the vendor's guide."""
    evaluation = post(hub, OLDER_FORM).json()["evaluation"]

    assert (evaluation["input_type"], evaluation["output_type"]) == ("text", "text")
    assert evaluation["model"]["name"] == OLDER_FORM["model"]


def test_older_name_is_used_only_where_the_newer_one_is_missing(hub: LocalHub) -> None:
    """If a request has both, the newer field counts."""
    evaluation = start(hub, type="image", model="another", output_type="embeddings")

    assert (evaluation["input_type"], evaluation["output_type"]) == ("text", "embeddings")
    assert evaluation["model"]["name"] == MINIMAL["model_id"]


@pytest.mark.parametrize(("name", "value"), [("type", "audio"), ("type", 1), ("model", {"id": "x"}), ("model", None)])
def test_older_form_is_checked(hub: LocalHub, name: str, value: Any) -> None:
    """A wrong value of an older field is refused under its own name."""
    detail = assert_refused(hub, post(hub, {**OLDER_FORM, name: value}), 400)

    assert detail.startswith(f"{name} must be ")
    assert ";" not in detail


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"[]", "application/json"),
        (json.dumps(MINIMAL).encode(), "application/x-www-form-urlencoded"),
        (json.dumps(MINIMAL).encode(), "text/plain"),
    ],
)
def test_body_must_be_a_json_object(hub: LocalHub, data: bytes, content_type: str) -> None:
    """Any other body is refused, and JSON without its Content-Type, too."""
    detail = assert_refused(hub, post(hub, json=None, data=data, headers={"Content-Type": content_type}), 400)

    assert detail.startswith("body must be a JSON object")


def test_content_type_may_have_parameters(hub: LocalHub) -> None:
    """A charset after the media type does not matter."""
    headers = {"Content-Type": "application/json; charset=utf-8"}

    assert post(hub, json=None, data=json.dumps(MINIMAL), headers=headers).status_code == 200


def test_wrong_key_starts_nothing(hub: LocalHub) -> None:
    """A wrong key is refused as by every endpoint, before anything else is looked at."""
    response = post(hub, {}, headers={"Authorization": "Bearer wrong"})

    assert response.status_code == 401
    assert response.json()["status"] == "error"
    assert (len(hub.start_requests), hub.started) == (1, [])


def test_nothing_starts_without_credits(hub: LocalHub) -> None:
    """Out of credits, the response is 402 and nothing is started, until there are credits again."""
    hub.out_of_credits = True
    assert_refused(hub, post(hub), 402)
    assert_refused(hub, post(hub, {}), 400)

    hub.out_of_credits = False
    assert post(hub).status_code == 200


@pytest.mark.parametrize("missing", ["ox/r", "ox/r/main", "ox/r/main/data", f"ox/r/{TARGET}"])
def test_what_does_not_exist_is_not_found(hub: LocalHub, missing: str) -> None:
    """A repository, branch, folder or file that is missing is 404; others, whose names begin alike, exist."""
    hub.missing = {missing}

    assert_refused(hub, post(hub), 404)
    assert post(hub, repository="ox/r2", target="main2/data2/customers.parquet2").status_code == 200
    assert post(hub, repository="ox/r2").status_code == 200


def test_evaluations_of_a_missing_repository_are_not_found(hub: LocalHub) -> None:
    """A repository that goes missing takes its evaluations along, and nothing of another one."""
    evaluation_id = start(hub)["id"]
    hub.missing = {"ox/r"}

    assert get(hub, evaluation_id).status_code == 404
    assert get(hub, "completed-0s").status_code == 404
    assert get(hub, "completed-0s", "ox/other").status_code == 200


@pytest.mark.parametrize(
    "target", ["main", "main/", "", "main//a.csv", "main/data%2Fa.csv", "eval%2Fa/b.csv", "main/%2E%2E/a.csv"]
)
def test_address_that_names_no_file_is_not_found(hub: LocalHub, target: str) -> None:
    """An address without a path, with an empty segment or with an encoded slash names nothing; the POST is counted."""
    assert_refused(hub, post(hub, target=target), 404)
    assert len(hub.start_requests) == 1


@pytest.mark.parametrize(
    ("address", "branches", "expected"),
    [
        ("main/a.csv", (), ("main", "a.csv")),
        ("main/data/a.csv?x=/y", (), ("main", "data/a.csv")),
        ("eval/b/data/a.csv", (), ("eval", "b/data/a.csv")),
        ("eval/b/data/a.csv", ("eval/b",), ("eval/b", "data/a.csv")),
        ("eval/b/data/a.csv", ("eval/b", "eval/b/data", "b"), ("eval/b/data", "a.csv")),
        ("eval/bc/a.csv", ("eval/b",), ("eval", "bc/a.csv")),
        ("a%20b/c%3Fd.csv", (), ("a b", "c?d.csv")),
    ],
)
def test_address_is_split_into_branch_and_path(
    address: str, branches: tuple[str, ...], expected: tuple[str, str]
) -> None:
    """The branch is one segment, unless a branch with a slash is known: then the longest that matches."""
    found = split_address(f"/api/repos/o%C3%A9/evaluations/evaluations/{address}", branches)

    assert found == ("oé", "evaluations", *expected)


def test_branch_alone_names_no_file() -> None:
    """An address that ends with the name of a branch has no path."""
    assert split_address("/api/repos/ox/r/evaluations/eval/b", {"eval/b"}) is None


# What is started


def test_started_evaluation_shows_its_request(hub: LocalHub) -> None:
    """It is served under its id with the fields of its request and the source from the address."""
    hub.branches = {"eval/b"}
    hub.on_start = Scenario(seconds=0)
    body = {
        **MINIMAL, "name": "try 1", "auto_commit": True, "target_branch": "results", "target_path": "out.parquet",
        "commit_message": "ours",
    }  # fmt: skip
    evaluation_id = post(hub, body, target="eval/b/data/a%20b.parquet").json()["evaluation"]["id"]

    document = get(hub, evaluation_id).json()["evaluation"]

    expected = {name: body[name] for name in ("name", "prompt", "target_column", "target_branch", "target_path")}
    assert {name: document[name] for name in expected} == expected
    assert (document["input_type"], document["output_type"], document["is_sample"]) == ("text", "text", False)
    assert document["model"] == {"id": MINIMAL["model_id"], "name": MINIMAL["model_id"]}
    assert document["resource"] == {"path": "data/a b.parquet", "version": "eval/b"}
    assert (document["status"], document["closing_commit"]["message"]) == ("completed", "ours")
    assert hub.status_of(evaluation_id) == document


def test_results_go_to_the_source_without_a_target(hub: LocalHub) -> None:
    """With auto_commit alone, the target is the source's branch, and the path is null."""
    hub.on_start = Scenario(seconds=0)

    document = get(hub, start(hub, auto_commit=True)["id"]).json()["evaluation"]

    assert (document["target_branch"], document["target_path"]) == ("main", None)
    assert document["closing_commit"]["message"]
    assert document["commit_started_at"]


def test_nothing_is_committed_without_auto_commit(hub: LocalHub) -> None:
    """Without auto_commit it completes without a commit, and is never committing."""
    hub.on_start = Scenario(seconds=0.5)
    evaluation_id, statuses, document = start(hub, commit_message="unused")["id"], [], {}
    while document.get("status") != "completed":
        document = get(hub, evaluation_id).json()["evaluation"]
        statuses.append(document["status"])

    assert set(statuses) == {"queued", "running", "completed"}
    names = ("closing_commit", "commit_started_at", "target_branch", "target_path")
    assert [document[name] for name in names] == [None] * 4
    assert document["progress"] == {"processed": 1_000, "total": 1_000}


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({}, 1_000),
        ({"sample_count": 7}, 1_000),
        ({"is_sample": True}, 10),
        ({"is_sample": True, "sample_count": 7}, 7),
        ({"is_sample": True, "sample_count": 5_000}, 1_000),
        ({"is_sample": True, "sample_count": -1}, 0),
    ],
)
def test_sample_has_its_rows_only(hub: LocalHub, fields: dict[str, Any], total: int) -> None:
    """A sample processes sample_count rows, and no more than there are; sample_count alone changes nothing."""
    evaluation = start(hub, **fields)

    assert evaluation["progress"]["total"] == total
    assert evaluation["is_sample"] == fields.get("is_sample", False)
    assert evaluation["sample_count"] == fields.get("sample_count", 10)


def test_started_evaluation_is_in_its_repository_only(hub: LocalHub) -> None:
    """Another repository does not have it, unlike one that was added."""
    evaluation_id = start(hub)["id"]

    assert get(hub, evaluation_id).status_code == 200
    assert get(hub, evaluation_id, "ox/other").status_code == 404
    assert get(hub, evaluation_id, "other/r").status_code == 404


def test_equal_requests_start_different_evaluations(hub: LocalHub) -> None:
    """The hub knows no idempotency: each request starts one, with an id and a count of its own."""
    ids = [start(hub)["id"] for _ in range(3)]
    get(hub, ids[1])

    assert len(set(ids)) == 3
    assert [started.id for started in hub.started] == ids
    assert [hub.requests_for(evaluation_id) for evaluation_id in ids] == [0, 1, 0]


def test_record_of_a_start_says_what_was_requested(hub: LocalHub) -> None:
    """``started`` has the address decoded, the body as sent, and when."""
    before = time.monotonic()
    evaluation_id = post(hub, target="main/a%20b.csv").json()["evaluation"]["id"]

    (started,) = hub.started
    assert before < started.at < time.monotonic()
    assert started == StartedEvaluation(evaluation_id, "ox", "r", "main", "a b.csv", MINIMAL, started.at)
    assert json.loads(hub.requests[-1].body) == MINIMAL
    assert hub.requests[-1].status_code == 200


def test_request_is_no_start(hub: LocalHub) -> None:
    """A refused request is among the requests and not among what was started."""
    assert [post(hub, body).status_code for body in (MINIMAL, {}, MINIMAL)] == [200, 400, 200]

    assert [json.loads(request.body) for request in hub.start_requests] == [MINIMAL, {}, MINIMAL]
    assert {request.status_code for request in hub.start_requests} == {None}
    assert [request.status_code for request in hub.requests] == [200, 400, 200]
    assert len(hub.started) == 2


@pytest.mark.parametrize("name", ["errored-0s", "errored-0s-mine"])
@pytest.mark.parametrize("field", ["model_id", "model"])
def test_model_may_say_what_the_evaluation_does(hub: LocalHub, field: str, name: str) -> None:
    """A model such as ``errored-0s`` is the evaluation's scenario, also by the older name. It is queued at first."""
    body = {**MINIMAL, field: name} if field == "model_id" else {**OLDER_FORM, field: name}

    evaluation = post(hub, body).json()["evaluation"]

    assert evaluation["status"] == "queued"
    assert get(hub, evaluation["id"]).json()["evaluation"]["status"] == "errored"


def test_any_other_model_does_what_an_added_evaluation_does(hub: LocalHub) -> None:
    """The default scenario is that of an evaluation added without arguments."""
    evaluation = start(hub)

    assert evaluation["progress"]["total"] == 1_000
    assert get(hub, evaluation["id"]).json()["evaluation"]["status"] == "queued"


def test_time_begins_with_the_start(hub: LocalHub) -> None:
    """The time of a started evaluation runs without a request for it."""
    hub.on_start = Scenario(seconds=0.3)
    evaluation_id = start(hub)["id"]
    time.sleep(0.4)

    assert get(hub, evaluation_id).json()["evaluation"]["status"] == "completed"


def test_scenario_for_all_starts(hub: LocalHub) -> None:
    """A scenario on the hub counts more than the model's name; its fields and faults count, too."""
    hub.on_start = Scenario(
        end="cancelled", seconds=0, fields={"prompt": "another", "extra": 1}, faults=(Fault(Respond(503), count=1),)
    )
    evaluation = start(hub, model_id="errored-5s")

    assert (evaluation["status"], evaluation["prompt"], evaluation["extra"]) == ("queued", "another", 1)
    assert get(hub, evaluation["id"]).status_code == 503
    assert get(hub, evaluation["id"]).json()["evaluation"]["status"] == "cancelled"


def test_scenario_for_each_start(hub: LocalHub) -> None:
    """A function gets what is started, and returns its scenario."""
    seen: list[StartedEvaluation] = []

    def choose(started: StartedEvaluation) -> Scenario:
        seen.append(started)
        return Scenario(seconds=0, end="errored" if started.path == "bad.csv" else "completed")

    hub.on_start = choose
    ids = [post(hub, target=f"main/{name}.csv").json()["evaluation"]["id"] for name in ("good", "bad")]

    assert [get(hub, x).json()["evaluation"]["status"] for x in ids] == ["completed", "errored"]
    assert seen == hub.started


def test_started_evaluation_has_the_form_of_its_scenario(hub: LocalHub) -> None:
    """In the form of 2024, the model is a text and ``type`` stands for both types."""
    hub.on_start = Scenario(form="2024")

    evaluation = start(hub, input_type="image")

    assert (evaluation["model"], evaluation["type"]) == (MINIMAL["model_id"], "image")
    assert {"input_type", "output_type"}.isdisjoint(evaluation)
    assert evaluation["resource"] == {"path": "data/customers.parquet", "version": "main"}


# Faults

HTML = {"Content-Type": "text/html"}


@pytest.mark.parametrize(("reset", "ending"), [(False, "closed"), (True, "reset")])
@pytest.mark.parametrize("starts", [0, 1])
def test_response_is_lost(hub: LocalHub, reset: bool, ending: str, starts: int) -> None:
    """Closed or reset without a byte: before anything was started, or after the evaluation was started."""
    what = AfterStart(Disconnect(reset=reset)) if starts else Disconnect(reset=reset)
    hub.start_faults = [Fault(what)]

    assert post_bytes(hub) == (b"", ending)
    assert (len(hub.start_requests), len(hub.started)) == (1, starts)
    assert [request.status_code for request in hub.requests] == [None]


def test_response_is_cut_off_after_the_start(hub: LocalHub) -> None:
    """In the middle of the response the evaluation has been started."""
    hub.start_faults = [Fault(Disconnect("middle"))]

    received, ended = post_bytes(hub)

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert (ended, len(hub.started)) == ("closed", 1)


@pytest.mark.parametrize("starts", [0, 1])
@pytest.mark.parametrize(
    "response",
    [
        Respond(502, b"<html>Bad gateway</html>", HTML),
        Respond(503),
        Respond(429, headers={"Retry-After": "7"}),
        Respond(200, b"<html>Please wait</html>", HTML),
    ],
    ids=["502", "503", "429", "html"],
)
def test_response_is_another_one(hub: LocalHub, response: Respond, starts: int) -> None:
    """Another response comes: before anything was started, or after the evaluation was started."""
    hub.start_faults = [Fault(AfterStart(response) if starts else response)]

    received = post(hub)

    assert (received.status_code, received.content) == (response.status_code, response.body)
    assert response.headers.items() <= received.headers.items()
    assert (len(hub.start_requests), len(hub.started)) == (1, starts)
    assert hub.requests[-1].status_code == response.status_code


def test_response_is_late_after_the_start(hub: LocalHub) -> None:
    """The evaluation is started at once; the response comes late, and is the usual one."""
    hub.start_faults = [Fault(AfterStart(Delay(0.4)))]
    sent_at = time.monotonic()

    evaluation = start(hub)

    assert time.monotonic() - sent_at >= 0.4
    assert hub.started[0].at - sent_at < 0.3
    assert evaluation["id"] == hub.started[0].id


@pytest.mark.parametrize(("what", "starts"), [(AfterStart(Delay(5)), 1), (Delay(5), 0)], ids=["after", "before"])
def test_client_may_leave_before_a_late_response(hub: LocalHub, what: Any, starts: int) -> None:
    """The request of a client that stopped waiting is counted, whether or not it started an evaluation."""
    hub.start_faults = [Fault(what)]
    with pytest.raises(requests.Timeout):
        post(hub, timeout=0.2)

    assert (len(hub.start_requests), len(hub.started)) == (1, starts)
    assert json.loads(hub.start_requests[0].body) == MINIMAL


def test_evaluation_whose_response_was_lost_goes_on(hub: LocalHub) -> None:
    """The hub has it, and who finds its id can wait for it."""
    hub.on_start, hub.start_faults = Scenario(seconds=0), [Fault(AfterStart(Disconnect()))]
    post_bytes(hub)

    assert get(hub, hub.started[0].id).json()["evaluation"]["status"] == "completed"


def test_refused_request_starts_nothing_in_spite_of_a_fault(hub: LocalHub) -> None:
    """What acts after the start acts on a refused request, too, but nothing is started."""
    hub.start_faults = [Fault(AfterStart(Respond(503)))]

    assert post(hub, {}).status_code == 503
    assert (len(hub.start_requests), hub.started) == (1, [])


def test_effects_chain_after_the_start(hub: LocalHub) -> None:
    """A chain may start the evaluation anywhere in it, and starts it once."""
    hub.start_faults = [
        Fault(AfterStart(Chain(Delay(0.1), Respond(503))), count=1),
        Fault(Chain(AfterStart(Delay(0)), Trickle(0)), first=2, count=1),
    ]

    assert [post(hub).status_code for _ in range(3)] == [503, 200, 200]
    assert len(hub.started) == 3


def test_start_faults_count_requests_from_when_they_are_set(hub: LocalHub) -> None:
    """The first request after they were set is number 1; they end after ``count``, and are for no other endpoint."""
    assert post(hub).status_code == 200
    hub.start_faults = [Fault(Respond(503), first=2, count=1), Fault(Respond(500), count=2)]

    assert [post(hub).status_code for _ in range(4)] == [500, 503, 200, 200]
    assert get(hub, "completed-0s").status_code == 200
    hub.start_faults = [Fault(Respond(429), count=1)]
    assert [post(hub).status_code for _ in range(2)] == [429, 200]
    assert [fault.what.status_code for fault in hub.start_faults] == [429]


@pytest.mark.parametrize("wrong", [Fault(Respond(503)), [Respond(503)]])
def test_start_faults_that_cannot_happen_are_refused_at_once(hub: LocalHub, wrong: Any) -> None:
    """A mistake is an error in the line that makes it."""
    with pytest.raises(ValueError, match=r"^start_faults must be a list"):
        hub.start_faults = wrong


def test_command_serves_it() -> None:
    """Evaluations can be started at the hub that the command runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_oxen.testing"], stdout=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().split()[-1]
        headers = {"Authorization": f"Bearer {KEY}"}
        address = f"{url}/api/repos/ox/r/evaluations"
        body = {**MINIMAL, "model_id": "errored-0s"}
        started = requests.post(f"{address}/{TARGET}", json=body, headers=headers, timeout=10).json()["evaluation"]
        found = requests.get(f"{address}/{started['id']}", headers=headers, timeout=10).json()["evaluation"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

    assert (started["status"], found["status"]) == ("queued", "errored")
