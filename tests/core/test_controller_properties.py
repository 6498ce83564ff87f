"""From any image and any brokers alive the controller comes to rest, and does no harm on its way."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.image import Versioned
from riverrun_server.core.cluster.standing import broker_epoch
from riverrun_server.core.cluster.topic_config import UncleanRecovery
from riverrun_server.core.cluster.values import Durability, PartitionValue, Replica
from tests.core.cluster_world import Outdated, make_id
from tests.core.control_world import ControlWorld, lives_of

BROKERS = 4
TOPICS = ("a", "b")
PARTITIONS = 2
LOST_EPOCHS = 1_000


# --- any image


def lives(world, broker):
    """The life that a broker's data is in now, mostly."""
    found = world.image.brokers.get(broker)
    now = found.value.incarnations.fsync if found else lives_of(broker).fsync
    return st.sampled_from([now, now, now, lives_of(broker, 1).fsync])


@st.composite
def partition_values(draw, world):
    replicas = draw(st.permutations(range(1, BROKERS + 1)))[: draw(st.integers(1, BROKERS))]
    # Zero or one life of each broker, in the ISR or in the ELR.
    kinds = draw(st.lists(st.sampled_from("ien"), min_size=len(replicas), max_size=len(replicas)))
    if "i" not in kinds:
        kinds[0] = "i"
    members = {
        kind: tuple(
            Replica(broker, draw(lives(world, broker)))
            for broker, of in zip(replicas, kinds, strict=True)
            if of == kind
        )
        for kind in "ie"
    }
    members["i"] = tuple(draw(st.permutations(members["i"])))
    durability = draw(st.sampled_from([Durability.FSYNC, *Durability]))
    members = {
        kind: tuple(_counting(each, durability) for each in of) for kind, of in members.items()
    }
    min_isr = draw(st.integers(1, len(replicas)))
    enough = len(members["i"]) >= min_isr
    leader = draw(st.sampled_from(replicas))
    found = world.image.brokers.get(leader)
    epochs = [1] if found is None else [1, *[broker_epoch(found)] * 3]
    return PartitionValue(
        leader=leader,
        leader_epoch=draw(st.integers(0, 9)),
        leader_broker_epoch=draw(st.sampled_from(epochs)),
        partition_epoch=draw(st.integers(0, 9)),
        replicas=tuple(replicas),
        isr=members["i"],
        elr=() if enough else members["e"],
        min_isr=min_isr,
        durability=durability,
    )


def _counting(replica, durability):
    """A life of the class fsync as the same life of another class, as `lives_of` numbers them."""
    if durability is Durability.FSYNC:
        return replica
    lives = (lives_of(replica.broker, number) for number in (0, 1))
    found = {each.fsync: each.of(durability) for each in lives}
    return Replica(replica.broker, found.get(replica.incarnation, replica.incarnation))


@st.composite
def worlds(draw):
    world = ControlWorld(BROKERS, TopicPolicy())
    configs = [
        {},
        {"unclean.recovery": "accept"},
        {"min.insync.replicas": "2"},
        {"fsync": "relaxed"},
    ]
    for name in TOPICS:
        world.make(name, PARTITIONS, 3, **draw(st.sampled_from(configs)))
    for broker in range(1, BROKERS + 1):
        if draw(st.booleans()):
            world.start(broker, draw(st.integers(0, 1)))
        fenced, draining = (draw(st.sampled_from([False, False, True])) for _ in range(2))
        world.change(broker, fenced=fenced, draining=draining)
        if draw(st.booleans()):
            world.die(broker)
        if broker > 1 and draw(st.sampled_from([0, 0, 0, 1])):
            world._store({keys.broker(broker): None})
    for name in TOPICS:
        for number in range(PARTITIONS):
            value = draw(partition_values(world))
            topic_id = world.image.topics[name].value.topic_id
            world._store({keys.partition(topic_id, number): value})
    return world


# --- what may never happen, told without the machines' own words


def alive(world, broker):
    found = world.image.brokers.get(broker)
    return found is not None and not found.value.fenced


def present(world, value, replica):
    found = world.image.brokers.get(replica.broker)
    return (
        found is not None and found.value.incarnations.of(value.durability) == replica.incarnation
    )


def eligible(world, value, among):
    return [
        each.broker
        for each in among
        if present(world, value, each)
        and alive(world, each.broker)
        and not world.image.brokers[each.broker].value.draining
        and each.broker in value.replicas
    ]


def is_led(world, value):
    found = world.image.brokers.get(value.leader)
    return (
        alive(world, value.leader)
        and broker_epoch(found) == value.leader_broker_epoch
        and value.leader in value.replicas
        and any(each.broker == value.leader and present(world, value, each) for each in value.isr)
    )


def snapshot(world):
    return {
        (name, number): world.partition(name, number)
        for name in TOPICS
        for number in range(PARTITIONS)
    }


def check_change(world, here, before, after, unclean):
    assert after.leader_epoch >= before.leader_epoch
    assert after.partition_epoch == before.partition_epoch + 1
    assert after.replicas == before.replicas
    assert after.isr
    assert after.leader in {each.broker for each in after.isr}
    assert not (len(after.isr) >= after.min_isr and after.elr)
    assert not set(after.isr) & set(after.elr)
    if here in unclean:
        check_loss(world, here, before, after)
        return
    recounted = before.durability is not after.durability
    before = as_counted(world, before, after.durability)
    assert after.leader_epoch - before.leader_epoch <= 1
    assert set(after.isr) | set(after.elr) <= set(before.isr) | set(before.elr)
    if after.leader_epoch == before.leader_epoch:
        assert (after.leader, after.leader_broker_epoch) == (
            before.leader,
            before.leader_broker_epoch,
        )
        assert is_led(world, before)
        assert set(after.isr) <= set(before.isr)
    else:
        check_election(world, before, after, recounted=recounted)
    check_eligible_leavers(world, before, after)


def as_counted(world, value, durability):
    """The lives that are there now, as they are named in another class."""

    def named(replica):
        if not present(world, value, replica):
            return replica
        lives = world.image.brokers[replica.broker].value.incarnations
        return Replica(replica.broker, lives.of(durability))

    isr, elr = tuple(map(named, value.isr)), tuple(map(named, value.elr))
    return dataclasses.replace(value, isr=isr, elr=elr, durability=durability)


def check_election(world, before, after, *, recounted):
    in_sync = eligible(world, before, before.isr)
    left = eligible(world, before, before.elr)
    assert after.leader in (in_sync or left)
    # The new leader is not held up by anybody who is known to be gone.
    for each in after.isr:
        assert alive(world, each.broker)
        assert present(world, after, each)
    assert after.leader_broker_epoch == broker_epoch(world.image.brokers[after.leader])
    if is_led(world, before):
        drains = world.image.brokers[before.leader].value.draining
        same = recounted and after.leader == before.leader
        assert drains or same or after.leader == after.replicas[0] != before.leader
        assert after.leader in in_sync
    assert set(after.isr) <= set(before.isr) | {
        each for each in before.elr if each.broker == after.leader
    }


def check_eligible_leavers(world, before, after):
    """Whoever left too small an ISR with all data stays eligible."""
    if len(after.isr) >= after.min_isr or after.min_isr != before.min_isr:
        return
    for each in set(before.isr) - set(after.isr):
        known_lost = each.broker in world.image.brokers and not present(world, before, each)
        assert (each in after.elr) is not known_lost


def check_loss(world, here, before, after):
    config = world.policy.config_of(world.image.topics[here[0]].value)
    assert config.unclean_recovery is UncleanRecovery.ACCEPT
    assert not eligible(world, before, (*before.isr, *before.elr))
    assert after.leader_epoch > before.leader_epoch + LOST_EPOCHS - 1
    assert after.leader in after.replicas
    assert alive(world, after.leader)
    assert not world.image.brokers[after.leader].value.draining


def check_rest(world, plan):
    offline = set()
    for here, value in snapshot(world).items():
        if not is_led(world, value):
            offline.add(here)
            assert not eligible(world, value, (*value.isr, *value.elr))
            continue
        for each in value.isr:
            stays = alive(world, each.broker) and present(world, value, each)
            if each.broker != value.leader:
                assert stays
                assert not world.image.brokers[each.broker].value.draining
        in_sync = eligible(world, value, value.isr)
        if world.image.brokers[value.leader].value.draining:
            assert not in_sync
        else:
            assert value.leader == value.replicas[0] or value.replicas[0] not in in_sync
        config = world.policy.config_of(world.image.topics[here[0]].value)
        assert value.min_isr == config.effective_min_isr(3)
        if world.image.brokers[value.leader].value.draining:
            continue  # another leader's epoch is a better one to begin with
        if config.fsync:
            assert value.durability is not Durability.RELAXED
        elif len(value.isr) >= value.min_isr:
            assert value.durability is Durability.RELAXED
    assert set(plan.offline) == offline
    for broker, found in world.image.brokers.items():
        if broker != world.image.controller.value.broker_id:
            assert found.value.fenced is (broker not in world.image.live)


def watched(world, controller, *, alone=False):
    """Run the controller to its rest, and look at everything that it does on the way."""
    for _ in range(60):
        plan = controller.plan(world.image, world.now, alone=alone)
        for step in plan.steps:
            before = snapshot(world)
            world.run([step])
            changed = [here for here, value in snapshot(world).items() if value != before[here]]
            # The registrations do not change in a step that changes partitions.
            assert not changed or not (plan.fenced or plan.let_back)
            for here in changed:
                check_change(world, here, before[here], world.partition(*here), plan.unclean)
        if not plan.steps:
            if plan.again_at is None:
                return plan
            world.now = max(world.now + 0.1, plan.again_at)
    raise AssertionError("the controller finds no rest")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_from_any_image_the_controller_comes_to_rest_and_harms_nothing(data):
    world = data.draw(worlds())
    controller = world.control(1)
    world.show(1)
    plan = watched(world, controller, alone=data.draw(st.booleans()))
    check_rest(world, plan)
    # And there it stays: the same controller, and the next one.
    assert not controller.plan(world.image, world.now + 1_000).steps
    again = world.control(1)
    world.now += 1_000
    assert not watched(world, again).steps


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_happens_between_rounds_leads_to_rest_as_well(data):
    world = data.draw(worlds())
    controller = world.control(1)
    world.show(1)
    for _ in range(data.draw(st.integers(1, 5))):
        broker = data.draw(st.integers(2, BROKERS))
        match data.draw(st.sampled_from(["die", "start", "lose", "show", "drain", "join"])):
            case "die":
                world.die(broker)
            case "start":
                world.start(broker)
            case "lose":
                world.start(broker, life=1)
            case "show":
                world.show(broker)
            case "drain" if broker in world.image.brokers:
                world.change(broker, draining=True)
            case "join":
                join(world, broker)
        plan = controller.plan(world.image, world.now)
        for step in plan.steps[: data.draw(st.integers(0, 3))]:
            before = snapshot(world)
            world.run([step])
            for here, value in snapshot(world).items():
                if value != before[here]:
                    check_change(world, here, before[here], value, plan.unclean)
        world.now += data.draw(st.sampled_from([0, 1, 5]))
    check_rest(world, watched(world, controller))


def join(world, broker):
    """Do as a leader does whose follower has caught up."""
    for here, value in snapshot(world).items():
        member = Replica(broker, make_id(0))
        if broker in world.image.brokers:
            incarnations = world.image.brokers[broker].value.incarnations
            member = Replica(broker, incarnations.of(value.durability))
        may = eligible(world, value, [member]) and is_led(world, value)
        if may and broker not in {each.broker for each in value.isr}:
            isr = (*value.isr, member)
            elr = tuple(each for each in value.elr if each.broker != broker)
            world.put(*here, isr=isr, elr=() if len(isr) >= value.min_isr else elr)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_step_that_was_planned_on_another_state_of_what_it_rests_on_does_not_apply(data):
    world = data.draw(worlds())
    controller = world.control(1)
    world.show(1)
    plan = None
    for _ in range(60):
        plan = controller.plan(world.image, world.now, alone=True)
        if plan.elected or not plan.steps:
            break
        world.run(plan.steps)
    for step in plan.steps:
        for change in step.changes:
            if not change.mod_revision:
                continue
            # Whatever a step names was written again, with the same in it.
            stood = world.stored[change.key]
            world.stored[change.key] = Versioned(stood.value, world.revision + 1)
            with pytest.raises(Outdated):
                world.run([step])
            world.stored[change.key] = stood
    named = {change.key for step in plan.steps for change in step.changes}
    for here in plan.elected:
        value = world.partition(*here)
        brokers = {value.leader, *(each.broker for each in value.isr)} & set(world.image.brokers)
        assert {keys.broker(each) for each in brokers if each in value.replicas} <= named
