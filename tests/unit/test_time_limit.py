"""The time limit of requests: each ends at its own, and one timer does for all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from airflow_provider_oxen.time_limit import TimeLimit, run_within
from tests.support.virtual_loop import VirtualLoop


@pytest.fixture
def loop() -> Any:
    loop = VirtualLoop()
    yield loop
    loop.close()


async def _limited(limit: TimeLimit, work: Callable[[], Awaitable[Any]]) -> tuple[str, float]:
    """Run some work within the limit, and say how and when it ended."""
    loop = asyncio.get_running_loop()
    try:
        with limit.running():
            await work()
    except TimeoutError:
        return "late", loop.time()
    return "done", loop.time()


def _sleep(seconds: float) -> Callable[[], Awaitable[None]]:
    return lambda: asyncio.sleep(seconds)


@pytest.mark.parametrize(("seconds", "end"), [(29.0, ("done", 29.0)), (31.0, ("late", 30.0))])
def test_work_is_ended_at_its_limit_and_not_before(loop, seconds, end):
    how, at = loop.run_until_complete(_limited(TimeLimit(30), _sleep(seconds)))

    assert (how, at) == (end[0], pytest.approx(end[1]))


def test_each_block_has_a_limit_of_its_own(loop):
    limit = TimeLimit(30)

    async def begin_at(start: float, seconds: float) -> tuple[str, float]:
        await asyncio.sleep(start)
        return await _limited(limit, _sleep(seconds))

    async def all_of_them() -> list[tuple[str, float]]:
        return await asyncio.gather(begin_at(0, 5), begin_at(10, 100), begin_at(12, 25), begin_at(20, 100))

    ends = loop.run_until_complete(all_of_them())

    assert [how for how, _ in ends] == ["done", "late", "done", "late"]
    assert [at for _, at in ends] == pytest.approx([5, 40, 37, 50])


def test_many_quick_requests_need_few_timers(loop):
    limit = TimeLimit(30)

    async def requests() -> None:
        for _ in range(1_000):
            with limit.running():
                loop.now += 0.01
                await asyncio.sleep(0)

    loop.run_until_complete(requests())

    assert len(loop.timers) == 1


def test_no_timer_is_left_where_nothing_runs(loop):
    limit = TimeLimit(30)
    loop.run_until_complete(_limited(limit, _sleep(0)))

    limit.close()

    assert all(timer.cancelled() for timer in loop.timers if timer.when() > loop.time())


def test_limit_is_used_again_after_it_was_closed(loop):
    limit = TimeLimit(30)
    loop.run_until_complete(_limited(limit, _sleep(0)))
    limit.close()

    assert loop.run_until_complete(_limited(limit, _sleep(31)))[0] == "late"


def test_cancellation_from_outside_stays_one(loop):
    limit = TimeLimit(30)

    async def cancelled() -> None:
        task = asyncio.create_task(_limited(limit, _sleep(100)))
        await asyncio.sleep(1)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(cancelled())


def test_cancellation_from_outside_counts_where_the_limit_is_reached_too(loop):
    limit = TimeLimit(30)

    async def cancelled() -> None:
        task = asyncio.create_task(_limited(limit, _sleep(100)))
        await asyncio.sleep(0)
        loop.call_at(30.0, task.cancel)
        await task

    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(cancelled())


def test_task_goes_on_after_its_limit(loop):
    limit = TimeLimit(30)

    async def two() -> list[tuple[str, float]]:
        first = await _limited(limit, _sleep(100))
        await asyncio.sleep(1)  # a cancellation that was left over would end this
        return [first, await _limited(limit, _sleep(1))]

    assert [how for how, _ in loop.run_until_complete(two())] == ["late", "done"]


def test_what_fails_within_the_limit_fails_as_it_did(loop):
    async def fail() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        loop.run_until_complete(_limited(TimeLimit(30), fail))


def test_thread_that_is_late_is_left_behind():
    may_end = threading.Event()
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        run_within(0.05, may_end.wait)

    assert time.monotonic() - began < 5
    may_end.set()


def test_result_and_failure_of_a_thread_are_handed_on():
    def fail() -> None:
        raise ValueError("as it was")

    assert run_within(5, lambda: 7) == 7
    with pytest.raises(ValueError, match="as it was"):
        run_within(5, fail)
