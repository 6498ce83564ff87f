"""A real broker process: what it says, on which stream, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest

from riverrun.v1 import metadata_pb2, metadata_pb2_grpc

COMMAND = str(Path(sys.executable).parent / "riverrun-server")
PORTS = ("--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0")
FEW_SLOTS = ("--set=storage.slots=4",)
READY = re.compile(r"ready clients=(\S+) http=(\S+)\n")


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("RIVERRUN_")}


class Process:
    """A broker on ports of the system's choice; slots are few to start fast."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.child = subprocess.Popen(
            [COMMAND, "run", f"--data-dir={data_dir}", *PORTS, *FEW_SLOTS, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        # Past this something hangs, and what was said until then is the best clue.
        self._watchdog = threading.Timer(60, self.child.kill)
        self._watchdog.start()

    def ready(self) -> tuple[str, str]:
        """Wait until it serves; return where clients and probes go."""
        line = self.child.stdout.readline()
        found = READY.fullmatch(line)
        assert found, (line, self.child.communicate()[1])
        return found[1], found[2]

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return exit code, the rest of standard output, standard error."""
        out, err = self.child.communicate()
        self._watchdog.cancel()
        return self.child.returncode, out, err


@pytest.fixture
def start(tmp_path):
    started: list[Process] = []

    def run(*arguments: str) -> Process:
        started.append(Process(tmp_path / "data", *arguments))
        return started[-1]

    yield run
    for process in started:
        process.child.kill()
        process.end()


def get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_broker_says_ready_answers_probes_and_ends_well(start):
    broker = start()
    clients, probes = broker.ready()
    assert get(probes, "/livez")[0] == 200
    assert get(probes, "/readyz")[0] == 200
    with grpc.insecure_channel(clients) as channel:
        stub = metadata_pb2_grpc.MetadataServiceStub(channel)
        told = stub.GetMetadata(metadata_pb2.GetMetadataRequest(), timeout=30)
        assert clients in str(told), "clients are told the port that was bound"
    status, metrics = get(probes, "/metrics")
    assert status == 200
    method = 'method="riverrun.v1.MetadataService/GetMetadata"'
    assert f'riverrun_rpc_calls_total{{code="OK",listener="clients",{method}}} 1.0' in metrics
    broker.child.send_signal(signal.SIGTERM)
    code, out, err = broker.end()
    assert (code, out) == (0, ""), err
    lines = [json.loads(line) for line in err.splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "starting"
    assert lines[0]["settings"]["storage.slots"] == "4"
    assert events[-1] == "stopped"
    assert "shutting down" in events


def test_a_data_directory_in_use_is_one_line_and_the_first_broker_goes_on(start):
    first = start()
    _, probes = first.ready()
    second = start("--log-level=error")
    code, out, err = second.end()
    assert (code, out) == (1, "")
    [line] = err.splitlines()
    assert line.startswith("riverrun-server: ")
    assert "data" in line
    assert get(probes, "/readyz")[0] == 200


@pytest.mark.parametrize("flag", ["--listen", "--http-listen"])
def test_a_port_in_use_is_one_line(start, tmp_path, flag):
    first = start()
    clients, probes = first.ready()
    taken = clients if flag == "--listen" else probes
    other = "--http-listen" if flag == "--listen" else "--listen"
    done = subprocess.run(
        [
            *(COMMAND, "run", f"--data-dir={tmp_path}/other", *FEW_SLOTS, "--log-level=error"),
            *(f"{flag}={taken}", f"{other}=127.0.0.1:0"),
        ],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert taken in line
    assert "in use" in line


def test_a_second_broker_with_the_same_settings_names_the_first_and_logs_its_failure(
    start, tmp_path
):
    first = start()
    clients, probes = first.ready()
    again = (COMMAND, "run", f"--listen={clients}", f"--http-listen={probes}", *FEW_SLOTS)

    def run(folder):
        return subprocess.run(
            [*again, f"--data-dir={folder}"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )

    for folder, said in (
        (tmp_path / "data", "is in use by another broker (process "),
        (tmp_path / "other", "is another broker running? If so, give this one --listen"),
    ):
        done = run(folder)
        *log, line = done.stderr.splitlines()
        assert said in line
        assert "--data-dir DIR" in line
        assert (done.returncode, json.loads(log[-1])["exit_code"]) == (1, 1)


def test_a_second_signal_while_draining_is_ignored_and_the_drain_is_bounded(start):
    broker = start("--set=drain_timeout_s=3s")
    clients, _ = broker.ready()
    with grpc.insecure_channel(clients) as channel:
        # A stream of which the client reads nothing more holds the drain open for a while.
        watching = metadata_pb2_grpc.MetadataServiceStub(channel).WatchMetadata(
            metadata_pb2.WatchMetadataRequest()
        )
        next(watching)
        broker.child.send_signal(signal.SIGINT)
        broker.child.send_signal(signal.SIGTERM)
        broker.child.send_signal(signal.SIGTERM)
        code, _, err = broker.end()
    assert code == 0, err
    assert "Traceback" not in err


def test_a_broker_that_was_killed_starts_again(start):
    first = start()
    first.ready()
    first.child.kill()
    assert first.end()[0] == -signal.SIGKILL
    start().ready()
