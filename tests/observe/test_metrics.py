"""Metrics keep to the conventions, are explained, and cannot be made to grow by strangers."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from riverrun_server.observe.metrics import Capped, Metrics

# Labels whose values come from the code, and `topic`, which goes through Capped.
LABELS = {"listener", "method", "code", "limit", "topic", "reason", "source", "state"}


def families():
    return list(Metrics(process=False).registry.collect())


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_names_follow_the_conventions_and_are_explained(family):
    assert family.name.startswith("riverrun")
    assert family.documentation.endswith(".")
    if family.type == "histogram":
        assert family.name.endswith("_seconds")
    assert "_ms" not in family.name


def test_labels_are_those_that_are_known_to_be_bounded():
    metrics = Metrics(process=False)
    for value in vars(metrics).values():
        assert set(getattr(value, "_labelnames", ())) <= LABELS, value


def test_past_the_cap_values_share_one_label_and_known_ones_keep_theirs():
    label = Capped(2)
    assert [label(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]


def test_two_brokers_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.appended_records.labels(topic="t").inc(5)
    assert b'riverrun_appended_records_total{topic="t"} 5.0' in generate_latest(one.registry)
    assert b'topic="t"' not in generate_latest(other.registry)
    assert b"process_resident_memory_bytes" in generate_latest(other.registry)
