"""Producer ids from blocks that the metadata store gives to one broker and never gives again."""

from __future__ import annotations

import asyncio
from typing import Final

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.steps import ABSENT, Step, Write
from riverrun_server.core.cluster.values import ProducerIdBlock
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.metadata import Documents, MetadataError, MetadataStore
from riverrun_server.runtime.metadata_writer import MetadataWriter, PlanOutdated, refusal_of

BLOCK_SIZE: Final = 1_000
# More than any broker hands out in a life that somebody still waits for an answer from.
_SKIPPED: Final = 1_000_000_000
# Another broker takes a block in between; so many times in a row is a livelock.
_ATTEMPTS: Final = 10
_WHAT: Final = "taking a block of producer ids"


class ProducerIds:
    """Hands out ids from 1 on; 0 stands for a producer that is not idempotent.

    A block counts as taken from the moment that the store has it, so what a crash leaves of it is
    never handed out: ids have gaps, and no id is used twice.

    Transitions: empty -> has a block (the store confirmed it) -> empty (handed out).
    """

    def __init__(
        self, store: MetadataStore, documents: Documents, dice: Dice, broker_id: int
    ) -> None:
        self._store = store
        self._documents = documents
        self._writer = MetadataWriter(store, documents, dice)
        self._broker_id = broker_id
        self._block = range(0)
        self._filling = asyncio.Lock()

    async def next(self) -> int:
        """Return an id that nobody had and nobody will have.

        Raises:
            Refusal: STORAGE_STALLED, STORAGE_FULL, STORAGE_FAILED, CONFLICT: no id was handed out.
        """
        while not self._block:
            async with self._filling:
                if not self._block:
                    try:
                        self._block = await self._take_block()
                    except MetadataError as error:
                        raise refusal_of(error, _WHAT) from error
        producer_id, self._block = self._block[0], self._block[1:]
        return producer_id

    async def skip(self) -> None:
        """Leave out many ids, because the record of which were handed out may be lost.

        Used by a broker whose store was found damaged: a new producer under an old id would have
        its records taken for duplicates of the old one's.

        Raises:
            Refusal: as `next`.
        """
        self._block = range(0)
        try:
            await self._take_block(_SKIPPED)
        except MetadataError as error:
            raise refusal_of(error, _WHAT) from error

    async def _take_block(self, size: int = BLOCK_SIZE) -> range:
        outdated: PlanOutdated | None = None
        for _ in range(_ATTEMPTS):
            entry = await self._store.get(keys.PRODUCER_IDS)
            first, revision = 1, ABSENT
            if entry is not None:
                first = self._documents.decode(ProducerIdBlock, entry).next_first
                revision = entry.mod_revision
            block = ProducerIdBlock(first=first, size=size, broker_id=self._broker_id)
            try:
                await self._writer.commit([Step((Write(keys.PRODUCER_IDS, block, revision),))])
            except PlanOutdated as error:
                outdated = error
                continue
            return range(block.first, block.next_first)
        assert outdated is not None
        raise outdated
