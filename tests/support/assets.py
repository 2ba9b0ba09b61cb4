"""An ``oxen://`` asset, and what a task's context has for its events."""

from __future__ import annotations

from typing import Any

from tests.support.airflow import AIRFLOW_V_3_0_PLUS

URI = "oxen://hub.oxen.ai/ox/customer-intents/data/intents.parquet?revision=main"


def make_outlet_events(outlets: list[Any]) -> Any:
    """Make what a task's context has for the events of its outlets."""
    if AIRFLOW_V_3_0_PLUS:
        from airflow.sdk.execution_time.context import OutletEventAccessors

        return OutletEventAccessors()
    from airflow.utils.context import OutletEventAccessors

    assert outlets is not None
    return OutletEventAccessors()
