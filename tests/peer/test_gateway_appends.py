"""Appends reach their leader through any broker, once, in order, and with a known or an unknown outcome."""

from __future__ import annotations

import asyncio

from riverrun_server.core.errors import Reason
from riverrun_server.ports.partitions import Acks
from tests.peer.cluster_of_gateways import endpoint


async def test_an_append_goes_through_a_broker_that_does_not_lead_and_the_answer_names_who_does(
    gateways,
):
    answer = await gateways.brokers[2].submit(b"a", b"b")
    assert (answer.base_offset, answer.record_count, answer.error) == (0, 2, None)
    assert (answer.leader.broker_id, answer.leader.leader_epoch) == (1, 1)
    assert answer.leader.endpoints["clients"] == endpoint(1)
    assert gateways.brokers[1].values() == [b"a", b"b"]


async def test_an_append_at_the_leader_names_nobody(gateways):
    answer = await gateways.brokers[1].submit(b"a")
    assert (answer.base_offset, answer.leader) == (0, None)


async def test_appends_of_one_partition_keep_their_order_through_a_gateway(gateways):
    gateway = gateways.brokers[3]
    answers = [gateway.submit(b"%d" % number) for number in range(200)]
    assert [(await each).base_offset for each in answers] == list(range(200))
    assert gateways.brokers[1].values() == [b"%d" % number for number in range(200)]


async def test_what_the_leader_refuses_comes_back_as_it_was_said(gateways):
    gateway = gateways.brokers[2]
    assert (await gateway.submit(b"a", producer_id=7, sequence=0)).base_offset == 0
    refused = await gateway.submit(b"c", producer_id=7, sequence=2)
    assert refused.error.reason is Reason.OUT_OF_ORDER_SEQUENCE
    assert refused.error.expected_sequence == 1
    again = await gateway.submit(b"a", producer_id=7, sequence=0)
    assert (again.base_offset, again.duplicate) == (0, True)


async def test_an_append_of_the_largest_size_passes(gateways):
    large = bytes(3_000_000)
    assert (await gateways.brokers[2].submit(large)).base_offset == 0
    assert gateways.brokers[1].values() == [large]


async def test_a_leader_killed_with_appends_under_way_leaves_their_outcome_unknown(gateways):
    gateway = gateways.brokers[2]
    await gateway.submit(b"committed")
    # Without followers nothing is acknowledged, so the appends are under way when the leader dies.
    for broker in (2, 3):
        gateways.brokers[broker].links.follow({})
    answers = [gateway.submit(b"%d" % number) for number in range(3)]
    await gateways.until(lambda: gateways.brokers[1].machine.log_end == 4)
    await gateways.stop_broker(1)
    for answer in answers:
        error = (await answer).error
        assert not error.meaning.definite
    waits = gateway.submit(b"later")
    await gateways.elect(3)
    assert (await waits).base_offset == 1
    await gateways.until(lambda: gateways.brokers[3].values() == [b"committed", b"later"])


async def test_an_append_that_no_leader_comes_for_is_refused_and_nothing_happened(gateways):
    gateway = gateways.brokers[2]
    await gateways.stop_broker(1)
    began = asyncio.get_running_loop().time()
    error = (await gateway.submit(b"a")).error
    assert error.reason is Reason.LEADER_NOT_AVAILABLE
    assert error.meaning.definite
    assert asyncio.get_running_loop().time() - began >= gateway.wait_s - 0.1


async def test_a_newer_leadership_answers_what_the_old_leader_has_not_and_waits_for_nobody(
    gateways,
):
    gateway = gateways.brokers[3]
    await gateway.submit(b"a")
    for broker in (2, 3):
        gateways.brokers[broker].links.follow({})
    stuck = gateway.submit(b"stuck")
    await gateways.until(lambda: gateways.brokers[1].machine.log_end == 2)
    # The old leader is alive and does not answer: its appends are of an epoch that has ended.
    await gateways.elect(2)
    error = (await stuck).error
    assert not error.meaning.definite
    gateways.connect()
    assert (await gateway.submit(b"b")).base_offset == 1


async def test_acks_of_the_leader_alone_pass_through(gateways):
    for broker in (2, 3):
        gateways.brokers[broker].links.follow({})
    assert (await gateways.brokers[2].submit(b"a", acks=Acks.LEADER)).base_offset == 0
