"""One real Airflow and one local hub for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_oxen.testing import LocalHub
from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """A hub whose key is found nowhere else, so that a leak can be searched for."""
    with LocalHub(api_key="sk-9f41c7d0e2b84c55a1f6") as hub:
        yield hub


@pytest.fixture(scope="session")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example DAGs and those of these tests, in one folder."""
    folder = tmp_path_factory.mktemp("dags")
    for file in [*(ROOT / "example_dags").glob("*.py"), *(ROOT / "tests/system/dags").glob("*.py")]:
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def real_airflow(
    hub: LocalHub, dags_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowStandalone]:
    """A real Airflow whose connection ``oxen_default`` leads to the hub."""
    env = {"AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri}
    with AirflowStandalone(tmp_path_factory.mktemp("airflow"), dags=dags_folder, env=env) as airflow:
        airflow.wait_for_dags({file.stem for file in dags_folder.glob("*.py")})
        yield airflow
