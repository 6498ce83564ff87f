"""A cluster of real processes: an etcd and some brokers, each of which may be killed and started again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.broker_process import BrokerProcess
from tests.metadata.etcd_process import EtcdProcess


class ClusterProcesses:
    """One etcd member and the brokers of a cluster.

    Args:
        folder: where all of them keep their data.
        brokers: how many.
        options: more flags of every broker.
        environ: variables of a broker's process, by the folder of its data.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        brokers: int = 3,
        environ: Callable[[Path], Mapping[str, str]] = lambda _: {},
    ) -> None:
        self.etcd = EtcdProcess(folder / "etcd")
        self.brokers: dict[int, BrokerProcess] = {}
        self._folder = folder
        self._options = options
        self._count = brokers
        self._environ = environ

    def start(self) -> None:
        """Start everything and wait until every broker is ready."""
        self.etcd.start()
        for broker_id in range(1, self._count + 1):
            self.add(broker_id)
        self._all(BrokerProcess.start)

    def restart(self) -> None:
        """Start every broker again where it was, all at once, after all have ended."""
        self._all(BrokerProcess.restart)

    def _all(self, what: Callable[[BrokerProcess], None]) -> None:
        with ThreadPoolExecutor(self._count) as threads:
            list(threads.map(what, self.brokers.values()))

    def add(self, broker_id: int) -> BrokerProcess:
        """Return one more broker, which is not started yet."""
        folder = self._folder / f"broker-{broker_id}"
        folder.mkdir()
        broker = self.brokers[broker_id] = BrokerProcess(
            folder,
            *("--broker-id", str(broker_id), "--host", f"host-{broker_id}"),
            *("--metadata", f"etcd://{self.etcd.address}/test"),
            *self._options,
            environ=self._environ(folder / "data"),
        )
        return broker

    @property
    def bootstrap(self) -> str:
        """Where clients find the brokers, those that are down too."""
        return ",".join(broker.address for broker in self.brokers.values())

    def stop(self) -> None:
        """Leave nothing behind."""
        with contextlib.ExitStack() as ends:
            ends.callback(self.etcd.stop)
            for broker in self.brokers.values():
                ends.callback(broker.stop)

    def logs(self) -> str:
        """Return the last lines that all brokers printed."""
        return "\n".join(
            f"--- broker {broker_id}\n{broker.logs()}" for broker_id, broker in self.brokers.items()
        )
