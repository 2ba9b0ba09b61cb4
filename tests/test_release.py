"""What ``make release-check`` finds, and that the workflows run what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests import release

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    *("CHANGELOG.md", "README.md", "SECURITY.md", "docs/index.md", "docs/tutorial.md", "pyproject.toml"),
    *("airflow_provider_oxen/__init__.py", "tests/integration/test_trigger.py"),
)
#: What is done before a release, by file: a pattern and what replaces it.
DONE = {
    "SECURITY.md": (release.OPEN, "security@example.com"),
    "docs/index.md": ("[Uu]ntil the first release", ""),
    "docs/tutorial.md": ("[Uu]ntil the first release", ""),
    "README.md": ("[Uu]ntil the first release", ""),
    "CHANGELOG.md": (r"(## \[Unreleased\]\n)", "\\1\n## [9.9.9] - 2026-01-02\n"),
    "airflow_provider_oxen/__init__.py": (r'__version__ = ".*"', '__version__ = "9.9.9"'),
    "tests/integration/test_trigger.py": (r"STORED = \{\n", 'STORED = {\n    "9.9.9": {},\n'),
    "pyproject.toml": (
        r"\[project.urls\]\n",
        "[project.urls]\n" + "".join(f'{name} = "https://example.com/"\n' for name in release.ADDRESSES),
    ),
}
#: A word of the problem that each file has before that.
PROBLEMS = {
    "SECURITY.md": "SECURITY.md: enter the address",
    "docs/index.md": "docs/index.md: remove the words",
    "docs/tutorial.md": "docs/tutorial.md: remove the words",
    "README.md": "README.md: remove the words",
    "CHANGELOG.md": "CHANGELOG.md: ",
    "tests/integration/test_trigger.py": "STORED has no trigger arguments of 9.9.9",
    "pyproject.toml": "[project.urls] has no Changelog",
}


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A repository in which everything is done."""
    for name in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, file)
        pattern, done = DONE[name]
        file.write_text(re.sub(pattern, done, file.read_text()))
    return tmp_path


def test_nothing_is_found_where_all_is_done(ready: Path) -> None:
    """A repository that is ready has no problem."""
    assert release.find_problems(ready) == []


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_thing_that_is_left_is_found(name: str, ready: Path) -> None:
    """Each file that is as it is today is a problem, and the only one."""
    shutil.copy(ROOT / name, ready / name)

    problems = release.find_problems(ready)

    assert problems
    assert all(problem.startswith(f"{name}: ") for problem in problems)
    assert any(PROBLEMS[name] in problem for problem in problems)


def test_changes_that_were_not_moved_are_found(ready: Path) -> None:
    """What is under Unreleased would be in no release."""
    file = ready / "CHANGELOG.md"
    file.write_text(file.read_text().replace("## [Unreleased]\n", "## [Unreleased]\n\n- A change.\n"))

    assert release.find_problems(ready) == ["CHANGELOG.md: move what is under Unreleased to the release."]


def test_licences_that_bind_our_users_are_found() -> None:
    """An unknown licence, and one of the GPL family, are found; exceptions have a reason."""
    packages = [
        {"Name": "good", "License": "MIT License"},
        {"Name": "copyleft", "License": "GNU Affero General Public License v3 (AGPLv3); MIT"},
        {"Name": "silent", "License": "UNKNOWN"},
        {"Name": "text-unidecode", "License": "Artistic License; GNU General Public License (GPL)"},
    ]

    assert [line.partition(":")[0] for line in release.find_unlicensed(packages)] == ["copyleft", "silent"]
    assert all(release.EXCEPTIONS.values())


def test_workflows_and_checks_run_targets_that_there_are() -> None:
    """Each target that CI, a release and the workflows name is in the Makefile; the workflows run all that CI does."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = re.findall(r"^make (.*?)(?: +#.*)?$", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)
    ci = {word for words in commands for word in words.split() if re.fullmatch("[a-z][a-z-]+", word)}
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    listed = {
        line.split()[1] for line in workflow.partition("target:")[2].splitlines() if line.startswith("          - ")
    }
    released = set(re.findall(r"run: make ([a-z-]+)", (ROOT / ".github/workflows/release.yml").read_text()))

    assert ci | listed | released | {target.split()[0] for target in release.TARGETS} <= targets
    assert listed == ci
    assert ci <= {target.split()[0] for target in release.TARGETS}


def test_actions_are_pinned_to_commits() -> None:
    """A tag of an action can be moved to another commit; its version is in the comment."""
    used = [
        line.strip()
        for file in sorted((ROOT / ".github/workflows").glob("*.yml"))
        for line in file.read_text().splitlines()
        if "uses:" in line
    ]

    assert len(used) >= 6
    assert [line for line in used if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []
