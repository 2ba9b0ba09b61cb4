"""What may stand in the path of a request."""

from __future__ import annotations

from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.exceptions import OxenConfigError
from airflow_provider_oxen.parameters import check_path_parameter


@pytest.mark.parametrize(
    "value",
    ["ox", "customer-intents", "d0c8585d-1234-5678-abcd-ef0123456789", "a.b", "...", "per cent %2F", "Örebro", "none"],
)
def test_value_that_names_one_thing_is_given_back(value: str) -> None:
    """A usable value comes back unchanged."""
    assert check_path_parameter("namespace", value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "must be text, but is NoneType"),
        (7, "must be text, but is int"),
        (b"ox", "must be text, but is bytes"),
        ("", "nothing was given"),
        ("None", "the task it was to come from returned nothing"),
        (" ox", "remove the white space around it"),
        ("ox\n", "remove the white space around it"),
        ("\N{NO-BREAK SPACE}", "remove the white space around it"),
        (".", "nor be '.' or '..'"),
        ("..", "nor be '.' or '..'"),
        ("a/b", "a slash"),
        ("a\\b", "a backslash"),
        ("a\0b", "a control character"),
        ("a\x1fb", "a control character"),
        ("a\x7fb", "a control character"),
        ("a\ud800", "lone surrogates"),
    ],
)
def test_value_that_names_nothing_is_refused(value: object, words: str) -> None:
    """A value that would not name one thing on the hub is refused, with the reason."""
    with pytest.raises(OxenConfigError) as caught:
        check_path_parameter("repo_name", value)

    assert words in str(caught.value)


def test_refusal_names_the_argument() -> None:
    """The error tells which argument to mend."""
    with pytest.raises(OxenConfigError, match=r"^argument 'evaluation_id': ") as caught:
        check_path_parameter("evaluation_id", "")

    assert (caught.value.field, caught.value.conn_id) == ("evaluation_id", None)


@settings(deadline=None)
@given(st.text(max_size=12) | st.text(alphabet="./\\%2eEfF;?#", max_size=6))
def test_accepted_value_is_exactly_one_path_segment(value: str) -> None:
    """Whatever is accepted leaves one segment in the path when encoded, and reads back as itself."""
    try:
        segment = quote(check_path_parameter("namespace", value), safe="")
    except OxenConfigError:
        return

    path = urlsplit(urljoin("https://hub.example/", f"/before/{segment}/after")).path.split("/")

    assert path == ["", "before", segment, "after"]
    assert unquote(segment) == value
