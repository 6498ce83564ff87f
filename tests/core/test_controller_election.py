"""Who takes the controller's key, and whose term it is."""

from __future__ import annotations

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.controller_election import ControllerElection, Outlook, term
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Guard
from riverrun_server.core.cluster.values import ControllerValue
from tests.core.control_world import ControlWorld


def election(world, broker):
    return ControllerElection(broker, epoch(world, broker), stagger_s=0.1)


def epoch(world, broker):
    return Standing(world.image.brokers).epoch(broker)


def test_the_first_in_line_claims_a_vacant_key_at_once_as_its_process():
    world = ControlWorld(3)
    claim = election(world, 1).look(world.image, 0.0).claim
    assert claim.key == keys.CONTROLLER
    assert claim.value == ControllerValue(broker_id=1, broker_epoch=epoch(world, 1))
    # Whoever has begun anew as this broker is not turned out by its past.
    assert claim.registration == Guard(keys.broker(1), world.image.brokers[1].mod_revision)


def test_the_others_follow_one_after_the_other():
    world = ControlWorld(3)
    third = election(world, 3)
    outlook = third.look(world.image, 5.0)
    assert (outlook.claim, outlook.again_at) == (None, 5.2)
    assert third.look(world.image, 5.19).claim is None
    assert third.look(world.image, 5.2).claim is not None


def test_a_key_that_is_held_is_left_alone_and_the_wait_begins_when_it_goes():
    world = ControlWorld(3)
    second = election(world, 2)
    # It was vacant before, and that counts for nothing.
    assert second.look(world.image, 0.0).again_at == 0.1
    world.control(1)
    assert second.look(world.image, 0.0) == second.look(world.image, 9.0) == Outlook()
    world.die(1)
    world.start(1)
    outlook = second.look(world.image, 10.0)
    assert (outlook.claim, outlook.again_at) == (None, 10.1)
    assert second.look(world.image, 10.1).claim is not None


def test_the_dead_are_not_waited_for():
    world = ControlWorld(3)
    world.die(1)
    assert election(world, 2).look(world.image, 0.0).claim is not None


def test_who_is_about_to_end_or_fenced_comes_last_and_may():
    world = ControlWorld(3)
    world.change(1, draining=True)
    world.change(2, fenced=True)
    assert election(world, 3).look(world.image, 0.0).claim is not None
    assert election(world, 1).look(world.image, 0.0).again_at == 0.1
    assert election(world, 2).look(world.image, 0.0).again_at == 0.2


def test_who_is_not_alive_or_not_registered_or_superseded_claims_nothing():
    world = ControlWorld(3)
    first, second = election(world, 1), election(world, 2)
    world.die(1)
    world.start(2)
    stranger = ControllerElection(9, 1)
    for each in (first, second, stranger):
        assert each.look(world.image, 0.0).claim is None
        assert each.look(world.image, 100.0).claim is None


def test_a_term_is_of_one_process_and_named_by_the_keys_revision():
    world = ControlWorld(2)
    assert term(world.image, 1, epoch(world, 1)) is None
    world.control(1)
    of = epoch(world, 1)
    assert term(world.image, 1, of) == Guard(keys.CONTROLLER, world.revision)
    assert term(world.image, 2, epoch(world, 2)) is None
    assert term(world.image, 1, of + 1) is None
    first = term(world.image, 1, of)
    world.control(1)
    assert term(world.image, 1, of) != first
