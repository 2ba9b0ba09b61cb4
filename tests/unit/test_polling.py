"""When to look next: numbers in, seconds out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_oxen.polling import Sample, backoff_seconds, seconds_left, seconds_to_next_look

COUNTS = st.none() | st.integers(0, 2**63 - 1)
SAMPLES = st.lists(
    st.builds(Sample, st.floats(0, 1e10), st.sampled_from(["queued", "running", "new"]), COUNTS, COUNTS),
    min_size=1,
    max_size=8,
)
RANGES = st.tuples(st.floats(0.01, 1e5), st.floats(1, 1e3)).map(lambda pair: (pair[0], pair[0] * pair[1]))


def _next(*seen: Sample, began: float = 0.0, jitter: float = 0.0) -> float:
    return seconds_to_next_look(seen, phase_began_at=began, poke_interval=10, max_wait=300, jitter=jitter)


@settings(deadline=None)
@given(SAMPLES, st.floats(0, 1e10), RANGES, st.floats(0, 1))
def test_next_look_is_between_the_bounds(
    seen: list[Sample], began: float, bounds: tuple[float, float], jitter: float
) -> None:
    """Whatever was seen, in whatever order, the next look comes neither too early nor too late."""
    low, high = bounds

    seconds = seconds_to_next_look(seen, phase_began_at=began, poke_interval=low, max_wait=high, jitter=jitter)

    assert low <= seconds <= high


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


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        ([], None),
        ([(0, "running", 10, 100)], None),
        ([(0, "running", 10, 100), (10, "running", 30, 100)], 35.0),
        ([(0, "queued", 0, 100), (10, "running", 30, 100)], None),
        ([(0, "queued", 0, 0), (10, "running", 20, 100), (20, "running", 40, 100)], 30.0),
        ([(0, "running", None, None), (10, "running", 20, 100), (20, "running", 40, 100)], 30.0),
        ([(0, "running", 30, 100), (10, "running", 30, 100)], None),
        ([(0, "running", 40, 100), (10, "running", 30, 100)], None),
        ([(10, "running", 10, 100), (10, "running", 30, 100)], None),
        ([(0, "running", 10, 100), (10, "running", 100, 100)], None),
        ([(0, "running", 10, 100), (10, "running", 110, 100)], None),
        ([(0, "running", 10, 0), (10, "running", 20, 0)], None),
        ([(0, "running", 10, None), (10, "running", 20, None)], None),
        ([(0, "running", 10, 100), (10, "running", None, 100)], None),
    ],
)
def test_time_left_is_rows_left_at_the_speed_seen(seen: list[tuple], left: float | None) -> None:
    """The time left is told where rows were done in the present status and rows are left, and only there."""
    assert seconds_left([Sample(*one) for one in seen]) == left


def test_half_of_the_time_left_is_slept() -> None:
    """With progress, the next look comes after half of the time left."""
    assert _next(Sample(0, "running", 0, 1_000), Sample(100, "running", 500, 1_000)) == 50


def test_looks_close_in_on_the_end() -> None:
    """Near the estimated end, looks come at the shortest interval."""
    assert _next(Sample(0, "running", 0, 1_000), Sample(100, "running", 950, 1_000)) == 10


def test_step_without_progress_is_a_tenth_of_the_age() -> None:
    """Without progress, the step grows with the time since the status changed."""
    assert [_next(Sample(at, "queued"), began=1_000.0) for at in (1_000, 1_500, 9_000)] == [10, 50, 300]


def test_jitter_adds_a_fifth_at_most() -> None:
    """Jitter makes a step up to a fifth longer."""
    assert [_next(Sample(500, "queued"), jitter=jitter) for jitter in (0.0, 0.5, 1.0)] == pytest.approx([50, 55, 60])
