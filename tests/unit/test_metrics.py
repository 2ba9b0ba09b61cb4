"""What a recorder sends, when, and under which names, with a clock that the test sets."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from airflow_provider_oxen import exceptions
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import OxenRateLimitError, OxenServerError
from airflow_provider_oxen.metrics import METRICS, SEND_EVERY_SECONDS, StatsRecorder, error_name
from airflow_provider_oxen.outcomes import Outcome, OutcomeReason

T0 = 1_000.0
REF = EvaluationRef("ox", "r", "e")


class Calls:
    """Stands in for Airflow's metrics: keeps each call as a tuple."""

    def __init__(self) -> None:
        self.made: list[tuple[object, ...]] = []

    def incr(self, stat: str, count: float = 1, *, tags: dict[str, str]) -> None:
        self.made.append((stat, count, tags))

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        self.made.append((stat, value, tags))

    def timing(self, stat: str, dt: float, *, tags: dict[str, str]) -> None:
        self.made.append((stat, dt, tags))

    def take(self) -> list[tuple[object, ...]]:
        made, self.made = self.made, []
        return made


TAGS = {"conn_id": "c", "process": "worker"}


def test_polls_are_summed_up_and_sent_every_ten_seconds() -> None:
    """The first poll sends at once; those of the next ten seconds are sent by the first poll after them, together."""
    stats = Calls()
    recorder = StatsRecorder(stats, "c", "worker")

    recorder.sent(0.25, T0, is_poll=True)
    assert stats.take() == [
        ("oxen.polls", 1, TAGS), ("oxen.poll_seconds", 0.25, TAGS), ("oxen.slowest_poll", 250, TAGS)
    ]  # fmt: skip
    for after in range(9):
        recorder.sent(1.0 if after == 4 else 0.5, T0 + after, is_poll=True)
    assert stats.take() == []
    recorder.sent(0.5, T0 + SEND_EVERY_SECONDS, is_poll=True)
    assert stats.take() == [
        ("oxen.polls", 10, TAGS), ("oxen.poll_seconds", 5.5, TAGS), ("oxen.slowest_poll", 1000, TAGS)
    ]  # fmt: skip


def test_rest_is_sent_once() -> None:
    """What is left is sent when it is asked for, and then forgotten."""
    stats = Calls()
    recorder = StatsRecorder(stats, "c", "worker")
    recorder.sent(0.1, T0, is_poll=False)
    recorder.sent(0.1, T0, is_poll=True, error=OxenServerError("500"))
    recorder.sent(0.1, T0, is_poll=False, error=OxenServerError("500"))
    recorder.sent(0.1, T0, is_poll=True, error=OxenRateLimitError("429"))
    recorder.paused()
    assert stats.take() == []

    recorder.send()

    server, limit = {**TAGS, "error": "server"}, {**TAGS, "error": "rate_limit"}
    assert stats.take()[3:] == [
        ("oxen.failures", 2, server),
        ("oxen.failures.server", 2, server),
        ("oxen.failures", 1, limit),
        ("oxen.failures.rate_limit", 1, limit),
        ("oxen.rate_limit_pauses", 1, TAGS),
    ]
    recorder.send()
    assert stats.take() == []


def test_triggerer_sends_its_number_of_waits() -> None:
    """It goes with the sums, with the machine's name as a tag and as the end of a name, where it is one part."""
    stats = Calls()
    recorder = StatsRecorder(stats, "c", "triggerer", hostname="triggerer-1.example.org", count_waits=lambda: 7)

    recorder.send()

    host = {"hostname": "triggerer-1.example.org"}
    assert stats.take() == [("oxen.waits", 7, host), ("oxen.waits.triggerer-1_example_org", 7, host)]


def test_outcome_is_sent_at_once_with_what_the_evaluation_took() -> None:
    """What the hub does not give, or gives as 0, is left out."""
    stats = Calls()
    recorder = StatsRecorder(stats, "c", "worker")
    seen = Evaluation.from_dict(
        {
            "id": "e",
            "status": "completed",
            "progress": {"processed": 30, "total": 50},
            "credits_used": 1.25,
            "tokens_used": 0,
        }
    )
    outcome = Outcome(OutcomeReason.CONDITION_NOT_MET, REF, evaluation=seen)

    recorder.ended(outcome)

    named = {**TAGS, "outcome": "condition_not_met"}
    assert stats.take() == [
        ("oxen.outcomes", 1, named),
        ("oxen.outcomes.condition_not_met", 1, named),
        ("oxen.rows", 30, TAGS),
        ("oxen.credits", 1.25, TAGS),
    ]


def test_evaluation_that_goes_on_is_not_counted() -> None:
    """After a timeout, the evaluation still costs: what it takes in all is not known."""
    stats = Calls()
    seen = Evaluation.from_dict({"id": "e", "status": "running", "progress": {"processed": 30, "total": 50}})
    outcome = Outcome(OutcomeReason.TIMEOUT, REF, evaluation=seen)

    StatsRecorder(stats, "c", "worker").ended(outcome)
    StatsRecorder(stats, "c", "worker").ended(replace(outcome, evaluation=None))

    assert {call[0] for call in stats.take()} == {"oxen.outcomes", "oxen.outcomes.timeout"}


@pytest.mark.parametrize("conn_id", ["a=b,c", "a|#b:1", "a\nb 9", "größe"])
def test_tags_hold_nothing_that_a_receiver_misreads(conn_id: str) -> None:
    """Whatever a connection is called, its name in tags has letters, digits, dots, dashes and underscores."""
    stats = Calls()
    StatsRecorder(stats, conn_id, "worker").sent(0.1, T0, is_poll=True)

    assert all(re.fullmatch("[a-zA-Z0-9_.-]+", call[2]["conn_id"]) for call in stats.take())


def test_after_a_failure_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    """What sending raises is logged once, and no one waits for it again."""

    def count() -> int:
        raise RuntimeError("no count")

    stats = Calls()
    recorder = StatsRecorder(stats, "c", "triggerer", count_waits=count)
    recorder.sent(0.1, T0, is_poll=True)
    stats.take()
    recorder.sent(0.1, T0 + 60, is_poll=True)
    recorder.send()
    recorder.ended(Outcome(OutcomeReason.LOST, REF))

    assert stats.take() == []
    assert [record.getMessage() for record in caplog.records] == [
        "No metrics from here on: sending them failed (RuntimeError: no count)"
    ]


def test_each_kind_of_failure_has_a_name() -> None:
    """The name is that of the class, and no two have the same."""
    kinds = [getattr(exceptions, name) for name in exceptions.__all__]
    names = [error_name(kind) for kind in kinds]

    assert len(set(names)) == len(names)
    assert error_name(exceptions.OxenRateLimitError) == "rate_limit"
    assert error_name(exceptions.OxenUnreachableError) == "unreachable"
    assert all(re.fullmatch("[a-z_]*", name) for name in names)


def test_names_are_fit_for_airflow_and_prometheus() -> None:
    """A name has only lower-case words, and none begins as another one goes on: a pattern finds the second names."""
    names = [metric.name for metric in METRICS]

    assert all(re.fullmatch(r"oxen\.[a-z_]+", name) for name in names)
    split = [metric.name for metric in METRICS if metric.split_by]
    assert [name for name in names for other in split if name.startswith(f"{other}_")] == []
