"""
What Airflow stores for a task, and how it does: XComs, the links in them, and the task's own state.

As in ``version_compat``, each function names the source that it relies on, or when to delete it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_oxen import version_compat

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context
    from airflow.sdk.execution_time.context import TaskStateStoreAccessor
    from airflow.sdk.types import RuntimeTaskInstanceProtocol as TaskInstance

__all__ = [
    "delete_xcom",
    "find_status_code",
    "find_xcom",
    "has_custom_xcom_backend",
    "link_key",
    "link_xcoms",
    "never_expire",
    "store_link",
    "store_xcom",
    "stores_links_at_process_end",
    "task_state_store",
]


def has_custom_xcom_backend() -> bool:
    """Say whether Airflow has an XCom backend of the user's. Delete the second default with Airflow 2."""
    from airflow_provider_oxen.airflow_names import conf

    defaults = ("airflow.sdk.execution_time.xcom.BaseXCom", "airflow.models.xcom.BaseXCom")
    return conf.get("core", "xcom_backend", fallback=defaults[0]) not in defaults


async def store_xcom(ti: TaskInstance, key: str, value: object) -> None:
    """Store an XCom from a triggerer, as a worker does. For Airflow 3.3 and later."""
    from airflow.sdk.execution_time.xcom import XCom

    await XCom.aset(key=key, value=value, **_place(ti))


async def find_xcom(ti: TaskInstance, key: str) -> object:
    """Find an XCom from a triggerer; None where there is none. For Airflow 3.3 and later."""
    from airflow.sdk.execution_time.xcom import XCom

    return await XCom.aget_one(key=key, **_place(ti))


def delete_xcom(ti: TaskInstance, key: str) -> None:
    """Delete an XCom on a worker, if there is one."""
    from airflow_provider_oxen.airflow_names import XCom

    XCom.delete(key=key, **_place(ti))


def stores_links_at_process_end() -> bool:
    """
    Say whether Airflow itself stores the links of a task when its process ends. Delete with Airflow 2.

    Source: ``finalize`` in Airflow 3's ``sdk/execution_time/task_runner.py``.
    """
    return version_compat.is_airflow(3, 0)


def link_key(link: BaseOperatorLink) -> str:
    """Name the XCom that holds the address of a link, as Airflow 3 does. Delete with Airflow 2, which has no name."""
    return f"_link_{type(link).__name__}"


def link_xcoms() -> Any:
    """
    Find the class of the XComs that hold links.

    Airflow 3 keeps them in its database and reads them from there, whatever ``[core] xcom_backend`` says. Airflow 2
    (delete the fallback with it) makes no difference.
    """
    try:
        from airflow.sdk.bases.xcom import BaseXCom
    except ImportError:
        from airflow.models.xcom import XCom

        return XCom
    return BaseXCom


async def store_link(ti: TaskInstance, key: str, address: str) -> None:
    """Store the address of a link from a triggerer. For Airflow 3.3 and later."""
    await link_xcoms().aset(key=key, value=address, **_place(ti))


def task_state_store(context: Context) -> TaskStateStoreAccessor | None:
    """Find the store for the task's own state; None where Airflow has none. Delete the None with Airflow 3.2."""
    return context.get("task_state_store")


def _place(ti: TaskInstance) -> dict[str, Any]:
    return {"task_id": ti.task_id, "dag_id": ti.dag_id, "run_id": ti.run_id, "map_index": ti.map_index}


def never_expire() -> Any:
    """
    Return what stands for a value that never expires.

    Source: Airflow 3.3's SDK exports it, and its type stub does not name it.
    """
    from airflow.sdk import NEVER_EXPIRE  # type: ignore[attr-defined]  # missing in the stub of Airflow 3.3

    return NEVER_EXPIRE


def find_status_code(error: Exception) -> int | None:
    """
    Find the status code with which Airflow's API server refused; None where the error has none.

    No public way. Source: Airflow 3.3.2's supervisor responds to a failed request with an ``ErrorResponse``, which the
    SDK raises as an ``AirflowRuntimeError`` whose ``error.detail`` has ``status_code``.
    """
    detail = getattr(getattr(error, "error", None), "detail", None)
    code = detail.get("status_code") if isinstance(detail, dict) else None
    return code if isinstance(code, int) else None
