"""`riverrun topic`, `cluster` and `doctor` against a real broker."""

from __future__ import annotations

import json

import pytest

from riverrun.cli.exits import Exit


def test_a_topic_is_made_listed_described_and_deleted(cli):
    made = cli.json("topic", "create", "life", "--partitions", "3")
    assert made["topic"] == "life"
    assert made["partitions"] == 3
    assert made["created"] is True
    assert len(made["topic_id"]) == 32
    assert "life" in [topic["topic"] for topic in cli.json("topic", "list")]
    described = cli.json("topic", "describe", "life")
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2]
    assert described["partitions"][0]["high_watermark"] == 0
    assert {entry["source"] for entry in described["configs"]} == {"default"}
    said = cli.error("topic", "delete", "life", code=Exit.USAGE)
    assert said == (
        "error: nothing was deleted: nobody can be asked here whether to delete topic life and all its "
        "records; give --yes if that is meant"
    )
    assert "life" in [topic["topic"] for topic in cli.json("topic", "list")]
    done = cli.run("topic", "delete", "life", "--yes")
    assert done.stdout == b""
    assert done.stderr == b"deleted topic life\n"
    assert "life" not in [topic["topic"] for topic in cli.json("topic", "list")]


def test_tables_are_plain_in_a_pipe(cli):
    cli.run("topic", "create", "tables", "--partitions", "2", "--config", "retention.ms=1000000")
    lines = cli.out("topic", "list").decode().splitlines()
    assert lines[0].split() == ["TOPIC", "PARTITIONS", "REPLICAS", "MADE"]
    assert any(line.split()[:3] == ["tables", "2", "1"] for line in lines)
    text = cli.out("topic", "describe", "tables").decode()
    assert "IN-SYNC" in text
    assert "retention.ms" in text
    assert "\x1b" not in text
    assert len(cli.out("topic", "describe", "tables", "--all-configs")) > len(text)


def test_a_topic_without_settings_of_its_own_says_where_the_defaults_are(cli):
    cli.run("topic", "create", "plain")
    done = cli.run("topic", "describe", "plain")
    assert b"all settings are the defaults (--all-configs shows them)" in done.stderr
    assert cli.run("topic", "describe", "plain", "--all-configs").stderr == b""


def test_making_a_topic_twice_is_refused_unless_asked_for(cli):
    cli.run("topic", "create", "twice", "--partitions", "2")
    assert "twice" in cli.error("topic", "create", "twice", code=Exit.CONFLICT)
    again = cli.json("topic", "create", "twice", "--if-not-exists")
    assert again["created"] is False
    assert again["partitions"] == 2


def test_validate_only_changes_nothing(cli):
    assert cli.json("topic", "create", "checked", "--validate-only")["created"] is False
    assert "checked" not in [topic["topic"] for topic in cli.json("topic", "list")]


def test_configuration_is_set_and_given_back(cli):
    cli.run("topic", "create", "config")
    cli.run("topic", "alter", "config", "--config", "retention.ms=5000000")
    assert cli.json("topic", "describe", "config")["configs"][0]
    configs = {c["key"]: c for c in cli.json("topic", "describe", "config")["configs"]}
    assert configs["retention.ms"]["value"] == "5000000"
    assert configs["retention.ms"]["source"] == "topic"
    cli.run("topic", "alter", "config", "--unset", "retention.ms")
    configs = {c["key"]: c for c in cli.json("topic", "describe", "config")["configs"]}
    assert configs["retention.ms"]["source"] == "default"
    said = cli.error("topic", "alter", "config", "--config", "retention.mss=5", code=Exit.FAILED)
    assert "retention.ms" in said


def test_partitions_are_added_and_never_taken_away(cli):
    cli.run("topic", "create", "grow", "--partitions", "2")
    assert cli.json("topic", "add-partitions", "grow", "--partitions", "5")["partitions"] == 5
    cli.error("topic", "add-partitions", "grow", "--partitions", "3", code=Exit.FAILED)


def test_offsets_are_told_and_found_by_time(cli):
    cli.run("topic", "create", "offsets", "--partitions", "2")
    lines = b"".join(
        b'{"value": "%d", "partition": 0, "timestamp": %d}\n' % (at, 1000 + at) for at in range(10)
    )
    cli.run("produce", "offsets", "--format", "json", stdin=lines)
    assert cli.json("topic", "offsets", "offsets") == [
        {"partition": 0, "earliest": 0, "latest": 10},
        {"partition": 1, "earliest": 0, "latest": 0},
    ]
    found = cli.json("topic", "offsets", "offsets", "--at", "@1004")
    assert [(one["offset"], one.get("timestamp")) for one in found] == [(4, 1004), (None, None)]
    assert cli.json("topic", "offsets", "offsets", "--partition", "1")[0]["partition"] == 1
    table = cli.out("topic", "offsets", "offsets").decode().splitlines()
    assert table[1].split() == ["0", "0", "10", "10"]


@pytest.mark.parametrize(("before", "begins"), [("4", 4), ("latest", 10), ("@1006", 6)])
def test_a_trim_moves_the_beginning(cli, before, begins):
    topic = f"trim-{begins}"
    lines = b"".join(b'{"value": "v", "timestamp": %d}\n' % (1000 + at) for at in range(10))
    cli.run("produce", topic, "--create", "--format", "json", stdin=lines)
    args = ("topic", "trim", topic, "--before", before)
    assert "nothing was deleted" in cli.error(*args, code=Exit.USAGE)
    result = cli.json(*args, "--yes")
    assert result == [{"partition": 0, "log_start_offset": begins}]
    assert cli.json("topic", "offsets", topic)[0] == {
        "partition": 0,
        "earliest": begins,
        "latest": 10,
    }


def test_a_trim_of_a_partition_that_is_not_there_names_how_many_there_are(cli):
    cli.run("topic", "create", "trim-few", "--partitions", "2")
    said = cli.error(
        *("topic", "trim", "trim-few", "--before", "0", "--partition", "7", "--yes"),
        code=Exit.NOT_FOUND,
    )
    assert said == "error: topic 'trim-few' has no partition 7; it has 2, from 0"
    said = cli.error("topic", "offsets", "trim-few", "--partition", "7", code=Exit.NOT_FOUND)
    assert said.endswith("topic 'trim-few' has no partition 7; it has 2, from 0")


def test_what_the_broker_says_of_its_fields_is_told_in_options(cli):
    cli.run("topic", "create", "options")
    said = cli.error("topic", "create", "options", code=Exit.CONFLICT)
    assert "already; with --if-not-exists it is accepted as it is" in said
    said = cli.error("topic", "create", "many", "--replication-factor", "3", code=Exit.FAILED)
    assert "ask for a smaller --replication-factor" in said
    trim = ("topic", "trim", "options", "--before", "7", "--yes")
    assert b"give one of these, or latest for all" in cli.run(*trim, code=Exit.FAILED).stderr


@pytest.mark.parametrize(
    "args",
    [
        ["topic", "describe"],
        ["topic", "offsets"],
        ["topic", "delete", "--yes"],
        ["topic", "alter", "--config", "retention.ms=1000000"],
        ["topic", "add-partitions", "--partitions", "9"],
        ["topic", "trim", "--before", "0", "--yes"],
        ["produce"],
        ["consume", "--exit-at-end"],
        ["perf", "produce", "--records", "1"],
        ["perf", "consume", "--records", "1"],
        ["perf", "latency"],
    ],
    ids=lambda args: " ".join(args[:2]),
)
def test_a_missing_topic_is_named_with_the_one_that_was_meant(cli, args):
    cli.run("topic", "create", "customer-orders", "--if-not-exists")
    said = cli.error(*args, "custmer-orders", code=Exit.NOT_FOUND)
    assert "custmer-orders" in said
    assert "'customer-orders'" in said


def test_deleting_what_is_not_there_is_well_where_that_was_asked_for(cli):
    done = cli.run("topic", "delete", "never-made", "--if-exists", "--yes")
    assert done.stderr == b"there is no topic never-made\n"
    assert cli.json("topic", "delete", "never-made", "--if-exists", "--yes")["deleted"] is False


def test_an_error_is_json_where_json_was_asked_for(cli):
    done = cli.run("topic", "describe", "not-there", "--output", "json", code=Exit.NOT_FOUND)
    error = json.loads(done.stderr)["error"]
    assert error["reason"] == "TOPIC_NOT_FOUND"
    assert error["outcome"] == "nothing happened"
    assert error["exit_code"] == 3


def test_the_cluster_tells_its_brokers(cli):
    cluster = cli.json("cluster", "describe")
    (broker,) = cluster["brokers"]
    assert broker["endpoint"] == cli.env["RIVERRUN_BOOTSTRAP"]
    assert cluster["served_by"] == broker["broker_id"]
    assert cluster["partitions"] == broker["leads"]
    assert (broker["state"], broker["controller"], broker["alive"]) == ("ok", False, True)
    assert broker["in_sync_replicas"] == broker["replicas"] == cluster["partitions"]
    assert (cluster["controller"], cluster["lacking"]) == (None, [])
    assert cluster["cluster_id"] in cli.out("cluster", "describe").decode()


def test_a_broker_that_is_alone_elects_nobody_and_does_not_drain(cli):
    cli.run("topic", "create", "steady")
    assert cli.json("cluster", "elect-leaders", "--all") == []
    (same,) = cli.json("cluster", "elect-leaders", "steady:0")
    assert (same["outcome"], same["leader"]) == ("unchanged", 1)
    said = cli.error("cluster", "drain", "1", "--force", code=Exit.FAILED)
    assert "broker 1 is the last one that serves and does not drain" in said
    assert "steady[0]" in said or " more)" in said
    said = cli.error("cluster", "drain", "7", code=Exit.NOT_FOUND)
    assert said == "error: drain broker 7: there is no broker 7; registered are 1"
    assert cli.run("cluster", "drain", "1", "--undo").stderr == b"broker 1 did not drain\n"


def test_a_description_tells_who_is_in_sync_in_which_epochs_and_fits_80_columns(cli):
    cli.run("topic", "create", "wide", "--partitions", "2")
    cli.run("produce", "wide", "--partition", "1", stdin=b"x\n" * 123_456)
    lines = cli.out("topic", "describe", "wide").decode().splitlines()
    assert ["min", "in", "sync", "1"] in [line.split() for line in lines]
    (heading,) = [line for line in lines if line.startswith("PARTITION")]
    assert heading.split() == [
        "PARTITION",
        "LEADER",
        "EPOCHS",
        "REPLICAS",
        "IN-SYNC",
        "ELR",
        "START",
        "HW",
        "SIZE",
    ]
    row = lines[lines.index(heading) + 2]
    assert row.split()[:8] == ["1", "1", "0/0", "1", "1", "-", "0", "123456"]
    assert len(row) <= 80
    partition = cli.json("topic", "describe", "wide")["partitions"][1]
    assert partition["eligible_leader_replicas"] == []
    assert (partition["partition_epoch"], partition["min_in_sync_replicas"]) == (0, 1)
    assert partition["log_end_offset"] == 123_456


def test_the_doctor_finds_a_running_broker_well(cli):
    found = cli.json("doctor")
    assert found["ok"] is True
    states = {one["check"]: one["state"] for one in found["findings"]}
    of_this_machine = [states.pop("disk"), states.pop("open files")]
    assert set(of_this_machine) <= {"ok", "warning"}
    well = ("address", "version", "clock", "limits", "partitions", "brokers", "replicas")
    assert states == dict.fromkeys(well, "ok")
    assert b"WHAT TO DO" in cli.out("doctor")
