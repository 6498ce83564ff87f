"""Where a consumer's partitions begin that have never begun: where their group has come to by then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress

from riverrun._core.records import CommittedOffset, From, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.offsets import fetch_group_offsets
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine
from riverrun.errors import RiverrunError

# How long a start may be held up by what is only worth a line in the log, and how long that line is.
_COMPARING_S = 1.0
_PLACES_TOLD = 10

_log = logging.getLogger("riverrun")


class Beginnings:
    """Looks up what a group has committed, for one consumer.

    Args:
        connections: finds brokers.
        machine: learns where partitions begin.
        settings: what is read.

    Attributes:
        added: partitions that there were not at first: they begin with their first record, for all
            of them is new.
    """

    def __init__(
        self, connections: Connections, machine: Machine, settings: SubscribeSettings
    ) -> None:
        self._connections = connections
        self._machine = machine
        self._settings = settings
        self._compared = False
        self.added: set[TopicPartition] = set()

    async def find(self, broker_id: int) -> None:
        """Look up where a group has come to, before a stream's start says where to begin.

        Explicit partitions are looked up before the first stream, and afterwards all that have
        never begun: what a start says of them counts whatever is committed. The broker is asked for
        the place by its name, so that it is the one committed by then, with its leader epoch.

        Raises:
            RiverrunError: nobody can say.
        """
        settings, machine = self._settings, self._machine
        if machine.readers:
            at = [p for p, r in machine.readers.items() if r.home == broker_id and not r.begun]
            await self.place(at)
        elif settings.committed_first:
            found = await fetch_group_offsets(
                self._connections, settings.group, settings.committed_first
            )
            committed: dict[TopicPartition, From] = {
                p: "committed" for p, at in found.items() if at is not None
            }
            machine.places = {**settings.places, **committed}
        if settings.group and settings.chosen and not self._compared:
            await self._compare()

    async def place(self, partitions: Iterable[TopicPartition]) -> None:
        """Let partitions that have never begun begin where their group has come to by now.

        Raises:
            RiverrunError: nobody can say.
        """
        settings, readers = self._settings, self._machine.readers
        asked = [p for p in partitions if not readers[p].gone and settings.follows_group(p)]
        if not asked:
            return
        found = await fetch_group_offsets(self._connections, settings.group, asked)
        for partition in asked:
            reader = readers.get(partition)
            if reader is None:
                continue
            # Meanwhile it may have begun after all, or the application has gone elsewhere.
            if not reader.begun:
                begin_at = settings.places.get(partition, settings.begin_at)
                if partition in self.added:
                    begin_at = "earliest"
                reader.place = begin_at if found.get(partition) is None else "committed"

    async def _compare(self) -> None:
        """Tell where the group's offsets count and not the place that the application has chosen.

        That is only told: what it needs is asked for once, for a moment, and may fail.
        """
        settings, self._compared = self._settings, True
        found: Mapping[TopicPartition, CommittedOffset | None] = {}
        with suppress(RiverrunError, TimeoutError):
            async with asyncio.timeout(_COMPARING_S):
                found = await fetch_group_offsets(self._connections, settings.group, ())
        named = {*settings.committed_first}
        going_on = [p for p in found if p in named or p.topic in settings.topics]
        if going_on:
            # The names are said on every start, for a group that is new; a place is meant.
            level = logging.INFO if isinstance(settings.begin_at, str) else logging.WARNING
            _log.log(
                level,
                "group %s goes on where it has committed, and from_ %s counts only elsewhere: %s; "
                "use seek to go there", settings.group, settings.begin_at,
                ", ".join(map(str, going_on[:_PLACES_TOLD])),
                extra={"riverrun_about": "from_"},
            )  # fmt: skip
