"""The table of configuration keys: ranges, defaults, suggestions."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverrun_server.core.cluster.quantities import parse_duration_ms, parse_size_bytes
from riverrun_server.core.cluster.topic_config import (
    KEYS,
    MAX_BATCH_BYTES,
    TopicConfig,
    UncleanRecovery,
    canonical,
    check_keys,
    resolve,
    settings,
)
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits


def refused(configs):
    with pytest.raises(Refusal) as refusal:
        canonical(configs)
    assert refusal.value.reason is Reason.INVALID_CONFIG
    return refusal.value.message


def test_the_defaults_of_the_table_are_those_of_the_value():
    assert resolve({}, {}, 1) == TopicConfig()
    assert resolve({}, {}, 1).retention_ms == 7 * 86_400_000


@pytest.mark.parametrize(("replicas", "expected"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_the_default_of_min_isr_follows_the_replication_factor(replicas, expected):
    assert resolve({}, {}, replicas).min_insync_replicas == expected


def test_min_isr_never_asks_for_more_replicas_than_there_are():
    config = resolve({"min.insync.replicas": "3"}, {}, 1)
    assert config.min_insync_replicas == 3
    assert config.effective_min_isr(1) == 1
    assert config.effective_min_isr(5) == 3


def test_the_largest_batch_of_a_topic_is_the_limit_that_clients_are_told():
    assert Limits().max_batch_bytes == MAX_BATCH_BYTES


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("retention.ms", "7d", str(7 * 86_400_000)),
        ("retention.ms", "90s", "90000"),
        ("retention.ms", "1", "1"),
        ("retention.ms", "-1", "-1"),
        ("retention.bytes", "1GiB", str(1 << 30)),
        ("retention.bytes", "5MB", "5000000"),
        ("retention.bytes", "-1", "-1"),
        ("max.batch.bytes", "1KiB", "1024"),
        ("max.batch.bytes", "3MiB", str(3 << 20)),
        ("fsync", "true", "true"),
        ("fsync", "relaxed", "relaxed"),
        ("min.insync.replicas", "2", "2"),
        ("unclean.recovery", "accept", "accept"),
    ],
)
def test_a_value_is_kept_in_canonical_form(key, given, expected):
    assert canonical({key: given}) == {key: expected}
    assert canonical({key: expected}) == {key: expected}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("retention.ms", "0", "-1 for no limit"),
        ("retention.ms", "-2", "-1 for no limit"),
        ("retention.ms", "", "milliseconds"),
        ("retention.ms", "7 d", "milliseconds"),
        ("retention.ms", "7w", "milliseconds"),
        ("retention.ms", "1.5h", "milliseconds"),
        ("retention.ms", "\u0667", "milliseconds"),
        ("retention.ms", "999999999999999999d", "at most"),
        ("retention.ms", "9" * 100, "milliseconds"),
        ("retention.bytes", "0", "1 to"),
        ("max.batch.bytes", "1023", "1024 to 3145728"),
        ("max.batch.bytes", "3145729", "1024 to 3145728"),
        ("max.batch.bytes", "-1", "1024 to 3145728"),
        ("min.insync.replicas", "0", "1 to 1000"),
        ("min.insync.replicas", "-1", "a number"),
        ("min.insync.replicas", "2147483648", "a number"),
        ("fsync", "false", "true or relaxed"),
        ("fsync", "True", "true or relaxed"),
        ("unclean.recovery", "yes", "offline or accept"),
    ],
)
def test_a_value_out_of_range_is_told_with_what_was_expected(key, value, said):
    message = refused({key: value})
    assert key in message
    assert said in message
    assert len(message) < 400


def test_an_unknown_key_is_an_error_with_a_suggestion():
    message = refused({"retention.hours": "1"})
    assert "unknown config key 'retention.hours'" in message
    assert "did you mean 'retention.ms'?" in message
    assert "did you mean" not in refused({"zzzzzz": "1"})
    assert "max.batch.bytes" in refused({"MAX.BATCH.BYTES": "1"})
    with pytest.raises(Refusal, match="cleanup"):
        check_keys(["fsync", "cleanup.policy"])


def test_a_huge_configuration_is_refused_without_being_looked_through():
    assert "unknown" in refused({f"key{number}": "x" for number in range(100_000)})
    message = refused({"x" * 1_000_000: "y"})
    assert len(message) < 400
    assert len(refused({"fsync": "y" * 1_000_000})) < 400


def test_control_characters_do_not_reach_the_error_text():
    message = refused({"retention\r\nms: injected": "1"}) + refused({"fsync": "true\r\nx"})
    assert "\r" not in message
    assert "\n" not in message


def test_the_brokers_defaults_stand_behind_what_a_topic_says():
    defaults = {"retention.ms": "5000", "fsync": "relaxed"}
    config = resolve({"fsync": "true", "unclean.recovery": "accept"}, defaults, 1)
    assert config.retention_ms == 5000
    assert config.fsync
    assert config.unclean_recovery is UncleanRecovery.ACCEPT
    found = {
        each.key.name: (each.value, each.is_set)
        for each in settings({"fsync": "true"}, defaults, 3)
    }
    assert found["fsync"] == ("true", True)
    assert found["retention.ms"] == ("5000", False)
    assert found["min.insync.replicas"] == ("2", False)
    assert set(found) == set(KEYS)


def test_unlimited_is_none():
    config = resolve({"retention.ms": "-1", "retention.bytes": "-1"}, {}, 1)
    assert config.retention_ms is None
    assert config.retention_bytes is None


def test_a_key_of_a_newer_version_in_the_metadata_counts_for_nothing():
    assert resolve({"tiering": "on"}, {}, 1) == TopicConfig()


def test_every_key_is_explained_and_its_default_is_valid():
    for key in KEYS.values():
        assert key.doc.endswith(".")
        assert key.default is None or key.canonical(key.default) == key.default


@given(st.text(max_size=12))
def test_parsers_return_a_number_or_raise_a_value_error(text):
    for parse in (parse_duration_ms, parse_size_bytes):
        with contextlib.suppress(ValueError):
            assert isinstance(parse(text), int)
