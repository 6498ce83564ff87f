"""A cluster of replicas for the tests of what brokers do with each other."""

from __future__ import annotations

import pytest

from riverrun_server.metadata.embedded import EmbeddedStore
from tests.metadata.fakes import FakeDisk, ManualClock, SeededDice
from tests.peer.cluster_of_gateways import Gateway
from tests.peer.cluster_of_replicas import Cluster


@pytest.fixture
async def cluster():
    """Three brokers with a replica each, led by broker 1."""
    disk = FakeDisk()
    async with EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice()) as metadata:
        cluster = Cluster(metadata)
        await cluster.start()
        try:
            await cluster.until(lambda: cluster.leads(1))
            yield cluster
        finally:
            await cluster.stop()


@pytest.fixture
async def gateways():
    """Three brokers with a replica each, led by broker 1, any of which serves it."""
    disk = FakeDisk()
    async with EmbeddedStore(disk, disk.durable, ManualClock(), SeededDice()) as metadata:
        cluster = Cluster(metadata, process=Gateway)
        await cluster.start()
        try:
            await cluster.until(lambda: cluster.leads(1))
            await cluster.until(lambda: all(each.routed for each in cluster.brokers.values()))
            yield cluster
        finally:
            await cluster.stop()
