"""The logs on the pages have today's messages. Beside a picture are its words: ``make screenshots`` writes them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from airflow_provider_oxen.conditions.limits import Limit
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.messages import describe_deferral, describe_outcome, describe_step
from airflow_provider_oxen.start_messages import describe_started
from airflow_provider_oxen.wait import Outcome, OutcomeReason, Wait
from tests.docs.pages import ROOT

REF = EvaluationRef("ox", "customer-intents", "d0c8585d-1234-5678-abcd-ef0123456789")
T0 = 1_793_527_200.0


def _without_values(line: str) -> str:
    """Leave out what differs between two runs: ids, durations and other numbers."""
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", line)
    line = re.sub(r"after (about )?[\d.]+ (s|min)( \d+ s)?\)", "after TIME)", line)
    line = re.sub(r"[\d.]+ (s|min)( \d+ s)? left", "TIME left", line)
    return re.sub(r"\d[\d,.]*", "N", line)


def _messages() -> set[str]:
    """The messages of a wait for an evaluation that errors, without what differs between two runs."""
    run = {
        "id": REF.evaluation_id,
        "started_at": "2026-11-01T10:00:00",
        "error_message": "the model returned no answer for row 7,201",
    }
    seen = [
        Evaluation.from_dict({"status": status, "progress": {"processed": rows, "total": 12_000}, **run})
        for status, rows in (("queued", 0), ("running", 1_310), ("running", 2_950), ("running", 4_480), ("errored", 5))
    ]
    wait = Wait(REF, 10.0, 60.0, T0 + 3_600, 600.0)
    found = {describe_deferral(wait.advance(seen[0], now=T0, jitter=0.0)[0])}
    for number, evaluation in enumerate(seen):
        before = wait
        wait, step = before.advance(evaluation, now=T0 + number * 10.0, jitter=0.0)
        if isinstance(step, Outcome):
            ended = describe_outcome(replace(step, hub="https://hub.oxen.ai"))
            found |= {ended, f"Task failed with exception AirflowFailException: {ended}"}
        elif line := describe_step(before, wait, step, evaluation):
            found.add(line[1])
    return {_without_values(line) for line in found}


@pytest.mark.parametrize("name", ["gate-deferred", "gate-failed"])
def test_picture_shows_the_messages(name: str) -> None:
    """Each line of this package in a picture's log is a message of today; else run ``make screenshots``."""
    lines = (ROOT / f"docs/images/{name}.txt").read_text().splitlines()

    assert len(lines) >= 4
    assert {_without_values(line) for line in lines} <= _messages()


def test_picture_of_a_judged_gate_shows_its_message() -> None:
    """It says what was found and what is needed in today's words; else run ``make screenshots``."""
    lines = (ROOT / "docs/images/gate-judged.txt").read_text().splitlines()
    begin = "Task failed with exception AirflowFailException: "
    (line,) = (line.removeprefix(begin) for line in lines if line.startswith(begin))
    reason = line.removeprefix("Condition not met: ").partition("; evaluation completed")[0]
    limit = Limit(at_least=0.95)
    evaluation = Evaluation.from_dict({
        "id": REF.evaluation_id,
        "status": "completed",
        "progress": {"processed": 10_000, "total": 10_000},
        "started_at": "2026-11-01T10:00:00",
        "completed_at": "2026-11-01T10:00:07",
    })  # fmt: skip
    completed = Outcome(OutcomeReason.COMPLETED, REF, evaluation, hub="https://hub.oxen.ai")

    found = f"{limit.describe_found(8_412, 10_000)}, {limit.describe_needed()}"
    assert reason.startswith(f"intent = label holds for {found}; for instance row ")
    assert _without_values(line) == _without_values(describe_outcome(completed.with_unmet_condition(reason)))


def test_log_in_the_readme_has_the_messages() -> None:
    """Each line of the log that the README shows is a message of today, where an ellipsis stands for anything."""
    (log,) = re.findall(r"^```\n(\[label\].*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = re.sub(r"\n +", " ", log).splitlines()
    shown = [line.removeprefix("[label]").strip() for line in lines if line.startswith("[label]")]
    done = {"id": REF.evaluation_id, "status": "completed", "progress": {"processed": 12_000, "total": 12_000}}
    done |= {"started_at": "2026-11-01T10:00:00", "completed_at": "2026-11-01T10:08:20"}
    hub = "https://hub.oxen.ai"
    completed = Outcome(OutcomeReason.COMPLETED, REF, Evaluation.from_dict(done), hub=hub)
    others = (describe_started(REF, "name", hub), f"The gate opens. {describe_outcome(completed)}")
    messages = _messages() | {_without_values(line) for line in others}

    assert len(shown) == 4
    for line in shown:
        pattern = re.escape(_without_values(line.replace("d0c8585d-…", "ID…"))).replace("…", ".*")
        assert any(re.fullmatch(pattern, message) for message in messages), line
