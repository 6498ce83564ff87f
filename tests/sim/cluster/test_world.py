"""The simulated world: order, pauses, ends, clocks, and that a seed fixes everything."""

from __future__ import annotations

import pytest

from tests.sim.cluster.clock import BrokerClock
from tests.sim.cluster.trace import Trace, minimise
from tests.sim.cluster.world import Process, World


def test_events_run_in_order_of_time():
    world, seen = World(1), []
    for delay in (3.0, 1.0, 2.0):
        world.after(delay, lambda: seen.append(world.now_s))
    world.run(2.5)
    assert seen == [1.0, 2.0]
    assert world.now_s == 2.5
    world.run(10.0)
    assert seen == [1.0, 2.0, 3.0]


def test_what_falls_on_one_moment_runs_in_an_order_of_the_seed():
    def order(seed: int) -> tuple[int, ...]:
        world, seen = World(seed), []
        for number in range(3):
            world.after(1.0, seen.append, number)
        world.run(1.0)
        return tuple(seen)

    assert {order(seed) for seed in range(200)} == {
        (0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0),
    }  # fmt: skip
    assert order(7) == order(7)


def test_a_paused_process_does_everything_later_and_in_order():
    world, seen, process = World(1), [], Process("p")
    for number in range(20):
        world.after(1.0 + number / 100, seen.append, number, process=process)
    world.pause(process)
    world.run(5.0)
    assert seen == []
    world.resume(process)
    world.run(5.1)
    assert seen == list(range(20))


def test_an_ended_process_does_nothing_any_more_even_what_was_held_for_it():
    world, seen, process = World(1), [], Process("p")
    world.after(1.0, seen.append, 1, process=process)
    world.after(3.0, seen.append, 2, process=process)
    world.pause(process)
    world.run(2.0)
    world.end(process)
    world.resume(process)
    world.run(5.0)
    assert seen == []


def test_what_is_called_after_each_step_may_end_the_run():
    world = World(1)
    for _ in range(5):
        world.after(1.0, lambda: None)

    def check() -> None:
        if world.steps == 3:
            raise AssertionError("so")

    with pytest.raises(AssertionError, match="so"):
        world.run(5.0, check)
    assert world.steps == 3


def test_the_dice_of_one_part_know_nothing_of_the_others():
    one, other = World(5), World(5)
    one.dice("network").random()
    assert one.dice("disk").random() == other.dice("disk").random()
    assert World(6).dice("disk").random() != other.dice("disk").random()


def test_a_clock_runs_at_its_rate_and_only_the_wall_jumps():
    world = World(1)
    clock = BrokerClock(world, rate=1.001, began_s=77.0)
    wall = clock.wall_ms()
    world.run(1000.0)
    assert clock.monotonic() == pytest.approx(77.0 + 1001.0)
    assert clock.wall_ms() - wall in (1_000_999, 1_001_000)
    clock.jump(-3_600_000)
    assert clock.wall_ms() - wall in (1_000_999 - 3_600_000, 1_001_000 - 3_600_000)
    assert clock.monotonic() == pytest.approx(77.0 + 1001.0)
    assert clock.true_s(1.001) == pytest.approx(1.0)


def test_a_trace_names_everything_that_happened():
    one, other = Trace(), Trace()
    for trace in (one, other):
        trace.add(1.0, 3, "crash", "lost", 2)
        trace.add(2.0, 4, "start")
    assert one.digest() == other.digest()
    other.add(2.0, 4, "start")
    assert one.digest() != other.digest()
    assert one.text() == "   1.0000          3 crash lost 2\n   2.0000          4 start"
    assert one.text(last=1).startswith("(1 earlier events left out)")
    assert "crash" not in one.text(about=lambda line: line[1] == 4)
    assert other.kinds() == {"crash": 1, "start": 2}


@pytest.mark.parametrize("needed", [{3}, {2, 17}, {0, 9, 19}, set(range(20)), set()])
def test_what_is_left_of_a_plan_is_what_it_needs_to_fail(needed):
    runs = []

    def fails(plan):
        runs.append(plan)
        return needed <= set(plan)

    assert set(minimise(range(20), fails)) == needed
    assert len(runs) < 200


def test_minimising_ends_when_its_tries_are_used_up():
    runs = []

    def fails(plan):
        runs.append(plan)
        return {1, 50, 99} <= set(plan)

    left = minimise(range(100), fails, tries=5)
    assert len(runs) <= 6
    assert {1, 50, 99} <= set(left)
