"""An Airflow on Celery: two workers, two triggerers, and whatever restarts what has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.standalone import AirflowStandalone

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PARTS", "CeleryAirflow"]

_WORKER = ("celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip")
#: The parts, each a process group of its own.
PARTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer-1": ("triggerer", "--skip-serve-logs"),
    "triggerer-2": ("triggerer", "--skip-serve-logs"),
    "worker-1": (*_WORKER, "--celery-hostname", "worker-1"),
    "worker-2": (*_WORKER, "--celery-hostname", "worker-2"),
}


class CeleryAirflow(AirflowStandalone):
    """As its base, where each part has a name as its host and a log folder, as on machines of their own."""

    def supervise(self) -> None:
        """Start again what has ended, as whatever runs it in production does."""
        for name in list(self._processes):
            self.restart_if_ended(name)

    def _env_of(self, name: str) -> Mapping[str, str]:
        return {**self.env, "CLUSTER_HOST": name, "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs" / name)}
