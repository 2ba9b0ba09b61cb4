"""What a gate needs of its task: the settings it reads, and Airflow's own methods it calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, Protocol

if TYPE_CHECKING:
    from airflow.sdk import Asset, AssetAlias, BaseOperatorLink
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_oxen.conditions import Condition
    from airflow_provider_oxen.version_compat import TaskLogger

__all__ = ["GateTask"]


class GateTask(Protocol):
    """
    What a gate needs of its task, with the templates rendered.

    ``poke_interval``, ``retry_window`` and ``timeout`` are in seconds; ``execution_limit`` is the ``execution_timeout``
    that counts from the start of this attempt; ``waits_by_rescheduling`` is False where ``deferrable`` is True.
    ``started_here`` says that the task itself started the evaluation, and ``is_recorded`` that a later attempt can take
    it up. ``never_fail`` and ``soft_fail`` are those of Airflow's sensors.
    """

    oxen_conn_id: str
    deferrable: bool
    poke_interval: float
    max_wait: timedelta | None
    retry_window: float | None
    execution_timeout: timedelta | None
    timeout: float
    conditions: Condition | Sequence[Condition] | None
    end_from_trigger: bool
    do_xcom_push: bool
    started_here: bool
    is_recorded: bool
    outlets: list[Asset | AssetAlias]
    operator_extra_links: Collection[BaseOperatorLink]
    soft_fail: bool
    never_fail: bool

    @property
    def log(self) -> TaskLogger:
        """Airflow's logger of the task."""

    def check_settings(self) -> None:
        """Raise a ValueError where a setting can never work."""

    @property
    def execution_limit(self) -> timedelta | None:
        """How long this attempt may take by ``execution_timeout``."""

    @property
    def waits_by_rescheduling(self) -> bool:
        """Whether the task ends its process between two polls."""

    @property
    def may_be_retried(self) -> bool:
        """Whether a later attempt could do anything but refuse. If not, each failure is final and says why."""

    def defer(self, *, trigger: BaseTrigger, method_name: str, timeout: timedelta | None) -> NoReturn:
        """Airflow's own."""
