"""A broker with partitions that only an operator can bring back, from the shell."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import contextmanager

import pytest

from riverrun.cli.exits import Exit
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import SERVER, BrokerProcess
from tests.e2e.test_damage import flip_a_bit

COUNT, SIZE = 40, 200_000


@contextmanager
def running(folder):
    """Run a broker."""
    broker = BrokerProcess(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@contextmanager
def running_crashed(folder):
    """Run a broker that has crashed: partition 1 of `half` was not on the disk for certain."""
    with running(folder) as broker:
        cli = CommandLine(broker.address)
        cli.run("topic", "create", "half", "--config", "fsync=relaxed", "--partitions", "2")
        for partition, line in enumerate((b"a\n", b"b\n")):
            cli.run("produce", "half", "--partition", str(partition), stdin=line)
        broker.kill9()
        recover(broker, "half", 0)
        broker.restart()
        yield broker


@pytest.fixture(scope="module")
def crashed(tmp_path_factory):
    """One for the tests that leave it as it is."""
    with running_crashed(tmp_path_factory.mktemp("crashed")) as broker:
        yield broker


@pytest.fixture
def cli(crashed):
    return CommandLine(crashed.address)


def recover(broker, topic, partition):
    """Do what the broker asks an operator to do."""
    subprocess.run(command(broker, topic, partition), capture_output=True, check=True)


def command(broker, topic, partition):
    """Return the command that the broker names."""
    return [
        *(SERVER, "recover", "--data-dir", str(broker.data_dir), "--topic", topic),
        *("--partition", str(partition), "--accept-loss"),
    ]


def told(broker, topic="half", partition=1):
    """Return that command as it stands in a text."""
    return " ".join(["riverrun-server", *command(broker, topic, partition)[1:]])


def test_consume_tells_at_once_what_it_waits_for_and_goes_on_when_it_is_back(tmp_path):
    with running_crashed(tmp_path) as broker:
        cli = CommandLine(broker.address)
        with cli.running("consume", "half", "--output", "json") as consumer:
            assert json.loads(consumer.stdout.readline())["value"] == "a"
            warning = consumer.stderr.readline().decode()
            said = "warning: cannot be read, trying again: half[1]: half-1 is offline"
            assert warning.startswith(said)
            assert told(broker) in warning
            broker.term()
            recover(broker, "half", 1)
            broker.restart()
            assert json.loads(consumer.stdout.readline())["value"] == "b"
            consumer.send_signal(signal.SIGINT)
            assert consumer.wait(20) == 0
            assert b"is offline" not in consumer.stderr.read()
        assert cli.json("doctor")["ok"] is True


def test_consume_to_the_end_of_what_stays_offline_fails_after_its_timeout(crashed, cli):
    asked = ["consume", "half", "--exit-at-end", "--timeout", "1"]
    done = cli.run(*asked, code=Exit.PARTLY)
    assert done.stdout == b"a\n"
    warning, error = done.stderr.decode().splitlines()
    assert warning.startswith("warning: ")
    assert error.startswith("error: gave up waiting for the end after 1 s")
    assert told(crashed) in warning
    assert told(crashed) in error
    assert cli.out(*asked, "--partition", "0") == b"a\n"
    assert told(crashed) in cli.error(*asked, "--until", "9", code=Exit.UNAVAILABLE)


def test_until_an_offset_does_not_end_quietly_before_a_partition_that_is_offline(crashed, cli):
    with cli.running("consume", "half", "--until", "1") as consumer:
        assert consumer.stdout.readline() == b"a\n"
        assert told(crashed) in consumer.stderr.readline().decode()
        with pytest.raises(subprocess.TimeoutExpired):
            consumer.wait(1)
        consumer.send_signal(signal.SIGINT)
        assert consumer.wait(20) == Exit.INTERRUPTED


def test_produce_tells_at_once_and_fails_with_what_the_broker_said(crashed, cli):
    asked = ["produce", "half", "--partition", "1", "--timeout", "1500ms"]
    done = cli.run(*asked, stdin=b"c\n", code=Exit.UNAVAILABLE)
    warning, error = done.stderr.decode().splitlines()
    assert warning.startswith(
        "warning: cannot be written, trying again: half[1]: half-1 is offline"
    )
    assert error.startswith("error: a batch for half[1] was not acknowledged in time")
    assert told(crashed) in warning
    assert told(crashed) in error
    assert "; 0 records were acknowledged; " in error
    assert error.endswith("; nothing from line 2 on was sent")


def test_describe_tells_the_whole_reason_below_the_table_and_in_json(crashed, cli):
    lines = cli.out("topic", "describe", "half").decode().splitlines()
    # The loss that was accepted raised the epoch by a thousand (see core.cluster.election).
    assert lines[8].split()[:5] == ["0", "1", "1002/2", "1", "1"]
    assert lines[9].split() == ["1", "none", "0/0", "1", "1", "-", "-", "-", "-"]
    (reason,) = [line for line in lines if line.startswith("partition 1: half-1 is offline")]
    assert told(crashed) in reason
    fine, lost = cli.json("topic", "describe", "half")["partitions"]
    assert "error" not in fine
    assert reason == f"partition 1: {lost['error']}"


def test_the_doctor_names_a_partition_without_a_leader_and_the_command_to_run(crashed, cli):
    found = cli.run("doctor", code=Exit.FAILED).stdout.decode()
    assert told(crashed) in found
    assert "half[1] cannot be used" in found
    assert "half[0]" not in found


@pytest.mark.timeout(180)
def test_damage_under_a_reader_ends_it_and_is_found_by_the_doctor(tmp_path):
    with running(tmp_path) as broker:
        cli = CommandLine(broker.address)
        cli.run("topic", "create", "torn")
        data = b"".join(b"<%06d>" % number * (SIZE // 8) + b"\n" for number in range(COUNT))
        cli.run("produce", "torn", stdin=data)
        broker.term()
        flip_a_bit(broker.data_dir, b"<%06d>" % (COUNT // 2) * 4)
        broker.restart()
        done = cli.run("consume", "torn", "--exit-at-end", code=Exit.PARTLY)
        assert data.startswith(done.stdout)
        assert len(done.stdout) < len(data)
        asked = ["consume", "torn", "--exit-at-end", "--timeout", "1"]
        assert "torn[0]" in cli.run(*asked, code=Exit.UNAVAILABLE).stderr.decode()
        found = cli.run("doctor", code=Exit.FAILED).stdout.decode()
        assert "torn[0] cannot be used" in found
        assert "riverrun-server recover" in found
