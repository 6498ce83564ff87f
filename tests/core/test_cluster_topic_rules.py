"""Names and numbers that a topic may have, and how errors show those that it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.naming import nearest, quoted
from riverrun_server.core.cluster.topic_rules import (
    check_name,
    check_not_reserved,
    check_partitions,
    check_replication_factor,
    is_internal,
    is_valid_name,
    missing_partition,
    missing_topic,
)
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits
from tests.core.cluster_world import make_id


def refused(check, *arguments):
    with pytest.raises(Refusal) as refusal:
        check(*arguments)
    return refusal.value


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "-", "_x", "a" * 249])
def test_a_name_of_the_rule_is_taken(name):
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../etc/passwd",
        "a/b",
        "a\\b",
        "/abs",
        "a\x00b",
        "a\r\nb",
        "a\n",
        "a b",
        "ü",
        "a\u202eb",
        "٣",
        "a" * 250,
        "%2e%2e",
    ],
)
def test_any_other_name_is_refused_and_shown_harmlessly(name):
    refusal = refused(check_name, name)
    assert refusal.reason is Reason.INVALID_NAME
    assert refusal.message.isprintable()
    assert len(refusal.message) < 300


@given(st.text(max_size=30))
def test_a_valid_name_is_one_part_of_a_path_and_of_a_key(name):
    if is_valid_name(name):
        assert "/" not in name
        assert name not in {".", ".."}
        assert name.isascii()
        assert keys.parse(keys.topic(name)) == keys.TopicKey(name)
    quoted_name = quoted(name)
    assert quoted_name.isprintable()


def test_names_of_the_brokers_are_reserved():
    assert is_internal("__consumer_offsets")
    assert not is_internal("_x")
    assert refused(check_not_reserved, "__x").reason is Reason.TOPIC_RESERVED
    check_not_reserved("_x")


@pytest.mark.parametrize(
    ("count", "others", "reason"),
    [
        (0, 0, Reason.INVALID_REQUEST),
        (-1, 0, Reason.INVALID_REQUEST),
        (-(2**31), 0, Reason.INVALID_REQUEST),
        (1_001, 0, Reason.LIMIT_EXCEEDED),
        (2**31 - 1, 0, Reason.LIMIT_EXCEEDED),
        (2, 3_999, Reason.LIMIT_EXCEEDED),
    ],
)
def test_a_number_of_partitions_out_of_bounds_is_refused(count, others, reason):
    refusal = refused(check_partitions, count, Limits(), others)
    assert refusal.reason is reason
    assert str(count) in refusal.message


def test_as_many_partitions_as_the_limit_allows_are_taken():
    check_partitions(1_000, Limits(), 3_000)


def test_too_few_brokers_for_a_replication_factor_name_setting_and_field():
    refusal = refused(check_replication_factor, 3, 1)
    assert refusal.reason is Reason.NOT_ENOUGH_BROKERS
    for part in ("3 brokers", "1 is registered", "smaller replication_factor", "setting"):
        assert part in refusal.message
    assert refused(check_replication_factor, -1, 1).reason is Reason.INVALID_REQUEST
    assert refused(check_replication_factor, 2**31 - 1, 1).reason is Reason.INVALID_REQUEST
    check_replication_factor(1, 1)


def test_a_missing_topic_is_told_with_what_was_probably_meant_or_the_command():
    assert "did you mean 'orders'?" in missing_topic("odrers", ["clicks", "orders"]).message
    assert "did you mean 'Orders'?" in missing_topic("orders", ["Orders"]).message
    message = missing_topic("payments", ["orders"]).message
    assert message == ("there is no topic 'payments'; make it with: riverrun topic create payments")
    # Neither a name that no topic may have nor one of the brokers' is put into a command.
    assert "create" not in missing_topic("x; rm -rf /", []).message
    assert "create" not in missing_topic("__offsets", []).message
    assert (
        'begin with "__" belong to the brokers' in missing_topic("__ofsets", ["__offsets"]).message
    )
    assert "no topic can have this name" in missing_topic("a b", []).message


def test_topics_of_the_brokers_are_never_what_was_meant():
    assert "did you mean" not in missing_topic("group_offsets", ["__group_offsets"]).message
    assert "did you mean" not in missing_topic("__group_ofsets", ["__group_offsets"]).message


def test_who_wants_to_delete_a_topic_is_not_told_to_make_it():
    assert missing_topic("payments", [], to_change=True).message == "there is no topic 'payments'"
    assert "mean 'orders'?" in missing_topic("odrers", ["orders"], to_change=True).message


def test_what_was_meant_is_found_among_many_without_comparing_with_all():
    known = sorted(f"topic-{number:05}" for number in range(4_000))
    assert nearest("topic-02000x", known) is not None
    assert nearest("x" * 1_000_000, known) is None


def test_a_missing_partition_is_told_with_how_many_there_are():
    refusal = missing_partition("t", 4, 4)
    assert refusal.reason is Reason.PARTITION_NOT_FOUND
    assert refusal.message == "topic 't' has no partition 4; it has 4, from 0"


def test_keys_come_back_as_what_they_stand_for():
    topic_id = make_id(5)
    assert keys.parse(keys.CLUSTER) == keys.ClusterKey()
    assert keys.parse(keys.broker(7)) == keys.BrokerKey(7)
    assert keys.parse(keys.partition(topic_id, 2**31 - 1)) == keys.PartitionKey(topic_id, 2**31 - 1)
    assert keys.parse(keys.tombstone(topic_id)) == keys.TombstoneKey(topic_id)


@pytest.mark.parametrize(
    "key", ["", "cluster/", "brokers/x", "partitions/abc/1", "tombstones/AB", "acls/x", "topics"]
)
def test_keys_of_other_owners_are_passed_over(key):
    assert keys.parse(key) is None


def test_partition_keys_are_in_the_order_of_their_numbers():
    numbers = [0, 1, 9, 10, 99, 100, 2**31 - 1]
    assert [keys.partition(make_id(1), each) for each in numbers] == sorted(
        keys.partition(make_id(1), each) for each in numbers
    )
