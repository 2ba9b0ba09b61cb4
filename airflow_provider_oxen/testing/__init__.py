"""
A local Oxen hub for tests: of this provider, and of your DAGs.

As a pytest fixture, which also defines the Airflow connection ``oxen_default``::

    def test_gate(oxen_hub):
        evaluation_id = oxen_hub.add_evaluation(end="completed", seconds=3)
        ...

As a context manager::

    with LocalHub() as hub:
        print(hub.connection_uri)

From a shell: ``python -m airflow_provider_oxen.testing --help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_oxen.testing.hub import HubRequest, LocalHub
    from airflow_provider_oxen.testing.scenario import Alter, Delay, Disconnect, Fault, Respond, Scenario, Trickle

__all__ = [
    "Alter",
    "Delay",
    "Disconnect",
    "Fault",
    "HubRequest",
    "LocalHub",
    "Respond",
    "Scenario",
    "Trickle",
]


def __getattr__(name: str) -> object:
    """Import on first use: pytest loads this package in every run, also in those that need no hub."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from airflow_provider_oxen.testing import hub, scenario

    return getattr(hub if hasattr(hub, name) else scenario, name)
