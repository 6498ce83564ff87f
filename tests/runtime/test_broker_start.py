"""A broker's start while others write to the same metadata."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.steps import ABSENT, Step, Write
from riverrun_server.core.cluster.values import BrokerRegistration, ClusterValue
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.runtime.broker_start import BrokerStart
from riverrun_server.runtime.metadata_feed import MetadataFeed
from riverrun_server.runtime.metadata_writer import MetadataWriter
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice
from tests.runtime.catalog_world import LIVES, registration

DOCUMENTS = JsonDocuments()


class Beaten:
    """A writer before whom somebody else writes, as often as there are steps of theirs."""

    def __init__(self, writer, *theirs):
        self._writer = writer
        self._theirs = list(theirs)

    async def commit(self, steps):
        if self._theirs:
            await self._writer.commit((self._theirs.pop(0),))
        return await self._writer.commit(steps)


@asynccontextmanager
async def starting(*theirs):
    disk, dice = FakeDisk(), SeededDice(1)
    async with EmbeddedStore(disk, disk.durable, ManualClock(), dice) as store:
        image = ClusterImage()
        writer = Beaten(MetadataWriter(store, DOCUMENTS, dice), *theirs)
        feed = MetadataFeed(store, DOCUMENTS, image, dice)
        start = BrokerStart(feed, image, writer, TopicPolicy())
        start.image = image
        yield start
        await feed.close()


@pytest.mark.timeout(10)
async def test_of_brokers_that_begin_together_one_makes_the_cluster():
    other = ClusterValue(cluster_id="theirs", create_time_ms=1)
    async with starting(Step((Write(keys.CLUSTER, other, ABSENT),))) as start:
        await start.join(ManualClock(), SeededDice(2))
        assert start.image.cluster.value.cluster_id == "theirs"


@pytest.mark.timeout(10)
async def test_a_broker_registers_although_the_process_before_it_is_just_being_fenced():
    before = BrokerRegistration(broker_id=1, incarnations=LIVES, endpoints={}, fenced=True)
    async with starting() as start:
        await start.join(ManualClock(), SeededDice(2))
        start._writer._theirs.append(Step((Write(keys.broker(1), before, ABSENT),)))
        process = await start.register(registration())
        shown = start.image.brokers[1]
        assert (shown.mod_revision, shown.value.fenced) == (process.broker_epoch, False)
