"""What waits share in one process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from airflow_provider_oxen import pool
from airflow_provider_oxen.exceptions import OxenNotFoundError, OxenRateLimitError
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.models import EvaluationRef
from airflow_provider_oxen.testing import Delay, Fault, LocalHub, Respond

if TYPE_CHECKING:
    from collections.abc import Callable


async def _look(ref: EvaluationRef, conn_id: str = "oxen_default", *, hold: asyncio.Event | None = None) -> None:
    async with OxenHook(conn_id).get_async_conn() as client:
        await client.get_evaluation(ref)
        if hold is not None:
            await hold.wait()


async def _all_closed(hub: LocalHub) -> None:
    """Wait until the hub sees no open connection, a second at most; by itself it would keep them for a minute."""
    async with asyncio.timeout(1):
        while hub.connections_open:
            await asyncio.sleep(0.01)


async def test_waits_share_connections(oxen_hub: LocalHub, set_connection: Callable[..., None]) -> None:
    """Fifty waits use no more sockets than one connection may have, and the last to leave closes them."""
    set_connection(extra={"max_connections": 4})
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    leave = asyncio.Event()
    waits = [asyncio.create_task(_look(ref, hold=leave)) for _ in range(50)]
    while oxen_hub.requests_for(ref.evaluation_id) < 50:
        await asyncio.sleep(0.01)

    assert [repr(client).partition(": ")[2] for client in pool._clients.values()] == ["50 waits, 0 requests under way>"]
    assert oxen_hub.connections_open == 4
    kept = list(pool._clients.values())  # or the garbage collector would close what was left open
    leave.set()
    await asyncio.gather(*waits)

    assert oxen_hub.connections_opened == 4
    assert not pool._clients
    await _all_closed(oxen_hub)
    assert [client.waits for client in kept] == [0]


async def test_different_connections_never_share(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits with different keys have sockets of their own, though the hub is the same."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", oxen_hub.connection_uri + "?timeout=9")
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    leave = asyncio.Event()
    waits = [asyncio.create_task(_look(ref, conn_id, hold=leave)) for conn_id in ("oxen_default", "other")]
    while oxen_hub.requests_for(ref.evaluation_id) < 2:
        await asyncio.sleep(0.01)

    assert len(pool._clients) == 2
    assert oxen_hub.connections_opened == 2
    leave.set()
    await asyncio.gather(*waits)


async def test_cancelled_wait_leaves_nothing_open(oxen_hub: LocalHub) -> None:
    """A wait that is cancelled in the middle of a request closes what it opened."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Delay(30)),)))
    wait = asyncio.create_task(_look(ref))
    while not oxen_hub.requests_for(ref.evaluation_id):
        await asyncio.sleep(0.01)

    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait

    assert not pool._clients
    await _all_closed(oxen_hub)


async def test_wait_that_fails_leaves_nothing_open(oxen_hub: LocalHub) -> None:
    """A wait that ends in an error closes what it opened."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Respond(404)),)))

    with pytest.raises(OxenNotFoundError):
        await _look(ref)

    assert not pool._clients
    await _all_closed(oxen_hub)


async def test_rate_limit_silences_all_who_share(oxen_hub: LocalHub) -> None:
    """After a 429, others are told how long is left without a request being sent."""
    limited = Fault(Respond(429, headers={"Retry-After": "30"}), count=1)
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(limited,)))
    other = EvaluationRef("ox", "r", oxen_hub.add_evaluation())
    hook = OxenHook()

    async with hook.get_async_conn() as client, hook.get_async_conn() as another:
        with pytest.raises(OxenRateLimitError) as first:
            await client.get_evaluation(ref)
        with pytest.raises(OxenRateLimitError) as second:
            await another.get_evaluation(other)

    assert first.value.retry_after_seconds == pytest.approx(30)
    assert 29 < second.value.retry_after_seconds <= 30
    assert len(oxen_hub.requests) == 1


async def test_rate_limit_without_a_time_has_a_growing_one(oxen_hub: LocalHub) -> None:
    """A 429 that does not say for how long is given a pause, a longer one each time it comes again."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Respond(429)),)))
    pauses = []
    async with OxenHook().get_async_conn() as client:
        for _ in range(3):
            with pytest.raises(OxenRateLimitError) as caught:
                await client.get_evaluation(ref)
            pauses.append(caught.value.retry_after_seconds)
            next(iter(pool._clients.values()))._quiet_until_monotonic = 0.0  # as if it were over

    assert pauses == pytest.approx([10, 20, 40], abs=0.5)


async def test_rate_limit_of_requests_under_way_counts_once(oxen_hub: LocalHub) -> None:
    """Twenty requests that are refused side by side begin one pause, not twenty, each longer than the one before."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Respond(429)),)))
    async with OxenHook().get_async_conn() as client:
        results = await asyncio.gather(*(client.get_evaluation(ref) for _ in range(20)), return_exceptions=True)

    assert all(isinstance(result, OxenRateLimitError) for result in results)
    assert max(result.retry_after_seconds for result in results) <= 10
