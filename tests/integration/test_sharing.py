"""What waits of one process share besides sockets: the look-up of a connection, a refused key, the polls."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_oxen import pool
from airflow_provider_oxen.calls import build_get_evaluation
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import (
    OxenAuthenticationError,
    OxenNotFoundError,
    OxenServerError,
    OxenUnreachableError,
)
from airflow_provider_oxen.hooks import oxen as hook_module
from airflow_provider_oxen.hooks.oxen import OxenHook
from airflow_provider_oxen.pool import shared_connections
from airflow_provider_oxen.protocol import ContractError
from airflow_provider_oxen.sharing import LastParsed
from airflow_provider_oxen.testing import Delay, Fault, LocalHub, Respond
from tests.support.triggers import make_trigger, run_trigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_oxen.clients import OxenAsyncClient


async def _open(stack: AsyncExitStack, count: int = 2, conn_id: str = "oxen_default") -> list[OxenAsyncClient]:
    return [await stack.enter_async_context(OxenHook(conn_id).get_async_conn()) for _ in range(count)]


def _begin_waits(hub: LocalHub, count: int, *, seconds: float = 60, **arguments: Any) -> list[asyncio.Task[Any]]:
    ids = [hub.add_evaluation(seconds=seconds) for _ in range(count)]
    return [asyncio.create_task(run_trigger(make_trigger(evaluation_id, **arguments))) for evaluation_id in ids]


async def _polled(hub: LocalHub, count: int) -> None:
    """Wait until the hub has sent so many responses."""
    async with asyncio.timeout(30):
        while len(hub.requests) < count:
            await asyncio.sleep(0.01)


async def _stop(waits: list[asyncio.Task[Any]]) -> None:
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)


def _refusals(hub: LocalHub) -> int:
    return sum(request.status_code == 401 for request in hub.requests)


# The look-up of a connection -----------------------------------------------------------------------------------------


async def test_many_waits_look_up_a_connection_once(oxen_hub: LocalHub, look_ups: list[str]) -> None:
    """Five hundred waits on one Airflow connection, each for an evaluation of its own, look it up once."""
    waits = _begin_waits(oxen_hub, 500, poke_interval=30, max_wait=30)
    await _polled(oxen_hub, 500)
    await _stop(waits)

    assert look_ups == ["oxen_default"]
    assert shared_connections() == []


async def test_connection_is_looked_up_anew_where_no_wait_is_left(oxen_hub: LocalHub, look_ups: list[str]) -> None:
    """A wait that begins after all others have ended uses nothing of theirs."""
    for _ in range(2):
        await OxenHook().aget_evaluation("ox", "r", oxen_hub.add_evaluation(seconds=60))

    assert look_ups == ["oxen_default"] * 2


async def test_connection_is_looked_up_again_when_it_is_old(
    oxen_hub: LocalHub, look_ups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up's age counts and not the number of polls: there is one for all waits each time it is too old."""
    assert pool.MAX_LOOKUP_AGE_SECONDS == 60
    monkeypatch.setattr(pool, "MAX_LOOKUP_AGE_SECONDS", 0.3)
    waits = _begin_waits(oxen_hub, 20)
    began = time.monotonic()
    await _polled(oxen_hub, 200)
    while time.monotonic() - began < 1:
        await asyncio.sleep(0.01)
    lasted = time.monotonic() - began
    await _stop(waits)

    assert 3 <= len(look_ups) <= 1 + lasted / 0.3
    assert oxen_hub.connections_opened <= 20, "the same settings made another client"


async def test_look_up_that_fails_later_changes_nothing(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """Waits go on with the settings they have where the connection cannot be looked up again, and rarely try."""
    look_up, tries = hook_module.get_async_connection, 0

    async def once(conn_id: str, **named: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries > 1:
            raise RuntimeError("the secrets backend is away")
        return await look_up(conn_id, **named)

    monkeypatch.setattr(hook_module, "get_async_connection", once)
    monkeypatch.setattr(pool, "MAX_LOOKUP_AGE_SECONDS", 0.2)
    began = time.monotonic()
    events = await asyncio.gather(*_begin_waits(oxen_hub, 20, seconds=1))

    assert {event["outcome"] for event in events} == {"completed"}
    assert 3 <= tries <= 1 + (time.monotonic() - began) / 0.2
    assert "failed" not in logged()


async def test_failure_of_the_first_look_up_is_shared(oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that need the connection while it is looked up share the failure, and do not fail one after the other."""
    tries = 0

    async def fail(conn_id: str, **named: Any) -> Any:  # noqa: ARG001
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.1)
        raise RuntimeError("the secrets backend is away")

    monkeypatch.setattr(hook_module, "get_async_connection", fail)
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 100)
        polls = await asyncio.gather(*(client.poll(EvaluationRef("ox", "r", "any"), max_age=0) for client in clients))
        assert tries == 1
        await clients[0].poll(EvaluationRef("ox", "r", "any"), max_age=0)

    assert tries == 2
    assert {type(polled.result) for polled in polls} == {OxenUnreachableError}
    assert len({id(polled.result) for polled in polls}) == 100, "waits share one error object"
    assert oxen_hub.requests == []


async def test_changed_host_reaches_waits_that_are_under_way(
    oxen_hub: LocalHub, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the look-up is old, waits move to the connection's new host, and leave nothing open at the old one."""
    with LocalHub() as other_hub:
        waits = _begin_waits(oxen_hub, 5)
        await _polled(oxen_hub, 10)
        for evaluation_id in {request.path.rpartition("/")[2] for request in oxen_hub.requests}:
            other_hub.add_evaluation(evaluation_id, seconds=0)
        set_connection(host=other_hub.url, password=other_hub.api_key)
        monkeypatch.setattr(pool, "MAX_LOOKUP_AGE_SECONDS", 0.0)
        events = await asyncio.gather(*waits)

    assert {event["outcome"] for event in events} == {"completed"}
    assert {event["hub"] for event in events} == {other_hub.url}
    async with asyncio.timeout(1):
        while oxen_hub.connections_open:
            await asyncio.sleep(0.01)


# A refused key -------------------------------------------------------------------------------------------------------


async def test_revoked_key_is_refused_once_for_all_waits(
    oxen_hub: LocalHub, set_connection: Callable[..., None], look_ups: list[str]
) -> None:
    """Where the connection still has the key that the hub refuses, all waits end after one 401 and one look-up."""
    set_connection(extra={"max_connections": 1})
    waits = _begin_waits(oxen_hub, 500, poke_interval=0.5, max_wait=0.5)
    await _polled(oxen_hub, 500)
    oxen_hub.api_key = "revoked"
    events = await asyncio.gather(*waits)

    assert {event["outcome"] for event in events} == {"refused"}
    assert all(event["error"].startswith("401: the API key is not accepted") for event in events)
    assert all(f"/{event['evaluation_id']}" in event["error"] for event in events), "the request is another wait's"
    assert _refusals(oxen_hub) == 1
    assert len(look_ups) == 2
    assert shared_connections() == []


async def test_key_that_is_wrong_from_the_start_is_refused_once(
    oxen_hub: LocalHub, set_connection: Callable[..., None], look_ups: list[str]
) -> None:
    """The first request of all waits is sent alone, so a wrong key costs one 401 with any number of connections."""
    set_connection(password="wrong-key")
    events = await asyncio.gather(*_begin_waits(oxen_hub, 500))

    assert {event["outcome"] for event in events} == {"refused"}
    assert _refusals(oxen_hub) == len(oxen_hub.requests) == 1
    assert len(look_ups) == 2


async def test_first_failure_lets_all_connections_be_used(oxen_hub: LocalHub) -> None:
    """A first request that fails in another way says nothing about the key, and holds up no other for longer."""
    ids = [oxen_hub.add_evaluation(faults=(Fault(Respond(503)),)), *(oxen_hub.add_evaluation() for _ in range(30))]
    refs = [EvaluationRef("ox", "r", evaluation_id) for evaluation_id in ids]
    async with OxenHook().get_async_conn() as client:
        with pytest.raises(OxenServerError):
            await client.ask(build_get_evaluation(refs[0]))
        await asyncio.gather(*(client.ask(build_get_evaluation(ref)) for ref in refs[1:]))

    assert oxen_hub.connections_opened > 1


async def test_rotated_key_is_looked_up_once_for_all_waits(
    oxen_hub: LocalHub, set_connection: Callable[..., None], look_ups: list[str]
) -> None:
    """Where the connection has another key by then, it is looked up once more, and all waits go on with that."""
    set_connection(extra={"max_connections": 1})
    waits = _begin_waits(oxen_hub, 50, seconds=2)
    await _polled(oxen_hub, 60)
    oxen_hub.api_key = "rotated-key"
    set_connection(extra={"max_connections": 1})
    events = await asyncio.gather(*waits)

    assert {event["outcome"] for event in events} == {"completed"}
    assert _refusals(oxen_hub) == 1
    assert len(look_ups) == 2


async def test_rotated_key_that_is_refused_too_is_refused_once_for_all_waits(
    oxen_hub: LocalHub, set_connection: Callable[..., None], look_ups: list[str]
) -> None:
    """Where the connection's new key is refused as well, that costs one more 401, and not one for each wait."""
    set_connection(extra={"max_connections": 1})
    waits = _begin_waits(oxen_hub, 50)
    await _polled(oxen_hub, 60)
    oxen_hub.api_key = "a-key-that-is-not-the-connection's"
    set_connection(password="wrong-key", extra={"max_connections": 1})
    events = await asyncio.gather(*waits)

    assert {event["outcome"] for event in events} == {"refused"}
    assert _refusals(oxen_hub) == 2
    assert len(look_ups) == 3


async def test_keys_that_change_at_each_look_up_are_not_tried_without_end(
    oxen_hub: LocalHub, set_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secrets backend that gives another wrong key each time costs a call three requests, and then ends it."""
    look_up, keys = hook_module.get_async_connection, itertools.count()

    async def change(conn_id: str, **named: Any) -> Any:
        set_connection(password=f"wrong-key-{next(keys)}")
        return await look_up(conn_id, **named)

    monkeypatch.setattr(hook_module, "get_async_connection", change)
    ref = EvaluationRef("ox", "r", "any")
    async with OxenHook().get_async_conn() as client, asyncio.timeout(10):
        polled = await client.poll(ref, max_age=0)
        assert isinstance(polled.result, OxenAuthenticationError)
        assert _refusals(oxen_hub) == 3

        with pytest.raises(OxenAuthenticationError):
            await client.ask(build_get_evaluation(ref))
        assert _refusals(oxen_hub) <= 6


async def test_wait_that_begins_after_a_refusal_asks_the_hub_again(oxen_hub: LocalHub, look_ups: list[str]) -> None:
    """A refusal is remembered for the waits that are there, and for no wait that begins later."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    key = oxen_hub.api_key
    async with AsyncExitStack() as stack:
        one, other, later, last = await _open(stack, 4)
        for client in (one, other):
            await client.poll(ref, max_age=0)
        oxen_hub.api_key = "revoked"
        refused = [await client.poll(ref, max_age=0) for client in (one, other, one)]
        assert _refusals(oxen_hub) == 1

        refused.append(await later.poll(ref, max_age=0))
        assert _refusals(oxen_hub) == 2
        oxen_hub.api_key = key  # as where the hub itself was at fault
        accepted = await last.poll(ref, max_age=0)

    assert {type(polled.result) for polled in refused} == {OxenAuthenticationError}
    assert isinstance(accepted.result, Evaluation)
    assert set(look_ups) == {"oxen_default"}


async def test_forbidden_is_not_remembered_for_others(oxen_hub: LocalHub) -> None:
    """A 403 may be about one repository alone: other waits with the same key still ask."""
    forbidden = EvaluationRef("ox", "private", oxen_hub.add_evaluation(faults=(Fault(Respond(403)),)))
    allowed = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    async with AsyncExitStack() as stack:
        one, other = await _open(stack)
        await other.poll(allowed, max_age=0)
        refused = await one.poll(forbidden, max_age=0)
        accepted = await other.poll(allowed, max_age=0)

    assert isinstance(refused.result, OxenAuthenticationError)
    assert refused.result.status_code == 403
    assert isinstance(accepted.result, Evaluation)
    assert oxen_hub.requests_for(allowed.evaluation_id) == 2


async def test_look_up_that_fails_after_a_refusal_is_an_outage(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is not known whether the connection has another key, a refused key does not end a wait."""
    waits = _begin_waits(oxen_hub, 1)
    await _polled(oxen_hub, 2)

    async def fail(conn_id: str, **named: Any) -> Any:  # noqa: ARG001
        raise RuntimeError("the secrets backend is away")

    monkeypatch.setattr(hook_module, "get_async_connection", fail)
    key, oxen_hub.api_key = oxen_hub.api_key, "rotated"
    await _polled(oxen_hub, len(oxen_hub.requests) + 3)
    assert _refusals(oxen_hub) >= 2
    assert not waits[0].done()
    oxen_hub.api_key = key  # the look-up fails still: a refusal may be on its way
    await _polled(oxen_hub, len(oxen_hub.requests) + 3)

    assert not waits[0].done()
    await _stop(waits)


# Many waits for the same evaluation ----------------------------------------------------------------------------------


async def test_fifty_waits_cost_the_hub_what_two_would(oxen_hub: LocalHub) -> None:
    """Waits for one evaluation that began at any time poll at most twice as often as one alone, and all see its end."""
    seconds, interval = 2.0, 0.25
    evaluation_id = oxen_hub.add_evaluation(seconds=seconds)

    async def wait(begin: float) -> str:
        await asyncio.sleep(begin)
        event = await run_trigger(make_trigger(evaluation_id, poke_interval=interval, max_wait=interval))
        return str(event["outcome"])

    outcomes = await asyncio.gather(*(wait(0.01 * number) for number in range(50)))

    assert outcomes == ["completed"] * 50
    # One wait alone polls at the start, then once an interval; on a busy machine there are fewer polls, not more.
    assert oxen_hub.requests_for(evaluation_id) <= 2 * (seconds / interval + 2)
    assert shared_connections() == []


async def test_end_wakes_waits_that_sleep(oxen_hub: LocalHub) -> None:
    """A wait that would sleep for long sees the end as soon as another wait does, without a request."""
    evaluation_id = oxen_hub.add_evaluation(seconds=0.6)
    sleeper = asyncio.create_task(run_trigger(make_trigger(evaluation_id, poke_interval=50, max_wait=50)))
    while not oxen_hub.requests_for(evaluation_id):
        await asyncio.sleep(0.01)
    began = time.monotonic()

    await run_trigger(make_trigger(evaluation_id))
    requests = oxen_hub.requests_for(evaluation_id)
    event = await sleeper

    assert event["outcome"] == "completed"
    assert time.monotonic() - began < 10
    assert oxen_hub.requests_for(evaluation_id) == requests


async def test_client_that_polls_another_evaluation_gets_that(oxen_hub: LocalHub) -> None:
    """One client may poll one evaluation after the other, and never gets what is known of another one."""
    refs = [EvaluationRef("ox", "r", oxen_hub.add_evaluation(name, seconds=60)) for name in ("a", "b")]
    async with AsyncExitStack() as stack:
        client, keeper = await _open(stack)
        await keeper.poll(refs[0], max_age=60)
        polled = [await client.poll(refs[number], max_age=60) for number in (0, 1, 1, 0)]
        shown = repr(shared_connections())

    assert [getattr(poll.result, "id", poll.result) for poll in polled] == ["a", "b", "b", "a"]
    assert [oxen_hub.requests_for(name) for name in ("a", "b")] == [1, 1]
    assert "for 1 evaluations" in shown, "what the client left is kept"


async def test_result_is_shared_no_longer_than_asked_for(oxen_hub: LocalHub) -> None:
    """A result serves those who take one of its age; for others, and for ``ask``, a request is sent."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))
    async with AsyncExitStack() as stack:
        one, other = await _open(stack)
        first = await one.poll(ref, max_age=30)
        again = await other.poll(ref, max_age=30)
        assert again == first
        assert oxen_hub.requests_for(ref.evaluation_id) == 1

        newer = await other.poll(ref, max_age=0)
        assert newer.at_monotonic > first.at_monotonic
        assert await one.poll(ref, max_age=30) == newer
        await one.ask(build_get_evaluation(ref))
        assert oxen_hub.requests_for(ref.evaluation_id) == 3


async def test_response_that_equals_the_last_is_not_parsed_again(oxen_hub: LocalHub) -> None:
    """Polls that show nothing new give the same value, without parsing; what is new is seen."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=6_000))
    async with AsyncExitStack() as stack:
        (client,) = await _open(stack, 1)
        first, again = [(await client.poll(ref, max_age=-1)).result for _ in range(2)]
        oxen_hub.add_evaluation(ref.evaluation_id, seconds=0)
        ended = (await client.poll(ref, max_age=-1)).result

    assert again is first
    assert isinstance(ended, Evaluation)
    assert ended.is_terminal


def test_only_an_equal_body_gives_the_last_result() -> None:
    """Another body, another key and a body that could not be used are parsed; no failure gives an older result."""
    parsed: list[bytes] = []

    def parse(body: bytes, secret: str) -> str:
        parsed.append(body)
        if body == b"bad":
            raise ContractError("bad")
        return body.decode() + secret

    last = LastParsed(parse)
    assert [last(body, "k") for body in (b"a", b"a", b"b", b"b", b"a")] == ["ak", "ak", "bk", "bk", "ak"]
    assert parsed == [b"a", b"b", b"a"]
    assert last(b"a", "q") == "aq"
    for _ in range(2):
        with pytest.raises(ContractError):
            last(b"bad", "q")
    assert parsed[-2:] == [b"bad", b"bad"]


async def test_request_under_way_is_joined(oxen_hub: LocalHub) -> None:
    """A poll that begins while a request is under way waits for the response to that."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(0.3), first=2),)))
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 5)
        for client in clients:
            await client.poll(ref, max_age=60)
        polls = await asyncio.gather(*(client.poll(ref, max_age=0) for client in clients))

    assert oxen_hub.requests_for(ref.evaluation_id) == 2
    assert all(polled is polls[0] for polled in polls)


async def test_cancelled_owner_of_a_request_fails_no_other(oxen_hub: LocalHub) -> None:
    """Where the wait whose request was joined is cancelled, one of the others sends it, and all get its response."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Delay(50), count=1),)))
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 4)
        polls = [asyncio.create_task(client.poll(ref, max_age=1)) for client in clients]
        while not oxen_hub.requests_for(ref.evaluation_id) or "4 waits for 1 evaluations" not in repr(
            shared_connections()
        ):
            await asyncio.sleep(0.01)

        polls[0].cancel()
        polls[2].cancel()
        results = await asyncio.gather(*polls, return_exceptions=True)

        assert isinstance(results[0], asyncio.CancelledError)
        assert isinstance(results[2], asyncio.CancelledError)
        assert isinstance(results[1].result, Evaluation)
        assert results[3] is results[1]
        assert oxen_hub.requests_for(ref.evaluation_id) == 2


async def test_failure_is_shared_and_passes(oxen_hub: LocalHub) -> None:
    """A failed request is the failure of all who joined it, and the next poll is as good as any."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(503), first=2, count=1),)))
    async with AsyncExitStack() as stack:
        clients = await _open(stack, 3)
        for client in clients:
            await client.poll(ref, max_age=60)
        failed = await asyncio.gather(*(client.poll(ref, max_age=0) for client in clients))
        later = await clients[0].poll(ref, max_age=60)
        newer = await clients[1].poll(ref, max_age=0)

    assert [type(polled.result) for polled in failed] == [OxenServerError] * 3
    assert later == failed[0]
    assert isinstance(newer.result, Evaluation)
    assert oxen_hub.requests_for(ref.evaluation_id) == 3


async def test_evaluation_that_was_not_found_is_asked_for_again(oxen_hub: LocalHub) -> None:
    """A refusal is kept for no other wait: a person may have made the evaluation a moment later."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60, faults=(Fault(Respond(404), count=1),)))
    async with AsyncExitStack() as stack:
        one, other = await _open(stack)
        refused = await one.poll(ref, max_age=60)
        found = await other.poll(ref, max_age=60)

    assert isinstance(refused.result, OxenNotFoundError)
    assert isinstance(found.result, Evaluation)


@pytest.mark.parametrize("differs", ["namespace", "repo_name", "evaluation_id", "connection"])
async def test_different_evaluations_are_never_mixed(
    oxen_hub: LocalHub, monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    """Polls are shared only where namespace, repository, evaluation and connection are the same."""
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", oxen_hub.connection_uri)
    oxen_hub.add_evaluation("a", seconds=60)
    oxen_hub.add_evaluation("b", seconds=60)
    ours = {"namespace": "ox", "repo_name": "r", "evaluation_id": "a"}
    theirs = ours if differs == "connection" else ours | {differs: "b"}
    async with AsyncExitStack() as stack:
        (one,) = await _open(stack, 1)
        (other,) = await _open(stack, 1, "other" if differs == "connection" else "oxen_default")
        await asyncio.gather(
            one.poll(EvaluationRef(**ours), max_age=60), other.poll(EvaluationRef(**theirs), max_age=60)
        )
        polled = await other.poll(EvaluationRef(**theirs), max_age=60)

    assert polled.result.id == theirs["evaluation_id"]
    assert [request.status_code for request in oxen_hub.requests] == [200, 200]
    if differs != "connection":
        assert len({request.path for request in oxen_hub.requests}) == 2


async def test_deadline_is_not_met_by_an_older_result(oxen_hub: LocalHub) -> None:
    """A wait at its deadline polls once more, though another wait got a result a moment before."""
    evaluation_id = oxen_hub.add_evaluation(seconds=60)
    busy = asyncio.create_task(run_trigger(make_trigger(evaluation_id)))
    deadline = time.time() + 0.5

    event = await run_trigger(make_trigger(evaluation_id, poke_interval=30, max_wait=30, deadline=deadline))

    await _stop([busy])
    assert event["outcome"] == "timeout"
    assert event["at"] >= deadline


async def test_sleep_lasts_as_long_as_asked_for(oxen_hub: LocalHub) -> None:
    """A sleep may be longer by a tick, and is never shorter; those that end in one tick end together."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))

    async def sleep(client: OxenAsyncClient, seconds: float) -> float:
        began = time.monotonic()
        await client.sleep(seconds)
        return time.monotonic() - began - seconds

    async with AsyncExitStack() as stack:
        clients = await _open(stack, 8)
        for client in clients:
            await client.poll(ref, max_age=60)
        sleeps = [asyncio.create_task(sleep(client, 0.6 + 0.001 * number)) for number, client in enumerate(clients)]
        short = asyncio.create_task(sleep(clients[0], 0.02))
        await asyncio.sleep(0)
        shown = repr(shared_connections())
        late = await asyncio.gather(*sleeps, short)

    assert min(late) >= 0
    assert any(f"{timers} timers" in shown for timers in (2, 3)), shown


async def test_sleeping_wait_keeps_few_objects(oxen_hub: LocalHub) -> None:
    """Of what a full garbage collection visits, each wait has one of each kind: no hook and no logger of its own."""
    waits = _begin_waits(oxen_hub, 1, poke_interval=50, max_wait=50)
    await _polled(oxen_hub, 1)
    await asyncio.sleep(0.1)
    before = _count_objects()
    waits += _begin_waits(oxen_hub, 10, poke_interval=50, max_wait=50)
    await _polled(oxen_hub, 11)
    await asyncio.sleep(0.1)
    grown = _count_objects() - before
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)

    kept = ["Call", "Evaluation", "EvaluationRef", "History", "LastParsed", "OxenAsyncClient", "OxenEvaluationTrigger"]
    assert grown == dict.fromkeys([*kept, "Progress", "SharedEvaluation", "Wait"], 10)


def _count_objects() -> Counter[str]:
    """Count the objects that the garbage collector knows, by the names of their types: ours, and those of loggers."""
    gc.collect()
    names = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    ours = ("airflow_provider_oxen.", "logging.", "structlog.")
    return Counter(
        {
            name.rpartition(".")[2]: count
            for name, count in names.items()
            if name.startswith(ours) and ".testing." not in name and name != "logging.LogRecord"  # pytest keeps those
        }
    )


async def test_sleeps_that_are_over_are_not_kept(oxen_hub: LocalHub) -> None:
    """However often waits for one evaluation sleep, what wakes them at its end knows only those that sleep now."""
    ref = EvaluationRef("ox", "r", oxen_hub.add_evaluation(seconds=60))

    def futures() -> int:
        gc.collect()
        return sum(type(one) is asyncio.Future for one in gc.get_objects())

    async with AsyncExitStack() as stack:
        clients = await _open(stack, 2)
        for client in clients:
            await client.poll(ref, max_age=60)
        before = futures()
        for _ in range(20):
            await asyncio.gather(*(client.sleep(0.001) for client in clients))
        assert futures() - before < 10
