"""What is shipped: the wheel, the entry points, the provider's metadata, and what importing it costs."""

from __future__ import annotations

import configparser
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow
import jsonschema
import pytest

import airflow_provider_oxen
from airflow_provider_oxen.config import DEFAULT_HOST
from airflow_provider_oxen.get_provider_info import get_provider_info
from airflow_provider_oxen.hooks.oxen import OxenHook

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

    assert len(paths) == 9
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
        if not key.startswith("_") and getattr(value, "__module__", None) == name
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


def _import_after_airflow_sdk() -> tuple[float, list[str]]:
    """Import the sensor as the DAG processor does; tell the milliseconds of CPU it took, and which modules it added."""
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
    """Importing the sensor after ``airflow.sdk`` adds at most 12 modules, and no HTTP library among them."""
    _, modules = _import_after_airflow_sdk()

    assert "airflow_provider_oxen.sensors.oxen" in modules
    assert not {"requests", "aiohttp", "msgspec", "pendulum"} & {name.partition(".")[0] for name in modules}
    assert len(modules) <= 12, modules


def test_parsing_a_dag_takes_little_time() -> None:
    """Importing the sensor after ``airflow.sdk`` takes at most 15 ms of CPU; the least of a few runs counts."""
    assert min(_import_after_airflow_sdk()[0] for _ in range(4)) <= 15


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--installer", "uv", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    """The wheel ships this package with its type marker, no ``airflow`` namespace, no tests and no demonstration."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} == {
        "airflow_provider_oxen",
        f"airflow_provider_oxen-{airflow_provider_oxen.__version__}.dist-info",
    }
    assert "airflow_provider_oxen/py.typed" in names
    subprocess.run([Path(sys.executable).with_name("check-wheel-contents"), wheel], check=True)


def test_wheel_metadata(wheel: Path) -> None:
    """The wheel says what it is, and needs no more than it should."""
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    metadata = zipfile.ZipFile(wheel).read(name).decode()

    assert "Classifier: Framework :: Apache Airflow\n" in metadata
    assert "Classifier: Framework :: Apache Airflow :: Provider\n" in metadata
    assert "License-Expression: Apache-2.0\n" in metadata
    lines = re.findall(r"Requires-Dist: .+", metadata)
    needed, optional = (
        {re.split(r"[<>=!~ ;\[]", line)[1] for line in lines if ("extra ==" in line) is extra}
        for extra in (False, True)
    )
    assert optional == {"apache-airflow-providers-openlineage"}
    assert needed == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "aiohttp",
        "msgspec",
        "pendulum",
        "requests",
        "urllib3",
    }


@pytest.mark.timeout(300)
def test_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed alone, from nothing, the provider is found by Airflow and the local hub answers its hook."""
    venv.create(tmp_path / "clean", with_pip=False)
    python = tmp_path / "clean" / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, wheel,
         f"apache-airflow=={airflow.__version__}"],
        check=True,
    )  # fmt: skip
    program = (
        "import os; from airflow_provider_oxen.testing import LocalHub\n"
        "from airflow_provider_oxen.hooks.oxen import OxenHook\n"
        "import airflow_provider_oxen.sensors.oxen, airflow_provider_oxen.triggers.oxen\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "assert 'oxen' in ProvidersManager().hooks\n"
        "with LocalHub() as hub:\n"
        "    os.environ['AIRFLOW_CONN_OXEN_DEFAULT'] = hub.connection_uri\n"
        "    print(OxenHook().get_evaluation('ox', 'r', hub.add_evaluation(seconds=0)).status)\n"
    )
    env = {"AIRFLOW_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    result = subprocess.run([python, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=env, check=False)

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "completed"


def test_no_tool_is_configured_twice() -> None:
    """What ``setup.cfg`` configures, ``pyproject.toml`` does not."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

    assert not {re.split("[:-]", section)[-1 if ":" in section else 0] for section in setup.sections()} & set(tools)
    assert "pytest" not in tools
    assert "coverage" not in tools


def test_readme_tells_the_facts_of_the_code() -> None:
    """The connection's id and host in the README are the code's, and its DAG is the example's."""
    readme = (ROOT / "README.md").read_text()

    assert OxenHook.default_conn_name in readme
    assert DEFAULT_HOST in readme
    for block in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL):
        compile(block, "README.md", "exec")
