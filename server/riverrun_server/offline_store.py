"""Opens the store of a data directory for an operator's command, while no broker runs on it."""

from __future__ import annotations

from riverrun_server.config.settings import Settings
from riverrun_server.runtime.clock import SystemDice
from riverrun_server.storage.options import Tuning
from riverrun_server.storage.rocks_store import RocksStore
from riverrun_server.storage.store import open_store
from riverrun_server.wire.stored import scan_batch, stored_batch


def open_offline(settings: Settings) -> RocksStore:
    """Open the store, and change nothing of it by that.

    Raises:
        StorageError: it cannot be opened, or a broker runs on it.
    """
    return open_store(
        settings.data_dir,
        broker_id=settings.broker_id,
        parse=stored_batch,
        scan=scan_batch,
        dice=SystemDice(),
        slots=1,  # those that it has: how many more the broker wants is not for us to make
        # RocksDB must not meet damaged tables before what is left has moved out of them.
        tuning=Tuning(compactions=False),
    )
