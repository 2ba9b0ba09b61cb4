"""An evaluation's fields, whatever the hub writes into them."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.api import read_evaluation
from airflow_provider_oxen.models import Evaluation, EvaluationRef, EvaluationStatus, Progress

ID = "d0c8585d-1234-5678-abcd-ef0123456789"
TEXTS = (
    *("error_message", "input_type", "name", "output_type", "prompt"),
    *("repository_id", "target_branch", "target_column", "target_path"),
)
COUNTS = ("completion_tokens_used", "prompt_tokens_used", "sample_count", "tokens_used")
MOMENTS = ("cancelled_at", "completed_at", "inserted_at", "started_at")
OBJECTS = ("created_by", "model", "resource")
FIELDS = (*TEXTS, *COUNTS, *MOMENTS, *OBJECTS, "credits_used", "is_sample")

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=8),
        "status": st.text(min_size=1, max_size=8) | st.sampled_from(EvaluationStatus),
    },
    optional=dict.fromkeys((*FIELDS, "progress", "extra"), JSON_VALUES),
)


def _evaluation(**fields: Any) -> Evaluation:
    return read_evaluation({"id": ID, "status": "running", **fields})


def test_contract_example_is_read_field_by_field() -> None:
    """Each field of the contract has its attribute, with the value the hub wrote."""
    document = {
        **{name: f"a {name}" for name in TEXTS},
        **{name: number for number, name in enumerate(COUNTS)},
        **dict.fromkeys(MOMENTS, "2026-11-01T10:00:00"),
        "created_by": {"id": "u-1", "username": "ox", "name": None, "image": "https://example.com/ox.png"},
        "credits_used": 1.25,
        "is_sample": True,
        "model": {"name": "gpt", "temperature": 0.5, "stream": False},
        "resource": {"path": "data/train.parquet", "version": "main"},
    }

    evaluation = _evaluation(**document)

    read = {name: getattr(evaluation, name) for name in FIELDS}
    assert read | {
        name: moment.isoformat() for name, moment in read.items() if name in MOMENTS
    } == document | dict.fromkeys(MOMENTS, "2026-11-01T10:00:00+00:00")


@pytest.mark.parametrize("name", [*FIELDS])
def test_missing_or_null_field_is_none(name: str) -> None:
    """A field the hub leaves out, or gives as null, is None."""
    assert getattr(_evaluation(), name) is None
    assert getattr(_evaluation(**{name: None}), name) is None


@pytest.mark.parametrize(
    ("names", "odd"),
    [
        (TEXTS, (7, True, 1.5, [], {})),
        (COUNTS, ("7", True, 1.5, -1, 2**63, math.nan, math.inf, [], {})),
        (MOMENTS, (7, True, [], {}, "", "soon", "2026-13-01", "P1D", "2026-01-01/2026-01-02", "2026-11-01T25:00:00")),
        (OBJECTS, ("text", 7, True, [], [["id", "u"]])),
        (("credits_used",), ("1.5", True, math.nan, math.inf, -math.inf, 10**400, [], {})),
        (("is_sample",), ("true", 1, 0, [], {})),
    ],
)
def test_field_of_another_type_is_none(names: tuple[str, ...], odd: tuple[object, ...]) -> None:
    """A value that makes no sense for its field is None, and no error."""
    assert {(name, getattr(_evaluation(**{name: value}), name)) for name in names for value in odd} == {
        (name, None) for name in names
    }


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-11-01T10:00:00", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00+00:00"),
        ("2026-11-01T10:00:00.123456", "2026-11-01T10:00:00.123456+00:00"),
        ("2026-11-01T10:00:00.5Z", "2026-11-01T10:00:00.500000+00:00"),
        ("2026-11-01T10:00:00+02:00", "2026-11-01T08:00:00+00:00"),
        ("2026-11-01T00:30:00.25-05:30", "2026-11-01T06:00:00.250000+00:00"),
        ("2026-11-01 10:00:00", "2026-11-01T10:00:00+00:00"),
        (" 2026-11-01T10:00:00\n", "2026-11-01T10:00:00+00:00"),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
    ],
)
def test_moment_is_read_as_utc(written: str, read: str | None) -> None:
    """A time without a zone is UTC, one with an offset is converted, one beyond the calendar is None."""
    moment = _evaluation(started_at=written).started_at

    assert (moment and moment.isoformat()) == read
    assert moment is None or moment.utcoffset().total_seconds() == 0


@pytest.mark.parametrize(("written", "read"), [(0, 0), (12, 12), (12.0, 12), (2**63 - 1, 2**63 - 1)])
def test_count_is_a_whole_number(written: object, read: int) -> None:
    """A count is read from an integer, or from a float that is one."""
    count = _evaluation(tokens_used=written).tokens_used

    assert (count, type(count)) == (read, int)


@pytest.mark.parametrize(
    ("written", "read"),
    [("a\0b", "a\ufffdb"), ("a\ud800b", "a?b"), ("x" * 4_000, "x" * 4_000), ("x" * 4_001, "x" * 3_999 + "…")],
    ids=["nul", "surrogate", "as long as may be", "too long"],
)
def test_text_fits_a_database(written: str, read: str) -> None:
    """A text has no NUL and no lone surrogate, and at most 4,000 characters."""
    assert _evaluation(error_message=written).error_message == read


def test_objects_keep_only_the_contracts_keys() -> None:
    """Of a person and of a resource, the contract's keys are read, each a text or None."""
    evaluation = _evaluation(created_by={"id": 7, "username": "ox", "email": "e"}, resource={"version": "v", "x": 1})

    assert evaluation.created_by == {"id": None, "username": "ox", "name": None, "image": None}
    assert evaluation.resource == {"path": None, "version": "v"}


def test_model_keeps_plain_values_only() -> None:
    """Of a model, texts, numbers and booleans are kept; objects, lists, null and what is no number are left out."""
    model = {
        "name": "gpt",
        "t": 0.5,
        "n": 3,
        "on": False,
        "o": {},
        "l": [1],
        "nil": None,
        "nan": math.nan,
        "": "no key",
    }

    assert _evaluation(model=model).model == {"name": "gpt", "t": 0.5, "n": 3, "on": False}


def test_model_has_fifty_entries_at_most() -> None:
    """A model with very many keys is cut, in the hub's order."""
    model = _evaluation(model={f"k{number}": number for number in range(60)}).model

    assert list(model or {}) == [f"k{number}" for number in range(50)]


@pytest.mark.parametrize("word", list(EvaluationStatus))
def test_known_status_is_the_contracts(word: EvaluationStatus) -> None:
    """A status of the contract is read as a member of the enumeration."""
    assert read_evaluation({"id": ID, "status": word.value}).status is word


@pytest.mark.parametrize("word", ["paused", "Completed", "completed ", "COMPLETED"])
def test_unknown_status_stays_text_and_ends_nothing(word: str) -> None:
    """A word that is not the contract's, letter by letter, stays as it is and is no end."""
    evaluation = read_evaluation({"id": ID, "status": word})

    assert (evaluation.status, type(evaluation.status), evaluation.is_terminal) == (word, str, False)


def test_terminal_statuses_are_the_three_ends() -> None:
    """An evaluation has ended when it is completed, errored or cancelled."""
    terminal = {word.value for word in EvaluationStatus if read_evaluation({"id": ID, "status": word}).is_terminal}

    assert terminal == {"completed", "errored", "cancelled"}


@pytest.mark.parametrize(
    ("progress", "read", "fraction"),
    [
        ({"processed": 30, "total": 120}, (30, 120), 0.25),
        ({"processed": 0, "total": 120}, (0, 120), 0.0),
        ({"processed": 130, "total": 120}, (130, 120), 1.0),
        ({"processed": 0, "total": 0}, (0, 0), None),
        ({"processed": 5}, (5, None), None),
        ({"total": 5}, (None, 5), None),
        ({"processed": "5", "total": -1}, (None, None), None),
        (None, (None, None), None),
        ([3, 4], (None, None), None),
    ],
)
def test_progress_is_read_as_far_as_it_is_told(progress: object, read: tuple[int, int], fraction: float) -> None:
    """Progress has the two numbers where they make sense, and a share of the rows where both do."""
    seen = _evaluation(progress=progress).progress

    assert (seen, seen.fraction) == (Progress(*read), fraction)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"completed_at": "2026-11-01T10:01:30.5"}, 90.5),
        ({"cancelled_at": "2026-11-01T12:01:00+02:00"}, 60.0),
        ({}, None),
        ({"completed_at": "2026-11-01T09:00:00"}, None),
        ({"completed_at": "2026-11-01T10:01:00", "started_at": None}, None),
    ],
    ids=["completed", "cancelled", "still running", "ended before it began", "no start"],
)
def test_run_time_is_from_start_to_end(fields: dict[str, str], seconds: float | None) -> None:
    """How long an evaluation ran is told by the hub's own clock, where that makes sense."""
    assert _evaluation(**{"started_at": "2026-11-01T10:00:00", **fields}).ran_for_seconds == seconds


def test_dict_has_every_field_of_the_contract_but_the_prompt() -> None:
    """What is handed on has the contract's own names, without the prompt."""
    written = _evaluation(prompt="secret template").to_dict()

    assert set(written) == {"id", "status", "progress", *FIELDS} - {"prompt"}


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS)
@example({"id": "a\0\ud800", "status": "a\0\ud800"})
@example({"id": ID, "status": "running", "credits_used": 2**63 - 1})
@example({"id": ID, "status": "running", "model": {"\0": 1, "\ufffd": 2}})
def test_dict_is_strict_json_and_reads_back(document: dict[str, Any]) -> None:
    """Whatever the hub wrote, what is handed on is strict JSON any database takes, and reads back as the same."""
    written = read_evaluation(document).to_dict()

    text = json.dumps(written, allow_nan=False, ensure_ascii=False)

    assert "\\u0000" not in text
    assert json.loads(text.encode()) == written
    assert read_evaluation(json.loads(text)).to_dict() == written


def test_evaluation_is_frozen() -> None:
    """Nothing changes an evaluation once it was read."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        _evaluation().status = "completed"  # type: ignore[misc]


def test_document_is_frozen_to_its_depths() -> None:
    """Neither the object an evaluation was read from nor the one it holds is a way to change it."""
    source = {"id": ID, "status": "errored", "error_message": "told", "model": {"id": "m", "tags": ["a"]}}
    evaluation = read_evaluation(source)
    source["error_message"] = "changed"
    source["model"]["id"] = "changed"  # type: ignore[index]

    assert evaluation.error_message == "told"
    assert evaluation.model == {"id": "m"}
    with pytest.raises(TypeError):
        evaluation.document["error_message"] = "changed"  # type: ignore[index]
    with pytest.raises(TypeError):
        evaluation.document["model"]["id"] = "changed"
    assert evaluation.document["model"]["tags"] == ("a",)
    for copied in (copy.deepcopy(evaluation), pickle.loads(pickle.dumps(evaluation))):  # noqa: S301
        assert copied == evaluation


def test_ref_reads_as_a_phrase() -> None:
    """A reference to an evaluation can stand in a sentence."""
    assert str(EvaluationRef("ox", "customer-intents", ID)) == f"evaluation {ID} of ox/customer-intents"
