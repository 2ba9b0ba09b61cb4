"""
A server that responds to polls at next to no cost, in a process of its own, so that only the polling side is measured.

It supports just enough HTTP/1.1: GET without a body, connections kept open. No evaluation has to be added: the id says
what it does:

====================  ================================================================================================
``still-…``           running, no row moves
``moving-…``          running, each response has more rows than the one before
``ends-<time>-…``     running, and completed once ``time.monotonic()``, which processes share, has come to ``<time>``
``short-…``           running, and completed at every eighth poll
====================  ================================================================================================

dbt Cloud's job runs, at ``/api/v2/accounts/…``, never end, but those with a number of seven digits, which end as the
``short`` ones do. It writes counts to standard output, one line of JSON for
each line that comes in on standard input; its end stops the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

__all__ = ["SHORT_POLLS", "Server", "pin", "running", "seen_before"]

#: An evaluation with each field of the contract and a prompt as people write them: about 1.3 KB.
_EVALUATION = {
    "name": "Intents, second try",
    "inserted_at": "2025-03-01T10:00:00",
    "started_at": "2025-03-01T10:00:07",
    "completed_at": None,
    "cancelled_at": None,
    "error_message": None,
    "created_by": {"id": "u1", "username": "ox", "name": "Ox", "image": "https://example.com/ox.png"},
    "credits_used": 1.25,
    "prompt_tokens_used": 123_456,
    "completion_tokens_used": 23_456,
    "tokens_used": 146_912,
    "input_type": "text",
    "output_type": "text",
    "is_sample": False,
    "sample_count": 0,
    "model": {"id": "some-model", "name": "Some model", "provider": "Some provider", "context": 128_000},
    "prompt": "What does this customer want? Answer with one of: refund, exchange, question, complaint, other. " * 4
    + "{text}",
    "repository_id": "0a9a2f4e-7c44-4b32-9f0f-6d0f6f3f3e5c",
    "resource": {"path": "data/customers.parquet", "version": "0123456789abcdef0123456789abcdef"},
    "target_branch": "main",
    "target_column": "intent",
    "target_path": "data/intents.parquet",
}
#: A job run of dbt Cloud's API v2 with its main fields, of about the same size. Status 3 is "running", 10 is "success".
_JOB_RUN = {
    "status": {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""},
    "data": {
        "id": 1,
        "trigger_id": 2,
        "account_id": 1,
        "environment_id": 3,
        "project_id": 4,
        "job_definition_id": 5,
        "status": 3,
        "dbt_version": "1.9.0-latest",
        "git_branch": "main",
        "git_sha": "0123456789abcdef0123456789abcdef01234567",
        "status_message": None,
        "owner_thread_id": None,
        "executed_by_thread_id": "scheduler-run-12345",
        "deferring_run_id": None,
        "artifacts_saved": False,
        "artifact_s3_path": None,
        "has_docs_generated": False,
        "has_sources_generated": False,
        "notifications_sent": False,
        "blocked_by": [],
        "created_at": "2025-03-01 10:00:00.000000+00:00",
        "updated_at": "2025-03-01 10:00:07.000000+00:00",
        "dequeued_at": "2025-03-01 10:00:05.000000+00:00",
        "started_at": "2025-03-01 10:00:07.000000+00:00",
        "finished_at": None,
        "last_checked_at": None,
        "last_heartbeat_at": None,
        "trigger": None,
        "job": None,
        "environment": None,
        "run_steps": [],
        "status_humanized": "Running",
        "in_progress": True,
        "is_complete": False,
        "is_success": False,
        "is_error": False,
        "is_cancelled": False,
        "duration": "00:00:07",
        "queued_duration": "00:00:05",
        "run_duration": "00:00:02",
        "duration_humanized": "7 seconds",
        "href": "https://cloud.example.com/deploy/1/projects/4/runs/1/",
    },
}
_TOTAL = 1_000_000
#: How many rows are done of an evaluation that does not move.
_STILL = 420_000
#: The poll at which a short evaluation or job run has ended.
SHORT_POLLS = 8


class _Counts:
    def __init__(self) -> None:
        self.polls = 0
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.first_polled: dict[str, float] = {}
        self.last_polled: dict[str, float] = {}
        self.longest_gap: dict[str, float] = {}
        self.short_polls: Counter[str] = Counter()

    def is_last(self, short_id: str) -> bool:
        """Count a poll of a short evaluation, and tell whether it is the one that sees its end."""
        self.short_polls[short_id] += 1
        return self.short_polls[short_id] % SHORT_POLLS == 0


class _Protocol(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: _Counts, delay: float) -> None:
        self._counts = counts
        self._delay = delay
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        self._counts.connections += 1
        self._counts.open += 1
        self._counts.most_open = max(self._counts.most_open, self._counts.open)

    def connection_lost(self, _error: Exception | None) -> None:
        self._counts.open -= 1
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._head += data
        while b"\r\n\r\n" in self._head:
            head, _, self._head = self._head.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            if self._delay:
                asyncio.get_running_loop().call_later(self._delay, self._respond, target)
            else:
                self._respond(target)

    def _respond(self, target: str) -> None:
        if self._transport is None:
            return
        self._counts.polls += 1
        self._counts.first_polled.setdefault(target, time.monotonic())
        if target.startswith("/api/v2/"):
            run_id = target.partition("?")[0].rstrip("/").rpartition("/")[2]
            ended = len(run_id) == 7 and self._counts.is_last(run_id)
            body = _JOB_RUN_BODIES[ended]
        else:
            body = self._evaluation(target.rpartition("/")[2])
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
            b"x-oxen-request-id: F0123456789\r\nCache-Control: no-store\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def _evaluation(self, evaluation_id: str) -> bytes:
        counts, now = self._counts, time.monotonic()
        before = counts.last_polled.get(evaluation_id)
        counts.last_polled[evaluation_id] = now
        if before is not None and now - before > counts.longest_gap.get(evaluation_id, 0.0):
            counts.longest_gap[evaluation_id] = now - before
        kind, _, rest = evaluation_id.partition("-")
        processed = counts.polls if kind == "moving" else _STILL
        ended = (kind == "ends" and now >= float(rest.partition("-")[0])) or (
            kind == "short" and counts.is_last(evaluation_id)
        )
        return _EVALUATION_BODY % (
            evaluation_id.encode(),
            b"completed" if ended else b"running",
            _TOTAL if ended else processed % _TOTAL,
        )


def _evaluation_body() -> bytes:
    document = {"id": "@id", "status": "@status", "progress": {"processed": "@rows", "total": _TOTAL}, **_EVALUATION}
    envelope = {"status": "success", "status_message": "resource_found", "evaluation": document}
    text = json.dumps(envelope).replace("%", "%%")
    return text.replace("@id", "%b").replace("@status", "%b").replace('"@rows"', "%d").encode()


_EVALUATION_BODY = _evaluation_body()
#: By whether the job run has ended.
_JOB_RUN_BODIES = {
    ended: json.dumps({**_JOB_RUN, "data": {**_JOB_RUN["data"], "status": 10 if ended else 3}}).encode()
    for ended in (False, True)
}


def seen_before(evaluation_id: str) -> dict[str, Any]:
    """Return an evaluation that runs, and is not a moving one, as who polled it earlier has seen it."""
    found: dict[str, Any] = json.loads(_EVALUATION_BODY % (evaluation_id.encode(), b"running", _STILL))["evaluation"]
    return found


class Server:
    """What the measuring process knows of the server."""

    def __init__(self, process: subprocess.Popen[str], port: int, *, tls: bool) -> None:
        self._process = process
        self.port = port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    def counts(self) -> dict[str, Any]:
        """Return ``polls`` and ``connections`` so far, how many are ``open``, and ``most_open`` at a time."""
        return self._ask("counts")

    def first_polls(self) -> list[float]:
        """Return when each evaluation or job run was polled for the first time, by ``time.monotonic()``, in order."""
        return self._ask("firsts")

    def gaps(self, *, forget: bool = False) -> dict[str, float]:
        """Return the longest time between two polls of each evaluation, in seconds."""
        return self._ask("forget" if forget else "gaps")

    def _ask(self, what: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def running(*, delay: float = 0.0, cert: Path | None = None, core: int | None = None) -> Iterator[Server]:
    """
    Run a server.

    :param delay: how long each response takes, in seconds.
    :param cert: file with a certificate for 127.0.0.1 and its key, to speak https.
    :param core: number of the processor it stays on; None: any.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.answering",
        str(delay),
        str(cert or ""),
        str(-1 if core is None else core),
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101
        yield Server(process, json.loads(process.stdout.readline()), tls=cert is not None)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()


def pin(core: int) -> None:
    """Stay on one processor, where there is that many and the system can do it."""
    if core >= 0 and hasattr(os, "sched_setaffinity") and core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {core})


async def _serve(delay: float, tls: ssl.SSLContext | None) -> None:
    loop, stop, counts = asyncio.get_running_loop(), asyncio.Event(), _Counts()
    listener = await loop.create_server(lambda: _Protocol(counts, delay), "127.0.0.1", 0, ssl=tls, backlog=4096)

    def report() -> None:
        for line in sys.stdin:
            if line == "counts\n":
                names = ("polls", "connections", "open", "most_open")
                counted: Any = {name: getattr(counts, name) for name in names}
            elif line == "firsts\n":
                counted = sorted(counts.first_polled.values())
            else:
                counted = dict(counts.longest_gap)
                if line == "forget\n":
                    counts.longest_gap = {}
                    counts.last_polled = {}
            print(json.dumps(counted), flush=True)
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=report, daemon=True).start()
    print(listener.sockets[0].getsockname()[1], flush=True)
    await stop.wait()


def main(delay: str, cert: str, core: str) -> None:
    """Serve until standard input ends."""
    pin(int(core))
    tls = None
    if cert:
        import ssl

        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert)
    asyncio.run(_serve(float(delay), tls))


if __name__ == "__main__":
    main(*sys.argv[1:])
