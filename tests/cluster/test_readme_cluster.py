"""`make cluster`, and the README's section about it, run as they stand, with what they print."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading

import pytest

from tests.e2e.test_readme import BLOCK, README, ROOT, matches, run_one
from tests.metadata.etcd_process import etcd_binary
from tests.polyglot import toolchain

pytestmark = [toolchain.BUILDS, pytest.mark.timeout(180)]


class Foreground:
    """`make cluster` as a person has it in a terminal, on ports that the system chooses."""

    def __init__(self, folder):
        etcd_binary()
        self.folder = folder
        self.lines = []
        self._heard = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tools/cluster.py"), "--port", "0", "--etcd-port", "0"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with self._process.stdout:
            for line in self._process.stdout:
                with self._heard:
                    self.lines.append(line.rstrip())
                    self._heard.notify_all()

    def line(self, containing):
        """Wait for a line; return it."""
        with self._heard:

            def found():
                return next((line for line in self.lines if containing in line), None)

            assert self._heard.wait_for(found, 60), "\n".join(self.lines)
            return found()

    def interrupt(self):
        """Press Ctrl-C; return the exit code."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        self._reader.join()


@pytest.fixture
def foreground(tmp_path):
    cluster = Foreground(tmp_path)
    try:
        yield cluster
    finally:
        cluster.stop()


def section():
    return (
        README.read_text().split("## A cluster, and killing its leader", 1)[1].split("\n## ", 1)[0]
    )


def run(block, addresses, folder):
    for named, address in zip((7171, 7181, 7191), addresses, strict=True):
        block = block.replace(f"127.0.0.1:{named}", address)
    return run_one(["bash", "-c", block], ",".join(addresses), folder, timeout=90)


def test_a_leader_is_killed_by_hand_as_the_readme_says(foreground):
    addresses = re.findall(r"on (\S+?)(?:,|$)", foreground.line("cluster ready"))
    blocks = BLOCK.findall(section())
    assert len(blocks) == 2
    for _, block, output in blocks:
        printed = run(block, addresses, foreground.folder)
        assert matches(output, printed), f"{block}\nprinted:\n{printed}"
    again = foreground.line("was ended by SIGKILL; start it again").partition("again: ")[2]
    in_sync = (
        "until riverrun topic describe payments --output json | "
        'python3 -c \'import json, sys; sys.exit(any(len(p["in_sync_replicas"]) < 3 for p in '
        'json.load(sys.stdin)["partitions"]))\'; do :; done'
    )
    with (
        (foreground.folder / "again.log").open("w") as log,
        subprocess.Popen(
            shlex.split(again), cwd=foreground.folder, stdout=log, stderr=log
        ) as broker,
        contextlib.ExitStack() as ends,
    ):
        ends.callback(broker.terminate)
        run(in_sync, addresses, foreground.folder)
    assert foreground.interrupt() == 0


def test_ctrl_c_ends_everything_and_the_next_one_goes_on_with_the_data(tmp_path):
    first = Foreground(tmp_path)
    try:
        addresses = re.findall(r"on (\S+?)(?:,|$)", first.line("cluster ready"))
        run("riverrun topic create kept && echo 1 | riverrun produce kept", addresses, tmp_path)
        pids = [int(path.read_text()) for path in (tmp_path / "data/cluster").glob("*.pid")]
        assert first.interrupt() == 0
    finally:
        first.stop()
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    second = Foreground(tmp_path)
    try:
        addresses = re.findall(r"on (\S+?)(?:,|$)", second.line("cluster ready"))
        assert run("riverrun consume kept --exit-at-end", addresses, tmp_path) == "1"
    finally:
        second.stop()
