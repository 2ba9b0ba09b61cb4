"""
``make test-matrix``: the tests on every supported Airflow, with the oldest and the newest of what else is needed.

Each row of ``MATRIX`` gets an environment of its own under ``.venv/matrix``. The tests of a few run side by side. What
can differ by Airflow is tested in all of them: most of ``tests/integration``. What only Python or an HTTP library can
change, ``tests/unit`` and the files in ``_WITHOUT_AIRFLOW``, is tested once for each Python and kind of dependencies,
in the first row that has both. Then those rows that say so run gates and the example DAGs in a real Airflow, side by
side, too.
A row whose Python is not on this machine is left out, and the last lines say so.
With ``--update``, the table in ``docs/tested-with.md`` is written again from the results. A row that was left out keeps
its line there: what was measured last.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from tests.support.doc_tables import build_table, with_table

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tested-with.md"
#: What the constraints of each Airflow have for this package's dependencies, in files named after its version.
CONSTRAINTS = ROOT / "tests" / "constraints"
_PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: The lowest version that is allowed of each package that this one and its extras need.
FLOORS = dict(
    needed.split(">=")
    for group in (_PYPROJECT["project"]["dependencies"], *_PYPROJECT["project"]["optional-dependencies"].values())
    for needed in group
)
_FOLDER = ROOT / ".venv" / "matrix"
#: How long the tests of one row may take, in seconds: many times what they do, so that only what hangs is ended.
_LIMIT_SECONDS = 1800


#: Tests of how the hub is talked to, and of the local hub.
_WITHOUT_AIRFLOW = [
    f"tests/integration/test_{name}.py"
    for name in (
        *("connecting", "download", "local_hub", "local_hub_files", "local_hub_start"),
        *("raw_responses", "sent_once", "transports"),
    )
]
PATHS = {
    "unit": ["tests/unit", *_WITHOUT_AIRFLOW],
    "integration": ["tests/integration", *(f"--ignore={path}" for path in _WITHOUT_AIRFLOW)],
    "system": ["tests/system/test_gates.py", "tests/system/test_start_2.py"],
}


@dataclass
class Row:
    """One environment, and its results."""

    airflow: str
    python: str
    #: ``newest`` takes the newest of everything, ``lowest`` the lowest that pyproject.toml allows, ``constrained`` what
    #: the constraints of that Airflow have.
    dependencies: str = "newest"
    #: Which versions of packages to take whose lowest does not go with that Airflow or what it brings.
    raised: dict[str, str] = field(default_factory=dict)
    #: Whether a real Airflow runs here, too.
    system: bool = False
    #: What was installed, once it was.
    installed: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    left_out: bool = False
    failure: str = ""

    @property
    def name(self) -> str:
        return f"{self.airflow}-py{self.python}-{self.dependencies}"

    @property
    def kinds(self) -> list[str]:
        """Which tests run here."""
        first = next(row for row in MATRIX if (row.python, row.dependencies) == (self.python, self.dependencies))
        return [*(["unit"] if self is first else []), "integration", *(["system"] if self.system else [])]

    @property
    def folder(self) -> Path:
        return _FOLDER / self.name

    @property
    def interpreter(self) -> Path:
        return self.folder / "bin" / "python"


#: Each Airflow with the newest of everything (3.0 with its constraints, the oldest ones), the oldest and the newest
#: Airflow with the lowest that is allowed, and each Python at least once. Airflow 2.11 and 3.0 do not run on
#: Python 3.13.
#: On Python 3.14, only the newest is tested: the lowest that is allowed has no wheels for it.
MATRIX = [
    Row("2.11", "3.11", "lowest"),
    Row("2.11", "3.12", system=True),
    Row("3.0", "3.11", "constrained"),
    Row("3.1", "3.12"),
    Row("3.2", "3.13"),
    Row(
        "3.3",
        "3.11",
        "lowest",
        raised={
            "apache-airflow-providers-common-compat": ">=1.12",
            "apache-airflow-providers-openlineage": "==2.10",
            "pendulum": "==3.1",
        },
    ),
    Row("3.3", "3.13", system=True),
    Row("3.3", "3.14", system=True),
]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make test-matrix", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the table of the documentation again")
    parser.add_argument("--jobs", type=int, default=2, help="how many runs of tests at a time (default: %(default)s)")
    parser.add_argument(
        "--only",
        default="",
        help="the rows of one Airflow, such as 2.11, of one Python, or with one kind of dependencies",
    )
    options = parser.parse_args()
    rows = [row for row in MATRIX if options.only in ("", row.airflow, row.python, row.dependencies)]
    if not rows or (options.update and rows != MATRIX):
        parser.error("there is no such row" if not rows else "the table is written from all rows, not from some")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(_prepare, rows))
        # What takes longest comes first, so that none of it is left at the end.
        list(pool.map(_test, _planned(rows, "integration", "unit")))
        # Then nothing but real Airflows runs: they have to keep Airflow's own limits of time.
        list(pool.map(_test, _planned(rows, "system")))
    print(table(rows))
    for row in rows:
        if row.left_out:
            print(f"{row.name}: left out, its line is what was measured last. To run it, install Python {row.python}.")
    if failed := [row for row in rows if row.failure]:
        for row in failed:
            print(f"\n{row.name} failed.\n{row.failure}")
        return 1
    if options.update:
        PAGE.write_text(with_table(PAGE.read_text(), table(rows), target="test-matrix"))
    return 0


def table(rows: list[Row]) -> str:
    """Write the results of rows as a table in Markdown. One that was left out has what the page says of it."""
    heads = ("Airflow", "Python", "dependencies", "without Airflow", "with Airflow", "in a real Airflow")
    lines: list[Sequence[str]] = []
    for row in rows:
        if row.left_out:
            lines.append(_measured_last(row))
            continue
        versions = (row.installed.get("apache-airflow", row.airflow), row.installed.get("python", row.python))
        lines.append((*versions, row.dependencies, *(_words(row, kind) for kind in ("unit", "integration", "system"))))
    return build_table(heads, lines)


def _measured_last(row: Row) -> Sequence[str]:
    """Read a row's cells from the page. It has no counts if it was never measured."""
    airflow, python = (re.escape(version) + r"\.[\d.]+" for version in (row.airflow, row.python))
    line = r" \| ".join((rf"^\| ({airflow})", f"({python})", f"({row.dependencies})", *["([^|]*)"] * 3)) + r" \|$"
    found = re.search(line, PAGE.read_text(), re.MULTILINE)
    return found.groups() if found else (row.airflow, row.python, row.dependencies, "", "", "")


def _words(row: Row, kind: str) -> str:
    if f"{kind} passed" not in row.counts:
        return "failed" if row.failure and kind in row.kinds else ""
    passed, skipped = (row.counts[f"{kind} {end}"] for end in ("passed", "skipped"))
    failed = row.counts[f"{kind} failed"]
    return f"{passed} passed" + (f", {skipped} skipped" if skipped else "") + (f", {failed} failed" if failed else "")


def _prepare(row: Row) -> None:
    python = _find_python(row.python)
    if python is None:
        row.left_out = True
        return
    try:
        _install(row, python)
    except subprocess.CalledProcessError as error:
        row.failure = f"It could not be installed:\n{error.output}"


def _planned(rows: list[Row], *kinds: str) -> list[tuple[Row, str]]:
    """List the tests to run, each by row and kind: of rows that are here and of which nothing failed."""
    ready = [row for row in rows if not row.left_out and not row.failure]
    return [(row, kind) for kind in kinds for row in ready if kind in row.kinds]


def _install(row: Row, python: str) -> None:
    _say(row, "installing")
    _uv("venv", "--clear", "--python", python, row.folder)
    _uv(
        "pip", "install", "--python", row.interpreter, "--editable", ROOT, *_test_tools(),
        *_constraints(row), "--resolution", "lowest-direct" if row.dependencies == "lowest" else "highest",
        f"apache-airflow=={row.airflow}.*",
    )  # fmt: skip
    listed = _uv("pip", "list", "--format", "freeze", "--python", row.interpreter)
    row.installed = dict(line.split("==") for line in listed.splitlines() if "==" in line)
    version = "import platform; print(platform.python_version())"
    row.installed["python"] = subprocess.check_output([row.interpreter, "-c", version], text=True).strip()


def _constraints(row: Row) -> list[str | Path]:
    if row.dependencies == "newest":
        return []
    if row.dependencies == "constrained":
        (file,) = CONSTRAINTS.glob(f"{row.airflow}.*")
    else:  # or a package that this one does not need would raise the version of one that it needs
        file = row.folder / "lowest.txt"
        floors = {name: f"=={floor}" for name, floor in FLOORS.items() if name != "apache-airflow"}
        file.write_text("".join(f"{name}{versions}\n" for name, versions in (floors | row.raised).items()))
    return ["--constraints", file]


def _test_tools() -> list[str]:
    """List what the tests need, with any version of OpenLineage's provider: the one that goes with the rest."""
    tools = _PYPROJECT["dependency-groups"]["test"]
    return [re.sub(r"^(apache-airflow-providers-openlineage).*", r"\1", tool) for tool in tools]


def _find_python(version: str) -> str | None:
    """Find an interpreter: one that uv finds, or one of pyenv's that is not on the PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for wanted in (version, *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")), reverse=True)):
        try:
            return _uv("python", "find", "--no-project", "--no-python-downloads", wanted).strip()
        except subprocess.CalledProcessError:
            continue
    return None


def _test(planned: tuple[Row, str]) -> None:
    row, kind = planned
    _say(row, f"testing ({kind})")
    report = row.folder / f"{kind}.xml"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    command = [
        *(row.interpreter, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"),
        *("--tb=short", "--show-capture=no"),  # the report has what is left out here
        *PATHS[kind],
    ]
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=_LIMIT_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        row.failure += f"Its tests ({kind}) did not end within {error.timeout:.0f} s.\n"
        return
    if report.exists():
        suite = next(ET.parse(report).getroot().iter("testsuite"))  # noqa: S314  # pytest's own
        tests, failed, errors, skipped = (int(suite.get(n, 0)) for n in ("tests", "failures", "errors", "skipped"))
        counts = {"passed": tests - failed - errors - skipped, "failed": failed + errors, "skipped": skipped}
        row.counts |= {f"{kind} {end}": count for end, count in counts.items()}
    if done.returncode:
        row.failure += done.stdout[-20_000:]
    _say(row, f"{_words(row, kind) or 'failed'} in {time.monotonic() - began:.0f} s")


def _uv(*arguments: str | Path) -> str:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    return subprocess.run(
        [uv, "--quiet", *arguments] if arguments[:2] == ("pip", "install") else [uv, *arguments],
        check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ).stdout  # fmt: skip


def _say(row: Row, what: str) -> None:
    print(f"{row.name}: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
