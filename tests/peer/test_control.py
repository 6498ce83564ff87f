"""What brokers find of each other on their streams, and how the controller hears of it."""

from __future__ import annotations

import asyncio
import socket

import grpc.aio
import pytest

from riverrun_server.core.cluster.image import ClusterImage, KeyChange, Versioned
from riverrun_server.core.cluster.keys import ControllerKey
from riverrun_server.core.cluster.values import ControllerValue
from riverrun_server.peer.control import ControlLinks, ControlService
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.links import PeerLinks
from riverrun_server.peer.server import PeerServer
from riverrun_server.peer.v1.control_pb2 import Answering, ReportRequest
from riverrun_server.peer.v1.control_pb2_grpc import ControlServiceStub
from riverrun_server.runtime.witness import Witness
from tests.metadata.fakes import SeededDice
from tests.peer.test_streams import Peer


class Told:
    """Notes what it is told, in order; stands for a controller, for calls to one and for a witness."""

    def __init__(self):
        self.told = []
        self.changed = asyncio.Event()

    def refuses(self, *what):
        self._note(("refuses", *what))

    def answers(self, *what):
        self._note(("answers", *what))

    def _note(self, what):
        self.told.append(what)
        self.changed.set()

    async def hears(self, count):
        async with asyncio.timeout(10):
            while len(self.told) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.told


def myself(broker, cluster="here"):
    return Myself(cluster, broker, 100 + broker, lambda: 5)


@pytest.fixture
async def controller():
    """Broker 1, which is told of others, and where it listens."""
    told, server = Told(), PeerServer("127.0.0.1:0")
    await server.start((ControlService(myself(1), told).handler(),))
    yield told, f"127.0.0.1:{server.port}"
    await server.stop()


async def test_the_controller_hears_who_found_which_process_refusing(controller):
    told, address = controller
    links = ControlLinks(myself(2))
    links.reach({1: address, 2: "127.0.0.1:1"})
    links.refuses(1, 3, 77)
    assert await told.hears(1) == [("refuses", 2, 3, 77)]
    links.answers(1, 3)
    assert (await told.hears(2))[1] == ("answers", 2, 3)
    await links.close()


async def test_a_report_that_cannot_be_made_is_lost_and_nothing_else():
    links = ControlLinks(myself(2))
    links.reach({1: "127.0.0.1:1"})
    links.refuses(1, 3, 77)
    links.refuses(9, 3, 77)
    while links._telling:
        await asyncio.wait(list(links._telling.values()))
    await links.close()


async def test_what_is_newer_takes_the_place_of_a_report_that_hangs():
    """Where it would arrive first, a broker that is back were fenced."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        links = ControlLinks(myself(2))
        links.reach({1: f"127.0.0.1:{silent.getsockname()[1]}"})
        links.refuses(1, 3, 77)
        (first,) = links._telling.values()
        links.answers(1, 3)
        await asyncio.wait([first])
        assert first.cancelled()
        assert len(links._telling) == 1
        await links.close()


async def test_strangers_report_nothing(controller):
    told, address = controller
    async with grpc.aio.insecure_channel(address) as channel:
        request = ReportRequest(
            hello=myself(2, "elsewhere").hello(), broker_id=3, answering=Answering()
        )
        with pytest.raises(grpc.aio.AioRpcError, match="of cluster 'elsewhere'"):
            await ControlServiceStub(channel).Report(request)
    assert told.told == []


async def test_a_stream_tells_of_a_process_that_it_had_reached_and_that_is_gone():
    leader, follower, found = Peer(1), Peer(2), Told()
    server = PeerServer("127.0.0.1:0")
    await server.start((leader.links.service.handler(),))
    links = PeerLinks(follower.myself, follower, SeededDice(), found)
    links.follow({1: f"127.0.0.1:{server.port}"})
    assert await found.hears(1) == [("answers", 1)]
    await server.stop()
    assert (await found.hears(2))[1] == ("refuses", 1, leader.myself.broker_epoch)
    await links.close()
    await leader.links.close()


async def test_a_broker_that_was_never_reached_is_not_told_of():
    """Its address may be wrong, here alone."""
    follower, found, paused = Peer(2), Told(), asyncio.Queue()

    async def pause(_):
        await paused.put(None)
        await asyncio.sleep(0.01)

    links = PeerLinks(follower.myself, follower, SeededDice(), found)
    links.follow({1: "127.0.0.1:1"})
    links._streams[1][0]._pause = pause
    for _ in range(3):
        await asyncio.wait_for(paused.get(), 10)
    assert found.told == []
    await links.close()


@pytest.mark.parametrize(
    ("controller", "here", "elsewhere"),
    [
        (1, [("refuses", 1, 3, 77), ("answers", 1, 3)], []),
        (2, [], [("refuses", 2, 3, 77), ("answers", 2, 3)]),
        (None, [], []),
    ],
    ids=["this broker", "another", "nobody"],
)
def test_a_witness_tells_whoever_controls_the_cluster(controller, here, elsewhere):
    image, own, calls = ClusterImage(), Told(), Told()
    if controller is not None:
        value = ControllerValue(broker_id=controller, broker_epoch=9)
        image.apply(1, [KeyChange(ControllerKey(), Versioned(value, 1))])
    witness = Witness(1, image, own, calls)
    witness.refuses(3, 77)
    witness.answers(3)
    assert (own.told, calls.told) == (here, elsewhere)
