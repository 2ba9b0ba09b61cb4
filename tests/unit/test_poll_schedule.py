"""The poll schedule: its targets on a small corpus, and what holds whatever was seen."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_oxen.polling import History, remember, seconds_left, seconds_to_first_poll, seconds_to_next_poll
from benchmarks.policies import CANDIDATES, SHIPPED, Candidate, Fixed, Shipped
from benchmarks.poll_schedule import compare, fixed, herd, measure, simulate
from benchmarks.traces import DURATIONS, FAMILIES, corpus

POKE, LONGEST = 5.0, 60.0
choose = partial(seconds_to_next_poll, poke_interval=POKE, max_wait=LONGEST)

jitters = st.floats(0.0, 1.0)
counts = st.none() | st.integers(0, 2**63 - 1)
statuses = st.sampled_from(["queued", "running", "committing", "paused", ""])
#: Polls as a hostile hub makes them, and a clock that is set now and then.
polls = st.lists(st.tuples(st.floats(-1e12, 1e12), statuses, counts, counts), min_size=1, max_size=12)


def history_of(*seen: tuple[float, str, int | None, int | None]) -> History:
    history = None
    for at, status, processed, total in seen:
        history = remember(history, at=at, status=status, processed=processed, total=total)
    assert history is not None
    return history


def running(*seen: tuple[float, int], total: int | None = 1_000) -> History:
    return history_of((0.0, "queued", 0, 0), *((at, "running", rows, total) for at, rows in seen))


@pytest.fixture(scope="module")
def shipped():
    return compare({SHIPPED: CANDIDATES[SHIPPED]}, traces_each=25, seed=11, fixed_intervals=False)[SHIPPED]


# The targets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nominal", DURATIONS[1:])
def test_a_quarter_of_the_polls_of_a_fixed_interval_is_enough(shipped, nominal):
    """The schedule makes at most a quarter of the polls that a fixed ``poke_interval`` makes."""
    assert shipped["all"][nominal].share <= 0.25


@pytest.mark.parametrize("nominal", [600.0, 3_600.0])
def test_delay_is_at_most_half_of_that_of_an_equal_fixed_interval(shipped, nominal):
    """Against a fixed interval that makes as many polls, the end is noticed in at most half the time."""
    assert shipped["progress"][nominal].ratio <= 0.5


def test_no_delay_is_longer_than_max_wait(shipped):
    """No end is noticed later than ``max_wait``."""
    assert max(score.worst for score in shipped["all"].values()) <= LONGEST


def test_waits_that_began_together_spread():
    """A thousand waits begun in one second: the busiest second of a later minute has no more than 4 times the mean."""
    assert max(herd(CANDIDATES[SHIPPED], waits=1_000).values()) < 4.0


# Whatever was seen ---------------------------------------------------------------------------------------------------


@given(polls, st.floats(0.01, 1e4), st.floats(0.0, 1e5), jitters)
def test_sleep_lies_between_poke_interval_and_max_wait(seen, poke_interval, more, jitter):
    """Whatever was seen, a sleep keeps to the two bounds."""
    max_wait = poke_interval + more
    history = None
    for at, status, processed, total in seen:
        history = remember(history, at=at, status=status, processed=processed, total=total)
        seconds = seconds_to_next_poll(history, poke_interval=poke_interval, max_wait=max_wait, jitter=jitter)
        assert poke_interval <= seconds <= max_wait


@given(polls)
def test_time_left_is_none_or_a_finite_number(seen):
    """Whatever was seen, the estimate is None or a number of seconds that can be shown."""
    left = seconds_left(history_of(*seen))
    assert left is None or (left >= 0 and math.isfinite(left))


@given(polls)
def test_history_keeps_the_most_rows_seen_in_a_phase(seen):
    """Rows that go backwards count as standing still."""
    history = history_of(*seen)
    phase = []
    for _, status, processed, _ in reversed(seen):
        if status != history.status:
            break
        phase.append(processed)
    assert history.processed == max((rows for rows in phase if rows is not None), default=None)


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.floats(1.0, 1e5), jitters, st.integers(1, 10**9))
def test_more_rows_left_never_shorten_the_sleep(rows, rest, took, jitter, more):
    """With more rows left to do, all else equal, a sleep is as long or longer."""
    near = running((1.0, 0), (1.0 + took, rows), total=rows + rest)
    assert choose(near, jitter=jitter) <= choose(near._replace(total=rows + rest + more), jitter=jitter)


@given(st.integers(1, 10**6), st.floats(1.0, 1e5), st.floats(0.0, 1.0), jitters)
def test_near_the_end_the_sleep_is_poke_interval(rows, took, near, jitter):
    """With no more than two poke intervals left, jitter or not."""
    rest = int(near * 2 * POKE * rows / took)
    history = running((1.0, 0), (1.0 + took, rows), total=rows + rest)
    assert choose(history, jitter=jitter) == POKE


@given(st.floats(1.0, 500.0), jitters)
def test_a_commit_is_polled_every_poke_interval(age, jitter):
    """In its first minutes a commit may end at any moment, so it is polled as often as allowed."""
    history = history_of((0.0, "running", 9, 10), (60.0, "committing", 10, 10), (60.0 + age, "committing", 10, 10))
    assert choose(history, jitter=jitter) == POKE


@pytest.mark.parametrize("status", ["queued", "running", "committing", "paused"])
def test_nothing_new_lengthens_the_sleep(status):
    """While nothing changes, each sleep is at least as long as the one before."""
    history = history_of((0.0, "", None, None), (5.0, status, None, None))
    sleeps = []
    for at in (10.0, 100.0, 1_000.0, 10_000.0):
        history = remember(history, at=at, status=status, processed=None, total=None)
        sleeps.append(choose(history, jitter=0.0))
    assert sleeps == sorted(sleeps)
    assert sleeps[-1] > 4 * POKE


def test_a_queue_is_polled_less_than_a_run_of_unknown_length():
    """In a queue, the whole run is still to come: a sleep is twice as long."""
    queued, blind = (history_of((0.0, "", None, None), (5.0, s, 0, 0), (85.0, s, 0, 0)) for s in ("queued", "running"))
    assert choose(queued, jitter=0.0) == 2 * choose(blind, jitter=0.0) == 40.0


# Jitter --------------------------------------------------------------------------------------------------------------


@given(polls.map(lambda seen: seen[:1]), jitters, jitters)
def test_first_sleeps_of_two_waits_differ_as_their_jitter_does(seen, one, other):
    """Waits that began in the same second spread over one ``poke_interval`` at once."""
    sleeps = [choose(history_of(*seen), jitter=jitter) for jitter in (one, other)]
    assert abs(sleeps[0] - sleeps[1]) == pytest.approx(POKE * abs(one - other), abs=1e-9)


@given(jitters)
def test_jitter_takes_up_to_a_quarter_off_a_sleep(jitter):
    """Jitter shortens a sleep, by a quarter at most."""
    two_minutes_left = running((5.0, 0), (65.0, 600), (125.0, 1_200), total=2_400)
    assert choose(two_minutes_left, jitter=jitter) == pytest.approx(60.0 * (1 - 0.25 * jitter))


def test_sleep_that_would_be_far_longer_is_max_wait_whatever_is_drawn():
    """Far from the end, a sleep is ``max_wait`` without jitter."""
    far = running((5.0, 0), (65.0, 1), (125.0, 2))
    assert {choose(far, jitter=jitter) for jitter in (0.0, 0.5, 1.0)} == {LONGEST}


def test_where_max_wait_is_poke_interval_every_sleep_is():
    """Equal bounds make a fixed interval."""
    for history in (history_of((0.0, "queued", None, None)), running((5.0, 0), (65.0, 1))):
        assert seconds_to_next_poll(history, poke_interval=POKE, max_wait=POKE, jitter=0.7) == POKE


# Another process -----------------------------------------------------------------------------------------------------

go_on = partial(seconds_to_first_poll, poke_interval=POKE, max_wait=LONGEST)


@given(polls, st.floats(-1e12, 1e12), jitters)
def test_first_poll_of_another_process_is_within_max_wait(seen, now, jitter):
    """Whatever was seen, and however long ago, the first poll is not later than ``max_wait``."""
    assert 0.0 <= go_on(history_of(*seen), now=now, jitter=jitter) <= LONGEST


@given(polls, jitters, st.floats(0.0, 0.99))
def test_another_process_polls_when_the_one_before_would_have(seen, jitter, share):
    """A process that begins before the next poll is due polls when it is due."""
    history = history_of(*seen[:1])
    planned = choose(history, jitter=jitter)
    passed = share * planned
    assert passed + go_on(history._replace(at=0.0, began_at=0.0), now=passed, jitter=jitter) == pytest.approx(planned)


@pytest.mark.parametrize("status", ["queued", "running"])
def test_waits_that_are_taken_over_together_spread_over_max_wait(status):
    """Ten thousand waits of an hour ago: in each tenth of ``max_wait``, a tenth of them polls."""
    draw = random.Random(3).random
    history = history_of((0.0, status, 0, 90))
    firsts = [go_on(history, now=3_600.0, jitter=draw()) for _ in range(10_000)]
    for tenth in range(10):
        assert sum(tenth <= 10 * first / LONGEST < tenth + 1 for first in firsts) == pytest.approx(1_000, abs=120)


def test_a_commit_that_is_taken_over_is_polled_soon():
    """A commit may end at any moment, so it spreads over ``poke_interval`` alone."""
    assert max(go_on(history_of((0.0, "committing", 9, 9)), now=300.0, jitter=j) for j in (0.0, 0.5, 1.0)) == POKE


# The estimate --------------------------------------------------------------------------------------------------------


def test_time_left_is_rows_left_at_the_speed_of_the_last_movement():
    """The rows left are divided by the speed seen last."""
    assert seconds_left(running((10.0, 0), (20.0, 100))) == pytest.approx(90.0)


def test_a_change_of_pace_is_followed_at_once():
    """Ten times slower in the last minute: the estimate is within a fifth of what that pace gives."""
    assert seconds_left(running((10.0, 0), (70.0, 600), (130.0, 660))) == pytest.approx(340.0, rel=0.5)
    assert seconds_left(running((10.0, 0), (70.0, 60), (130.0, 660))) == pytest.approx(34.0, rel=0.2)


def test_a_batch_in_the_making_shortens_the_time_left():
    """Time since the last movement counts towards the batch that is under way."""
    batch = running((0.5, 0), (60.5, 250))
    assert seconds_left(remember(batch, at=90.5, status="running", processed=250, total=1_000)) == pytest.approx(150.0)


def test_a_stall_shortens_the_time_left_by_no_more_than_a_batch():
    """A run that stands still is not taken for one that is about to end."""
    stalled = remember(running((0.5, 0), (60.5, 250)), at=36_000.0, status="running", processed=250, total=1_000)
    assert seconds_left(stalled) == pytest.approx(120.0)


def test_a_stall_at_the_last_row_is_polled_less_and_less():
    """A run that stands still at its last row for hours does not cost a poll every ``poke_interval``."""
    trace = replace(next(corpus(traces_each=1)), queued=0.0, running=36_000.0, committing=1.0, rows=1_000)
    stuck = replace(trace, curve=lambda share: min(share * 360, 0.9995))
    run = simulate(Shipped, stuck, random.Random(1))
    assert run.polls < 700
    assert run.delay <= LONGEST


@pytest.mark.parametrize(
    "history",
    [
        running((5.0, 0)),
        running((5.0, 0), (10.0, 0)),
        running((5.0, 0), (10.0, 5), total=None),
        running((5.0, 0), (10.0, 5), total=0),
        running((5.0, 0), (10.0, 1_000)),
        history_of((0.0, "running", 0, 10), (5.0, "running", 5, 10), (9.0, "committing", 5, 10)),
    ],
    ids=["first poll", "none moved", "no total", "total of 0", "all done", "new status"],
)
def test_time_left_is_none_where_it_cannot_be_known(history):
    """Without a movement, a total or rows left, there is no estimate."""
    assert seconds_left(history) is None


# The benchmark -------------------------------------------------------------------------------------------------------


def test_candidate_without_arguments_is_the_shipped_schedule():
    """Each candidate therefore differs from the shipped schedule only in what its name says."""
    for trace in corpus(traces_each=2, seed=3):
        runs = [simulate(policy, trace, random.Random(4)) for policy in (Shipped, Candidate)]
        assert runs[0].polls == runs[1].polls
        assert runs[0].delay == pytest.approx(runs[1].delay, abs=1e-6)


@pytest.mark.parametrize("interval", [5.0, 45.0])
def test_fixed_intervals_are_computed_as_simulation_gives(interval):
    """The formula for fixed intervals gives what simulating them gives."""
    for trace in corpus(traces_each=2, seed=3, durations=(60.0, 600.0)):
        computed = fixed(interval, trace, random.Random(4))
        assert computed == pytest.approx(simulate(partial(Fixed, interval), trace, random.Random(4)))


def test_traces_only_go_forward_and_end():
    """Each trace goes through the statuses in order, its rows never fall, and it completes."""
    order = ["queued", "running", "committing", "completed"]
    for trace in corpus(traces_each=3, seed=5, durations=(60.0, 3_600.0)):
        seen = [trace.at(trace.ends_at * i / 300) for i in range(302)]
        assert seen[-1] == ("completed", trace.rows, trace.rows)
        assert all(order.index(a[0]) <= order.index(b[0]) for a, b in pairwise(seen))
        rows = [processed for _, processed, _ in seen if processed is not None]
        assert rows == sorted(rows)


def test_the_corpus_is_the_same_for_the_same_seed():
    """A seed makes the same runs each time, of every family."""

    def runs(seed: int):
        return measure(partial(simulate, Shipped), corpus(traces_each=1, seed=seed, durations=(600.0,)))

    assert runs(1) == runs(1) != runs(2)
    assert {family for family, _ in runs(1)} == set(FAMILIES)
