"""
The package resolves beside the constraints of each supported Airflow, and the floors of its dependencies have reasons.

``tests/constraints`` has the lines of Airflow's constraints files that are about this package's dependencies and what
those need. ``tests/matrix.py`` installs with them, too.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.matrix import CONSTRAINTS, FLOORS, MATRIX

FILES = sorted(CONSTRAINTS.glob("*.txt"))


def _pins(text: str) -> dict[str, str]:
    """Read lines as ``name==version``; names are written in several ways."""
    found = re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_each_airflow_of_the_matrix_has_constraints() -> None:
    """There is one file for each supported Airflow, and it pins what Airflow shares with this package."""
    assert [file.stem.rpartition(".")[0] for file in FILES] == sorted({row.airflow for row in MATRIX})
    for file in FILES:
        # No package of newer Airflows needs DuckDB.
        assert FLOORS.keys() - {"apache-airflow", "duckdb"} <= _pins(file.read_text()).keys(), file.name


def _resolve(folder: Path, airflow: str, *options: str | Path) -> dict[str, str]:
    """Choose versions for the package with its extras, beside an Airflow."""
    wanted = folder / "wanted.in"
    wanted.write_text(f"apache-airflow=={airflow}\n")
    uv = Path(sys.executable).parent / "uv"
    command = [uv, "pip", "compile", "--quiet", "--all-extras", *options, ROOT / "pyproject.toml", wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return _pins(done.stdout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_package_resolves_beside_the_constraints(file: Path, tmp_path: Path) -> None:
    """The package and its extras can be installed with that Airflow and its constraints, which pin each package."""
    chosen = _resolve(tmp_path, file.stem, "--python-version", "3.12", "--constraints", file)

    assert FLOORS.keys() <= chosen.keys()
    assert chosen["apache-airflow"] == file.stem
    pinned = _pins(file.read_text())
    assert [name for name, version in chosen.items() if version != pinned.get(name, version)] == []


@pytest.mark.timeout(300)
def test_all_it_needs_can_be_had_for_python_3_14(tmp_path: Path) -> None:
    """On the newest Airflow, everything has wheels for Python 3.14."""
    chosen = _resolve(tmp_path, "3.3.*", "--python-version", "3.14", "--only-binary", ":all:")

    assert FLOORS.keys() <= chosen.keys()


def test_each_floor_has_its_reason() -> None:
    """The tables in CONTRIBUTING have the floors of pyproject.toml, and a reason for each."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (\S+) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)

    assert {name: floor for name, floor, *_ in rows} == FLOORS
    assert all(reason for *_, reason in rows)
