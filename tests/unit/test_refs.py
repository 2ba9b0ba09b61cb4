"""References: what they read as, and how a name becomes one."""

from __future__ import annotations

import uuid
from dataclasses import asdict

from airflow_provider_oxen.refs import EvaluationRef, FileRef

ID = "d0c8585d-1234-5678-abcd-ef0123456789"


def test_evaluation_reads_as_a_phrase() -> None:
    """A reference to an evaluation can stand in a sentence."""
    assert str(EvaluationRef("ox", "customer-intents", ID)) == f"evaluation {ID} of ox/customer-intents"


def test_file_reads_as_a_phrase() -> None:
    """A reference to a file can stand in a sentence."""
    assert str(FileRef("ox", "r", "eval/first", "data/a.csv")) == "data/a.csv of ox/r at eval/first"


def test_names_are_taken_as_their_text() -> None:
    """A UUID, and a text with a line break at its end, are the names that they stand for."""
    assert EvaluationRef("ox\n", " r", uuid.UUID(ID)) == EvaluationRef("ox", "r", ID)  # type: ignore[arg-type]
    assert FileRef("ox\n", " r", 2024, "a.csv\n") == FileRef("ox", "r", "2024", "a.csv")  # type: ignore[arg-type]


def test_id_is_the_same_in_either_case() -> None:
    """UUIDs are the same in upper and lower case."""
    ref = EvaluationRef("ox", "r", ID)

    assert ref.is_id_of(ID.upper())
    assert not ref.is_id_of(ID[:-1])


def test_evaluation_is_found_in_a_document() -> None:
    """A reference is read from an object that holds its names, and from no other."""
    ref = EvaluationRef("ox", "r", ID)

    assert EvaluationRef.find_in({**asdict(ref), "more": 1}) == ref
    assert EvaluationRef.find_in({**asdict(ref), "repo_name": None}) is None
