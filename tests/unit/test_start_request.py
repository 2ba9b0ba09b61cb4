"""What can be refused before a request is sent."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import OxenConfigError
from airflow_provider_oxen.start_request import StartRequest, check_literals, check_settings, find_unknown_types

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
    check_settings({"on_unknown_start": "start_again", "on_clear": "start_again", "body": {}})
    check_settings({"auto_commit": True, "target_branch": "b"})
    check_settings({"body": {"auto_commit": True}, "target_branch": "b"})
    check_settings({"is_sample": True, "sample_count": 1, "batch_size": 10})


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"on_unknown_start": "resume"}, "on_unknown_start must be 'fail' or 'start_again', but is 'resume'"),
        ({"on_clear": "fail"}, "on_clear must be 'resume' or 'start_again', but is 'fail'"),
        ({"on_clear": None}, "on_clear must be"),
        ({"body": [("a", 1)]}, "body must be a dict of fields of the request, but is list"),
        ({"body": "{}"}, "body must be a dict"),
        ({"target_branch": "b"}, "need auto_commit=True"),
        ({"target_branch": "b", "auto_commit": False}, "need auto_commit=True"),
        ({"body": {"target_path": "p"}}, "need auto_commit=True"),
        ({"start_from_trigger": True}, "start_from_trigger cannot be used here"),
        ({"wait_for_completion": False, "soft_fail": True}, "soft_fail has no meaning with wait_for_completion=False"),
        ({"sample_count": 5}, "sample_count needs is_sample=True"),
        (
            {"is_sample": True, "sample_count": 0},
            "sample_count must be a whole number, 1 or more, but is 0",
        ),
        ({"is_sample": True, "sample_count": -1}, "sample_count must be"),
        ({"is_sample": True, "sample_count": True}, "sample_count must be"),
        ({"is_sample": True, "sample_count": "10"}, "sample_count must be"),
        ({"batch_size": 1.5}, "batch_size must be"),
    ],
)
def test_bad_setting_is_refused(settings: dict[str, Any], problem: str) -> None:
    """A setting that can never work is refused, and the message says what is allowed."""
    with pytest.raises(ValueError, match=problem):
        check_settings(settings)
