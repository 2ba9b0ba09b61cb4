"""The pause that a rate limit asks for, as a value. The clock is handed in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_oxen.exceptions import OxenRateLimitError
from airflow_provider_oxen.protocol import MAX_RETRY_AFTER_SECONDS, Call

__all__ = ["FIRST_PAUSE_SECONDS", "Pause"]

#: Pause after a 429 that names none, in seconds; doubled with each further one.
FIRST_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pause:
    """
    Whether requests may be sent to a hub. All instants are seconds on one steady clock.

    :param began_at: when the last 429 arrived that was not the response to a request sent before the pause.
    :param until: when requests may be sent again.
    :param limits_in_a_row: how many 429 came one after the other, with no other response between.
    """

    began_at: float = 0.0
    until: float = 0.0
    limits_in_a_row: int = 0

    def seconds_left(self, now: float) -> float:
        """Say how long no request may be sent, in seconds; 0.0 where one may be sent now."""
        return max(self.until - now, 0.0)

    def check(self, call: Call[Any], now: float) -> None:
        """Raise :class:`OxenRateLimitError` where a call may not be sent now."""
        seconds = self.seconds_left(now)
        if seconds > 0:
            raise OxenRateLimitError(
                f"not sent: the hub responded with 429 and asked for a pause, of which {seconds:.1f} s are left",
                request=str(call),
                retry_after_seconds=seconds,
            )

    def after_limit(self, *, asked_for: float | None, sent_at: float, now: float) -> Pause:
        """
        Begin the pause after a 429, or lengthen the one that began while that request was under way.

        :param asked_for: the seconds the hub asked for; None where it named none.
        :param sent_at: when the request was sent. Requests that were under way together count as one.
        """
        began_at, in_a_row = self.began_at, self.limits_in_a_row
        if sent_at >= began_at:
            began_at, in_a_row = now, in_a_row + 1
        if asked_for is None:
            doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(in_a_row - 1, 20)
            asked_for = min(doubled, MAX_RETRY_AFTER_SECONDS) - (now - began_at)
        return Pause(began_at, max(self.until, now + asked_for), in_a_row)

    def after_response(self) -> Pause:
        """Forget the row of limits: another response came."""
        return self if self.limits_in_a_row == 0 else replace(self, limits_in_a_row=0)
