"""One real Airflow on PostgreSQL and one local hub for all tests of this folder. Run by ``make test-chaos`` alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_oxen.testing import AfterStart, Disconnect, Fault, LocalHub
from airflow_provider_oxen.testing.scenario import Scenario
from tests.chaos.cluster import LIMIT_SECONDS, Cluster
from tests.chaos.table import build_table
from tests.support.doc_tables import RELIABILITY_PAGE, show_tables
from tests.support.postgres import postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.table import Row

_ROWS = pytest.StashKey[list["Row"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-docs", action="store_true", help=f"write the table in {RELIABILITY_PAGE.name} again")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(900))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config, exitstatus: int) -> None:
    """Print what was seen as a table; write it to the documentation, if all of it was seen."""
    show_tables(
        terminalreporter,
        build_table(config.stash[_ROWS]),
        target="test-chaos",
        update=config.getoption("--update-docs"),
        whole=not (exitstatus or config.getoption("keyword")),
    )


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """What has been seen so far."""
    return request.config.stash[_ROWS]


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    """A hub where each started evaluation runs until a test ends it."""
    with LocalHub() as hub:
        hub.on_start = Scenario(seconds=3600)
        yield hub


@pytest.fixture(scope="session")
def losing_hub() -> Iterator[LocalHub]:
    """A hub whose response is lost after it has started an evaluation."""
    with LocalHub() as hub:
        hub.on_start = Scenario(seconds=3600)
        hub.start_faults = [Fault(AfterStart(Disconnect(reset=True)))]
        yield hub


@pytest.fixture(scope="session")
def cluster(hub: LocalHub, losing_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An Airflow of separate processes, which notices within half a minute what was killed."""
    with postgres_server(tmp_path_factory.mktemp("run")) as postgres:
        # The workers of a killed scheduler keep its connections open, and with them the locks of its transaction.
        postgres.psql("ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '10s'")
        env = {
            # A frozen request may leave when it wakes up, however late.
            "AIRFLOW_CONN_OXEN_DEFAULT": f"{hub.connection_uri}?timeout={LIMIT_SECONDS:g}",
            "AIRFLOW_CONN_OXEN_LOSING": losing_hub.connection_uri,
            "AIRFLOW__CORE__PARALLELISM": "24",
            # How long a process may go on after its task was deferred: as long as a test waits for anything.
            "AIRFLOW__CORE__TASK_SUCCESS_OVERTIME": str(LIMIT_SECONDS),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.get_uri().replace(
                "postgresql://", "postgresql+psycopg2://"
            ),
            # A task is lost when its worker has been silent for so long.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
            "CHAOS_FOLDER": str(tmp_path_factory.mktemp("stops")),
        }
        commands = {
            "api-server": ("api-server",),
            "scheduler": ("scheduler", "--skip-serve-logs"),
            "dag-processor": ("dag-processor",),
            "triggerer": ("triggerer", "--skip-serve-logs"),
        }
        home = tmp_path_factory.mktemp("cluster")
        airflow = Cluster(home, dags=Path(__file__).parent / "dags", env=env, commands=commands)
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=airflow.env, check=True, capture_output=True)
        with airflow:
            airflow.wait_for_dags(
                {
                    "start_once",
                    "start_once_no_retries",
                    "start_once_unknown_again",
                    "start_once_clear_again",
                    "start_once_mapped",
                }
            )
            yield airflow
