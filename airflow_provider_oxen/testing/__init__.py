"""
A local Oxen hub for tests: of this provider, and of your DAGs.

As a pytest fixture, which also defines the Airflow connection ``oxen_default``::

    def test_gate(oxen_hub):
        evaluation_id = oxen_hub.add_evaluation(end="completed", seconds=3)
        ...

Evaluations can be added, as here, and programs can start them with requests of their own.

As a context manager::

    with LocalHub() as hub:
        print(hub.connection_uri)

From a shell: ``python -m airflow_provider_oxen.testing --help``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_oxen.testing.answers import Answers
    from airflow_provider_oxen.testing.effects import (
        AfterStart,
        Alter,
        Chain,
        Delay,
        Disconnect,
        Endless,
        Meanwhile,
        Respond,
        Trickle,
        WrongLength,
    )
    from airflow_provider_oxen.testing.exchange import Effect, Exchange, HubRequest, HubResponse
    from airflow_provider_oxen.testing.faults import Fault
    from airflow_provider_oxen.testing.hub import LocalHub
    from airflow_provider_oxen.testing.scenario import Scenario
    from airflow_provider_oxen.testing.starting import StartedEvaluation

__all__ = [
    "AfterStart",
    "Alter",
    "Answers",
    "Chain",
    "Delay",
    "Disconnect",
    "Effect",
    "Endless",
    "Exchange",
    "Fault",
    "HubRequest",
    "HubResponse",
    "LocalHub",
    "Meanwhile",
    "Respond",
    "Scenario",
    "StartedEvaluation",
    "Trickle",
    "WrongLength",
]


def __getattr__(name: str) -> object:
    """Import on first use: pytest loads this package in every run, also in those that need no hub."""
    if name in __all__:
        for module in ("hub", "scenario", "starting", "faults", "effects", "exchange", "answers"):
            found = import_module(f"{__name__}.{module}")
            if name in found.__all__:
                return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
