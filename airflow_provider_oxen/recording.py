"""How a process gets the recorder of a connection: with Airflow's metrics where they are on, or one without."""

from __future__ import annotations

import logging
import socket

from airflow_provider_oxen import stats_compat
from airflow_provider_oxen.metrics import Recorder, Stats, StatsRecorder
from airflow_provider_oxen.pool import shared_connections

__all__ = ["triggerer_recorder", "worker_recorder"]

log = logging.getLogger(__name__)


def worker_recorder(conn_id: str) -> Recorder:
    """Make the recorder of a connection in a task's process."""
    stats = _find_stats()
    return Recorder() if stats is None else StatsRecorder(stats, conn_id, "worker")


def triggerer_recorder(conn_id: str) -> Recorder:
    """Make the recorder of a connection on an event loop. It may block: call it on a thread."""
    stats = _find_stats()
    if stats is None:
        return Recorder()
    recorder = StatsRecorder(stats, conn_id, "triggerer", hostname=socket.gethostname(), count_waits=_count_waits)
    recorder.open()
    return recorder


def _find_stats() -> Stats | None:
    try:
        stats: Stats | None = stats_compat.find_stats()
    except Exception as error:  # noqa: BLE001  # metrics never fail a wait
        log.warning("No metrics: Airflow's are not to be had (%s: %s)", type(error).__name__, error)
        return None
    return stats


def _count_waits() -> int:
    """Count what shares connections in this process: waits and, for its moment, a single request of the hook."""
    return sum(connection.waits for connection in shared_connections())
