"""A broker drains by a field of its registration; what that would cost is known before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.draining import Cost, cost_of, drain, undrain
from riverrun_server.core.cluster.standing import Standing, broker_epoch
from riverrun_server.core.cluster.steps import MAX_CHANGES
from riverrun_server.core.errors import Reason, Refusal
from tests.core.cluster_world import Outdated
from tests.core.control_world import ControlWorld
from tests.core.test_controller_properties import snapshot, worlds


@pytest.fixture
def world():
    return ControlWorld(3)


def refused(call, *args, **fields):
    with pytest.raises(Refusal) as refusal:
        call(*args, **fields)
    return refusal.value


def leads(world, broker):
    return [here for here, value in values(world) if value.leader == broker]


def values(world):
    for name, topic in world.image.topics.items():
        for number in range(topic.value.partitions):
            yield (name, number), world.partition(name, number)


def test_a_broker_that_drains_hands_on_everything_and_gets_it_back(world):
    world.make("t", 6)
    controller = world.control(1)
    epoch = Standing(world.image.brokers).epoch(2)
    before = leads(world, 2)
    assert before
    plan = drain(world.image, 2)
    assert (plan.process, plan.cost) == (epoch, Cost())
    world.run(plan.steps)
    assert broker_epoch(world.image.brokers[2]) == epoch
    world.settle(controller)
    assert not leads(world, 2)
    assert all(2 not in {each.broker for each in value.isr} for _, value in values(world))
    world.run(undrain(world.image, 2).steps)
    assert broker_epoch(world.image.brokers[2]) == epoch
    assert not world.image.brokers[2].value.draining
    for (name, number), value in [*values(world)]:
        world.put(name, number, isr=(*value.isr, world.replica(2)))
    world.settle(controller)
    assert leads(world, 2) == before


def test_what_is_so_already_is_no_change(world):
    assert not undrain(world.image, 2).steps
    world.run(drain(world.image, 2).steps)
    assert not drain(world.image, 2).steps


def test_a_broker_that_is_not_there_or_fenced_does_not_drain(world):
    for call in (drain, undrain):
        refusal = refused(call, world.image, 7)
        assert refusal.reason is Reason.BROKER_NOT_FOUND
        assert refusal.message == "there is no broker 7; registered are 1, 2, 3"
    world.change(2, fenced=True)
    assert refused(drain, world.image, 2).reason is Reason.BROKER_FENCED
    world.change(2, fenced=True, draining=True)
    assert undrain(world.image, 2).steps


def test_the_last_broker_does_not_drain_whatever_is_accepted(world):
    world.make("t")
    world.change(1, fenced=True)
    world.change(3, draining=True)
    for force in (False, True):
        refusal = refused(drain, world.image, 2, force=force)
        assert refusal.reason is Reason.BROKER_NEEDED
        assert "broker 2 is the last one that serves" in refusal.message


def test_partitions_that_nobody_else_may_lead_are_named_and_can_be_accepted(world):
    world.make("alone", 9, replicas=1)
    world.make("t", 3)
    mine = leads(world, 2)
    stranded = [here for here in mine if here[0] == "alone"]
    assert stranded
    refusal = refused(drain, world.image, 2)
    assert refusal.reason is Reason.BROKER_NEEDED
    name, number = stranded[0]
    assert f"{len(stranded)} without a leader once it ends ({name}[{number}]" in refusal.message
    plan = drain(world.image, 2, force=True)
    assert list(plan.cost.stranded) == stranded
    world.run(plan.steps)
    world.settle(world.control(1))
    assert leads(world, 2) == stranded
    # Asked again, as after an answer that was lost, it is still said what stays.
    assert drain(world.image, 2).cost == plan.cost


def test_partitions_that_could_not_be_written_any_more_are_named(world):
    world.make("t", 2)  # three replicas, of which two have to be in sync
    world.die(3)
    world.settle(world.control(1))
    refusal = refused(drain, world.image, 2)
    assert refusal.reason is Reason.BROKER_NEEDED
    assert "2 with too few replicas in sync to be written (t[0], t[1])" in refusal.message
    assert "without a leader" not in refusal.message


def test_a_leader_that_drains_and_was_about_to_hand_on_to_the_broker_is_counted(world):
    world.make("t", 1, replicas=2, min_insync_replicas="1")
    value = world.partition("t", 0)
    world.change(value.leader, draining=True)
    [other] = set(value.replicas) - {value.leader}
    assert cost_of(world.image, other).stranded == (("t", 0),)


def test_a_drain_is_of_the_process_that_was_seen(world):
    steps = drain(world.image, 2).steps
    process = drain(world.image, 2).process
    world.start(2)
    with pytest.raises(Outdated):
        world.run(steps)
    for call in (drain, undrain):
        assert refused(call, world.image, 2, process=process).reason is Reason.CONFLICT
    assert drain(world.image, 2).process != process


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_cost_is_what_the_controller_finds_once_it_has_come_to_rest(data):
    world = data.draw(worlds())
    world.show(1)
    controller = world.control(1)
    world.settle(controller)
    broker = data.draw(st.sampled_from(sorted(world.image.brokers)))
    world.change(broker, draining=False)
    world.settle(controller)
    before, led = snapshot(world), Standing(world.image.brokers)
    cost = cost_of(world.image, broker)
    world.change(broker, draining=True)
    world.settle(controller)
    after = snapshot(world)
    assert list(cost.stranded) == [
        here
        for here in sorted(before)
        if before[here].leader == after[here].leader == broker and led.leads(before[here])
    ]
    assert list(cost.short) == [
        here
        for here in sorted(before)
        if here not in cost.stranded
        and led.leads(before[here])
        and len(after[here].isr) < after[here].min_isr <= len(before[here].isr)
    ]


def test_two_that_drain_at_the_same_time_are_weighed_one_after_the_other(world):
    world.make("t", 1)  # three replicas, of which two have to be in sync
    one, other = drain(world.image, 2), drain(world.image, 3)
    assert one.cost == other.cost == Cost()
    world.run(one.steps)
    with pytest.raises(Outdated):
        world.run(other.steps)
    assert drain_cost_named(world, 3) == "t[0]"


def drain_cost_named(world, broker):
    refusal = refused(drain, world.image, broker)
    assert refusal.reason is Reason.BROKER_NEEDED
    return refusal.message.partition("(")[2].partition(")")[0]


def test_a_cluster_of_more_brokers_than_a_step_takes_is_drained_as_well():
    world = ControlWorld(120)
    [step] = drain(world.image, 2).steps
    assert len(step.changes) == MAX_CHANGES
    world.run([step])
    [write] = undrain(world.image, 2).steps[0].changes
    assert write.key == keys.broker(2)
