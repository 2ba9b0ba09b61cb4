"""The fields of an evaluation, whatever the hub writes into them."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_oxen import values
from airflow_provider_oxen.calls import build_get_evaluation, build_start_evaluation
from airflow_provider_oxen.config import parse_config
from airflow_provider_oxen.evaluations import (
    Evaluation,
    EvaluationRef,
    EvaluationStatus,
    Progress,
)
from airflow_provider_oxen.exceptions import OxenInvalidResponseError, OxenUnknownEffectError
from airflow_provider_oxen.files import EvaluationResults
from airflow_provider_oxen.protocol import Response, parse_response

if TYPE_CHECKING:
    from collections.abc import Callable

ID = "d0c8585d-1234-5678-abcd-ef0123456789"
TEXTS = (
    *("error_message", "input_type", "name", "output_type", "prompt"),
    *("commit_id", "repository_id", "target_branch", "target_column", "target_path", "workspace_id"),
)
COUNTS = ("completion_tokens_used", "prompt_tokens_used", "sample_count", "tokens_used")
MOMENTS = ("cancelled_at", "commit_started_at", "completed_at", "inserted_at", "queued_at", "started_at")
OBJECTS = ("closing_commit", "created_by", "resource")
FIELDS = (*TEXTS, *COUNTS, *MOMENTS, *OBJECTS, "credits_used", "is_sample", "model")
KEY = "oxk-4f/1c9a"

#: One evaluation, queued and completed, in the form of two responses that the vendor published in October 2024. Which
#: fields there are and what kind of value they have is the vendor's; ids, texts and most times are made up.
QUEUED_2024 = {
    "id": ID,
    "name": None,
    "status": "queued",
    "progress": {"processed": 0, "total": 10},
    "model": "gpt-4o-mini",
    "prompt": "What does {text} say?",
    "type": "text",
    "resource": {"path": "data.parquet", "version": "main"},
    "commit_id": "e6c2c7192f620617",
    "closing_commit": None,
    "target_path": None,
    "target_branch": "api-results-branch",
    "target_column": "response",
    "workspace_id": "5a8a2bd8-0000-4000-8000-1f0d3a5bce04",
    "conflict_target_branch": None,
    "queued_at": "2024-10-15T21:17:09Z",
    "commit_started_at": None,
    "started_at": None,
    "completed_at": None,
    "master_id": ID,
    "parent_id": None,
    "is_sample": False,
    "sample_count": 10,
    "credits_per_token": 6e-7,
}
COMPLETED_2024 = QUEUED_2024 | {
    "status": "completed",
    "progress": {"processed": 10, "total": 10},
    "closing_commit": {
        "id": "a1b2c3d4e5f60718",
        "author": "ox",
        "email": "ox@example.com",
        "message": "Results",
        "timestamp": "2024-10-15T21:17:20Z",
    },
    "started_at": "2024-10-15T21:17:10Z",
    "commit_started_at": "2024-10-15T21:17:19Z",
    "completed_at": "2024-10-15T21:17:21Z",
    "credits_per_token": "0.000000600",
}

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
    optional=dict.fromkeys((*FIELDS, "namespace", "repo_name", "progress", "extra"), JSON_VALUES),
)


def _evaluation(**fields: Any) -> Evaluation:
    return Evaluation.from_dict({"id": ID, "status": "running", **fields})


def _parsed(document: dict[str, Any], write: Callable[[str], str] = str, *, key: str = KEY) -> Evaluation:
    """Parse a response that holds an evaluation; ``write`` changes its JSON."""
    body = write(json.dumps({"status": "success", "evaluation": document}, ensure_ascii=False)).encode()
    config, call = parse_config("c", password=key), build_get_evaluation(EvaluationRef("ox", "r", ID))
    return parse_response(config, call, Response(200, {}, body), now=datetime.now(timezone.utc))


def test_contract_example_is_read_field_by_field() -> None:
    """Each field of the contract has its attribute, with the value the hub wrote."""
    document = {
        **{name: f"a {name}" for name in TEXTS},
        **{name: number for number, name in enumerate(COUNTS)},
        **dict.fromkeys(MOMENTS, "2026-11-01T10:00:00"),
        "created_by": {"id": "u-1", "username": "ox", "name": None, "image": "https://example.com/ox.png"},
        "credits_used": 1.25,
        "is_sample": True,
        "closing_commit": {"id": "c-1", "author": "ox", "email": "e", "message": "m", "timestamp": "2026-11-01"},
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
        (("model",), (7, True, 1.5, [], [["id", "m"]])),
        (
            ("credits_used",),
            (
                "",
                "much",
                "1_0",
                "nan",
                "-inf",
                "1e999",
                "٣",
                "1" * 41,
                True,
                math.nan,
                math.inf,
                -math.inf,
                10**400,
                [],
                {},
            ),
        ),
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


@pytest.mark.parametrize(
    ("written", "read"), [("1.5", 1.5), ("0.000000600", 6e-7), ("12", 12.0), (" 3 ", 3.0), (0, 0.0), (2, 2.0)]
)
def test_decimal_may_be_text(written: object, read: float) -> None:
    """The hub writes decimals as numbers at times, and as text at others."""
    assert _evaluation(credits_used=written).credits_used == read


def test_model_may_be_text() -> None:
    """The hub writes the model's name where the contract has an object."""
    assert _evaluation(model="gpt-4o-mini").model == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ({"commit_id": "e6c2", "resource": {"version": "main"}}, "e6c2"),
        ({"commit_id": None, "resource": {"version": "main"}}, "main"),
        ({"commit_id": "", "resource": {"version": "main"}}, "main"),
        ({"commit_id": 7, "resource": {}}, None),
        ({"resource": "data.parquet"}, None),
        ({}, None),
    ],
)
def test_source_version_is_the_commit_if_known(fields: dict[str, Any], version: str | None) -> None:
    """The source's commit says exactly which rows were read; ``resource.version`` may be a branch."""
    assert _evaluation(**fields).source_version == version


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"target_path": "out.parquet", "resource": {"path": "in.parquet"}}, "out.parquet"),
        ({"target_path": None, "resource": {"path": "in.parquet"}}, "in.parquet"),
        ({"target_path": "", "resource": {"path": "in.parquet"}}, "in.parquet"),
        ({"resource": {}}, None),
        ({}, None),
    ],
)
def test_results_path_falls_back_to_the_source(fields: dict[str, Any], path: str | None) -> None:
    """Where ``target_path`` is null, the results are in the source file."""
    assert _evaluation(**fields).results_path == path


@pytest.mark.parametrize(
    ("commit", "read"),
    [({"id": "a1b2"}, "a1b2"), ({"id": None}, None), ({"id": ""}, None), ({}, None), (None, None), ("a1b2", None)],
)
def test_results_commit_is_the_closing_one(commit: object, read: str | None) -> None:
    """The commit that holds the results is the closing one, once there is one."""
    assert _evaluation(closing_commit=commit).results_commit == read


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, EvaluationResults("a.csv", "c1", "out")),
        ({"closing_commit": None}, EvaluationResults("a.csv", None, "out")),
        ({"target_branch": None}, EvaluationResults("a.csv", "c1", None)),
        ({"target_path": None, "resource": {"path": "in.csv"}}, EvaluationResults("in.csv", "c1", "out")),
    ],
)
def test_results_are_at_a_path_and_a_version(fields: dict[str, Any], expected: EvaluationResults) -> None:
    """A completed evaluation says where its results are, by commit or at least by branch."""
    assert _completed(**fields).results == expected


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"status": "running"}, "the evaluation has not completed (its status is 'running'), so there are no results"),
        ({"status": "errored"}, "its status is 'errored'"),
        ({"status": "finished"}, "its status is 'finished'"),
        (
            {"closing_commit": None, "target_branch": None},
            (
                "the evaluation was started without auto_commit=True, so its results were not committed: start it with "
                "auto_commit=True and target_branch, or commit them on its page"
            ),
        ),
        ({"target_path": None}, "the hub does not say which file holds the results"),
    ],
)
def test_results_that_cannot_be_read_say_why(fields: dict[str, Any], problem: str) -> None:
    """An evaluation without results to read says why, and what to do."""
    assert problem in (_completed(**fields).results.problem or "")


def _completed(**fields: Any) -> Evaluation:
    committed = {"target_path": "a.csv", "target_branch": "out", "closing_commit": {"id": "c1"}}
    return _evaluation(**{"status": "completed", **committed, **fields})


def test_evaluation_names_its_repository() -> None:
    """What is handed on names the repository as it was asked for, so that a later task can read the results."""
    written = _parsed(COMPLETED_2024).to_dict()

    assert (written["namespace"], written["repo_name"]) == ("ox", "r")
    read = Evaluation.from_dict(json.loads(json.dumps(written)))
    assert (read.namespace, read.repo_name) == ("ox", "r")


def test_evaluations_share_the_names_of_a_repository() -> None:
    """Evaluations that are read from stored events keep one text for a repository, not one each."""
    texts = [json.dumps({"id": ID, "status": "running", "namespace": "owner-1", "repo_name": "data-1"})] * 2
    first, second = (Evaluation.from_dict(json.loads(text)) for text in texts)

    assert first.namespace is second.namespace
    assert first.repo_name is second.repo_name


def test_evaluation_of_an_older_version_loads() -> None:
    """An event or an XCom that does not name the repository loads all the same."""
    written = {name: value for name, value in _parsed(COMPLETED_2024).to_dict().items() if name != "namespace"}
    del written["repo_name"]
    read = Evaluation.from_dict(written)

    assert (read.namespace, read.repo_name, read.id) == (None, None, ID)


def test_queued_response_of_2024() -> None:
    """A response in the form of 2024 is read, with a branch as the version and no results yet."""
    evaluation = Evaluation.from_dict(QUEUED_2024)

    assert (evaluation.status, evaluation.progress) == (EvaluationStatus.QUEUED, Progress(0, 10))
    assert (evaluation.model, evaluation.source_version) == ("gpt-4o-mini", "e6c2c7192f620617")
    assert (evaluation.results_path, evaluation.results_commit) == ("data.parquet", None)
    assert (evaluation.target_branch, evaluation.target_path) == ("api-results-branch", None)
    assert evaluation.resource == {"path": "data.parquet", "version": "main"}
    assert evaluation.queued_at.isoformat() == "2024-10-15T21:17:09+00:00"
    assert evaluation.started_at is None
    assert evaluation.workspace_id == QUEUED_2024["workspace_id"]


def test_completed_response_of_2024() -> None:
    """The same evaluation, completed, says which commit holds its results."""
    evaluation = Evaluation.from_dict(COMPLETED_2024)

    assert evaluation.is_terminal
    assert evaluation.closing_commit == COMPLETED_2024["closing_commit"]
    assert (evaluation.results_commit, evaluation.results_path) == ("a1b2c3d4e5f60718", "data.parquet")
    assert evaluation.commit_started_at.isoformat() == "2024-10-15T21:17:19+00:00"
    assert evaluation.ran_for_seconds == 11.0
    assert evaluation.to_dict()["closing_commit"]["timestamp"] == "2024-10-15T21:17:20Z"


@pytest.mark.parametrize("document", [QUEUED_2024, COMPLETED_2024], ids=["queued", "completed"])
def test_response_of_2024_comes_through_the_parser(document: dict[str, Any]) -> None:
    """Parsing the bytes of a response brings the same as reading its object."""
    read = Evaluation.from_dict({**document, "namespace": "ox", "repo_name": "r"})

    assert _parsed(document) == read
    assert _parsed(document).to_dict() == read.to_dict()


# The key

ESCAPED = {
    "as it is": KEY,
    "slash escaped": KEY.replace("/", "\\/"),
    "all escaped": "".join(f"\\u{ord(c):04x}" for c in KEY),
}


@pytest.mark.parametrize("written", ESCAPED.values(), ids=ESCAPED)
def test_key_is_redacted_in_every_text(written: str) -> None:
    """An evaluation that echoes the key, however it is written, does not carry it into an event or an XCom."""
    document = {
        "id": ID,
        "status": "a @",
        "progress": {"processed": 1, "total": 2},
        **dict.fromkeys(TEXTS, "a @ b"),
        "model": {"@": "@", "name": "@"},
        **{name: {"id": "@", "message": "@", "path": "@", "username": "@"} for name in OBJECTS},
    }
    evaluation = _parsed(document, lambda text: text.replace("@", written))

    assert KEY not in json.dumps(evaluation.to_dict(), ensure_ascii=False) + repr(evaluation)
    assert KEY.encode() not in pickle.dumps(evaluation)
    assert {getattr(evaluation, name) for name in TEXTS} == {"a *** b"}
    assert evaluation.model == {"***": "***", "name": "***"}
    assert evaluation.status == "a ***"


@pytest.mark.parametrize("key", [ID, ID[:8], "completed", "2026-11-01", "2026-11-01T10:00:00"])
@pytest.mark.parametrize("escape", [False, True])
def test_key_that_is_part_of_the_data_does_not_change_it(key: str, escape: bool) -> None:
    """Id, status, progress and times are what the hub wrote, even if the key is part of them by chance."""
    document = {
        "id": ID,
        "status": "completed",
        "progress": {"processed": 12345678, "total": 12345678},
        "name": "escaped \n" if escape else "plain",
        **dict.fromkeys(MOMENTS, "2026-11-01T10:00:00"),
    }
    evaluation = _parsed(document, key=key)

    assert (evaluation.id, evaluation.status) == (ID, EvaluationStatus.COMPLETED)
    assert evaluation.progress == Progress(12345678, 12345678)
    assert {getattr(evaluation, name).isoformat() for name in MOMENTS} == {"2026-11-01T10:00:00+00:00"}


def test_key_is_not_in_a_field_name_that_is_parsed() -> None:
    """A key that is the name of a field changes no field."""
    assert _parsed({"id": ID, "status": "errored", "error_message": "it broke"}, key="error_message").error_message == (
        "it broke"
    )


def test_key_is_not_in_a_name_that_an_object_is_read_by() -> None:
    """A key that is a name of an object's contract changes no object; where names are open, it is redacted."""
    document = COMPLETED_2024 | {"model": {"timestamp": 1}, "resource": {"path": "a timestamp", "a timestamp": "x"}}
    evaluation = _parsed(document, key="timestamp")

    assert evaluation.closing_commit == COMPLETED_2024["closing_commit"]
    assert evaluation.model == {"***": 1}
    assert evaluation.resource == {"path": "a ***", "version": None}
    assert b"a timestamp" not in pickle.dumps(evaluation)


#: Ids with the key in them, also across the places where a text is cut.
IDS_WITH_KEY = [KEY, f"ox-{KEY}", *(f"{'x' * (cut - 4)}{KEY}" for cut in (80, 4_000))]


def _start(evaluation_id: str, *, key: str = KEY) -> Evaluation:
    """Parse the response to a start."""
    body = json.dumps({"status": "success", "evaluation": {"id": evaluation_id, "status": "queued"}}).encode()
    config, call = parse_config("c", password=key), build_start_evaluation("ox", "r", "main", "a.parquet", {})
    return parse_response(config, call, Response(200, {}, body), now=datetime.now(timezone.utc))


@pytest.mark.parametrize("evaluation_id", IDS_WITH_KEY, ids=len)
def test_started_evaluation_has_no_id_with_the_key(evaluation_id: str) -> None:
    """Where any id will do, one that holds the key is none: it would be in the log, in an XCom and in the address."""
    with pytest.raises(OxenUnknownEffectError, match="its id holds the API key") as caught:
        _start(evaluation_id)

    assert KEY[:4] not in f"{caught.value} {caught.value!r}"


def test_id_may_hold_a_placeholder_for_the_key() -> None:
    """A key too short to be one is part of an id by chance."""
    assert _start(ID, key=ID[:7]).id == ID


@pytest.mark.parametrize("key", [KEY, "oxk-4f\\1c\"9'a"], ids=["plain", "with what repr escapes"])
@pytest.mark.parametrize("cut", [None, 80, 4_000])
def test_id_of_another_evaluation_does_not_show_the_key(key: str, cut: int | None) -> None:
    """The message about another evaluation has no part of the key, wherever it is cut and however it is quoted."""
    evaluation_id = key if cut is None else f"{'x' * (cut - 4)}{key}"

    with pytest.raises(OxenInvalidResponseError, match="about another evaluation") as caught:
        _parsed({"id": evaluation_id, "status": "completed"}, key=key)

    assert key[:4] not in f"{caught.value} {caught.value!r}"


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
    assert Evaluation.from_dict({"id": ID, "status": word.value}).status is word


@pytest.mark.parametrize("word", ["paused", "Completed", "completed ", "COMPLETED"])
def test_unknown_status_stays_text_and_ends_nothing(word: str) -> None:
    """A word that is not the contract's, letter by letter, stays as it is and is no end."""
    evaluation = Evaluation.from_dict({"id": ID, "status": word})

    assert (evaluation.status, type(evaluation.status), evaluation.is_terminal) == (word, str, False)


def test_terminal_statuses_are_the_three_ends() -> None:
    """An evaluation has ended when it is completed, errored or cancelled."""
    terminal = {word.value for word in EvaluationStatus if Evaluation.from_dict({"id": ID, "status": word}).is_terminal}

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
def test_progress_is_read_as_far_as_it_is_given(progress: object, read: tuple[int, int], fraction: float) -> None:
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
    """How long an evaluation ran is measured by the hub's own clock, where that makes sense."""
    assert _evaluation(**{"started_at": "2026-11-01T10:00:00", **fields}).ran_for_seconds == seconds


def test_dict_decodes_the_kept_values_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept values are unpacked once for all fields: a trigger writes thousands of evaluations."""
    evaluation, unpacked = Evaluation.from_dict(COMPLETED_2024), []
    really = values.unpack
    monkeypatch.setattr(values, "unpack", lambda packed: unpacked.append(1) or really(packed))

    evaluation.to_dict()

    assert len(unpacked) == 1


def test_dict_has_the_values_of_the_fields() -> None:
    """What is written is what the fields give, times as ISO 8601."""
    evaluation = Evaluation.from_dict(COMPLETED_2024)
    fields = {name: getattr(evaluation, name) for name in set(FIELDS) - {"prompt"}}

    assert {name: value for name, value in evaluation.to_dict().items() if name in fields} == {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()
    }


def test_dict_has_every_field_of_the_contract_but_the_prompt() -> None:
    """What is handed on has the contract's own names, without the prompt."""
    written = _evaluation(prompt="secret template").to_dict()

    assert set(written) == {"id", "namespace", "repo_name", "status", "progress", *FIELDS} - {"prompt"}


@settings(max_examples=300)
@given(DOCUMENTS)
@example({"id": "a\0\ud800", "status": "a\0\ud800"})
@example({"id": ID, "status": "running", "credits_used": 2**63 - 1})
@example({"id": ID, "status": "running", "model": {"\0": 1, "\ufffd": 2}})
def test_dict_is_strict_json_and_reads_back(document: dict[str, Any]) -> None:
    """Whatever the hub wrote, what is handed on is strict JSON any database takes, and reads back as the same."""
    written = Evaluation.from_dict(document).to_dict()

    text = json.dumps(written, allow_nan=False, ensure_ascii=False)

    assert "\\u0000" not in text
    assert json.loads(text.encode()) == written
    assert Evaluation.from_dict(json.loads(text)).to_dict() == written


def test_evaluation_is_frozen() -> None:
    """Nothing changes an evaluation once it was read."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        _evaluation().status = "completed"  # type: ignore[misc]


def test_evaluation_keeps_what_it_was_read_from() -> None:
    """An evaluation is the same after a copy and after pickling."""
    evaluation = Evaluation.from_dict(COMPLETED_2024)

    for copied in (copy.deepcopy(evaluation), pickle.loads(pickle.dumps(evaluation))):  # noqa: S301
        assert copied == evaluation
        assert copied.to_dict() == evaluation.to_dict()


def test_object_that_is_handed_out_cannot_change_the_evaluation() -> None:
    """What a condition does with an object of an evaluation changes that copy alone."""
    evaluation = Evaluation.from_dict(COMPLETED_2024)
    evaluation.resource["path"] = "changed"  # type: ignore[index]
    evaluation.closing_commit["id"] = "changed"  # type: ignore[index]

    assert evaluation.resource == {"path": "data.parquet", "version": "main"}
    assert evaluation.results_commit == "a1b2c3d4e5f60718"


@pytest.mark.parametrize("document", [{}, {"id": ID}, {"status": "running"}, {"id": ID, "status": None}])
def test_evaluation_needs_id_and_status(document: dict[str, Any]) -> None:
    """An object without an id or a status is not an evaluation."""
    with pytest.raises(ValueError, match=r"it has no (id|status)"):
        Evaluation.from_dict(document)


def test_text_of_a_subclass_is_a_text() -> None:
    """What Jinja renders may be ``Markup``, which no codec takes."""

    class Markup(str):
        __slots__ = ()

    evaluation = Evaluation.from_dict(
        {"id": "x", "status": "running", "target_path": Markup("a.csv"), "resource": {"path": Markup("b.csv")}}
    )

    assert (evaluation.target_path, evaluation.results_path) == ("a.csv", "a.csv")
    assert evaluation.resource == {"path": "b.csv", "version": None}
