"""`riverrun produce` and `consume` against a real broker."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from zlib import crc32

import pytest

from riverrun.cli.exits import Exit


def consumed(cli, topic, *args):
    """Consume a topic to its end."""
    return cli.out("consume", topic, "--exit-at-end", *args)


def test_a_stream_of_lines_comes_back_byte_for_byte(cli):
    done = cli.shell(
        "seq 200000 | riverrun produce seq --create && "
        "riverrun consume seq --exit-at-end | cmp - <(seq 200000)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_random_bytes_cut_by_size_come_back_joined(cli):
    data = random.Random(5).randbytes(3_000_001)
    cli.run("produce", "blob", "--create", "--record-size", "4096", stdin=data)
    assert consumed(cli, "blob", "--delimiter", "") == data
    sizes = consumed(cli, "blob", "--format", "%S").split()
    assert sizes == [b"4096"] * 732 + [b"%d" % (3_000_001 - 732 * 4096)]


def test_delimiters_of_any_bytes_cut_and_join(cli):
    cli.run("produce", "nul", "--create", "--delimiter", r"\0", stdin=b"a\nb\0\0\xff\0last")
    assert consumed(cli, "nul", "--delimiter", r"\0") == b"a\nb\0\0\xff\0last\0"
    assert consumed(cli, "nul", "--format", "%S") == b"3\n0\n1\n4\n"


def test_keys_nulls_headers_and_formats(cli):
    cli.run(
        *("produce", "parts", "--create", "--key-separator", ":", "--null-value", "NULL"),
        *("--header", "h=1", "--header", "h=2", "--header", "=nameless"),
        stdin=b"k:v\nk2:NULL\nNULL:\n",
    )
    assert consumed(cli, "parts", "--format", "%o|%k|%s|%K|%S|%h|%t|%p", "--null-value", "-") == (
        b"0|k|v|1|1|h=1,h=2,=nameless|parts|0\n1|k2|-|2|-1|h=1,h=2,=nameless|parts|0\n"
        b"2|-||-1|0|h=1,h=2,=nameless|parts|0\n"
    )
    lines = [json.loads(line) for line in consumed(cli, "parts", "--output", "json").splitlines()]
    assert [(line["key"], line["value"]) for line in lines] == [
        ("k", "v"),
        ("k2", None),
        (None, ""),
    ]
    pairs = [("h", "1"), ("h", "2"), ("", "nameless")]
    assert lines[0]["headers"] == [{"key": name, "value": value} for name, value in pairs]


def test_partitions_are_chosen_as_asked_for(cli):
    cli.run("topic", "create", "by-partitioner", "--partitions", "5")
    lines = b"21:\nfoobar:\nabc:\n"
    for name in ("murmur2", "crc32", "round-robin"):
        cli.run(
            "produce", "by-partitioner", "--key-separator", ":", "--partitioner", name, stdin=lines
        )
    where = [
        line.split() for line in consumed(cli, "by-partitioner", "--format", "%k %p").splitlines()
    ]
    by_key = {
        key: sorted(int(p) for k, p in where if k == key) for key in (b"21", b"foobar", b"abc")
    }
    kafkas = {b"21": -973932308, b"foobar": -790332482, b"abc": 479470107}
    for key, partitions in by_key.items():
        partitions.remove((kafkas[key] & 0x7FFF_FFFF) % 5)
        partitions.remove(crc32(key) % 5)
    assert len({partition for (partition,) in by_key.values()}) == 3


def test_json_goes_round(cli):
    given = (
        b'{"key": "k", "value_base64": "/wA=", "timestamp": 1700000000000, "partition": 2}\n'
        b'{"key": null, "value": "\\u00e9", "timestamp": 1700000000001, "partition": 0,'
        b' "headers": [{"key": "a", "value_base64": "/w=="}, {"key": "", "value": "x"}]}\n'
    )
    cli.run("topic", "create", "json-a", "--partitions", "3")
    cli.run("topic", "create", "json-b", "--partitions", "3")
    cli.run("produce", "json-a", "--format", "json", stdin=given)
    first = consumed(cli, "json-a", "--output", "json")
    cli.run("produce", "json-b", "--format", "json", stdin=first)
    second = consumed(cli, "json-b", "--output", "json")
    assert sorted(first.replace(b"json-a", b"json-b").splitlines()) == sorted(second.splitlines())
    assert sorted(json.loads(line)["partition"] for line in second.splitlines()) == [0, 2]


def test_places_to_begin_and_to_end(cli):
    lines = b"".join(b'{"value": "%d", "timestamp": %d}\n' % (n, 1000 + n) for n in range(10))
    cli.run("produce", "places", "--create", "--format", "json", stdin=lines)

    def values(*args):
        return [int(line) for line in consumed(cli, "places", *args).split()]

    assert values() == list(range(10))
    assert values("--from", "7") == [7, 8, 9]
    assert values("--from", "-2") == [8, 9]
    assert values("--from", "@1008") == [8, 9]
    assert values("--from", "1970-01-01T00:00:01.009Z") == [9]
    assert values("--from", "latest") == []
    assert values("--from", "10m-ago") == []
    assert values("--until", "3") == [0, 1, 2]
    assert values("--until", "@1002") == [0, 1]
    assert values("--from", "2", "--max", "3") == [2, 3, 4]
    assert values("--until", "99") == list(range(10))
    without_exit = cli.out("consume", "places", "--until", "@1005", "--from", "3")
    assert without_exit.split() == [b"3", b"4"]
    assert cli.out("consume", "places", "--until", "0") == b""


def test_partitions_are_chosen(cli):
    cli.run("topic", "create", "chosen", "--partitions", "4")
    for number in range(4):
        text = b"%d\n" % number
        cli.run("produce", "chosen", "--partition", str(number), stdin=text * (number + 1))
    assert consumed(cli, "chosen", "--partition", "2") == b"2\n" * 3
    both = consumed(cli, "chosen", "--partition", "0", "--partition", "3", "--until", "2")
    assert sorted(both.split()) == [b"0", b"3", b"3"]
    for command in ("produce", "consume"):
        said = cli.error(command, "chosen", "--partition", "4", code=Exit.NOT_FOUND)
        assert "it has 4" in said


def test_a_group_goes_on_where_it_has_committed(cli):
    cli.run("produce", "grouped", "--create", stdin=b"1\n2\n3\n4\n5\n")
    done = cli.run("consume", "grouped", "--group", "g", "--max", "2")
    assert done.stdout == b"1\n2\n"
    assert done.stderr == b""
    assert consumed(cli, "grouped", "--group", "g", "--from", "latest") == b"3\n4\n5\n"
    assert consumed(cli, "grouped", "--group", "g") == b""
    cli.run("produce", "grouped", stdin=b"6\n")
    assert consumed(cli, "grouped", "--group", "g", "--partition", "0") == b"6\n"
    assert consumed(cli, "grouped", "--group", "other", "--from", "-1") == b"6\n"
    assert consumed(cli, "grouped", "--group", "fresh", "--from", "committed") == (
        b"1\n2\n3\n4\n5\n6\n"
    )


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("acks", ["all", "leader", "none"])
def test_every_compression_and_ack_condition_goes_round(cli, compression, acks):
    topic = f"packed-{compression}-{acks}"
    lines = b"".join(b"line %d\n" % number for number in range(5000))
    args = ["--create", "--compression", compression, "--acks", acks]
    told = cli.json("produce", topic, *args, stdin=lines)
    assert told["records"] == 5000
    assert told["offsets"] == {"0": {"first": 0, "next": 5000}}
    assert consumed(cli, topic) == lines


def test_a_line_is_sent_and_printed_while_more_may_come(cli):
    cli.run("topic", "create", "live")
    with (
        cli.running("consume", "live") as consumer,
        cli.running("produce", "live", stdin=subprocess.PIPE) as producer,
    ):
        for number in range(3):
            producer.stdin.write(b"%d\n" % number)
            producer.stdin.flush()
            assert consumer.stdout.readline() == b"%d\n" % number
        consumer.send_signal(signal.SIGINT)
        assert consumer.wait(20) == 0
        assert consumer.stderr.read() == b""
        producer.stdin.close()
        assert producer.wait(20) == 0
        assert producer.stdout.read() == b""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_produce_with_what_was_read_acknowledged(cli, number, code):
    topic = f"signalled-{number}"
    cli.run("topic", "create", topic)
    with (
        cli.running("produce", topic, "--output", "json", stdin=subprocess.PIPE) as producer,
        cli.running("consume", topic) as consumer,
    ):
        producer.stdin.write(b"whole\npart")
        producer.stdin.flush()
        assert consumer.stdout.readline() == b"whole\n"
        producer.send_signal(number)
        assert producer.wait(20) == code
        assert json.loads(producer.stdout.read())["records"] == 1
    assert consumed(cli, topic) == b"whole\n"


def test_a_signal_commits_what_was_printed_and_an_unmet_end_is_told_by_the_exit_code(cli):
    cli.run("produce", "stopped", "--create", stdin=b"1\n2\n")
    with cli.running("consume", "stopped", "--group", "g", "--max", "5") as consumer:
        assert consumer.stdout.readline() == b"1\n"
        assert consumer.stdout.readline() == b"2\n"
        consumer.send_signal(signal.SIGTERM)
        assert consumer.wait(20) == 143
    assert consumed(cli, "stopped", "--group", "g") == b""


def test_a_reader_that_goes_away_ends_it_quietly(cli):
    done = cli.shell(
        "seq 300000 | riverrun produce pipe --create && "
        "riverrun consume pipe | head -2; echo ${PIPESTATUS[*]}"
    )
    assert done.stdout == b"1\n2\n0 0\n"
    assert done.stderr == b""


def test_a_reader_that_goes_away_ends_it_also_where_no_further_record_comes(cli):
    cli.run("produce", "quiet", "--create", stdin=b"a\nb\n")
    done = cli.shell("timeout 30 riverrun consume quiet | head -n 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\n", b"")


def test_a_full_disk_is_an_error(cli):
    cli.run("produce", "full", "--create", stdin=b"x\n")
    done = cli.shell("riverrun consume full --exit-at-end > /dev/full")
    assert done.returncode == Exit.FAILED
    assert b"standard output cannot be written: " in done.stderr


def test_no_input_makes_no_record(cli):
    assert cli.json("produce", "empty", "--create", stdin=b"")["records"] == 0
    assert consumed(cli, "empty") == b""


def test_a_position_that_is_gone_is_an_error_that_says_what_can_be_read(cli):
    cli.run("produce", "gone", "--create", stdin=b"1\n2\n3\n")
    cli.run("topic", "trim", "gone", "--before", "2", "--yes")
    said = cli.error("consume", "gone", "--from", "0", "--exit-at-end", code=Exit.NOT_FOUND)
    assert "2" in said
    assert consumed(cli, "gone") == b"3\n"


def test_a_place_that_does_not_count_for_a_group_is_told_with_the_command_that_moves_it(cli):
    cli.run("produce", "moved", "--create", stdin=b"1\n2\n3\n")
    again = ["consume", "moved", "--group", "g", "--exit-at-end"]
    fresh = cli.run(*again, "--from", "-2")
    assert (fresh.stdout, b"does not count" in fresh.stderr) == (b"2\n3\n", False)
    done = cli.run(*again, "--from", "0")
    assert done.stdout == b""
    command = "riverrun group reset-offsets g --to 0 --topic moved"
    assert done.stderr.decode().rstrip().endswith(f"does not count there; to move it: {command}")
    cli.shell(f"{command} --yes")
    assert cli.out(*again) == b"1\n2\n3\n"
    assert b"does not count" not in cli.run(*again, "--from", "committed").stderr


def test_a_record_that_is_too_large_for_its_topic_is_told_with_the_command_that_lets_it_in(cli):
    large = b"x" * 2_000_000
    said = cli.error("produce", "large", "--create", stdin=large, code=Exit.FAILED)
    assert "this one record takes 2000" in said
    assert "allows 1048576 (max.batch.bytes)" in said
    command = said.split("`")[1]
    assert command == "riverrun topic alter large --config max.batch.bytes=3145728"
    cli.shell(command)
    cli.run("produce", "large", stdin=large)
    said = cli.error("produce", "large", stdin=b"x" * (3 << 20) + b"xy", code=Exit.USAGE)
    assert "more than 3145728 bytes, the most that any topic takes, came without a newline" in said


def test_a_topic_that_is_not_there_is_told_with_what_helps_this_command(cli):
    cli.run("topic", "create", "payments")
    missing = {"code": Exit.NOT_FOUND}
    assert cli.error("produce", "zzz", **missing) == (
        "error: there is no topic 'zzz'; make it with: riverrun topic create zzz, or give --create; "
        "0 records were acknowledged"
    )
    said = cli.error("perf", "produce", "zzz", "--records", "1", **missing)
    assert said.endswith("riverrun topic create zzz, or give --partitions N")
    said = cli.error("produce", "paymens", **missing)
    assert said == (
        "error: there is no topic 'paymens'; did you mean 'payments'? If not, give --create; "
        "0 records were acknowledged"
    )
    for name in ("__zzz", "z z z", ".."):
        said = cli.error("produce", name, **missing)
        assert "create" not in said
        assert said.startswith("error: there is no topic")
    assert "make it" not in cli.error("topic", "delete", "zzz", "--yes", **missing)


def test_who_waits_for_more_records_than_there_are_is_told_so_once(cli):
    cli.run("produce", "few", "--create", stdin=b"1\n2\n")
    asked = (["consume", "few", "--max", "3"], ["perf", "consume", "few", "--records", "3"])
    with cli.running(*asked[0]) as reading, cli.running(*asked[1]) as measuring:
        for process in (reading, measuring):
            said = process.stderr.readline()
            assert said.startswith(b"note: at the end after 2 records, waiting for more")
        cli.run("produce", "few", stdin=b"3\n")
        assert reading.communicate(timeout=60) == (b"1\n2\n3\n", b"")
        assert measuring.communicate(timeout=60)[1] == b""


def test_a_timestamp_in_seconds_is_told_once_and_taken_as_it_is(cli):
    line = b'{"value": "v", "timestamp": 1700000000}\n'
    done = cli.run("produce", "seconds", "--create", "--format", "json", stdin=line * 3)
    assert done.stderr.count(b"looks like seconds") == 1
    assert consumed(cli, "seconds", "--format", "%T") == b"1700000000\n" * 3


def test_a_place_beyond_the_end_is_an_error_that_says_what_can_be_read(cli):
    cli.run("produce", "short", "--create", stdin=b"1\n2\n3\n")
    beyond = ["consume", "short", "--from", "99999999"]
    until = ["--until", "100000000"]
    for end in ([], ["--exit-at-end"], until, ["--exit-at-end", *until]):
        said = cli.error(*beyond, *end, code=Exit.NOT_FOUND)
        assert "short[0]: offset 99999999 does not exist yet" in said
        assert "the first record is 0, the last is 2, the next will be 3" in said
    assert consumed(cli, "short", "--from", "3") == b""
    done = cli.run(*beyond, "--exit-at-end", "--group", "g")
    assert done.stdout == b"1\n2\n3\n"
    assert b"warning: short[0]: position 99999999 is out of range" in done.stderr


def test_standard_input_that_is_a_file_is_read_whole(cli, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100_000)))
    env = f"{os.fspath(path)}"
    done = cli.shell(
        f"riverrun produce from-file --create < {env} && "
        f"riverrun consume from-file --exit-at-end | cmp - {env}"
    )
    assert (done.returncode, done.stderr) == (0, b"")
