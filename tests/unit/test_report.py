"""Every sentence a person reads about a wait."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.api import read_evaluation
from airflow_provider_oxen.exceptions import OxenError, OxenRateLimitError, OxenServerError
from airflow_provider_oxen.models import Evaluation, EvaluationRef
from airflow_provider_oxen.report import (
    describe_duration,
    describe_outcome,
    describe_progress,
    describe_step,
    repository_url,
    results_url,
    source_url,
)
from airflow_provider_oxen.wait import Outcome, OutcomeReason, Wait

REF = EvaluationRef("ox", "customer-intents", "e-1")
HUB = "https://hub.oxen.ai"
SEE = "See https://www.oxen.ai/ox/customer-intents"
T0 = 1_793_527_200.0  # 2026-11-01 10:00:00 UTC
RUN = {"started_at": "2026-11-01T09:00:00", "completed_at": "2026-11-01T09:03:20"}


def _seen(status: str = "running", processed: int | None = None, total: int | None = None, **fields: Any) -> Evaluation:
    return read_evaluation(
        {"id": "e-1", "status": status, "progress": {"processed": processed, "total": total}, **fields}
    )


def _lines(*looks: Evaluation | OxenError, every: float = 10.0) -> list[tuple[int, str] | None]:
    wait, lines = Wait("e-1", 10.0, 60.0, T0 + 3_600, 600.0), []
    for number, seen in enumerate(looks):
        before = wait
        wait, step = before.look(seen, now=T0 + number * every, jitter=0.0)
        lines.append(describe_step(REF, before, wait, step, seen))
    return lines


def _outcome(reason: str, evaluation: Evaluation | None = None, **named: Any) -> str:
    return describe_outcome(REF, Outcome(OutcomeReason(reason), evaluation, **{"hub": HUB, **named}))


# A line for each look


def test_look_is_one_line_and_none_where_nothing_moved() -> None:
    """A change of status or rows is a line with the time left; a look that saw the same again is none."""
    looks = [_seen("queued"), _seen("queued"), *[_seen(processed=n, total=1_200) for n in (100, 100, 300)]]

    assert _lines(*looks) == [
        (logging.INFO, "Evaluation e-1 of ox/customer-intents is queued."),
        None,
        (logging.INFO, "Evaluation e-1 of ox/customer-intents is running: 100 of 1,200 rows (8.3 %)."),
        None,
        (
            logging.INFO,
            "Evaluation e-1 of ox/customer-intents is running: 300 of 1,200 rows (25.0 %), about 1 min 30 s left.",
        ),
    ]


def test_failed_look_is_a_warning_with_the_next_look() -> None:
    """A failure is told by its class, its words, and when the hub is asked again."""
    (line,) = _lines(OxenServerError("503: busy", request="GET /x", request_id="r-1"))

    assert line == (
        logging.WARNING,
        "Look 1 failed (OxenServerError): [request r-1] GET /x: 503: busy. Asking again in 5 s.",
    )


def test_every_failed_look_is_told() -> None:
    """A failure that repeats is told each time, with its number."""
    lines = _lines(*[OxenRateLimitError("429", retry_after_seconds=30.0)] * 3, every=40)

    assert [line and line[1].split(" failed")[0] for line in lines] == ["Look 1", "Look 2", "Look 3"]


def test_recovery_is_told_though_nothing_moved() -> None:
    """After a failure the evaluation is told again, even where it stands as before."""
    lines = _lines(_seen("queued"), OxenServerError("x"), _seen("queued"), _seen("queued"))

    assert lines[2:] == [(logging.INFO, "Evaluation e-1 of ox/customer-intents is queued."), None]


def test_unknown_status_is_warned_of_once() -> None:
    """A status this version does not know is one warning; further progress under it is plain information."""
    lines = _lines(
        _seen(), _seen("paused"), _seen("paused"), _seen("paused", 5, 10), OxenServerError("x"), _seen("paused"),
        _seen(), _seen("paused")
    )  # fmt: skip

    assert [line and line[0] for line in lines] == [
        logging.INFO,
        logging.WARNING,
        None,
        logging.INFO,
        logging.WARNING,
        logging.INFO,
        logging.INFO,
        logging.INFO,
    ]
    assert lines[1][1] == (
        "Evaluation e-1 of ox/customer-intents has the status 'paused', which this version does not know. "
        "Waiting on: only 'completed' opens the gate."
    )


def test_end_of_a_wait_is_no_line_of_a_look() -> None:
    """An outcome has its own sentence."""
    assert _lines(_seen("completed")) == [None]


@pytest.mark.parametrize(
    ("progress", "told"),
    [
        ((None, None), "running"),
        ((0, None), "running"),
        ((0, 0), "running"),
        ((7, None), "running: 7 rows"),
        ((1_200, 0), "running: 1,200 rows"),
        ((0, 40), "running: 0 of 40 rows (0.0 %)"),
        ((99_999, 100_000), "running: 99,999 of 100,000 rows (99.9 %)"),
        ((40, 40), "running: 40 of 40 rows (100.0 %)"),
    ],
)
def test_progress_is_told_as_far_as_known(progress: tuple[int | None, int | None], told: str) -> None:
    """Rows are told where the hub counts them; all of them only when all are done."""
    assert describe_progress(_seen("running", *progress)) == told


# How a wait ended


def test_completed() -> None:
    """A completion tells how long the evaluation ran and the rows done, and points nowhere."""
    assert _outcome("completed", _seen("completed", 1_200, 1_200, **RUN)) == (
        "Evaluation e-1 of ox/customer-intents completed after 3 min 20 s, 1,200 of 1,200 rows done."
    )


def test_errored() -> None:
    """A failure tells the hub's reason, the rows done, how long it had run until it was seen, and where it is."""
    evaluation = _seen("errored", 700, 1_200, started_at=RUN["started_at"], error_message="model quota exceeded")

    assert _outcome("errored", evaluation, at=T0) == (
        "Evaluation e-1 of ox/customer-intents errored after about 1 h, 700 of 1,200 rows done: "
        f"model quota exceeded. {SEE}"
    )


def test_errored_without_a_reason() -> None:
    """Where the hub gives no reason, that is said."""
    assert _outcome("errored", _seen("errored")) == (
        f"Evaluation e-1 of ox/customer-intents errored: the hub gives no error message. {SEE}"
    )


def test_cancelled() -> None:
    """A cancellation tells rows, time and the hub's words where it has any."""
    evaluation = _seen("cancelled", 3, None, started_at=RUN["started_at"], cancelled_at="2026-11-01T11:05:00")

    assert _outcome("cancelled", evaluation) == (
        f"Evaluation e-1 of ox/customer-intents was cancelled after 2 h 5 min, 3 rows done. {SEE}"
    )
    assert "was cancelled: by Bo! See" in _outcome("cancelled", _seen("cancelled", error_message="by Bo!"))


def test_timeout() -> None:
    """A timeout tells the deadline, the last status and progress, and the last failure."""
    told = _outcome("timeout", _seen("running", 700, 1_200), deadline=T0, at=T0, error="503: busy.")

    assert told == (
        "Timed out: evaluation e-1 of ox/customer-intents had not ended by 2026-11-01 10:00:00 UTC, the deadline of "
        f"the task. Last seen running: 700 of 1,200 rows (58.3 %). Last failure: 503: busy. {SEE}"
    )


@pytest.mark.parametrize("deadline", [1e300, 1e17, -1e12])
def test_deadline_beyond_the_calendar_is_told_without_a_date(deadline: float) -> None:
    """A deadline no calendar has does not keep a timeout from being told."""
    assert "Timed out: evaluation e-1 of ox/customer-intents had not ended" in _outcome("timeout", deadline=deadline)


def test_timeout_of_an_evaluation_never_seen() -> None:
    """A wait that never had an answer says so."""
    assert "It was never seen. Last failure: down. " in _outcome("timeout", deadline=T0, error="down")


def test_refused() -> None:
    """A refusal is told in the words of the error."""
    assert _outcome("refused", error="GET /x: 401: the API key is not accepted.") == (
        "Cannot wait for evaluation e-1 of ox/customer-intents: GET /x: 401: the API key is not accepted. " + SEE
    )


def test_unreachable() -> None:
    """A hub out of reach is told with the argument that gave up, the last evaluation and the last failure."""
    assert _outcome("unreachable", _seen("queued"), error="refused") == (
        "Gave up on evaluation e-1 of ox/customer-intents: the hub could not be asked for longer than retry_window. "
        f"Last seen queued. Last failure: refused. {SEE}"
    )


def test_unaccepted() -> None:
    """A completed evaluation that ``accept`` refuses is told with the reason."""
    assert _outcome("unaccepted", _seen("completed", 9, 10, **RUN), error="9 of 10 rows were processed") == (
        "Evaluation e-1 of ox/customer-intents completed after 3 min 20 s, 9 of 10 rows done, but accept closes the "
        f"gate: 9 of 10 rows were processed. {SEE}"
    )


def test_unjudged() -> None:
    """An ``accept`` that failed is named, with its error."""
    assert _outcome("unjudged", _seen("completed"), error="KeyError: 'x'") == (
        "Evaluation e-1 of ox/customer-intents completed, but accept failed, so the gate stays shut: KeyError: 'x'. "
        + SEE
    )


def test_lost() -> None:
    """A trigger that ended without a word leaves the gate shut, and says so."""
    assert _outcome("lost", error="no event", hub=None) == (
        "The wait for evaluation e-1 of ox/customer-intents ended without a result, so the gate stays shut: no event."
    )


@pytest.mark.parametrize("reason", [reason for reason in OutcomeReason if reason != "completed"])
def test_every_failure_points_to_its_place(reason: OutcomeReason) -> None:
    """Any end but a completion says where to look: the page of the public hub, or the address of another one."""
    assert _outcome(reason).endswith(f" {SEE}")
    assert _outcome(reason, hub="http://localhost:8080").endswith(" Hub: http://localhost:8080")


@pytest.mark.parametrize("reason", list(OutcomeReason))
def test_outcome_of_which_nothing_is_known_is_still_a_sentence(reason: OutcomeReason) -> None:
    """An outcome of an older event may lack everything but its reason: what is missing is not told as ``None``."""
    told = describe_outcome(REF, Outcome(reason))

    assert "None" not in told
    assert "evaluation e-1 of ox/customer-intents" in told.lower()
    assert told.endswith(".")


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(OutcomeReason),
    st.fixed_dictionaries(dict.fromkeys(["error", "hub", "deadline", "at"], ODD)),
    st.dictionaries(st.sampled_from(["started_at", "inserted_at", "completed_at"]), st.datetimes().map(str)),
)
def test_any_event_can_be_told(reason: OutcomeReason, fields: dict[str, object], moments: dict[str, str]) -> None:
    """Whatever an event holds, its outcome has a sentence."""
    status = str(reason) if reason in ("completed", "errored", "cancelled") else "running"
    event = {"outcome": str(reason), "evaluation": {"id": "e-1", "status": status, **moments}, **fields}

    told = describe_outcome(REF, Outcome.from_event(event, evaluation_id="e-1"))

    assert "evaluation e-1 of ox/customer-intents" in told.lower()


# Parts of sentences


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.05, "0.1 s"),
        (5, "5 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3_600, "1 h"),
        (3_661, "1 h 1 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_duration_is_told_in_its_two_largest_units(seconds: float, told: str) -> None:
    """A duration is short to read; below ten seconds it has a decimal."""
    assert describe_duration(seconds) == told


@pytest.mark.parametrize("hub", [None, "http://hub.oxen.ai", "https://dev.hub.oxen.ai", "https://hub.oxen.ai/prefix"])
def test_only_the_public_hub_has_known_pages(hub: str | None) -> None:
    """For any other hub no page is made up."""
    assert repository_url(REF, hub) is None


def test_page_of_a_repository_is_encoded() -> None:
    """Names are encoded into the page's address."""
    assert repository_url(EvaluationRef("ö x", "a?b", "e"), HUB) == "https://www.oxen.ai/%C3%B6%20x/a%3Fb"


FILE = "https://www.oxen.ai/ox/customer-intents/file"


def _source(path: Any, version: Any, hub: str | None = HUB) -> str | None:
    return source_url(REF, _seen(resource={"path": path, "version": version}), hub)


def _results(path: Any, branch: Any) -> str | None:
    return results_url(REF, _seen(target_path=path, target_branch=branch), HUB)


@pytest.mark.parametrize("find", [_source, _results])
@pytest.mark.parametrize(
    ("path", "version", "place"),
    [
        ("data/customers.parquet", "0123abcd", "0123abcd/data/customers.parquet"),
        ("/data/customers.parquet", "main", "main/data/customers.parquet"),
        ("Ärger & Co?.csv", "a#b", "a%23b/%C3%84rger%20%26%20Co%3F.csv"),
        ("a.csv", "feature/x", "feature%2Fx/a.csv"),
        ("https://evil.example/", "main", None),
        ("a.csv", "//evil.example", "%2F%2Fevil.example/a.csv"),
    ],
)
def test_page_of_a_file(find: Any, path: str, version: str, place: str | None) -> None:
    """A file is at its branch or commit inside its repository, and the hub's words cannot lead anywhere else."""
    assert find(path, version) == (place and f"{FILE}/{place}")


@pytest.mark.parametrize("find", [_source, _results])
@pytest.mark.parametrize(
    ("path", "version"),
    [
        (None, "main"),
        ("a.csv", None),
        ("", "main"),
        ("a.csv", ""),
        ("../a", "main"),
        ("a", ".."),
        ("a/./b", "m"),
        (7, 7),
    ],
)
def test_page_of_a_file_that_is_not_known(find: Any, path: Any, version: Any) -> None:
    """Where the hub tells no file, no branch, or what would change the address, none is made up."""
    assert find(path, version) is None


def test_page_of_a_file_on_another_hub() -> None:
    """Where other hubs show their files is not known."""
    assert _source("a.csv", "main", "https://dev.hub.oxen.ai") is None
    assert _source("a.csv", "main", None) is None
    assert source_url(REF, _seen(), HUB) is None
