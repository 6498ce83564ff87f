"""Probes of a real broker: while it starts, when its event loop hangs, while it drains."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun.v1.admin_pb2_grpc import AdminServiceStub
from riverrun.v1.consumer_pb2 import FetchRequest, ListOffsetsRequest, OffsetQuery, StartPosition
from riverrun.v1.consumer_pb2_grpc import ConsumerServiceStub

WITHIN_S = 30.0
# The broker itself, but that opening its store waits for a line on standard input, that it says where
# its probes are before it serves, and that SIGUSR1 keeps its event loop busy until a line comes.
RIGGED = """
import signal, sys
from riverrun_server import app
from riverrun_server.cli import main
opened, started = app.open_store, app.ProbeServer.start
app._LOOP_ALLOWED_S = 2.0
def open_when_told(*args, **kwargs):
    sys.stdin.readline()
    return opened(*args, **kwargs)
def start_and_tell(probes):
    started(probes)
    print(probes.address, flush=True)
app.open_store, app.ProbeServer.start = open_when_told, start_and_tell
signal.signal(signal.SIGUSR1, lambda *_: sys.stdin.readline())
main()
"""


class Rigged:
    """A broker whose start and whose hanging are in a test's hand."""

    def __init__(self, folder) -> None:
        arguments = ["run", f"--data-dir={folder}", "--listen=127.0.0.1:0"]
        arguments += ["--http-listen=127.0.0.1:0", "--set=storage.slots=4"]
        self.child = subprocess.Popen(
            [sys.executable, "-c", RIGGED, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("RIVERRUN_")},
        )
        self._watchdog = threading.Timer(100, self.child.kill)
        self._watchdog.start()
        self._probes = self.child.stdout.readline().strip()

    def go_on(self) -> None:
        self.child.stdin.write("\n")
        self.child.stdin.flush()

    def ready(self) -> str:
        """Wait until it serves; return where clients go."""
        return self.child.stdout.readline().split()[1].partition("=")[2]

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._probes, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def until(self, path: str, status: int) -> str:
        ends_at = time.monotonic() + WITHIN_S
        while True:
            got, text = self.get(path)
            if got == status:
                return text
            assert time.monotonic() < ends_at, (got, text)
            time.sleep(0.05)

    def end(self) -> None:
        self.child.kill()
        self.child.communicate()
        self._watchdog.cancel()


@pytest.fixture
def rigged(tmp_path):
    broker = Rigged(tmp_path / "data")
    yield broker
    broker.end()


def test_liveness_and_readiness_through_the_life_of_a_broker(rigged):
    # The store is being opened: alive, and no place for clients.
    assert rigged.get("/livez")[0] == 200
    status, text = rigged.get("/readyz")
    assert (status, text) == (503, "FAIL serving: the store is being opened\n")
    assert rigged.get("/metrics")[0] == 200
    rigged.go_on()
    clients = rigged.ready()
    rigged.until("/readyz", 200)
    assert {line.split(":")[0] for line in rigged.until("/livez", 200).splitlines()} == {
        "ok   loop",
        "ok   disk",
    }
    # The event loop hangs: a restart is asked for, and clients are kept away.
    rigged.child.send_signal(signal.SIGUSR1)
    assert "FAIL loop: answered " in rigged.until("/livez", 503)
    assert rigged.get("/readyz")[0] == 503
    rigged.go_on()
    rigged.until("/livez", 200)
    rigged.until("/readyz", 200)
    # It drains, held open by a call that waits: alive still, and no place for new clients.
    with grpc.insecure_channel(clients) as channel:
        AdminServiceStub(channel).CreateTopic(CreateTopicRequest(topic="t"), timeout=WITHIN_S)
        begin = [StartPosition(topic="t", offset=0)]
        request = FetchRequest(positions=begin, min_bytes=1, max_wait=Duration(seconds=60))
        waiting = ConsumerServiceStub(channel).Fetch.future(request)
        sent_behind = ConsumerServiceStub(channel).ListOffsets(
            ListOffsetsRequest(queries=[OffsetQuery(topic="t")]), timeout=WITHIN_S
        )
        assert sent_behind.answers
        rigged.child.terminate()
        text = rigged.until("/readyz", 503)
        assert text.startswith("FAIL serving: the broker is shutting down\n")
        rigged.until("/livez", 200)
        waiting.cancel()
    assert rigged.child.wait(WITHIN_S) == 0
