"""Moving a broker's metadata from its own store into etcd, while the broker is down."""

from __future__ import annotations

import asyncio

from riverrun_server.config.settings import Settings
from riverrun_server.metadata.documents import JsonDocuments
from riverrun_server.metadata.etcd.mark import MarkRow
from riverrun_server.metadata.etcd.standing import Mark
from riverrun_server.metadata.moving import Occupied, copy, to_copy
from riverrun_server.metadata.rows import Rows
from riverrun_server.metadata_opening import open_etcd, without_metadata_no_start
from riverrun_server.offline_store import open_offline
from riverrun_server.ports.log import Table
from riverrun_server.runtime.clock import SystemDice
from riverrun_server.runtime.supervisor import CannotStart


def move_metadata(settings: Settings) -> str:
    """Copy the metadata of a data directory into the etcd that the settings name, and use that from then on.

    Returns what was done, for a person. Where it was interrupted, doing it again completes it.

    Raises:
        CannotStart: there is nothing to move, etcd does not answer, or something else is there.
        StorageError: the store cannot be opened or written.
    """
    if settings.metadata is None:
        raise CannotStart("say where to: --metadata etcd://HOST:PORT/CLUSTER")
    store = open_offline(settings)
    try:
        with without_metadata_no_start():
            return asyncio.run(_move(settings, store.table(b"metadata")))
    finally:
        store.close()


async def _move(settings: Settings, table: Table) -> str:
    address = settings.metadata
    assert address is not None
    rows, row = Rows(table), MarkRow(table, address.prefix)
    _, entries = rows.load()
    if not entries:
        raise CannotStart(_nothing_to_move(settings, MarkRow.prefix_in(table)))
    wanted = to_copy(entries, JsonDocuments())
    newest = Mark()

    def seen(mark: Mark) -> None:
        nonlocal newest
        newest = mark

    async with open_etcd(settings, address, Mark(), seen, SystemDice()) as etcd:
        try:
            await copy(wanted, etcd)
        except Occupied as occupied:
            raise CannotStart(f"metadata {address}: {occupied}; nothing was moved") from occupied
    # One step: there is no moment at which the data directory has two homes, or none.
    table.write([row.row(newest)], rows.keys())
    return f"moved {len(wanted)} keys to {address}; start the broker with --metadata {address} from now on"


def _nothing_to_move(settings: Settings, prefix: str | None) -> str:
    if prefix is not None:
        return f"the metadata of data directory {settings.data_dir} is in etcd already, under {prefix!r}"
    return (
        f"data directory {settings.data_dir} has no metadata to move; start the broker with "
        f"--metadata {settings.metadata}"
    )
