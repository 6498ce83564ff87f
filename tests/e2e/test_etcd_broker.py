"""A broker whose metadata is in a real etcd: started by its command line, and left alone by it."""

from __future__ import annotations

import subprocess

import pytest

import riverrun
from riverrun_server.metadata.etcd.options import EtcdOptions
from riverrun_server.metadata.etcd.store import EtcdStore
from riverrun_server.runtime.clock import SystemDice
from tests.e2e.broker_process import SERVER, BrokerProcess
from tests.e2e.conftest import ended
from tests.metadata.etcd_process import EtcdProcess
from tests.polyglot import toolchain

pytestmark = toolchain.BUILDS


@pytest.fixture(scope="module")
def etcd(tmp_path_factory):
    with ended(EtcdProcess(tmp_path_factory.mktemp("etcd"))) as process:
        process.start()
        yield process


@pytest.fixture
def address(etcd, topic):
    return f"etcd://{etcd.address}/{topic[:60]}"


@pytest.fixture
def broker(tmp_path, address):
    options = (
        *("--metadata", address, "--set", "etcd.timeout_s=0.5"),
        *("--set", "topic_defaults.replication_factor=1"),
    )
    with ended(BrokerProcess(tmp_path, *options)) as broker:
        broker.start()
        yield broker


def recovered(broker, address):
    """Have the operator's command look at a partition whose topic is in etcd."""
    done = subprocess.run(
        [
            *(SERVER, "recover", "--data-dir", str(broker.data_dir), "--metadata", address),
            *("--topic", "kept", "--partition", "1", "--accept-loss"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


async def test_topics_and_records_outlive_the_broker_and_etcd(broker, etcd, address):
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic("kept", partitions=2)
        async with client.producer() as producer:
            await producer.send("kept", b"before", partition=1)
    broker.kill9()
    etcd.kill9()
    etcd.start()
    broker.restart()
    async with riverrun.Client(broker.address) as client:
        described = await client.admin().describe_topic("kept")
        assert len(described.partitions) == 2
        async with client.producer() as producer:
            ack = await producer.send("kept", b"after", partition=1)
        assert ack.offset == 1
        async with client.consumer("kept") as consumer:
            records = [await anext(aiter(consumer)) for _ in range(2)]
        assert [record.value for record in records] == [b"before", b"after"]
    assert broker.term() == 0
    name = address.rpartition("/")[2]
    async with EtcdStore(EtcdOptions((etcd.address,), f"/riverrun/{name}/"), SystemDice()) as store:
        assert await store.get("live/1") is None  # nobody has to wait for its lease
        assert await store.get("brokers/1") is not None
    assert "kept-1 is whole, offsets 0 to 2" in recovered(broker, address)


async def test_while_etcd_is_away_records_go_on_and_a_new_topic_is_refused(broker, etcd):
    async with riverrun.Client(broker.address, request_timeout_s=2) as client:
        await client.admin().create_topic("steady")
        async with client.producer() as producer:
            assert (await producer.send("steady", b"1")).offset == 0
            etcd.kill9()
            try:
                assert (await producer.send("steady", b"2")).offset == 1
                with pytest.raises(riverrun.RiverrunError, match="not-now"):
                    await client.admin().create_topic("not-now")
                assert "the metadata store took nothing: no member of etcd" in broker.logs()
                assert (await producer.send("steady", b"3")).offset == 2
            finally:
                etcd.start()
    # The watch was broken; what is made now is seen again.
    async with riverrun.Client(broker.address) as client:
        await client.admin().create_topic("now", if_not_exists=True)
        assert len((await client.admin().describe_topic("now")).partitions) == 1
    # A broker that is told to end needs no etcd for that.
    etcd.kill9()
    try:
        assert broker.term() == 0
    finally:
        etcd.start()


def moved(broker, address):
    """Take a broker's metadata to etcd by the operator's command."""
    return subprocess.run(
        [SERVER, "move-metadata", "--data-dir", str(broker.data_dir), "--metadata", address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_broker_with_its_own_metadata_moves_to_etcd_with_everything(tmp_path, address):
    with ended(BrokerProcess(tmp_path)) as alone:
        alone.start()
        async with riverrun.Client(alone.address) as client:
            await client.admin().create_topic(
                "kept", partitions=2, configs={"retention.ms": "5000000"}
            )
            async with client.producer() as producer:
                await producer.send("kept", b"before", partition=1)
            async with client.consumer("kept", group="readers") as consumer:
                await anext(aiter(consumer))
                await consumer.commit()
            before = await client.admin().describe_topic("kept")
        alone.kill9()  # what was acknowledged moves along, however the broker ended
    done = moved(alone, address)
    assert done.returncode == 0, done.stderr
    assert f"start the broker with --metadata {address}" in done.stdout
    assert "is in etcd already" in moved(alone, address).stderr
    with ended(BrokerProcess(tmp_path, "--metadata", address)) as broker:
        broker.start()
        async with riverrun.Client(broker.address) as client:
            after = await client.admin().describe_topic("kept")
            assert (after.topic, after.configs) == (before.topic, before.configs)
            async with client.producer() as producer:
                assert (await producer.send("kept", b"after", partition=1)).offset == 1
            async with client.consumer("kept", group="readers") as consumer:
                assert (await anext(aiter(consumer))).value == b"after"
        assert broker.term() == 0
    with ended(BrokerProcess(tmp_path)) as alone, pytest.raises(AssertionError):
        alone.start()
    assert "are in etcd under" in alone.logs()
