"""
A process that waits in one of several ways, as a triggerer would, and reports what that cost.

Started by :mod:`benchmarks.cost`, :mod:`benchmarks.scale` and :mod:`benchmarks.failover`, which send it commands on
standard input, one line of JSON each, and read what it measured on standard output. Airflow's logging is set up as in a
triggerer's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import IO, Any

from benchmarks.answering import pin, seen_before

__all__ = ["SUBJECTS", "Waiter", "running", "serve_commands", "set_up_logging"]

#: Who waits. ``oxen_moving`` is ours for evaluations that progress at every poll, and so write a log line each time.
SUBJECTS = ("bare", "oxen", "oxen_moving", "dbt", "http")

#: From here on, the numbers of waits are those of evaluations that soon end.
_SHORT = 1_000_000

_Wait = Callable[[int], Awaitable[None]]


def _name(number: int, kind: str = "still") -> str:
    """Return the id of an evaluation, which tells the server what it does."""
    return f"{'short' if number >= _SHORT else kind}-{number}"


@asynccontextmanager
async def _bare(url: str, interval: float) -> AsyncIterator[_Wait]:
    """What a user would write who shares one session."""
    import aiohttp

    async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as session:

        async def wait(number: int) -> None:
            address = f"{url}/api/repos/ox/r/evaluations/{_name(number)}"
            while True:
                async with session.get(address) as response:
                    document = json.loads(await response.read())
                if document["evaluation"]["status"] == "completed":
                    return
                await asyncio.sleep(interval)

        yield wait


@asynccontextmanager
async def _triggers(make: Callable[[int], Any]) -> AsyncIterator[_Wait]:
    import structlog

    async def wait(number: int) -> None:
        # As the triggerer does for each trigger.
        structlog.contextvars.bind_contextvars(
            trigger_id=number, dag_id="dag", task_id="gate", run_id="run", try_number=1, map_index=-1
        )
        trigger = make(number)
        async for _ in trigger.run():
            return

    yield wait


@asynccontextmanager
async def _sleeping(_url: str, _interval: float) -> AsyncIterator[_Wait]:
    """The least there can be: a coroutine that sleeps."""

    async def wait(_number: int) -> None:
        await asyncio.sleep(3_600)

    yield wait


def _sleeping_triggers(_url: str, _interval: float) -> Any:
    """The least there can be in a triggerer: a trigger that sleeps."""
    from airflow.triggers.base import BaseTrigger

    class SleepingTrigger(BaseTrigger):
        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "", {}

        async def run(self) -> AsyncIterator[Any]:
            await asyncio.sleep(3_600)
            yield None

    return _triggers(lambda _: SleepingTrigger())


def _make_oxen(evaluation_id: str, interval: float, max_wait: float, seen_seconds_ago: float | None = None) -> Any:
    """
    Make a trigger.

    :param seen_seconds_ago: when the worker that deferred polled; None: no worker did.
    """
    from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger

    seen: dict[str, Any] = {}
    if seen_seconds_ago is not None:
        last_seen = {**_seen_before(), "id": evaluation_id}
        seen = {"last_seen": last_seen, "seen_at": time.time() - seen_seconds_ago, "deadline": time.time() + 604_800}

    return OxenEvaluationTrigger(
        namespace="ox",
        repo_name="r",
        evaluation_id=evaluation_id,
        oxen_conn_id="oxen_bench",
        poke_interval=interval,
        max_wait=max_wait,
        **seen,
    )


@cache
def _seen_before() -> dict[str, Any]:
    """Return what is stored of an evaluation that a worker has seen before it deferred."""
    from airflow_provider_oxen.triggers.oxen import OxenEvaluationTrigger

    names = {"namespace": "ox", "repo_name": "r", "evaluation_id": "any"}
    _, stored = OxenEvaluationTrigger(**names, last_seen=seen_before("any")).serialize()
    last_seen: dict[str, Any] = stored["last_seen"]
    return last_seen


def _oxen(_url: str, interval: float, kind: str = "still") -> Any:
    return _triggers(
        lambda number: _make_oxen(_name(number, kind), interval, interval, 0.0 if number >= _SHORT else None)
    )


def _oxen_taken_over(url: str, max_wait: float) -> Any:
    """Make waits as the sensor's defaults make them, that another triggerer has run for an hour."""
    _set_connections(url)
    return _triggers(lambda number: _make_oxen(_name(number), 10.0, max_wait, 3_600.0))


def _dbt(url: str, interval: float) -> Any:
    from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    if url.startswith("http:") and not hasattr(DbtCloudHook, "benchmarked"):
        # It speaks https alone. Without TLS, nothing but the scheme of its address is changed.
        make_url = DbtCloudHook.get_request_url_params

        def get_request_url_params(*args: Any, **named: Any) -> tuple[str, dict[str, Any]]:
            address, params = make_url(*args, **named)
            return address.replace("https:", _scheme[0], 1), params

        DbtCloudHook.get_request_url_params = staticmethod(get_request_url_params)
        DbtCloudHook.benchmarked = True
    _scheme[0] = url.partition("//")[0]
    return _triggers(
        lambda number: DbtCloudRunJobTrigger(
            conn_id="dbt_bench", run_id=number, end_time=time.time() + 3_600, poll_interval=interval, account_id=1
        )
    )


_scheme = ["https:"]


def _http(url: str, interval: float) -> Any:  # noqa: ARG001
    from airflow.providers.http.triggers.http import HttpEventTrigger

    return _triggers(
        lambda number: HttpEventTrigger(
            response_check_path="benchmarks.response_check.has_completed",
            http_conn_id="http_bench",
            endpoint=f"/api/repos/ox/r/evaluations/{_name(number)}",
            poll_interval=interval,
        )
    )


def _set_connections(url: str) -> None:
    host = url.partition("//")[2]
    scheme = url.partition(":")[0]
    connections = {
        "OXEN_BENCH": {"conn_type": "oxen", "host": url, "password": "key"},
        "DBT_BENCH": {"conn_type": "dbt_cloud", "host": host, "login": "1", "password": "key"},
        "HTTP_BENCH": {
            "conn_type": "http",
            "schema": scheme,
            "host": host.partition(":")[0],
            "port": int(host.partition(":")[2]),
            "extra": {"Authorization": "Bearer key"},
        },
    }
    for name, connection in connections.items():
        os.environ[f"AIRFLOW_CONN_{name}"] = json.dumps(connection)


def _waits(subject: str, url: str, interval: float) -> Any:
    _set_connections(url)
    if subject == "oxen_moving":
        return _oxen(url, interval, "moving")
    ways = {"bare": _bare, "oxen": _oxen, "dbt": _dbt, "http": _http}
    ways |= {"sleeping": _sleeping, "sleeping_triggers": _sleeping_triggers}
    return ways[subject](url, interval)


class _Commands:
    """The commands of this process."""

    def cpu(self, *, subject: str, url: str, waits: int, interval: float, seconds: float) -> Iterator[Any]:
        """Poll with so many waits, and measure the steady part. Yields where it begins and where it ends."""
        loop = asyncio.new_event_loop()
        tasks: list[asyncio.Task[Any]] = []
        gc.collect()
        try:
            context = _waits(subject, url, interval)
            wait = loop.run_until_complete(context.__aenter__())

            async def begin() -> None:
                for number in range(waits):  # spread over one interval
                    tasks.append(asyncio.ensure_future(wait(number)))
                    await asyncio.sleep(interval / waits)
                await asyncio.sleep(interval)

            loop.run_until_complete(begin())
            # A full collection takes as long as a thousand polls, and whether one falls into the stretch is chance.
            # ``scale`` measures them.
            gc.collect()
            gc.freeze()
            began, cpu = time.monotonic(), time.process_time()
            yield None
            loop.run_until_complete(asyncio.sleep(seconds))
            cpu, took = time.process_time() - cpu, time.monotonic() - began
            _check(tasks)
            yield {"cpu_seconds": cpu, "wall_seconds": took}
        finally:
            gc.unfreeze()
            _end(loop, tasks, context)

    def whole(self, *, subject: str, url: str, waits: int, interval: float, first: int) -> Iterator[Any]:
        """
        Wait for so many evaluations that soon end, from the start of each wait to its end.

        Ours begin as after the worker's poll: with what it saw, and with a sleep.

        :param first: number of the first, so that no round meets another's.
        """
        loop = asyncio.new_event_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            context = _waits(subject, url, interval)
            wait = loop.run_until_complete(context.__aenter__())
            loop.run_until_complete(wait(_SHORT + first))  # with what the first wait imports

            async def all_waits() -> None:
                for number in range(1, waits + 1):  # spread over one interval
                    tasks.append(asyncio.ensure_future(wait(_SHORT + first + number)))
                    await asyncio.sleep(interval / waits)
                await asyncio.gather(*tasks)

            gc.collect()
            gc.freeze()
            cpu = time.process_time()
            loop.run_until_complete(all_waits())
            yield {"cpu_seconds": time.process_time() - cpu}
        finally:
            gc.unfreeze()
            _end(loop, tasks, context)

    def memory(self, *, subject: str, url: str, steps: list[int], interval: float) -> Iterator[Any]:
        """Add waits step by step; report the resident memory before any and after each step."""
        loop = asyncio.new_event_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            context = _waits(subject, url, interval)
            wait = loop.run_until_complete(context.__aenter__())

            async def add(count: int, settle: float) -> int:
                for _ in range(count):
                    tasks.append(asyncio.ensure_future(wait(len(tasks))))
                    await asyncio.sleep(interval / 2_000)
                await asyncio.sleep(settle)
                return _resident()

            # What the first wait imports, and what a few dozen allocate at once, is not the cost of a wait.
            loop.run_until_complete(add(50, interval * 1.5))
            gc.collect()
            report = [(len(tasks), _resident())]
            for step in steps:
                resident = loop.run_until_complete(add(step - len(tasks), interval * 1.2))
                report.append((len(tasks), resident))
            _check(tasks)
            yield report
        finally:
            _end(loop, tasks, context)

    def collection(self, *, subject: str, url: str, waits: int, interval: float) -> Iterator[Any]:
        """Begin so many waits. Report what the garbage collector tracks for each, and what a full collection takes."""
        loop = asyncio.new_event_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            context = _waits(subject, url, interval)
            wait = loop.run_until_complete(context.__aenter__())

            async def add(count: int) -> None:
                for _ in range(count):
                    tasks.append(asyncio.ensure_future(wait(len(tasks))))
                    await asyncio.sleep(interval / waits)
                await asyncio.sleep(interval * 1.2)

            loop.run_until_complete(add(50))  # with what the first wait imports
            gc.collect()
            before = len(gc.get_objects())
            loop.run_until_complete(add(waits - 50))
            took = []
            for _ in range(5):
                began = time.thread_time()
                gc.collect()
                took.append(1_000 * (time.thread_time() - began))
            _check(tasks)
            yield {"tracked_a_wait": (len(gc.get_objects()) - before) / (waits - 50), "least_ms": min(took)}
        finally:
            _end(loop, tasks, context)

    def failover(self, *, subject: str, url: str, waits: int, max_wait: float) -> Iterator[Any]:
        """
        Begin so many waits as a triggerer does that takes them over, in a process that has not waited before.

        Yields, when each should have polled once, what happened until then. Look-ups count until the first is too old.
        """
        from airflow.secrets.environment_variables import EnvironmentVariablesBackend

        looked_up: list[float] = []
        read = EnvironmentVariablesBackend.get_conn_value

        def count(*args: Any, **named: Any) -> Any:
            looked_up.append(time.monotonic())
            return read(*args, **named)

        EnvironmentVariablesBackend.get_conn_value = count
        loop = asyncio.new_event_loop()
        tasks: list[asyncio.Task[Any]] = []
        try:
            # A peer polls at once, and for the second time when all is over.
            context = _oxen_taken_over(url, max_wait) if subject == "oxen" else _waits(subject, url, 2 * max_wait)
            wait = loop.run_until_complete(context.__aenter__())

            async def begin() -> None:
                for number in range(waits):
                    # Airflow lets others run twice for each trigger that it makes.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    tasks.append(asyncio.ensure_future(wait(number)))

            began, cpu = time.monotonic(), time.process_time()
            loop.run_until_complete(begin())
            all_began = time.monotonic()
            loop.run_until_complete(asyncio.sleep(max_wait + 2.0))
            failed = [repr(task.exception()) for task in tasks if task.done() and task.exception()]
            yield {
                "began": began,
                "beginning_seconds": all_began - began,
                "cpu_seconds": time.process_time() - cpu,
                "look_ups": sum(at < began + 55 for at in looked_up),
                "failed": len(failed),
                "first_failures": failed[:3],
            }
        finally:
            EnvironmentVariablesBackend.get_conn_value = read
            _end(loop, tasks, context)

    def scale(  # noqa: PLR0915  # one course of events
        self, *, url: str, waits: int, interval: float, ending: int, settle: float, stretches: int
    ) -> Iterator[Any]:
        """
        Begin so many waits as a triggerer does that has just started, and watch the event loop.

        Yields what the start did, once ``settle`` seconds are over; then the event loop's lag over one interval; then
        the CPU of each of the next ``stretches`` intervals, in which nothing watches the loop, since that costs as much
        as a hundred polls a second; then, for each evaluation that ended, how long after its end that was seen.
        """
        loop = asyncio.new_event_loop()
        tasks: list[asyncio.Task[Any]] = []
        delays: list[float] = []
        full = _FullCollections()
        gc.callbacks.append(full.see)
        gc.collect()
        try:
            context = _oxen(url, interval)
            _set_connections(url)
            wait = loop.run_until_complete(context.__aenter__())

            async def see_end(number: int, ends_at: float) -> None:
                trigger = _make_oxen(f"ends-{ends_at}-{number}", interval, interval)
                events = [event async for event in trigger.run()]
                outcome = events[0].payload["outcome"]
                if outcome != "completed":
                    raise RuntimeError(f"a wait ended with {outcome}")
                delays.append(time.monotonic() - ends_at)

            async def begin() -> float:
                began = time.monotonic()
                for number in range(waits):
                    # Airflow lets others run twice for each trigger that it makes.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    if number % (waits // ending) == 0:
                        ends_at = began + settle * (0.2 + 0.7 * number / waits)
                        tasks.append(asyncio.ensure_future(see_end(number, ends_at)))
                    else:
                        tasks.append(asyncio.ensure_future(wait(number)))
                return time.monotonic() - began

            # What the first wait imports is not the others' start.
            loop.run_until_complete(see_end(-1, 0.0))
            delays.clear()
            gc.collect()
            resident = _resident()
            lags = _Lags()
            watch = loop.create_task(lags.watch())
            began = time.monotonic()
            creating = loop.run_until_complete(begin())
            loop.run_until_complete(asyncio.sleep(max(settle - (time.monotonic() - began), 0.0)))
            start_lags, lags.seen = lags.seen, []
            yield {"creating_seconds": creating, "lag_ms": _percentiles(start_lags)}
            loop.run_until_complete(asyncio.sleep(interval))
            watch.cancel()
            loop.run_until_complete(asyncio.wait([watch]))
            report: dict[str, Any] = {"lag_ms": _percentiles(lags.seen)}
            for _ in range(stretches):
                full.seen = []
                began, cpu = time.monotonic(), time.process_time()
                yield report
                loop.run_until_complete(asyncio.sleep(interval))
                cpu, took = time.process_time() - cpu, time.monotonic() - began
                grown = _resident() - resident
                report = {
                    "cpu_seconds": cpu,
                    "wall_seconds": took,
                    "full_collections": full.seen,
                    "bytes_a_wait": grown / waits,
                }
            yield report
            give_up_at = time.monotonic() + 2 * interval + 5
            while len(delays) < ending and time.monotonic() < give_up_at:
                loop.run_until_complete(asyncio.sleep(0.05))
            failed = [repr(task.exception()) for task in tasks if task.done() and task.exception()]
            yield {"delays": sorted(delays), "failed": failed[:3], "ended": sum(task.done() for task in tasks)}
        finally:
            gc.callbacks.remove(full.see)
            _end(loop, tasks, context)


class _FullCollections:
    """What each full collection of the interpreter's garbage collector took of the CPU, in seconds."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._began = 0.0

    def see(self, phase: str, about: dict[str, int]) -> None:
        if about["generation"] < 2:
            return
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.seen.append(time.thread_time() - self._began)


class _Lags:
    """
    How late a task runs that is due every five milliseconds, in seconds.

    By time, and not by task: while the loop stands, a task falls due every five milliseconds as at any other time.
    """

    def __init__(self) -> None:
        self.seen: list[float] = []

    async def watch(self) -> None:
        due = time.monotonic()
        while True:
            due += 0.005
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            self.seen.append(time.monotonic() - due)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(1_000 * second for second in seconds)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)],
        "most": ordered[-1],
    }


def _check(tasks: list[asyncio.Task[Any]]) -> None:
    """A wait that ended did not wait, and its numbers would mean nothing."""
    for task in tasks:
        if task.done():
            raise RuntimeError(f"a wait ended: {task!r}") from task.exception()


def _end(loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[Any]], context: Any) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


class Waiter:
    """What the measuring process knows of a waiting one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def send(self, command: str, **arguments: Any) -> Any:
        """Send a command and read the first report."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> Any:
        """Read the next report."""
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the waiting process ended, code {self._process.wait()}")
        return json.loads(line)


@contextmanager
def running(module: str = "benchmarks.waiting", *, core: int | None = None, **env: str) -> Iterator[Waiter]:
    """
    Run a process that waits.

    :param module: what to run.
    :param core: number of the processor it stays on; None: any.
    :param env: what to put into its environment.
    """
    import tempfile

    with tempfile.TemporaryDirectory(prefix="oxen-bench-") as home:
        airflow = {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "_AIRFLOW_PROCESS_CONTEXT": "client",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, str(-1 if core is None else core)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**kept, **airflow, **env},
        )
        try:
            yield Waiter(process)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()


def set_up_logging() -> IO[bytes]:
    """
    Log as a triggerer's process does: each line is JSON, written at once to a pipe.

    Here, no process reads it: what a supervisor does with the lines is not counted, for any subject.
    """
    from airflow.sdk.log import configure_logging, reset_logging

    nowhere = open(os.devnull, "wb", buffering=0)  # noqa: SIM115, PTH123
    reset_logging()
    configure_logging(json_output=True, output=nowhere, sending_to_supervisor=True)
    return nowhere


def serve_commands(commands: object, core: str) -> None:
    """Do what comes in on standard input until it ends."""
    pin(int(core))
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints must not come between the reports
    log = set_up_logging()
    for line in sys.stdin:
        arguments = json.loads(line)
        for report in getattr(commands, arguments.pop("command"))(**arguments):
            print(json.dumps(report), file=reports)
    log.close()


if __name__ == "__main__":
    serve_commands(_Commands(), sys.argv[1])
