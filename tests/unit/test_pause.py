"""The pause that a rate limit asks for, with a clock that the test sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.pause import Pause
from airflow_provider_oxen.protocol import MAX_RETRY_AFTER_SECONDS

T0 = 1_000.0


def _limited(*sent_at: float, asked_for: float | None = None, took: float = 0.1) -> Pause:
    """Make the pause after requests that were sent at these times and all got a 429."""
    pause = Pause()
    for at in sent_at:
        pause = pause.after_limit(asked_for=asked_for, sent_at=at, now=at + took)
    return pause


def test_nothing_is_paused_at_first() -> None:
    """Before any 429, a request may be sent at any time."""
    assert Pause().seconds_left(0.0) == Pause().seconds_left(T0) == 0.0


def test_pause_lasts_as_long_as_the_hub_asked_for() -> None:
    """The time counts from the response on, and it passes."""
    pause = Pause().after_limit(asked_for=30.0, sent_at=T0, now=T0 + 1)

    assert [pause.seconds_left(T0 + after) for after in (1, 11, 31, 99)] == [30, 20, 0, 0]


def test_pause_without_a_time_doubles_with_each_limit() -> None:
    """A hub that names no time is given ten seconds, then twice as long each time it limits again."""
    pause, now, lengths = Pause(), T0, []
    for _ in range(4):
        pause = pause.after_limit(asked_for=None, sent_at=now, now=now)
        lengths.append(pause.seconds_left(now))
        now = pause.until

    assert lengths == [10, 20, 40, 80]


def test_other_response_ends_the_row() -> None:
    """After any other response, the next pause is as short as the first."""
    pause = _limited(T0, T0 + 20).after_response().after_limit(asked_for=None, sent_at=T0 + 60, now=T0 + 60)

    assert pause.seconds_left(T0 + 60) == 10


def test_other_response_does_not_end_the_pause() -> None:
    """A response to a request that was under way when the pause began changes nothing about its length."""
    pause = Pause().after_limit(asked_for=30.0, sent_at=T0, now=T0)

    assert pause.after_response().seconds_left(T0 + 10) == 20


def test_other_response_without_a_limit_before_changes_nothing() -> None:
    """Where there was no limit, the same value is kept, since this happens at every poll."""
    pause = Pause()

    assert pause.after_response() is pause


def test_requests_under_way_together_count_once() -> None:
    """Twenty requests that are limited side by side begin one pause, not twenty, each longer than the one before."""
    pause = Pause()
    for number in range(20):
        pause = pause.after_limit(asked_for=None, sent_at=T0 + 0.01 * number, now=T0 + 1 + 0.01 * number)

    assert pause.limits_in_a_row == 1
    assert pause.until == pytest.approx(T0 + 11)


def test_longest_time_that_was_asked_for_counts() -> None:
    """Of several limits at once, the one that asks for most is kept, in either order."""
    pause = Pause()
    for asked_for in (5.0, 60.0, 7.0):
        pause = pause.after_limit(asked_for=asked_for, sent_at=T0, now=T0 + 1)

    assert pause.seconds_left(T0 + 1) == 60


def test_pause_grows_no_longer_than_a_hub_may_ask_for() -> None:
    """However often the hub limits without a time, a pause is an hour at most."""
    pause = _limited(*(T0 + 10_000.0 * number for number in range(40)), took=0.0)

    assert pause.seconds_left(T0 + 10_000.0 * 39) == MAX_RETRY_AFTER_SECONDS


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 30), st.none() | st.floats(0, MAX_RETRY_AFTER_SECONDS)), max_size=12
    )
)
def test_a_limit_never_shortens_a_pause(limits: list[tuple[float, float, float | None]]) -> None:
    """Whatever limits come, each leaves the end of the pause where it was, or later, and an hour away at most."""
    pause, now = Pause(), T0
    for later, took, asked_for in limits:
        now += later
        after = pause.after_limit(asked_for=asked_for, sent_at=now - took, now=now)

        assert after.until >= pause.until
        assert after.seconds_left(now) <= max(MAX_RETRY_AFTER_SECONDS, pause.seconds_left(now)) + 1e-6
        pause = after
