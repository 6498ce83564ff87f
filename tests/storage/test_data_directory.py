"""Whose a data directory is, who may open it, and how."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from riverrun_server.ports.log import StorageFailed
from riverrun_server.storage.recovery import Mode
from tests.storage.world import P0, Writer, killed, tables

FILES = {"identity.json", "lock", "store", "watermark"}


def test_a_new_directory_has_these_files_and_no_others(opened, data_dir):
    store = opened(data_dir / "deep" / "er", cluster_id="c1")
    assert store.recovery.mode is Mode.CREATED
    assert store.recovery.intact
    folder = data_dir / "deep" / "er"
    assert {each.name for each in folder.iterdir()} == FILES
    content = json.loads((folder / "identity.json").read_text())
    assert content == {
        "format_version": 1,
        "cluster_id": "c1",
        "broker_id": 1,
        "incarnations": {
            "fsync": store.identity.fsync.hex(),
            "relaxed": store.identity.relaxed.hex(),
        },
    }
    store.close()
    assert {each.name for each in folder.iterdir()} == FILES


def test_incarnations_are_sixteen_bytes_and_differ(opened):
    identity = opened().identity
    assert len(identity.fsync) == len(identity.relaxed) == 16
    assert identity.fsync != identity.relaxed


def change(data_dir, **values):
    path = data_dir / "identity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_newer_format_is_refused_and_left_alone(opened, data_dir):
    opened().close()
    change(data_dir, format_version=2, incarnations="in another shape")
    before = (data_dir / "identity.json").read_bytes()
    with pytest.raises(StorageFailed, match=r"format version 2, this broker knows 1 at most; run"):
        opened()
    assert (data_dir / "identity.json").read_bytes() == before


def test_another_brokers_directory_is_refused(opened):
    opened().close()
    with pytest.raises(StorageFailed, match="belongs to broker 1, this is broker 2"):
        opened(broker_id=2)


def test_another_clusters_directory_is_refused_and_a_nameless_one_joins(opened, data_dir):
    opened().close()
    assert opened(cluster_id="c1").identity.cluster_id == "c1"
    with pytest.raises(StorageFailed, match="in use"):
        opened(cluster_id="c1")


def test_the_cluster_is_for_good(opened):
    opened(cluster_id="c1").close()
    assert opened().identity.cluster_id == "c1"


def test_a_directory_of_another_cluster_is_refused(opened):
    opened(cluster_id="c1").close()
    with pytest.raises(StorageFailed, match="belongs to cluster 'c1', this broker is to join 'c2'"):
        opened(cluster_id="c2")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 1}',
        '{"format_version": 1, "broker_id": 1, "incarnations": {"fsync": "00", "relaxed": "zz"}}',
        '{"format_version": 1, "broker_id": 1, "incarnations": {"fsync": "00", "relaxed": "00"}}',
    ],
)
def test_an_identity_that_makes_no_sense_is_refused(opened, data_dir, content):
    opened().close()
    (data_dir / "identity.json").write_text(content)
    with pytest.raises(StorageFailed, match="backup"):
        opened()


def test_a_store_without_identity_is_refused(opened, data_dir):
    opened().close()
    (data_dir / "identity.json").unlink()
    with pytest.raises(StorageFailed, match="nobody knows whose it is"):
        opened()


HOLD = """
import sys
from tests.storage.world import open_small
store = open_small(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_ended_however_it_ends(opened, data_dir):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        lines = iter(holder.stdout.readline, "")
        assert any(line == "open\n" for line in lines)
        with pytest.raises(StorageFailed, match=f"in use by another broker .process {holder.pid}."):
            opened()
        holder.kill()
        holder.wait(30)
    assert opened().recovery.mode is Mode.REPLAYED


def test_a_refused_opening_leaves_the_directory_free(opened):
    opened().close()
    for _ in range(2):
        with pytest.raises(StorageFailed, match="broker 2"):
            opened(broker_id=2)
    opened()


def test_a_store_that_is_open_is_not_clean_on_the_disk(opened, data_dir):
    store = opened()
    store.close()
    store = opened()
    assert store.recovery.clean_shutdown
    assert not opened(killed(data_dir)).recovery.clean_shutdown


def test_a_store_closed_after_a_failure_is_not_clean(opened):
    store = opened()
    Writer(store.open(P0)).append()
    store.close(clean=False)
    assert not opened().recovery.clean_shutdown


def test_closing_twice_is_fine(opened):
    store = opened()
    store.close()
    store.close()


def test_the_watermark_follows_what_is_synced(opened, data_dir):
    store = opened()
    writer = Writer(store.open(P0))
    writer.append()
    store.write_watermark(clean=False)
    before = (data_dir / "watermark").read_bytes()
    writer.append()
    store.write_watermark(clean=False)
    assert (data_dir / "watermark").read_bytes() == before
    store.sync()
    store.write_watermark(clean=False)
    assert (data_dir / "watermark").read_bytes() != before


def test_a_failed_sync_is_for_good(opened, monkeypatch):
    store = opened()
    writer = Writer(store.open(P0))
    writer.append()

    def fail():
        raise StorageFailed("syncing: IO error: Input/output error")

    monkeypatch.setattr(store._rocks, "sync", fail)
    with pytest.raises(StorageFailed, match="Input/output"):
        store.sync()
    monkeypatch.undo()
    for use in (store.sync, writer.append, lambda: store.table(b"t").write([(b"k", b"v")])):
        with pytest.raises(StorageFailed, match="Input/output"):
            use()
    assert store.metrics().unsynced_writes > 0
    store.close()
    assert not opened().recovery.clean_shutdown


def test_a_sync_proves_nothing_about_what_was_written_while_it_ran(opened, monkeypatch):
    store = opened()
    writer = Writer(store.open(P0))
    sync = store._rocks.sync

    def sync_while_somebody_writes():
        sync()
        writer.append()

    monkeypatch.setattr(store._rocks, "sync", sync_while_somebody_writes)
    writer.append()
    store.sync()
    assert store.metrics().unsynced_writes == 1
    monkeypatch.undo()
    store.sync()
    assert store.metrics().unsynced_writes == 0


COST = """
import sys
from pathlib import Path
from tests.storage.world import Tuning, open_small

def resident():
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in each]
    return int(line.split()[1]) // 1024

before = resident()
store = open_small(sys.argv[1], slots=256, tuning=Tuning())
print("cost", resident() - before, len(list(Path("/proc/self/fd").iterdir())))
store.close()
"""


def test_256_slots_cost_little_memory_and_few_descriptors(data_dir):
    ran = subprocess.run(
        [sys.executable, "-c", COST, str(data_dir)], capture_output=True, text=True, check=True
    )
    (cost,) = [line.split()[1:] for line in ran.stdout.splitlines() if line.startswith("cost")]
    mib, descriptors = map(int, cost)
    assert mib < 60
    assert descriptors < 400


def test_a_short_table_is_told_on_one_line_that_names_the_store(opened, data_dir):
    """RocksDB breaks the line, and names the copy that it was tried with."""
    store = opened()
    Writer(store.open(P0)).many(3)
    store.close()
    os.truncate(tables(data_dir)[0], 100)
    with pytest.raises(StorageFailed) as refused:
        opened()
    told = str(refused.value)
    assert "\n" not in told
    assert "salvaged" not in told
    assert "size mismatch" in told
    assert "; restore it from a backup" in told
