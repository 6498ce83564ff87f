"""Each fault of the faulty disk is seen to happen, by processes that do nothing else."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest

from tests.e2e.power.cuts import Kind, cut_power
from tests.e2e.power.disk import FaultyDisk, NoCompiler

SYNCED, UNSYNCED = 10_000, 20_000
PRELUDE = """
import errno, os, signal, threading, time

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def begin(name):
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

def syncs():
    with open(os.environ["FAULTY_DISK_STATE"], "rb") as shared:
        return int.from_bytes(shared.read(40)[32:], "little")

def told(call, *args):
    try:
        return call(*args)
    except OSError as failed:
        return errno.errorcode[failed.errno]
"""


@pytest.fixture
def faulty(tmp_path):
    """Make a disk."""

    def make(**rules):
        try:
            return FaultyDisk(tmp_path / "data", **rules)
        except NoCompiler as missing:
            pytest.skip(str(missing))

    return make


def run(disk, program):
    """Run a program in the disk's folder, which it ends by dying; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-ISc", PRELUDE + program],
        env=os.environ | disk.environ,
        cwd=disk.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    return done.stdout.split()


def write_and_die(disk, files=1):
    """Have some files with a synced part and an unsynced one."""
    run(
        disk,
        f"for number in range({files}):\n"
        f"    log = begin(f'{{number}}.log'); os.write(log, b's' * {SYNCED}); os.fdatasync(log)\n"
        f"    os.write(log, b'u' * {UNSYNCED})\n"
        "die()",
    )
    paths = [disk.folder / f"{number}.log" for number in range(files)]
    for path in paths:  # a kill alone takes nothing
        assert path.read_bytes() == b"s" * SYNCED + b"u" * UNSYNCED
    return paths


def cut(disk, kind, seed=0):
    return cut_power(disk, kind, random.Random(seed))


def left(path):
    """Return what is left of the unsynced part, after a look at the synced one."""
    content = path.read_bytes()
    assert content[:SYNCED] == b"s" * SYNCED
    return content[SYNCED:]


def test_a_power_cut_drops_what_was_not_synced(faulty):
    disk = faulty()
    (path,) = write_and_die(disk)
    assert cut(disk, Kind.DROP).lost == {path: UNSYNCED}
    assert left(path) == b""


def test_a_torn_write_is_a_beginning_that_ends_anywhere(faulty):
    disk = faulty()
    paths = write_and_die(disk, 40)
    lost = cut(disk, Kind.TORN).lost
    parts = [left(path) for path in paths]
    assert all(part == b"u" * len(part) for part in parts)
    sizes = {len(part) for part in parts}
    assert len(sizes) > 30
    assert min(sizes) < UNSYNCED // 4
    assert UNSYNCED * 3 // 4 < max(sizes) < UNSYNCED
    assert lost == {path: UNSYNCED - len(part) for path, part in zip(paths, parts, strict=True)}


def test_zeroed_pages_keep_the_size_and_can_have_written_ones_behind_them(faulty):
    disk = faulty()
    paths = write_and_die(disk, 40)
    lost = cut(disk, Kind.ZEROED).lost
    parts = [left(path) for path in paths]
    assert {len(part) for part in parts} == {UNSYNCED}
    assert all(set(part) <= set(b"u\0") for part in parts)
    assert lost == {path: part.count(0) for path, part in zip(paths, parts, strict=True)}
    assert min(lost.values()) > 0
    ends = [part.rstrip(b"\0") for part in parts]
    tails = [end for end in ends if 0 not in end and len(end) < UNSYNCED]
    assert 10 < len(tails) < 30
    assert any(0 in end for end in ends), "a hole"
    # A page is there as a whole or not at all; the first one begins where the synced part ends.
    first_page = 4096 - SYNCED % 4096
    assert all(len(set(part[:first_page])) == 1 for part in parts)


@pytest.mark.parametrize("kind", Kind)
def test_what_a_cut_has_left_is_on_the_disk(faulty, kind):
    disk = faulty()
    (path,) = write_and_die(disk)
    cut(disk, kind)
    before = path.read_bytes()
    assert cut(disk, kind).lost == {}
    assert path.read_bytes() == before


def test_what_was_there_before_the_disk_is_on_it(faulty, tmp_path):
    (tmp_path / "data").mkdir()
    old = tmp_path / "data" / "old"
    old.write_bytes(b"old")
    disk = faulty()
    run(disk, "os.write(os.open('old', os.O_WRONLY | os.O_APPEND), b'new'); die()")
    assert cut(disk, Kind.DROP).lost == {old: 3}
    assert old.read_bytes() == b"old"


def test_a_file_that_is_written_anew_has_nothing_on_the_disk(faulty):
    disk = faulty()
    run(
        disk,
        "log = begin('a'); os.write(log, b'old'); os.fsync(log); os.close(log)\n"
        "log = begin('a'); os.write(log, b'newer'); die()",
    )
    assert cut(disk, Kind.DROP).lost == {disk.folder / "a": 5}


def test_a_file_keeps_what_was_synced_under_another_name(faulty):
    disk = faulty()
    run(
        disk,
        "new = begin('new'); os.write(new, b'synced'); os.fsync(new); os.write(new, b'more')\n"
        "os.rename('new', 'name'); die()",
    )
    cut(disk, Kind.DROP)
    assert (disk.folder / "name").read_bytes() == b"synced"


def test_files_elsewhere_are_left_alone(faulty, tmp_path):
    disk = faulty(fail_write="EIO@1", fail_sync="EIO@1")
    run(disk, "out = begin('../elsewhere'); os.write(out, b'fine'); os.fsync(out); die()")
    assert cut(disk, Kind.DROP).lost == {}
    assert (tmp_path / "elsewhere").read_bytes() == b"fine"
    assert (disk.writes, disk.syncs) == (0, 0)


def test_a_sync_takes_its_time_and_covers_what_was_written_before_it_began(faulty):
    disk = faulty(sync_ms=300)
    (seconds,) = run(
        disk,
        "log = begin('log'); os.write(log, b'before')\n"
        "began = time.monotonic()\n"
        "syncing = threading.Thread(target=os.fsync, args=(log,)); syncing.start()\n"
        "while not syncs(): pass\n"
        "os.write(log, b'meanwhile'); syncing.join()\n"
        "print(time.monotonic() - began, flush=True); die()",
    )
    assert float(seconds) >= 0.3
    cut(disk, Kind.DROP)
    assert (disk.folder / "log").read_bytes() == b"before"


def test_without_a_delay_a_sync_takes_little(faulty):
    program = (
        "log = begin('log'); began = time.monotonic(); os.fsync(log)\n"
        "print(time.monotonic() - began, flush=True); die()"
    )
    assert float(run(faulty(), program)[0]) < 0.3


SYNC_THREE_TIMES = """
log = begin('log')
for part in b'one', b'two', b'three':
    os.write(log, part)
    print(told(os.fdatasync, log), flush=True)
die()
"""


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_sync_that_fails_has_lost_its_part_although_the_next_one_succeeds(faulty, error):
    disk = faulty(fail_sync=f"{error}@2")
    assert run(disk, SYNC_THREE_TIMES) == ["None", error, "None"]
    assert (disk.syncs, disk.failed_syncs, disk.last_failed_sync) == (3, 1, 2)
    assert cut(disk, Kind.DROP).lost == {disk.folder / "log": 3}
    assert (disk.folder / "log").read_bytes() == b"one\0\0\0three"


def test_as_many_syncs_fail_as_told(faulty):
    assert run(faulty(fail_sync="EIO@1+2"), SYNC_THREE_TIMES) == ["EIO", "EIO", "None"]


def test_a_disk_that_runs_full_takes_half_of_a_write_and_refuses_the_next(faulty):
    disk = faulty(fail_write="ENOSPC@2+2")
    printed = run(
        disk,
        "log = begin('log')\n"
        "for _ in range(4): print(told(os.write, log, b'12345678'), flush=True)\n"
        "print(told(os.pwrite, log, b'12345678', 0), flush=True); die()",
    )
    assert printed == ["8", "4", "ENOSPC", "8", "8"]
    assert (disk.writes, disk.failed_writes) == (5, 2)


def test_a_write_that_fails_for_another_reason_does_nothing(faulty):
    disk = faulty(fail_write="EIO@1")
    printed = run(disk, "print(told(os.write, begin('log'), b'12345678'), flush=True); die()")
    assert printed == ["EIO"]
    assert (disk.folder / "log").read_bytes() == b""


def test_failures_keep_to_the_files_that_they_are_for(faulty):
    disk = faulty(fail_write="EIO@1+9", fail_sync="EIO@1+9", only=".log")
    printed = run(
        disk,
        "for name in 'a.log', 'a.sst':\n"
        "    out = begin(name); print(told(os.write, out, b'1'), told(os.fsync, out), flush=True)\n"
        "die()",
    )
    assert printed == ["EIO", "EIO", "1", "None"]


def test_a_running_process_can_be_given_failures_and_spared_again(faulty):
    disk = faulty()
    with subprocess.Popen(
        [
            sys.executable,
            "-ISc",
            PRELUDE
            + "log = begin('log')\n"
            + "while input(): print(told(os.write, log, b'12'), told(os.fsync, log), flush=True)",
        ],
        env=os.environ | disk.environ,
        cwd=disk.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def next_one():
            process.stdin.write("go\n")
            process.stdin.flush()
            return process.stdout.readline().split()

        assert next_one() == ["2", "None"]
        disk.fail_writes("ENOSPC")
        disk.fail_syncs("EIO")
        assert next_one() == ["1", "EIO"]
        assert next_one() == ["ENOSPC", "None"]
        disk.heal()
        assert next_one() == ["2", "None"]
        process.kill()
