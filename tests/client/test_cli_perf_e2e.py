"""`riverrun perf` against a real broker: the contract of its last line, not its speed."""

from __future__ import annotations

import json

import pytest

from riverrun.cli.exits import Exit


def measured(cli, *args):
    """Run a measurement and return the object on its last line."""
    done = cli.run("perf", *args)
    assert done.stderr == b""
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["records_per_s"] == pytest.approx(told["records"] / told["seconds"], rel=0.01)
    assert told["bytes_per_s"] > 0
    assert set(told["latency_ms"]) == {"p50", "p99", "p999", "max"}
    return told


@pytest.mark.parametrize("mode", ["many", "send"])
def test_perf_writes_exactly_as_many_as_asked_for_and_reads_them(cli, mode):
    topic = f"perf-{mode}"
    args = ["--records", "20000", "--record-size", "50", "--mode", mode, "--partitions", "3"]
    told = measured(cli, "produce", topic, *args)
    assert told["records"] == 20_000
    assert sum(one["latest"] for one in cli.json("topic", "offsets", topic)) == 20_000
    if mode == "send":
        assert told["latency_samples"] == 20_000
    for reading in ("batches", "records"):
        told = measured(cli, "consume", topic, "--records", "20000", "--mode", reading)
        assert told["records"] == 20_000
        assert told["bytes_per_s"] == pytest.approx(50 * told["records_per_s"], rel=0.01)


def test_perf_consume_commits_for_a_group(cli):
    measured(cli, "produce", "perf-group", "--records", "1000", "--partitions", "1")
    measured(cli, "consume", "perf-group", "--records", "1000", "--group", "g")
    assert cli.out("consume", "perf-group", "--group", "g", "--exit-at-end") == b""


def test_perf_produce_without_keys_and_with_compression(cli):
    args = [
        "--records",
        "1000",
        "--key-size",
        "0",
        "--compression",
        "gzip",
        "--batch-bytes",
        "4096",
    ]
    measured(cli, "produce", "perf-plain", "--partitions", "1", *args)
    first = cli.json("consume", "perf-plain", "--max", "1")
    assert first["key"] is None


def test_perf_refuses_a_topic_of_another_shape(cli):
    cli.run("topic", "create", "perf-shape", "--partitions", "2")
    said = cli.error(
        *("perf", "produce", "perf-shape", "--records", "1", "--partitions", "4"),
        code=Exit.CONFLICT,
    )
    assert "has 2 partitions, not 4" in said


def test_latency_is_measured_for_every_record_at_its_rate(cli):
    cli.run("topic", "create", "perf-latency", "--partitions", "2")
    args = ["--rate", "500", "--seconds", "1"]
    told = measured(cli, "latency", "perf-latency", *args)
    assert told["records"] == 500
    assert told["seconds"] >= 0.99
    assert told["latency_ms"]["p50"] >= told["ack_latency_ms"]["p50"] * 0.2
    assert told["latency_ms"]["max"] < 60_000


def test_what_warms_up_is_written_and_not_measured(cli):
    cli.run("topic", "create", "perf-warm-up")
    args = ["--rate", "400", "--seconds", "500ms", "--warm-up", "500ms"]
    told = measured(cli, "latency", "perf-warm-up", *args)
    assert told["records"] == 200
    assert 0.49 <= told["seconds"] < 30
    (end,) = cli.json("topic", "offsets", "perf-warm-up")
    assert end["latest"] == 400
