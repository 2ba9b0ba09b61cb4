"""The connection in Airflow's pages: its form, what is saved and what is shown of it, and its Test button."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Locator, Page

    from airflow_provider_oxen.testing import LocalHub
    from demo.standalone import AirflowStandalone

CONN_ID = "oxen_production"


@pytest.fixture(autouse=True)
def _no_connections(airflow: AirflowStandalone) -> Iterator[None]:
    """Each test begins without stored connections."""
    yield
    for connection in airflow.get("/connections")["connections"]:
        airflow.delete(f"/connections/{connection['connection_id']}")


def open_form(page: Page) -> Locator:
    """Open the form of a new connection of the type Oxen."""
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_label("Connection ID").fill(CONN_ID)
    form.get_by_role("combobox").fill("Oxen")
    page.get_by_role("option", name="Oxen", exact=True).click()
    expect(form.get_by_label("API key")).to_be_visible()
    return form


def extra_field(form: Locator, name: str) -> Locator:
    """An extra field, by its name: Airflow's form does not tie its label to it."""
    return form.locator(f"[name=element_{name}]")


def open_section(form: Locator, name: str, shows: Locator) -> None:
    form.get_by_role("button", name=name, exact=True).click()
    expect(shows).to_be_visible()


def save(page: Page, form: Locator) -> None:
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    expect(page.get_by_role("row").filter(has_text=CONN_ID)).to_be_visible()
    page.reload()  # without the message that it was saved
    expect(page.get_by_role("row").filter(has_text=CONN_ID)).to_be_visible()


def stored(airflow: AirflowStandalone) -> dict[str, Any]:
    """What Airflow has stored, key included, as its command line shows it."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "connections", "get", CONN_ID, "--output", "json"],
        env=airflow.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("[") :])[0]
    return found


def extra_of(airflow: AirflowStandalone) -> dict[str, Any]:
    """The extra fields that have a value."""
    extra = json.loads(airflow.get(f"/connections/{CONN_ID}")["extra"])
    return {name: value for name, value in extra.items() if value is not None}


def test_form_has_its_own_labels_and_placeholders(page: Page, shoot: Callable[[str], None]) -> None:
    """The form says "API key" and "Scheme", has no login, and shows what a field is when it is left empty."""
    form = open_form(page)

    for label in ("Host", "API key", "Port", "Scheme"):
        expect(form.get_by_label(label, exact=True)).to_be_visible()
    for label in ("Login", "Password", "Schema"):
        expect(form.get_by_text(label, exact=True)).to_have_count(0)
    expect(form.get_by_label("Host")).to_have_attribute("placeholder", "hub.oxen.ai")
    expect(form.get_by_label("Scheme")).to_have_attribute("placeholder", "https")
    expect(form.get_by_label("API key")).to_have_attribute("placeholder", "the API key from your profile on Oxen.ai")
    expect(form.get_by_label("API key")).to_have_attribute("type", "password")
    form.get_by_label("API key").focus()
    shoot("connection-form")


def test_form_has_the_extra_fields(page: Page, shoot: Callable[[str], None]) -> None:
    """Each extra field has its label, says what it is for, and takes a number where it is one."""
    form = open_form(page)
    open_section(form, "Extra Fields", extra_field(form, "timeout"))

    for label in ("Request timeout", "Verify TLS", "Proxy", "Max connections"):
        expect(form.get_by_text(label, exact=True)).to_be_visible()
    for text in ("Default 30.", "Default true.", "Default none.", "Default 20."):
        expect(form.get_by_text(text)).to_be_visible()
    for name in ("timeout", "max_connections"):
        expect(extra_field(form, name)).to_have_attribute("role", "spinbutton")
    shoot("connection-form-extra")


def test_connection_is_saved_and_edited_without_showing_the_key(
    page: Page, airflow: AirflowStandalone, hub: LocalHub, seen_by_browser: list[str]
) -> None:
    """What is typed is stored, numbers as numbers; an edit changes what was edited; the key is never shown again."""
    form = open_form(page)
    form.get_by_label("Host").fill(hub.url)
    form.get_by_label("API key").fill(hub.api_key)
    open_section(form, "Extra Fields", extra_field(form, "timeout"))
    extra_field(form, "timeout").fill("12.5")
    extra_field(form, "verify").fill("false")
    save(page, form)
    assert extra_of(airflow) == {"timeout": 12.5, "verify": "false"}

    page.get_by_role("button", name="Edit Connection").click()
    expect(form.get_by_label("API key")).to_have_value("***")
    assert hub.api_key not in page.content()
    open_section(form, "Extra Fields", extra_field(form, "timeout"))
    expect(extra_field(form, "timeout")).to_have_value("12.5")
    extra_field(form, "timeout").fill("")
    extra_field(form, "verify").fill("")
    extra_field(form, "max_connections").fill("5")
    save(page, form)

    assert extra_of(airflow) == {"max_connections": 5}
    assert stored(airflow)["password"] == hub.api_key
    assert stored(airflow)["host"] == hub.url
    assert hub.api_key not in page.content()
    assert len(seen_by_browser) > 5
    assert [text for text in seen_by_browser if hub.api_key in text] == []


def test_test_button_shows_whose_key_it_is(page: Page, hub: LocalHub, shoot: Callable[[str], None]) -> None:
    """Test shows whose API key it is."""
    form = open_form(page)
    form.get_by_label("Host").fill("127.0.0.1")
    form.get_by_label("API key").fill(hub.api_key)
    form.get_by_label("Port").fill(str(hub.port))  # without one, Airflow 3.3.1 and 3.3.2 refuse to test any connection
    form.get_by_label("Scheme").fill("http")
    save(page, form)

    page.get_by_role("button", name="Test Connection").click()

    expect(page.get_by_text(f"Connected to {hub.url} as Ox <ox@example.com>")).to_be_visible()
    shoot("connection-test")


def test_test_button_says_why_not(
    page: Page, hub: LocalHub, seen_by_browser: list[str], shoot: Callable[[str], None]
) -> None:
    """Test of a wrong key says that it is refused and what to do, and does not show it."""
    form = open_form(page)
    form.get_by_label("Host").fill("127.0.0.1")
    form.get_by_label("API key").fill("sk-no-such-key-3b1f")
    form.get_by_label("Port").fill(str(hub.port))
    form.get_by_label("Scheme").fill("http")
    save(page, form)

    page.get_by_role("button", name="Test Connection").click()

    expect(page.get_by_text("the API key is not accepted. Check the connection's API key")).to_be_visible()
    shoot("connection-test-failed")
    assert [text for text in [page.content(), *seen_by_browser] if "sk-no-such-key-3b1f" in text] == []
