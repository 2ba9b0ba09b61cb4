"""The local hub that is shipped for users: as context manager, as command, and what it says of an evaluation."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_oxen.testing import Fault, LocalHub, Respond, Scenario
from airflow_provider_oxen.testing.scenario import from_evaluation_id

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2026, 11, 1, 10, tzinfo=timezone.utc)


def ask(url: str, key: str = "local-hub-key", path: str = "/api/authorize") -> requests.Response:
    return requests.get(url + path, headers={"Authorization": f"Bearer {key}"}, timeout=10)


def evaluation(hub: LocalHub, evaluation_id: str) -> dict[str, Any]:
    return ask(hub.url, path=f"/api/repos/ox/r/evaluations/{evaluation_id}").json()["evaluation"]


@pytest.mark.parametrize(
    ("end", "statuses"),
    [
        ("completed", ["queued", "running", "running", "committing", "completed"]),
        ("errored", ["queued", "running", "running", "running", "errored"]),
        ("cancelled", ["queued", "running", "running", "running", "cancelled"]),
    ],
)
def test_evaluation_goes_through_its_phases(end: Any, statuses: list[str]) -> None:
    """Queued, running with progress, committing where it completes, and its end."""
    scenario = Scenario(end=end, seconds=100, rows=1_000)
    documents = [scenario.document("x", NOW, NOW + timedelta(seconds=at)) for at in (5, 10, 50, 95, 100)]

    assert [document["status"] for document in documents] == statuses
    rows = [document["progress"]["processed"] for document in documents]
    assert rows == sorted(rows)
    assert rows[-1] == (1_000 if end == "completed" else 600)
    assert (documents[-1]["error_message"] is not None) == (end == "errored")
    assert (documents[-1]["completed_at"] is not None) == (end == "completed")
    assert documents[-1]["inserted_at"] == "2026-11-01T10:00:00"


def test_hub_asks_for_the_key_and_counts() -> None:
    """A wrong key is refused in the contract's form; requests are counted by evaluation and kept in order."""
    with LocalHub(api_key="right") as hub:
        evaluation_id = hub.add_evaluation()
        path = f"/api/repos/ox/r/evaluations/{evaluation_id}"
        refused, answered, unknown = (
            ask(hub.url, "wrong", path),
            ask(hub.url, "right", path),
            ask(hub.url, "right", "/api"),
        )

        assert [response.status_code for response in (refused, answered, unknown)] == [401, 200, 404]
        assert refused.json()["status"] == "error"
        assert answered.json()["status"] == "success"
        assert answered.headers["x-oxen-request-id"]
        assert hub.requests_for(evaluation_id) == 2
        assert [request.status_code for request in hub.requests] == [401, 200, 404]


def test_wrong_key_is_refused_wherever_it_is_sent() -> None:
    """The answer to who one is asks for the key as well."""
    with LocalHub(api_key="right") as hub:
        assert [ask(hub.url, key).status_code for key in ("wrong", "right")] == [401, 200]


@pytest.mark.parametrize("wrong", [{"end": "complete"}, {"seconds": "3"}, {"seconds": float("nan")}, {"rows": -1}])
def test_scenario_that_cannot_be_acted_out_is_refused_at_once(wrong: dict[str, Any]) -> None:
    """A slip in a test's scenario is an error in the line that has it, and no evaluation that never ends."""
    with LocalHub() as hub, pytest.raises(ValueError, match=next(iter(wrong))):
        hub.add_evaluation(**wrong)


def test_time_begins_with_the_first_request() -> None:
    """However long ago an evaluation was added, it is queued when it is first asked for."""
    with LocalHub() as hub:
        evaluation_id = hub.add_evaluation(seconds=3_600)

        assert hub.status_of(evaluation_id) is None
        assert evaluation(hub, evaluation_id)["status"] == "queued"
        assert hub.status_of(evaluation_id)["status"] == "queued"


def test_id_may_name_its_own_scenario() -> None:
    """An id such as ``errored-0s`` is an evaluation that ends so after that time."""
    with LocalHub() as hub:
        assert evaluation(hub, "errored-0s-again")["status"] == "errored"
    assert from_evaluation_id("completed-20s") == Scenario(end="completed", seconds=20)
    assert from_evaluation_id("d0c8585d-1234-5678-abcd-ef0123456789") is None


def test_fault_happens_to_the_requests_it_is_for() -> None:
    """A fault counts an evaluation's requests from 1, and passes."""
    with LocalHub() as hub:
        evaluation_id = hub.add_evaluation(faults=(Fault(Respond(503), first=2, count=1),))
        path = f"/api/repos/ox/r/evaluations/{evaluation_id}"

        assert [ask(hub.url, path=path).status_code for _ in range(3)] == [200, 503, 200]


def test_removed_evaluation_is_not_found() -> None:
    """What was removed is answered 404."""
    with LocalHub() as hub:
        evaluation_id = hub.add_evaluation()
        hub.remove_evaluation(evaluation_id)

        assert ask(hub.url, path=f"/api/repos/ox/r/evaluations/{evaluation_id}").status_code == 404


def test_port_in_use_is_an_error_at_once() -> None:
    """A hub whose port is taken fails where it is entered."""
    with LocalHub() as hub, pytest.raises(OSError, match="in use"), LocalHub(port=hub.port):
        pass


@pytest.fixture
def command() -> Iterator[list[subprocess.Popen[str]]]:
    """Collect what a test starts, and end it whatever happens."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_command_runs_a_hub_until_it_is_interrupted(command: list[subprocess.Popen[str]]) -> None:
    """The command prints its address, a connection and the evaluations it was told of, and ends well on SIGTERM."""
    arguments = ["--api-key", "k", "--evaluation", "completed:0", "--evaluation", "errored"]
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_oxen.testing", *arguments], stdout=subprocess.PIPE, text=True
    )
    command.append(process)
    lines = [process.stdout.readline() for _ in range(4)]
    url = lines[0].split()[-1]
    evaluation_id = re.search(r"completed after 0 s: (\S+)", lines[2])[1]

    assert lines[1].startswith("AIRFLOW_CONN_OXEN_DEFAULT=oxen://:k@127.0.0.1:")
    assert "errored after 10 s: " in lines[3]
    answer = ask(url, "k", f"/api/repos/ox/r/evaluations/{evaluation_id}")
    assert answer.json()["evaluation"]["status"] == "completed"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


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
    """An argument that cannot be used, or a port that is taken, ends the command with a line that says so."""
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
    """The fixture's hub is what ``oxen_default`` leads to, for the time of the test."""
    assert json.loads(os.environ["AIRFLOW_CONN_OXEN_DEFAULT"])["host"] == oxen_hub.url
    assert ask(oxen_hub.url, oxen_hub.api_key).json()["user"]["name"] == "Ox"
