"""The witness tells how late a process is let run, and ends with the one that asked for it."""

from __future__ import annotations

import os
import signal
import time

from tests.e2e.witness import Witness, tick

# A machine that does other things too has to come to it.
PATIENCE_S = 30.0
STOPPED_S = 0.3


def heard_of(witness, begin_s):
    """Wait until it has told of a tick since then."""
    until_s = time.monotonic() + PATIENCE_S
    while witness.worst_ms(begin_s, until_s) is None:
        assert time.monotonic() < until_s, "the witness says nothing"
        time.sleep(0.02)


def test_a_process_that_was_not_let_run_is_one_long_delay_of_that_time():
    with Witness() as witness:
        heard_of(witness, 0.0)
        begin_s = time.monotonic()
        os.kill(witness._process.pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(witness._process.pid, signal.SIGCONT)
        end_s = time.monotonic()
        heard_of(witness, end_s)
        # It was due within two hundredths of a second of being stopped.
        assert witness.worst_ms(begin_s, end_s) >= 1_000 * (STOPPED_S - 0.05)
        assert not witness.gone()
        assert max(witness.take()) >= 1_000 * (STOPPED_S - 0.05)
    assert witness.worst_ms(begin_s, end_s) is None, "they were taken"


def test_it_tells_how_long_its_syncs_take_and_leaves_no_file(tmp_path):
    with Witness(tmp_path) as witness:
        begin_s, told = time.monotonic(), []
        until_s = begin_s + PATIENCE_S
        while witness.worst_sync_ms(begin_s, until_s) is None:
            assert time.monotonic() < until_s, "no sync was told of"
            time.sleep(0.02)
        while len(told) < 3:
            assert time.monotonic() < until_s, "no sync was told of"
            told += witness.take_syncs()
            time.sleep(0.02)
    assert all(0 < ms < 1_000 * PATIENCE_S for ms in told)
    assert list(tmp_path.iterdir()) == []


def test_a_tick_counts_from_when_it_was_due_and_without_its_own_work():
    now_s = time.monotonic()
    assert tick(now_s - 0.1).ms >= 100.0
    assert tick(now_s + 10.0).ms == 0.0
    assert tick(now_s).done_s >= now_s


def test_a_witness_that_ends_by_itself_is_noticed():
    witness = Witness()
    try:
        witness._process.kill()
        witness._process.wait(PATIENCE_S)
        assert witness.gone()
    finally:
        witness.end()
