"""
Names of Airflow that the tests use, on any Airflow and beside any common-compat.

The package's own ``airflow_names`` has only those that the package uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from airflow import __version__

_VERSION = tuple(map(int, __version__.split(".")[:2]))

AIRFLOW_V_3_0_PLUS = _VERSION >= (3, 0)
AIRFLOW_V_3_3_PLUS = _VERSION >= (3, 3)

#: Where a name may be, the first that has it counts. Airflow 3 is before Airflow 2, which warns of old places.
_MODULES = (
    "airflow.providers.common.compat.sdk",
    "airflow_provider_oxen.airflow_names",
    "airflow.sdk",
    "airflow.sdk.exceptions",
    "airflow.exceptions",
    "airflow.decorators",
    "airflow.models.dag",
    "airflow.models.param",
    "airflow.operators.python",
    "airflow.utils.task_group",
)


def __getattr__(name: str) -> Any:
    for module in _MODULES:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise AttributeError(name)
