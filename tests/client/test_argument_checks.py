"""An argument of the wrong type or range is a UsageError that names it, before anything is asked."""

from __future__ import annotations

import pytest

import riverrun
import riverrun.blocking
from riverrun import Last, Offset, Reason, TopicPartition, UsageError
from riverrun._core.argument_checks import topic_partition, whole_number

PLACE = TopicPartition("t", 0)


class Index:
    """A whole number that is no int, as numpy's are."""

    def __index__(self):
        return 3


def test_whatever_stands_for_a_whole_number_is_one():
    assert whole_number("n", Index()) == 3
    assert topic_partition(("t", Index())) == TopicPartition("t", 3)
    assert type(topic_partition(("t", 0))) is TopicPartition


MAKING = [
    (
        lambda c: c.producer(linger_s="1"),
        "linger_s is '1'; it must be a number of seconds, 0 to 60",
    ),
    (lambda c: c.producer(linger_s=True), "linger_s is True"),
    (lambda c: c.producer(batch_bytes="1000"), "batch_bytes is '1000'; it must be a whole number"),
    (lambda c: c.producer(batch_bytes=1.5), "batch_bytes is 1.5"),
    (lambda c: c.producer(buffer_bytes=None), "buffer_bytes is None"),
    (lambda c: c.producer(delivery_timeout_s=float("nan")), "delivery_timeout_s is nan"),
    (lambda c: c.producer(delivery_timeout_s="1m"), "a number of seconds, above 0"),
    (lambda c: c.producer(compression=["gzip"]), "compression is"),
    (lambda c: c.producer(partitioner=["crc32"]), "partitioner is"),
    (lambda c: c.producer(key_serializer=["str"]), "key_serializer is"),
    (lambda c: c.producer(on_delivery="print"), "on_delivery is 'print'; it must be a function"),
    (lambda c: c.consumer("t", group=5), "group is 5"),
    (lambda c: c.consumer("t", partitions=0), r"partitions is 0; it must be several, as \[0, 1\]"),
    (lambda c: c.consumer("t", partitions="0"), "partitions is '0'"),
    (lambda c: c.consumer("t", partitions=["0"]), "'0' names no partition"),
    (lambda c: c.consumer("t", partitions=[0.5]), "a partition is 0.5"),
    (lambda c: c.consumer(partitions=PLACE), "partitions is TopicPartition"),
    (lambda c: c.consumer(partitions={"t": Last(1)}), "'t' names no partition"),
    (lambda c: c.consumer("t", from_=Offset("5")), "no place to read from"),
    (lambda c: c.consumer("t", from_=Last(1.5)), "no place to read from"),
    (lambda c: c.consumer("t", from_=[5]), "no place to read from"),
    (lambda c: c.consumer("t", offset_reset=[]), "offset_reset is"),
    (lambda c: c.consumer("t", prefetch_bytes="1"), "prefetch_bytes is '1'"),
    (lambda c: c.consumer("t", on_reset=5), "on_reset is 5"),
    (
        lambda c: c.consumer("t", group="g", commit="auto", commit_interval_s="1"),
        "commit_interval_s",
    ),
    (lambda _: riverrun.Client("h", request_timeout_s="1"), "request_timeout_s is '1'"),
    (lambda _: riverrun.Client("h", client_id=5), "client_id is 5"),
]


@pytest.mark.parametrize(("make", "said"), MAKING)
def test_making_something_of_a_wrong_argument_is_refused(make, said):
    with pytest.raises(UsageError, match=said) as caught:
        make(riverrun.Client("h:1"))
    assert caught.value.reason is Reason.INVALID_REQUEST


CALLS = [
    (
        lambda c: c.producer().send("t", b"", partition="1"),
        "partition is '1'; it must be a whole num",
    ),
    (lambda c: c.producer().send("t", b"", partition=2**31), "partition is 2147483648"),
    (lambda c: c.producer().send(b"t", b""), "the topic is b't'; it must be its name, a str"),
    (lambda c: c.producer().send("t", b"", timestamp_ms=-1), "the timestamp is -1"),
    (lambda c: c.producer().send("t", b"", timestamp_ms="1"), "the timestamp is '1'"),
    (lambda c: c.producer().send("t", b"", headers={"a": "b"}), "value of type str; .*: encode it"),
    (
        lambda c: c.producer().send("t", b"", headers={b"a": b"b"}),
        "name b'a' is of type bytes; .*de",
    ),
    (lambda c: c.producer().send_many("t", b"record"), "records is b'record'; .*an iterable"),
    (lambda c: c.producer().send_many("t", 5), "records is 5"),
    (lambda c: c.producer().send_many("t", [], partition="1"), "partition is '1'"),
    (lambda c: c.producer().close(timeout_s="1"), "timeout_s is '1'"),
    (
        lambda c: c.consumer("t").getmany("5"),
        "max_records is '5'; it must be a whole number from 1",
    ),
    (lambda c: c.consumer("t").getmany(5, timeout_s="1"), "timeout_s is '1'"),
    (lambda c: c.consumer("t").position("t"), "'t' names no partition"),
    (lambda c: c.consumer("t").seek(5, 1), "5 names no partition"),
    (lambda c: c.consumer("t").seek(PLACE, "5"), "'5' is no place"),
    (lambda c: c.consumer("t").seek_many([PLACE]), "places is .*a mapping by partition"),
    (lambda c: c.consumer("t").beginning_offsets(PLACE), "partitions is TopicPartition"),
    (lambda c: c.consumer("t").end_offsets(["t"]), "'t' names no partition"),
    (lambda c: c.consumer("t").offsets_for_times({"t": 0}), "'t' names no partition"),
    (lambda c: c.consumer("t", group="g").commit({PLACE: "5"}), "commit for t.0. is '5'"),
    (lambda c: c.consumer("t", group="g").commit({"t": 5}), "'t' names no partition"),
    (lambda c: c.consumer("t", group="g").commit([5]), "offsets is .5."),
    (lambda c: c.consumer("t", group="g").committed("t"), "partitions is 't'"),
    (lambda c: c.consumer("t").close(timeout_s=-1), "timeout_s is -1"),
    (lambda c: c.admin().create_topic("t", partitions="3"), "partitions is '3'"),
    (lambda c: c.admin().create_topic(5), "the topic is 5"),
    (lambda c: c.admin().create_topic("t", replication_factor=1.0), "replication_factor is 1.0"),
    (lambda c: c.admin().create_topic("t", configs="retention.ms=1"), "the configuration is"),
    (lambda c: c.admin().alter_topic("t", unset="retention.ms"), "unset is 'retention.ms'"),
    (lambda c: c.admin().add_partitions("t", "6"), "partitions is '6'"),
    (lambda c: c.admin().trim_topic("t", {"0": 1}), "a partition is '0'"),
    (lambda c: c.admin().trim_topic("t", {0: "latest"}), "an offset is 'latest'; .*or -1 for all"),
    (lambda c: c.admin().delete_topic("t", topic_id="00"), "topic_id is '00'"),
    (lambda c: c.admin().describe_topic(""), "the topic's name is empty"),
    (lambda c: c.admin().list_offsets("t", partition="0"), "partition is '0'"),
    (lambda c: c.admin().group_offsets(5), "the group is 5"),
    (lambda c: c.admin().group_offsets("g", ["t"]), "'t' names no partition"),
    (lambda c: c.admin().commit_group_offsets("g", {PLACE: 1.5}), "commit for t.0. is 1.5"),
    (lambda c: c.admin().cluster("orders"), "topics is 'orders'; it must be names"),
    (lambda c: c.admin().elect_leaders("orders"), "targets is 'orders'; it must be topics"),
    (lambda c: c.admin().elect_leaders(PLACE), "targets is .*it must be topics or partitions"),
    (lambda c: c.admin().elect_leaders([("orders", 1)]), "a target is"),
    (lambda c: c.admin().elect_leaders([""]), "the topic's name is empty"),
    (lambda c: c.admin().drain_broker("3"), "broker_id is '3'"),
    (lambda c: c.admin().drain_broker(-1), "broker_id is -1"),
    (lambda c: c.admin().reset_group("g", {}), "targets is {}"),
    (lambda c: c.admin().reset_group("g", {"t": "committed"}), "a target is 'committed'"),
    (lambda c: c.admin().reset_group("g", {"t": -1}), "an offset is -1"),
    (lambda c: c.admin().reset_group("g", {"t": 1}, timeout_s=0), "timeout_s is 0"),
    (lambda c: c.admin().remove_member("g"), "by member_id, or by instance_id"),
    (lambda c: c.admin().remove_member("g", member_id=""), "member_id is ''"),
    (lambda c: c.admin().delete_group(""), "the group's name is empty"),
    (lambda c: c.close(timeout_s="1"), "timeout_s is '1'"),
]


@pytest.mark.parametrize(("call", "said"), CALLS)
async def test_a_call_with_a_wrong_argument_is_refused_before_a_broker_is_looked_for(call, said):
    async with riverrun.Client("127.0.0.1:1", connect_timeout_s=0.05) as client:
        with pytest.raises(UsageError, match=said) as caught:
            await call(client)
        assert caught.value.outcome_known


async def test_calls_that_return_at_once_refuse_likewise():
    async with riverrun.Client("127.0.0.1:1") as client:
        with pytest.raises(UsageError, match="partition is '1'"):
            client.producer().send_nowait("t", b"", partition="1")
        with pytest.raises(UsageError, match="on_delivery is 5"):
            client.producer().send_nowait("t", b"", on_delivery=5)
        with pytest.raises(UsageError, match="partitions is TopicPartition"):
            client.consumer("t").pause(PLACE)
        with pytest.raises(UsageError, match="'t' names no partition"):
            client.consumer("t").resume(["t"])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c: c.producer().send("t", b"", partition="1"), "partition is '1'"),
        (lambda c: c.producer().send("t", b"", timestamp_ms=-1), "the timestamp is -1"),
        (lambda c: c.producer().send_many("t", b"record"), "records is b'record'; .*an iterable"),
        (lambda c: c.producer().close(timeout_s="1"), "timeout_s is '1'"),
        (lambda c: c.consumer("t").getmany("5"), "max_records is '5'"),
        (lambda c: c.consumer("t").getmany(5, timeout_s="1"), "timeout_s is '1'"),
        (lambda c: c.consumer("t").close(timeout_s="1"), "timeout_s is '1'"),
        (lambda c: c.close(timeout_s="1"), "timeout_s is '1'"),
    ],
)
def test_the_blocking_client_refuses_likewise(call, said):
    with (
        riverrun.blocking.Client("127.0.0.1:1", connect_timeout_s=0.05) as client,
        pytest.raises(UsageError, match=said),
    ):
        call(client)
