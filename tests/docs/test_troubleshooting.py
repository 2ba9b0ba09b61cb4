"""The page on troubleshooting quotes messages as the package writes them."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
#: What the page says that a message of this package begins with, or holds: its headings, and the first column of its
#: table.
QUOTED = re.findall(r"^(?:###|\|) `([^`]+)`", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """List the literal texts in the package's sources: those written in several pieces, and parts of f-strings, too."""
    files = (ROOT / "airflow_provider_oxen").rglob("*.py")
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("quoted", QUOTED)
def test_message_is_one_of_the_package(texts: list[str], quoted: str) -> None:
    """A message that was changed in the sources is changed on the page."""
    assert any(quoted in text for text in texts)


def test_page_has_messages_with_a_fix() -> None:
    """Each heading has a cause and a fix, or a table of them."""
    sections = re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]

    assert len(QUOTED) > 20
    assert [text for text in sections if "**Fix.**" not in text and "| fix |" not in text] == []
