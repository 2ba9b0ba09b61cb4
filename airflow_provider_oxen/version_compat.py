"""
Every difference between Airflow versions that this provider has to know of, each with what to delete when it goes.

The differences in where a name lives are common-compat's business (``airflow.providers.common.compat.sdk``).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["attempt_began_at", "is_trigger_timeout", "link_xcoms", "reschedule_exception"]


def attempt_began_at(context: Context) -> datetime | None:
    """
    Find when this attempt of a rescheduled task began; None where it has not been rescheduled yet.

    Airflow 3 asks its API server; Airflow 2 (delete that branch with it) has the rows in the database at hand.
    """
    ti: Any = context["ti"]
    if hasattr(ti, "get_first_reschedule_date"):
        first: datetime | None = ti.get_first_reschedule_date(context)
        return first
    from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]  # Airflow 2 only

    start: datetime | None = _orig_start_date(
        dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index, try_number=ti.try_number
    )
    return start


def is_trigger_timeout(error: Exception) -> bool:
    """
    Tell whether Airflow ended a deferred task because its trigger took too long.

    Airflow 3 has a class for it. Airflow 2 (delete that branch with it) has one class for all failures of a trigger,
    and a text that says which.
    """
    if type(error).__name__ == "TaskDeferralTimeout":
        return True
    return type(error).__name__ == "TaskDeferralError" and str(error) == "Trigger/execution timeout"


def link_xcoms() -> Any:
    """
    Find the XComs that hold links.

    Airflow 3 keeps them in its database and reads them from there, whatever ``[core] xcom_backend`` says. Airflow 2
    (delete the fallback with it) knows no difference.
    """
    try:
        from airflow.sdk.bases.xcom import BaseXCom
    except ImportError:
        from airflow.models.xcom import XCom

        return XCom
    return BaseXCom


def reschedule_exception(moment: datetime) -> Exception:
    """Make the exception that ends a task's process until ``moment``. Delete the fallback with Airflow 3.0."""
    try:
        from airflow.sdk.exceptions import AirflowRescheduleException
    except ImportError:
        from airflow.exceptions import AirflowRescheduleException
    return AirflowRescheduleException(moment)  # type: ignore[no-untyped-call]  # Airflow's
