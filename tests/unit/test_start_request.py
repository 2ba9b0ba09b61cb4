"""What can be refused before a request is sent."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import OxenConfigError
from airflow_provider_oxen.start_request import (
    StartRequest,
    build_request,
    check_fields,
    check_literals,
    check_settings,
    find_unknown_types,
)

GOOD: dict[str, Any] = {
    "namespace": "ox",
    "repo_name": "r",
    "branch": "eval/first",
    "path": "data/a.csv",
    "model": "m",
    "prompt": "Which? {text}",
    "target_column": "intent",
}


def test_request_names_its_evaluation() -> None:
    """A request knows its name, and the repository of what it starts."""
    request = StartRequest("ox", "r", "main", "a.csv", {"name": "n"})

    assert request.name == "n"
    assert request.ref_of("e1") == EvaluationRef("ox", "r", "e1")
    assert StartRequest("ox", "r", "main", "a.csv", {}).name == ""


def test_good_arguments_pass() -> None:
    """Arguments that are all there, and those that are templates and so left out, are not refused."""
    check_literals(GOOD)
    check_literals({})


@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize("value", ["", "  ", "\n", None])
def test_empty_argument_is_refused(name: str, value: Any) -> None:
    """An argument that is empty is refused, by its name."""
    with pytest.raises(ValueError, match=f"^{name} is empty"):
        check_literals({**GOOD, name: value})


@pytest.mark.parametrize("name", ["namespace", "repo_name", "branch", "path"])
@pytest.mark.parametrize("value", ["../a", "..", "a\\b", "a/../b", "/a"])
def test_argument_that_climbs_is_refused(name: str, value: str) -> None:
    """What would change the request's path is refused."""
    with pytest.raises(OxenConfigError, match=f"argument '{name}'"):
        check_literals({**GOOD, name: value})


@pytest.mark.parametrize("name", [*GOOD, "name", "target_branch", "commit_message", "oxen_conn_id"])
@pytest.mark.parametrize("value", [["x"], {"id": "x"}, 1.5, True, object()])
def test_argument_that_is_not_text_is_refused(name: str, value: object) -> None:
    """What is neither text nor a number or UUID is refused, by its name: it would be sent as it is."""
    with pytest.raises(ValueError, match=f"{name}.* must be text, but is {type(value).__name__}"):
        check_literals({**GOOD, name: value})


def test_arguments_are_taken_as_their_text() -> None:
    """Names and paths lose the white space around them and numbers are text; a prompt stays as it was written."""
    given = {**GOOD, "repo_name": 2024, "path": " a/b.csv\n", "model": "m\n", "prompt": " {x}\n", "target_column": 5}

    taken = check_literals(given)

    assert taken == {
        **GOOD,
        "repo_name": "2024",
        "path": "a/b.csv",
        "model": "m",
        "prompt": " {x}\n",
        "target_column": "5",
    }


def test_types_of_the_vendor_are_known() -> None:
    """Each documented type passes without a word."""
    for value in ("text", "image", "video"):
        assert find_unknown_types({"input_type": value, "output_type": value}) == []
    assert find_unknown_types({"output_type": "embeddings"}) == []
    assert find_unknown_types({"input_type": object()}) == []
    assert find_unknown_types({}) == []


def test_other_types_are_warned_of() -> None:
    """Another one may be new, so it gives a sentence and no error."""
    assert find_unknown_types({"input_type": "embeddings", "output_type": "audio"}) == [
        "input_type='embeddings' is none of those that the vendor documents: text, image, video",
        "output_type='audio' is none of those that the vendor documents: text, image, video, embeddings",
    ]


def test_good_settings_pass() -> None:
    """The defaults pass, and so does each other value that is allowed."""
    check_settings({})
    check_settings({"on_unknown_start": "start_again", "on_clear": "start_again"})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"on_unknown_start": "resume"}, "on_unknown_start must be 'fail' or 'start_again', but is 'resume'"),
        ({"on_clear": "fail"}, "on_clear must be 'resume' or 'start_again', but is 'fail'"),
        ({"on_clear": None}, "on_clear must be"),
        ({"start_from_trigger": True}, "start_from_trigger cannot be used here"),
        ({"wait_for_completion": False, "soft_fail": True}, "soft_fail has no meaning with wait_for_completion=False"),
    ],
)
def test_bad_setting_is_refused(settings: dict[str, Any], problem: str) -> None:
    """A setting that can never work is refused, and the message says what is allowed."""
    with pytest.raises(ValueError, match=problem):
        check_settings(settings)


# The fields of the request


class Output:
    """Stands in for the output of a task, which is not known before it runs."""

    def iter_references(self) -> None:
        """As Airflow's."""


@pytest.mark.parametrize("are_rendered", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"body": {}},
        {"auto_commit": True, "target_branch": "b", "target_path": "a/b.csv"},
        {"body": {"auto_commit": True}, "target_branch": "b"},
        {"is_sample": True, "sample_count": 1, "batch_size": 10},
        {"body": {"is_sample": True}, "sample_count": 1},
        {"sample_count": 1, "body": {"sample_count": None}},
        {"model": "m", "body": {"model": "m", "model_id": None}},
    ],
)
def test_good_fields_pass(fields: dict[str, Any], are_rendered: bool) -> None:
    """What can be sent is not refused, wherever it is given."""
    check_fields(fields, are_rendered=are_rendered)


@pytest.mark.parametrize("are_rendered", [False, True])
@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"body": [("a", 1)]}, "body must be a dict of fields of the request, but is list"),
        ({"body": "{}"}, "body must be a dict"),
        ({"body": 5}, "body must be a dict"),
        ({"target_branch": "b"}, "need auto_commit=True"),
        ({"target_branch": "b", "auto_commit": False}, "need auto_commit=True"),
        ({"body": {"target_path": "p"}}, "need auto_commit=True"),
        ({"auto_commit": True, "target_branch": "b", "body": {"auto_commit": False}}, "need auto_commit=True"),
        ({"auto_commit": True, "target_branch": "b", "body": {"auto_commit": None}}, "need auto_commit=True"),
        ({"auto_commit": "no", "target_branch": "b"}, "auto_commit must be True or False, but is 'no'"),
        ({"is_sample": 1}, "is_sample must be True or False, but is 1"),
        ({"body": {"auto_commit": "true"}}, "auto_commit must be True or False"),
        ({"auto_commit": True, "target_path": "../../etc"}, "argument 'target_path'"),
        ({"auto_commit": True, "body": {"target_path": "/x/../y"}}, "argument 'target_path'"),
        ({"sample_count": 5}, "sample_count needs is_sample=True"),
        ({"body": {"sample_count": 5}}, "sample_count needs is_sample=True"),
        ({"is_sample": True, "sample_count": 5, "body": {"is_sample": False}}, "sample_count needs is_sample=True"),
        ({"is_sample": True, "sample_count": 0}, "sample_count must be a whole number, 1 or more, but is 0"),
        ({"is_sample": True, "sample_count": -1}, "sample_count must be"),
        ({"is_sample": True, "sample_count": True}, "sample_count must be"),
        ({"is_sample": True, "sample_count": "10"}, "sample_count must be"),
        ({"is_sample": True, "body": {"sample_count": 1.5}}, "sample_count must be"),
        ({"batch_size": 1.5}, "batch_size must be"),
        ({"prompt": "p", "body": {"prompt": " "}}, "prompt is empty"),
        ({"body": {"target_column": ""}}, "target_column is empty"),
        ({"model": "m", "body": {"model_id": ""}}, "model_id is empty"),
    ],
)
def test_bad_field_is_refused(fields: dict[str, Any], problem: str, are_rendered: bool) -> None:
    """What can never work, or has no effect, is refused as it would be sent: ``body`` counts before the arguments."""
    with pytest.raises(ValueError, match=problem):
        check_fields(fields, are_rendered=are_rendered)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_branch": "b", "sample_count": 1, "body": Output()},
        {"target_branch": "b", "body": {"auto_commit": "{{ params.commit }}"}},
        {"auto_commit": True, "target_path": "{{ params.path }}/.."},
        {"sample_count": 1, "body": {"is_sample": Output()}},
        {"body": {"batch_size": "{{ params.batch }}"}},
        {"body": "{{ params.body }}"},
    ],
)
def test_field_that_is_not_known_yet_is_refused_when_it_is_rendered(fields: dict[str, Any]) -> None:
    """A template, or the output of a task, may become what is needed."""
    check_fields(fields)

    with pytest.raises(ValueError, match=r"must|target_path"):
        check_fields(fields, are_rendered=True)


def test_request_is_built_from_the_arguments() -> None:
    """``body`` replaces, adds and removes; the name has a default."""
    given = {**GOOD, "name": None, "batch_size": 5, "body": {"batch_size": None, "seed": 1, "prompt": "P"}}

    request = build_request(given, default_name="n")

    assert request == StartRequest(
        "ox",
        "r",
        "eval/first",
        "data/a.csv",
        {"name": "n", "model_id": "m", "prompt": "P", "target_column": "intent", "seed": 1},
    )
    assert len(build_request({**given, "name": "x" * 5_000}, default_name="n").body["name"]) == 4_000
    assert build_request({**given, "name": "mine"}, default_name="n").name == "mine"
    assert build_request({**given, "body": {"name": "theirs"}}, default_name="n").name == "theirs"
