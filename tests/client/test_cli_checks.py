"""What the doctor makes of versions, clocks, limits and addresses."""

from __future__ import annotations

import asyncio

import pytest

from riverrun import (
    BrokerDescription,
    ClusterDescription,
    LackingPartition,
    Limits,
    ServerInfo,
    Storage,
)
from riverrun.cli.broker_checks import check_disk, check_open_files
from riverrun.cli.checks import check_address, check_clock, check_limits, check_version
from riverrun.cli.cluster_checks import judge_brokers, judge_replicas


@pytest.mark.parametrize(
    ("broker", "client", "state"),
    [
        ("0.1.0", "0.1.9", "ok"),
        ("0.1.0", "0.2.0", "warning"),
        ("1.2.0", "1.9.3", "ok"),
        ("1.2.0", "2.0.0", "warning"),
        ("0.1.0.dev1+g123", "0.1.0", "ok"),
    ],
)
def test_versions_that_may_not_understand_each_other_are_a_warning(broker, client, state):
    assert check_version(broker, client).state == state


@pytest.mark.parametrize(
    ("off_ms", "trip_ms", "state"),
    [
        (0, 1, "ok"),
        (900, 1, "ok"),
        (-900, 1, "ok"),
        (1200, 1, "warning"),
        (-1200, 1, "warning"),
        (1200, 1000, "ok"),
        (5_000_000, 1, "warning"),
        (-3_590_000, 1, "warning"),
        (-3_700_000, 1, "failed"),
    ],
)
def test_a_clock_is_judged_by_what_is_certain(off_ms, trip_ms, state):
    before_ms = 1_700_000_000_000.0
    finding = check_clock(before_ms + trip_ms / 2 + off_ms, before_ms, trip_ms, 3600.0)
    assert finding.state == state
    assert bool(finding.advice) == (state != "ok")


def server(frame_bytes):
    """Make what a broker says of itself."""
    sizes = (1 << 20, 65_536, 4 << 20, frame_bytes, 1000, 64, 8 << 20)
    limits = Limits(*sizes, 3600.0, 30.0, 60.0, 30.0, 1.0, 1800.0, 10.0, 60.0)
    return ServerInfo("0.1.0", 1, "c", (), limits, 0, "h:1")


def test_frames_that_an_untuned_client_refuses_are_a_warning():
    assert check_limits(server(4 << 20)).state == "ok"
    finding = check_limits(server((4 << 20) + 1))
    assert finding.state == "warning"
    assert "4.0 MiB" in finding.advice


async def test_an_address_that_answers_is_well_and_one_that_does_not_comes_with_advice():
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        assert (await check_address("address", f"127.0.0.1:{port}")).state == "ok"
    gone = await check_address("advertised", f"127.0.0.1:{port}")
    assert gone.state == "failed"
    assert "Connection refused" in gone.found
    assert "--advertise" in gone.advice


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:x", "host:0", "host:70000"])
async def test_what_is_no_address_is_told(address):
    assert "is not HOST:PORT" in (await check_address("address", address)).found


GIB = 1 << 30


@pytest.mark.parametrize(
    ("storage", "state", "said"),
    [
        (Storage(True, 100 * GIB, 50 * GIB, GIB, 2 * GIB), "ok", "50.0 GiB of 100.0 GiB"),
        (Storage(True, 100 * GIB, 9 * GIB, GIB, 2 * GIB), "warning", "(9 %)"),
        (Storage(True, 10 * GIB, 3 * GIB, GIB, 2 * GIB), "warning", "appends need 1.0 GiB"),
        (Storage(False, 100 * GIB, 1 * GIB, GIB, 2 * GIB), "failed", "appends are refused"),
        (Storage(False, 100 * GIB, 50 * GIB, 60 * GIB, 70 * GIB), "failed", "until 70.0 GiB"),
    ],
)
def test_a_disk_is_low_before_it_is_full(storage, state, said):
    (finding,) = check_disk(storage)
    assert (finding.check, finding.state) == ("disk", state)
    assert said in finding.found + finding.advice
    assert bool(finding.advice) == (state != "ok")


@pytest.mark.parametrize("storage", [None, Storage(True, 0, 0, 0, 0)])
def test_a_disk_of_which_the_broker_says_nothing_is_not_judged(storage):
    assert check_disk(storage) == []


@pytest.mark.parametrize(
    ("limit", "states"),
    [(None, []), (-1, ["ok"]), (1024, ["warning"]), (4096, ["ok"]), (1 << 20, ["ok"])],
)
def test_few_open_files_are_a_warning(limit, states):
    assert [finding.state for finding in check_open_files(limit)] == states


def cluster(*brokers, lacking=(), controller=2, partitions=9):
    return ClusterDescription(
        "c", 1, 1, controller, brokers, partitions=partitions, lacking=tuple(lacking)
    )


def member(broker, **fields):
    return BrokerDescription(broker, f"h{broker}:7171", **fields)


def test_brokers_that_all_serve_are_one_finding():
    (finding,) = judge_brokers(cluster(member(1), member(2)))
    assert (finding.check, finding.state) == ("brokers", "ok")
    assert finding.found == "2, none fenced or draining, broker 2 controls"


def test_a_broker_that_is_alone_needs_nobody_who_controls():
    (finding,) = judge_brokers(cluster(member(1), controller=-1))
    assert (finding.state, finding.found) == ("ok", "1, none fenced or draining")


@pytest.mark.parametrize(
    ("fields", "state", "found", "advice"),
    [
        ({"fenced": True, "host": "m3"}, "failed", "is fenced: it is not seen alive", "on m3"),
        ({"fenced": True, "draining": True}, "failed", "is fenced", "start it, or see its log"),
        ({"alive": False}, "warning", "is not seen alive", "it is fenced within seconds"),
        ({"draining": True, "leaders": 2}, "warning", "leads 2 partitions", "drain 3 --undo"),
        ({"draining": True}, "warning", "drains, and leads nothing", "stop or restart it"),
    ],
)
def test_a_broker_that_does_not_serve_is_told_with_what_to_do(fields, state, found, advice):
    (finding,) = judge_brokers(cluster(member(1), member(2), member(3, **fields)))
    assert (finding.check, finding.state) == ("broker", state)
    assert finding.found.startswith("broker 3 ")
    assert found in finding.found
    assert advice in finding.advice


def test_a_cluster_that_nobody_controls_has_failed():
    (finding,) = judge_brokers(cluster(member(1), member(2), controller=-1))
    assert (finding.check, finding.state) == ("controller", "failed")


def lacking(partition, leader, isr, least=2):
    return LackingPartition("t", partition, leader, 0, 0, (1, 2, 3), isr, (), least)


def test_replicas_that_are_behind_are_a_warning_and_too_few_in_sync_a_failure():
    short = [lacking(number, 1, (1,)) for number in range(7)]
    found = cluster(member(1), lacking=[lacking(9, -1, (1,)), *short, lacking(8, 1, (1, 2))])
    failed, behind = judge_replicas(found)
    assert (failed.check, failed.state) == ("replicas", "failed")
    assert failed.found.startswith("7 partitions (t[0], t[1], t[2], t[3], t[4] and 2 more) cannot ")
    assert failed.advice.startswith("start brokers 2, 3, or wait")
    assert (behind.state, behind.found) == (
        "warning",
        "1 partition (t[8]) with replicas that are not in sync",
    )
    assert behind.advice.startswith("start broker 3, or wait until caught up")


def test_a_topic_that_needs_more_replicas_than_it_has_is_told_so():
    alone = LackingPartition("t", 0, 1, 0, 0, (1,), (1,), (), 2)
    (finding,) = judge_replicas(cluster(member(1), lacking=[alone]))
    assert "lower min.insync.replicas" in finding.advice


def test_replicas_that_are_all_in_sync_are_well_and_none_are_nothing():
    (finding,) = judge_replicas(cluster(member(1)))
    assert (finding.state, finding.found) == ("ok", "9 partitions, all in sync")
    assert judge_replicas(cluster(member(1), partitions=0)) == []
