"""Calls of about two seconds, whatever the ticks cost."""

import pytest

from controller.loop import schedule
from launch.planner import CALL_SECONDS, Planner

SCHEDULE = schedule(rounds=4, child_steps=3, policy_steps=2, warmup_rounds=1)
CHILD, POLICY = 0.3, 0.9


def seconds(round, tick, count):
    """What a call costs: of warm-up rounds 3 child steps, of others 2 more."""
    total = 0.0
    for _ in range(count):
        total += CHILD if tick < 3 else POLICY
        tick += 1
        if tick == (3 if round == 0 else 5):
            round, tick = round + 1, 0
    return total, (round, tick)


def calls(planner):
    """Plans and observes calls to the end; their ticks and seconds."""
    position, made = (0, 0), []
    while ticks := planner.ticks(*position):
        cost, after = seconds(*position, ticks)
        planner.observe(*position, ticks, cost)
        made.append((ticks, cost))
        position = after
    assert position == (4, 0)
    return made


def test_the_first_tick_of_each_kind_is_timed_alone_and_no_call_is_long():
    made = calls(Planner(SCHEDULE, 4, 256))
    assert made[0][0] == 1
    # The second call ends where the first policy step is: its cost is not known yet.
    assert [ticks for ticks, _ in made[:3]] == [1, 5, 1]
    assert all(cost <= CALL_SECONDS + 1e-9 for _, cost in made)
    assert sum(ticks for ticks, _ in made) == 3 + 3 * 5


def test_a_tick_longer_than_a_call_runs_alone():
    planner = Planner(SCHEDULE, 4, 256)
    planner.observe(0, 0, 1, 60.0)
    assert planner.ticks(0, 1) == 1


def test_fixed_calls_and_the_room_of_the_log_bound_the_ticks():
    made = calls(Planner(SCHEDULE, 4, 256, fixed=7))
    assert [ticks for ticks, _ in made] == [7, 7, 4]
    planner = Planner(SCHEDULE, 4, 2)
    planner.observe(0, 0, 1, 1e-6)
    assert planner.ticks(0, 1) == 2


def test_a_mixed_call_scales_both_costs():
    planner = Planner(SCHEDULE, 4, 256)
    planner.observe(0, 0, 3, 3 * CHILD)
    planner.observe(1, 3, 2, 2 * POLICY)
    round_seconds = 3 * CHILD + 2 * POLICY
    assert planner.remaining_seconds(1, 0) == pytest.approx(3 * round_seconds)
    planner.observe(1, 0, 5, 2 * round_seconds)
    assert planner.remaining_seconds(3, 4) == pytest.approx(2 * POLICY)
    assert planner.remaining_seconds(3, 1) == pytest.approx(4 * CHILD + 4 * POLICY)


def test_ticks_are_counted_over_phases():
    planner = Planner(SCHEDULE, 4, 256)
    assert planner.total() == 18
    assert planner.done(0, 2) == 2
    assert planner.done(2, 1) == 3 + 5 + 1
