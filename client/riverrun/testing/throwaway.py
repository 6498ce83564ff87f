"""Runs a real broker in a process and a folder of its own, and leaves nothing of either behind."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

from riverrun.errors import FatalError, Reason

_STOP_TIMEOUT_S: Final = 20.0
_LOG_LINES_SHOWN: Final = 50


class BrokerNotStartedError(FatalError):
    """The broker of a test could not be started; the text has what it said.

    Example:
        try:
            with riverrun.testing.broker({"broker_id": "none"}):
                pass
        except riverrun.testing.BrokerNotStartedError as error:
            print(error.message)
    """


@contextlib.contextmanager
def broker(
    settings: Mapping[str, str] | None = None, *, start_timeout_s: float = 60.0
) -> Iterator[str]:
    """Run a broker for the length of the block; the block is given its address.

    It listens on a free port of 127.0.0.1, keeps its data in a temporary folder, and takes no settings
    from the environment, so that any number of them run side by side. At the end it is asked to
    shut down, and killed where it does not within 20 seconds. It does not outlive the process that
    runs the block, on Linux also where that is killed.

    Args:
        settings: more settings of the broker by their names in docs/configuration.md.
        start_timeout_s: how long to wait until it serves.

    Raises:
        BrokerNotStartedError: it does not start, or the server extra is not installed.

    Example:
        with riverrun.testing.broker({"topic_defaults.partitions": "3"}) as address:
            with riverrun.blocking.Client(address) as client:
                client.admin().create_topic("orders")
    """
    _check_installed()
    folder = Path(tempfile.mkdtemp(prefix="riverrun-testing-"))
    try:
        process = _start(folder, settings or {})
        try:
            yield _address(process, folder, start_timeout_s)
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_installed() -> None:
    missing = [
        name for name in ("riverrun_server", "rocksdict") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise _not_started(
            f"{missing[0]} is not installed: a broker needs the server extra; in a clone of Riverrun's "
            "repository: pip install '.[server]'"
        )


def _start(folder: Path, settings: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-c", _LAUNCHER, str(os.getpid())),
        *("run", "--data-dir", str(folder / "data")),
        *("--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
        *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")),
    ]
    with _log(folder).open("w") as log:
        return subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            errors="replace",
            env={k: v for k, v in os.environ.items() if not k.startswith("RIVERRUN_")},
            # Ctrl-C is for the tests: the broker goes when they have finished with it.
            start_new_session=True,
        )


# What a killed test run leaves behind would run for ever. The kernel's own signal at a parent's death
# goes by the thread that forked, which may end long before the tests do, so the parent is watched.
_LAUNCHER: Final = """
import os, signal, sys, threading
parent = int(sys.argv.pop(1))
def watch():
    wait = threading.Event().wait
    while os.getppid() == parent:
        wait(1)
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.argv[0] = "riverrun-server"
from riverrun_server.cli import main
main()
"""


def _address(process: subprocess.Popen[str], folder: Path, timeout_s: float) -> str:
    """Wait for the line that says ready, which has the addresses: `ready NAME=HOST:PORT ...`."""
    assert process.stdout is not None, "it was asked for"
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_drain, args=(process.stdout, lines), daemon=True).start()
    try:
        line = lines.get(timeout=timeout_s)
    except queue.Empty:
        what = f"the broker did not serve within {timeout_s:g} s (start_timeout_s)"
    else:
        word, *addresses = line.split() or [""]
        if word == "ready" and addresses:
            return addresses[0].partition("=")[2]
        what = "the broker ended before it served"
    process.kill()
    process.wait()
    said = _log(folder).read_text(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
    raise _not_started("\n".join([f"{what}, with exit code {process.returncode}; it said:", *said]))


def _drain(output: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Read to the end, for a full pipe would stop the broker; the end is told as an empty line."""
    with output:
        for line in output:
            lines.put(line)
    lines.put("")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log(folder: Path) -> Path:
    return folder / "broker.log"


def _not_started(text: str) -> BrokerNotStartedError:
    return BrokerNotStartedError(text, reason=Reason.NO_BROKER)
