"""The links of a task: what the sensor and the trigger know of them, and where they are looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat import sdk
from airflow.providers.common.compat.sdk import DAG, TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_oxen.accept import all_rows
from airflow_provider_oxen.get_provider_info import get_provider_info
from airflow_provider_oxen.links.oxen import LINKS
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.version_compat import link_xcoms
from tests.integration.test_sensor import FakeTaskInstance, RescheduleException
from tests.public_hub import public_hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub

START = "https://www.oxen.ai/ox/customer-intents/file"
ADDRESSES = {
    "_link_OxenSourceDataLink": f"{START}/0123456789abcdef/data/customers.parquet",
    "_link_OxenResultsLink": f"{START}/main/data/intents.parquet",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)
        yield hub


def gate(evaluation_id: str, **arguments: Any) -> OxenEvaluationSensor:
    named: dict[str, Any] = {"task_id": "gate", "namespace": "ox", "repo_name": "customer-intents"}
    intervals = {"poke_interval": 0.1, "max_wait": 0.1}
    return OxenEvaluationSensor(evaluation_id=evaluation_id, **named | intervals | arguments)


def shown(sensor: OxenEvaluationSensor, ti: FakeTaskInstance) -> dict[str, str]:
    """Give the links as Airflow shows them once the process has ended: Airflow 3 asks for them, Airflow 2 does not."""
    if AIRFLOW_V_3_0_PLUS:
        return {link.xcom_key: link.get_link(sensor, ti_key=ti) for link in LINKS}
    return {key: ti.xcoms.get(key, "") for key in ADDRESSES}


@pytest.mark.parametrize(
    ("arguments", "seconds", "end", "ended_by"),
    [
        ({}, 60, "completed", TaskDeferred),
        ({"deferrable": False, "mode": "reschedule"}, 60, "completed", RescheduleException),
        ({}, 0, "completed", None),
        ({}, 0, "errored", sdk.AirflowFailException),
    ],
    ids=["deferred", "rescheduled", "open", "failed"],
)
def test_links_are_known_from_the_first_look_on(
    hub: LocalHub, arguments: dict[str, Any], seconds: float, end: str, ended_by: type[BaseException] | None
) -> None:
    """However the task's process ends, the links are there: while the gate waits, and when it has opened or failed."""
    sensor, ti = gate(hub.add_evaluation(seconds=seconds, end=end), **arguments), FakeTaskInstance()

    if ended_by is None:
        sensor.execute({"ti": ti})
    else:
        with pytest.raises(ended_by):
            sensor.execute({"ti": ti})

    assert shown(sensor, ti) == ADDRESSES


def test_links_are_known_from_the_event(hub: LocalHub) -> None:
    """What the trigger reports is enough: the worker that concludes the wait asks nobody."""
    sensor, ti = gate("e"), FakeTaskInstance()
    document = {
        "id": "e",
        "status": "completed",
        "resource": {"path": "data/customers.parquet", "version": "0123456789abcdef"},
        "target_branch": "main",
        "target_path": "data/intents.parquet",
    }

    sensor.execute_complete({"ti": ti}, {"outcome": "completed", "hub": "https://hub.oxen.ai", "evaluation": document})

    assert shown(sensor, ti) == ADDRESSES
    assert hub.requests == []


def test_links_are_there_while_a_worker_pokes(hub: LocalHub) -> None:
    """A worker that goes on poking shows the links before its next look, and once."""
    ti, pushed = FakeTaskInstance(), []
    evaluation_id = hub.add_evaluation(seconds=0.5)
    push = ti.xcom_push

    def note(key: str, value: Any) -> None:
        pushed.append((key, hub.requests_for(evaluation_id)))
        push(key, value)

    ti.xcom_push = note  # type: ignore[method-assign]
    gate(evaluation_id, deferrable=False).execute({"ti": ti})

    assert [(key, looks) for key, looks in pushed if key in ADDRESSES] == [(key, 1) for key in ADDRESSES]
    assert {key: ti.xcoms[key] for key in ADDRESSES} == ADDRESSES


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 reads links from its XCom backend")
def test_links_are_no_business_of_an_xcom_backend(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that goes on poking leaves its links to Airflow, which would show what a backend made of them."""
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "company.xcom.Backend")
    ti = FakeTaskInstance()

    gate(hub.add_evaluation(seconds=0.5), deferrable=False).execute({"ti": ti})

    assert set(ti.xcoms) == {"evaluation"}


def test_other_hub_has_no_links(oxen_hub: LocalHub) -> None:
    """For a hub whose pages are not known, nothing is shown and nothing stored."""
    sensor, ti = gate(oxen_hub.add_evaluation(seconds=0)), FakeTaskInstance()

    sensor.execute({"ti": ti})

    assert set(shown(sensor, ti).values()) == {""}
    assert set(ti.xcoms) == {"evaluation"}


@pytest.mark.parametrize("stored", ["https://www.oxen.ai/x", None])
def test_link_is_read_by_the_key_of_the_task_instance(monkeypatch: pytest.MonkeyPatch, stored: str | None) -> None:
    """Where the operator has not looked itself, as on a web server, the XCom of that very task instance is asked."""
    asked = []

    def get_value(*, ti_key: Any, key: str) -> str | None:
        asked.append((ti_key, key))
        return stored

    monkeypatch.setattr(link_xcoms(), "get_value", get_value)
    ti_key = object()

    assert [link.get_link(gate("e"), ti_key=ti_key) for link in LINKS] == [stored or ""] * 2
    assert asked == [(ti_key, key) for key in ADDRESSES]


def test_links_are_listed_for_airflow() -> None:
    """The metadata names every link of the sensor, or Airflow 2 shows none; each has a name of its own."""
    listed = {
        f"{type(link).__module__}.{type(link).__qualname__}" for link in OxenEvaluationSensor.operator_extra_links
    }

    assert set(get_provider_info()["extra-links"]) == listed
    assert {link.name for link in LINKS} == {"Source data on Oxen", "Results on Oxen"}


@pytest.mark.parametrize("mapped", [False, True])
def test_links_survive_the_storage_of_a_dag(mapped: bool) -> None:
    """What Airflow stores of a DAG knows the links, of a mapped gate as well, and takes one with ``accept``."""
    with DAG("d", schedule=None) as dag:
        common = {"task_id": "gate", "namespace": "ox", "repo_name": "r", "accept": [all_rows(), lambda _: True]}
        if mapped:
            OxenEvaluationSensor.partial(**common).expand(evaluation_id=["a", "b"])
        else:
            OxenEvaluationSensor(evaluation_id="a", **common)
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization

    stored = Serialization.from_dict(Serialization.to_dict(dag)).get_task("gate")

    assert set(stored.extra_links) == {"Source data on Oxen", "Results on Oxen"}
