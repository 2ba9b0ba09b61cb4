"""A real Prometheus over what Airflow sends to statsd, under the names that statsd_exporter or OpenTelemetry gives."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.listeners import HttpThread, QuietHandler, StatsdListener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from tests.support.listeners import Sample

#: Where it is installed; None: nowhere.
PROMETHEUS = shutil.which("prometheus")


class StatsdExporter(StatsdListener):
    """
    Shows what arrives as statsd_exporter does: counters added up, the last value of a gauge, quantiles of a timer.

    :param suffix: what counters have at the end of their names: ``_total`` from OpenTelemetry's collector.
    """

    #: How long a timer's value counts in its quantiles. Source: ``DefMaxAge`` of Prometheus's client for Go.
    _SECONDS = 600

    def __init__(self, suffix: str = "") -> None:
        super().__init__()
        self._suffix = suffix
        self._values: dict[tuple[str, str], float] = defaultdict(float)
        self._timers: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def __enter__(self) -> Self:
        super().__enter__()
        exporter = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802  # the name that http.server calls
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write("".join(f"{line}\n" for line in exporter.lines()).encode())

        self._server = HttpThread(Handler)
        self.address = f"127.0.0.1:{self._server.port}"
        return self

    def __exit__(self, *args: object) -> None:
        self._server.stop()
        super().__exit__(*args)

    def add(self, sample: Sample) -> None:
        name = re.sub("[^a-zA-Z0-9_]", "_", sample.name)
        with self._lock:
            if sample.kind == "c":
                self._values[name + self._suffix, "counter"] += sample.value
            elif sample.kind == "g":
                self._values[name, "gauge"] = sample.value
            else:
                self._timers[name].append((time.monotonic(), sample.value / 1_000))

    def lines(self) -> Iterator[str]:
        """Write all of it in the form that Prometheus reads."""
        since = time.monotonic() - self._SECONDS
        with self._lock:
            values, timers = dict(self._values), {name: list(timed) for name, timed in self._timers.items()}
        for (name, kind), value in values.items():
            yield f"# TYPE {name} {kind}"
            yield f"{name} {value}"
        for name, timed in timers.items():
            yield f"# TYPE {name} summary"
            recent = sorted(value for at, value in timed if at > since)
            for quantile in (0.5, 0.9, 0.99):
                value = recent[round(quantile * (len(recent) - 1))] if recent else "NaN"
                yield f'{name}{{quantile="{quantile}"}} {value}'
            yield f"{name}_sum {sum(value for _, value in timed)}"
            yield f"{name}_count {len(timed)}"


class Prometheus(NamedTuple):
    """
    One that runs.

    :param url: its address.
    :param scrape_seconds: how often it reads.
    """

    url: str
    scrape_seconds: int

    def query(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """
        Evaluate a query of a dashboard over a time, with a step of one scrape.

        :return: the series: ``labels`` and ``points``.
        """
        # What Grafana puts in: four scrapes, where the step is no longer than three.
        expression = expression.replace("$__rate_interval", f"{4 * self.scrape_seconds}s")
        named = {"query": expression, "start": start, "end": end, "step": self.scrape_seconds}
        address = f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(named)}"
        with urllib.request.urlopen(address, timeout=30) as response:  # noqa: S310
            found = json.load(response)
        return [
            {"labels": series["metric"], "points": [[at, float(value)] for at, value in series["values"]]}
            for series in found["data"]["result"]
        ]


@contextmanager
def run_prometheus(folder: Path, target: str, scrape_seconds: int) -> Iterator[Prometheus]:
    """
    Run a Prometheus, from its first read on, until it is no longer needed.

    :param folder: where it keeps all that it writes.
    :param target: host and port that it reads.
    """
    assert PROMETHEUS, "There is no prometheus on the PATH: install Debian's package of that name."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = {
        "global": {"scrape_interval": f"{scrape_seconds}s", "scrape_timeout": f"{scrape_seconds}s"},
        "scrape_configs": [{"job_name": "airflow", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=log, cwd=folder)
    try:
        prometheus = Prometheus(f"http://{address}", scrape_seconds)
        _wait_for_first_read(prometheus)
        yield prometheus
    finally:
        process.terminate()
        process.wait()


def _wait_for_first_read(prometheus: Prometheus) -> None:
    """Wait until it has read once: it looks for what to read five seconds after its start."""
    for _ in range(300):
        now = time.time()
        with contextlib.suppress(urllib.error.URLError):  # not up yet
            if prometheus.query("up", now - 60, now):
                return
        time.sleep(0.1)
    raise AssertionError("Prometheus reads nothing")
