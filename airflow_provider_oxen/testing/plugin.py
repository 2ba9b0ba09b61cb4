"""The pytest fixture ``oxen_hub``. pytest finds this module through its entry point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_oxen.testing.hub import LocalHub

__all__ = ["oxen_hub"]


@pytest.fixture
def oxen_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Run a local hub during the test. The Airflow connection ``oxen_default`` leads to it."""
    from airflow_provider_oxen.testing.hub import LocalHub

    with LocalHub() as hub:
        monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", hub.connection_json)
        yield hub
