"""What waits share in one process."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trustme

from airflow_provider_oxen import pool
from airflow_provider_oxen.exceptions import (
    OxenConfigError,
    OxenNotFoundError,
    OxenRateLimitError,
    OxenServerError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks.oxen import OxenAsyncClient, OxenHook
from airflow_provider_oxen.models import Evaluation, EvaluationRef
from airflow_provider_oxen.testing import Delay, Fault, LocalHub, Respond
from tests.integration.waiting import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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


def _clients() -> list[object]:
    return list(pool._clients.values())


async def test_waits_share_connections(oxen_hub: LocalHub, set_connection: Callable[..., None]) -> None:
    """Fifty waits use no more sockets than one connection may have, and the last to leave closes them."""
    set_connection(extra={"max_connections": 4})
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    leave = asyncio.Event()
    waits = [asyncio.create_task(_look(ref, hold=leave)) for _ in range(50)]
    # An answer is under way for a moment after the hub has counted its request.
    while oxen_hub.requests_for(ref.evaluation_id) < 50 or any("0 requests" not in repr(c) for c in _clients()):
        await asyncio.sleep(0.01)

    assert [repr(client).partition(": ")[2] for client in _clients()] == ["50 waits, 0 requests under way>"]
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


@pytest.mark.parametrize("changed", ["password", "host"])
async def test_changed_connection_makes_a_new_pool(
    oxen_hub: LocalHub, set_connection: Callable[..., None], changed: str
) -> None:
    """Waits that begin after the key or the host was changed have sockets of their own; the others keep theirs."""
    leave = asyncio.Event()
    ref = EvaluationRef("ox", "r", "completed-60s")
    with LocalHub() as other_hub:
        before = asyncio.create_task(_look(ref, hold=leave))
        while not oxen_hub.requests:
            await asyncio.sleep(0.01)
        if changed == "password":
            oxen_hub.api_key = "new-key"
            set_connection(password="new-key")
        else:
            set_connection(host=other_hub.url, password=other_hub.api_key)
        after = asyncio.create_task(_look(ref, hold=leave))
        while len(oxen_hub.requests) + len(other_hub.requests) < 2:
            await asyncio.sleep(0.01)

        assert len(pool._clients) == 2
        assert oxen_hub.connections_opened + other_hub.connections_opened == 2
        assert [request.status_code for request in oxen_hub.requests + other_hub.requests] == [200, 200]
        leave.set()
        await asyncio.gather(before, after)
    assert not pool._clients


async def test_requests_stand_in_line_without_running_out_of_time(
    oxen_hub: LocalHub, set_connection: Callable[..., None]
) -> None:
    """The time limit of a request does not run while it waits for one of ``max_connections``."""
    set_connection(extra={"max_connections": 1, "timeout": 1.5})
    refs = [EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Delay(0.4)),))) for _ in range(6)]
    began = time.monotonic()

    async with OxenHook().get_async_conn() as client:
        evaluations = await asyncio.gather(*(client.get_evaluation(ref) for ref in refs))

    assert [evaluation.id for evaluation in evaluations] == [ref.evaluation_id for ref in refs]
    assert time.monotonic() - began > 2.4
    assert oxen_hub.connections_opened == 1


async def test_hub_that_hangs_holds_nobody_in_line(oxen_hub: LocalHub, set_connection: Callable[..., None]) -> None:
    """Requests that stood in line as long as one may take, while the hub answered none, fail without being sent."""
    set_connection(extra={"max_connections": 1, "timeout": 0.5})
    refs = [EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Delay(50)),))) for _ in range(8)]

    async with OxenHook().get_async_conn() as client:
        results = await asyncio.gather(*(client.get_evaluation(ref) for ref in refs), return_exceptions=True)

    assert [type(result) for result in results] == [OxenUnreachableError] * 8
    assert sum("answered nobody" in str(result) for result in results) >= 6
    assert len(oxen_hub.requests) <= 2


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


async def test_ca_file_that_vanished_is_told_and_leaves_nothing_open(
    set_connection: Callable[..., None], tmp_path: Path
) -> None:
    """A CA file that is gone when the first wait connects is an error that names the field."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    set_connection(host="https://127.0.0.1:1", extra={"verify": str(path)})
    async with OxenHook().get_async_conn() as client:
        await client._connect()
        path.unlink()
        look = await client.look(EvaluationRef("ox", "r", "any"), max_age=5)

    assert isinstance(look.seen, OxenConfigError)
    assert "'oxen_default'" in str(look.seen)
    assert "verify" in str(look.seen)
    assert not pool._clients


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
    """A 429 without a time is given a pause, a longer one each time it comes again, until an answer comes between."""
    limits = (Fault(Respond(429), count=3), Fault(Respond(429), first=5))
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=limits))
    pauses: list[float | None] = []
    async with OxenHook().get_async_conn() as client:
        for _ in range(5):
            try:
                await client.get_evaluation(ref)
            except OxenRateLimitError as error:
                pauses.append(error.retry_after_seconds)
            next(iter(pool._clients.values()))._quiet_until_monotonic = 0.0  # as if it were over

    assert pauses == pytest.approx([10, 20, 40, 10], abs=0.5)


async def test_rate_limit_of_requests_under_way_counts_once(oxen_hub: LocalHub) -> None:
    """Twenty requests that are refused side by side begin one pause, not twenty, each longer than the one before."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(faults=(Fault(Respond(429)),)))
    async with OxenHook().get_async_conn() as client:
        results = await asyncio.gather(*(client.get_evaluation(ref) for _ in range(20)), return_exceptions=True)

    assert all(isinstance(result, OxenRateLimitError) for result in results)
    assert max(result.retry_after_seconds for result in results) <= 10


# Many waits for the same evaluation ----------------------------------------------------------------------------------


async def _open(stack: AsyncExitStack, count: int = 2, conn_id: str = "oxen_default") -> list[OxenAsyncClient]:
    return [await stack.enter_async_context(OxenHook(conn_id).get_async_conn()) for _ in range(count)]


async def test_fifty_waits_cost_the_hub_what_two_would(oxen_hub: LocalHub) -> None:
    """Waits for one evaluation that began at any time ask at most twice as often as one alone, and all see its end."""
    alone, shared = (oxen_hub.add_evaluation(seconds=2.0) for _ in range(2))

    async def wait(evaluation_id: str, begin: float) -> float:
        await asyncio.sleep(begin)
        event = await run_trigger(make_trigger(evaluation_id, poke_interval=0.25, max_wait=0.25))
        assert event["outcome"] == "completed"
        return time.monotonic()

    await wait(alone, 0)
    ended = await asyncio.gather(*(wait(shared, 0.01 * number) for number in range(50)))

    assert oxen_hub.requests_for(shared) <= 2 * oxen_hub.requests_for(alone)
    assert max(ended) - min(ended) < 0.6  # two intervals, and what a busy machine adds
    assert not pool._clients


async def test_end_wakes_who_sleeps(oxen_hub: LocalHub) -> None:
    """A wait that would sleep for long sees the end as soon as another wait does, without asking."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0.6)
    sleeper = asyncio.create_task(run_trigger(make_trigger(evaluation_id, poke_interval=50, max_wait=50)))
    while not oxen_hub.requests_for(evaluation_id):
        await asyncio.sleep(0.01)
    began = time.monotonic()

    await run_trigger(make_trigger(evaluation_id))
    asked = oxen_hub.requests_for(evaluation_id)
    event = await sleeper

    assert event["outcome"] == "completed"
    assert time.monotonic() - began < 10
    assert oxen_hub.requests_for(evaluation_id) == asked


async def test_answer_is_shared_no_longer_than_asked_for(oxen_hub: LocalHub) -> None:
    """An answer serves those who take one of its age; for others, and for ``get_evaluation``, the hub is asked."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    async with AsyncExitStack() as stack:
        one, other = await _open(stack)
        first = await one.look(ref, max_age=30)
        again = await other.look(ref, max_age=30)
        assert again is first
        assert oxen_hub.requests_for(ref.evaluation_id) == 1

        newer = await other.look(ref, max_age=0)
        assert newer.at_monotonic > first.at_monotonic
        assert await one.look(ref, max_age=30) is newer
        await one.get_evaluation(ref)
        assert oxen_hub.requests_for(ref.evaluation_id) == 3


async def test_request_under_way_is_joined(oxen_hub: LocalHub) -> None:
    """Who looks while the hub is being asked waits for that answer."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(0.3), first=2),)))
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 5)
        for client in clients:
            await client.look(ref, max_age=60)
        looks = await asyncio.gather(*(client.look(ref, max_age=0) for client in clients))

    assert oxen_hub.requests_for(ref.evaluation_id) == 2
    assert all(look is looks[0] for look in looks)


async def test_cancelled_owner_of_a_request_fails_no_other(oxen_hub: LocalHub) -> None:
    """Where the wait whose request was joined is cancelled, one of the others asks, and all get its answer."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(50), count=1),)))
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 4)
        looks = [asyncio.create_task(client.look(ref, max_age=1)) for client in clients]
        while not oxen_hub.requests_for(ref.evaluation_id):
            await asyncio.sleep(0.01)
        (client,) = pool._clients.values()
        (shared,) = client._evaluations.values()
        while shared.waits < 4:
            await asyncio.sleep(0.01)

        looks[0].cancel()
        looks[2].cancel()
        results = await asyncio.gather(*looks, return_exceptions=True)

        assert isinstance(results[0], asyncio.CancelledError)
        assert isinstance(results[2], asyncio.CancelledError)
        assert isinstance(results[1].seen, Evaluation)
        assert results[3] is results[1]
        assert oxen_hub.requests_for(ref.evaluation_id) == 2


async def test_failure_is_shared_and_passes(oxen_hub: LocalHub) -> None:
    """A failed request is the failure of all who joined it, and the next look is as good as ever."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(503), first=2, count=1),)))
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 3)
        for client in clients:
            await client.look(ref, max_age=60)
        failed = await asyncio.gather(*(client.look(ref, max_age=0) for client in clients))
        later = await clients[0].look(ref, max_age=60)
        newer = await clients[1].look(ref, max_age=0)

    assert [type(look.seen) for look in failed] == [OxenServerError] * 3
    assert later is failed[0]
    assert isinstance(newer.seen, Evaluation)
    assert oxen_hub.requests_for(ref.evaluation_id) == 3


async def test_refusal_is_kept_for_nobody(oxen_hub: LocalHub) -> None:
    """An evaluation that was not found a moment ago is asked for again: somebody may have made it."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(404), count=1),)))
    async with AsyncExitStack() as stack:
        one, other = await _open(stack)
        refused = await one.look(ref, max_age=60)
        found = await other.look(ref, max_age=60)

    assert isinstance(refused.seen, OxenNotFoundError)
    assert isinstance(found.seen, Evaluation)


@pytest.mark.parametrize("differs", ["namespace", "repo_name", "evaluation_id", "connection"])
async def test_different_evaluations_are_never_mixed(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    """Looks are shared only where namespace, repository, evaluation and connection are the same."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", oxen_hub.connection_uri)
    oxen_hub.add_evaluation("a", seconds=60)
    oxen_hub.add_evaluation("b", seconds=60)
    ours = {"namespace": "ox", "repo_name": "r", "evaluation_id": "a"}
    theirs = ours if differs == "connection" else ours | {differs: "b"}
    async with AsyncExitStack() as stack:
        (one,) = await _open(stack, 1)
        (other,) = await _open(stack, 1, "other" if differs == "connection" else "oxen_default")
        await asyncio.gather(
            one.look(EvaluationRef(**ours), max_age=60), other.look(EvaluationRef(**theirs), max_age=60)
        )
        look = await other.look(EvaluationRef(**theirs), max_age=60)

    assert look.seen.id == theirs["evaluation_id"]
    assert [request.status_code for request in oxen_hub.requests] == [200, 200]
    if differs != "connection":
        assert len({request.path for request in oxen_hub.requests}) == 2


async def test_nothing_is_kept_of_an_evaluation_nobody_waits_for(oxen_hub: LocalHub) -> None:
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

    (client,) = pool._clients.values()
    assert [ref.evaluation_id for ref in client._evaluations] == [staying]
    assert client.waits == 1
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert not pool._clients
    assert not client._evaluations
    assert not client.alarms._ticks


async def test_deadline_is_not_met_by_an_older_answer(oxen_hub: LocalHub) -> None:
    """A wait at its deadline looks once more, though another wait was answered a moment before."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60)
    busy = asyncio.create_task(run_trigger(make_trigger(evaluation_id)))
    deadline = time.time() + 0.5

    event = await run_trigger(make_trigger(evaluation_id, poke_interval=30, max_wait=30, deadline=deadline))

    busy.cancel()
    await asyncio.wait([busy])
    assert event["outcome"] == "timeout"
    assert event["at"] >= deadline


async def test_sleep_lasts_as_long_as_asked_for(oxen_hub: LocalHub) -> None:
    """A sleep may be longer by a tick, and is never shorter; those that end in one tick end together."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))

    async def sleep(client: OxenAsyncClient, seconds: float) -> tuple[float, float]:
        began = time.monotonic()
        await client.sleep(seconds)
        return time.monotonic() - began - seconds, time.monotonic()

    async with AsyncExitStack() as stack:
        clients = await _open(stack, 8)
        for client in clients:
            await client.look(ref, max_age=60)
        sleeps = [sleep(client, 0.6 + 0.001 * number) for number, client in enumerate(clients)]
        slept = await asyncio.gather(*sleeps, sleep(clients[0], 0.02))

    assert min(late for late, _ in slept) >= 0
