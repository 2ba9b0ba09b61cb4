"""
Names of Airflow that moved between its versions, and two look-ups: of a connection on an event loop, and of the DAG
that a new task becomes part of.

They are common-compat's (``airflow.providers.common.compat.sdk``), where it has them. The constraints of Airflow 2.11
and 3.0 bring a common-compat without them, and an installation with those must not need another one.

A name is looked up when it is imported, and no other with it, so that parsing a DAG file stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        Asset,
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        BaseSensorOperator,
        PokeReturnValue,
        XCom,
        XComArg,
        conf,
    )
    from airflow.sdk import DAG, Connection, TaskGroup

__all__ = [
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "Asset",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "PokeReturnValue",
    "XCom",
    "XComArg",
    "conf",
    "find_current_dag",
    "get_async_connection",
]

#: Where Airflow 3 has a name, then Airflow 2.11.
_PLACES = {
    "Asset": ("airflow.sdk:Asset", "airflow.datasets:Dataset"),
    "BaseHook": ("airflow.sdk:BaseHook", "airflow.hooks.base:BaseHook"),
    "BaseOperator": ("airflow.sdk:BaseOperator", "airflow.models.baseoperator:BaseOperator"),
    "BaseOperatorLink": ("airflow.sdk:BaseOperatorLink", "airflow.models.baseoperatorlink:BaseOperatorLink"),
    "BaseSensorOperator": ("airflow.sdk:BaseSensorOperator", "airflow.sensors.base:BaseSensorOperator"),
    "PokeReturnValue": ("airflow.sdk:PokeReturnValue", "airflow.sensors.base:PokeReturnValue"),
    "XCom": ("airflow.sdk.execution_time.xcom:XCom", "airflow.models.xcom:XCom"),
    "XComArg": ("airflow.sdk:XComArg", "airflow.models.xcom_arg:XComArg"),
    "conf": ("airflow.configuration:conf",),
}


async def get_async_connection(conn_id: str, hook: BaseHook) -> Connection:
    """
    Look a connection up without blocking the event loop.

    Left to common-compat, which knows what may be done in which version of Airflow. Before its 1.23, or even without
    this function, it is done on a thread, which may be done in each. Delete that where 1.23 can be required.
    """
    try:
        from airflow.providers.common.compat.connection import get_async_connection as look_up
        from airflow.providers.common.compat.connection import get_async_extra_dejson  # noqa: F401  # new in 1.23
    except ImportError:
        from asgiref.sync import sync_to_async

        return await sync_to_async(hook.get_connection)(conn_id)
    return await look_up(conn_id, hook=hook)


def find_current_dag() -> tuple[DAG | None, TaskGroup | None]:
    """
    Find the DAG and the task group that a task becomes part of, where none was passed to it. Delete with Airflow 2.

    Airflow 3 passes them to ``__init__``. Source: ``BaseOperatorMeta._apply_defaults`` of both.
    """
    from airflow import __version__

    if not __version__.startswith("2."):
        return None, None
    from airflow.models.dag import DagContext
    from airflow.utils.task_group import TaskGroupContext  # type: ignore[import-not-found]

    dag = DagContext.get_current_dag()
    return dag, None if dag is None else TaskGroupContext.get_current_task_group(dag)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    exceptions = (f"airflow.sdk.exceptions:{name}", f"airflow.exceptions:{name}")
    places = (f"airflow.providers.common.compat.sdk:{name}", *_PLACES.get(name, exceptions))
    for place in places:
        module, _, attribute = place.partition(":")
        try:
            value = getattr(import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
        globals()[name] = value
        return value
    raise AttributeError(name)
