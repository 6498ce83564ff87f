"""Values come back from their documents as they were, with fields of newer versions."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.cluster import values
from riverrun_server.core.cluster.values import Id, PartitionValue, Replica, TopicValue
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.ports.metadata import Entry, InvalidDocument

DOCUMENTS = JsonDocuments()
ID = Id(bytes(range(16)))
TOPIC = TopicValue(topic="t", topic_id=ID, partitions=1, replication_factor=1)

KINDS = [
    kind
    for kind in vars(values).values()
    if isinstance(kind, type) and issubclass(kind, values.Value) and kind is not values.Value
]

ids = st.binary(min_size=16, max_size=16).map(Id)
texts = st.text(max_size=5)


def entry(data):
    return Entry("topics/t", data, 1, 7, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_value_comes_back_as_it_was(kind):
    @given(
        st.builds(
            kind,
            **{
                field.name: value
                for field in dataclasses.fields(kind)
                if (
                    value := {
                        "topic_id": ids,
                        "isr": st.lists(st.builds(Replica, st.integers(0, 9), ids)).map(tuple),
                        "elr": st.lists(st.builds(Replica, st.integers(0, 9), ids)).map(tuple),
                        "incarnations": st.builds(values.Incarnations, ids, ids),
                        "incarnation": ids,
                        "endpoints": st.dictionaries(texts, texts, max_size=2),
                        "configs": st.dictionaries(texts, texts, max_size=2),
                        "unknown": st.just(()),
                    }.get(field.name)
                )
                is not None
            },
        )
    )
    def check(value):
        assert DOCUMENTS.decode(kind, entry(DOCUMENTS.encode(value, b"n"))) == value

    check()


def test_a_document_is_json_that_a_person_can_read():
    value = PartitionValue(
        leader=1, leader_broker_epoch=7, replicas=(1,), isr=(Replica(1, ID),), min_isr=1
    )
    assert json.loads(DOCUMENTS.encode(value, b"\x0f")) == {
        "durability": "fsync",
        "elr": [],
        "isr": [{"broker": 1, "incarnation": "000102030405060708090a0b0c0d0e0f"}],
        "leader": 1,
        "leader_broker_epoch": 7,
        "leader_epoch": 0,
        "min_isr": 1,
        "nonce": "0f",
        "partition_epoch": 0,
        "replicas": [1],
    }


def test_two_writes_of_a_value_differ_by_their_nonce():
    assert DOCUMENTS.encode(TOPIC, b"1") != DOCUMENTS.encode(TOPIC, b"2")
    assert DOCUMENTS.encode(TOPIC, b"1") == DOCUMENTS.encode(TOPIC, b"1")


def test_fields_of_a_newer_version_survive_a_rewrite_by_this_one():
    newer = json.loads(DOCUMENTS.encode(TOPIC, b"1")) | {"schema": {"id": [1, "x"]}, "tier": None}
    value = DOCUMENTS.decode(TopicValue, entry(json.dumps(newer).encode()))
    assert value.topic == "t"
    again = DOCUMENTS.encode(dataclasses.replace(value, partitions=2), b"2")
    assert json.loads(again) == newer | {"partitions": 2, "nonce": "32"}


def test_a_registration_of_an_earlier_version_is_of_a_broker_that_serves():
    earlier = {
        "broker_id": 1,
        "incarnations": {"fsync": str(ID), "relaxed": str(ID)},
        "endpoints": {"clients": "h:1"},
        "rack": "r",
        "host": "h",
        "start_time_ms": 5,
        "broker_epoch": 0,
        "nonce": "0f",
    }
    value = DOCUMENTS.decode(values.BrokerRegistration, entry(json.dumps(earlier).encode()))
    assert (value.fenced, value.draining, value.peer_endpoint) == (False, False, "")
    again = json.loads(DOCUMENTS.encode(value, b"\x0f"))
    assert again == earlier | {"fenced": False, "draining": False, "peer_endpoint": ""}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "truncated"),
        (b"\xff\xfe", "TopicValue"),
        (b"[]", "object"),
        (b"{}", "topic"),
        (
            DOCUMENTS.encode(TOPIC, b"").replace(b'"partitions":1', b'"partitions":"1"'),
            "partitions",
        ),
        (DOCUMENTS.encode(TOPIC, b"").replace(b'"000102', b'"0001'), "topic_id"),
        (DOCUMENTS.encode(TOPIC, b"").replace(b'"000102', b'"zz0102'), "topic_id"),
    ],
)
def test_a_document_that_is_something_else_is_named(data, said):
    with pytest.raises(InvalidDocument, match=r"'topics/t' \(revision 7\)") as error:
        DOCUMENTS.decode(TopicValue, entry(data))
    assert said in str(error.value)
