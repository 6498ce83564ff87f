"""Metrics keep to the conventions, are explained, fed, and cannot be made to grow by strangers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from riverrun_server.observe.metrics import MAX_TOPIC_LABELS, Metrics
from riverrun_server.observe.store import StoreFigures
from riverrun_server.observe.topics import OTHER, TopicCollector, TopicFigures

SERVER = Path(__file__).resolve().parents[2] / "server" / "riverrun_server"
# Labels whose values come from the code, and `topic`, which is capped by its collector.
LABELS = {"listener", "method", "code", "limit", "topic", "state", "reason", "source"}
STORE = StoreFigures(
    wal_bytes=100,
    flushed_bytes=90,
    compacted_bytes=60,
    compaction_read_bytes=61,
    memtable_bytes=10,
    table_bytes=80,
    tables=7,
    writes=11,
    write_us=2_500_000,
    stall_us=500_000,
    write_stopped=True,
    unsynced_writes=3,
    slots=16,
    slots_free=12,
    partitions_sharing=5,
)


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
    metrics.topics.publish({"t": TopicFigures(1, 2, 3, 4)})
    metrics.store.publish(STORE)
    for family in [*metrics.topics.collect(), *metrics.store.collect()]:
        assert all(set(sample.labels) <= LABELS for sample in family.samples)


def test_no_metric_stands_at_zero_because_nobody_feeds_it():
    own = SERVER / "observe"
    code = [path.read_text() for path in SERVER.rglob("*.py") if own not in path.parents]
    for name in vars(Metrics(process=False)):
        assert any(re.search(rf"metrics\.{name}\b", text) for text in code), name


def test_a_scrape_has_one_series_for_a_counter():
    assert b"_created" not in generate_latest(Metrics(process=False).registry)


def test_figures_of_topics_replace_the_ones_before():
    metrics = Metrics(process=False)
    metrics.topics.publish({"gone": TopicFigures(1, 1, 1), "t": TopicFigures(5, 700, 2, 0)})
    metrics.topics.publish({"t": TopicFigures(9, 900, 1, 1, 1000, 8, 700, 100)})
    value = metrics.registry.get_sample_value
    assert value("riverrun_topic_records_total", {"topic": "t"}) == 9
    assert value("riverrun_topic_stored_bytes", {"topic": "t"}) == 900
    assert value("riverrun_topic_records_total", {"topic": "gone"}) is None
    assert value("riverrun_topic_appended_bytes_total", {"topic": "t"}) == 1000
    assert value("riverrun_topic_delivered_records_total", {"topic": "t"}) == 8
    delivered = "riverrun_topic_delivered_bytes_total"
    assert value(delivered, {"topic": "t", "source": "memory"}) == 700
    assert value(delivered, {"topic": "t", "source": "disk"}) == 100
    assert value("riverrun_partitions", {"state": "online"}) == 1
    assert value("riverrun_partitions", {"state": "offline"}) == 1


def store_samples(metrics):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.store.collect()
        for sample in family.samples
    }


def test_every_figure_of_the_store_is_shown_under_its_name():
    metrics = Metrics(process=False)
    metrics.store.publish(STORE)
    assert store_samples(metrics) == {
        ("riverrun_store_wal_bytes_total",): 100,
        ("riverrun_store_flushed_bytes_total",): 90,
        ("riverrun_store_compacted_bytes_total",): 60,
        ("riverrun_store_compaction_read_bytes_total",): 61,
        ("riverrun_store_writes_total",): 11,
        ("riverrun_store_write_seconds_total",): 2.5,
        ("riverrun_store_stall_seconds_total",): 0.5,
        ("riverrun_store_write_amplification_ratio",): 2.5,
        ("riverrun_store_memtable_bytes",): 10,
        ("riverrun_store_table_bytes",): 80,
        ("riverrun_store_tables",): 7,
        ("riverrun_store_write_stopped",): 1,
        ("riverrun_store_unsynced_writes",): 3,
        ("riverrun_store_partitions_sharing",): 5,
        ("riverrun_store_slots", "free"): 12,
        ("riverrun_store_slots", "occupied"): 4,
    }
    types = {family.name: family.type for family in metrics.store.collect()}
    assert [name for name, type_ in types.items() if type_ == "counter"] == [
        "riverrun_store_wal_bytes",
        "riverrun_store_flushed_bytes",
        "riverrun_store_compacted_bytes",
        "riverrun_store_compaction_read_bytes",
        "riverrun_store_writes",
        "riverrun_store_write_seconds",
        "riverrun_store_stall_seconds",
    ]


def test_a_store_that_cannot_say_shows_nothing_rather_than_old_figures():
    metrics = Metrics(process=False)
    assert store_samples(metrics) == {}
    metrics.store.publish(STORE)
    metrics.store.publish(None)
    assert store_samples(metrics) == {}
    assert b"# HELP riverrun_store_wal_bytes_total" in generate_latest(metrics.registry)


def test_past_the_cap_topics_share_one_label_and_lose_nothing():
    collector = TopicCollector(MAX_TOPIC_LABELS)
    count = MAX_TOPIC_LABELS + 100
    collector.publish({f"topic-{n:05}": TopicFigures(records=1, online=1) for n in range(count)})
    records, *others, partitions = collector.collect()
    assert len(records.samples) == MAX_TOPIC_LABELS + 1
    for family in others:
        assert len({sample.labels["topic"] for sample in family.samples}) == MAX_TOPIC_LABELS + 1
    [other] = [sample for sample in records.samples if sample.labels["topic"] == OTHER]
    assert other.value == 100
    assert partitions.samples[0].value == count


def test_two_brokers_in_one_process_count_apart():
    one, other = Metrics(), Metrics()
    one.limit_reached.labels(limit="max_calls").inc(5)
    assert b'riverrun_limit_reached_total{limit="max_calls"} 5.0' in generate_latest(one.registry)
    assert b'limit="max_calls"' not in generate_latest(other.registry)
    assert b"process_resident_memory_bytes" in generate_latest(other.registry)
