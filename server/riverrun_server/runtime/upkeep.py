"""Keeps the store small: buries what was deleted, one bounded step after another."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from riverrun_server.ports.log import StorageError, StorageFailed
from riverrun_server.ports.threads import Threads

_log = structlog.stdlib.get_logger(__name__)

_PAUSE_S = 5.0


class Kept(Protocol):
    """What upkeep needs of a store."""

    def upkeep(self) -> bool:
        """Do one bounded step; return whether more is to be done. Blocks."""
        ...


async def keep_up(store: Kept, thread: Threads) -> None:
    """Do what there is to do, then look again every few seconds, until cancelled.

    Args:
        store: what is kept small.
        thread: a pool of one thread that nobody else uses.

    Raises:
        StorageFailed: the disk failed for good; end the process.
    """
    while True:
        more = False
        try:
            more = await thread.run(store.upkeep)
        except StorageFailed:
            raise
        except StorageError as error:
            _log.warning("upkeep of the store was put off", why=str(error))
        if not more:
            await asyncio.sleep(_PAUSE_S)
