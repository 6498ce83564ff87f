"""A broker that is about to end hands on what it leads, as far as others can take it."""

from __future__ import annotations

import asyncio

from riverrun_server.core.cluster.standing import Standing
from riverrun_server.ports.metadata import MetadataUnavailable
from riverrun_server.runtime.draining import hand_on
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.metadata_writer import PlanOutdated
from tests.core.cluster_world import Outdated
from tests.core.control_world import ControlWorld


class Ending:
    """A broker that ends in a cluster whose controller, another one, works a round at a time."""

    def __init__(self, brokers=3, controller=2):
        self.world = ControlWorld(brokers)
        self.applied = Applied()
        self.controller = self.world.control(controller) if controller <= brokers else None
        self.process = Standing(self.world.image.brokers).process(1)
        self.wrote = 0
        self.beaten = 0

    async def commit(self, steps):
        self.wrote += 1
        if self.beaten:
            self.beaten -= 1
            self.world.change(1, rack=f"written by another {self.beaten}")
        try:
            self.world.run(steps)
        except Outdated:
            raise PlanOutdated(self.world.image.revision) from None
        finally:
            self.applied.publish(self.world.image.revision)
        return self.world.image.revision

    async def hand_on(self, timeout_s=5.0):
        """Run it beside the controller; return how much is still led."""
        image = self.world.image
        ending = asyncio.create_task(hand_on(image, self.applied, self, self.process, timeout_s))
        while not ending.done():
            await asyncio.sleep(0)
            if self.controller is not None:
                self.world.round(self.controller)
                self.applied.publish(image.revision)
        return await ending

    def led(self, name):
        return self.world.partition(name, 0).leader


async def test_others_lead_and_nobody_waits_for_it_any_more():
    ending = Ending()
    ending.world.make("t", 6)
    assert await ending.hand_on() == 0
    for number in range(6):
        value = ending.world.partition("t", number)
        assert value.leader != 1
        assert 1 not in {each.broker for each in value.isr}
    assert ending.world.image.brokers[1].value.draining


async def test_what_nobody_else_holds_stays_and_is_not_waited_for():
    ending = Ending()
    while True:
        ending.world.make(f"t{ending.world.revision}", 1, 1)
        name = max(ending.world.image.topics)
        if ending.led(name) == 1:
            break
    assert await ending.hand_on() == 1
    assert ending.led(name) == 1


async def test_a_broker_that_is_the_only_one_writes_nothing():
    ending = Ending(brokers=1, controller=9)
    ending.process = ending.world.leader
    ending.world.make("t", 2, 1)
    assert await ending.hand_on() == 2
    assert ending.wrote == 0


async def test_others_that_write_its_registration_meanwhile_do_not_keep_it_from_saying_so():
    ending = Ending()
    ending.beaten = 2
    ending.world.make("t", 3)
    assert await ending.hand_on() == 0
    assert ending.wrote == 3
    assert ending.world.image.brokers[1].value.rack.startswith("written by another")


async def test_where_the_store_is_away_it_ends_without():
    ending = Ending()
    ending.world.make("t", 3)

    async def commit(steps):
        raise MetadataUnavailable("no member of etcd answers")

    ending.commit = commit
    led = sum(ending.world.partition("t", number).leader == 1 for number in range(3))
    assert await ending.hand_on() == led


async def test_where_no_controller_does_anything_it_waits_no_longer_than_it_may():
    ending = Ending()
    ending.controller = None
    ending.world.make("t", 3)
    led = sum(ending.world.partition("t", number).leader == 1 for number in range(3))
    assert led > 0
    assert await ending.hand_on(timeout_s=0.05) == led
