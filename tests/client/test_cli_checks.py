"""What the doctor makes of versions, clocks, limits and addresses."""

from __future__ import annotations

import asyncio

import pytest

from riverrun import Limits, ServerInfo, Storage
from riverrun.cli.broker_checks import check_disk, check_open_files
from riverrun.cli.checks import check_address, check_clock, check_limits, check_version


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
    limits = Limits(
        1 << 20, 65_536, 4 << 20, frame_bytes, 1000, 64, 8 << 20, 3600.0, 30.0, 60.0, 30.0
    )
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
