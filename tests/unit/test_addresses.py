"""Every address that a person can open."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.links.addresses import evaluation_url, results_url, source_url

REF = EvaluationRef("ox", "customer-intents", "e-1")
HUB = "https://hub.oxen.ai"
FILE = "https://www.oxen.ai/ox/customer-intents/file"
OTHER_HUBS = [
    *(None, "", "http://hub.oxen.ai", "https://dev.hub.oxen.ai", "https://hub.oxen.ai/prefix"),
    *("http://127.0.0.1:8765", "https://127.0.0.1:8765/local-hub", "http://hub.example/local-hub"),
]


def _seen(**fields: Any) -> Evaluation:
    return Evaluation.from_dict({"id": "e-1", "status": "running", **fields})


def _source(path: Any, version: Any, hub: str | None = HUB) -> str | None:
    return source_url(REF, _seen(resource={"path": path, "version": version}), hub)


def _results(path: Any, branch: Any) -> str | None:
    return results_url(REF, _seen(target_path=path, target_branch=branch), HUB)


def test_page_of_the_evaluation() -> None:
    """The evaluation's own page is below its repository's."""
    assert evaluation_url(REF, HUB) == "https://www.oxen.ai/ox/customer-intents/evaluations/e-1"


@pytest.mark.parametrize("hub", OTHER_HUBS)
def test_pages_of_another_hub_are_not_made_up(hub: str | None) -> None:
    """Where it has any is not known."""
    evaluation = _seen(resource={"path": "a.csv", "version": "main"}, target_branch="main")

    assert evaluation_url(REF, hub) is None
    assert source_url(REF, evaluation, hub) is None
    assert results_url(REF, evaluation, hub) is None


def test_local_hub_with_pages_has_them_below_its_address() -> None:
    """The end of its address says that it has pages."""
    assert evaluation_url(REF, "http://127.0.0.1:8765/local-hub") == (
        "http://127.0.0.1:8765/local-hub/ox/customer-intents/evaluations/e-1"
    )


def test_names_are_encoded() -> None:
    """Names are encoded into an address, slashes included."""
    assert evaluation_url(EvaluationRef("ö x", "a?b", "e/#"), HUB) == (
        "https://www.oxen.ai/%C3%B6%20x/a%3Fb/evaluations/e%2F%23"
    )


@given(st.text(max_size=8))
def test_no_name_leads_out_of_its_segment(name: str) -> None:
    """Whatever a name is, the address has the same number of segments, and nothing after them."""
    name = name.encode(errors="replace").decode()
    url = evaluation_url(EvaluationRef("ox", name, name), HUB)

    assert url is not None
    assert url.split("/")[:4] == ["https:", "", "www.oxen.ai", "ox"]
    assert len(url.split("/")) == 7
    assert not set(url) & set("?# \n")


@pytest.mark.parametrize("find", [_source, _results])
@pytest.mark.parametrize(
    ("path", "version", "place"),
    [
        ("data/customers.parquet", "0123abcd", "0123abcd/data/customers.parquet"),
        ("/data/customers.parquet", "main", "main/data/customers.parquet"),
        ("Ärger & Co?.csv", "a#b", "a%23b/%C3%84rger%20%26%20Co%3F.csv"),
        ("a.csv", "feature/x", "feature%2Fx/a.csv"),
        ("https://evil.example/", "main", None),
        ("a.csv", "//evil.example", "%2F%2Fevil.example/a.csv"),
    ],
)
def test_page_of_a_file(find: Any, path: str, version: str, place: str | None) -> None:
    """A file is at its branch or commit inside its repository, and the hub's texts cannot lead anywhere else."""
    assert find(path, version) == (place and f"{FILE}/{place}")


@pytest.mark.parametrize("find", [_source, _results])
@pytest.mark.parametrize(
    ("path", "version"),
    [
        (None, "main"),
        ("a.csv", None),
        ("", "main"),
        ("a.csv", ""),
        ("../a", "main"),
        ("a", ".."),
        ("a/./b", "m"),
        (7, 7),
    ],
)
def test_page_of_a_file_that_is_not_known(find: Any, path: Any, version: Any) -> None:
    """Without a file or a branch, or where one of them would change the address, there is none."""
    assert find(path, version) is None


def test_source_is_at_the_commit_that_is_evaluated() -> None:
    """A branch moves on; where the hub gives the commit of the rows, the address has that."""
    evaluation = _seen(resource={"path": "a.csv", "version": "main"}, commit_id="0123abcd")

    assert source_url(REF, evaluation, HUB) == f"{FILE}/0123abcd/a.csv"


def test_results_are_at_the_commit_that_holds_them() -> None:
    """Until there is a commit with the results, the address has the target branch; afterwards that commit."""
    fields = {"target_path": "b.csv", "target_branch": "main", "commit_id": "source"}

    assert results_url(REF, _seen(**fields), HUB) == f"{FILE}/main/b.csv"
    assert results_url(REF, _seen(**fields, closing_commit={"id": "4567cdef"}), HUB) == f"{FILE}/4567cdef/b.csv"


def test_results_without_a_target_path_are_in_the_source_file() -> None:
    """Where ``target_path`` is null, the hub writes to the source file, on the target branch."""
    evaluation = _seen(resource={"path": "a.csv", "version": "main"}, target_branch="results", target_path=None)

    assert results_url(REF, evaluation, HUB) == f"{FILE}/results/a.csv"


def test_evaluation_without_a_source_has_no_address_of_it() -> None:
    """Where the hub gives nothing about a file, no address is made up."""
    assert source_url(REF, _seen(), HUB) is None
    assert results_url(REF, _seen(), HUB) is None
