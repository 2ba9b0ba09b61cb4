"""
The code on the pages works.

Airflow loads a Python block with a DAG, pytest runs one with tests, and any other is executed as it stands. A DAG is
saved under the name of its function, by which the tests on the pages import it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import certifi
import pytest

from airflow_provider_oxen.hooks.oxen import OxenHook
from tests.docs.pages import ROOT, Block, blocks

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_oxen.testing import LocalHub

SAMPLES = blocks("python")
TESTS = [block for block in SAMPLES if "def test_" in block.text]
NAMED = [(name, block) for block in SAMPLES for name in re.findall(r"^@dag.*\ndef (\w+)\(", block.text, re.MULTILINE)]
DAGS = dict(NAMED)
OTHERS = [block for block in SAMPLES if block not in TESTS and "@dag" not in block.text]
CONNECTIONS = [
    pytest.param(match[1], id=str(block))
    for block in [*blocks("bash", "console"), *(Block(p, 0, "", p.read_text()) for p in [ROOT / "README.md"])]
    for match in re.finditer(r"AIRFLOW_CONN_OXEN_DEFAULT='(.*?)'", block.text, re.DOTALL)
]


@pytest.mark.parametrize("name", DAGS)
def test_dag_loads_without_errors(name: str, tmp_path: Path) -> None:
    """Airflow loads a DAG of the pages without an error, and finds the tasks that it names."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag
    file = tmp_path / f"{name}.py"
    file.write_text(DAGS[name].text)

    bag = DagBag(dag_folder=str(file))

    assert bag.import_errors == {}
    assert set(re.findall(r'task_id="(\w+)"', DAGS[name].text)) <= set(bag.dags[name].task_ids)


def test_no_two_dags_have_the_same_name() -> None:
    """No two DAGs on the pages have the same name: their tests would import the wrong one."""
    assert len(DAGS) == len(NAMED) == sum("@dag" in block.text for block in SAMPLES)


@pytest.mark.timeout(300)
def test_tests_of_the_pages_pass(tmp_path: Path) -> None:
    """The tests on the pages pass, in an Airflow that is set up as the pages say."""
    folder = tmp_path / "dags"
    folder.mkdir()
    for name, block in DAGS.items():
        (folder / f"{name}.py").write_text(block.text)
    for block in TESTS:
        page = re.sub(r"\W", "_", str(block.page.relative_to(ROOT).with_suffix("")))
        (tmp_path / f"test_{page}_{block.line}.py").write_text(block.text)
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
        "AIRFLOW_HOME": str(tmp_path / "test-airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
    }
    for arguments in (["airflow", "db", "migrate"], ["pytest", "-c", os.devnull, "--rootdir", ".", "-p", "no:asyncio"]):
        result = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-10_000:]
    passed = int(re.search(r"(\d+) passed", result.stdout)[1])
    assert passed >= sum(block.text.count("\ndef test_") for block in TESTS)


@pytest.mark.parametrize("block", OTHERS, ids=str)
def test_other_samples_run(block: Block, oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is neither a DAG nor a test runs, if the evaluations that it names exist."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", oxen_hub.connection_json)  # restored also if the sample sets it
    for evaluation_id in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", block.text):
        oxen_hub.add_evaluation(evaluation_id, seconds=0)

    exec(compile(block.text, str(block), "exec"), {"__name__": "sample"})  # noqa: S102  # written by ourselves


@pytest.mark.parametrize("value", CONNECTIONS)
def test_connection_can_be_used(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on a page is read without an error or a warning, and its key is the one shown."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", value.replace("/etc/ssl/certs/our-ca.pem", certifi.where()))

    config = OxenHook().get_config()

    assert config.api_key in ("YOUR_API_KEY", "local-hub-key")
    assert config.warnings == ()


def test_file_of_secrets_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's backend for files reads the file on the page about connections."""
    from airflow.secrets.local_filesystem import load_connections_dict

    (block,) = [block for block in blocks("yaml") if block.page.name == "connection.md"]
    file = tmp_path / "connections.yaml"
    file.write_text(block.text)

    connection = load_connections_dict(str(file))["oxen_default"]

    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", connection.as_json())
    assert OxenHook().get_config().api_key == "YOUR_API_KEY"
    assert OxenHook().get_config().timeout_seconds == 10


def test_json_settings_are_json() -> None:
    """What a page gives to Airflow as JSON is valid JSON."""
    shown = re.findall(r"_KWARGS='(.*?)'", "".join(block.text for block in blocks("bash")), re.DOTALL)

    assert len(shown) >= 3
    for text in shown:
        assert isinstance(json.loads(text), dict)
