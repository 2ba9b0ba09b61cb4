"""The local hub's pages: what tasks link to, and what a person sees there."""

from __future__ import annotations

import re
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
import requests

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.links.addresses import evaluation_url, repository_url, results_url, source_url
from airflow_provider_oxen.testing import LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub(pages=True) as hub:
        yield hub


def _page(address: str, status_code: int = 200) -> str:
    response = requests.get(address, timeout=10)
    assert response.status_code == status_code, response.text
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    return response.text


def _ask(hub: LocalHub, evaluation_id: str) -> None:
    address = f"{hub.url}/api/repos/ox/r/evaluations/{evaluation_id}"
    assert requests.get(address, headers={"Authorization": f"Bearer {hub.api_key}"}, timeout=10).status_code == 200


@pytest.mark.parametrize("written", ["connection_uri", "connection_json"])
def test_every_link_of_a_task_opens(hub: LocalHub, written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the links module makes of the hub's address, from either form of its connection, is a page there."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", getattr(hub, written))
    ref = EvaluationRef("ox", "customer-intents", hub.add_evaluation("größe", seconds=0, rows=250))
    evaluation = OxenHook().get_evaluation(ref.namespace, ref.repo_name, ref.evaluation_id)

    about = _page(evaluation_url(ref, hub.url))
    assert "<h1>Evaluation größe</h1>" in about
    assert "<strong>completed</strong>, 250 of 250 rows" in about
    assert "Local model" in about
    assert "<p>The first 100 rows</p>" in _page(source_url(ref, evaluation, hub.url))
    results = _page(results_url(ref, evaluation, hub.url))
    assert "<th>intent</th>" in results
    assert results.count("<tr>") == 101
    assert ">größe</a>" in _page(repository_url(ref.namespace, ref.repo_name, hub.url))


def test_pages_link_to_each_other(hub: LocalHub) -> None:
    """From the repository to an evaluation, and from there to its results."""
    hub.branches.add("eval/first")
    hub.add_evaluation("e-1", seconds=0, fields={"target_branch": "eval/first"})
    _ask(hub, "e-1")
    address = f"{hub.url}/ox/r"
    for words in ("e-1", r"[0-9a-f]{16}/data/intents.parquet"):
        address = urljoin(address, re.search(rf'href="([^"]+)">{words}</a>', _page(address))[1])

    assert "Results of evaluation e-1" in _page(address)


def test_page_follows_an_evaluation_and_does_not_begin_its_time(hub: LocalHub) -> None:
    """A look at the page is no request for the evaluation. The page loads again until it has ended."""
    hub.add_evaluation("e-1", end="errored", seconds=0, error_message=HOSTILE)
    again = '<meta http-equiv="refresh" content="2">'

    before = _page(f"{hub.url}/ox/r/evaluations/e-1")
    assert "Its time begins with the first request for it." in before
    assert again in before
    assert (hub.requests, hub.status_of("e-1")) == ([], None)

    _ask(hub, "e-1")
    ended = _page(f"{hub.url}/ox/r/evaluations/e-1")
    assert "<strong>errored</strong>" in ended
    assert again not in ended
    assert HOSTILE not in ended
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in ended
    assert len(hub.requests) == 1


def test_files_are_shown_and_never_run(hub: LocalHub) -> None:
    """Cells and other files are text on the page. An empty cell is empty."""
    hub.add_file("ox", "r", "a.csv", [{"text": HOSTILE, "label": None}], branch="eval/first")
    hub.add_file("ox", "r", "notes.txt", HOSTILE.encode())

    table, text = _page(f"{hub.url}/ox/r/file/eval%2Ffirst/a.csv"), _page(f"{hub.url}/ox/r/file/main/notes.txt")

    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td></td>" in table
    assert "<pre>&lt;script&gt;alert(1)&lt;/script&gt;</pre>" in text
    assert HOSTILE not in table + text


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("a.csv", b"text\n" + b"x\n" * 200, "The first 100 rows"),
        ("a.csv", b"text\n" + b"x\n" * 100, "100 rows"),
        ("a.csv", b"a\n1,2,3\n", "<tr><th>a</th></tr>"),
        ("a.csv", b"a\n" + b"x" * 200_000, "The first 10,000 bytes"),
        ("a.jsonl", b'{"x": 3}\n\n{"items": 1, "x": null}\n', "<tr><td></td><td>1</td></tr>"),
        ("a.json", b"[" * 100_000, "The first 10,000 bytes"),
        ("a.json", b'[{"text": "\\ud800"}]', "<td>?</td>"),
        ("a.parquet", b"PAR1 none", "9 bytes"),
        ("a.txt", "é".encode() * 10, "20 bytes"),
    ],
)
def test_every_file_has_a_page(hub: LocalHub, path: str, content: bytes, words: str) -> None:
    """Whatever is in it: its first rows, or its first bytes."""
    hub.add_file("ox", "r", path, content)

    assert words in _page(f"{hub.url}/ox/r/file/main/{path}")


def test_large_file_is_not_read_whole(hub: LocalHub, tmp_path: Path) -> None:
    """The hub has other requests, too, while it makes a page."""
    file = tmp_path / "a.csv"
    file.write_bytes(b"text\n" + b"some words\n" * 3_000_000)
    hub.add_file("ox", "r", "a.csv", file)

    tracemalloc.start()
    try:
        assert "The first 100 rows" in _page(f"{hub.url}/ox/r/file/main/a.csv")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("without", ["duckdb", "file"])
def test_file_that_cannot_be_read_has_a_page_that_says_why(
    hub: LocalHub, tmp_path: Path, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB is in an extra, and a file on this machine may be gone."""
    if without == "duckdb":
        monkeypatch.setitem(sys.modules, "duckdb", None)
        _ask(hub, "completed-0s")
        address, words = "0123456789abcdef/data/customers.parquet", "airflow-provider-oxen[results]"
    else:
        file = tmp_path / "a.csv"
        file.touch()
        hub.add_file("ox", "r", "a.csv", file)
        file.unlink()
        address, words = "main/a.csv", "No such file"

    page = _page(f"{hub.url}/ox/r/file/{address}")

    assert "The file cannot be shown: " in page
    assert words in page


@pytest.mark.parametrize(
    "fields",
    [
        {"progress": None},
        {"progress": 5, "resource": "x", "closing_commit": 5, "model": None, "name": None},
        {"resource": {"path": ["a"], "version": 7}, "closing_commit": {"id": 7}, "prompt": "a\ud800b"},
        {"status": None, "model": ["m"], "target_path": ["x"]},
    ],
)
def test_evaluation_with_odd_fields_has_a_page(hub: LocalHub, fields: dict[str, Any]) -> None:
    """What its fields do not say is left out."""
    hub.add_evaluation("e-1", fields=fields)
    _ask(hub, "e-1")

    page = _page(f"{hub.url}/ox/r/evaluations/e-1")

    assert "<h1>Evaluation e-1</h1>" in page
    assert "None" not in page.replace("<strong>None</strong>", "")
    _page(f"{hub.url}/ox/r")


def test_address_that_the_command_prints_is_a_page(hub: LocalHub) -> None:
    """It leads to the page of a repository. A slash at the end changes nothing."""
    page = _page(hub.url)

    assert page == _page(f"{hub.url}/")
    found = _page(re.search(r'href="(http[^"]+)"', page)[1])
    assert "ox/customer-intents" in found
    assert _page(f"{hub.url}/ox/customer-intents/") == found


def test_what_is_missing_has_no_page(hub: LocalHub) -> None:
    """As for the API. An address of the API that is none is no page, either."""
    hub.missing = {"ox/gone"}

    _page(f"{hub.url}/ox/gone", 404)
    _page(f"{hub.url}/ox/gone/evaluations/completed-0s", 404)
    assert hub.requests == []
    assert requests.get(f"{hub.url}/api/repositories", timeout=10).headers["Content-Type"] == "application/json"
    assert len(hub.requests) == 1


@pytest.mark.parametrize("place", ["evaluations/unknown", "file/main/data/unknown.csv", "file/unknown/a.csv"])
def test_what_is_not_there_is_not_found(hub: LocalHub, place: str) -> None:
    """A page says so, and when there may be one."""
    assert "There is no such evaluation or file." in _page(f"{hub.url}/ox/r/{place}", 404)


def test_evaluation_is_shown_in_its_own_repository_only(hub: LocalHub) -> None:
    """One that was started belongs to the repository that it was started in."""
    body = {"prompt": "p", "input_type": "text", "output_type": "text", "model_id": "m", "target_column": "c"}
    started = requests.post(
        f"{hub.url}/api/repos/ox/r/evaluations/main/a.csv",
        json=body,
        headers={"Authorization": f"Bearer {hub.api_key}"},
        timeout=10,
    ).json()["evaluation"]

    assert started["id"] in _page(f"{hub.url}/ox/r")
    assert "queued" in _page(f"{hub.url}/ox/r/evaluations/{started['id']}")
    assert "No evaluation has been asked for yet." in _page(f"{hub.url}/ox/other")
    _page(f"{hub.url}/ox/other/evaluations/{started['id']}", 404)


def test_hub_without_pages_has_none() -> None:
    """Its address says so, and it responds as ever."""
    with LocalHub() as hub:
        ref = EvaluationRef("ox", "r", "completed-0s")

        assert evaluation_url(ref, hub.url) is None
        assert requests.get(f"{hub.url}/local-hub/ox/r", timeout=10).status_code == 404


def test_hub_with_pages_has_the_api_without_them_too(hub: LocalHub) -> None:
    """A connection to its port alone works, and links nowhere."""
    headers, place = {"Authorization": f"Bearer {hub.api_key}"}, "/api/repos/ox/r/evaluations/completed-0s"

    for address in (hub.url, f"http://127.0.0.1:{hub.port}"):
        response = requests.get(address + place, headers=headers, timeout=10)
        assert response.json()["evaluation"]["status"] == "completed"
