"""The calls: where they go, what they carry, and which may be repeated."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.calls import (
    build_get_evaluation,
    build_get_file,
    build_get_file_meta,
    build_get_user,
    build_start_evaluation,
)
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import OxenConfigError
from airflow_provider_oxen.parameters import as_text
from airflow_provider_oxen.protocol import ContractError
from airflow_provider_oxen.refs import FileRef

PLACE: dict[str, Any] = {"namespace": "ox", "repo_name": "r", "branch": "main", "path": "data/a.csv"}
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\"), min_size=1).filter(
    lambda text: (
        text == as_text(text)
        and text not in (".", "..", "None")
        and not any(c in "\u2028\u2029" or ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)
    )
)


def start(**arguments: Any) -> Any:
    return build_start_evaluation(**{**PLACE, "body": {"prompt": "p"}, **arguments})


def test_get_evaluation() -> None:
    """One evaluation is asked for by its id; asking again has no effect."""
    call = build_get_evaluation(EvaluationRef("ox", "customer-intents", "e1"))

    assert str(call) == "GET /api/repos/ox/customer-intents/evaluations/e1"
    assert call.repeatable
    assert call.content() is None


def test_get_evaluation_encodes_each_part() -> None:
    """What has a meaning in an address is encoded."""
    call = build_get_evaluation(EvaluationRef("ö+x", "r?a=1", "e#1%2-"))

    assert call.path == "/api/repos/%C3%B6%2Bx/r%3Fa%3D1/evaluations/e%231%252-"


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "a\\b", " ", "a\nb", "None", None, 7.5])
@pytest.mark.parametrize("name", ["namespace", "repo_name", "evaluation_id"])
def test_get_evaluation_refuses_what_is_no_part_of_a_path(name: str, part: Any) -> None:
    """A part that would change the path is refused, by the argument's name."""
    ref = EvaluationRef(**{"namespace": "ox", "repo_name": "r", "evaluation_id": "e", name: part})

    with pytest.raises(OxenConfigError, match=f"argument '{name}'"):
        build_get_evaluation(ref)


def test_get_user() -> None:
    """Whose key it is can be asked again and again."""
    assert str(build_get_user()) == "GET /api/authorize"
    assert build_get_user().repeatable


def test_start_evaluation() -> None:
    """An evaluation is started on a branch's file, with the fields of the request, and never repeated."""
    call = start(body={"prompt": "Which? {text}", "sample_count": 3})

    assert str(call) == "POST /api/repos/ox/r/evaluations/main/data/a.csv"
    assert not call.repeatable
    assert json.loads(call.content()) == {"prompt": "Which? {text}", "sample_count": 3}


def test_start_evaluation_keeps_its_own_copy_of_the_fields() -> None:
    """Fields that are changed later do not change the call."""
    body = {"prompt": "a"}
    call = start(body=body)
    body["prompt"] = "b"

    assert json.loads(call.content()) == {"prompt": "a"}


@pytest.mark.parametrize(
    ("branch", "path", "expected"),
    [
        ("eval/first", "a.csv", "eval/first/a.csv"),
        ("main", "data/deep/a b.csv", "main/data/deep/a%20b.csv"),
        ("main", "ä?x#y%2F.csv", "main/%C3%A4%3Fx%23y%252F.csv"),
        ("a:b", "c+d&e=f.csv", "a%3Ab/c%2Bd%26e%3Df.csv"),
        ("main", "...", "main/..."),
    ],
)
def test_start_evaluation_encodes_each_segment(branch: str, path: str, expected: str) -> None:
    """Slashes of a branch and of a path stay slashes; what else has a meaning in an address is encoded."""
    assert start(branch=branch, path=path).path == f"/api/repos/ox/r/evaluations/{expected}"


@pytest.mark.parametrize(
    "value", ["", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/./b", "a/..", "a\\b", "a/ b", None]
)
@pytest.mark.parametrize("name", ["branch", "path"])
def test_start_evaluation_refuses_a_path_that_climbs(name: str, value: Any) -> None:
    """What leads out of the place that it names is refused, by the argument's name."""
    with pytest.raises(OxenConfigError, match=f"argument '{name}'"):
        start(**{name: value})


@pytest.mark.parametrize("name", ["namespace", "repo_name"])
def test_start_evaluation_refuses_a_slash_in_a_name(name: str) -> None:
    """A namespace and a repository are one segment each."""
    with pytest.raises(OxenConfigError, match=f"argument '{name}'"):
        start(**{name: "a/b"})


@given(branch=st.lists(SEGMENT, min_size=1, max_size=3), path=st.lists(SEGMENT, min_size=1, max_size=3))
def test_start_evaluation_names_what_it_was_given(branch: list[str], path: list[str]) -> None:
    """The decoded segments are those that were given, in their order."""
    call = start(branch="/".join(branch), path="/".join(path))

    segments = [unquote(segment) for segment in call.path.split("/")]
    assert segments == [
        *("", "api", "repos", "ox", "r", "evaluations"),
        *as_text("/".join(branch)).split("/"),
        *as_text("/".join(path)).split("/"),
    ]
    assert call.path.isascii()


FILE_CALLS = {"file": build_get_file, "meta": build_get_file_meta}


@pytest.mark.parametrize("endpoint", FILE_CALLS)
@pytest.mark.parametrize(
    ("version", "path", "expected"),
    [
        ("main", "a.csv", "main/a.csv"),
        ("eval/first", "data/deep/a b.csv", "eval/first/data/deep/a%20b.csv"),
        ("e6c2c7192f620617", "ä?x#y%2F.csv", "e6c2c7192f620617/%C3%A4%3Fx%23y%252F.csv"),
        ("main\n", " a.csv ", "main/a.csv"),
    ],
)
def test_file_calls_encode_each_segment(endpoint: str, version: str, path: str, expected: str) -> None:
    """A file and what describes it are asked for by version and path, whose slashes stay slashes."""
    call = FILE_CALLS[endpoint](FileRef("ox", "r", version, path))

    assert str(call) == f"GET /api/repos/ox/r/{endpoint}/{expected}"
    assert call.repeatable


@pytest.mark.parametrize("endpoint", FILE_CALLS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("version", "path") for value in ("", "/a", "a/", "a//b", "../a", "a/..", None)),
        *((name, value) for name in ("namespace", "repo_name") for value in ("", "a/b", "..", None)),
    ],
)
def test_file_calls_refuse_a_path_that_climbs(endpoint: str, name: str, value: Any) -> None:
    """What leads out of the place that it names is refused, by the argument's name."""
    place = {"namespace": "ox", "repo_name": "r", "version": "main", "path": "a.csv", name: value}

    with pytest.raises(OxenConfigError, match=f"argument '{name}'"):
        FILE_CALLS[endpoint](FileRef(**place))


def test_file_is_no_result_of_a_call() -> None:
    """What is small enough to be parsed is not the file."""
    with pytest.raises(ContractError, match="not the file"):
        build_get_file(FileRef("ox", "r", "main", "a.csv")).parse(b"a,b", "key")
