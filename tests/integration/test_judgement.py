"""Gates that look at what the model answered: the outcome, its words, and the facts that others read."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import retries
from airflow_provider_oxen.airflow_names import Asset
from airflow_provider_oxen.conditions import (
    all_rows,
    column_matches,
    max_credits,
    no_missing_answers,
    row_count,
    rows_where,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.reactions import OxenConditionFailedError, OxenHubUnreachableError
from airflow_provider_oxen.testing import Answers, Disconnect, Fault, LocalHub, Meanwhile, Respond, Scenario
from tests.support.airflow import AirflowFailException, AirflowSkipException
from tests.support.starts import WAYS as OPERATOR_WAYS
from tests.support.starts import StartingTaskInstance, run_operator
from tests.support.tasks import WAYS, WAYS_TO_GO_ON, FakeTaskInstance, Result, add_evaluation, run_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_oxen.evaluations import Evaluation

#: The gate that the README shows.
THREE = [
    no_missing_answers(),
    rows_where("intent = label", at_least=0.95),
    rows_where("length(intent) > 80", at_most=0),
]
#: 84 % are right, and none is missing.
SOME_WRONG = Answers(right=0.84, wrong=0.16, wrong_answer="other")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", hub.connection_uri)
        yield hub


@dataclass
class FakeOutletEvents:
    """Stands in for Airflow's ``outlet_events``: an object with ``extra`` for each outlet."""

    events: dict[Any, Any] = field(default_factory=dict)

    def __getitem__(self, outlet: Any) -> Any:
        return self.events.setdefault(outlet.uri, type("Event", (), {"extra": {}})())


def run(hub: LocalHub, *, way: str = "first poll", scenario: Any = None, **arguments: Any) -> Result:
    evaluation_id = add_evaluation(hub, way, **{"rows": 100, "answers": SOME_WRONG, **(scenario or {})})
    return run_task(way, evaluation_id, **arguments)


@pytest.mark.parametrize("way", [*WAYS, *WAYS_TO_GO_ON])
def test_every_way_of_waiting_says_why_and_measures(hub: LocalHub, way: str) -> None:
    """The outcome, its words and its facts are the same."""
    result = run(hub, way=way, conditions=THREE)

    assert result.failure[0] is AirflowFailException
    assert result.failure[1].startswith(
        "Condition not met: intent = label holds for 84 of 100 rows (84 %), at least 95 % are needed; for instance row "
    )
    results = result.xcoms["results"]
    measured = [(each["condition"], each["rows"], each["share"], each["holds"]) for each in results["conditions"]]
    assert (results["path"], results["rows"]) == ("data/intents.parquet", 100)
    assert results["version"] == result.xcoms["evaluation"]["closing_commit"]["id"]
    assert measured == [
        ("intent is not missing", 100, 1.0, True),
        ("intent = label", 84, 0.84, False),
        ("length(intent) > 80", 0, 0.0, True),
    ]


@pytest.mark.parametrize("way", OPERATOR_WAYS)
def test_operator_judges_what_it_started(hub: LocalHub, way: str) -> None:
    hub.on_start = Scenario(seconds=0.3, rows=100, answers=SOME_WRONG)
    ti = StartingTaskInstance()

    ended = run_operator(way, ti, None, conditions=THREE, auto_commit=True, target_branch="main")

    assert isinstance(ended.raised, AirflowFailException)
    assert str(ended.raised).startswith("Condition not met: intent = label holds for 84 of 100 rows (84 %)")
    assert [each["share"] for each in ti.xcoms["results"]["conditions"]] == [1.0, 0.84, 0.0]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl", "ndjson", "json"])
def test_every_format_is_judged(hub: LocalHub, suffix: str) -> None:
    path = f"data/intents.{suffix}"
    answers = Answers(right=0.9, missing=0.1)

    result = run(hub, scenario={"answers": answers, "fields": {"target_path": path}}, conditions=no_missing_answers())

    assert result.failure[1].startswith("Condition not met: intent is missing in 10 of 100 rows (10 %)")
    assert result.xcoms["results"]["path"] == path


def test_gate_opens_for_good_answers(hub: LocalHub, logged: Callable[[], str]) -> None:
    result = run(hub, scenario={"answers": Answers()}, conditions=[all_rows(), *THREE])

    assert result.raised is None
    assert result.returned["status"] == "completed"
    assert "Checked 100 rows: intent is not missing: 100 of 100 (100.00 %); intent = label: 100 of 100" in logged()


def test_all_that_is_not_met_is_said(hub: LocalHub) -> None:
    """A gate that needs two corrections says both at once."""
    answers = Answers(right=0.8, wrong=0.1, missing=0.1)

    _, text = run(hub, scenario={"answers": answers}, conditions=[max_credits(0), *THREE]).failure

    assert "credits were spent" in text
    assert "intent is missing in 10 of 100 rows" in text
    assert "intent = label holds for 80 of 100 rows" in text


def test_results_without_rows_are_said_once(hub: LocalHub) -> None:
    """No condition holds, all for the same reason."""
    _, text = run(hub, scenario={"rows": 0, "answers": None}, conditions=THREE).failure

    assert text.startswith("Condition not met: the results have no rows; the columns are id, text, label, intent; ")
    assert text.count("no rows") == 1


@pytest.mark.parametrize(("way", "looks"), [("first poll", False), ("deferred", True)])
def test_what_was_waited_for_is_looked_up_after_a_deferral_alone(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, way: str, looks: bool
) -> None:
    """Without one there is no such XCom, and Airflow logs an error about an XCom that is not there."""
    pulled: list[str] = []
    pull = FakeTaskInstance.xcom_pull

    def note(ti: FakeTaskInstance, task_ids: str, key: str, map_indexes: int) -> Any:
        pulled.append(key)
        return pull(ti, task_ids, key, map_indexes)

    monkeypatch.setattr(FakeTaskInstance, "xcom_pull", note)

    run(hub, way=way, conditions=THREE)

    assert ("waits_for" in pulled) is looks


def test_results_are_located_without_conditions_on_rows(hub: LocalHub) -> None:
    """Nothing is downloaded for it."""
    result = run(hub, conditions=all_rows())

    commit = result.xcoms["evaluation"]["closing_commit"]["id"]
    assert result.xcoms["results"] == {
        "path": "data/intents.parquet", "version": commit, "rows": None, "conditions": [],
    }  # fmt: skip
    assert not [request for request in hub.requests if "/file/" in request.path or "/meta/" in request.path]


def test_no_xcom_where_none_is_wanted(hub: LocalHub) -> None:
    result = run(hub, conditions=no_missing_answers(), do_xcom_push=False)

    assert "results" not in result.xcoms


def test_rows_are_those_that_were_judged_though_the_branch_moves_on(hub: LocalHub) -> None:
    """Another person commits other rows right after the evaluation's commit."""
    evaluation_id = add_evaluation(hub, "first poll", rows=100, answers=Answers())
    OxenHook().get_evaluation("ox", "customer-intents", evaluation_id)
    hub.add_file("ox", "customer-intents", "data/intents.parquet", [{"intent": None, "label": "x"}])

    result = run_task("first poll", evaluation_id, conditions=THREE)

    assert result.raised is None
    assert result.xcoms["results"]["rows"] == 100


def test_commit_that_is_not_reported_is_looked_up(hub: LocalHub) -> None:
    fields = {"closing_commit": None}
    evaluation_id = add_evaluation(hub, "first poll", rows=100, answers=Answers(), fields=fields)
    OxenHook().get_evaluation("ox", "customer-intents", evaluation_id)  # which commits its results
    commit = hub.add_file("ox", "customer-intents", "data/intents.parquet", [{"intent": "a", "label": "a"}])

    result = run_task("first poll", evaluation_id, conditions=THREE)

    assert result.raised is None
    assert (result.xcoms["results"]["version"], result.xcoms["results"]["rows"]) == (commit, 1)


def test_results_that_were_not_committed_keep_the_gate_closed(hub: LocalHub) -> None:
    fields = {"closing_commit": None, "target_branch": None}

    result = run(hub, scenario={"fields": fields}, conditions=no_missing_answers())

    assert result.failure[0] is AirflowFailException
    assert "started without auto_commit=True" in result.failure[1]
    assert result.failure[1].count(f"evaluation {result.xcoms['evaluation']['id']}") == 1
    assert result.xcoms["results"] == {"path": None, "version": None, "rows": None, "conditions": []}


@pytest.mark.parametrize("path", ["data/..", "data/../x.csv", f"data/{'n' * 300}.csv"])
def test_path_that_no_file_can_have_is_final(hub: LocalHub, path: str) -> None:
    """The message says that it is the hub's path, and nothing is downloaded."""
    commit = hub.add_file("ox", "customer-intents", "data/x.csv", b"intent\na\n")
    fields = {"target_path": path, "closing_commit": {"id": commit}}

    result = run(hub, scenario={"rows": 1, "answers": None, "fields": fields}, conditions=no_missing_answers())

    assert result.failure[0] is AirflowFailException
    assert result.failure[1].startswith("Condition not met: no rows to check: the hub says that the results are in ")
    assert not [request for request in hub.requests if "/file/" in request.path]


def test_hub_that_lasts_out_of_reach_may_be_retried(hub: LocalHub) -> None:
    hub.file_faults = [Fault(Disconnect())]

    result = run(hub, conditions=no_missing_answers(), retry_window=0.5)

    assert result.failure[0] is OxenHubUnreachableError
    assert result.failure[1].startswith("Results could not be read for longer than retry_window: ")
    assert result.xcoms["evaluation"]["status"] == "completed"


def test_hub_that_refuses_is_final(hub: LocalHub) -> None:
    hub.file_faults = [Fault(Respond(403, b'{"status": "error", "status_message": "not yours"}'))]

    result = run(hub, conditions=no_missing_answers())

    assert result.failure[0] is AirflowFailException
    assert result.failure[1].startswith("Conditions not checked, a file cannot be read: 403")


def test_busy_hub_is_asked_again(hub: LocalHub) -> None:
    hub.file_faults = [Fault(Respond(429, headers={"Retry-After": "0"}), count=1)]

    result = run(hub, scenario={"answers": Answers()}, conditions=no_missing_answers(), retry_window=30)

    assert result.raised is None


def test_connection_that_leads_to_another_hub_by_now_is_refused(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the same path elsewhere would be others."""
    with LocalHub() as other:

        def move() -> None:
            monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", other.connection_uri)

        evaluation_id = add_evaluation(hub, "deferred", rows=10, faults=[Fault(Meanwhile(move), first=2, count=1)])
        result = run_task("deferred", evaluation_id, conditions=no_missing_answers())

        assert result.failure[0] is AirflowFailException
        assert f"leads to {other.url} now, but the evaluation was polled at {hub.url}" in result.failure[1]
        assert not other.requests


def test_connection_that_was_waited_with_is_used(hub: LocalHub) -> None:
    """A template that renders to another connection after the wait changes nothing."""
    result = run(
        hub, way="deferred", scenario={"answers": Answers()}, conditions=THREE, rendered_later={"oxen_conn_id": "gone"}
    )

    assert result.raised is None


def test_callable_gets_evaluation_and_rows(hub: LocalHub) -> None:
    seen: list[Any] = []

    def enough_refunds(evaluation: Evaluation, rows: Any) -> bool | str:
        seen.append(evaluation.target_column)
        ((found,),) = rows.filter("intent = 'other'").count("*").fetchall()
        return found < 10 or f"{found} answers are other"

    result = run(hub, conditions=enough_refunds)

    assert result.failure[1].startswith("Condition not met: 16 answers are other")
    assert seen == ["intent"]


def test_callable_that_raises_may_be_retried(hub: LocalHub) -> None:
    def broken(evaluation: Evaluation, rows: Any) -> bool:  # noqa: ARG001
        raise RuntimeError("no such service")

    assert run(hub, conditions=broken).failure[0] is OxenConditionFailedError


def test_condition_may_skip(hub: LocalHub) -> None:
    def skips(evaluation: Evaluation, rows: Any) -> bool:  # noqa: ARG001
        raise AirflowSkipException("enough")

    assert run(hub, conditions=skips).failure == (AirflowSkipException, "enough")


def test_soft_fail_skips_and_the_facts_stay(hub: LocalHub) -> None:
    result = run(hub, conditions=THREE, soft_fail=True)

    assert result.failure[0] is AirflowSkipException
    assert result.xcoms["results"]["conditions"][1]["share"] == 0.84


def test_confidential_rows_are_in_no_message_and_no_fact(hub: LocalHub, logged: Callable[[], str]) -> None:
    answers = Answers(right=0.84, wrong=0.16, wrong_answer="IBAN DE00")
    hidden = [
        rows_where("intent = label", at_least=0.95, show_rows=False),
        column_matches("label", show_rows=False),
    ]

    result = run(hub, scenario={"answers": answers}, conditions=hidden)

    everything = f"{result.raised} {json.dumps(result.xcoms)} {logged()}"
    assert "84 of 100 rows" in everything
    assert "DE00" not in everything


def test_key_in_a_cell_is_redacted(hub: LocalHub) -> None:
    answers = Answers(right=0.5, wrong=0.5, wrong_answer=hub.api_key)

    result = run(hub, scenario={"answers": answers}, conditions=column_matches("label"))

    assert hub.api_key not in str(result.raised)
    assert "'***'" in str(result.raised)


def _largest(rows: Any) -> str:
    ((found,),) = rows.aggregate("max(intent)").fetchall()
    return str(found)


def _raise(error: type[Exception], rows: Any) -> bool:
    raise error(f"not good: {_largest(rows)}")


@pytest.mark.parametrize("error", [ValueError, AirflowFailException, AirflowSkipException])
def test_key_in_the_error_of_a_callable_is_redacted(
    hub: LocalHub, logged: Callable[[], str], error: type[Exception]
) -> None:
    """Whatever a callable raises, the key is in no message, in no log and in no XCom."""
    answers = Answers(wrong=1, right=0, wrong_answer=hub.api_key)

    result = run(hub, scenario={"answers": answers}, conditions=lambda _, rows: _raise(error, rows))

    assert "not good: ***" in str(result.raised)
    assert hub.api_key not in f"{result.raised} {json.dumps(result.xcoms)} {logged()}"


def test_confidential_rows_are_not_in_the_error_of_a_callable(hub: LocalHub, logged: Callable[[], str]) -> None:
    """One condition that hides rows is enough: of what a callable raises, the class is shown alone."""
    answers = Answers(wrong=1, right=0, wrong_answer="IBAN DE00")
    conditions = [no_missing_answers(show_rows=False), lambda _, rows: int(_largest(rows)) > 1]

    result = run(hub, scenario={"answers": answers}, conditions=conditions)

    assert result.failure[0] is OxenConditionFailedError
    assert result.failure[1].startswith("Condition could not be checked: ValueError; evaluation completed")
    assert "A condition raised ValueError, in:" in logged()
    assert "DE00" not in f"{result.raised} {json.dumps(result.xcoms)} {logged()}"


def test_what_was_measured_stays_where_a_callable_raises(hub: LocalHub, logged: Callable[[], str]) -> None:
    """The XCom has the file, its rows and the facts so far, and the log has its line."""
    result = run(hub, conditions=[*THREE, lambda _, rows: int(_largest(rows)) > 1])

    results = result.xcoms["results"]
    assert result.failure[0] is OxenConditionFailedError
    assert (results["path"], results["rows"]) == ("data/intents.parquet", 100)
    assert [each["share"] for each in results["conditions"]] == [1.0, 0.84, 0.0]
    assert "Checked 100 rows: intent is not missing: 100 of 100" in logged()


def test_nothing_is_left_in_the_temporary_directory(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    run(hub, conditions=THREE)

    assert list(tmp_path.iterdir()) == []


def test_source_is_counted_at_the_version_that_was_evaluated(hub: LocalHub) -> None:
    rows = [{"id": number, "label": "a"} for number in range(30)]
    commit = hub.add_file("ox", "customer-intents", "data/customers.parquet", rows)
    scenario = {"answers": Answers(), "fields": {"commit_id": commit}}
    evaluation_id = add_evaluation(hub, "first poll", **scenario)
    OxenHook().get_evaluation("ox", "customer-intents", evaluation_id)
    hub.add_file("ox", "customer-intents", "data/customers.parquet", rows[:1])

    result = run_task("first poll", evaluation_id, conditions=row_count(same_as_source=True))

    assert result.raised is None
    assert result.xcoms["results"]["conditions"][0]["holds"] is True


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the pauses between two tries take no time, and collect them."""
    naps: list[float] = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: sum(naps), sleep=naps.append))
    return naps


#: Of a hub that describes the results, and fails when it is asked about the source.
BUSY_LATER = [Respond(429, headers={"Retry-After": "5"}), Respond(503)]


@pytest.mark.parametrize("effect", BUSY_LATER, ids=["429", "503"])
def test_source_is_counted_after_a_fault_that_passes(hub: LocalHub, naps: list[float], effect: Respond) -> None:
    """The pause that the hub asks for is kept."""
    hub.meta_faults = [Fault(effect, first=2, count=1)]

    result = run(hub, conditions=row_count(same_as_source=True), retry_window=30)

    assert result.raised is None
    assert len(naps) == 1
    assert effect.status_code == 503 or naps[0] >= 5


def test_source_that_cannot_be_counted_in_time_may_be_retried(hub: LocalHub, naps: list[float]) -> None:
    """What was measured before stays."""
    hub.meta_faults = [Fault(Respond(503), first=2)]

    result = run(hub, conditions=[no_missing_answers(), row_count(same_as_source=True)], retry_window=9)

    assert result.failure[0] is OxenHubUnreachableError
    assert 2 <= sum(naps) <= 9
    assert result.xcoms["results"]["rows"] == 100
    assert [each["condition"] for each in result.xcoms["results"]["conditions"]] == ["intent is not missing"]


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"target_path": None}, False),
        ({"target_path": None, "target_branch": None}, False),
        ({"target_path": None, "commit_id": "first"}, True),
        ({"target_path": "data/out.parquet"}, True),
        ({"target_path": None, "target_branch": "eval"}, True),
    ],
    ids=["overwritten", "overwritten where no branch is named", "commit", "another file", "another branch"],
)
def test_results_are_not_compared_with_themselves(hub: LocalHub, fields: dict[str, Any], *, holds: bool) -> None:
    """Where the results overwrote the source and no commit of it is known, its rows are not known either."""
    commit = hub.add_file("ox", "customer-intents", "data/c.parquet", [{"id": n, "label": "a"} for n in range(100)])
    if "commit_id" in fields:
        fields["commit_id"] = commit
    source = {"path": "data/c.parquet", "version": "main"}
    scenario = {"fields": {"commit_id": None, "resource": source, **fields}}

    result = run(hub, scenario=scenario, conditions=row_count(same_as_source=True))

    assert (result.raised is None) is holds
    assert holds or "the hub does not report how many it has" in str(result.raised)


def test_asset_event_has_the_facts(hub: LocalHub) -> None:
    outlet = Asset(uri="oxen://hub.oxen.ai/ox/customer-intents/data/intents.parquet")
    events = FakeOutletEvents()

    result = run(
        hub, scenario={"answers": Answers()}, conditions=THREE, outlets=[outlet], context={"outlet_events": events}
    )

    assert result.raised is None
    assert events[outlet].extra["results"] == result.xcoms["results"]


@pytest.mark.parametrize("right", [1.0, 0.84])
def test_lineage_has_an_assertion_for_each_condition(hub: LocalHub, right: float) -> None:
    """Whether the gate opens or not."""
    result = run(hub, scenario={"answers": Answers(right=right, wrong=1 - right)}, conditions=THREE)

    assert result.sensor is not None
    lineage = result.sensor.get_openlineage_facets_on_complete(None)
    assert lineage is not None
    judged = next(each for each in lineage.inputs if each.inputFacets)
    assert judged.name == "ox/customer-intents/data/intents.parquet"
    assert judged.facets["version"].datasetVersion == result.xcoms["results"]["version"]
    assertions = judged.inputFacets["dataQualityAssertions"].assertions
    assert [(each.assertion, each.success) for each in assertions] == [
        ("intent is not missing", True),
        ("intent = label", right == 1.0),
        ("length(intent) > 80", True),
    ]
    assert judged.inputFacets["dataQualityMetrics"].rowCount == 100


def test_deadline_does_not_stop_what_comes_after_the_wait(hub: LocalHub) -> None:
    """The evaluation ended in time. Its results may come later than the timeout."""
    released = threading.Event()
    threading.Timer(0.8, released.set).start()
    hub.file_faults = [Fault(Meanwhile(partial(released.wait, 5)), count=1)]

    result = run(hub, scenario={"answers": Answers()}, conditions=THREE, timeout=0.5)

    assert result.raised is None
