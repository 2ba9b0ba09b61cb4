"""Code on the pages is read without scrolling: GitHub's column and the site's both have room for 80 letters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = 80
#: Quoted word for word, and wrapped by the browser. The second is no code: Sphinx reads it.
AS_THEY_ARE = ("text", "{eval-rst}")


def code(text: str) -> list[tuple[int, str]]:
    """Return the lines of code on a page with their numbers: in fences, also those in lists, and indented."""
    found, fence, indent = [], None, 0
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"( *)```(\S*)", line):
            fence, indent = (match[2], len(match[1])) if fence is None else (None, 0)
        elif fence is not None and fence not in AS_THEY_ARE:
            found.append((number, line[indent:]))
        elif fence is None and line.startswith(" " * 4):
            found.append((number, line[4:]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_has_80_columns(page: Path) -> None:
    """No line of code is longer."""
    assert [(number, line) for number, line in code(page.read_text()) if len(line) > COLUMNS] == []


@pytest.mark.parametrize(
    ("text", "long"),
    [
        (f"```python\n{'x' * 81}\n```", [2]),
        (f"```\n{'x' * 81}\n```", [2]),
        (f"1. Do this:\n\n   ```bash\n   {'x' * 80}\n   {'x' * 81}\n   ```", [5]),
        (f"Do this:\n\n    {'x' * 81}", [3]),
        (f"```text\n{'x' * 81}\n```\n{'x' * 81}", []),
    ],
)
def test_long_lines_are_found(text: str, long: list[int]) -> None:
    """Code is found wherever it is. Prose and what is quoted is not."""
    assert [number for number, line in code(text) if len(line) > COLUMNS] == long
