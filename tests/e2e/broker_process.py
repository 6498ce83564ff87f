"""A real broker in a process of its own, for tests that kill it, restart it or talk to it in any language.

Its calls block: from a coroutine use `await asyncio.to_thread(broker.restart)`.
"""

from __future__ import annotations

import collections
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NoReturn

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SERVER = Path(sysconfig.get_path("scripts")) / "riverrun-server"

# The kernel kills a broker whose test process is gone, even by SIGKILL. It goes by the thread that
# forked, so all brokers are forked by one thread that lives as long as the test process.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="broker-spawner")
_PR_SET_PDEATHSIG = 1
_LAUNCHER = (
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)}); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
# "ready", then NAME=HOST:PORT for each listener, the one for probes last.
_READY = re.compile(r"ready \S+=127\.0\.0\.1:(\d+) (?:.* )?http=(\S+)")


class BrokerProcess:
    """One broker: `start` and `restart` bring it up, `kill9` and `term` take it down.

    The first start takes a free port, later ones the same port and the same data.

    Attributes:
        data_dir: where its data lives, also while it is down.
        http_address: where its running process answers probes; another one after each start.
        exit_code: of its last process, None while that runs; negative is a signal.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        environ: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda _: None,
        config: Path | None = None,
    ) -> None:
        """`options` are more flags of `riverrun-server run`, `environ` more variables.

        `on_line` is called with each line that it prints, on threads of the process's own. A file
        `config` has the listeners, instead of the one that it gets without.
        """
        self.data_dir = folder / "data"
        self.http_address = ""
        self.exit_code: int | None = None
        self._options = options
        self._environ = dict(environ or {})
        self._on_line = on_line
        self._config = config
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self._output: collections.deque[str] = collections.deque(maxlen=2_000)
        self._ready_line = ""
        self._settled = threading.Event()
        self._readers: list[threading.Thread] = []

    @property
    def address(self) -> str:
        """Where clients connect."""
        assert self._port, "start the broker first: its port is not known yet"
        return f"127.0.0.1:{self._port}"

    @property
    def addresses(self) -> dict[str, str]:
        """Where clients connect, by the names of its listeners."""
        return dict(re.findall(r"(\S+)=(\S+)", self._ready_line.partition(" http=")[0]))

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None, "the broker does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            AssertionError: it ended, or was not ready in time; the text has its output.
        """
        assert self._process is None, "the broker runs already"
        self._ready_line, self.exit_code = "", None
        self._settled.clear()
        self._process = _SPAWNER.submit(self._spawn).result()
        self._readers = [
            self._follow(self._process.stdout, self._heard),
            self._follow(self._process.stderr, lambda _: None),
        ]
        if not self._settled.wait(START_TIMEOUT_S):
            self._fail(f"the broker was not ready within {START_TIMEOUT_S} s")
        found = _READY.match(self._ready_line)
        if found is None:
            self._fail(
                "the broker ended before it was ready"
                if not self._ready_line
                else f"its addresses are not where they are expected in {self._ready_line!r}"
            )
        self._port, self.http_address = int(found[1]), found[2]

    def restart(self) -> None:
        """Start it again with the same data on the same port, after `kill9` or `term`."""
        assert self._port, "restart follows a start"
        self._wait_for_port()
        self.start()

    def _wait_for_port(self) -> None:
        """Wait until nobody has the port: the system hands it to any connection while it is free.

        One that tries to reach the broker that is away may even connect to itself there.
        """
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while True:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", self._port))
                except OSError:
                    assert time.monotonic() < give_up_at, f"port {self._port} stays in use"
                else:
                    return
            time.sleep(0.05)

    def kill9(self) -> None:
        """Kill it as a crash would, and wait until it is gone."""
        assert self._process is not None, "the broker does not run"
        self._process.kill()
        self._reap()

    def term(self) -> int:
        """Ask it to drain and end, as an orchestrator would, and return its exit code.

        Raises:
            AssertionError: it did not end in time, and was killed; the text has its output.
        """
        assert self._process is not None, "the broker does not run"
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._fail(f"the broker did not end within {STOP_TIMEOUT_S} s of SIGTERM")
        return self._reap()

    def stop(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is not None:
            self.kill9()

    def logs(self) -> str:
        """Return the last lines that it printed, of all its processes."""
        return "\n".join(self._output)

    def _spawn(self) -> subprocess.Popen[str]:
        command = [
            *([sys.executable, "-c", _LAUNCHER] if sys.platform == "linux" else []),
            *(str(SERVER), "run", "--data-dir", str(self.data_dir)),
            *(
                ("--config", str(self._config))
                if self._config
                else ("--listen", f"127.0.0.1:{self._port}")
            ),
            *("--peer-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"),
            *self._options,
        ]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RIVERRUN_")}
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=inherited | self._environ,
        )

    def _follow(self, stream: IO[str] | None, hear: Callable[[str], None]) -> threading.Thread:
        """Drain one of its outputs, for a full pipe would stop it; its end is heard as ""."""
        assert stream is not None

        def drain() -> None:
            with stream:
                for line in stream:
                    self._output.append(line.rstrip("\n"))
                    self._on_line(line)
                    hear(line)
            hear("")

        thread = threading.Thread(target=drain, name="broker-output", daemon=True)
        thread.start()
        return thread

    def _heard(self, line: str) -> None:
        """Settle the start: by the line that says ready, or by the end of its output."""
        if line.startswith("ready") and not self._ready_line:
            self._ready_line = line
        elif line:
            return
        self._settled.set()

    def _reap(self) -> int:
        assert self._process is not None
        self.exit_code = self._process.wait()
        for reader in self._readers:
            reader.join()
        self._process = None
        return self.exit_code

    def _fail(self, what: str) -> NoReturn:
        self.stop()
        raise AssertionError(f"{what}; its exit code is {self.exit_code}\n{self.logs()}")
