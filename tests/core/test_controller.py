"""The duties of the controller, one by one."""

from __future__ import annotations

import pytest

from riverrun_server.core.cluster import changes, keys
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.steps import Guard, Write
from riverrun_server.core.cluster.values import Durability, Replica
from tests.core.cluster_world import Outdated
from tests.core.control_world import ControlWorld, lives_of


@pytest.fixture
def world():
    return ControlWorld()


def isr_of(world, name="t", number=0):
    return sorted(each.broker for each in world.partition(name, number).isr)


def elr_of(world, name="t", number=0):
    return sorted(each.broker for each in world.partition(name, number).elr)


def led_by(world, broker):
    """Make a topic of one partition that `broker` leads and prefers, and return its other replicas."""
    world.make("t")
    others = [each for each in (1, 2, 3) if each != broker]
    world.put("t", replicas=(broker, *others), isr=tuple(map(world.replica, (broker, *others))))
    standing = world.image.brokers[broker]
    world.put("t", leader=broker, leader_broker_epoch=standing.mod_revision)
    return others


# --- who may plan


def test_who_is_not_the_controller_plans_nothing(world):
    led_by(world, 1)
    old = world.control(2)
    world.die(1)
    world.control(3)
    assert not old.plan(world.image, world.now).steps


def test_a_later_process_of_the_controllers_broker_is_not_the_controller(world):
    led_by(world, 1)
    controller = world.control(2)
    world.die(1)
    world.image.controller = None
    world._store({keys.CONTROLLER: None})
    world.start(2)
    later = world.control(2)
    assert not controller.plan(world.image, world.now).steps
    assert later.plan(world.image, world.now).steps


def test_every_step_insists_on_the_term(world):
    world.make("t", 70)
    controller = world.control(2)
    world.die(1)
    term = Guard(keys.CONTROLLER, world.image.controller.mod_revision)
    fencing = controller.plan(world.image, world.now)
    world.run(fencing.steps)
    electing = controller.plan(world.image, world.now)
    assert len(electing.steps) >= 3
    assert all(term in step.changes for step in (*fencing.steps, *electing.steps))


def test_the_steps_of_an_earlier_term_do_nothing(world):
    led_by(world, 1)
    first = world.control(2)
    world.die(1)
    fencing = first.plan(world.image, world.now)
    world.control(3)
    with pytest.raises(Outdated):
        world.run(fencing.steps)
    assert not world.image.brokers[1].value.fenced


# --- fencing, then electing


def test_a_dead_leader_is_fenced_before_another_is_elected(world):
    led_by(world, 1)
    before = world.partition("t", 0)
    controller = world.control(2)
    world.die(1)
    plan = world.round(controller)
    assert (plan.fenced, plan.elected) == ([1], [])
    assert world.partition("t", 0) == before
    plan = world.round(controller)
    assert plan.elected == [("t", 0)]
    after = world.partition("t", 0)
    assert (after.leader, after.leader_epoch) == (2, before.leader_epoch + 1)
    assert after.leader_broker_epoch == world.image.brokers[2].mod_revision
    assert after.partition_epoch == before.partition_epoch + 1
    assert isr_of(world) == [2, 3]


def test_fencing_does_not_change_which_process_a_broker_is(world):
    world.make("t")
    controller = world.control(2)
    epoch = world.image.brokers[1].mod_revision
    world.die(1)
    world.settle(controller)
    assert world.image.brokers[1].value.broker_epoch == epoch
    assert world.image.brokers[1].value.fenced
    world.show(1)
    assert world.settle(controller)[0].let_back == [1]
    assert world.image.brokers[1].value.broker_epoch == epoch
    assert not world.image.brokers[1].value.fenced


def test_a_fence_that_was_planned_before_the_key_came_back_does_not_apply(world):
    controller = world.control(2)
    world.die(1)
    plan = controller.plan(world.image, world.now)
    world.show(1)
    with pytest.raises(Outdated):
        world.run(plan.steps)


def test_a_fenced_follower_leaves_the_isr_and_the_leader_stays(world):
    led_by(world, 1)
    before = world.partition("t", 0)
    controller = world.control(2)
    world.die(3)
    world.settle(controller)
    after = world.partition("t", 0)
    assert isr_of(world) == [1, 2]
    assert (after.leader, after.leader_epoch) == (1, before.leader_epoch)
    assert after.partition_epoch == before.partition_epoch + 1


def test_a_replica_that_left_while_too_few_were_in_sync_stays_eligible(world):
    led_by(world, 1)
    controller = world.control(2)
    world.die(3)
    world.settle(controller)
    assert elr_of(world) == []
    world.die(1)
    world.settle(controller)
    assert (isr_of(world), elr_of(world)) == ([2], [1])
    # The last in sync dies as well, and the one before it comes back with its data.
    world.die(2)
    world.start(1)
    controller = world.control(1)
    world.settle(controller)
    assert (isr_of(world), elr_of(world)) == ([1], [2])
    assert world.partition("t", 0).leader == 1


def test_of_those_in_sync_the_first_of_the_replicas_is_elected(world):
    led_by(world, 1)
    world.put("t", replicas=(1, 3, 2))
    controller = world.control(2)
    world.die(1)
    world.settle(controller)
    assert world.partition("t", 0).leader == 3


def test_a_broker_that_came_back_as_another_life_is_in_no_isr_and_not_eligible(world):
    led_by(world, 1)
    controller = world.control(2)
    world.start(3, life=1)
    world.settle(controller)
    assert (isr_of(world), elr_of(world)) == ([1, 2], [])
    world.die(1)
    world.settle(controller)
    world.start(1, life=1)
    world.settle(controller)
    assert (isr_of(world), elr_of(world)) == ([2], [1])
    # What is in the ELR is the life before; it never matches again.
    world.die(2)
    controller = world.control(3)
    assert world.settle(controller)[-1].offline == [("t", 0)]
    assert world.partition("t", 0).leader == 2


def test_a_restart_inside_the_lease_is_an_election(world):
    led_by(world, 1)
    before = world.partition("t", 0)
    controller = world.control(2)
    epoch = world.start(1)
    world.settle(controller)
    after = world.partition("t", 0)
    assert (after.leader, after.leader_epoch) == (1, before.leader_epoch + 1)
    assert after.leader_broker_epoch == epoch
    assert isr_of(world) == [1, 2, 3]


def test_a_power_cut_of_everything_leaves_the_cluster_electable(world):
    world.make("t", 6)
    for broker in (1, 2, 3):
        world.die(broker)
    for broker in (3, 1, 2):
        world.start(broker)
        controller = world.control(broker)
        world.settle(controller)
    assert not world.settle(controller)[-1].offline
    for number in range(6):
        assert (world.partition("t", number).leader, elr_of(world, number=number)) == (3, [1, 2])


# --- nobody may lead


def test_without_a_candidate_the_value_stays_and_is_told(world):
    led_by(world, 1)
    world.put("t", isr=(world.replica(1),), elr=())
    before = world.partition("t", 0)
    controller = world.control(2)
    world.die(1)
    plans = world.settle(controller)
    assert plans[-1].offline == [("t", 0)]
    assert world.partition("t", 0) == before


def test_a_loss_that_is_certain_is_accepted_at_once_where_the_topic_says_so(world):
    world.make("t", replicas=1, unclean_recovery="accept")
    leader = world.partition("t", 0).leader
    world.start(leader, life=1)
    controller = world.control(leader % 3 + 1)
    plan = world.round(controller)
    assert plan.elected == plan.unclean == [("t", 0)]
    after = world.partition("t", 0)
    assert (after.leader, after.isr) == (leader, (world.replica(leader, 1),))
    assert after.leader_epoch > 1_000


def test_a_topic_that_accepts_loss_first_waits_for_who_has_everything(world):
    world.make("t", unclean_recovery="accept")
    world.put("t", replicas=(1, 2, 3), leader=1, isr=(world.replica(1),), elr=())
    controller = world.control(2)
    world.die(1)
    world.round(controller)
    begun = world.now
    plan = world.round(controller)
    assert (plan.steps, plan.offline, plan.again_at) == ([], [("t", 0)], begun + 30)
    world.now = begun + 29
    assert not world.round(controller).steps
    world.now = begun + 30
    assert world.round(controller).unclean == [("t", 0)]
    assert world.partition("t", 0).leader == 2
    assert world.partition("t", 0).leader_epoch > 1_000


def test_the_wait_begins_anew_with_each_time_without_a_leader(world):
    world.make("t", unclean_recovery="accept")
    world.put("t", replicas=(1, 2, 3), leader=1, isr=(world.replica(1),), elr=())
    controller = world.control(2)
    world.die(1)
    world.round(controller)
    world.round(controller)
    world.now += 20
    world.start(1)
    world.settle(controller)
    world.now += 20
    world.die(1)
    world.round(controller)
    assert not world.round(controller).unclean


def test_who_has_everything_and_merely_drains_is_waited_for_whatever_a_topic_accepts(world):
    world.make("t", unclean_recovery="accept")
    world.put("t", replicas=(1, 2, 3), leader=1, isr=(world.replica(1), world.replica(2)))
    world.put("t", min_isr=2)
    world.change(2, draining=True)
    controller = world.control(3)
    world.die(1)
    world.settle(controller)
    world.now += 1_000
    assert world.settle(controller)[-1].offline == [("t", 0)]


def test_among_those_that_lost_data_the_ones_in_sync_last_come_first(world):
    world.make("t", fsync="relaxed", unclean_recovery="accept")
    value = world.partition("t", 0)
    assert value.durability is Durability.RELAXED
    world.put("t", replicas=(1, 2, 3), isr=tuple(each for each in value.isr if each.broker == 3))
    for broker in (2, 3, 1):
        world.start(broker, life=1)
    controller = world.control(1)
    world.round(controller)
    assert world.partition("t", 0).leader == 3
    assert world.partition("t", 0).isr[0].incarnation == lives_of(3, 1).relaxed


# --- draining


def test_a_draining_leader_hands_on_and_then_leaves_the_isr(world):
    led_by(world, 1)
    before = world.partition("t", 0)
    controller = world.control(2)
    world.change(1, draining=True)
    plan = world.round(controller)
    assert plan.elected == [("t", 0)]
    assert isr_of(world) == [1, 2, 3]
    world.settle(controller)
    after = world.partition("t", 0)
    assert (after.leader, after.leader_epoch) == (2, before.leader_epoch + 1)
    assert isr_of(world) == [2, 3]


def test_the_last_in_sync_keeps_leading_while_it_drains(world):
    led_by(world, 1)
    world.put("t", isr=(world.replica(1),), elr=(world.replica(2),))
    before = world.partition("t", 0)
    controller = world.control(2)
    world.change(1, draining=True)
    world.settle(controller)
    assert world.partition("t", 0) == before


def test_when_all_drain_everybody_keeps_what_they_lead(world):
    world.make("t", 3)
    before = [world.partition("t", number).leader for number in range(3)]
    controller = world.control(1)
    for broker in (1, 2, 3):
        world.change(broker, draining=True)
    world.settle(controller)
    assert [world.partition("t", number).leader for number in range(3)] == before


# --- minimum of replicas in sync


def test_another_minimum_empties_who_was_eligible(world):
    led_by(world, 1)
    world.put("t", isr=(world.replica(1),), elr=(world.replica(2),))
    controller = world.control(2)
    world.run(changes.alter(world.image, "t", {"min.insync.replicas": "3"}, (), world.policy).steps)
    before = world.partition("t", 0)
    world.settle(controller)
    after = world.partition("t", 0)
    assert (after.min_isr, elr_of(world), isr_of(world)) == (3, [], [1])
    assert after.partition_epoch == before.partition_epoch + 1
    assert after.leader_epoch == before.leader_epoch


def test_a_minimum_that_changed_again_meanwhile_is_not_written(world):
    led_by(world, 1)
    controller = world.control(2)

    def alter(to):
        steps = changes.alter(world.image, "t", {"min.insync.replicas": to}, (), world.policy).steps
        world.run(steps)

    alter("3")
    plan = controller.plan(world.image, world.now)
    alter("1")
    with pytest.raises(Outdated):
        world.run(plan.steps)


# --- preferred leaders


def test_leaders_go_back_to_where_they_are_preferred_once_in_sync_again(world):
    led_by(world, 1)
    controller = world.control(2)
    world.die(1)
    world.settle(controller)
    world.show(1)
    world.settle(controller)
    assert world.partition("t", 0).leader == 2
    world.put("t", isr=(world.replica(2), world.replica(3), world.replica(1)))
    world.settle(controller)
    assert world.partition("t", 0).leader == 1


def test_preferred_leaders_move_a_few_at_a_time_and_after_everything_else(world):
    world.make("t", 100)
    controller = world.control(2)
    moved = [n for n in range(100) if world.partition("t", n).replicas[0] == 1]
    assert len(moved) > 16
    world.die(1)
    world.settle(controller)
    world.start(1)
    world.settle(controller)
    for number in moved:
        value = world.partition("t", number)
        world.put("t", number, isr=(*value.isr, world.replica(1)))
    plan = world.round(controller)
    assert len(plan.elected) == 16
    begun = world.now
    plan = world.round(controller)
    assert (plan.steps, plan.again_at) == ([], begun + 1)
    world.change(3, draining=True)
    # Draining is more urgent, and waits for nothing.
    led_by_3 = [("t", number) for number in range(100) if world.partition("t", number).leader == 3]
    assert world.round(controller).elected == led_by_3
    world.settle(controller)
    assert {world.partition("t", number).leader for number in moved} == {1}


# --- rounds


def test_a_round_is_bounded_and_the_rest_comes_in_the_next(world):
    world = ControlWorld(3, TopicPolicy())
    world.make("t", 900)
    world.make("u", 900)
    controller = world.control(2)
    world.die(1)
    world.round(controller)
    first = world.round(controller)
    assert len(first.elected) == 512
    assert all(len(step.changes) <= 100 for step in first.steps)
    world.settle(controller)
    assert not any(
        world.partition(name, number).leader == 1 for name in "tu" for number in range(900)
    )


def test_after_a_conflict_each_partition_has_a_step_of_its_own(world):
    world.make("t", 20)
    controller = world.control(2)
    world.die(1)
    world.round(controller)
    plan = controller.plan(world.image, world.now, alone=True)
    writes = [[each for each in step.changes if isinstance(each, Write)] for step in plan.steps]
    assert len(writes) == 20
    assert all(len(each) == 1 for each in writes)


def test_planned_on_an_old_image_nothing_applies(world):
    led_by(world, 1)
    controller = world.control(2)
    world.die(1)
    world.round(controller)
    plan = controller.plan(world.image, world.now)
    # The one that would be elected has begun anew meanwhile.
    world.start(2)
    before = world.partition("t", 0)
    with pytest.raises(Outdated):
        world.run(plan.steps)
    assert world.partition("t", 0) == before


def test_topics_of_the_brokers_are_asked_for_once_there_are_enough_brokers():
    world = ControlWorld(2)
    needed = NewTopic("__consumer_offsets", 4, 3)
    controller = world.control(1, [needed])
    assert not world.round(controller).missing
    world.start(3)
    assert world.round(controller).missing == [needed]
    world.change(3, fenced=True)
    world.die(3)
    assert not world.round(controller).missing
    world.start(3)
    world.make(needed.topic, needed.partitions, needed.replication_factor)
    assert not world.round(controller).missing


def test_a_partition_without_a_value_is_offline(world):
    topic = world.make("t", 2)
    world._store({keys.partition(topic.topic_id, 1): None})
    controller = world.control(2)
    assert world.settle(controller)[-1].offline == [("t", 1)]


def test_a_leader_that_has_left_the_isr_itself_is_replaced_though_it_is_alive(world):
    """It found damage in its own data (see core.replication.isr.without_leader)."""
    others = led_by(world, 1)
    controller = world.control(2)
    world.put("t", isr=tuple(map(world.replica, others)))
    world.settle(controller)
    value = world.partition("t", 0)
    assert value.leader in others
    assert value.leader_epoch == 1
    assert isr_of(world) == sorted(others)


# --- another durability class


def altered(world, name, **configs):
    world.run(changes.alter(world.image, name, configs, (), world.policy).steps)
    assert not changes.follow_config(world.image, name, world.policy)


def test_a_partition_begins_to_become_durable_with_a_leader_epoch(world):
    """Roles are taken once for each leader epoch; and what counted before is on no disk yet."""
    world.make("t", fsync="relaxed")
    before = world.partition("t", 0)
    controller = world.control(2)
    altered(world, "t", fsync="true")
    assert not changes.counts_as_configured(world.image, "t", world.policy)
    world.settle(controller)
    value = world.partition("t", 0)
    assert value.durability is Durability.SYNCING
    assert (value.leader, value.leader_epoch) == (before.leader, before.leader_epoch + 1)
    assert value.isr == before.isr, "lives that end with a crash, until all is on the disks"
    assert changes.counts_as_configured(world.image, "t", world.policy)


def test_a_partition_whose_leader_was_away_becomes_durable_when_another_leads(world):
    """Nobody carried out what follows an alteration, and no broker asks for it twice."""
    world.make("t", fsync="relaxed")
    leader = world.partition("t", 0).leader
    world.change(leader, fenced=True)
    world.die(leader)
    altered(world, "t", fsync="true")
    assert changes.counts_as_configured(world.image, "t", world.policy), "nobody leads it"
    controller = world.control(next(each for each in (1, 2, 3) if each != leader))
    world.settle(controller)
    value = world.partition("t", 0)
    assert value.leader != leader
    assert value.durability is Durability.SYNCING


@pytest.mark.parametrize("durability", [Durability.FSYNC, Durability.SYNCING])
def test_a_partition_that_need_not_be_durable_names_lives_that_end_with_a_crash(world, durability):
    world.make("t", fsync="true")
    lives = tuple(Replica(each, lives_of(each).of(durability)) for each in (1, 2, 3))
    world.put("t", isr=lives, durability=durability)
    before = world.partition("t", 0)
    controller = world.control(2)
    altered(world, "t", fsync="relaxed")
    world.settle(controller)
    value = world.partition("t", 0)
    assert value.durability is Durability.RELAXED
    assert value.leader_epoch == before.leader_epoch + 1
    assert sorted(each.broker for each in value.isr) == [1, 2, 3]
    assert all(lives_of(each.broker).relaxed == each.incarnation for each in value.isr)


def test_who_is_eligible_beside_too_small_an_isr_stays_so_before_durability_is_given_up(world):
    world.make("t", fsync="true")
    first, *others = world.partition("t", 0).replicas
    for each in others:
        world.change(each, fenced=True)
        world.die(each)
    controller = world.control(first)
    world.settle(controller)
    assert len(elr_of(world)) == 2
    altered(world, "t", fsync="relaxed")
    world.settle(controller)
    assert world.partition("t", 0).durability is Durability.FSYNC
    assert len(elr_of(world)) == 2
