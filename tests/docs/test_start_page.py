"""The page on starting an evaluation quotes the messages as they are. That on upgrades has the fields of the record."""

from __future__ import annotations

import re

import pytest

from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.start_decision import RefuseReason
from airflow_provider_oxen.start_messages import describe_killed, describe_refusal, describe_started
from airflow_provider_oxen.start_record import Phase, Record
from tests.docs.pages import ROOT, blocks

HUB = "https://hub.oxen.ai"
NAME = "label_intents.label manual__2026-11-25T13:24:05+00:00 try 1"
REF = EvaluationRef("ox", "customer-intents", "d0c8585d-1234-5678-abcd-ef0123456789")
LOST = Record(Phase.STARTING, name=NAME, at="2026-11-25T13:24:11+00:00", try_number=1, max_tries=2)
MESSAGES = {
    "started": describe_started(REF, NAME, HUB),
    "unknown": describe_refusal(
        RefuseReason.UNKNOWN_START, "ox", "customer-intents", LOST, airflow="3.3.2", hub=HUB
    ),
    "killed": describe_killed(REF, HUB, started_here=True, is_recorded=True),
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))
def test_page_quotes_the_message(message: str) -> None:
    """Each message that a person acts on is on the page, word for word."""
    quoted = [block.text.strip() for block in blocks("text") if block.page.name == "start.md"]

    assert message in quoted


def test_page_has_the_entry_that_the_message_asks_for() -> None:
    """The steps store just what the message shows, and that is read as an id."""
    page = (ROOT / "docs/how-to/start.md").read_text()
    entry = '{"phase": "started", "evaluation_id": "ITS-ID"}'

    assert page.count(entry) >= 3
    assert Record.from_value({"phase": "started", "evaluation_id": "ITS-ID"}).evaluation_id == "ITS-ID"


def test_page_on_upgrades_has_every_field_of_the_record() -> None:
    """The table of the stored record names the fields that are stored."""
    section = (ROOT / "docs/upgrades.md").read_text().partition("### The record of a start\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)

    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(LOST.to_dict())
