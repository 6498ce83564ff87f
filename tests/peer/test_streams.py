"""Streams between brokers on real sockets: who is there, what arrives, and how a stream ends."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.messages import (
    Acked,
    Envelope,
    Follow,
    Push,
    Refused,
    Restart,
)
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.links import PeerLinks
from riverrun_server.peer.mailbox import FRAME_BYTES, Mailbox
from riverrun_server.peer.server import PING_S, PeerServer
from riverrun_server.peer.v1 import replication_pb2 as wire
from riverrun_server.peer.v1.replication_pb2_grpc import ReplicationServiceStub
from tests.metadata.fakes import SeededDice
from tests.peer.batches import batch

PARTITION = PartitionId(bytes(range(16)), 3)


def follow(log_end=0):
    return Follow(PARTITION, 1, log_end, None)


def push(*batches, probe=0):
    base = batches[0].base_offset if batches else 0
    return Push(PARTITION, 1, None, batches, 0, 0, probe, base)


class Peer:
    """One broker's end: it remembers what it is told, in order."""

    def __init__(self, broker, cluster="here"):
        self.told = []
        self.changed = asyncio.Event()
        self.myself = Myself(cluster, broker, 100 + broker, lambda: 5)
        self.links = PeerLinks(self.myself, self, SeededDice())

    def receive(self, envelope):
        self._note(envelope)

    def connected(self, broker):
        self._note(("connected", broker))

    def disconnected(self, broker):
        self._note(("disconnected", broker))

    def _note(self, what):
        self.told.append(what)
        self.changed.set()

    def say(self, to, *messages):
        self.links.send(Envelope(self.myself.broker_id, self.myself.broker_epoch, to, messages))

    async def hears(self, count):
        """Wait until it was told so much; return all of it."""
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.told


async def logged(logs):
    """Wait for the first line."""
    async with asyncio.timeout(10):
        while not logs:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.05)


@pytest.fixture
async def serve():
    """Return what serves a peer on a port, the same one again where it is given."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(peer, port=0):
            server = PeerServer(f"127.0.0.1:{port}")
            await server.start((peer.links.service.handler(),))
            stack.push_async_callback(peer.links.close)
            stack.push_async_callback(server.stop)
            return server, f"127.0.0.1:{server.port}"

        yield start


@pytest.fixture
async def pair(serve):
    """Return a leader, broker 1, and a follower, broker 2, that have found each other."""
    leader, follower = Peer(1), Peer(2)
    _, address = await serve(leader)
    follower.links.follow({1: address})
    await follower.hears(1)
    yield leader, follower
    await follower.links.close()


async def test_messages_arrive_in_order_with_who_sent_them(pair):
    leader, follower = pair
    assert follower.told == [("connected", 1)]
    for end in range(50):
        follower.say(1, follow(end), Acked(PARTITION, 1, end, 0))
    while sum(len(each.messages) for each in leader.told) < 100:
        await leader.hears(len(leader.told) + 1)
    assert {(each.sender, each.sender_epoch, each.to) for each in leader.told} == {(2, 102, 1)}
    said = [message for each in leader.told for message in each.messages]
    assert [each.log_end for each in said if isinstance(each, Follow)] == list(range(50))
    leader.say(2, push(batch(0), batch(1)), push(probe=7))
    _, *told = await follower.hears(2)
    assert (told[0].sender, told[0].sender_epoch, told[0].to) == (1, 101, 2)
    assert [each for envelope in told for each in envelope.messages] == [
        push(batch(0), batch(1)),
        push(probe=7),
    ]


async def test_a_refusal_finds_its_way_in_both_directions(pair):
    leader, follower = pair
    refusal = Refused(PARTITION, 4, Reason.FENCED_LEADER_EPOCH)
    leader.say(2, refusal)
    follower.say(1, refusal)
    assert (await follower.hears(2))[-1].messages == (refusal,)
    assert (await leader.hears(1))[-1].messages == (refusal,)


async def test_more_than_a_frame_goes_in_several_and_whole(pair):
    leader, follower = pair
    batches = [batch(offset, size=FRAME_BYTES // 3) for offset in range(12)]
    leader.say(2, *(push(each) for each in batches))
    while sum(len(each.messages) for each in follower.told[1:]) < 12:
        await follower.hears(len(follower.told) + 1)
    got = [message for each in follower.told[1:] for message in each.messages]
    assert [each.batches[0] for each in got] == batches
    assert len(follower.told) > 4


async def test_what_is_said_to_nobody_is_lost(pair):
    leader, follower = pair
    leader.say(9, push())
    follower.say(9, follow())
    leader.say(2, push(probe=1))
    assert (await follower.hears(2))[1].messages == (push(probe=1),)


async def test_a_follower_comes_back_after_its_leader_was_away(serve):
    leader, follower = Peer(1), Peer(2)
    server, address = await serve(leader)
    follower.links.follow({1: address})
    await follower.hears(1)
    await server.stop()
    assert (await leader.hears(1)) == [("disconnected", 2)]
    again = Peer(1)
    await serve(again, int(address.rpartition(":")[2]))
    assert (await follower.hears(2)) == [("connected", 1)] * 2
    follower.say(1, follow())
    assert (await again.hears(1))[0].messages == (follow(),)
    await follower.links.close()


async def test_a_newer_stream_of_a_broker_ends_the_older_one_first(pair, serve):
    leader, follower = pair
    newer = Peer(2)
    newer.links.follow({1: follower.links._streams[1][0].address})
    await newer.hears(1)
    assert (await leader.hears(1))[0] == ("disconnected", 2)
    leader.say(2, push(probe=3))
    assert (await newer.hears(2))[1].messages == (push(probe=3),)
    await newer.links.close()


async def test_a_broker_of_another_cluster_is_not_heard_and_the_log_says_so_once(serve):
    leader, stranger = Peer(1), Peer(2, cluster="there")
    _, address = await serve(leader)
    with capture_logs() as logs:
        stranger.links.follow({1: address})
        await logged(logs)
        await asyncio.sleep(0.5)  # it tries again meanwhile
    assert [each["event"] for each in logs] == ["a leader cannot be followed"]
    assert (
        "broker 2 is of cluster 'there', and this is broker 1 of cluster 'here'" in logs[0]["why"]
    )
    assert not leader.told
    assert not stranger.told
    await stranger.links.close()


async def test_another_broker_than_the_one_meant_is_not_followed(serve):
    leader, follower = Peer(3), Peer(2)
    _, address = await serve(leader)
    with capture_logs() as logs:
        follower.links.follow({1: address})
        await logged(logs)
    assert "broker 3 is where broker 2 expected broker 1" in logs[0]["why"]
    assert not follower.told
    await follower.links.close()


async def test_who_is_followed_no_more_is_left(pair):
    leader, follower = pair
    follower.links.follow({})
    assert (await leader.hears(1)) == [("disconnected", 2)]


async def test_nonsense_ends_the_stream_and_says_why(serve):
    leader = Peer(1)
    _, address = await serve(leader)
    async with grpc.aio.insecure_channel(address) as channel:
        call = ReplicationServiceStub(channel).Replicate()
        await call.write(wire.ReplicateRequest(hello=Peer(2).myself.hello()))
        assert (await call.read()).hello.broker_epoch == 101
        message = wire.FollowerMessage(topic_id=b"short", acked=wire.Acked())
        await call.write(wire.ReplicateRequest(messages=[message]))
        with pytest.raises(grpc.aio.AioRpcError, match="an id has 16 bytes"):
            await call.read()
    assert leader.told == [("disconnected", 2)]


@pytest.mark.parametrize("first", [None, wire.ReplicateRequest()])
async def test_a_stream_that_begins_with_no_introduction_is_refused(serve, first):
    leader = Peer(1)
    _, address = await serve(leader)
    async with grpc.aio.insecure_channel(address) as channel:
        call = ReplicationServiceStub(channel).Replicate()
        if first is not None:
            await call.write(first)
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()
    assert not leader.told


async def test_a_mailbox_that_nobody_empties_closes_instead_of_growing():
    mailbox = Mailbox(max_bytes=10_000)
    mailbox.put([push(batch(0, size=5_000))])
    assert not mailbox.is_closed
    mailbox.put([push(batch(1, size=5_000))])
    assert mailbox.is_closed
    assert await mailbox.take() == []


async def test_a_silent_stream_is_pinged_and_stays(pair):
    """Found by reading: a server that is not told so takes pings without data for an attack."""
    leader, follower = pair
    await asyncio.sleep(4.5 * PING_S)
    assert follower.told == [("connected", 1)]
    assert not leader.told
    leader.say(2, push(probe=1))
    await follower.hears(2)


async def test_two_brokers_cannot_have_one_port(serve):
    _, address = await serve(Peer(1))
    with pytest.raises(RuntimeError):
        PeerServer(address)


async def test_a_follower_whose_mailbox_has_closed_begins_another_stream(pair):
    leader, follower = pair
    follower.links._streams[1][0].mailbox.close()
    assert (await leader.hears(1))[0] == ("disconnected", 2)
    assert (await follower.hears(2))[1] == ("connected", 1)


async def test_an_earlier_process_of_a_broker_does_not_end_the_stream_of_a_later_one(pair):
    """It was cut off from the metadata store and does not know that it is over."""
    leader, follower = pair
    earlier = Peer(2)
    earlier.links._myself = Myself("here", 2, 7, lambda: 5)
    earlier.links.follow({1: follower.links._streams[1][0].address})
    await asyncio.sleep(1.0)
    await earlier.links.close()
    assert leader.told == []
    leader.say(2, push(probe=3))
    assert (await follower.hears(2))[1].messages == (push(probe=3),)


async def test_an_earlier_process_of_a_broker_hears_that_it_is_over(pair):
    _, follower = pair
    earlier = Peer(2)
    earlier.links._myself = Myself("here", 2, 7, lambda: 5)
    with capture_logs() as logs:
        earlier.links.follow({1: follower.links._streams[1][0].address})
        await logged(logs)
        await earlier.links.close()
    assert "an earlier one: it has been replaced" in logs[0]["why"]


async def test_a_broker_that_begins_from_nothing_is_told_all_snapshots_on_one_stream(pair):
    """A leader answers 256 partitions in one turn, with 300 KB each; who is left out asks again."""
    leader, follower = pair
    missing = {
        PartitionId(PARTITION.topic_id, number): Restart(
            PartitionId(PARTITION.topic_id, number), 1, 10, (), (12, bytes(300_000))
        )
        for number in range(256)
    }
    rounds = 0
    while missing:
        heard = len(follower.told)
        leader.say(2, *missing.values())
        await follower.hears(heard + 1)
        leader.say(2, push(probe=rounds))  # behind all that found room
        while not isinstance(follower.told[-1].messages[-1], Push):
            await follower.hears(len(follower.told) + 1)
        for envelope in follower.told[heard:]:
            for message in envelope.messages:
                missing.pop(message.partition, None)
        rounds += 1
    assert leader.told == []
    assert rounds < 10
