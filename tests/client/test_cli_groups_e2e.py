"""`riverrun group` against a real broker."""

from __future__ import annotations

import threading
import time

import pytest

import riverrun
import riverrun.blocking
from riverrun import TopicPartition
from riverrun.cli.exits import Exit
from riverrun.cli.group_moves import target_offset
from riverrun.cli.group_progress import Standing
from riverrun.cli.places import parse_place


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
    assert only.pop("lag_s") > 0
    assert only == {
        "topic": topic,
        "partition": 0,
        "committed": 3,
        "earliest": 0,
        "latest": 10,
        "lag": 7,
        "member": None,
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
    cli.run("topic", "trim", topic, "--before", "6", "--partition", "0", "--yes")
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
    moved = cli.run("group", "reset-offsets", "g5", "--to", "-3", "--yes")
    assert moved.stderr == b"moved group g5 in 1 of 1 partition\n"
    assert moved.stdout.split()[-5:] == [topic.encode(), b"0", b"9", b"7", b"3"]
    read = cli.out("consume", topic, "--group", "g5", "--exit-at-end")
    assert read == b"7\n8\n9\n"


def test_a_dry_run_shows_the_change_and_makes_none(cli, topic):
    commit(cli, topic, "g6", 5)
    told = cli.json("group", "reset-offsets", "g6", "--to", "earliest", "--dry-run")
    assert told == [{"topic": topic, "partition": 0, "from": 5, "to": 0, "latest": 10}]
    assert offsets(cli, "g6") == {0: (5, 5)}


def test_a_reset_may_name_topics_and_partitions(cli, topic):
    commit(cli, topic, "g7", 1)
    place = ("--to", "latest", "--topic", topic, "--partition", "1", "--yes")
    cli.run("group", "reset-offsets", "g7", *place)
    assert offsets(cli, "g7") == {0: (1, 9), 1: (0, 0)}
    elsewhere = ("group", "reset-offsets", "g7", "--to", "0", "--partition")
    said = cli.error(*elsewhere, "5", code=Exit.NOT_FOUND)
    assert said == f"error: topic {topic!r} has no partition 5; it has 2, from 0"


def test_a_partition_where_nothing_is_committed_is_placed_by_its_topic(cli, topic):
    commit(cli, topic, "g10", 1)
    said = cli.error(
        *("group", "reset-offsets", "g10", "--to", "0", "--partition", "1"), code=Exit.NOT_FOUND
    )
    assert f"committed nothing in partition 1, only in {topic}[0]; name the topic" in said


@pytest.mark.parametrize("do", ["describe", "reset-offsets"])
def test_a_topic_that_is_not_there_is_named_without_what_nobody_asked_for(cli, do):
    cli.run("topic", "create", "purchases", "--if-not-exists")
    to = ["--to", "latest"] if do == "reset-offsets" else []
    said = cli.error("group", do, "g", *to, "--topic", "purchses", code=Exit.NOT_FOUND)
    assert said == "error: there is no topic 'purchses'; did you mean 'purchases'?"


def test_an_offset_beyond_the_end_is_said_to_be_taken_as_the_end(cli, topic):
    commit(cli, topic, "g11", 10)
    beyond = cli.run("group", "reset-offsets", "g11", "--to", "99999")
    taken, unchanged = beyond.stderr.decode().splitlines()
    assert taken == f"note: offset 99999 lies behind the end of {topic}[0], so its end is taken, 10"
    assert unchanged == "nothing to change: group g11 stands there already"
    cli.run("topic", "trim", topic, "--before", "4", "--partition", "0", "--yes")
    args = ("group", "reset-offsets", "g11", "--to", "1", "--topic", topic, "--yes")
    taken, moved = cli.run(*args).stderr.decode().splitlines()
    assert taken == (
        f"note: offset 1 of {topic}[0] was deleted, so its first one is taken, 4; so are the nearest of 1 more"
    )
    assert moved == "moved group g11 in 2 of 2 partitions"


def test_without_a_terminal_a_group_is_moved_only_where_that_was_said(cli, topic):
    commit(cli, topic, "g12", 5)
    for more in ((), ("--output", "json")):
        done = cli.run("group", "reset-offsets", "g12", "--to", "0", *more, code=Exit.USAGE)
        assert (done.stdout, b"NOT_CONFIRMED" in done.stderr) == (b"", bool(more))
        assert (
            b"nothing was changed: nobody can be asked here whether to move group g12"
            in done.stderr
        )
        assert f"in 1 of 1 partition ({topic}[0] from 5 to 0); give --yes".encode() in done.stderr
    assert offsets(cli, "g12") == {0: (5, 5)}


def test_a_new_group_is_placed_by_time(cli, topic):
    place = ("--to", "1970-01-01T00:00:08Z", "--topic", topic, "--yes")
    cli.run("group", "reset-offsets", "g8", *place)
    assert offsets(cli, "g8") == {0: (8, 2), 1: (0, 0)}


def test_committed_is_no_place_to_move_to(cli):
    said = cli.error("group", "reset-offsets", "g9", "--to", "committed", code=Exit.USAGE)
    assert "changes nothing" in said


def test_groups_are_listed_with_their_state(cli, topic):
    commit(cli, topic, "g20", 1)
    told = {one["group"]: one for one in cli.json("group", "list")}
    assert told["g20"] == {"group": "g20", "state": "empty", "members": 0, "assignor": ""}
    heading, *rows = cli.out("group", "list", "--state", "empty").decode().splitlines()
    assert heading.split() == ["GROUP", "STATE", "MEMBERS", "ASSIGNOR"]
    assert ["g20", "empty", "0", "-"] in [row.split() for row in rows]
    assert "g20" not in [one["group"] for one in cli.json("group", "list", "--state", "stable")]


def test_a_group_is_deleted_and_then_is_not_there(cli, topic):
    commit(cli, topic, "g21", 1)
    said = cli.error("group", "delete", "g21", code=Exit.USAGE)
    assert "nothing was deleted: nobody can be asked here whether to delete group g21" in said
    assert cli.run("group", "delete", "g21", "--yes").stderr == b"deleted group g21\n"
    assert "group g21 has committed nothing" in cli.error(
        "group", "describe", "g21", code=Exit.NOT_FOUND
    )
    assert "there is no group 'g21'" in cli.error(
        "group", "delete", "g21", "--yes", code=Exit.NOT_FOUND
    )
    assert cli.json("group", "delete", "g21", "--yes", "--if-exists") == {
        "group": "g21",
        "deleted": False,
    }


@pytest.fixture
def member(cli, topic):
    """A member of a group of the test's own, which reads and commits for as long as the test runs."""
    values = []
    with (
        riverrun.blocking.Client(cli.address) as client,
        client.consumer(topic, group=topic, instance_id="i", commit="auto") as consumer,
    ):
        ending = threading.Event()

        def read():
            while not ending.is_set():
                values.extend(record.value for record in consumer.getmany(timeout_s=0.1))

        reading = threading.Thread(target=read)
        reading.start()
        try:
            while len(values) < 10:
                time.sleep(0.02)
            yield values
        finally:
            ending.set()
            reading.join()


def test_a_group_that_lives_is_described_with_its_members(cli, topic, member):
    told = cli.json("group", "describe", topic)
    assert (told["state"], told["assignor"], told["coordinator"]) == ("stable", "uniform", 1)
    (only,) = told["members"]
    assert (only["instance_id"], only["state"]) == ("i", "attached")
    assert only["owned"] == [{"topic": topic, "partition": number} for number in (0, 1)]
    assert [one["member"] for one in told["offsets"]] == [only["member_id"]] * 2
    shown = cli.out("group", "describe", topic).decode()
    assert shown.startswith("stable, 1 member, uniform assignor, coordinated by broker 1\n")
    assert only["member_id"] in shown


def test_a_group_that_lives_goes_on_where_it_is_moved_to(cli, topic, member):
    assert len(member) == 10
    moved = cli.run("group", "reset-offsets", topic, "--to", "-3", "--topic", topic, "--yes")
    assert b"moved group" in moved.stderr
    deadline = time.monotonic() + 20
    while len(member) < 13:
        assert time.monotonic() < deadline, member
        time.sleep(0.02)
    assert member[10:] == [b"7", b"8", b"9"]


def test_a_member_is_removed_by_one_of_its_names(cli, topic, member):
    assert "name one member" in cli.error("group", "remove-member", topic, code=Exit.USAGE)
    said = cli.error("group", "remove-member", topic, "nobody", code=Exit.NOT_FOUND)
    assert "nobody" in said
    (only,) = cli.json("group", "describe", topic)["members"]
    removed = cli.json("group", "remove-member", topic, "--instance", "i")
    assert removed == {"group": topic, "member_id": only["member_id"]}
    said = cli.error("group", "delete", topic, "--yes", code=Exit.CONFLICT)
    assert "member" in said, "its client has joined again"
