"""Watches the space on the disk, so that appends stop while trims can still make room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from riverrun_server.core.admission import DiskGate
from riverrun_server.ports.log import LogStore
from riverrun_server.ports.threads import Threads

_log = structlog.stdlib.get_logger(__name__)

# At 1 GB/s the disk loses two low-water marks' worth of the default distance in this time.
CHECK_INTERVAL_S = 0.5


def look(gate: DiskGate, free_bytes: int, total_bytes: int) -> None:
    """Tell the gate how much is free, and the log when appends stop or go on."""
    if not gate.observe(free_bytes, total_bytes):
        return
    if gate.is_open:
        _log.info(
            "the disk has room again, appends go on",
            free_bytes=free_bytes,
            needed_bytes=gate.low_bytes,
        )
    else:
        _log.error(
            "the disk is nearly full, appends are refused until there is room",
            free_bytes=free_bytes,
            needed_bytes=gate.high_bytes,
        )


async def watch_disk(
    gate: DiskGate,
    store: LogStore,
    threads: Threads,
    observe: Callable[[int], None] = lambda _free: None,
) -> None:
    """Tell the gate how much is free, until cancelled; blocked file systems block no loop."""
    while True:
        free, total = await threads.run(lambda: (store.free_bytes(), store.total_bytes()))
        observe(free)
        look(gate, free, total)
        await asyncio.sleep(CHECK_INTERVAL_S)
