"""The fixture that other tests kill and restart brokers with keeps its promises."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

from tests.e2e.broker_process import BrokerProcess

ROOT = Path(__file__).resolve().parents[2]
# Starts a broker, tells its process id, and dies as a crashing test run would.
ORPHANING = """
import os, signal, sys
from pathlib import Path
from tests.e2e.broker_process import BrokerProcess
broker = BrokerProcess(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def answers(address):
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)


def test_a_killed_broker_comes_back_on_its_port(broker):
    before, pid = broker.address, broker.pid
    broker.kill9()
    assert broker.exit_code == -signal.SIGKILL
    broker.restart()
    assert (broker.address, broker.exit_code) == (before, None)
    assert broker.pid != pid
    answers(before)


def test_a_port_that_a_connection_has_taken_meanwhile_is_waited_for(broker):
    host, _, port = broker.address.rpartition(":")
    broker.kill9()
    taken = socket.socket()
    taken.bind((host, int(port)))
    threading.Timer(3, taken.close).start()  # longer than a broker takes to ask for it
    broker.restart()
    answers(broker.address)


def test_a_terminated_broker_ends_well_and_comes_back(broker):
    assert broker.term() == 0, broker.logs()
    broker.restart()
    answers(broker.address)


def test_a_broker_that_cannot_start_says_why(tmp_path):
    broker = BrokerProcess(tmp_path, "--no-such-flag")
    with pytest.raises(AssertionError, match=r"(?s)exit code is 2.*--no-such-flag"):
        broker.start()
    broker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_broker_dies_with_the_process_that_started_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ORPHANING, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert is_gone(int(done.stdout))


def is_gone(pid):
    """Wait for the end of a process that is not our child."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = select.select([process], [], [], 20.0)
        return bool(ended)
    finally:
        os.close(process)
