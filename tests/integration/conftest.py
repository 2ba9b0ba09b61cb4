"""Blocking calls of this package on an event loop fail the test that makes them."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import BlockBuster

from airflow_provider_oxen.hooks import oxen as hook_module
from airflow_provider_oxen.hooks.oxen import OxenHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.testing import LocalHub


@pytest.fixture(scope="session")
def _airflow_warmed_up() -> None:
    """Let Airflow look up a connection once: the first time, it imports many of its modules, which blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WARM_UP", "oxen://:key@localhost")
        asyncio.run(OxenHook("warm_up").aget_config())
        OxenHook("warm_up").get_config()


@pytest.fixture(scope="session", autouse=True)
def _no_blocking_calls(_airflow_warmed_up: None) -> None:
    """
    Switch the detection on once, and never off.

    It replaces methods of built-in types. Python's method cache holds no reference to a method. If the replacement were
    freed after each test, a thread that is about to call it would crash the interpreter. Locks stay as they are: every
    thread uses them all the time, and this package does no I/O while it holds one.
    """
    detection = BlockBuster("airflow_provider_oxen", excluded_modules=["airflow_provider_oxen.testing"])
    for name in [name for name in detection.functions if name.startswith("threading.Lock.")]:
        del detection.functions[name]
    detection.activate()


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch, oxen_hub: LocalHub) -> Callable[..., None]:
    """Change fields of the connection ``oxen_default``, which has those the local hub needs; a None leaves one out."""

    def set_fields(**fields: object) -> None:
        named = {"conn_type": "oxen", "host": oxen_hub.url, "password": oxen_hub.api_key, **fields}
        connection = {name: value for name, value in named.items() if value is not None}
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", json.dumps(connection))

    return set_fields


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the ids of the Airflow connections that are looked up on an event loop, in order."""
    ids: list[str] = []
    look_up = hook_module.get_async_connection

    async def counted(conn_id: str, **named: Any) -> Any:
        ids.append(conn_id)
        return await look_up(conn_id, **named)

    monkeypatch.setattr(hook_module, "get_async_connection", counted)
    return ids


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Read what was logged since the last call: the newest Airflow prints it, older ones use logging."""
    caplog.set_level(logging.INFO)

    def read() -> str:
        captured = capsys.readouterr()
        text = captured.out + captured.err or caplog.text
        caplog.clear()
        return text

    return read
