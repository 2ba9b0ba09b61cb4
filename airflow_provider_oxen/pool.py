"""
What the waits of one process share: connections, looks at the same evaluation, and the pause a rate limit asks for.

How this works
--------------
A triggerer runs thousands of waits on one event loop. Each joins the :class:`SharedClient` of its configuration and
leaves it when it ends. The first to come opens an aiohttp session, the others use the same one, and the last to leave
closes it; so there are at most ``max_connections`` sockets to a hub, whatever the number of waits. A client is shared
only by waits of the same event loop (aiohttp's sessions are bound to theirs) and of equal configuration (host, key, TLS
settings): a rotated key makes a new one. Requests beyond ``max_connections`` stand in line, first come, first served;
the time a request may take does not run before its turn, so that a crowd makes looks late and not failures. Only where
the hub has answered nobody for as long as a request may take, those who stood in line all that time fail with the
others: a hub that hangs must not hold them there, one after the other, past their deadlines.

*Looks at the same evaluation* go through one :class:`SharedEvaluation`. Who looks says how old an answer may be: a wait
takes one that is at most half as old as the sleep it comes from, and reckons its next sleep from the answer's time. So
what it knows is never older than that sleep, as if it were alone, and the hub is asked at most twice as often as by the
one of them that sleeps least: as much as two waits cost. A request under way is joined. Its failure is that of all who
joined, each of which counts it as its own; where its owner is cancelled, one of the others asks instead. The answer
that the evaluation has ended wakes all who sleep until they look at it again: nobody learns of it later than the first.

A fresh wait may take an answer, too, that is at most half of its shortest sleep old. It cannot mistake an earlier run
for its own, for a run's id is its own; and a refusal is kept for nobody, since a person may have mended its cause.

*Sleeps* end on common ticks. What is due in the same twentieth of a second is done at one go, which takes about a third
off the CPU a poll where many wait: most of it is waking up.

When the hub answers 429, nobody who shares the client asks it again before the pause is over: their requests end at
once in an :class:`OxenRateLimitError` that says how long is left, without a byte being sent. How a wait takes that is
decided in ``wait``, as for any error; it adds its own jitter, so that they do not all come back together.

This is the only module with state of its own, ``_clients``, because what is shared must be found by waits that know
nothing of each other. It holds nothing that outlives the last wait.

The rule that binds the next person: whatever is opened here is closed by the last who leaves, also when that one is
cancelled.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from airflow_provider_oxen.api import (
    MAX_RETRY_AFTER_SECONDS,
    Request,
    Response,
    build_evaluation_request,
    read_evaluation_response,
)
from airflow_provider_oxen.client import async_session, read_url, send_async
from airflow_provider_oxen.config import ClientConfig
from airflow_provider_oxen.exceptions import OxenError, OxenRateLimitError, OxenTransientError, OxenUnreachableError
from airflow_provider_oxen.models import Evaluation, EvaluationRef

if TYPE_CHECKING:
    import aiohttp
    import yarl

__all__ = ["Look", "SharedClient", "SharedEvaluation", "join"]

#: Pause after a 429 that names none, in seconds; doubled with each further one.
_FIRST_PAUSE_SECONDS = 10.0
#: Sleeps end on multiples of this, in seconds: late by less than anyone notices, and fifty looks at a time where a
#: thousand a second are due, which is a few milliseconds' work.
_TICK_SECONDS = 0.05
#: Ticks of sleeps too short to be seconds in earnest, for which the other would be late.
_SHORT_SECONDS, _SHORT_TICK_SECONDS = 0.5, 0.001

_T = TypeVar("_T")
_clients: dict[tuple[asyncio.AbstractEventLoop, ClientConfig], SharedClient] = {}


class Look(NamedTuple):
    """
    What a look brought.

    :param seen: the evaluation, or why there is none.
    :param at_monotonic: when that was known, in seconds on this process's steady clock.
    """

    seen: Evaluation | OxenError
    at_monotonic: float


def join(config: ClientConfig) -> SharedClient:
    """Use the client of a configuration on the running event loop, made for the first who asks. Leave it at the end."""
    key = (asyncio.get_running_loop(), config)
    client = _clients.get(key)
    if client is None:
        client = _clients[key] = SharedClient(config)
    client.waits += 1
    return client


class SharedClient:
    """Requests to one hub, by all the waits of one event loop that use the same configuration."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.waits = 0
        self.requests = 0
        self.alarms = _Alarms()
        self._evaluations: dict[EvaluationRef, SharedEvaluation] = {}
        self._turns = asyncio.Semaphore(config.max_connections)
        self._opening = asyncio.Lock()
        self._opened: AbstractAsyncContextManager[aiohttp.ClientSession] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._answered_at_monotonic = 0.0
        self._quiet_from_monotonic = 0.0
        self._quiet_until_monotonic = 0.0
        self._limits_in_a_row = 0

    def __repr__(self) -> str:
        return f"<SharedClient {self.config.base_url}: {self.waits} waits, {self.requests} requests under way>"

    def share(self, ref: EvaluationRef) -> SharedEvaluation:
        """
        Share the looks at an evaluation. Leave it at the end.

        :raises OxenConfigError: the reference cannot stand in a path.
        """
        shared = self._evaluations.get(ref)
        if shared is None:
            shared = self._evaluations[ref] = SharedEvaluation(self, ref)
        shared.waits += 1
        return shared

    async def get_evaluation(self, ref: EvaluationRef) -> Evaluation:
        """Ask for an evaluation as it stands now, in a request of one's own."""
        return await SharedEvaluation(self, ref).ask()

    async def ask(self, request: Request, url: yarl.URL | None, read: Callable[[Response], _T]) -> _T:
        """
        Send a request and read its response.

        :param url: where a caller keeps it, the request's address as :func:`read_url` gives it.
        :param read: turns the response into what was asked for, or raises an :class:`OxenRequestError`.
        :raises OxenRequestError: what ``read`` raises; or no response came, to this or to any before it in line; or the
            hub asked for a pause that is not over.
        """
        session = self._session or await self._open()
        stands_since = time.monotonic()
        async with self._turns:
            sent_at = time.monotonic()
            silent_for = sent_at - max(stands_since, self._answered_at_monotonic)
            if silent_for >= self.config.timeout_seconds:
                raise OxenUnreachableError(
                    f"not sent: it stood in line, and the hub answered nobody for {silent_for:.0f} s "
                    f"({self.config.base_url})",
                    request=str(request),
                )
            quiet_for = self._quiet_until_monotonic - sent_at
            if quiet_for > 0:
                raise OxenRateLimitError(
                    f"not sent: the hub answered 429 and asked for a pause, of which {quiet_for:.1f} s are left",
                    request=str(request),
                    retry_after_seconds=quiet_for,
                )
            self.requests += 1
            try:
                response = await send_async(session, self.config, request, url)
            finally:
                self.requests -= 1
            self._answered_at_monotonic = time.monotonic()
        try:
            answer = read(response)
        except OxenRateLimitError as error:
            error.retry_after_seconds = self._pause(error.retry_after_seconds, sent_at)
            raise
        self._limits_in_a_row = 0
        return answer

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                self._opened = async_session(self.config)
                self._session = await self._opened.__aenter__()
            return self._session

    def _pause(self, asked_for: float | None, sent_at: float) -> float:
        """Begin a pause, or lengthen the one that began while the request was under way; give its seconds."""
        now = time.monotonic()
        if sent_at >= self._quiet_from_monotonic:
            self._limits_in_a_row += 1
            self._quiet_from_monotonic = now
        if asked_for is None:
            doubled = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._limits_in_a_row - 1, 20)
            asked_for = min(doubled, MAX_RETRY_AFTER_SECONDS) - (now - self._quiet_from_monotonic)
        self._quiet_until_monotonic = max(self._quiet_until_monotonic, now + asked_for)
        return self._quiet_until_monotonic - now

    def forget(self, ref: EvaluationRef) -> None:
        """Share an evaluation no longer. For the last who leaves it."""
        del self._evaluations[ref]

    async def leave(self) -> None:
        """Leave the connections to the others; the last closes them."""
        self.waits -= 1
        if self.waits == 0:
            del _clients[asyncio.get_running_loop(), self.config]
            self.alarms.cancel()
            if self._opened is not None:
                # A task that is being cancelled still closes what it opened.
                await asyncio.shield(self._opened.__aexit__(None, None, None))


class SharedEvaluation:
    """Looks at one evaluation, by all the waits of a :class:`SharedClient` that wait for it."""

    __slots__ = ("_asleep", "_client", "_joined", "_last", "_ref", "_request", "_url", "waits")

    def __init__(self, client: SharedClient, ref: EvaluationRef) -> None:
        self.waits = 0
        self._client = client
        self._ref = ref
        self._request = build_evaluation_request(client.config, ref)
        self._url: yarl.URL | None = None
        self._last: Look | None = None
        self._joined: list[asyncio.Future[Look | None]] | None = None  # None: no request is under way
        self._asleep: set[asyncio.Future[None]] = set()  # thousands may sleep here, and wake in any order

    async def look(self, max_age: float) -> Look:
        """
        Give the answer there is, or join the request that is under way, or ask.

        :param max_age: how old an answer may be, in seconds; the one that the evaluation has ended may be older.
        """
        while True:
            last = self._last
            if last is not None and (_has_ended(last) or time.monotonic() - last.at_monotonic <= max_age):
                return last
            if self._joined is None:
                return await self._look_for_all()
            answered: asyncio.Future[Look | None] = asyncio.get_running_loop().create_future()
            self._joined.append(answered)
            look = await answered
            if look is not None:
                return look

    async def sleep(self, seconds: float) -> None:
        """Sleep, until the evaluation is seen to have ended at the latest."""
        alarm = self._client.alarms.set(seconds)
        self._asleep.add(alarm)
        try:
            await alarm
        finally:
            self._asleep.remove(alarm)

    async def ask(self) -> Evaluation:
        """Ask the hub. Raises as :meth:`SharedClient.ask`."""
        if self._url is None:
            self._url = read_url(self._request)
        return await self._client.ask(self._request, self._url, self._read)

    def leave(self) -> None:
        """Look no more."""
        self.waits -= 1
        if self.waits == 0:
            self._client.forget(self._ref)

    async def _look_for_all(self) -> Look:
        joined = self._joined = []
        look = None
        try:
            try:
                look = Look(await self.ask(), time.monotonic())
            except OxenError as error:
                look = Look(error, time.monotonic())
        finally:
            self._joined = None
            for answered in joined:
                if not answered.done():
                    answered.set_result(look)
        self._last = look if isinstance(look.seen, (Evaluation, OxenTransientError)) else None
        if _has_ended(look):
            for alarm in self._asleep:
                if not alarm.done():
                    alarm.set_result(None)
        return look

    def _read(self, response: Response) -> Evaluation:
        now = datetime.now(tz=timezone.utc)
        return read_evaluation_response(self._request, response, evaluation_id=self._ref.evaluation_id, now=now)


class _Alarms:
    """Ends sleeps, those of one tick together: one timer for all of them."""

    def __init__(self) -> None:
        self._ticks: dict[float, tuple[asyncio.TimerHandle, list[asyncio.Future[None]]]] = {}

    def set(self, seconds: float) -> asyncio.Future[None]:
        """Give what is done after at least so many seconds."""
        loop = asyncio.get_running_loop()
        tick = _TICK_SECONDS if seconds >= _SHORT_SECONDS else _SHORT_TICK_SECONDS
        at = math.ceil((loop.time() + seconds) / tick) * tick
        alarm: asyncio.Future[None] = loop.create_future()
        due = self._ticks.get(at)
        if due is None:
            self._ticks[at] = (loop.call_at(at, self._ring, at), [alarm])
        else:
            due[1].append(alarm)
        return alarm

    def _ring(self, at: float) -> None:
        for alarm in self._ticks.pop(at)[1]:
            if not alarm.done():
                alarm.set_result(None)

    def cancel(self) -> None:
        for timer, _ in self._ticks.values():
            timer.cancel()
        self._ticks.clear()


def _has_ended(look: Look) -> bool:
    return isinstance(look.seen, Evaluation) and look.seen.is_terminal
