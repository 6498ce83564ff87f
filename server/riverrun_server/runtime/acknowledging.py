"""Tells a member's coordinator what the member has given up, until the coordinator knows."""

from __future__ import annotations

import asyncio
from typing import Final

from riverrun_server.core.errors import Refusal
from riverrun_server.core.gateway.membership import Membership
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.membership import Attachment

_AGAIN_S: Final = 0.5


class Acknowledging:
    """What one member has given up, and its coordinator is to know.

    Transitions of a partition: given up -> said -> forgotten, with the next view; said again to another
    coordinator, and where nobody knows what became of it.

    Args:
        membership: knows what was given up.
    """

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._attachment: Attachment | None = None
        self._said: dict[PartitionId, int] = {}
        self._stirred = asyncio.Event()

    def attached(self, attachment: Attachment) -> None:
        """Say everything again, to another coordinator."""
        self._attachment = attachment
        self._said.clear()
        self._stirred.set()

    def stir(self) -> None:
        """Look at what there is to say."""
        self._stirred.set()

    async def run(self) -> None:
        """Say it until cancelled."""
        while True:
            self._stirred.clear()
            attachment = self._attachment
            pending = {
                partition: epoch
                for partition, epoch in self._membership.to_acknowledge().items()
                if self._said.get(partition) != epoch
            }
            if not pending or attachment is None:
                await self._stirred.wait()
                continue
            try:
                await attachment.revoked(pending)
            except Refusal:
                # With another attachment it goes on at once.
                try:
                    async with asyncio.timeout(_AGAIN_S):
                        await self._stirred.wait()
                except TimeoutError:
                    pass
            else:
                if attachment is self._attachment:
                    self._said.update(pending)
