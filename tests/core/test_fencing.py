"""Who is fenced and let back, and when the keys are not believed."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.controller import Controller
from riverrun_server.core.cluster.fencing import Fencing, Verdict, fencing_steps
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Guard
from riverrun_server.core.cluster.values import ControllerValue
from tests.core.cluster_world import Outdated
from tests.core.control_world import TTL_S, ControlWorld


@pytest.fixture
def world():
    return ControlWorld(5)


@pytest.fixture
def fencing(world):
    fencing = Fencing(1, TTL_S)
    assert fencing.judge(world.image, world.now) == Verdict()
    return fencing


def epoch(world, broker):
    return Standing(world.image.brokers).epoch(broker)


def planned(world, verdict):
    world.control(1)
    term = Guard(keys.CONTROLLER, world.image.controller.mod_revision)
    return list(fencing_steps(world.image, verdict, term))


def carry_out(world, verdict):
    world.run(planned(world, verdict))


# --- by their keys


def test_whose_key_is_gone_is_fenced_at_once(world, fencing):
    world.die(3)
    verdict = fencing.judge(world.image, world.now)
    assert verdict == Verdict(fence=(3,))
    assert fencing.judge(world.image, world.now) == verdict
    carry_out(world, verdict)
    assert fencing.judge(world.image, world.now) == Verdict()


def test_one_that_takes_over_in_ordinary_succession_fences_at_once(world):
    world.die(2)
    assert Fencing(1, TTL_S).judge(world.image, world.now) == Verdict(fence=(2,))


def test_whose_key_is_back_is_let_back(world, fencing):
    world.die(3)
    carry_out(world, fencing.judge(world.image, world.now))
    world.show(3)
    verdict = fencing.judge(world.image, world.now)
    assert verdict == Verdict(let_back=(3,))
    carry_out(world, verdict)
    assert fencing.judge(world.image, world.now) == Verdict()


def test_who_died_again_meanwhile_is_not_let_back(world, fencing):
    world.die(3)
    carry_out(world, fencing.judge(world.image, world.now))
    world.show(3)
    steps = planned(world, fencing.judge(world.image, world.now))
    world.die(3)
    with pytest.raises(Outdated):
        world.run(steps)


def test_the_controller_never_fences_its_own_broker(world, fencing):
    world.die(1)
    assert fencing.judge(world.image, world.now) == Verdict()
    world.now += 100
    assert fencing.judge(world.image, world.now) == Verdict()


# --- doubt


def test_when_most_keys_are_gone_everybody_gets_the_time_to_come_back(world, fencing):
    for broker in (2, 3, 4):
        world.die(broker)
    begun = world.now
    assert fencing.judge(world.image, begun) == Verdict(again_at=begun + TTL_S)
    assert not fencing.judge(world.image, begun + TTL_S - 0.1).fence
    world.show(2)
    assert fencing.judge(world.image, begun + TTL_S).fence == (3, 4)


def test_half_of_the_keys_are_not_most_of_them(world, fencing):
    world.start(6)
    for broker in (2, 3, 4):
        world.die(broker)
    assert fencing.judge(world.image, world.now).fence == (2, 3, 4)


def test_those_fenced_before_count_neither_way(world, fencing):
    for broker in (2, 3):
        world.die(broker)
    carry_out(world, fencing.judge(world.image, world.now))
    # One of the three that were left is no majority; two are.
    world.die(4)
    assert fencing.judge(world.image, world.now).fence == (4,)
    world.die(5)
    assert fencing.judge(world.image, world.now).fence == ()


def test_doubt_ends_and_does_not_begin_anew_while_the_same_keys_are_gone(world, fencing):
    for broker in (2, 3, 4):
        world.die(broker)
    for _ in range(40):
        fencing.judge(world.image, world.now)
        world.now += 0.1
    assert fencing.judge(world.image, world.now).fence == (2, 3, 4)


def test_after_its_own_session_was_interrupted_a_controller_waits(world, fencing):
    world.die(3)
    fencing.interrupted(world.now)
    assert fencing.judge(world.image, world.now) == Verdict(again_at=world.now + TTL_S)
    assert fencing.judge(world.image, world.now + TTL_S).fence == (3,)


def test_its_own_key_made_anew_tells_of_an_interruption(world, fencing):
    world.die(3)
    world.show(1)
    assert not fencing.judge(world.image, world.now).fence
    assert fencing.judge(world.image, world.now + TTL_S).fence == (3,)


def test_an_interruption_before_the_term_counts_as_well(world):
    controller = world.control(2)
    successor = Controller(1, epoch(world, 1), world.policy, Fencing(1, TTL_S))
    assert not successor.plan(world.image, world.now).steps
    world.show(1)
    assert not successor.plan(world.image, world.now).steps
    world.die(2)
    world._store({keys.CONTROLLER: ControllerValue(broker_id=1, broker_epoch=epoch(world, 1))})
    assert successor.plan(world.image, world.now).again_at == world.now + TTL_S
    assert successor.plan(world.image, world.now + TTL_S).fenced == [2]
    assert not controller.plan(world.image, world.now).steps


def test_without_its_own_key_a_controller_believes_no_other(world, fencing):
    world.die(1)
    world.die(3)
    for _ in range(10):
        assert not fencing.judge(world.image, world.now).fence
        world.now += 1
    world.show(1)
    assert not fencing.judge(world.image, world.now).fence
    assert fencing.judge(world.image, world.now + TTL_S).fence == (3,)


def test_in_doubt_those_whose_keys_are_back_are_let_back(world, fencing):
    world.die(3)
    carry_out(world, fencing.judge(world.image, world.now))
    world.show(3)
    fencing.interrupted(world.now)
    assert fencing.judge(world.image, world.now).let_back == (3,)


# --- by what others find


def test_a_broker_that_two_others_find_refusing_is_fenced_before_its_key_goes(world, fencing):
    fencing.refuses(2, 3, epoch(world, 3), world.now)
    assert fencing.judge(world.image, world.now) == Verdict()
    fencing.refuses(1, 3, epoch(world, 3), world.now)
    verdict = fencing.judge(world.image, world.now)
    assert verdict == Verdict(fence_early=(3,))
    carry_out(world, verdict)
    assert world.image.brokers[3].value.fenced
    # Its key went with it, so that it is not let back by the one that it had.
    assert 3 not in world.image.live
    assert fencing.judge(world.image, world.now) == Verdict()


@pytest.mark.parametrize("spoilt", ["old", "withdrawn", "same", "itself", "earlier", "dead"])
def test_what_does_not_count_as_two_witnesses(world, fencing, spoilt):
    of = epoch(world, 3)
    fencing.refuses(2, 3, of, world.now)
    match spoilt:
        case "old":
            world.now += 1.1
            fencing.refuses(4, 3, of, world.now)
        case "withdrawn":
            fencing.refuses(4, 3, of, world.now)
            fencing.answers(2, 3)
        case "same":
            fencing.refuses(2, 3, of, world.now)
        case "itself":
            fencing.refuses(3, 3, of, world.now)
        case "earlier":
            fencing.refuses(4, 3, of - 1, world.now)
        case "dead":
            fencing.refuses(4, 3, of, world.now)
            world.die(4)
    assert not fencing.judge(world.image, world.now).fence_early


def test_in_doubt_witnesses_are_not_believed_either(world, fencing):
    fencing.interrupted(world.now)
    for witness in (2, 4):
        fencing.refuses(witness, 3, epoch(world, 3), world.now)
    assert not fencing.judge(world.image, world.now).fence_early


def test_one_that_was_alive_after_all_is_fenced_early_only_once(world, fencing):
    def reported():
        for witness in (2, 4):
            fencing.refuses(witness, 3, epoch(world, 3), world.now)
        return fencing.judge(world.image, world.now)

    carry_out(world, reported())
    reported()
    world.show(3)
    carry_out(world, fencing.judge(world.image, world.now))
    assert not world.image.brokers[3].value.fenced
    world.now += 0.5
    assert reported() == Verdict()
    # Its next process is another matter.
    world.start(3)
    assert reported() == Verdict(fence_early=(3,))
