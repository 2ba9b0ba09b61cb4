"""
The Airflow of ``make demo``: its login is known before it starts, and it starts sooner than ``airflow standalone``.

An empty database is made once for each version of Airflow, and kept in the virtual environment. From the second time
on, a copy of it is used. Without that first step, all processes of Airflow can start at once.
"""

from __future__ import annotations

import base64
import configparser
import json
import os
import secrets
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from demo.standalone import RESPONSE_LIMIT_SECONDS, START_LIMIT_SECONDS, AirflowStandalone, free_ports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from demo.screen import Screen

__all__ = ["DemoAirflow"]

#: The parts of Airflow, in words. Only the API server can say whether the database can be used.
_PART_NAMES = {
    "metadatabase": "API server",
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag_processor": "DAG processor",
}

#: Airflow's own limits would end tasks on a busy machine.
_FOR_A_BUSY_MACHINE = {
    "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "300",
    "AIRFLOW__DAG_PROCESSOR__HEALTH_CHECK_THRESHOLD": "300",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "900",
    "AIRFLOW__TRIGGERER__RUNNER_HEALTH_CHECK_THRESHOLD": "300",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "300",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
}
#: A file that has changed is parsed at once all the same.
_FOR_A_SHORT_RUN = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300"}


class DemoAirflow(AirflowStandalone):
    """
    As its base, but all its files are in place before it starts.

    :param home: as for the base; likewise ``dags`` and ``env``.
    :param screen: shows the steps of the start.
    :param kept: where the empty database is kept; None: in the virtual environment.
    """

    #: All runs have ended then. The API server alone would take 8 s.
    _stop_limit_seconds = 1.0

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        env: Mapping[str, str],
        screen: Screen,
        kept: Path | None = None,
    ) -> None:
        (port,) = free_ports(1)
        self._task_api = f"http://127.0.0.1:{port}/execution/"
        # Tasks have an API server of their own. With one for all, a change over the REST API and a task's request may
        # wait for each other: the one writes into Airflow's log on the event loop, and waits there for the database,
        # which the other has locked; the other needs the event loop to commit (Airflow 3.3.2, action_logging).
        # What takes longest to start comes first.
        commands = {
            "api-server": ("api-server", "--apps", "core"),
            "task-api-server": ("api-server", "--apps", "execution", "--port", str(port)),
            **{name: (name,) for name in ("dag-processor", "scheduler", "triggerer")},
        }
        own = {"AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self._task_api, **_FOR_A_BUSY_MACHINE, **_FOR_A_SHORT_RUN}
        super().__init__(home, dags=dags, env={**own, **env}, commands=commands)
        self._database = self.home / "airflow.db"
        self.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{self._database}"
        self._screen = screen
        self._kept = kept or Path(sys.prefix) / f".airflow-{version('apache-airflow')}.db"
        self._write_settings()

    def __enter__(self) -> Self:
        if self._kept.exists():
            _copy_database(self._kept, self._database)
        else:
            self._screen.step("Making Airflow's database. Only the first time.")
            self._make_database()
            _copy_database(self._database, self._kept)
        self._screen.step("Starting Airflow: API servers, DAG processor, scheduler and triggerer.")
        return super().__enter__()

    def _env_of(self, name: str) -> dict[str, str]:
        # All but the API server wait longer than 5 s for a locked database: they outlive what waits for itself there.
        longer = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self._database}?timeout=60"}
        return self.env if name == "api-server" else {**self.env, **longer}

    def _write_settings(self) -> None:
        """
        Write what Airflow would make itself when it starts: a login, and a configuration with secrets.

        The secrets have to be there before: each of several processes would make its own. A shell that only knows this
        folder finds its Airflow by the configuration.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        passwords = self.home / "simple_auth_manager_passwords.json.generated"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({"admin": secrets.token_hex(4)}))
        settings = configparser.ConfigParser(interpolation=None)
        settings.read_dict(
            {
                "core": {"fernet_key": base64.urlsafe_b64encode(os.urandom(32)).decode()},
                "api": {"secret_key": secrets.token_hex(16)},
                "api_auth": {"jwt_secret": secrets.token_hex(32)},
            }
        )
        for name, value in self.env.items():
            prefix, _, option = name.partition("__")
            section, _, key = option.partition("__")
            if prefix == "AIRFLOW" and key:
                settings.read_dict({section.lower(): {key.lower(): value}})
        config = self.home / "airflow.cfg"
        config.touch(mode=0o600)
        with config.open("w") as file:
            settings.write(file)

    def _make_database(self) -> None:
        self._commands["migrate"] = ("db", "migrate")
        try:
            self.start("migrate")
            code = self._processes["migrate"].wait(START_LIMIT_SECONDS)
        except BaseException:
            self.stop()
            raise
        finally:
            del self._commands["migrate"]
        del self._processes["migrate"]
        if code:
            raise RuntimeError(f"Airflow's database could not be made. {self.ends_of_logs(['migrate'])}")

    def _is_healthy(self) -> bool:
        self._screen.follow("Waiting for the API servers: they start last, and one says what else runs.")
        before = self.healthy
        done = super()._is_healthy()
        for part in self._parts:
            if part in self.healthy - before:
                self._screen.step(f"The {_PART_NAMES[part]} runs.")
        return done and self._has_task_api()

    def _has_task_api(self) -> bool:
        try:
            return self._session.get(f"{self._task_api}health", timeout=RESPONSE_LIMIT_SECONDS).ok
        except requests.RequestException:
            return False


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database as a whole: one that is interrupted leaves nothing at the target."""
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(unfinished)) as written:
            read.backup(written)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
