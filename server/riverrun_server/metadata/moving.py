"""Copies a broker's own metadata into another store: all of it, or nothing that counts.

What says that a cluster is there is copied last, so a copy that was interrupted is not one yet and the
next attempt begins anew. Nothing that anybody uses is ever overwritten.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.values import PartitionValue
from riverrun_server.ports.metadata import (
    MAX_OPERATIONS,
    MAX_TRANSACTION_BYTES,
    Compare,
    Delete,
    Documents,
    Entry,
    MetadataStore,
    Operation,
    Put,
    Transaction,
)


class Occupied(Exception):
    """Another cluster's metadata, or a newer state of this one's, is where the copy should go."""


def to_copy(entries: Iterable[Entry], documents: Documents) -> dict[str, bytes]:
    """Return what stands where the metadata is to be, by key; the same for the same entries.

    Processes do not come along: a broker registers anew when it starts, and was elected by revisions
    that mean nothing in another store.
    """
    copied: dict[str, bytes] = {}
    for entry in entries:
        key = keys.parse(entry.key)
        if entry.lease or isinstance(key, keys.BrokerKey):
            continue
        copied[entry.key] = entry.value
        if isinstance(key, keys.PartitionKey):
            value = documents.decode(PartitionValue, entry)
            led_by_nobody = dataclasses.replace(value, leader_broker_epoch=0)
            nonce = entry.mod_revision.to_bytes(8, "big")
            copied[entry.key] = documents.encode(led_by_nobody, nonce)
    return copied


async def copy(wanted: dict[str, bytes], into: MetadataStore) -> bool:
    """Have a store hold these keys; return whether something had to be done.

    Raises:
        Occupied: other metadata is there; nothing was changed of it.
        UnknownOutcome, MetadataUnavailable: it is not complete, or nobody knows; copy again.
    """
    assert keys.CLUSTER in wanted, sorted(wanted)
    listing = await into.scan("")
    there = {entry.key: entry.value for entry in listing.entries}
    if keys.CLUSTER in there:
        _check_same(wanted, there)
        return False
    # Without a cluster nobody uses what is there: it is of a copy that was interrupted.
    operations: list[Operation] = [Delete(key) for key in there if key not in wanted]
    operations += [
        Put(key, value)
        for key, value in sorted(wanted.items())
        if key != keys.CLUSTER and there.get(key) != value
    ]
    for piece in _pieces(operations):
        await _transact(into, piece)
    await _transact(into, [Put(keys.CLUSTER, wanted[keys.CLUSTER])])
    return True


async def _transact(into: MetadataStore, operations: Sequence[Operation]) -> None:
    transaction = Transaction((Compare.absent(keys.CLUSTER),), tuple(operations))
    if not (await into.transact(transaction)).succeeded:
        raise Occupied("a cluster was made there meanwhile")


def _check_same(wanted: dict[str, bytes], there: dict[str, bytes]) -> None:
    if there[keys.CLUSTER] != wanted[keys.CLUSTER]:
        raise Occupied("another cluster's metadata is there; give this one a name of its own")
    different = sorted(key for key in {*wanted, *there} if wanted.get(key) != there.get(key))
    if different:
        raise Occupied(
            f"this cluster's metadata is there and {len(different)} keys are not as they are here "
            f"({different[0]} is the first): one of the two went on after a copy. If it is the one "
            "here, delete that prefix in etcd and move again"
        )


_PIECE_BYTES: Final = MAX_TRANSACTION_BYTES - (64 << 10)


def _pieces(operations: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Cut many operations into transactions that a store takes."""
    piece: list[Operation] = []
    size = 0
    for each in operations:
        bytes_more = len(each.key) + (len(each.value) if isinstance(each, Put) else 0)
        if piece and (len(piece) == MAX_OPERATIONS or size + bytes_more > _PIECE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(each)
        size += bytes_more
    if piece:
        yield piece
