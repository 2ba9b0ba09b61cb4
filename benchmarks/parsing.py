"""
How long importing a sensor takes when a DAG file is parsed, compared with the peers' sensors.

Run ``python -m benchmarks.parsing``. Each import is timed in an interpreter of its own that has imported
``airflow.sdk`` already, as the DAG processor has; round by round, so that a slow moment of the machine hits all alike.
Modules are compiled beforehand, as installed ones are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.section import Report, Target, command_line, spread

__all__ = ["SENSORS", "run"]

#: What users import, by the name that tables and plots show.
SENSORS = {
    "oxen": "airflow_provider_oxen.sensors.oxen",
    "standard, date_time": "airflow.providers.standard.sensors.date_time",
    "Airbyte": "airflow.providers.airbyte.sensors.airbyte",
    "HTTP": "airflow.providers.http.sensors.http",
    "dbt Cloud": "airflow.providers.dbt.cloud.sensors.dbt",
    "Databricks": "airflow.providers.databricks.sensors.databricks",
}
_OURS = "oxen"
_LIMIT_MS, _LIMIT_MODULES = 10.0, 13

_PROGRAM = """
import importlib, json, sys, time
began = time.perf_counter()
import airflow.sdk
sdk, before, began = time.perf_counter() - began, set(sys.modules), time.perf_counter()
importlib.import_module(sys.argv[1])
took = time.perf_counter() - began
print(json.dumps(["RESULT", took * 1000, sdk * 1000, sorted(set(sys.modules) - before)]))
"""


def run(*, short: bool, report: Report) -> dict[str, Any]:
    """
    Time the imports.

    :param short: one round only.
    :param report: called with what is being done.
    :return: by sensor, ``ms`` (median and quartiles), the raw ``runs_ms`` and the ``modules`` that came with it.
    """
    rounds = 1 if short else 15
    times: dict[str, list[float]] = {name: [] for name in SENSORS}
    modules: dict[str, list[str]] = {}
    sdk: list[float] = []
    for number in range(rounds + 1):
        report(f"round {number} of {rounds}" if number else "compiling")
        for name, module in SENSORS.items():
            took, sdk_took, modules[name] = _import(module)
            if number:
                times[name].append(took)
                sdk.append(sdk_took)
    sensors = {
        name: {
            "module": module,
            "ms": spread(times[name]),
            "runs_ms": [round(ms, 3) for ms in times[name]],
            "modules": len(modules[name]),
        }
        for name, module in SENSORS.items()
    }
    targets = [
        Target("milliseconds to import the sensor, after airflow.sdk", _LIMIT_MS, sensors[_OURS]["ms"]["median"]),
        Target("modules imported with the sensor, after airflow.sdk", _LIMIT_MODULES, sensors[_OURS]["modules"]),
    ]
    return {
        "rounds": rounds,
        "airflow_sdk_ms": spread(sdk),
        "sensors": sensors,
        "our_modules": modules[_OURS],
        "targets": [target.plain() for target in targets],
    }


def _import(module: str) -> tuple[float, float, list[str]]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _PROGRAM, module], capture_output=True, text=True, check=True, env=env
    ).stdout
    # Airflow may have printed something before.
    line = next(line for line in reversed(done.splitlines()) if line.startswith('["RESULT"'))
    _, took, sdk_took, modules = json.loads(line)
    return took, sdk_took, modules


def _table(results: dict[str, Any], say: Callable[[str], None]) -> None:
    say(f"{'sensor':24}{'ms: median':>12}{'quartiles':>18}{'modules':>10}")
    for name, found in results["sensors"].items():
        ms = found["ms"]
        say(f"{name:24}{ms['median']:>12.1f}{ms['low']:>9.1f}{ms['high']:>9.1f}{found['modules']:>10}")


if __name__ == "__main__":
    command_line(run, _table, description=__doc__)
