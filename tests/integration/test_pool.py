"""The sockets that waits share in one process: how many there are, who waits for one, and that all are closed."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
import trustme

from airflow_provider_oxen import pool
from airflow_provider_oxen.calls import build_get_evaluation
from airflow_provider_oxen.clients import OxenAsyncClient
from airflow_provider_oxen.evaluations import EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.pool import shared_connections
from airflow_provider_oxen.testing import Delay, Fault, LocalHub, Respond
from tests.support.triggers import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_oxen.config import ClientConfig


async def _ask(ref: EvaluationRef, conn_id: str = "oxen_default", *, hold: asyncio.Event | None = None) -> None:
    async with OxenHook(conn_id).get_async_conn() as client:
        await client.ask(build_get_evaluation(ref))
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
    waits = [asyncio.create_task(_ask(ref, hold=leave)) for _ in range(50)]
    # A response is under way for a moment after the hub has counted its request.
    while oxen_hub.requests_for(ref.evaluation_id) < 50 or "0 requests under way" not in repr(shared_connections()):
        await asyncio.sleep(0.01)

    (connection,) = shared_connections()
    assert connection.waits == 50
    assert repr(connection) == (
        f"<SharedConnection 'oxen_default': 50 waits, client <SharedClient {oxen_hub.url}: 50 waits for 0 evaluations, "
        "0 requests under way, 0 timers>>"
    )
    assert oxen_hub.connections_open == 4
    leave.set()
    await asyncio.gather(*waits)

    assert oxen_hub.connections_opened == 4
    assert shared_connections() == []
    await _all_closed(oxen_hub)  # though what was shared is still referred to here
    assert connection.waits == 0
    assert "0 waits for 0 evaluations" in repr(connection)


async def test_different_connections_never_share(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits with different Airflow connections have sockets of their own, though the hub is the same."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", oxen_hub.connection_uri + "?timeout=9")
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    leave = asyncio.Event()
    waits = [asyncio.create_task(_ask(ref, conn_id, hold=leave)) for conn_id in ("oxen_default", "other")]
    while oxen_hub.requests_for(ref.evaluation_id) < 2:
        await asyncio.sleep(0.01)

    assert len(shared_connections()) == 2
    assert oxen_hub.connections_opened == 2
    leave.set()
    await asyncio.gather(*waits)


@pytest.mark.parametrize("changed", ["password", "host"])
async def test_changed_connection_makes_new_sockets(
    oxen_hub: LocalHub, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    """Waits that begin after the key or the host was changed have sockets of their own; the others keep theirs."""
    leave = asyncio.Event()
    ref = EvaluationRef("ox", "r", "completed-60s")
    with LocalHub() as other_hub:
        before = asyncio.create_task(_ask(ref, hold=leave))
        while not oxen_hub.requests:
            await asyncio.sleep(0.01)
        if changed == "password":
            oxen_hub.api_key = "new-key"
            set_connection(password="new-key")
        else:
            set_connection(host=other_hub.url, password=other_hub.api_key)
            monkeypatch.setattr(pool, "MAX_LOOKUP_AGE_SECONDS", 0.0)
        after = asyncio.create_task(_ask(ref, hold=leave))
        while sum(request.status_code == 200 for request in oxen_hub.requests + other_hub.requests) < 2:
            await asyncio.sleep(0.01)

        assert len(shared_connections()) == 1
        assert shared_connections()[0].waits == 2
        assert oxen_hub.connections_opened + other_hub.connections_opened == 2
        assert oxen_hub.connections_open + other_hub.connections_open == 2
        refused = [401] if changed == "password" else []
        assert [request.status_code for request in oxen_hub.requests + other_hub.requests] == [200, *refused, 200]
        leave.set()
        await asyncio.gather(before, after)
        assert shared_connections() == []
        await _all_closed(oxen_hub)
        await _all_closed(other_hub)


async def test_requests_queue_without_running_out_of_time(
    oxen_hub: LocalHub, set_connection: Callable[..., None]
) -> None:
    """The time limit of a request does not run while it waits for one of ``max_connections``."""
    set_connection(extra={"max_connections": 1, "timeout": 1.5})
    refs = [EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Delay(0.4)),))) for _ in range(6)]
    began = time.monotonic()

    async with OxenHook().get_async_conn() as client:
        evaluations = await asyncio.gather(*(client.ask(build_get_evaluation(ref)) for ref in refs))

    assert [evaluation.id for evaluation in evaluations] == [ref.evaluation_id for ref in refs]
    assert time.monotonic() - began > 2.4
    assert oxen_hub.connections_opened == 1


async def test_hub_that_hangs_keeps_no_request_in_the_queue(
    oxen_hub: LocalHub, set_connection: Callable[..., None]
) -> None:
    """Requests that were queued as long as one may take, while the hub responded to none, fail without being sent."""
    set_connection(extra={"max_connections": 1, "timeout": 0.5})
    refs = [EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Delay(50)),))) for _ in range(8)]

    async with OxenHook().get_async_conn() as client:
        calls = [client.ask(build_get_evaluation(ref)) for ref in refs]
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(result) for result in results] == [OxenUnreachableError] * 8
    assert sum("while the hub responded to none" in str(result) for result in results) >= 6
    assert len(oxen_hub.requests) <= 2


# What is opened is closed --------------------------------------------------------------------------------------------


async def test_cancelled_wait_leaves_nothing_open(oxen_hub: LocalHub) -> None:
    """A wait that is cancelled in the middle of a request closes what it opened."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Delay(30)),)))
    wait = asyncio.create_task(_ask(ref))
    while not oxen_hub.requests_for(ref.evaluation_id):
        await asyncio.sleep(0.01)

    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait

    assert shared_connections() == []
    await _all_closed(oxen_hub)


async def test_wait_that_fails_leaves_nothing_open(oxen_hub: LocalHub) -> None:
    """A wait that ends in an error closes what it opened."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Respond(404)),)))

    with pytest.raises(OxenNotFoundError):
        await _ask(ref)

    assert shared_connections() == []
    await _all_closed(oxen_hub)


async def test_ca_file_that_vanished_is_shown_and_leaves_nothing_open(
    set_connection: Callable[..., None], tmp_path: Path
) -> None:
    """A CA file that is gone when the first wait connects is an error that names the field."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    set_connection(host="https://127.0.0.1:1", extra={"verify": str(path)})

    async def look_up() -> ClientConfig:
        config = await OxenHook().aget_config()
        await asyncio.to_thread(path.unlink)
        return config

    async with OxenAsyncClient("oxen_default", look_up) as client:
        polled = await client.poll(EvaluationRef("ox", "r", "any"), max_age=5)

    assert isinstance(polled.result, OxenConfigError)
    assert "'oxen_default'" in str(polled.result)
    assert "verify" in str(polled.result)
    assert shared_connections() == []


@pytest.mark.alone
async def test_wait_that_is_cancelled_while_it_changes_client_leaves_nothing_open(
    oxen_hub: LocalHub, set_connection: Callable[..., None]
) -> None:
    """At whatever moment a wait is cancelled while it moves to a new key, the sockets of both keys are closed."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    in_time = 0

    async def move(moves: asyncio.Event) -> None:
        nonlocal in_time
        async with OxenHook().get_async_conn() as client:
            await client.poll(ref, max_age=0)
            oxen_hub.api_key += "+"
            set_connection()
            moves.set()
            await client.poll(ref, max_age=0)
            in_time += 1

    for number in range(40):
        moves = asyncio.Event()
        wait = asyncio.create_task(move(moves))
        await moves.wait()
        await asyncio.sleep(0.001 * number)
        wait.cancel()
        await asyncio.wait([wait])

        assert shared_connections() == []
    await _all_closed(oxen_hub)
    assert 0 < in_time < 40, "all moments lie on one side of the move"


async def test_wait_that_is_cancelled_in_a_look_up_hinders_no_other(
    oxen_hub: LocalHub, set_connection: Callable[..., None]
) -> None:
    """Where the wait that looks up the changed connection is cancelled, the others go on, and all is closed."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    looks_up, go_on = asyncio.Event(), asyncio.Event()

    async def look_up() -> ClientConfig:
        if oxen_hub.api_key == "new-key":
            looks_up.set()
            await go_on.wait()
        return await OxenHook().aget_config()

    async with OxenAsyncClient("oxen_default", look_up) as one, OxenAsyncClient("oxen_default", look_up) as other:
        for client in (one, other):
            await client.poll(ref, max_age=0)
        oxen_hub.api_key = "new-key"
        set_connection()
        polls = [asyncio.create_task(client.poll(ref, max_age=0)) for client in (one, other)]
        await looks_up.wait()
        polls[0].cancel()
        await asyncio.wait(polls[:1])
        go_on.set()
        polled = await polls[1]

        assert getattr(polled.result, "status", polled.result) == "queued"
        await one.close()
        assert shared_connections()[0].waits == 1
    assert shared_connections() == []
    await _all_closed(oxen_hub)


# The pause after a 429 -----------------------------------------------------------------------------------------------


async def test_rate_limit_pauses_all_that_share(oxen_hub: LocalHub) -> None:
    """After a 429, the others learn how long is left without a request being sent."""
    limited = Fault(Respond(429, headers={"Retry-After": "30"}), count=1)
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(limited,)))
    other = EvaluationRef("ox", "r", oxen_hub.add_evaluation())
    hook = OxenHook()

    async with hook.get_async_conn() as client, hook.get_async_conn() as another:
        with pytest.raises(OxenRateLimitError) as first:
            await client.ask(build_get_evaluation(ref))
        with pytest.raises(OxenRateLimitError) as second:
            await another.ask(build_get_evaluation(other))

    assert first.value.retry_after_seconds == pytest.approx(30)
    assert 29 < second.value.retry_after_seconds <= 30
    assert str(second.value).startswith("not sent: the hub responded with 429 and asked for a pause")
    assert len(oxen_hub.requests) == 1


@pytest.mark.parametrize(("limits_before", "expected"), [(0, 10), (1, 20), (2, 40)])
async def test_rate_limit_without_a_time_has_a_growing_one(
    oxen_hub: LocalHub, limits_before: int, expected: float
) -> None:
    """A 429 without a time is given a pause, a longer one each time it comes again, until another response comes."""
    zero = Respond(429, headers={"Retry-After": "0"})
    limited = (
        Fault(zero, count=5),  # ends with the sixth response, which is good
        *([Fault(zero, first=7, count=limits_before)] if limits_before else []),
        Fault(Respond(429), first=7 + limits_before),
    )
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=limited))
    pauses: list[float | None] = []
    async with OxenHook().get_async_conn() as client:
        for _ in range(7 + limits_before):
            try:
                await client.ask(build_get_evaluation(ref))
            except OxenRateLimitError as error:
                pauses.append(error.retry_after_seconds)

    assert pauses[:-1] == [0.0] * (5 + limits_before)
    assert pauses[-1] == pytest.approx(expected, abs=0.5)


async def test_rate_limit_of_requests_under_way_counts_once(oxen_hub: LocalHub) -> None:
    """Twenty requests that are limited side by side begin one pause, not twenty, each longer than the one before."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Respond(429)),)))
    async with OxenHook().get_async_conn() as client:
        calls = [client.ask(build_get_evaluation(ref)) for _ in range(20)]
        results = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(result, OxenRateLimitError) for result in results)
    assert max(result.retry_after_seconds for result in results) <= 10


# What is left of a wait ----------------------------------------------------------------------------------------------


async def test_nothing_is_kept_of_an_evaluation_without_a_wait(oxen_hub: LocalHub) -> None:
    """While one wait goes on, what others shared goes with the last of them, however they end; so do their timers."""
    staying = oxen_hub.add_evaluation(seconds=60)
    ids = {
        "completed": oxen_hub.add_evaluation(seconds=0),
        "refused": oxen_hub.add_evaluation(faults=(Fault(Respond(404)),)),
        "unreachable": oxen_hub.add_evaluation(faults=(Fault(Respond(503)),)),
    }
    cancelled = oxen_hub.add_evaluation(seconds=60)
    tasks = [
        asyncio.create_task(run_trigger(make_trigger(evaluation_id, poke_interval=40, max_wait=40)))
        for evaluation_id in (staying, cancelled)
    ]
    while not (oxen_hub.requests_for(staying) and oxen_hub.requests_for(cancelled)):
        await asyncio.sleep(0.01)
    for outcome, evaluation_id in ids.items():
        events = await asyncio.gather(*(run_trigger(make_trigger(evaluation_id, retry_window=0.1)) for _ in range(3)))
        assert {event["outcome"] for event in events} == {outcome}
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])

    (connection,) = shared_connections()
    assert connection.waits == 1
    assert "1 waits for 1 evaluations, 0 requests under way" in repr(connection)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert shared_connections() == []
    assert "0 waits for 0 evaluations, 0 requests under way, 0 timers" in repr(connection)
