"""The example DAGs, as Airflow gets them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tests.support.airflow import AIRFLOW_V_3_0_PLUS

FOLDER = Path(__file__).resolve().parents[2] / "example_dags"
EXAMPLES = sorted(FOLDER.glob("*.py"))

_COMPAT = "airflow.providers.common.compat.sdk"
#: Where Airflow 2 has what the examples import: where their README says, or else the places of that Airflow.
_FOR_AIRFLOW_2 = _COMPAT if find_spec(_COMPAT) else "tests.support.airflow"


def place_example(file: Path, folder: Path) -> Path:
    """Put an example into a DAGs folder. On Airflow 2, it imports from where its README says."""
    placed = folder / file.name
    if AIRFLOW_V_3_0_PLUS:
        placed.symlink_to(file)
    else:
        text = file.read_text()
        assert "from airflow.sdk import" in text
        placed.write_text(text.replace("from airflow.sdk import", f"from {_FOR_AIRFLOW_2} import"))
    return placed
