"""The hook: the connection as users write it, the form, the Test button, a rotated key."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_provider_oxen.calls import build_get_evaluation
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenConfigError,
    OxenNotFoundError,
    OxenUnknownEffectError,
)
from airflow_provider_oxen.get_provider_info import CONNECTION_FIELDS, CONNECTION_FORM
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.testing import AfterStart, Disconnect, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub


def test_connection_works_as_uri(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection written as a URI reaches the hub, extra fields included."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_OXEN_DEFAULT", f"{oxen_hub.connection_uri}?timeout=7&verify=false&max_connections=2"
    )

    config = OxenHook().get_config()

    assert OxenHook().get_evaluation("ox", "r", oxen_hub.add_evaluation(seconds=0)).status == "completed"
    assert (config.timeout_seconds, config.verify, config.max_connections) == (7.0, False, 2)


def test_both_ways_of_reading_a_connection_agree(set_connection: Callable[..., None]) -> None:
    """Reading the connection with and without blocking gives the same settings."""
    set_connection(extra={"timeout": "3", "verify": "false", "proxy": "http://127.0.0.1:1", "max_connections": 4})

    assert OxenHook().get_config() == asyncio.run(OxenHook().aget_config())


@pytest.mark.parametrize("read", [OxenHook.get_config, lambda hook: asyncio.run(hook.aget_config())])
def test_missing_connection_is_named(read: Callable[[OxenHook], object]) -> None:
    """A connection that is not defined is a setting to fix, and not something to try again."""
    with pytest.raises(OxenConfigError, match=r"connection 'nowhere'.*there is no such connection"):
        read(OxenHook("nowhere"))


@pytest.mark.parametrize(
    ("read", "multi_team", "said"),
    [
        (lambda hook: asyncio.run(hook.aget_config()), "True", True),
        (lambda hook: asyncio.run(hook.aget_config()), "False", False),
        (OxenHook.get_config, "True", False),
    ],
)
def test_missing_connection_may_be_that_of_a_team(
    read: Callable[[OxenHook], object], multi_team: str, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In multi-team mode, what a triggerer says of a missing connection names the likely cause."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", multi_team)

    with pytest.raises(OxenConfigError) as raised:
        read(OxenHook("nowhere"))

    assert ("A triggerer does not find connections that belong to a team" in str(raised.value)) is said


def test_unknown_extra_field_is_named_in_a_warning(
    set_connection: Callable[..., None], oxen_hub: LocalHub, logged: Callable[[], str]
) -> None:
    """An unknown extra field is logged by name, and neither it nor its value is sent to the hub."""
    set_connection(extra={"time_out": "secret-9", "timeout": 5})

    OxenHook().get_evaluation("ox", "r", oxen_hub.add_evaluation(seconds=0))

    text = logged()
    assert "time_out" in text
    assert "secret-9" not in text + str(oxen_hub.requests)
    assert "time_out" not in str(oxen_hub.requests)


@pytest.mark.parametrize(
    "written",
    [
        '{"conn_type": "oxen", "password": "key-1", "extra": "[1]"}',
        '{"conn_type": "oxen", "password": "key-1", "extra": "not json"}',
    ],
)
@pytest.mark.parametrize("read", [OxenHook.get_config, lambda hook: asyncio.run(hook.aget_config())])
def test_extra_that_is_not_an_object_is_named(
    monkeypatch: pytest.MonkeyPatch, written: str, read: Callable[[OxenHook], object]
) -> None:
    """Extra fields that cannot be read are an error: left out silently, ``verify`` or ``proxy`` would be lost."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", written)

    with pytest.raises(
        OxenConfigError, match=r"field 'extra'|Airflow cannot read it"
    ):  # some Airflows refuse it themselves
        read(OxenHook())


def test_connection_that_airflow_cannot_read_has_the_likely_cause_in_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow reports a connection that it cannot read as missing; the error says what the cause may be."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", '{"conn_type": "oxen", "passw')

    with pytest.raises(OxenConfigError, match="percent-encoded"):
        OxenHook().get_config()


def test_making_a_hook_reads_nothing() -> None:
    """A hook for a connection that does not exist can be made: nothing is looked up before the first request."""
    assert OxenHook("nowhere").oxen_conn_id == "nowhere"


def test_test_button_shows_whose_key_it_is(oxen_hub: LocalHub) -> None:
    """The connection test names the hub and the user the key belongs to."""
    assert OxenHook().test_connection() == (True, f"Connected to {oxen_hub.url} as Ox <ox@example.com>")
    assert oxen_hub.requests[-1].path == "/api/authorize"


def test_test_button_shows_why_it_fails(set_connection: Callable[..., None]) -> None:
    """The message says that the hub does not accept the key, and does not show it."""
    set_connection(password="wrong-key-4711")

    works, message = OxenHook().test_connection()

    assert not works
    assert "401" in message
    assert "password" in message
    assert "wrong-key-4711" not in message


def test_test_button_names_the_field_to_fix(set_connection: Callable[..., None]) -> None:
    """A connection without a key fails its test with the field's name."""
    set_connection(password=None)

    works, message = OxenHook().test_connection()

    assert not works
    assert "'password'" in message


def test_test_button_leaves_out_the_id_that_airflow_makes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow tests a connection under a random id: it is in no message, and the field to fix is."""
    monkeypatch.setenv("AIRFLOW_CONN_TMP7XQ", '{"conn_type": "oxen", "host": "https://a b", "password": "key-1"}')

    works, message = OxenHook("tmp7xq").test_connection()

    assert not works
    assert message == "Field 'host' is not a host name: 'a b'"


def test_test_button_warns_of_unknown_fields(set_connection: Callable[..., None]) -> None:
    """A connection that works, but whose extra has a key that does nothing, is tested with a warning."""
    set_connection(extra={"time_out": 5})

    works, message = OxenHook().test_connection()

    assert works
    assert ". Warning: extra fields time_out are unknown and not used; the known ones are timeout, verify" in message
    assert "oxen_default" not in message


@pytest.mark.parametrize("fetch", [OxenHook.get_evaluation, lambda *args: asyncio.run(OxenHook.aget_evaluation(*args))])
def test_id_may_be_a_uuid(oxen_hub: LocalHub, fetch: Callable[..., Evaluation]) -> None:
    """An id that is a UUID, and one with white space around it, is asked for by its text."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    assert fetch(OxenHook("oxen_default\n"), "ox ", "r", uuid.UUID(evaluation_id)).id == evaluation_id
    assert fetch(OxenHook(), "ox", "r\n", f"{evaluation_id}\n").id == evaluation_id


def test_not_found_below_a_path_shows_the_address(set_connection: Callable[..., None], oxen_hub: LocalHub) -> None:
    """A host with a path that is there twice is found by the address that was asked."""
    set_connection(host=f"{oxen_hub.url}/api", schema=None)

    with pytest.raises(OxenNotFoundError, match=rf"404: not found at {oxen_hub.url}/api/api/repos/ox/r/evaluations/e "):
        OxenHook().get_evaluation("ox", "r", "e")


def _rotate_key(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.api_key = "rotated-key"
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", hub.connection_json)


def test_rotated_key_is_looked_up_again_on_a_worker(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose key was rotated between two requests looks the connection up again and goes on."""
    call = build_get_evaluation(EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=0)))
    with OxenHook().get_conn() as client:
        client.ask(call)
        _rotate_key(oxen_hub, monkeypatch)

        assert client.ask(call).status == "completed"


async def test_rotated_key_is_looked_up_again_on_an_event_loop(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for a client on an event loop."""
    call = build_get_evaluation(EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=0)))
    async with OxenHook().get_async_conn() as client:
        await client.ask(call)
        _rotate_key(oxen_hub, monkeypatch)

        assert (await client.ask(call)).status == "completed"


@pytest.mark.parametrize("fetch", [OxenHook.get_evaluation, lambda *args: asyncio.run(OxenHook.aget_evaluation(*args))])
def test_refused_key_that_did_not_change_is_refused(oxen_hub: LocalHub, fetch: Callable[..., object]) -> None:
    """A key that the hub refuses, and that is still the connection's, is an error after one request."""
    oxen_hub.api_key = "another"

    with pytest.raises(OxenAuthenticationError):
        fetch(OxenHook(), "ox", "r", oxen_hub.add_evaluation(seconds=0))

    assert len(oxen_hub.requests) == 1


def test_form_of_older_airflow_is_that_of_newer() -> None:
    """The hook describes the form as the provider's metadata does."""
    behaviour = OxenHook.get_ui_field_behaviour()

    assert behaviour["hidden_fields"] == ["login"]
    assert behaviour["relabeling"] == {"password": "API key", "schema": "Scheme"}
    assert set(behaviour["placeholders"]) >= {"host", "schema", "port", "password"}
    assert behaviour == {name.replace("-", "_"): value for name, value in CONNECTION_FORM.items()}


def test_extra_fields_have_a_widget_each_where_the_form_needs_them() -> None:
    """On an Airflow whose form is Flask-AppBuilder's, each extra field has its widget, with its label."""
    pytest.importorskip("flask_appbuilder", reason="this Airflow's form is not Flask-AppBuilder's")
    widgets = OxenHook.get_connection_form_widgets()

    assert {name: widget.args[0] for name, widget in widgets.items()} == {
        name: field["label"] for name, field in CONNECTION_FIELDS.items()
    }


def test_local_hub_connection_is_the_same_as_uri_and_json(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local hub's connection reads the same in both its forms."""
    as_json = OxenHook().get_config()
    assert json.loads(os.environ["AIRFLOW_CONN_OXEN_DEFAULT"])["conn_type"] == "oxen"
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", oxen_hub.connection_uri)

    assert OxenHook().get_config() == as_json


def test_start_evaluation_sends_the_body_once(oxen_hub: LocalHub) -> None:
    """The hook starts an evaluation with the fields that it is given, in one request, and returns it."""
    body = {
        "model_id": "completed-20s",
        "prompt": "Which intent? {text}",
        "target_column": "intent",
        "input_type": "text",
        "output_type": "text",
    }

    evaluation = OxenHook().start_evaluation("ox", "r", "main", "data/customers.parquet", body)

    assert evaluation.status == "queued"
    assert [(started.id, started.body) for started in oxen_hub.started] == [(evaluation.id, body)]
    assert OxenHook().get_evaluation("ox", "r", evaluation.id).id == evaluation.id


def test_start_evaluation_is_not_repeated(oxen_hub: LocalHub) -> None:
    """Where the response is lost after the evaluation was started, the error says that it is not known."""
    oxen_hub.start_faults = [Fault(AfterStart(Disconnect(reset=True)))]
    body = {"model_id": "m", "prompt": "p", "target_column": "c", "input_type": "text", "output_type": "text"}

    with pytest.raises(OxenUnknownEffectError):
        OxenHook().start_evaluation("ox", "r", "main", "a.csv", body)

    assert len(oxen_hub.start_requests) == len(oxen_hub.started) == 1
