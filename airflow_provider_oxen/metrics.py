"""
What is counted for the people who operate this, under which names, and how it reaches Airflow's metrics.

How this works
--------------
1. A :class:`Recorder` counts what one process does with one Airflow connection. Without metrics, it does nothing.
2. Sending a number takes about 15 µs and a poll about 190, so a poll only adds to sums. The sums are sent by the first
   poll after :data:`SEND_EVERY_SECONDS`, and by the last wait that leaves. There is no timer to stop.
3. What happens once a wait, its outcome, is sent at once.
4. Not every receiver gets tags. What would be lost without one also has a name of its own: ``oxen.failures`` with the
   tag ``error`` is ``oxen.failures.server`` as well.
5. Airflow's OpenTelemetry exports a gauge only if it was set since the export before. So the number of waits is sent
   again with the sums.

The rule that must not be broken: metrics never fail a wait. What sending them raises is logged once, and ends them.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from airflow_provider_oxen.exceptions import OxenError
    from airflow_provider_oxen.outcomes import Outcome

__all__ = ["METRICS", "SEND_EVERY_SECONDS", "Metric", "Recorder", "Stats", "StatsRecorder", "error_name"]

#: How long a poll's numbers may wait for others, in seconds. OpenTelemetry exports once a minute, unless it is set.
SEND_EVERY_SECONDS = 10.0

log = logging.getLogger(__name__)


class Stats(Protocol):
    """What is used of Airflow's ``Stats``."""

    def incr(self, stat: str, count: float = 1, *, tags: Mapping[str, str] | None = None) -> object:
        """Add to a counter."""

    def gauge(self, stat: str, value: float, *, tags: Mapping[str, str] | None = None) -> object:
        """Set a gauge."""

    def timing(self, stat: str, dt: float, *, tags: Mapping[str, str] | None = None) -> object:
        """Report a duration, in milliseconds."""


class Metric(NamedTuple):
    """
    One metric, as the documentation lists it.

    :param name: as Airflow gets it; it puts its own prefix before.
    :param kind: ``counter``, ``gauge`` or ``timer``.
    :param tags: the tags that it has.
    :param meaning: what it counts.
    :param split_by: the tag whose value is also the end of a second name; None: there is no second name.
    """

    name: str
    kind: str
    tags: tuple[str, ...]
    meaning: str
    split_by: str | None = None


_OF_A_CONNECTION = ("conn_id", "process")

#: All of them. The table in ``docs/how-to/metrics.md`` is compared with it.
METRICS = (
    Metric("oxen.polls", "counter", _OF_A_CONNECTION, "polls sent; one that several waits share counts once"),
    Metric(
        "oxen.poll_seconds",
        "counter",
        _OF_A_CONNECTION,
        "seconds from sending these polls until the response or the failure, without the time in a queue",
    ),
    Metric(
        "oxen.slowest_poll",
        "timer",
        _OF_A_CONNECTION,
        "the longest of these times in about ten seconds, in milliseconds",
    ),
    Metric(
        "oxen.failures",
        "counter",
        (*_OF_A_CONNECTION, "error"),
        "requests of any kind that were sent and brought no usable response",
        split_by="error",
    ),
    Metric(
        "oxen.rate_limit_pauses",
        "counter",
        _OF_A_CONNECTION,
        "pauses that the hub asked for with 429: in a triggerer one for all waits of a connection",
    ),
    Metric("oxen.waits", "gauge", ("hostname",), "waits that a triggerer runs now", split_by="hostname"),
    Metric(
        "oxen.outcomes",
        "counter",
        (*_OF_A_CONNECTION, "outcome"),
        "waits that ended, each once, when the task's end is decided",
        split_by="outcome",
    ),
    Metric("oxen.rows", "counter", _OF_A_CONNECTION, "rows processed by the evaluations whose end was waited for"),
    Metric("oxen.credits", "counter", _OF_A_CONNECTION, "credits that these evaluations spent"),
    Metric("oxen.tokens", "counter", _OF_A_CONNECTION, "tokens that these evaluations used"),
)


class Recorder:
    """Counts nothing: what is used where Airflow's metrics are off."""

    __slots__ = ()

    def sent(self, seconds: float, now: float, *, is_poll: bool, error: OxenError | None = None) -> None:
        """
        Take note of a request that was sent.

        :param seconds: from sending it until the response or the failure.
        :param now: seconds on a steady clock.
        :param error: why there is no usable response, where there is none.
        """

    def paused(self) -> None:
        """Take note of a pause that the hub asked for."""

    def ended(self, outcome: Outcome) -> None:
        """Take note of the end of a wait, once the task's end is decided."""

    def send(self) -> None:
        """Send what was counted so far."""


class StatsRecorder(Recorder):
    """
    Counts what one process does with one Airflow connection.

    :param stats: Airflow's.
    :param conn_id: id of the connection.
    :param process: ``triggerer`` or ``worker``.
    :param hostname: this machine's name.
    :param count_waits: says how many waits this process runs; None: it is not a triggerer.
    """

    __slots__ = (
        "_count_waits", "_failures", "_has_failed", "_hostname", "_pauses", "_polls", "_seconds", "_send_at",
        "_slowest_seconds", "_stats", "_tags",
    )  # fmt: skip
    _polls: int
    _pauses: int
    _seconds: float
    _slowest_seconds: float
    _failures: Counter[type[OxenError]]

    def __init__(
        self,
        stats: Stats,
        conn_id: str,
        process: str,
        *,
        hostname: str = "",
        count_waits: Callable[[], int] | None = None,
    ) -> None:
        self._stats = stats
        self._tags = {"conn_id": _as_tag(conn_id), "process": process}
        self._hostname = _as_tag(hostname)
        self._count_waits = count_waits
        self._send_at = -math.inf
        self._has_failed = False
        self._forget()

    def open(self) -> None:
        """Let Airflow make what it sends with. That may block: it reads files, and resolves a host name."""
        self._try(lambda: self._stats.incr("oxen.polls", 0, tags=self._tags))

    def sent(self, seconds: float, now: float, *, is_poll: bool, error: OxenError | None = None) -> None:
        """Add a request to the sums, and send them if it is time."""
        if is_poll:
            self._polls += 1
            self._seconds += seconds
            self._slowest_seconds = max(self._slowest_seconds, seconds)
        if error is not None:
            self._failures[type(error)] += 1
        if now >= self._send_at:
            self._send_at = now + SEND_EVERY_SECONDS
            self.send()

    def paused(self) -> None:
        """Add a pause to the sums."""
        self._pauses += 1

    def ended(self, outcome: Outcome) -> None:
        """Send how a wait ended and, where the evaluation has ended, what it took."""
        counted: dict[str, float | None] = {}
        seen = outcome.evaluation
        if seen is not None and seen.is_terminal:
            counted["oxen.rows"] = seen.progress.processed
            counted["oxen.credits"] = seen.credits_used
            counted["oxen.tokens"] = seen.tokens_used
        self._try(lambda: self._send_outcome(str(outcome.reason), counted))

    def send(self) -> None:
        """Send the sums, and begin new ones."""
        self._try(self._send_sums)
        self._forget()

    def _forget(self) -> None:
        self._polls = self._pauses = 0
        self._seconds = self._slowest_seconds = 0.0
        self._failures = Counter()

    def _send_sums(self) -> None:
        stats, tags = self._stats, self._tags
        if self._polls:
            stats.incr("oxen.polls", self._polls, tags=tags)
            stats.incr("oxen.poll_seconds", round(self._seconds, 3), tags=tags)
            stats.timing("oxen.slowest_poll", round(1000 * self._slowest_seconds, 3), tags=tags)
        for kind, count in self._failures.items():
            self._incr_both("oxen.failures", "error", error_name(kind), count)
        if self._pauses:
            stats.incr("oxen.rate_limit_pauses", self._pauses, tags=tags)
        if self._count_waits is not None:
            waits, host = self._count_waits(), {"hostname": self._hostname}
            stats.gauge("oxen.waits", waits, tags=host)
            stats.gauge(f"oxen.waits.{_as_part(self._hostname)}", waits, tags=host)

    def _send_outcome(self, reason: str, counted: Mapping[str, float | None]) -> None:
        self._incr_both("oxen.outcomes", "outcome", reason, 1)
        for name, count in counted.items():
            if count is not None and 0 < count < math.inf:  # Airflow raises where a counter is to go down
                self._stats.incr(name, count, tags=self._tags)

    def _incr_both(self, name: str, tag: str, value: str, count: int) -> None:
        tags = {**self._tags, tag: value}
        self._stats.incr(name, count, tags=tags)
        self._stats.incr(f"{name}.{value}", count, tags=tags)

    def _try(self, send: Callable[[], object]) -> None:
        if self._has_failed:
            return
        try:
            send()
        except Exception as error:  # noqa: BLE001  # Airflow lets users write parts of it
            self._has_failed = True
            log.warning("No metrics from here on: sending them failed (%s: %s)", type(error).__name__, error)


def error_name(kind: type[OxenError]) -> str:
    """Name a class of errors as metrics do: ``OxenRateLimitError`` is ``rate_limit``."""
    words = re.findall("[A-Z][a-z]+", kind.__name__.removeprefix("Oxen").removesuffix("Error"))
    return "_".join(words).lower()


def _as_tag(text: str) -> str:
    """Replace what a tag of some receiver cannot have."""
    return re.sub("[^a-zA-Z0-9_.-]", "_", text)


def _as_part(tag: str) -> str:
    """Make a part of a name, whose parts are separated by dots."""
    return tag.replace(".", "_")
