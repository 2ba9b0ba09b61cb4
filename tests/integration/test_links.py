"""The links of a task: what the sensor and the trigger know of them, and where Airflow finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.conditions import all_rows
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.get_provider_info import get_provider_info
from airflow_provider_oxen.links.oxen import LINKS
from airflow_provider_oxen.sensors.oxen import OxenEvaluationSensor
from airflow_provider_oxen.storage_compat import link_xcoms
from airflow_provider_oxen.wait import Outcome, OutcomeReason
from tests.support import airflow as sdk
from tests.support.airflow import AIRFLOW_V_3_0_PLUS, DAG, TaskDeferred
from tests.support.links import ADDRESSES, NAMES, addresses_of
from tests.support.public_hub import public_hub
from tests.support.tasks import FakeTaskInstance, RescheduleException, make_gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with public_hub(tmp_path) as (hub, connection):
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection)
        yield hub


def shown(sensor: OxenEvaluationSensor, ti: FakeTaskInstance) -> dict[str, str]:
    """Return the links as Airflow shows them once the process has ended: Airflow 3 calls ``get_link``."""
    if AIRFLOW_V_3_0_PLUS:
        return {link.xcom_key: link.get_link(sensor, ti_key=ti) for link in sensor.operator_extra_links}
    return {link.xcom_key: ti.xcoms[link.xcom_key] for link in LINKS if link.xcom_key in ti.xcoms}


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
def test_links_are_known_from_the_first_poll_on(
    hub: LocalHub, arguments: dict[str, Any], seconds: float, end: str, ended_by: type[BaseException] | None
) -> None:
    """However the task's process ends, the links are there: while the gate waits, and when it has opened or failed."""
    evaluation_id = hub.add_evaluation(seconds=seconds, end=end)
    sensor, ti = make_gate(evaluation_id, **arguments), FakeTaskInstance()

    if ended_by is None:
        sensor.execute({"ti": ti})
    else:
        with pytest.raises(ended_by):
            sensor.execute({"ti": ti})

    assert shown(sensor, ti) == addresses_of(hub, evaluation_id)


def test_results_are_linked_at_the_commit_that_holds_them(hub: LocalHub) -> None:
    """Before there is a commit with the results, their link leads to the target branch; then, to that commit."""
    evaluation_id = hub.add_evaluation(seconds=60)
    waiting, ti = make_gate(evaluation_id), FakeTaskInstance()
    with pytest.raises(TaskDeferred):
        waiting.execute({"ti": ti})
    before = shown(waiting, ti)["_link_OxenResultsLink"]
    hub.add_evaluation(evaluation_id, seconds=0)
    ended, ti = make_gate(evaluation_id), FakeTaskInstance()
    ended.execute({"ti": ti})
    after = shown(ended, ti)["_link_OxenResultsLink"]

    commit = hub.status_of(evaluation_id)["closing_commit"]["id"]
    assert before == "https://www.oxen.ai/ox/customer-intents/file/main/data/intents.parquet"
    assert after == f"https://www.oxen.ai/ox/customer-intents/file/{commit}/data/intents.parquet"


def test_results_without_a_file_of_their_own_are_in_the_source_file(hub: LocalHub) -> None:
    """Where ``target_path`` is null, the results are linked in the source file, on the target branch."""
    fields = {"target_path": None, "target_branch": "results", "closing_commit": None}
    sensor, ti = make_gate(hub.add_evaluation(seconds=0, fields=fields)), FakeTaskInstance()

    sensor.execute({"ti": ti})

    start = "https://www.oxen.ai/ox/customer-intents/file"
    assert shown(sensor, ti)["_link_OxenResultsLink"] == f"{start}/results/data/customers.parquet"


def test_links_are_known_from_the_event(hub: LocalHub) -> None:
    """What the trigger reports is enough: the worker that resumes the task sends no request."""
    sensor, ti = make_gate("e"), FakeTaskInstance()
    document = {
        "id": "e",
        "status": "completed",
        "resource": {"path": "data/customers.parquet", "version": "0123456789abcdef"},
        "target_branch": "main",
        "target_path": "data/intents.parquet",
    }
    ref, evaluation = EvaluationRef("ox", "customer-intents", "e"), Evaluation.from_dict(document)
    outcome = Outcome(OutcomeReason.COMPLETED, ref, evaluation, hub="https://hub.oxen.ai")

    sensor.execute_complete({"ti": ti}, outcome.to_event())

    page = "https://www.oxen.ai/ox/customer-intents/evaluations/e"
    assert shown(sensor, ti) == {**ADDRESSES, "_link_OxenEvaluationLink": page}
    assert hub.requests == []


def test_links_are_there_while_a_worker_pokes(hub: LocalHub) -> None:
    """A worker that goes on poking stores the links before its next poll, and each address once."""
    ti, pushed = FakeTaskInstance(), []
    evaluation_id = hub.add_evaluation(seconds=0.5)
    push = ti.xcom_push

    def note(key: str, value: Any) -> None:
        pushed.append((key, value, hub.requests_for(evaluation_id)))
        push(key, value)

    ti.xcom_push = note  # type: ignore[method-assign]
    make_gate(evaluation_id, deferrable=False).execute({"ti": ti})

    waiting = addresses_of(hub, evaluation_id, closed=False)
    links = [(key, value, polls) for key, value, polls in pushed if key in waiting]
    assert links[:3] == [(key, value, 1) for key, value in waiting.items()]
    assert len({(key, value) for key, value, _ in links}) == len(links)


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 reads links from its XCom backend")
def test_links_are_not_given_to_an_xcom_backend(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that goes on poking leaves its links to Airflow, which would show what a backend made of them."""
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "company.xcom.Backend")
    ti = FakeTaskInstance()

    make_gate(hub.add_evaluation(seconds=0.5), deferrable=False).execute({"ti": ti})

    assert set(ti.xcoms) == {"evaluation", "results"}


def test_other_hub_has_no_links(oxen_hub: LocalHub) -> None:
    """For a hub whose pages are not known, nothing is shown and nothing stored."""
    sensor, ti = make_gate(oxen_hub.add_evaluation(seconds=0)).prepare_for_execution(), FakeTaskInstance()

    sensor.execute({"ti": ti})

    assert shown(sensor, ti) == {}
    assert set(ti.xcoms) == {"evaluation", "results"}


@pytest.mark.parametrize("mapped", [False, True])
def test_task_that_never_sees_its_evaluation_stores_no_link(oxen_hub: LocalHub, mapped: bool) -> None:
    """Airflow 3 would store an empty XCom for each link that the task has when its process ends."""
    oxen_hub.api_key = "another"
    named = {"task_id": "gate", "namespace": "ox", "repo_name": "r", "evaluation_id": "e"}
    if mapped:
        partial = {name: value for name, value in named.items() if name != "evaluation_id"}
        sensor = OxenEvaluationSensor.partial(**partial).expand(evaluation_id=["e"]).unmap(named)
    else:
        sensor = OxenEvaluationSensor(**named).prepare_for_execution()
    with pytest.raises(sdk.AirflowFailException):
        sensor.execute({"ti": FakeTaskInstance()})

    assert list(sensor.operator_extra_links) == []
    assert OxenEvaluationSensor.operator_extra_links == LINKS


def test_only_links_with_an_address_are_stored(hub: LocalHub) -> None:
    """An evaluation whose source is not named has no link to it."""
    ti = FakeTaskInstance()
    sensor = make_gate(hub.add_evaluation(seconds=0, fields={"resource": None})).prepare_for_execution()

    sensor.execute({"ti": ti})

    assert set(shown(sensor, ti)) == {"_link_OxenEvaluationLink", "_link_OxenResultsLink"}


@pytest.mark.parametrize("stored", ["https://www.oxen.ai/x", None])
def test_link_is_read_by_the_key_of_the_task_instance(monkeypatch: pytest.MonkeyPatch, stored: str | None) -> None:
    """Where the operator has not polled itself, as on a web server, the XCom of that very task instance is read."""
    read = []

    def get_value(*, ti_key: Any, key: str) -> str | None:
        read.append((ti_key, key))
        return stored

    monkeypatch.setattr(link_xcoms(), "get_value", get_value)
    ti_key = object()

    assert [link.get_link(make_gate("e"), ti_key=ti_key) for link in LINKS] == [stored or ""] * 3
    assert read == [(ti_key, key) for key in ADDRESSES]


def test_links_are_listed_for_airflow() -> None:
    """The metadata names every link of the sensor, or Airflow 2 shows none; each has a name of its own."""
    listed = {
        f"{type(link).__module__}.{type(link).__qualname__}" for link in OxenEvaluationSensor.operator_extra_links
    }

    assert set(get_provider_info()["extra-links"]) == listed
    assert [link.name for link in LINKS] == NAMES


@pytest.mark.parametrize("mapped", [False, True])
def test_links_survive_the_storage_of_a_dag(mapped: bool) -> None:
    """What Airflow stores of a DAG knows the links, of a mapped gate as well, and stores one with ``conditions``."""
    with DAG("d", schedule=None) as dag:
        common = {"task_id": "gate", "namespace": "ox", "repo_name": "r", "conditions": [all_rows(), lambda _: True]}
        if mapped:
            OxenEvaluationSensor.partial(**common).expand(evaluation_id=["a", "b"])
        else:
            OxenEvaluationSensor(evaluation_id="a", **common)
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization

    stored = Serialization.from_dict(Serialization.to_dict(dag)).get_task("gate")

    assert set(stored.extra_links) == set(NAMES)
