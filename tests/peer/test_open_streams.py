"""Streams between brokers that end and do not come back; each test fails until that is repaired."""

from __future__ import annotations

import asyncio

from riverrun_server.core.replication.messages import Restart
from tests.peer.test_streams import PARTITION, Peer, pair, push, serve  # noqa: F401 - fixtures

RESTART = Restart(PARTITION, 1, 10, (), (12, bytes(300_000)))


async def test_a_follower_whose_mailbox_has_closed_begins_another_stream(pair):
    leader, follower = pair
    follower.links._streams[1][0].mailbox.close()
    assert (await leader.hears(1))[0] == ("disconnected", 2)
    assert (await follower.hears(2))[1] == ("connected", 1)


async def test_an_earlier_process_of_a_broker_does_not_end_the_stream_of_a_later_one(pair):
    """It was cut off from the metadata store and does not know that it is over."""
    leader, follower = pair
    earlier = Peer(2)
    earlier.myself = earlier.links._myself = type(earlier.myself)("here", 2, 7, lambda: 5)
    earlier.links.follow({1: follower.links._streams[1][0].address})
    await asyncio.sleep(1.0)
    await earlier.links.close()
    assert leader.told == []
    leader.say(2, push(probe=3))
    assert (await follower.hears(2))[1].messages == (push(probe=3),)


async def test_a_broker_that_begins_from_nothing_gets_many_snapshots_on_one_stream(pair):
    """A leader of 256 partitions, each with a snapshot of 300 KB, answers all in one turn."""
    leader, follower = pair
    leader.say(2, *[RESTART] * 256)
    async with asyncio.timeout(20):
        while sum(len(each.messages) for each in follower.told[1:]) < 256:
            assert leader.told == [], "the stream was given up, the next one will be, too"
            await asyncio.sleep(0.1)
