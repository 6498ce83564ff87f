"""Records reach every replica over real streams, through failures, and are acknowledged only then."""

from __future__ import annotations

from riverrun_server.core.errors import Reason
from riverrun_server.ports.partitions import Acks


def everywhere(cluster, values):
    """Whether every broker that runs has these records, and knows that they are committed."""
    return all(
        broker.values() == values and broker.machine.high_watermark == len(values)
        for broker in cluster.brokers.values()
    )


async def test_a_record_is_acknowledged_once_every_replica_has_it_on_its_disk(cluster):
    leader = cluster.brokers[1]
    for number in range(20):
        leader.append(b"%d" % number)
    answers = await leader.answered(20)
    assert [each.base_offset for each in answers] == list(range(20))
    for broker in cluster.brokers.values():
        assert broker.machine.durable_end == 20
    await cluster.until(lambda: everywhere(cluster, [b"%d" % number for number in range(20)]))


async def test_a_follower_that_is_away_leaves_and_comes_back_with_everything(cluster):
    leader = cluster.brokers[1]
    leader.append(b"all")
    await leader.answered(1)
    await cluster.stop_broker(3)
    leader.append(b"two")
    await leader.answered(2)
    assert cluster.isr() == {1, 2}
    leader.append(*[b"more"] * 1_000)
    await leader.answered(3)
    await cluster.start_broker(3)
    await cluster.until(lambda: cluster.isr() == {1, 2, 3})
    await cluster.until(lambda: everywhere(cluster, [b"all", b"two", *[b"more"] * 1_000]))


async def test_with_too_few_in_sync_appends_that_wait_for_all_are_refused_and_others_go_on(cluster):
    leader = cluster.brokers[1]
    leader.append(b"all")
    await leader.answered(1)
    await cluster.stop_broker(2)
    await cluster.stop_broker(3)
    # Who has everything is in sync, also while it is away; it takes a record that it does not get.
    leader.append(b"leader alone", acks=Acks.LEADER)
    await cluster.until(lambda: cluster.isr() == {1})
    leader.append(b"refused")
    alone, refused = (await leader.answered(3))[1:]
    assert refused.error.reason is Reason.NOT_ENOUGH_REPLICAS
    assert refused.error.meaning.definite
    assert alone.base_offset == 1
    assert leader.machine.high_watermark == 1
    await cluster.start_broker(2)
    await cluster.until(lambda: leader.machine.high_watermark == 2)


async def test_a_new_leader_has_what_was_acknowledged_and_the_old_ones_surplus_goes(cluster):
    old = cluster.brokers[1]
    old.append(b"kept")
    await old.answered(1)
    await cluster.until(lambda: everywhere(cluster, [b"kept"]))
    # Broker 1 writes what no other gets, and is not the leader any more when it is back.
    for broker in (2, 3):
        cluster.brokers[broker].links.follow({})
    old.append(b"surplus", acks=Acks.LEADER)
    await old.answered(2)
    await cluster.elect(2)
    await cluster.until(lambda: cluster.leads(2))
    cluster.connect()
    new = cluster.brokers[2]
    new.append(b"new")
    assert (await new.answered(1))[0].base_offset == 1
    await cluster.until(lambda: everywhere(cluster, [b"kept", b"new"]))
    old.append(b"late")
    assert (await old.answered(3))[2].error.reason is Reason.NOT_LEADER


async def test_what_was_not_answered_when_a_leadership_ends_has_an_unknown_outcome(cluster):
    old = cluster.brokers[1]
    for broker in (2, 3):
        cluster.brokers[broker].links.follow({})
    old.append(b"alone")
    await cluster.elect(2)
    [answer] = await old.answered(1)
    assert answer.error.reason is Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND
    assert not answer.error.meaning.definite
