"""The page on reliability names the test that shows each fact, and that test exists."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.timeout(300)  # the first test collects many others

PAGE = (ROOT / "docs/reliability.md").read_text()
#: The short names of files on the page, by what it says that they stand for.
SHORT = dict(re.findall(r"`(\w)`(?: stands)? for `(\S+?\.py)`", PAGE))
#: Each file and ``-k`` expression on the page; an empty expression selects all of a file.
SHOWN_BY = [
    (SHORT.get(name, name), expression.strip('"'))
    for name, expression in re.findall(rf'`({"|".join(SHORT)}|tests/\S+?\.py)(?: -k ("[^"`]+"|\S+?))?`', PAGE)
    if expression or name not in SHORT
]


@pytest.fixture(scope="module")
def collected() -> list[str]:
    """List the node ids of all tests in the files that the page names."""
    files = sorted({file for file, _ in SHOWN_BY})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-5_000:]
    return [line for line in result.stdout.splitlines() if "::" in line]


def test_page_names_tests() -> None:
    """All short names are used, and each row of the table of faults names a test."""
    rows = re.findall(r"^\| .* \|$", PAGE.partition("## What each fault does")[2].partition("\n## ")[0], re.MULTILINE)

    assert set(SHORT) == {"F", "J", "S", "W"}
    assert [row for row in rows[2:] if not re.search(r"-k .*` \|$", row)] == []


@pytest.mark.parametrize(("file", "expression"), SHOWN_BY)
def test_named_test_exists(file: str, expression: str, collected: list[str]) -> None:
    """What the page gives to pytest selects at least one test."""
    words = [word.lower() for word in expression.split(" or ")]
    nodes = [node.lower() for node in collected if node.startswith(f"{file}::")]

    assert [word for word in words if not any(word in node for node in nodes)] == []
