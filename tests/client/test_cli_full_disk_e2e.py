"""`riverrun produce` before a full disk: a signal ends it soon, and it says what is not written."""

from __future__ import annotations

import signal
import subprocess
import time

from riverrun.cli.exits import Exit
from tests.client.cli_process import CommandLine
from tests.e2e.broker_process import BrokerProcess

MORE_THAN_ANY_DISK = str(60 << 40)


def test_a_signal_ends_produce_before_a_full_disk_and_what_is_not_acknowledged_is_told(tmp_path):
    marks = ("RIVERRUN_STORAGE_DISK_LOW_WATER_BYTES", "RIVERRUN_STORAGE_DISK_HIGH_WATER_BYTES")
    broker = BrokerProcess(tmp_path, environ=dict.fromkeys(marks, MORE_THAN_ANY_DISK))
    try:
        broker.start()
        cli = CommandLine(broker.address)
        assert "appends are refused until there is room" in broker.logs(), "told at the start"
        with cli.running("produce", "t", "--create", stdin=subprocess.PIPE) as process:
            process.stdin.write(b"1\n2\n3\n")
            process.stdin.flush()
            assert b"GiB free" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, told = process.communicate(timeout=60)
            assert time.monotonic() - began < 30
        assert process.returncode == Exit.UNKNOWN_OUTCOME
        assert b"0 records were acknowledged, 3 that were read were not" in told
    finally:
        broker.stop()
