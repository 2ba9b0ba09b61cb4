"""
Where Airflow's metrics are in each of its versions, and whether they are switched on.

As in ``version_compat``, each function names the source that it relies on, or when to delete it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from airflow_provider_oxen import version_compat

__all__ = ["find_stats"]

#: Each is a switch in the section ``metrics``. Source: ``get_stats_factory`` and, before Airflow 3.2, ``_Stats``.
_SWITCHES = ("statsd_on", "otel_on", "statsd_datadog_enabled")
#: Airflow 3.2 and later have one for tasks, and one for the triggerer and all other processes. A task's process that
#: was forked from a scheduler inherits the scheduler's, so the one for tasks comes first.
_PLACES = ("airflow.sdk.observability.stats", "airflow.observability.stats")


def find_stats() -> Any:
    """
    Return Airflow's metrics; None where they are off, or where Airflow has not set them up in this process.

    It may block: Airflow reads its configuration, and the first use resolves a host name.
    """
    from airflow_provider_oxen.airflow_names import conf

    if not any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES):
        return None
    if not version_compat.is_airflow(3, 2):  # delete with Airflow 3.1
        return import_module("airflow.stats").Stats
    return next(filter(_is_set_up, (import_module(place).Stats for place in _PLACES)), None)


def _is_set_up(stats: Any) -> bool:
    """
    Say whether this process has set the metrics up: one that has not sends nothing. No public way.

    Source: ``Stats.initialize``, which keeps the factory in the class. From Airflow 3.3 on, it is in the module. Delete
    the first with Airflow 3.2.
    """
    if not version_compat.is_airflow(3, 3):
        return getattr(stats, "factory", None) is not None
    return getattr(sys.modules[stats.incr.__module__], "_factory", None) is not None
