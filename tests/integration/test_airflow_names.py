"""Names that moved between Airflow versions, with the common-compat that is here and with one that lacks them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_oxen import airflow_names
from airflow_provider_oxen.hooks.oxen import OxenHook

if TYPE_CHECKING:
    from airflow_provider_oxen.testing import LocalHub

NAMES = [name for name in airflow_names.__all__ if name not in ("find_current_dag", "get_async_connection")]
MODULES = ("compat.sdk", "compat.connection")


@pytest.fixture
def old_common_compat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let common-compat lack what its early versions lack."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, f"airflow.providers.common.{name}", None)
    for name in NAMES:
        monkeypatch.delitem(vars(airflow_names), name, raising=False)


@pytest.mark.usefixtures("old_common_compat")
@pytest.mark.parametrize("name", NAMES)
def test_name_is_found_without_common_compat(name: str) -> None:
    """Each name leads to something of Airflow's own, though common-compat has no such module."""
    found = getattr(airflow_names, name)

    module = getattr(found, "__module__", "airflow")
    assert module.startswith("airflow.")
    assert not module.startswith("airflow.providers")


def test_name_that_is_not_listed_does_not_exist() -> None:
    """A name that this module does not promise is not there, whatever Airflow has."""
    with pytest.raises(AttributeError):
        importlib.import_module(airflow_names.__name__).BaseNotifier  # noqa: B018


@pytest.mark.usefixtures("old_common_compat")
async def test_connection_is_looked_up_without_common_compat(oxen_hub: LocalHub) -> None:
    """A triggerer reads the connection although common-compat has no look-up for an event loop."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0)

    evaluation = await OxenHook().aget_evaluation("ox", "customer-intents", evaluation_id)

    assert evaluation.status == "completed"
    assert (await OxenHook().aget_config()).base_url == oxen_hub.url


def test_package_is_imported_without_common_compat() -> None:
    """Sensor, operator and trigger can be imported beside an early common-compat."""
    code = f"""
import sys
for name in {MODULES!r}:
    sys.modules["airflow.providers.common." + name] = None
import airflow_provider_oxen.assets, airflow_provider_oxen.lineage, airflow_provider_oxen.links.oxen
import airflow_provider_oxen.operators.oxen, airflow_provider_oxen.sensors.oxen, airflow_provider_oxen.triggers.oxen
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
