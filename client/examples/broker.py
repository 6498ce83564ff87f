"""A broker for the time of a demo: in a process and a folder of its own, both gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_SERVER = Path(sys.executable).parent / "riverrun-server"


class Broker:
    """A broker that can be killed and started again with the same data on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "broker.log"
        self._process: asyncio.subprocess.Process | None = None
        self.address = "127.0.0.1:0"

    async def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it is not; the text has what it said.
        """
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(_SERVER, "run", "--data-dir", self._folder / "data"),
                *("--listen", self.address, "--http-listen", "127.0.0.1:0"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for us: the broker goes when we have finished with it.
                start_new_session=True,
            )
        assert self._process.stdout is not None, "it was asked for"
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = await self._process.stdout.readline()
        ready, _, addresses = line.decode().partition(" clients=")
        if ready != "ready":
            said = self._log.read_text(errors="replace")
            raise RuntimeError(f"the broker is not ready; it said {line!r} and\n{said}")
        self.address = addresses.split()[0]

    async def kill(self) -> None:
        """Kill it as a crash would."""
        assert self._process is not None, "start it first"
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """Let it shut down in order; kill it if that takes too long."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()


@contextlib.asynccontextmanager
async def running_broker() -> AsyncIterator[Broker]:
    """Run a broker for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="riverrun-demo-") as folder:
        broker = Broker(Path(folder))
        try:
            await broker.start()
            yield broker
        finally:
            await broker.stop()
