"""What arguments may be: in the path of a request, as a duration, in a stored trigger."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from enum import Enum
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.exceptions import OxenConfigError
from airflow_provider_oxen.parameters import (
    TriggerArguments,
    as_text,
    check_conn_id,
    check_path,
    check_path_parameter,
    parse_seconds,
)


class Name(str, Enum):  # noqa: UP042  # its str() is not its text
    """A name as some write it."""

    REPO = "repo"


@pytest.mark.parametrize(
    "value",
    ["ox", "customer-intents", "d0c8585d-1234-5678-abcd-ef0123456789", "a.b", "...", "100%", "Örebro", "none-2"],
)
def test_value_that_names_one_thing_is_returned(value: str) -> None:
    """A usable value comes back unchanged."""
    assert check_path_parameter("namespace", value) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing was given, or the task it should come from returned nothing. Give the repository's name"),
        (b"ox", "must be text, but is bytes: decode it"),
        (True, "must be text, but is bool: pass it as text"),
        (1e3, "must be text, but is float: pass it as text"),
        (["a"], "for several, use .partial(...).expand(repo_name=[...])"),
        ({"id": "a"}, "give one of its values, such as start.output['evaluation_id']"),
        (print, "a function was given; give the output of a task, with the parentheses"),
        (SimpleNamespace(task_id="start"), "a task was given; give its output, as in start.output"),
        ("'ox'", "remove the quotation marks around it"),
        ("", "nothing was given"),
        ("None", "the task it should come from returned nothing"),
        ("none", "the task it should come from returned nothing"),
        ("null", "the task it should come from returned nothing"),
        ("['d0c8585d-1234']", "it is a list as text: name one task in xcom_pull, as in task_ids='start'"),
        ("['ox/r']", "it is a list as text"),
        ("{'id': 'd0c8585d-1234'}", "it is a dict as text: give one of its values"),
        ("{ var.value.latest }", "a template has two braces, as in '{{ var.value.latest }}', and in an f-string four"),
        ("${EVAL_ID}", "Airflow fills in no shell variables"),
        ("$EVAL_ID", "Airflow fills in no shell variables"),
        ("customer intents", "is 'customer intents': no name has white space in it; write the name alone"),
        ("customer\N{NO-BREAK SPACE}intents", "no name has white space in it"),
        ("Evaluation started\nd0c8585d", "no name has white space in it"),
        ("<evaluation id>", "it is a placeholder: write what it stands for"),
        ("ox%2Frepo", "it is percent-encoded: write it as it reads"),
        ("hub.oxen.ai", "it is the address of the hub, which belongs into the connection's host"),
        ("customer\u200bintents", "it holds characters that cannot be seen"),
        ("customer\u202eintents", "it holds characters that cannot be seen"),
        ("customer\u2060intents", "it holds characters that cannot be seen"),
        ("\N{NO-BREAK SPACE}", "nothing was given"),
        (" ", "nothing was given"),
        ("a\u2028b", "a control character"),
        ("a\x9b31mb", "a control character"),
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


@given(st.text(max_size=12) | st.text(alphabet="./\\%2eEfF;?#", max_size=6))
def test_accepted_value_is_exactly_one_path_segment(value: str) -> None:
    """Whatever is accepted leaves one segment in the path when encoded, and reads back as itself."""
    try:
        segment = quote(check_path_parameter("namespace", value), safe="")
    except OxenConfigError:
        return

    path = urlsplit(urljoin("https://hub.example/", f"/before/{segment}/after")).path.split("/")

    assert path == ["", "before", segment, "after"]
    assert unquote(segment) == as_text(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UUID("D0C8585D-1234-5678-ABCD-EF0123456789"), "d0c8585d-1234-5678-abcd-ef0123456789"),
        (2024, "2024"),
        ("e-1\n", "e-1"),
        (" \t e-1\N{NO-BREAK SPACE}", "e-1"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}e-1\r\n", "e-1"),
        (Name.REPO, "repo"),
    ],
)
def test_value_is_taken_as_its_text(value: object, text: str) -> None:
    """A UUID, a whole number, and a text with white space around it are the text that they stand for."""
    taken = check_path_parameter("evaluation_id", value)

    assert (taken, type(taken)) == (text, str)


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("repo_name", "ox/r", "write namespace='ox', repo_name='r'"),
        ("namespace", "ox/r", "write namespace='ox', repo_name='r'"),
        ("evaluation_id", "evaluations/e-1", "write evaluation_id='e-1'"),
        ("evaluation_id", "ox/r/evaluations/e-1", "write namespace='ox', repo_name='r', evaluation_id='e-1'"),
        (
            "evaluation_id",
            "https://www.oxen.ai/ox/r/evaluations/e-1?tab=rows#top",
            "it is a URL; write namespace='ox', repo_name='r', evaluation_id='e-1'",
        ),
        (
            "evaluation_id",
            "https://hub.oxen.ai/api/repos/ox/r/evaluations/e-1",
            "it is a URL; write namespace='ox', repo_name='r', evaluation_id='e-1'",
        ),
        ("repo_name", "https://www.oxen.ai/ox/r", "it is a URL; write namespace='ox', repo_name='r'"),
        ("repo_name", "www.oxen.ai/ox/r", "it is a URL; write namespace='ox', repo_name='r'"),
        ("repo_name", "git@hub.oxen.ai:ox/r.git", "it is a URL; write namespace='ox', repo_name='r'"),
        ("repo_name", "https://hub.oxen.ai/ox/r.git", "it is a URL; write namespace='ox', repo_name='r'"),
        ("namespace", "https://www.oxen.ai", "it is a URL; write the user or organization"),
    ],
)
def test_several_names_in_one_are_taken_apart_in_the_advice(name: str, value: str, advice: str) -> None:
    """An address, or two names in one, is refused with the arguments to write instead."""
    with pytest.raises(OxenConfigError) as caught:
        check_path_parameter(name, value)

    assert advice in str(caught.value)


def test_path_keeps_its_segments() -> None:
    """White space around a path goes; inside of one it would be another file, and is refused."""
    assert check_path("path", " data/a b.parquet\n") == ["data", "a b.parquet"]
    with pytest.raises(OxenConfigError, match="remove the white space around it"):
        check_path("path", "data /a")
    with pytest.raises(OxenConfigError, match="write only the part inside the repository"):
        check_path("path", "https://www.oxen.ai/ox/r/file/main/a.parquet")


@pytest.mark.parametrize("value", [None, "", " ", ["oxen_default"], 5, "oxen://:key-0123456789@hub.oxen.ai"])
def test_conn_id_is_a_text_that_names_a_connection(value: object) -> None:
    """What cannot be the id of a connection is refused, and an address that may hold the key is not shown."""
    with pytest.raises(ValueError, match="name the Airflow connection to use, such as 'oxen_default'") as caught:
        check_conn_id(value)

    assert "key-0123456789" not in str(caught.value)


@pytest.mark.parametrize("duration", [timedelta.max, timedelta(days=365 * 8_000), 1e300, 1e12])
def test_duration_beyond_the_calendar_is_refused(duration: Any) -> None:
    """A wait that would end after the last day that can be stored is refused when the DAG is parsed."""
    with pytest.raises(ValueError, match=r"timeout is .* beyond the calendar: at most 100 years"):
        parse_seconds("timeout", duration)


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
        "is_recorded": False,
        "last_seen": None,
        "seen_at": None,
    }
