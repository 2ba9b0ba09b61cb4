"""The local hub's files: what it serves, what evaluations commit, and what goes wrong with both, over sockets."""

from __future__ import annotations

import socket
import sys
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_oxen.testing import (
    Answers,
    Chain,
    Delay,
    Disconnect,
    Endless,
    Fault,
    LocalHub,
    Meanwhile,
    Respond,
    Scenario,
    Trickle,
    WrongLength,
)
from airflow_provider_oxen.testing.tables import read_rows
from tests.support.sockets import read_to_end
from tests.support.start_schema import MINIMAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "local-hub-key"
FORMATS = ["parquet", "csv", "tsv", "jsonl", "ndjson", "json"]
ROWS = [
    {"id": 1, "text": 'say "no", or\tnot\nat all', "label": "2024-01-01"},
    {"id": 2, "text": "naïve", "label": None},
]

# What is known of the endpoints. Source: the vendor's open-source server.
#: The commit that made this version of a file, in the response that has its bytes.
REVISION = "oxen-revision-id"
#: The name in the address of metadata. The vendor's page says ``metadata``, its server and its client say this.
META, DOCUMENTED_META = "meta", "metadata"
#: The response of a repository that is busy.
BUSY = (429, {"Retry-After": "5"})
ENTRY = {
    "data_type", "extension", "filename", "hash", "is_dir", "latest_commit", "metadata", "mime_type", "resource",
    "size",
}  # fmt: skip
COMMIT = {"id", "author", "email", "message", "timestamp"}
TABLE = {"height", "width", "schema"}


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


def ask(
    hub: LocalHub, rest: str, *, method: str = "GET", repository: str = "ox/r", **options: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {options.pop('key', KEY)}"}
    address = f"{hub.url}/api/repos/{repository}/{rest}"
    return requests.request(method, address, headers=headers, timeout=options.pop("timeout", 10), **options)


def get_file(hub: LocalHub, version: str, path: str) -> requests.Response:
    return ask(hub, f"file/{version}/{path}")


def get_entry(hub: LocalHub, version: str, path: str) -> dict[str, Any]:
    return ask(hub, f"meta/{version}/{path}").json()["entry"]


def rows_at(hub: LocalHub, version: str, path: str) -> list[dict[str, Any]]:
    return read_rows(path, get_file(hub, version, path).content)


def get_evaluation(hub: LocalHub, evaluation_id: str) -> dict[str, Any]:
    return ask(hub, f"evaluations/{evaluation_id}").json()["evaluation"]


def start(hub: LocalHub, target: str = "main/data/customers.csv", **fields: Any) -> dict[str, Any]:
    """Start an evaluation that commits its results, and return it as it is then."""
    started = ask(hub, f"evaluations/{target}", method="POST", json={**MINIMAL, "auto_commit": True, **fields})
    return get_evaluation(hub, started.json()["evaluation"]["id"])


def get_bytes(hub: LocalHub, path: str, *, wait: float = 5.0, method: str = "GET") -> tuple[bytes, bytes, str]:
    """Ask for a file of the branch main over a socket. Return head, body, and how it ended, as ``read_to_end`` does."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=wait) as client:
        client.sendall(
            f"{method} /api/repos/ox/r/file/main/{path} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {KEY}\r\n"
            "\r\n".encode()
        )
        received, ending = read_to_end(client)
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, ending


# Files


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_served_in_the_format_of_the_suffix(hub: LocalHub, suffix: str) -> None:
    """Rows come back as they were added, by branch and by commit; CSV and TSV know text alone."""
    path = f"data/deep/er/a.{suffix}"
    commit = hub.add_file("ox", "r", path, ROWS)

    expected: list[dict[str, Any]] = ROWS
    if suffix in ("csv", "tsv"):
        expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in ROWS]
    assert rows_at(hub, "main", path) == rows_at(hub, commit, path) == expected


@pytest.mark.parametrize("suffix", FORMATS)
def test_metadata_describes_a_table(hub: LocalHub, suffix: str) -> None:
    """Metadata has the fields of the contract, and of a table its rows and columns; the size is the file's."""
    path = f"data/a.{suffix}"
    commit = hub.add_file("ox", "r", path, ROWS)

    document, content = ask(hub, f"{META}/main/{path}").json(), get_file(hub, "main", path)
    entry = document["entry"]
    table = entry["metadata"]["tabular"]
    assert (document["status"], document["status_message"]) == ("success", "resource_found")
    assert (set(entry), set(entry["latest_commit"]), set(table)) == (ENTRY, COMMIT, TABLE)
    assert (table["height"], table["width"]) == (2, 3)
    assert [field["name"] for field in table["schema"]["fields"]] == ["id", "text", "label"]
    assert entry["size"] == len(content.content)
    assert (entry["filename"], entry["extension"], entry["is_dir"]) == (f"a.{suffix}", suffix, False)
    assert entry["resource"] == {"path": path, "version": "main"}
    assert entry["latest_commit"]["id"] == content.headers[REVISION] == commit
    assert entry["mime_type"] == content.headers["Content-Type"]


def test_file_that_is_no_table_has_no_rows(hub: LocalHub) -> None:
    """Bytes are served as they are; what cannot be read as a table has metadata without one."""
    for path, content in (
        ("a.bin", b"\x00\xff"),
        ("broken.parquet", b"PAR1"),
        ("broken.json", b"{"),
        ("a.csv", b"\xff"),
    ):
        hub.add_file("ox", "r", path, content)

        assert get_file(hub, "main", path).content == content
        entry = get_entry(hub, "main", path)
        assert (entry["size"], entry["metadata"], entry["data_type"]) == (len(content), None, "binary")


def test_head_has_the_headers_and_no_body(hub: LocalHub, tmp_path: Path) -> None:
    """HEAD has the length and the commit of the file, whether it is in memory or on the disk."""
    (tmp_path / "a.csv").write_bytes(b"id\n1\n")
    for content in (b"id\n1\n", tmp_path / "a.csv"):
        commit = hub.add_file("ox", "r", "a.csv", content)

        head, got = ask(hub, "file/main/a.csv", method="HEAD"), get_file(hub, "main", "a.csv")
        assert (head.status_code, head.content, got.content) == (200, b"", b"id\n1\n")
        for name in ("Content-Length", "Content-Type", REVISION):
            assert head.headers[name] == got.headers[name]
        assert (head.headers["Content-Length"], head.headers[REVISION]) == ("5", commit)


def test_commits_keep_what_they_had(hub: LocalHub) -> None:
    """A new version is a new commit: the branch has it, the old commit has the old one, other files stay."""
    first = hub.add_file("ox", "r", "a.csv", b"1")
    other = hub.add_file("ox", "r", "b.csv", b"2")
    second = hub.add_file("ox", "r", "a.csv", b"3")

    assert len({first, other, second}) == 3
    assert [get_file(hub, at, "a.csv").content for at in (first, other, second, "main")] == [b"1", b"1", b"3", b"3"]
    assert get_file(hub, first, "b.csv").status_code == 404
    # The commit is the one that made this version of the file, not the head of the branch.
    assert get_entry(hub, "main", "b.csv")["latest_commit"]["id"] == other
    assert get_file(hub, second, "b.csv").headers[REVISION] == other
    assert get_entry(hub, other, "a.csv")["hash"] != get_entry(hub, second, "a.csv")["hash"]


def test_branches_and_repositories_are_apart(hub: LocalHub) -> None:
    """A branch has its own files, besides those of main from before; another repository has none of them."""
    hub.add_file("ox", "r", "a.csv", b"1")
    hub.add_file("ox", "r", "b.csv", b"2", branch="eval")
    hub.add_file("ox", "r", "a.csv", b"3")

    assert [get_file(hub, at, "a.csv").content for at in ("eval", "main")] == [b"1", b"3"]
    assert [get_file(hub, at, "b.csv").status_code for at in ("eval", "main")] == [200, 404]
    assert ask(hub, "file/main/a.csv", repository="ox/other").status_code == 404


def test_longest_branch_that_matches_counts(hub: LocalHub) -> None:
    """Branch names may have slashes, and need not be listed in ``branches``."""
    hub.add_file("ox", "r", "first/a.csv", b"short", branch="eval")
    hub.add_file("ox", "r", "a.csv", b"long", branch="eval/first")

    assert get_file(hub, "eval/first", "a.csv").content == b"long"
    assert get_entry(hub, "eval/first", "a.csv")["resource"] == {"path": "a.csv", "version": "eval/first"}


def test_names_are_decoded(hub: LocalHub) -> None:
    """A path may have any characters; those of an address that have a meaning are percent-encoded."""
    hub.add_file("ox", "r", "data/100 % größe?#+.csv", b"1")

    assert ask(hub, "file/main/data/100%20%25%20gr%C3%B6%C3%9Fe%3F%23+.csv").content == b"1"


@pytest.mark.parametrize(
    "rest",
    ["main/b.csv", "other/data/a.csv", "main/data", "main", "main/", "main/data%2Fa.csv", "main/data/../data/a.csv"],
)
@pytest.mark.parametrize("kind", ["file", META])
def test_what_is_not_there_is_404(hub: LocalHub, kind: str, rest: str) -> None:
    """A file or version that does not exist, a folder, and what can be no name: the hub's own 404."""
    hub.add_file("ox", "r", "data/a.csv", b"1")

    request = requests.Request("GET", hub.url, headers={"Authorization": f"Bearer {KEY}"}).prepare()
    request.url = f"{hub.url}/api/repos/ox/r/{kind}/{rest}"  # as it is: a client would resolve the dots
    response = requests.Session().send(request, timeout=10)
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "resource_not_found"


def test_address_that_is_documented_is_not_served(hub: LocalHub) -> None:
    """The vendor's page has another address for metadata than its server: the hub is like the server."""
    hub.add_file("ox", "r", "a.csv", b"1")

    assert [ask(hub, f"{kind}/main/a.csv").status_code for kind in (META, DOCUMENTED_META)] == [200, 404]


@pytest.mark.parametrize("missing", ["ox", "ox/r", "ox/r/main", "ox/r/main/data", "ox/r/main/data/a.csv"])
def test_what_is_set_as_missing_is_404(hub: LocalHub, missing: str) -> None:
    """``missing`` holds for files, too."""
    hub.add_file("ox", "r", "data/a.csv", b"1")
    hub.missing = {missing}

    assert [ask(hub, f"{kind}/main/data/a.csv").status_code for kind in ("file", "meta")] == [404, 404]


@pytest.mark.parametrize(("method", "kind"), [("GET", "file"), ("HEAD", "file"), ("GET", META)])
def test_wrong_key_is_refused(hub: LocalHub, method: str, kind: str) -> None:
    """Files are for those with the key."""
    hub.add_file("ox", "r", "a.csv", b"1")

    assert ask(hub, f"{kind}/main/a.csv", method=method, key="wrong").status_code == 401


def test_requests_for_files_are_listed(hub: LocalHub) -> None:
    """``requests`` has them with method, path and status code."""
    hub.add_file("ox", "r", "a.csv", b"1")
    ask(hub, "file/main/a.csv", method="HEAD")
    ask(hub, "meta/main/b.csv")

    found = [(request.method, request.path, request.status_code) for request in hub.requests]
    assert found == [("HEAD", "/api/repos/ox/r/file/main/a.csv", 200), ("GET", "/api/repos/ox/r/meta/main/b.csv", 404)]


def test_file_on_the_disk_is_not_loaded(hub: LocalHub, tmp_path: Path) -> None:
    """A large file is read while it is sent, and counted and hashed without being held in memory."""
    path = tmp_path / "large.csv"
    path.write_bytes(b"id,text\n" + (b"1," + b"text " * 200 + b"\n") * 20_000)
    hub.add_file("ox", "r", "a.csv", path)

    tracemalloc.start()
    try:
        with ask(hub, "file/main/a.csv", stream=True) as response:
            received = sum(len(piece) for piece in response.iter_content(64 * 1024))
        entry = get_entry(hub, "main", "a.csv")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == entry["size"] == path.stat().st_size > 20_000_000
    assert entry["metadata"]["tabular"]["height"] == 20_000
    assert peak < 4_000_000


def test_file_that_cannot_be_added_is_refused_at_once(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is not on the disk, a format that has no rows, and Parquet without DuckDB: the error says why."""
    with pytest.raises(ValueError, match=r"there is no file .*none\.csv"):
        hub.add_file("ox", "r", "a.csv", tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"parquet, csv, tsv, jsonl, ndjson, json, but the path is 'a\.txt'"):
        hub.add_file("ox", "r", "a.txt", ROWS)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "airflow-provider-oxen\[results\]"'):
        hub.add_file("ox", "r", "a.parquet", ROWS)


def test_bytes_of_parquet_need_no_duckdb(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, they are served, and their metadata has no table."""
    hub.add_file("ox", "r", "a.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "duckdb", None)

    assert get_file(hub, "main", "a.parquet").content.startswith(b"PAR1")
    assert get_entry(hub, "main", "a.parquet")["metadata"] is None


# Results


@pytest.mark.parametrize("suffix", FORMATS)
def test_completed_evaluation_commits_its_results(hub: LocalHub, suffix: str) -> None:
    """The file has a row for each of the source's, with one column more; ``closing_commit`` is its commit."""
    path = f"data/intents.{suffix}"
    answers = Answers(right=0.84, wrong=0.12, missing=0.04)
    evaluation_id = hub.add_evaluation(seconds=0, rows=200, answers=answers, fields={"target_path": path})
    evaluation = get_evaluation(hub, evaluation_id)

    commit = evaluation["closing_commit"]["id"]
    rows = rows_at(hub, commit, path)
    assert [list(row) for row in rows] == [["id", "text", "label", "intent"]] * 200
    found = Counter("missing" if row["intent"] in ("", None) else row["intent"] == row["label"] for row in rows)
    assert found == {True: 168, False: 24, "missing": 8}
    assert rows_at(hub, "main", path) == rows
    entry = get_entry(hub, "main", path)
    assert (entry["latest_commit"]["id"], entry["metadata"]["tabular"]["height"]) == (commit, 200)


def test_answers_of_a_function_are_about_the_source(hub: LocalHub) -> None:
    """A function gets each row of the source that was added."""
    hub.add_file("ox", "r", "data/customers.parquet", ROWS)
    evaluation_id = hub.add_evaluation(seconds=0, answers=lambda row: row["id"] * 10)
    commit = get_evaluation(hub, evaluation_id)["closing_commit"]["id"]

    assert rows_at(hub, commit, "data/intents.parquet") == [{**row, "intent": row["id"] * 10} for row in ROWS]


def test_answers_are_right_by_default(hub: LocalHub) -> None:
    """Without ``answers``, they are the labels, or a text where the source has none."""
    commit = get_evaluation(hub, hub.add_evaluation(seconds=0, rows=3))["closing_commit"]["id"]
    rows = rows_at(hub, commit, "data/intents.parquet")
    assert [row["intent"] for row in rows] == [row["label"] for row in rows]

    hub.add_file("ox", "r", "data/customers.parquet", [{"id": 1}])
    commit = get_evaluation(hub, hub.add_evaluation(seconds=0))["closing_commit"]["id"]
    assert rows_at(hub, commit, "data/intents.parquet") == [{"id": 1, "intent": "an answer"}]


def test_source_is_where_the_evaluation_says(hub: LocalHub) -> None:
    """The source that the hub made, or found on main, is at the commit that the evaluation names as its source's."""
    for rows in (3, 4):  # the newest evaluation's
        evaluation = get_evaluation(hub, hub.add_evaluation(seconds=0, rows=rows))
        for version in (evaluation["resource"]["version"], evaluation["commit_id"]):
            entry = get_entry(hub, version, evaluation["resource"]["path"])
            assert entry["metadata"]["tabular"]["height"] == rows

    hub.add_file("ox", "r", "data/customers.parquet", ROWS)
    evaluation = get_evaluation(hub, hub.add_evaluation(seconds=0, rows=3))
    assert rows_at(hub, evaluation["commit_id"], "data/customers.parquet") == ROWS


@pytest.mark.parametrize(("scenario", "polls"), [({"end": "errored", "seconds": 0}, 1), ({"seconds": 60}, 1), ({}, 0)])
def test_nothing_is_committed_before_an_evaluation_completes(
    hub: LocalHub, scenario: dict[str, Any], polls: int
) -> None:
    """One that errored, one that runs, and one whose time has not begun have no results."""
    evaluation_id = hub.add_evaluation(**scenario)
    for _ in range(polls):
        get_evaluation(hub, evaluation_id)

    assert get_file(hub, "main", "data/intents.parquet").status_code == 404


def test_results_come_as_time_goes_by(hub: LocalHub) -> None:
    """An evaluation commits when its time is over, also if nothing asks for it then."""
    get_evaluation(hub, hub.add_evaluation(seconds=1, fields={"target_path": "a.csv"}))
    assert get_file(hub, "main", "a.csv").status_code == 404
    time.sleep(1.1)
    assert get_file(hub, "main", "a.csv").status_code == 200


def test_started_evaluation_commits_where_it_was_told_to(hub: LocalHub) -> None:
    """A new target branch has the source branch's files besides; the source branch has no results."""
    hub.add_file("ox", "r", "data/customers.csv", [{"id": "1", "label": "x"}])
    hub.add_file("ox", "r", "readme.txt", b"hello")
    hub.on_start = Scenario(seconds=0, answers=lambda row: row["label"].upper())

    evaluation = start(hub, target_branch="eval/first", target_path="out/intents.jsonl", target_column="intent")

    expected = [{"id": "1", "label": "x", "intent": "X"}]
    for version in ("eval/first", evaluation["closing_commit"]["id"]):
        assert rows_at(hub, version, "out/intents.jsonl") == expected
        assert get_file(hub, version, "readme.txt").content == b"hello"
    assert get_file(hub, "main", "out/intents.jsonl").status_code == 404
    assert ask(hub, "file/eval/first/out/intents.jsonl", repository="ox/other").status_code == 404


def test_results_replace_the_source_by_default(hub: LocalHub) -> None:
    """Without target, they are the next version of the source; the commit before has the source alone."""
    before = hub.add_file("ox", "r", "data/customers.csv", [{"id": "1", "label": "x"}])
    hub.on_start = Scenario(seconds=0)
    evaluation = start(hub, target_column="intent")

    assert rows_at(hub, before, "data/customers.csv") == [{"id": "1", "label": "x"}]
    assert rows_at(hub, "main", "data/customers.csv") == [{"id": "1", "label": "x", "intent": "x"}]
    assert get_entry(hub, "main", "data/customers.csv")["latest_commit"]["id"] == evaluation["closing_commit"]["id"]


def test_source_of_a_started_evaluation_is_made_if_there_is_none(hub: LocalHub) -> None:
    """As every file exists for a request to start one, the hub makes the source, on its branch."""
    hub.on_start = Scenario(seconds=0, rows=5)
    start(hub, target_path="out.csv")

    assert [len(rows_at(hub, "main", path)) for path in ("data/customers.csv", "out.csv")] == [5, 5]


def test_sample_has_the_first_rows(hub: LocalHub) -> None:
    """A sample answers ``sample_count`` rows, the first ones, and commits no others."""
    hub.add_file("ox", "r", "data/customers.csv", [{"id": str(number)} for number in range(5)])
    hub.on_start = Scenario(seconds=0)
    start(hub, target_path="out.csv", is_sample=True, sample_count=2)

    assert [row["id"] for row in rows_at(hub, "main", "out.csv")] == ["0", "1"]


def test_nothing_is_committed_without_auto_commit(hub: LocalHub) -> None:
    """It completes, and the file stays as it was."""
    commit = hub.add_file("ox", "r", "data/customers.csv", [{"id": "1"}])
    hub.on_start = Scenario(seconds=0)
    evaluation = start(hub, auto_commit=False)

    assert (evaluation["status"], evaluation["closing_commit"]) == ("completed", None)
    assert get_file(hub, "main", "data/customers.csv").headers[REVISION] == commit


def test_form_of_2024_commits_too(hub: LocalHub) -> None:
    """Its results go to the source's path on its target branch; the source is on a branch."""
    evaluation = get_evaluation(hub, hub.add_evaluation(seconds=0, rows=3, form="2024"))

    assert evaluation["target_path"] is None
    for version in (evaluation["target_branch"], evaluation["closing_commit"]["id"]):
        assert "intent" in rows_at(hub, version, "data.parquet")[0]
    for version in ("main", evaluation["commit_id"]):
        assert list(rows_at(hub, version, "data.parquet")[0]) == ["id", "text", "label"]


def test_commit_that_is_not_reported_is_in_the_metadata(hub: LocalHub) -> None:
    """An evaluation without ``closing_commit`` has committed all the same."""
    get_evaluation(hub, hub.add_evaluation(seconds=0, fields={"closing_commit": None}))

    commit = get_entry(hub, "main", "data/intents.parquet")["latest_commit"]["id"]
    assert get_file(hub, commit, "data/intents.parquet").headers[REVISION] == commit


def test_commit_of_ones_own_may_hold_the_results(hub: LocalHub) -> None:
    """A scenario may name a commit that was added: it is left as it is."""
    commit = hub.add_file("ox", "r", "data/intents.parquet", b"mine")
    evaluation_id = hub.add_evaluation(seconds=0, fields={"closing_commit": {"id": commit}})

    assert get_evaluation(hub, evaluation_id)["closing_commit"]["id"] == commit
    assert [get_file(hub, at, "data/intents.parquet").content for at in (commit, "main")] == [b"mine", b"mine"]


def test_commits_come_in_the_order_of_their_ends(hub: LocalHub) -> None:
    """The branch has what completed last; what is added after that replaces it."""
    late = hub.add_evaluation(seconds=1, answers=lambda _: "late", rows=1)
    early = hub.add_evaluation(seconds=0, answers=lambda _: "early", rows=1)
    for evaluation_id in (late, early):
        get_evaluation(hub, evaluation_id)
    time.sleep(1.1)
    commits = {name: get_evaluation(hub, name)["closing_commit"]["id"] for name in (late, early)}

    path = "data/intents.parquet"
    found = {at: rows_at(hub, at, path)[0]["intent"] for at in ("main", commits[late], commits[early])}
    assert found == {"main": "late", commits[late]: "late", commits[early]: "early"}
    hub.add_file("ox", "r", path, b"newer")
    assert get_file(hub, "main", path).content == b"newer"


def test_evaluation_that_is_added_again_commits_again(hub: LocalHub) -> None:
    """Its results are those of the new scenario, also at its commit."""
    for answer in ("first", "second"):
        evaluation_id = hub.add_evaluation("again", seconds=0, rows=1, answers=lambda _, answer=answer: answer)
        commit = get_evaluation(hub, evaluation_id)["closing_commit"]["id"]
        for version in (commit, "main"):
            assert rows_at(hub, version, "data/intents.parquet")[0]["intent"] == answer


def test_evaluation_without_a_source_commits_nothing(hub: LocalHub) -> None:
    """Fields that leave the source out break no request for a file."""
    hub.add_file("ox", "r", "a.csv", b"1")
    get_evaluation(hub, hub.add_evaluation(seconds=0, answers=Answers(), fields={"resource": None}))

    assert get_file(hub, "main", "a.csv").content == b"1"


def test_answers_that_cannot_be_given_are_refused_at_once(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answers, shares that are none, a target that has no rows, and Parquet without DuckDB."""
    with pytest.raises(ValueError, match=r"answers must be Answers\(…\) or a function of a row, but is 0\.84"):
        hub.add_evaluation(answers=0.84)
    with pytest.raises(ValueError, match=r"answers must be"):
        hub.add_evaluation(answers=Answers)
    with pytest.raises(ValueError, match=r"add up to 1, but are \(0\.84, 0\.0, 0\.0\)"):
        Answers(right=0.84)
    with pytest.raises(ValueError, match=r"but the path is 'a\.txt'"):
        hub.add_evaluation(answers=Answers(), fields={"target_path": "a.txt"})
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ModuleNotFoundError, match="results"):
        hub.add_evaluation(answers=Answers())
    hub.add_evaluation()  # whose results are perhaps not looked at


# Faults


@pytest.fixture(params=["memory", "disk"])
def served(request: pytest.FixtureRequest, hub: LocalHub, tmp_path: Path) -> bytes:
    """A file ``a.csv`` of 1,000 bytes on the branch main, added as bytes and as a path."""
    content = b"x" * 999 + b"\n"
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    hub.add_file("ox", "r", "a.csv", content if request.param == "memory" else path)
    return content


def test_busy_repository_says_when_to_come_back(hub: LocalHub, served: bytes) -> None:
    """The response to the first request is 429, as the vendor's server sends it."""
    hub.file_faults = [Fault(Respond(BUSY[0], headers=BUSY[1]), count=1)]

    first, second = get_file(hub, "main", "a.csv"), get_file(hub, "main", "a.csv")
    assert (first.status_code, first.headers["Retry-After"]) == (429, "5")
    assert second.content == served


def test_file_is_cut_off(hub: LocalHub, served: bytes) -> None:
    """Half of the file comes, with the length of all of it."""
    for reset, expected in ((False, "closed"), (True, "reset")):
        hub.file_faults = [Fault(Disconnect("middle", reset=reset))]
        head, body, ending = get_bytes(hub, "a.csv")

        assert b"Content-Length: 1000" in head
        assert (body, ending) == (served[:500], expected)


def test_file_comes_slowly(hub: LocalHub, served: bytes) -> None:
    """Late, or byte by byte; and the file is whole."""
    began = time.monotonic()
    hub.file_faults = [Fault(Chain(Delay(0.1), Trickle(0.0001)))]
    assert get_file(hub, "main", "a.csv").content == served
    assert time.monotonic() - began > 0.2


def test_length_is_too_long(hub: LocalHub, served: bytes) -> None:
    """The connection is closed before all came that was announced."""
    hub.file_faults = [Fault(WrongLength(10))]
    head, body, ending = get_bytes(hub, "a.csv")

    assert b"Content-Length: 1010" in head
    assert (body, ending) == (served, "closed")


def test_length_is_too_short(hub: LocalHub, served: bytes) -> None:
    """The end of the file is missing, and nothing but its metadata shows it."""
    hub.file_faults = [Fault(WrongLength(-10))]
    response = get_file(hub, "main", "a.csv")

    assert (response.content, response.headers["Content-Length"]) == (served[:990], "990")
    assert get_entry(hub, "main", "a.csv")["size"] == 1000


def test_length_is_not_sent(hub: LocalHub, served: bytes) -> None:
    """The file comes whole, in chunks."""
    hub.file_faults = [Fault(WrongLength(None))]
    response = get_file(hub, "main", "a.csv")

    assert response.content == served
    assert "Content-Length" not in response.headers


def test_endless_file_ends_when_the_client_leaves(hub: LocalHub, served: bytes) -> None:
    """More comes than the file has, without a length, and the hub serves others after that."""
    hub.file_faults = [Fault(Endless())]
    with ask(hub, "file/main/a.csv", stream=True) as response:
        received = response.raw.read(100_000)
    assert (received, "Content-Length" in response.headers) == (served * 100, False)
    deadline = time.monotonic() + 5
    while hub.connections_open and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hub.connections_open == 0
    hub.file_faults = []
    assert get_file(hub, "main", "a.csv").content == served


@pytest.mark.parametrize("effect", [Endless(), Trickle(0.001), WrongLength(None), Delay(0.01)], ids=str)
def test_head_has_no_body_whatever_goes_wrong(hub: LocalHub, served: bytes, effect: Any) -> None:
    """The client gets the headers, and can use the connection again."""
    hub.file_faults = [Fault(effect, count=1)]
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {KEY}"
        address = f"{hub.url}/api/repos/ox/r/file/main/a.csv"
        assert session.head(address, timeout=10).content == b""
        assert session.get(address, timeout=10).content == served
    assert hub.connections_opened == 1


def test_another_commit_comes_meanwhile(hub: LocalHub) -> None:
    """Between the metadata and the file, the branch moves on; the commit that the metadata names does not."""
    first = hub.add_file("ox", "r", "a.csv", b"1")
    hub.meta_faults = [Fault(Meanwhile(lambda: hub.add_file("ox", "r", "a.csv", b"2")), count=1)]

    told = get_entry(hub, "main", "a.csv")["latest_commit"]["id"]
    assert told == first
    assert [get_file(hub, at, "a.csv").content for at in ("main", told)] == [b"2", b"1"]


def test_faults_are_counted_by_kind_from_when_they_are_set(hub: LocalHub) -> None:
    """HEAD and GET of files count together, requests for metadata apart, and both from 1 again if set again."""
    hub.add_file("ox", "r", "a.csv", b"1")
    get_file(hub, "main", "a.csv")
    hub.file_faults = [Fault(Respond(503), first=2, count=1)]
    hub.meta_faults = [Fault(Respond(502), first=1, count=1)]

    codes = [
        ask(hub, f"{kind}/main/a.csv", method=method).status_code
        for method, kind in (("HEAD", "file"), ("GET", "meta"), ("GET", "file"), ("GET", "meta"), ("GET", "file"))
    ]
    assert codes == [200, 502, 503, 200, 200]
    assert [len(faults) for faults in (hub.file_faults, hub.meta_faults, hub.start_faults)] == [1, 1, 0]


@pytest.mark.parametrize("name", ["file_faults", "meta_faults"])
def test_faults_that_are_none_are_refused(hub: LocalHub, name: str) -> None:
    """The error names the attribute."""
    with pytest.raises(ValueError, match=f"{name} must be a list or tuple of Fault"):
        setattr(hub, name, Fault(Respond(503)))
