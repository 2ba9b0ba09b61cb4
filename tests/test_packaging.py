"""What is shipped: the wheel, the entry points, the provider's metadata, the rooms, and what importing it costs."""

from __future__ import annotations

import configparser
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from importlib import metadata
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import airflow
import jsonschema
import pytest
import readme_renderer.markdown

import airflow_provider_oxen
from airflow_provider_oxen.config import DEFAULT_HOST
from airflow_provider_oxen.get_provider_info import get_provider_info
from airflow_provider_oxen.hooks.oxen import OxenHook
from hatch_build import ReadmeForTheIndex, for_the_index
from tests.matrix import MATRIX, PAGE
from tests.support.doc_tables import markers

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_provider_oxen"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in ("__init__", "__main__")
)


def test_airflow_finds_the_provider_by_its_entry_point() -> None:
    """The entry point that Airflow looks for gives the provider's metadata."""
    (entry,) = (e for e in entry_points(group="apache_airflow_provider") if "oxen" in e.value)

    assert entry.load()() == get_provider_info()


def test_metadata_fits_airflows_own_schema() -> None:
    """The metadata is valid by the schema of the Airflow that is installed."""
    schema = json.loads((Path(airflow.__path__[0]) / "provider_info.schema.json").read_text())

    jsonschema.validate(get_provider_info(), schema)


def _dotted_paths(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _dotted_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _dotted_paths(inner)
    elif isinstance(value, str) and value.startswith("airflow_provider_oxen."):
        yield value


def test_every_dotted_path_in_the_metadata_imports() -> None:
    """Each module and class the metadata names is there."""
    paths = set(_dotted_paths(get_provider_info()))

    assert {"airflow_provider_oxen.hooks.oxen.OxenHook", "airflow_provider_oxen.sensors.oxen"} <= paths
    for path in paths:
        module, _, name = path.rpartition(".")
        if path in MODULES:
            importlib.import_module(path)
        else:
            assert hasattr(importlib.import_module(module), name)


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
def test_airflow_lists_the_connection_type() -> None:
    """``airflow providers hooks`` has the connection type, with its hook and its form."""
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()

    assert manager.hooks["oxen"].hook_name == "Oxen"
    form = manager.field_behaviours["oxen"]
    assert form["hidden_fields"] == ["login"]
    assert form["relabeling"] == {"password": "API key", "schema": "Scheme"}
    fields = {name for name in manager.connection_form_widgets if name.startswith("extra__oxen__")}
    assert fields == {f"extra__oxen__{name}" for name in ("timeout", "verify", "proxy", "max_connections")}


@pytest.mark.parametrize("name", MODULES)
def test_all_names_what_is_there(name: str) -> None:
    """Each module's ``__all__`` holds its public names, no more and no less; lint keeps it sorted."""
    module = importlib.import_module(name)

    own = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name and not isinstance(value, TypeVar)
    }
    assert own <= set(module.__all__)
    assert all(hasattr(module, key) for key in module.__all__)


def test_every_public_thing_has_a_docstring() -> None:
    """Modules, classes and functions that are public say what they are for."""
    for name in MODULES:
        module = importlib.import_module(name)
        assert module.__doc__, name
        for key in module.__all__:
            value = getattr(module, key)
            if isinstance(value, type) or inspect.isfunction(value):
                assert value.__doc__, f"{name}.{key}"


def test_no_file_is_long() -> None:
    """A file of the package has at most 330 lines: what grows beyond is two rooms."""
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}

    assert {name: lines for name, lines in lengths.items() if lines > 330} == {}


def test_differences_between_airflows_are_in_compat_files() -> None:
    """What goes with a version of Airflow is in a file that says so by its name, and so is what is private there."""
    marks = re.compile(
        r"delete .{0,40}\bwith (it|airflow)\b|except ImportError|airflow \d only|noqa: SLF001", re.IGNORECASE
    )
    found = {path.name for path in PACKAGE.rglob("*.py") if marks.search(path.read_text())}

    others = {
        "airflow_names.py",  # names that moved
        "evaluations.py",  # a descriptor that reads its own class
        "get_provider_info.py",  # data
    }
    assert {name for name in found if not name.endswith("_compat.py")} <= others


#: Imports that break a contract, by the file that they are added to, and what the contract says about each.
VIOLATIONS = {
    ("evaluations.py", "from airflow_provider_oxen import gate"): "evaluations is not allowed to import gate",
    ("values.py", "from airflow_provider_oxen import protocol"): "values is not allowed to import protocol",
    (
        "sensors/oxen.py",
        "from airflow_provider_oxen.operators import oxen",
    ): "sensors is not allowed to import operators",
    ("gate.py", "from airflow_provider_oxen import testing"): "gate is not allowed to import testing",
    ("wait.py", "import time"): "wait is not allowed to import time",
    ("messages.py", "import airflow"): "messages is not allowed to import airflow",
    ("protocol.py", "import requests"): "protocol is not allowed to import requests",
    ("triggers/oxen.py", "import aiohttp"): "triggers is not allowed to import aiohttp",
    ("pool.py", "import airflow"): "pool is not allowed to import airflow",
    ("testing/hub.py", "from airflow_provider_oxen import config"): "testing is not allowed to import config",
    ("testing/scenario.py", "import airflow"): "testing is not allowed to import airflow",
    (
        "testing/tables.py",
        "from airflow_provider_oxen.testing import files",
    ): "testing.tables is not allowed to import testing.files",
    ("another_room.py", ""): "- another_room",
}


def _lint_imports(folder: Path) -> str:
    """Check the import contracts of a copy of the package; return the report, without line breaks and full names."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return " ".join(done.stdout.replace("airflow_provider_oxen.", "").split())


def test_each_import_contract_catches_its_violation(tmp_path: Path) -> None:
    """The contracts hold for the package, and a line that breaks one is reported, each contract's own."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    clean = _lint_imports(tmp_path)
    for file, line in VIOLATIONS:
        with (tmp_path / PACKAGE.name / file).open("a") as module:
            module.write(f"\n{line}\n")
    unplaced = _lint_imports(tmp_path)
    (tmp_path / PACKAGE.name / "another_room.py").unlink()
    broken = _lint_imports(tmp_path)

    assert " 0 broken." in clean, clean
    assert " 0 kept, " in broken
    reports = f"{unplaced} {broken}"
    assert [expected for expected in VIOLATIONS.values() if expected not in reports] == []


def test_contracts_name_every_module() -> None:
    """The contract of the local hub forbids every other module."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (hub,) = (one for one in contracts if one.get("source_modules") == ["airflow_provider_oxen.testing"])
    rooms = {".".join(name.split(".")[:2]) for name in MODULES} - {"airflow_provider_oxen.testing"}

    assert set(hub["forbidden_modules"]) == {"airflow", *rooms}


def test_map_has_the_floors_of_the_contract() -> None:
    """The map in CONTRIBUTING has every module, on the floor that the contract of layers gives it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == [PACKAGE.name])
    floors = [(floor, room) for floor, rooms in enumerate(reversed(layers)) for room in rooms.split(" | ")]

    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    mapped = [(int(floor), path) for floor, cell in rows for path in re.findall(r"`(.+?)`", cell)]

    assert {(floor, path.partition("/")[0].removesuffix(".py")) for floor, path in mapped} == set(floors)
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}
    hub = {path for path in modules if path.startswith("testing/")}
    assert sorted(path for _, path in mapped) == sorted({*modules - hub, "testing/"})
    assert [floor for floor, _ in mapped] == sorted((floor for floor, _ in mapped), reverse=True)


def _import_after_airflow_sdk() -> tuple[float, list[str]]:
    """Import the sensor as the DAG processor does; return the milliseconds of CPU it took and the modules it added."""
    # Modules are compiled, as installed ones are.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    program = (
        "import json, sys, time, airflow.sdk;"
        "before = set(sys.modules); began = time.process_time();"
        "import airflow_provider_oxen.sensors.oxen;"
        "took = time.process_time() - began;"
        "print(json.dumps(['RESULT', took * 1000, sorted(set(sys.modules) - before)]))"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout
    _, took, modules = json.loads(next(line for line in output.splitlines() if line.startswith('["RESULT"')))
    return took, modules


def test_parsing_a_dag_imports_few_modules() -> None:
    """Importing the sensor after ``airflow.sdk`` adds at most 13 modules, and no HTTP library among them."""
    _, modules = _import_after_airflow_sdk()

    assert "airflow_provider_oxen.sensors.oxen" in modules
    assert not {"requests", "aiohttp", "msgspec", "pendulum"} & {name.partition(".")[0] for name in modules}
    assert len(modules) <= 13, modules


@pytest.mark.alone
@pytest.mark.timeout(200)
def test_parsing_a_dag_takes_little_time() -> None:
    """Importing the sensor after ``airflow.sdk`` takes at most 15 ms of CPU; the least of a few runs counts."""
    assert min(_import_after_airflow_sdk()[0] for _ in range(4)) <= 15


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from the source tree, and the wheel from the sdist, as a release does."""
    folder = tmp_path_factory.mktemp("dist")
    _build(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


def _build(source: Path, folder: Path, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", *options, "--installer", "uv", "--outdir", folder, source],
        check=True,
        capture_output=True,
    )


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    """The wheel ships this package with its type marker, no ``airflow`` namespace, no tests and no demonstration."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} == {
        "airflow_provider_oxen",
        f"airflow_provider_oxen-{airflow_provider_oxen.__version__}.dist-info",
    }
    assert "airflow_provider_oxen/py.typed" in names
    subprocess.run([Path(sys.executable).with_name("check-wheel-contents"), wheel], check=True)


def test_index_would_take_both(dist: Path) -> None:
    """The checks that the package index makes of the metadata and of the README pass, warnings being errors."""
    files = sorted(dist.iterdir())

    assert [file.suffix for file in files] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True, capture_output=True)


def _targets(page: str) -> list[str]:
    """Render a page as the package index does; return where its links and pictures lead."""
    html = readme_renderer.markdown.render(page)
    assert html is not None
    return re.findall(r'\b(?:href|src)="([^#].*?)"', html)


def test_index_shows_no_relative_link(wheel: Path) -> None:
    """What the index shows of the README has the README's words, and neither a relative link nor a relative picture."""
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    page = message_from_bytes(zipfile.ZipFile(wheel).read(name))

    assert page["Description-Content-Type"] == "text/markdown"
    text = page.get_payload(decode=True).decode()
    assert "OxenRunEvaluationOperator(" in text
    assert "judges the answers" in text
    targets = _targets(text)
    assert "https://www.oxen.ai/" in targets
    assert [target for target in targets if not target.startswith("https://")] == []


def test_index_links_to_the_tag_of_the_version() -> None:
    """Once the repository has an address, each link and picture of the README leads to that file of that version."""
    readme = (ROOT / "README.md").read_text()
    ours = [target for target in _targets(readme) if not target.startswith("https://")]
    home = "https://example.com/ox/provider"

    metadata = {"version": "9.9.9", "urls": {"Source": home}}
    ReadmeForTheIndex(str(ROOT), {}).update(metadata)
    targets = _targets(metadata["readme"]["text"])

    assert len(ours) > 20
    assert {target for target in targets if target.startswith(home)} == {
        f"{home}/{'raw' if target.endswith('.png') else 'blob'}/v9.9.9/{target}" for target in ours
    }
    assert [target for target in targets if not target.startswith("https://")] == []


def test_index_page_keeps_what_is_not_relative() -> None:
    """Other sites, places on the page and code stay as they are. Without an address, words stay and pictures go."""
    kept = "[A site](https://a.example/b), [place](#y).\n\n```python\nrows[0](first)\n```\n"
    text = f"See [the page](docs/a.md#b).\n\n![p](p.png)\n\n{kept}"

    assert for_the_index(text, None, "1.0") == f"See the page.\n\n{kept}"
    assert for_the_index(text, "https://h.example", "1.0") == (
        f"See [the page](https://h.example/blob/v1.0/docs/a.md#b).\n\n![p](https://h.example/raw/v1.0/p.png)\n\n{kept}"
    )


def test_sdist_builds_the_same_wheel_as_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    """Who builds from the sdist gets what is in the wheel, byte for byte."""
    _build(ROOT, tmp_path, "--wheel")

    theirs, ours = (zipfile.ZipFile(file) for file in (wheel, next(tmp_path.glob("*.whl"))))
    assert theirs.namelist() == ours.namelist()
    assert [name for name in ours.namelist() if theirs.read(name) != ours.read(name)] == []


def test_sdist_has_the_tests_and_what_they_need(dist: Path) -> None:
    """Who packages this for a distribution can test it from the sdist; what was installed or made here is not in it."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "CHANGELOG.md", "Makefile", "setup.cfg", "tests/conftest.py", "demo/standalone.py"} <= names
    assert {name.split("/")[0] for name in names} & {".venv", ".demo", "dist", ".git"} == set()


def test_wheel_metadata(wheel: Path) -> None:
    """The wheel says what it is, and needs no more than it should."""
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    text = zipfile.ZipFile(wheel).read(name).decode()

    assert f"Version: {airflow_provider_oxen.__version__}\n" in text
    assert "Classifier: Framework :: Apache Airflow\n" in text
    assert "Classifier: Framework :: Apache Airflow :: Provider\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    lines = re.findall(r"Requires-Dist: .+", text)
    needed, optional = (
        {re.split(r"[<>=!~ ;\[]", line)[1] for line in lines if ("extra ==" in line) is extra}
        for extra in (False, True)
    )
    assert optional == {"apache-airflow-providers-openlineage", "duckdb"}
    assert needed == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "aiohttp",
        "msgspec",
        "pendulum",
        "requests",
        "urllib3",
    }


class Clean:
    """An environment with the wheel, Airflow and pytest, and nothing of this checkout."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.python = folder / "venv" / "bin" / "python"
        self.home = folder / "airflow"
        self.env = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "HOME": str(folder),
            "PATH": f"{self.python.parent}:/usr/bin:/bin",
            # What Python 3.14 warns of in Airflow's command line. Airflow would print it before the JSON.
            "PYTHONWARNINGS": "ignore:FileType is deprecated:PendingDeprecationWarning",
        }
        venv.create(folder / "venv", with_pip=False)
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", self.python, wheel, "pytest",
             f"apache-airflow=={airflow.__version__}"],
            check=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Run a Python program outside the checkout; return what it printed."""
        done = subprocess.run(
            [self.python, *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    return Clean(tmp_path_factory.mktemp("clean"), wheel)


@pytest.fixture(scope="module")
def clean_with_results(clean: Clean, wheel: Path) -> Clean:
    """Add the extra that conditions on rows need."""
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", clean.python, f"{wheel}[results]"],
        check=True,
    )
    return clean


@pytest.mark.timeout(300)
def test_installed_wheel_is_what_is_imported(clean: Clean) -> None:
    """In the clean environment, every module imports, and from the installed wheel alone."""
    program = f"import importlib\nfor name in {MODULES}: print(importlib.import_module(name).__file__)"

    paths = clean.run("-c", program).splitlines()[-len(MODULES) :]

    assert [path for path in paths if not path.startswith(str(clean.folder))] == []


@pytest.mark.timeout(300)
def test_airflows_command_line_lists_the_installed_provider(clean: Clean) -> None:
    """``airflow providers`` lists the package and its version, its hook and its connection form."""
    listed = json.loads(clean.run("-m", "airflow", "providers", "list", "--output", "json"))
    got = clean.run("-m", "airflow", "providers", "get", "airflow-provider-oxen", "--full", "--output", "json")
    hooks = json.loads(clean.run("-m", "airflow", "providers", "hooks", "--output", "json"))

    (ours,) = (each for each in listed if each["package_name"] == "airflow-provider-oxen")
    assert ours["version"] == airflow_provider_oxen.__version__
    assert "oxen" in got
    assert [
        (hook["class"], hook["hook_name"]) for hook in hooks if hook["connection_type"] == "oxen"
    ] == [("airflow_provider_oxen.hooks.oxen.OxenHook", "Oxen")]  # fmt: skip


@pytest.mark.timeout(300)
def test_dag_and_test_of_the_readme_run_as_they_stand_there(clean: Clean) -> None:
    """The README's DAG, in Airflow's DAGs folder, passes the README's test, with the fixture that the wheel brings."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (dag,) = (block for block in blocks if "@dag" in block)
    (test,) = (block for block in blocks if "def test_" in block)
    dags = clean.home / "dags"
    dags.mkdir(parents=True)
    (dags / "publish_intents.py").write_text(dag)
    (dags / "test_publish_intents.py").write_text(test)

    clean.run("-m", "airflow", "db", "migrate")
    assert "1 passed" in clean.run("-m", "pytest", "-q", str(dags / "test_publish_intents.py"))


@pytest.mark.timeout(300)
def test_examples_parse_with_the_installed_wheel(clean_with_results: Clean) -> None:
    """Airflow reads each example where nothing but the wheel and its extra for results is installed."""
    program = (
        "import sys; from airflow.dag_processing.dagbag import DagBag\n"
        "bag = DagBag(sys.argv[1]); assert not bag.import_errors, bag.import_errors; print(*sorted(bag.dags))"
    )

    found = clean_with_results.run("-c", program, str(ROOT / "example_dags")).splitlines()[-1]

    assert {file.stem for file in (ROOT / "example_dags").glob("*.py")} <= set(found.split())


@pytest.mark.timeout(300)
def test_local_hub_runs_from_the_installed_wheel(clean: Clean) -> None:
    """``python -m airflow_provider_oxen.testing`` explains itself; its hub responds to the hook."""
    program = (
        "import os; from airflow_provider_oxen.testing import LocalHub\n"
        "from airflow_provider_oxen.hooks.oxen import OxenHook\n"
        "with LocalHub() as hub:\n"
        "    os.environ['AIRFLOW_CONN_OXEN_DEFAULT'] = hub.connection_uri\n"
        "    print(OxenHook().get_evaluation('ox', 'r', hub.add_evaluation(seconds=0)).status)\n"
    )

    assert "completed-20s" in clean.run("-m", "airflow_provider_oxen.testing", "--help")
    assert clean.run("-c", program).splitlines()[-1] == "completed"


@pytest.fixture(scope="module")
def users_code(clean_with_results: Clean) -> Path:
    """
    Copy ``tests/typing`` out of the checkout: otherwise it would import what is beside it.

    Where DuckDB is not installed, pyright knows only a part of the type of a condition.
    """
    return Path(shutil.copytree(ROOT / "tests/typing", clean_with_results.folder / "typing"))


def _check_types(code: Path, *command: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, code], cwd=code, capture_output=True, text=True, check=False
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_users_code_passes_mypy_against_the_installed_wheel(clean: Clean, users_code: Path) -> None:
    """``tests/typing`` passes mypy --strict by the types that the wheel ships."""
    cache = clean.folder / "mypy"
    said = _check_types(
        users_code, "mypy", "--strict", "--config-file=", "--cache-dir", cache, "--python-executable", clean.python
    )

    assert "Success: no issues found in 2 source files" in said, said


@pytest.mark.timeout(300)
def test_users_code_passes_pyright_against_the_installed_wheel(clean: Clean, users_code: Path) -> None:
    """It also passes pyright, strictly; editors check with that one."""
    said = _check_types(users_code, "basedpyright", "--pythonpath", clean.python, "--project")

    assert "0 errors, 0 warnings" in said, said


def test_users_code_has_every_public_class() -> None:
    """What is type-checked imports each class that the reference documents, and each error."""
    pages = "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    classes = {path.split(".")[-1] for path in re.findall(r"auto(?:class|exception):: ([\w.]+)", pages)}
    errors = set(importlib.import_module("airflow_provider_oxen.exceptions").__all__)
    code = "".join(file.read_text() for file in (ROOT / "tests/typing").glob("*.py"))

    assert {"OxenHook", "LocalHub", "OxenNotTheHubError"} <= classes
    assert [name for name in sorted(classes | errors) if not re.search(rf"\b{name}\b", code)] == []


def test_version_stands_in_one_place() -> None:
    """The version is written in the package's ``__init__.py`` and nowhere else; what is installed has it from there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert "version" not in project
    assert "version" in project["dynamic"]
    assert metadata.version("airflow-provider-oxen") == airflow_provider_oxen.__version__
    assert get_provider_info()["versions"] == [airflow_provider_oxen.__version__]


def test_changelog_is_in_keep_a_changelogs_form() -> None:
    """First *Unreleased*, then releases, newest first, each with its date; under each the kinds of change there are."""
    text = (ROOT / "CHANGELOG.md").read_text()
    heads = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    releases = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)", head) for head in heads[1:]]

    assert heads[0] == "[Unreleased]"
    assert all(releases)
    versions = [tuple(map(int, release[1].split("."))) for release in releases]
    assert versions == sorted(versions, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, flags=re.MULTILINE)) <= kinds


def test_matrix_is_what_the_classifiers_promise() -> None:
    """Each Python of the classifiers, and each Airflow from the lowest on, has a row among those that are tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = {c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}

    assert {row.python for row in MATRIX} == promised
    airflows = dict.fromkeys(row.airflow for row in MATRIX if row.dependencies != "lowest")
    assert list(airflows) == ["2.11", "3.0", "3.1", "3.2", "3.3"]
    assert "apache-airflow>=2.11" in project["dependencies"]
    assert {row.airflow for row in MATRIX if row.system} == {"2.11", "3.3"}
    pairs = sorted((row.python, row.dependencies) for row in MATRIX if "unit" in row.kinds)
    assert pairs == sorted({(row.python, row.dependencies) for row in MATRIX})


def test_page_has_the_table_of_the_matrix() -> None:
    """A page says how each row of the matrix ended, in the form that ``make test-matrix UPDATE=1`` writes."""
    begin, end = markers("test-matrix")
    lines = PAGE.read_text().partition(begin)[2].partition(end)[0].strip().splitlines()

    assert len(lines) == len(MATRIX) + 2
    for line, row in zip(lines[2:], MATRIX, strict=True):
        version, python, dependencies, unit, integration, system = (cell.strip() for cell in line.strip("|").split("|"))
        assert version.startswith(f"{row.airflow}.")
        assert python.startswith(f"{row.python}.")
        assert dependencies == row.dependencies
        for kind, words in (("unit", unit), ("integration", integration), ("system", system)):
            assert re.fullmatch(r"\d+ passed(, \d+ skipped)?" if kind in row.kinds else "", words)


def test_no_tool_is_configured_twice() -> None:
    """What ``setup.cfg`` configures, ``pyproject.toml`` does not."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

    assert not {re.split("[:-]", section)[-1 if ":" in section else 0] for section in setup.sections()} & set(tools)
    assert "pytest" not in tools
    assert "coverage" not in tools


def test_readme_has_the_facts_of_the_code() -> None:
    """The connection's id and host in the README are the code's, it lists the modules, and its code is Python."""
    readme = (ROOT / "README.md").read_text()
    info = get_provider_info()

    assert OxenHook.default_conn_name in readme
    assert DEFAULT_HOST in readme
    for kind in ("hooks", "sensors", "triggers"):
        assert f"`{info[kind][0]['python-modules'][0]}`" in readme
    for block in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL):
        compile(block, "README.md", "exec")
