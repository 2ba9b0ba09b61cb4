"""Sleeps that end on common ticks: a few waits are awake at a time, and none sleeps much longer for it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

import pytest

from airflow_provider_oxen.sharing import Ticks
from tests.support.virtual_loop import VirtualLoop

#: How long a tick is, by the sleep, in seconds.
TICKS = {60.0: 0.25, 10.0: 0.25, 1.0: 0.1, 0.5: 0.05}


class Waits:
    """Waits that sleep, and are awake for a while, again and again."""

    def __init__(self, *, sleep: float, awake: float) -> None:
        self.ticks = Ticks()
        self.awake = self.most_awake = 0
        self.woken_at: list[float] = []
        self._sleep, self._awake_seconds = sleep, awake

    async def run(self, times: int = 1) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(times):
            await self.ticks.after(self._sleep)
            self.awake += 1
            self.most_awake = max(self.most_awake, self.awake)
            self.woken_at.append(loop.time())
            await asyncio.sleep(self._awake_seconds)
            self.awake -= 1


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


def _run(loop: VirtualLoop, waits: Waits, count: int) -> None:
    async def run() -> None:
        await asyncio.gather(*(waits.run() for _ in range(count)))

    loop.run_until_complete(run())


async def _stop(sleeping: list[asyncio.Task[None]]) -> None:
    for task in sleeping:
        task.cancel()
    await asyncio.wait(sleeping)


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.45, 0.899, 0.9, 2.249, 2.25, 10.0, 60.0])
async def test_sleep_is_longer_by_a_ninth_at_most_and_by_a_quarter_of_a_second(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long sleep ends on long ticks, which it shares with many, and a short one on short ticks."""
    loop, ends = asyncio.get_running_loop(), []
    monkeypatch.setattr(loop, "time", lambda: 1_000.003)
    monkeypatch.setattr(loop, "call_at", lambda at, *_: ends.append(at))
    for length in [seconds * (1 + number / 100) for number in range(200)]:
        Ticks().after(length)
        late = ends[-1] - (1_000.003 + length)
        assert -1e-9 < late <= max(min(length / 9, 0.25), 0.001)


@pytest.mark.parametrize(("seconds", "tick"), [(0.5, 0.05), (1.0, 0.1), (2.5, 0.25), (10.0, 0.25)])
async def test_wait_that_polls_every_second_shares_the_tick_of_a_second(
    seconds: float, tick: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sleep is a moment shorter, since it is counted from the last result."""
    loop, ends = asyncio.get_running_loop(), []
    monkeypatch.setattr(loop, "time", lambda: 1_000.0)
    monkeypatch.setattr(loop, "call_at", lambda at, *_: ends.append(at))
    for number in range(10):
        Ticks().after(0.999 * seconds - tick * number / 10)

    assert ends == pytest.approx([1_000 + seconds] * 10)


def test_ten_are_awake_at_a_time(loop: VirtualLoop) -> None:
    """Each that sleeps again wakes the next of those that are due, and at once."""
    waits = Waits(sleep=10.0, awake=0.001)

    async def run() -> None:
        sleeping = [asyncio.ensure_future(waits.run(4)) for _ in range(100)]
        await asyncio.sleep(35)
        await _stop(sleeping)

    loop.run_until_complete(run())

    assert len(waits.woken_at) == 300
    assert waits.most_awake == 10
    assert waits.woken_at[99] == pytest.approx(10.009)
    assert waits.woken_at[299] - waits.woken_at[200] == pytest.approx(0.009)


def test_waits_that_end_wake_no_other_and_none_is_left(loop: VirtualLoop) -> None:
    """Where the evaluations of all that are due have ended, the parts wake the others."""
    waits = Waits(sleep=10.0, awake=0.001)
    _run(loop, waits, 100)

    assert waits.woken_at[9] == pytest.approx(10.0)
    assert waits.woken_at[10] == pytest.approx(10.05)
    assert waits.woken_at[99] == pytest.approx(10.2)


@pytest.mark.parametrize("sleep", TICKS)
@pytest.mark.parametrize("count", [11, 19, 250, 5_000])
def test_all_are_woken_before_the_next_tick_where_the_hub_is_slow(loop: VirtualLoop, sleep: float, count: int) -> None:
    """They are woken evenly, even if none that was woken ever gets a response."""
    tick = TICKS[sleep]
    waits = Waits(sleep=sleep, awake=1_000.0)
    _run(loop, waits, count)

    late = [at - sleep for at in waits.woken_at]
    assert len(late) == count
    assert late[9] == pytest.approx(0.0)
    assert max(late) < 0.81 * tick
    most = max(late.count(at) for at in late if at > 1e-6)
    assert most <= math.ceil((count - 10) / 4)


def test_ticks_that_come_while_others_are_late_delay_none_of_them(loop: VirtualLoop) -> None:
    """Short sleeps, whose ticks are a millisecond long, end all the time."""
    waits, short = Waits(sleep=10.0, awake=1_000.0), Waits(sleep=0.01, awake=0.003)
    short.ticks = waits.ticks

    async def run() -> None:
        await asyncio.gather(*(waits.run() for _ in range(500)), *(short.run(1_000) for _ in range(3)))

    loop.run_until_complete(run())

    assert max(waits.woken_at) < 10.21
    gaps = [later - earlier for earlier, later in zip(short.woken_at, short.woken_at[3:], strict=False)]
    assert max(gaps) < 0.05


@pytest.mark.parametrize(("sleep", "tick", "count"), [(10.0, 0.25, 500), (0.95, 0.1, 500), (0.5, 0.05, 15)])
def test_sleep_is_as_late_as_its_own_tick_allows(loop: VirtualLoop, sleep: float, tick: float, count: int) -> None:
    """Whatever else is due at the same time: a great many waits of longer sleeps, at a hub that does not respond."""
    many, waits = Waits(sleep=10.0, awake=1_000.0), Waits(sleep=sleep, awake=1_000.0)
    waits.ticks = many.ticks

    async def late() -> None:
        await asyncio.sleep(10.0 - sleep)
        await asyncio.gather(*(waits.run() for _ in range(count)))

    async def run() -> None:
        await asyncio.gather(*(many.run() for _ in range(5_000)), late())

    loop.run_until_complete(run())

    assert max(waits.woken_at) < 10.0 + 0.81 * tick + 1e-6
    assert max(many.woken_at) < 10.21


def test_loop_that_stood_still_wakes_in_parts_all_the_same(loop: VirtualLoop) -> None:
    """After a stall of two seconds, as a garbage collection makes, eight ticks are due at once."""
    waits = Waits(sleep=10.0, awake=1_000.0)

    async def run() -> None:
        for _ in range(8):
            sleeping.extend(asyncio.ensure_future(waits.run()) for _ in range(250))
            await asyncio.sleep(0.25)
        await asyncio.sleep(7.99)
        loop.now += 2.0
        await asyncio.sleep(1.0)
        await _stop(sleeping)

    sleeping: list[asyncio.Task[None]] = []
    loop.run_until_complete(run())

    assert len(waits.woken_at) == 2_000
    most = max(sum(abs(at - other) < 0.01 for other in waits.woken_at) for at in set(waits.woken_at))
    assert most <= 8 * 60


def test_sleep_that_was_ended_early_takes_no_turn(loop: VirtualLoop) -> None:
    """A wait whose evaluation has ended, or that was cancelled, is passed over."""
    waits = Waits(sleep=10.0, awake=0.001)

    async def run() -> None:
        sleeping = [asyncio.ensure_future(waits.run()) for _ in range(100)]
        await asyncio.sleep(5)
        for task in sleeping[5:95]:
            task.cancel()
        await asyncio.wait(sleeping)

    loop.run_until_complete(run())

    assert len(waits.woken_at) == 10
    assert waits.woken_at == pytest.approx([10.0] * 10)


def test_nothing_is_left_after_the_last_wait(loop: VirtualLoop) -> None:
    """Where all leave while some are due, no timer stays."""
    waits = Waits(sleep=10.0, awake=1_000.0)

    async def run() -> None:
        sleeping = [asyncio.ensure_future(waits.run()) for _ in range(100)]
        await asyncio.sleep(10.01)
        await _stop(sleeping)
        waits.ticks.cancel()

    loop.run_until_complete(run())

    assert 10 <= len(waits.woken_at) < 100
    assert len(waits.ticks) == 0
    assert [timer for timer in loop.timers if not timer.cancelled() and timer.when() > loop.time()] == []
