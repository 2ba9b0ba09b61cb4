"""Airflow 2, used as Airflow 3 by the same tests. Delete with Airflow 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests

from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Airflow2Standalone(AirflowStandalone):
    """
    ``airflow standalone`` of Airflow 2: a webserver with another REST API, and a login by password.

    :param home: as for Airflow 3; likewise the others.
    """

    _api = "/api/v1"
    _health = "/api/v1/health"
    # DAG files are read by the scheduler itself.
    _parts = ("metadatabase", "scheduler", "triggerer")

    def __init__(self, home: Path, *, dags: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(home, dags=dags, env=env)
        self.env |= {
            # Airflow 2 would run one task at a time on SQLite, and a gate that pokes holds up all others. Its own tests
            # switch that off like this.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            # Airflow 2 fails a task that finds the database locked; here it waits for longer than the usual 5 s.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout=60",
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
            "AIRFLOW__API__ENABLE_XCOM_DESERIALIZE_SUPPORT": "True",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            # A worker that schedules what comes next does it at the same time as the scheduler, where a database has
            # no locks on rows, and the try is counted twice.
            "AIRFLOW__SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
            "AIRFLOW__WEBSERVER__BASE_URL": self.url,
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": str(self.port),
            "AIRFLOW__WEBSERVER__WORKERS": "1",
        }

    @property
    def login(self) -> tuple[str, str]:
        """Name and password for the UI, as Airflow generated them."""
        return "admin", (self.home / "standalone_admin_password.txt").read_text().strip()

    def get(self, path: str, **params: Any) -> Any:
        """Send a GET request to Airflow's REST API; the response has assets and links in the form of Airflow 3."""
        response = super().get(path.replace("/assets/", "/datasets/"), **params)
        if path == "/assets/events":
            return {"asset_events": [{**event, "uri": event["dataset_uri"]} for event in response["dataset_events"]]}
        return {"extra_links": response} if "/taskInstances/" in path and path.endswith("/links") else response

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run of a DAG."""
        self.post(f"/dags/{dag_id}/dagRuns", {"dag_run_id": run_id, "conf": dict(conf or {})})

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return the value of an XCom; None if there is none."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self.get(path, map_index=map_index, deserialize=True, stringify=False)["value"]
        except requests.HTTPError as error:
            if error.response.status_code == requests.codes.not_found:
                return None
            raise

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return a task's log as the UI shows it: the lines of the worker and of the triggerer."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        response = self._session.get(
            f"{self.url}{self._api}{path}",
            params={"map_index": map_index, "full_content": "true"},
            headers={"Accept": "text/plain"},
            timeout=60,
        )
        response.raise_for_status()
        return response.text

    def _log_in(self) -> None:
        self._session.auth = self.login
