"""
What the end of a wait means for the task: the one table from outcomes to task states.

The tables in the documentation are compared with it. What may be retried has an exception class for each cause, so that
a retry policy can treat each in its own way.
"""

from __future__ import annotations

from typing import NamedTuple

from airflow_provider_oxen.airflow_names import AirflowException, AirflowFailException, AirflowSensorTimeout
from airflow_provider_oxen.wait import OutcomeReason

__all__ = [
    "REACTIONS",
    "OxenConditionFailedError",
    "OxenHubUnreachableError",
    "OxenNotTheHubError",
    "OxenWaitLostError",
    "Reaction",
]


class OxenHubUnreachableError(AirflowException):
    """The hub could not be reached for longer than ``retry_window``. The task may be retried."""


class OxenNotTheHubError(AirflowException):
    """The first response did not come from the hub, but from something in its place. The task may be retried."""


class OxenWaitLostError(AirflowException):
    """A wait ended without a result. The task may be retried."""


class OxenConditionFailedError(AirflowException):
    """A condition raised an exception. The task may be retried."""


class Reaction(NamedTuple):
    """
    What the end of a wait means for the task.

    :param exception: what is raised; None: the task succeeds.
    :param may_be_retried: whether Airflow's ``retries`` apply.
    :param soft_fail_skips: whether ``soft_fail`` skips the task instead.
    """

    exception: type[Exception] | None
    may_be_retried: bool
    soft_fail_skips: bool


#: From the reason that a wait ended to the state of the task. ``never_fail`` skips in each row that has an exception.
REACTIONS: dict[OutcomeReason, Reaction] = {
    OutcomeReason.COMPLETED: Reaction(None, may_be_retried=False, soft_fail_skips=False),
    OutcomeReason.ERRORED: Reaction(AirflowFailException, may_be_retried=False, soft_fail_skips=True),
    OutcomeReason.CANCELLED: Reaction(AirflowFailException, may_be_retried=False, soft_fail_skips=True),
    OutcomeReason.CONDITION_NOT_MET: Reaction(AirflowFailException, may_be_retried=False, soft_fail_skips=True),
    OutcomeReason.CONDITION_FAILED: Reaction(OxenConditionFailedError, may_be_retried=True, soft_fail_skips=False),
    OutcomeReason.TIMEOUT: Reaction(AirflowSensorTimeout, may_be_retried=False, soft_fail_skips=True),
    OutcomeReason.REFUSED: Reaction(AirflowFailException, may_be_retried=False, soft_fail_skips=True),
    OutcomeReason.UNREACHABLE: Reaction(OxenHubUnreachableError, may_be_retried=True, soft_fail_skips=False),
    OutcomeReason.NOT_THE_HUB: Reaction(OxenNotTheHubError, may_be_retried=True, soft_fail_skips=False),
    OutcomeReason.LOST: Reaction(OxenWaitLostError, may_be_retried=True, soft_fail_skips=False),
}
