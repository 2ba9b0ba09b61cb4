"""The example DAGs load, and each is in the folder's table."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"
FILES = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.filterwarnings("ignore:.*start_from_trigger and end_from_trigger have no effect")  # before Airflow 3.3
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_example_loads_without_errors(file: Path) -> None:
    """Airflow reads the file without an error, and finds in it a DAG of the file's name with a gate."""
    pytest.importorskip("airflow.providers.common.compat.sdk", reason="this common-compat lacks what they import")
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=str(file))

    assert bag.import_errors == {}
    assert file.stem in bag.dags
    assert all(dag_id.startswith(file.stem) for dag_id in bag.dags)
    gates = {"OxenEvaluationSensor", "OxenRunEvaluationOperator"}
    assert gates & {task.task_type for task in bag.dags[file.stem].tasks}


def test_table_of_examples_is_complete() -> None:
    """Each example is in the folder's README."""
    readme = (EXAMPLES / "README.md").read_text()

    assert [file.name for file in FILES if f"`{file.name}`" not in readme] == []
