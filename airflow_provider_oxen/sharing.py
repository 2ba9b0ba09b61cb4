"""
One request for many waits, and one timer for many sleeps.

How this works
--------------
1. All waits of a client for the same evaluation poll it through one :class:`SharedEvaluation`.
2. Each caller says how old a result may be. A wait takes one that is at most half as old as the sleep it comes from,
   and counts its next sleep from the result's time. So what it knows is never older than that sleep, as if it were
   alone, and the hub is polled at most twice as often as by the wait that sleeps least: as much as two waits cost.
3. A request under way is joined. Its failure is that of all who joined it. Where the wait that sends it is cancelled,
   one of the others sends it again.
4. Where one wait sees that the evaluation has ended, all that sleep are woken.
5. A response that equals the one before is not parsed again (:class:`LastParsed`): most polls bring nothing new.
6. Sleeps end on common ticks (:class:`Ticks`): what is due in the same quarter of a second is done one after the other.
   Where many wait, that takes about half off the CPU time of a poll, most of which is waking up.
7. Where many are due, ten are woken, and each that sleeps again wakes the next. CPython collects garbage when some
   hundred objects more were made than freed, and a request holds dozens while it is under way. So as long as the hub
   responds quickly, polls cause no collection.

The rule that must not be broken: a wait never sees a result that is older than it asked for.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import filterfalse
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from airflow_provider_oxen.calls import build_get_evaluation
from airflow_provider_oxen.evaluations import Evaluation, EvaluationRef
from airflow_provider_oxen.exceptions import OxenAuthenticationError, OxenError, OxenTransientError

if TYPE_CHECKING:
    import yarl

    from airflow_provider_oxen.protocol import Call

__all__ = ["Client", "LastParsed", "Polled", "SharedEvaluation", "Ticks"]

#: The shortest sleep that ends on multiples of each tick, in seconds, the longest first: late by a ninth of the sleep
#: at most, and by no more than a quarter of a second. Where many are due and the hub is slow, four fifths of the tick
#: are added. Each is below a round number: a wait that polls every second sleeps a moment less, since its sleep is
#: counted from the last result.
_TICKS = ((2.25, 0.25), (0.9, 0.1), (0.45, 0.05), (-math.inf, 0.001))

#: How many of those that are due are woken at once; in how many parts the others are, one each fifth of the tick.
_AWAKE, _PARTS, _PARTS_OF_TICK = 10, 4, 5

T = TypeVar("T")


class Polled(NamedTuple):
    """
    The result of a poll.

    :param result: the evaluation, or why there is none.
    :param at_monotonic: when that was known, in seconds on this process's steady clock.
    """

    result: Evaluation | OxenError
    at_monotonic: float


class Client(Protocol):
    """What polls of evaluations are sent through: the client that their waits share."""

    ticks: Ticks

    async def build_url(self, call: Call[T]) -> yarl.URL:
        """Build the address of a call, which takes time."""

    async def ask(self, call: Call[T], url: yarl.URL | None = None) -> T:
        """Send a call and parse its response. Raises :class:`OxenError` where that fails."""

    def forget(self, ref: EvaluationRef) -> None:
        """Take note that the last wait for an evaluation has left."""


class SharedEvaluation:
    """
    Polls of one evaluation, by all the waits of a client that wait for it.

    One object, not one for each of its parts: there are thousands, and a full garbage collection, which stops the event
    loop, visits every object.

    :param client: what the polls are sent through.
    :param ref: the evaluation.
    :raises OxenConfigError: the reference cannot be part of a path.
    """

    __slots__ = ("_asleep", "_at_monotonic", "_call", "_client", "_joined", "_ref", "_result", "_url", "waits")

    def __init__(self, client: Client, ref: EvaluationRef) -> None:
        self.waits = 0
        self._client = client
        self._ref = ref
        call = build_get_evaluation(ref)
        self._call = replace(call, parse=LastParsed(call.parse))
        self._url: yarl.URL | None = None  # kept, since it takes time to build
        self._result: Evaluation | OxenTransientError | None = None  # of the last poll
        self._at_monotonic = 0.0  # when that was known
        self._joined: list[asyncio.Future[Polled | None]] | None = None  # None: no request is under way
        self._asleep: list[asyncio.Future[None]] = []  # also some that have woken

    def __repr__(self) -> str:
        return f"<SharedEvaluation: {self.waits} waits>"

    @property
    def has_ended(self) -> bool:
        """Whether a poll has seen the evaluation end."""
        return self._result is not None and _has_ended(self._result)

    async def poll(self, max_age: float) -> Polled:
        """
        Return the result there is, or join the request that is under way, or send one.

        :param max_age: how old a result may be, in seconds; the one that the evaluation has ended may be older.
        :raises OxenAuthenticationError: the hub refused the key. Any other failure is part of the result.
        """
        while True:
            last = self._result
            if last is not None and (_has_ended(last) or time.monotonic() - self._at_monotonic <= max_age):
                return Polled(last, self._at_monotonic)
            if self._joined is None:
                polled = await self._ask_for_all()
                break
            joined: asyncio.Future[Polled | None] = asyncio.get_running_loop().create_future()
            self._joined.append(joined)
            shared = await joined
            if shared is not None:
                polled = shared
                break
        if isinstance(polled.result, OxenAuthenticationError):
            raise polled.result
        return polled

    def sleep(self, seconds: float) -> asyncio.Future[None]:
        """Return a future that is done after so many seconds, or once the evaluation is seen to have ended."""
        wake_up = self._client.ticks.after(seconds)
        if len(self._asleep) > 2 * (self.waits - 1):  # seldom enough for thousands of waits, each time for one
            self._asleep[:] = filterfalse(asyncio.Future.done, self._asleep)
        self._asleep.append(wake_up)
        return wake_up

    def leave(self) -> None:
        """End one wait's share."""
        self.waits -= 1
        if self.waits == 0:
            self._client.forget(self._ref)

    async def _ask_for_all(self) -> Polled:
        joined = self._joined = []
        polled = None
        try:
            try:
                polled = Polled(await self._ask(), time.monotonic())
            except OxenError as error:
                polled = Polled(error, time.monotonic())
        finally:
            self._joined = None
            for future in joined:
                if not future.done():
                    future.set_result(polled)
        # A refusal is kept for no later wait: a person may have acted since.
        result, self._at_monotonic = polled
        self._result = result if isinstance(result, (Evaluation, OxenTransientError)) else None
        if _has_ended(result):
            for wake_up in self._asleep:
                if not wake_up.done():
                    wake_up.set_result(None)
        return polled

    def _ask(self) -> Awaitable[Evaluation]:
        return self._ask_first() if self._url is None else self._client.ask(self._call, self._url)

    async def _ask_first(self) -> Evaluation:
        self._url = await self._client.build_url(self._call)
        return await self._client.ask(self._call, self._url)


class LastParsed(Generic[T]):
    """
    Parses the bodies of one call's responses. Where one equals the body before, the result is the same value.

    The hash of that body is kept and not the body itself, of which thousands of waits would keep one each. It has 64
    bits, so that another body has the same one less often than memory fails.

    :param parse: that of the call.
    """

    __slots__ = ("_hash", "_parse", "_result")

    def __init__(self, parse: Callable[[bytes, str], T]) -> None:
        self._parse = parse
        self._hash: int | None = None
        self._result: T | None = None

    def __call__(self, body: bytes, secret: str) -> T:
        """Parse a body, or return what the one before gave. Raises as the parser does."""
        found = hash((body, secret))
        result = self._result if found == self._hash else None
        if result is None:
            result = self._result = self._parse(body, secret)
            self._hash = found
        return result


class Ticks:
    """
    Ends sleeps, those of one tick together: one timer for all of them.

    A few are woken at once, and each wait that sleeps again wakes the next. Where that is too slow, because the hub is,
    the others are woken as well, in parts, within four fifths of a tick.
    """

    def __init__(self) -> None:
        #: By time and length of the tick; the length is 0 for a part of an earlier one.
        self._due: dict[tuple[float, float], tuple[asyncio.TimerHandle, list[asyncio.Future[None]]]] = {}
        self._ready: deque[asyncio.Future[None]] = deque()  # due, and not woken at once; also some that have woken

    def __len__(self) -> int:
        return len(self._due)

    def after(self, seconds: float) -> asyncio.Future[None]:
        """Return a future that is done after at least so many seconds."""
        loop = asyncio.get_running_loop()
        tick = next(tick for shortest, tick in _TICKS if seconds >= shortest)
        wake_up: asyncio.Future[None] = loop.create_future()
        self._add(math.ceil((loop.time() + seconds) / tick) * tick, tick, [wake_up])
        while self._ready:
            ready = self._ready.popleft()
            if not ready.done():
                ready.set_result(None)
                break
        return wake_up

    def cancel(self) -> None:
        """Stop all timers. Call it when no wait sleeps any more."""
        for timer, _ in self._due.values():
            timer.cancel()
        self._due.clear()
        self._ready.clear()

    def _add(self, at: float, tick: float, sleeps: list[asyncio.Future[None]]) -> None:
        due = self._due.get((at, tick))
        if due is None:
            self._due[at, tick] = (asyncio.get_running_loop().call_at(at, self._wake, at, tick), sleeps)
        else:
            due[1].extend(sleeps)

    def _wake(self, at: float, tick: float) -> None:
        sleeps = list(filterfalse(asyncio.Future.done, self._due.pop((at, tick))[1]))
        at_once = _AWAKE if tick else len(sleeps)
        for wake_up in sleeps[:at_once]:
            wake_up.set_result(None)
        if others := sleeps[at_once:]:
            self._ready.extend(others)
            began = max(at, asyncio.get_running_loop().time())  # later, where the loop has stood still
            size = math.ceil(len(others) / _PARTS)
            for number, first in enumerate(range(0, len(others), size), start=1):
                self._add(began + number * tick / _PARTS_OF_TICK, 0.0, others[first : first + size])


def _has_ended(result: Evaluation | OxenError) -> bool:
    return isinstance(result, Evaluation) and result.is_terminal
