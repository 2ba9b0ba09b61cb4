"""The example DAGs load and do what they show, and each is in the folder's table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.testing import Answers, LocalHub
from tests.support.airflow import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_3_PLUS
from tests.support.dag_test import prepare_database
from tests.support.examples import EXAMPLES, FOLDER, place_example

if TYPE_CHECKING:
    from airflow.sdk import DAG

GATES = {"OxenEvaluationSensor", "OxenRunEvaluationOperator"}
without_warnings = pytest.mark.filterwarnings(
    "ignore:.*start_from_trigger and end_from_trigger have no effect"  # before Airflow 3.3
)
needs_dag_test = pytest.mark.skipif(
    AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_3_PLUS, reason="dag.test() fails there with the newest fastapi"
)


def _load(file: Path, folder: Path) -> dict[str, DAG]:
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=str(place_example(file, folder)))
    assert bag.import_errors == {}
    return bag.dags


@without_warnings
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_one_to_copy(file: Path, tmp_path: Path) -> None:
    """Airflow reads the file; its gates have a timeout and retries, and each of its params is described and checked."""
    if "smtp" in file.read_text():
        why = "this SMTP provider does not go with this common-compat"
        pytest.importorskip("airflow.providers.smtp.notifications.smtp", reason=why, exc_type=ImportError)
    dags = _load(file, tmp_path)

    assert file.stem in dags
    assert all(dag_id.startswith(file.stem) for dag_id in dags)
    gates = [task for task in dags[file.stem].tasks if task.task_type in GATES]
    assert gates
    for gate in gates:
        arguments: dict[str, Any] = getattr(gate, "partial_kwargs", vars(gate))
        assert arguments["retries"] or not arguments["wait_for_completion"]
        assert arguments["timeout"] != 7 * 86_400 or not arguments["wait_for_completion"]
    for param in (dags[file.stem].params.get_param(name) for name in dags[file.stem].params):
        assert param.description
        assert {"type"} < set(param.schema) - {"title", "description"}


def test_examples_import_as_the_pages_do() -> None:
    """Each imports from ``airflow.sdk``, which is where a reader looks a name up."""
    assert [file.name for file in EXAMPLES if "from airflow.sdk import" not in file.read_text()] == []


def test_table_of_examples_is_complete() -> None:
    """Each example is in the folder's README, with a command that runs it."""
    readme = (FOLDER / "README.md").read_text()

    for file in EXAMPLES:
        assert re.search(rf"`{file.name}` \|.*`airflow dags trigger {file.stem} ", readme), file.name


@pytest.fixture(scope="module")
def dags_folder() -> Path:
    """Airflow's own DAGs folder: it runs a DAG from there."""
    from airflow import settings

    prepare_database()
    return Path(settings.DAGS_FOLDER)


def _run(name: str, folder: Path, conf: dict[str, Any]) -> dict[str, Any]:
    """Run an example; return the state of each task and the result of each, and the state of the run."""
    (folder / f"{name}.py").unlink(missing_ok=True)
    run = _load(FOLDER / f"{name}.py", folder)[name].test(run_conf=conf)
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()} | {"run": str(run.state)}


@needs_dag_test
@pytest.mark.parametrize(
    ("end", "taken", "left", "gate"),
    [
        ("completed", "use_new_results", "keep_earlier_results", "success"),
        ("errored", "keep_earlier_results", "use_new_results", "skipped"),
    ],
)
def test_branch_goes_on_without_a_failure(
    end: str, taken: str, left: str, gate: str, oxen_hub: LocalHub, dags_folder: Path
) -> None:
    """The branch that fits the evaluation's end runs, the other one does not, and the run succeeds."""
    evaluation_id = oxen_hub.add_evaluation(end=end, seconds=0)  # type: ignore[arg-type]

    states = _run("example_oxen_branch", dags_folder, {"evaluation_id": evaluation_id})

    assert states == {"gate": gate, "choose": "success", taken: "success", left: "skipped", "run": "success"}


@needs_dag_test
@pytest.mark.parametrize(
    ("right", "taken", "gate"),
    [(0.96, "publish", "success"), (0.84, "review", "skipped"), (0.5, "keep_earlier_answers", "skipped")],
)
def test_branch_is_chosen_by_the_share(
    right: float, taken: str, gate: str, oxen_hub: LocalHub, dags_folder: Path
) -> None:
    """The branch that fits the share of right answers runs, the others do not, and the run succeeds."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0, rows=100, answers=Answers(right=right, wrong=1 - right))

    states = _run("example_oxen_branch_on_accuracy", dags_folder, {"evaluation_id": evaluation_id})

    branches = dict.fromkeys(("publish", "review", "keep_earlier_answers"), "skipped") | {taken: "success"}
    assert states == {"gate": gate, "choose": "success", "run": "success", **branches}


@needs_dag_test
def test_branch_on_a_share_goes_on_without_results(oxen_hub: LocalHub, dags_folder: Path) -> None:
    """An evaluation that errored has no results, and the earlier answers are kept."""
    evaluation_id = oxen_hub.add_evaluation(end="errored", seconds=0)

    states = _run("example_oxen_branch_on_accuracy", dags_folder, {"evaluation_id": evaluation_id})

    assert (states["keep_earlier_answers"], states["run"]) == ("success", "success")


@needs_dag_test
@pytest.mark.parametrize(
    ("right", "wrong", "state"), [(1.0, 0.0, "success"), (0.84, 0.16, "failed"), (0.96, 0.0, "failed")]
)
def test_gate_on_answers_opens_only_for_good_ones(
    right: float, wrong: float, state: str, oxen_hub: LocalHub, dags_folder: Path
) -> None:
    """Too many wrong answers, or one that is missing, and nothing is published."""
    answers = Answers(right=right, wrong=wrong, missing=1 - right - wrong)
    evaluation_id = oxen_hub.add_evaluation(seconds=0, rows=100, answers=answers)

    states = _run("example_oxen_accuracy", dags_folder, {"evaluation_id": evaluation_id})

    assert (states["gate"], states["run"]) == (state, state)
    assert states["publish"] == ("success" if state == "success" else "upstream_failed")


@needs_dag_test
def test_alert_has_the_error_of_the_evaluation(
    oxen_hub: LocalHub, dags_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mail says why the gate stayed closed, and the error message, which is escaped."""
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    mails: list[SmtpNotifier] = []
    monkeypatch.setattr(SmtpNotifier, "notify", lambda notifier, context: mails.append(notifier))  # noqa: ARG005
    evaluation_id = oxen_hub.add_evaluation(end="errored", seconds=0, error_message="no <credits>")

    states = _run("example_oxen_alert", dags_folder, {"evaluation_id": evaluation_id})

    assert states == {"gate": "failed", "run": "failed"}
    (mail,) = mails
    assert mail.subject == "example_oxen_alert.gate stayed closed"
    assert "<p>Its error: no &lt;credits&gt;</p>" in mail.html_content
    assert "600 of 1,000 rows" in mail.html_content


@needs_dag_test
@pytest.mark.parametrize(("end", "state"), [("completed", "success"), ("cancelled", "failed")])
def test_task_group_needs_both(end: str, state: str, oxen_hub: LocalHub, dags_folder: Path) -> None:
    """The group of two gates opens only if both evaluations completed."""
    conf = {"quality": oxen_hub.add_evaluation(seconds=0), "safety": oxen_hub.add_evaluation(end=end, seconds=0)}  # type: ignore[arg-type]

    states = _run("example_oxen_task_group", dags_folder, conf)

    assert states["run"] == state
    assert (states["gates.quality"], states["gates.safety"]) == ("success", state)


@needs_dag_test
def test_id_that_can_be_none_is_refused(oxen_hub: LocalHub, dags_folder: Path) -> None:
    """An address in place of an id does not begin a run."""
    with pytest.raises(Exception, match="does not match"):
        _run("example_oxen_gate", dags_folder, {"evaluation_id": "https://www.oxen.ai/ox/r"})

    assert oxen_hub.requests == []


def test_scheduled_example_does_not_run_by_itself(tmp_path: Path) -> None:
    """It costs money, so it is paused at first and does not catch up; its params have values."""
    dag = _load(FOLDER / "example_oxen_scheduled.py", tmp_path)["example_oxen_scheduled"]

    assert (dag.is_paused_upon_creation, dag.catchup, dag.max_active_runs) == (True, False, 1)
    assert dag.params.validate()
