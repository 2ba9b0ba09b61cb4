"""One Airflow on Celery, Redis and PostgreSQL for all tests of this folder. Run by ``make test-cluster`` alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen.testing import LocalHub
from tests.cluster.airflow import PARTS, CeleryAirflow
from tests.cluster.story import FREE_SLOTS, SHORT, WHOLE, Story
from tests.support.doc_tables import RELIABILITY_PAGE, show_tables
from tests.support.postgres import postgres_server
from tests.support.redis import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.redis import RedisServer

_TABLES = pytest.StashKey[list[str]]()
_ROOT = Path(__file__).resolve().parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--short", action="store_true", help="fewer waits")
    parser.addoption("--update-docs", action="store_true", help=f"write the tables in {RELIABILITY_PAGE.name} again")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(5400))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config, exitstatus: int) -> None:
    """Print what was seen as tables; write them to the documentation, if all of it was seen."""
    show_tables(
        terminalreporter,
        "\n\n".join(config.stash[_TABLES]),
        target="test-cluster",
        update=config.getoption("--update-docs"),
        whole=not (exitstatus or config.getoption("keyword") or config.getoption("--short")),
    )


@pytest.fixture(scope="session")
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with postgres_server(tmp_path_factory.mktemp("run")) as server:
        # A killed process leaves no lock behind.
        server.psql("ALTER DATABASE postgres SET idle_in_transaction_session_timeout = '10s'")
        yield server


@pytest.fixture(scope="session")
def story(
    request: pytest.FixtureRequest,
    hub: LocalHub,
    redis: RedisServer,
    postgres: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Story]:
    """All waits, when they have ended."""
    waits = SHORT if request.config.getoption("--short") else WHOLE
    home, logs, reports = (tmp_path_factory.mktemp(name) for name in ("cluster", "logs", "reports"))
    slots = waits["poke"] + FREE_SLOTS
    database = postgres.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    env = {
        "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
        "AIRFLOW__CELERY__BROKER_URL": redis.url,
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
        "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(slots // 2),
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.cluster.inside.host_name",
        "AIRFLOW__CORE__PARALLELISM": str(slots),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "tests.cluster.inside.LOGGING_CONFIG",
        # A task is lost when its worker has been silent for so long, and its message when no worker has begun it.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        # What a scheduler had queued before it ended is looked for when it has been silent for so long, and so often.
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
        # On a busy machine it may only be late.
        "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "100",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
        # With the default of 5, the end of a task may not be stored while the database is away.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "12",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        "CLUSTER_LOGS": logs.as_uri(),
        "CLUSTER_REPORTS": str(reports),
        "CLUSTER_WAITS": json.dumps(waits),
        "PYTHONPATH": str(_ROOT),
    }
    airflow = CeleryAirflow(home, dags=Path(__file__).parent / "dags", env=env, commands=PARTS)
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=airflow.env, check=True, capture_output=True)
    with airflow:
        airflow.wait_for_dags({"waits"})
        capture = request.config.pluginmanager.getplugin("capturemanager")

        def say(text: str) -> None:
            with capture.global_and_fixture_disabled():
                print(f"\n{text}", end="", flush=True)

        found = Story(waits, airflow, hub, redis, postgres, reports, say)
        found.play()
        request.config.stash[_TABLES].extend([found.build_faults_table(), found.build_waits_table()])
        yield found
