"""
Metrics of real waits in a real Prometheus, and what it responds to the queries of ``docs/grafana.json``.

Two triggerers wait for evaluations of a local hub, which is slow for a while, asks for a pause, and fails. Their
metrics go to a statsd server, which shows them to Prometheus as statsd_exporter does.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_oxen.testing import Delay, Fault, LocalHub, Respond
from tests.support.prometheus import StatsdExporter, run_prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_oxen.testing import Effect
    from tests.support.prometheus import Prometheus

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "docs/grafana.json"

TRIGGERERS = ("triggerer-1", "triggerer-2")
#: How often Prometheus reads, in seconds: what Grafana expects where nothing else is set.
SCRAPE_SECONDS = 15
#: How much of the time is shown: the end of it.
_SHOWN = 0.8
_LIMIT = Respond(429, headers={"Retry-After": "20"})
_DOWN = Respond(503)
_LOGIN = Respond(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})
#: What is wrong with the hub, from when to when, as shares of the whole time. Otherwise nothing is.
_SPELLS: tuple[tuple[float, float, Effect], ...] = (
    # Before what is shown: Prometheus sees a counter rise only once it knows the counter.
    (0.03, 0.035, _LIMIT),
    (0.07, 0.08, _DOWN),
    (0.11, 0.117, _LOGIN),
    # What is shown.
    (0.24, 0.32, Delay(0.6)),
    (0.52, 0.55, _LIMIT),
    (0.69, 0.75, _DOWN),
    (0.87, 0.885, _LOGIN),
)
#: How many of a hundred waits are of each kind, as arguments of the scenario and of the sensor.
_KINDS: tuple[tuple[int, dict[str, Any], dict[str, Any]], ...] = (
    (67, {}, {}),
    (9, {"end": "errored"}, {}),
    (4, {"end": "cancelled"}, {}),
    (10, {}, {"conditions": "cheap"}),
    (3, {}, {"conditions": "broken"}),
    (4, {"seconds": 3600}, {"timeout": 90}),
    (3, {}, {"evaluation_id": "unknown"}),
)


@contextmanager
def _triggerer(hostname: str, hub: LocalHub, statsd_port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd_port),
        "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
    }
    command = [sys.executable, "-m", "tests.dashboard.triggerer", hostname]
    with (folder / f"{hostname}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True
        )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(30)


@dataclass
class _Spells:
    """An effect: what is wrong with the hub now, if anything is."""

    began: float
    seconds: float

    async def act(self, exchange: Any) -> Any:
        share = (time.monotonic() - self.began) / self.seconds
        effects = [effect for start, end, effect in _SPELLS if start <= share < end]
        return await (effects[0] if effects else Delay(random.uniform(0.02, 0.12))).act(exchange)


def _order(hub: LocalHub, spells: _Spells) -> dict[str, Any]:
    """Add an evaluation to the hub, and return the arguments of the sensor that waits for it."""
    (kind,) = random.choices(_KINDS, weights=[weight for weight, *_ in _KINDS])
    scenario = {"seconds": random.uniform(40, 200), "rows": random.randrange(400, 3_000), "faults": [Fault(spells)]}
    evaluation_id = hub.add_evaluation(**scenario | kind[1])
    intervals = {"poke_interval": 4, "max_wait": 12, "retry_window": 60, "timeout": 600}
    return {"evaluation_id": evaluation_id, **intervals, **kind[2]}


def collect(folder: Path, minutes: float) -> dict[str, Any]:
    """
    Wait for evaluations for so long, and send Prometheus the dashboard's queries.

    :param folder: an empty folder, for all that is kept meanwhile.
    :param minutes: how long.
    :return: ``start``, ``end`` and ``step`` of the queries, in seconds; and ``panels``: for each panel,
        for each of its queries, the series, as labels and points.
    """
    seconds = 60 * minutes
    with ExitStack() as stack:
        hub = stack.enter_context(LocalHub())
        exporter = stack.enter_context(StatsdExporter())
        prometheus = stack.enter_context(run_prometheus(folder, exporter.address, SCRAPE_SECONDS))
        triggerers = [stack.enter_context(_triggerer(name, hub, exporter.port, folder)) for name in TRIGGERERS]
        spells = _Spells(time.monotonic(), seconds)
        while (passed := time.monotonic() - spells.began) < seconds:
            (triggerer,) = random.choices(triggerers, weights=[3, 2])
            triggerer.stdin.write(json.dumps(_order(hub, spells)) + "\n")
            triggerer.stdin.flush()
            time.sleep(random.expovariate(0.4 + 0.2 * math.sin(15 * passed / seconds)))
        return query_all(prometheus, _SHOWN * minutes)


def query_all(prometheus: Prometheus, minutes: float) -> dict[str, Any]:
    """Send the dashboard's queries, as Grafana would to show the last minutes."""
    step = prometheus.scrape_seconds
    end = time.time() // step * step
    start = end - 60 * minutes
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        "start": start,
        "end": end,
        "step": step,
        "panels": [[prometheus.query(target["expr"], start, end) for target in panel["targets"]] for panel in panels],
    }
