"""One real Airflow and one local hub for all tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_oxen.testing import LocalHub
from demo.standalone import AirflowStandalone
from tests.support.airflow_2 import Airflow2Standalone
from tests.support.examples import EXAMPLES, place_example
from tests.support.listeners import StatsdListener
from tests.support.public_hub import public_hub

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """A hub whose key is found nowhere else, so that a leak can be searched for."""
    with LocalHub(api_key="sk-9f41c7d0e2b84c55a1f6") as hub:
        yield hub


@pytest.fixture(scope="session")
def oxen_public(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalHub, str]]:
    """A local hub that clients take for the public one, with the same key, and a connection to it."""
    with public_hub(tmp_path_factory.mktemp("public"), api_key=hub.api_key) as found:
        yield found


@pytest.fixture(scope="session")
def statsd() -> Iterator[StatsdListener]:
    """What receives the metrics of the real Airflow."""
    with StatsdListener() as listener:
        yield listener


@pytest.fixture(scope="session")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example DAGs and those of these tests, in one folder."""
    folder = tmp_path_factory.mktemp("dags")
    for file in (ROOT / "tests/system/dags").glob("*.py"):
        (folder / file.name).symlink_to(file)
    for file in EXAMPLES:
        place_example(file, folder)
    return folder


@pytest.fixture(scope="module")
def real_airflow(
    hub: LocalHub,
    oxen_public: tuple[LocalHub, str],
    statsd: StatsdListener,
    dags_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowStandalone]:
    """A real Airflow whose connection ``oxen_default`` leads to the hub, and ``oxen_public`` to the public one."""
    env = {
        "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
        "AIRFLOW_CONN_OXEN_PUBLIC": oxen_public[1],
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
    }
    kind = Airflow2Standalone if airflow_version.startswith("2.") else AirflowStandalone
    with kind(tmp_path_factory.mktemp("airflow"), dags=dags_folder, env=env) as airflow:
        airflow.wait_for_dags({file.stem for file in dags_folder.glob("*.py")})
        yield airflow
