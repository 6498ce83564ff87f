"""What ends before it is done: how much has happened, from where to go on, and by which exit code."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from riverrun.cli.exits import Exit
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import BrokerProcess

NOBODY = ("--bootstrap", "127.0.0.1:1")
LARGE = b"x" * 1_500_000 + b"\n"


def numbers(first, last):
    """Write lines of numbers, as `seq` does."""
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


def consumed(cli, topic):
    """Consume a topic to its end."""
    return cli.out("consume", topic, "--exit-at-end")


def error_of(done):
    """Return the JSON object of an error."""
    return json.loads(done.stderr)["error"]


def test_a_line_that_is_too_large_is_named_and_nothing_from_it_on_is_sent(cli):
    given = numbers(1, 5) + LARGE + numbers(7, 100_000)
    said = cli.error("produce", "mid", "--create", stdin=given, code=Exit.PARTLY)
    assert said.startswith(
        "error: line 6 of standard input: this one record takes 1500015 bytes and topic mid allows "
        "1048576 (max.batch.bytes); "
    )
    assert said.endswith("; 5 records were acknowledged; nothing from line 6 on was sent")
    assert consumed(cli, "mid") == numbers(1, 5)
    # Which is how a script goes on behind it.
    cli.run("produce", "mid", stdin=b"".join(given.splitlines(keepends=True)[6:]))
    assert consumed(cli, "mid") == numbers(1, 5) + numbers(7, 100_000)


def test_programs_are_told_the_line_and_how_far_it_came(cli):
    lines = [b'{"value": "a"}', b"", b'{"value": "b", "partition": 1}', b'{"value": "%s"}']
    lines[3] %= b"x" * 1_500_000
    cli.run("topic", "create", "told", "--partitions", "2")
    asked = ["produce", "told", "--format", "json", "--output", "json"]
    error = error_of(cli.run(*asked, stdin=b"\n".join(lines), code=Exit.PARTLY))
    assert error.pop("message").startswith("line 4 of standard input: this one record takes ")
    assert error == {
        "reason": "BATCH_TOO_LARGE",
        "outcome": "partly happened",
        "exit_code": 7,
        "line": 4,
        "acknowledged_records": 2,
        "acknowledged_to_line": 3,
        "unsent_from_line": 4,
    }
    assert sorted(consumed(cli, "told").split()) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("wrong", "reason", "first_alone"),
    [
        (b"nonsense", "INVALID_INPUT", Exit.USAGE),
        (b'{"value": "c", "partition": 9}', "PARTITION_NOT_FOUND", Exit.NOT_FOUND),
        (b'{"value": "c", "timestamp": 1796000000000000}', "INVALID_TIMESTAMP", Exit.FAILED),
    ],
)
def test_what_is_wrong_with_a_line_decides_the_code_only_where_none_was_written_before(
    cli, wrong, reason, first_alone
):
    asked = ["produce", f"line-{reason}", "--create", "--format", "json", "--output", "json"]
    error = error_of(cli.run(*asked, stdin=wrong, code=first_alone))
    assert (error["outcome"], error["line"], error["reason"]) == ("nothing happened", 1, reason)
    given = b'{"value": "a"}\n{"value": "b"}\n' + wrong + b'\n{"value": "d"}\n'
    error = error_of(cli.run(*asked, stdin=given, code=Exit.PARTLY))
    assert (error["outcome"], error["line"], error["reason"]) == ("partly happened", 3, reason)
    assert consumed(cli, f"line-{reason}") == b"a\nb\n"


def test_the_largest_record_that_a_topic_allows_is_sent_and_one_byte_more_is_not(cli):
    cli.run("topic", "create", "exact", "--config", "max.batch.bytes=1024")
    fits = 1024 - 13  # what stands around a value of this length
    cut = ["produce", "exact", "--record-size", str(fits)]
    cli.run(*cut, stdin=b"x" * fits)
    said = cli.error(*cut, "--header", "h=", stdin=b"x" * fits * 2, code=Exit.FAILED)
    assert "record 1 of standard input: this one record takes 1029 bytes" in said
    cut[-1] = str(fits + 1)
    said = cli.error(*cut, stdin=b"x" * 5_000, code=Exit.FAILED)
    assert "record 1 of standard input: this one record takes 1025 bytes" in said
    assert said.endswith("; 0 records were acknowledged; nothing from record 1 on was sent")


def test_a_line_is_taken_if_the_topic_allows_it_by_the_time_it_comes(cli):
    cli.run("topic", "create", "raised", "--config", "max.batch.bytes=1024")
    with (
        cli.running("produce", "raised", stdin=subprocess.PIPE) as producer,
        cli.running("consume", "raised") as consumer,
    ):
        producer.stdin.write(b"before\n")
        producer.stdin.flush()
        assert consumer.stdout.readline() == b"before\n"
        cli.run("topic", "alter", "raised", "--config", "max.batch.bytes=4096")
        producer.stdin.write(b"x" * 2_000 + b"\nafter\n")
        producer.stdin.close()
        assert producer.wait(20) == 0
        assert consumer.stdout.readline() == b"x" * 2_000 + b"\n"
        assert consumer.stdout.readline() == b"after\n"


def test_where_the_broker_goes_away_it_says_which_line_is_the_first_that_is_not_written(tmp_path):
    broker = BrokerProcess(tmp_path)
    try:
        broker.start()
        cli = CommandLine(broker.address)
        cli.run("topic", "create", "one")
        asked = ["produce", "one", "--timeout", "5s", "--output", "json"]
        with (
            cli.running(*asked, stdin=subprocess.PIPE) as producer,
            cli.running("consume", "one") as consumer,
        ):
            producer.stdin.write(numbers(1, 5))
            producer.stdin.flush()
            assert [consumer.stdout.readline() for _ in range(5)][-1] == b"5\n"
            # Read is not acknowledged yet; once this is answered, that is, too.
            cli.run("topic", "describe", "one")
            broker.kill9()
            producer.stdin.write(numbers(6, 7))
            producer.stdin.close()
            code = producer.wait(30)
            error = json.loads(producer.stderr.read().splitlines()[-1])["error"]
    finally:
        broker.stop()
    assert code == error["exit_code"] == Exit.PARTLY, error
    assert error["outcome"] == "partly happened"
    assert error["acknowledged_records"] == error["acknowledged_to_line"] == 5
    assert error["unsent_from_line"] == 8
    assert (
        "5 records were acknowledged; line 6 is the first that was not; nothing from"
        in (error["message"])
    )


def test_a_trim_that_some_partitions_refuse_says_which_were_trimmed(cli):
    cli.run("topic", "create", "trims", "--partitions", "3")
    lines = [b'{"value": "v", "partition": %d}' % partition for partition in (0, 0, 0, 1, 1, 1, 2)]
    cli.run("produce", "trims", "--format", "json", stdin=b"\n".join(lines))
    done = cli.run(
        *("topic", "trim", "trims", "--before", "2", "--yes", "--output", "json"), code=Exit.PARTLY
    )
    error = error_of(done)
    assert (error["outcome"], error["trimmed"]) == ("partly happened", [0, 1])
    assert "1 of 3 partitions not trimmed (trimmed: 0,1); partition 2: " in error["message"]
    starts = [one["log_start_offset"] for one in json.loads(done.stdout)]
    assert starts == [2, 2, None]
    said = cli.run("topic", "trim", "trims", "--before", "9", "--yes", code=Exit.FAILED).stderr
    assert b"error: topic trims: 3 of 3 partitions not trimmed; partition 0: " in said


def test_a_signal_in_a_pipe_is_answered_with_what_was_acknowledged_and_what_comes_next(cli):
    cli.run("topic", "create", "piped")
    with (
        cli.running("produce", "piped", stdin=subprocess.PIPE) as producer,
        cli.running("consume", "piped") as consumer,
    ):
        producer.stdin.write(b"whole\npart")
        producer.stdin.flush()
        assert consumer.stdout.readline() == b"whole\n"
        producer.send_signal(signal.SIGTERM)
        assert producer.wait(20) == Exit.TERMINATED
        assert producer.stderr.read().decode() == (
            "note: stopped by SIGTERM: 1 record was acknowledged; nothing from line 2 on was sent\n"
        )


@pytest.mark.parametrize(
    ("number", "asked", "told"),
    [
        (signal.SIGINT, "consume t", ""),
        (signal.SIGTERM, "consume t --group g --exit-at-end", ""),
        (signal.SIGINT, "produce t", "SIGINT: 0 records were acknowledged; nothing from line 1"),
        (signal.SIGTERM, "produce t --create", "SIGTERM: 0 records were acknowledged; nothing"),
        (signal.SIGINT, "perf latency t", ""),
    ],
)
def test_a_signal_ends_the_wait_for_a_broker_at_once(cli, number, asked, told):
    with cli.running(*NOBODY, *asked.split()) as process:
        assert b"waiting up to 10 s" in process.stderr.readline()
        process.send_signal(number)
        process.wait(7)  # the ten seconds are not over
        said = process.stderr.read().decode()
        assert process.returncode == 128 + number
    assert said.startswith(f"note: stopped by {told}" if told else "")
    assert said.count("\n") == bool(told)


def test_a_latency_that_is_cut_short_is_told_as_far_as_it_came_and_marked(cli):
    cli.run("topic", "create", "latency")
    asked = ["perf", "latency", "latency", "--rate", "200", "--seconds", "1h"]
    with cli.running(*asked) as process, cli.running("consume", "latency") as consumer:
        for _ in range(20):
            assert consumer.stdout.read(100)
        process.send_signal(signal.SIGINT)
        told = json.loads(process.stdout.read())
        assert process.wait(20) == Exit.INTERRUPTED
    assert (told["partial"], told["stopped_by"]) == (True, "SIGINT")
    assert 0 < told["records"] < 200 * 3_600
    assert told["latency_ms"]["p50"] > 0
