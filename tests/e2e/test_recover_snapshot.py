"""A partition whose producer snapshot is missing or damaged: offline until its loss is accepted, then whole."""

from __future__ import annotations

import contextlib
import subprocess

import grpc
import pytest

from riverrun.v1 import admin_pb2, consumer_pb2, errors_pb2, producer_pb2
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub
from riverrun.v1.producer_pb2_grpc import ProducerServiceStub
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.runtime.clock import SystemDice
from riverrun_server.storage import keys
from riverrun_server.storage.rocks import Batch
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch
from tests.e2e.broker_process import SERVER, BrokerProcess
from tests.e2e.conftest import ended

COUNT = 4
SLOTS = 4


class Partition:
    """A broker with one partition, to which one idempotent producer writes one record a batch."""

    def __init__(self, broker):
        self.broker = broker
        self.producer_id = 0

    @contextlib.contextmanager
    def connected(self):
        with grpc.insecure_channel(self.broker.address) as channel:
            self.admin, self.consumer = AdminServiceStub(channel), ConsumerServiceStub(channel)
            self.producer = ProducerServiceStub(channel)
            yield

    def produce(self, sequence):
        """Return the result of the producer's batch with this sequence."""
        records = RecordSet(records=[Record(value=b"%d" % sequence)]).SerializeToString()
        batch = RecordBatch(
            records=records, producer_id=self.producer_id, base_sequence=sequence, record_count=1
        )
        asked = producer_pb2.PartitionBatch(topic="t", partition=0, batch=batch)
        answer = self.producer.Produce(producer_pb2.ProduceRequest(batches=[asked]), timeout=10)
        return answer.results[0]

    def trim(self, offset):
        point = admin_pb2.TrimPoint(partition=0, before_offset=offset)
        asked = admin_pb2.TrimTopicRequest(topic="t", points=[point])
        (result,) = self.admin.TrimTopic(asked, timeout=10).results
        assert result.log_start_offset == offset, result

    def read(self):
        asked = consumer_pb2.ReadRequest(topic="t", stop_at_end=True)
        return {
            record.offset: record.value
            for frame in self.consumer.Read(asked, timeout=20)
            for record in frame.delivery.records
        }

    def recover(self):
        command = [SERVER, "recover", "--data-dir", self.broker.data_dir, "--topic", "t"]
        done = subprocess.run(
            [*command, "--partition", "0", "--accept-loss"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def change_snapshots(self, change):
        """Change the stored snapshots behind the broker's back; each is (key, bytes) before."""
        store = open_store(
            self.broker.data_dir,
            broker_id=1,
            slots=SLOTS,
            parse=stored_batch,
            scan=scan_batch,
            dice=SystemDice(),
        )
        try:
            index = store._journal.index
            (stored,) = [each for each in store.partitions() if store.open(each).snapshot()]
            snapshots = list(index.scan(*keys.snapshots(keys.prefix(stored))))
            assert snapshots
            write = Batch()
            for key, data in snapshots:
                change(write, index, key, data)
            store._journal.commit(write)
            store.sync()
        finally:
            store.close()


@pytest.fixture
def partition(tmp_path):
    """A stopped broker with records whose producer's snapshot stands at the end of the log."""
    options = ("--set", f"storage.slots={SLOTS}", "--set", "offsets.partitions=1")
    with ended(BrokerProcess(tmp_path, *options)) as broker:
        broker.start()
        partition = Partition(broker)
        with partition.connected():
            asked = admin_pb2.CreateTopicRequest(topic="t", partitions=1)
            partition.admin.CreateTopic(asked, timeout=10)
            partition.producer_id = partition.producer.InitProducer(
                producer_pb2.InitProducerRequest(), timeout=10
            ).producer_id
            for sequence in range(COUNT):
                assert partition.produce(sequence).base_offset == sequence
        yield partition


def trimmed(partition, offset):
    if offset:
        with partition.connected():
            partition.trim(offset)
    assert partition.broker.term() == 0


def missing(write, index, key, _):
    write.delete(index, key)


def torn(write, index, key, data):
    write.put(index, key, data[:-1])


def garbage(write, index, key, _):
    write.put(index, key, b"\xff" * 40)


@pytest.mark.parametrize(
    ("log_start", "damage"), [(2, missing), (COUNT, missing), (2, torn), (0, garbage)]
)
def test_the_partition_is_offline_until_the_loss_of_its_producers_is_accepted(
    partition, log_start, damage
):
    trimmed(partition, log_start)
    partition.change_snapshots(damage)
    partition.broker.restart()
    with partition.connected():
        error = partition.produce(COUNT).error
        assert error.reason == errors_pb2.ERROR_REASON_PARTITION_OFFLINE
        assert "producer snapshot" in error.message
        assert "riverrun-server recover" in error.message
    assert partition.broker.term() == 0

    told = partition.recover()
    assert f"now ends at offset {COUNT}; it ended at {COUNT}; its producers are forgotten" in told

    partition.broker.restart()
    with partition.connected():
        assert partition.read() == {n: b"%d" % n for n in range(log_start, COUNT)}
        # As it said: who goes on is refused, and who begins anew is a producer like any other.
        refused = partition.produce(COUNT).error
        assert refused.reason == errors_pb2.ERROR_REASON_UNKNOWN_PRODUCER
        assert refused.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED
        for sequence in range(2):
            again = partition.produce(sequence)
            assert (again.base_offset, again.duplicate) == (COUNT + sequence, False)
        assert partition.produce(1).duplicate
    assert partition.broker.term() == 0
    assert "is whole" in partition.recover()


def test_what_can_be_started_from_is_left_alone(partition):
    trimmed(partition, 2)
    assert "is whole" in partition.recover()
    partition.broker.restart()
    with partition.connected():
        again = partition.produce(COUNT - 1)
        assert (again.base_offset, again.duplicate) == (COUNT - 1, True)


def test_without_a_snapshot_a_log_that_was_never_trimmed_is_whole(partition):
    trimmed(partition, 0)
    partition.change_snapshots(missing)
    assert "is whole" in partition.recover()
    partition.broker.restart()
    with partition.connected():
        assert partition.produce(COUNT - 1).duplicate
