"""A broker whose end goes wrong: every other step is made, what hangs is named, and it ends in time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from riverrun_server.runtime.clock import SystemDice
from riverrun_server.runtime.supervisor import EXIT_FAILED, EXIT_HUNG
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch

DRAIN_TIMEOUT_S = 3
# For starting and ending a process on a machine that is busy with other things.
SLACK_S = 30.0

# A broker in which something is broken from the moment that it is told to end.
BROKEN = """
import sys, threading
from riverrun_server import cli
from riverrun_server.metadata.embedded import EmbeddedStore
from riverrun_server.runtime.catalog import Catalog
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.supervisor import Supervisor
from riverrun_server.storage.rocks_store import RocksStore

ending = threading.Event()
stop = Supervisor.stop
def stopping(self, why):
    ending.set()
    stop(self, why)
Supervisor.stop = stopping

def broken(kind, name, what):
    whole = getattr(kind, name)
    def method(self, *args, **kwargs):
        return what(self) if ending.is_set() else whole(self, *args, **kwargs)
    setattr(kind, name, method)

def noted(kind, name):
    whole = getattr(kind, name)
    def method(self, *args, **kwargs):
        print("did", name, flush=True)
        return whole(self, *args, **kwargs)
    setattr(kind, name, method)

async def fail(self):
    raise OSError("planted")

def hang(self):
    threading.Event().wait()

noted(EmbeddedStore, "__aexit__")
noted(RocksStore, "close")
{plant}
cli.main()
"""


class Ended:
    """A broker that was broken, told to end, and has."""

    def __init__(self, data_dir, plant):
        arguments = [
            *("run", f"--data-dir={data_dir}", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"),
            *(f"--set=drain_timeout_s={DRAIN_TIMEOUT_S}s", "--set=storage.slots=4"),
        ]
        child = subprocess.Popen(
            [sys.executable, "-c", BROKEN.replace("{plant}", plant), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if "RIVERRUN_" not in key},
        )
        watchdog = threading.Timer(2 * SLACK_S, child.kill)
        watchdog.start()
        ready = child.stdout.readline()
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        self.out, self.err = child.communicate()
        watchdog.cancel()
        assert ready.startswith("ready "), self.err
        self.took_s = time.monotonic() - began
        self.code = child.returncode
        self.done = [line.removeprefix("did ") for line in self.out.splitlines()]
        self.log = [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def told(self, step):
        """Return what the log tells of a step of the shutdown."""
        return [line for line in self.log if line.get("step") == step]


def opens_clean(data_dir):
    store = open_store(
        data_dir, broker_id=1, slots=4, parse=stored_batch, scan=scan_batch, dice=SystemDice()
    )
    try:
        return store.recovery.clean_shutdown
    finally:
        store.close()


@pytest.mark.parametrize(
    ("step", "plant"),
    [
        ("partitions", "broken(Catalog, 'close', fail)"),
        ("metadata", "broken(Flusher, 'durable', fail)"),
    ],
)
def test_a_step_that_fails_is_told_and_every_other_one_is_made(tmp_path, step, plant):
    ended = Ended(tmp_path, plant)
    assert ended.code == EXIT_FAILED, ended.err
    assert ended.done == ["__aexit__", "close"]
    (told,) = [line for line in ended.told(step) if line["event"] == "shutdown step failed"]
    assert "planted" in told["exception"]
    assert opens_clean(tmp_path)


def test_a_sync_that_hangs_is_named_and_the_process_ends_in_time(tmp_path):
    ended = Ended(tmp_path, "broken(RocksStore, 'sync', hang)")
    assert ended.code == EXIT_HUNG, ended.err
    assert ended.took_s < DRAIN_TIMEOUT_S + SLACK_S
    (told,) = ended.told("flusher's thread")
    assert "Flusher._sync did not come back to the flusher threads" in told["exception"]
    assert "the shutdown hung and was cut off" in ended.err
    assert "close" in ended.done, "the rest was tried all the same"


def test_a_store_that_hangs_while_it_is_closed_is_named(tmp_path):
    ended = Ended(tmp_path, "broken(RocksStore, 'close', hang)")
    assert ended.code == EXIT_HUNG, ended.err
    assert ended.took_s < DRAIN_TIMEOUT_S + SLACK_S
    (told,) = ended.told("store")
    assert told["event"] == "shutdown step cut short"
    assert ended.log[-1]["event"] == "stopped", "the loop went on to the end"


def test_a_broker_of_which_nothing_is_broken_ends_well(tmp_path):
    ended = Ended(tmp_path, "")
    assert ended.code == 0, ended.err
    assert ended.done == ["__aexit__", "close"]
    assert opens_clean(tmp_path)
