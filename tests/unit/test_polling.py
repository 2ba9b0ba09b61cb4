"""How long to sleep after failures. The schedule of polls has its tests in ``test_poll_schedule.py``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.polling import backoff_seconds

RANGES = st.tuples(st.floats(0.01, 1e5), st.floats(1, 1e3)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@given(st.integers(1, 10**6), RANGES, st.floats(0, 1))
def test_backoff_is_between_the_bounds(attempts: int, bounds: tuple[float, float], jitter: float) -> None:
    """However often it failed, a backoff is from half of the shortest to the longest time."""
    low, high = bounds

    assert low / 2 <= backoff_seconds(attempts, poke_interval=low, max_wait=high, jitter=jitter) <= high


def test_backoff_doubles() -> None:
    """Each backoff is twice the one before, up to the longest."""
    steps = [backoff_seconds(attempts, poke_interval=10, max_wait=60, jitter=1.0) for attempts in range(1, 6)]

    assert steps == [10, 20, 40, 60, 60]


def test_half_of_a_backoff_is_drawn() -> None:
    """Waits that failed together come back spread over half of the backoff."""
    spread = [backoff_seconds(3, poke_interval=10, max_wait=60, jitter=jitter) for jitter in (0.0, 0.5, 1.0)]

    assert spread == [20, 30, 40]
