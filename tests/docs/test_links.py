"""
Links on the pages are valid.

Sphinx checks those of docs/ for the site. These tests check those of every page in the repository. Other sites cannot
be reached where the tests run: their hosts are compared with a list, so that a person looks at each new one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: Hosts that a person has visited.
HOSTS = {
    "airflow.apache.org",
    "docs.oxen.ai",
    "duckdb.org",
    "keepachangelog.com",
    "openlineage.io",
    "semver.org",
    "www.oxen.ai",
}
HOSTS |= {"aws.amazon.com", "docs.aws.amazon.com", "cloud.google.com", "docs.cloud.google.com", "www.astronomer.io"}
README_LIMIT = 150


def prose(page: Path) -> str:
    """Return a page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and MyST make from a page's headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_exist(page: Path) -> None:
    """Each relative link of a page names a file that exists, and an anchor that is in it."""
    dead = []
    for link in links(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)

    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_other_sites_are_to_known_hosts(page: Path) -> None:
    """A page links over https, and only to hosts that a person has visited."""
    found = re.findall(r"(https?)://(?!127\.0\.0\.1)([\w.\-]+)", prose(page))

    assert {scheme for scheme, _ in found} <= {"https"}
    assert {host for _, host in found} <= HOSTS


def test_every_picture_is_shown() -> None:
    """Each picture is on a page."""
    shown = {(page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith(".png")}

    assert shown == set((ROOT / "docs/images").glob("*.png"))


def test_readme_is_short() -> None:
    """The README has at most 150 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LIMIT
