"""Metrics: what arrives at a statsd server and at an OTLP endpoint, from a triggerer's process and from a task's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.triggers.base import TaskSuccessEvent

from airflow_provider_oxen import exceptions, recording, stats_compat, xcoms
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenNotFoundError,
    OxenRateLimitError,
    OxenRequestError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.metrics import METRICS, Recorder, StatsRecorder
from airflow_provider_oxen.outcomes import Outcome, OutcomeReason
from airflow_provider_oxen.testing import Fault, Respond
from tests.support.airflow import AirflowSkipException
from tests.support.listeners import OtlpListener, Received, Sample, StatsdListener
from tests.support.prometheus import PROMETHEUS, StatsdExporter, run_prometheus
from tests.support.tasks import WAYS, add_evaluation, run_task
from tests.support.triggers import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_oxen.testing import LocalHub

ROOT = Path(__file__).resolve().parents[2]
HOST = socket.gethostname().replace(".", "_")

#: What ``make bench`` measures.
MICROSECONDS_A_POLL = 190
#: The settings that send metrics to a listener, without tags where it is statsd as Airflow has it by default.
SETTINGS = {
    "statsd": {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1"},
    "statsd with tags": {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_INFLUXDB_ENABLED": "True"},
    "otlp": {"OTEL_ON": "True", "OTEL_HOST": "127.0.0.1", "OTEL_INTERVAL_MILLISECONDS": "30000"},
}


def _run(hub: LocalHub, settings: str, process: str, *evaluation_ids: str) -> tuple[str, Received]:
    """Wait for evaluations in a process, and return the last line that it printed, and what it sent."""
    with OtlpListener() if settings == "otlp" else StatsdListener() as listener:
        named = {**SETTINGS[settings], f"{'OTEL' if settings == 'otlp' else 'STATSD'}_PORT": str(listener.port)}
        env = {
            **os.environ,
            **{f"AIRFLOW__METRICS__{name}": value for name, value in named.items()},
            "AIRFLOW_CONN_OXEN_DEFAULT": hub.connection_uri,
        }
        command = [sys.executable, "-m", "tests.support.counted_process", process, *evaluation_ids]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No metrics" not in done.stdout + done.stderr
    return done.stdout.strip().rpartition("\n")[2], listener


@pytest.mark.parametrize(
    ("settings", "process"),
    [("statsd", "triggerer"), ("statsd with tags", "worker"), ("otlp", "triggerer"), ("otlp", "worker")],
)
def test_metrics_arrive(oxen_hub: LocalHub, settings: str, process: str) -> None:
    """Each metric arrives, under the names that a receiver without tags needs as well, and with right numbers."""
    spent = {"credits_used": 0.25, "tokens_used": 1200}
    oxen_hub.add_evaluation("never", seconds=3600)
    limit = Respond(429, headers={"Retry-After": "0.05"})
    faults = (Fault(Respond(500), count=1), Fault(limit, first=2, count=1))
    oxen_hub.add_evaluation("good", seconds=0.3, rows=40, fields=spent, faults=faults)
    oxen_hub.add_evaluation("bad", seconds=0.3, rows=40, end="errored", fields=spent)
    _, received = _run(oxen_hub, settings, process, "good", "bad")
    polls = sum(map(oxen_hub.requests_for, ("never", "good", "bad")))

    assert received.sum("airflow.oxen.polls") == polls
    assert 0 < received.sum("airflow.oxen.poll_seconds") < 5 * polls
    slowest = received.named("airflow.oxen.slowest_poll")
    assert all(0 < sample.value < 5_000 for sample in slowest)
    assert {sample.kind for sample in slowest} <= {"ms", "gauge", "exponential_histogram"}
    assert received.sum("airflow.oxen.failures") == 2
    assert received.sum("airflow.oxen.failures.server") == received.sum("airflow.oxen.failures.rate_limit") == 1
    assert received.sum("airflow.oxen.rate_limit_pauses") == 1
    waits, by_host = received.named("airflow.oxen.waits"), received.named(f"airflow.oxen.waits.{HOST}")
    if process == "triggerer":
        assert waits[-1].value == by_host[-1].value == 0
        assert settings == "otlp" or max(sample.value for sample in waits) > 0
        assert not received.named("airflow.oxen.outcomes")  # a worker decides it
    else:
        assert waits == by_host == []
        assert received.sum("airflow.oxen.outcomes") == 2
        assert received.sum("airflow.oxen.outcomes.completed") == received.sum("airflow.oxen.outcomes.errored") == 1
        assert received.sum("airflow.oxen.rows") == 40 + 24
        assert received.sum("airflow.oxen.credits") == 0.5
        assert received.sum("airflow.oxen.tokens") == 2400
    if settings != "statsd":
        assert received.sum("airflow.oxen.polls", conn_id="oxen_default", process=process) == polls
        assert received.sum("airflow.oxen.failures", error="server") == 1
    known = tuple(f"airflow.{metric.name}" for metric in METRICS)
    ours = {name for name in received.names() if name.startswith("airflow.oxen.")}
    assert {name for name in ours if name not in known and name.rpartition(".")[0] not in known} == set()


class FakeStats:
    """
    Stands in for Airflow's metrics.

    :param received: gets what is sent.
    :param prefix: what Airflow puts before each name.
    """

    def __init__(self, received: Received | None = None, prefix: str = "") -> None:
        self.received = Received() if received is None else received
        self._prefix = prefix

    def incr(self, stat: str, count: float = 1, *, tags: Mapping[str, str] | None = None) -> None:
        self._add(stat, "c", count, tags)

    def gauge(self, stat: str, value: float, *, tags: Mapping[str, str] | None = None) -> None:
        self._add(stat, "g", value, tags)

    def timing(self, stat: str, dt: float, *, tags: Mapping[str, str] | None = None) -> None:
        self._add(stat, "ms", dt, tags)

    def _add(self, stat: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None:
        self.received.add(Sample(self._prefix + stat, kind, value, frozenset((tags or {}).items())))


@pytest.mark.alone
@pytest.mark.parametrize("settings", ["statsd", "otlp"])
def test_counting_takes_little_of_a_poll(oxen_hub: LocalHub, settings: str) -> None:
    """Switched on, metrics take less than 5 % of a poll's CPU where ten polls are sent in a second."""
    done, _ = _run(oxen_hub, settings, "cost")

    assert float(done) < 0.05 * MICROSECONDS_A_POLL


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Received:
    """Switch metrics on, and return what is sent."""
    stats = FakeStats()
    monkeypatch.setattr(stats_compat, "find_stats", lambda: stats)
    return stats.received


def test_nothing_is_recorded_by_default() -> None:
    """Where Airflow's metrics are off, which is the default, recorders do nothing."""
    assert stats_compat.find_stats() is None
    assert type(recording.worker_recorder("c")) is type(recording.triggerer_recorder("c")) is Recorder


async def test_shared_polls_count_once(oxen_hub: LocalHub, received: Received) -> None:
    """However many waits share a poll, it counts as the hub sees it."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0.3)

    await asyncio.gather(*(run_trigger(make_trigger(evaluation_id)) for _ in range(20)))

    assert received.sum("oxen.polls") == oxen_hub.requests_for(evaluation_id) < 20
    assert received.sum("oxen.polls", conn_id="oxen_default", process="triggerer") == received.sum("oxen.polls")


async def test_number_of_waits_returns_to_zero_after_cancellation(oxen_hub: LocalHub, received: Received) -> None:
    """The gauge says how many waits there are, sent with the sums, and 0 when the last of them was cancelled."""
    never = oxen_hub.add_evaluation(seconds=3600)
    waits = [asyncio.create_task(run_trigger(make_trigger(never))) for _ in range(5)]
    while not received.named("oxen.waits"):
        await asyncio.sleep(0.01)
    assert received.named("oxen.waits")[-1].value == 5
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)

    assert received.named("oxen.waits")[-1] == Sample(
        "oxen.waits", "g", 0, frozenset({("hostname", socket.gethostname())})
    )
    assert received.named(f"oxen.waits.{HOST}")[-1].value == 0


async def test_cancellation_while_metrics_are_looked_for(
    oxen_hub: LocalHub, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait that looks for Airflow's metrics may be cancelled: another wait does it again, and counts."""
    find, found = stats_compat.find_stats, threading.Event()

    def wait_and_find() -> object:
        found.wait(10)
        return find()

    monkeypatch.setattr(stats_compat, "find_stats", wait_and_find)
    ids = [oxen_hub.add_evaluation(seconds=0) for _ in range(2)]
    first, second = (asyncio.create_task(run_trigger(make_trigger(each))) for each in ids)
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.wait([first])
    found.set()
    await second

    assert received.sum("oxen.polls") == 1
    assert received.named("oxen.waits")[-1].value == 0


async def test_pause_counts_once_and_what_is_not_sent_does_not(oxen_hub: LocalHub, received: Received) -> None:
    """One 429 pauses all waits of a connection: one poll, one failure, one pause, though other waits were refused."""
    limit = Fault(Respond(429, headers={"Retry-After": "60"}))
    ids = [oxen_hub.add_evaluation(seconds=60, faults=(limit,)) for _ in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(OxenHook().get_async_conn()) for _ in ids]
        polls = (
            client.poll(EvaluationRef("ox", "r", each), max_age=0) for client, each in zip(clients, ids, strict=True)
        )
        results = [polled.result for polled in await asyncio.gather(*polls)]

    assert all(isinstance(result, OxenRateLimitError) for result in results)
    assert received.sum("oxen.polls") == sum(map(oxen_hub.requests_for, ids)) == 1
    assert received.sum("oxen.failures", error="rate_limit") == received.sum("oxen.failures.rate_limit") == 1
    assert received.sum("oxen.rate_limit_pauses") == 1


async def test_hub_out_of_reach_is_a_failure(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that finds no hub counts as sent and failed, in the time that it took."""
    monkeypatch.setenv("AIRFLOW_CONN_OXEN_DEFAULT", "oxen://:k3y-for-a-hub@127.0.0.1:1/http")
    async with OxenHook().get_async_conn() as client:
        polled = await client.poll(EvaluationRef("ox", "r", "e"), max_age=0)

    assert isinstance(polled.result, OxenUnreachableError)
    assert received.sum("oxen.polls") == received.sum("oxen.failures.unreachable") == 1


@pytest.mark.usefixtures("oxen_hub")
def test_worker_counts_failures_of_any_request(received: Received, tmp_path: Path) -> None:
    """A download that fails is no poll; its failure counts. So does that of a poll."""
    with pytest.raises(OxenNotFoundError):
        OxenHook().download_file("ox", "r", "main", "none.csv", tmp_path / "none.csv")
    assert received.sum("oxen.failures.not_found", process="worker") == 1
    assert received.sum("oxen.polls") == 0

    with pytest.raises(OxenNotFoundError):
        OxenHook().get_evaluation("ox", "r", "unknown")
    assert received.sum("oxen.failures.not_found", process="worker") == 2
    assert received.sum("oxen.polls") == 1


@pytest.mark.parametrize("way", WAYS)
def test_each_wait_has_one_outcome(oxen_hub: LocalHub, received: Received, way: str) -> None:
    """In each way of waiting, the outcome counts once, and so does what the evaluation took."""
    evaluation_id = add_evaluation(oxen_hub, way, rows=50, fields={"credits_used": 0.5, "tokens_used": 70})

    run_task(way, evaluation_id)

    assert received.sum("oxen.outcomes") == received.sum("oxen.outcomes.completed", process="worker") == 1
    assert [received.sum(f"oxen.{name}") for name in ("rows", "credits", "tokens")] == [50, 0.5, 70]


def test_outcome_is_that_of_the_conditions(oxen_hub: LocalHub, received: Received) -> None:
    """An evaluation that completed and does not meet a condition counts as that, also where the condition raises."""
    evaluation_id = add_evaluation(oxen_hub, "first poll", rows=50)

    def stop(evaluation: Evaluation) -> bool:
        raise AirflowSkipException(evaluation.id)

    run_task("first poll", evaluation_id, conditions=lambda _: False)
    run_task("first poll", evaluation_id, conditions=stop)

    assert received.sum("oxen.outcomes.condition_not_met") == received.sum("oxen.outcomes.completed") == 1


async def test_outcome_of_a_task_that_ends_in_the_triggerer(
    oxen_hub: LocalHub, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no worker decides a task's end, the triggerer counts it."""

    async def stored(*_: object, **__: object) -> bool:
        return True

    monkeypatch.setattr(xcoms, "store_result", stored)
    evaluation_id = oxen_hub.add_evaluation(seconds=0, rows=50)

    events = [event async for event in make_trigger(evaluation_id, end_from_trigger=True).run()]

    assert isinstance(events[0], TaskSuccessEvent)
    assert received.sum("oxen.outcomes.completed", process="triggerer") == 1
    assert received.sum("oxen.rows") == 50


@pytest.mark.parametrize("way", ["poke", "deferred"])
def test_metrics_never_fail_a_wait(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """A wait goes on where metrics cannot be found or sent, and the log says so."""
    evaluation_id = add_evaluation(oxen_hub, way)

    def broken(*_: object, **__: object) -> None:
        raise OSError("no metrics here")

    monkeypatch.setattr(stats_compat, "find_stats", broken)
    assert run_task(way, evaluation_id).raised is None
    assert "No metrics: Airflow's are not to be had (OSError: no metrics here)" in caplog.messages
    stats = FakeStats()
    monkeypatch.setattr(stats, "_add", broken)
    monkeypatch.setattr(stats_compat, "find_stats", lambda: stats)
    oxen_hub.add_evaluation(evaluation_id, seconds=0.2)
    assert run_task(way, evaluation_id).raised is None
    assert "No metrics from here on: sending them failed (OSError: no metrics here)" in caplog.messages


def _send_all(recorder: StatsRecorder) -> None:
    """Send each metric, with each kind of failure and each outcome."""
    done = {"id": "e", "status": "completed", "progress": {"processed": 9, "total": 9}, "credits_used": 0.5}
    evaluation = Evaluation.from_dict({**done, "tokens_used": 100})
    for kind in (getattr(exceptions, name) for name in exceptions.__all__):
        if issubclass(kind, OxenRequestError) and not kind.__subclasses__():
            recorder.sent(0.2, 0, is_poll=True, error=kind("no"))
    recorder.paused()
    recorder.send()
    for reason in OutcomeReason:
        recorder.ended(Outcome(reason, EvaluationRef("ox", "r", "e"), evaluation))


@pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus, such as Debian's package of that name")
@pytest.mark.parametrize("suffix", ["", "_total"], ids=["statsd_exporter", "OpenTelemetry"])
def test_dashboard_has_data_in_each_query(suffix: str, tmp_path: Path) -> None:
    """A real Prometheus finds data for each of its queries, under the names that counters get in either way."""
    panels = json.loads((ROOT / "docs/grafana.json").read_text())["panels"]
    queries = {
        f"{panel['title']}: {each['legendFormat']}": each["expr"] for panel in panels for each in panel["targets"]
    }
    stats, empty = FakeStats(StatsdExporter(suffix), "airflow."), set(queries)
    with stats.received as exporter, run_prometheus(tmp_path, exporter.address, 1) as prometheus:
        began_at = time.time()
        recorder = StatsRecorder(stats, "c", "triggerer", hostname="triggerer-1", count_waits=lambda: 3)
        while empty and time.time() < began_at + 30:  # a rate needs a counter that was there before
            _send_all(recorder)
            time.sleep(1)
            series = {name: prometheus.query(queries[name], began_at, time.time()) for name in empty}
            empty = {
                name for name, found in series.items() if not any(point[1] for one in found for point in one["points"])
            }

    assert empty == set()
