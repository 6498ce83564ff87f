"""`riverrun group` against a real broker."""

from __future__ import annotations

import pytest

from riverrun import TopicPartition
from riverrun.cli.exits import Exit
from riverrun.cli.group_progress import Standing
from riverrun.cli.group_reset import target_offset
from riverrun.cli.places import parse_place
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import BrokerProcess


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    broker = BrokerProcess(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield CommandLine(broker.address)
    finally:
        broker.stop()


@pytest.fixture
def topic(cli, request):
    """A topic of two partitions with ten records in the first."""
    name = request.node.name.partition("[")[0][:200]
    cli.run("topic", "create", name, "--partitions", "2")
    lines = b"".join(b'{"value": "%d", "timestamp": %d}\n' % (n, n * 1000) for n in range(10))
    cli.run("produce", name, "--partition", "0", "--format", "json", stdin=lines)
    return name


def commit(cli, topic, group, count):
    """Read so many records of the first partition as a group, which commits them."""
    args = ("--group", group, "--partition", "0", "--max", str(count))
    cli.run("consume", topic, *args)


def offsets(cli, group, *args):
    """Tell committed offset and lag by partition."""
    told = cli.json("group", "describe", group, *args)["offsets"]
    return {one["partition"]: (one["committed"], one["lag"]) for one in told}


def test_a_group_is_described_where_it_has_committed_with_its_lag(cli, topic):
    commit(cli, topic, "g1", 3)
    told = cli.json("group", "describe", "g1")
    assert (told["group"], told["lag"]) == ("g1", 7)
    (only,) = told["offsets"]
    assert only.pop("commit_time").startswith("20")
    assert only == {
        "topic": topic,
        "partition": 0,
        "committed": 3,
        "earliest": 0,
        "latest": 10,
        "lag": 7,
        "metadata": "",
    }


def test_partitions_without_a_commit_are_described_where_their_topic_is_named(cli, topic):
    commit(cli, topic, "g2", 4)
    heading, row = cli.out("group", "describe", "g2").decode().splitlines()
    assert heading.split()[:6] == ["TOPIC", "PARTITION", "COMMITTED", "EARLIEST", "LATEST", "LAG"]
    assert row.split()[:6] == [topic, "0", "4", "0", "10", "6"]
    assert offsets(cli, "g2", "--topic", topic) == {0: (4, 6), 1: (None, 0)}


def test_offsets_that_were_deleted_unread_are_told_and_are_no_lag(cli, topic):
    commit(cli, topic, "g3", 2)
    cli.run("topic", "trim", topic, "--before", "6", "--partition", "0")
    assert offsets(cli, "g3") == {0: (2, 4)}
    assert b"4 offsets behind the committed one were deleted" in cli.out("group", "describe", "g3")


def test_a_group_that_has_committed_nothing_is_not_found(cli):
    said = cli.error("group", "reset-offsets", "nobody", "--to", "latest", code=Exit.NOT_FOUND)
    assert "group nobody has committed nothing" in said


@pytest.mark.parametrize(
    ("to", "offset"),
    [
        ("earliest", 2),
        ("latest", 10),
        ("7", 7),
        ("1000", 10),
        ("-4", 6),
        ("-400", 2),
        ("0", 2),
        ("1970-01-01T00:00:08Z", 8),
        ("2000-01-01", 10),
    ],
)
def test_a_group_is_moved_to_every_kind_of_place_within_what_there_is(to, offset):
    where = TopicPartition("t", 0)
    standing = Standing(where, None, earliest=2, latest=10)
    times = {where: 8 if to == "1970-01-01T00:00:08Z" else None}
    assert target_offset(standing, parse_place(to, now_ms=0), times) == offset


def test_a_moved_group_reads_on_where_it_was_moved_to(cli, topic):
    commit(cli, topic, "g5", 9)
    cli.run("group", "reset-offsets", "g5", "--to", "-3")
    read = cli.out("consume", topic, "--group", "g5", "--exit-at-end")
    assert read == b"7\n8\n9\n"


def test_a_dry_run_shows_the_change_and_makes_none(cli, topic):
    commit(cli, topic, "g6", 5)
    told = cli.json("group", "reset-offsets", "g6", "--to", "earliest", "--dry-run")
    assert told == [{"topic": topic, "partition": 0, "from": 5, "to": 0, "latest": 10}]
    assert offsets(cli, "g6") == {0: (5, 5)}


def test_a_reset_may_name_topics_and_partitions(cli, topic):
    commit(cli, topic, "g7", 1)
    cli.run("group", "reset-offsets", "g7", "--to", "latest", "--topic", topic, "--partition", "1")
    assert offsets(cli, "g7") == {0: (1, 9), 1: (0, 0)}
    said = cli.error(
        *("group", "reset-offsets", "g7", "--to", "0", "--partition", "5"), code=Exit.NOT_FOUND
    )
    assert "partition 5 is none of those to move: 0,1" in said


def test_a_new_group_is_placed_by_time(cli, topic):
    place = ("--to", "1970-01-01T00:00:08Z", "--topic", topic)
    cli.run("group", "reset-offsets", "g8", *place)
    assert offsets(cli, "g8") == {0: (8, 2), 1: (0, 0)}


def test_committed_is_no_place_to_move_to(cli):
    said = cli.error("group", "reset-offsets", "g9", "--to", "committed", code=Exit.USAGE)
    assert "changes nothing" in said
