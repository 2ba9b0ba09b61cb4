"""
What a task stores in XComs besides its result: its links, and what it waits for.

Where no worker starts or ends the task, what Airflow stores and deletes on a worker is done here, too: the trigger
stores the links when it first knows them, and the result when the evaluation has completed. A worker that resumes such
a task deletes the results of earlier attempts. Whether a task may end in the triggerer is decided in ``start_end``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_oxen import storage_compat, triggerer_compat, values
from airflow_provider_oxen.evaluations import Evaluation
from airflow_provider_oxen.outcomes import JudgedResults, find_evaluation
from airflow_provider_oxen.refs import EvaluationRef
from airflow_provider_oxen.start_end import may_end_in_triggerer

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

__all__ = [
    "EVALUATION_KEYS",
    "RESULTS_KEY",
    "WAITS_FOR_KEY",
    "WaitedFor",
    "delete_earlier_results",
    "find_waited_for",
    "find_waited_for_from_triggerer",
    "store_links",
    "store_links_from_triggerer",
    "store_result",
    "store_waited_for",
    "store_waited_for_from_triggerer",
]

#: The keys under which a task stores its evaluation.
EVALUATION_KEYS = ("return_value", "evaluation")
#: The key under which it stores where the results are, and what its conditions measured.
RESULTS_KEY = "results"
#: The key under which a task that defers stores what it waits for.
WAITS_FOR_KEY = "waits_for"


class WaitedFor(NamedTuple):
    """
    What a task waits for.

    :param evaluation: as last seen when this was stored; None where it was not seen by then.
    :param seen_at: when that was, in seconds since the epoch; None where it was not seen or is not known.
    """

    ref: EvaluationRef
    oxen_conn_id: str
    evaluation: Evaluation | None = None
    seen_at: float | None = None

    def to_xcom(self, try_number: int) -> dict[str, Any]:
        """Write it as plain JSON."""
        seen = None if self.evaluation is None else self.evaluation.to_dict()
        return {
            **self.ref.to_dict(),
            "oxen_conn_id": self.oxen_conn_id,
            "try_number": try_number,
            "last_seen": seen,
            "seen_at": self.seen_at,
        }

    @classmethod
    def from_xcom(cls, found: object, try_number: int) -> WaitedFor | None:
        """
        Read it.

        :return: None where this attempt has not stored it. Airflow does not delete the XComs of earlier attempts where
            no worker begins the wait.
        """
        if not isinstance(found, dict) or found.get("try_number") != try_number:
            return None
        ref, oxen_conn_id = EvaluationRef.find_in(found), found.get("oxen_conn_id")
        if ref is None or not isinstance(oxen_conn_id, str) or not oxen_conn_id:
            return None
        return cls(ref, oxen_conn_id, find_evaluation(found.get("last_seen")), values.number(found.get("seen_at")))


def store_waited_for(context: Context, waited_for: WaitedFor) -> None:
    """
    Store what the task is about to wait for. A task's XComs live through a deferral, in every version of Airflow.

    It is stored whatever ``do_xcom_push`` says: the task itself needs it, as it needs the id of what it started.
    """
    ti = context["ti"]
    ti.xcom_push(key=WAITS_FOR_KEY, value=waited_for.to_xcom(ti.try_number))


async def store_waited_for_from_triggerer(trigger: BaseTrigger, waited_for: WaitedFor) -> None:
    """
    Store what a wait waits for that no worker has begun, or what no worker has seen of it.

    :param trigger: the trigger, as the triggerer set it up.
    """
    ti = triggerer_compat.task_instance_of(trigger)
    if ti is None or not triggerer_compat.may_use_xcoms(trigger):
        return
    try:
        await storage_compat.store_xcom(ti, WAITS_FOR_KEY, waited_for.to_xcom(ti.try_number))
    except Exception as error:  # noqa: BLE001  # it matters only where something else fails, too
        trigger.log.warning("What this task waits for could not be stored: %r", error)


async def find_waited_for_from_triggerer(trigger: BaseTrigger) -> WaitedFor | None:
    """
    Find what the triggerer before this one has stored. None where there was none, or where Airflow does not say.

    :param trigger: the trigger, as the triggerer set it up.
    """
    ti = triggerer_compat.task_instance_of(trigger)
    if ti is None or not triggerer_compat.may_use_xcoms(trigger):
        return None
    try:
        return WaitedFor.from_xcom(await storage_compat.find_xcom(ti, WAITS_FOR_KEY), ti.try_number)
    except Exception as error:  # noqa: BLE001  # the wait then begins as if none had seen the evaluation
        trigger.log.warning("What this task waits for could not be read: %r", error)
        return None


def find_waited_for(context: Context) -> WaitedFor | None:
    """Find what the task deferred for. None where no triggerer has run the trigger of a wait that no worker began."""
    ti = context["ti"]
    # With the map index: without it, Airflow may give the value of another one.
    found = ti.xcom_pull(task_ids=ti.task_id, key=WAITS_FOR_KEY, map_indexes=ti.map_index)
    return WaitedFor.from_xcom(found, ti.try_number)


def store_links(
    context: Context, addresses: dict[str, str], stored: dict[str, str], *, process_goes_on: bool = False
) -> dict[str, str]:
    """
    Store the links on a worker, unless Airflow stores them when this process ends, and that is soon.

    :param addresses: the address of each link by its XCom key; empty if there is none.
    :param stored: what the last call returned; empty at first.
    :return: what is stored now.
    """
    at_end = storage_compat.stores_links_at_process_end()
    # Airflow 3 keeps links in its database, and this would write to the user's XCom backend.
    if at_end and (not process_goes_on or storage_compat.has_custom_xcom_backend()):
        return stored
    for key, address in addresses.items():
        if address != stored.get(key, ""):
            context["ti"].xcom_push(key=key, value=address)
    return stored | addresses


async def store_links_from_triggerer(
    trigger: BaseTrigger, addresses: dict[str, str], stored: dict[str, str]
) -> dict[str, str]:
    """
    Store the links of a task that no worker started.

    :param trigger: the trigger, as the triggerer set it up.
    :param addresses: the address of each link by its XCom key; empty if there is none.
    :param stored: what the last call returned; empty at first.
    :return: what is stored now. A wait goes on without its links if Airflow does not take them.
    """
    ti = triggerer_compat.task_instance_of(trigger)
    if addresses == stored or ti is None or not triggerer_compat.runs_in_triggerer(trigger):
        return stored
    try:
        for key, address in addresses.items():
            # An empty one replaces that of an earlier attempt.
            if address != stored.get(key, "") or ti.try_number > 1:
                await storage_compat.store_link(ti, key, address)
    except Exception as error:  # noqa: BLE001  # the wait does not depend on it
        trigger.log.warning("The links of this task could not be stored: %r", error)
        return stored
    return addresses


async def store_result(trigger: BaseTrigger, evaluation: Evaluation, *, do_xcom_push: bool) -> bool:
    """
    Store the result of a completed evaluation as a worker does, if the task may end in the triggerer.

    The XComs are not left to the event that ends the task. Source: Airflow 3.3.2 stores those of an event as JSON in
    JSON, and a task that reads a dict from them gets text.

    :param trigger: the trigger, as the triggerer set it up.
    :param evaluation: the completed evaluation.
    :param do_xcom_push: whether the task stores XComs.
    :return: whether the task may end now. If not, it has to end on a worker.
    """
    ti = triggerer_compat.task_instance_of(trigger)
    # A test of a DAG runs triggers, too, and does not know the event that ends a task.
    if ti is None or not triggerer_compat.runs_in_triggerer(trigger):
        return False
    try:
        task = triggerer_compat.task_of(trigger)
        # If a worker started the task, it has decided this, and the trigger may not know the task.
        if task is not None and task.start_trigger_args and not may_end_in_triggerer(task, trigger.log):
            return False
        if do_xcom_push:
            result = evaluation.to_dict()
            for key in EVALUATION_KEYS:
                await storage_compat.store_xcom(ti, key, result)
            await storage_compat.store_xcom(ti, RESULTS_KEY, JudgedResults.of(evaluation).to_dict())
    except Exception as error:  # noqa: BLE001  # a worker can do it, whatever it is
        trigger.log.warning("A worker ends this task, because its result could not be stored from here: %r", error)
        return False
    return True


def delete_earlier_results(context: Context) -> None:
    """
    Delete the results of earlier attempts, as a worker does when it starts one: no worker started this one.

    Without it, a task that completed once, was cleared and then failed would still have its first result.

    :param context: the context of the worker that resumes the task.
    """
    ti = context["ti"]
    for key in (*EVALUATION_KEYS, RESULTS_KEY) if ti.try_number > 1 else ():
        storage_compat.delete_xcom(ti, key)
