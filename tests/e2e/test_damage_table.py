"""Each kind of damage to stored data, against a real broker: what it serves, says, and takes back.

What must hold whatever was damaged is in `tests/e2e/damage/examination.py`; here stands what must
come of each kind.
"""

from __future__ import annotations

import os
import sys

import pytest

from tests.e2e.damage.calls import Place
from tests.e2e.damage.examination import Examination
from tests.e2e.damage.kinds import cut, flip, zero
from tests.e2e.damage.site import (
    ACCEPTING,
    FSYNC,
    LARGE_BYTES,
    PLACES,
    RELAXED,
    copied,
    killed,
    stopped,
    wals,
)
from tests.e2e.damage.wal import wal_records

# A machine that is busy with other things takes long for a broker's start, of which a cell has two or three.
pytestmark = pytest.mark.timeout(400)

SEED = int(os.environ.get("DAMAGE_SEED", "0")) or int.from_bytes(os.urandom(4))
OFFSETS = Place("__consumer_offsets", 0)
NOTHING_OFFLINE: set[Place] = set()
EVERYTHING = {*FSYNC, *RELAXED, OFFSETS}
# Sites of which a command has been run in a process of its own.
RAN_ALONE: set[str] = set()


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Brokers that were stopped in order, killed, and killed with several write-ahead logs."""
    sys.stdout.write(f"DAMAGE_SEED={SEED} makes the same choices again\n")
    made = {}

    def site(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = {
                "stopped": lambda: stopped(folder, SEED),
                "killed": lambda: killed(folder, SEED),
                "several logs": lambda: killed(folder, SEED, large_bytes=LARGE_BYTES),
            }[name]()
        return made[name]

    return site


@pytest.fixture
def examine(sites, tmp_path):
    """Damage a copy of a site and return what became of it.

    Of each site one cell with something offline runs the command as an operator would; the others
    have it parsed and do the same here.
    """

    def do(name, damage):
        site = sites(name)
        damage(copied(site, tmp_path))
        examination = Examination(
            site.told.copy(),
            tmp_path,
            unclean=name != "stopped",
            seed=SEED,
            twice=name == "several logs",
            alone=name not in RAN_ALONE,
        )
        report = examination.run()
        if report.offline:
            RAN_ALONE.add(name)
        sys.stdout.write(f"{report}\n{examination.broker.logs()}")
        assert not report.failures
        return report

    return do


def record(data_dir, which, log=-1):
    """Return a write-ahead log, and a synced write in its middle, the last synced one, or the last."""
    path = wals(data_dir)[log]
    records = wal_records(path)
    durable = max(each.durable for each in records)
    synced = [each for each in records if each.number <= durable]
    return path, {
        "middle": synced[len(synced) // 2],
        "last synced": synced[-1],
        "last": records[-1],
    }[which]


def flip_record(which, log=-1):
    def damage(data_dir):
        path, found = record(data_dir, which, log)
        # Its last byte: in its midst may be what fills the end of a block, which is nothing's.
        flip(path, found.end - 1)

    return damage


def zero_large_record(data_dir):
    """Let a page be zeroes in the middle of a write that is longer than a block."""
    path = wals(data_dir)[-1]
    large = [each for each in wal_records(path) if each.end - each.begin > 100_000][2]
    zero(path, (large.begin + large.end) // 2 // 4096 * 4096, 4096)


def zero_tail(data_dir):
    wal = wals(data_dir)[-1]
    zero(wal, wal.stat().st_size - 50_000, 50_000)


def append_zeroes(data_dir):
    wal = wals(data_dir)[-1]
    zero(wal, wal.stat().st_size, 50_000)


def cut_wal(size, log=-1):
    return lambda data_dir: cut(wals(data_dir)[log], size)


def delete_wal(log=-1):
    return lambda data_dir: wals(data_dir)[log].unlink()


# Write-ahead logs.


@pytest.mark.parametrize(
    "damage",
    [cut_wal(50), flip_record("last"), append_zeroes],
    ids=["50 bytes cut off", "a bit in the last write", "50 KB of zeroes behind it"],
)
def test_damage_to_an_unsynced_tail_takes_nothing_that_was_promised(examine, damage):
    report = examine("killed", damage)
    assert not report.loss
    assert set(report.offline) == set(RELAXED)


@pytest.mark.parametrize(
    ("site", "damage"),
    [
        ("killed", flip_record("middle")),
        ("killed", flip_record("last synced")),
        ("killed", zero_tail),
        ("killed", delete_wal()),
        ("several logs", flip_record("middle", 0)),
        ("several logs", delete_wal(0)),
        ("several logs", zero_large_record),
    ],
    ids=[
        "a bit in the middle",
        "a bit in the last synced write",
        "50 KB of zeroes over its end",
        "deleted",
        "a bit in the older one",
        "the older one deleted",
        "zeroes in a large write",
    ],
)
def test_damage_to_what_was_synced_is_told_and_accepted_by_the_command_that_is_told(
    examine, site, damage
):
    report = examine(site, damage)
    assert report.loss
    assert set(report.offline) == EVERYTHING
    assert not report.gone


# Tables.


def table_of(data_dir, place):
    """Return the table with a partition's first records, and where one of them stands."""
    name = b"<%s/%d/%06d>" % (place.topic.encode(), place.partition, 20)
    for table in (data_dir / "store").glob("*.sst"):
        at = table.read_bytes().find(name)
        if at >= 0:
            return table, at
    raise AssertionError(f"no table has {name}")


def test_a_flipped_bit_in_a_batch_stops_its_partition_alone(examine):
    def damage(data_dir):
        table, at = table_of(data_dir, FSYNC[1])
        flip(table, at + 3)

    report = examine("stopped", damage)
    assert not report.loss
    assert set(report.offline) == {FSYNC[1]}
    assert report.kept[FSYNC[1]] <= 20


@pytest.mark.parametrize("from_end", [20, 400], ids=["footer", "index"])
def test_damage_to_what_a_table_needs_to_be_opened_is_served_as_no_hole(examine, from_end):
    def damage(data_dir):
        table, _ = table_of(data_dir, FSYNC[1])
        flip(table, table.stat().st_size - from_end)

    report = examine("stopped", damage)
    assert report.refused or set(report.offline) <= {FSYNC[1]}


@pytest.mark.parametrize("name", ["stopped", "killed"])
def test_a_damaged_index_takes_all_offline_and_all_is_made_anew_from_the_batches(examine, name):
    def damage(data_dir):
        # Its rows follow upon one another in one block: bounds, epochs, signposts, snapshots.
        for table in (data_dir / "store").glob("*.sst"):
            if b"\x05nameindex" in table.read_bytes():
                flip(table, 40)

    report = examine(name, damage)
    assert not report.refused
    assert set(report.offline) == {*EVERYTHING, *ACCEPTING}
    assert all(report.kept[place] for place in PLACES)


def test_a_deleted_table_keeps_the_broker_from_starting(examine):
    def damage(data_dir):
        table_of(data_dir, FSYNC[0])[0].unlink()

    assert "restore it from a backup" in examine("stopped", damage).refused


# What says what is there.


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST"])
def test_a_store_that_cannot_be_opened_says_what_to_do(examine, name):
    def damage(data_dir):
        (path,) = (data_dir / "store").glob(f"{name}*")
        cut(path, path.stat().st_size) if name == "CURRENT" else flip(
            path, path.stat().st_size // 2
        )

    assert "restore it from a backup" in examine("killed", damage).refused


def test_an_identity_that_is_no_text_keeps_the_broker_from_starting(examine):
    def damage(data_dir):
        (data_dir / "identity.json").write_bytes(b"\xff\xfe" * 40)

    assert "restore it from a backup" in examine("killed", damage).refused


@pytest.mark.parametrize("how", ["deleted", "older"])
def test_a_watermark_that_is_not_this_stores_is_not_trusted(examine, sites, how):
    def damage(data_dir):
        if how == "deleted":
            (data_dir / "watermark").unlink()
        else:
            other = sites("stopped").broker.data_dir
            (data_dir / "watermark").write_bytes((other / "watermark").read_bytes())

    report = examine("killed", damage)
    assert report.loss
    assert set(report.offline) == EVERYTHING
    assert all(report.kept[place] for place in (*FSYNC, *RELAXED))
