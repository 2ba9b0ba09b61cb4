"""What arguments may be: in the path of a request, as a duration, in a stored trigger."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.exceptions import OxenConfigError
from airflow_provider_oxen.parameters import TriggerArguments, check_path_parameter, parse_seconds


@pytest.mark.parametrize(
    "value",
    ["ox", "customer-intents", "d0c8585d-1234-5678-abcd-ef0123456789", "a.b", "...", "per cent %2F", "Örebro", "none"],
)
def test_value_that_names_one_thing_is_returned(value: str) -> None:
    """A usable value comes back unchanged."""
    assert check_path_parameter("namespace", value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "must be text, but is NoneType"),
        (7, "must be text, but is int"),
        (b"ox", "must be text, but is bytes"),
        ("", "nothing was given"),
        ("None", "the task it should come from returned nothing"),
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
    """The error says which argument to fix."""
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


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(0, 0), (7, 7), (0.25, 0.25), (timedelta(minutes=2), 120), (timedelta(milliseconds=5), 0.005), (timedelta(0), 0)],
)
def test_duration_is_seconds(duration: Any, seconds: float) -> None:
    """A number is a number of seconds, and a ``timedelta`` is converted to them."""
    assert parse_seconds("timeout", duration) == seconds


@pytest.mark.parametrize("duration", [-1, timedelta(seconds=-1), math.inf, math.nan, True, "5", None, [5]])
def test_what_is_not_a_duration_is_refused(duration: Any) -> None:
    """Anything else is an error that names the argument and shows the value."""
    with pytest.raises(ValueError, match=r"^poke_interval must be a timedelta or a finite number of seconds") as caught:
        parse_seconds("poke_interval", duration)

    assert repr(duration) in str(caught.value)


def test_trigger_arguments_are_plain_json() -> None:
    """The list of trigger arguments is a stored format: these names, these defaults."""
    arguments = TriggerArguments(namespace="ox", repo_name="r", evaluation_id="e-1").to_dict()

    assert json.loads(json.dumps(arguments)) == arguments
    assert arguments == {
        "namespace": "ox",
        "repo_name": "r",
        "evaluation_id": "e-1",
        "oxen_conn_id": "oxen_default",
        "poke_interval": 10.0,
        "max_wait": 60.0,
        "deadline": None,
        "retry_window": 600.0,
        "timeout": None,
        "end_from_trigger": False,
        "do_xcom_push": True,
        "started_here": False,
        "last_seen": None,
    }
