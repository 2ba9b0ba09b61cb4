"""What this package knows of how Airflow stores things, checked on the Airflow that runs the tests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_oxen import storage_compat
from tests.support.airflow import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS, BaseOperatorLink, XCom

needs_3_3 = pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="used on Airflow 3.3 and later only")


@pytest.mark.parametrize(("backend", "custom"), [(None, False), ("my.Backend", True)])
def test_xcom_backend_of_the_user_is_found(monkeypatch: pytest.MonkeyPatch, backend: str | None, custom: bool) -> None:
    """Airflow's own default is none, whatever it is called in the version that runs."""
    if backend is not None:
        monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", backend)

    assert storage_compat.has_custom_xcom_backend() is custom


PLACE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": 3}


def test_xcom_is_deleted_at_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key of one map index of one task instance is deleted."""
    deleted: list[dict[str, Any]] = []
    monkeypatch.setattr(XCom, "delete", lambda **where: deleted.append(where), raising=False)

    storage_compat.delete_xcom(SimpleNamespace(**PLACE), "key")

    assert deleted == [{"key": "key", **PLACE}]


@needs_3_3
@pytest.mark.parametrize("what", ["store_xcom", "store_link"])
async def test_xcom_is_stored_at_its_place(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A triggerer stores results as a worker does, and links without the user's XCom backend."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time import xcom

    class Custom(BaseXCom):
        pass

    stored: list[tuple[type, dict[str, Any]]] = []

    async def aset(cls: type, **named: Any) -> None:
        stored.append((cls, named))

    monkeypatch.setattr(xcom, "XCom", Custom)
    monkeypatch.setattr(BaseXCom, "aset", classmethod(aset))

    await getattr(storage_compat, what)(SimpleNamespace(**PLACE), "key", "value")

    assert stored == [(Custom if what == "store_xcom" else BaseXCom, {"key": "key", "value": "value", **PLACE})]


def test_links_are_stored_by_airflow_3() -> None:
    """Airflow 3 stores the links of a task when its process ends."""
    assert storage_compat.stores_links_at_process_end() is AIRFLOW_V_3_0_PLUS


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no name for it")
def test_link_is_stored_under_airflows_own_key() -> None:
    """The key of a link is the one under which Airflow's page looks for it."""

    class Link(BaseOperatorLink):
        name = "Link"
        get_link = print

    assert storage_compat.link_key(Link()) == Link().xcom_key


@pytest.mark.parametrize("store", [None, object()])
def test_store_of_a_task_is_that_of_its_context(store: object) -> None:
    """A task has the store that its context has, if any."""
    assert storage_compat.task_state_store({"task_state_store": store}) is store
    assert storage_compat.task_state_store({}) is None
