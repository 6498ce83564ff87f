"""What the metrics page of a real broker tells of its store, and of what it found when it started."""

from __future__ import annotations

import http.client
import time

import grpc
import pytest

from riverrun.v1 import producer_pb2, producer_pb2_grpc
from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2 import FetchRequest, ReadRequest, StartPosition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.records_pb2 import Record
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.runtime.clock import SystemDice
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.conftest import ended

SLOTS = 8
FEW_SLOTS = ("--set", f"storage.slots={SLOTS}")
SAMPLED_WITHIN_S = 30.0


@pytest.fixture
def broker(tmp_path):
    with ended(BrokerProcess(tmp_path, *FEW_SLOTS)) as broker:
        yield broker


def scrape(broker):
    connection = http.client.HTTPConnection(broker.http_address, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def scrape_until(broker, condition):
    """Scrape until a sample shows it; a sample is taken every few seconds."""
    ends_at = time.monotonic() + SAMPLED_WITHIN_S
    while True:
        figures = scrape(broker)
        if condition(figures):
            return figures
        assert time.monotonic() < ends_at, figures
        time.sleep(0.1)


def create(channel, topic, **configs):
    AdminServiceStub(channel).CreateTopic(
        CreateTopicRequest(topic=topic, configs=configs), timeout=10
    )


def produce(channel, topic, value):
    request = producer_pb2.ProduceRequest(topic=topic, records=[Record(value=value)])
    producer_pb2_grpc.ProducerServiceStub(channel).Produce(request, timeout=10)


def fetch(channel, topic):
    """Read all of its first partition."""
    position = StartPosition(topic=topic, offset=0)
    request = FetchRequest(positions=[position], min_bytes=1 << 20, max_bytes=1 << 20)
    ConsumerServiceStub(channel).Fetch(request, timeout=10)


def occupied(figures):
    return figures.get('riverrun_store_slots{state="occupied"}')


def test_the_store_is_measured_while_the_broker_runs(broker):
    broker.start()
    scrape_until(broker, lambda figures: occupied(figures) == 0)
    with grpc.insecure_channel(broker.address) as channel:
        create(channel, "t")
        produce(channel, "t", b"x" * 100_000)
    figures = scrape_until(broker, lambda figures: (occupied(figures) or 0) > 0)
    assert figures["riverrun_store_wal_bytes_total"] > 100_000
    assert figures["riverrun_store_memtable_bytes"] > 100_000
    assert figures["riverrun_store_write_amplification_ratio"] >= 1.0
    assert figures["riverrun_store_write_stopped"] == 0
    assert occupied(figures) + figures['riverrun_store_slots{state="free"}'] == SLOTS
    assert figures["riverrun_unclean_recoveries"] == 0
    assert figures["riverrun_orphan_partitions"] == 0
    assert figures["riverrun_metadata_followed"] == 1


def test_what_goes_in_and_out_is_counted_by_topic_and_where_it_came_from(broker):
    broker.start()
    with grpc.insecure_channel(broker.address) as channel:
        create(channel, "t")
        for _ in range(10):
            produce(channel, "t", b"x" * 1000)
        fetch(channel, "t")
        stream = ConsumerServiceStub(channel).Read(ReadRequest(topic="t"))
        next(stream)
        figures = scrape_until(
            broker, lambda figures: figures.get('riverrun_topic_records_total{topic="t"}') == 10
        )
        figures = scrape_until(
            broker,
            lambda figures: figures['riverrun_topic_delivered_records_total{topic="t"}'] == 20,
        )
        assert figures["riverrun_rpc_stream_connections"] == 1
    appended = figures['riverrun_topic_appended_bytes_total{topic="t"}']
    assert appended > 10_000
    delivered = 'riverrun_topic_delivered_bytes_total{source="%s",topic="t"}'
    assert figures[delivered % "memory"] == 2 * appended
    assert figures[delivered % "disk"] == 0
    # The store is looked at by turns of its own.
    scrape_until(broker, lambda figures: figures["riverrun_store_writes_total"] >= 10)
    assert 0 < figures["riverrun_store_write_seconds_total"] < 60
    assert figures["riverrun_store_stall_seconds_total"] == 0
    assert figures["riverrun_sync_wait_seconds_count"] >= 10
    assert figures["riverrun_disk_full"] == 0
    assert figures["riverrun_retention_paused_partitions"] == 0
    assert figures["riverrun_retention_failures_total"] == 0
    assert abs(figures["riverrun_retention_looked_timestamp_seconds"] - time.time()) < 600
    assert figures["riverrun_clock_behind_wall_seconds"] == 0
    assert broker.term() == 0
    broker.restart()
    with grpc.insecure_channel(broker.address) as channel:
        fetch(channel, "t")  # what was in memory before is on the disk now
    figures = scrape_until(broker, lambda figures: figures.get(delivered % "disk", 0) > 0)
    assert figures[delivered % "disk"] == appended
    assert figures[delivered % "memory"] == 0
    assert figures['riverrun_topic_appended_bytes_total{topic="t"}'] == appended


def test_partitions_that_were_served_although_data_may_be_lost_are_counted(broker):
    broker.start()
    with grpc.insecure_channel(broker.address) as channel:
        create(channel, "t", **{"fsync": "relaxed", "unclean.recovery": "accept"})
        produce(channel, "t", b"x")
    broker.kill9()
    broker.restart()
    partitions = scrape(broker)["riverrun_unclean_recoveries"]
    assert partitions >= 1
    assert broker.term() == 0
    broker.restart()
    assert scrape(broker)["riverrun_unclean_recoveries"] == 0


def test_partitions_that_belong_to_no_topic_are_counted(broker):
    store = open_store(
        broker.data_dir,
        slots=SLOTS,
        broker_id=1,
        parse=stored_batch,
        scan=scan_batch,
        dice=SystemDice(),
    )
    for number in range(3):
        store.open(PartitionId(b"o" * 16, number))
    store.close()
    broker.start()
    assert scrape(broker)["riverrun_orphan_partitions"] == 3
